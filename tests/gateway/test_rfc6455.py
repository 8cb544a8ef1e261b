import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from trunkline.errors import PeerError
from trunkline.gateway import rfc6455
from trunkline.gateway.rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_DATA,
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    PING,
    POLICY,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameParser,
    Message,
    close_code,
    close_frame,
)

MASK = b"\x37\xfa\x21\x3d"  # RFC 6455 5.7


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    head = bytes([final << 7 | rsv << 4 | opcode])
    flag, size = masked << 7, len(payload)
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def fed(*chunks: bytes, max_message_bytes: int = MAX_MESSAGE_BYTES) -> tuple[list[Message], PeerError | None]:
    parser = FrameParser(max_message_bytes)
    messages = [message for chunk in chunks for message in parser.feed(chunk)]
    return messages, parser.error


def refused(*chunks: bytes) -> int:
    messages, error = fed(*chunks)
    assert error is not None, messages
    return error.close_code


# --- against the websockets library ---


def client() -> ClientProtocol:
    return ClientProtocol(parse_uri("ws://test/"), state=OPEN, max_size=None)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Message]]:
    """What a correct client sends, as bytes and as messages."""
    sender, messages = client(), list[Message]()

    def control() -> None:
        data = draw(st.binary(max_size=125))
        if draw(st.booleans()):
            sender.send_ping(data)
            messages.append(Message(PING, data))
        else:
            sender.send_pong(data)
            messages.append(Message(PONG, data))

    for _ in range(draw(st.integers(0, 6))):
        if draw(st.integers(0, 3)) == 0:
            control()
        parts = draw(st.lists(st.one_of(st.binary(max_size=200), st.binary(min_size=126, max_size=126)), max_size=5))
        big = draw(st.sampled_from((0, 0, 0, 125, 126, 127, 9000)))
        parts = [*parts, b"x" * big]
        text = draw(st.booleans())
        (sender.send_text if text else sender.send_binary)(parts[0], fin=len(parts) == 1)
        for at, part in enumerate(parts[1:], 2):
            if draw(st.booleans()):
                control()
            sender.send_continuation(part, fin=at == len(parts))
        messages.append(Message(TEXT if text else BINARY, b"".join(parts)))
    return b"".join(sender.data_to_send()), messages


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


places = st.lists(st.integers(0, 1 << 20), max_size=12)


@given(conversations(), places)
@settings(max_examples=120, deadline=None)
def test_what_the_websockets_client_sends_arrives_however_the_bytes_are_cut(
    sent: tuple[bytes, list[Message]], where: list[int]
) -> None:
    data, expected = sent
    assert fed(*cut(data, where)) == (expected, None)


@given(conversations())
@settings(max_examples=10, deadline=None)
def test_a_byte_at_a_time_is_the_same(sent: tuple[bytes, list[Message]]) -> None:
    data, expected = sent
    assert fed(*(data[i : i + 1] for i in range(len(data)))) == (expected, None)


@given(st.binary(max_size=400), places)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_the_same_messages_and_the_same_error_however_they_are_cut(
    data: bytes, where: list[int]
) -> None:
    whole, error = fed(data)
    pieces, other = fed(*cut(data, where))
    assert pieces == whole
    assert repr(other) == repr(error)


@given(st.sampled_from((TEXT, BINARY, PING, PONG, CLOSE)), st.binary(max_size=125) | st.binary(min_size=126))
@settings(max_examples=60, deadline=None)
def test_the_websockets_client_reads_what_we_write(opcode: int, payload: bytes) -> None:
    payload = payload[:125] if opcode >= 8 else payload
    if opcode == CLOSE:
        payload = struct.pack("!H", 1000)
    if opcode == TEXT:
        payload = payload.hex().encode()
    reader = client()
    reader.receive_data(rfc6455.frame(opcode, payload))
    assert reader.events_received() == [Frame(Opcode(opcode), payload)]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_length_form_is_read_by_the_websockets_client(size: int) -> None:
    reader = client()
    reader.receive_data(rfc6455.frame(BINARY, b"x" * size))
    assert reader.events_received() == [Frame(Opcode.BINARY, b"x" * size)]


# --- errors, section by section ---


def test_an_unmasked_frame_is_a_protocol_error() -> None:  # 5.1
    assert refused(frame(TEXT, b"{}", masked=False)) == PROTOCOL_ERROR


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
def test_a_reserved_bit_is_a_protocol_error(rsv: int) -> None:  # 5.2
    assert refused(frame(TEXT, b"{}", rsv=rsv)) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_an_unknown_opcode_is_a_protocol_error(opcode: int) -> None:  # 5.2
    assert refused(frame(opcode, b"")) == PROTOCOL_ERROR


