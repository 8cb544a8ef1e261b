"""How well the embedded ears hear: `python bench/recognition.py [--seeds N] [--json]`. In one process, one core.

Recorded speech is the corpus of Debian's asterisk-core-sounds-en-wav (one studio voice, 8 kHz) with its texts; spoken
sentences are espeak-ng's, in several voices and speeds. All of it goes through mu-law in 20 ms frames at a level and
with line noise drawn per call, with 300 ms of line before and 200 ms after. A call is ten utterances: its first finds
ears that do not know its line. Every phrase outside the grammar is another text than all those inside.
"""

import argparse
import gzip
import json
import random
import re
import sys
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from trunkline.agents.local import voice
from trunkline.agents.local.ears import Ears, Heard, Line, pronunciations
from trunkline.agents.script.phrases import jsgf
from trunkline.agents.wishes.grammar import meanings
from trunkline.media import g711
from trunkline.testing import noises

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
PER_CALL = 10
PRE_ROLL_MS, POST_ROLL_MS = 300, 200
FRAME_BYTES = 160
SPOKEN_BY = ("en-us", "en-gb", "en-us+f3", "en-us+m3", "en-gb+f2")
SPEEDS_WPM = (140, 165, 190)

CLINIC = """what are your opening hours|when are you open|when do you close|are you open on monday|are you open today
confirm my appointment|i'd like to confirm my appointment|i'm calling to confirm my appointment|where is the clinic
what is your address|how do i get there|can i speak to a person|i want to talk to somebody|a real person please
put me through to reception|say that again please|please repeat that|goodbye|thank you goodbye|that's all thank you
cancel my appointment|i need a prescription|do i need to bring anything""".replace("\n", "|").split("|")
ELSEWHERE = """i would like two large pizzas|my car won't start this morning|what's the weather like tomorrow
could you tell me a joke|the train leaves from platform nine|he never told his mother|i lost my credit card yesterday
how much does a ticket to boston cost|please turn the music down|we are going to the beach on sunday
my internet is not working again|i want to open a bank account|is this the fire department|who won the game last night
can you send somebody to fix the sink|the dog ate my homework|i have a question about my bill
did you receive my letter|my flight was delayed by two hours|there is water all over the kitchen floor
i bought these shoes last week|why is it so expensive|let me think about it""".replace("\n", "|").split("|")
NOISES = (noises.cough, noises.throat, noises.hum, noises.burst, noises.door, noises.keyboard)
MURMURS = ("hmm", "mm hmm", "uh huh", "uh", "um", "ah", "oh", "mhm", "shh", "ha")


@dataclass(frozen=True)
class Clip:
    text: str
    pcm: NDArray[np.int16]


@dataclass
class Trial:
    """One utterance. `inside`: its text is a phrase of the grammar."""

    text: str
    inside: bool
    first: bool
    heard: Heard
    understood: bool
    partials: int
    audio_s: float
    busy_s: float
    finish_ms: float

    @property
    def right(self) -> bool:
        return (self.understood and self.heard.text == self.text) if self.inside else not self.understood


