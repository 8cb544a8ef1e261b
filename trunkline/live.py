"""What may be told of a call while it goes on, to the device at its other end: values, which gateway/live.py spells."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from trunkline.ports import TurnRecord


@dataclass(frozen=True, slots=True)
class TurnState:
    type: ClassVar[str] = "state"
    state: Literal["idle", "listening", "thinking", "speaking", "interrupted"]


@dataclass(frozen=True, slots=True)
class Heard:
    """The caller, as the recogniser understands it. `final=False`: so far, and it may change. Final without text: what
    was told so far was nothing, or was not for the agent."""

    type: ClassVar[str] = "heard"
    text: str
    final: bool
    understood: bool = True


@dataclass(frozen=True, slots=True)
class Saying:
    """The agent's answer. `text`: all of it so far. `heard_characters`: so much of it was played."""

    type: ClassVar[str] = "saying"
    text: str
    heard_characters: int
    over: bool = False
    cut: bool = False
    """The caller interrupted it: `text` is what they heard."""


@dataclass(frozen=True, slots=True)
class ToolDone:
    type: ClassVar[str] = "tool"
    name: str
    result: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class TurnOver:
    """The latencies of a turn, in ms; null where that part did not happen."""

    type: ClassVar[str] = "turn"
    index: int
    endpointing_ms: float | None
    stt_ms: float | None
    llm_ms: float | None
    tts_ms: float | None
    total_ms: float | None
    barge_in_ms: float | None
    interrupted: bool

    @staticmethod
    def of(turn: TurnRecord) -> "TurnOver":
        return TurnOver(
            turn.index,
            turn.endpointing_ms,
            turn.stt_ms,
            turn.llm_ms,
            turn.tts_ms,
            turn.total_ms,
            turn.barge_in_ms,
            turn.interrupted,
        )


Progress = TurnState | Heard | Saying | ToolDone | TurnOver
Follower = Callable[[Progress], None]
"""Is told at once, and only takes note."""
