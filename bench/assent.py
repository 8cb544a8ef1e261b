"""How well a spoken yes and no to the gateway's own question are heard: `python bench/assent.py [--misses]`.

Each answer is the first thing its caller says, so the ears do not know the line yet. Speech is espeak-ng's, in voices
and speeds of the answer's language, through mu-law at 8 kHz with the line noise of bench/recognition.py. What is no
answer: sentences of the same language, murmurs and noises. What may not be: a yes where a no or neither was said.
"""

import argparse
import random
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from recognition import MURMURS, Clip, noisy, on_the_line, spoken

from trunkline.agents.assent import answer_of, doubtful, listens
from trunkline.agents.local import voice
from trunkline.agents.local.ears import Ears
from trunkline.media import g711

SAID = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def voices(language: str, seed: int) -> list[voice.VoiceOptions]:
    """Each voice at one speed, at another one with the next seed."""
    names, speeds = SAID[language]["voices"], SAID[language]["wpm"]
    return [voice.VoiceOptions(name, speeds[(at + seed) % len(speeds)]) for at, name in enumerate(names)]


def hear(ears: Ears, key: str, clip: Clip, seed: int) -> tuple[str, bool, float]:
    rng = np.random.default_rng(seed)
    audio = on_the_line(clip, 10 ** (rng.uniform(-12, 3) / 20), 10 ** rng.uniform(0.5, 1.7), rng)
    utterance = ears.begin(key)
    utterance.feed(g711.decode(audio, "mulaw"))
    heard, understood, _ = utterance.finish()
    return heard.text, understood, heard.score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=SAID, action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--misses", action="store_true", help="list what was not heard as it was meant")
    arguments = parser.parse_args()
    ears = Ears()
    for language in SAID:  # all in one process, as the gateway has them: a word of two languages has the sounds of both
        ears.preload(listens(language))
    for language in arguments.language or SAID:
        counts: dict[str, Counter[str]] = {}
        for seed in arguments.seeds:
            for options in voices(language, seed):
                for name, clips in sets(language, options, seed):
                    for at, clip in enumerate(clips):
                        verdict, told = tried(ears, language, name, clip, 1000 * seed + at)
                        counts.setdefault(name, Counter())[verdict] += 1
                        if arguments.misses and verdict != "right":
                            print(f"{options.name} {options.words_per_minute}: {clip.text!r} -> {told}, {verdict}")
        for name, count in counts.items():
            print(f"{language} {name}: {dict(count)} of {count.total()}", flush=True)


def sets(language: str, options: voice.VoiceOptions, seed: int) -> Iterator[tuple[str, list[Clip]]]:
    for name in ("yes", "no", "other"):
        yield name, spoken(SAID[language][name], options)
    yield "murmurs, noises", spoken(MURMURS, options) + noisy(random.Random(seed))


def tried(ears: Ears, language: str, meant: str, clip: Clip, seed: int) -> tuple[str, str]:
    text, understood, score = hear(ears, f"{listens(language).fields['agent']}/main", clip, seed)
    got = answer_of(text, language) if understood and not doubtful(text, score, language) else None
    told = f"{text!r} {score:.1f}"
    if got is None:
        return ("not understood" if meant in ("yes", "no") else "right"), told
    return ("right" if got == meant else f"taken for {got}"), told


if __name__ == "__main__":
    main()
