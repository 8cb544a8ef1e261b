"""The life of a call's sessions, without a model or a loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.definition import ProviderChoice, RealtimeTerms
from trunkline.agents.realtime import sessions as s
from trunkline.agents.realtime.sessions import State
from trunkline.errors import ProviderError

GONE = ProviderError("model", "unavailable", retryable=True)
FOR_GOOD = ProviderError("model", "auth", retryable=False)
TERMS = RealtimeTerms(ProviderChoice("model"), session_minutes=10, reconnect_ms=1000)


def begun() -> s.Sessions:
    sessions = s.Sessions(TERMS)
    assert sessions.handle(s.Begin(), 0.0) == [s.SetTimer("late", s.FIRST_S), s.Open(1)]
    return sessions


def live() -> s.Sessions:
    sessions = begun()
    sessions.handle(s.Opened(1), 0.5)
    return sessions


def test_the_first_session_is_adopted_when_it_opens_and_is_renewed_by_its_age() -> None:
    sessions = begun()
    assert sessions.handle(s.Opened(1), 0.5) == [
        s.CancelTimer("late"),
        s.Adopt(1, 500.0),
        s.SetTimer("renew", 600.0),
    ]
    assert sessions.handle(s.Renew(), 600.5) == [s.Open(2)]
    assert sessions.live == 1
    assert sessions.handle(s.Opened(2), 601.0) == [s.SetTimer("move", 0.0)]
    assert sessions.handle(s.Move(quiet=False), 601.0) == [s.SetTimer("move", s.MOVE_AGAIN_S)]
    assert sessions.handle(s.TurnOver(), 630.0) == [s.SetTimer("move", 0.0)]
    assert sessions.handle(s.Move(quiet=True), 631.0) == [
        s.Tell("session_renewed"),
        s.Close(1),
        s.CancelTimer("late"),
        s.Adopt(2, 0.0),
        s.SetTimer("renew", 570.0),  # it has been open for half a minute
    ]


def test_a_session_is_renewed_before_the_far_end_ends_it() -> None:
    sessions = begun()
    assert sessions.handle(s.Opened(1, lasts_s=100.0), 0.0)[-1] == s.SetTimer("renew", 90.0)
    sessions.handle(s.Renew(), 90.0)
    sessions.handle(s.Opened(2, lasts_s=10_000.0), 91.0)
    assert sessions.handle(s.Move(quiet=True), 91.0)[-1] == s.SetTimer("renew", 600.0)


def test_another_is_tried_until_it_has_taken_too_long() -> None:
    sessions = live()
    assert sessions.handle(s.Lost(1, GONE), 10.0) == [
        s.Close(1),
        s.CancelTimer("renew"),
        s.Without(),
        s.SetTimer("late", 1.0),
        s.Tell("session_lost", GONE),
        s.SetTimer("reopen", s.REOPEN_S),
    ]
    now, tries = 10.0, 0
    while sessions.state is State.BETWEEN:
        now += s.REOPEN_S
        tries += 1
        assert sessions.handle(s.Reopen(), now) == [s.Open(1 + tries)]
        effects = sessions.handle(s.Lost(1 + tries, GONE), now)
    assert tries == 4
    assert now == 11.0
    assert effects[-1] == s.GiveUp(GONE)
    assert sessions.state is State.OVER


def test_one_that_comes_back_in_time_says_how_long_there_was_none() -> None:
    sessions = live()
    sessions.handle(s.Lost(1, GONE), 10.0)
    sessions.handle(s.Reopen(), 10.25)
    assert sessions.handle(s.Opened(2), 10.75)[:2] == [s.CancelTimer("late"), s.Adopt(2, 750.0)]
    assert sessions.handle(s.Lost(2, GONE), 20.0)[-1] == s.SetTimer("reopen", s.REOPEN_S)  # its time begins anew


def test_a_try_that_is_under_way_when_it_has_taken_too_long_is_given_up() -> None:
    sessions = live()
    sessions.handle(s.Lost(1, GONE), 10.0)
    sessions.handle(s.Reopen(), 10.25)
    effects = sessions.handle(s.Late(), 11.0)
    late = ProviderError("model", "timeout", "no session", retryable=True)
    assert [str(e.error) for e in effects if isinstance(e, s.Tell | s.GiveUp)] == [str(late), str(late)]
    assert s.Close(2) in effects
    assert s.CancelTimer("reopen") in effects
    assert sessions.state is State.OVER
    assert sessions.handle(s.Opened(2), 11.1) == []


def test_the_first_session_has_its_time_where_no_other_is_waited_for() -> None:
    sessions = s.Sessions(RealtimeTerms(ProviderChoice("model"), reconnect_ms=0))
    assert s.SetTimer("late", s.FIRST_S) in sessions.handle(s.Begin(), 0.0)


def test_what_cannot_be_mended_is_not_tried_again() -> None:
    sessions = live()
    assert sessions.handle(s.Lost(1, FOR_GOOD), 10.0)[-1] == s.GiveUp(FOR_GOOD)
    assert sessions.handle(s.Reopen(), 10.25) == []
    assert sessions.handle(s.Failed(GONE), 10.25) == []


def test_a_session_that_is_lost_while_the_next_is_opened_is_followed_by_that() -> None:
    sessions = live()
    sessions.handle(s.Renew(), 600.0)
    effects = sessions.handle(s.Lost(1, GONE), 600.25)
    assert effects == [
        s.Close(1),
        s.CancelTimer("renew"),
        s.Without(),
        s.Tell("session_lost", GONE),
        s.SetTimer("late", 1.0),
    ]
    assert sessions.state is State.OPENING
    assert s.Adopt(2, 250.0) in sessions.handle(s.Opened(2), 600.5)


def test_a_session_that_is_lost_while_the_next_waits_is_followed_by_that_at_once() -> None:
    sessions = live()
    sessions.handle(s.Renew(), 600.0)
    sessions.handle(s.Opened(2), 600.5)
    effects = sessions.handle(s.Lost(1, GONE), 601.0)
    assert effects[-2:] == [s.Adopt(2, 0.0), s.SetTimer("renew", 599.5)]
    assert sessions.live == 2


@pytest.mark.parametrize("opened", [False, True])
def test_a_next_session_that_is_lost_leaves_the_call_where_it_is(opened: bool) -> None:
    sessions = live()
    sessions.handle(s.Renew(), 600.0)
    if opened:
        sessions.handle(s.Opened(2), 600.5)
    effects = sessions.handle(s.Lost(2, FOR_GOOD), 601.0)
    assert effects == [
        s.Close(2),
        s.CancelTimer("move"),
        s.Tell("session_not_renewed", FOR_GOOD),
        s.SetTimer("renew", s.RENEW_AGAIN_S),
    ]
    assert sessions.live == 1
    assert sessions.handle(s.Move(quiet=True), 601.0) == []


def test_the_end_closes_all_there_is() -> None:
    sessions = live()
    sessions.handle(s.Renew(), 600.0)
    assert sessions.handle(s.End(), 600.1)[:2] == [s.Close(1), s.Close(2)]
    assert sessions.handle(s.Opened(2), 600.2) == []


EVENTS = st.one_of(
    st.builds(s.Opened, st.integers(1, 6)),
    st.builds(s.Lost, st.integers(1, 6), st.sampled_from([GONE, GONE, FOR_GOOD])),
    st.sampled_from([s.Begin(), s.Reopen(), s.Late(), s.Renew(), s.TurnOver(), s.Failed(GONE), s.End()]),
    st.builds(s.Move, st.booleans()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 60)), max_size=40))
def test_whatever_happens_sessions_are_opened_and_closed_once_and_no_wait_is_endless(
    events: list[tuple[s.Event, float]],
) -> None:
    sessions, now = begun(), 0.0
    opened, closed, timers, given_up = {1}, set[int](), {"late"}, 0
    for event, later_s in events:
        now += later_s
        name = {s.Reopen: "reopen", s.Late: "late", s.Renew: "renew", s.Move: "move"}.get(type(event))
        if name is not None and name not in timers:
            continue  # a timer that was not set does not fire
        if name is not None:
            timers.discard(name)
        for effect in sessions.handle(event, now):
            match effect:
                case s.Open(number):
                    assert number not in opened
                    opened.add(number)
                case s.Close(number):
                    assert number in opened - closed
                    closed.add(number)
                case s.Adopt(number, without_ms):
                    assert number in opened - closed
                    assert without_ms >= 0
                case s.SetTimer(timer, after_s):
                    assert after_s >= 0
                    timers.add(timer)
                case s.CancelTimer(timer):
                    timers.discard(timer)
                case s.GiveUp():
                    given_up += 1
        left = opened - closed
        assert len(left) <= 2
        assert (sessions.live is None) or sessions.live in left
        awaited = {
            State.OPENING: "late" in timers,
            State.BETWEEN: {"reopen", "late"} <= timers,
            State.LIVE: "renew" in timers and "late" not in timers,
            State.READY: "move" in timers and "late" not in timers,
            State.OVER: not timers and not left,
        }
        assert awaited.get(sessions.state, True), sessions.state
    assert given_up <= 1
