from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.gateway.sip.message import Reason
from trunkline.gateway.transfer import IGNORED, TABLE, Transfer
from trunkline.gateway.transfer_record import Attempt, Kind, Policy, Result, Target, TransferFailed
from trunkline.gateway.transfer_steps import (
    AgentLeaves,
    Ask,
    AttemptEvent,
    Brief,
    BriefingFailed,
    BriefingSpoken,
    CallerLeft,
    CallerLost,
    Cancel,
    DeadlinePassed,
    Dial,
    Effect,
    Event,
    HangUpCaller,
    HangUpTarget,
    HearTarget,
    Hold,
    Join,
    Keyed,
    Notify,
    RecordAttempt,
    Refer,
    ReferAccepted,
    ReferRefused,
    ReferReplaces,
    Refused,
    Resume,
    Said,
    Sent,
    SetDeadline,
    TargetAnswered,
    TargetEarlyMedia,
    TargetFailed,
    TargetHungUp,
    TargetLost,
    TargetRinging,
    VoicemailDetected,
)
from trunkline.gateway.transfer_way import State
from trunkline.ports import EndReason

RECEPTION, SALES = Target("reception", "+12025550123"), Target("sales", "sip:sales@pbx.example")
POLICY = Policy(summary="A caller about an invoice.")
EVENTS: tuple[type, ...] = (*AttemptEvent.__args__, CallerLeft, CallerLost, Cancel, DeadlinePassed)


@dataclass
class Tried:
    """A transfer, the clock, and what it did."""

    transfer: Transfer
    now: float = 100.0
    effects: list[Effect] = field(default_factory=list)
    """Of the last event."""
    all: list[Effect] = field(default_factory=list)

    def begin(self) -> "Tried":
        return self._took(self.transfer.begin(self.now))

    def then(self, *events: Event, after_s: float = 0.0) -> "Tried":
        for event in events:
            self.now += after_s
            self._took(self.transfer.handle(event, self.now))
        return self

    def wait(self) -> "Tried":
        """Until the deadline."""
        after_s = next(e.after_s for e in reversed(self.all) if isinstance(e, SetDeadline))
        return self.then(DeadlinePassed(), after_s=after_s)

    def _took(self, effects: list[Effect]) -> "Tried":
        self.effects = effects
        self.all += effects
        return self

    def of(self, *kinds: type) -> list[Any]:
        return [effect for effect in self.all if isinstance(effect, kinds)]

    @property
    def results(self) -> list[Result | None]:
        return [effect.attempt.result for effect in self.of(RecordAttempt)]

    @property
    def state(self) -> State:
        return self.transfer.state


def trying(
    kind: Kind, *targets: Target, policy: Policy = POLICY, can_refer: bool = True, events: tuple[Event, ...] = ()
) -> Tried:
    transfer = Transfer(kind, targets or (RECEPTION,), policy, can_refer=can_refer)
    return Tried(transfer).begin().then(*events)


def failed(tried: Tried) -> TransferFailed:
    """What the agent is told; the caller must be back."""
    assert tried.state is State.RETURNED
    (resume,) = tried.of(Resume)
    assert isinstance(resume.failed, TransferFailed)
    return resume.failed


# --- the table ------------------------------------------------------------------------------------------------------


def test_every_pair_of_state_and_event_has_a_row_or_is_ignored_and_none_is_both() -> None:
    rows = {(state, event) for state, row in TABLE.items() for event in row}
    assert rows | IGNORED == set(product(State, EVENTS))
    assert not rows & IGNORED


def test_every_state_is_reached_and_every_state_but_the_last_leads_on() -> None:
    reached = {State.REFERRING, State.DIALLING}
    for _ in State:
        reached |= {to for state in reached for row in TABLE[state].values() for to in row.leads_to}
    assert reached == set(State) - {State.READY}
    for state in reached - {State.ENDED}:
        assert {to for row in TABLE[state].values() for to in row.leads_to} - {state}


@pytest.mark.parametrize(
    "state", [s for s in State if s not in (State.READY, State.JOINED, State.RETURNED, State.ENDED)]
)
def test_whatever_waits_has_a_deadline_and_notices_the_caller_leaving(state: State) -> None:
    assert {DeadlinePassed, CallerLeft, CallerLost, Cancel} <= TABLE[state].keys()


