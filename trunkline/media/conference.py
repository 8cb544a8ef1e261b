"""A conference: up to eight members of one call, each hearing all the others it may hear, and never itself.

    leg --receive()--> Port -+                        +-> Port --send()--> leg       a real leg: people
                             +--> the room, each beat -+
    Bus --send()-----> Seat -+                        +-> Seat --receive()--> Bus    the AI agent's place

Who hears whom is worked out when something changes (`_replan`), not in the beat. Then, for one hearer in one beat:

- nobody sounds: silence; one sounds: its frame as it came; more: decoded, added, cut off at full scale, encoded, in one
  batch for all hearers, those who hear the same sharing the result.
- two ports alone with each other (a bridged call) have no beat at all: a frame goes on as it comes, undecoded.
- a member on hold hears its source and is heard by nobody.

Supervisors hear everybody. *listen*: heard by none. *whisper*: by the representative and other supervisors, not by the
caller and not by the AI agent either, which would take it for the caller's words, answer it aloud and write it into
the transcript. *speak*: by all.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from trunkline.clock import Clock
from trunkline.errors import MisuseError
from trunkline.media.bus import DEAF_TAIL_MS, Bus, LegOut, Tap
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.members import Port, Role, Seat, Supervision
from trunkline.media.mixing import mix
from trunkline.media.sources import FRAME, SILENT_FRAME, Source
from trunkline.ports import Refuse
from trunkline.types import MULAW_8K

MAX_MEMBERS = 8
RESYNC_MS = 60  # a recording follows the caller's clock no closer than this: a seam is worse than being late
_SAMPLES_PER_MS = MULAW_8K.rate_hz // 1000

Member = Port | Seat
M = TypeVar("M", Port, Seat)


class Conference:
    """One call's room. `crashed(name, error)` is told of our own bugs: that member is out by then, the others talk on;
    a name of None means the room itself."""

    def __init__(self, heartbeat: Heartbeat, clock: Clock, crashed: Callable[[str | None, Exception], None]) -> None:
        self.taps: list[Tap] = []
        """They get what the caller says, held and muted too, and what the caller hears."""
        self.origin_ms = 0
        """Where on the caller's media clock the taps begin."""
        self._heartbeat, self._clock, self._crashed = heartbeat, clock, crashed
        self._members: list[Member] = []
        self._plan: list[tuple[Member, tuple[int, ...]]] = []
        self._beating = False
        self._caller_at: tuple[int, float] | None = None
        self._heard_to: int | None = None
        self._bus: Bus | None = None
        self._hidden_until_ms = -1  # they key what nobody is to hear

    # --- who is here ---

    def join(self, leg: LegOut, role: Role, name: str, *, networked: bool = False) -> Port | Refuse:
        """Its leg's frames go to the port from now on. `networked`: marks come back over a network (Twilio), not the
        moment the audio is taken (SIP). Code: `conference_full`."""
        return self._enter(Port(self, leg, role, name, networked))

    def seat(self, role: Role, name: str) -> Seat | Refuse:
        """Then `plug` a bus in. Code: `conference_full`."""
        return self._enter(Seat(self, role, name))

    def leave(self, member: Member) -> None:
        """Idempotent. A seat's bus must be unplugged before, or be closing."""
        if member.inside:
            member.inside = False
            self._members.remove(member)
            self._replan()

    def close(self) -> None:
        """All leave; the taps are closed. Idempotent."""
        for member in tuple(self._members):
            self.leave(member)
        taps, self.taps = self.taps, []
        for tap in taps:
            tap.close()

    @property
    def members(self) -> Sequence[Member]:
        return tuple(self._members)

    @property
    def passing_on(self) -> bool:
        """Two are alone with each other: nothing is decoded."""
        return any(m.partner is not None for m in self._members)

    # --- who hears whom ---

    def mute(self, member: Member, muted: bool) -> None:
        """It is heard by nobody, and hears as before."""
        member.muted = muted
        self._replan()

    def hold(self, member: Member, source: Source | None) -> None:
        """It hears only the source (None: silence), from the next frame on, and is heard by nobody."""
        member.held, member.hears = True, source
        self._replan()

    def resume(self, member: Member) -> None:
        member.held, member.hears = False, None
        self._replan()

    def supervise(self, member: Member, supervision: Supervision) -> None:
        """Raises MisuseError for who is no supervisor."""
        if member.role != "supervisor":
            raise MisuseError(f"a {member.role} does not {supervision}")
        member.supervision = supervision
        self._replan()

    def _enter(self, member: M) -> M | Refuse:
        if len(self._members) >= MAX_MEMBERS:
            return Refuse("conference_full", f"a call has at most {MAX_MEMBERS} members")
        if any(m.name == member.name for m in self._members):
            raise MisuseError(f"{member.name} is in this conference already")
        self._members.append(member)
        self._replan()
        return member

    def _replan(self) -> None:
        members = self._members
        self._plan = [
            (m, () if m.held else tuple(i for i, other in enumerate(members) if _hears(m, other))) for m in members
        ]
        talking = [m for m in members if not m.held]
        partners: dict[int, Port] = {}
        if len(talking) == 2:
            one, two = talking
            if isinstance(one, Port) and isinstance(two, Port) and _hears(one, two) and _hears(two, one):
                partners = {id(one): two, id(two): one}
        for member in members:
            before, member.partner = member.partner, partners.get(id(member))
            if isinstance(member, Port) and member.partner is not None and before is None:
                for frame in member.drain():
                    self.pass_on(member.partner, frame)
        self._beating = any(m.partner is None for m in self._members)
        if self._beating:
            self._heartbeat.speaks(self)
        else:
            self._heartbeat.forget(self)

    # --- audio ---

    def pump(self, now: float) -> float | None:
        """One beat. None while nobody needs one."""
        plan = self._plan
        says: list[bytes | None] = []
        for member, _ in plan:
            frame = member.take() if member.partner is None else None
            says.append(None if frame == SILENT_FRAME else frame)
        sounding = [tuple([i for i in sources if says[i] is not None]) for _, sources in plan]
        mixed = mix(says, {s for s in sounding if len(s) > 1})
        for (member, _), voices in zip(plan, sounding, strict=True):
            if member.partner is None and member.inside:
                try:
                    if member.held:
                        frame = SILENT_FRAME if member.hears is None else member.hears.frame()
                    elif len(voices) > 1:
                        frame = mixed[voices]
                    else:
                        frame = (says[voices[0]] if voices else None) or SILENT_FRAME
                    self._give(member, frame, now)
                except Exception as error:
                    self._crash(member, error)
        for member, _ in plan:
            try:
                member.after_beat()
            except Exception as error:
                self._crash(member, error)
        return now if self._beating else None

    def crashed(self, error: Exception) -> None:
        """From the heartbeat: it does not drive us any more."""
        self._crashed(None, error)

    def pass_on(self, to: Port, frame: bytes) -> None:
        try:
            self._give(to, frame, self._clock.now())
        except Exception as error:
            self._crash(to, error)

    def _give(self, member: Member, frame: bytes, now: float) -> None:
        member.give(frame, now)
        if self.taps and member.role == "caller":
            self._tap_heard(frame, now)

    def _crash(self, member: Member, error: Exception) -> None:
        if member.inside:
            self.leave(member)
            self._crashed(member.name, error)

    @property
    def caller_ms(self) -> int | None:
        """Where the caller's media clock was heard to be, last."""
        return None if self._caller_at is None else self._caller_at[0]

    # --- the call's recording ---

    def take_taps(self, bus: Bus) -> None:
        """The taps of a bus, on its timeline: from now on they hear the whole room. While the bus is deaf to the
        caller, so are they, and all others."""
        taps, bus.taps = bus.taps, []
        self.taps += taps
        self.origin_ms, self._bus = bus.origin_ms, bus
        if not bus.deaf:
            self._hidden_until_ms = bus.deaf_until_ms

    def give_taps(self, bus: Bus) -> None:
        """And back."""
        taps, self.taps = self.taps, []
        bus.taps += taps
        bus.deaf_until_ms = max(bus.deaf_until_ms, self._hidden_until_ms)

    def caller_says(self, audio: bytes, carrier_ms: int) -> bytes:
        self._caller_at = carrier_ms, self._clock.now()
        if self._bus is not None and self._bus.deaf:
            self._hidden_until_ms = carrier_ms + DEAF_TAIL_MS
        if carrier_ms < self._hidden_until_ms:
            audio = MULAW_8K.silence * len(audio)
        for tap in self.taps:
            tap.write("caller", (carrier_ms - self.origin_ms) * _SAMPLES_PER_MS, audio)
        return audio

    def _tap_heard(self, frame: bytes, now: float) -> None:
        """Frame after frame without seams, as long as that is near the caller's own clock."""
        if self._caller_at is None:
            return
        carrier_ms, at = self._caller_at
        due = (carrier_ms - self.origin_ms + round((now - at) * 1000)) * _SAMPLES_PER_MS
        position = self._heard_to
        if position is None or abs(position - due) > RESYNC_MS * _SAMPLES_PER_MS:
            position = max(due, 0)
        self._heard_to = position + FRAME
        for tap in self.taps:
            tap.write("agent", position, frame)


def _hears(listener: Member, speaker: Member) -> bool:
    """With both off hold."""
    if speaker is listener or speaker.muted or speaker.held:
        return False
    if speaker.role != "supervisor" or speaker.supervision == "speak":
        return True
    return speaker.supervision == "whisper" and listener.role in ("representative", "supervisor")
