"""What a leg can do for its call beyond audio: each hand is performed, or refused with a code. docs/hands.md has the
table. Codes: `not_supported` (this kind of leg or its trunk never can), `not_now`, `refused_by_peer`."""

from typing import Protocol, runtime_checkable

from trunkline.gateway.leg import Leg
from trunkline.media.bus import Receiver
from trunkline.ports import Refuse


class Told(Protocol):
    """How a REFER goes: its answer (`notify` False), then NOTIFYs. `code` 0: none came, or it had none."""

    def __call__(self, code: int, reason: str, *, notify: bool, final: bool) -> None: ...


@runtime_checkable
class Hands(Leg, Protocol):
    """A leg whose audio can be plugged elsewhere, and whose carrier may put its far end through."""

    bus: Receiver | None
    """Who hears it."""

    @property
    def networked(self) -> bool:
        """Its marks come back over a network (Twilio), not the moment the audio is taken (SIP)."""
        ...

    @property
    def puts_through(self) -> bool:
        """Its carrier takes REFER, or is not known to refuse it."""
        ...

    def put_through(self, address: str, told: Told) -> str | Refuse:
        """REFER to an E.164 number or SIP URI: the trunk it went over. `told` is called until the final NOTIFY."""
        ...

    def put_through_to(self, other: Leg, told: Told) -> str | Refuse:
        """REFER with Replaces: to the far end of another leg of ours."""
        ...


@runtime_checkable
class Holds(Protocol):
    """A leg that can tell its far end of a hold; the far end may refuse, and nobody hears a difference."""

    def hold(self, held: bool) -> None:
        """What becomes of it is in the record, as `held`."""
        ...
