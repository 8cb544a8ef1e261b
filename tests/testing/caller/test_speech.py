import io
import wave
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from trunkline.errors import ConfigError
from trunkline.media.g711 import MULAW_F32
from trunkline.testing.caller.speech import (
    MixingMouth,
    PlainMouth,
    Samples,
    at_level,
    level_dbfs,
    noise,
    read_wav,
    to_frames,
    to_speech,
    write_stereo_wav,
)


def tone(ms: int, level: float = 0.3) -> Samples:
    made: Samples = (np.sin(np.arange(8 * ms) * 0.5) * level).astype(np.float32)
    return made


def silence(ms: int) -> Samples:
    return np.zeros(8 * ms, dtype=np.float32)


def linear(frame: bytes) -> Samples:
    return MULAW_F32.take(np.frombuffer(frame, dtype=np.uint8))


def test_speech_knows_its_first_and_last_frame_above_the_line() -> None:
    spoken = to_speech("x", np.concatenate([silence(60), tone(100), silence(45)]), noise_dbfs=-50.0)
    assert (spoken.first, spoken.last, len(spoken.frames)) == (3, 7, 11)
    assert all(len(f) == 160 for f in spoken.frames)
    assert b64decode(spoken.encoded[4]) == spoken.frames[4]


def test_a_file_of_silence_is_not_speech() -> None:
    with pytest.raises(ConfigError):
        to_speech("nothing", silence(200))


def test_noise_and_speech_have_the_level_asked_for() -> None:
    assert abs(level_dbfs(noise(-44.0, 80_000)) + 44.0) < 0.1
    assert abs(level_dbfs(at_level(tone(500, 0.05), -20.0)) + 20.0) < 0.1
    assert np.abs(at_level(tone(500), -1.0)).max() <= 0.98


@pytest.mark.parametrize(("rate", "width", "channels"), [(8000, 2, 1), (16000, 2, 2), (22050, 2, 1), (8000, 1, 1)])
def test_any_common_wav_becomes_8_khz(rate: int, width: int, channels: int) -> None:
    samples = np.sin(np.arange(rate) * 2 * np.pi * 440 / rate) * 0.5
    pcm = (samples * 32767).astype("<i2") if width == 2 else (samples * 127 + 128).astype("u1")
    out = io.BytesIO()
    with wave.open(out, "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(width)
        wav.setframerate(rate)
        wav.writeframes(np.repeat(pcm, channels).tobytes())
    read = read_wav(Path("x.wav"), out.getvalue())
    assert abs(len(read) - 8000) <= 8
    assert abs(level_dbfs(read[1000:7000]) - level_dbfs(np.asarray(samples, dtype=np.float32))) < 0.2


def test_a_file_that_is_no_wav_names_itself(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"a\.wav"):
        read_wav(tmp_path / "a.wav")


def test_a_plain_mouth_says_prepared_frames_and_repeats_its_noise() -> None:
    spoken = to_speech("x", tone(40))
    mouth = PlainMouth(-50.0, seed=3)
    assert mouth.frame(spoken, 1, ()) == spoken.encoded[1]
    idle = [mouth.frame(None, 0, ()) for _ in range(500)]
    assert idle[:250] == idle[250:]
    assert len(set(idle)) > 200
    assert mouth.share(7).frame(None, 0, ()) in idle


def test_echo_is_what_was_heard_some_time_ago_and_softer() -> None:
    mouth = MixingMouth(echo_delay_ms=60, echo_db=-12.0)
    loud = to_frames(tone(20))[0]
    quiet = to_frames(silence(20))[0]
    heard = [loud, quiet, quiet]
    echoed = linear(b64decode(mouth.frame(None, 0, heard)))
    assert abs(level_dbfs(echoed) - (level_dbfs(linear(loud)) - 12.0)) < 0.5
    assert level_dbfs(linear(b64decode(mouth.frame(None, 0, [quiet, loud, quiet])))) < -90


def test_the_recording_has_the_caller_left_and_the_agent_right(tmp_path: Path) -> None:
    spoken = to_speech("x", tone(40))
    write_stereo_wav(tmp_path / "out.wav", spoken.frames, [to_frames(silence(20))[0]] * 3)
    with wave.open(str(tmp_path / "out.wav")) as wav:
        assert (wav.getnchannels(), wav.getframerate(), wav.getnframes()) == (2, 8000, 480)
        both = np.frombuffer(wav.readframes(480), dtype="<i2").reshape(-1, 2)
    assert np.abs(both[:320, 0]).max() > 5000
    assert np.abs(both[:, 1]).max() == 0
