"""The pool of local speech processes, as the gateway's event loop sees it.

PocketSphinx keeps the GIL while it decodes and espeak-ng has one state per process, so both live in worker processes.
A *job* is borrowed for one utterance from the least loaded worker, speaks with it in Messages, and is closed. Nothing
here blocks and nothing is a task per message: replies reach the job's callback from the worker's one reader.

A worker that ends, or takes nothing of what it was sent for `deadline_s`, is killed; its jobs are told `unavailable`
at once, and another is started, after a wait that doubles while workers keep ending. All that was preloaded is loaded
in it again, before its first job. What is preloaded while jobs run (an agent that begins later) is loaded in one worker
after another, so that the others take the new jobs.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.agents.local.wire import WORKER, Message, Unpacker, pack
from trunkline.errors import MisuseError, PeerError, ProviderError

KINDS = {"ears": "trunkline.agents.local.ears:Ears", "voice": "trunkline.agents.local.voice:Voices"}

JOBS_PER_WORKER = 64  # an utterance takes 3-4 % of a core while it lasts: more would fall behind the speakers
QUEUE_BYTES_PER_WORKER = 512 * 1024  # 32 s of speech as 8 kHz PCM: a worker this far behind is overloaded
DEADLINE_S = 5.0  # one step of the slowest job is some 50 ms
START_DEADLINE_S = 30.0  # imports, decoders
BACKOFF_S = (0.05, 5.0)
HEALTHY_AFTER_S = 30.0
LINGER_S = 1.0  # what a worker has to leave by itself at close

Reply = Message | ProviderError
OnReply = Callable[[Reply], None]


@dataclass(slots=True)
class PoolStats:
    """Counted since the pool was made."""

    jobs: int = 0
    overloads: int = 0
    """Jobs refused because every worker was full."""
    drops: int = 0
    """Messages not sent: the worker's queue was full, or the job had ended."""
    restarts: int = 0
    failures: int = 0
    """Jobs ended by a failure."""


class Job:
    """One utterance's share of a worker. After a ProviderError came, or close, sends are dropped and nothing comes."""

    def __init__(self, pool: "SpeechPool", worker: "_Worker", job_id: int, on_reply: OnReply) -> None:
        self._pool, self._worker, self._id, self._on_reply = pool, worker, job_id, on_reply
        self.open = True

    def send(self, name: str, data: bytes = b"", **fields: Any) -> None:
        """Raises ProviderError `overloaded` when the worker's queue is full: this message is dropped, the job lives."""
        if not self.open:
            self._pool.stats.drops += 1
        elif not self._worker.send(self._id, Message(name, fields, data)):
            self._pool.stats.drops += 1
            raise ProviderError("speech", "overloaded", "a speech worker is behind", retryable=True)

    def close(self) -> None:
        """Give the worker back; a reply under way is abandoned. Idempotent. No reply follows."""
        if self.open:
            self.open = False
            self._worker.forget(self._id)

    def _deliver(self, reply: Reply) -> None:
        if isinstance(reply, ProviderError):
            self.open = False
            self._pool.stats.failures += 1
        self._on_reply(reply)


