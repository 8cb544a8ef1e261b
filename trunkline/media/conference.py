"""A conference: up to eight members of one call, each hearing all the others it may hear, and never itself.

    leg --receive()--> Port -+                        +-> Port --send()--> leg       a real leg: people
                             +--> the room, each beat -+
    Bus --send()-----> Seat -+                        +-> Seat --receive()--> Bus    the AI agent's place

Who hears whom is worked out when something changes (`_replan`), not in the beat. Then, for one hearer in one beat:

- nobody sounds: silence; one sounds: its frame as it came; more: decoded, added, cut off at full scale, encoded, in one
  batch for all hearers, those who hear the same sharing the result.
- two ports alone with each other (a bridged call) have no beat at all: a frame goes on as it comes, undecoded.
- a member on hold hears its source and is heard by nobody.

Time. A port keeps what has arrived until the beat takes it; what arrives in a burst (a carrier's TCP) waits, at most
LIMIT_FRAMES. A frame too few is bridged by the last one once, then by silence. A frame too many, one that a whole
WINDOW_FRAMES was never needed, is dropped, the quietest that waits. On the other side the far end's own buffer is the
queue: marks tell what waits there, and a frame that was never needed is not sent. So two clocks that run apart cost a
frame now and then, counted, and delay does not grow: between two SIP legs it stays within two frames.

Supervisors hear everybody. *listen*: heard by none. *whisper*: by the representative and other supervisors, not by the
caller and not by the AI agent either, which would take it for the caller's words, answer it aloud and write it into
the transcript. *speak*: by all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from trunkline.clock import Clock
from trunkline.errors import MisuseError
from trunkline.media import g711
from trunkline.media.bus import Bus, LegOut, Tap
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import Message
from trunkline.media.sources import FRAME, SILENT_FRAME, Source
from trunkline.ports import Refuse
from trunkline.types import FRAME_MS, MULAW_8K

Role = Literal["caller", "agent", "representative", "supervisor"]
Supervision = Literal["listen", "whisper", "speak"]

MAX_MEMBERS = 8
LIMIT_FRAMES = 15  # of arrived audio that waits: a stall of 300 ms is heard out, of a longer one the end
WINDOW_FRAMES = 25  # half a second: a frame that was spare so long is dropped
SPARE_MS = FRAME_MS  # what may always wait at the far end: its clock and our beat are never quite together
SEAT_LIMIT_MS = 2000  # more than any playout's lead
VAIN_SKIPS = 3
RESYNC_MS = 60  # a recording follows the caller's clock no closer than this: a seam is worse than being late
NETWORK_FLOOR_MS = 10_000  # a first guess of a mark's way over the network that everything will be below
_SAMPLES_PER_MS = MULAW_8K.rate_hz // 1000


@dataclass(slots=True)
class PortStats:
    received_frames: int = 0
    sent_frames: int = 0
    lost_ms: int = 0
    """Media the carrier's timestamps say there was, and we never got."""
    repeated_frames: int = 0
    """Nothing had arrived for a beat: its last frame was heard again."""
    missing_frames: int = 0
    """Nothing had arrived, again: silence."""
    dropped_frames: int = 0
    """Arrived and never heard: too many, or spare."""
    skipped_frames: int = 0
    """Not sent, for too much already waited at the far end."""
    refused_frames: int = 0
    """Not sent, for the far end did not read."""


class _Member:
    """What every member has; `partner` is the room's working out."""

    role: Role
    name: str

    def __init__(self, room: "Conference", role: Role, name: str) -> None:
        self.role, self.name = role, name
        self.inside = True
        self.muted = False
        self.held = False
        self.hears: Source | None = None
        """On hold."""
        self.supervision: Supervision = "listen"
        self.partner: Port | None = None
        """Alone with this one: frames go on as they come."""
        self._room = room

    def take(self) -> bytes | None:
        """What it says in this beat."""
        raise NotImplementedError

    def give(self, frame: bytes, now: float) -> None:
        """What it hears in this beat."""
        raise NotImplementedError

    def after_beat(self) -> None:
        """All have heard."""


