"""What each event means for a transfer: one decision a function, named in `transfer.TABLE`."""

from trunkline.gateway.sip.causes import unanswered
from trunkline.gateway.transfer_record import Result, result_of, understood
from trunkline.gateway.transfer_steps import (
    AgentLeaves,
    Ask,
    Brief,
    CallerLost,
    Cancel,
    Event,
    HangUpCaller,
    HangUpTarget,
    HearTarget,
    Keyed,
    Notify,
    ReferAccepted,
    ReferRefused,
    ReferReplaces,
    Refused,
    Resume,
    Said,
    Sent,
    TargetFailed,
    TargetHungUp,
    TargetLost,
    VoicemailDetected,
)
from trunkline.gateway.transfer_way import State, Way
from trunkline.ports import EndReason

REFER_UNSURE = frozenset((0, 408, 504))
"""Answers to a REFER after which it may have been followed all the same: the stack's own, or a proxy's timeout."""
HAND_REFUSALS = frozenset(("not_supported", "not_now", "refused_by_peer"))
"""Refuse codes of a leg that cannot do it; every other code is a rule's, which no other way goes around."""

# --- any attempt ---


def sent(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Sent)
    way.attempt.trunk = event.trunk
    return way.state


def refused(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Refused)
    way.leg = way.refer_open = False
    detail = f"{event.code}: {event.why}" if event.why else event.code
    by_hand = event.code in HAND_REFUSALS
    result: Result = "refused_by_peer" if event.code == "refused_by_peer" else "refused"
    if way.attempt.how == "blind" and way.kind == "auto" and by_hand:
        return _bridge_instead(way, result, now, detail)
    return way.fail(result, now, detail)


def cancel(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Cancel)
    way.record("cancelled", now, event.why)
    way.hang_up_target()
    return way.resume("cancelled", event.why)


def caller_left(way: Way, event: Event, now: float) -> State:
    return way.gone("caller_left", now)


def caller_lost(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, CallerLost)
    return way.gone("carrier_vanished", now, event.why)


def caller_lost_while_referred(way: Way, event: Event, now: float) -> State:
    """The carrier may have turned the media to the target: for now it is taken note of."""
    way.caller_lost = True
    return way.state


# --- REFERRING, REFERRED ---


def refer_accepted(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, ReferAccepted)
    way.attempt.refer_status = event.status
    if way.state is State.REFERRING:
        way.wait(way.policy.refer_final_s, now)
    return State.REFERRED


def refer_refused(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, ReferRefused)
    way.attempt.refer_status = event.status or None
    detail = event.detail or f"REFER: {event.status or 'no answer'}"
    if event.status in REFER_UNSURE or way.attempt.ringing_at is not None:
        return _never_told(way, now, detail)
    way.attempt.sip_status, way.refer_open = event.status, False
    if way.kind == "auto":
        return _bridge_instead(way, "refused_by_peer", now, detail)
    return way.fail("refused_by_peer", now, detail)


def _bridge_instead(way: Way, result: Result, now: float, detail: str) -> State:
    """Nothing has rung: the same target, dialled by us. Further ones are, too."""
    way.record(result, now, detail)
    if way.caller_lost:
        return way.resume("carrier_vanished", detail)
    way.can_refer = False
    return way.try_target(now)


def notified(way: Way, event: Event, now: float) -> State:
    """A NOTIFY says that the REFER was accepted, should its answer come later (RFC 6665 4.4.1)."""
    assert isinstance(event, Notify)
    if way.state is State.REFERRING:
        way.wait(way.policy.refer_final_s, now)
    status = event.status or 0
    if status >= 200:
        way.attempt.sip_status, way.refer_open = status, False
    if 200 <= status < 300:
        return way.taken(now)
    if status >= 300:
        end, words = unanswered(status)
        return way.fail(result_of(end), now, words)
    if status >= 180 and way.attempt.ringing_at is None:
        way.attempt.ringing_at = now
        way.wait(way.policy.ring_s + way.policy.settle_s, now)
    way.notified = max(way.notified, status)
    if event.terminated:
        way.wait_no_longer_than(way.policy.settle_s, now)
    return State.REFERRED


def never_told(way: Way, event: Event, now: float) -> State:
    return _never_told(way, now, "no answer to the REFER" if way.state is State.REFERRING else "no final NOTIFY")


def _never_told(way: Way, now: float, detail: str) -> State:
    return way.fail("carrier_vanished" if way.caller_lost else "timed_out", now, detail)


