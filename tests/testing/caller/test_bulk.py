"""The bare WebSocket client: its frames, against the `websockets` package's own reader and writer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from trunkline.errors import PeerError
from trunkline.testing.caller.bulk import FrameReader, text_frame


def parse_masked(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=True, max_size=1 << 20)
    try:
        next(parsing)
    except StopIteration as done:
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame is not whole")


@given(st.binary(max_size=1000))
def test_what_is_written_is_a_masked_frame(payload: bytes) -> None:
    frame = parse_masked(text_frame(payload))
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.TEXT, payload, True)


def server_frame(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_frames_are_read_however_they_are_cut(payloads: list[bytes], step: int) -> None:
    data = b"".join(server_frame(Opcode.TEXT, p) for p in payloads)
    reader = FrameReader()
    read = [m for at in range(0, len(data), step) for m in reader.feed(data[at : at + step])]
    assert read == [(1, p) for p in payloads]


def test_fragments_are_joined_and_a_ping_may_come_between() -> None:
    reader = FrameReader()
    data = server_frame(Opcode.TEXT, b"a", fin=False) + server_frame(Opcode.PING, b"p")
    data += server_frame(Opcode.CONT, b"b", fin=False) + server_frame(Opcode.CONT, b"c")
    assert reader.feed(data) == [(9, b"p"), (1, b"abc")]


def test_a_long_message_is_read() -> None:
    assert FrameReader().feed(server_frame(Opcode.TEXT, b"x" * 70_000)) == [(1, b"x" * 70_000)]


@pytest.mark.parametrize(
    "data",
    [
        text_frame(b"masked"),
        b"\xc1\x00",
        server_frame(Opcode.CONT, b"c"),
        server_frame(Opcode.TEXT, b"a", fin=False) + server_frame(Opcode.TEXT, b"b", fin=False),
        b"\x81\x7f" + (1 << 21).to_bytes(8, "big"),
    ],
    ids=["masked", "reserved bits", "continuation of nothing", "text within text", "too long"],
)
def test_what_a_server_must_not_send_is_its_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        FrameReader().feed(data)
