"""The transfer state machine: how a caller gets from the AI agent to a person, or back. Plain values and `now`; the
switchboard performs the effects, in order.

    READY ──► REFERRING ──► REFERRED ──────────────────────────► ENDED         the caller's carrier does it (blind)
      │           └─ refused: nothing rang ─┐
      └────────────────────────────────► DIALLING ─────────────► JOINED        we do it (bridged)
                                            │
                                            └► BRIEFING ► DECIDING ► JOINED    (warm)
                                                             └► REPLACING ► ENDED    (attended: REFER with Replaces)

House rules:
1. The caller is never in silence, and never alone. Every path ends JOINED (with a person, through us), ENDED (with a
   person through the carrier, or gone by own wish) or RETURNED (with the AI agent, who is told why). Until then the
   caller hears music, or the target's own ringback.
2. One attempt is one INVITE that can ring somebody (trunks that could not are the performer's). The next target, or the
   same one in another way, is dialled only after the last attempt is surely dead: refused, failed, hung up. One we gave
   up is waited for in CLEARING, where the answer that crosses our CANCEL is hung up too. A REFER that was not refused
   cannot be called back: what became of it is found out or not, and if not the caller returns and nobody else is
   dialled.
3. A caller's leg is only hung up after the final NOTIFY has said 2xx; all other readings of a silent carrier (see
   Policy) leave it to the carrier to take the caller away.
4. Every attempt is recorded once, when its result is known. What comes later (a NOTIFY, an answer) changes no record.
5. Events name the attempt they belong to; those of an earlier one mean nothing. A deadline that is not due was one
   that has been replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Literal, NamedTuple

from trunkline.gateway.sip.causes import unanswered
from trunkline.gateway.transfer_record import (
    SURELY_DEAD,
    Attempt,
    How,
    Kind,
    Policy,
    Result,
    Target,
    TransferFailed,
    result_of,
    understood,
)
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
from trunkline.ports import EndReason

REFER_UNSURE = frozenset((0, 408, 504))
"""Answers to a REFER after which it may have been followed all the same: the stack's own, or a proxy's timeout."""
HAND_REFUSALS = frozenset(("not_supported", "not_now", "refused_by_peer"))
"""Refuse codes of a leg that cannot do it; every other code is a rule's, which no other way goes around."""
TIMER_SLACK_S = 0.01


class State(Enum):
    READY = "ready"
    REFERRING = "referring"
    REFERRED = "referred"
    DIALLING = "dialling"
    BRIEFING = "briefing"
    DECIDING = "deciding"
    REPLACING = "replacing"
    CLEARING = "clearing"
    JOINED = "joined"
    RETURNED = "returned"
    ENDED = "ended"


class Row(NamedTuple):
    """One transition: what decides, and the states it may choose."""

    decide: Callable[["Transfer", Event, float], State]
    leads_to: tuple[State, ...]


