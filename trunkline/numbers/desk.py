"""The desk of a tenant: what admins own is looked at, changed, published and taken along as a file.

What comes in is checked here (`resources`), then written by the store in one transaction per order, which also sees to
it that what is named is there. `changed` is told of every tenant whose desk has changed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import phonenumbers
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trunkline.numbers.resources import KINDS, Agent, ByAgents, Number, Resource, Route, Share, Tenant, said
from trunkline.owned import Changing, DeskError, DeskStore, Kept, New, Version
from trunkline.types import TenantId

CheckScript = Callable[[str], Sequence[str]]
"""What is wrong with an agent script, a line each."""


class Desk:
    """All raise DeskError, and StoreError when the database is away."""

    def __init__(
        self,
        store: DeskStore,
        check_script: CheckScript,
        changed: Callable[[TenantId], None] = lambda tenant: None,
    ) -> None:
        self.store, self._check_script, self.changed = store, check_script, changed

    async def get(self, tenant: TenantId, kind: str, key: str) -> Kept:
        """Of the tenant itself, what holds where nothing was said. Code: not_found."""
        found = await self.store.get(tenant, kind, key)
        if found is None:
            raise DeskError("not_found", f"there is no such {kind.removesuffix('s')}")
        return found

    async def make(self, tenant: TenantId, actor: str, kind: str, fields: Mapping[str, Any]) -> Kept:
        resource = read(kind, fields)
        async with self.store.changing(tenant, actor) as changes:
            if isinstance(resource, Agent) and await changes.get(kind, resource.key) is not None:
                raise DeskError(
                    "taken", f"agent {resource.key} is there already", {"name": "one that is not there yet"}
                )
            await self.check(changes, resource)
            await changes.create([new(resource)])
            made = await changes.get(kind, resource.key)
        self.changed(tenant)
        assert made is not None
        return made

    async def replace(
        self,
        tenant: TenantId,
        actor: str,
        kind: str,
        key: str,
        fields: Mapping[str, Any],
        if_version: int | None = None,
    ) -> Kept:
        """Whole; secrets that are not given stay, and so does an agent's published version. A key is for good."""
        resource = read(kind, {KINDS[kind].key_field: key, **fields})
        if resource.key != key:
            raise _wrong(KINDS[kind].key_field, f"{key}: it cannot be renamed")
        async with self.store.changing(tenant, actor) as changes:
            if isinstance(resource, Agent) and "published" not in fields:
                there = await changes.get(kind, key)
                resource = resource.model_copy(update={"published": there and there.body["published"]})
            await self.check(changes, resource)
            if kind == Tenant.kind and await changes.get(kind, key) is None:
                if if_version not in (None, 0):
                    raise DeskError("stale", "the tenant's terms are not set yet: look at them again")
                await changes.create([new(resource)])
                kept = await changes.get(kind, key)
                assert kept is not None
            else:
                kept = await changes.replace(new(resource), if_version)
        self.changed(tenant)
        return kept

    async def delete(self, tenant: TenantId, actor: str, kind: str, key: str, if_version: int | None = None) -> None:
        async with self.store.changing(tenant, actor) as changes:
            await changes.delete(kind, key, if_version)
        self.changed(tenant)

    # --- agents and their versions ---

    async def publish(
        self, tenant: TenantId, actor: str, name: str, note: str = "", if_version: int | None = None
    ) -> Version:
        """The draft becomes the next version, which answers from now on. Codes: not_found, stale, invalid_fields."""
        async with self.store.changing(tenant, actor) as changes:
            kept = await changes.get(Agent.kind, name)
            if kept is None:
                raise DeskError("not_found", f"there is no agent {name}")
            if if_version is not None and kept.version != if_version:
                told = f"agent {name} was changed meanwhile (it is at {kept.version}): look at it again"
                raise DeskError("stale", told)
            version = await self.published(changes, kept, str(kept.body["draft"]), note)
        self.changed(tenant)
        return version

    async def roll_back(
        self, tenant: TenantId, actor: str, name: str, number: int, if_version: int | None = None
    ) -> Kept:
        """To a version that there is. Those after it stay, and may be gone back to as well."""
        async with self.store.changing(tenant, actor) as changes:
            if await changes.version(name, number) is None:
                raise DeskError("not_found", f"agent {name} has no version {number}")
            kept = await changes.get(Agent.kind, name)
            assert kept is not None
            agent = read(Agent.kind, {**kept.body, "published": number})
            kept = await changes.replace(new(agent), if_version, "roll_back")
        self.changed(tenant)
        return kept

    async def published(self, changes: Changing, kept: Kept, script: str, note: str) -> Version:
        """A version of this script, which answers once the transaction is over. `kept`: the agent as it is now."""
        if not script.strip():
            raise _wrong("draft", "an agent script: it is empty")
        if problems := await asyncio.to_thread(self._check_script, script):
            told = f"the script of {kept.key} has mistakes: {problems[0]}"
            raise DeskError("invalid_fields", told, _each("draft", problems))
        version = await changes.add_version(kept.key, script, note)
        await changes.replace(new(read(Agent.kind, {**kept.body, "published": version.number})), action="publish")
        return version

    # --- what holds beyond one resource ---

    async def check(self, changes: Changing, resource: Resource) -> None:
        """Raises DeskError for what the store does not see by itself."""
        if isinstance(resource, Agent):
            before = await changes.get(Agent.kind, resource.name)
            if resource.published != (None if before is None else before.body["published"]):
                raise _wrong("published", "as it is: publish and roll back have their own ways")
        if isinstance(resource, Number):
            await self._ours(changes, resource)
        for path, share in _shares(resource):
            if share.version is not None and await changes.version(share.agent, share.version) is None:
                raise _wrong(f"{path}.version", f"a version of agent {share.agent}: it has no {share.version}")

    async def _ours(self, changes: Changing, number: Number) -> None:
        country = country_of(number.number)
        terms = await changes.get(Tenant.kind, "tenant")
        allowed = terms.body["countries"] if terms is not None else ()
        if allowed and country not in allowed:
            told = f"a number of {', '.join(allowed)} (the tenant's countries): {number.number} is of {country}"
            raise _wrong("number", told)


