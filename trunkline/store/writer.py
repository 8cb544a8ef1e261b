"""Drains the spool into the database: one task, one transaction a batch, exactly once.

A transaction first reads how far this run's entries already are (`spool_positions`), skips those, writes the rows and
moves the position. Whatever is uncertain (a commit whose answer was lost, a kill -9 between commit and anything) is
settled by that read. While the database is away the batch is kept and tried again with growing pauses; live calls
notice nothing, their records wait in the spool.

A batch that the database refuses for its content is written entry by entry, and what is refused alone is put aside
whole, in `unplaced_events`, so that one impossible value never blocks the records behind it.

After the runs of dead processes are replayed come the calls that died with them: each gets its CallEnded, through the
spool like any other, unless it has one, or this run carries it on, or `status_of` knows better.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, bindparam, delete, exists, func, select, tuple_, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import CallEnded, CallStarted, EndReason
from trunkline.store import codec, models
from trunkline.store.codec import Entry, call_of
from trunkline.store.engine import Database, for_the_admin, is_database, what_failed
from trunkline.store.fold import KnownCall, Row, Rows, fold, unplaced
from trunkline.store.hookspool import HookSpool
from trunkline.store.hours import add_hours
from trunkline.store.sealing import opened_value, sealed_rows
from trunkline.store.spool import Spool
from trunkline.store.summing import HEARD, sum_up
from trunkline.types import CallId, TenantId

log = logging.getLogger(__name__)

BATCH = 64  # holds the event loop for a few ms at most, and still drains thousands a second
POLL_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
FLUSH_S = 2.0

_CALLS = cast(Table, models.Call.__table__)
_EVENTS = cast(Table, models.CallEventRow.__table__)
_TURNS = cast(Table, models.TurnRow.__table__)
_USAGE = cast(Table, models.UsageRow.__table__)
_COSTS = cast(Table, models.CostRow.__table__)
_TENANTS = cast(Table, models.Tenant.__table__)
_POSITIONS = cast(Table, models.SpoolPosition.__table__)
_UNPLACED = cast(Table, models.UnplacedEvent.__table__)

_ENDED = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("call"), _CALLS.c.ended_at.is_(None))  # the first wins
    .values(
        ended_at=bindparam("at"),
        end_reason=bindparam("reason"),
        end_detail=bindparam("detail"),
        ended_by=bindparam("by"),
        provider_code=bindparam("said"),
    )
)
_ANSWERED = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("call"), _CALLS.c.answered_at.is_(None))
    .values(answered_at=bindparam("at"))
)
_OTHERS = _CALLS.alias()
_NAMED = (
    update(_CALLS)
    .where(
        _CALLS.c.id == bindparam("call"),
        # A name that another call has is left to that call, as at the start.
        ~exists().where(_OTHERS.c.tenant_id == _CALLS.c.tenant_id, _OTHERS.c.provider_call_id == bindparam("name")),
    )
    .values(provider_call_id=bindparam("name"))
)
_ADOPTED = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("call"), _CALLS.c.ended_at.is_(None))
    .values(run=bindparam("to_run"), worker=bindparam("to_worker"))
)


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call without an end in the database."""

    call_id: CallId
    tenant: TenantId
    leg: str
    provider_call_id: str | None
    started_at: datetime
    last_at: datetime
    """Of the latest thing recorded of it."""
    run: str


@dataclass(slots=True)
class WriterStats:
    written: int = 0
    """Entries in the database, of all runs."""
    refused: int = 0
    """Put aside in `unplaced_events`, because the database would not take them."""
    failures: int = 0
    """Attempts that ended with the database away."""
    away: bool = False
    lost_calls: int = 0
    """Closed by the sweep."""


