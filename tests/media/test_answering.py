"""Who answered: people, machines and beeps, synthesized; and what is none of them."""

import asyncio
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.media import answering, tones
from trunkline.media.answering import LONG_GREETING_MS, SHORT_GREETING_MS, WATCH_MS, AnsweringDetector
from trunkline.media.music import hold_music
from trunkline.media.sources import FRAME
from trunkline.media.tones import ToneName
from trunkline.testing import noises
from trunkline.testing.caller.speech import Samples, at_level, noise, synthesize, to_frames
from trunkline.types import FRAME_MS

RATE_HZ = 8000
GREETING = "Hi, you have reached Bob Miller. I cannot take your call right now. Please leave a message after the tone."
AT_A_DESK = "Thank you for calling Elm Street Clinic, this is Maria, how can I help you?"


@cache
def said(text: str, voice: str = "en-us", wpm: int = 165) -> Samples:
    return asyncio.run(synthesize(text, voice, wpm))


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def beep(hz: float, ms: int, amplitude: float = 0.25) -> Samples:
    t: NDArray[np.float64] = np.arange(ms * RATE_HZ // 1000) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def heard(*parts: Samples, greeting_ms: int = SHORT_GREETING_MS, noise_dbfs: float | None = None) -> AnsweringDetector:
    samples = np.concatenate(parts)
    if noise_dbfs is not None:
        samples = samples + noise(noise_dbfs, len(samples))
    detector = AnsweringDetector(greeting_ms)
    for frame in to_frames(samples):
        detector.feed(frame)
    return detector


# --- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", ["en-us", "en-gb", "en-us+f3"])
@pytest.mark.parametrize("text", ["Hello?", "Yes?", "Hello, Maria speaking."])
@pytest.mark.parametrize("noise_dbfs", [None, -50.0])
def test_who_says_a_word_and_waits_is_a_person(voice: str, text: str, noise_dbfs: float | None) -> None:
    words = said(text, voice)
    detector = heard(quiet(0.4), words, quiet(2), noise_dbfs=noise_dbfs)
    assert detector.who == "human"
    after_ms = detector.decided_ms - 400 - len(words) * 1000 // RATE_HZ
    assert after_ms <= answering.AFTER_MS + answering.LOOK_MS
    assert detector.beep_ms is None


def test_a_quiet_voice_is_one_too() -> None:
    assert heard(quiet(0.5), at_level(said("Hello?"), -38), quiet(2), noise_dbfs=-65).who == "human"


def test_our_own_voice_coming_back_is_not_taken_for_theirs() -> None:
    """Of a briefing that talks over their greeting, 26 dB down: telephones cancel more."""
    briefing = np.concatenate([said(GREETING), said(AT_A_DESK)]) * np.float32(10 ** (-26 / 20))
    theirs = np.concatenate([quiet(0.4), said("Hello?"), quiet(12)])[: len(briefing)]
    detector = heard(briefing + theirs, greeting_ms=LONG_GREETING_MS)
    assert detector.who == "human"


def test_whoever_calls_desks_lets_them_finish_their_greeting() -> None:
    parts = quiet(0.3), said(AT_A_DESK), quiet(2)
    assert heard(*parts, greeting_ms=LONG_GREETING_MS).who == "human"
    assert heard(*parts).who == "machine"


# --- machines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", ["en-us", "en-gb", "en-us+f3"])
@pytest.mark.parametrize("greeting_ms", [SHORT_GREETING_MS, LONG_GREETING_MS])
def test_who_talks_on_is_a_machine(voice: str, greeting_ms: int) -> None:
    detector = heard(quiet(0.4), said(GREETING, voice), greeting_ms=greeting_ms)
    assert detector.who == "machine"
    assert greeting_ms <= detector.decided_ms <= greeting_ms + 1000


@pytest.mark.parametrize(("hz", "ms"), [(440, 300), (850, 250), (1000, 400), (1400, 500), (2000, 160), (620, 1000)])
@pytest.mark.parametrize("noise_dbfs", [None, -45.0])
def test_a_beep_after_a_greeting_is_found_where_it_is(hz: float, ms: int, noise_dbfs: float | None) -> None:
    greeting = said(GREETING)
    detector = heard(quiet(0.4), greeting, quiet(0.6), beep(hz, ms), quiet(1), noise_dbfs=noise_dbfs)
    assert detector.who == "machine"
    began_ms = 1000 + len(greeting) * 1000 // RATE_HZ
    assert detector.beep_ms is not None
    assert abs(detector.beep_ms - began_ms) <= 2 * FRAME_MS
    assert detector.done


def test_a_beep_tells_a_machine_that_passed_for_a_person() -> None:
    detector = AnsweringDetector(LONG_GREETING_MS)
    seen = []
    parts = said("This is Anna."), quiet(1.5), said("Leave me a message."), quiet(0.8), beep(1400, 400), quiet(1)
    for frame in to_frames(np.concatenate(parts)):
        if detector.feed(frame):
            seen.append(detector.who)
    assert seen == ["human", "machine"]


def test_the_end_of_a_greeting_without_a_beep_is_known_by_the_quiet_after_it() -> None:
    greeting = said(GREETING)
    detector = heard(quiet(0.4), greeting, quiet(3))
    assert detector.message_over_ms is not None
    over_ms = 400 + (np.flatnonzero(np.abs(greeting) > 0.01)[-1] + 1) * 1000 // RATE_HZ  # without its silence
    assert abs(detector.message_over_ms - over_ms) <= 150
    assert detector.done
    assert heard(quiet(0.4), greeting, quiet(1.5)).message_over_ms is None


# --- neither --------------------------------------------------------------------------------------------------------


def test_nothing_is_unknown_and_a_voice_after_it_is_one() -> None:
    assert heard(quiet(4.8)).who is None
    assert heard(quiet(5)).who == "unknown"
    assert heard(quiet(7), said("Hello?"), quiet(2)).who == "human"


@pytest.mark.parametrize("dbfs", [-60.0, -45.0, -30.0, -20.0])
def test_noise_is_nobody(dbfs: float) -> None:
    assert heard(quiet(10), noise_dbfs=dbfs).who == "unknown"


@pytest.mark.parametrize("tone", ["dial", "ringback"])
@pytest.mark.parametrize("country", sorted(tones.PLANS))
def test_a_telephone_system_that_rings_after_it_answered_is_nobody(country: str, tone: ToneName) -> None:
    if (country, tone) == ("IT", "dial"):
        return  # beeps of 200 ms, as a machine might
    source, detector = tones.tone(tone, country).play(), AnsweringDetector()
    for _ in range(12_000 // FRAME_MS):
        detector.feed(source.frame())
    assert (detector.who, detector.beep_ms) == ("unknown", None)


def test_somebody_who_picks_up_after_it_rang_there_is_a_person() -> None:
    source, detector = tones.tone("ringback", "DE").play(), AnsweringDetector()
    for _ in range(5_000 // FRAME_MS):
        detector.feed(source.frame())
    for frame in to_frames(np.concatenate([said("Hello?"), quiet(2)])):
        detector.feed(frame)
    assert detector.who == "human"


def test_hold_music_is_nobody_and_has_no_beep() -> None:
    source, detector = hold_music().play(), AnsweringDetector()
    for _ in range(2 * WATCH_MS // FRAME_MS):
        detector.feed(source.frame())
    assert (detector.who, detector.beep_ms) == ("unknown", None)


@pytest.mark.parametrize("keys", ["1", "2", "5", "9", "0"])
def test_a_key_is_no_beep(keys: str) -> None:
    from trunkline.media import dtmf

    low, high = dtmf.FREQUENCIES[keys]
    pressed = beep(low, 300, 0.15) + beep(high, 300, 0.15)
    detector = heard(said("Hello?"), quiet(1.5), pressed, quiet(1))
    assert (detector.who, detector.beep_ms) == ("human", None)


def test_coughs_and_doors_are_no_beeps() -> None:
    for make in (noises.cough, noises.throat, noises.hum, noises.door, noises.keyboard):
        for seed in range(6):
            assert heard(quiet(0.3), make(seed), quiet(1)).beep_ms is None


@pytest.mark.parametrize("text", [GREETING, AT_A_DESK])
def test_speech_has_no_beeps(text: str) -> None:
    for voice in ("en-us", "en-gb+f2", "en-us+m3", "en-us+f3"):
        assert heard(said(text, voice, 140), quiet(1)).beep_ms is None


# --- how it is fed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 33, 80, 160, 800])
def test_how_audio_is_cut_makes_no_difference(size: int) -> None:
    audio = b"".join(to_frames(np.concatenate([quiet(0.4), said(GREETING), quiet(0.5), beep(1000, 400), quiet(1)])))
    whole, cut = AnsweringDetector(), AnsweringDetector()
    whole.feed(audio)
    for at in range(0, len(audio), size):
        cut.feed(audio[at : at + size])
    assert (cut.who, cut.beep_ms, cut.heard_ms) == (whole.who, whole.beep_ms, whole.heard_ms)


def test_it_listens_for_a_while_and_no_longer() -> None:
    detector = AnsweringDetector()
    for _ in range(WATCH_MS // FRAME_MS + 50):
        detector.feed(b"\xff" * FRAME)
    assert detector.done
    assert detector.heard_ms == WATCH_MS
