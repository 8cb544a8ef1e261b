"""The directory: what this process remembers of the numbers that are called, so that a call need not ask the database.

A number is read when it is called first, and so are its tenant's desk (terms, patterns, published versions) and its
route; numbers that are nobody's are remembered too. What a tenant's change made old is read again: its revision is
looked at once a second, of all tenants in one question, and `changed` says so at once in this process.

    view ─► remembered, and no change noticed since ───────────► the View
        └─► else read ─┬─► the View
                       └─► slow, or the database is away ─► what was remembered, however old; else None

One read that is slow says nothing of the others. A database is away that says so, or does not answer a look.

Every entry has the turn at which its reading began; a change takes the next turn, and what began before it is old.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from trunkline.errors import StoreError
from trunkline.numbers.patterns import Match, Patterns
from trunkline.numbers.resources import Hours, Number, Resource, Route, Tenant
from trunkline.numbers.routing import View
from trunkline.ports import Columns, NumberRows
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger(__name__)

MAX_NUMBERS = 20_000
"""About 2 KB each."""
MAX_DESKS = 1_000
LOOK_S = 1.0
READ_S = 1.5
"""A caller waits."""

_R = TypeVar("_R", bound=Resource)


@dataclass(slots=True)
class _Entry:
    turn: int
    tenant: TenantId | None
    """None: nobody's."""
    number: Number | None


@dataclass(slots=True)
class _Desk:
    turn: int
    terms: Tenant
    patterns: Patterns
    published: Mapping[str, int | None]
    routes: dict[str, tuple[Route | None, Mapping[str, Hours]]] = field(default_factory=dict)
    """Those that were called for."""


