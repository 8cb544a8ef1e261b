"""PocketSphinx as the ears: telephone speech in, one phrase of a grammar out, or "not understood". Runs in a speech
worker (it keeps the GIL while it decodes).

What makes the wheel's wideband model hear the telephone:

1. The audio is brought to 16 kHz by drawing straight lines between samples. The mirror image that this leaves above
   4 kHz is what the model's upper bands get to see; a clean resampler leaves them empty, and rejection suffers.
2. The cepstral mean is carried from utterance to utterance of a call (`Line`). For the first one it is guessed, and
   once some speech is there estimated anew, and the speech decoded again from its beginning.
3. With `compallsen` a frame's score is relative to the best of *all* the model's sounds, so a path's score says how
   much worse than anything at all the grammar explains the speech. An utterance is understood if the path reaches a
   final state and its mean, its worst word, and what loud audio the words leave unclaimed are together good enough
   for this caller (`Heard.score`, `Line.usual`). A decoded phone loop as the background added nothing to that.

The dictionary is cut to the words of the grammars: 6 MB and 10 ms a decoder instead of 27 MB and half a second.
"""

import itertools
import math
import re
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trunkline.agents.local.wire import Message
from trunkline.errors import MissingExtra, ProviderError
from trunkline.media import g711

RATE_HZ = 8000
FRAMES_PER_S = 100  # the decoder's
FRAME_SAMPLES = RATE_HZ // FRAMES_PER_S
MAX_UTTERANCE_S = 30  # no phrase of a script is longer: what is beyond is dropped, and the utterance not understood
DECODERS = 20  # of one worker, one per caller speaking at this moment, some 4.5 % of a core each
PREBUILT = 2
WORD_PENALTY = 0.2  # PocketSphinx's own 0.65 squeezes in short words
MURMUR_WEIGHT = 0.01
KEYPHRASE_LOOP = 1e-9  # how likely the loop of all sounds is that a keyphrase is held against; PocketSphinx has 0.1
LINES_A_STEP = 8000  # of the dictionary's 135,000
STEP_MS = 100  # of audio between two looks at the partial text

MEAN = (52.0, 8.5, 1.0, 8.5, -1.5, -3.5, -4.0, 0.5, -1.0, 2.0, -8.5, 0.0, -2.0)
"""Of telephone speech as this module hears it, until a call has shown its own."""
LEARN_FRAMES = 15  # of loud audio: less teaches nothing
MEAN_FRAMES = 30  # what that guess is worth
MAX_MEAN_FRAMES = 500  # older speech than 5 s fades
FIRST_LOOK_MS = 700  # of audio, with its pre-roll, before the guess is corrected

USUAL = -12.8
"""`Heard.score` of a caller's own phrases, until this one's are known; bench/recognition.py measures all of these."""
USUAL_LIMITS = (-14.0, -10.4)
USUAL_PACE = 0.4
TOLERANCE = 4.2
"""An utterance this much below the usual is not understood."""
SHORT_FRAMES, SHORT_STEP = 33, 0.25
"""A word of so few loud frames must reach the usual itself, a shorter one so much more for each frame (a real "bye"
does; 4 of 600 coughs and throats were one, without this), and longer words earn the tolerance."""
LEARN_TOLERANCE = 8.0  # what is worse may be no voice at all
LIKELY_TOLERANCE = 2.7  # of words so far: a murmur that fits some words a little must not interrupt the agent
LIKELY_FRAMES = 30  # loud ones

_CMN_WINDOW = 500.0  # frames that PocketSphinx takes a mean to be worth that was set (CMN_WIN of cmn.h)
_ASCORE_FLOOR = 1e-300
_SCORE_SCALE = 1024.0  # grammar search keeps scores shifted (SENSCR_SHIFT of hmm.h), and hands them out so

Pcm = NDArray[np.int16]


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError:
        raise MissingExtra("pocketsphinx", "local") from None
    return pocketsphinx


# --- words ----------------------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_HEADER = re.compile(r"#JSGF[^;]*;|grammar\s[^;]*;|import\s[^;]*;|<[^>]*>|/[\d.]+/|\{[^}]*\}")
_WORD = re.compile(r"[^\s|*+()\[\]=;]+")


