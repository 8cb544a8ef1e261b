"""Pages of one kind of resource: its list, a form that makes one, one that changes it, and its deletion.

GET   numbers                  a page of the list
GET   numbers/_new             (no key begins with _)
POST  numbers/_new             303, or the form again with what is wrong
GET   numbers/KEY
POST  numbers/KEY              412: with what has changed meanwhile, and what was typed
POST  numbers/KEY/_delete      409: with who uses it
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.console.edge import Asked, Edge, of, to
from trunkline.gateway.console.forms import Form, changed, differences, given
from trunkline.numbers.desk import Desk
from trunkline.owned import DeskError, Kept
from trunkline.types import TenantId

PAGE = 50
MAX_CHOICES = 500

Choices = Mapping[str, Sequence[str]]
"""By kind: the keys of what a form may name."""


@dataclass(frozen=True, slots=True)
class Kind:
    kind: str
    path: str
    one: str
    """As people call it."""
    tidy: Callable[[dict[str, Any]], dict[str, Any]] = given
    """From what a form says to what the desk takes."""
    untidy: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda body: body
    """From what is kept to what a form shows."""
    names: Sequence[str] = ()
    """The kinds that its form lets choose from."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """Of its list: parameter -> field."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """What a new one's form has."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Fields that cannot be named so in a form: an input named `matches` hides the method that scripts call."""

    def wrong(self, error: DeskError) -> dict[str, str]:
        """By the form's fields."""
        found = {}
        for path, why in error.fields.items():
            first, dot, rest = path.partition(".")
            found[f"{self.renamed.get(first, first)}{dot}{rest}"] = why
        return found


