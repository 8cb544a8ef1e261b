"""The ears on audio whose speech is known: loud noise is speech to this detector, silence is not."""

import numpy as np
import pytest

from trunkline.media import g711
from trunkline.media.ears import RING_MS, Ears
from trunkline.media.vad import EnergyGate, Floats, Ints
from trunkline.types import MULAW_8K, PCM_16K, Format

FRAME = 160


class LoudIsSpeech:
    rate_hz, window_samples, context_samples = 8000, 256, 32

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.glances = 0

    def run(self, slots: Ints, windows: Floats) -> Floats:
        self.batches.append(len(slots))
        result: Floats = ((windows * windows).mean(axis=1) > 1e-3).astype(np.float32)
        return result

    def skip(self, slots: Ints, windows: Floats) -> None: ...

    def glance(self, slots: Ints, audio: Floats) -> Floats:
        self.glances += 1
        result: Floats = ((audio[:, -64:] ** 2).mean(axis=1) > 1e-3).astype(np.float32)
        return result

    def reset(self, slot: int) -> None: ...


class SlowToForget(LoudIsSpeech):
    speech_windows = left = 0

    def run(self, slots: Ints, windows: Floats) -> Floats:
        loud = super().run(slots, windows)
        self.left = 6 if loud[0] else max(0, self.left - 1)
        self.speech_windows += self.left > 0
        return np.full(1, float(self.left > 0), np.float32)


class Caller:
    """A call's listener that notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float]] = []
        self.echo = False
        self.asked = 0
        self.crashes: list[Exception] = []
        self.bug = False

    def speech_started(self, at: float) -> None:
        if self.bug:
            raise RuntimeError("bug")
        self.heard.append(("started", round(at, 3)))

    def speech_sustained(self) -> None:
        self.heard.append(("sustained", 0.0))

    def speech_ended(self, at: float) -> None:
        self.heard.append(("ended", round(at, 3)))

    def is_echo(self, recent: Floats, at: float) -> bool:
        self.asked += 1
        assert 0 < len(recent) <= 1024
        return self.echo

    def may_be_echo(self, recent: Floats, at: float) -> bool:
        self.asked += 1
        return self.echo

    def crashed(self, error: Exception) -> None:
        self.crashes.append(error)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


class Line:
    """Feeds frames as a carrier does, a beat after each."""

    def __init__(self, ears: Ears, slot: int) -> None:
        self.ears, self.slot, self.now = ears, slot, 50.0
        self.noise = np.random.default_rng(1)

    def send(self, ms: int, amplitude: int, beats: bool = True) -> None:
        for _ in range(ms // 20):
            self.now += 0.02
            pcm = (self.noise.standard_normal(FRAME) * amplitude).clip(-32000, 32000).astype(np.int16)
            self.ears.write(self.slot, g711.encode(pcm.tobytes(), "mulaw"), self.now)
            if beats:
                self.ears.beat(self.now)

    def speak(self, ms: int, beats: bool = True) -> None:
        self.send(ms, 6000, beats)

    def quiet(self, ms: int, beats: bool = True) -> None:
        self.send(ms, 10, beats)


@pytest.fixture
def line() -> tuple[Line, Caller, Ears]:
    ears = Ears(MULAW_8K, 4, LoudIsSpeech(), EnergyGate(4))
    caller = Caller()
    slot = ears.open(caller)
    assert slot is not None
    return Line(ears, slot), caller, ears


def test_speech_is_placed_where_it_was_not_where_it_was_noticed(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, _ = line
    call.quiet(1000)
    began = call.now
    call.speak(1000)
    ended = call.now
    call.quiet(1000)
    assert caller.names == ["started", "sustained", "ended"]
    assert caller.heard[0][1] == pytest.approx(began, abs=0.012)
    assert caller.heard[2][1] == pytest.approx(ended, abs=0.012)


def test_how_long_a_caller_has_been_silent_is_known(line: tuple[Line, Caller, Ears]) -> None:
    call, _, ears = line
    call.ears.set_endpoint(call.slot, 3000)
    call.quiet(1000)
    for pause_ms in (100, 400):
        call.speak(600)
        assert ears.silent_ms(call.slot) <= 32
        call.quiet(pause_ms)
        assert ears.silent_ms(call.slot) == pytest.approx(pause_ms, abs=12)


def test_resting_ears_tell_nothing_keep_what_was_said_and_hear_again(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(500)
    call.speak(100)
    ears.rest(call.slot, True)
    call.speak(3000)
    assert caller.names == ["started"]
    assert not ears.hearing_speech(call.slot)
    assert ears.scored <= 5
    assert len(set(ears.latest(call.slot, 100))) > 10
    ears.rest(call.slot, False)
    began = call.now
    call.speak(700)
    call.quiet(1000)
    assert caller.names == ["started", "started", "sustained", "ended"]
    assert caller.heard[1][1] == pytest.approx(began, abs=0.033)
    assert ears.dropped_samples == 0


@pytest.mark.parametrize("endpoint_ms", [200, 250, 600, 1300])
def test_the_end_is_told_when_the_silence_is_full_and_not_a_beat_later(
    line: tuple[Line, Caller, Ears], endpoint_ms: int
) -> None:
    call, caller, ears = line
    ears.set_endpoint(call.slot, endpoint_ms)
    call.quiet(800)
    call.speak(700)
    silent_ms = 0
    while "ended" not in caller.names:
        call.quiet(20)
        silent_ms += 20
        assert silent_ms < 3000
    assert endpoint_ms <= silent_ms + 8  # the last loud block may end up to one block early
    assert silent_ms <= endpoint_ms + 20


def test_the_end_does_not_wait_for_the_frame_that_is_under_way(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    ears.set_endpoint(call.slot, 210)
    call.quiet(800)
    call.speak(640)
    call.quiet(200)
    ears.beat(call.now + 0.004)
    assert "ended" not in caller.names
    ears.beat(call.now + 0.012)
    assert "ended" in caller.names


def test_silence_is_counted_in_received_audio(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(800)
    call.speak(700)
    call.quiet(300)
    for i in range(200):  # four seconds of beats without a frame
        ears.beat(call.now + i * 0.02)
    assert "ended" not in caller.names
    call.quiet(320)
    assert "ended" in caller.names


def test_half_a_second_of_speech_is_sustained_and_a_cough_is_not(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, _ = line
    call.quiet(800)
    call.speak(400)
    call.quiet(1000)
    assert caller.names == ["started", "ended"]


def test_a_score_that_decays_after_the_sound_is_not_speech_that_lasts(line: tuple[Line, Caller, Ears]) -> None:
    """Silero's does so for 150-200 ms after an mm-hm."""
    call, caller, ears = line
    slow = SlowToForget()
    ears._detector = slow
    call.quiet(800)
    call.speak(440)
    call.quiet(1000)
    assert slow.speech_windows * 32 >= 500
    assert caller.names == ["started", "ended"]


