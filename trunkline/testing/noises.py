"""What people and lines do that is no speech: coughs, hums, doors, keyboards, bursts of noise. Mono at 8 kHz, seeded.

Synthesized, so that a test needs no recordings and each seed is another cough. They are modelled on what makes such
sounds hard for a detector: a cough is noise through a vocal tract, a hum is a voice without words.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.testing.caller.speech import Samples, level_dbfs

RATE_HZ = 8000
VOICE_DBFS = -24.0
"""Of coughs, hums and throats, over their whole length: somewhat below speech."""

Noise = Callable[[int], Samples]
Doubles = NDArray[np.float64]


def cough(seed: int) -> Samples:
    """150-450 ms: an explosive burst of noise through the throat's formants that dies away; every third is a double."""
    rng = np.random.default_rng((1, seed))
    if seed % 3:
        return _at(_one_cough(rng, int(rng.integers(150, 451))), VOICE_DBFS)
    first, gap, second = rng.integers(120, 200), rng.integers(40, 90), rng.integers(110, 180)
    parts = [_one_cough(rng, int(first)), np.zeros(_samples(int(gap))), 0.7 * _one_cough(rng, int(second))]
    return _at(np.concatenate(parts), VOICE_DBFS)


def _one_cough(rng: np.random.Generator, length_ms: int) -> Doubles:
    n = _samples(length_ms)
    shape = _envelope(n, attack_ms=5, decay_ms=length_ms / 3.5)
    # The glottis: closed and noisy at first, and in many coughs some voice towards the end.
    voice = _pulses(n, float(rng.uniform(110, 220)), float(rng.uniform(80, 150))) * np.linspace(0, 1, n)
    source = rng.standard_normal(n) + float(rng.uniform(0, 0.6)) * voice
    throat = [(rng.uniform(450, 750), 180), (rng.uniform(1100, 1600), 250), (rng.uniform(2300, 2800), 350)]
    return _through(source, throat) * shape