class Editing:
    def __init__(self, edge: Edge, desk: Desk, kind: Kind) -> None:
        self._edge, self._desk, self.kind = edge, desk, kind
        self.more: Callable[[Asked, Kept | None], Awaitable[Mapping[str, Any]]] = _nothing
        """What a form's page shows besides."""
        self.more_of_list: Callable[[Asked, Sequence[Kept]], Awaitable[Mapping[str, Any]]] = _nothing_more

    def routes(self) -> list[Route]:
        edge, path = self._edge, self.kind.path
        return [
            edge.get(path, self.list),
            edge.get(f"{path}/_new", self.fresh, "write"),
            edge.post(f"{path}/_new", self.make),
            edge.get(f"{path}/{{key}}", self.look),
            edge.post(f"{path}/{{key}}", self.replace),
            edge.post(f"{path}/{{key}}/_delete", self.delete),
        ]

    # --- looking ---

    async def list(self, asked: Asked) -> Response:
        kind, search = self.kind, asked.query("search")
        filters = {name: value for name in kind.filters if (value := asked.query(name))}
        where: dict[str, Any] = {}
        for name, value in filters.items():
            where |= {"uses": (kind.filters[name], value)} if name == "agent" else {kind.filters[name]: value}
        try:
            page = await self._desk.store.page(
                asked.who.tenant,
                kind.kind,
                limit=PAGE,
                cursor=asked.query("cursor", 200) or None,
                search=search,
                where=where,
            )
        except ValueError:
            raise HTTPException(
                400, "This page of the list is not there any more. Please begin at the first."
            ) from None
        told = {"search": search, **filters}
        following = urlencode({**told, "cursor": page.next_cursor}) if page.next_cursor else ""
        context = {
            "kind": kind,
            "items": page.items,
            "search": search,
            "filters": filters,
            "following": following,
            "is_first": not asked.query("cursor", 200),
            "choices": await choices(self._desk, asked.who.tenant, kind.names),
            **await self.more_of_list(asked, page.items),
        }
        return self._edge.show(asked, f"{kind.path}.html", context)

    async def fresh(self, asked: Asked) -> Response:
        start = dict(self.kind.start)
        key_field = "number" if self.kind.kind == "numbers" else "name"
        if key := asked.query("key", 60):
            start[key_field] = key
        return await self._form(asked, Form(start), None)

    async def look(self, asked: Asked) -> Response:
        kept = await self._desk.get(asked.who.tenant, self.kind.kind, asked.key)
        return await self._form(asked, Form(self.kind.untidy(kept.body)), kept)

    # --- changing ---

    async def make(self, asked: Asked) -> Response:
        typed = asked.fields
        if (focus := changed(typed, asked.do)) or asked.do != "save":
            return await self._form(asked, Form(typed, focus=focus), None)
        who = asked.who
        try:
            kept = await self._desk.make(who.tenant, who.actor, self.kind.kind, self.kind.tidy(typed))
        except DeskError as error:
            return await self._again(asked, typed, error, None)
        return to(of(self.kind.path, kept.key), said="made")

    async def replace(self, asked: Asked) -> Response:
        typed, who = asked.fields, asked.who
        kept = await self._desk.get(who.tenant, self.kind.kind, asked.key)
        if (focus := changed(typed, asked.do)) or asked.do != "save":
            return await self._form(asked, Form(typed, focus=focus), kept, asked.version)
        fields = self.kind.tidy(typed)
        try:
            after = await self._desk.replace(who.tenant, who.actor, self.kind.kind, asked.key, fields, asked.version)
        except DeskError as error:
            return await self._again(asked, typed, error, kept)
        return to(of(self.kind.path, asked.key), said="same" if after.version == kept.version else "saved")

    async def delete(self, asked: Asked) -> Response:
        who, kind = asked.who, self.kind.kind
        kept = await self._desk.get(who.tenant, kind, asked.key)
        try:
            await self._desk.delete(who.tenant, who.actor, kind, asked.key, asked.version)
        except DeskError as error:
            if error.code not in ("in_use", "stale"):
                raise
            form = Form(self.kind.untidy(kept.body), why=error.why)
            return await self._form(asked, form, kept, status=409 if error.code == "in_use" else 412)
        return to(self.kind.path, said="deleted")

    # --- the form ---

    async def _again(self, asked: Asked, typed: Mapping[str, Any], error: DeskError, kept: Kept | None) -> Response:
        """With what was typed. Of a stale one, with what is there now: saved again, it takes its place."""
        status = {"stale": 412, "taken": 409, "not_found": 404}.get(error.code, 422)
        form = Form(typed, self.kind.wrong(error), error.why)
        if error.code != "stale" or kept is None:
            return await self._form(asked, form, kept, asked.version, status)
        try:
            mine = self.kind.tidy(dict(typed))
        except DeskError:
            mine = dict(typed)
        theirs = {name: value for name, value in kept.body.items() if name in mine}
        meanwhile = differences(theirs, {name: mine[name] for name in theirs})
        return await self._form(asked, form, kept, kept.version, 412, meanwhile)

    async def _form(
        self,
        asked: Asked,
        form: Form,
        kept: Kept | None,
        version: int | None = None,
        status: int = 200,
        meanwhile: Sequence[Any] = (),
    ) -> Response:
        tenant = asked.who.tenant
        used_by = [] if kept is None else await self._desk.store.used_by(tenant, self.kind.kind, kept.key)
        context = {
            "kind": self.kind,
            "f": form,
            "kept": kept,
            "at_version": version if version is not None else None if kept is None else kept.version,
            "meanwhile": meanwhile,
            "used_by": used_by,
            "choices": await choices(self._desk, tenant, self.kind.names),
            **await self.more(asked, kept),
        }
        return self._edge.show(asked, f"{self.kind.path}_one.html", context, status)


async def _nothing(asked: Asked, kept: Kept | None) -> Mapping[str, Any]:
    return {}


async def _nothing_more(asked: Asked, items: Sequence[Kept]) -> Mapping[str, Any]:
    return {}


async def choices(desk: Desk, tenant: TenantId, kinds: Sequence[str]) -> Choices:
    """The first MAX_CHOICES of each."""
    found = {}
    for kind in kinds:
        page = await desk.store.page(tenant, kind, limit=MAX_CHOICES)
        found[kind] = [kept.key for kept in page.items]
    return found
