"""A speech worker: one process, one socket to the gateway, many jobs by turns. `python -m ... FD KINDS`.

A *kind* of job is a class, one object per process, imported when first named; `open()` makes a *handler* per job:

    class Kind(Protocol):    preload(message) -> Iterable[Message]; unload(message); open() -> Handler
    class Handler(Protocol): handle(message) -> Iterable[Message];  close()

Replies are taken one by one. Between two replies of one job the socket is read and other jobs have their turn, so a
handler with much to do is a generator that yields often (an empty-named Message is a turn given up, and is not sent).
A job that has given no reply yet is somebody waiting in silence, so such jobs come first, three turns in four.
A job's next message waits until its running reply has ended; its close does not. An exception ends that job only.
What is preloaded while jobs run takes turns with them, one in four; a job that was opened behind it waits for it.

The gateway counts what is not yet consumed, by bytes: that is both its bound and its watch for a hung worker.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, cast

from trunkline.agents.local.wire import WORKER, Message, Unpacker, pack
from trunkline.errors import ProviderError
from trunkline.logs import guard, mask
from trunkline.privacy.redaction import CARDS

CHORE_EVERY_TURNS = 4  # of jobs': a grammar of a new agent takes 100 ms, and speakers are not to notice
FRESH_TURNS = 3  # in a row, before one of a job that already had a reply
RECEIVE_BYTES = 64 * 1024
CONSUMED_EVERY_BYTES = 8 * 1024  # half a second of one caller: well inside the gateway's bound
CONSUMED_EVERY_MS = 100  # also when little comes, so that the gateway sees progress
TOLD_EVERY_TURNS = 8  # and when nothing is consumed, as within a long message: no turn takes more than some 50 ms
PR_SET_PDEATHSIG = 1

_DONE = object()


class Handler(Protocol):
    def handle(self, message: Message) -> Iterable[Message]: ...

    def close(self) -> None:
        """The job is given back; what it borrowed in this process is free again."""
        ...


class Kind(Protocol):
    def preload(self, message: Message) -> Iterable[Message]:
        """Get ready for what `message` names, before the first job. Yields to give turns up; replies are not sent."""
        ...

    def unload(self, message: Message) -> None:
        """What such a `preload` got ready is not wanted any more; jobs that use it go on."""
        ...

    def open(self) -> Handler: ...


def complain(error: Exception) -> None:
    """On the gateway's stderr, as its own log lines are: an error may quote what was to be said."""
    print(guard(mask("".join(traceback.format_exception(error))), CARDS), file=sys.stderr, flush=True)


def failure(error: Exception) -> Message:
    if isinstance(error, ProviderError):
        return Message("failed", {"code": error.code, "detail": error.detail, "retryable": error.retryable})
    return Message("failed", {"code": "unavailable", "detail": f"{type(error).__name__}: {error}", "retryable": True})


