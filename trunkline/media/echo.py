"""Echo guard: is what sounds like speech only our own voice coming back?

A speakerphone returns what we play 50-400 ms later, 10-20 dB down, through a small room and G.711. We know what we
play, so the question has an answer: can the last 32 ms received be had by filtering what was played? Per call, and only
asked while the agent speaks (or spoke half a second ago) and the window scored as speech.

1. **Level.** Louder than what was played less 6 dB cannot be its echo. The cheapest answer, so the first.
2. **Search**, while no path is known. Normalised cross-correlation over all plausible delays (one FFT pair), both sides
   pre-emphasised: voices share pitch and formants, and without it a caller's vowel matches some vowel of ours. Only as
   much of the past 128 ms is used as is loud, for at an onset the rest is silence and would dilute the match.
3. **Path.** A match gives the delay; least squares over the same samples gives a short filter (12 ms: handset and the
   room's first reflections). It is believed after it has explained a second window, then it is used and refined.
4. **Check**, once the path is known: filter what was played, subtract, look at what is left of the last 32 ms. An echo
   leaves a part that is a property of the call (late reflections, coding), which is learned; a caller leaves more.
   So double talk is speech, also where the caller is the quieter of the two.
5. **Shift.** What the far end plays *now* is known to some +-60 ms and may jump (a clear, a stall). Where the check
   fails, the known filter's output is looked for nearby; a caller does not match it, a moved echo does, sharply.
   Windows are asked about a whole number of windows apart, so arrival jitter below 16 ms is taken out beforehand.
6. **A new run.** Where playing begins anew (an answer, a resumption) the far end is off by another few ms, and a shift
   found from the first 32 ms of a word is often a pitch period wrong. So at a run's beginning the shift is looked for
   with each window again, over all that was heard of it, until it explains what is heard as well as the path used to.
   Until then, at most a third of a second, what is no louder than our echo may be is held to be it.
7. **Another path** (the caller moved): after half a second unexplained, the search begins again.

A caller is never explained by silence: with nothing played, everything is speech.
"""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from trunkline.media.g711 import ALAW_F32, MULAW_F32
from trunkline.types import Format

Floats = NDArray[np.float32]

RING_MS = 2048
NEWEST_MS, OLDEST_MS = -60, 470  # plausible delays: 50-400 ms of line and room, either way 60 ms of doubt and some
WINDOW_MS = 32
RECENT_MS = 128
PATH_MS = 12
PATH_LEAD_MS = 2  # of the filter before the delay found: a room's loudest reflection need not be its first
SHIFT_MS = 80

PRE_EMPHASIS = 0.7
MATCH = {1: 0.66, 2: 0.56, 3: 0.5, 4: 0.46}
"""Correlation needed, by the number of loud windows at hand. 1-2 % of a caller's windows reach it (bench/echo.py)."""
POSSIBLE = 0.4
"""Correlation at which a moment between two windows is left to its window. In 24 minutes of echo at -10 to -20 dB the
guard let 73 beginnings through, and 69 without such glances (bench/onsets.py)."""
SHIFT_MATCH = 0.8
SETTLE_MS = 320
SETTLED_MATCH, SETTLED_AFTER = 0.8, 2
SETTLING_LEVEL = 2.0
LOST_AFTER = 16
"""Windows in a row that a known path could not explain: it is no more, or the caller talks on and on."""
SNAP_MS = 1
LOUDEST_ECHO = 0.25  # energy, -6 dB
BELIEVED_AFTER = 2
CANDIDATE_REST = 0.4  # a candidate must explain this much of its next window
CALLER_RATIO = 4.0
"""What is left is a caller when it is 6 dB above what this call's echo leaves."""
EARLY_RATIO, EARLY_WINDOWS = 6.0, 12
"""A path known for less than half a second leaves more."""
LATE = 0.5
REST_INITIAL, REST_LEAST, REST_MOST = 0.1, 0.01, 0.35
NOISE_INITIAL = 4e-6  # -54 dBFS
LEARN = 0.1
REGULARISE = 1e-3
FORGET = 0.95
REFINE_EVERY = 8
ROWS = 16
"""Of a matrix product at once: OpenBLAS spreads larger ones over all cores, and then waits for them, spinning."""


