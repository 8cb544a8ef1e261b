from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.compliance.consent_state import (
    KEPT,
    Ask,
    Await,
    Broken,
    ConsentState,
    Heard,
    Machine,
    No,
    Open,
    Owed,
    Put,
    ServeWithout,
    Shut,
    Silence,
    Unclear,
    Withdrawn,
    Yes,
)
from trunkline.ports import Door

DOORS: tuple[Door, ...] = ("record", "third_party")


def asked(*events: Any) -> ConsentState:
    state = ConsentState()
    for event in (Owed(DOORS), Put(), *events):
        state.handle(event)
    return state


def test_yes_opens_what_was_asked_for() -> None:
    state = asked()
    assert state.handle(Heard()) == (Await(),)
    assert not state.is_open("record")
    assert state.is_open("transcript")  # nobody asked for it
    assert state.handle(Yes("speech")) == (Open(DOORS, "speech"),)
    assert state.is_open("record")
    assert state.is_open("third_party")


def test_words_of_agreement_before_the_question_was_heard_are_none() -> None:
    state = asked()
    assert state.handle(Yes("speech")) == ()
    assert state.handle(Yes("keypad")) == (Open(DOORS, "keypad"),)


def test_a_key_before_the_question_is_no_answer() -> None:
    state = ConsentState()
    state.handle(Owed(DOORS))
    assert state.handle(Yes("keypad")) == ()
    assert state.handle(No("keypad")) == (ServeWithout(DOORS, "keypad"),)


@pytest.mark.parametrize("event", [Silence(), Unclear()])
def test_the_question_is_put_twice(event: Any) -> None:
    state = asked(Heard())
    assert state.handle(event) == (Ask(),)
    assert state.handle(event) == ()  # while it is spoken
    state.handle(Put())
    state.handle(Heard())
    assert state.handle(event) == (ServeWithout(DOORS, None),)
    assert state.handle(Yes("keypad")) == ()


def test_withdrawing_shuts_every_door_also_one_that_nobody_had_to_ask_for() -> None:
    state = asked(Heard(), Yes("speech"))
    assert state.handle(Withdrawn("speech")) == (Shut(KEPT, DOORS, "speech"),)
    assert not any(map(state.is_open, KEPT))
    assert state.handle(Withdrawn("speech")) == ()


def test_a_call_that_comes_back_keeps_what_was_settled_and_asks_the_rest_anew() -> None:
    state = asked(Heard(), Yes("speech"))
    state.handle(Owed(("transcript",)))
    back = ConsentState(state.settled)
    back.handle(Owed(KEPT))
    assert back.is_open("record")
    assert back.unsettled == ("transcript",)
    assert ConsentState(asked(Heard()).settled).settled == {}


def test_a_machine_agrees_to_nothing_by_its_words() -> None:
    state = asked(Heard())
    assert state.handle(Machine()) == (ServeWithout(DOORS, "machine"),)
    assert state.handle(Machine()) == ()
    state.handle(Owed(KEPT))  # nor to what is asked for later
    assert state.unsettled == ()
    assert not any(map(state.is_open, KEPT))
    state = asked(Heard(), Yes("speech"))
    assert state.handle(Machine()) == (Shut(DOORS, DOORS, "machine"),)
    assert not state.is_open("record")
    state = asked(Heard(), Yes("keypad"))  # which machines do not press
    assert state.handle(Machine()) == ()
    assert state.is_open("record")


EVENTS = st.one_of(
    st.sampled_from([Put(), Heard(), Unclear(), Silence(), Broken(), Machine()]),
    st.builds(Yes, st.sampled_from(["keypad", "speech"])),
    st.builds(No, st.sampled_from(["keypad", "speech"])),
    st.builds(Withdrawn, st.sampled_from(["keypad", "speech"])),
    st.builds(Owed, st.sampled_from([KEPT, DOORS, ("transcript",)])),
)


@given(st.lists(EVENTS, max_size=30))
def test_a_door_that_was_never_granted_is_never_open(events: list[Any]) -> None:
    state = ConsentState()
    state.handle(Owed(DOORS))
    granted: set[str] = set()
    put = heard = False
    for event in events:
        effects = state.handle(event)
        for effect in effects:
            if isinstance(effect, Open):
                assert isinstance(event, Yes)
                assert put
                assert heard or event.via == "keypad"
                granted.update(effect.doors)
            if isinstance(effect, Shut):
                granted.clear()
        if isinstance(event, Withdrawn):
            assert not any(map(state.is_open, KEPT))
        put = (put or isinstance(event, Put)) and not isinstance(event, Broken)
        heard = isinstance(event, Heard) or (heard and not isinstance(event, Put | Broken))
        assert {door for door in DOORS if state.is_open(door)} == granted & set(DOORS)
        again = ConsentState(state.settled)
        again.handle(Owed(KEPT))
        assert {door for door in DOORS if again.is_open(door)} <= granted
