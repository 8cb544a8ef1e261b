"""Everything that is kept of one person, by their number (or a device's account): to show it, to forget it, and to look
whether anything is left. And what has grown old.

What stays of somebody who is forgotten: do-not-call entries (they must not be called), and the consent ledger's hashes.
Calls that go on are left alone and counted as `live`. A SQLite file is to be written anew afterwards
(`rewrite`), because what is deleted from it lies in it for a while. What is sealed is opened and looked through; what
cannot be opened is counted as `locked`, and is nobody's proof of anything.
"""

import asyncio
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import phonenumbers
from sqlalchemy import Table, Text, delete, or_, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.ext.asyncio import AsyncConnection

from trunkline.errors import StoreError
from trunkline.privacy.calls import TOOLS_USED
from trunkline.store import codec, models
from trunkline.store.callbacks import purge_callbacks
from trunkline.store.consents import ConsentLedger
from trunkline.store.engine import Database
from trunkline.store.hookqueue import purge_deliveries
from trunkline.store.records import CallRecords
from trunkline.store.sealing import (
    DELIVERIES,
    EVENTS,
    SEALED,
    TURNS,
    UNPLACED,
    Row,
    is_row,
    is_under,
    opened_row,
    opened_value,
    portions,
    sealed_rows,
)
from trunkline.types import CallId, TenantId

if TYPE_CHECKING:
    from trunkline.store.audit.folder import AuditFolder

ERASED = "[erased]"
_PORTION = 500
_SCAN_BYTES = 1 << 20

_CALLS = cast(Table, models.Call.__table__)
_USAGE = cast(Table, models.UsageRow.__table__)
_COSTS = cast(Table, models.CostRow.__table__)
_ORDERS = cast(Table, models.IdempotencyKey.__table__)
_CALLS_OUT = cast(Table, models.CallOut.__table__)
_CALLBACKS = cast(Table, models.CallBackRow.__table__)
_ATTEMPTS = cast(Table, models.CallAttempt.__table__)
_DEVICES = cast(Table, models.Device.__table__)
_DNC = cast(Table, models.DncEntry.__table__)
ATTRIBUTES, MESSAGE = "attributes", "message"  # kinds of events: of a device; words that a caller left
_WORDS = (MESSAGE, TOOLS_USED)
_TAIL = 4  # of a number: nobody puts anything between its last digits
_SEPARATORS = r"[\s().-]{0,3}"
_PARTS = (TURNS, EVENTS, _USAGE, _COSTS, DELIVERIES)


@dataclass(frozen=True, slots=True)
class Terms:
    """Days; None: as long as nobody deletes it."""

    recordings: int | None = None
    transcripts: int | None = None
    calls: int | None = None
    audit: int | None = None