class Job:
    """One handler, its waiting messages and the reply it is in the middle of."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._waiting: deque[tuple[Message, int]] = deque()
        self._running: Iterator[Message] | None = None
        self.waiting_bytes = 0
        self.fresh = True
        """No reply yet."""

    def put(self, message: Message, size: int) -> None:
        self._waiting.append((message, size))
        self.waiting_bytes += size

    def step(self) -> tuple[bool, Message | None]:
        """(more to do, one reply or None)."""
        if self._running is None:
            if not self._waiting:
                return False, None
            message, size = self._waiting.popleft()
            self.waiting_bytes -= size
            self._running = iter(self.handler.handle(message))
        reply = next(self._running, None)
        if reply is None:
            self._running = None
            return bool(self._waiting), None
        if not reply.name:
            return True, None
        self.fresh = False
        return True, reply


class Worker:
    """The dispatch, without a socket: `receive` a message, `step` while `busy`; replies go to `out`."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.out: list[bytes] = []
        self.received_bytes = 0
        self._waiting_bytes = 0
        self._paths = kinds
        self._kinds: dict[str, Kind] = {}
        self._jobs: dict[int, Job] = {}
        self._fresh: deque[int] = deque()
        self._going: deque[int] = deque()
        self._fresh_turns = 0
        self._chores: deque[Iterator[None]] = deque()
        self._chore_turns = 0
        self._behind: deque[tuple[int, Message, int]] = deque()
        """Messages of jobs that were opened behind a chore."""

    @property
    def busy(self) -> bool:
        return bool(self._fresh or self._going or self._chores)

    @property
    def consumed_bytes(self) -> int:
        """Of all received: what no job has still to begin."""
        return self.received_bytes - self._waiting_bytes

    def receive(self, job_id: int, message: Message, size: int) -> None:
        self.received_bytes += size
        if job_id == WORKER:
            self._chores.append(self._preload(message) if message.name != "unload" else self._unload(message))
        elif self._chores and job_id not in self._jobs:
            self._behind.append((job_id, message, size))
            self._waiting_bytes += size
        else:
            self._take(job_id, message, size)

    def _take(self, job_id: int, message: Message, size: int) -> None:
        if message.name == "open":
            try:
                self._jobs[job_id] = Job(self._kind(message.fields["kind"]).open())
            except Exception as error:
                self._fail(job_id, error)
        elif message.name == "close":
            self._close(job_id)
        elif (job := self._jobs.get(job_id)) is not None:
            job.put(message, size)
            self._waiting_bytes += size
            self._turn(job_id, job)

    def step(self) -> None:
        """One turn of the job whose turn it is, or of a chore."""
        if self._chores and (self._chore_turns >= CHORE_EVERY_TURNS - 1 or not (self._fresh or self._going)):
            self._chore_turns = 0
            self._step_chore()
            return
        self._chore_turns += 1
        job_id = self._next()
        job = self._jobs.get(job_id)
        if job is None:
            return
        before = job.waiting_bytes
        try:
            more, reply = job.step()
        except Exception as error:
            self._waiting_bytes -= before - job.waiting_bytes
            self._fail(job_id, error)
            return
        self._waiting_bytes -= before - job.waiting_bytes
        if reply is not None:
            self.out.append(pack(job_id, reply))
        if more:
            self._turn(job_id, job)

    def _step_chore(self) -> None:
        if next(self._chores[0], _DONE) is not _DONE:
            return
        self._chores.popleft()
        while self._behind and not self._chores:
            job_id, message, size = self._behind.popleft()
            self._waiting_bytes -= size
            self._take(job_id, message, size)

    def _next(self) -> int:
        if self._fresh and (self._fresh_turns < FRESH_TURNS or not self._going):
            self._fresh_turns += 1
            return self._fresh.popleft()
        self._fresh_turns = 0
        return self._going.popleft()

    def _turn(self, job_id: int, job: Job) -> None:
        if job_id not in self._fresh and job_id not in self._going:
            (self._fresh if job.fresh else self._going).append(job_id)

    def _kind(self, name: str) -> Kind:
        kind = self._kinds.get(name)
        if kind is None:
            module, _, attribute = self._paths[name].partition(":")
            kind = self._kinds[name] = cast(Kind, getattr(importlib.import_module(module), attribute)())
        return kind

    def _preload(self, message: Message) -> Iterator[None]:
        kind, key = message.fields["kind"], message.fields["key"]
        try:
            for _ in self._kind(kind).preload(Message(message.name, message.fields["fields"], message.data)):
                self.out.append(pack(WORKER, Message("loading", {"key": key})))
                yield
        except Exception as error:
            complain(error)
            reply = failure(error)
            self.out.append(pack(WORKER, Message("preload_failed", {**reply.fields, "key": key})))
        else:
            gc.collect()
            gc.freeze()
            self.out.append(pack(WORKER, Message("loaded", {"key": key})))

    def _unload(self, message: Message) -> Iterator[None]:
        try:
            self._kind(message.fields["kind"]).unload(Message(message.fields["name"], message.fields["fields"]))
        except Exception as error:
            complain(error)
        yield

    def _close(self, job_id: int) -> None:
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._waiting_bytes -= job.waiting_bytes
            job.handler.close()

    def _fail(self, job_id: int, error: Exception) -> None:
        if not isinstance(error, ProviderError):
            complain(error)
        self.out.append(pack(job_id, failure(error)))
        with contextlib.suppress(Exception):
            self._close(job_id)


def serve(link: socket.socket, worker: Worker) -> None:
    """Until the gateway closes the socket or dies."""
    unpacker = Unpacker()
    poll = select.poll()
    poll.register(link, select.POLLIN)
    link.sendall(pack(WORKER, Message("hello")))
    reported = turns = 0
    while True:
        wait_ms = 0 if worker.busy else CONSUMED_EVERY_MS if worker.consumed_bytes > reported else None
        ready = poll.poll(wait_ms)
        if ready:
            data = link.recv(RECEIVE_BYTES)
            if not data:
                return
            for job_id, message, size in unpacker.receive(data):
                worker.receive(job_id, message, size)
        if worker.busy:
            worker.step()
            turns = 0 if worker.out else turns + 1
        unreported = worker.consumed_bytes - reported
        due = unreported and (worker.out or not (ready or worker.busy))
        if due or unreported >= CONSUMED_EVERY_BYTES or turns >= TOLD_EVERY_TURNS:
            reported, turns = worker.consumed_bytes, 0
            worker.out.append(pack(WORKER, Message("consumed", {"bytes": reported})))
        if worker.out:
            link.sendall(b"".join(worker.out))
            worker.out.clear()


def main(arguments: list[str]) -> None:
    # The gateway decides when a worker ends: on a terminal's ^C or a supervisor's TERM it drains its calls first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # Linux; elsewhere the closed socket is enough
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=int(arguments[0])) as link, contextlib.suppress(ConnectionError):
        serve(link, Worker(json.loads(arguments[1])))
    os._exit(0)  # espeak-ng and PocketSphinx have nothing worth a tidy exit


if __name__ == "__main__":
    main(sys.argv[1:])
