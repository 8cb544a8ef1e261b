from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.refer_told import Notice, Subscription

TRYING = Notice("SIP/2.0 100 Trying", "active;expires=180")
RINGING = Notice("SIP/2.0 180 Ringing", "active;expires=180")
OK = Notice("SIP/2.0 200 OK", "terminated;reason=noresource")


def test_each_is_said_when_the_one_before_was_answered() -> None:
    told = Subscription()
    assert told.says(100) == TRYING
    assert told.says(180) is None
    assert told.answered(200) == RINGING
    assert told.answered(200) is None
    assert told.says(180) is None  # nothing new
    assert told.says(200) == OK
    assert told.says(200) is None
    assert told.answered(200) is None


def test_of_what_happens_meanwhile_the_latest_is_said() -> None:
    told = Subscription()
    told.says(100)
    assert [told.says(status) for status in (180, 183, 200, 486, 180)] == [None] * 5
    assert told.answered(200) == OK


def test_who_refuses_a_notify_or_never_answers_hears_no_more() -> None:
    for code in (481, 489, 408, 0):
        told = Subscription()
        told.says(100)
        told.says(180)
        assert told.answered(code) is None
        assert told.says(200) is None


def test_who_wants_to_hear_nothing_hears_nothing() -> None:
    told = Subscription(silent=True)
    assert [told.says(status) for status in (100, 180, 200)] == [None] * 3


def test_a_status_without_words_of_ours_has_none() -> None:
    assert Subscription().says(499) == Notice("SIP/2.0 499 ", "terminated;reason=noresource")


@given(st.lists(st.sampled_from([100, 180, 183, 200, 404, 486]) | st.just(0), max_size=20))
def test_one_is_out_at_a_time_and_the_last_word_is_the_first_final_one(happens: list[int]) -> None:
    """0: the last NOTIFY is answered."""
    told, out, said = Subscription(), 0, list[int]()
    for one in [*happens, 0, 0]:
        if one:
            notice = told.says(one)
        elif out:
            out, notice = 0, told.answered(200)
        else:
            continue
        if notice is not None:
            assert out == 0
            out = 1
            said.append(int(notice.said.split()[1]))
            assert notice.state.startswith("terminated") == (said[-1] >= 200)
    finals = [one for one in happens if one >= 200]
    assert [one for one in said if one >= 200] == finals[:1]