class Subjects:
    """All methods raise StoreError when the database is away, and what reaches into the audit log where that is."""

    def __init__(self, database: Database, *recordings: Path, audit: "AuditFolder | None" = None) -> None:
        """`recordings`: their folders."""
        self._database, self._recordings, self._audit = database, recordings, audit

    async def export(self, tenant: TenantId, subject: str) -> dict[str, Any]:
        """For JSON: their calls in full, consents, attempts, devices, and the names of their recordings."""
        records, call_ids = CallRecords(self._database), [*await self.calls(tenant, subject)]
        async with self._database.read() as connection:
            attempts = await connection.scalars(
                select(_ATTEMPTS.c.at).where(_ATTEMPTS.c.tenant_id == tenant, _ATTEMPTS.c.number == subject)
            )
            tried = [at.isoformat() for at in attempts]
            devices = (await connection.execute(select(_DEVICES).where(*_devices_of(tenant, subject)))).mappings()
            known = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in devices]
            mine = (_CALLBACKS.c.tenant_id == tenant, _CALLBACKS.c.number == subject)
            backs = (await connection.execute(select(_CALLBACKS).where(*mine))).mappings()
            callbacks = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in backs]
            told = [row for some in _portions(call_ids) for row in await _told(connection, tenant, some)]
        return {
            "subject": subject,
            "calls": [await records.get(tenant, CallId(call_id)) for call_id in call_ids],
            "recordings": [path.name for path in await asyncio.to_thread(self._files, call_ids)],
            "consent": await ConsentLedger(self._database).export(tenant, subject),
            "attempts": tried,
            "devices": known,
            **({"callbacks": callbacks} if callbacks else {}),
            **({"webhooks": told} if told else {}),
            **({} if self._audit is None else {"audit": await asyncio.to_thread(self._audit.of_calls, call_ids)}),
        }

    async def erase(self, tenant: TenantId, subject: str, at: datetime) -> dict[str, int]:
        """How many of each were forgotten."""
        if len(subject) < 5:
            raise ValueError(f"subject = {subject}: a number as +COUNTRY NUMBER, or a device's account")
        calls = await self.calls(tenant, subject)
        over = [call_id for call_id, live in calls.items() if not live]
        audited: dict[str, int] = {}
        if self._audit is not None:  # first: afterwards nobody knows which calls were theirs
            audited["audit"] = await asyncio.to_thread(self._audit.erase, over, subject, at)
        files = await asyncio.to_thread(self._unlink, over)
        async with self._database.writing() as connection:
            for some in _portions(over):
                await _drop(connection, tenant, some)
            orders = await connection.execute(
                delete(_ORDERS).where(_ORDERS.c.tenant_id == tenant, _ORDERS.c.call_id.in_(over))
            )
            attempts = await connection.execute(
                delete(_ATTEMPTS).where(_ATTEMPTS.c.tenant_id == tenant, _ATTEMPTS.c.number == subject)
            )
            callbacks = await connection.execute(
                delete(_CALLBACKS).where(_CALLBACKS.c.tenant_id == tenant, _CALLBACKS.c.number == subject)
            )
            mine = (_CALLS_OUT.c.tenant_id == tenant, _CALLS_OUT.c.number == subject)
            await connection.execute(update(_CALLS_OUT).where(*mine).values(number=""))  # the caps still count it
            devices = await connection.execute(delete(_DEVICES).where(*_devices_of(tenant, subject)))
            unplaced = await connection.execute(
                delete(UNPLACED).where(
                    or_(UNPLACED.c.body.contains(subject, autoescape=True), UNPLACED.c.call_id.in_(over))
                )
            )
        mentioned, locked = await self._unmention(tenant, subject)
        waiting, unread = await self._drop_unplaced(tenant, subject)
        consents = await ConsentLedger(self._database).erase(tenant, subject, at)
        return {
            "calls": len(over),
            "live": len(calls) - len(over),
            "recordings": files,
            "orders": orders.rowcount,
            "attempts": attempts.rowcount,
            "devices": devices.rowcount,
            **({"callbacks": callbacks.rowcount} if callbacks.rowcount else {}),
            "unplaced": unplaced.rowcount + waiting,
            "mentions": mentioned,
            "consents": consents,
            **audited,
            **({"locked": locked + unread} if locked + unread else {}),
        }

    async def erase_audited(self, tenant: TenantId, subject: str, at: datetime) -> int:
        """In the audit log alone, and only in what is written on this machine."""
        if len(subject) < 5:
            raise ValueError(f"subject = {subject}: a number as +COUNTRY NUMBER, or a device's account")
        over = [call_id for call_id, live in (await self.calls(tenant, subject)).items() if not live]
        if self._audit is None:
            return 0
        return await asyncio.to_thread(partial(self._audit.erase, over, subject, at, elsewhere=False))

    async def _unmention(self, tenant: TenantId, subject: str) -> tuple[int, int]:
        """In the calls of others: a number that was forwarded, or read out; and in webhooks. How many rows, and how
        many are locked."""
        count = locked = 0
        for table in (TURNS, EVENTS, DELIVERIES):
            said = or_(
                *(as_type(table.c[name], Text).contains(subject[-_TAIL:], autoescape=True) for name in SEALED[table]),
                *(is_under(table, name) for name in SEALED[table]),
            )
            async for rows in portions(self._database, table, table.c.tenant_id == tenant, said):
                changed, unread = await asyncio.to_thread(self._without, table, rows, subject)
                count, locked = count + len(changed), locked + unread
                if changed:
                    async with self._database.writing() as connection:
                        for row in sealed_rows(self._database.seal, table, changed):
                            await connection.execute(
                                update(table).where(is_row(table, row)).values({n: row[n] for n in SEALED[table]})
                            )
        return count, locked

    def _without(self, table: Table, rows: Sequence[Row], subject: str) -> tuple[list[Row], int]:
        """Those that hold it, opened and without it, and how many could not be opened."""
        changed, locked = [], 0
        for row in rows:
            try:
                opened = row | {name: opened_value(self._database.seal, table, name, row) for name in SEALED[table]}
            except StoreError:
                locked += 1
                continue
            kept = {name: without(opened[name], subject) for name in SEALED[table]}
            if any(kept[name] != opened[name] for name in kept):
                changed.append(row | kept)
        return changed, locked

    async def _drop_unplaced(self, tenant: TenantId, subject: str) -> tuple[int, int]:
        """Of what is sealed and waits for its call."""
        count = locked = 0
        async for rows in portions(self._database, UNPLACED, is_under(UNPLACED, "body")):
            theirs, unread = await asyncio.to_thread(self._without, UNPLACED, rows, subject)
            count, locked = count + len(theirs), locked + unread
            if theirs:
                async with self._database.writing() as connection:
                    for row in theirs:
                        await connection.execute(delete(UNPLACED).where(is_row(UNPLACED, row)))
        return count, locked

    async def rows_with(self, text: str) -> list[str]:
        """`table.column` wherever it still stands, opened where it is sealed, in any tenant's rows; do-not-call entries
        aside. What cannot be opened is told with the reason."""
        found = []
        async with self._database.read() as connection:
            for table in models.Base.metadata.sorted_tables:
                if table is _DNC:
                    continue
                for column in table.columns:
                    here = as_type(column, Text).contains(text, autoescape=True)
                    if await connection.scalar(select(1).select_from(table).where(here).limit(1)):
                        found.append(f"{table.name}.{column.name}")
        for table, names in SEALED.items():
            told: set[str] = set()
            async for rows in portions(self._database, table, or_(*(is_under(table, name) for name in names))):
                told |= await asyncio.to_thread(self._places_with, table, rows, text)
            found += sorted(told.difference(found))
        return found

    def _places_with(self, table: Table, rows: Sequence[Row], text: str) -> set[str]:
        told = set()
        for row in rows:
            for name in SEALED[table]:
                try:
                    value = opened_value(self._database.seal, table, name, row)
                except StoreError as error:
                    told.add(f"{table.name}.{name}: {error}")
                    continue
                if text in (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)):
                    told.add(f"{table.name}.{name}")
        return told

    async def audited_with(self, text: str) -> list[str]:
        """Turns of the audit log that hold it."""
        return [] if self._audit is None else await asyncio.to_thread(self._audit.with_text, text)

    async def purge(self, terms: Terms, now: datetime) -> dict[str, int]:
        """What is older than its term, of every tenant. Safe beside calls, and to be stopped in the middle."""
        done = {"calls": 0, "transcripts": 0, "recordings": 0}
        if terms.calls is not None:
            before = now - timedelta(days=terms.calls)
            while old := await self._ended(before):
                await asyncio.to_thread(self._unlink, [call_id for _, call_id in old])
                async with self._database.writing() as connection:
                    for tenant, call_id in old:
                        await _drop(connection, TenantId(tenant), [call_id])
                done["calls"] += len(old)
        if terms.transcripts is not None:
            aged = (
                TURNS.c.at < now - timedelta(days=terms.transcripts),
                or_(*(TURNS.c[name] != "" for name in SEALED[TURNS])),
            )
            async with self._database.writing() as connection:
                emptied = await connection.execute(update(TURNS).where(*aged).values(dict.fromkeys(SEALED[TURNS], "")))
                words = (EVENTS.c.at < now - timedelta(days=terms.transcripts), EVENTS.c.kind.in_(_WORDS))
                left = await connection.execute(
                    update(EVENTS).where(*words, as_type(EVENTS.c.data, Text) != "{}").values(data={})
                )
            done["transcripts"] = emptied.rowcount + left.rowcount
        done["transcripts"] += await self._drop_aged_unplaced(terms, now)
        if terms.recordings is not None:
            before_s = (now - timedelta(days=terms.recordings)).timestamp()
            done["recordings"] = await asyncio.to_thread(self._unlink_older, before_s)
        longest = min((days for days in (terms.transcripts, terms.calls) if days is not None), default=None)
        if webhooks := await purge_deliveries(self._database, now, longest):
            done["webhooks"] = webhooks
        if callbacks := await purge_callbacks(self._database, now):
            done["callbacks"] = callbacks
        if self._audit is not None and terms.audit is not None:
            done["audit"] = await asyncio.to_thread(self._audit.expire, terms.audit, now)
        return done

    async def _drop_aged_unplaced(self, terms: Terms, now: datetime) -> int:
        """What came after its call was erased waits for ever. What cannot be opened stays: nobody knows its age."""
        days = min((days for days in (terms.transcripts, terms.calls) if days is not None), default=None)
        count = 0
        if days is None:
            return count
        async for rows in portions(self._database, UNPLACED):
            old = await asyncio.to_thread(self._before, rows, now - timedelta(days=days))
            if old:
                async with self._database.writing() as connection:
                    for row in old:
                        await connection.execute(delete(UNPLACED).where(is_row(UNPLACED, row)))
            count += len(old)
        return count

    def _before(self, rows: Sequence[Row], at: datetime) -> list[Row]:
        old = []
        for row in rows:
            try:
                body = opened_value(self._database.seal, UNPLACED, "body", row)
                if codec.decode_body(body, row["run"]).event.at < at:
                    old.append(row)
            except (StoreError, codec.Unknown, ValueError):
                continue
        return old

    async def _ended(self, before: datetime) -> Sequence[tuple[str, str]]:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(_CALLS.c.tenant_id, _CALLS.c.id).where(_CALLS.c.ended_at < before).limit(_PORTION)
            )
            return [(row.tenant_id, row.id) for row in found]

    async def calls(self, tenant: TenantId, subject: str) -> Mapping[str, bool]:
        """Whether each is live."""
        theirs = or_(_CALLS.c.from_number == subject, _CALLS.c.to_number == subject)
        async with self._database.read() as connection:
            found = await connection.execute(
                select(_CALLS.c.id, _CALLS.c.ended_at).where(_CALLS.c.tenant_id == tenant, theirs)
            )
            calls = {row.id: row.ended_at is None for row in found}
            of_device = [call_id for call_id in await self._of_device(tenant, subject) if call_id not in calls]
            for some in _portions(of_device):
                more = await connection.execute(
                    select(_CALLS.c.id, _CALLS.c.ended_at).where(_CALLS.c.tenant_id == tenant, _CALLS.c.id.in_(some))
                )
                calls |= {row.id: row.ended_at is None for row in more}
        return calls

    async def _of_device(self, tenant: TenantId, subject: str) -> list[str]:
        """Calls without numbers are found by what their device said of itself."""
        found: dict[str, None] = {}
        facts = (EVENTS.c.tenant_id == tenant, EVENTS.c.kind == ATTRIBUTES)
        async for rows in portions(self._database, EVENTS, *facts):
            opened = await asyncio.to_thread(self._opened, rows)
            found |= {row["call_id"]: None for row in opened if is_of_device(row["data"], subject)}
        return list(found)

    def _opened(self, rows: Sequence[Row]) -> list[Row]:
        return [opened_row(self._database.seal, EVENTS, row) for row in rows]

    def _files(self, call_ids: Sequence[str]) -> list[Path]:
        """`<call>.wav`, `<call>-2.wav`, sealed or not."""
        wanted = frozenset(call_ids)
        if not wanted:
            return []
        there = (path for folder in self._recordings if folder.is_dir() for path in folder.iterdir())
        names = ((path, path.name.lstrip(".").partition(".wav")[0]) for path in there)  # also what a rotation left
        return sorted(path for path, name in names if name in wanted or name.rpartition("-")[0] in wanted)

    def _unlink(self, call_ids: Sequence[str]) -> int:
        files = self._files(call_ids)
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)

    def _unlink_older(self, before_s: float) -> int:
        there = (path for folder in self._recordings if folder.is_dir() for path in folder.glob("*.wav*"))
        count = 0
        for path in there:
            with suppress(FileNotFoundError):  # another worker deletes too
                if path.stat().st_mtime < before_s:
                    path.unlink()
                    count += 1
        return count


