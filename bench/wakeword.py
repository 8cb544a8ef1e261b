"""Hits and false accepts of a wake word over thresholds: `python bench/wakeword.py [--wake-word "hey trunkline"]`.

Hits: the phrase as espeak-ng says it, by voices, speeds and pitches that the spotter was not fitted on, in a quiet room
and in white noise. False accepts: recorded speech without the phrase; without file names ten minutes, drawn by a seed,
of asterisk-core-sounds-en-wav, where it is installed (one studio voice, 8 kHz), without the first files of it, which
the spotter was fitted on.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

from trunkline.device.quality import HEAD, measured, render
from trunkline.device.sound import read_wav
from trunkline.device.wakeword import DEFAULT_PHRASE
from trunkline.types import PCM_16K

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
THRESHOLDS = (1e-15, 1e-22, 1e-30)
FITTED_S, JUDGED_S, SEED = 180.0, 600.0, 1


def drawn(files: Sequence[Path]) -> list[Path]:
    """JUDGED_S of them, none of the first FITTED_S."""
    seconds = {path: len(read_wav(path)) / PCM_16K.bytes_per_ms / 1000 for path in files}
    fitted_s, rest = 0.0, list(files)
    while rest and fitted_s < FITTED_S:
        fitted_s += seconds[rest.pop(0)]
    random.Random(SEED).shuffle(rest)
    judged_s, judged = 0.0, []
    while rest and judged_s < JUDGED_S:
        judged.append(rest.pop())
        judged_s += seconds[judged[-1]]
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wake-word", default=DEFAULT_PHRASE)
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    parser.add_argument("files", type=Path, nargs="*")
    given = parser.parse_args()
    files = given.files or drawn(sorted(SOUNDS.rglob("*.wav")))
    print(HEAD, flush=True)
    for threshold in given.thresholds:
        begun_s = time.process_time()
        row = measured(given.wake_word, threshold, files)
        took_s = time.process_time() - begun_s
        print(render([row]), f"  ({60 * row.hours:.1f} min without it; {took_s:.0f} s of CPU)", flush=True)


if __name__ == "__main__":
    main()
