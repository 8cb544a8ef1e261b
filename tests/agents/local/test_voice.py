import functools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.agents.local import voice
from trunkline.agents.local.voice import MAX_PIECE_CHARS, Sound, VoiceOptions
from trunkline.errors import MissingExtra, ProviderError
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

CLINIC = (
    "Good morning, this is the clinic. We open at 10:30; Dr. Smith’s number is 555-1234, of the  day. Anything else?"
)


def spoken(text: str, format: Format = PCM_8K, name: str = "en-us") -> tuple[bytes, list[voice.WordTime]]:
    utterance, cut = voice.utterance(VoiceOptions(name), format), voice.pieces(text)
    chunks = [chunk for i, piece in enumerate(cut) for chunk in utterance.say(piece, last=i == len(cut) - 1)]
    return b"".join(audio for audio, _ in chunks), [word for _, words in chunks for word in words]


def samples(pcm: bytes) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.frombuffer(pcm, dtype=np.int16) / 32768


def test_words_are_the_texts_own_in_order_and_end_with_the_audio() -> None:
    audio, words = spoken(CLINIC)
    assert [text for text, _, _ in words] == CLINIC.split()
    assert all(start <= end for _, start, end in words)
    assert all(one[2] <= two[1] for one, two in pairwise(words))
    silent_tail_ms = len(audio) / 16 - words[-1][2]
    assert 0 <= silent_tail_ms <= voice.TRAILING_PAUSE_MS + 1


def test_word_times_are_where_the_sound_is() -> None:
    audio, words = spoken("alpha, echo, india, oscar, lima, mike")
    loud = np.flatnonzero(np.abs(samples(audio)) > 0.005) / 8  # ms
    gaps = np.flatnonzero(np.diff(loud) > 100)
    starts, ends = [loud[0], *loud[gaps + 1]], [*loud[gaps], loud[-1]]
    assert len(starts) == len(words)
    for (_, start, end), loud_start, loud_end in zip(words, starts, ends, strict=True):
        assert abs(start - loud_start) < 20
        assert abs(end - loud_end) < 20


@pytest.mark.parametrize("format", [MULAW_8K, ALAW_8K, PCM_8K, PCM_16K])
def test_all_formats_last_as_long_and_a_word_comes_with_the_audio_it_ends_in(format: Format) -> None:
    utterance, given, length = voice.utterance(VoiceOptions(), format), 0, 0
    for audio, words in utterance.say("Good morning, this is the clinic.", last=True):
        given += len(audio)
        length += len(words)
        assert all(end <= given / format.bytes_per_ms for _, _, end in words)
    assert length == 6
    assert 1850 < given / format.bytes_per_ms < 2150


def test_the_first_chunk_is_small_and_begins_with_sound() -> None:
    audio, _ = next(voice.utterance(VoiceOptions(), PCM_8K).say("Hello and welcome to the clinic.", last=True))
    assert len(audio) <= 70 * 16
    assert np.abs(samples(audio)[: 20 * 8]).max() > 0.003


@pytest.mark.parametrize("name", ["en-us", "en-gb+f3", "de"])
def test_speech_is_at_telephone_level_and_does_not_clip(name: str) -> None:
    audio = samples(voice.synthesize(CLINIC, name))
    blocks = np.sqrt((audio[: len(audio) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
    level_dbfs = 20 * np.log10(np.sqrt((blocks[blocks > blocks.max() / 30] ** 2).mean()))
    assert -20 < level_dbfs < -16
    assert np.abs(audio).max() < 0.995


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "\N{GRINNING FACE}", "...", "\ud83d"])
def test_what_cannot_be_said_gives_no_audio(text: str) -> None:
    assert voice.synthesize(text) == b""


@given(st.text(st.characters(codec=None), max_size=30))
@settings(max_examples=40, deadline=None)
def test_no_text_crashes_the_voice_and_words_stay_the_texts(text: str) -> None:
    audio, words = spoken(text, MULAW_8K)
    assert [word for word, _, _ in words] == (text.split() if audio else [])


def test_markup_is_read_not_obeyed() -> None:
    assert len(voice.synthesize("<speak>a</speak>")) > 2 * len(voice.synthesize("a"))


def test_an_unknown_voice_is_refused() -> None:
    for name in ("klingon-x", "en-us+nobody", "", "../../en"):
        with pytest.raises(ProviderError, match="bad_request"):
            voice.synthesize("Hello.", name)


@given(st.text(st.sampled_from("ab .,;!?"), max_size=600))
@settings(max_examples=60)
def test_pieces_keep_every_token_and_are_short(text: str) -> None:
    cut = voice.pieces(text)
    assert " ".join(cut) == " ".join(text.split())
    for piece in cut:
        assert sum(min(len(token), 100) + 1 for token in piece.split()) <= MAX_PIECE_CHARS + 10


def test_pieces_end_where_one_breathes() -> None:
    assert voice.pieces("Hello there. Dr. Who is in, I think. Yes. Bye now.") == [
        "Hello there.",
        "Dr. Who is in, I think.",
        "Yes. Bye now.",
    ]
    assert voice.pieces("Good morning, this is the clinic.") == ["Good morning,", "this is the clinic."]


@pytest.mark.parametrize(
    ("token", "read"),
    [("Dr.", "Dr"), ("555-1234,", "5 5 5, 1 2 3 4,"), ("47112", "4 7 1 1 2"), ("2026", "2026"), ("a\x01b", "a b")],
)
def test_tokens_are_made_speakable(token: str, read: str) -> None:
    assert voice.speakable(token) == read


def test_a_word_of_several_events_is_one_and_those_run_together_share_the_time() -> None:
    loud = np.full(1000, 500, dtype=np.int16)
    sound = Sound(loud, ((0, 0), (3, 100), (6, 200)))
    assert voice.fold(["10:30", "of", "the"], sound) == [("10:30", 0, 200), ("of", 200, 520), ("the", 520, 1000)]


def test_a_token_without_sound_lies_behind_the_one_before() -> None:
    sound = Sound(np.full(100, 500, dtype=np.int16), ((0, 0), (6, 60)))
    assert voice.fold(["Yes", "-", "no"], sound) == [("Yes", 0, 60), ("-", 60, 60), ("no", 60, 100)]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"trunkline\[local\]"):
        voice.data_path()


def test_voices_are_found_by_language_and_variant() -> None:
    assert voice.voice_file("en-us") == "gmw/en-US"
    assert voice.voice_file("en-GB+f3") == "gmw/en+f3"
    assert "f3" in voice.variants()


def test_threads_that_speak_first_at_once_share_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []

    class Slow:
        def __init__(self) -> None:
            begun.append(self)
            time.sleep(0.05)

    monkeypatch.setattr(voice, "_engine", functools.cache(Slow))
    with ThreadPoolExecutor(4) as threads:
        engines = [done.result() for done in [threads.submit(voice.engine) for _ in range(4)]]
    assert len(begun) == 1
    assert set(map(id, engines)) == {id(begun[0])}
