"""A representative who asks by REFER for somebody else in their place, beside the caller they were given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trunkline.gateway.leg import Dialler, Leg
from trunkline.gateway.referred import Movable, our_number
from trunkline.media.bus import Receiver
from trunkline.ports import Decision, EndReason, Refuse, Usage
from trunkline.types import E164, CallId

if TYPE_CHECKING:
    from trunkline.gateway.handover import Handover
    from trunkline.gateway.secondleg import SecondLeg


class Relief:
    """The referred.Host of a representative's leg."""

    def __init__(self, handover: "Handover", second: "SecondLeg") -> None:
        self._handover, self._second = handover, second

    @property
    def id(self) -> CallId:
        return self._handover.call.id

    @property
    def our_number(self) -> E164 | None:
        return our_number(self._handover.call.facts())

    @property
    def diallers(self) -> Sequence[Dialler]:
        return self._handover.diallers

    def event(self, kind: str, **data: Any) -> None:
        self._handover.call.event(kind, **data)

    def usage(self, usage: Usage) -> None:
        self._handover.call.usage(usage)

    def take_line(self) -> Refuse | None:
        return self._handover.call.take_line()

    def give_line(self) -> None:
        self._handover.call.give_line()

    def hang_up(self, reason: EndReason) -> None:
        self._handover.call.hang_up(reason)

    def now(self) -> float:
        return self._handover.now()

    def may_call(self, number: E164, *, goes: bool = True) -> Decision:
        return self._handover.call.may_call(number, goes=goes)

    def bound(self) -> None:
        """Who comes in their place hears the notice they have heard."""

    def talks_with(self, leg: Leg) -> bool:
        return self._second.media is leg and self._handover.has_place(self._second)

    def succeed(self, leg: Movable) -> Receiver | Refuse:
        return self._handover.relieve(self._second, leg)

    def give_up(self, leg: Leg) -> Movable | Refuse:
        return Refuse("not_now", "a representative is with a caller")
