import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.media.framing import Framer
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

FORMATS = [MULAW_8K, ALAW_8K, PCM_8K, PCM_16K]


@given(format=st.sampled_from(FORMATS), sizes=st.lists(st.integers(0, 2000), max_size=12), seed=st.integers(0, 255))
def test_any_chunking_gives_the_same_audio_in_exact_frames(format: Format, sizes: list[int], seed: int) -> None:
    audio = bytes((seed + i) % 251 for i in range(sum(sizes)))
    framer, frames, position = Framer(format), [], 0
    for size in sizes:
        frames += framer.feed(audio[position : position + size])
        position += size
        assert framer.pending_bytes < format.frame_bytes
    last = framer.flush()
    frames += [last] if last is not None else []

    assert all(len(frame) == format.frame_bytes for frame in frames)
    sample = len(format.silence)
    kept = audio[: len(audio) - len(audio) % sample]
    joined = b"".join(frames)
    assert joined[: len(kept)] == kept
    assert joined[len(kept) :] == format.silence * ((len(joined) - len(kept)) // sample)
    assert len(joined) - len(kept) < format.frame_bytes


@pytest.mark.parametrize("format", FORMATS)
def test_flush_of_nothing_is_none_and_a_flushed_framer_begins_anew(format: Format) -> None:
    framer = Framer(format)
    assert framer.flush() is None
    framer.feed(format.silence)
    assert framer.flush() == format.silence * format.frame_samples
    assert framer.flush() is None
    assert framer.feed(bytes(format.frame_bytes)) == [bytes(format.frame_bytes)]
