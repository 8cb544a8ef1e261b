import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.local.wire import MAX_MESSAGE_BYTES, Message, Unpacker, pack
from trunkline.errors import PeerError

names = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
fields = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20) | st.booleans(), max_size=4)
messages = st.tuples(st.integers(0, 2**32 - 1), st.builds(Message, names, fields, st.binary(max_size=400)))


@given(st.lists(messages, max_size=6), st.data())
def test_messages_survive_any_cutting_of_the_stream(sent: list[tuple[int, Message]], data: st.DataObject) -> None:
    stream = b"".join(pack(job, message) for job, message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    unpacker, got, sizes = Unpacker(), [], 0
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for job, message, size in unpacker.receive(stream[start:end]):
            got.append((job, message))
            sizes += size
    assert got == sent
    assert sizes == len(stream)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_peer_error(noise: bytes) -> None:
    try:
        for _ in Unpacker().receive(noise):
            pass
    except PeerError:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + bytes(9),
        bytes([0, 0, 0, 9, 0, 0, 0, 1, 200, 0, 0, 0, 0]),  # a name longer than the message
        pack(1, Message("x", {"a": 1})).replace(b"{", b"["),
        pack(1, Message("x", {"a": 1})).replace(b'{"a":1}', b"[1,2,3]"),
    ],
)
def test_nonsense_is_refused(stream: bytes) -> None:
    with pytest.raises(PeerError):
        list(Unpacker().receive(stream))


def test_a_message_too_long_is_not_packed() -> None:
    with pytest.raises(ValueError):
        pack(1, Message("audio", data=bytes(MAX_MESSAGE_BYTES)))