class Port(_Member):
    """A real leg's place: its `Receiver`. Frames in are audible until leave()."""

    def __init__(self, room: "Conference", leg: LegOut, role: Role, name: str, networked: bool) -> None:
        super().__init__(room, role, name)
        self.leg, self.stats = leg, PortStats()
        self._networked = networked
        self._arrived: deque[bytes] = deque()
        self._rest = b""
        self._last: bytes | None = None
        self._next_ms: int | None = None
        self._spare_frames, self._takes = LIMIT_FRAMES, 0
        self._sent_ms = self._returned_ms = 0
        self._floor_ms = NETWORK_FLOOR_MS if networked else 0
        self._waiting_ms, self._gives = NETWORK_FLOOR_MS, 0
        self._skipped_at_ms = self._vain = 0
        self._skip = False

    # --- Receiver, for the leg ---

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        if not self.inside:
            return
        if self._next_ms is not None and carrier_ms > self._next_ms:
            self.stats.lost_ms += carrier_ms - self._next_ms
        self._next_ms = carrier_ms + len(audio) // _SAMPLES_PER_MS
        if self.role == "caller":
            self._room._caller_says(audio, carrier_ms)
        if len(audio) == FRAME and not self._rest:
            self._arrive(audio)
            return
        audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME
        self._rest = audio[whole:]
        for at in range(0, whole, FRAME):
            self._arrive(audio[at : at + FRAME])

    def mark_returned(self, name: str) -> None:
        # Other names are of the bus that had this leg before, cleared since, or are the peer's own invention.
        if name.startswith("c") and len(name) < 16 and name[1:].isdecimal():
            self._returned_ms = min(max(self._returned_ms, int(name[1:])), self._sent_ms)

    def leg_writable(self) -> None:
        """The next frame goes out."""

    # --- the room's ---

    def _arrive(self, frame: bytes) -> None:
        self.stats.received_frames += 1
        if self.partner is not None:
            self._room._pass_on(self.partner, frame)
            return
        arrived = self._arrived
        arrived.append(frame)
        if len(arrived) > LIMIT_FRAMES:
            arrived.popleft()
            self.stats.dropped_frames += 1

    def take(self) -> bytes | None:
        arrived = self._arrived
        if not arrived:
            self._spare_frames = 0
            last, self._last = self._last, None
            if last is not None:
                self.stats.repeated_frames += 1
            elif self.stats.received_frames:
                self.stats.missing_frames += 1
            return last
        frame = self._last = arrived.popleft()
        if len(arrived) < self._spare_frames:
            self._spare_frames = len(arrived)
        self._takes += 1
        if self._takes == WINDOW_FRAMES:
            if self._spare_frames:
                del arrived[min(range(len(arrived)), key=lambda i: _loudness(arrived[i]))]
                self.stats.dropped_frames += 1
            self._takes, self._spare_frames = 0, LIMIT_FRAMES
        return frame

    def drain(self) -> list[bytes]:
        """What has arrived and was not heard."""
        frames = list(self._arrived)
        self._arrived.clear()
        self._last, self._takes, self._spare_frames = None, 0, LIMIT_FRAMES
        return frames

    def give(self, frame: bytes, now: float) -> None:
        if self._returned_ms:  # before that, nothing tells what waits
            self._waiting_ms = min(self._waiting_ms, self._sent_ms - self._returned_ms)
            self._gives += 1
            if self._gives == WINDOW_FRAMES:
                self._judge()
        if self._skip:
            self._skip = False
            self.stats.skipped_frames += 1
        elif not self.leg.writable:
            self.stats.refused_frames += 1
        else:
            # What a partner did not say is its own silence; what the beat did not send is our gap.
            continues = self._sent_ms > 0 and self.partner is None
            self._sent_ms += FRAME_MS
            self.stats.sent_frames += 1
            self.leg.send((Message(frame, f"c{self._sent_ms}", now, continues),))

    def _judge(self) -> None:
        """Did more wait all the time than must? Over a network the least ever seen is the marks' way; when skipping
        does not help, that way has become longer."""
        least_ms = self._waiting_ms
        self._vain = self._vain + 1 if least_ms >= self._skipped_at_ms > 0 else 0
        if self._networked and (least_ms < self._floor_ms or self._vain == VAIN_SKIPS):
            self._floor_ms, self._vain = least_ms, 0
        self._skip = least_ms > self._floor_ms + SPARE_MS
        self._skipped_at_ms = least_ms if self._skip else 0
        self._waiting_ms, self._gives = NETWORK_FLOOR_MS, 0


