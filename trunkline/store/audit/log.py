"""From the record to the audit log's folder, off the loop and in batches.

Rows wait in a bounded queue, and are written once a batch is full or old enough, in a thread. While the disk is full
they wait on; beyond the bound they are dropped and counted. kill -9 loses what waits.

Where there is a bucket, files are moved there beside that, in a thread of its own: while it is away they wait in the
folder, which is said once and counted.
"""

import asyncio
import logging
import threading
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
TEND_S = 60.0


class AuditLog:
    """`dropped`: told how many rows were. `waiting`: how many files wait for the bucket."""

    def __init__(
        self,
        files: AuditFiles,
        clock: Clock,
        dropped: Callable[[int], None],
        batch_s: float = 60.0,
        waiting: Callable[[int], None] = lambda files: None,
    ) -> None:
        self._files, self._clock, self._dropped, self._batch_s = files, clock, dropped, batch_s
        self._rows: deque[Row] = deque()
        self._some, self._due, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closing = False
        self._failed = self._away = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = threading.Event()
        self._told_waiting = waiting

    async def start(self) -> None:
        """Raises StoreError for a folder that cannot be written."""
        await asyncio.to_thread(self._files.open)
        self._tasks = [
            asyncio.create_task(self._run(), name="audit"),
            asyncio.create_task(self._tend(), name="audit bucket"),
        ]

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
                self._not_written(error)
                return False
            for _ in batch:
                self._rows.popleft()
            if self._failed:
                log.warning("the audit log is written again")
            self._failed = ""
        return True

    def _not_written(self, error: StoreError) -> None:
        if str(error) != self._failed:
            log.error("%s; %d rows wait", error, len(self._rows))
        self._failed = str(error)

    async def tend(self) -> None:
        """The day's mark, and what waits for the bucket is moved. Not beside itself."""
        try:
            await asyncio.to_thread(self._files.mark, self._clock.wall())
        except StoreError as error:
            self._not_written(error)
        try:
            await asyncio.to_thread(self._files.move, self._stop)
            if self._away:
                log.warning("the audit log is moved to its bucket again")
            self._away = ""
        except StoreError as error:
            if not self._away:
                log.error("%s; files wait in the folder", error)
            self._away = str(error)
        self._told_waiting(await asyncio.to_thread(lambda: self._files.waiting))

    async def _tend(self) -> None:
        while not self._closing:
            try:
                await self.tend()
            except Exception:
                log.exception("audit log")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), TEND_S)

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
        """What waits is written and moved once more, if it can be soon."""
        self._closing = True
        for each in (self._some, self._due, self._ended):
            each.set()
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*self._tasks)
                await self.write()
                if self._tasks and not self._away:
                    await self.tend()
        except TimeoutError:
            pass
        self._stop.set()
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
