import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.sources import FRAME, SILENT_FRAME, Loop
from trunkline.media.tones import PLANS, ToneName, TonePlan, plan, tone

NAMES: tuple[ToneName, ...] = ("dial", "ringback", "busy", "congestion", "call_waiting", "special_information")


def pcm(loop: Loop) -> NDArray[np.float64]:
    return g711.MULAW_I16.take(np.frombuffer(loop.audio, np.uint8)).astype(np.float64)


def cadence(loop: Loop) -> list[int]:
    """On, off, on... in ms, by 5 ms steps, round to the seam of its loop."""
    loud = np.sqrt(np.mean(pcm(loop).reshape(-1, 40) ** 2, axis=1)) > 300
    edges = np.flatnonzero(np.diff(loud)) + 1
    return [int(ms) for ms in np.diff(np.concatenate(([0], edges, [len(loud)]))) * 5]


def frequencies(audio: NDArray[np.float64]) -> list[int]:
    """The peaks within 10 dB of the strongest."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    inner = spectrum[1:-1]
    peaks = np.flatnonzero((inner > spectrum[:-2]) & (inner >= spectrum[2:]) & (inner > spectrum.max() / 3)) + 1
    return [round(float(p) * 8000 / len(audio)) for p in peaks]


def near(found: list[int], wanted: list[int], within: int) -> bool:
    return len(found) == len(wanted) and all(abs(f - w) <= within for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("country", "name", "hz", "on_off"),
    [
        ("US", "ringback", [440, 480], [2000, 4000]),
        ("US", "busy", [480, 620], [500, 500]),
        ("US", "congestion", [480, 620], [250, 250]),
        ("GB", "ringback", [400, 450], [400, 200, 400, 2000]),
        ("GB", "busy", [400], [375, 375, 375, 375]),
        ("GB", "congestion", [400], [400, 350, 225, 525]),
        ("DE", "ringback", [425], [1000, 4000]),
        ("DE", "busy", [425], [480, 480]),
        ("DE", "congestion", [425], [240, 240]),
        ("DE", "call_waiting", [425], [200, 200, 200, 5000]),
        ("FR", "ringback", [440], [1500, 3500]),
        ("FR", "busy", [440], [500, 500]),
        ("FR", "call_waiting", [440], [300, 10_000]),
    ],
)
def test_a_countrys_tone_has_its_frequencies_and_its_rhythm(
    country: str, name: ToneName, hz: list[int], on_off: list[int]
) -> None:
    loop = tone(name, country)
    assert near(cadence(loop), on_off, 5)
    assert near(frequencies(pcm(loop)[: on_off[0] * 8]), hz, 8)


def test_the_special_information_tone_rises_in_three_steps() -> None:
    audio = pcm(tone("special_information", "DE"))
    for step, hz in enumerate((950, 1400, 1800)):
        assert near(frequencies(audio[step * 2640 + 80 : (step + 1) * 2640 - 80]), [hz], 5)
    assert np.abs(audio[3 * 2640 : 3 * 2640 + 8000]).max() == 0


@pytest.mark.parametrize("country", sorted(PLANS))
def test_every_tone_of_every_country_is_whole_frames_at_the_level_of_e180(country: str) -> None:
    for name in NAMES:
        loop = tone(name, country)
        assert len(loop.audio) % FRAME == 0
        audio = pcm(loop)
        sounding = audio[np.convolve(np.abs(audio), np.ones(81), "same") > 81 * 200]
        dbm0 = 20 * np.log10(np.sqrt(np.mean(sounding**2)) * np.sqrt(2) / 32124) + 3.17
        assert -15 <= dbm0 <= -5, (name, dbm0)


def test_a_dial_tone_has_no_seam_in_its_loop() -> None:
    audio = pcm(tone("dial", "US"))
    twice = np.concatenate((audio, audio))
    assert np.abs(np.diff(twice)).max() <= np.abs(np.diff(audio)).max()


def test_a_country_we_do_not_know_has_what_e180_advises_and_uk_is_gb() -> None:
    assert plan("UK") == plan("gb") == PLANS["GB"]
    assert plan(None) == plan("ZZ")
    assert isinstance(plan("ZZ"), TonePlan)
    assert near(cadence(tone("ringback", "ZZ")), [1000, 4000], 5)


def test_a_tone_is_made_once_and_ends_in_silence_where_it_pauses() -> None:
    assert tone("busy", "US") is tone("busy", "CA")
    assert tone("ringback", "US").play(from_ms=3000).frame() == SILENT_FRAME
