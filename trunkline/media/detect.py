"""Keypad tones found in a call's audio, for trunks that send no telephone-events (an option of the trunk).

Audio is looked at in blocks of 10 ms. A block gives a complex amplitude at each of the eight frequencies of ITU-T Q.23;
from three blocks in a row comes a digit, when by the limits of Q.24:

- the strongest low and the strongest high frequency are the same in all three, and neither drops out;
- each is within FREQUENCY_LIMIT of its nominal value. How far off is told by how fast the phase turns from block to
  block, which is far finer than what a filter of that length could separate (1.5 % must pass, 3.5 % must not);
- the two levels are within the twist limits, and together they are nearly all that sounds (PURITY): two pure tones and
  nothing else is what voices and music hardly ever are. Both are judged at the frequencies found, not at the nominal.

So a tone of 40 ms is found wherever it lies, one below 25 ms never. A digit is over when GAP_BLOCKS in a row lack it:
a pause of 40 ms always holds four, a lost packet of 20 ms at most three, so the one separates two equal digits and the
other does not split one.

Quiet frames cost one decode and one energy; others a product of two small matrices.
"""

from math import atan2, log10, pi, sin

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711
from trunkline.media.dtmf import HIGH_HZ, KEYPAD
from trunkline.types import MULAW_8K

RATE_HZ = MULAW_8K.rate_hz
BLOCK = RATE_HZ // 100
LOW_HZ = tuple(hz for hz, _ in KEYPAD)
FREQUENCY_LIMIT = 0.025  # between what must pass (1.5 %) and what must not (3.5 %)
MAX_TWIST_DB, MAX_REVERSE_TWIST_DB = 5.5, 9.5  # Q.24: high over low by 4 dB, low over high by 8, and our own error
PURITY = 0.8
BLOCK_PURITY = 0.55  # at the nominal frequencies, so lower: a first look
STEADY = 0.6  # the weakest of three blocks against the strongest, in power
HOLDING = 0.3  # of a digit's power: below, it is not sounding
GAP_BLOCKS = 4
MIN_DBM0 = -33.0  # of both tones: Q.24 asks for -25 (AT&T) to -29 (NTT) each

_FULL_SCALE = 32124 / 32768 / 10 ** (3.17 / 20)  # amplitude of 0 dBm0
_MIN_ENERGY = BLOCK * (_FULL_SCALE * 10 ** (MIN_DBM0 / 20)) ** 2 / 2
_HZ = np.array(LOW_HZ + HIGH_HZ, dtype=np.float64)
_ANGLES = 2 * np.pi * np.outer(np.arange(BLOCK), _HZ) / RATE_HZ
_KERNEL: NDArray[np.float32] = np.hstack((np.cos(_ANGLES), -np.sin(_ANGLES))).astype(np.float32)
_TURN = [complex(np.exp(-2j * np.pi * hz * BLOCK / RATE_HZ)) for hz in _HZ]  # what a block's time turns the phase by


def _separator(low: int, high: int) -> tuple[tuple[float, ...], ...]:
    """What a block's products with two frequencies must go through to be the amplitudes of two tones: in 10 ms each
    leaks into the other, into the weaker of a twisted pair badly."""
    chosen = _KERNEL[:, [low, low + 8, high, high + 8]].astype(np.float64)
    return tuple(map(tuple, np.linalg.inv(chosen.T @ chosen).tolist()))


_SEPARATORS = {(low, high): _separator(low, high) for low in range(4) for high in range(4, 8)}


class _Block:
    """A block in which two tones, one of each group, are most of what sounds."""

    __slots__ = ("energy", "fitted", "high", "high_z", "low", "low_z")

    def __init__(self, low: int, high: int, z: list[float], energy: float) -> None:
        self.low, self.high, self.energy = low, high, energy
        b0, b1, b2, b3 = z[low], z[low + 8], z[high], z[high + 8]
        c, s, d, t = (r[0] * b0 + r[1] * b1 + r[2] * b2 + r[3] * b3 for r in _SEPARATORS[low, high])
        self.low_z, self.high_z = complex(c, s), complex(d, t)
        self.fitted = c * b0 + s * b1 + d * b2 + t * b3
        """How much of the energy the two explain."""


