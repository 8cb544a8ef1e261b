"""Hits and false accepts of a wake word over thresholds: `python bench/wakeword.py [--wake-word "hey trunkline"]`.

Hits: the phrase as espeak-ng says it, of several voices, speeds and pitches, alone in a quiet room and in noise at so
many dB below the voice. False accepts: recorded speech without the phrase, any WAV files; without names those of
asterisk-core-sounds-en-wav, where they are installed (one studio voice, telephone bandwidth, 26 minutes).
"""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from trunkline.device.quality import Row, false_accepts, hits, render, spoken
from trunkline.device.wakeword import DEFAULT_PHRASE

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
THRESHOLDS = (1e-10, 1e-20, 1e-30, 1e-40, 1e-50, 1e-60)
VOICES = ("en-us", "en-gb", "en-us+f2", "en-us+f4", "en-us+m3", "en-us+m7")
SPEEDS_WPM, PITCHES = (140, 165, 190), (40, 60)
SNRS_DB = (None, 20.0, 10.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wake-word", default=DEFAULT_PHRASE)
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    parser.add_argument("files", type=Path, nargs="*")
    given = parser.parse_args(arguments)
    files: Iterable[Path] = given.files or sorted(SOUNDS.rglob("*.wav"))
    said = [
        spoken(given.wake_word, *how, snr_db=snr_db)
        for snr_db in SNRS_DB
        for how in itertools.product(VOICES, SPEEDS_WPM, PITCHES)
    ]
    rows = []
    for threshold in given.thresholds:
        accepted, hours = false_accepts(given.wake_word, threshold, files)
        found = [hits(given.wake_word, threshold, said[at :: 1][:36]) for at in range(0, len(said), 36)]
        rows.append(Row(threshold, tuple(found), 36, accepted, hours))
        print(render(rows[-1:], SNRS_DB), flush=True)


if __name__ == "__main__":
    main()
