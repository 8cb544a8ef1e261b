import numpy as np
import pytest

from trunkline.media import dtmf, g711
from trunkline.types import MULAW_8K, PCM_8K, PCM_16K, Format

ALL_HZ = (697, 770, 852, 941, *dtmf.HIGH_HZ)


def heard(pcm: bytes, rate_hz: int) -> dict[int, float]:
    """Level of each of the eight frequencies in dBm0, over the middle of the burst."""
    burst = np.frombuffer(pcm, np.int16)[: rate_hz * dtmf.TONE_MS // 1000].astype(float)
    burst = burst[len(burst) // 20 : -len(burst) // 20]
    window = np.hanning(len(burst))
    t = np.arange(len(burst)) / rate_hz
    full_scale = 32124 / 10 ** (3.17 / 20)
    return {
        hz: float(
            20 * np.log10(2 * abs(np.dot(burst * window, np.exp(-2j * np.pi * hz * t))) / window.sum() / full_scale)
        )
        for hz in ALL_HZ
    }


@pytest.mark.parametrize("key", dtmf.KEYS)
@pytest.mark.parametrize("format", [PCM_8K, PCM_16K, MULAW_8K])
def test_each_key_is_its_two_tones_and_no_other(key: str, format: Format) -> None:
    data = dtmf.tone(key, format)
    assert len(data) == 9 * format.frame_bytes
    levels = heard(data if format.encoding == "pcm16" else g711.decode(data, "mulaw"), format.rate_hz)
    low, high = dtmf.FREQUENCIES[key]
    assert abs(levels[low] - dtmf.LOW_DBM0) < 0.3
    assert abs(levels[high] - dtmf.HIGH_DBM0) < 0.3
    assert all(level < -30 for hz, level in levels.items() if hz not in (low, high))


def test_the_keypad_is_q_23() -> None:
    assert dtmf.FREQUENCIES["1"] == (697, 1209)
    assert dtmf.FREQUENCIES["0"] == (941, 1336)
    assert dtmf.FREQUENCIES["#"] == (941, 1477)
    assert dtmf.FREQUENCIES["D"] == (941, 1633)
    assert sorted(dtmf.FREQUENCIES) == sorted(dtmf.KEYS)


def test_a_tone_ends_in_80_ms_of_silence_and_is_made_once() -> None:
    assert dtmf.tone("5")[-PCM_8K.bytes_per_ms * dtmf.GAP_MS :] == bytes(PCM_8K.bytes_per_ms * dtmf.GAP_MS)
    assert dtmf.tone("5") is dtmf.tone("5")


def test_several_keys_with_a_wait() -> None:
    assert dtmf.tones("1w#", MULAW_8K) == dtmf.tone("1", MULAW_8K) + b"\xff" * 4000 + dtmf.tone("#", MULAW_8K)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="no key"):
        dtmf.tones("12x")
