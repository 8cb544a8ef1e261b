"""The reference is built here from G.711 itself: Table 1 (A-law) and Table 2 (mu-law), segment by segment."""

from bisect import bisect_right
from functools import cache
from typing import get_args

import numpy as np
import pytest

from trunkline.media import g711
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

ALL_SAMPLES = np.arange(-32768, 32768, dtype=np.int16)


@cache
def mulaw_intervals() -> tuple[list[int], list[int]]:
    """Table 2: decision values and the values decoded, for positive 14-bit samples."""
    decisions, values = [0], [0]
    start = 1
    for segment in range(8):
        step = 2 << segment
        for _ in range(15 if segment == 0 else 16):  # the first interval of segment 1 is the odd one, 0 to 1
            decisions.append(start)
            values.append(start + step // 2)
            start += step
    return decisions, values


@cache
def alaw_intervals() -> tuple[list[int], list[int]]:
    """Table 1: the same for positive 13-bit samples."""
    decisions, values = [], []
    start = 0
    for segment in range(8):
        step = 2 if segment < 2 else 1 << segment
        for _ in range(16):
            decisions.append(start)
            values.append(start + step // 2)
            start += step
    return decisions, values


def reference_encode(law: str, sample: int) -> int:
    if law == "mulaw":
        value = sample >> 2
        magnitude, sign = abs(value), 0x80 if value >= 0 else 0x00
        interval = bisect_right(mulaw_intervals()[0], magnitude) - 1
        return sign | (~interval & 0x7F)  # Table 2, note 2: all bits but the sign's are inverted
    value = sample >> 3
    magnitude, sign = (value, 0x80) if value >= 0 else (-value - 1, 0x00)
    interval = bisect_right(alaw_intervals()[0], magnitude) - 1
    return (sign | interval) ^ 0x55  # Table 1, note 2: even bits are inverted


def reference_decode(law: str, code: int) -> int:
    if law == "mulaw":
        magnitude = mulaw_intervals()[1][~code & 0x7F] * 4
    else:
        code ^= 0x55
        magnitude = alaw_intervals()[1][code & 0x7F] * 8
    return magnitude if code & 0x80 else -magnitude


@pytest.mark.parametrize("law", get_args(g711.Law))
def test_every_code_decodes_as_the_tables_say(law: g711.Law) -> None:
    expected = [reference_decode(law, code) for code in range(256)]
    assert np.frombuffer(g711.decode(bytes(range(256)), law), np.int16).tolist() == expected


@pytest.mark.parametrize("law", get_args(g711.Law))
def test_every_sample_encodes_as_the_tables_say(law: g711.Law) -> None:
    expected = bytes(reference_encode(law, int(sample)) for sample in ALL_SAMPLES)
    assert g711.encode(ALL_SAMPLES.tobytes(), law) == expected


def test_landmarks_of_the_standard() -> None:
    assert g711.encode(np.array([0], np.int16).tobytes(), "mulaw") == MULAW_8K.silence
    assert g711.encode(np.array([0], np.int16).tobytes(), "alaw") == ALAW_8K.silence
    assert (int(g711.MULAW_I16.max()), int(g711.MULAW_I16.min())) == (32124, -32124)
    assert (int(g711.ALAW_I16.max()), int(g711.ALAW_I16.min())) == (32256, -32256)


@pytest.mark.parametrize("law", get_args(g711.Law))
def test_a_code_survives_decoding_and_encoding(law: g711.Law) -> None:
    codes = bytes(range(256))
    again = g711.encode(g711.decode(codes, law), law)
    assert again == (codes if law == "alaw" else codes.replace(b"\x7f", b"\xff"))  # mu-law has two zeros


def test_float_tables_are_the_decoded_samples_in_unit_range() -> None:
    assert np.array_equal(g711.MULAW_F32 * 32768, g711.MULAW_I16)
    assert np.array_equal(g711.ALAW_F32 * 32768, g711.ALAW_I16)
    assert g711.MULAW_F32.dtype == g711.ALAW_F32.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        g711.MULAW_F32[0] = 0.0


@pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in (MULAW_8K, ALAW_8K, PCM_8K) for b in (MULAW_8K, ALAW_8K)]
)
def test_transcode_is_decode_then_encode(source: Format, target: Format) -> None:
    pcm = ALL_SAMPLES.tobytes()
    data = pcm if source.encoding == "pcm16" else g711.encode(pcm, source.encoding)
    through = data if source.encoding == "pcm16" else g711.decode(data, source.encoding)
    expected = data if source == target else g711.encode(through, target.encoding)  # type: ignore[arg-type]
    assert g711.transcode(data, source, target) == expected
    assert g711.transcode(data, source, PCM_8K) == through


def test_transcode_refuses_another_rate() -> None:
    with pytest.raises(ValueError, match="Resampler"):
        g711.transcode(b"", MULAW_8K, PCM_16K)
