"""What a conference costs, and how soon a caller on hold hears music: `python bench/conference.py [--speech]`.

Legs here only take what they are sent and return its mark at once, so the figures are the room's own: the leg's side
(ring or WebSocket) costs what it costs any call. Promised: under 0.1 % of a core per leg, which is 20 us a frame.
CPU time of the thread, medians of several runs.
`--speech`: keypad tones looked for in all recorded and synthetic speech of this machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sounds import monologue

from trunkline.media import dtmf, g711
from trunkline.media.bus import Bus
from trunkline.media.conference import Conference
from trunkline.media.detect import DtmfDetector
from trunkline.media.ears import Ears
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.members import Port, Seat
from trunkline.media.music import hold_music
from trunkline.media.playout import Message
from trunkline.media.sources import FRAME, SILENT_FRAME
from trunkline.media.vad import EnergyGate, Floats, Ints
from trunkline.testing.clock import ManualClock
from trunkline.types import MULAW_8K

FRAMES_A_SECOND = 50


class Leg:
    writable = True
    port: Port

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.heard.append(message.audio)
            self.port.mark_returned(message.mark)

    def clear(self) -> int | None:
        return 0


class Deaf:
    rate_hz, window_samples, context_samples = 8000, 256, 32

    def run(self, slots: Ints, windows: Floats) -> Floats:
        return np.zeros(len(slots), np.float32)

    def skip(self, slots: Ints, windows: Floats) -> None: ...

    def reset(self, slot: int) -> None: ...


def crashed(name: str | None, error: Exception) -> None:
    raise error


class Room:
    def __init__(self, people: int, agent: bool) -> None:
        self.clock = ManualClock()
        self.ears = Ears(MULAW_8K, 2, Deaf(), EnergyGate(2))
        self.heartbeat = Heartbeat(self.clock, lambda now: None, lambda late, took: None)
        self.conference = Conference(self.heartbeat, self.clock, crashed)
        self.legs: list[Leg] = []
        for n in range(people):
            leg = Leg()
            port = self.conference.join(leg, "representative" if n else "caller", f"leg {n}")
            assert isinstance(port, Port)
            leg.port = port
            self.legs.append(leg)
        if agent:
            seat = self.conference.seat("agent", "agent")
            assert isinstance(seat, Seat)
            seat.plug(Bus(seat, self.ears, self.heartbeat, self.clock))


def cost_us(people: int, agent: bool, talking: int, beats: int) -> float:
    """Of a whole conference in one beat, everything a leg's frame sets off included."""
    room = Room(people, agent)
    rng = np.random.default_rng(people)
    voices = [[rng.integers(0, 256, FRAME, np.uint8).tobytes() for _ in range(16)] for _ in range(people)]
    runs = []
    for run in range(5):
        started = time.thread_time()
        for beat in range(beats):
            at = (run * beats + beat) * 20
            for n, leg in enumerate(room.legs):
                leg.port.receive(voices[n][beat % 16] if n < talking else SILENT_FRAME, at)
            room.heartbeat.beat(room.clock.now())
        runs.append((time.thread_time() - started) / beats * 1e6)
        for leg in room.legs:
            leg.heard.clear()
    return statistics.median(runs)


def hold_frames() -> int:
    """Frames the caller still hears of the other side after hold() was called."""
    room = Room(2, False)
    caller, other = room.legs
    voice = bytes(range(160))
    music = hold_music().audio[:FRAME]
    for beat in range(5):
        other.port.receive(voice, beat * 20)
    room.conference.hold(caller.port, hold_music().play())
    caller.heard.clear()
    for beat in range(5, 10):
        other.port.receive(voice, beat * 20)
        room.heartbeat.beat(room.clock.now())
    return caller.heard.index(music)


def detector_us(codes: bytes) -> float:
    frames = [codes[at : at + FRAME] for at in range(0, len(codes) - FRAME + 1, FRAME)]
    runs = []
    for _ in range(7):
        detector = DtmfDetector()
        started = time.thread_time()
        for frame in frames:
            detector.feed(frame)
        runs.append((time.thread_time() - started) / len(frames) * 1e6)
    return statistics.median(runs)


def speech(seed: int, seconds: float, recorded: bool) -> bytes:
    return g711.encode((monologue(seed, seconds, recorded=recorded) * 32767).astype(np.int16).tobytes(), "mulaw")


def talk_off() -> None:
    for name, recorded in (("recorded", True), ("espeak-ng", False)):
        seconds, digits = 0.0, ""
        for seed in range(40):
            codes = speech(seed, 30, recorded)
            seconds += len(codes) / 8000
            digits += DtmfDetector().feed(codes)
        print(f"  {name}: {len(digits)} digits in {seconds / 60:.0f} minutes of prompts strung together {digits}")
    seconds, digits = 0.0, ""
    for path in sorted(Path("/usr/share/asterisk/sounds").glob("en*/**/*.wav")):
        pcm = np.frombuffer(path.read_bytes()[44:], np.int16).astype(np.float32)
        for gain in (0.3, 1.0, 2.0):
            codes = g711.encode((pcm * gain).clip(-32768, 32767).astype(np.int16).tobytes(), "mulaw")
            seconds += len(codes) / 8000
            digits += DtmfDetector().feed(codes)
    print(f"  every installed prompt at three levels: {len(digits)} digits in {seconds / 60:.0f} minutes {digits}")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--beats", type=int, default=2000)
    options.add_argument("--speech", action="store_true")
    given = options.parse_args()
    print("members             talking  us a beat  us a leg and frame  % of a core a leg")
    for people, agent, talking in (
        (2, False, 2),
        (2, True, 1),
        (2, True, 2),
        (3, False, 3),
        (7, True, 2),
        (8, False, 8),
    ):
        us = cost_us(people, agent, talking, given.beats)
        legs = people + agent
        name = (
            f"{people} legs" + (", the agent" if agent else "") + (" (passed on)" if people == 2 and not agent else "")
        )
        print(f"{name:24} {talking:2} {us:10.1f} {us / legs:19.2f} {us / legs * FRAMES_A_SECOND / 1e4:18.3f}")
    print(f"hold to music: {hold_frames()} frames of anything else first")
    measure: Callable[[bytes], float] = detector_us
    print(
        f"keypad tones, us a frame: silence {measure(SILENT_FRAME * 500):.1f},"
        f" speech {measure(speech(1, 20, False)):.1f}, tones {measure(dtmf.tones(dtmf.KEYS, MULAW_8K)):.1f}"
    )
    if given.speech:
        print("keypad tones in speech")
        talk_off()


if __name__ == "__main__":
    main()
