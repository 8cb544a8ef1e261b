"""Which calls, newest first: a page of them within a bounded time, however many calls there are.

A page walks along one index, the best that the query gives (a party's number, what few calls have, an agent...; else
all calls by their start), which is in the order of the answer, and looks at no more than SCAN calls there. What the
index does not know is asked of each of those. So a page may hold fewer calls than were asked for, or none, and still
say where the next one begins; the caller goes on from there. A query of either party's number walks two indexes, and
the answer is as far as both have come.

The beginning of a number is another matter: where few calls have it, those are the answer; where many have it, they are
met soon along all calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import RowMapping, Table, and_, exists, func, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.ports import CallQuery, Having
from trunkline.store import models
from trunkline.store.hours import NANO
from trunkline.types import TenantId

SCAN = 20_000
TEXT_SCAN = 4_000  # a look into the turns of each
FEW = 1_000
TEXT_CHARS_MIN, TEXT_CHARS_MAX = 2, 200
SEALED_TEXT = "sealed:"

CALLS = cast(Table, models.Call.__table__)
_TURNS = cast(Table, models.TurnRow.__table__)
_NONE: Any = literal_column("0")  # a bound parameter would not match the partial index
_HAVING: dict[Having, Any] = {
    "errors": CALLS.c.error_count > _NONE,
    "refusals": CALLS.c.refusal_count > _NONE,
    "transfers": CALLS.c.transfer_count > _NONE,
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Of a call in the order of the list."""

    at: datetime
    call_id: str


@dataclass(frozen=True, slots=True)
class Found:
    calls: list[RowMapping]
    next: Place | None
    """Where the next page begins, behind it; None: there is none."""


@dataclass(frozen=True, slots=True)
class _Way:
    """`along`: what the index knows, in its order; `asked`: of each. `few`: only those, by id."""

    along: tuple[Any, ...] = ()
    asked: tuple[Any, ...] = ()
    few: tuple[str, ...] | None = None


def check(query: CallQuery, *, sealed: bool) -> None:
    """Raises ValueError for what cannot be asked, in words for the user. `sealed`: what was said is, here."""
    if any(at is not None and at.tzinfo is None for at in (query.since, query.until)):
        raise ValueError("since, until: a time with its zone, such as 2026-11-28T09:00:00Z")
    for name, number in (("number", query.number), ("our_number", query.our_number)):
        if number is not None and (not number.removesuffix("*") or "*" in number.removesuffix("*")):
            raise ValueError(f"{name}: a number, or its beginning and *")
    if query.text is not None:
        if sealed:
            raise ValueError("text: what was said is sealed here (privacy.keys), and cannot be searched")
        if not TEXT_CHARS_MIN <= len(query.text) <= TEXT_CHARS_MAX:
            raise ValueError(f"text: {TEXT_CHARS_MIN} to {TEXT_CHARS_MAX} characters")
    if any("\0" in value for value in (query.number, query.our_number, query.agent, query.text) if value):
        raise ValueError("a NUL character is in no record")


async def find(
    connection: AsyncConnection, tenant: TenantId, query: CallQuery, limit: int, after: Place | None
) -> Found:
    ours: list[Any] = []
    if query.since is not None:
        ours.append(CALLS.c.started_at >= query.since)
    if query.until is not None:
        ours.append(CALLS.c.started_at < query.until)
    if after is not None:
        ours += _behind(after)
    scan = SCAN if query.text is None else TEXT_SCAN
    found: list[RowMapping] = []
    end: Place | None = None
    for way in await _ways(connection, tenant, query):
        if way.few is None:
            where = [CALLS.c.tenant_id == tenant, *ours, *way.along]
        else:  # spelled so that SQLite does not walk along all calls of the tenant instead
            where = [CALLS.c.id.in_(way.few), func.coalesce(CALLS.c.tenant_id, "") == tenant, *ours]
        rows, until = await _along(connection, where, way, limit, scan)
        found += rows
        if until is not None:
            end = until if end is None else max(end, until)
    rows = _merged(found, end)
    if len(rows) > limit:
        return Found(rows[:limit], place_of(rows[limit - 1]))
    return Found(rows, end)


async def _along(
    connection: AsyncConnection, where: list[Any], way: _Way, limit: int, scan: int
) -> tuple[list[RowMapping], Place | None]:
    """And how far it looked; None: to the end."""
    order = (CALLS.c.started_at.desc(), CALLS.c.id.desc())
    until = None
    if way.asked and way.few is None:
        last = select(CALLS.c.started_at, CALLS.c.id).where(*where).order_by(*order).offset(scan - 1).limit(1)
        row = (await connection.execute(last)).one_or_none()
        if row is not None:
            until = Place(row.started_at, row.id)
            where += [CALLS.c.started_at >= until.at, or_(CALLS.c.started_at > until.at, CALLS.c.id >= until.call_id)]
    page = select(CALLS).where(*where, *way.asked).order_by(*order).limit(limit + 1)
    rows = list((await connection.execute(page)).mappings())
    if len(rows) > limit:
        until = place_of(rows[-1])
    return rows, until


