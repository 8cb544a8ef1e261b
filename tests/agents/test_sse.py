from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents import sse
from trunkline.agents.sse import Events

STREAM = (
    b': hello\n\nevent: x\ndata: {"a": 1}\nid: 7\n\ndata:two\r\ndata: lines\r\n\r\n\n'
    b"data: \xc3\xa4\n\ndata: unfinished\n"
)
FOUND = [b'{"a": 1}', b"two\nlines", b"\xc3\xa4"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_however_a_stream_is_cut_its_events_are_the_same(cuts: list[int]) -> None:
    places = sorted({0, len(STREAM), *cuts})
    events = Events()
    found = [data for a, b in pairwise(places) for data in events.feed(STREAM[a:b])]
    assert found == FOUND


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    events = Events()
    events.feed(b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n")
    with pytest.raises(ValueError, match="more than 100 bytes"):
        events.feed(b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n")
    with pytest.raises(ValueError, match="more than 100 bytes"):
        Events().feed(b"x" * 101)
