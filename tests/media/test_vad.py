from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.errors import ConfigError
from trunkline.media.vad import DEAF_WINDOWS, EnergyGate, Floats, Gated, Ints, SileroBatch, VoiceDetector

RNG = np.random.default_rng(20)


def dbfs(level: float) -> float:
    return float(10 ** (level / 20))


def noise(windows: int, level_db: float, samples: int = 256) -> Floats:
    return (RNG.standard_normal((windows, samples)) * dbfs(level_db)).astype(np.float32)


def voice(windows: int, level_db: float = -20.0, rate_hz: int = 8000) -> Floats:
    """A buzz at 120 Hz through three formants that move four times a second: enough like a vowel for the model."""
    samples = rate_hz * 32 // 1000
    t = np.arange(windows * samples) / rate_hz
    pitch = 120 + 15 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    sound = np.zeros(len(t))
    for harmonic in range(1, 28):
        hz = harmonic * pitch
        gain = sum(
            weight / (1 + ((hz - centre) / width) ** 2)
            for centre, width, weight in (
                (600 + 150 * np.sin(2 * np.pi * 4 * t), 90, 1.0),
                (1300 + 500 * np.sin(2 * np.pi * 2.5 * t), 120, 0.6),
                (2500.0, 160, 0.3),
            )
        )
        sound += gain * np.sin(harmonic * phase)
    sound *= 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    sound *= dbfs(level_db) / np.sqrt(np.mean(sound**2))
    return sound.astype(np.float32).reshape(windows, samples)


def one(slot: int = 0) -> Ints:
    return np.array([slot])


def judge(gate: EnergyGate, windows: Floats, slot: int = 0) -> list[Gated]:
    return [gate.run(one(slot), window[None]) for window in windows]


def opened(results: list[Gated]) -> NDArray[np.bool_]:
    return np.array([bool(result.open[0]) for result in results])


# --- the gate ---


def test_line_noise_closes_the_gate_within_half_a_second_and_never_opens_it_again() -> None:
    is_open = opened(judge(EnergyGate(1), noise(2000, -44)))
    assert not is_open[15:].any()  # 480 ms


def test_speech_in_line_noise_opens_the_gate_and_holds_it_8_windows_longer() -> None:
    gate = EnergyGate(1)
    judge(gate, noise(60, -44))
    speech = noise(10, -44) + voice(10, -22)
    assert opened(judge(gate, speech)).all()
    after = opened(judge(gate, noise(60, -44)))
    assert after[:8].all()
    assert not after[8:].any()


def test_a_call_that_begins_with_speech_passes_from_its_first_window() -> None:
    assert opened(judge(EnergyGate(1), voice(40, -20))).mean() > 0.95


def test_a_clean_quiet_line_never_opens_the_gate() -> None:
    assert not opened(judge(EnergyGate(1), noise(100, -70))).any()
    assert not opened(judge(EnergyGate(1), np.zeros((100, 256), np.float32))).any()


def test_the_floor_rises_with_the_noise_within_two_seconds() -> None:
    gate = EnergyGate(1)
    judge(gate, noise(60, -60))
    louder = opened(judge(gate, noise(100, -46)))
    assert louder[0]
    assert not louder[62:].any()


def test_onset_and_end_are_placed_to_8_ms() -> None:
    gate = EnergyGate(1)
    judge(gate, noise(60, -60))
    begins, ends = noise(2, -60)
    begins[130:] += voice(1)[0, 130:]
    ends[:120] += voice(1)[0, :120]
    first, last, quiet = judge(gate, np.stack((begins, ends, noise(1, -60)[0])))
    assert (first.first_loud[0], first.last_loud[0]) == (2, 3)
    assert (last.first_loud[0], last.last_loud[0]) == (0, 1)
    assert (quiet.first_loud[0], quiet.last_loud[0]) == (-1, -1)
    assert quiet.open[0]


def test_energy_is_the_mean_square() -> None:
    assert EnergyGate(1).run(one(), np.full((1, 256), 0.5, np.float32)).energy[0] == pytest.approx(0.25)


def test_slots_do_not_hear_each_other() -> None:
    gate, alone = EnergyGate(4), EnergyGate(1)
    loud, quiet = voice(50), noise(50, -44)
    for i in range(50):
        both = gate.run(np.array([3, 1]), np.stack((loud[i], quiet[i])))
        assert both.open[1] == alone.run(one(), quiet[i][None]).open[0]


def test_a_reset_slot_is_a_new_line() -> None:
    gate = EnergyGate(2)
    first = opened(judge(gate, noise(30, -44)[:30], slot=1))
    gate.reset(1)
    again = opened(judge(gate, noise(30, -44)[:30], slot=1))
    assert np.array_equal(first, again)