class SpeechPool:
    """Start it as often as you like: it closes with the last close. Belongs to one event loop."""

    def __init__(
        self,
        workers: int,
        *,
        jobs_per_worker: int = JOBS_PER_WORKER,
        queue_bytes_per_worker: int = QUEUE_BYTES_PER_WORKER,
        deadline_s: float = DEADLINE_S,
        kinds: Mapping[str, str] = KINDS,
    ) -> None:
        self.stats = PoolStats()
        self.jobs_per_worker, self.queue_bytes_per_worker = jobs_per_worker, queue_bytes_per_worker
        self.deadline_s = deadline_s
        self.kinds = dict(kinds)
        self.preloads: dict[str, Message] = {}
        self._wanted: Counter[str] = Counter()
        self._preloading = asyncio.Lock()
        self._workers = [_Worker(self) for _ in range(max(1, workers))]
        self._users = 0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def live_jobs(self) -> int:
        return sum(worker.load for worker in self._workers)

    @property
    def in_use(self) -> bool:
        """Somebody has started it, so its workers are needed."""
        return self._users > 0

    @property
    def ready_workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that run, for metrics and for tests that kill one."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def start(self) -> None:
        """Returns when every worker is ready. Raises ProviderError if none came up in time. Counts its callers."""
        self._users += 1
        try:
            if self._users == 1:
                for worker in self._workers:
                    await worker.start()
                self._watch = asyncio.get_running_loop().call_later(self.deadline_s / 4, self._look)
            await self._settled()
        except BaseException:
            await self.close()
            raise

    async def preload(self, kind: str, message: Message) -> None:
        """Broadcast, and again to every worker that is started later. Returns when loaded. Idempotent by value; counts
        its callers (`forget`).

        Raises ProviderError `bad_request` if a worker refuses it (it is then forgotten).
        """
        if message.data:
            raise MisuseError("a preload carries fields only")
        key = _key(kind, message)
        async with self._preloading:
            if key not in self.preloads:
                self.preloads[key] = Message(message.name, {"kind": kind, "key": key, "fields": dict(message.fields)})
                for worker in self._workers:
                    worker.preload(key)
                    if self.live_jobs:
                        await worker.settle()
            await self._settled()
        for worker in self._workers:
            if (refusal := worker.refused.get(key)) is not None:
                self.preloads.pop(key, None)
                self._wanted.pop(key, None)
                raise ProviderError("speech", "bad_request", refusal, retryable=False)
        self._wanted[key] += 1

    def forget(self, kind: str, message: Message) -> None:
        """Of one `preload` that has returned: with the last, workers unload it. Jobs that use it go on."""
        key = _key(kind, message)
        if not self._wanted[key]:
            return
        self._wanted[key] -= 1
        if self._wanted[key]:
            return
        del self._wanted[key], self.preloads[key]
        for worker in self._workers:
            worker.unload(Message("unload", {"kind": kind, "name": message.name, "fields": dict(message.fields)}))

    def borrow(self, kind: str, on_reply: OnReply, setup: Message | None = None) -> Job:
        """Replies come to `on_reply` on the event loop; a ProviderError is the last. Raises ProviderError: overloaded
        (every worker is full) or unavailable (none runs)."""
        ready = [worker for worker in self._workers if worker.ready]
        ready = ready or [worker for worker in self._workers if worker.greeted]  # still loading: the job waits for it
        if not ready:
            raise ProviderError("speech", "unavailable", "no speech worker runs", retryable=True)
        worker = min(ready, key=_Worker.weight)
        if worker.load >= self.jobs_per_worker or worker.queued_bytes >= self.queue_bytes_per_worker:
            self.stats.overloads += 1
            raise ProviderError("speech", "overloaded", "every speech worker is full", retryable=True)
        self.stats.jobs += 1
        return worker.open(kind, on_reply, setup)

    async def close(self) -> None:
        """The last of as many as there were starts ends the workers; their jobs fail."""
        self._users = max(0, self._users - 1)
        if self._users:
            return
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def _settled(self) -> None:
        """Raises ProviderError where no worker came up."""
        waits = [worker.settled.wait() for worker in self._workers]
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await asyncio.gather(*waits)
        except TimeoutError:
            if not self.ready_workers:
                raise ProviderError("speech", "unavailable", "no speech worker came up", retryable=True) from None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.look(loop.time())
        self._watch = loop.call_later(self.deadline_s / 4, self._look)


def _key(kind: str, message: Message) -> str:
    return json.dumps([kind, message.name, dict(message.fields)], sort_keys=True)


@dataclass(slots=True)
class _Process:
    """What lives exactly as long as one process."""

    popen: "subprocess.Popen[bytes]"
    transport: asyncio.WriteTransport
    started_at: float
    greeted: bool = False
    progress_at: float = 0.0
    sent_bytes: int = 0
    consumed_bytes: int = 0
    loading: set[str] = field(default_factory=set)


