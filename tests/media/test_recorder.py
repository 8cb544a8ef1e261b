"""The thread is real, but nothing waits for time: closing wakes it."""

import shutil
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MisuseError
from trunkline.media import recorder
from trunkline.media.recorder import Interleaved, Recorder, wav_header
from trunkline.ports import Allow, Refuse
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

SECOND = 8000


def samples(path: Path) -> tuple[bytes, bytes]:
    """Left and right of a G.711 recording, after checking its header against the file."""
    data = path.read_bytes()
    header = wav_header(MULAW_8K, 0)
    assert data[:4] == b"RIFF"
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    assert struct.unpack_from("<I", data, len(header) - 4)[0] == len(data) - len(header)
    audio = data[len(header) :]
    return audio[::2], audio[1::2]


def finish(recording: Recorder) -> None:
    recording.close()
    assert recording.wait(5)


def test_caller_is_left_and_agent_is_right_at_their_positions(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow())
    for i in range(50):
        recording.write("caller", i * 160, bytes([i]) * 160)
    recording.write("agent", 1000, b"\x80" * 320)
    finish(recording)
    left, right = samples(tmp_path / "call.wav")
    assert left == b"".join(bytes([i]) * 160 for i in range(50))
    assert right == b"\xff" * 1000 + b"\x80" * 320 + b"\xff" * (SECOND - 1320)
    assert recording.stats == recorder.RecordingStats(frames=51)


def test_without_an_allow_there_is_no_recorder(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no_consent"):
        Recorder(tmp_path / "call.wav", Refuse("no_consent", "the caller was not asked"))
    assert not list(tmp_path.iterdir())


def test_what_was_cut_is_silence(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow())
    recording.write("caller", 0, b"\x01" * 1600)
    recording.write("agent", 0, b"\x02" * 1600)
    recording.cut("agent", 600)
    finish(recording)
    left, right = samples(tmp_path / "call.wav")
    assert left == b"\x01" * 1600
    assert right == b"\x02" * 600 + b"\xff" * 1000


def test_pcm_recordings_are_plain_wav(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow(), PCM_16K)
    recording.write("caller", 0, struct.pack("<320h", *range(320)))
    recording.write("agent", 10, struct.pack("<1h", -7))
    finish(recording)
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 16000, 2)
        pairs = struct.unpack("<640h", file.readframes(320))
    assert pairs[::2] == tuple(range(320))
    assert pairs[1::2] == (0,) * 10 + (-7,) + (0,) * 309


@pytest.mark.parametrize("format", [MULAW_8K, ALAW_8K, PCM_8K])
def test_the_header_names_rate_encoding_and_size(format: Format) -> None:
    header = wav_header(format, 3200)
    tag, channels, rate, per_second, block, bits = struct.unpack_from("<HHIIHH", header, 20)
    assert tag == {"pcm16": 1, "alaw": 6, "mulaw": 7}[format.encoding]
    assert (channels, rate, block * rate, block * 4) == (2, 8000, per_second, bits)
    assert header[-8:] == struct.pack("<4sI", b"data", 3200)


@pytest.mark.skipif(shutil.which("soxi") is None, reason="sox is not installed")
def test_sox_reads_it(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow())
    recording.write("caller", 0, b"\x01" * SECOND)
    finish(recording)
    told = subprocess.run(["soxi", str(tmp_path / "call.wav")], capture_output=True, text=True, check=True)
    assert "u-law" in told.stdout
    assert "00:00:01.00" in told.stdout
    assert not told.stderr


def test_an_existing_file_is_never_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"evidence")
    recording = Recorder(path, Allow())
    finish(recording)
    assert path.read_bytes() == b"evidence"
    assert recording.stats.failed == "File exists"
    assert len(caplog.records) == 1


def test_a_full_disk_stops_the_recording_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: BinaryIO, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder, "_write_all", full)
    recording = Recorder(tmp_path / "call.wav", Allow())
    assert recording.wait(5)
    recording.write("caller", 0, b"\x01" * 160)
    recording.write("caller", 160, b"\x01" * 160)
    assert recording.stats.dropped == 2
    assert recording.stats.failed == "No space left on device"
    assert [record.message for record in caplog.records] == ["recording stopped: No space left on device"]


def test_a_stalled_disk_costs_frames_that_are_counted_not_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FLUSH_S", 60.0)  # the thread sleeps until it is closed
    recording = Recorder(tmp_path / "call.wav", Allow())
    for i in range(recorder.MAX_QUEUED + 7):
        recording.write("caller", i, b"\x01")
    finish(recording)
    assert recording.stats == recorder.RecordingStats(frames=recorder.MAX_QUEUED, dropped=7)
    assert len(samples(tmp_path / "call.wav")[0]) == recorder.MAX_QUEUED


def test_a_position_from_nowhere_is_dropped(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow())
    recording.write("caller", 10**12, b"\x01" * 160)
    recording.write("caller", 0, b"\x02" * 160)
    finish(recording)
    assert samples(tmp_path / "call.wav")[0] == b"\x02" * 160
    assert recording.stats.dropped == 1


def test_close_is_idempotent_and_what_comes_after_is_dropped(tmp_path: Path) -> None:
    recording = Recorder(tmp_path / "call.wav", Allow())
    finish(recording)
    finish(recording)
    recording.write("agent", 0, b"\x01" * 160)
    assert recording.stats.dropped == 1
    assert samples(tmp_path / "call.wav") == (b"", b"")


def test_the_recording_is_a_whole_file_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    program = f"""
import os, pathlib, signal
from trunkline.media import recorder
from trunkline.ports import Allow
recorder.FLUSH_S = 0.001
recording = recorder.Recorder(pathlib.Path({str(path)!r}), Allow())
for i in range(500):
    recording.write("caller", i * 160, bytes([i % 250]) * 160)
while not recording.path.exists() or recording.path.stat().st_size < 50_000:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], timeout=20)
    assert killed.returncode == -9
    data = path.read_bytes()
    header = len(wav_header(MULAW_8K, 0))
    claimed = struct.unpack_from("<I", data, header - 4)[0]
    assert claimed <= len(data) - header
    left = data[header:][::2]
    assert left == b"".join(bytes([i % 250]) * 160 for i in range(500))[: len(left)]


@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 60), st.integers(1, 12)), max_size=20),
    st.lists(st.integers(0, 80), max_size=4),
    st.sampled_from([MULAW_8K, PCM_8K]),
)
def test_taking_in_parts_is_taking_at_once(
    places: list[tuple[int, int, int]], takes: list[int], format: Format
) -> None:
    """What is in time lands in its place, whenever the rest is taken."""
    parts, sample = Interleaved(format), len(format.silence)
    model: dict[tuple[int, int], bytes] = {}
    taken, end = b"", 0
    for number, (side, position, length) in enumerate(places):
        data = bytes([number + 1]) * sample * length
        assert parts.place(side, position, data) == (position >= parts.base)
        for i in range(position, position + length):
            if i >= parts.base:
                model[side, i] = data[:sample]
                end = max(end, i + 1)
        if takes and number % 3 == 2:
            taken += parts.take(takes.pop())
    taken += parts.take(parts.end)
    expected = b"".join(model.get((side, i), format.silence) for i in range(end) for side in (0, 1))
    assert taken == expected