class RecordWriter:
    """The only reader of its spool. start -> (flush)* -> drain -> close; then close the spool and the database."""

    def __init__(
        self,
        spool: Spool,
        database: Database,
        clock: Clock,
        *,
        worker: str,
        status_of: Callable[[OpenCall], EndReason | None] | None = None,
        hooks: HookSpool | None = None,
    ) -> None:
        """`status_of` may say how a call ended that was open when its process died (a status callback, the carrier's
        list of calls); None is `gateway_lost`. `hooks`: makes webhooks of what is written."""
        self.stats = WriterStats()
        self._spool, self._database, self._clock, self._worker = spool, database, clock, worker
        self._status_of, self._hooks = status_of, hooks
        self._insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        self._batch: list[Entry] = []
        self._upgraded = False
        self._swept, self._sweep_seq = False, 0
        self._pause_s = FIRST_PAUSE_S
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Upgrades the database and starts draining; when it is away, that is tried again later. Raises StoreError
        for what an admin must put right: a wrong password, a damaged file, the database of a newer Trunkline."""
        try:
            await self._ready()
        except Exception as error:
            if not is_database(error):
                raise
            if for_the_admin(error):
                raise StoreError(f"{self._database.name}: {what_failed(error)}") from error
            self._failed(error)
        self._task = asyncio.create_task(self._run(), name="record-writer")

    async def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Waits until all that was appended so far, and what dead processes left, is in the database; False if that
        took too long. Cancel-safe."""
        if self._task is None or self._task.done():
            return False
        target = self._spool.last_seq
        try:
            async with asyncio.timeout(timeout_s), self._progress:
                self._wake.set()
                await self._progress.wait_for(lambda: self._has_reached(target))
        except TimeoutError:
            return False
        return True

    def _has_reached(self, seq: int) -> bool:
        return self._swept and self._spool.stats.committed >= max(seq, self._sweep_seq)

    async def drain(self, timeout_s: float) -> bool:
        """`flush` at the end of a process: after the last call has ended."""
        return await self.flush(timeout_s)

    async def close(self) -> None:
        """Finishes the transaction at hand, bounded. What is not in the database stays in the spool. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=FLUSH_S)
            if not done:
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            pause_s = POLL_S
            try:
                if await self.step():
                    pause_s = 0.0
                self._recovered()
            except Exception as error:
                self._failed(error)
                pause_s = self._pause_s
                self._pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            async with self._progress:
                self._progress.notify_all()
            if pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause_s)

    def _failed(self, error: Exception) -> None:
        self.stats.failures += 1
        if not self.stats.away:
            # Its text may quote rows. With a bug of ours the stack says where, without values.
            log.error("records wait in the spool: %s", what_failed(error), exc_info=_our_bug(error) or None)
        self.stats.away = True

    def _recovered(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        if self.stats.away:
            log.warning("the database is back after %d attempts", self.stats.failures)
        self.stats.away = False

    # --- one step ---------------------------------------------------------------------------------------------------

    async def step(self) -> bool:
        """Move one batch; False when there is none. Raises what the driver raises: call again later."""
        await self._ready()
        if not self._batch:
            self._batch = self._spool.read(BATCH)
        if not self._batch:
            if not self._swept and not self._spool.replaying:
                await self._sweep()
                return True
            self._spool.caught_up()
            return False
        await self._write_batch(self._batch)
        last = self._batch[-1]
        self.stats.written += len(self._batch)
        self._batch = []
        self._spool.commit(last.run, last.seq)
        return True

    async def _ready(self) -> None:
        if self._database.moved:
            log.error("the database file was removed; records still in the spool are written to a new one")
            await self._database.let_go()
            self._upgraded, self._batch = False, []
            self._spool.rewind()
        if not self._upgraded:
            await self._database.upgrade()
            self._upgraded = True

    async def _write_batch(self, batch: Sequence[Entry]) -> None:
        try:
            await self._transaction(batch)
        except Exception as error:
            if not _content_refused(error):
                raise
            for entry in batch:
                await self._write_alone(entry)

    async def _write_alone(self, entry: Entry) -> None:
        try:
            await self._transaction([entry])
        except Exception as error:
            if not _content_refused(error):
                raise
            await self._transaction([entry], refused=True)
            self.stats.refused += 1
            log.error(
                "call %s: the database refused a %s (%s); it is kept in unplaced_events",
                call_of(entry.event),
                type(entry.event).__name__,
                what_failed(error),
            )

    async def _transaction(self, entries: Sequence[Entry], *, refused: bool = False) -> None:
        run = entries[0].run
        async with self._database.write() as connection:
            position = await self._position(connection, run)
            fresh = [entry for entry in entries if entry.seq > position]
            if not fresh:
                return
            if refused:
                await self._add(connection, _UNPLACED, [unplaced(entry, "refused") for entry in fresh])
            else:
                await self._store(connection, await self._with_unplaced(connection, fresh))
            here: Row = {"seq": fresh[-1].seq, "updated_at": self._clock.wall()}
            await connection.execute(
                self._insert(_POSITIONS)
                .values(run=run, worker=self._worker, **here)
                .on_conflict_do_update(index_elements=["run"], set_=here)
            )

    async def _position(self, connection: AsyncConnection, run: str) -> int:
        found = await connection.scalar(select(_POSITIONS.c.seq).where(_POSITIONS.c.run == run).with_for_update())
        return int(found or 0)

    async def _with_unplaced(self, connection: AsyncConnection, entries: list[Entry]) -> list[Entry]:
        """What waited for the calls that start here comes first."""
        started = [entry.event.call_id for entry in entries if isinstance(entry.event, CallStarted)]
        if not started:
            return entries
        waiting = (_UNPLACED.c.call_id.in_(started), _UNPLACED.c.reason == "unknown_call")
        found = await connection.execute(select(_UNPLACED).where(*waiting).order_by(_UNPLACED.c.run, _UNPLACED.c.seq))
        rows = found.all()
        if not rows:
            return entries
        bodies = await asyncio.to_thread(self._opened, [row._mapping for row in rows])  # may ask for a key
        for run, seq in bodies:
            await connection.execute(delete(_UNPLACED).where(_UNPLACED.c.run == run, _UNPLACED.c.seq == seq))
        return [codec.decode_body(body, run) for (run, _), body in bodies.items()] + entries

    def _opened(self, rows: Sequence[Mapping[Any, Any]]) -> dict[tuple[str, int], str]:
        """What cannot be opened stays where it is."""
        bodies = {}
        for row in rows:
            try:
                bodies[row["run"], row["seq"]] = opened_value(self._database.seal, _UNPLACED, "body", row)
            except StoreError as error:
                log.error("call %s: an event waits in unplaced_events: %s", row["call_id"], error)
        return bodies

    async def _store(self, connection: AsyncConnection, entries: list[Entry]) -> None:
        known = await self._known(connection, {call_of(entry.event) for entry in entries})
        taken = await self._taken(connection, entries)
        rows = fold(entries, known, taken, self._worker)
        tenants = [{"id": t, "name": t, "created_at": at} for t, at in rows.tenants.items()]
        await self._add(connection, _TENANTS, tenants)
        await self._add(connection, _CALLS, rows.calls, conflict=["id"])
        await self._children(connection, rows)
        for statement, values in (
            (_ADOPTED, rows.adopted),
            (_ANSWERED, rows.answered),
            (_NAMED, rows.named),
            (_ENDED, rows.ended),
            (HEARD, rows.heard),
        ):
            if values:
                await connection.execute(statement, values)
        if self._hooks is not None:
            await self._hooks.take_over(connection, entries, known)
        ended = await sum_up(connection, rows.ending | rows.late)
        for call in ended:
            if call.id in rows.ending:
                rows.hours.ended(call.tenant, call.at, call.reason, call.duration_ms)
        await add_hours(connection, self._insert, rows.hours)

    async def _children(self, connection: AsyncConnection, rows: Rows) -> None:
        await self._add(connection, _EVENTS, rows.call_events)
        await self._add(connection, _TURNS, rows.turns)
        await self._add(connection, _USAGE, rows.usage)
        await self._add(connection, _COSTS, rows.costs)
        await self._add(connection, _UNPLACED, rows.unplaced)

    async def _add(
        self, connection: AsyncConnection, table: Table, rows: list[Row], conflict: list[str] | None = None
    ) -> None:
        if rows:
            keys = conflict or [column.name for column in table.primary_key]
            sealed = sealed_rows(self._database.seal, table, rows)
            await connection.execute(self._insert(table).on_conflict_do_nothing(index_elements=keys), sealed)

    async def _known(self, connection: AsyncConnection, call_ids: set[str]) -> dict[str, KnownCall]:
        columns = (_CALLS.c.id, _CALLS.c.tenant_id, _CALLS.c.run, _CALLS.c.ended_at, _CALLS.c.answered_at)
        found = await connection.execute(select(*columns).where(_CALLS.c.id.in_(sorted(call_ids))))
        return {
            row.id: KnownCall(row.tenant_id, row.run, row.ended_at is not None, row.answered_at is not None)
            for row in found
        }

    async def _taken(self, connection: AsyncConnection, entries: Sequence[Entry]) -> frozenset[tuple[str, str]]:
        wanted = [
            (event.tenant, event.provider_call_id)
            for entry in entries
            if isinstance(event := entry.event, CallStarted) and event.provider_call_id is not None
        ]
        if not wanted:
            return frozenset()
        columns = (_CALLS.c.tenant_id, _CALLS.c.provider_call_id)
        found = await connection.execute(select(*columns).where(tuple_(*columns).in_(wanted)))
        return frozenset((row.tenant_id, row.provider_call_id) for row in found)

    # --- the sweep --------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Close the calls that died with the dead runs of our folder. Their files go only when the ends are in the
        spool, so a crash in between is swept again. Then nobody asks for those runs' positions any more."""
        async with self._database.read() as connection:
            lost = await open_calls(connection, _CALLS.c.run.in_(self._spool.dead_runs))
        carried_on = self._spool.open_calls
        for call in lost:
            if call.call_id in carried_on:
                continue
            reason = self._status_of(call) if self._status_of is not None else None
            found = f"found after a restart at {self._clock.wall().isoformat(timespec='seconds')}"
            self._spool.append(CallEnded(call.call_id, call.last_at, reason or "gateway_lost", found))
            self.stats.lost_calls += 1
        if lost:
            log.warning("%d calls were open when their process died", self.stats.lost_calls)
        if not self._spool.stats.held:
            self._spool.forget_dead_runs()
            others = (_POSITIONS.c.worker == self._worker, _POSITIONS.c.run != self._spool.run)
            async with self._database.write() as connection:
                await connection.execute(delete(_POSITIONS).where(*others))
        self._swept, self._sweep_seq = True, self._spool.last_seq


