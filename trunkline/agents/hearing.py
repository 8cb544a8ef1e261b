"""A call's ears: one recogniser at a time, of an ordered list. When it fails, the next one hears the utterance so far.

What is being fed, and what was finalized and has no final yet, is kept (bounded) until its final is there. A final that
does not come in time is a failure too. To its owner this is one SttStream whose `gated` may change. Each is billed for
the audio that it was given, also for what the one before it had heard.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from trunkline.agents.choice import Choice, Sticky
from trunkline.agents.deadline import After
from trunkline.agents.providers import free_text
from trunkline.errors import ProviderError
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttStream
from trunkline.types import Format

KEPT_S = 45  # as long as an utterance may be
PENDING = 8  # finalized and not answered: beyond that the oldest is let go


class Hearing:
    """Methods return at once; close() is idempotent."""

    def __init__(
        self,
        choice: Choice,
        call: CallFacts,
        format: Format,
        on_event: Callable[[SttEvent], None],
        after: After,
        final_s: float,
        on_gated: Callable[[], None],
    ) -> None:
        """`on_gated`: another has taken over, and `gated` may be another. `on_event` must hold its owner weakly."""
        self._ears = Sticky(choice)
        self._call, self._format, self._on_event = call, format, on_event
        self._after, self._final_s, self._on_gated = after, final_s, on_gated
        self._kept_bytes = KEPT_S * 1000 * format.bytes_per_ms
        self._utterance = bytearray()
        self._pending: deque[bytes] = deque()
        self._expectation: Expectation | None = None
        self._stream: SttStream | None = None
        self._streamed: Any = None  # whose that stream is
        self._streamed_bytes = 0  # that it was given, and are not on the bill yet
        self._given: list[tuple[Any, int]] = []  # nor these, by others before it
        self._generation = 0
        self._timer: Any = None
        self._closed = False
        self._given_up: ProviderError | None = None  # by all of them, for the utterance that is being fed
        failure = self._open()
        while failure is not None and self._ears.failed(self._ears.key, failure):
            failure = self._open()

    @property
    def gated(self) -> bool:
        return bool(self._provider.feed_mode == "gated")

    @property
    def free_text(self) -> bool:
        """It writes down whatever is said."""
        return free_text(self._provider)

    @property
    def hears_wishes(self) -> bool:
        """They are among what it can write down."""
        return self.free_text or bool(getattr(self._provider, "hears_wishes", False))

    @property
    def name(self) -> str:
        return str(self._provider.name)

    @property
    def _provider(self) -> Any:
        return self._ears.choice.named[self._ears.key]

    # --- SttStream ---

    def feed(self, audio: bytes) -> None:
        if self._given_up is not None:
            return
        if not self._ears.choice.alone:
            self._utterance += audio
            if len(self._utterance) > self._kept_bytes:
                del self._utterance[: len(self._utterance) - self._kept_bytes]
        if self._stream is not None:
            self._streamed_bytes += len(audio)
            self._stream.feed(audio)

    def unmetered(self) -> list[tuple[Any, float]]:
        """Recognisers, and how many seconds of audio each was given since `metered`."""
        given = [*self._given, (self._streamed, self._streamed_bytes)]
        return [(who, round(count / self._format.bytes_per_ms / 1000, 3)) for who, count in given if count]

    def metered(self) -> list[tuple[Any, float]]:
        """As `unmetered`, and they are on the bill now."""
        found = self.unmetered()
        self._given.clear()
        self._streamed_bytes = 0
        return found

    def began(self, ago_ms: int) -> None:
        before = len(self._utterance) - ago_ms * self._format.bytes_per_ms
        if before > 0:
            del self._utterance[:before]
        if self._stream is not None:
            self._stream.began(ago_ms)

    def expect(self, expectation: Expectation) -> None:
        self._expectation = expectation
        if self._stream is not None:
            self._stream.expect(expectation)

    def finalize(self) -> None:
        error, self._given_up = self._given_up, None
        if error is not None:
            self._on_event(SttFailed(error))
            return
        self._pending.append(bytes(self._utterance))
        self._utterance.clear()
        if len(self._pending) > PENDING:
            self._pending.popleft()
        self._watch()
        if self._stream is not None:
            self._stream.finalize()
        else:
            self._fail(ProviderError(self.name, "unavailable", retryable=True))

    def cancel(self) -> None:
        self._given_up = None
        self._utterance.clear()
        if self._stream is not None:
            self._stream.cancel()

    def follow(self, choice: Choice) -> None:
        """The call is held in another language, and these hear it. Who hears now stays, where it is one of them."""
        before = self._provider
        self._ears = self._ears.among(choice)
        if self._closed or self._provider is before:
            return
        failure = self._open()
        if failure is not None:
            self._fail(failure)
        else:
            self._replay()
            self._on_gated()

    def close(self) -> None:
        self._closed = True
        self._generation += 1
        self._stop_timer()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # --- from the recogniser in use ---

    def _heard(self, event: SttEvent, generation: int) -> None:
        if generation != self._generation or self._closed:
            return  # of one that was given up
        if isinstance(event, SttFailed):
            error = event.error
            if not isinstance(error, ProviderError):
                error = ProviderError(self.name, "protocol", type(error).__name__, retryable=True)
            if not self._ears.choice.alone:
                self._fail(error)
                return
            self._ears.choice.failed(self._ears.key, error)
            if self._pending:
                self._pending.popleft()
        elif isinstance(event, SttFinal):
            if self._pending:
                self._pending.popleft()
            else:
                self._utterance.clear()  # it ended the turn by itself
            self._ears.choice.succeeded(self._ears.key)
            self._watch()
        self._on_event(event)

    def _fail(self, error: ProviderError) -> None:
        while self._ears.failed(self._ears.key, error):
            failure = self._open()
            if failure is None:
                self._replay()
                self._on_gated()
                return
            error = failure
        if not self._ears.choice.alone:  # it begins anew with the next utterance
            self._open()
            self._on_gated()
        self._stop_timer()
        if self._utterance:
            self._given_up = error
            self._utterance.clear()
        pending = len(self._pending)
        self._pending.clear()
        for _ in range(pending):
            self._on_event(SttFailed(error))

    def _open(self) -> ProviderError | None:
        """The stream of whose turn it is; what went wrong where there is none."""
        self._generation += 1
        generation, stream = self._generation, self._stream
        self._stream = None
        if stream is not None:
            stream.close()
        if self._streamed_bytes:
            self._given.append((self._streamed, self._streamed_bytes))
        provider = self._ears.choice.asked(self._ears.key)
        self._streamed, self._streamed_bytes = provider, 0
        try:
            self._stream = provider.open(self._call, self._format, _weakly(self, generation))
        except ProviderError as error:
            return error
        if self._expectation is not None:
            self._stream.expect(self._expectation)
        return None

    def _replay(self) -> None:
        stream = self._stream
        assert stream is not None
        for utterance in self._pending:
            self._streamed_bytes += len(utterance)
            stream.feed(utterance)
            stream.finalize()
        if self._utterance:
            self._streamed_bytes += len(self._utterance)
            stream.feed(bytes(self._utterance))
        self._watch()

    def _watch(self) -> None:
        """The oldest final that is due."""
        self._stop_timer()
        if self._pending and self._ears.following() is not None:
            self._timer = self._after(self._final_s, self._late)

    def _late(self) -> None:
        self._timer = None
        self._fail(ProviderError(self.name, "timeout", "no final came", retryable=True))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _weakly(hearing: Hearing, generation: int) -> Callable[[SttEvent], None]:
    """A recogniser must not keep a call that is over."""
    from weakref import ref

    me = ref(hearing)

    def heard(event: SttEvent) -> None:
        listener = me()
        if listener is not None:
            listener._heard(event, generation)

    return heard