def jsgf_words(jsgf: str) -> frozenset[str]:
    text = _HEADER.sub(" ", _COMMENT.sub(" ", jsgf))
    return frozenset(_WORD.findall(text)) - {"public"}


def renamed(jsgf: str, names: Mapping[str, str]) -> str:
    """The grammar with other names of some words."""
    found = re.compile(f"(?:{_HEADER.pattern})|(?P<word>{_WORD.pattern})")
    return found.sub(lambda match: names.get(match["word"], match[0]), _COMMENT.sub(" ", jsgf))


_NAME_END = re.compile(r"\(\d+\)|~\d+")
"""Of a word as the decoder has it: which of its pronunciations was heard, and which sounds of its own it has."""


def _dictionary_file() -> Path:
    return Path(_pocketsphinx().get_model_path("en-us/cmudict-en-us.dict"))


def pronunciations(words: Iterable[str]) -> dict[str, list[str]]:
    """Of those words that the dictionary has: "K AE T", the usual one first."""
    found: dict[str, list[str]] = {}
    for _ in _pronouncing(words, found):
        pass
    return found


def _pronouncing(words: Iterable[str], found: dict[str, list[str]]) -> Iterator[None]:
    """In steps of some 5 ms."""
    wanted = set(words)
    with _dictionary_file().open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % LINES_A_STEP == LINES_A_STEP - 1:
                yield
            entry, _, phones = line.strip().partition(" ")
            word = entry.partition("(")[0]
            if word in wanted:
                found.setdefault(word, []).append(phones)


def unknown_words(jsgf: str) -> list[str]:
    """Words of the grammar without a pronunciation. Raises MissingExtra."""
    words = jsgf_words(jsgf)
    return sorted(words - pronunciations(words).keys())


def keyphrase_decoder(phrase: str, threshold: float) -> Any:
    """One that spots a phrase in 16 kHz audio without end (device/wakeword.py says why so). Raises MissingExtra."""
    return _pocketsphinx().Decoder(
        lm=None,
        keyphrase=phrase,
        kws_threshold=threshold,
        kws_plp=KEYPHRASE_LOOP,
        beam=1e-90,
        compallsen=True,
        cmninit=",".join(map(str, MEAN)),
        loglevel="FATAL",
    )


# --- murmurs ---

MURMURS = {
    "_mhm": "M HH M",
    "_hm": "HH M",
    "_mm": "M M",
    "_nn": "N",
    "_um": "AH M",
    "_uh": "AH",
    "_er": "ER",
    "_ah": "AA",
    "_uhuh": "AH HH AH",
    "_ha": "HH AA",
    "_sh": "SH",
    "_huff": "HH",
    "_click": "T",
    "_knock": "K",
    "_noise": "+NSN+",
    "_voice": "+SPN+",
}
"""What is no phrase of any grammar, and without these would be the nearest: "mm-hm" is close to "no"."""
_PUBLIC = re.compile(r"(public\s+<[^>]+>\s*=)")


def with_murmurs(jsgf: str) -> str:
    """The grammar, or else some murmurs."""
    rule = f"<murmurs_> = ( {' | '.join(MURMURS)} )+;"
    return _PUBLIC.sub(rf"\1 /{MURMUR_WEIGHT}/ <murmurs_> |", jsgf, count=1) + rule + "\n"


# --- what was heard -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """The figures of a path through the grammar. Scores are nats per 10 ms frame, below 0: how much likelier the
    model's best sound of each frame is than the path's."""

    text: str
    final: bool = False
    """The words are a whole phrase of the grammar."""
    frames: int = 0
    """That the words cover."""
    mean: float = -math.inf
    worst: float = -math.inf
    """The worst word's, a short one's pulled to the mean."""
    loud: int = 0
    """Frames of them that stand out of the line's noise."""
    unclaimed: float = 1.0
    """Share of such frames that lies outside the words."""

    @property
    def score(self) -> float:
        return self.mean + self.worst - 10.0 * self.unclaimed

    def fits(self, usual: float = USUAL) -> bool:
        return self.score >= usual - min(TOLERANCE, SHORT_STEP * (self.loud - SHORT_FRAMES))

    def understood(self, usual: float = USUAL) -> bool:
        return self.final and self.fits(usual)