def country_of(number: str) -> str:
    """Two letters; `001` for numbers of no country. Raises DeskError for what no phone has."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        raise _wrong("number", f"a phone number: {number} is of no country") from None
    if not phonenumbers.is_possible_number(parsed):
        raise _wrong("number", f"a phone number: {number} has too few or too many digits for its country")
    return (
        phonenumbers.region_code_for_country_code(parsed.country_code or 0)
        if (region := phonenumbers.region_code_for_number(parsed)) is None
        else region
    )


def read(kind: str, fields: Mapping[str, Any]) -> Resource:
    """Raises DeskError invalid_fields, with every wrong field."""
    try:
        return KINDS[kind].model_validate(dict(fields))
    except ValidationError as error:
        wrong = _each_field(error)
        told = "; ".join(f"{path}: {why}" if path else why for path, why in wrong.items())
        raise DeskError("invalid_fields", told, wrong) from None


def new(resource: Resource) -> New:
    return New(resource.kind, resource.key, resource.model_dump(mode="json"), tuple(dict.fromkeys(resource.uses())))


def shown(kept: Kept) -> dict[str, Any]:
    """As the API gives it: secrets are `has_NAME`."""
    secrets = KINDS[kept.kind].secrets
    body = {name: value for name, value in kept.body.items() if name not in secrets}
    has = {f"has_{name}": name in kept.secrets for name in secrets}
    stamps = {"created_at": kept.created_at.isoformat(), "updated_at": kept.updated_at.isoformat()}
    return {**body, **has, "version": kept.version, **stamps}


def _shares(resource: Resource) -> Iterable[tuple[str, Share]]:
    if isinstance(resource, Number):
        yield from ((f"agents.{place}", share) for place, share in enumerate(resource.agents))
    if isinstance(resource, Route):
        answers = {"answer": resource.answer, "closed": resource.closed}
        answers |= {f"rules.{place}.answer": rule.answer for place, rule in enumerate(resource.rules)}
        for path, answer in answers.items():
            if isinstance(answer, ByAgents):
                yield from ((f"{path}.agents.{place}", share) for place, share in enumerate(answer.agents))


def _each_field(error: ValidationError) -> dict[str, str]:
    """A list is not told to be too short because what is in it is wrong."""
    found = {_path(each): said(each) for each in error.errors(include_url=False)}
    return {path: why for path, why in found.items() if not any(other.startswith(f"{path}.") for other in found)}


def _path(error: ErrorDetails) -> str:
    """Without the names of what a union chose."""
    loc = error["loc"]
    told = [part for part, last in zip(loc, ("", *loc), strict=False) if last not in ("answer", "closed")]
    return ".".join(map(str, (*told, *filter(None, [error.get("ctx", {}).get("key")]))))


def _wrong(field: str, wanted: str) -> DeskError:
    return DeskError("invalid_fields", f"{field}: {wanted}", {field: wanted})


def _each(field: str, problems: Sequence[str]) -> dict[str, str]:
    return {f"{field}.{place}": problem for place, problem in enumerate(problems[:50])}
