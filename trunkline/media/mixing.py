"""Voices added up, for all who hear them at once."""

from collections.abc import Iterable, Sequence

import numpy as np

from trunkline.media import g711
from trunkline.media.sources import FRAME, SILENT_FRAME


def mix(says: Sequence[bytes | None], wanted: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], bytes]:
    """For each group of speakers the sum of their frames, cut off at full scale."""
    groups = list(wanted)
    if not groups:
        return {}
    speakers = sorted({i for group in groups for i in group})
    row = {speaker: n for n, speaker in enumerate(speakers)}
    codes = b"".join([says[i] or SILENT_FRAME for i in speakers])
    pcm = np.frombuffer(g711.decode(codes, "mulaw"), np.int16).reshape(-1, FRAME).astype(np.float32)
    weights = np.zeros((len(groups), len(speakers)), np.float32)
    for n, group in enumerate(groups):
        for speaker in group:
            weights[n, row[speaker]] = 1.0
    total = weights @ pcm
    np.minimum(np.maximum(total, -32768, out=total), 32767, out=total)
    out = g711.encode(total.astype(np.int16).tobytes(), "mulaw")
    return {group: out[n * FRAME : (n + 1) * FRAME] for n, group in enumerate(groups)}