class _Link(asyncio.Protocol):
    def __init__(self, worker: "_Worker") -> None:
        self._worker = worker
        self._unpacker = Unpacker()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for job_id, message, _ in self._unpacker.receive(data):
                self._worker.received(job_id, message)
        except PeerError as error:
            self._worker.lost(self._transport, f"sent nonsense: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.lost(self._transport, "ended")


class _Worker:
    """One place in the pool: its process of the moment, the jobs in it, and how it comes back."""

    def __init__(self, pool: SpeechPool) -> None:
        self._pool = pool
        self._process: _Process | None = None
        self._jobs: dict[int, Job] = {}
        self._last_id = WORKER
        self._backoff_s = BACKOFF_S[0]
        self._restart: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Future[Any]] = set()
        self.settled = asyncio.Event()
        """The process runs and has loaded, or refused, every preload."""
        self.refused: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        process = self._process
        return process is not None and process.greeted and not process.loading

    @property
    def greeted(self) -> bool:
        return self._process is not None and self._process.greeted

    @property
    def load(self) -> int:
        return len(self._jobs)

    @property
    def queued_bytes(self) -> int:
        return self._process.sent_bytes - self._process.consumed_bytes if self._process is not None else 0

    @property
    def pid(self) -> int | None:
        return self._process.popen.pid if self._process is not None else None

    def weight(self) -> tuple[int, int]:
        return self.load, self.queued_bytes

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            fd = theirs.fileno()
            # -P: the gateway's working folder is no place to import from.
            command = [sys.executable, "-P", "-m", "trunkline.agents.local.worker", str(fd)]
            command.append(json.dumps(self._pool.kinds))
            popen = subprocess.Popen(  # noqa: ASYNC220 - execs at once; asyncio's own would need a child watcher
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(fd,)
            )
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(lambda: _Link(self), sock=ours)
        self._process = _Process(popen, transport, loop.time(), progress_at=loop.time())
        for key in self._pool.preloads:
            self.preload(key)

    def preload(self, key: str) -> None:
        self.settled.clear()
        self.refused.pop(key, None)
        if self._process is not None:
            self._process.loading.add(key)
            self._write(WORKER, self._pool.preloads[key])

    def unload(self, message: Message) -> None:
        self._write(WORKER, message)

    async def settle(self) -> None:
        """All is loaded, or it takes too long: whoever watches over it sees to that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_DEADLINE_S):
                await self.settled.wait()

    def open(self, kind: str, on_reply: OnReply, setup: Message | None) -> Job:
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        job = self._jobs[self._last_id] = Job(self._pool, self, self._last_id, on_reply)
        self._write(self._last_id, Message("open", {"kind": kind}))
        if setup is not None:
            self._write(self._last_id, setup)
        return job

    def forget(self, job_id: int) -> None:
        if self._jobs.pop(job_id, None) is not None:
            self._write(job_id, Message("close"))

    def send(self, job_id: int, message: Message) -> bool:
        if self.queued_bytes >= self._pool.queue_bytes_per_worker:
            return False
        self._write(job_id, message)
        return True

    def _write(self, job_id: int, message: Message) -> None:
        process = self._process
        if process is None:
            return
        data = pack(job_id, message)
        if process.sent_bytes == process.consumed_bytes:
            process.progress_at = asyncio.get_running_loop().time()
        process.sent_bytes += len(data)
        process.transport.write(data)

    def received(self, job_id: int, message: Message) -> None:
        process = self._process
        if process is None:
            return
        process.progress_at = asyncio.get_running_loop().time()
        if job_id == WORKER:
            self._of_worker(process, message)
        elif (job := self._jobs.get(job_id)) is not None:
            if message.name == "failed":
                del self._jobs[job_id]
                fields = message.fields
                error = ProviderError("speech", fields["code"], fields["detail"], retryable=fields["retryable"])
                self._deliver(job, error)
            else:
                self._deliver(job, message)

    def _of_worker(self, process: _Process, message: Message) -> None:
        if message.name == "consumed":
            process.consumed_bytes = message.fields["bytes"]
        elif message.name == "hello":
            process.greeted = True
        elif message.name in ("loaded", "preload_failed"):
            process.loading.discard(message.fields["key"])
            if message.name == "preload_failed":
                self.refused[message.fields["key"]] = message.fields["detail"]
        if self.ready:
            self.settled.set()

    def _deliver(self, job: Job, reply: Reply) -> None:
        try:
            job._deliver(reply)
        except Exception as error:  # one call's bug must not silence the worker's other jobs
            job.close()
            context = {"message": "a speech job's callback raised", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def look(self, now: float) -> None:
        """Kill what makes no progress."""
        process = self._process
        if process is None:
            if not self._restart and not self._chores:
                self._come_back()
            return
        if now - process.started_at > HEALTHY_AFTER_S:
            self._backoff_s = BACKOFF_S[0]
        patience_s = self._pool.deadline_s if self.ready else START_DEADLINE_S
        waiting = self.queued_bytes > 0 or not process.greeted
        if waiting and now - process.progress_at > patience_s:
            self.lost(process.transport, "hung")

    def lost(self, transport: asyncio.BaseTransport | None, why: str) -> None:
        """The process is gone, or as good as: kill it, fail its jobs, come back later."""
        if self._process is None or self._process.transport is not transport:
            return
        self._end()
        jobs, self._jobs = list(self._jobs.values()), {}
        self._pool.stats.restarts += 1
        self._restart = asyncio.get_running_loop().call_later(self._backoff_s, self._come_back)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])
        for job in jobs:
            detail = f"the speech worker {why}"
            self._deliver(job, ProviderError("speech", "unavailable", detail, retryable=True))

    def _come_back(self) -> None:
        self._restart = None
        self._chore(asyncio.ensure_future(self.start()))

    def _chore(self, future: asyncio.Future[Any]) -> None:
        self._chores.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._chores.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:  # look() tries again
            context = {"message": "a speech worker did not start", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _end(self, *, kill: bool = True) -> None:
        process, self._process = self._process, None
        self.settled.clear()
        if process is not None:
            process.transport.abort() if kill else process.transport.close()
            if kill:
                process.popen.kill()
            self._chore(asyncio.get_running_loop().run_in_executor(None, _reap, process.popen))

    async def stop(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        while self._process is not None or self._chores:
            jobs, self._jobs = list(self._jobs.values()), {}
            self._end(kill=False)
            for job in jobs:
                self._deliver(job, ProviderError("speech", "unavailable", "the speech pool closed", retryable=False))
            chores = tuple(self._chores)
            await asyncio.gather(*chores, return_exceptions=True)
            # Where all are done already, Python 3.12's gather does not let the loop run, nor their own callbacks.
            self._chores.difference_update(chores)


def _reap(popen: "subprocess.Popen[bytes]") -> None:
    """In a thread: waits for a process that has been told to go."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(LINGER_S)
        return
    popen.kill()
    popen.wait()
