"""What a caller heard, told from the sound."""

import numpy as np

from trunkline.media.g711 import decode, encode
from trunkline.ports import Word
from trunkline.testing.drilled import asked_for, compare, heard, words_heard
from trunkline.testing.faults import Utterance
from trunkline.types import MULAW_8K

MS = 16  # bytes of 16-bit PCM a millisecond
SILENCE = b"\0" * (500 * MS)


def sound(seed: int, milliseconds: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 4000, milliseconds * 8).clip(-30000, 30000).astype("<i2")
    return decode(encode(noise.tobytes(), "mulaw"), "mulaw")


def utterance(text: str, seed: int, *, word_times: bool = True, whole: bool = True) -> tuple[Utterance, bytes]:
    words = text.split()
    pcm = b"".join(sound(seed * 100 + at, 200) for at in range(len(words)))
    times = [Word(word, at * 200, at * 200 + 200) for at, word in enumerate(words)]
    given = Utterance("v", text, MULAW_8K, word_times, bytearray(encode(pcm, "mulaw")), times if word_times else [])
    given.whole = whole
    return given, pcm


def test_words_are_heard_in_the_order_of_their_sound() -> None:
    one, first = utterance("we open at eight.", 1)
    two, second = utterance("and close at five.", 2)
    assert words_heard(SILENCE + first + SILENCE + second, [two, one]) == (one.text + " " + two.text).split()


def test_a_word_that_was_cut_is_not_heard_and_one_that_came_twice_is_heard_twice() -> None:
    one, pcm = utterance("we open at eight.", 1)
    assert words_heard(pcm[: 500 * MS], [one]) == ["we", "open"]
    assert words_heard(pcm[: 400 * MS] + SILENCE + pcm[200 * MS :], [one]) == ["we", "open", "open", "at", "eight."]


def test_without_word_times_the_pieces_of_a_whole_phrase_are_looked_for() -> None:
    one, pcm = utterance("we open at eight.", 1, word_times=False)
    assert words_heard(SILENCE + pcm, [one]) == one.text.split()
    assert len(words_heard(SILENCE + pcm[: 400 * MS], [one])) == 2


def test_the_sound_of_one_phrase_within_another_is_not_heard_for_it() -> None:
    one, pcm = utterance("we open at eight.", 1)
    other = Utterance("v", "now then", MULAW_8K, True, bytearray(encode(pcm[330 * MS : 730 * MS], "mulaw")))
    other.words = [Word("now", 0, 200), Word("then", 200, 400)]
    assert words_heard(pcm, [one, other]) == one.text.split()


def test_a_pause_is_heard_beside_its_neighbours_only() -> None:
    one, pcm = utterance("we open at eight.", 1)
    pcm = pcm[: 200 * MS] + b"\0" * (200 * MS) + pcm[400 * MS :]
    one.audio = bytearray(encode(pcm, "mulaw"))
    assert words_heard(SILENCE + pcm + SILENCE, [one]) == one.text.split()


def test_what_was_asked_for_counts_a_rest_once() -> None:
    whole, _ = utterance("we open at eight.", 1, whole=False)
    rest, _ = utterance("at eight.", 2)
    assert asked_for([whole, rest]) == whole.text.split()
    whole.whole = True
    assert asked_for([whole, rest]) == [*whole.text.split(), *rest.text.split()]


def test_lost_and_repeated_words_are_counted() -> None:
    reference = ["we", "open", "at", "eight"]
    assert compare(reference, ["We", "open,", "at", "eight."]) == (0, 0)
    assert compare(reference, ["we", "open", "eight"]) == (1, 0)
    assert compare(reference, ["we", "open", "open", "at", "eight"]) == (0, 1)


def test_dead_air_begins_with_the_decision_and_ends_with_the_last_sound() -> None:
    one, pcm = utterance("we open", 1)
    caller = SILENCE + sound(9, 400) + b"\0" * (4000 * MS)
    played = b"\0" * (2500 * MS) + pcm[: 200 * MS] + b"\0" * (700 * MS) + pcm[200 * MS :] + b"\0" * (5000 * MS)
    took = heard(caller, played, [one], endpointing_ms=600)
    assert took.words == ("we", "open")
    assert (took.first_ms, took.silence_ms) == (1000, 1000)
    assert heard(caller, played, [one], 1200).silence_ms == 700


def test_an_answer_that_never_came_is_silence_to_the_end() -> None:
    took = heard(SILENCE + sound(9, 400), b"\0" * (4900 * MS), [], 0)
    assert (took.words, took.silence_ms) == ((), 4000)