def recorded() -> list[Clip]:
    clips: dict[str, Clip] = {}
    with gzip.open(TEXTS, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, text = line.strip().partition(":")
            file = SOUNDS / f"{name}.wav"
            if line.startswith(";") or re.search(r"[\[(\d]", text) or not file.is_file():
                continue
            words = [w.strip("'") for w in re.sub(r"[^a-z' ]+", " ", text.lower()).split()]
            if words and " ".join(words) not in clips:
                with wave.open(str(file)) as sound:
                    pcm = np.frombuffer(sound.readframes(sound.getnframes()), dtype=np.int16)
                clips[" ".join(words)] = Clip(" ".join(words), pcm)
    known = pronunciations({word for text in clips for word in text.split()})
    return [clip for clip in clips.values() if all(word in known for word in clip.text.split())]


def spoken(texts: Sequence[str], options: voice.VoiceOptions) -> list[Clip]:
    engine = voice.engine()
    clips = []
    for text in texts:
        samples = engine.speak(text, options).samples.astype(np.float32)
        pcm = soxr.resample(samples, engine.rate_hz, 8000) * voice.gain(options, 8000) * 0.7
        clips.append(Clip(text, np.clip(pcm, -32768, 32767).astype(np.int16)))
    return clips


def noisy(rng: random.Random) -> list[Clip]:
    draws = [(noise, rng.randrange(10_000)) for noise in NOISES for _ in range(4)]
    return [Clip(f"({noise.__name__})", (noise(seed) * 32767).astype(np.int16)) for noise, seed in draws]


def grammar(texts: Sequence[str]) -> str:
    return f"#JSGF V1.0;\ngrammar main;\npublic <main> = {' | '.join(texts)};\n"


def on_the_line(clip: Clip, gain: float, noise: float, rng: np.random.Generator) -> bytes:
    loud = np.flatnonzero(np.abs(clip.pcm.astype(np.int32)) > 300)
    pcm = clip.pcm[max(0, loud[0] - 400) : loud[-1] + 800] if len(loud) else clip.pcm
    line = np.concatenate([np.zeros(PRE_ROLL_MS * 8), pcm * gain, np.zeros(POST_ROLL_MS * 8)])
    line += rng.normal(0, noise, len(line))
    return g711.encode(np.clip(line, -32768, 32767).astype("<i2").tobytes(), "mulaw")


def call(ears: Ears, key: str, clips: Sequence[tuple[Clip, bool]], seed: int) -> Iterator[Trial]:
    rng = np.random.default_rng(seed)
    gain = 10 ** (rng.uniform(-12, 3) / 20)
    noise = 10 ** rng.uniform(0.5, 1.7)  # -80 to -56 dBFS
    line: Line | None = None
    for at, (clip, inside) in enumerate(clips):
        audio = on_the_line(clip, gain, noise, rng)
        started = time.process_time()
        utterance = ears.begin(key, line)
        partials = 0
        for start in range(0, len(audio), FRAME_BYTES):
            partial = utterance.feed(g711.decode(audio[start : start + FRAME_BYTES], "mulaw"))
            partials += partial is not None and partial.likely and " " in partial.text
        ended = time.process_time()
        heard, understood, line = utterance.finish()
        now = time.process_time()
        yield Trial(
            clip.text,
            inside,
            at == 0,
            heard,
            understood,
            partials,
            len(audio) / 8000,
            now - started,
            1e3 * (now - ended),
        )


def run(inside: Sequence[Clip], outside: Sequence[Clip], seed: int, wishes: bool = False) -> list[Trial]:
    ears = Ears()
    texts = [clip.text for clip in inside]
    ears.add({"main": grammar(texts + [jsgf(node) for _, nodes in meanings() for node in nodes] * wishes)})
    clips = [(clip, True) for clip in inside] + [(clip, False) for clip in outside]
    random.Random(seed).shuffle(clips)
    calls = [clips[at : at + PER_CALL] for at in range(0, len(clips), PER_CALL)]
    return [trial for at, some in enumerate(calls) for trial in call(ears, "main", some, 1000 * seed + at)]


def sets(seed: int) -> Iterator[tuple[str, list[Clip], list[Clip]]]:
    rng = random.Random(seed)
    clips = recorded() if TEXTS.exists() else []
    if clips:
        some = [clip for clip in clips if 2 <= len(clip.text.split()) <= 8]
        more = [clip for clip in clips if 9 <= len(clip.text.split()) <= 18 and len(clip.pcm) < 8 * 8000]
        rng.shuffle(some)
        yield "recorded, 60 phrases", some[:60], some[60:120] + rng.sample(more, 15)
        rng.shuffle(some)
        yield "recorded, 12 phrases", some[:12], some[12:60]
    for name in rng.sample(SPOKEN_BY, 2):
        options = voice.VoiceOptions(name, rng.choice(SPEEDS_WPM))
        yield "espeak, clinic", spoken(CLINIC, options), spoken(ELSEWHERE, options)
        yield "espeak, murmurs", spoken(CLINIC[:5], options), spoken(MURMURS, options)
        yield "espeak, clinic, and noises", spoken(CLINIC, options), noisy(rng)


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    inside = [t for t in trials if t.inside]
    first = [t for t in inside if t.first]
    outside = [t for t in trials if not t.inside]
    finishes = sorted(t.finish_ms for t in trials)
    return {
        "inside": len(inside),
        "recognised": round(sum(t.right for t in inside) / len(inside), 4),
        "recognised_first_of_call": round(sum(t.right for t in first) / len(first), 4) if first else None,
        "wrong_phrase": sum(t.understood and not t.right for t in inside),
        "outside": len(outside),
        "rejected": round(sum(t.right for t in outside) / len(outside), 4),
        "outside_without_likely_partial": round(sum(not t.partials for t in outside) / len(outside), 4),
        "real_time_factor": round(sum(t.busy_s for t in trials) / sum(t.audio_s for t in trials), 4),
        "finish_ms_p50": round(finishes[len(finishes) // 2], 1),
        "finish_ms_p95": round(finishes[int(len(finishes) * 0.95)], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="draws of phrases (default 3)")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--wishes", action="store_true", help="with what callers wish in the grammars, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--misses", action="store_true", help="list what went wrong")
    arguments = parser.parse_args()
    by_set: dict[str, list[Trial]] = {}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name, inside, outside in sets(seed):
            by_set.setdefault(name, []).extend(run(inside, outside, seed, arguments.wishes))
            if not arguments.json:
                print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
    if not TEXTS.exists():
        print("without recorded speech: install asterisk-core-sounds-en-wav", file=sys.stderr)
    if arguments.misses:
        for name, trials in by_set.items():
            for t in (t for t in trials if not t.right):
                heard = t.heard
                figures = f"{heard.score:.1f} = {heard.mean:.1f} {heard.worst:.1f} {heard.unclaimed:.2f}"
                side = "in " if t.inside else "out"
                print(f"{name} {side} {'first ' if t.first else ''}{t.text!r} -> {heard.text!r} {figures}")
    table = {name: summary(trials) for name, trials in by_set.items()}
    if arguments.json:
        print(json.dumps(table, indent=2))
        return
    for name, row in table.items():
        print(f"{name}\n  " + "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
