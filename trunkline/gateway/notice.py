"""What somebody hears who comes into a call of which something is kept, before they hear anybody or are heard: that it
is. Where every party must know or agree (compliance/tables/recording.csv) that is them, too; who stays has been told.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.media.conference import Conference
from trunkline.media.members import Port
from trunkline.media.sources import Once
from trunkline.types import MULAW_8K


@dataclass(frozen=True, slots=True)
class Notice:
    text: str
    basis: str
    """The row of the table that asks for it."""
    audio: bytes
    """MULAW_8K."""

    def event(self, leg: str) -> dict[str, object]:
        """Of the call's record, once it was heard."""
        length_ms = len(self.audio) // MULAW_8K.bytes_per_ms
        return {"leg": leg, "text": self.text, "basis": self.basis, "length_ms": length_ms}


def before_joining(room: Conference, port: Port, notice: Notice | None, then: Callable[[bool], None]) -> None:
    """`then(told)`: they may come in, at once where there is no notice. Never, where they have left meanwhile."""
    if notice is None:
        then(False)
        return

    def over() -> None:
        if port.inside:
            then(True)

    loop = asyncio.get_running_loop()
    room.hold(port, Once(notice.audio, lambda: loop.call_soon(over)))  # not within the beat
