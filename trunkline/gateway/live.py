"""What a call tells the device at its other end while it goes on, and what the device may ask: JSON, one object a
message, over a data channel (WebRTC) or a WebSocket's text frames.

Plain values and their spelling; the legs carry them. What a device sends is a stranger's: whatever is wrong with it is
a `Mistake`, told to the device, and the call goes on.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args

from trunkline.live import Progress
from trunkline.ports import EndReason, Refuse

MESSAGE_BYTES = 4096
TEXT_CHARACTERS = 1000
KEYS = 64
WAKE_WORD_CHARACTERS = 64
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

# --- told to the device ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """The first message."""

    type: ClassVar[str] = "joined"
    session_id: str
    call_id: str
    agent: str
    resumed: bool = False
    """The conversation goes on where it was."""
    resume_token: str = field(default="", repr=False)
    """A join token for the next time, once, should the way here break; empty where there is no session."""


@dataclass(frozen=True, slots=True)
class Over:
    """The call has ended. The last message."""

    type: ClassVar[str] = "ended"
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something the device sent was not done."""

    type: ClassVar[str] = "mistake"
    code: Literal["not_json", "too_long", "unknown_type", "bad_value", "not_armed", "too_many"]
    why: str


_REASONS = frozenset(get_args(EndReason))

Live = Joined | Progress | Over | Mistake


def goodbye(why: str) -> str | None:
    """The last message, where `why` is an EndReason; a leg is closed for other reasons as well."""
    return encode(Over(cast(EndReason, why))) if why in _REASONS else None


def refused(refuse: Refuse, retry_after_s: int | None = None) -> str:
    """In place of `Joined`, to whom nothing else can be told: there is no call."""
    told = {"type": "refused", "code": refuse.code, "why": refuse.why}
    return json.dumps(told if retry_after_s is None else told | {"retry_after_s": retry_after_s})


def encode(event: Live) -> str:
    return json.dumps(
        {"type": event.type, **asdict(event)}, separators=(",", ":")
    )  # ASCII: UTF-8 takes no lone surrogate


# --- asked by the device --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Typed:
    """The caller's words, written: answered as if they were said."""

    text: str


@dataclass(frozen=True, slots=True)
class Keyed:
    digits: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Stop speaking: a button for who does not want to say it."""


@dataclass(frozen=True, slots=True)
class Armed:
    """From now on the device sends audio: its wake word was heard, or its button pressed."""

    by: Literal["wake_word", "button"]
    wake_word: str = ""
    score: float | None = None
    """How sure the device was, 0 to 1, where it knows."""


@dataclass(frozen=True, slots=True)
class Disarmed:
    """It sends no more until it is armed again."""


@dataclass(frozen=True, slots=True)
class Aside:
    """What only one kind of leg understands: its own affair."""


Asked = Typed | Keyed | Flush | Armed | Disarmed
Reader = Callable[[Mapping[str, Any]], Asked | Aside | Mistake]
_NONE: Mapping[str, Reader] = {}


def decode(message: str | bytes, asides: Mapping[str, Reader] = _NONE) -> Asked | Aside | Mistake:
    """One message of a device, UTF-8. Never raises. `asides`: what its leg reads beside, by type."""
    if len(message) > MESSAGE_BYTES:
        return Mistake("too_long", f"a message has at most {MESSAGE_BYTES} bytes")
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        return Mistake("not_json", "a message is one JSON object")
    if not isinstance(given, dict):
        return Mistake("not_json", "a message is one JSON object")
    kind = given.get("type")
    read = (_READ.get(kind) or asides.get(kind)) if isinstance(kind, str) else None
    if read is None:
        return Mistake("unknown_type", f"type: one of {', '.join((*_READ, *asides))}")
    return read(given)


def _typed(given: Mapping[str, Any]) -> Asked | Mistake:
    text = given.get("text")
    text = _UNFIT.sub(" ", text) if isinstance(text, str) else text
    if not isinstance(text, str) or not text.strip() or len(text) > TEXT_CHARACTERS:
        return Mistake("bad_value", f"text: 1 to {TEXT_CHARACTERS} characters")
    return Typed(" ".join(text.split()))


def _keyed(given: Mapping[str, Any]) -> Asked | Mistake:
    digits = given.get("digits")
    if not isinstance(digits, str) or not 0 < len(digits) <= KEYS or not set(digits) <= set("0123456789*#"):
        return Mistake("bad_value", f"digits: 1 to {KEYS} of 0-9, * and #")
    return Keyed(digits)


def _armed(given: Mapping[str, Any]) -> Asked | Mistake:
    by, word, score = given.get("by"), given.get("wake_word", ""), given.get("score")
    if by not in ("wake_word", "button"):
        return Mistake("bad_value", "by: wake_word or button")
    if not isinstance(word, str) or len(word) > WAKE_WORD_CHARACTERS or (by == "wake_word" and not word.strip()):
        return Mistake("bad_value", f"wake_word: 1 to {WAKE_WORD_CHARACTERS} characters")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (is_number and 0 <= score <= 1):
        return Mistake("bad_value", "score: 0 to 1")
    return Armed(by, word.strip(), None if score is None else float(score))


_READ: dict[str, Reader] = {
    "text": _typed,
    "dtmf": _keyed,
    "flush": lambda given: Flush(),
    "armed": _armed,
    "disarmed": lambda given: Disarmed(),
}