def test_an_event_nobody_thought_of_is_our_bug_and_names_itself() -> None:
    class Alien:
        pass

    with pytest.raises(KeyError, match=r"DIALLING.*Alien"):
        trying("bridged").then(Alien())  # type: ignore[arg-type]


# --- blind ----------------------------------------------------------------------------------------------------------


def test_a_blind_transfer_that_the_carrier_follows_and_tells_of() -> None:
    tried = trying("blind")
    assert tried.effects == [Hold("caller", "music"), Refer(1, RECEPTION), SetDeadline(15.0)]
    assert tried.then(Sent(1, "carrier")).effects == []
    assert tried.then(ReferAccepted(1), after_s=0.1).effects == [SetDeadline(40.0)]
    assert tried.then(Notify(1, 100)).effects == []
    assert tried.then(Notify(1, 180), after_s=1.9).effects == [SetDeadline(40.0)]
    tried.then(Notify(1, 200, terminated=True), after_s=8)
    record, *rest = tried.effects
    assert rest == [AgentLeaves(), HangUpCaller()]
    assert isinstance(record, RecordAttempt)
    assert record.attempt.event() == {
        "attempt": 1,
        "target": "reception",
        "how": "blind",
        "trunk": "carrier",
        "result": "transferred",
        "confirmed": True,
        "sip_status": 200,
        "q850_cause": None,
        "refer_status": 202,
        "detail": "",
        "waited_before_ms": 0,
        "ringing_ms": 2000,
        "answered_ms": None,
        "accepted_ms": None,
        "joined_ms": 10000,
        "ended_ms": 10000,
        "time_to_human_ms": 10000,
    }
    assert (tried.state, tried.transfer.result) == (State.ENDED, "transferred")


@pytest.mark.parametrize(
    ("status", "result"),
    [(486, "busy"), (480, "no_answer"), (408, "no_answer"), (603, "rejected"), (404, "failed"), (503, "failed")],
)
def test_a_final_notify_that_is_no_success_brings_the_caller_back(status: int, result: Result) -> None:
    tried = trying("blind", events=(ReferAccepted(1), Notify(1, status, terminated=True)))
    assert failed(tried).reason == result
    assert tried.transfer.attempt.sip_status == status
    assert tried.of(HangUpCaller) == []


def test_notifys_that_overtake_the_answer_and_each_other_are_taken_as_they_are() -> None:
    tried = trying("blind", events=(Notify(1, 180), Notify(1, 100), ReferAccepted(1)))
    assert tried.state is State.REFERRED
    assert tried.transfer.attempt.refer_status == 202
    assert tried.then(Notify(1, 200)).state is State.ENDED
    assert tried.then(Notify(1, 180), Notify(1, 486), ReferAccepted(1)).effects == []
    assert tried.results == ["transferred"]


@pytest.mark.parametrize("status", [405, 501, 603, 420, 481, 403])
def test_a_refer_that_is_refused_brings_the_caller_back(status: int) -> None:
    tried = trying("blind", events=(ReferRefused(1, status),))
    assert failed(tried) == TransferFailed("refused_by_peer", "reception", f"REFER: {status}", 1)
    assert tried.transfer.attempt.refer_status == status


@pytest.mark.parametrize("status", [405, 501, 603, 420, 481, 403])
def test_auto_dials_the_target_itself_when_the_carrier_refuses(status: int) -> None:
    tried = trying("auto", events=(ReferRefused(1, status),))
    assert [type(e) for e in tried.effects] == [RecordAttempt, Dial, SetDeadline]
    tried.then(TargetAnswered(2), after_s=5)
    assert tried.effects[:2] == [Join(2), AgentLeaves()]
    assert tried.results == ["refused_by_peer", "transferred"]
    assert [e.attempt.how for e in tried.of(RecordAttempt)] == ["blind", "bridged"]
    assert tried.transfer.attempt.time_to_human_ms == 5000


@pytest.mark.parametrize("status", [0, 408, 504])
def test_a_refer_without_an_answer_may_have_been_followed_so_nobody_else_is_dialled(status: int) -> None:
    tried = trying("auto", RECEPTION, SALES, events=(ReferRefused(1, status),))
    assert failed(tried).reason == "timed_out"
    assert tried.of(Dial) == []
    assert len(tried.of(Refer)) == 1


def test_a_refusal_after_it_has_rung_is_no_reason_to_dial() -> None:
    tried = trying("auto", events=(Notify(1, 180), ReferRefused(1, 603)))
    assert failed(tried).reason == "timed_out"
    assert tried.of(Dial) == []


