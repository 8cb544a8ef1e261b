"""What a Line asks of the wire it talks over: a Twilio stream (`carrier`) or an RTP stream (`sip.stream`)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from trunkline.testing.caller.answers import Answer


class Media(NamedTuple):
    audible: bool
    """False when the message is silence throughout."""


class Marked(NamedTuple):
    replies: list[bytes]


class Cleared(NamedTuple):
    replies: list[bytes]
    cut: Answer | None
    """The answer that was playing or waiting to be played."""


class Invalid(NamedTuple):
    why: str


class Nothing(NamedTuple):
    """Neither the agent's voice nor a mistake."""


Received = Media | Marked | Cleared | Invalid | Nothing

MUTE = Media(audible=False)
AUDIBLE = Media(audible=True)
NOTHING = Nothing()


class Wire(Protocol):
    """`opening()` first, then every 20 ms `tick()` and `media()`, and `receive()` for all that comes. Plain."""

    keep_audio: bool
    answers: list[Answer]
    heard: list[bytes]

    @property
    def call_id(self) -> str:
        """As the gateway's record has it (`provider_call_id`)."""
        ...

    @property
    def stream_id(self) -> str: ...

    @property
    def counts(self) -> Any:
        """A dataclass with an `invalid` counter."""
        ...

    @property
    def clears(self) -> bool:
        """The far end says when it cuts an answer off. False: it just falls silent."""
        ...

    @property
    def playing(self) -> bool:
        """The agent is being heard."""
        ...

    @property
    def dry_ms(self) -> int:
        """How long the current answer has been silent; 0 while it plays or when there is none."""
        ...

    @property
    def just_ended(self) -> bool:
        """The current answer fell silent with this tick."""
        ...

    @property
    def silent_since(self) -> float:
        """When the agent was last heard, while it is not `playing`."""
        ...

    @property
    def current(self) -> Answer | None: ...

    def caller_spoke(self) -> None: ...

    def cut_off(self, at: float) -> Answer | None:
        """The current answer fell silent at `at` because the caller spoke: it is over."""
        ...

    def opening(self) -> list[bytes]: ...

    def media(self, payload: bytes) -> bytes:
        """The caller's next 20 ms, as the wire's mouth makes them."""
        ...

    def dtmf(self, digit: str) -> Sequence[bytes]: ...

    def stop(self) -> Sequence[bytes]: ...

    def receive(self, data: bytes | str, now: float) -> Received: ...

    def tick(self, now: float) -> list[bytes]:
        """Hear 20 ms. Returns what that makes to be sent."""
        ...
