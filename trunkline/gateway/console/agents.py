"""Pages of AI agents: the draft with its checks, publishing, versions, rolling back, and trying it by voice.

agents/_new                     a draft from an example
agents/KEY                      the draft; POST saves it
agents/KEY/_check               what is wrong with a text, as one types: a part of the page
agents/KEY/_publish, _roll_back, _delete
agents/KEY/_version/N           with what differs from the one before, or ?against=M
agents/KEY/_talk                the draft as it is saved, by the browser's microphone
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.console.edge import Asked, Edge, of, to
from trunkline.gateway.console.editing import Editing, Kind
from trunkline.gateway.console.forms import Form, line_diff
from trunkline.numbers.desk import Desk
from trunkline.numbers.resources import MAX_SCRIPT_CHARS
from trunkline.owned import DeskError, Kept, Version
from trunkline.ports import Refuse
from trunkline.types import TenantId

MAX_NOTE_CHARS = 500
AGENTS = Kind("agents", "agents", "agent")


class Problem(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def severity(self) -> str: ...


Check = Callable[[str], Awaitable[Sequence[Problem]]]
"""What is wrong with a script, by line; mistakes and what is not advised."""
Talk = Callable[[TenantId, str, str], Awaitable[str | Refuse]]
"""(tenant, agent, script) -> a join token of the call page's, with which one talks to that script."""


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    title: str
    script: str


def examples() -> list[Example]:
    """Of the package, but for what a device says by itself."""
    folder = files("trunkline.agents") / "examples"
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".toml") and path.name != "offline.toml":
            text = path.read_text(encoding="utf-8")
            comment = next((line for line in text.splitlines() if line.startswith("#")), "").lstrip("# ")
            found.append(Example(path.name.removesuffix(".toml"), comment.partition(". ")[0][:80], text))
    return [*found, Example("blank", "An empty script, to write yourself", "")]


