from trunkline.gateway.livekit.outgoing import Outgoing
from trunkline.media.playout import Message


def message(ms: int, mark: str = "") -> Message:
    return Message(b"\xff" * (8 * ms), mark, 0.0)


def test_a_mark_is_reached_when_what_was_sent_before_it_has_been_played() -> None:
    out = Outgoing()
    out.put([message(100, "a"), message(40, "b")], 5.0)
    assert out.queued_ms(5.0) == 140
    assert out.due(5.099) == []
    assert out.due(5.1) == ["a"]
    assert out.due(5.2) == ["b"]
    assert out.queued_ms(5.2) == 0


def test_what_comes_after_a_pause_is_played_at_once() -> None:
    out = Outgoing()
    out.put([message(20, "a")], 1.0)
    out.put([message(20, "b")], 9.0)
    assert out.due(9.019) == ["a"]
    assert out.due(9.02) == ["b"]


def test_a_clear_drops_the_rest_in_whole_frames_and_one_more() -> None:
    out = Outgoing()
    out.put([message(100, "a"), message(100, "b")], 0.0)
    assert out.clear(0.09) == 140
    assert out.due(1.0) == []
    assert out.clear(1.0) == 0
    out.put([message(20, "c")], 2.0)
    assert out.clear(2.001) == 20, "no more than was sent"
