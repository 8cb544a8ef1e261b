"""What a far end is told of a hold: one thing at a time, and in the end the truth."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.sip.farhold import RESUME_TRIES, FarHold


def test_a_hold_and_a_resume_are_asked_for_once() -> None:
    hold = FarHold()
    assert hold.want(True) is True
    assert hold.want(True) is None  # under way
    assert hold.answered(200) is True
    assert (hold.told, hold.next()) == (True, None)
    assert hold.want(False) is False
    assert hold.answered(200) is False
    assert (hold.told, hold.next()) == (False, None)


def test_what_is_wanted_meanwhile_is_asked_for_next() -> None:
    hold = FarHold()
    assert hold.want(True) is True
    assert hold.want(False) is None
    assert hold.answered(200) is True
    assert hold.next() is False


def test_a_refused_hold_needs_no_resume() -> None:
    hold = FarHold()
    hold.want(True)
    assert hold.answered(488) is True
    assert (hold.told, hold.refused, hold.next(), hold.want(False)) == (False, False, None, None)
    assert hold.want(True) is True  # another hold may be taken


def test_a_refused_resume_is_asked_for_again_a_few_times() -> None:
    hold = FarHold()
    hold.want(True)
    hold.answered(200)
    asked = [hold.want(False)]
    while asked[-1] is not None:
        hold.answered(491)
        assert hold.refused
        asked.append(hold.next())
    assert asked == [False] * RESUME_TRIES + [None]
    assert hold.told
    assert hold.want(False) is False  # an operator may try


@given(st.lists(st.one_of(st.booleans(), st.sampled_from([200, 200, 488, 491])), max_size=40))
def test_no_two_are_out_at_once_and_what_was_agreed_is_what_was_wanted_last(events: list[bool | int]) -> None:
    hold, out, wanted, refused = FarHold(), False, False, False
    for event in events:
        if isinstance(event, bool):
            wanted, refused = event, False
            asked = hold.want(event)
        elif out:
            out, refused = False, refused or event != 200
            hold.answered(event)
            asked = hold.next()
        else:
            continue
        assert asked is None or not out
        out = out or asked is not None
    if not out and not refused:
        assert hold.told == wanted