@dataclass(frozen=True, slots=True)
class Line:
    """What a call has taught of its caller's voice and line: how it sounds, and how well it matches the model."""

    mean: tuple[float, ...] = MEAN
    """Cepstral."""
    frames: float = 0.0
    """That the mean is worth; 0: guessed."""
    usual: float = USUAL
    """Score of what was understood."""


WORST_WORD_PULL_FRAMES = 15


def weigh(segments: Iterable[tuple[str, int, int, float]], loud: NDArray[np.bool_], *, final: bool) -> Heard:
    """Segments are (word, first frame, last frame, nats), fillers included."""
    words = [s for s in segments if _is_word(s[0]) and s[2] >= s[1]]
    if not words:
        return Heard("", final)
    claimed = np.zeros(len(loud), dtype=bool)
    for _, first, last, _ in words:
        claimed[first : last + 1] = True
    frames = sum(last - first + 1 for _, first, last, _ in words)
    mean = sum(nats for *_, nats in words) / frames
    pull = WORST_WORD_PULL_FRAMES
    worst = min((nats + pull * mean) / (last - first + 1 + pull) for _, first, last, nats in words)
    loud_words, loud_all = int((loud & claimed).sum()), int(loud.sum())
    unclaimed = 1 - loud_words / loud_all if loud_all else 0.0
    text = _NAME_END.sub("", " ".join(word for word, *_ in words))
    return Heard(text, final, frames, mean, worst, loud_words, unclaimed)


def _is_word(word: str) -> bool:
    return word[0] not in "<[(_"


def loud_frames(pcm: Pcm) -> NDArray[np.bool_]:
    """Which 10 ms frames are within 20 dB of the loudest and clearly above the quietest."""
    count = len(pcm) // FRAME_SAMPLES
    if count == 0:
        return np.zeros(0, dtype=bool)
    blocks = pcm[: count * FRAME_SAMPLES].astype(np.float32).reshape(count, FRAME_SAMPLES)
    level_db = 10 * np.log10((blocks**2).mean(axis=1) + 1.0)
    quiet, peak = np.quantile(level_db, (0.1, 0.95))
    loud: NDArray[np.bool_] = level_db > max(quiet + 8.0, peak - 20.0)
    return loud


# --- the decoder ----------------------------------------------------------------------------------------------------


class Decoder:
    """One PocketSphinx decoder with all grammars known so far; it hears one utterance at a time."""

    def __init__(self) -> None:
        pocketsphinx = _pocketsphinx()
        with tempfile.NamedTemporaryFile("w", suffix=".dict") as empty:
            # FATAL: a final state that was not reached is no error of ours.
            # bestpath: the lattice takes up to 100 ms, and may choose a path that does not end the grammar.
            self._decoder = pocketsphinx.Decoder(
                lm=None, dict=empty.name, compallsen=True, bestpath=False, wip=WORD_PENALTY, loglevel="FATAL"
            )
        for at, (murmur, phones) in enumerate(MURMURS.items(), 1):
            self._decoder.add_word(murmur, phones, at == len(MURMURS))
        self._words: set[str] = set()
        self._grammars: set[str] = set()

    def learn(self, key: str, jsgf: str, pronounced: Mapping[str, list[str]]) -> None:
        """Idempotent by key."""
        if key in self._grammars:
            return
        new = [word for word in sorted(jsgf_words(jsgf)) if word not in self._words]
        entries = [
            (word if at == 0 else f"{word}({at + 1})", phones)
            for word in new
            for at, phones in enumerate(pronounced[word])
        ]
        for at, (entry, phones) in enumerate(entries):
            self._decoder.add_word(entry, phones, at == len(entries) - 1)
        self._words.update(new)
        self._decoder.add_jsgf_string(key, with_murmurs(jsgf))
        self._grammars.add(key)

    def forget(self, known: Container[str]) -> None:
        """All grammars but these."""
        for key in [key for key in self._grammars if key not in known]:
            self._decoder.remove_search(key)
            self._grammars.discard(key)

    def begin(self, key: str, mean: tuple[float, ...]) -> None:
        self._decoder.activate_search(key)
        self._decoder.set_cmn(",".join(f"{value:.4f}" for value in mean))
        self._decoder.start_utt()

    def feed(self, pcm16k: bytes) -> None:
        self._decoder.process_raw(pcm16k)

    def mean(self) -> tuple[float, ...]:
        """Of the utterance so far, mixed with what it began with as _CMN_WINDOW frames."""
        return tuple(float(value) for value in self._decoder.get_cmn(True).split(","))

    def end(self) -> None:
        self._decoder.end_utt()

    @property
    def frames(self) -> int:
        return cast(int, self._decoder.n_frames())

    def text(self) -> str:
        hypothesis = self._decoder.hyp()
        return _NAME_END.sub("", hypothesis.hypstr) if hypothesis is not None else ""

    def segments(self) -> list[tuple[str, int, int, float]]:
        """(word, first frame, last frame, nats) of the best path, also while it goes on."""
        return [
            (s.word, s.start_frame, s.end_frame, _SCORE_SCALE * math.log(max(s.ascore, _ASCORE_FLOOR)))
            for s in self._decoder.seg() or ()
        ]


