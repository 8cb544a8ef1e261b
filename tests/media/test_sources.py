import struct
from pathlib import Path

import numpy as np
import pytest

from trunkline.errors import ConfigError
from trunkline.media import g711
from trunkline.media.sources import FRAME, SILENCE, SILENT_FRAME, Loop, comfort_noise, read_loop, soft_work


def wav(tag: int, channels: int, rate_hz: int, bits: int, data: bytes, before: bytes = b"") -> bytes:
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block, block, bits)
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sine(rate_hz: int, seconds: float = 0.5) -> bytes:
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.round(8000 * np.sin(2 * np.pi * 500 * t)).astype("<i2").tobytes()


def test_each_hearer_of_a_loop_has_a_place_of_its_own_and_goes_round() -> None:
    loop = Loop(b"a" * FRAME + b"b" * FRAME)
    one, other = loop.play(), loop.play(from_ms=20)
    assert [one.frame()[:1] for _ in range(3)] == [b"a", b"b", b"a"]
    assert [other.frame()[:1] for _ in range(3)] == [b"b", b"a", b"b"]
    assert loop.play(from_ms=59).frame()[:1] == b"a"


def test_a_loop_ends_with_a_whole_frame_and_has_something_to_play() -> None:
    assert Loop(b"a" * 10).audio == b"a" * 10 + b"\xff" * 150
    with pytest.raises(ValueError, match="audio"):
        Loop(b"")


def test_silence_is_silent_and_comfort_noise_is_quiet() -> None:
    assert SILENCE.play().frame() == SILENT_FRAME
    noise = g711.MULAW_I16.take(np.frombuffer(comfort_noise().audio, np.uint8)).astype(float)
    dbm0 = 20 * np.log10(np.sqrt(2 * np.mean(noise**2)) / 32124) + 3.17
    assert dbm0 == pytest.approx(-60, abs=1.5)


@pytest.mark.parametrize(
    "data",
    [
        wav(1, 1, 8000, 16, sine(8000)),
        wav(1, 1, 8000, 16, sine(8000), before=b"LIST" + struct.pack("<I", 3) + b"abc\0"),
        wav(1, 2, 8000, 16, np.repeat(np.frombuffer(sine(8000), "<i2"), 2).tobytes()),
        wav(1, 1, 16000, 16, sine(16000)),
        wav(1, 1, 44100, 16, sine(44100)),
        wav(7, 1, 8000, 8, g711.encode(sine(8000), "mulaw")),
        wav(6, 1, 8000, 8, g711.encode(sine(8000), "alaw")),
    ],
    ids=["plain", "with a list", "stereo", "16 kHz", "44.1 kHz", "mu-law", "A-law"],
)
def test_a_wav_is_read_into_half_a_second_of_its_500_hz(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "music.wav"
    path.write_bytes(data)
    loop = read_loop(path)
    assert loop.duration_ms == pytest.approx(500, abs=20)
    pcm = g711.MULAW_I16.take(np.frombuffer(loop.audio[:4000], np.uint8)).astype(float)
    assert np.abs(np.fft.rfft(pcm)).argmax() == pytest.approx(250, abs=1)
    assert np.abs(pcm).max() == pytest.approx(8000, rel=0.05)


def test_headerless_mulaw_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "music.ulaw"
    path.write_bytes(bytes(range(160)))
    assert read_loop(path).audio == bytes(range(160))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.wav", b"ID3 an mp3", "no WAV"),
        ("a.wav", wav(1, 1, 8000, 16, b""), "no audio"),
        ("a.wav", wav(1, 6, 8000, 16, b"\0" * 24), "6 channels"),
        ("a.wav", wav(3, 1, 8000, 32, b"\0" * 24), "32-bit audio of kind 3"),
        ("a.wav", wav(1, 1, 4000, 16, b"\0" * 24), "4000 samples"),
        ("a.wav", wav(1, 1, 8000, 16, b"")[:36], "no data"),
        ("a.wav", b"RIFF\0\0\0\0WAVEdata\x02\0\0\0ab", "before its format"),
        ("a.wav", b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0ab", "cut short"),
        ("a.ulaw", b"", "no audio"),
        ("a.ulaw", b"\xff" * (600 * 8000 + 1), "600 s"),
    ],
)
def test_a_file_that_cannot_be_played_is_said_to_the_admin(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=says) as raised:
        read_loop(path, "sounds.hold")
    assert raised.value.key == "sounds.hold"


def test_a_file_that_is_not_there_is_said_to_the_admin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_loop(tmp_path / "none.wav")


def test_the_sound_of_work_is_softer_than_speech_by_far() -> None:
    loop = soft_work()
    pcm = np.frombuffer(g711.decode(loop.audio, "mulaw"), dtype="<i2").astype(float)
    assert loop.duration_ms == 8000
    assert 10 < np.sqrt(np.mean(pcm**2)) < 300
    assert np.abs(pcm).max() < 2500
