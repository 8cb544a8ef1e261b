"""From the record to the audit log's folder, off the loop and in batches.

Rows wait in a bounded queue, and are written once a batch is full or old enough, in a thread. While the disk is full
they wait on; beyond the bound they are dropped and counted. kill -9 loses what waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import RecordEvent, RecordSink
from trunkline.store.audit.files import AuditFiles
from trunkline.store.audit.rows import Row, Sampling

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
BATCH_ROWS = 1000
CLOSE_S = 5.0


class AuditLog:
    """`dropped`: told how many rows were."""

    def __init__(self, files: AuditFiles, clock: Clock, dropped: Callable[[int], None], batch_s: float = 60.0) -> None:
        self._files, self._clock, self._dropped, self._batch_s = files, clock, dropped, batch_s
        self._rows: deque[Row] = deque()
        self._some, self._due = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._failed = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StoreError for a folder that cannot be written."""
        await asyncio.to_thread(self._files.open)
        self._task = asyncio.create_task(self._run(), name="audit")

    @property
    def waiting(self) -> int:
        return len(self._rows)

    def append(self, row: Row) -> None:
        if len(self._rows) >= MAX_WAITING:
            self._dropped(1)
            return
        self._rows.append(row)
        self._some.set()
        if len(self._rows) >= BATCH_ROWS and not self._failed:
            self._due.set()

    async def write(self) -> bool:
        """Everything that waits. False: it waits on. Not beside itself."""
        while self._rows:
            batch = [*islice(self._rows, BATCH_ROWS)]
            try:
                await asyncio.to_thread(self._files.write, batch, self._clock.wall())
            except StoreError as error:
                if str(error) != self._failed:
                    log.error("%s; %d rows wait", error, len(self._rows))
                self._failed = str(error)
                return False
            for _ in batch:
                self._rows.popleft()
            if self._failed:
                log.warning("the audit log is written again")
            self._failed = ""
        return True

    async def _run(self) -> None:
        while not self._closing:
            await self._some.wait()
            self._some.clear()
            while self._rows and not self._closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), self._batch_s)
                self._due.clear()
                try:
                    await self.write()
                except Exception:
                    log.exception("audit log")

    async def close(self) -> None:
        """What waits is written once more, if it can be soon."""
        self._closing = True
        self._some.set()
        self._due.set()
        try:
            async with asyncio.timeout(CLOSE_S):
                if self._task is not None:
                    await self._task
                await self.write()
        except TimeoutError:
            pass
        if self._rows:
            log.error("audit log: %d rows are lost", len(self._rows))
            self._dropped(len(self._rows))


class AuditedRecords:
    """A RecordSink before the one that writes, behind the one that redacts."""

    def __init__(self, records: RecordSink, sampling: Sampling, audit: Callable[[Row], None]) -> None:
        self._records, self._sampling, self._audit = records, sampling, audit

    def append(self, event: RecordEvent) -> None:
        self._records.append(event)
        try:
            row = self._sampling.take(event)
        except Exception:  # the call goes on
            log.exception("audit log: %s", type(event).__name__)
            return
        if row is not None:
            self._audit(row)
