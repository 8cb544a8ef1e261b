"""One call's use of the providers of a kind: whom it asks, and whom next. What it sees goes into their health."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from trunkline.agents.deadline import After, Deadline
from trunkline.agents.providers import Kind, Minds
from trunkline.clock import Clock
from trunkline.errors import ProviderError

T = TypeVar("T")

Told = Callable[..., None]
"""(kind, **data): an event for the call's record."""


class Choice:
    def __init__(self, minds: Minds, kind: Kind, clock: Clock, told: Told) -> None:
        self.kind = kind
        self.named: dict[str, Any] = minds.named(kind)
        self._health, self._clock, self._told = minds.health, clock, told

    @property
    def alone(self) -> bool:
        """There is nobody else: its own deadlines hold, not ours."""
        return len(self.named) == 1

    def order(self) -> list[str]:
        return self._health.order(list(self.named), self._clock.now())

    def asked(self, key: str) -> Any:
        """The provider of that key, which is asked now."""
        self._health.asked(key, self._clock.now())
        return self.named[key]

    def succeeded(self, key: str) -> None:
        self._health.succeeded(key)

    def failed(self, key: str, error: ProviderError) -> None:
        self._health.failed(key, error, self._clock.now())

    def switched(self, key: str, following: str, error: ProviderError, **more: Any) -> None:
        """For the record: within the turn, another is asked."""
        self._told("provider_switched", provider=key, following=following, code=error.code, error=str(error), **more)


class Sticky:
    """Whose turn it is of a kind that stays for the call: its voice, its ears. Never one again that has failed in this
    call, unless all have."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.key = choice.order()[0]
        self._lost: set[str] = set()

    def among(self, choice: Choice) -> "Sticky":
        """The same call's, now of another list: whose turn it is stays where it is one of them, and so does who has
        failed."""
        other = Sticky(choice)
        other._lost = set(self._lost)
        left = [key for key in choice.order() if key not in self._lost]
        if self.key in left:
            other.key = self.key
        elif left:
            other.key = left[0]
        return other

    def following(self) -> str | None:
        """Who is next if this one fails."""
        left = [key for key in self.choice.order() if key not in self._lost and key != self.key]
        return left[0] if left else None

    def failed(self, key: str, error: ProviderError, **more: Any) -> bool:
        """Whether another has taken over from the one of this key, now or before. Where not, the next time begins with
        the best of all."""
        self.choice.failed(key, error)
        if key != self.key:
            return True
        following = self.following()
        self._lost.add(key)
        if following is None:
            self._lost.clear()
            self.key = self.choice.order()[0]
            return False
        self.key = following
        self.choice.switched(key, following, error, **more)
        return True


async def timely(
    events: AsyncGenerator[T, None],
    after: After,
    provider: str,
    first_s: float | None,
    between_s: float | None,
    counts: Callable[[T], bool] = lambda event: True,
) -> AsyncGenerator[T, None]:
    """The events, each within its time: the first of those that count, then every one. Raises ProviderError."""
    wait_s, begun = first_s, False
    async with aclosing(events):
        while True:
            try:
                with Deadline(after, wait_s):
                    event = await anext(events, _OVER)
            except TimeoutError:
                detail = "it stalled in the middle" if begun else "nothing came"
                raise ProviderError(provider, "timeout", detail, retryable=True) from None
            if event is _OVER:
                return
            if counts(event):
                wait_s, begun = between_s, True
            yield event


_OVER: Any = object()