def throat(seed: int) -> Samples:
    """Clearing it, 250-450 ms: a rough, low, unsteady voice."""
    rng = np.random.default_rng((2, seed))
    n = _samples(int(rng.integers(250, 451)))
    rough = np.repeat(rng.uniform(0.2, 1.0, n // 80 + 1), 80)[:n]
    source = _pulses(n, float(rng.uniform(70, 110)), float(rng.uniform(60, 90))) * rough + 0.5 * rng.standard_normal(n)
    tract = [(rng.uniform(350, 500), 120), (rng.uniform(900, 1200), 200), (2400.0, 400)]
    return _at(_through(source, tract) * _envelope(n, attack_ms=40, decay_ms=250), VOICE_DBFS)


def hum(seed: int) -> Samples:
    """ "mm-hm", 250-450 ms: two voiced notes through closed lips, a short dip between them."""
    rng = np.random.default_rng((3, seed))
    n = _samples(int(rng.integers(250, 451)))
    low = float(rng.uniform(95, 210))
    high = low * float(rng.uniform(1.12, 1.4))
    split = int(n * rng.uniform(0.4, 0.55))
    source = np.concatenate([_pulses(split, low, low * 0.97), _pulses(n - split, high, high * 0.95)])
    dip = 1.0 - 0.85 * np.exp(-(((np.arange(n) - split) / _samples(18)) ** 2))
    nasal = [(rng.uniform(240, 300), 60), (rng.uniform(950, 1100), 200), (2200.0, 300)]
    tilted = _through(_low_passed(source, 0.75), nasal)
    return _at(tilted * dip * _envelope(n, attack_ms=30, decay_ms=400), VOICE_DBFS)


def burst(seed: int) -> Samples:
    """Line noise of -44 to -30 dBFS for 100-800 ms: white, or crackling, with hard edges."""
    rng = np.random.default_rng((4, seed))
    n = _samples(int(rng.integers(100, 801)))
    noise = rng.standard_normal(n)
    if seed % 2:
        noise *= np.repeat(rng.exponential(1.0, n // 40 + 1), 40)[:n]
    return _at(noise, float(rng.uniform(-44.0, -30.0)))


def door(seed: int) -> Samples:
    """A slam, 300 ms: a thud that rings low, and the latch."""
    rng = np.random.default_rng((5, seed))
    n = _samples(300)
    t = np.arange(n) / RATE_HZ
    thud = np.zeros(n)
    for frequency in (rng.uniform(70, 110), rng.uniform(140, 220), rng.uniform(300, 420)):
        thud += np.sin(2 * np.pi * frequency * t + rng.uniform(0, 6)) * np.exp(-t * rng.uniform(14, 30))
    slap = rng.standard_normal(n) * np.exp(-t * 60)
    latch = rng.standard_normal(n) * np.exp(-np.abs(t - 0.09) * 400) * 0.4
    return _at(thud + slap + latch, -20.0)


def keyboard(seed: int) -> Samples:
    """Four to eight key strokes in half a second to a second: each a click of a few ms."""
    rng = np.random.default_rng((6, seed))
    strokes = int(rng.integers(4, 9))
    n = _samples(strokes * 125)
    clicks = np.zeros(n)
    for i in range(strokes):
        at = _samples(int(i * 125 + rng.integers(0, 60)))
        length = _samples(int(rng.integers(4, 12)))
        click = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 4)) * rng.uniform(0.5, 1.0)
        clicks[at : at + length] += click
    peak = float(np.abs(clicks).max())
    return (clicks / peak * 0.3).astype(np.float32)


KINDS: dict[str, Noise] = {
    "cough": cough,
    "throat": throat,
    "mm-hm": hum,
    "burst": burst,
    "door": door,
    "keyboard": keyboard,
}


# --- sound ----------------------------------------------------------------------------------------------------------


def _samples(ms: int) -> int:
    return ms * RATE_HZ // 1000


def _envelope(n: int, *, attack_ms: float, decay_ms: float) -> Doubles:
    t = np.arange(n) * 1000 / RATE_HZ
    rise = np.minimum(1.0, t / attack_ms)
    end = np.minimum(1.0, (n - np.arange(n)) / _samples(20))  # no click at the end
    shape: Doubles = rise * np.exp(-np.maximum(0.0, t - attack_ms) / decay_ms) * end
    return shape


def _pulses(n: int, from_hz: float, to_hz: float) -> Doubles:
    """A voice's source: pulses whose pitch glides."""
    phase = np.cumsum(np.linspace(from_hz, to_hz, n) / RATE_HZ)
    saw: Doubles = 1.0 - 2.0 * (phase % 1.0)
    return saw


def _low_passed(x: Doubles, keep: float) -> Doubles:
    return _recursive(x, (1.0 - keep,), (keep,))


def _through(source: Doubles, formants: Sequence[tuple[Any, float]]) -> Doubles:
    """Resonances (Hz, bandwidth) in parallel, the higher ones weaker: a throat."""
    out = np.zeros(len(source))
    for i, (frequency, bandwidth) in enumerate(formants):
        radius = np.exp(-np.pi * bandwidth / RATE_HZ)
        around = 2 * radius * np.cos(2 * np.pi * float(frequency) / RATE_HZ)
        out += _recursive(source, (1.0 - radius,), (around, -(radius**2))) / (1.0 + i)
    return out


def _recursive(x: Doubles, ahead: Sequence[float], back: Sequence[float]) -> Doubles:
    """y[n] = ahead[0] x[n] + back[0] y[n-1] + back[1] y[n-2]."""
    y = np.zeros(len(x))
    one = two = 0.0
    b1, b2 = back[0], back[1] if len(back) > 1 else 0.0
    for i, value in enumerate((x * ahead[0]).tolist()):
        y[i] = value + b1 * one + b2 * two
        one, two = y[i], one
    return y


def _at(x: Doubles, dbfs: float) -> Samples:
    samples = x.astype(np.float32)
    gain = 10.0 ** ((dbfs - level_dbfs(samples)) / 20.0)
    gain = min(gain, 0.98 / max(float(np.abs(samples).max()), 1e-9))
    scaled: Samples = (samples * np.float32(gain)).astype(np.float32)
    return scaled
