import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import PeerError
from trunkline.gateway.rfc6455 import INVALID_DATA, PROTOCOL_ERROR, UNSUPPORTED
from trunkline.gateway.twilio.wire import (
    MAX_AUDIO_BYTES,
    MAX_CLOCK_MS,
    MAX_MARK_CHARS,
    MAX_REASON_CHARS,
    Audio,
    Keyed,
    Marked,
    MediaStream,
    Phase,
    Started,
    Stopped,
)

CALL_SID, STREAM_SID = "CA" + "0a" * 16, "MZ" + "0b" * 16
FRAME = bytes(range(160))

# As in Twilio's "Media Streams - WebSocket Messages", with our values.
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC" + "00" * 16,
        "streamSid": STREAM_SID,
        "callSid": CALL_SID,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t-1"},
    },
    "streamSid": STREAM_SID,
}
MEDIA = {
    "event": "media",
    "sequenceNumber": "2",
    "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": base64.b64encode(FRAME).decode()},
    "streamSid": STREAM_SID,
}
DTMF = {
    "event": "dtmf",
    "streamSid": STREAM_SID,
    "sequenceNumber": "3",
    "dtmf": {"track": "inbound_track", "digit": "7"},
}
MARK = {"event": "mark", "sequenceNumber": "4", "streamSid": STREAM_SID, "mark": {"name": "1:400"}}
STOP = {
    "event": "stop",
    "sequenceNumber": "5",
    "stop": {"accountSid": "AC" + "00" * 16, "callSid": CALL_SID},
    "streamSid": STREAM_SID,
}


def text(message: Any, *path: str, **changes: Any) -> bytes:
    """The message as JSON, with changes in the object at `path`; None takes a field away."""
    copy = json.loads(json.dumps(message))
    place = copy
    for name in path:
        place = place[name]
    for name, value in changes.items():
        if value is None:
            del place[name]
        else:
            place[name] = value
    return json.dumps(copy).encode()


def streaming() -> MediaStream:
    stream = MediaStream()
    stream.receive(text(CONNECTED))
    stream.receive(text(START))
    return stream


def refused(stream: MediaStream, message: bytes) -> PeerError:
    with pytest.raises(PeerError) as refusal:
        stream.receive(message)
    return refusal.value


def test_a_stream_from_connected_to_stop() -> None:
    stream = MediaStream()
    assert stream.receive(text(CONNECTED)) is None
    assert stream.receive(text(START)) == Started(STREAM_SID, CALL_SID, {"token": "t-1"})  # type: ignore[arg-type]
    assert stream.receive(text(MEDIA)) == Audio(FRAME, 20)
    assert stream.receive(text(DTMF)) == Keyed("7")
    assert stream.receive(text(MARK)) == Marked("1:400")
    assert stream.receive(text(STOP)) == Stopped()
    assert stream.phase is Phase.STOPPED
    assert (stream.stats.messages, stream.stats.gaps, stream.stats.ignored) == (6, 0, 0)


def test_start_without_connected_is_taken() -> None:
    assert isinstance(MediaStream().receive(text(START)), Started)


@pytest.mark.parametrize("message", [MEDIA, DTMF, MARK, STOP], ids=lambda m: m["event"])
def test_nothing_comes_before_start(message: Any) -> None:
    assert refused(MediaStream(), text(message)).close_code == PROTOCOL_ERROR


@pytest.mark.parametrize("message", [CONNECTED, START, MEDIA, DTMF, MARK, STOP], ids=lambda m: m["event"])
def test_nothing_comes_after_stop(message: Any) -> None:
    stream = streaming()
    stream.receive(text(STOP))
    assert refused(stream, text(message)).close_code == PROTOCOL_ERROR


@pytest.mark.parametrize("message", [CONNECTED, START], ids=lambda m: m["event"])
def test_a_stream_begins_once(message: Any) -> None:
    assert refused(streaming(), text(message)).close_code == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "audio/x-alaw"},
        {"sampleRate": 16000},
        {"channels": 2},
        {"encoding": "audio/l16"},
    ],
)
def test_another_encoding_is_unsupported(wrong: Any) -> None:
    assert refused(MediaStream(), text(START, "start", "mediaFormat", **wrong)).close_code == UNSUPPORTED


@pytest.mark.parametrize(
    ("message", "path", "changes"),
    [
        (START, ("start",), {"callSid": "CA" + "0A" * 16}),
        (START, ("start",), {"callSid": "CA" + "0a" * 15}),
        (START, ("start",), {"callSid": STREAM_SID}),
        (START, ("start",), {"streamSid": 'MZ"}' + "0" * 30}),
        (START, ("start",), {"streamSid": None}),
        (START, ("start",), {"mediaFormat": None}),
        (START, ("start",), {"mediaFormat": "audio/x-mulaw"}),
        (START, ("start",), {"customParameters": {"token": 1}}),
        (START, ("start",), {"tracks": "inbound"}),
        (START, (), {"start": None}),
        (START, (), {"sequenceNumber": "one"}),
        (START, (), {"sequenceNumber": 1}),
        (CONNECTED, (), {"event": 7}),
        (CONNECTED, (), {"event": None}),
    ],
)
def test_a_malformed_beginning_is_invalid(message: Any, path: tuple[str, ...], changes: Any) -> None:
    assert refused(MediaStream(), text(message, *path, **changes)).close_code == INVALID_DATA


