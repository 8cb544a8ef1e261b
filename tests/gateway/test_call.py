from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.gateway.call import (
    CLOSE_WAIT_S,
    DIAL_SLACK_S,
    IGNORED,
    START_WAIT_S,
    TRANSITIONS,
    Answered,
    Attend,
    Call,
    CloseLeg,
    DeadlinePassed,
    DialFailed,
    Dialled,
    EarlyMedia,
    Effect,
    EndRecord,
    Event,
    HandOver,
    HangUp,
    Listen,
    MediaLost,
    MediaStarted,
    MediaStopped,
    Release,
    Returned,
    SetDeadline,
    State,
    StatusFinal,
    StepAside,
    Transfer,
)

SAMPLES: dict[type, Event] = {
    EarlyMedia: EarlyMedia(),
    Answered: Answered(),
    MediaStarted: MediaStarted(),
    MediaStopped: MediaStopped(),
    MediaLost: MediaLost("socket lost"),
    HangUp: HangUp("agent_hung_up"),
    Transfer: Transfer(),
    HandOver: HandOver(),
    Returned: Returned(),
    Dialled: Dialled(),
    DialFailed: DialFailed(),
    StatusFinal: StatusFinal("caller_hung_up"),
    DeadlinePassed: DeadlinePassed(),
}
EVENTS: tuple[type, ...] = Event.__args__


def after(*events: Event) -> tuple[Call, list[Effect]]:
    """A call to which this happened, and the effects of the last."""
    call, effects = Call(max_call_s=600), list[Effect]()
    for event in events:
        effects = call.handle(event)
    return call, effects


def test_every_pair_of_state_and_event_has_a_row_or_is_ignored_and_none_is_both() -> None:
    pairs = set(product(State, EVENTS))
    assert set(TRANSITIONS) | IGNORED == pairs
    assert not set(TRANSITIONS) & IGNORED


def test_every_state_can_be_reached_and_every_state_can_end() -> None:
    reached = {State.RINGING}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == set(State)
    for state in set(State) - {State.ENDED}:
        assert State.ENDED in {to for (start, _), to in TRANSITIONS.items() if start is state}


@pytest.mark.parametrize("state", [State.RINGING, State.TRANSFERRING, State.ENDING])
def test_every_state_that_waits_for_the_carrier_has_a_deadline(state: State) -> None:
    assert (state, DeadlinePassed) in TRANSITIONS


def test_an_ordinary_call() -> None:
    call = Call()
    assert call.begin() == [SetDeadline(START_WAIT_S)]
    assert call.handle(MediaStarted()) == [Attend("new")]
    assert call.handle(HangUp("agent_hung_up")) == [Release(), CloseLeg("agent_hung_up"), SetDeadline(CLOSE_WAIT_S)]
    assert call.handle(MediaStopped()) == [Release(), CloseLeg("agent_hung_up"), EndRecord("agent_hung_up")]
    assert call.state is State.ENDED


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ((DeadlinePassed(),), EndRecord("never_started")),
        ((HangUp("drained"),), EndRecord("drained")),
        ((MediaStarted(), Transfer(), HangUp("drained")), EndRecord("transferred", "we were stopped first")),
        ((StatusFinal("busy", "486 Busy Here"),), EndRecord("busy", "486 Busy Here")),
        ((Answered(), DeadlinePassed()), EndRecord("never_started")),
        ((EarlyMedia(), StatusFinal("caller_hung_up", "cancelled")), EndRecord("caller_hung_up", "cancelled")),
        ((MediaStarted(), MediaStopped()), EndRecord("caller_hung_up")),
        ((MediaStarted(), MediaLost("no media")), EndRecord("media_lost", "no media")),
        ((MediaStarted(), StatusFinal("caller_hung_up")), EndRecord("caller_hung_up")),
        ((MediaStarted(), HangUp("no_input"), MediaLost("gone")), EndRecord("no_input")),
        ((MediaStarted(), HangUp("no_input"), DeadlinePassed()), EndRecord("no_input")),
        ((MediaStarted(), HangUp("no_input"), StatusFinal("caller_hung_up")), EndRecord("no_input")),
        ((MediaStarted(), Transfer(), Dialled()), EndRecord("transferred")),
        ((MediaStarted(), Transfer(), StatusFinal("caller_hung_up")), EndRecord("transferred")),
        ((MediaStarted(), Transfer(), HangUp("agent_hung_up")), EndRecord("agent_hung_up")),
        ((MediaStarted(), Transfer(), DeadlinePassed()), EndRecord("transferred", "how it went was never told")),
        (
            (MediaStarted(), Transfer(), DialFailed(), DeadlinePassed()),
            EndRecord("media_lost", "no media after a transfer that failed"),
        ),
    ],
)
def test_how_it_ends_is_told_by_what_happened_first(events: tuple[Event, ...], end: EndRecord) -> None:
    call, effects = after(*events)
    assert effects == [Release(), CloseLeg(end.reason), end]
    assert call.state is State.ENDED


