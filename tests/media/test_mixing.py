import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trunkline.media import g711
from trunkline.media.mixing import mix
from trunkline.media.sources import FRAME, SILENT_FRAME


@given(st.lists(st.binary(min_size=FRAME, max_size=FRAME), min_size=2, max_size=8))
def test_a_mix_is_the_saturated_sum_of_the_decoded(says: list[bytes]) -> None:
    everyone = tuple(range(len(says)))
    groups = [everyone, everyone[1:]] if len(says) > 2 else [everyone]
    mixed = mix(says, groups)
    for group in groups:
        total = sum(g711.MULAW_I16[list(says[i])].astype(int) for i in group)
        wanted = np.clip(total, -32768, 32767).astype(np.int16)
        assert mixed[group] == g711.encode(wanted.tobytes(), "mulaw")


def test_nothing_wanted_is_nothing_done_and_who_is_silent_adds_nothing() -> None:
    assert mix([b"", None], []) == {}
    voice = bytes(range(160))
    heard = g711.MULAW_I16[list(mix([voice, None], [(0, 1)])[0, 1])]
    assert np.array_equal(heard, g711.MULAW_I16[list(voice)])
    assert mix([None, SILENT_FRAME], [(0, 1)]) == {(0, 1): SILENT_FRAME}
