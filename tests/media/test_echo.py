"""Signals are made here: two buzzing voices of different pitch, a line with a delay, a loss and a reflection."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.echo import EchoGuard, Floats
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, Format

WINDOW = 256
SECONDS = 4


def speech(seed: int, pitch_hz: float, level_db: float = -20.0) -> NDArray[np.float64]:
    """Noisy pulses through wandering formants, with syllables and pauses: as unlike itself a moment later as speech."""
    rng = np.random.default_rng(seed)
    n = SECONDS * 8000
    pulses = 0.03 * rng.standard_normal(n)
    at = 0.0
    while at < n:
        pulses[int(at)] += 1.0
        at += 8000 / (pitch_hz * (1 + 0.15 * rng.standard_normal()))
    out = np.zeros(n)
    for start in range(0, n, 800):  # a new vowel each 100 ms
        end = min(start + 800 + 400, n)
        for centre in rng.uniform((300, 900, 2000), (900, 2000, 3400)):
            t = np.arange(120) / 8000
            ring = np.exp(-t * 350) * np.sin(2 * np.pi * centre * t)
            out[start:end] += np.convolve(pulses[start:end], ring)[: end - start] * np.hanning(end - start)
    syllables = np.repeat(rng.choice((0.05, 0.6, 1.0), n // 1600), 1600)
    out *= np.convolve(syllables, np.hanning(200) / 100, "same")
    scaled: NDArray[np.float64] = out * 10 ** (level_db / 20) / np.sqrt(np.mean(out**2))
    return np.clip(scaled, -0.95, 0.95)


def coded(x: NDArray[np.float64], law: g711.Law = "mulaw") -> bytes:
    return g711.encode((np.clip(x, -1, 1) * 32767).astype(np.int16).tobytes(), law)


def heard(x: NDArray[np.float64], noise_db: float = -55.0) -> Floats:
    noisy = x + np.random.default_rng(9).standard_normal(len(x)) * 10 ** (noise_db / 20)
    return g711.MULAW_F32.take(np.frombuffer(coded(noisy), np.uint8))


def returned(x: NDArray[np.float64], delay_ms: float, gain_db: float) -> NDArray[np.float64]:
    """x over the echo path: delayed, weaker, with a reflection 4 ms later."""
    path = np.zeros(int(delay_ms * 8) + 33)
    path[int(delay_ms * 8)] = 1.0
    path[-1] = -0.3
    gained: NDArray[np.float64] = 10 ** (gain_db / 20) * np.convolve(x, path)[: len(x)]
    return gained


def steady_voice() -> NDArray[np.float64]:
    """Long vowels at a steady pitch: a period away it is almost itself."""
    t = np.arange(SECONDS * 8000) / 8000
    pitch = 120 + 8 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 8000
    tones = sum(np.sin(k * phase) / k**0.5 * np.cos(2 * np.pi * 0.3 * k * t + k) for k in range(1, 20))
    voice: NDArray[np.float64] = 0.1 * tones / np.sqrt(np.mean(np.square(tones)))
    return voice


AGENT = speech(1, 110)
CALLER = speech(2, 190)


def loud(x: Floats | NDArray[np.float64], position: int, floor_db: float = -45.0) -> bool:
    window = x[position - WINDOW : position]
    return float(np.mean(window**2)) > 10 ** (floor_db / 10)


def listen(
    guard: EchoGuard, signal: Floats, agent: NDArray[np.float64] = AGENT, *, error_ms: int = 0, start: int = 0
) -> dict[int, bool]:
    """Play and ask as ears.py does. The answers by position, where the window is loud enough to be called speech."""
    data, answers = coded(agent), {}
    for position in range(start + WINDOW, len(signal) + 1, WINDOW):
        guard.played(position - WINDOW, data[position - WINDOW : position])
        if loud(signal, position):
            recent = signal[max(0, position - 1024) : position]
            answers[position] = guard.explains(recent, position + error_ms * 8)
    return answers


@pytest.mark.parametrize(("delay_ms", "gain_db", "error_ms"), [(50, -10, -55), (180, -14, 30), (400, -18, 55)])
def test_our_own_voice_is_explained_once_its_path_is_known(delay_ms: int, gain_db: int, error_ms: int) -> None:
    guard = EchoGuard(MULAW_8K)
    answers = list(listen(guard, heard(returned(AGENT, delay_ms, gain_db)), error_ms=error_ms).values())
    assert guard.known
    assert guard.delay == pytest.approx((delay_ms + error_ms) * 8, abs=12)
    assert np.mean(answers[7:]) > 0.97


def test_a_caller_without_echo_is_speech() -> None:
    answers = listen(EchoGuard(MULAW_8K), heard(CALLER * 0.4))
    assert np.mean(list(answers.values())) < 0.03
    assert not any(list(answers.values())[:2])


@pytest.mark.parametrize("caller_db", [-26.0, -32.0])
def test_a_caller_on_top_of_the_echo_is_speech_within_two_windows(caller_db: float) -> None:
    caller = CALLER * 10 ** ((caller_db + 20) / 20)
    onset = 16000
    caller[:onset] = 0
    guard = EchoGuard(MULAW_8K)
    answers = listen(guard, heard(returned(AGENT, 120, -14) + caller))
    before = [explained for position, explained in answers.items() if position <= onset]
    voiced = [explained for position, explained in answers.items() if loud(caller, position, -38)]
    assert np.mean(before[7:]) > 0.97
    assert not all(voiced[:2])
    assert np.mean(voiced) < 0.4


def test_louder_than_an_echo_can_be_is_speech_even_if_it_is_our_voice() -> None:
    assert np.mean(list(listen(EchoGuard(MULAW_8K), heard(returned(AGENT, 100, 0))).values())) < 0.05


def test_with_nothing_played_everything_is_speech() -> None:
    guard = EchoGuard(MULAW_8K)
    assert not guard.explains(heard(CALLER)[4000:5024], 5024)
    guard.played(0, b"\xff" * 8000)
    assert not guard.explains(heard(CALLER)[4000:5024], 5024)


def test_what_was_cleared_explains_nothing() -> None:
    echo, data = heard(returned(AGENT, 100, -12)), coded(AGENT)
    position = next(p for p in range(8000, 30000, WINDOW) if loud(echo, p) and loud(echo, p - 512))
    told, cleared = EchoGuard(MULAW_8K), EchoGuard(MULAW_8K)
    for guard in (told, cleared):
        guard.played(0, data[:position])
    cleared.cut(position - 8000)
    recent = echo[position - 1024 : position]
    assert told.explains(recent, position)
    assert not cleared.explains(recent, position)


def test_between_the_windows_an_echo_is_possible_and_a_caller_over_silence_is_not() -> None:
    echo, data = heard(returned(AGENT, 100, -12)), coded(AGENT)
    guard, asked, possible = EchoGuard(MULAW_8K), 0, 0
    for position in range(4000, 30000, 160):  # frames, not windows
        guard.played(position - 160, data[position - 160 : position])
        if position > 8000 and loud(echo, position):
            asked += 1
            possible += guard.may_explain(echo[position - 1024 : position], position)
    assert asked > 50
    assert possible > 0.97 * asked
    assert guard.delay is None, "nothing is learnt of it"
    assert not EchoGuard(MULAW_8K).may_explain(heard(CALLER)[4000:5024], 5024)


def test_on_a_line_that_has_echoed_every_moment_is_left_to_its_window() -> None:
    guard = EchoGuard(MULAW_8K)
    listen(guard, heard(returned(AGENT, 120, -14)))
    assert guard.known
    quiet = heard(CALLER * 10 ** (-12 / 20))
    position = next(p for p in range(8000, 30000, WINDOW) if loud(quiet, p))
    guard.played(position - 8000, coded(AGENT)[:16000])
    assert guard.may_explain(quiet[position - 1024 : position], position)


def test_the_path_is_kept_when_the_playback_clock_jumps() -> None:
    guard = EchoGuard(MULAW_8K)
    signal = heard(returned(AGENT, 150, -12))
    listen(guard, signal[:16000])
    path_rest = guard.rest
    answers = list(listen(guard, signal, error_ms=40, start=16000 - 16000 % WINDOW).values())
    assert guard.delay == pytest.approx(190 * 8, abs=16 * 8)  # less than half a window of a jump is taken for jitter
    assert np.mean(answers) > 0.95
    assert guard.rest < max(2 * path_rest, 0.2)


def test_a_path_that_explains_nothing_any_more_is_given_up() -> None:
    guard = EchoGuard(MULAW_8K)
    listen(guard, heard(returned(AGENT, 60, -12)))
    assert guard.known
    moved = heard(returned(AGENT, 350, -16))  # the caller walked to another room, and the line changed with it
    guard.cut(0)
    answers = list(listen(guard, moved).values())
    assert np.mean(answers[40:]) > 0.95


def test_arrival_jitter_changes_nothing() -> None:
    steady, jittered = EchoGuard(MULAW_8K), EchoGuard(MULAW_8K)
    signal, data, rng = heard(returned(AGENT, 140, -14)), coded(AGENT), np.random.default_rng(4)
    for position in range(2048, len(signal), WINDOW):
        recent = signal[position - 1024 : position]
        answers = []
        for guard, late in ((steady, 0), (jittered, int(rng.integers(0, 12 * 8)) if position > 2048 else 0)):
            guard.played(position - 2048, data[position - 2048 : position])
            answers.append(guard.explains(recent, position + late))
        assert answers[0] == answers[1]


def test_a_position_rounded_by_a_sample_leaves_no_gap() -> None:
    guard = EchoGuard(MULAW_8K)
    guard.played(0, coded(AGENT[:1600]))
    guard.played(1601, coded(AGENT[1600:3200]))
    assert np.abs(guard._reference(0, 3200) - AGENT[:3200]).max() < 0.03


def test_another_room_is_learned_anew() -> None:
    guard = EchoGuard(MULAW_8K)
    listen(guard, heard(returned(AGENT, 60, -12)))
    guard.reset()
    assert guard.delay is None
    answers = list(listen(guard, heard(returned(AGENT, 300, -16))).values())
    assert np.mean(answers[7:]) > 0.97


@pytest.mark.parametrize("format", [MULAW_8K, ALAW_8K, PCM_8K])
def test_the_reference_is_read_back_where_it_was_played(format: Format) -> None:
    guard = EchoGuard(format)
    pcm = (AGENT[:32000] * 32767).astype(np.int16).tobytes()
    data = pcm if format.encoding == "pcm16" else g711.encode(pcm, format.encoding)
    sample = len(format.silence)
    guard.played(0, data[: 20000 * sample])
    guard.played(21000, data[21000 * sample : 30000 * sample])  # 1,000 samples of silence between
    read = guard._reference(15000, 31000)
    expected = AGENT[15000:31000].copy()
    expected[5000:6000] = 0
    expected[15000:] = 0
    assert np.abs(read - expected).max() < 0.02
    assert not guard._reference(-500, 0).any()
    assert not guard._reference(0, 1000).any()  # longer ago than the ring remembers


def test_a_rewritten_position_holds_what_was_played_last() -> None:
    guard = EchoGuard(MULAW_8K)
    guard.played(0, coded(AGENT[:4000]))
    guard.played(1000, coded(CALLER[1000:2000]))
    assert np.abs(guard._reference(1000, 2000) - CALLER[1000:2000]).max() < 0.02
    assert not guard._reference(2000, 4000).any()


RUN, PAUSE = 6400, 4800
VOICED = steady_voice()


def in_runs(late: tuple[int, ...]) -> tuple[list[tuple[int, bytes]], NDArray[np.float64]]:
    """What the guard is told, and what is played: each run so many samples later than told."""
    told: list[tuple[int, bytes]] = []
    played = np.zeros(len(late) * (RUN + PAUSE) + 8000)
    softly = np.minimum(1.0, np.arange(RUN) / 1200) ** 2  # as words with a soft consonant do
    for i, samples in enumerate(late):
        run, at = VOICED[i * RUN : (i + 1) * RUN] * softly, i * (RUN + PAUSE)
        told.append((at, coded(run)))
        played[at + samples : at + samples + RUN] = run
    return told, played


def ask_in_runs(told: list[tuple[int, bytes]], signal: Floats) -> dict[int, bool]:
    guard, answers, told = EchoGuard(MULAW_8K), {}, list(told)
    for position in range(WINDOW, len(signal) + 1, WINDOW):
        while told and told[0][0] <= position:
            guard.played(*told.pop(0))
        if loud(signal, position, -48.0):
            answers[position] = guard.explains(signal[max(0, position - 1024) : position], position)
    return answers


def test_each_run_of_our_voice_is_explained_from_its_first_word_however_late_it_plays() -> None:
    told, played = in_runs((0, 150, 20, 95, 160))
    answers = ask_in_runs(told, heard(returned(played, 120, -12)))
    later = [explained for position, explained in answers.items() if position > RUN + PAUSE]
    assert len(later) > 60
    assert np.mean(later) > 0.98


def test_a_caller_who_begins_with_a_run_of_ours_is_heard_within_a_third_of_a_second() -> None:
    told, played = in_runs((0, 150, 20, 95, 160))
    begins = 3 * (RUN + PAUSE) + 960
    caller = np.zeros(len(played))
    caller[begins : begins + 8000] = CALLER[:8000] * 0.5
    answers = ask_in_runs(told, heard(returned(played, 120, -12) + caller))
    unexplained = [position for position, explained in answers.items() if position > begins and not explained]
    assert unexplained[0] - begins < 0.36 * 8000