class Seat(_Member):
    """The AI agent's place: the leg its Bus speaks to, and who speaks to its Bus. A frame is consumed each beat and its
    marks come back then, as on a SIP line; `clear` knows exactly what was dropped."""

    def __init__(self, room: "Conference", role: Role, name: str) -> None:
        super().__init__(room, role, name)
        self.bus: Bus | None = None
        self.heard_frames = self.said_frames = 0
        self._said: deque[bytes] = deque()
        self._marks: deque[tuple[int, str]] = deque()
        self._written_ms = self._taken_ms = 0
        self._position_ms = 0
        self._full = False

    def plug(self, bus: Bus) -> None:
        """The agent speaks and hears here from now on; what its former leg had not yet played is said here."""
        self._position_ms = bus.carrier_ms + FRAME_MS
        self.bus = bus
        _move(bus, self)

    def unplug(self, leg: LegOut) -> None:
        """Back to a leg of its own, which also gives the bus its frames from now on. Idempotent."""
        bus, self.bus = self.bus, None
        if bus is not None:
            _move(bus, leg)
            self._forget()

    # --- LegOut, for the bus ---

    @property
    def writable(self) -> bool:
        return not self._full

    def send(self, messages: Sequence[Message]) -> None:
        if not self.inside:
            return
        for audio, mark, _, _ in messages:
            for at in range(0, len(audio), FRAME):
                self._said.append(audio[at : at + FRAME])
            self._written_ms += len(audio) // _SAMPLES_PER_MS
            self._marks.append((self._written_ms, mark))
        self._full = len(self._said) * FRAME_MS >= SEAT_LIMIT_MS

    def clear(self) -> int:
        dropped_ms = len(self._said) * FRAME_MS
        self._forget()
        return dropped_ms

    def _forget(self) -> None:
        self._said.clear()
        self._marks.clear()
        self._written_ms = self._taken_ms
        self._full = False

    # --- the room's ---

    def take(self) -> bytes | None:
        if not self._said:
            return None
        self._taken_ms += FRAME_MS
        self.said_frames += 1
        return self._said.popleft()

    def give(self, frame: bytes, now: float) -> None:
        bus = self.bus
        if bus is not None:
            self.heard_frames += 1
            position_ms, self._position_ms = self._position_ms, self._position_ms + FRAME_MS
            bus.receive(frame, position_ms)

    def after_beat(self) -> None:
        marks, bus = self._marks, self.bus
        while marks and marks[0][0] <= self._taken_ms and bus is not None:
            bus.mark_returned(marks.popleft()[1])
        if self._full and len(self._said) * FRAME_MS < SEAT_LIMIT_MS // 2:
            self._full = False
            if bus is not None:
                bus.leg_writable()


def _move(bus: Bus, leg: LegOut) -> None:
    """What was sent and not heard goes back to the queue and is sent again by the new way."""
    running = not bus.playout.paused
    if running and bus.playout.unheard:
        bus.pause()
        bus.leg = leg
        bus.resume()
    else:
        bus.leg = leg
        if running:
            bus.leg_writable()


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
                    self._pass_on(member.partner, frame)
        self._beating = any(m.partner is None for m in self._members)
        if self._beating:
            self._heartbeat.speaks(self)
        else:
            self._heartbeat.forget(self)

    # --- audio ---

    def pump(self, now: float) -> bool:
        """One beat. False while nobody needs one."""
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
        return self._beating

    def crashed(self, error: Exception) -> None:
        """From the heartbeat: it does not drive us any more."""
        self._crashed(None, error)

    def _pass_on(self, to: Port, frame: bytes) -> None:
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

    # --- the call's recording ---

    def take_taps(self, bus: Bus) -> None:
        """The taps of a bus, on its timeline: from now on they hear the whole room."""
        taps, bus.taps = bus.taps, []
        self.taps += taps
        self.origin_ms = bus.origin_ms

    def give_taps(self, bus: Bus) -> None:
        """And back."""
        taps, self.taps = self.taps, []
        bus.taps += taps

    def _caller_says(self, audio: bytes, carrier_ms: int) -> None:
        self._caller_at = carrier_ms, self._clock.now()
        for tap in self.taps:
            tap.write("caller", (carrier_ms - self.origin_ms) * _SAMPLES_PER_MS, audio)

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


def mix(says: Sequence[bytes | None], wanted: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], bytes]:
    """For each group of speakers the sum of their frames, cut off at full scale."""
    groups = list(wanted)
    if not groups:
        return {}
    speakers = sorted({i for group in groups for i in group})
    row = {speaker: n for n, speaker in enumerate(speakers)}
    codes = b"".join([says[i] or SILENT_FRAME for i in speakers])
    pcm = np.frombuffer(g711.decode(codes, "mulaw"), np.int16).reshape(-1, FRAME).astype(np.float32)
    weights = np.zeros((len(groups), len(speakers)), np.float32)
    for n, group in enumerate(groups):
        for speaker in group:
            weights[n, row[speaker]] = 1.0
    total = weights @ pcm
    np.minimum(np.maximum(total, -32768, out=total), 32767, out=total)
    out = g711.encode(total.astype(np.int16).tobytes(), "mulaw")
    return {group: out[n * FRAME : (n + 1) * FRAME] for n, group in enumerate(groups)}


def _loudness(frame: bytes) -> float:
    pcm = g711.MULAW_F32.take(np.frombuffer(frame, np.uint8))
    return float(pcm @ pcm)
