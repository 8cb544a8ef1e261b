"""Where every RecordEvent is put down first: durable before the database has it, whatever becomes of the process.

`append()` is one unbuffered write() to an O_APPEND file: once it returns the bytes are the kernel's and a kill -9 takes
nothing. A thread calls fdatasync once a second, so a loss of *power* costs the last second at most. It holds no lock
meanwhile, and the event loop never waits for a disk to turn.

A **run** is one life of the spool: a process opened it, and closed it or died. A run never appends to a file of
another, so a torn line can only be the end of a file. Events are numbered within their run. The database keeps (run,
seq) in the transaction that holds the rows themselves, so after any crash the replay knows exactly what is already
there: an acknowledgement in a file of its own would be ahead of the rows or behind them at the wrong moment. As a
run's name is never used twice, neither a wiped folder nor a wiped database can make old numbers hide new events.

Files are `<run>.<segment>.spool`. A segment of this run is deleted once all of it is in the database (`commit`); those
of earlier runs once the calls that died with them are closed as well (`forget_dead_runs`): they are the evidence.
Damaged, unknown or locked lines (their key is lost) are counted and the segment is kept beside as `.kept` for a person
to look at: named as before and found by the next start, it is read again.

When the disk is full or gone, events are held in memory in order, bounded; the thread tries again every second, and
the database is fed from memory meanwhile. Only what does not fit there is dropped, and counted; the last eighth is
kept for starts and ends of calls.
"""

import errno
import fcntl
import logging
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trunkline.errors import MisuseError, StoreError
from trunkline.ports import CallEnded, CallStarted, RecordEvent
from trunkline.privacy.texts import TextSeal
from trunkline.store import codec
from trunkline.store.codec import Entry
from trunkline.types import CallId

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 * 1024 * 1024  # about 20,000 events: few files, and disk is given back soon
HELD_BYTES = 16 * 1024 * 1024  # about five minutes of 300 talking calls
_CHUNK_BYTES = 64 * 1024  # read at a time
_LONGEST_BYTES = 2 * codec.MAX_LINE_BYTES  # holds a whole line, whatever it is
_FLUSH_BYTES = 64 * 1024  # of held lines per write: the lock is held meanwhile
_ROTATE_TICKS = 60  # transcripts do not linger on disk long after the database has them
_NAME = re.compile(r"(?P<run>(?P<number>\d{6,})-[0-9a-f]{16})\.(?P<segment>\d{6,})\.spool")

# These pass: calls are answered meanwhile. Anything else at start is for the admin to put right.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}


@dataclass(slots=True)
class SpoolStats:
    appended: int = 0
    committed: int = 0
    """Of this run: in the database."""
    held: int = 0
    """In memory only, now."""
    dropped: int = 0
    """Lost: neither disk nor memory had room, or the event could not be written at all."""
    write_errors: int = 0
    torn: int = 0
    """Ends of files that a dying process did not finish."""
    damaged: int = 0
    unknown: int = 0
    locked: int = 0
    """Sealed with a key that is not to be had."""
    unreadable_segments: int = 0


@dataclass(slots=True)
class _Segment:
    run: str
    path: Path
    bytes: int
    """Whole lines only, for our own; what the file holds, for a dead run's."""
    fd: int | None = None
    """Of our active one, and of one whose file was deleted under us: what is in it can still be read."""
    last_seq: int = 0
    """Of what was read so far."""
    keep: bool = False
    """Holds something nobody could read."""