class Transfer:
    """One caller on the way to one of `targets`, tried in order. `now` is monotonic seconds throughout."""

    def __init__(
        self, kind: Kind, targets: Sequence[Target], policy: Policy | None = None, *, can_refer: bool = True
    ) -> None:
        """`can_refer`: the caller's leg can be put through by its carrier (REFER, or Twilio's <Dial>)."""
        if not targets:
            raise ValueError("a transfer needs a target")
        self.state = State.READY
        self.result: Result | None = None
        """Of the whole, once it is JOINED, RETURNED or ENDED."""
        self._targets, self._for_all = tuple(targets), (kind, policy or Policy())
        self._next = 1  # of the targets, from 1
        self._kind, self._policy = self._terms()
        self._can_refer = can_refer
        self._effects: list[Effect] = []
        self._began_at = 0.0
        self._deadline_at: float | None = None
        self._caller_lost = False
        # of the attempt
        self._attempt = Attempt(0, targets[0].name, "blind", 0.0, 0.0)
        self._leg = False  # a leg of ours to the target, not known to be over
        self._hears_target = False
        self._asked = 0
        self._notified = 0  # the highest provisional status
        self._accepted = False  # the REFER with Replaces
        self._refer_open = False  # a REFER was sent, and neither refused nor finally notified of

    @property
    def attempt(self) -> Attempt:
        """The current or last one, as it stands."""
        return replace(self._attempt)

    @property
    def policy(self) -> Policy:
        """Of the current target."""
        return self._policy

    @property
    def unsettled(self) -> bool:
        """The caller is back, but a REFER may still be followed: the carrier may take the caller away yet, so NOTIFYs
        still belong here, and a further transfer might ring at two telephones."""
        return self.state is State.RETURNED and self._refer_open

    def begin(self, now: float) -> list[Effect]:
        """Once."""
        assert self.state is State.READY, "a transfer begins once"
        self._began_at = now
        self._hold("caller")
        self.state = self._try(now)
        return self._done()

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects, in order. Raises KeyError naming state and event for a pair that has no row: our bug."""
        key = (self.state, type(event))
        if key in IGNORED:
            return []
        row = TABLE[self.state].get(type(event))
        if row is None:
            raise KeyError(key)
        if isinstance(event, DeadlinePassed):
            if self._deadline_at is None or now < self._deadline_at - TIMER_SLACK_S:
                return []
        elif isinstance(event, AttemptEvent) and event.attempt != self._attempt.number:
            return [HangUpTarget(event.attempt)] if isinstance(event, TargetAnswered) else []
        before, self.state = self.state, row.decide(self, event, now)
        assert self.state in row.leads_to, f"{before} {event} led to {self.state}"
        return self._done()

    def close(self, why: str, now: float) -> list[Effect]:
        """The call is over, or its caller's leg is: what is under way is given up. Nothing where it was settled."""
        if (self.state, Cancel) in IGNORED:
            return []
        if not self._caller_lost:
            return self.handle(Cancel(why), now)
        self.state = self._gone("carrier_vanished", now, why)
        return self._done()

    def _done(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    # --- attempts ---

    def _try_next(self, now: float) -> State:
        self._next += 1
        waited_with = self._policy.waiting
        self._kind, self._policy = self._terms()
        if self._policy.waiting != waited_with:
            self._hold("caller")
        return self._try(now)

    def _terms(self) -> tuple[Kind, Policy]:
        """Of the current target."""
        target, (kind, policy) = self._targets[self._next - 1], self._for_all
        return target.kind or kind, target.policy or policy

    def _try(self, now: float) -> State:
        """The current target, in the way that is left."""
        target = self._targets[self._next - 1]
        how = self._how()
        self._attempt = Attempt(self._attempt.number + 1, target.name, how, self._began_at, now)
        self._leg, self._asked, self._notified, self._accepted, self._refer_open = False, 0, 0, False, False
        if self._hears_target:
            self._hold("caller")
        if how == "blind" and not self._can_refer:
            return self._fail("refused", now, "the caller's leg cannot be put through by its carrier")
        if how == "blind":
            self._refer_open = True
            self._do(Refer(self._attempt.number, target))
            self._wait(self._policy.refer_answer_s, now)
            return State.REFERRING
        self._leg = True
        self._do(Dial(self._attempt.number, target))
        self._wait(self._policy.ring_s, now)
        return State.DIALLING

    def _how(self) -> How:
        if self._kind == "auto":
            return "blind" if self._can_refer else "bridged"
        return self._kind

    def _fail(self, result: Result, now: float, detail: str = "") -> State:
        """This attempt brought nobody: the next one if there may be one, else back to the agent."""
        self._record(result, now, detail)
        if self._leg:
            self._do(HangUpTarget(self._attempt.number))
        if not self._another(result, now):
            return self._resume(result, detail)
        if not self._leg:
            return self._try_next(now)
        self._hold("caller")
        self._wait(self._policy.clear_s, now)
        return State.CLEARING

    def _another(self, result: Result, now: float) -> bool:
        left = self._next < len(self._targets) and now - self._began_at < self._policy.patience_s
        return left and result in SURELY_DEAD and not self._caller_lost

    def _resume(self, result: Result, detail: str = "") -> State:
        """The caller comes back to the agent."""
        self.result, self._deadline_at = result, None
        self._do(Resume(TransferFailed(result, self._attempt.target, detail, self._attempt.number)))
        return State.RETURNED

    def _join(self, now: float) -> State:
        """With the target, through us."""
        self._attempt.joined_at, self._deadline_at = now, None
        self._do(Join(self._attempt.number))
        if not self._policy.agent_stays:
            self._do(AgentLeaves())
        self._record("transferred", now)
        self.result = "transferred"
        return State.JOINED

    def _taken(self, now: float) -> State:
        """With the target, through the carrier: the transferor hangs up (RFC 5589 6.1)."""
        self._attempt.joined_at = now
        self._record("transferred", now)
        if self._leg:
            self._do(HangUpTarget(self._attempt.number))
        self._do(AgentLeaves())
        self._do(HangUpCaller())
        return self._end("transferred")

    def _gone(self, result: Result, now: float, detail: str = "") -> State:
        """The caller's leg is over."""
        self._record(result, now, detail)
        if self._leg:
            self._do(HangUpTarget(self._attempt.number))
        return self._end(result)

    def _end(self, result: Result) -> State:
        self.result, self._deadline_at = result, None
        return State.ENDED

    def _record(self, result: Result, now: float, detail: str = "") -> None:
        if self._attempt.result is None:
            self._attempt.result, self._attempt.ended_at, self._attempt.detail = result, now, detail
            self._do(RecordAttempt(replace(self._attempt)))

    def _hold(self, who: Literal["caller", "target"]) -> None:
        if who == "caller":
            self._hears_target = False
        self._do(Hold(who, self._policy.waiting if who == "caller" else "music"))

    def _wait(self, seconds: float, now: float) -> None:
        self._deadline_at = now + seconds
        self._do(SetDeadline(seconds))

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)

    # --- any attempt ---

    def sent(self, event: Event, now: float) -> State:
        assert isinstance(event, Sent)
        self._attempt.trunk = event.trunk
        return self.state

    def refused(self, event: Event, now: float) -> State:
        assert isinstance(event, Refused)
        self._leg = self._refer_open = False
        detail = f"{event.code}: {event.why}" if event.why else event.code
        by_hand = event.code in HAND_REFUSALS
        result: Result = "refused_by_peer" if event.code == "refused_by_peer" else "refused"
        if self._attempt.how == "blind" and self._kind == "auto" and by_hand:
            return self._bridge_instead(result, now, detail)
        return self._fail(result, now, detail)

    def cancel(self, event: Event, now: float) -> State:
        assert isinstance(event, Cancel)
        self._record("cancelled", now, event.why)
        if self._leg:
            self._do(HangUpTarget(self._attempt.number))
        return self._resume("cancelled", event.why)

    def caller_left(self, event: Event, now: float) -> State:
        return self._gone("caller_left", now)

    def caller_lost(self, event: Event, now: float) -> State:
        assert isinstance(event, CallerLost)
        return self._gone("carrier_vanished", now, event.why)

    def caller_lost_while_referred(self, event: Event, now: float) -> State:
        """The carrier may have turned the media to the target: for now it is taken note of."""
        self._caller_lost = True
        return self.state

    # --- REFERRING, REFERRED ---

    def refer_accepted(self, event: Event, now: float) -> State:
        assert isinstance(event, ReferAccepted)
        self._attempt.refer_status = event.status
        if self.state is State.REFERRING:
            self._wait(self._policy.refer_final_s, now)
        return State.REFERRED

    def refer_refused(self, event: Event, now: float) -> State:
        assert isinstance(event, ReferRefused)
        self._attempt.refer_status = event.status or None
        detail = event.detail or f"REFER: {event.status or 'no answer'}"
        if event.status in REFER_UNSURE or self._attempt.ringing_at is not None:
            return self._never_told(now, detail)
        self._attempt.sip_status, self._refer_open = event.status, False
        if self._kind == "auto":
            return self._bridge_instead("refused_by_peer", now, detail)
        return self._fail("refused_by_peer", now, detail)

    def _bridge_instead(self, result: Result, now: float, detail: str) -> State:
        """Nothing has rung: the same target, dialled by us. Further ones are, too."""
        self._record(result, now, detail)
        if self._caller_lost:
            return self._resume("carrier_vanished", detail)
        self._can_refer = False
        return self._try(now)

    def notified(self, event: Event, now: float) -> State:
        """A NOTIFY says that the REFER was accepted, should its answer come later (RFC 6665 4.4.1)."""
        assert isinstance(event, Notify)
        if self.state is State.REFERRING:
            self._wait(self._policy.refer_final_s, now)
        status = event.status or 0
        if status >= 200:
            self._attempt.sip_status, self._refer_open = status, False
        if 200 <= status < 300:
            return self._taken(now)
        if status >= 300:
            end, words = unanswered(status)
            return self._fail(result_of(end), now, words)
        if status >= 180 and self._attempt.ringing_at is None:
            self._attempt.ringing_at = now
            self._wait(self._policy.ring_s + self._policy.settle_s, now)
        self._notified = max(self._notified, status)
        if event.terminated:
            self._wait_no_longer_than(self._policy.settle_s, now)
        return State.REFERRED

    def _wait_no_longer_than(self, seconds: float, now: float) -> None:
        if self._deadline_at is None or self._deadline_at > now + seconds:
            self._wait(seconds, now)

    def never_told(self, event: Event, now: float) -> State:
        return self._never_told(now, "no answer to the REFER" if self.state is State.REFERRING else "no final NOTIFY")

    def _never_told(self, now: float, detail: str) -> State:
        return self._fail("carrier_vanished" if self._caller_lost else "timed_out", now, detail)

    def caller_left_referred(self, event: Event, now: float) -> State:
        """A carrier that tells of ringing would have told of the answer: then the caller had enough. One that tells
        nothing is believed to have done what it accepted (RFC 3515 2.4.5 does not oblige it to say more)."""
        if self._notified >= 180:
            return self._gone("caller_left", now)
        return self._taken_unsaid(now)

    def _taken_unsaid(self, now: float) -> State:
        self._attempt.confirmed = False
        return self._gone("transferred", now, "the carrier took the call over without a final NOTIFY")

    # --- DIALLING ---

    def ringing(self, event: Event, now: float) -> State:
        if self._attempt.ringing_at is None:
            self._attempt.ringing_at = now
        return self.state

    def early_media(self, event: Event, now: float) -> State:
        if self._attempt.how == "bridged" and self._policy.early_media and not self._hears_target:
            self._hears_target = True
            self._do(HearTarget(self._attempt.number))
        return self.ringing(event, now)

    def answered(self, event: Event, now: float) -> State:
        self._attempt.answered_at = now
        how, policy = self._attempt.how, self._policy
        if how == "warm" or (how == "attended" and (policy.summary or policy.written)):
            self._asked = 1
            spoken = f"{policy.summary} {policy.prompt}".strip()
            self._do(Brief(self._attempt.number, spoken, policy.written))
            self._wait(policy.brief_s, now)
            return State.BRIEFING
        return self._connect(now)

    def _connect(self, now: float) -> State:
        if self._attempt.how != "attended" or not self._can_refer:
            return self._join(now)
        self._hold("target")
        self._refer_open = True
        self._do(ReferReplaces(self._attempt.number, self._targets[self._next - 1]))
        self._wait(self._policy.refer_answer_s, now)
        return State.REPLACING

    def target_failed(self, event: Event, now: float) -> State:
        assert isinstance(event, TargetFailed)
        self._leg = False
        end, detail = self._why(event)
        return self._fail(result_of(end), now, detail)

    def _why(self, event: TargetFailed) -> tuple[EndReason, str]:
        self._attempt.sip_status = event.status or None
        self._attempt.q850_cause = next((r.cause for r in event.reasons if r.protocol == "Q.850"), None)
        if event.end is not None:
            return event.end, event.detail
        end, words = unanswered(event.status, event.reasons, rang=self._attempt.ringing_at is not None)
        return end, event.detail or words

    def target_gone(self, event: Event, now: float) -> State:
        """After its answer: hanging up on the briefing is a no, too."""
        self._leg = False
        if self._attempt.answered_at is not None and isinstance(event, TargetHungUp):
            return self._fail("declined", now, "hung up")
        return self._fail("target_lost", now)

    def target_lost(self, event: Event, now: float) -> State:
        """Before its answer it is not over for sure, and is hung up."""
        assert isinstance(event, TargetLost)
        self._leg = self._attempt.answered_at is None
        return self._fail("target_lost", now, event.why)

    def rang_too_long(self, event: Event, now: float) -> State:
        return self._fail("no_answer", now, f"not within {self._policy.ring_s:g} s")

    def voicemail(self, event: Event, now: float) -> State:
        return self._fail("voicemail", now)

    # --- BRIEFING, DECIDING ---

    def briefed(self, event: Event, now: float) -> State:
        self._wait(self._policy.accept_s, now)
        return State.DECIDING

    def briefing_cut(self, event: Event, now: float) -> State:
        """Too long, or it could not be spoken: the question alone."""
        self._do(Ask(self._attempt.number, self._policy.prompt))
        return self.briefed(event, now)

    def keyed(self, event: Event, now: float) -> State:
        assert isinstance(event, Keyed)
        if event.digit == self._policy.accept_key:
            return self._accept(now)
        if event.digit == self._policy.decline_key:
            return self._fail("declined", now, f"pressed {event.digit}")
        return self._unclear(now)

    def said(self, event: Event, now: float) -> State:
        assert isinstance(event, Said)
        meant = understood(event.text, self._policy)
        if meant == "yes":
            return self._accept(now)
        if meant == "no":
            return self._fail("declined", now, "said no")
        return self._unclear(now)

    def _accept(self, now: float) -> State:
        self._attempt.accepted_at = now
        return self._connect(now)

    def _unclear(self, now: float) -> State:
        if self.state is State.DECIDING and self._asked < self._policy.asks:
            self._asked += 1
            self._do(Ask(self._attempt.number, self._policy.prompt))
            self._wait(self._policy.accept_s, now)
        return self.state

    def no_decision(self, event: Event, now: float) -> State:
        return self._fail("declined", now, "no decision")

    # --- REPLACING ---

    def replaces_accepted(self, event: Event, now: float) -> State:
        assert isinstance(event, ReferAccepted)
        self._attempt.refer_status = event.status
        return self._replacing(now)

    def _replacing(self, now: float) -> State:
        if not self._accepted:
            self._accepted = True
            self._wait(self._policy.settle_s, now)
        return State.REPLACING

    def replaces_refused(self, event: Event, now: float) -> State:
        """Both are on the line with us: joined here, nobody is dialled again."""
        self._refer_open = isinstance(event, ReferRefused) and event.status in REFER_UNSURE
        if isinstance(event, ReferRefused):
            self._attempt.refer_status = event.status or None
        return self._join_or_resume("target_lost", now, "the REFER with Replaces was refused")

    def replaces_notified(self, event: Event, now: float) -> State:
        assert isinstance(event, Notify)
        status = event.status or 0
        if status >= 200:
            self._attempt.sip_status, self._refer_open = status, False
        if 200 <= status < 300:
            return self._taken(now)
        if status >= 300:
            return self._join_or_resume("target_lost", now, f"the caller's side did not reach the target ({status})")
        return self._replacing(now)

    def replaces_never_told(self, event: Event, now: float) -> State:
        return self._join_or_resume("timed_out", now, "no final NOTIFY")

    def _join_or_resume(self, without_target: Result, now: float, detail: str) -> State:
        if self._caller_lost:
            return self._fail("carrier_vanished", now, detail)
        return self._join(now) if self._leg else self._fail(without_target, now, detail)

    def target_gone_replacing(self, event: Event, now: float) -> State:
        """Once the REFER is accepted, this is how a dialog ends that was replaced (RFC 3891 3)."""
        self._leg = False
        if not self._accepted:
            return self._fail("target_lost", now)
        self._wait_no_longer_than(self._policy.settle_s, now)
        return State.REPLACING

    def caller_left_replacing(self, event: Event, now: float) -> State:
        return self._taken_unsaid(now) if self._accepted else self._gone("caller_left", now)

    # --- CLEARING ---

    def answered_too_late(self, event: Event, now: float) -> State:
        """CANCEL and 200 have crossed (RFC 3261 9.1), or we have given up otherwise."""
        self._attempt.answered_at = self._attempt.answered_at or now
        self._do(HangUpTarget(self._attempt.number))
        return self.state

    def cleared(self, event: Event, now: float) -> State:
        self._leg = False
        return self._try_next(now)

    def lost_while_clearing(self, event: Event, now: float) -> State:
        return self.cleared(event, now) if self._attempt.answered_at is not None else State.CLEARING

    def not_cleared(self, event: Event, now: float) -> State:
        result = self._attempt.result
        assert result is not None
        return self._resume(result, self._attempt.detail)

    # --- JOINED, RETURNED ---

    def conversation_over(self, event: Event, now: float) -> State:
        """The representative has hung up first."""
        self._leg = False
        if self._policy.after_target == "resume":
            self._do(Resume(None))
            return State.RETURNED
        self._do(HangUpCaller())
        return State.ENDED

    def unjoined(self, event: Event, now: float) -> State:
        """What was joined did not last: the caller is not left alone with it."""
        if isinstance(event, VoicemailDetected | Refused):
            self._do(HangUpTarget(self._attempt.number))
        self._leg = False
        if isinstance(event, VoicemailDetected):
            return self._resume("voicemail")
        if isinstance(event, Refused):
            return self._resume("failed", f"{event.code}: {event.why}")
        return self._resume("target_lost")

    def caller_left_joined(self, event: Event, now: float) -> State:
        self._do(HangUpTarget(self._attempt.number))
        return State.ENDED

    def notified_late(self, event: Event, now: float) -> State:
        """The carrier has put the caller through after we had taken the caller back: the agent talks to nobody."""
        assert isinstance(event, Notify)
        status = event.status or 0
        if status < 200 or not self._refer_open:
            return self.state
        self._refer_open = False
        if status >= 300:
            return self.state
        self._do(AgentLeaves())
        self._do(HangUpCaller())
        return self._end("transferred")

    def caller_left_returned(self, event: Event, now: float) -> State:
        return State.ENDED