@dataclass(frozen=True, slots=True)
class Partial:
    text: str
    stable: bool
    """Unchanged for the last STEP_MS of audio."""
    likely: bool
    """Said, by all appearances. Otherwise it is only the best guess so far, or empty."""


class Utterance:
    """begin is construction; feed... -> Partial*; then finish or cancel, once."""

    def __init__(self, ears: "Ears", key: str, line: Line) -> None:
        self._ears, self._key, self._line = ears, key, line
        self._decoder = ears.borrow(key)
        self._pcm = bytearray()
        self._last_sample = 0
        self._looked_bytes = 0
        self._said = Partial("", stable=True, likely=False)
        self._guessing = line.frames == 0
        self._mean = line.mean
        self.overlong = False
        self._decoder.begin(key, self._mean)

    def feed(self, pcm: bytes) -> Partial | None:
        """16-bit PCM at 8 kHz. A partial when the words have changed, and once more when they have settled."""
        room = MAX_UTTERANCE_S * RATE_HZ * 2 - len(self._pcm)
        if len(pcm) > room:
            self.overlong, pcm = True, pcm[: max(0, room)]
        if not pcm:
            return None
        self._pcm += pcm
        self._decode(pcm)
        if self._guessing and len(self._pcm) >= FIRST_LOOK_MS * RATE_HZ // 1000 * 2:
            self._look_at_line()
        if len(self._pcm) - self._looked_bytes < STEP_MS * RATE_HZ // 1000 * 2:
            return None
        self._looked_bytes = len(self._pcm)
        return self._partial()

    def finish(self) -> tuple[Heard, bool, Line]:
        """What was heard, whether it is understood, and the line as it is known now."""
        if self._guessing and self._pcm:
            self._look_at_line()
        decoder = self._decoder
        decoder.end()
        pcm = np.frombuffer(bytes(self._pcm), dtype=np.int16)
        loud = loud_frames(pcm)
        text = decoder.text()
        heard = weigh(decoder.segments(), loud, final=bool(text) and not self.overlong)
        learns = loud.sum() >= LEARN_FRAMES and heard.score >= self._line.usual - LEARN_TOLERANCE
        line = self._learnt(decoder.mean(), decoder.frames) if learns else self._line
        understood = heard.understood(line.usual)
        if understood:
            usual = line.usual + USUAL_PACE * (heard.score - line.usual)
            line = replace(line, usual=min(max(usual, USUAL_LIMITS[0]), USUAL_LIMITS[1]))
        self._release()
        return heard, understood, line

    def cancel(self) -> None:
        """Idempotent; also after finish."""
        if self._decoder is not None:
            self._decoder.end()
            self._release()

    def _release(self) -> None:
        decoder, self._decoder = self._decoder, cast(Decoder, None)
        self._ears.give_back(decoder)

    def _decode(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, dtype=np.int16)
        self._decoder.feed(upsampled(samples, self._last_sample).tobytes())
        self._last_sample = int(samples[-1])

    def _look_at_line(self) -> None:
        """The guessed mean is corrected by what was said so far, and that is heard again."""
        self._guessing = False
        mean, frames = self._decoder.mean(), self._decoder.frames
        self._decoder.end()
        self._mean = self._learnt(mean, frames).mean
        self._decoder.begin(self._key, self._mean)
        self._last_sample = 0
        self._decode(bytes(self._pcm))

    def _learnt(self, mixed: tuple[float, ...], frames: int) -> Line:
        if frames <= 0:
            return self._line
        own = [(m * (_CMN_WINDOW + frames) - _CMN_WINDOW * b) / frames for m, b in zip(mixed, self._mean, strict=True)]
        known = self._line.frames or MEAN_FRAMES
        total = known + frames
        mean = tuple((k * known + o * frames) / total for k, o in zip(self._line.mean, own, strict=True))
        return replace(self._line, mean=mean, frames=min(total, MAX_MEAN_FRAMES))

    def _partial(self) -> Partial | None:
        loud = loud_frames(np.frombuffer(bytes(self._pcm), dtype=np.int16))
        heard = weigh(self._decoder.segments(), loud, final=False)
        text = heard.text if heard.fits(self._line.usual) else ""
        likely = heard.loud >= LIKELY_FRAMES and heard.score >= self._line.usual - LIKELY_TOLERANCE
        said = Partial(text, text == self._said.text, likely)
        if said == self._said:
            return None
        self._said = said
        return said