@pytest.mark.parametrize(
    ("message", "path", "changes"),
    [
        (MEDIA, ("media",), {"payload": "AAA"}),
        (MEDIA, ("media",), {"payload": "AA=A"}),
        (MEDIA, ("media",), {"payload": "AA\n=="}),
        (MEDIA, ("media",), {"payload": "-_-_"}),
        (MEDIA, ("media",), {"payload": "é" * 4}),
        (MEDIA, ("media",), {"payload": 5}),
        (MEDIA, ("media",), {"payload": None}),
        (MEDIA, ("media",), {"payload": base64.b64encode(bytes(MAX_AUDIO_BYTES + 1)).decode()}),
        (MEDIA, ("media",), {"timestamp": "-20"}),
        (MEDIA, ("media",), {"timestamp": "²0"}),
        (MEDIA, ("media",), {"timestamp": "1" * 16}),
        (MEDIA, ("media",), {"timestamp": str(MAX_CLOCK_MS + 1)}),
        (MEDIA, ("media",), {"timestamp": 20}),
        (MEDIA, ("media",), {"timestamp": ""}),
        (MEDIA, (), {"media": None}),
        (MEDIA, (), {"media": []}),
        (MEDIA, (), {"sequenceNumber": "2.0"}),
        (DTMF, ("dtmf",), {"digit": "77"}),
        (DTMF, ("dtmf",), {"digit": "E"}),
        (DTMF, ("dtmf",), {"digit": ""}),
        (DTMF, ("dtmf",), {"digit": 7}),
        (MARK, ("mark",), {"name": None}),
        (MARK, ("mark",), {"name": 1}),
        (STOP, (), {"sequenceNumber": 5}),
    ],
)
def test_a_malformed_message_is_invalid(message: Any, path: tuple[str, ...], changes: Any) -> None:
    assert refused(streaming(), text(message, *path, **changes)).close_code == INVALID_DATA


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        b"nonsense",
        b"[]",
        b'"media"',
        b"{}",
        b'{"event":',
        b'{"event": "media"',
        b'{"event":"\xff"}',
        b'{"event":"media","media":{"payload":"\xff"}}',
        b'{"event":"\\ud800"}',
        b"[" * 20000,
        b'{"event":"media","media":' + b'{"a":' * 20000,
        b'{"event":"nan","x":NaN}',
    ],
    ids=lambda m: m[:24],
)
def test_what_is_no_json_event_is_invalid(message: bytes) -> None:
    assert refused(streaming(), message).close_code == INVALID_DATA


def test_unknown_events_fields_and_tracks_are_ignored_and_counted() -> None:
    stream = streaming()
    assert stream.receive(b'{"event": "transcription", "text": "hello"}') is None
    assert stream.receive(text(MEDIA, "media", track="outbound")) is None
    assert stream.stats.ignored == 2
    assert stream.receive(text(MEDIA, new_field={"a": [1]})) == Audio(FRAME, 20)


def test_a_reason_that_quotes_the_peer_is_short() -> None:
    refusal = refused(streaming(), b'{"event":"' + b"x" * 5000 + b'","event":"media"}')
    assert len(refusal.reason) <= MAX_REASON_CHARS


def test_missing_sequence_numbers_are_counted_and_late_ones_are_not() -> None:
    stream = streaming()
    for number in ("2", "5", "4", "6"):
        stream.receive(text(MEDIA, sequenceNumber=number))
    assert stream.stats.gaps == 2


def test_a_mark_of_any_length_is_cut() -> None:
    assert streaming().receive(text(MARK, "mark", name="x" * 1000)) == Marked("x" * MAX_MARK_CHARS)


@pytest.mark.parametrize("digit", "0123456789*#ABCD")
def test_every_key_of_a_keypad(digit: str) -> None:
    assert streaming().receive(text(DTMF, "dtmf", digit=digit)) == Keyed(digit)


def test_what_we_send_is_what_twilio_documents() -> None:
    stream = streaming()
    assert json.loads(stream.media(FRAME)) == {
        "event": "media",
        "streamSid": STREAM_SID,
        "media": {"payload": base64.b64encode(FRAME).decode()},
    }
    assert json.loads(stream.mark("3:400")) == {"event": "mark", "streamSid": STREAM_SID, "mark": {"name": "3:400"}}
    assert json.loads(stream.clear()) == {"event": "clear", "streamSid": STREAM_SID}


# --- fuzz: nothing but events and PeerErrors ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = (CONNECTED, START, MEDIA, DTMF, MARK, STOP)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message of the protocol with something in it replaced, added or cut, as JSON or as bytes."""
    message = json.loads(json.dumps(draw(st.sampled_from(MESSAGES))))
    place = message
    while isinstance(place, dict) and place and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(place)))
        if isinstance(place[name], dict) and draw(st.booleans()):
            place = place[name]
        else:
            place[name] = draw(json_values)
    data = json.dumps(message, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return data


@given(st.lists(st.sampled_from([json.dumps(m).encode() for m in MESSAGES]) | mutated() | st.binary(max_size=60)))
@settings(max_examples=400, deadline=None)
def test_no_message_does_anything_but_an_event_or_a_peer_error(messages: list[bytes]) -> None:
    stream = MediaStream()
    codes: list[int] = []
    for message in messages:
        try:
            event = stream.receive(message)
        except PeerError as error:
            codes.append(error.close_code)
            break
        assert event is None or isinstance(event, Started | Audio | Keyed | Marked | Stopped)
        if isinstance(event, Audio):
            assert len(event.data) <= MAX_AUDIO_BYTES
            assert 0 <= event.timestamp_ms <= MAX_CLOCK_MS
    assert set(codes) <= {PROTOCOL_ERROR, UNSUPPORTED, INVALID_DATA}
