"""A tenant's desk as a file: `trunkline export`, and `trunkline apply`, which says what it would change, and changes it
in one transaction.

    [tenant]                        as docs/numbers.md has the kinds; what is as by default is left out
    [[agents]]                      `script` is the published version's text: another text is published as the next one
    [[numbers]]                     kinds that the file does not have are left alone

Secrets are not in an export, and one that a file does not have stays as it is.
"""

import asyncio
import json
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from trunkline.numbers.desk import Desk, new, read
from trunkline.numbers.resources import KINDS, Agent, Resource, Tenant
from trunkline.owned import Body, Changing, DeskError, Kept, New
from trunkline.types import TenantId

MAX_BYTES = 64 * 1024 * 1024
SCRIPT = "script"
"""Of an agent in a file: the text of its published version."""


@dataclass(frozen=True, slots=True)
class Step:
    action: str
    """create, replace, publish, delete."""
    kind: str
    key: str
    before: Body | None = None
    after: Body | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """That differ."""
        old, now = self.before or {}, self.after or {}
        return tuple(name for name in {**old, **now} if old.get(name) != now.get(name))


def read_document(text: str, *, is_json: bool = False) -> dict[str, Any]:
    """Raises DeskError."""
    try:
        found = json.loads(text) if is_json else tomllib.loads(text)
    except ValueError as error:
        raise DeskError("invalid_fields", f"the file cannot be read: {error}") from None
    except RecursionError:
        raise DeskError("invalid_fields", "the file cannot be read: it is nested too deep") from None
    if not isinstance(found, dict):
        raise DeskError("invalid_fields", "the file: a table of kinds expected")
    return found


def written(document: Mapping[str, Any]) -> str:
    """TOML, in which scripts stand as they were written."""
    texts: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: marked(each) for name, each in value.items()}
        if isinstance(value, list):
            return [marked(each) for each in value]
        if isinstance(value, str) and "\n" in value and _LITERAL.fullmatch(value) and "'''" not in value:
            texts.append(value)
            return f"{_MARK}{len(texts) - 1}"
        return value

    plain = tomli_w.dumps(marked(document))
    return _MARKED.sub(lambda found: f"'''\n{texts[int(found[1])]}'''", plain)