class Spool:
    """A RecordSink. One per process and folder: `append` from any thread; `read` and `commit` from one reader."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        held_bytes: int = HELD_BYTES,
        sync_period_s: float | None = 1.0,
        seal: TextSeal | None = None,
    ) -> None:
        """Takes the folder, finds the runs of dead processes, starts the thread (none if `sync_period_s` is None:
        call `tick` yourself). Raises StoreError when another process has the folder or an admin must mend it."""
        self.folder = folder
        self.stats = SpoolStats()
        self._segment_bytes, self._held_bytes, self._seal_with = segment_bytes, held_bytes, seal
        self._locked_said = ""
        self._lock = threading.Lock()
        self._folder_fd: int | None = None
        self._segments: list[_Segment] = []
        self._active: _Segment | None = None
        self._segment_number = 0
        self._to_sync: list[int] = []
        self._written = self._folder_written = False
        self._seq = 0
        self._held: deque[tuple[int, bytes]] = deque()
        self._held_now_bytes = 0
        self._open_calls: set[CallId] = set()
        self._at, self._offset, self._read_seq = 0, 0, 0
        self._ticks = 0
        self._closed = False
        self._find_runs()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(sync_period_s,), name="spool-sync", daemon=True)
        if sync_period_s is not None:
            self._thread.start()

    def _find_runs(self) -> None:
        number = 0
        try:
            self._take_folder()
            for path in sorted(self.folder.iterdir()):
                if (name := _NAME.fullmatch(path.name)) is not None:
                    number = max(number, int(name["number"]))
                    self._segments.append(_Segment(name["run"], path, path.stat().st_size))
        except OSError as error:
            self._at_start(error)
        self.dead_runs = tuple(dict.fromkeys(s.run for s in self._segments))
        self._learn_keys()
        self.run = f"{number + 1:06d}-{secrets.token_hex(8)}"
        try:
            self._open_segment()
        except OSError as error:
            self._at_start(error)

    def _learn_keys(self) -> None:
        """Now, while no call waits for us: a key service may take its time."""
        if self._seal_with is None:
            return
        for segment in self._segments:
            try:
                line = _pread(segment, 0, _CHUNK_BYTES).partition(b"\n")[0]
                self._seal_with.learn(codec.sealed_text(line))
            except OSError:  # told of when it is read
                pass

    def _at_start(self, error: OSError) -> None:
        if error.errno not in _PASSING:
            self._release_folder()
            raise StoreError(f"spool folder {self.folder}: {_why(error)}") from None
        self._write_failed(error)

    def _take_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._release_folder()
        self._folder_fd = fd

    def _release_folder(self) -> None:
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None

    # --- appending --------------------------------------------------------------------------------------------------

    def append(self, event: RecordEvent) -> None:
        """Durable against kill -9 when this returns. Never raises: what cannot be written is held, or counted."""
        with self._lock:
            if self._closed:
                self.stats.dropped += 1
                log.error("spool %s: %s after close is lost", self.folder, type(event).__name__)
                return
            self._note_open(event)
            self._seq += 1
            self.stats.appended += 1
            try:
                line = codec.encode(event, self._seq, self.run, self._seal_with)
            except MisuseError as error:
                self.stats.dropped += 1
                log.error("record event not written: %s", error)
                return
            if self._held or not self._write(line):
                self._hold(event, line)

    def _note_open(self, event: RecordEvent) -> None:
        if isinstance(event, CallStarted):
            self._open_calls.add(event.call_id)
        elif isinstance(event, CallEnded):
            self._open_calls.discard(event.call_id)

    def _write(self, lines: bytes) -> bool:
        try:
            if self._active is None or self._active.bytes >= self._segment_bytes:
                self._open_segment()
            assert self._active is not None
            assert self._active.fd is not None
            written = os.write(self._active.fd, lines)
        except OSError as error:
            self._write_failed(error)
            return False
        if written == len(lines):
            self._active.bytes += written
            self._written = True
            return True
        self._cut_torn(self._active)
        self._write_failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return False

    def _cut_torn(self, active: _Segment) -> None:
        """Part of a line was written. Cut it off, or leave the file so that nothing is appended to the stump."""
        try:
            assert active.fd is not None
            os.ftruncate(active.fd, active.bytes)
        except OSError:
            self._seal()

    def _write_failed(self, error: OSError) -> None:
        if not self._held:
            log.error("spool %s: %s; records are held in memory", self.folder, _why(error))
        self.stats.write_errors += 1

    def _hold(self, event: RecordEvent, line: bytes) -> None:
        ends = isinstance(event, CallStarted | CallEnded)
        room = self._held_bytes if ends else self._held_bytes * 7 // 8
        if self._held_now_bytes + len(line) > room:
            self.stats.dropped += 1
            return
        self._held.append((self._seq, line))
        self._held_now_bytes += len(line)
        self.stats.held = len(self._held)

    def _unhold(self) -> None:
        _, line = self._held.popleft()
        self._held_now_bytes -= len(line)
        self.stats.held = len(self._held)

    # --- segments ---------------------------------------------------------------------------------------------------

    def _open_segment(self) -> None:
        if self._folder_fd is None or os.fstat(self._folder_fd).st_nlink == 0:
            self._take_folder()
        path = self.folder / f"{self.run}.{self._segment_number + 1:06d}.spool"
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._seal()
        self._segment_number += 1
        self._active = _Segment(self.run, path, 0, fd)
        self._segments.append(self._active)
        self._folder_written = True

    def _seal(self) -> None:
        """Write no more to the active segment. The thread syncs and closes its descriptor, unless the file was
        deleted under us: then it stays the only way to what is in it."""
        active, self._active = self._active, None
        if active is None or active.fd is None:
            return
        if os.fstat(active.fd).st_nlink:
            self._to_sync.append(active.fd)
            active.fd = None

    def _keep(self, period_s: float) -> None:
        while not self._stop.wait(period_s):
            self.tick()

    def tick(self) -> None:
        """Once a second: put down what is held, make durable what is written, notice a deleted folder."""
        self._ticks += 1
        self._retry_held()
        self._sync()
        with self._lock:
            committed = self.stats.committed >= self._seq and self._active is not None and self._active.bytes
            gone = self._active is not None and self._active.fd is not None and not os.fstat(self._active.fd).st_nlink
            if gone or (committed and self._ticks % _ROTATE_TICKS == 0):
                self._rotate()
            self._drop_committed()

    def _rotate(self) -> None:
        try:
            self._open_segment()
        except OSError as error:
            self._seal()
            self._write_failed(error)

    def _retry_held(self) -> None:
        while self._held:
            with self._lock:
                lines: list[bytes] = []
                for _, line in self._held:
                    if lines and sum(map(len, lines)) + len(line) > _FLUSH_BYTES:
                        break
                    lines.append(line)
                if not lines or not self._write(b"".join(lines)):
                    return
                for _ in lines:
                    self._unhold()
                if not self._held:
                    log.warning("spool %s: writing again; %d events were dropped", self.folder, self.stats.dropped)

    def _sync(self) -> None:
        with self._lock:
            sealed, self._to_sync = self._to_sync, []
            active = self._active.fd if self._active is not None and self._written else None
            folder = self._folder_fd if self._folder_written else None
            self._written = self._folder_written = False
            fds = [*sealed, *(os.dup(fd) for fd in (active, folder) if fd is not None)]
        for fd in fds:
            self._sync_and_close(fd)

    def _sync_and_close(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            self.stats.write_errors += 1
            log.error("spool %s: fsync: %s", self.folder, error.strerror)
        finally:
            os.close(fd)

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """Of this run, as appended so far."""
        return self._seq

    @property
    def open_calls(self) -> frozenset[CallId]:
        """Started and not ended in this run."""
        return frozenset(self._open_calls)

    @property
    def replaying(self) -> bool:
        """Entries of dead runs are still unread."""
        return self._at < len(self._segments) and self._segments[self._at].run != self.run

    def read(self, limit: int) -> list[Entry]:
        """The next entries, oldest first, all of one run; empty when there are none now. Each is given once: keep
        them until they are committed."""
        with self._lock:
            while self._at < len(self._segments):
                segment = self._segments[self._at]
                while self._offset < segment.bytes:
                    if entries := self._read_segment(segment, limit):
                        return entries
                if self._at == len(self._segments) - 1:
                    break
                self._at, self._offset = self._at + 1, 0
            return self._read_held(limit)

    def _read_segment(self, segment: _Segment, limit: int) -> list[Entry]:
        """Some entries from the offset on, and the offset moved beyond them; it moves in any case."""
        left = segment.bytes - self._offset
        try:
            chunk = _pread(segment, self._offset, min(_CHUNK_BYTES, left))
            if b"\n" not in chunk and len(chunk) < left:
                chunk = _pread(segment, self._offset, min(_LONGEST_BYTES, left))
        except OSError as error:
            self.stats.unreadable_segments += 1
            log.error("spool segment %s: %s", segment.path.name, _why(error))
            segment.keep, chunk = True, b""
        if not chunk:
            self._offset = segment.bytes
            return []
        entries: list[Entry] = []
        start = 0
        while len(entries) < limit and (end := chunk.find(b"\n", start)) >= 0:
            if (entry := self._decode(segment, chunk[start:end])) is not None:
                entries.append(entry)
            start = end + 1
        if start == 0:
            self._no_line(segment, torn=len(chunk) == left)
        self._offset += start or len(chunk)
        return entries

    def _no_line(self, segment: _Segment, *, torn: bool) -> None:
        if torn:
            self.stats.torn += 1
            log.warning("spool segment %s: its last line is torn", segment.path.name)
        else:  # no line is that long
            self.stats.damaged += 1
            segment.keep = True

    def _decode(self, segment: _Segment, line: bytes) -> Entry | None:
        try:
            entry = codec.decode(line, segment.run, self._seal_with)
        except codec.Damaged:
            self.stats.damaged += 1
        except codec.Unknown:
            self.stats.unknown += 1
        except codec.Locked as error:
            self.stats.locked += 1
            if str(error) != self._locked_said:
                log.error("spool segment %s: %s; what it seals is kept beside", segment.path.name, error)
            self._locked_said = str(error)
        else:
            if segment.run == self.run:
                if entry.seq <= self._read_seq:  # was read from memory while the disk was away
                    segment.last_seq = entry.seq
                    return None
                self._read_seq = entry.seq
            segment.last_seq = entry.seq
            return entry
        segment.keep = True
        return None

    def _read_held(self, limit: int) -> list[Entry]:
        lines = (line for seq, line in self._held if seq > self._read_seq)
        entries = [codec.decode(line[:-1], self.run, self._seal_with) for line in islice(lines, limit)]
        if entries:
            self._read_seq = entries[-1].seq
        return entries

    def rewind(self) -> None:
        """The database is another one: give everything that is still here again."""
        with self._lock:
            self._at, self._offset, self._read_seq = 0, 0, 0
            self.stats.committed = 0

    # --- giving back ------------------------------------------------------------------------------------------------

    def commit(self, run: str, seq: int) -> None:
        """All of `run` up to `seq` is in the database."""
        if run != self.run:
            return
        with self._lock:
            self.stats.committed = max(seq, self.stats.committed)
            while self._held and self._held[0][0] <= seq:
                self._unhold()
            self._drop_committed()

    def caught_up(self) -> bool:
        """Everything appended and not dropped is in the database. Call after a `read` that gave nothing."""
        with self._lock:
            if not self._held and self._read_seq <= self.stats.committed:
                self.stats.committed = self._seq if self._all_read() else self.stats.committed
            return self.stats.committed >= self._seq

    def _all_read(self) -> bool:
        if not self._segments:
            return True
        end = self._segments[-1]
        return self._at >= len(self._segments) or (
            self._at == len(self._segments) - 1 and self._offset >= end.bytes and end.run == self.run
        )

    def forget_dead_runs(self) -> None:
        """Their events are in the database and their calls are closed."""
        with self._lock:
            for segment in list(self._done()):
                if segment.run != self.run:
                    self._delete(segment)

    def _drop_committed(self) -> None:
        for segment in list(self._done()):
            if segment.run == self.run and segment.last_seq <= self.stats.committed:
                self._delete(segment)

    def _done(self) -> Iterator[_Segment]:
        """Read to their ends."""
        for segment in self._segments[: self._at]:
            if segment is not self._active:
                yield segment

    def _delete(self, segment: _Segment) -> None:
        index = self._segments.index(segment)
        try:
            if segment.fd is not None:
                os.close(segment.fd)
            elif segment.keep:
                segment.path.rename(segment.path.with_suffix(".kept"))
            else:
                segment.path.unlink()
        except OSError as error:  # replayed at the next start, to no effect
            log.warning("spool segment %s: %s", segment.path.name, error.strerror)
        del self._segments[index]
        self._at -= index < self._at

    def close(self) -> None:
        """Last sync; the thread ends. A run that is all in the database and has no open call leaves nothing behind;
        any other is replayed at the next start. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)
        self._retry_held()
        if self._held:
            log.error("spool %s: closed with %d events in memory only", self.folder, len(self._held))
        self.caught_up()
        with self._lock:
            self._seal()
            if self.stats.committed >= self._seq and not self._open_calls:
                for segment in [s for s in self._segments if s.run == self.run]:
                    self._delete(segment)
        self._sync()
        for segment in self._segments:
            if segment.fd is not None:
                os.close(segment.fd)
        self._release_folder()


def _why(error: OSError) -> str:
    if error.errno == errno.EWOULDBLOCK:
        return "in use by another process; each worker needs its own"
    return error.strerror or type(error).__name__


def _pread(segment: _Segment, offset: int, length: int) -> bytes:
    if segment.fd is not None:
        return os.pread(segment.fd, length, offset)
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)