_READY, _REFERRING, _REFERRED, _DIALLING = State.READY, State.REFERRING, State.REFERRED, State.DIALLING
_BRIEFING, _DECIDING, _REPLACING = State.BRIEFING, State.DECIDING, State.REPLACING
_CLEARING, _JOINED, _RETURNED, _ENDED = State.CLEARING, State.JOINED, State.RETURNED, State.ENDED

_AT_ONCE = (_DIALLING, _RETURNED)
"""The target's leg is over: the next one, or back."""
_GIVEN_UP = (_CLEARING, _RETURNED)
"""We hang it up first."""
_MISSED = (_REFERRING, _RETURNED)
"""The carrier tried for us."""
_CONNECTED = (_JOINED, _REPLACING)
_BOTH_HERE = (_JOINED, _DIALLING, _RETURNED)
_WITH_CALLER: dict[type, Row] = {
    CallerLeft: Row(Transfer.caller_left, (_ENDED,)),
    CallerLost: Row(Transfer.caller_lost, (_ENDED,)),
    Cancel: Row(Transfer.cancel, (_RETURNED,)),
}
_WITH_TARGET: dict[type, Row] = {
    TargetFailed: Row(Transfer.target_gone, _AT_ONCE),
    TargetHungUp: Row(Transfer.target_gone, _AT_ONCE),
    TargetLost: Row(Transfer.target_lost, _AT_ONCE),
    VoicemailDetected: Row(Transfer.voicemail, _GIVEN_UP),
    **_WITH_CALLER,
}