def test_auto_does_not_ask_a_leg_that_cannot() -> None:
    assert Dial(1, RECEPTION) in trying("auto", can_refer=False).effects
    tried = trying("auto", events=(Refused(1, "not_supported"),))
    assert tried.results == ["refused"]
    assert tried.of(Dial) == [Dial(2, RECEPTION)]


def test_what_a_rule_refuses_is_not_tried_in_another_way() -> None:
    tried = trying("auto", events=(Refused(1, "premium", "never called"),))
    assert failed(tried) == TransferFailed("refused", "reception", "premium: never called", 1)
    assert tried.of(Dial) == []


def test_a_blind_transfer_on_a_leg_that_cannot_fails_at_once() -> None:
    tried = trying("blind", RECEPTION, SALES, can_refer=False)
    assert tried.results == ["refused", "refused"]
    assert failed(tried).target == "sales"


def test_silence_after_the_refer_brings_the_caller_back() -> None:
    assert failed(trying("blind").wait()).reason == "timed_out"


def test_silence_after_its_acceptance_is_borne_longer_than_it_rings() -> None:
    tried = trying("blind", events=(ReferAccepted(1),))
    assert tried.then(DeadlinePassed(), after_s=POLICY.ring_s).state is State.REFERRED  # not due: of before
    assert failed(tried.wait()).reason == "timed_out"


def test_a_carrier_that_vanishes_mid_transfer_is_told_from_one_that_is_only_silent() -> None:
    tried = trying("blind", events=(ReferAccepted(1), CallerLost("no media")))
    assert tried.state is State.REFERRED
    assert failed(tried.wait()).reason == "carrier_vanished"


def test_a_subscription_that_ends_without_a_result_shortens_the_wait() -> None:
    tried = trying("blind", events=(ReferAccepted(1), Notify(1, 100, terminated=True)))
    assert tried.effects == [SetDeadline(10.0)]
    assert tried.then(Notify(1, None, terminated=True), after_s=1).effects == []  # not longer again
    assert failed(tried.wait()).reason == "timed_out"


@pytest.mark.parametrize(
    ("told", "result"),
    [((), "transferred"), ((Notify(1, 100),), "transferred"), ((Notify(1, 180),), "caller_left")],
    ids=["nothing", "trying", "ringing"],
)
def test_a_bye_without_a_final_notify_is_read_by_what_was_told_before(told: tuple[Event, ...], result: Result) -> None:
    tried = trying("blind", events=(ReferAccepted(1), *told, CallerLeft()))
    assert (tried.state, tried.results) == (State.ENDED, [result])
    assert tried.transfer.attempt.confirmed == (result == "caller_left")


def test_a_bye_before_the_refer_is_answered_is_the_callers() -> None:
    assert trying("blind", events=(CallerLeft(),)).results == ["caller_left"]


def test_a_carrier_that_puts_the_caller_through_after_all_has_its_leg_back() -> None:
    tried = trying("blind", events=(ReferAccepted(1),)).wait()
    assert tried.then(Notify(1, 200)).effects == [AgentLeaves(), HangUpCaller()]
    assert tried.state is State.ENDED
    assert tried.results == ["timed_out"]


def test_a_refer_that_may_still_be_followed_is_unsettled() -> None:
    assert trying("blind").wait().transfer.unsettled
    assert trying("blind", events=(ReferAccepted(1), Cancel())).transfer.unsettled
    assert not trying("blind", events=(ReferAccepted(1), Notify(1, 486))).transfer.unsettled
    assert not trying("blind", events=(ReferRefused(1, 405),)).transfer.unsettled
    assert not trying("blind", events=(Cancel(), Notify(1, 486))).transfer.unsettled
    assert not trying("attended", events=(Cancel(),)).transfer.unsettled
    assert not attended(ReferRefused(1, 405), TargetLost(1)).transfer.unsettled
    assert attended(ReferRefused(1, 408), TargetLost(1)).transfer.unsettled
    assert not trying("bridged", events=(Cancel(),)).transfer.unsettled
    assert not trying("blind", events=(ReferAccepted(1),)).transfer.unsettled


def test_a_success_after_a_final_failure_is_not_believed() -> None:
    tried = trying("blind", events=(ReferAccepted(1), Notify(1, 486), Notify(1, 200)))
    assert (tried.effects, tried.state) == ([], State.RETURNED)


