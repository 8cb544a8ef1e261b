"""When a machine begins to listen: synthesized greetings, with and without a beep."""

import asyncio
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trunkline.media import answering
from trunkline.media.answering import BEEP_DBFS, FRAME
from trunkline.media.voicemail import SILENT_MS, WATCH_MS, After, MessageStart, tones
from trunkline.testing.caller.speech import Samples, noise, synthesize, to_frames

RATE_HZ = 8000
GREETING = "Hi, you have reached Bob Miller. Please leave a message after the tone."


@cache
def said(text: str = GREETING) -> Samples:
    return asyncio.run(synthesize(text, "en-us", 165))


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def beep(hz: float = 1000.0, ms: int = 500) -> Samples:
    t: NDArray[np.float64] = np.arange(ms * RATE_HZ // 1000) / RATE_HZ
    return (0.25 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def heard(*parts: Samples, known_s: float | None = None, noise_dbfs: float | None = None) -> list[tuple[After, Any]]:
    """What was told, each with the second. `known_s`: when somebody else says that it is a machine."""
    samples = np.concatenate(parts)
    if noise_dbfs is not None:
        samples = samples + noise(noise_dbfs, len(samples))
    start, found = MessageStart(), []
    for at, frame in enumerate(to_frames(samples)):
        before = start.after
        if known_s is not None and at == round(known_s * 50):
            start.is_machine()
        start.feed(frame)
        if start.after is not None and start.after != before:
            found.append((start.after, at / 50))
    return found


@pytest.mark.parametrize("noise_dbfs", [None, -50.0])
@pytest.mark.parametrize(("hz", "ms"), [(440.0, 200), (850.0, 400), (1000.0, 200), (1400.0, 1200), (2000.0, 400)])
def test_a_beep_tells_though_nobody_knew(hz: float, ms: int, noise_dbfs: float | None) -> None:
    (told,) = heard(said(), quiet(1.0), beep(hz, ms), quiet(2.0), noise_dbfs=noise_dbfs)
    over_s = (len(said()) + RATE_HZ) / RATE_HZ + ms / 1000
    assert told[0] == "beep"
    assert 0 <= told[1] - over_s <= 0.3


def test_a_greeting_and_its_silence_say_nothing_of_who_is_not_known_for_a_machine() -> None:
    assert heard(said(), quiet(8.0)) == []


def test_behind_a_known_machines_greeting_two_seconds_of_quiet_will_do() -> None:
    (told,) = heard(said(), quiet(5.0), known_s=2.5, noise_dbfs=-55.0)
    assert told[0] == "silence"
    assert abs(told[1] - (len(said()) / RATE_HZ + SILENT_MS / 1000)) < 0.3


def test_who_is_told_late_does_not_wait_once_more() -> None:
    known_s = len(said()) / RATE_HZ + 3.0
    assert heard(said(), quiet(5.0), known_s=known_s) == [("silence", pytest.approx(known_s, abs=0.1))]


def test_a_beep_after_a_long_silence_still_counts() -> None:
    told = heard(said(), quiet(3.5), beep(), quiet(1.0), known_s=2.5)
    assert [after for after, _ in told] == ["silence", "beep"]


def test_a_greeting_without_end_is_talked_into() -> None:
    endless = np.tile(np.concatenate([said(), quiet(0.5)]), 12)[: (WATCH_MS // 1000 + 2) * RATE_HZ]
    assert heard(endless, known_s=3.0) == [("time", pytest.approx(WATCH_MS / 1000, abs=0.2))]
    assert heard(endless, known_s=41.0) == [("time", pytest.approx(41.0, abs=0.1))]
    assert heard(endless) == []


def test_speech_and_keys_are_no_beep() -> None:
    two = beep(697, 300) + beep(1209, 300)
    assert heard(said(), two, quiet(1.0), two, quiet(3.0)) == []


def test_frames_together_are_what_each_is_alone() -> None:
    samples = np.concatenate([said(), beep(850, 300), quiet(0.2), beep(2500, 200), said("Hello?")])
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    power = np.mean(frames * frames, axis=1)
    levels = 10 * np.log10(np.maximum(power, 1e-9))
    alone = [
        answering._tone(frame, float(each)) if level >= BEEP_DBFS else None
        for frame, each, level in zip(frames, power, levels, strict=True)
    ]
    assert [each or 0.0 for each in alone] == pytest.approx(tones(frames, power, levels), rel=1e-3)
