"""What the suites have in common: situations, the stage a provider is put on, and what holds in all of them."""

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

from trunkline.errors import ProviderError
from trunkline.ports import CallFacts
from trunkline.types import DEFAULT_TENANT, CallId

Situation = Literal[
    "answers",  # the far end does what it should
    "silent",  # takes the request and says nothing
    "stalls",  # begins its answer and says no more
    "breaks",  # begins its answer and the connection breaks; each time, where the provider tries again
    "garbage",  # sends what no version of its protocol knows
    "unauthorized",  # 401, quoting the key
    "rate_limited",  # 429 with `Retry-After: 7`
    "fails",  # 500
    "absent",  # nobody listens at its address
]

LIMIT_S = 20.0
"""For one case, whatever hangs."""
CALL = CallFacts(CallId("call_1"), DEFAULT_TENANT, "inbound", None, None, datetime(2026, 11, 22, 15, tzinfo=UTC))

# code, retryable; None: either may be
FAILURES: dict[Situation, tuple[frozenset[str], bool | None]] = {
    "silent": (frozenset({"timeout"}), True),
    "stalls": (frozenset({"timeout"}), True),
    "breaks": (frozenset({"protocol", "unavailable"}), True),
    "garbage": (frozenset({"protocol"}), None),
    "unauthorized": (frozenset({"auth"}), False),
    "rate_limited": (frozenset({"rate_limited"}), True),
    "fails": (frozenset({"unavailable"}), True),
    "absent": (frozenset({"unavailable"}), True),
}


class Provider(Protocol):
    name: str

    async def start(self) -> None: ...

    async def close(self) -> None: ...


P = TypeVar("P", bound=Provider)
M = TypeVar("M", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Stage(Generic[P]):
    provider: P
    """Not started: the suite starts and closes it. Its deadlines set so short that `deadline_s` holds."""
    closed: Callable[[], Awaitable[Any]] | None = None
    """Returns when the far end has seen a request of the provider closed before it was complete. None: it has no eyes
    for that, and what needs them is not asked."""


def needs(*situations: Situation) -> Callable[[M], M]:
    """Marks a case that is there only where the stage offers all of these."""

    def mark(case: M) -> M:
        case.__dict__["needs"] = situations
        return case

    return mark


class Conformance(Generic[P]):
    situations: frozenset[Situation] = frozenset({"answers"})
    """Those that `stage` can set."""
    secrets: tuple[str, ...] = ()
    """What no log and no error may hold: keys."""
    deadline_s: float = 2.0
    """Within which the provider on the stage gives up a far end that says nothing."""

    def stage(self, situation: Situation) -> AbstractAsyncContextManager[Stage[P]]:
        """A new provider before a far end in this situation."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """On an event loop; to be overridden where providers share what lives on one."""
        asyncio.run(main)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Conformance in cls.__bases__:  # a suite, which nobody has staged yet
            return
        for name in dir(cls):
            case = getattr(cls, name)
            if name.startswith("test_") and not cls.situations.issuperset(getattr(case, "needs", ())):
                setattr(cls, name, None)  # not collected

    # --- the cases of every port ---

    def fails(self, situation: Situation) -> None:
        """Whoever asks the provider in this situation gets the one error that `check_failure` wants."""
        raise NotImplementedError

    @needs("silent")
    def test_a_far_end_that_says_nothing_is_given_up(self) -> None:
        self.fails("silent")

    @needs("stalls")
    def test_a_far_end_that_stalls_is_given_up_after_what_it_said(self) -> None:
        self.fails("stalls")

    @needs("breaks")
    def test_a_connection_that_breaks_is_an_error_and_not_an_end(self) -> None:
        self.fails("breaks")

    @needs("garbage")
    def test_garbage_is_an_error(self) -> None:
        self.fails("garbage")

    @needs("unauthorized")
    def test_a_wrong_key_is_not_tried_again(self) -> None:
        self.fails("unauthorized")

    @needs("rate_limited")
    def test_a_rate_limit_says_for_how_long(self) -> None:
        self.fails("rate_limited")

    @needs("fails")
    def test_a_server_error_may_be_tried_again(self) -> None:
        self.fails("fails")

    @needs("absent")
    def test_nobody_there_may_be_tried_again(self) -> None:
        self.fails("absent")

    # --- for the cases ---

    async def sees_closed(self, situation: Situation, stage: Stage[P]) -> None:
        if stage.closed is not None:
            await self.in_time(situation, stage.closed(), "the far end did not see it closed")

    def play(self, situation: Situation, case: Callable[[P, Stage[P]], Awaitable[None]]) -> None:
        """The case with the started provider; then what holds always. It notes in `audio` what was heard or said."""
        self.audio: list[bytes] = []
        log = _Log()
        root = logging.getLogger()
        level = root.level
        root.addHandler(log)
        root.setLevel(logging.DEBUG)
        try:
            self.run(self._play(situation, case))
        finally:
            root.setLevel(level)
            root.removeHandler(log)
        self.check_secret(log.lines, "a log line")

    async def _play(self, situation: Situation, case: Callable[[P, Stage[P]], Awaitable[None]]) -> None:
        untaken: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: untaken.append(str(context)))
        before = asyncio.all_tasks()
        try:
            async with asyncio.timeout(LIMIT_S), self._started(situation) as stage:
                await case(stage.provider, stage)
            for _ in range(5):
                await asyncio.sleep(0)  # what was cancelled ends
        except TimeoutError:
            raise AssertionError(f"{situation}: not over after {LIMIT_S} s") from None
        finally:
            loop.set_exception_handler(None)
        left = [str(task.get_coro()) for task in asyncio.all_tasks() - before]
        assert not left, f"{situation}: tasks outlive the provider: {left}"
        assert not untaken, f"{situation}: exceptions that nobody took: {untaken}"

    @asynccontextmanager
    async def _started(self, situation: Situation) -> AsyncGenerator[Stage[P], None]:
        async with self.stage(situation) as stage:
            try:
                await stage.provider.start()
                yield stage
            finally:
                await stage.provider.close()
                await stage.provider.close()  # idempotent

    def check_failure(self, situation: Situation, error: BaseException | None, provider: P) -> None:
        """The error is the one this situation must give."""
        assert error is not None, f"{situation}: no error came"
        assert isinstance(error, ProviderError), f"{situation}: {error!r} is no ProviderError"
        codes, retryable = FAILURES[situation]
        assert error.provider == provider.name, f"{situation}: the error is said to be {error.provider}'s"
        assert error.code in codes, f"{situation}: {error.code}, not {' or '.join(sorted(codes))}"
        if retryable is not None:
            assert error.retryable is retryable, f"{situation}: retryable is {error.retryable}"
        if situation == "rate_limited":
            assert "7" in error.detail, f"for how long is not said: {error.detail!r}"
        self.check_secret([str(error), repr(error), repr(error.__cause__)], "an error")

    def check_secret(self, texts: list[str], where: str) -> None:
        forbidden = [*self.secrets]
        for data in self.audio:
            piece = data[:12]  # logs like to cut long things in the middle
            if len(piece) == 12:
                forbidden += [base64.b64encode(piece).decode(), piece.hex(), piece.hex(" "), repr(piece)[2:-1]]
        for text in texts:
            for secret in forbidden:
                assert secret not in text, f"{where} holds a key or audio: {text.replace(secret, '***')[:300]}"

    async def in_time(self, situation: Situation, event: Awaitable[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(self.deadline_s):
                return await event
        except TimeoutError:
            raise AssertionError(f"{situation}: {what} within {self.deadline_s} s") from None


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