def test_notifys_of_an_earlier_refer_mean_nothing() -> None:
    tried = trying("blind", RECEPTION, SALES, events=(ReferAccepted(1), Notify(1, 486), ReferAccepted(2)))
    assert tried.then(Notify(1, 200)).effects == []
    assert tried.state is State.REFERRED
    assert tried.results == ["busy"]


def test_what_an_earlier_attempt_was_told_does_not_count_for_the_next() -> None:
    tried = trying("blind", RECEPTION, SALES, events=(ReferAccepted(1), Notify(1, 180), Notify(1, 486)))
    assert tried.then(ReferAccepted(2), CallerLeft()).results == ["busy", "transferred"]


def test_repeated_notifys_and_a_late_answer_do_not_lengthen_the_wait() -> None:
    tried = trying("blind", events=(Notify(1, 180), Notify(1, 183), Notify(1, 180), ReferAccepted(1)))
    assert tried.of(SetDeadline) == [SetDeadline(15.0), SetDeadline(40.0), SetDeadline(40.0)]


@pytest.mark.parametrize(
    ("kind", "events", "reason"),
    [
        ("blind", (ReferAccepted(1), CallerLost(), Notify(1, 486)), "busy"),
        ("auto", (CallerLost(), ReferRefused(1, 405)), "carrier_vanished"),
    ],
)
def test_nobody_is_dialled_for_a_caller_who_is_lost(kind: Kind, events: tuple[Event, ...], reason: Result) -> None:
    tried = trying(kind, RECEPTION, SALES, events=events)
    assert failed(tried).reason == reason
    assert tried.of(Refer, Dial) == [Refer(1, RECEPTION)]


# --- bridged --------------------------------------------------------------------------------------------------------


def test_a_bridged_transfer() -> None:
    tried = trying("bridged")
    assert tried.effects == [Hold("caller", "music"), Dial(1, RECEPTION), SetDeadline(30.0)]
    tried.then(Sent(1, "carrier"), TargetRinging(1), after_s=0.5)
    assert tried.then(TargetEarlyMedia(1)).effects == [HearTarget(1)]
    tried.then(TargetAnswered(1), after_s=4)
    assert [type(e) for e in tried.effects] == [Join, AgentLeaves, RecordAttempt]
    attempt = tried.transfer.attempt
    assert (attempt.trunk, attempt.ringing_at, attempt.answered_at) == ("carrier", 101.0, 105.0)
    assert attempt.time_to_human_ms == 5000
    assert tried.state is State.JOINED


def test_the_agent_may_stay() -> None:
    tried = trying("bridged", policy=Policy(agent_stays=True), events=(TargetAnswered(1),))
    assert tried.of(AgentLeaves) == []


@pytest.mark.parametrize(
    ("event", "result", "status", "cause"),
    [
        (TargetFailed(1, 486), "busy", 486, None),
        (TargetFailed(1, 500, (Reason("Q.850", 17),)), "busy", 500, 17),
        (TargetFailed(1, 603), "rejected", 603, None),
        (TargetFailed(1, 404), "failed", 404, None),
        (TargetFailed(1, end="no_answer"), "no_answer", None, None),
        (TargetLost(1, "transport"), "target_lost", None, None),
        (TargetHungUp(1), "target_lost", None, None),
        (VoicemailDetected(1), "voicemail", None, None),
        (Refused(1, "full"), "refused", None, None),
    ],
)
def test_whatever_keeps_the_target_away_brings_the_caller_back(
    event: Event, result: Result, status: int | None, cause: int | None
) -> None:
    tried = trying("bridged", events=(event,))
    assert failed(tried).reason == result
    assert tried.results == [result]
    assert (tried.transfer.attempt.sip_status, tried.transfer.attempt.q850_cause) == (status, cause)


def test_a_target_that_never_answers_is_cancelled() -> None:
    tried = trying("bridged", events=(TargetRinging(1),)).wait()
    assert failed(tried).reason == "no_answer"
    assert HangUpTarget(1) in tried.effects
    assert tried.then(TargetAnswered(1)).effects == [HangUpTarget(1)]  # CANCEL and 200 have crossed
    assert tried.state is State.RETURNED


