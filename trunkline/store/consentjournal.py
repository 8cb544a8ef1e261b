"""What live calls say to the ledger: on disk before `grant` or `revoke` returns, in the database soon after.

One O_APPEND file a worker, a JSON line an event; a write() that returned survives kill -9, and fdatasync follows from a
thread. `drain` brings them to the ledger, each once (by its id), and empties the file when it is all there. When the
disk is full they are held in memory, bounded, and said to be; they are written down as soon as there is room.
"""

import asyncio
import errno
import json
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from trunkline.errors import StoreError
from trunkline.ports import Evidence, Grant, Revocation
from trunkline.store.consents import Noted, new_id
from trunkline.types import CallId, TenantId

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
BATCH = 100
POLL_S = 0.2
PAUSE_S = 2.0

Note = Callable[[TenantId, Sequence[Noted]], Awaitable[object]]


def encode(noted: Noted) -> bytes:
    said = asdict(noted.said)
    for name, value in said.items():
        if isinstance(value, datetime):
            said[name] = value.isoformat()
    kind = "grant" if isinstance(noted.said, Grant) else "revoke"
    return json.dumps({"id": noted.id, "kind": kind, "said": said}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Noted:
    """Raises ValueError for what is not a whole line of ours."""
    try:
        found = json.loads(line)
        said: dict[str, Any] = found["said"]
        kind: type[Grant | Revocation] = {"grant": Grant, "revoke": Revocation}[found["kind"]]
        known = {field.name for field in fields(kind)}
        said = {name: tuple(v) if isinstance(v, list) else v for name, v in said.items() if name in known}
        for name in ("at", "valid_from", "valid_until"):
            if said.get(name) is not None:
                said[name] = datetime.fromisoformat(said[name])
        said["tenant"] = TenantId(said["tenant"])
        said["call_id"] = CallId(said["call_id"]) if said.get("call_id") else None
        if "evidence" in said:
            said["evidence"] = tuple(Evidence(**each) for each in said["evidence"])
        return Noted(found["id"], kind(**said))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an event of the journal") from error


class ConsentJournal:
    """`ports.Consents`."""

    def __init__(self, file: Path, note: Note) -> None:
        """Takes what a dead process left there. Raises StoreError when the folder cannot be written."""
        self._file, self._note = file, note
        self._waiting: deque[Noted] = deque()
        self._wake, self._draining = asyncio.Event(), asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._unwritten: deque[Noted] = deque()
        """In memory only: the disk is full."""
        self._torn = False
        self.dropped = 0
        """Memory had no room: on disk only, until the next start."""
        self.lost = 0
        """Neither disk nor memory had room."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            left = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        except OSError as error:
            raise StoreError(f"consent journal {file}: {error.strerror}") from None
        for line in filter(None, left.splitlines()):
            try:
                self._waiting.append(decode(line))
            except ValueError:
                log.error("consent journal %s: a line cannot be read", file)
        if left and not left.endswith(b"\n"):  # torn by a dying process: what follows begins a line of its own
            os.write(self._fd, b"\n")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="consent-journal")

    @property
    def waiting(self) -> Sequence[Noted]:
        """Not yet in the database."""
        return tuple(self._waiting)

    def grant(self, given: Grant) -> None:
        self._append(Noted(new_id(), given))

    def revoke(self, said: Revocation) -> None:
        self._append(Noted(new_id(), said))

    def _append(self, noted: Noted) -> None:
        self._unwritten.append(noted)
        self._write_down()
        written = not self._unwritten
        if len(self._waiting) >= MAX_WAITING:
            if not written:
                self._unwritten.pop()
                self.lost += 1
                log.critical("consent journal %s: an event is LOST: neither disk nor memory has room", self._file)
                return
            self.dropped += 1
            log.error("consent journal %s: full; an event is on disk only, until the next start", self._file)
            return
        self._waiting.append(noted)
        self._wake.set()

    def _write_down(self) -> None:
        try:
            while self._unwritten:
                line = b"\n" * self._torn + encode(self._unwritten[0])  # begins a line of its own
                self._torn = os.write(self._fd, line) != len(line)
                if self._torn:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._unwritten.popleft()
        except OSError as error:
            log.error("consent journal %s: %s; %d in memory only", self._file, error.strerror, len(self._unwritten))

    async def on_disk(self) -> bool:
        """`ports.Consents`: in the file, or in the database."""
        try:
            if self._unwritten:  # the disk is full: the database may be on another
                await self.drain()
            else:
                await asyncio.to_thread(os.fdatasync, self._fd)
        except (StoreError, OSError) as error:
            log.error("consent journal %s: %s; what was said is in memory only", self._file, error)
            return False
        except Exception:
            log.exception("consent journal")
            return False
        return not self._unwritten and not self.lost

    async def drain(self) -> None:
        """Everything so far. Raises StoreError when the database is away; nothing is lost then."""
        async with self._draining:
            await self._drain()

    async def _drain(self) -> None:
        while self._waiting:
            tenant = self._waiting[0].said.tenant
            batch: list[Noted] = []
            for noted in self._waiting:
                if noted.said.tenant != tenant or len(batch) == BATCH:
                    break
                batch.append(noted)
            await self._note(tenant, batch)
            for _ in batch:
                self._waiting.popleft()
        self._unwritten.clear()
        if not self.dropped:
            os.ftruncate(self._fd, 0)

    async def _run(self) -> None:
        away = False
        while True:
            if not self._waiting:
                await self._wake.wait()
            self._wake.clear()
            self._write_down()
            try:
                await asyncio.to_thread(self._sync)
                await self.drain()
                away = False
            except StoreError as error:
                if not away:
                    log.error("consent journal: %s; %d events wait", error, len(self._waiting))
                away = True
            except Exception:
                log.exception("consent journal")
                away = True
            await asyncio.sleep(PAUSE_S if away else POLL_S)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            log.error("consent journal %s: %s", self._file, error.strerror)

    async def close(self, within_s: float = 2.0) -> None:
        """What does not reach the database in time stays in the file."""
        if self._task is not None:
            self._task.cancel()
            try:
                await self._task
            except asyncio.CancelledError:
                pass
        try:
            async with asyncio.timeout(within_s):
                await self.drain()
        except (StoreError, TimeoutError, OSError) as error:
            self._write_down()
            if self._unwritten:
                log.critical("consent journal: %d events are LOST: the disk is full", len(self._unwritten))
            kept = len(self._waiting) - len(self._unwritten)
            log.warning("consent journal: %d events stay for the next start (%s)", kept, error)
        os.close(self._fd)
