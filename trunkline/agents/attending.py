"""What the gateway knows of an agent, whichever kind it is: a cascade, a realtime model."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from trunkline.agents.attendant import Control, Provider, Report
from trunkline.agents.deadline import After
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Minds
from trunkline.clock import Clock
from trunkline.media.bus import Bus
from trunkline.ports import CallFacts, Message, Usage


class Attending(Protocol):
    """Answers one call. Methods return at once; close() is idempotent."""

    conversation: list[Message]

    @property
    def unwritten(self) -> bytes:
        """The caller's last words, as audio, where they were never put into words, nor answered. Once closed, too."""
        ...

    def begin(
        self,
        greeting: str | None = None,
        conversation: Sequence[Message] = (),
        pending: Sequence[str] = (),
        *,
        before_question: str = "",
    ) -> None: ...

    def key(self, digit: str) -> None: ...

    def typed(self, text: str) -> None: ...

    def flush(self) -> None: ...

    def hold(self, held: bool) -> None: ...

    def say_goodbye(self, line: str | None = None) -> None:
        """Last words, then the end: the agent's own, or this line, which is heard whole whatever was being said."""
        ...

    def instruct(self, text: str) -> None:
        """The model is told so beside what the caller says, from its next answer on."""
        ...

    def unmetered(self) -> Sequence[Usage]:
        """What was used and will be told later."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Recognising(Attending, Protocol):
    """With a recogniser of its own."""

    def go_on(self, conversation: Sequence[Message], unwritten: bytes) -> None:
        """In place of `begin`: `unwritten` is recognised and answered."""
        ...


class Agent(Protocol):
    """One agent of this process."""

    @property
    def definition(self) -> AgentDefinition: ...

    @property
    def minds(self) -> Minds:
        """Ears and voice for what the gateway itself says and asks: a briefing."""
        ...

    @property
    def providers(self) -> Sequence[Provider]:
        """Whom a call's audio and text are given to: each needs the third_party door."""
        ...

    @property
    def fallback(self) -> "Agent | None":
        """Who goes on with a call whose mind is lost."""
        ...

    @property
    def greets_again(self) -> bool:
        """Its greeting says what there is to ask for: said whenever it takes the line."""
        ...

    def alone(self) -> "Agent | None":
        """The same agent with nobody but providers that are no third party: itself where it has no others. None: this
        machine cannot, or it has not started yet."""
        ...

    @property
    def ready(self) -> Callable[[], bool]:
        """Cheap: whether a call that is answered now would hear the agent at once."""
        ...

    def attend(
        self, call: CallFacts, bus: Bus, control: Control, report: Report, clock: Clock, after: After
    ) -> Attending: ...