async def _told(connection: AsyncConnection, tenant: TenantId, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Whom webhooks told of these calls."""
    columns = [DELIVERIES.c[name] for name in ("endpoint_id", "id", "event", "call_id", "state", "created_at")]
    mine = (DELIVERIES.c.tenant_id == tenant, DELIVERIES.c.call_id.in_(call_ids))
    found = await connection.execute(select(*columns).where(*mine).order_by(DELIVERIES.c.created_at, DELIVERIES.c.id))
    return [{**row, "created_at": row["created_at"].isoformat()} for row in found.mappings()]


async def _drop(connection: AsyncConnection, tenant: TenantId, call_ids: Sequence[str]) -> None:
    for table in _PARTS:
        await connection.execute(delete(table).where(table.c.tenant_id == tenant, table.c.call_id.in_(call_ids)))
    await connection.execute(delete(_CALLS).where(_CALLS.c.tenant_id == tenant, _CALLS.c.id.in_(call_ids)))


def is_of_device(data: Any, subject: str) -> bool:
    return isinstance(data, Mapping) and subject in (data.get("device_account"), data.get("device_id"))


@lru_cache(maxsize=64)
def _written(subject: str) -> re.Pattern[str]:
    """A number as people write it, with its country or without; anything else as it stands."""
    try:
        parsed = phonenumbers.parse(subject, None)
    except phonenumbers.NumberParseException:
        return re.compile(re.escape(subject))
    national = _SEPARATORS.join(phonenumbers.national_significant_number(parsed))
    return re.compile(rf"(?<!\d)(?:(?:\+|00)?{parsed.country_code}{_SEPARATORS})?\(?{national}(?!\d)")


def without(value: Any, subject: str) -> Any:
    if isinstance(value, str):
        return _written(subject).sub(ERASED, value)
    if isinstance(value, Mapping):
        return {without(name, subject): without(each, subject) for name, each in value.items()}
    if isinstance(value, list):
        return [without(each, subject) for each in value]
    return value


def _devices_of(tenant: TenantId, subject: str) -> tuple[Any, ...]:
    return _DEVICES.c.tenant_id == tenant, or_(_DEVICES.c.device_account == subject, _DEVICES.c.id == subject)


def _portions(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _PORTION):
        yield items[start : start + _PORTION]


def rewrite(file: Path) -> None:
    """A SQLite database without what was deleted from it. Blocking; raises StoreError while others write it."""
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"{file.name} could not be written anew ({error}): do it again while it is quiet") from error
    finally:
        connection.close()


def files_with(folder: Path, text: str) -> list[str]:
    """Of a folder, at any depth, those that hold it as it stands. Blocking."""
    wanted, found = text.encode(), []
    for path in sorted(Path(at, name) for at, _, names in os.walk(folder) for name in names):
        if not path.is_file() or path.is_symlink():
            continue
        try:
            if _holds(path, wanted):
                found.append(str(path.relative_to(folder)))
        except FileNotFoundError:  # beside a gateway that works: deleted or moved meanwhile
            continue
    return found


def _holds(path: Path, wanted: bytes) -> bool:
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_SCAN_BYTES):
            if wanted in tail + chunk:
                return True
            tail = chunk[-len(wanted) :]
    return False
