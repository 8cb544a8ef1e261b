"""Who has answered a call of ours, by the first seconds of what is heard: a person, a machine, or who knows.

What people do: a short word or a sentence, then silence, for it is our turn. What machines do: talk on, and then beep.
So the first utterance decides:

- it is over (`AFTER_MS` of silence) before it was as long as a greeting: a person;
- it goes on, with no pause longer than `PAUSE_MS`, for as long as a greeting: a machine. How long that is, is the
  caller's choice: `SHORT_GREETING_MS` for who calls people at home ("Hello?" takes half a second, "The Millers, Anna
  speaking" two), `LONG_GREETING_MS` for who calls desks, whose people say the company's name and theirs first;
- it never comes, or is no voice (music, noise, the tones of a telephone system): unknown.

And whatever was thought before: who beeps is a machine. A beep is one steady, pure tone of `BEEP_MIN_MS` or more, then
quiet. Two tones at once (keys, North American ringing) are none, nor is a tone that nobody stops, nor one of the
frequency and length of ringing elsewhere (a telephone system that answers first and rings then).

What is not told apart: a person who talks on from the first moment, a machine that only says "Leave a message" and has
no beep, a queue or a menu that speaks (it *is* a machine). Levels are relative to what the line has shown so far, and
are looked at anew, from the first frame on, every `LOOK_MS`: what turns out to be noise was noise from the beginning.

Silence is counted in received audio. It listens for `WATCH_MS` at most; bench/answering.py says what that costs and how
often it is right.
"""

from math import acos, log10, pi
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.types import FRAME_MS, MULAW_8K

Who = Literal["human", "machine", "unknown"]

FRAME = MULAW_8K.frame_bytes
WATCH_MS = 30_000  # no greeting worth waiting for is longer
LOOK_MS = 100
NOTHING_MS = 5_000  # no voice by then, so far: Twilio's and Asterisk's limits are 5 and 2.5 s

SHORT_GREETING_MS = 2_400  # as Twilio's own; Asterisk's AMD says 1,500
LONG_GREETING_MS = 5_500  # "Thank you for calling Elm Street Clinic, this is Maria, how can I help you?": 4 to 5.4 s
PAUSE_MS = 700  # a comma is 150 to 300 ms, a full stop up to 600; who waits for an answer waits longer
AFTER_MS = 900
WORD_MS = 100  # a click or a breath is shorter
MESSAGE_OVER_MS = 2_000  # of quiet after a greeting: its machine listens, and had no beep

QUIET_DBFS = -46.0
OVER_FLOOR_DB = 9.0
BELOW_PEAK_DB = 24.0  # our own voice, coming back, is further down on most lines
FLOOR_PERCENTILE = 10
LIVELY_DB = 3.5  # standard deviation of level within talk: speech has 6 to 12 dB, music and noise 0 to 3
LIVELY_FROM_MS = 1_500  # a word may be one syllable
TONAL = 0.97  # of a frame's energy in its two strongest frequencies: the tones of telephone systems
TONES = 0.6  # of an utterance's loud frames: then it is none

BEEP_HZ = (400.0, 2_150.0)
BEEP_MIN_MS, BEEP_MAX_MS = 140, 1_500
RINGING_HZ, RINGING_MIN_MS = (400.0, 490.0), 350  # E.180's ringing, busy and congestion
BEEP_DBFS = -40.0
PURITY = 0.94  # of a frame's energy, at one frequency
STEADY = 0.012  # of its frequency, from frame to frame
AFTER_BEEP_MS, AFTER_BEEP_DB = 80, 15.0

_SILENT_DBFS = -90.0
_NOT_A_SINE = 0.25
_N = np.arange(FRAME, dtype=np.float32)
_HANN = np.hanning(FRAME).astype(np.float32)


