"""How well the second ears hear wishes: `python bench/wishes.py [--seeds N]`. In one process, one core.

The speech, the line and the calls are bench/recognition.py's. Inside: what the grammar of wishes can say; outside: the
recorded and spoken sentences of that bench, the near misses of the tests, and noises. A wish is counted where the ears
understand, the score is MIN_SCORE at least, and the words are one.
"""

import argparse
import random
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from recognition import CLINIC, ELSEWHERE, SPEEDS_WPM, SPOKEN_BY, Clip, Trial, call, noisy, recorded, spoken

from trunkline.agents.local import voice
from trunkline.agents.local.ears import Ears
from trunkline.agents.script.grammar import Grammar
from trunkline.agents.script.phrases import expansions
from trunkline.agents.wishes.grammar import MIN_SCORE, WISHES, meanings
from trunkline.agents.wishes.phrases import wish_of

NEAR = Path(__file__).parents[1] / "tests" / "agents" / "wishes" / "utterances.toml"
PER_CALL = 10
SAID = 40


def trials(inside: list[Clip], outside: list[Clip], seed: int) -> list[Trial]:
    ears = Ears()
    ears.add({WISHES: Grammar(WISHES, meanings()).jsgf})
    clips = [(clip, True) for clip in inside] + [(clip, False) for clip in outside]
    random.Random(seed).shuffle(clips)
    calls = [clips[at : at + PER_CALL] for at in range(0, len(clips), PER_CALL)]
    return [trial for at, some in enumerate(calls) for trial in call(ears, WISHES, some, 1000 * seed + at)]


def wished(trial: Trial, floor: float) -> bool:
    return trial.understood and trial.heard.score >= floor and wish_of(trial.heard.text) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--misses", action="store_true")
    arguments = parser.parse_args()
    near = tomllib.loads(NEAR.read_text(encoding="utf-8"))["en"]["none"].strip().splitlines()
    found: dict[str, list[Trial]] = {}
    for seed in range(100, 100 + arguments.seeds):
        rng = random.Random(seed)
        options = voice.VoiceOptions(rng.choice(SPOKEN_BY), rng.choice(SPEEDS_WPM))
        said = [" ".join(w) for _, nodes in meanings() for node in nodes for w, _ in expansions(node, {}, 60)]
        inside = spoken(rng.sample(said, SAID), options)
        clips = recorded()
        outside = {
            "recorded": rng.sample(clips, min(100, len(clips))),
            "elsewhere": spoken([*ELSEWHERE, *CLINIC], options),
            "near misses": spoken(near, options),
            "noises": noisy(rng),
        }
        first = next(iter(outside))
        for name, some in outside.items():
            done = trials(inside if name == first else [], some, seed)
            found.setdefault("wishes", []).extend(t for t in done if t.inside)
            found.setdefault(name, []).extend(t for t in done if not t.inside)
    for floor in (-20.0, -14.0, MIN_SCORE, -12.0, -11.0):
        row = {name: f"{sum(wished(t, floor) for t in some)}/{len(some)}" for name, some in found.items()}
        print(f"score >= {floor}:", "  ".join(f"{name} {count}" for name, count in row.items()))
    busy = [t for some in found.values() for t in some]
    print(
        f"CPU: {100 * sum(t.busy_s for t in busy) / sum(t.audio_s for t in busy):.1f} % of a core while somebody speaks"
    )
    if arguments.misses:
        for name, some in found.items():
            for t in some:
                if wished(t, MIN_SCORE) != t.inside:
                    print(f"{name}: {t.text!r} -> {t.heard.text!r} {t.heard.score:.1f}")


if __name__ == "__main__":
    main()