def test_the_next_target_is_dialled_only_when_the_first_is_surely_dead() -> None:
    tried = trying("bridged", RECEPTION, SALES, events=(TargetEarlyMedia(1),)).wait()
    assert tried.state is State.CLEARING
    assert tried.effects[1:] == [HangUpTarget(1), Hold("caller", "music"), SetDeadline(5.0)]
    assert tried.then(TargetAnswered(1)).effects == [HangUpTarget(1)]
    assert tried.then(TargetHungUp(1)).effects == [Dial(2, SALES), SetDeadline(30.0)]
    assert tried.then(TargetAnswered(2)).state is State.JOINED
    assert tried.results == ["no_answer", "transferred"]


def test_the_caller_has_music_again_when_the_target_that_was_heard_is_gone() -> None:
    tried = trying("bridged", RECEPTION, SALES, events=(TargetEarlyMedia(1), TargetFailed(1, 486)))
    assert tried.effects[1:] == [Hold("caller", "music"), Dial(2, SALES), SetDeadline(30.0)]


def test_a_target_that_will_not_die_is_the_last() -> None:
    tried = trying("bridged", RECEPTION, SALES).wait().then(TargetLost(1)).wait()
    assert failed(tried) == TransferFailed("no_answer", "reception", "not within 30 s", 1)
    assert tried.of(Dial) == [Dial(1, RECEPTION)]


def test_after_some_patience_no_further_target_is_tried() -> None:
    policy = Policy(ring_s=200, patience_s=120)
    tried = trying("bridged", RECEPTION, SALES, policy=policy).then(TargetFailed(1, 486), after_s=121)
    assert failed(tried).attempts == 1


def test_a_caller_who_leaves_takes_the_ringing_target_along() -> None:
    tried = trying("bridged", events=(TargetRinging(1), CallerLeft()))
    assert tried.effects[1:] == [HangUpTarget(1)]
    assert (tried.state, tried.results) == (State.ENDED, ["caller_left"])
    assert trying("bridged", events=(CallerLost("no media"),)).results == ["carrier_vanished"]


def test_an_operator_takes_the_caller_back() -> None:
    tried = trying("warm", RECEPTION, SALES, events=(TargetAnswered(1), Cancel("by the supervisor")))
    assert failed(tried) == TransferFailed("cancelled", "reception", "by the supervisor", 1)
    assert HangUpTarget(1) in tried.effects


def test_the_end_of_the_conversation_ends_the_call_or_brings_the_agent_back() -> None:
    tried = trying("bridged", events=(TargetAnswered(1), TargetHungUp(1)))
    assert (tried.effects, tried.state) == ([HangUpCaller()], State.ENDED)
    tried = trying("bridged", policy=Policy(after_target="resume"), events=(TargetAnswered(1), TargetHungUp(1)))
    assert (tried.effects, tried.state) == ([Resume(None)], State.RETURNED)
    tried = trying("bridged", events=(TargetAnswered(1), CallerLeft()))
    assert (tried.effects, tried.state) == ([HangUpTarget(1)], State.ENDED)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (TargetLost(1), "target_lost"),
        (VoicemailDetected(1), "voicemail"),
        (Refused(1, "conference_full"), "failed"),
    ],
)
def test_a_caller_is_not_left_alone_with_what_was_joined(event: Event, reason: Result) -> None:
    tried = trying("bridged", events=(TargetAnswered(1), event))
    assert failed(tried).reason == reason
    assert tried.results == ["transferred"]


# --- warm -----------------------------------------------------------------------------------------------------------


def test_a_warm_transfer_accepted_by_key() -> None:
    tried = trying("warm", events=(TargetRinging(1),)).then(TargetAnswered(1), after_s=3)
    assert tried.effects == [Brief(1, f"{POLICY.summary} {POLICY.prompt}", ""), SetDeadline(30.0)]
    assert tried.then(Said(1, "Yes?"), Keyed(1, "7")).effects == []
    assert tried.then(BriefingSpoken(1), after_s=6).effects == [SetDeadline(15.0)]
    tried.then(Keyed(1, "1"), after_s=1)
    assert tried.effects[:2] == [Join(1), AgentLeaves()]
    attempt = tried.transfer.attempt
    assert (attempt.answered_at, attempt.accepted_at, attempt.joined_at) == (103.0, 110.0, 110.0)
    assert tried.of(HearTarget) == []