def _merged(found: Sequence[RowMapping], end: Place | None) -> list[RowMapping]:
    """Each once, in order, and none beyond where a way has not come to."""
    by_place = {place_of(row): row for row in found}
    return [by_place[place] for place in sorted(by_place, reverse=True) if end is None or place >= end]


def place_of(row: RowMapping) -> Place:
    return Place(row["started_at"], row["id"])


def _behind(place: Place) -> list[Any]:
    """Spelled so that both databases begin in the index where it is."""
    return [CALLS.c.started_at <= place.at, or_(CALLS.c.started_at < place.at, CALLS.c.id < place.call_id)]


async def _ways(connection: AsyncConnection, tenant: TenantId, query: CallQuery) -> list[_Way]:
    asked = [*_simple(query), *_texts(tenant, query)]
    few: Any = literal_column("ended_at IS NULL")
    lean: list[Any] = [_HAVING[each] for each in sorted(query.having)]
    if query.live:
        lean.append(few)
    elif query.live is False:
        asked.append(CALLS.c.ended_at.is_not(None))
    plain = [
        column == value
        for column, value in ((CALLS.c.end_reason, query.end_reason), (CALLS.c.agent, query.agent))
        if value is not None
    ]
    parties = _parties(query)
    for number in parties:
        if not number.prefix:
            others = [each.condition for each in parties if each is not number]
            rest = (*asked, *lean, *plain, *others)
            return [_Way(branch[:1], (*rest, *branch[1:])) for branch in number.branches()]
    conditions = [each.condition for each in parties]
    for number in parties:
        ids = await _few(connection, tenant, number)
        if ids is not None:
            return [_Way(asked=(*asked, *lean, *plain, *conditions), few=tuple(ids))]
    best = [*lean, *plain]
    return [_Way(tuple(best[:1]), (*asked, *best[1:], *conditions))]


def _simple(query: CallQuery) -> list[Any]:
    equal = ((CALLS.c.direction, query.direction), (CALLS.c.leg, query.leg), (CALLS.c.ended_by, query.ended_by))
    asked = [column == value for column, value in equal if value is not None]
    if query.min_duration_s is not None:
        asked.append(CALLS.c.duration_ms >= round(query.min_duration_s * 1000))
    if query.min_cost_usd is not None:
        asked.append(CALLS.c.cost_nano_usd >= int((query.min_cost_usd * Decimal(NANO)).to_integral_value()))
    return asked


def _texts(tenant: TenantId, query: CallQuery) -> list[Any]:
    """What is sealed says nothing."""
    if query.text is None:
        return []
    said = or_(
        *(
            and_(
                _TURNS.c[name].icontains(query.text, autoescape=True),
                ~_TURNS.c[name].startswith(SEALED_TEXT, autoescape=True),
            )
            for name in ("caller_text", "agent_text")
        )
    )
    return [exists().where(_TURNS.c.tenant_id == tenant, _TURNS.c.call_id == CALLS.c.id, said)]


# --- numbers ---


@dataclass(frozen=True, slots=True)
class _Number:
    text: str
    ours: bool

    @property
    def prefix(self) -> bool:
        return self.text.endswith("*")

    def _is(self, column: Any) -> Any:
        if not self.prefix:
            return column == self.text
        first, last = between(self.text[:-1])
        # The range is for the index; PostgreSQL's order may leave out signs.
        return and_(column >= first, column < last, column.startswith(first, autoescape=True))

    def branches(self) -> list[tuple[Any, ...]]:
        """Each by one column, which an index begins with."""
        came, went = self._is(CALLS.c.to_number), self._is(CALLS.c.from_number)
        if not self.ours:
            return [(came,), (went,)]
        return [(came, CALLS.c.direction == "inbound"), (went, CALLS.c.direction == "outbound")]

    @property
    def condition(self) -> Any:
        return or_(*(and_(*branch) for branch in self.branches()))

    @property
    def columns(self) -> list[Any]:
        return [self._is(CALLS.c.to_number), self._is(CALLS.c.from_number)]


def _parties(query: CallQuery) -> list[_Number]:
    both = ((query.number, False), (query.our_number, True))
    return [_Number(number, ours) for number, ours in both if number is not None]


def between(prefix: str) -> tuple[str, str]:
    """What begins so is at or behind the first and before the second."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


async def _few(connection: AsyncConnection, tenant: TenantId, number: _Number) -> list[str] | None:
    """All calls with a number that begins so; None: they are many."""
    ids: list[str] = []
    for condition in number.columns:
        found = select(CALLS.c.id).where(CALLS.c.tenant_id == tenant, condition).limit(FEW + 1 - len(ids))
        ids += (await connection.execute(found)).scalars()
        if len(ids) > FEW:
            return None
    return ids
