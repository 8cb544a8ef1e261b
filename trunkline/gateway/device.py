"""The device's side of a leg, whatever carries it: what it asks for beside its audio, and whether that audio counts.

A device's audio counts from its `Armed` on. Until then it is refused: counted and told once. Plain; the leg hands in
how the device is told.
"""

from collections.abc import Callable, Mapping

from trunkline.errors import MisuseError
from trunkline.gateway import live
from trunkline.gateway.hands import Told
from trunkline.gateway.leg import DeviceCall, Leg
from trunkline.ports import Refuse

MAX_MESSAGES_S = 20.0  # of a device, on average
MESSAGE_BURST_S = 2.0  # so much of them at once
MAX_TEXTS_S, TEXT_BURST = 0.5, 6.0  # written words: each may cost an answer of a model
_TOO_MANY_FLUSHES = live.Mistake("too_many", "so often nobody wants an answer: wait for the next")
_TOO_MANY_TEXTS = live.Mistake("too_many", "more written words than can be answered: wait for the answer")


_NO_REFER = Refuse("not_supported", "a browser or device has nobody who would put it through")


class DeviceHands:
    """What no leg of a device can do (`Leg`, `Hands`)."""

    transfers = False
    sends_dtmf = False
    puts_through = False

    def send_dtmf(self, digits: str) -> None:
        raise MisuseError("a device takes no digits")

    def put_through(self, address: str, told: Told) -> str | Refuse:
        return _NO_REFER

    def put_through_to(self, other: Leg, told: Told) -> str | Refuse:
        return _NO_REFER


class Allowance:
    """So much a second on average, and so much at once."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = burst, now

    def take(self, amount: float, now: float) -> bool:
        """False: it is more than may be, and nothing is taken."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


class Device:
    def __init__(
        self,
        needs_arming: bool,
        tell: Callable[[live.Mistake], None],
        now: float,
        *,
        asides: Mapping[str, live.Reader] | None = None,
        max_messages_s: float = MAX_MESSAGES_S,
    ) -> None:
        """`asides`: messages that only its leg understands (`live.decode`)."""
        self.armed = not needs_arming
        """Its audio counts."""
        self.unarmed = 0
        """Packets or frames of audio that were refused."""
        self._needs_arming, self._tell = needs_arming, tell
        self._asides, self._max_messages_s = asides or {}, max_messages_s
        self._allowance = Allowance(max_messages_s, MESSAGE_BURST_S * max_messages_s, now)
        self._texts = Allowance(MAX_TEXTS_S, TEXT_BURST, now)
        self._flushes = Allowance(MAX_TEXTS_S, TEXT_BURST, now)
        self._told_unarmed = self._told_many = False

    def read(self, message: str | bytes, now: float) -> live.Asked | live.Aside | None:
        """What it asks for; None: nothing that could be done, and it was told so."""
        if not self._allowance.take(1, now):
            if not self._told_many:
                self._told_many = True
                self._tell(live.Mistake("too_many", f"at most {self._max_messages_s:g} messages a second"))
            return None
        self._told_many = False
        asked = live.decode(message, self._asides)
        if isinstance(asked, live.Mistake):
            self._tell(asked)
            return None
        if isinstance(asked, live.Typed) and not self._texts.take(1, now):
            self._tell(_TOO_MANY_TEXTS)
            return None
        if isinstance(asked, live.Flush) and not self._flushes.take(1, now):
            self._tell(_TOO_MANY_FLUSHES)
            return None
        return asked

    def do(self, asked: live.Asked | live.Aside, call: DeviceCall | None) -> None:
        """Raises what the call does."""
        if isinstance(asked, live.Armed):
            self.armed = True
            self._told_unarmed = False
            if call is not None and self._needs_arming:
                call.event("armed", by=asked.by, wake_word=asked.wake_word, score=asked.score)
        elif isinstance(asked, live.Disarmed):
            self.armed = False
        elif call is None:
            return
        elif isinstance(asked, live.Keyed):
            for digit in asked.digits:
                call.key(digit)
        elif isinstance(asked, live.Typed):
            call.typed(asked.text)
        elif isinstance(asked, live.Flush):
            call.flush()

    def refuse_audio(self) -> None:
        """Audio has come before it was armed."""
        self.unarmed += 1
        if not self._told_unarmed:
            self._told_unarmed = True
            self._tell(live.Mistake("not_armed", "audio counts after an armed message"))
