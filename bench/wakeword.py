"""Hits and false accepts of a wake word over thresholds: `python bench/wakeword.py [--wake-word "hey trunkline"]`.

Hits: the phrase as espeak-ng says it, six voices, three speeds, two pitches, in a quiet room and in noise.
False accepts: recorded speech without the phrase; without file names that of asterisk-core-sounds-en-wav, where it is
installed (one studio voice, 8 kHz).
"""

import argparse
from pathlib import Path

from trunkline.device.quality import HEAD, measured, render
from trunkline.device.wakeword import DEFAULT_PHRASE

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
THRESHOLDS = (1e-20, 1e-30, 1e-40, 1e-50, 1e-60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wake-word", default=DEFAULT_PHRASE)
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    parser.add_argument("files", type=Path, nargs="*")
    given = parser.parse_args()
    files = given.files or sorted(SOUNDS.rglob("*.wav"))
    print(HEAD, flush=True)
    for threshold in given.thresholds:
        row = measured(given.wake_word, threshold, files)
        print(render([row]), f"  ({row.hours:.2f} h)", flush=True)


if __name__ == "__main__":
    main()