def caller_left_referred(way: Way, event: Event, now: float) -> State:
    """A carrier that tells of ringing would have told of the answer: then the caller had enough. One that tells
    nothing is believed to have done what it accepted (RFC 3515 2.4.5 does not oblige it to say more)."""
    if way.notified >= 180:
        return way.gone("caller_left", now)
    return _taken_unsaid(way, now)


def _taken_unsaid(way: Way, now: float) -> State:
    way.attempt.confirmed = False
    return way.gone("transferred", now, "the carrier took the call over without a final NOTIFY")


# --- DIALLING ---


def ringing(way: Way, event: Event, now: float) -> State:
    if way.attempt.ringing_at is None:
        way.attempt.ringing_at = now
    return way.state


def early_media(way: Way, event: Event, now: float) -> State:
    if way.attempt.how == "bridged" and way.policy.early_media and not way.hears_target:
        way.hears_target = True
        way.do(HearTarget(way.attempt.number))
    return ringing(way, event, now)


def answered(way: Way, event: Event, now: float) -> State:
    way.attempt.answered_at = now
    how, policy = way.attempt.how, way.policy
    if how == "warm" or (how == "attended" and (policy.summary or policy.written)):
        way.asked = 1
        spoken = f"{policy.summary} {policy.prompt}".strip()
        way.do(Brief(way.attempt.number, spoken, policy.written))
        way.wait(policy.brief_s, now)
        return State.BRIEFING
    return _connect(way, now)


def _connect(way: Way, now: float) -> State:
    if way.attempt.how != "attended" or not way.can_refer:
        return way.join(now)
    way.hold("target")
    way.refer_open = True
    way.do(ReferReplaces(way.attempt.number, way.target))
    way.wait(way.policy.refer_answer_s, now)
    return State.REPLACING


def target_failed(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, TargetFailed)
    way.leg = False
    end, detail = _why(way, event)
    return way.fail(result_of(end), now, detail)


def _why(way: Way, event: TargetFailed) -> tuple[EndReason, str]:
    way.attempt.sip_status = event.status or None
    way.attempt.q850_cause = next((r.cause for r in event.reasons if r.protocol == "Q.850"), None)
    if event.end is not None:
        return event.end, event.detail
    end, words = unanswered(event.status, event.reasons, rang=way.attempt.ringing_at is not None)
    return end, event.detail or words


def target_gone(way: Way, event: Event, now: float) -> State:
    """After its answer: hanging up on the briefing is a no, too."""
    way.leg = False
    if way.attempt.answered_at is not None and isinstance(event, TargetHungUp):
        return way.fail("declined", now, "hung up")
    return way.fail("target_lost", now)


def target_lost(way: Way, event: Event, now: float) -> State:
    """Before its answer it is not over for sure, and is hung up."""
    assert isinstance(event, TargetLost)
    way.leg = way.attempt.answered_at is None
    return way.fail("target_lost", now, event.why)


def rang_too_long(way: Way, event: Event, now: float) -> State:
    return way.fail("no_answer", now, f"not within {way.policy.ring_s:g} s")


def voicemail(way: Way, event: Event, now: float) -> State:
    return way.fail("voicemail", now)


# --- BRIEFING, DECIDING ---


def briefed(way: Way, event: Event, now: float) -> State:
    way.wait(way.policy.accept_s, now)
    return State.DECIDING


def briefing_cut(way: Way, event: Event, now: float) -> State:
    """Too long, or it could not be spoken: the question alone."""
    way.do(Ask(way.attempt.number, way.policy.prompt))
    return briefed(way, event, now)


def keyed(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Keyed)
    if event.digit == way.policy.accept_key:
        return _accept(way, now)
    if event.digit == way.policy.decline_key:
        return way.fail("declined", now, f"pressed {event.digit}")
    return _unclear(way, now)


def said(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Said)
    meant = understood(event.text, way.policy)
    if meant == "yes":
        return _accept(way, now)
    if meant == "no":
        return way.fail("declined", now, "said no")
    return _unclear(way, now)


def _accept(way: Way, now: float) -> State:
    way.attempt.accepted_at = now
    return _connect(way, now)


def _unclear(way: Way, now: float) -> State:
    if way.state is State.DECIDING and way.asked < way.policy.asks:
        way.asked += 1
        way.do(Ask(way.attempt.number, way.policy.prompt))
        way.wait(way.policy.accept_s, now)
    return way.state