class Directory:
    """Of one process."""

    def __init__(self, rows: NumberRows, max_numbers: int = MAX_NUMBERS) -> None:
        self._rows, self._max_numbers = rows, max_numbers
        self._numbers: OrderedDict[str, _Entry] = OrderedDict()
        self._desks: OrderedDict[TenantId, _Desk] = OrderedDict()
        self._turn = 0
        self._changed_at: dict[TenantId, int] = {}
        self._any_changed_at = 0
        self._seen: dict[TenantId, int] | None = None
        """Revisions, as last looked at. None: not yet."""
        self._away = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks once, then every LOOK_S."""
        await self.look()
        self._task = asyncio.create_task(self._keep_looking(), name="numbers")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def is_empty(self) -> bool:
        """No tenant's desk has anything: every call is the gateway's own agent's."""
        return self._seen is not None and not self._seen

    # --- look-up ---

    def remembered(self, number: str | None, trunk: str = "", tenant: TenantId | None = None) -> View | None:
        """At once. `number`: what is called; `trunk`: over which, empty where over none; `tenant`: whose trunk it is,
        None for the gateway's own ways in. A tenant's own trunk brings calls to its own numbers only; the gateway's to
        all that have no trunk of another tenant's, and to the default tenant's patterns. None: it must be read, with
        `view`."""
        return None if self.is_empty else self._compose(number or "", trunk, tenant, old=False)

    async def view(self, number: str | None, trunk: str = "", tenant: TenantId | None = None) -> View | None:
        """Does not raise, and takes READ_S at most. None: there is nothing, or the database is away and this was never
        read."""
        called = number or ""
        if self.is_empty:
            return None
        if (found := self._compose(called, trunk, tenant, old=False)) is not None:
            return found
        if not self._away:
            try:
                async with asyncio.timeout(READ_S):
                    await self._read(called, trunk, tenant)
            except TimeoutError:
                log.warning("numbers: one that is called was not read within %s s", READ_S)
            except StoreError as error:
                self._is_away(str(error))
        return self._compose(called, trunk, tenant, old=True)

    def _compose(self, called: str, trunk: str, tenant: TenantId | None, *, old: bool) -> View | None:
        entry = self._entry(called, old=old)
        if entry is None:
            return None
        whose = self._whose(entry, tenant)
        desk = self._desk(whose, old=old)
        if desk is None:
            return None
        number = entry.number if entry.tenant == whose else None
        name, match = _route_of(number, called, trunk, desk)
        route, hours = None, _NO_HOURS
        if name is not None:
            found = desk.routes.get(name)
            if found is None:
                return None
            route, hours = found
        return View(whose, number, route, match, hours, desk.published, desk.terms)

    def _whose(self, entry: _Entry, tenant: TenantId | None) -> TenantId:
        if tenant is not None:
            return tenant
        if entry.tenant is None or (entry.number is not None and entry.number.trunk is not None):
            return DEFAULT_TENANT  # a number on a tenant's own trunk is that tenant's over that trunk only
        return entry.tenant

    def _entry(self, called: str, *, old: bool) -> _Entry | None:
        entry = self._numbers.get(called)
        if entry is None:
            return None
        changed_at = self._any_changed_at if entry.tenant is None else self._changed_at.get(entry.tenant, 0)
        if entry.turn < changed_at and not old:
            return None
        self._numbers.move_to_end(called)
        return entry

    def _desk(self, tenant: TenantId, *, old: bool) -> _Desk | None:
        desk = self._desks.get(tenant)
        if desk is None or (desk.turn < self._changed_at.get(tenant, 0) and not old):
            return None
        self._desks.move_to_end(tenant)
        return desk

    # --- reading ---

    async def _read(self, called: str, trunk: str, tenant: TenantId | None) -> None:
        entry = self._entry(called, old=False)
        if entry is None:
            turn = self._turn
            owned = await self._rows.owner_of(called) if called else None
            number = None if owned is None else _as(Number, owned[1])
            entry = _Entry(turn, None if owned is None else owned[0], number)
            _keep(self._numbers, called, entry, self._max_numbers)
        whose = self._whose(entry, tenant)
        desk = self._desk(whose, old=False)
        if desk is None:
            turn = self._turn
            rows = await self._rows.desk(whose)
            terms = Tenant() if rows.terms is None else _as(Tenant, rows.terms) or Tenant()
            desk = _Desk(turn, terms, Patterns.of(rows.matches), rows.published)
            _keep(self._desks, whose, desk, MAX_DESKS)
        number = entry.number if entry.tenant == whose else None
        name, _ = _route_of(number, called, trunk, desk)
        if name is not None and name not in desk.routes:
            found = await self._rows.route(whose, name)
            desk.routes[name] = (None, _NO_HOURS) if found is None else (_as(Route, found[0]), _hours(found[1]))

    # --- changes ---

    def changed(self, tenant: TenantId) -> None:
        """After its commit: what was read of this tenant is old from now on."""
        self._turn += 1
        self._changed_at[tenant] = self._any_changed_at = self._turn
        if self._seen is not None:
            self._seen.setdefault(tenant, 0)

    async def look(self) -> None:
        """Does not raise."""
        try:
            async with asyncio.timeout(READ_S):
                found = await self._rows.revisions()
        except (StoreError, TimeoutError) as error:
            self._is_away(str(error) or "numbers: the database does not answer")
            return
        if self._away:
            self._away = False
            log.warning("numbers can be read again")
        before = self._seen
        if before is None:  # what was read before the first look may be older than it
            before = dict.fromkeys(found, -1)
        for tenant in found.keys() | before.keys():
            if found.get(tenant) != before.get(tenant):
                self.changed(tenant)
        self._seen = dict(found)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("numbers")

    def _is_away(self, why: str) -> None:
        if not self._away:
            log.warning(
                "%s; numbers that were not called before are answered by the gateway's own agent, "
                "over tenants' own trunks by nobody",
                why,
            )
        self._away = True


_NO_HOURS: Mapping[str, Hours] = {}


def _route_of(number: Number | None, called: str, trunk: str, desk: _Desk) -> tuple[str | None, Match | None]:
    if number is not None and number.route is not None:
        return number.route, None
    match = desk.patterns.best(called, trunk)
    return (None, None) if match is None else (match.route, match)


def _hours(rows: Sequence[Columns]) -> Mapping[str, Hours]:
    found = (_as(Hours, row) for row in rows)
    return {hours.name: hours for hours in found if hours is not None}


def _as(kind: type[_R], columns: Columns) -> _R | None:
    """None: it says what this version does not know."""
    try:
        return kind.model_validate(columns)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        log.error(
            "%s %s cannot be read, and is taken as missing: %s: %s", kind.kind, _key(kind, columns), where, first["msg"]
        )
        return None


def _key(kind: type[Resource], columns: Columns) -> str:
    return str(columns.get(kind.key_field, "?"))


_K = TypeVar("_K")
_V = TypeVar("_V")


def _keep(kept: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
