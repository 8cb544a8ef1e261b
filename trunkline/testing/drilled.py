"""What a caller heard of an answer, from the sound: which words, and the longest silence. A plain core.

A voice's audio goes to a Twilio leg as it is, byte for byte: a word was heard where its piece of the voice's audio is
found in what the far end played.
"""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trunkline.media.g711 import decode
from trunkline.testing.faults import Utterance
from trunkline.types import MULAW_8K

QUIET = 200  # of 32,768: what a caller takes for silence
FRAME = 160


@dataclass(frozen=True, slots=True)
class Heard:
    words: tuple[str, ...]
    silence_ms: int
    """The longest, from the end of the caller's words to the end of the agent's."""
    first_ms: int
    """From the end of the caller's words to the first sound."""


def pieces(utterance: Utterance) -> list[tuple[str, bytes]]:
    """Each word with its piece of the audio, as 16-bit PCM; without word times, of a whole phrase, by letters."""
    pcm = decode(bytes(utterance.audio), utterance.format.encoding)  # type: ignore[arg-type]
    if utterance.word_times:
        spans = [(word.text, word.start_ms, word.end_ms) for word in utterance.words]
    elif utterance.whole:
        spans, at = [], 0.0
        words = utterance.text.split()
        a_letter = len(pcm) / 16 / max(1, sum(len(word) + 1 for word in words))
        for word in words:
            end = at + (len(word) + 1) * a_letter
            spans.append((word, int(at), int(end)))
            at = end
    else:
        spans = []
    return [(word, pcm[start * 16 : end * 16]) for word, start, end in spans]


def words_heard(played: bytes, spoken: Sequence[Utterance], but: Collection[str] = ()) -> list[str]:
    """The words whose sound is in `played` (16-bit PCM), in the order in which it is; what is heard twice is there
    twice. Sounds are alike, and pauses more so: of two words that would lie on each other, the one in the longer run of
    an utterance was heard, and a quiet one only beside its neighbours. Texts in `but` are looked for and left out."""
    runs = [(run, utterance.text not in but) for utterance in spoken for run in _runs(played, pieces(utterance))]
    taken: list[tuple[int, int, str, bool]] = []
    for run, counts in sorted(runs, key=lambda run: run[0][0][0] - run[0][-1][1]):
        free = [word for word in run if not any(word[0] < end and start < word[1] for start, end, _, _ in taken)]
        taken += [(*word, counts) for word in free]
    return [word for _, _, word, counts in sorted(taken) if counts]


def _runs(played: bytes, words: Sequence[tuple[str, bytes]]) -> list[list[tuple[int, int, str]]]:
    """(start, end, word): every stretch in which words of it follow one another."""
    runs: list[list[tuple[int, int, str]]] = []
    known: set[tuple[int, int]] = set()
    for first, (_, piece) in enumerate(words):
        for at in _places(played, piece) if _loud(piece) else ():
            if (first, at) in known:
                continue
            start, run = at, list[tuple[int, int, str]]()
            for earlier in range(first - 1, -1, -1):  # quiet ones before it
                silent = words[earlier][1]
                if _loud(silent) or played[start - len(silent) : start] != silent:
                    break
                run.insert(0, (start - len(silent), start, words[earlier][0]))
                start -= len(silent)
            for index in range(first, len(words)):
                word, sound = words[index]
                if played[at : at + len(sound)] != sound:
                    break
                known.add((index, at))
                run.append((at, at + len(sound), word))
                at += len(sound)
            runs.append(run)
    return runs


def _places(played: bytes, piece: bytes) -> list[int]:
    places, at = list[int](), played.find(piece)
    while at >= 0:
        places.append(at)
        at = played.find(piece, at + len(piece))
    return places


def _loud(piece: bytes) -> bool:
    samples = np.frombuffer(piece[: len(piece) // 2 * 2], dtype="<i2").astype(np.int32)
    return bool(len(samples)) and int(np.abs(samples).max()) > QUIET


def asked_for(spoken: Sequence[Utterance]) -> list[str]:
    """What the voices were to say, once: a text that is the end of the one before it, which broke off, is its rest."""
    words: list[str] = []
    broken: list[str] = []
    for utterance in spoken:
        wanted = utterance.text.split()
        if not (broken and broken[-len(wanted) :] == wanted):
            words += wanted
        broken = [] if utterance.whole else wanted
    return words


def without(spoken: Sequence[Utterance], lines: Collection[str]) -> list[Utterance]:
    """Less the fixed lines: fillers are no part of an answer."""
    return [utterance for utterance in spoken if utterance.text not in lines]


def compare(reference: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """(lost, repeated or added) words."""
    wanted, given = [_plain(word) for word in reference], [_plain(word) for word in heard]
    same = sum(
        block.size for block in difflib.SequenceMatcher(None, wanted, given, autojunk=False).get_matching_blocks()
    )
    return len(wanted) - same, len(given) - same


def _plain(word: str) -> str:
    return word.strip(".,!?:;\u2026\"'").lower()


def heard(
    caller: bytes, played: bytes, spoken: Sequence[Utterance], endpointing_ms: float, but: Collection[str] = ()
) -> Heard:
    """`caller` and `played`: 16-bit PCM at 8 kHz, in step; what counts is played after the caller's last sound. The
    dead air begins with the end-of-turn decision: so long after it. Fixed lines, `but`, are sound, and no words."""
    last = _sounding(caller).nonzero()[0]
    spoke = int(last[-1]) + 1 if len(last) else 0
    after = _sounding(played)[spoke + round(endpointing_ms / 20) :]
    audible = after.nonzero()[0]
    silence = first = len(after)
    if len(audible):
        edges = np.concatenate(([-1], audible))
        silence, first = int(np.diff(edges).max()) - 1, int(audible[0])
    return Heard(tuple(words_heard(played[spoke * 2 * FRAME :], spoken, but)), silence * 20, first * 20)


def _sounding(pcm: bytes) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    samples = np.frombuffer(pcm[: len(pcm) // (2 * FRAME) * 2 * FRAME], dtype="<i2").reshape(-1, FRAME)
    loud: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.abs(samples.astype(np.int32)).max(axis=1) > QUIET
    return loud


assert MULAW_8K.frame_bytes == FRAME