def test_a_key_need_not_wait_for_the_end_of_the_briefing() -> None:
    assert trying("warm", events=(TargetAnswered(1), Keyed(1, "1"))).state is State.JOINED
    assert failed(trying("warm", events=(TargetAnswered(1), Keyed(1, "2")))).reason == "declined"


@pytest.mark.parametrize("yes", ["Yes.", "sure, go ahead", "OK", "no problem, put them through"])
def test_a_representative_who_says_yes_is_joined(yes: str) -> None:
    assert trying("warm", events=(TargetAnswered(1), BriefingSpoken(1), Said(1, yes))).state is State.JOINED


@pytest.mark.parametrize("no", ["No.", "yes, but not now", "Sorry, I can\u2019t", "I'm busy"])
def test_a_representative_who_says_no_is_not(no: str) -> None:
    tried = trying("warm", events=(TargetAnswered(1), BriefingSpoken(1), Said(1, no)))
    assert failed(tried).reason == "declined"
    assert HangUpTarget(1) in tried.effects


def test_an_unclear_answer_is_asked_again_once_and_silence_is_a_no() -> None:
    tried = trying("warm", events=(TargetAnswered(1), BriefingSpoken(1)))
    assert tried.then(Said(1, "who is this")).effects == [Ask(1, POLICY.prompt), SetDeadline(15.0)]
    assert tried.then(Keyed(1, "7")).effects == []
    assert failed(tried.wait()).reason == "declined"


def test_a_briefing_that_takes_too_long_or_fails_is_cut_to_the_question() -> None:
    tried = trying("warm", events=(TargetAnswered(1),)).wait()
    assert tried.effects == [Ask(1, POLICY.prompt), SetDeadline(15.0)]
    assert trying("warm", events=(TargetAnswered(1), BriefingFailed(1, "no voice"))).state is State.DECIDING


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (VoicemailDetected(1), "voicemail"),
        (TargetHungUp(1), "declined"),
        (TargetLost(1), "target_lost"),
    ],
)
@pytest.mark.parametrize("before", [(), (BriefingSpoken(1),)], ids=["briefing", "deciding"])
def test_a_representative_who_is_none_brings_the_caller_back(
    before: tuple[Event, ...], event: Event, reason: Result
) -> None:
    assert failed(trying("warm", events=(TargetAnswered(1), *before, event))).reason == reason


def test_a_representative_who_hangs_up_leaves_the_line_to_the_next() -> None:
    tried = trying("warm", RECEPTION, SALES, events=(TargetAnswered(1), TargetHungUp(1)))
    assert tried.effects[1:] == [Dial(2, SALES), SetDeadline(30.0)]
    tried.then(TargetAnswered(2), BriefingSpoken(2), Keyed(1, "1"))  # a key of the first, still on its way
    assert tried.state is State.DECIDING


# --- attended -------------------------------------------------------------------------------------------------------


def attended(*events: Event, policy: Policy | None = None) -> Tried:
    return trying("attended", policy=policy or Policy(), events=(TargetAnswered(1), *events))


def test_an_attended_transfer_consults_first_and_then_refers_with_replaces() -> None:
    tried = attended()
    assert tried.effects == [Hold("target", "music"), ReferReplaces(1, RECEPTION), SetDeadline(15.0)]
    assert tried.then(ReferAccepted(1)).effects == [SetDeadline(10.0)]
    assert tried.then(Notify(1, 100)).effects == []
    tried.then(Notify(1, 200, terminated=True))
    assert tried.effects[1:] == [HangUpTarget(1), AgentLeaves(), HangUpCaller()]
    assert tried.results == ["transferred"]


def test_an_attended_transfer_with_a_summary_is_briefed_and_asked() -> None:
    tried = attended(policy=POLICY)
    assert tried.state is State.BRIEFING
    assert tried.then(BriefingSpoken(1), Said(1, "yes")).state is State.REPLACING


@pytest.mark.parametrize(
    "events",
    [
        (ReferRefused(1, 405),),
        (ReferRefused(1, 0),),
        (Refused(1, "not_supported"),),
        (ReferAccepted(1), Notify(1, 481)),
    ],
)
def test_both_are_joined_here_when_the_carrier_cannot(events: tuple[Event, ...]) -> None:
    tried = attended(*events)
    assert tried.state is State.JOINED
    assert tried.of(Dial) == [Dial(1, RECEPTION)]
    assert tried.results == ["transferred"]