def test_speech_that_goes_on_within_the_endpoint_is_one_utterance(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, _ = line
    call.quiet(800)
    call.speak(400)
    call.quiet(400)
    call.speak(400)
    call.quiet(1000)
    assert caller.names == ["started", "sustained", "ended"]


def test_speech_begun_in_the_unfinished_window_stops_the_end(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    ears.set_endpoint(call.slot, 400)
    call.quiet(800)
    call.speak(640)
    call.quiet(380)
    assert "ended" not in caller.names
    call.speak(20)  # reaches the deadline, but loud: its window is not complete
    assert "ended" not in caller.names
    call.speak(300)
    call.quiet(600)
    assert caller.names.count("ended") == 1


def test_a_burst_after_a_stall_is_heard_whole(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(800)
    call.speak(1000, beats=False)
    call.quiet(800, beats=False)
    ears.beat(call.now)
    assert caller.names == ["started", "sustained", "ended"]
    assert ears.dropped_samples == 0


def test_more_than_the_ring_holds_is_dropped_and_counted(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(200)
    call.quiet(2 * RING_MS // 20 * 20, beats=False)
    ears.beat(call.now)
    assert ears.dropped_samples > 0
    call.quiet(1000)
    call.speak(300)
    call.quiet(700)
    assert caller.names == ["started", "ended"]


def test_our_own_voice_is_asked_about_only_while_guarded(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    caller.echo = True
    ears.guard(call.slot, True)
    call.quiet(800)
    call.speak(600)
    call.quiet(700)
    assert caller.names == []
    assert caller.asked > 10
    ears.guard(call.slot, False)
    asked = caller.asked
    call.speak(300)
    call.quiet(700)
    assert caller.names == ["started", "ended"]
    assert caller.asked == asked


@pytest.mark.parametrize("quiet_ms", [800, 820, 840, 860, 880, 900, 920, 940])
def test_an_interruption_is_noticed_with_its_first_frame_wherever_the_windows_lie(quiet_ms: int) -> None:
    detector = LoudIsSpeech()
    ears, caller = Ears(MULAW_8K, 4, detector, EnergyGate(4)), Caller()
    slot = ears.open(caller)
    assert slot is not None
    call = Line(ears, slot)
    ears.guard(slot, True)
    call.quiet(quiet_ms)
    assert detector.glances == 0  # only what is loud is looked at
    began = call.now
    call.speak(20)
    assert caller.names == ["started"]
    assert caller.heard[0][1] == pytest.approx(began, abs=0.012)
    call.speak(440)
    assert caller.names == ["started"], "not sustained before half a second"
    call.speak(160)
    assert caller.names == ["started", "sustained"]
    call.quiet(1000)
    assert caller.names == ["started", "sustained", "ended"]


def test_who_does_not_interrupt_is_heard_in_whole_windows(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(800)
    call.speak(400)
    assert caller.names == ["started"]
    assert ears._detector.glances == 0  # type: ignore[attr-defined]


def test_a_glance_that_is_our_own_voice_begins_nothing(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    caller.echo = True
    ears.guard(call.slot, True)
    call.quiet(800)
    call.speak(20)
    assert caller.asked > 0
    assert caller.names == []


def test_a_recogniser_is_not_given_our_own_voice_from_before_the_caller_spoke(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    caller.echo = True
    ears.guard(call.slot, True)
    call.quiet(800)
    call.speak(640)
    caller.echo = False
    call.speak(64)
    assert caller.names == ["started"]
    assert len(ears.latest(call.slot, 300)) <= 8 * 96
    call.speak(400)
    assert len(ears.latest(call.slot, 300)) == 8 * 300


def test_calls_are_scored_together_and_do_not_mix() -> None:
    detector = LoudIsSpeech()
    ears = Ears(MULAW_8K, 4, detector, EnergyGate(4))
    callers = [Caller() for _ in range(4)]
    lines = [Line(ears, slot) for slot in (ears.open(c) for c in callers) if slot is not None]
    for i in range(200):
        for n, call in enumerate(lines):
            (call.speak if n == 2 and 60 <= i < 90 else call.quiet)(20, beats=False)
        ears.beat(lines[0].now)
    assert [c.names for c in callers] == [[], [], ["started", "sustained", "ended"], []]
    assert ears.scored < ears.windows / 2


def test_slots_run_out_and_are_clean_when_used_again(line: tuple[Line, Caller, Ears]) -> None:
    call, _, ears = line
    others = [ears.open(Caller()) for _ in range(3)]
    assert None not in others
    assert ears.open(Caller()) is None
    call.quiet(500)
    call.speak(500)
    ears.close(call.slot)
    second = Caller()
    slot = ears.open(second)
    assert slot == call.slot
    again = Line(ears, slot)
    again.quiet(1000)
    assert second.names == []
    assert ears.latest(slot, 60) != b""
    assert len(ears.latest(slot, 60)) == 480


def test_pre_roll_is_what_was_just_received_also_across_the_rings_end(line: tuple[Line, Caller, Ears]) -> None:
    call, _, ears = line
    sent = b""
    for i in range(150):  # three seconds, through the end of the ring
        audio = bytes([i % 256]) * FRAME
        sent += audio
        ears.write(call.slot, audio, 1.0)
        ears.beat(1.0)
        assert ears.latest(call.slot, 300) == sent[-2400:]


def test_a_bug_of_one_listener_is_told_to_it_and_to_no_other() -> None:
    ears = Ears(MULAW_8K, 2, LoudIsSpeech(), EnergyGate(2))
    broken, sound = Caller(), Caller()
    broken.bug = True
    lines = [Line(ears, slot) for slot in (ears.open(broken), ears.open(sound)) if slot is not None]
    for i in range(100):
        for call in lines:
            (call.speak if 40 <= i < 60 else call.quiet)(20, beats=False)
        ears.beat(lines[0].now)
    assert [str(e) for e in broken.crashes] == ["bug"]
    assert sound.names == ["started", "ended"]


def test_forgotten_speech_begins_anew(line: tuple[Line, Caller, Ears]) -> None:
    call, caller, ears = line
    call.quiet(800)
    call.speak(160)  # up to a window's end
    ears.forget_speech(call.slot)
    call.quiet(1000)
    assert caller.names == ["started"]


def test_sixteen_kilohertz_lanes_have_ears_of_their_own() -> None:
    class Wide(LoudIsSpeech):
        rate_hz, window_samples, context_samples = 16000, 512, 64

    format: Format = PCM_16K
    ears = Ears(format, 1, Wide(), EnergyGate(1))
    caller = Caller()
    slot = ears.open(caller)
    assert slot is not None
    noise = np.random.default_rng(2)
    for i in range(120):
        amplitude = 6000 if 40 <= i < 75 else 10
        pcm = (noise.standard_normal(320) * amplitude).clip(-32000, 32000).astype(np.int16)
        ears.write(slot, pcm.tobytes(), i * 0.02)
        ears.beat(i * 0.02)
    assert caller.names == ["started", "sustained", "ended"]
