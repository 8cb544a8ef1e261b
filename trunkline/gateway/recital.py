"""A text in place of a conversation: the gateway's own voice says it, then the call is over. Nothing is heard or
understood, so neither a model nor a recogniser need be there.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.agents.assent import Answer
from trunkline.agents.houselines import HouseVoice
from trunkline.clock import Clock
from trunkline.compliance.opening import Line
from trunkline.gateway.announcer import Announcer, Span
from trunkline.media.bus import Bus
from trunkline.ports import CapturedBy

KIND = "message"


@dataclass(frozen=True, slots=True)
class Reciter:
    """Of one process."""

    voice: HouseVoice
    """Of this machine."""
    ready: Callable[[], bool]
    """It can speak now."""
    clock: Clock

    def attend(
        self, bus: Bus, text: str, language: str, over: Callable[[], None], crashed: Callable[[BaseException], None]
    ) -> Announcer:
        """`over`: all of it was heard, or it could not be said."""
        told = _Told(text, over)
        told.announcer = Announcer(told, bus, self.voice, _NO_EARS, language, self.clock, crashed, "")
        return told.announcer


class _Told:
    """`announcer.Director`."""

    def __init__(self, text: str, over: Callable[[], None]) -> None:
        self._text, self._over = text, over
        self.announcer: Announcer | None = None

    def begun(self) -> None:
        assert self.announcer is not None
        self.announcer.say((Line(KIND, self._text, ""),))

    def spoken(self) -> None:
        asyncio.get_running_loop().call_soon(self._over)

    def answered(self, answer: Answer | None, via: CapturedBy) -> None: ...

    def said(self, spans: Sequence[Span]) -> None:
        self.announcer = None

    def goodbye(self) -> None:
        asyncio.get_running_loop().call_soon(self._over)


class _NoEars:
    """`assent.Ears`, and the stream that they open."""

    def open(self, language: str, format: Any, on_event: Callable[[Any], None]) -> "_NoEars":
        return self

    def feed(self, audio: bytes) -> None: ...

    def finalize(self) -> None: ...

    def close(self) -> None: ...


_NO_EARS: Any = _NoEars()
