import numpy as np
import pytest

from trunkline.testing.caller.speech import level_dbfs, to_speech
from trunkline.testing.noises import KINDS, RATE_HZ, burst, cough, hum

LENGTHS_MS = {
    "cough": (150, 470),
    "throat": (250, 450),
    "mm-hm": (250, 450),
    "burst": (100, 800),
    "door": (300, 300),
    "keyboard": (500, 1000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_noise_is_as_long_as_such_noises_are_and_can_be_sent(kind: str) -> None:
    shortest, longest = LENGTHS_MS[kind]
    for seed in range(6):
        samples = KINDS[kind](seed)
        assert shortest <= len(samples) * 1000 / RATE_HZ <= longest
        assert np.isfinite(samples).all()
        assert 0.003 < float(np.abs(samples).max()) <= 0.99
        assert to_speech(kind, samples).frames


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_one_noise_and_another_seed_another(kind: str) -> None:
    assert np.array_equal(KINDS[kind](1), KINDS[kind](1))
    again = KINDS[kind](2)
    assert len(again) != len(KINDS[kind](1)) or not np.array_equal(again, KINDS[kind](1))


def test_a_burst_of_line_noise_keeps_to_its_levels() -> None:
    levels = [level_dbfs(burst(seed)) for seed in range(20)]
    assert -44.1 <= min(levels) < -40
    assert -34 < max(levels) <= -29.9


def test_every_third_cough_is_a_double_one() -> None:
    def pauses(seed: int) -> bool:
        frames = cough(seed)
        inner = frames[len(frames) // 4 : -len(frames) // 4]
        blocks = inner[: len(inner) // 160 * 160].reshape(-1, 160)
        return bool((np.abs(blocks).max(axis=1) == 0).any())

    assert [pauses(seed) for seed in range(6)] == [True, False, False, True, False, False]


def test_a_hum_has_a_voices_pitch() -> None:
    samples = hum(4)[400:1200]
    correlation = np.correlate(samples, samples, "full")[len(samples) - 1 :]
    lag = 30 + int(correlation[30:100].argmax())
    assert correlation[lag] > 0.5 * correlation[0]