TABLE: dict[State, dict[type, Row]] = {
    _READY: {},
    _REFERRING: {
        Sent: Row(Transfer.sent, (_REFERRING,)),
        Refused: Row(Transfer.refused, (_DIALLING, *_MISSED)),
        ReferAccepted: Row(Transfer.refer_accepted, (_REFERRED,)),
        ReferRefused: Row(Transfer.refer_refused, (_DIALLING, *_MISSED)),
        Notify: Row(Transfer.notified, (_REFERRED, _ENDED, *_MISSED)),
        CallerLeft: Row(Transfer.caller_left, (_ENDED,)),
        CallerLost: Row(Transfer.caller_lost_while_referred, (_REFERRING,)),
        Cancel: Row(Transfer.cancel, (_RETURNED,)),
        DeadlinePassed: Row(Transfer.never_told, (_RETURNED,)),
    },
    _REFERRED: {
        Sent: Row(Transfer.sent, (_REFERRED,)),
        ReferAccepted: Row(Transfer.refer_accepted, (_REFERRED,)),  # after a NOTIFY that overtook it
        ReferRefused: Row(Transfer.refer_refused, (_DIALLING, *_MISSED)),
        Notify: Row(Transfer.notified, (_REFERRED, _ENDED, *_MISSED)),
        CallerLeft: Row(Transfer.caller_left_referred, (_ENDED,)),
        CallerLost: Row(Transfer.caller_lost_while_referred, (_REFERRED,)),
        Cancel: Row(Transfer.cancel, (_RETURNED,)),
        DeadlinePassed: Row(Transfer.never_told, (_RETURNED,)),
    },
    _DIALLING: {
        Sent: Row(Transfer.sent, (_DIALLING,)),
        Refused: Row(Transfer.refused, _AT_ONCE),
        TargetRinging: Row(Transfer.ringing, (_DIALLING,)),
        TargetEarlyMedia: Row(Transfer.early_media, (_DIALLING,)),
        TargetAnswered: Row(Transfer.answered, (_BRIEFING, *_CONNECTED)),
        TargetFailed: Row(Transfer.target_failed, _AT_ONCE),
        TargetHungUp: Row(Transfer.target_gone, _AT_ONCE),
        TargetLost: Row(Transfer.target_lost, _GIVEN_UP),
        VoicemailDetected: Row(Transfer.voicemail, _GIVEN_UP),
        DeadlinePassed: Row(Transfer.rang_too_long, _GIVEN_UP),
        **_WITH_CALLER,
    },
    _BRIEFING: {
        BriefingSpoken: Row(Transfer.briefed, (_DECIDING,)),
        BriefingFailed: Row(Transfer.briefing_cut, (_DECIDING,)),
        DeadlinePassed: Row(Transfer.briefing_cut, (_DECIDING,)),
        Keyed: Row(Transfer.keyed, (_BRIEFING, *_CONNECTED, *_GIVEN_UP)),
        **_WITH_TARGET,
    },
    _DECIDING: {
        Keyed: Row(Transfer.keyed, (_DECIDING, *_CONNECTED, *_GIVEN_UP)),
        Said: Row(Transfer.said, (_DECIDING, *_CONNECTED, *_GIVEN_UP)),
        DeadlinePassed: Row(Transfer.no_decision, _GIVEN_UP),
        **_WITH_TARGET,
    },
    _REPLACING: {
        Refused: Row(Transfer.replaces_refused, _BOTH_HERE),
        ReferAccepted: Row(Transfer.replaces_accepted, (_REPLACING,)),
        ReferRefused: Row(Transfer.replaces_refused, _BOTH_HERE),
        Notify: Row(Transfer.replaces_notified, (_REPLACING, _ENDED, *_BOTH_HERE)),
        TargetFailed: Row(Transfer.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        TargetHungUp: Row(Transfer.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        TargetLost: Row(Transfer.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        CallerLeft: Row(Transfer.caller_left_replacing, (_ENDED,)),
        CallerLost: Row(Transfer.caller_lost_while_referred, (_REPLACING,)),
        Cancel: Row(Transfer.cancel, (_RETURNED,)),
        DeadlinePassed: Row(Transfer.replaces_never_told, (_JOINED, _RETURNED)),
    },
    _CLEARING: {
        TargetAnswered: Row(Transfer.answered_too_late, (_CLEARING,)),
        TargetFailed: Row(Transfer.cleared, (_DIALLING,)),
        TargetHungUp: Row(Transfer.cleared, (_DIALLING,)),
        TargetLost: Row(Transfer.lost_while_clearing, (_CLEARING, _DIALLING)),
        DeadlinePassed: Row(Transfer.not_cleared, (_RETURNED,)),
        **_WITH_CALLER,
    },
    _JOINED: {
        Refused: Row(Transfer.unjoined, (_RETURNED,)),
        TargetHungUp: Row(Transfer.conversation_over, (_RETURNED, _ENDED)),
        TargetFailed: Row(Transfer.unjoined, (_RETURNED,)),
        TargetLost: Row(Transfer.unjoined, (_RETURNED,)),
        VoicemailDetected: Row(Transfer.unjoined, (_RETURNED,)),
        CallerLeft: Row(Transfer.caller_left_joined, (_ENDED,)),
        CallerLost: Row(Transfer.caller_left_joined, (_ENDED,)),
    },
    _RETURNED: {
        TargetAnswered: Row(Transfer.answered_too_late, (_RETURNED,)),
        Notify: Row(Transfer.notified_late, (_RETURNED, _ENDED)),
        CallerLeft: Row(Transfer.caller_left_returned, (_ENDED,)),
    },
    _ENDED: {
        TargetAnswered: Row(Transfer.answered_too_late, (_ENDED,)),
    },
}

_OF_REFER = (ReferAccepted, ReferRefused, Notify)
_OF_TARGET = (TargetRinging, TargetEarlyMedia, TargetAnswered, TargetFailed, TargetHungUp, TargetLost)
_OF_BRIEFING = (BriefingSpoken, BriefingFailed, Keyed, Said)

IGNORED: frozenset[tuple[State, type]] = frozenset(
    {
        *((_READY, event) for event in (*AttemptEvent.__args__, CallerLeft, CallerLost, Cancel, DeadlinePassed)),
        *(
            (state, event)
            for state in (_REFERRING, _REFERRED)  # no leg of ours
            for event in (*_OF_TARGET, *_OF_BRIEFING, VoicemailDetected)
        ),
        (_REFERRED, Refused),  # it was performed: NOTIFYs came
        *((_DIALLING, event) for event in (*_OF_REFER, *_OF_BRIEFING)),
        *(
            (state, event)
            for state in (_BRIEFING, _DECIDING)  # repeated, or late
            for event in (*_OF_REFER, Sent, Refused, TargetRinging, TargetEarlyMedia, TargetAnswered)
        ),
        (_BRIEFING, Said),  # "Yes?" is how people answer a telephone
        (_DECIDING, BriefingSpoken),  # of a prompt that was repeated
        (_DECIDING, BriefingFailed),
        *((_REPLACING, event) for event in (*_OF_BRIEFING, Sent, TargetRinging, TargetEarlyMedia, TargetAnswered)),
        (_REPLACING, VoicemailDetected),  # it has accepted, or was not asked to
        *((_CLEARING, event) for event in (*_OF_REFER, *_OF_BRIEFING, Sent, Refused, TargetRinging, TargetEarlyMedia)),
        (_CLEARING, VoicemailDetected),
        *((_JOINED, event) for event in (*_OF_REFER, *_OF_BRIEFING, Sent, TargetRinging, TargetEarlyMedia)),
        (_JOINED, TargetAnswered),
        (_JOINED, Cancel),  # the transfer is over; taking a caller out of a conversation is another command
        (_JOINED, DeadlinePassed),
        *(
            (state, event)
            for state in (_RETURNED, _ENDED)
            for event in (*AttemptEvent.__args__, CallerLost, Cancel, DeadlinePassed)
            if event not in TABLE[state]
        ),
        (_ENDED, CallerLeft),
    }
)