def no_decision(way: Way, event: Event, now: float) -> State:
    return way.fail("declined", now, "no decision")


# --- REPLACING ---


def replaces_accepted(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, ReferAccepted)
    way.attempt.refer_status = event.status
    return _replacing(way, now)


def _replacing(way: Way, now: float) -> State:
    if not way.accepted:
        way.accepted = True
        way.wait(way.policy.settle_s, now)
    return State.REPLACING


def replaces_refused(way: Way, event: Event, now: float) -> State:
    """Both are on the line with us: joined here, nobody is dialled again."""
    way.refer_open = isinstance(event, ReferRefused) and event.status in REFER_UNSURE
    if isinstance(event, ReferRefused):
        way.attempt.refer_status = event.status or None
    return _join_or_resume(way, "target_lost", now, "the REFER with Replaces was refused")


def replaces_notified(way: Way, event: Event, now: float) -> State:
    assert isinstance(event, Notify)
    status = event.status or 0
    if status >= 200:
        way.attempt.sip_status, way.refer_open = status, False
    if 200 <= status < 300:
        return way.taken(now)
    if status >= 300:
        return _join_or_resume(way, "target_lost", now, f"the caller's side did not reach the target ({status})")
    return _replacing(way, now)


def replaces_never_told(way: Way, event: Event, now: float) -> State:
    return _join_or_resume(way, "timed_out", now, "no final NOTIFY")


def _join_or_resume(way: Way, without_target: Result, now: float, detail: str) -> State:
    if way.caller_lost:
        return way.fail("carrier_vanished", now, detail)
    return way.join(now) if way.leg else way.fail(without_target, now, detail)


def target_gone_replacing(way: Way, event: Event, now: float) -> State:
    """Once the REFER is accepted, this is how a dialog ends that was replaced (RFC 3891 3)."""
    way.leg = False
    if not way.accepted:
        return way.fail("target_lost", now)
    way.wait_no_longer_than(way.policy.settle_s, now)
    return State.REPLACING


def caller_left_replacing(way: Way, event: Event, now: float) -> State:
    return _taken_unsaid(way, now) if way.accepted else way.gone("caller_left", now)


# --- CLEARING ---


def answered_too_late(way: Way, event: Event, now: float) -> State:
    """CANCEL and 200 have crossed (RFC 3261 9.1), or we have given up otherwise."""
    way.attempt.answered_at = way.attempt.answered_at or now
    way.do(HangUpTarget(way.attempt.number))
    return way.state


def cleared(way: Way, event: Event, now: float) -> State:
    way.leg = False
    return way.try_next(now)


def lost_while_clearing(way: Way, event: Event, now: float) -> State:
    return cleared(way, event, now) if way.attempt.answered_at is not None else State.CLEARING


def not_cleared(way: Way, event: Event, now: float) -> State:
    result = way.attempt.result
    assert result is not None
    return way.resume(result, way.attempt.detail)


# --- JOINED, RETURNED ---


def conversation_over(way: Way, event: Event, now: float) -> State:
    """The representative has hung up first."""
    way.leg = False
    if way.policy.after_target == "resume":
        way.do(Resume(None))
        return State.RETURNED
    way.do(HangUpCaller())
    return State.ENDED


def unjoined(way: Way, event: Event, now: float) -> State:
    """What was joined did not last: the caller is not left alone with it."""
    if isinstance(event, VoicemailDetected | Refused):
        way.do(HangUpTarget(way.attempt.number))
    way.leg = False
    if isinstance(event, VoicemailDetected):
        return way.resume("voicemail")
    if isinstance(event, Refused):
        return way.resume("failed", f"{event.code}: {event.why}")
    return way.resume("target_lost")


def caller_left_joined(way: Way, event: Event, now: float) -> State:
    way.do(HangUpTarget(way.attempt.number))
    return State.ENDED


def notified_late(way: Way, event: Event, now: float) -> State:
    """The carrier has put the caller through after we had taken the caller back: the agent talks to nobody."""
    assert isinstance(event, Notify)
    status = event.status or 0
    if status < 200 or not way.refer_open:
        return way.state
    way.refer_open = False
    if status >= 300:
        return way.state
    way.do(AgentLeaves())
    way.do(HangUpCaller())
    return way.end("transferred")


def caller_left_returned(way: Way, event: Event, now: float) -> State:
    return State.ENDED