class EchoGuard:
    """One call's. `played` what the far end plays, by position on the playback clock; then ask `explains`.

    `format` is that of the lane out; the lane in has the same rate. The reference is kept as it was sent (16 KiB).
    """

    def __init__(self, format: Format) -> None:
        self._per_ms = format.rate_hz // 1000
        self._lut = {"mulaw": MULAW_F32, "alaw": ALAW_F32, "pcm16": None}[format.encoding]
        self._dtype = np.dtype(np.int16 if self._lut is None else np.uint8)
        self._silence = np.frombuffer(format.silence, self._dtype)[0]
        self._size = RING_MS * self._per_ms
        self._ring = np.full(self._size, self._silence, self._dtype)
        self._end = self._run_at = 0
        self._window = WINDOW_MS * self._per_ms
        self._taps = PATH_MS * self._per_ms
        self._lead = PATH_LEAD_MS * self._per_ms
        self.reset()

    # --- the reference ---

    def played(self, position: int, audio: bytes) -> None:
        """`audio` is (or will be) played from sample `position` on. May skip ahead (silence) or rewrite."""
        samples = np.frombuffer(audio, self._dtype)
        if abs(position - self._end) <= SNAP_MS * self._per_ms:
            position = self._end  # rounded, not a gap: a missing sample would be a click
        if position != self._end:
            self._run_at = position
        if position > self._end:
            self._write(
                max(self._end, position - self._size), np.full(min(position - self._end, self._size), self._silence)
            )
        self._end = position + len(samples)
        kept = samples[-self._size :]
        self._write(self._end - len(kept), kept)

    def cut(self, position: int) -> None:
        """What was to be played from here on never was (`clear`)."""
        if position < self._end:
            self._write(position, np.full(min(self._end - position, self._size), self._silence))
            self._end = position

    def _write(self, position: int, samples: NDArray[np.generic]) -> None:
        start = position % self._size
        head = min(len(samples), self._size - start)
        self._ring[start : start + head] = samples[:head]
        self._ring[: len(samples) - head] = samples[head:]

    def _reference(self, start: int, end: int) -> Floats:
        """What was played in [start, end): zeros beyond what is known."""
        out = np.zeros(end - start, np.float32)
        lo, hi = max(start, self._end - self._size, 0), min(end, self._end)
        if lo < hi:
            a, b = lo % self._size, hi % self._size
            raw = self._ring[a:b] if a < b else np.concatenate((self._ring[a:], self._ring[:b]))
            out[lo - start : hi - start] = raw / np.float32(32768) if self._lut is None else self._lut.take(raw)
        return out

    # --- the question ---

    def reset(self) -> None:
        """Forget the path: another line, another room."""
        self.delay: int | None = None
        """Samples between playing and hearing, once a match was found."""
        self.trusted = 0
        """Windows the path has explained in a row with none unexplained, up to BELIEVED_AFTER."""
        self.rest = REST_INITIAL
        """Part of the echo's energy that the path leaves."""
        self.noise = NOISE_INITIAL
        self._path: Floats = np.zeros(self._taps, np.float32)
        self._normal: Floats = np.zeros((self._taps, self._taps), np.float32)
        self._cross: Floats = np.zeros(self._taps, np.float32)
        self._refined = 0
        self._unexplained = 0
        self._doubted = 0.0
        self._asked_at: int | None = None
        self._settled_run: int | None = None
        self._settled = 0  # windows that the shift found for this run explained

    @property
    def known(self) -> bool:
        return self.delay is not None and self.trusted >= BELIEVED_AFTER

    def explains(self, recent: Floats, playback_position: int) -> bool:
        """Whether the last 32 ms of `recent` are our echo. `recent` (32-128 ms) ends at the instant at which the far
        end plays sample `playback_position`, give or take 60 ms."""
        position = self._steady(playback_position)
        window = recent[-self._window :]
        energy = float(window.dot(window)) / len(window)
        if self.known and energy < SETTLING_LEVEL * self.noise:
            return True  # the line's noise, after our own voice
        if self._too_loud(energy, position):
            return False
        if self.delay is None:
            return self._search(recent, position)
        if self.known and self._settling(position, self.delay):
            explained = self._settle(recent, position, self.delay, energy)
        else:
            explained = self._check(recent, position, self.delay) or (self.known and self._shift(recent, position))
        if explained:
            self.trusted = min(self.trusted + 1, BELIEVED_AFTER)
            if self._unexplained == 1:  # a caller speaks longer than one window: that was our echo after all
                self.rest += LEARN * (self._doubted - self.rest)
            self._unexplained = 0
            return True
        self._unexplained += 1
        if self.known and self._unexplained < LOST_AFTER:
            return False
        self.reset()
        return self._search(recent, position)

    def may_explain(self, recent: Floats, playback_position: int) -> bool:
        """Whether `explains` might say so at the end of this window: nothing is learnt of it. On a line that has echoed
        that is always so, unless it is too loud for an echo."""
        window = recent[-self._window :]
        energy = float(window.dot(window)) / len(window)
        if self._too_loud(energy, playback_position):
            return False
        if self.delay is not None:
            return True
        newest, oldest = NEWEST_MS * self._per_ms, OLDEST_MS * self._per_ms
        match, _ = self._best_match(window, playback_position, newest, oldest, None)
        return match >= POSSIBLE

    def _settling(self, position: int, delay: int) -> bool:
        return self._settled_run != self._run_at and position - delay - self._run_at > -SHIFT_MS * self._per_ms

    def _settle(self, recent: Floats, position: int, delay: int, energy: float) -> bool:
        """Nothing is learnt meanwhile: a path refined where it does not lie is spoilt for seconds."""
        reach, heard = SHIFT_MS * self._per_ms, position - delay - self._run_at
        loud = recent[-max(self._window, min(heard + reach, len(recent))) :]
        match, found = self._best_match(loud, position, delay - reach, delay + reach, self._path)
        if match >= SETTLED_MATCH and self._check(recent, position, found, learn=False):
            self.delay = found
            self._settled += 1
            if self._settled >= SETTLED_AFTER:
                self._settled_run, self._settled = self._run_at, 0
            return True
        if heard > SETTLE_MS * self._per_ms:
            return self._check(recent, position, delay) or self._shift(recent, position)
        expected = self._expected(self._window + 2 * reach, position + reach, delay)
        total = np.concatenate(([0.0], np.cumsum(np.square(expected, dtype=np.float64))))
        loudest = float((total[self._window :] - total[: -self._window]).max()) / self._window
        return energy < SETTLING_LEVEL * loudest

    def _steady(self, position: int) -> int:
        """Without the jitter of arrival."""
        if self._asked_at is not None:
            position = self._asked_at + round((position - self._asked_at) / self._window) * self._window
        self._asked_at = position
        return position

    def _too_loud(self, energy: float, position: int) -> bool:
        played = self._reference(
            position - OLDEST_MS * self._per_ms - self._window, position - NEWEST_MS * self._per_ms
        )
        blocks = played[: len(played) // 80 * 80].reshape(-1, 80)
        loudest = float(np.einsum("bs,bs->b", blocks, blocks).max()) / 80
        return energy > LOUDEST_ECHO * loudest

    def _search(self, recent: Floats, position: int) -> bool:
        blocks = recent[len(recent) % self._window :].reshape(-1, self._window)
        energies = np.einsum("bs,bs->b", blocks, blocks)
        loud = 1
        while loud < len(blocks) and energies[-loud - 1] > 0.05 * energies.max():
            loud += 1
        x = recent[-loud * self._window :]
        match, delay = self._best_match(x, position, NEWEST_MS * self._per_ms, OLDEST_MS * self._per_ms, None)
        if match < MATCH[min(loud, 4)]:
            return False
        self.delay = delay
        self._learn(x, position, fresh=True)
        return True

    def _best_match(self, x: Floats, position: int, newest: int, oldest: int, path: Floats | None) -> tuple[float, int]:
        """Best normalised correlation of x with what was played (through the path, if given), and its delay."""
        n = len(x)
        played = self._reference(position - n - oldest, position - newest)
        if path is not None:
            # Aligned so that delay `d` of the result means the same as in _check.
            padded = self._reference(position - n - oldest - len(path) + 1 + self._lead, position - newest + self._lead)
            played = np.convolve(padded, path, "valid")
        emphasised, target = _pre_emphasise(played), _pre_emphasise(x)
        m = len(target)
        size = _fft_size(len(emphasised))
        spectrum = np.fft.rfft(emphasised, size) * np.conj(np.fft.rfft(target, size))
        correlation = np.fft.irfft(spectrum, size)[: len(emphasised) - m + 1]
        total = np.concatenate(([0.0], np.cumsum(np.square(emphasised, dtype=np.float64))))
        energy = total[m:] - total[:-m]
        # The small term keeps near-silence, where any noise correlates, from winning.
        score = correlation / np.sqrt(float(target.dot(target)) * (energy + 0.01 * energy.max()) + 1e-12)
        if path is None:
            score = np.abs(score)
        best = int(score.argmax())
        if path is None and float(target.dot(target)) > LOUDEST_ECHO * float(energy[best]):
            return 0.0, 0
        return float(score[best]), oldest - best

    def _expected(self, n: int, position: int, delay: int) -> Floats:
        """What the known path makes of what was played, over the last n samples."""
        end = position - delay + self._lead
        expected: Floats = np.convolve(self._reference(end - n - self._taps + 1, end), self._path, "valid")
        return expected

    def _check(self, recent: Floats, position: int, delay: int, *, learn: bool = True) -> bool:
        window = recent[-self._window :]
        before, expected = np.split(self._expected(2 * self._window, position, delay), 2)
        left = window - expected
        left_energy = float(left.dot(left)) / len(left)
        # Reflections later than the path come from what was loud before this window.
        echo_energy = max(float(expected.dot(expected)), LATE * float(before.dot(before))) / len(left)
        if not self.known:
            explained = left_energy < CANDIDATE_REST * float(window.dot(window)) / len(left)
        else:
            ratio = CALLER_RATIO if self._refined >= EARLY_WINDOWS else EARLY_RATIO
            explained = left_energy < ratio * (self.rest * echo_energy + self.noise)
        if explained and learn:
            self._account(left_energy, echo_energy)
            self._refine(window, position)
        elif not explained:
            self._doubted = min(left_energy / (echo_energy + self.noise), REST_MOST)
        return explained

    def _account(self, left: float, echo: float) -> None:
        if echo > 4 * self.noise:
            part = max(left - self.noise, 0.0) / echo
            self.rest = min(max(self.rest + LEARN * (part - self.rest), REST_LEAST), REST_MOST)
        self.noise = min(max(min(left, self.noise * 1.02), 1e-7), 4e-5)

    def _refine(self, window: Floats, position: int) -> None:
        self._refined += 1
        if self._refined < 8 or self._refined % REFINE_EVERY == 0:
            self._learn(window, position)

    def _shift(self, recent: Floats, position: int) -> bool:
        assert self.delay is not None
        reach = SHIFT_MS * self._per_ms
        match, delay = self._best_match(
            recent[-2 * self._window :], position, self.delay - reach, self.delay + reach, self._path
        )
        if match < SHIFT_MATCH or not self._check(recent, position, delay, learn=False):
            return False
        self.delay = delay
        return True

    def _learn(self, x: Floats, position: int, *, fresh: bool = False) -> None:
        """Least squares for the path over these samples and, less and less, those before."""
        assert self.delay is not None
        end = position - self.delay + self._lead
        target = _pre_emphasise(x)
        target = target[len(target) % ROWS :]
        played = _pre_emphasise(self._reference(end - len(target) - self._taps, end))
        rows = np.lib.stride_tricks.sliding_window_view(played, self._taps).reshape(-1, ROWS, self._taps)
        keep = 0.0 if fresh else FORGET
        self._normal = keep * self._normal + np.matmul(rows.transpose(0, 2, 1), rows).sum(axis=0)
        self._cross = keep * self._cross + np.matmul(target.reshape(-1, 1, ROWS), rows).sum(axis=(0, 1))
        loading = REGULARISE * float(np.trace(self._normal)) / self._taps + 1e-9
        solved = np.linalg.solve(self._normal + loading * np.eye(self._taps, dtype=np.float32), self._cross)
        self._path = solved[::-1].astype(np.float32)  # as np.convolve wants it


def _pre_emphasise(x: Floats) -> Floats:
    emphasised: Floats = x[1:] - np.float32(PRE_EMPHASIS) * x[:-1]
    return emphasised


def _fft_size(n: int) -> int:
    """The least 2^a 3^b 5^c that is not below n, near enough: FFTs of other sizes take many times longer."""
    return _FFT_SIZES[bisect_left(_FFT_SIZES, n)]


_FFT_SIZES: list[int] = sorted(2**a * 3**b * 5**c for a in range(5, 16) for b in range(3) for c in range(3))