def test_a_length_with_its_highest_bit_set_is_refused() -> None:  # 5.2
    assert refused(struct.pack("!BBQ", 0x81, 0x80 | 127, 1 << 63)[:14] + MASK) == TOO_BIG


def test_a_continuation_of_nothing_is_a_protocol_error() -> None:  # 5.4
    assert refused(frame(CONTINUATION, b"x")) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_new_message_within_a_fragmented_one_is_a_protocol_error(opcode: int) -> None:  # 5.4
    assert refused(frame(TEXT, b"a", final=False), frame(opcode, b"b")) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_short_and_whole(opcode: int) -> None:  # 5.5
    assert refused(frame(opcode, b"x" * 126)) == PROTOCOL_ERROR
    assert refused(frame(opcode, b"", final=False)) == PROTOCOL_ERROR
    assert fed(frame(opcode, b"x" * 125)) == ([Message(opcode, b"x" * 125)], None)


def test_a_message_too_big_is_refused_by_its_head_alone() -> None:
    assert refused(frame(TEXT, b"x" * (MAX_MESSAGE_BYTES + 1))[:14]) == TOO_BIG
    assert fed(frame(TEXT, b"x" * MAX_MESSAGE_BYTES))[1] is None


def test_fragments_that_are_too_big_together_are_refused() -> None:
    half = b"x" * (MAX_MESSAGE_BYTES // 2)
    assert fed(frame(TEXT, half, final=False), frame(CONTINUATION, half))[1] is None
    assert refused(frame(TEXT, half, final=False), frame(CONTINUATION, half + b"x")) == TOO_BIG


def test_a_ping_within_a_big_fragmented_message_does_not_count_towards_its_size() -> None:
    full = frame(TEXT, b"x" * 100, final=False)
    messages, error = fed(full, frame(PING, b"p" * 100), frame(CONTINUATION), max_message_bytes=100)
    assert (error, [m.opcode for m in messages]) == (None, [PING, TEXT])


def test_crumbs_are_refused() -> None:
    crumbs = frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False) * MAX_FRAGMENTS
    assert refused(crumbs) == POLICY


@pytest.mark.parametrize(
    "head",
    [
        frame(TEXT, b"x" * 300, masked=False)[:2],
        frame(PING, b"x" * 300)[:2],
        frame(TEXT, b"x" * 70000, rsv=1)[:2],
        frame(CONTINUATION, b"x" * 50)[:2],
    ],
    ids=["unmasked", "long-ping", "rsv", "continuation"],
)
def test_what_two_bytes_can_tell_is_told_from_two_bytes(head: bytes) -> None:
    if head[0] & 0x0F == CONTINUATION:
        head += MASK  # its order is looked at with the whole head
    assert refused(head) == PROTOCOL_ERROR


def test_what_came_before_a_broken_frame_is_not_lost() -> None:
    messages, error = fed(frame(TEXT, b"one") + frame(TEXT, b"two", rsv=1) + frame(TEXT, b"three"))
    assert messages == [Message(TEXT, b"one")]
    assert error is not None


def test_nothing_is_read_after_an_error_or_a_close() -> None:  # 5.5.1
    parser = FrameParser()
    parser.feed(frame(TEXT, b"", rsv=1))
    assert parser.feed(frame(TEXT, b"{}")) == []
    assert fed(frame(CLOSE, b"\x03\xe8") + b"\xff\xff garbage", b"more") == ([Message(CLOSE, b"\x03\xe8")], None)


def test_a_fragmented_message_does_not_outlive_an_error() -> None:
    parser = FrameParser()
    parser.feed(frame(TEXT, b"x" * 1000, final=False))
    parser.feed(b"\xff\xff")
    assert parser.error is not None
    assert not parser._fragments
    assert not parser._buffer


# --- 7.4 ---


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code: int) -> None:
    assert close_code(struct.pack("!H", code) + "goodbye é".encode()) == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(PeerError) as refusal:
        close_code(struct.pack("!H", code))
    assert refusal.value.close_code == PROTOCOL_ERROR


def test_a_close_frame_may_be_empty_but_not_of_one_byte_nor_of_bad_utf_8() -> None:
    assert close_code(b"") == 1005
    with pytest.raises(PeerError) as short:
        close_code(b"\x03")
    assert short.value.close_code == PROTOCOL_ERROR
    with pytest.raises(PeerError) as bad:
        close_code(b"\x03\xe8\xff")
    assert bad.value.close_code == INVALID_DATA


@given(st.sampled_from((1000, 1001, 1008, 1011)), st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_close_frame_of_ours_is_always_one_a_client_can_read(code: int, reason: str) -> None:
    reader = client()
    reader.receive_data(close_frame(code, reason))
    assert reader.close_rcvd is not None
    assert reader.close_rcvd.code == code
    assert len(close_frame(code, reason)) <= 127