def test_both_are_joined_here_when_the_carrier_is_silent() -> None:
    assert attended().wait().state is State.JOINED
    assert attended(ReferAccepted(1)).wait().state is State.JOINED


def test_a_leg_that_was_replaced_ends_before_the_notify_says_so() -> None:
    tried = attended(ReferAccepted(1), TargetHungUp(1))
    assert tried.state is State.REPLACING
    assert tried.then(Notify(1, 200)).effects[1:] == [AgentLeaves(), HangUpCaller()]
    tried = attended(ReferAccepted(1), TargetHungUp(1), CallerLeft())
    assert (tried.results, tried.transfer.attempt.confirmed) == (["transferred"], False)
    assert failed(attended(ReferAccepted(1), TargetHungUp(1)).wait()).reason == "timed_out"


def test_a_target_that_hangs_up_before_the_refer_is_accepted_was_lost() -> None:
    assert failed(attended(TargetHungUp(1))).reason == "target_lost"
    assert failed(attended(ReferAccepted(1), TargetHungUp(1), Notify(1, 486))).reason == "target_lost"


def test_a_caller_lost_while_replaced_is_not_joined() -> None:
    tried = attended(CallerLost(), ReferRefused(1, 405))
    assert failed(tried).reason == "carrier_vanished"
    assert HangUpTarget(1) in tried.effects


# --- whatever happens -----------------------------------------------------------------------------------------------

ENDS: list[EndReason | None] = [None, "busy", "no_answer", "rejected", "failed"]
numbers = st.sampled_from([0, 0, 0, 0, 0, -1])
"""Of the current attempt, or the one before it: see `of_attempt`."""
attempt_events = st.one_of(
    *(numbers.map(kind) for kind in (TargetRinging, TargetEarlyMedia, TargetAnswered, TargetHungUp, TargetLost)),
    *(numbers.map(kind) for kind in (BriefingSpoken, BriefingFailed, VoicemailDetected)),
    st.builds(Sent, numbers, st.just("carrier")),
    st.builds(Refused, numbers, st.sampled_from(["not_supported", "premium", "refused_by_peer"])),
    st.builds(ReferAccepted, numbers),
    st.builds(ReferRefused, numbers, st.sampled_from([0, 405, 408, 481, 603])),
    st.builds(Notify, numbers, st.sampled_from([None, 100, 180, 200, 486, 503]), st.booleans()),
    st.builds(TargetFailed, numbers, st.sampled_from([0, 404, 486, 487]), end=st.sampled_from(ENDS)),
    st.builds(Keyed, numbers, st.sampled_from("127")),
    st.builds(Said, numbers, st.sampled_from(["yes", "no", "what"])),
)
call_events = st.sampled_from([CallerLeft(), CallerLost("lost"), Cancel("by an operator"), DeadlinePassed()])
happenings = st.lists(
    st.tuples(attempt_events | attempt_events | attempt_events | call_events, st.sampled_from([0.0, 0.1, 4.0, 31.0])),
    max_size=25,
)
transfers = st.builds(
    Transfer,
    st.sampled_from(["auto", "blind", "attended", "bridged", "warm"]),
    st.sampled_from([(RECEPTION,), (RECEPTION, SALES), (RECEPTION, SALES, RECEPTION)]),
    st.sampled_from([POLICY, Policy(), Policy(agent_stays=True, after_target="resume", early_media=False)]),
    can_refer=st.booleans(),
)


def of_attempt(event: Event, current: int) -> Event:
    return replace(event, attempt=current + event.attempt) if isinstance(event, AttemptEvent) else event