class AnsweringDetector:
    """One leg's, from its answer on. `who` is None until it is decided; unknown may still become either, and a beep
    turns human into machine."""

    __slots__ = (
        "_beep",
        "_greeting_ms",
        "_levels",
        "_loud_dbfs",
        "_quiet_ms",
        "_rest",
        "_tonal",
        "beep_ms",
        "decided_ms",
        "heard_ms",
        "message_over_ms",
        "who",
    )

    def __init__(self, greeting_ms: int = SHORT_GREETING_MS) -> None:
        self.who: Who | None = None
        self.decided_ms = 0
        """Of audio heard until then, the last time it was."""
        self.beep_ms: int | None = None
        """Where the first beep began."""
        self.message_over_ms: int | None = None
        """Where the quiet after a machine's greeting began."""
        self._greeting_ms = greeting_ms
        self.heard_ms = 0
        self._levels = np.full(WATCH_MS // FRAME_MS, _SILENT_DBFS, np.float32)
        self._tonal = np.zeros(WATCH_MS // FRAME_MS, np.bool_)
        self._beep = Beep()
        self._rest = b""
        self._loud_dbfs, self._quiet_ms = QUIET_DBFS, 0

    @property
    def done(self) -> bool:
        """Nothing more is to come: feed() need not be called."""
        return self.heard_ms >= WATCH_MS or self.beep_ms is not None or self.message_over_ms is not None

    def feed(self, audio: bytes) -> bool:
        """MULAW_8K of any length. Whether `who` has changed. What is not looked at any more costs nothing."""
        before = self.who
        audio = self._rest + audio if self._rest else audio
        whole = len(audio) - len(audio) % FRAME
        self._rest = audio[whole:]
        for at in range(0, whole, FRAME):
            if not self.done:
                self._frame(audio[at : at + FRAME])
        return self.who != before

    def _frame(self, frame: bytes) -> None:
        samples = g711.MULAW_F32.take(np.frombuffer(frame, np.uint8))
        power = float(samples @ samples) / FRAME
        level = 10 * log10(power) if power > 1e-9 else _SILENT_DBFS
        at = self.heard_ms // FRAME_MS
        self._levels[at] = level
        self.heard_ms += FRAME_MS
        hz = _tone(samples, power) if level >= BEEP_DBFS else None
        began = self._beep.frame(hz, level)
        if began is not None:
            self.beep_ms = self.heard_ms - began
            self._decide("machine")
        elif self.who == "machine":
            self._quiet_ms = self._quiet_ms + FRAME_MS if level < self._loud_dbfs else 0
            if self._quiet_ms >= MESSAGE_OVER_MS:
                self.message_over_ms = self.heard_ms - self._quiet_ms
        elif self.who in (None, "unknown"):
            self._tonal[at] = level > QUIET_DBFS and _is_tonal(samples)
            if self.heard_ms % LOOK_MS == 0:
                self._look(self._levels[: at + 1], self._tonal[: at + 1])

    def _look(self, levels: NDArray[np.float32], tonal: NDArray[np.bool_]) -> None:
        talk = _talk(levels)
        first = next((t for t in talk if t[2] >= WORD_MS and _is_voice(levels[t[0] : t[1]], tonal[t[0] : t[1]])), None)
        if first is None:
            if self.heard_ms >= NOTHING_MS and self.who is None:
                self._decide("unknown")
            return
        began, ended, _ = first
        if (ended - began) * FRAME_MS >= self._greeting_ms:
            self._decide("machine")
        elif (len(levels) - ended) * FRAME_MS >= AFTER_MS:
            self._decide("human")

    def _decide(self, who: Who) -> None:
        self.who, self.decided_ms = who, self.heard_ms
        self._loud_dbfs = loud_dbfs(self._levels[: self.heard_ms // FRAME_MS])


def loud_dbfs(levels: NDArray[np.float32]) -> float:
    """From where on a frame among these is talk."""
    floor, peak = np.percentile(levels, (FLOOR_PERCENTILE, 98))
    return max(QUIET_DBFS, float(floor) + OVER_FLOOR_DB, float(peak) - BELOW_PEAK_DB)


def _talk(levels: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """Utterances: first frame, frame after the last, and how many ms of it were loud. A short pause ends none."""
    loud = np.flatnonzero(levels > loud_dbfs(levels))
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > PAUSE_MS // FRAME_MS)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(loud) - 1)
    return [(int(loud[a]), int(loud[b]) + 1, int(b - a + 1) * FRAME_MS) for a, b in zip(starts, ends, strict=True)]


def _is_tonal(samples: NDArray[np.float32]) -> bool:
    spectrum = np.abs(np.fft.rfft(samples * _HANN)) ** 2
    whole, found = float(spectrum.sum()), 0.0
    for _ in range(2):
        peak = int(spectrum.argmax())
        around = spectrum[max(0, peak - 2) : peak + 3]
        found += float(around.sum())
        around[:] = 0.0
    return found >= TONAL * whole


def _is_voice(levels: NDArray[np.float32], tonal: NDArray[np.bool_]) -> bool:
    """It is not made of tones, and if it lasts, rises and falls with every syllable."""
    least = float(levels.max()) - BELOW_PEAK_DB
    if float(np.mean(tonal[levels > least])) >= TONES:
        return False
    return len(levels) * FRAME_MS < LIVELY_FROM_MS or float(np.std(np.maximum(levels, least))) >= LIVELY_DB


class Beep:
    """A steady tone, frame after frame, and the quiet after it."""

    __slots__ = ("_hz", "_lasts_ms", "_level", "_quiet_ms")

    def __init__(self) -> None:
        self._hz = self._level = 0.0
        self._lasts_ms = self._quiet_ms = 0

    def frame(self, hz: float | None, level: float) -> int | None:
        """`hz`: of the tone that the frame is; None: it is none. How many ms ago the beep began, once it is over and
        was one."""
        if hz is not None and self._lasts_ms and not self._quiet_ms and abs(hz - self._hz) <= STEADY * self._hz:
            self._lasts_ms += FRAME_MS
            return None
        if hz is None and self._long_enough():
            # The frame in which it ends is a tone and quiet, and neither.
            self._quiet_ms += FRAME_MS
            if self._quiet_ms > FRAME_MS and level > self._level - AFTER_BEEP_DB:
                self._lasts_ms = self._quiet_ms = 0  # something else goes on: a note of music
            elif self._quiet_ms >= AFTER_BEEP_MS + FRAME_MS:
                return self._lasts_ms + self._quiet_ms
            return None
        self._quiet_ms = 0
        self._lasts_ms, self._hz, self._level = (FRAME_MS, hz, level) if hz is not None else (0, 0.0, 0.0)
        return None

    def _long_enough(self) -> bool:
        ringing = RINGING_HZ[0] <= self._hz <= RINGING_HZ[1]
        return BEEP_MIN_MS <= self._lasts_ms <= (RINGING_MIN_MS if ringing else BEEP_MAX_MS)


def _tone(samples: NDArray[np.float32], power: float) -> float | None:
    """The frequency of what is nearly a sine and nothing else. Of a sine, x[n-1] + x[n+1] = 2 cos(w) x[n]."""
    middle = samples[1:-1]
    both = samples[:-2] + samples[2:]
    energy = float(middle @ middle)
    if energy <= 0.0:
        return None
    half = float(both @ middle) / energy / 2
    left = both - 2 * half * middle
    if not -1.0 < half < 1.0 or float(left @ left) > _NOT_A_SINE * energy:
        return None
    w = acos(half)
    hz = w * MULAW_8K.rate_hz / (2 * pi)
    if not BEEP_HZ[0] <= hz <= BEEP_HZ[1]:
        return None
    turning = np.exp(np.complex64(-1j * w) * _N)
    at_it = 2 * abs(complex(samples @ turning)) ** 2 / FRAME**2
    return hz if at_it >= PURITY * power else None