class DtmfDetector:
    """One call's. feed() for every frame in order; state is 30 ms of analysis, no audio."""

    __slots__ = ("_absent", "_at", "_blocks", "_power", "_rest", "key")

    def __init__(self) -> None:
        self.key = ""
        """The digit that is sounding."""
        self._at: tuple[int, int] = (0, 0)
        self._power = 0.0
        self._absent = 0
        self._blocks: list[_Block] = []
        self._rest = b""

    def feed(self, audio: bytes) -> str:
        """MULAW_8K of any length: the digits recognised in it, each once, some 30 ms after it began; mostly none."""
        if self._rest:
            audio = self._rest + audio
        whole = len(audio) - len(audio) % BLOCK
        self._rest = audio[whole:]
        if not whole:
            return ""
        samples = g711.MULAW_F32.take(np.frombuffer(audio, np.uint8, whole)).reshape(-1, BLOCK)
        energies = np.einsum("ij,ij->i", samples, samples).tolist()
        if max(energies) < _MIN_ENERGY:
            self._blocks.clear()
            if self.key:
                self._lacking(len(energies))
            return ""
        found = ""
        for z, energy in zip((samples @ _KERNEL).tolist(), energies, strict=True):
            found += self._block(z, energy)
        return found

    def _block(self, z: list[float], energy: float) -> str:
        power = [z[i] * z[i] + z[i + 8] * z[i + 8] for i in range(8)]
        if self.key:
            low, high = self._at
            # Each of the two by itself: of a tone that goes on, neither stops.
            if min(power[low], power[high]) >= HOLDING * self._power and self._pure(power[low] + power[high], energy):
                self._absent = 0
            else:
                self._lacking(1)
        if energy < _MIN_ENERGY:
            self._blocks.clear()
            return ""
        low = max(range(4), key=power.__getitem__)
        high = max(range(4, 8), key=power.__getitem__)
        blocks = self._blocks
        if not self._pure(power[low] + power[high], energy):
            blocks.clear()
            return ""
        if blocks and (blocks[-1].low != low or blocks[-1].high != high):
            blocks.clear()
        blocks.append(_Block(low, high, z, energy))
        if len(blocks) < 3:
            return ""
        key = KEYPAD[low][1][high - 4]
        new = key != self.key and _is_digit(blocks)
        weakest = min(power[low], power[high])
        del blocks[0]
        if not new:
            return ""
        self.key, self._at, self._absent, self._power = key, (low, high), 0, weakest
        return key

    def _pure(self, power: float, energy: float) -> bool:
        return power * 2 / BLOCK >= BLOCK_PURITY * energy

    def _lacking(self, blocks: int) -> None:
        self._absent += blocks
        if self._absent >= GAP_BLOCKS:
            self.key = ""


def _is_digit(blocks: list[_Block]) -> bool:
    low = _tone(blocks[0].low, [b.low_z for b in blocks])
    high = _tone(blocks[0].high, [b.high_z for b in blocks])
    if low is None or high is None:
        return False
    (low_power, low_seen), (high_power, high_seen) = low, high
    if not -MAX_REVERSE_TWIST_DB <= 10 * log10(high_power / low_power) <= MAX_TWIST_DB:
        return False
    seen = (low_power * low_seen + high_power * high_seen) / (low_power + high_power)
    return sum(b.fitted for b in blocks) >= PURITY * seen * sum(b.energy for b in blocks)


def _tone(index: int, z: list[complex]) -> tuple[float, float] | None:
    """A steady tone near this frequency: its power, and how much of that is seen at the nominal frequency. None where
    it is not that."""
    powers = [abs(value) ** 2 for value in z]
    if min(powers) < STEADY * max(powers):
        return None
    turned = (z[0].conjugate() * z[1] + z[1].conjugate() * z[2]) * _TURN[index]
    off_hz = atan2(turned.imag, turned.real) * RATE_HZ / (2 * pi * BLOCK)
    if abs(off_hz) > FREQUENCY_LIMIT * float(_HZ[index]):
        return None
    half_turn = pi * off_hz * BLOCK / RATE_HZ
    seen = (sin(half_turn) / half_turn) ** 2 if half_turn else 1.0
    return sum(powers) / seen, seen
