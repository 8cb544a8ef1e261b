import json

import pytest

from trunkline.errors import ConfigError
from trunkline.testing.caller.websocket import DeviceAudio, DeviceStream, ws_url
from trunkline.testing.caller.wire import Cleared, Invalid, Media

VOICE = bytes(range(160))


def hear(stream: DeviceStream, frames: int, now: float = 0.0) -> None:
    for _ in range(frames):
        assert isinstance(stream.receive(VOICE, now), Media)


def tick(stream: DeviceStream, frames: int) -> list[dict[str, object]]:
    return [json.loads(message[1:]) for n in range(frames) for message in stream.tick(n * 0.02)]


def test_it_begins_with_its_format_and_its_token() -> None:
    start, armed = DeviceStream("pcm16-16k", "secret").opening()
    told = {"type": "start", "encoding": "pcm16", "rate_hz": 16_000, "acks": True, "token": "secret"}
    assert (start[:1], json.loads(start[1:])) == (b"t", told)
    assert json.loads(armed[1:])["type"] == "armed"


@pytest.mark.parametrize(("audio", "size"), [("mulaw", 160), ("pcm16-8k", 320), ("pcm16-16k", 640)])
def test_its_audio_goes_in_its_format_and_comes_in_it(audio: DeviceAudio, size: int) -> None:
    stream = DeviceStream(audio)
    sent = stream.media(VOICE)
    assert (sent[:1], len(sent)) == (b"b", 1 + size)
    assert isinstance(stream.receive(sent[1:], 0.0), Media)
    assert stream.queued_bytes == 160
    assert isinstance(stream.receive(sent[1:-1], 0.0), Invalid)


def test_it_says_how_much_was_played_ten_times_a_second_and_at_the_end() -> None:
    stream = DeviceStream("mulaw")
    hear(stream, 12)
    assert [said["ms"] for said in tick(stream, 20)] == [100, 200, 240]
    hear(stream, 5)
    assert [said["ms"] for said in tick(stream, 6)] == [340]


def test_a_clear_drops_what_was_not_played_and_counting_goes_on() -> None:
    stream = DeviceStream("mulaw")
    hear(stream, 10)
    tick(stream, 3)
    received = stream.receive('{"type":"clear","sent_ms":200}', 0.06)
    assert isinstance(received, Cleared)
    (said,) = received.replies
    assert json.loads(said[1:]) == {"type": "cleared", "sent_ms": 200, "played_ms": 60}
    assert received.cut is not None
    assert (received.cut.unheard_ms, stream.playing) == (140, False)
    hear(stream, 2, 0.1)
    assert [said["ms"] for said in tick(stream, 3)] == [240]
    assert isinstance(stream.receive('{"type":"clear","sent_ms":100}', 0.2), Invalid)


def test_an_origin_is_enough_of_a_target() -> None:
    assert ws_url("ws://127.0.0.1:8080") == "ws://127.0.0.1:8080/ws/audio"
    assert ws_url("wss://voice.example.com/ws/audio") == "wss://voice.example.com/ws/audio"
    with pytest.raises(ConfigError):
        ws_url("ws:voice.example.com")