def test_an_empty_batch_is_no_trouble() -> None:
    assert len(EnergyGate(1).run(np.zeros(0, np.int64), np.zeros((0, 256), np.float32)).open) == 0
    assert len(SileroBatch(1).run(np.zeros(0, np.int64), np.zeros((0, 256), np.float32))) == 0


# --- Silero ---


def score(silero: SileroBatch, windows: Floats, slot: int = 0) -> Floats:
    return np.concatenate([silero.run(one(slot), window[None]).copy() for window in windows])


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_voice_scores_high_and_noise_low(rate_hz: int) -> None:
    silero = SileroBatch(1, rate_hz)
    assert score(silero, noise(20, -44, silero.window_samples)).max() < 0.5
    assert score(silero, voice(20, rate_hz=rate_hz))[3:].mean() > 0.7


def test_a_batch_scores_as_each_call_would_alone() -> None:
    calls = np.stack((voice(12), noise(12, -30), voice(12, -30), np.zeros((12, 256), np.float32)))
    alone = [score(SileroBatch(1), windows) for windows in calls]
    together = SileroBatch(9)
    slots = np.array([7, 0, 3, 8])
    for i in range(12):
        np.testing.assert_allclose(together.run(slots, calls[:, i]), [a[i] for a in alone], atol=1e-4)


def test_reset_makes_the_slot_a_new_call_and_leaves_the_others() -> None:
    silero = SileroBatch(2)
    first = score(silero, voice(8), slot=0)
    score(silero, voice(8), slot=1)
    other = silero.state[:, 1].copy()
    silero.reset(0)
    np.testing.assert_allclose(score(silero, voice(8), slot=0), first, atol=1e-5)
    assert np.array_equal(silero.state[:, 1], other)


def test_a_skipped_window_is_the_context_of_the_next() -> None:
    silero = SileroBatch(2)
    window = noise(1, -50)
    state = silero.state.copy()
    silero.skip(one(1), window)
    assert np.array_equal(silero.context[1], window[0, -32:])
    assert np.array_equal(silero.state, state)


def test_after_half_a_second_of_clear_non_speech_the_state_is_rested() -> None:
    silero = SileroBatch(1)
    rested = silero.state.copy()
    quiet = np.zeros((DEAF_WINDOWS, 256), np.float32)
    score(silero, quiet[:-1])
    assert not np.array_equal(silero.state, rested)
    score(silero, quiet[-1:])
    assert np.array_equal(silero.state, rested)


def test_speech_never_resets_the_state() -> None:
    silero = SileroBatch(1)
    rested = silero.state.copy()
    for window in voice(60):
        silero.run(one(), window[None])
        assert not np.array_equal(silero.state, rested)


def test_speech_after_ten_seconds_of_hum_is_heard_as_soon_as_at_first() -> None:
    t = np.arange(312 * 256) / 8000
    hum = np.sin(2 * np.pi * np.outer((196.0, 247.0, 294.0), t)).sum(axis=0) * 0.03
    tired, fresh = SileroBatch(1), SileroBatch(1)
    score(tired, hum.reshape(312, 256).astype(np.float32))
    speech = voice(12)
    assert (score(tired, speech) > 0.5).argmax() <= (score(fresh, speech) > 0.5).argmax() + 1


def test_a_missing_or_broken_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for path in (broken, tmp_path / "absent.onnx"):
        with pytest.raises(ConfigError, match=path.name):
            SileroBatch(1, model=path)


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="44100"):
        SileroBatch(1, 44100)


def test_silero_is_a_voice_detector() -> None:
    detector: VoiceDetector = SileroBatch(1)
    assert detector.window_samples == 256


def test_the_first_half_second_of_a_faintly_noisy_line_is_never_speech() -> None:
    calls = 64
    gate, silero = EnergyGate(calls), SileroBatch(calls)
    slots: Ints = np.arange(calls)
    for level_db in (-62.0, -60.0, -58.0):
        for slot in range(calls):
            gate.reset(slot)
            silero.reset(slot)
        calls_noise = noise(calls * 16, level_db).reshape(16, calls, 256)
        for windows in calls_noise:
            gated = gate.run(slots, windows)
            silero.skip(slots[~gated.open], windows[~gated.open])
            assert not (silero.run(slots[gated.open], windows[gated.open]) >= 0.5).any()


def test_a_glance_says_what_a_window_there_would_and_keeps_nothing_of_it() -> None:
    spoken = voice(12).reshape(-1)
    glancing, plain = SileroBatch(2), SileroBatch(2)
    for at in range(0, 8 * 256, 256):
        window = spoken[None, at : at + 256]
        said = glancing.run(one(), window)[0]
        assert said == pytest.approx(plain.run(one(), window)[0], abs=1e-6)
        half = glancing.glance(one(), spoken[None, at + 256 + 128 - 288 : at + 256 + 128])
    assert half[0] > 0.5
    assert glancing.glance(one(1), np.zeros((1, 288), np.float32))[0] < 0.5
