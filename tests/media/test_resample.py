import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trunkline.media.resample import Resampler

RATES = [(22050, 8000), (24000, 8000), (16000, 8000), (8000, 16000), (48000, 8000), (8000, 8000)]


def sine(rate_hz: int, seconds: float = 0.5, hz: float = 440.0) -> NDArray[np.int16]:
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.round(12000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def samples(data: bytes) -> NDArray[np.int16]:
    return np.frombuffer(data, np.int16)


@given(rates=st.sampled_from(RATES), chunks=st.lists(st.integers(0, 5000), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_chunked_is_the_same_as_whole(rates: tuple[int, int], chunks: list[int]) -> None:
    pcm = sine(rates[0]).tobytes()
    whole_stream, stream = Resampler(*rates), Resampler(*rates)
    whole = whole_stream.feed(pcm) + whole_stream.flush()
    parts, position = b"", 0
    for size in chunks:
        parts += stream.feed(pcm[position : position + size])
        position += size
    parts += stream.feed(pcm[position:]) + stream.flush()
    assert len(parts) == len(whole)
    assert np.abs(samples(parts).astype(int) - samples(whole)).max() <= 1


@pytest.mark.parametrize("rates", RATES)
def test_a_sine_stays_the_sine_in_place_and_level(rates: tuple[int, int]) -> None:
    stream = Resampler(*rates)
    got = samples(stream.feed(sine(rates[0]).tobytes()) + stream.flush()).astype(float)
    want = sine(rates[1]).astype(float)
    assert abs(len(got) - len(want)) <= 1
    middle = slice(len(want) // 10, -len(want) // 10)
    assert np.abs(got[: len(want)][middle] - want[: len(got)][middle]).max() < 12000 * 0.001


@pytest.mark.parametrize(
    ("rates", "lag_ms"),
    [((22050, 8000), 81), ((24000, 8000), 74), ((16000, 8000), 115), ((8000, 16000), 115), ((48000, 8000), 156)],
)
def test_output_lags_input_by_no_more_than_documented(rates: tuple[int, int], lag_ms: float) -> None:
    stream = Resampler(*rates)
    pcm = sine(rates[0]).tobytes()
    step = rates[0] // 50 * 2
    out, worst_ms = 0, 0.0
    for i in range(0, len(pcm) - step, step):
        out += len(stream.feed(pcm[i : i + step])) // 2
        worst_ms = max(worst_ms, (i + step) / 2 / rates[0] * 1000 - out / rates[1] * 1000)
    assert worst_ms < lag_ms


def test_full_scale_does_not_wrap_around() -> None:
    square = np.where(np.arange(8000) // 20 % 2 == 0, 32767, -32768).astype(np.int16)
    stream = Resampler(16000, 8000)
    got = samples(stream.feed(square.tobytes()) + stream.flush()).astype(int)
    for half_wave in range(1, 390):
        middle = got[half_wave * 10 + 3 : half_wave * 10 + 8]
        assert (middle > 20000 if half_wave % 2 == 0 else middle < -20000).all()


def test_a_flushed_stream_begins_anew() -> None:
    stream = Resampler(16000, 8000)
    first = stream.feed(sine(16000).tobytes() + b"\x01") + stream.flush()
    assert stream.feed(sine(16000).tobytes()) + stream.flush() == first
