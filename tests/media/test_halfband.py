import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.media.halfband import DELAY_SAMPLES, Doubler, Halver


def tone(hz: float, rate_hz: int, seconds: float = 1.0) -> NDArray[np.float64]:
    return 10_000 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)


def pcm(samples: NDArray[np.float64]) -> bytes:
    return np.rint(samples).astype(np.int16).tobytes()


def level_db(audio: bytes) -> float:
    """Against the tone's."""
    samples = np.frombuffer(audio, np.int16)[200:].astype(float)
    return float(20 * np.log10(max(np.sqrt((samples**2).mean()), 1e-3) / (10_000 / np.sqrt(2))))


@pytest.mark.parametrize("hz", [100, 1000, 3000, 3500])
def test_what_a_telephone_carries_passes_both_ways(hz: int) -> None:
    assert level_db(Halver().feed(pcm(tone(hz, 16_000)))) == pytest.approx(0, abs=0.1)
    assert level_db(Doubler().feed(pcm(tone(hz, 8000)))) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("hz", [4500, 5000, 7000])
def test_what_would_come_back_as_another_tone_does_not(hz: int) -> None:
    assert level_db(Halver().feed(pcm(tone(hz, 16_000)))) < -60


def test_no_image_of_the_voice_lies_above_it() -> None:
    doubled = np.frombuffer(Doubler().feed(pcm(tone(1000, 8000))), np.int16)[400:]
    spectrum = np.abs(np.fft.rfft(doubled * np.hanning(len(doubled))))
    assert 20 * np.log10(spectrum[len(spectrum) // 2 :].max() / spectrum.max()) < -60


def test_it_is_two_milliseconds_late() -> None:
    click = np.zeros(640)
    click[320] = 10_000
    assert np.frombuffer(Doubler().feed(pcm(click[::2])), np.int16).argmax() == 320 + DELAY_SAMPLES
    burst = tone(500, 16_000, 0.04)
    halved = np.frombuffer(Halver().feed(pcm(np.concatenate((np.zeros(320), burst)))), np.int16)
    late = np.concatenate((np.zeros(320 + DELAY_SAMPLES), burst))[::2][: len(halved)]
    assert np.abs(halved[180:460] - late[180:460]).max() < 100


@pytest.mark.parametrize("size", [2, 20, 320, 330])
def test_cuts_make_no_difference(size: int) -> None:
    noise = pcm(np.random.default_rng(1).normal(0, 8000, 1320).clip(-32768, 32767))
    for make in (Halver, Doubler):
        whole, cut = make().feed(noise), make()
        assert b"".join(cut.feed(noise[at : at + 2 * size]) for at in range(0, len(noise), 2 * size)) == whole


def test_the_loudest_is_clipped_and_not_wrapped() -> None:
    loud = np.where(np.arange(1600) % 16 < 8, 32767, -32768).astype(np.int16).tobytes()
    for make in (Halver, Doubler):
        out = np.frombuffer(make().feed(loud), np.int16).astype(int)
        assert np.abs(np.diff(out)).max() < 60_000 or out.max() == 32767
        assert (out[100:].max(), out[100:].min()) == (32767, -32768)
