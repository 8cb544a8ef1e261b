"""Who waits, in which order, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.numbers.queueing import GONE_S, SAY_AGAIN_S, TURN_S, WORDS_S, Hold, Line, Over
from trunkline.numbers.resources import Queue

SHORT = Queue(max_waiting=3, max_wait_s=60, offer_callback=True)


def held(line: Line, name: str, now: float) -> Hold:
    turn = line.turn(name, now)
    assert isinstance(turn, Hold)
    return turn


def test_the_position_is_said_at_once_and_every_twenty_seconds() -> None:
    line = Line()
    line.join("a", SHORT, 0.0)
    said = [now for now in range(0, 50, TURN_S) if held(line, "a", float(now)).says]
    assert said == [0, 24, 48]
    assert SAY_AGAIN_S == 20.0


def test_without_positions_callers_are_told_once_that_they_wait() -> None:
    line = Line()
    line.join("a", SHORT.model_copy(update={"say_position": False}), 0.0)
    assert [held(line, "a", float(now)).says for now in (0, 6, 30, 50)] == [True, False, False, False]


def test_a_callback_is_offered_once_and_taken_at_any_time_after() -> None:
    line = Line()
    line.join("a", SHORT, 0.0, may_be_called_back=True)
    line.join("b", SHORT, 0.0, may_be_called_back=False)
    first, second = held(line, "a", 0.0), held(line, "a", 12.0)
    assert (first.offers, first.takes_key, second.offers, second.takes_key) == (True, True, False, True)
    assert not held(line, "b", 0.0).takes_key


def test_the_music_goes_on_where_it_was() -> None:
    line = Line()
    line.join("a", SHORT, 0.0)
    assert [held(line, "a", float(now)).music for now in (0, 6, 12, 18)] == [0, 1, 0, 1]


def test_the_last_turn_is_what_is_left() -> None:
    line = Line()
    line.join("a", SHORT, 0.0)
    held(line, "a", 0.0)
    assert (held(line, "a", 56.5).seconds, held(line, "a", 56.5).says) == (4, False)
    assert line.turn("a", 60.0) == Over()


def test_who_does_not_ask_any_more_is_gone() -> None:
    line = Line()
    line.join("a", SHORT, 0.0)
    line.join("b", SHORT, 0.0)
    line.turn("b", 10.0)
    assert line.gone(GONE_S) == ["a"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "leave", "answer"]), st.integers(0, 9)),
        max_size=80,
    )
)
def test_first_come_first_served_and_never_more_than_may(steps: list[tuple[str, int]]) -> None:
    line, there = Line(), list[str]()
    for seconds, (step, who) in enumerate(steps):
        name, now = f"CA{who}", seconds / 2
        if step == "join" and name not in line:
            joined = line.join(name, SHORT, now) is not None
            assert joined == (len(there) < SHORT.max_waiting)
            there += [name] * joined
        elif step == "leave":
            assert (line.leave(name) is not None) == (name in there)
            there = [each for each in there if each != name]
        elif step == "answer" and there:
            assert line.ahead_of(there[0]) == []
            line.leave(there.pop(0))
        assert len(line) <= SHORT.max_waiting
        for position, each in enumerate(there):
            assert line.ahead_of(each) == there[:position]
            assert held(line, each, now).position == position + 1


@given(st.integers(10, 3600), st.booleans(), st.floats(0, 3))
def test_nobody_waits_longer_than_they_are_to(max_wait_s: int, offer: bool, web_s: float) -> None:
    """Who asks again when the music is over is told so within that turn's last second."""
    line, terms = Line(), Queue(max_wait_s=max_wait_s, offer_callback=offer)
    line.join("a", terms, 0.0, may_be_called_back=True)
    now = 0.0
    while isinstance(turn := line.turn("a", now), Hold):
        now += turn.seconds + (WORDS_S if turn.says or turn.offers else 0)
        assert now <= max_wait_s + 1
        now += web_s
    assert now <= max_wait_s + 1 + web_s