def upsampled(samples: Pcm, before: int) -> Pcm:
    """8 to 16 kHz along straight lines; `before` is the sample before these."""
    out = np.empty(2 * len(samples), dtype=np.int16)
    out[1::2] = samples
    out[2::2] = (samples[:-1].astype(np.int32) + samples[1:]) // 2
    out[0] = (before + int(samples[0])) // 2
    return out


# --- the kind of job ------------------------------------------------------------------------------------------------


@dataclass
class Ears:
    """All grammars and decoders of this process.

    A worker's messages: preload `grammars` (agent, grammars: name -> JSGF, sounds: word -> its phones, instead of the
    dictionary's); then in a job `begin` (agent, grammar, encoding, and of the call's last `final` its line), `audio`*,
    `finish`. Replies: `partial` (text, stable, likely)*, `final` (text, understood, score, line).
    """

    grammars: dict[str, str] = field(default_factory=dict)
    _pronounced: dict[str, list[str]] = field(default_factory=dict)
    _free: list[Decoder] = field(default_factory=list)
    _count: int = 0

    def add(self, grammars: Mapping[str, str], sounds: Mapping[str, list[str]] = {}) -> None:
        """By key. `sounds`: of words, in these grammars alone ("no" is another word in Spanish). Raises ProviderError
        `bad_request` naming the words that have no pronunciation, or a grammar that PocketSphinx cannot read."""
        for _ in self._adding(grammars, sounds):
            pass

    def _adding(self, grammars: Mapping[str, str], sounds: Mapping[str, list[str]]) -> Iterator[None]:
        if sounds:
            own = {word: self._sounded(word, phones) for word, phones in sounds.items()}
            grammars = {key: renamed(jsgf, own) for key, jsgf in grammars.items()}
        wanted = frozenset[str]().union(*map(jsgf_words, grammars.values()))
        found: dict[str, list[str]] = {}
        if wanted - self._pronounced.keys():
            yield from _pronouncing(wanted - self._pronounced.keys(), found)
        if missing := sorted(wanted - self._pronounced.keys() - found.keys()):
            raise _refused(f"the recogniser does not know {', '.join(map(repr, missing))}")
        self._pronounced |= found
        trial = self._free.pop() if self._free else self._new()
        for key, jsgf in grammars.items():
            try:
                trial.learn(key, jsgf, self._pronounced)
            except (ValueError, RuntimeError) as error:
                self._count -= 1
                raise _refused(f"grammar {key!r}: {error}") from None
            yield
        self.grammars |= grammars
        self._free.append(trial)
        while self._count < PREBUILT:
            self._free.append(self._new())

    def remove(self, keys: Iterable[str]) -> None:
        """Who hears one of them at this moment hears it to the end. Their words stay known."""
        for key in keys:
            self.grammars.pop(key, None)
        for decoder in self._free:
            decoder.forget(self.grammars)

    def _sounded(self, word: str, phones: list[str]) -> str:
        """The word's name with these sounds: `no~0`, and with others `no~1`."""
        for number in itertools.count():
            name = f"{word}~{number}"
            if self._pronounced.setdefault(name, list(phones)) == list(phones):
                return name
        raise AssertionError("there is always a next number")

    def begin(self, key: str, line: Line | None = None) -> Utterance:
        """Raises ProviderError: overloaded, or bad_request for a grammar nobody added."""
        if key not in self.grammars:
            raise _refused(f"no grammar {key!r}")
        return Utterance(self, key, line or Line())

    def borrow(self, key: str) -> Decoder:
        if not self._free and self._count >= DECODERS:
            raise ProviderError("pocketsphinx", "overloaded", "every decoder is taken", retryable=True)
        decoder = self._free.pop() if self._free else self._new()
        decoder.learn(key, self.grammars[key], self._pronounced)
        return decoder

    def give_back(self, decoder: Decoder) -> None:
        decoder.forget(self.grammars)
        self._free.append(decoder)

    def _new(self) -> Decoder:
        self._count += 1
        return Decoder()

    # as a Kind of the worker

    def preload(self, message: Message) -> Iterable[Message]:
        agent = message.fields["agent"]
        grammars = {f"{agent}/{name}": jsgf for name, jsgf in message.fields["grammars"].items()}
        for _ in self._adding(grammars, message.fields.get("sounds", {})):
            yield Message("")

    def unload(self, message: Message) -> None:
        self.remove(f"{message.fields['agent']}/{name}" for name in message.fields["grammars"])

    def open(self) -> "Listening":
        return Listening(self)


