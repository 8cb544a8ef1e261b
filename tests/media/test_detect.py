"""ITU-T Q.24's limits, with tones at random places and phases; and an hour of speech in which nobody keys anything."""

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trunkline.media import dtmf, g711
from trunkline.media.detect import DtmfDetector
from trunkline.media.music import hold_music
from trunkline.media.sources import comfort_noise
from trunkline.media.tones import PLANS, ToneName, tone
from trunkline.types import MULAW_8K

SPEECH = Path("/usr/share/asterisk/sounds/en")
DBM0 = 32124 / 10 ** (3.17 / 20)
Pcm = NDArray[np.float64]


def found(codes: bytes, size: int = 160) -> str:
    detector = DtmfDetector()
    return "".join(detector.feed(codes[at : at + size]) for at in range(0, len(codes), size))


def mulaw(pcm: Pcm) -> bytes:
    return g711.encode(np.round(pcm).clip(-32768, 32767).astype(np.int16).tobytes(), "mulaw")


def keyed(
    keys: str,
    *,
    tone_ms: float = 40,
    gap_ms: float = 40,
    low_dbm0: float = -12,
    high_dbm0: float = -12,
    low_off: float = 0,
    high_off: float = 0,
    noise_dbm0: float | None = None,
    seed: int = 0,
) -> bytes:
    """After a random while; frequencies off by a fraction."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(rng.integers(80, 400))]
    t = np.arange(round(tone_ms * 8)) / 8000
    for key in keys:
        low, high = dtmf.FREQUENCIES[key]
        one, other = rng.uniform(0, 2 * np.pi, 2)
        parts.append(
            10 ** (low_dbm0 / 20) * np.sin(2 * np.pi * low * (1 + low_off) * t + one)
            + 10 ** (high_dbm0 / 20) * np.sin(2 * np.pi * high * (1 + high_off) * t + other)
        )
        parts.append(np.zeros(round(gap_ms * 8)))
    parts.append(np.zeros(800))
    pcm = DBM0 * np.concatenate(parts)
    if noise_dbm0 is not None:
        pcm += rng.normal(0, DBM0 / np.sqrt(2) * 10 ** (noise_dbm0 / 20), len(pcm))
    return mulaw(pcm)


ALL = dtmf.KEYS


def test_our_own_tones_are_found_each_once() -> None:
    assert found(dtmf.tones(ALL, MULAW_8K)) == ALL
    assert found(dtmf.tones("11w1W#", MULAW_8K)) == "111#"


@pytest.mark.parametrize("seed", range(5))
def test_tones_and_pauses_of_40_ms_are_found_wherever_they_lie(seed: int) -> None:
    assert found(keyed(ALL, seed=seed)) == ALL


@given(st.text(ALL, min_size=1, max_size=12), st.floats(40, 120), st.floats(40, 120), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_any_digits_of_any_lawful_length_are_found(keys: str, tone_ms: float, gap_ms: float, seed: int) -> None:
    assert found(keyed(keys, tone_ms=tone_ms, gap_ms=gap_ms, seed=seed)) == keys


@pytest.mark.parametrize("seed", range(5))
def test_tones_below_23_ms_are_none(seed: int) -> None:
    assert found(keyed(ALL * 2, tone_ms=23, seed=seed)) == ""


def test_a_long_tone_is_one_digit_and_the_same_digit_again_is_another() -> None:
    assert found(keyed("5", tone_ms=3000)) == "5"
    assert found(keyed("5" * 20)) == "5" * 20


def test_digits_without_a_pause_between_them_are_told_apart() -> None:
    assert found(keyed("159D0", tone_ms=60, gap_ms=0)) == "159D0"


@pytest.mark.parametrize("off", [-0.015, 0.015])
def test_frequencies_off_by_1_5_per_cent_pass_in_either_group_and_both(off: float) -> None:
    assert found(keyed(ALL, low_off=off)) == ALL
    assert found(keyed(ALL, high_off=off)) == ALL
    assert found(keyed(ALL, low_off=off, high_off=off, low_dbm0=-10, high_dbm0=-18)) == ALL


@pytest.mark.parametrize("off", [-0.05, -0.035, 0.035, 0.05])
def test_frequencies_off_by_3_5_per_cent_or_more_do_not_pass(off: float) -> None:
    assert found(keyed(ALL, tone_ms=100, low_off=off)) == ""
    assert found(keyed(ALL, tone_ms=100, high_off=off)) == ""


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (-25, -25), (-29, -29), (-10, -6), (-6, -14), (-29, -25), (-21, -29)]
)
def test_levels_and_twist_of_q24_pass(low: float, high: float) -> None:
    assert found(keyed(ALL, low_dbm0=low, high_dbm0=high)) == ALL


@pytest.mark.parametrize(("low", "high"), [(-14, -6), (-5, -17), (-45, -45), (-10, -70), (-70, -10)])
def test_more_twist_a_single_tone_and_crosstalk_do_not_pass(low: float, high: float) -> None:
    assert found(keyed(ALL, tone_ms=100, low_dbm0=low, high_dbm0=high)) == ""


@pytest.mark.parametrize("seed", range(5))
def test_noise_15_db_below_the_tones_hides_no_digit_and_makes_none(seed: int) -> None:
    assert found(keyed(ALL, noise_dbm0=-24, seed=seed)) == ALL
    rng = np.random.default_rng(seed)
    for dbm0 in (-50, -30, -12):
        assert found(mulaw(rng.normal(0, DBM0 / np.sqrt(2) * 10 ** (dbm0 / 20), 80_000))) == ""


@pytest.mark.parametrize("frame", range(3, 10))
def test_a_lost_packet_in_a_long_tone_does_not_make_two_digits(frame: int) -> None:
    for start in range(0, 160, 20):  # lost packets lie anywhere in our frames
        codes = bytearray(keyed("7", tone_ms=240, gap_ms=100))
        at = 160 * frame + start
        codes[at : at + 160] = b"\xff" * 160
        assert found(bytes(codes)) == "7"


def test_a_lost_packet_beyond_two_frames_may_cost_a_digit_but_never_makes_a_wrong_one() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        codes = bytearray(keyed("1379", tone_ms=80, gap_ms=80, seed=seed))
        for _ in range(3):
            at = int(rng.integers(0, len(codes) - 160))
            codes[at : at + 160] = b"\xff" * 160
        assert set(found(bytes(codes))) <= set("1379")


def test_more_round_trips_through_both_laws_change_nothing() -> None:
    codes = keyed(ALL, low_dbm0=-20, high_dbm0=-24)
    for _ in range(4):
        pcm = g711.decode(g711.encode(g711.decode(codes, "mulaw"), "alaw"), "alaw")
        codes = g711.encode(pcm, "mulaw")
    assert found(codes) == ALL


@pytest.mark.parametrize("size", [1, 7, 80, 100, 160, 480, 100_000])
def test_audio_may_come_in_any_pieces(size: int) -> None:
    assert found(keyed("0123", noise_dbm0=-50), size) == "0123"


def test_the_key_is_known_while_it_sounds_and_not_after() -> None:
    detector = DtmfDetector()
    codes = keyed("4", tone_ms=100, gap_ms=100)
    seen = []
    for at in range(0, len(codes), 160):
        detector.feed(codes[at : at + 160])
        seen.append(detector.key)
    assert "".join(seen) in ["4" * n for n in range(4, 8)]
    assert seen[0] == seen[-1] == ""


def test_music_noise_and_the_networks_own_tones_are_no_digits() -> None:
    names: tuple[ToneName, ...] = ("dial", "ringback", "busy", "congestion", "call_waiting", "special_information")
    assert found(hold_music().audio * 2) == ""
    assert found(comfort_noise(-20.0).audio) == ""
    for country in PLANS:
        for name in names:
            assert found(tone(name, country).audio[:24_000]) == "", (country, name)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="asterisk-core-sounds-en-wav is not installed")
def test_in_minutes_of_speech_nobody_keys_anything() -> None:
    """Some nine minutes here; `python bench/conference.py --speech` takes all there is."""
    seconds = 0.0
    for path in sorted(SPEECH.glob("*.wav")):
        with wave.open(str(path)) as file:
            pcm = file.readframes(file.getnframes())
        seconds += len(pcm) / 16_000
        assert found(g711.encode(pcm, "mulaw"), 1600) == "", path.name
        if seconds > 540:
            break
    assert seconds > 300
