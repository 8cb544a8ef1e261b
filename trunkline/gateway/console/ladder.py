"""A call's SIP ladder as places on paper, for an SVG. Plain.

One line stands for each peer and one for us; a message is an arrow between two, in the order it was seen. The paper is
in units of its own: the page shows it as wide as there is room.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LANE, STEP, HEAD, MARGIN = 320, 34, 56, 90
MESSAGES_MAX = 200


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    x: int


@dataclass(frozen=True, slots=True)
class Message:
    y: int
    x1: int
    x2: int
    what: str
    at_ms: int
    inbound: bool
    is_bad: bool
    """A final answer that says no."""
    repeated: int
    peer: str

    @property
    def middle(self) -> int:
        return (self.x1 + self.x2) // 2

    @property
    def head(self) -> str:
        """The arrow's, as the points of a polygon."""
        back = self.x2 - 9 if self.x2 > self.x1 else self.x2 + 9
        return f"{self.x2},{self.y} {back},{self.y - 5} {back},{self.y + 5}"


@dataclass(frozen=True, slots=True)
class Ladder:
    lanes: Sequence[Lane]
    messages: Sequence[Message]
    left_out: int

    @property
    def width(self) -> int:
        return MARGIN * 2 + LANE * (len(self.lanes) - 1)

    @property
    def height(self) -> int:
        return HEAD + STEP * (len(self.messages) + 1)


def ladder(steps: Sequence[Mapping[str, Any]]) -> Ladder | None:
    """`steps` as the record has them. None: there are none."""
    if not steps:
        return None
    peers = list(dict.fromkeys(step["peer"] for step in steps))
    place = {peer: MARGIN + LANE * number for number, peer in enumerate([peers[0], "", *peers[1:]])}
    lanes = [Lane(name or "Trunkline", x) for name, x in place.items()]
    messages = []
    for number, step in enumerate(steps[:MESSAGES_MAX]):
        there, here = place[step["peer"]], place[""]
        x1, x2 = (there, here) if step["inbound"] else (here, there)
        messages.append(
            Message(
                y=HEAD + STEP * (number + 1),
                x1=x1,
                x2=x2,
                what=step["what"],
                at_ms=step["at_ms"],
                inbound=step["inbound"],
                is_bad=step["what"][:1] in "456" and step["what"][:3].isdigit(),
                repeated=step.get("repeated", 0),
                peer=step["peer"],
            )
        )
    return Ladder(lanes, messages, max(0, len(steps) - MESSAGES_MAX))