def test_a_call_of_ours_may_ring_for_so_long_and_is_heard_before_it_is_answered() -> None:
    call = Call(ring_s=30)
    assert call.begin() == [SetDeadline(30)]
    assert call.handle(EarlyMedia()) == [Listen()]
    end = EndRecord("no_answer", "it rang too long")
    assert call.handle(DeadlinePassed()) == [Release(), CloseLeg("no_answer"), end]


def test_a_call_of_ours_that_is_answered_is_attended_when_its_media_comes() -> None:
    call = Call(ring_s=30)
    assert call.handle(EarlyMedia()) == [Listen()]
    assert call.handle(Answered()) == [SetDeadline(START_WAIT_S)]
    assert call.handle(MediaStarted()) == [Attend("new")]
    assert call.handle(EarlyMedia()) == call.handle(Answered()) == []


def test_a_call_of_ours_that_is_answered_and_stays_without_media_never_started() -> None:
    call = Call(ring_s=30)
    call.handle(Answered())
    assert call.handle(DeadlinePassed())[-1] == EndRecord("never_started")


def test_a_second_stream_replaces_the_first() -> None:
    assert after(MediaStarted(), MediaStarted())[1] == [Release(), Attend("replaced")]


def test_a_transfer_waits_for_the_target_as_long_as_the_carrier_would() -> None:
    call, effects = after(MediaStarted(), Transfer())
    assert effects == [Release(), CloseLeg("transferred"), SetDeadline(600 + DIAL_SLACK_S)]
    assert call.handle(MediaStopped()) == []  # the carrier ends the stream in order to dial


def test_a_failed_transfer_comes_back_to_the_agent_who_knows_of_it() -> None:
    call, effects = after(MediaStarted(), Transfer(), DialFailed())
    assert effects == [SetDeadline(START_WAIT_S)]
    assert call.handle(MediaStarted()) == [Attend("transfer_failed")]
    assert call.handle(MediaStarted()) == [Release(), Attend("replaced")]


def test_a_stream_that_comes_back_by_itself_during_a_transfer_is_attended() -> None:
    assert after(MediaStarted(), Transfer(), MediaStarted())[1] == [Attend("replaced")]


@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda e: type(e).__name__)
def test_nothing_happens_after_the_end(event: Event) -> None:
    call, _ = after(StatusFinal("caller_hung_up"))
    assert call.handle(event) == []
    assert call.state is State.ENDED


def test_an_event_nobody_thought_of_is_our_bug_and_names_itself() -> None:
    class Alien:
        pass

    with pytest.raises(KeyError, match=r"RINGING.*Alien"):
        Call().handle(Alien())  # type: ignore[arg-type]


events = st.lists(st.sampled_from(sorted(SAMPLES, key=lambda e: e.__name__)).map(SAMPLES.__getitem__), max_size=25)


@given(events)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_the_record_ends_once_and_nobody_is_left_on_the_line(happened: list[Event]) -> None:
    call, attended, seen, ended = Call(), 0, 0, 0
    for event in [*happened, StatusFinal("failed")]:
        for effect in call.handle(event):
            match effect:
                case Attend(why):
                    assert not attended, "two agents on one line"
                    assert (why == "new") == (not seen), "only the first is new"
                    attended = seen = 1
                case Release() | StepAside():
                    attended = 0
                case EndRecord():
                    ended += 1
        assert ended <= 1
        assert attended == (call.state is State.ACTIVE)
        assert (call.state is State.ENDED) == bool(ended)
    assert ended == 1


@given(events)
@settings(max_examples=200, deadline=None)
def test_a_call_that_only_waits_ends_by_its_deadline(happened: list[Event]) -> None:
    call = Call()
    for event in happened:
        call.handle(event)
    if call.state not in (State.ACTIVE, State.HANDOVER, State.ENDED):  # there others keep the time
        assert isinstance(call.handle(DeadlinePassed())[-1], EndRecord)


def test_a_line_that_was_handed_over_comes_back_to_the_agent_who_knows_why() -> None:
    call, effects = after(MediaStarted(), HandOver())
    assert (call.state, effects) == (State.HANDOVER, [StepAside()])
    assert call.handle(Returned()) == [Attend("transfer_failed")]
    call.handle(HandOver())
    assert call.handle(Returned(failed=False)) == [Attend("back")]
    call.handle(HandOver())
    assert call.handle(StatusFinal("caller_hung_up"))[-1] == EndRecord("caller_hung_up")


def test_a_second_stream_during_a_handover_is_the_callers_and_with_the_agent() -> None:
    call, _ = after(MediaStarted(), HandOver())
    assert call.handle(MediaStarted()) == [Release(), Attend("replaced")]
    assert call.state is State.ACTIVE
