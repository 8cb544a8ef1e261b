"""The thread that owns PJSIP, and the ways between it, PJSIP's own threads and the loop.

Commands are performed one after the other. What has died is kept for KEEP_S and dropped here: a pj.Call that was
dropped earlier, or elsewhere, crashed the process.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import pjsua2 as pj

from trunkline.clock import Clock

log = logging.getLogger("trunkline.sip")

KEEP_S = 2.0  # a Call outlives its DISCONNECTED by so much
POLL_S = 0.05

T = TypeVar("T")


def why(error: Any) -> str:
    """PJSIP's words."""
    return str(getattr(error, "reason", error))


class Owner:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._dead: deque[tuple[float, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def running(self) -> bool:
        """Until it is told to stop."""
        return self._thread is not None

    # --- its life (loop) ---

    async def start(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """Both are performed by the thread; `end` also where `begin` fails, whose error is raised here. Another start
        may be tried then."""
        self._loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._live, args=(started, begin, end), name="sip-owner", daemon=True)
        self._thread.start()
        try:
            await started
        except Exception:
            self._thread = None
            raise

    async def stop(self, within_s: float) -> bool:
        """False: it does not."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._commands.put(None)
        await asyncio.to_thread(thread.join, within_s)
        return not thread.is_alive()

    # --- ways (any thread) ---

    def put(self, command: Callable[[], None]) -> None:
        """To be performed by the owner."""
        self._commands.put(command)

    async def perform(self, command: Callable[[], T], within_s: float) -> T:
        """From the loop: what the owner's thread makes of it. Raises what it raises, and TimeoutError."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def perform() -> None:
            try:
                result = command()
            except Exception as error:
                failure = error  # whose name ends with this block
                self.soon(lambda: None if done.done() else done.set_exception(failure))
            else:
                self.soon(lambda: None if done.done() else done.set_result(result))

        self.put(perform)
        async with asyncio.timeout(within_s):
            return await done

    def soon(self, perform: Callable[[], None]) -> None:
        """On the loop."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(perform)

    def later(self, after_s: float, perform: Callable[[], None]) -> None:
        """On the loop."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, after_s, perform)

    # --- the thread ---

    def bury(self, dead: Any) -> None:
        """To be dropped in a while."""
        self._dead.append((self._clock.now(), dead))

    def perform_while(self, busy: Callable[[], bool], within_s: float) -> None:
        """What still comes. Raises what a command raises."""
        deadline = self._clock.now() + within_s
        while busy() and self._clock.now() < deadline:
            with contextlib.suppress(queue.Empty):
                command = self._commands.get(timeout=POLL_S)
                if command is not None:
                    command()

    def forget(self) -> None:
        """What came too late, which holds calls as well, and what has died."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._commands.get_nowait()
        self._dead.clear()

    def _live(self, started: "asyncio.Future[None]", begin: Callable[[], None], end: Callable[[], None]) -> None:
        error: Exception | None = None
        try:
            begin()
        except Exception as failure:
            error = failure
            end()
            for one in (failure, failure.__cause__):  # whose frames hold the endpoint, and there may be one at a time
                traceback.clear_frames(one.__traceback__ if one is not None else None)

        def tell() -> None:
            if started.done():
                return
            if error is None:
                started.set_result(None)
            else:
                started.set_exception(error)

        self.soon(tell)
        if error is not None:
            return
        try:
            while self._perform_next():
                pass
        except BaseException:
            log.critical("the thread that owns PJSIP fails; no call can be made or taken any more", exc_info=True)
            raise
        finally:
            end()

    def _perform_next(self) -> bool:
        try:
            command = self._commands.get(timeout=KEEP_S)
            if command is None:
                return False
            command()
        except queue.Empty:
            pass
        except pj.Error as error:  # the call went away meanwhile
            log.debug("sip command: %s", why(error))
        except Exception:
            log.exception("sip command")
        now = self._clock.now()
        while self._dead and now - self._dead[0][0] > KEEP_S:
            self._dead.popleft()
        return True
