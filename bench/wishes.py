"""How well the ears hear wishes: `python bench/wishes.py [--seeds 300 301]`. A process each, 2-4 minutes.

The speech, the line and the calls are bench/recognition.py's. Inside: what the grammar of wishes can say, in two
voices. Outside: recorded sentences, spoken ones, the near misses of the tests and noises. A wish is counted where
the ears understand, the score is the floor at least, and the words are a wish's. Several floors for all are shown, and
last what is in force (grammar.fits: one for short wishes, one for longer ones).
"""

import argparse
import multiprocessing
import random
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from recognition import CLINIC, ELSEWHERE, SPEEDS_WPM, SPOKEN_BY, Clip, Trial, call, noisy, recorded, spoken

from trunkline.agents.local import voice
from trunkline.agents.local.ears import Ears
from trunkline.agents.script.grammar import Grammar
from trunkline.agents.script.phrases import expansions
from trunkline.agents.wishes.grammar import MIN_SCORE, SHORT_MIN_SCORE, WISHES, fits, meanings
from trunkline.agents.wishes.phrases import wish_of

NEAR = Path(__file__).parents[1] / "tests" / "agents" / "wishes" / "utterances.toml"
PER_CALL = 10
SAID = 24  # by each of two voices
RECORDED, RECORDED_S = 80, 5  # what is longer takes its time and is never near
SPOKEN, NEAR_MISSES = 24, 40
FLOORS = (-20.0, -17.0, -16.0, -15.0, -14.0, -13.0)


def clips(seed: int) -> dict[str, list[Clip]]:
    rng = random.Random(seed)
    by = [voice.VoiceOptions(name, rng.choice(SPEEDS_WPM)) for name in rng.sample(SPOKEN_BY, 2)]
    said = [" ".join(w) for _, nodes in meanings() for node in nodes for w, _ in expansions(node, {}, 60)]
    near = tomllib.loads(NEAR.read_text(encoding="utf-8"))["en"]["none"].strip().splitlines()
    known = [clip for clip in recorded() if len(clip.pcm) < RECORDED_S * 8000]
    return {
        "wishes": [clip for options in by for clip in spoken(rng.sample(said, SAID), options)],
        "recorded": rng.sample(known, min(RECORDED, len(known))),
        "spoken": spoken(rng.sample([*ELSEWHERE, *CLINIC], SPOKEN), by[0]),
        "near misses": spoken(rng.sample(near, NEAR_MISSES), by[1]),
        "noises": noisy(rng),
    }


def trials(seed: int) -> list[tuple[str, Trial]]:
    ears = Ears()
    ears.add({WISHES: Grammar(WISHES, meanings()).jsgf})
    drawn = [(name, clip) for name, some in clips(seed).items() for clip in some]
    random.Random(seed).shuffle(drawn)
    return list(heard(ears, drawn, seed))


def heard(ears: Ears, drawn: list[tuple[str, Clip]], seed: int) -> Iterator[tuple[str, Trial]]:
    for at in range(0, len(drawn), PER_CALL):
        some = drawn[at : at + PER_CALL]
        found = call(ears, WISHES, [(clip, name == "wishes") for name, clip in some], 1000 * seed + at)
        yield from zip((name for name, _ in some), found, strict=True)


def wished(trial: Trial, floor: float | None = None) -> bool:
    """`floor`: another than those in force."""
    text, score = trial.heard.text, trial.heard.score
    enough = fits(text, score) if floor is None else score >= floor
    return trial.understood and enough and wish_of(text) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[300, 301], help="draws (floors were tuned on 100-101)")
    parser.add_argument("--misses", action="store_true", help="list what was not heard as it was meant")
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(min(2, len(arguments.seeds))) as pool:
        found = [each for some in pool.imap(trials, arguments.seeds) for each in some]
    names = dict.fromkeys(name for name, _ in found)
    for floor in (*FLOORS, None):
        row = []
        for name in sorted(names, key=lambda name: name != "wishes"):
            some = [trial for each, trial in found if each == name]
            row.append(f"{name} {sum(wished(trial, floor) for trial in some)}/{len(some)}")
        told = f"score >= {floor}" if floor is not None else f"in force, {MIN_SCORE} and {SHORT_MIN_SCORE}"
        print(f"{told}:", "  ".join(row))
    busy, audio = sum(t.busy_s for _, t in found), sum(t.audio_s for _, t in found)
    print(f"CPU: {100 * busy / audio:.1f} % of a core while somebody speaks")
    for name, trial in found if arguments.misses else ():
        if wished(trial) != trial.inside:
            print(f"{name}: {trial.text!r} -> {trial.heard.text!r} {trial.heard.score:.1f}")


if __name__ == "__main__":
    main()