class AgentPages:
    def __init__(
        self, edge: Edge, desk: Desk, check: Check, talk: Talk | None = None, *, can_try: bool = False
    ) -> None:
        self._edge, self._desk, self._check, self._talk, self._can_try = edge, desk, check, talk, can_try
        self._editing = Editing(edge, desk, AGENTS)
        self._editing.more_of_list = self._users
        self.examples = examples()

    def routes(self) -> list[Route]:
        edge = self._edge
        return [
            edge.get("agents", self._editing.list),
            edge.get("agents/_new", self.fresh, "write"),
            edge.post("agents/_new", self.make),
            edge.get("agents/{key}", self.look),
            edge.post("agents/{key}", self.save),
            edge.post("agents/{key}/_check", self.check),
            edge.post("agents/{key}/_publish", self.publish),
            edge.post("agents/{key}/_roll_back", self.roll_back),
            edge.post("agents/{key}/_delete", self.delete),
            edge.get("agents/{key}/_version/{number:int}", self.version),
            *([edge.post("agents/{key}/_talk", self.talk)] if self._talk is not None else []),
        ]

    async def _users(self, asked: Asked, items: Sequence[Kept]) -> Mapping[str, Any]:
        store, tenant = self._desk.store, asked.who.tenant
        return {"users": {kept.key: await store.used_by(tenant, "agents", kept.key, 8) for kept in items}}

    # --- a draft ---

    async def fresh(self, asked: Asked) -> Response:
        return self._new(asked, Form({"example": self.examples[0].name}))

    def _new(self, asked: Asked, form: Form, status: int = 200) -> Response:
        options = [(each.name, f"{each.name}: {each.title}") for each in self.examples]
        return self._edge.show(asked, "agents_new.html", {"f": form, "examples": options}, status)

    async def make(self, asked: Asked) -> Response:
        typed = asked.fields
        script = next((each.script for each in self.examples if each.name == typed.get("example")), "")
        fields = {"name": typed.get("name", ""), "label": typed.get("label", ""), "draft": script}
        try:
            kept = await self._desk.make(asked.who.tenant, asked.who.actor, "agents", fields)
        except DeskError as error:
            return self._new(asked, Form(typed, error.fields, error.why), 409 if error.code == "taken" else 422)
        return to(of("agents", kept.key), said="made")

    async def look(self, asked: Asked) -> Response:
        kept = await self._desk.get(asked.who.tenant, "agents", asked.key)
        return await self._show(asked, kept, Form(kept.body))

    async def save(self, asked: Asked) -> Response:
        who, typed = asked.who, asked.fields
        fields = {"label": typed.get("label", ""), "draft": typed.get("draft", "")}
        kept = await self._desk.get(who.tenant, "agents", asked.key)
        try:
            after = await self._desk.replace(who.tenant, who.actor, "agents", asked.key, fields, asked.version)
        except DeskError as error:
            form = Form(fields, error.fields, error.why)
            if error.code != "stale":
                return await self._show(asked, kept, form, 422)
            stale = line_diff(str(kept.body["draft"]), str(fields["draft"]))
            return await self._show(asked, kept, form, 412, stale)
        return to(of("agents", asked.key), said="same" if after.version == kept.version else "saved")

    async def check(self, asked: Asked) -> Response:
        text = str(asked.form.get("draft", ""))
        if len(text) > MAX_SCRIPT_CHARS:
            raise HTTPException(413, f"A script has at most {MAX_SCRIPT_CHARS} characters.")
        return self._edge.show(asked, "agents_problems.html", {"problems": await self._problems(text)})

    async def _problems(self, text: str) -> Sequence[Problem]:
        return await self._check(text) if text.strip() else []

    async def _show(
        self,
        asked: Asked,
        kept: Kept,
        form: Form,
        status: int = 200,
        stale: Sequence[tuple[str, str]] = (),
        *,
        is_publishing: bool = False,
    ) -> Response:
        tenant, store = asked.who.tenant, self._desk.store
        number, draft = kept.body["published"], str(kept.body["draft"])
        published = await store.version(tenant, kept.key, number) if number is not None else None
        against = [] if published is None else await asyncio.to_thread(line_diff, published.script, draft)
        context = {
            "kept": kept,
            "f": form,
            "at_version": kept.version,
            "published": published,
            "differs": published is None or published.script != draft,
            "draft_diff": against,
            "versions": await store.versions(tenant, kept.key),
            "used_by": await store.used_by(tenant, "agents", kept.key),
            "problems": await self._problems(form.value("draft")),
            "stale": stale,
            "is_publishing": is_publishing,
            "can_try": self._can_try,
            "can_talk": self._talk is not None,
        }
        return self._edge.show(asked, "agents_one.html", context, status)

    # --- versions ---

    async def publish(self, asked: Asked) -> Response:
        who, note = asked.who, str(asked.form.get("note", ""))[:MAX_NOTE_CHARS]
        try:
            await self._desk.publish(who.tenant, who.actor, asked.key, note, asked.version)
        except DeskError as error:
            return await self._refused(asked, error, is_publishing=True)
        return to(of("agents", asked.key), said="published")

    async def roll_back(self, asked: Asked) -> Response:
        who, number = asked.who, str(asked.form.get("number", ""))
        if not (number.isascii() and number.isdigit() and 0 < len(number) < 8):
            raise HTTPException(422, "number: the number of a version")
        try:
            await self._desk.roll_back(who.tenant, who.actor, asked.key, int(number), asked.version)
        except DeskError as error:
            return await self._refused(asked, error)
        return to(of("agents", asked.key), said="rolled")

    async def delete(self, asked: Asked) -> Response:
        try:
            await self._desk.delete(asked.who.tenant, asked.who.actor, "agents", asked.key, asked.version)
        except DeskError as error:
            return await self._refused(asked, error)
        return to("agents", said="deleted")

    async def _refused(self, asked: Asked, error: DeskError, *, is_publishing: bool = False) -> Response:
        kept = await self._desk.get(asked.who.tenant, "agents", asked.key)
        status = {"stale": 412, "in_use": 409, "not_found": 404}.get(error.code, 422)
        form = Form(kept.body, error.fields, error.why)
        return await self._show(asked, kept, form, status, is_publishing=is_publishing)

    async def version(self, asked: Asked) -> Response:
        tenant, store = asked.who.tenant, self._desk.store
        kept = await self._desk.get(tenant, "agents", asked.key)
        number = int(asked.request.path_params["number"])
        found = await store.version(tenant, kept.key, number) if number < 2**31 else None
        if found is None:
            raise HTTPException(404, f"Agent {kept.key} has no version {number}.")
        versions = await store.versions(tenant, kept.key)
        before = _compared(versions, number, asked.query("against", 8))
        diff = [] if before is None else await asyncio.to_thread(line_diff, before.script, found.script)
        context = {"kept": kept, "version": found, "versions": versions, "before": before, "diff": diff}
        return self._edge.show(asked, "agents_version.html", context)

    # --- by voice ---

    async def talk(self, asked: Asked) -> Response:
        assert self._talk is not None
        kept = await self._desk.get(asked.who.tenant, "agents", asked.key)
        token = await self._talk(asked.who.tenant, kept.key, str(kept.body["draft"]))
        if isinstance(token, Refuse):
            return await self._show(asked, kept, Form(kept.body, why=f"It cannot be tried: {token.why}"), 409)
        context = {"kept": kept, "token": token}
        return self._edge.show(asked, "agents_talk.html", context, headers=self._edge.pages.with_call_page())


def _compared(versions: Sequence[Version], number: int, against: str) -> Version | None:
    wanted = int(against) if against.isascii() and against.isdigit() else None
    chosen = next((each for each in versions if each.number == wanted), None)
    return chosen or next((each for each in versions if each.number < number), None)