@dataclass
class World:
    """What the parties hear, and which legs may still be answered."""

    hears: str = "agent"
    dialled: set[int] = field(default_factory=set)
    referred: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    """Attempts that may still bring somebody to a telephone."""
    recorded: dict[int, Attempt] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    ended_legs: set[int] = field(default_factory=set)
    hung_up: set[int] = field(default_factory=set)

    def happens(self, event: Event) -> None:
        match event:
            case TargetAnswered(n) if n in self.dialled:
                self.answered.add(n)
            case TargetFailed(n) | TargetHungUp(n):
                self.ended_legs.add(n)
                self.open.discard(n)
            case TargetLost(n) if n in self.answered:
                self.ended_legs.add(n)
                self.open.discard(n)
            case Refused(n) if n not in self.answered:  # else the REFER with Replaces
                self.ended_legs.add(n)
                self.open.discard(n)
            case ReferRefused(n, status) if status not in (0, 408, 504) and n in self.referred:
                self.open.discard(n)
            case Notify(n, status) if status is not None and status >= 300:
                self.open.discard(n)
            case CallerLeft():
                self.hears = "gone"
            case _:
                pass

    def performs(self, effect: Effect) -> None:
        match effect:
            case Hold("caller", source):
                self.hears = source
            case HearTarget(n):
                self.hears = f"target {n}"
            case Dial(n, _):
                assert n not in self.dialled | self.referred, "dialled twice for one attempt"
                assert not self.open, "the last attempt may still be answered"
                self.dialled.add(n)
                self.open.add(n)
            case Refer(n, _):
                assert n not in self.dialled | self.referred, "referred twice for one attempt"
                assert not self.open, "the last attempt may still be answered"
                self.referred.add(n)
                self.open.add(n)
            case Join(n):
                assert n in self.dialled - self.ended_legs, "joined to nobody"
                self.hears = f"person {n}"
            case HangUpTarget(n):
                self.hung_up.add(n)
            case Resume():
                self.hears = "agent"
            case HangUpCaller():
                self.hears = "gone"
            case RecordAttempt(attempt):
                assert attempt.number not in self.recorded, "recorded twice"
                assert attempt.result is not None
                assert attempt.ended_at is not None
                self.recorded[attempt.number] = attempt
            case _:
                pass

    def check(self, transfer: Transfer) -> None:
        """The caller is never in silence, and never alone."""
        state, attempt = transfer.state, transfer.attempt
        if self.hears == "gone":
            return
        match state:
            case State.JOINED:
                assert self.hears == f"person {attempt.number}"
            case State.RETURNED:
                assert self.hears == "agent"
            case State.DIALLING:
                assert self.hears in ("music", f"target {attempt.number}")
            case State.ENDED:
                pass  # lost: nobody hears anything
            case _:
                assert self.hears == "music"


def happened(transfer: Transfer, events: list[tuple[Event, float]], world: World) -> float:
    """As in life: a leg that is over says no more, and a caller who left does nothing."""
    now = 0.0
    for effect in transfer.begin(now):
        world.performs(effect)
    world.check(transfer)
    for given_event, after_s in events:
        event = of_attempt(given_event, transfer.attempt.number)
        number = getattr(event, "attempt", 0)
        if number in world.ended_legs or (number and number not in world.dialled | world.referred):
            continue
        now += after_s
        world.happens(event)
        effects = transfer.handle(event, now)
        for effect in effects:
            world.performs(effect)
        world.check(transfer)
        if isinstance(event, CallerLeft):
            assert transfer.state is State.ENDED
            break
    return now


@given(transfers, happenings)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_the_caller_is_never_lost_and_nobody_is_dialled_twice(
    transfer: Transfer, events: list[tuple[Event, float]]
) -> None:
    world = World()
    happened(transfer, events, world)
    settled = transfer.state in (State.JOINED, State.RETURNED, State.ENDED)
    assert (transfer.result is not None) == settled
    running = set() if settled or transfer.state is State.CLEARING else {transfer.attempt.number}
    assert set(world.recorded) == set(range(1, transfer.attempt.number + 1)) - running


@given(transfers, happenings)
@settings(max_examples=300, deadline=None)
def test_whatever_happened_waiting_alone_brings_it_to_an_end(
    transfer: Transfer, events: list[tuple[Event, float]]
) -> None:
    world = World()
    now = happened(transfer, events, world)
    for _ in range(3):  # briefing, decision, clearing: then nobody is dialled any more, as nothing ended
        if transfer.state in (State.JOINED, State.RETURNED, State.ENDED):
            break
        now += 1000.0
        for effect in transfer.handle(DeadlinePassed(), now):
            world.performs(effect)
        world.check(transfer)
    assert transfer.state in (State.JOINED, State.RETURNED, State.ENDED)
    assert set(world.recorded) == set(range(1, transfer.attempt.number + 1))


@given(transfers, happenings)
@settings(max_examples=200, deadline=None)
def test_no_leg_to_a_target_is_forgotten(transfer: Transfer, events: list[tuple[Event, float]]) -> None:
    world = World()
    happened(transfer, events, world)
    current = set() if transfer.state in (State.RETURNED, State.ENDED) else {transfer.attempt.number}
    assert world.dialled - world.ended_legs - world.hung_up <= current