def _refused(detail: str) -> ProviderError:
    return ProviderError("pocketsphinx", "bad_request", detail, retryable=False)


class Listening:
    """One job: one utterance."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._utterance: Utterance | None = None
        self._encoding = "mulaw"

    def handle(self, message: Message) -> Iterator[Message]:
        fields = message.fields
        if message.name == "begin":
            known = fields.get("line")
            line = Line(tuple(known["mean"]), known["frames"], known["usual"]) if known else None
            self._encoding = fields["encoding"]
            self._utterance = self._ears.begin(f"{fields['agent']}/{fields['grammar']}", line)
        elif self._utterance is None:
            raise ProviderError("pocketsphinx", "protocol", f"{message.name} before begin", retryable=False)
        elif message.name == "audio":
            yield from self._hear(self._utterance, message.data)
        elif message.name == "finish":
            heard, understood, line = self._utterance.finish()
            self._utterance = None
            mean = [round(value, 3) for value in line.mean]
            learnt = {"mean": mean, "frames": line.frames, "usual": round(line.usual, 3)}
            score = round(heard.score, 2) if heard.frames else None
            yield Message("final", {"text": heard.text, "understood": understood, "score": score, "line": learnt})

    def _hear(self, utterance: Utterance, data: bytes) -> Iterator[Message]:
        pcm = data if self._encoding == "pcm16" else g711.decode(data, cast(g711.Law, self._encoding))
        step = STEP_MS * RATE_HZ // 1000 * 2
        for start in range(0, len(pcm), step):
            partial = utterance.feed(pcm[start : start + step])
            if partial is not None:
                yield Message("partial", asdict(partial))
            elif start + step < len(pcm):
                yield Message("")  # a turn given up: others in this worker are speaking too

    def close(self) -> None:
        if self._utterance is not None:
            self._utterance.cancel()
            self._utterance = None