async def open_calls(connection: AsyncConnection, which: Any) -> list[OpenCall]:
    """Calls without an end, oldest first, of those that the condition `which` selects."""
    latest = union_all(
        *(
            select(_CALLS.c.id, func.max(t.c.at).label("at"))
            .join(t, (t.c.tenant_id == _CALLS.c.tenant_id) & (t.c.call_id == _CALLS.c.id))
            .where(which, _CALLS.c.ended_at.is_(None))
            .group_by(_CALLS.c.id)
            for t in (_EVENTS, _TURNS, _USAGE)
        )
    )
    last: dict[str, datetime] = {}
    for row in await connection.execute(latest):
        last[row.id] = max(row.at, last.get(row.id, row.at))
    found = await connection.execute(
        select(_CALLS).where(which, _CALLS.c.ended_at.is_(None)).order_by(_CALLS.c.started_at, _CALLS.c.id)
    )
    return [
        OpenCall(
            row.id,
            row.tenant_id,
            row.leg,
            row.provider_call_id,
            row.started_at,
            max(row.started_at, last.get(row.id, row.started_at)),
            row.run,
        )
        for row in found
    ]


def _content_refused(error: Exception) -> bool:
    """The values are at fault, not the connection: the same batch would fail again."""
    if isinstance(error, IntegrityError | DataError):
        return True
    if isinstance(error, DBAPIError):
        return str(getattr(error.orig, "sqlstate", None) or "")[:2] in ("22", "23")
    return isinstance(error, StatementError | ValueError | TypeError | LookupError | ArithmeticError)


def _our_bug(error: Exception) -> bool:
    return isinstance(error, TypeError | LookupError | AttributeError | AssertionError)