_MARK = f"text-{secrets.token_hex(8)}-"  # nobody's words
_MARKED = re.compile(f'"{_MARK}([0-9]+)"')
_LITERAL = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*[^'\x00-\x08\x0b-\x1f\x7f]")


async def export(desk: Desk, tenant: TenantId) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for kind, model in KINDS.items():
        items = [_as_written(model, kept) async for kept in desk.store.every(tenant, kind)]
        for item in items if model is Agent else ():
            version = item.pop("published", None)
            published = await desk.store.version(tenant, item["name"], version) if version is not None else None
            if published is not None:
                item[SCRIPT] = published.script
                if item.get("draft") == published.script:
                    del item["draft"]
        if items:
            document[kind] = items[0] if model is Tenant else items
    return document


def _as_written(model: type[Resource], kept: Kept) -> dict[str, Any]:
    resource = model.model_validate(kept.body)
    short = _without_nulls(resource.model_dump(mode="json", exclude_defaults=True))
    _say_kinds(short, resource.model_dump(mode="json"))
    return short


def _say_kinds(short: Any, whole: Any) -> None:
    """What a union is told apart by is a default of each of its kinds."""
    if isinstance(short, dict):
        if "kind" in whole:
            short["kind"] = whole["kind"]
        for name, each in short.items():
            _say_kinds(each, whole[name])
    elif isinstance(short, list):
        for one, other in zip(short, whole, strict=True):
            _say_kinds(one, other)


def _without_nulls(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(each) for name, each in table.items() if each is not None}


def _plain(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, Mapping):
        return _without_nulls(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


async def apply(
    desk: Desk, tenant: TenantId, actor: str, document: Mapping[str, Any], *, prune: bool = False, keep: bool = True
) -> Sequence[Step]:
    """All of it or nothing. `prune`: of the kinds that the file has, what it has not is deleted. `keep` False: only to
    see the steps. Raises DeskError, whose fields begin with the place in the file, such as `numbers.3.route`."""
    wanted = await asyncio.to_thread(_read_all, document)  # a hundred thousand numbers take seconds
    steps: list[Step] = []
    async with desk.store.changing(tenant, actor, keep=keep) as changes:
        there = {kind: await changes.all(kind) for kind in wanted}
        for kind, entries in wanted.items():
            await _bring(desk, changes, kind, entries, there[kind], steps)
        if prune:
            for kind in reversed(wanted):
                gone = there[kind].keys() - {entry.resource.key for entry in wanted[kind]}
                for key in sorted(gone):
                    await changes.delete(kind, key)
                    steps.append(Step("delete", kind, key, there[kind][key].body))
    if keep and steps:
        desk.changed(tenant)
    return steps


@dataclass(frozen=True, slots=True)
class _Entry:
    resource: Resource
    place: str
    script: str | None = None


async def _bring(
    desk: Desk, changes: Changing, kind: str, entries: Sequence[_Entry], there: Mapping[str, Kept], steps: list[Step]
) -> None:
    made: list[New] = []
    for entry in entries:
        kept = there.get(entry.resource.key)
        resource = _with_what_is_there(entry, kept)
        with _placed(entry.place):
            await desk.check(changes, resource)
        if kept is None:
            made.append(new(resource))
            steps.append(Step("create", kind, resource.key, None, _told(resource)))
            continue
        with _placed(entry.place):
            after = await changes.replace(new(resource))
        if after.version != kept.version:
            steps.append(Step("replace", kind, resource.key, kept.body, after.body))
    if made:
        await changes.create(made)
    for entry in entries:
        if entry.script is not None:
            await _publish(desk, changes, entry, steps)


async def _publish(desk: Desk, changes: Changing, entry: _Entry, steps: list[Step]) -> None:
    kept = await changes.get(Agent.kind, entry.resource.key)
    assert kept is not None
    assert entry.script is not None
    number = kept.body["published"]
    before = await changes.version(kept.key, number) if number is not None else None
    if before is None or before.script != entry.script:
        with _placed(entry.place):
            version = await desk.published(changes, kept, entry.script, "applied from a file")
        told = {"published": version.number, SCRIPT: version.script}
        old = None if before is None else {"published": before.number, SCRIPT: before.script}
        steps.append(Step("publish", Agent.kind, kept.key, old, told))


def _with_what_is_there(entry: _Entry, kept: Kept | None) -> Resource:
    """A file says nothing of versions, and of a draft only where it is another text."""
    if not isinstance(entry.resource, Agent):
        return entry.resource
    published = None if kept is None else kept.body["published"]
    draft = entry.resource.draft or entry.script or ("" if kept is None else kept.body["draft"])
    return entry.resource.model_copy(update={"published": published, "draft": draft})


def _told(resource: Resource) -> Body:
    body = resource.model_dump(mode="json")
    return {name: value for name, value in body.items() if name not in resource.secrets}


def _read_all(document: Mapping[str, Any]) -> dict[str, list[_Entry]]:
    if unknown := sorted(document.keys() - KINDS.keys()):
        told = f"there is no kind {unknown[0]}: {', '.join(KINDS)}"
        raise DeskError("invalid_fields", told, {unknown[0]: "a kind"})
    found: dict[str, list[_Entry]] = {}
    for kind in KINDS:
        if kind not in document:
            continue
        given = document[kind]
        entries: list[tuple[dict[str, Any], str]]
        if kind == Tenant.kind and isinstance(given, dict):
            entries = [({"name": "tenant", **given}, kind)]
        elif kind != Tenant.kind and isinstance(given, list) and all(isinstance(each, dict) for each in given):
            entries = [(each, f"{kind}.{place}") for place, each in enumerate(given)]
        else:
            wanted = f"a table, [{kind}]" if kind == Tenant.kind else f"tables, [[{kind}]]"
            raise DeskError("invalid_fields", f"{kind}: {wanted}", {kind: wanted})
        found[kind] = [_entry(kind, fields, place) for fields, place in entries]
        keys = [entry.resource.key for entry in found[kind]]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DeskError("invalid_fields", f"{kind}: {twice} is there twice", {kind: f"each once, but {twice}"})
    return found


def _entry(kind: str, fields: Mapping[str, Any], place: str) -> _Entry:
    script = fields.get(SCRIPT) if kind == Agent.kind else None
    if script is not None and not isinstance(script, str):
        raise DeskError("invalid_fields", f"{place}.{SCRIPT}: a text", {f"{place}.{SCRIPT}": "a text"})
    if kind == Agent.kind:
        fields = {name: value for name, value in fields.items() if name not in (SCRIPT, "published")}
    with _placed(place):
        return _Entry(read(kind, fields), place, script)


class _placed:
    """Says of a DeskError where in the file it was."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DeskError):
            fields = {f"{self._place}.{path}" if path else self._place: why for path, why in error.fields.items()}
            raise DeskError(error.code, f"{self._place}: {error.why}", fields) from None
