"""What is left of digits: in the sound of a recording, and in every file, row and line that a gateway wrote."""

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.media import g711

RATE_HZ = 8000
WINDOW, HOP = 205, 80  # samples: Goertzel's own usual length for DTMF, every 10 ms
LOW_HZ, HIGH_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")
TOGETHER = 0.5  # of a window's energy the two tones are at least
FAINT = 1e-5  # mean square: some -50 dBFS, far below any tone of a telephone
LASTS, GAP = 2, 2  # windows that a key needs, and that end it


def keys_in(mulaw: bytes) -> str:
    """The keypad tones that sound in it, by Goertzel; nothing of the product's own detector is used."""
    samples = g711.MULAW_F32.take(np.frombuffer(mulaw, np.uint8)).astype(np.float64)
    if len(samples) < WINDOW:
        return ""
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    energy = np.einsum("ij,ij->i", windows, windows)
    power = np.array([_goertzel(windows, hz) for hz in LOW_HZ + HIGH_HZ])
    found, sounding, lasts, gap = "", "", 0, 0
    for at in range(len(windows)):
        low, high = int(power[:4, at].argmax()), int(power[4:, at].argmax())
        share = (power[low, at] + power[4 + high, at]) * 2 / WINDOW / max(energy[at], 1e-12)
        key = KEYS[low][high] if share >= TOGETHER and energy[at] / WINDOW > FAINT else ""
        if key and key == sounding:
            lasts, gap = lasts + 1, 0
            found += key if lasts == LASTS else ""
        elif key:
            sounding, lasts, gap = key, 1, 0
        else:
            gap += 1
            if gap >= GAP:
                sounding, lasts = "", 0
    return found


def _goertzel(windows: NDArray[np.float64], hz: int) -> NDArray[np.float64]:
    turn = np.exp(-2j * np.pi * hz * np.arange(WINDOW) / RATE_HZ)
    power: NDArray[np.float64] = np.abs(windows @ turn) ** 2
    return power


def lanes(recording: Path) -> tuple[bytes, bytes]:
    """Caller and agent, of a recording in mu-law."""
    data = recording.read_bytes()
    assert data[:4] == b"RIFF"
    at = 12
    while data[at : at + 4] != b"data":
        at += 8 + struct.unpack("<I", data[at + 4 : at + 8])[0]
    both = data[at + 8 :]
    return both[0::2], both[1::2]


def everything(folder: Path, *texts: str) -> dict[str, str]:
    """By its place: the bytes of every file below, every row of every table, the rows of Parquet, and `texts`."""
    found = {f"text {n}": text for n, text in enumerate(texts)}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        found[str(path)] = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            found[f"{path} rows"] = repr(_parquet(path))
        elif path.suffix == ".db" or path.read_bytes()[:15] == b"SQLite format 3":
            found[f"{path} rows"] = _rows(path)
    return found


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _rows(path: Path) -> str:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return "\n".join(
            f"{table}: {row!r}" for table in tables for row in database.execute(f'select * from "{table}"')
        )


def places_of(wanted: Sequence[str], there: dict[str, str]) -> list[tuple[str, str, str]]:
    """Where any of it is found: place, what, and what stands around it."""
    return [
        (place, each, text[max(0, text.lower().find(each) - 60) : text.lower().find(each) + 60])
        for place, text in there.items()
        for each in wanted
        if each in text.lower()
    ]
