"""The transfer state machine: how a caller gets from the AI agent to a person, or back. Plain values and `now`; the
handover performs the effects, in order. This is its table: `transfer_decisions` has what each event means,
`transfer_way` how far the transfer has come and the moves it can make.

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
from typing import NamedTuple

from trunkline.gateway import transfer_decisions as decide
from trunkline.gateway.transfer_record import Attempt, Kind, Policy, Result, Target
from trunkline.gateway.transfer_steps import (
    AttemptEvent,
    BriefingFailed,
    BriefingSpoken,
    CallerLeft,
    CallerLost,
    Cancel,
    DeadlinePassed,
    Effect,
    Event,
    HangUpTarget,
    Keyed,
    Notify,
    ReferAccepted,
    ReferRefused,
    Refused,
    Said,
    Sent,
    TargetAnswered,
    TargetEarlyMedia,
    TargetFailed,
    TargetHungUp,
    TargetLost,
    TargetRinging,
    VoicemailDetected,
)
from trunkline.gateway.transfer_way import State, Way

TIMER_SLACK_S = 0.01


class Row(NamedTuple):
    """One transition: what decides, and the states it may choose."""

    decide: Callable[[Way, Event, float], State]
    leads_to: tuple[State, ...]


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
    CallerLeft: Row(decide.caller_left, (_ENDED,)),
    CallerLost: Row(decide.caller_lost, (_ENDED,)),
    Cancel: Row(decide.cancel, (_RETURNED,)),
}
_WITH_TARGET: dict[type, Row] = {
    TargetFailed: Row(decide.target_gone, _AT_ONCE),
    TargetHungUp: Row(decide.target_gone, _AT_ONCE),
    TargetLost: Row(decide.target_lost, _AT_ONCE),
    VoicemailDetected: Row(decide.voicemail, _GIVEN_UP),
    **_WITH_CALLER,
}

TABLE: dict[State, dict[type, Row]] = {
    _READY: {},
    _REFERRING: {
        Sent: Row(decide.sent, (_REFERRING,)),
        Refused: Row(decide.refused, (_DIALLING, *_MISSED)),
        ReferAccepted: Row(decide.refer_accepted, (_REFERRED,)),
        ReferRefused: Row(decide.refer_refused, (_DIALLING, *_MISSED)),
        Notify: Row(decide.notified, (_REFERRED, _ENDED, *_MISSED)),
        CallerLeft: Row(decide.caller_left, (_ENDED,)),
        CallerLost: Row(decide.caller_lost_while_referred, (_REFERRING,)),
        Cancel: Row(decide.cancel, (_RETURNED,)),
        DeadlinePassed: Row(decide.never_told, (_RETURNED,)),
    },
    _REFERRED: {
        Sent: Row(decide.sent, (_REFERRED,)),
        ReferAccepted: Row(decide.refer_accepted, (_REFERRED,)),  # after a NOTIFY that overtook it
        ReferRefused: Row(decide.refer_refused, (_DIALLING, *_MISSED)),
        Notify: Row(decide.notified, (_REFERRED, _ENDED, *_MISSED)),
        CallerLeft: Row(decide.caller_left_referred, (_ENDED,)),
        CallerLost: Row(decide.caller_lost_while_referred, (_REFERRED,)),
        Cancel: Row(decide.cancel, (_RETURNED,)),
        DeadlinePassed: Row(decide.never_told, (_RETURNED,)),
    },
    _DIALLING: {
        Sent: Row(decide.sent, (_DIALLING,)),
        Refused: Row(decide.refused, _AT_ONCE),
        TargetRinging: Row(decide.ringing, (_DIALLING,)),
        TargetEarlyMedia: Row(decide.early_media, (_DIALLING,)),
        TargetAnswered: Row(decide.answered, (_BRIEFING, *_CONNECTED)),
        TargetFailed: Row(decide.target_failed, _AT_ONCE),
        TargetHungUp: Row(decide.target_gone, _AT_ONCE),
        TargetLost: Row(decide.target_lost, _GIVEN_UP),
        VoicemailDetected: Row(decide.voicemail, _GIVEN_UP),
        DeadlinePassed: Row(decide.rang_too_long, _GIVEN_UP),
        **_WITH_CALLER,
    },
    _BRIEFING: {
        BriefingSpoken: Row(decide.briefed, (_DECIDING,)),
        BriefingFailed: Row(decide.briefing_cut, (_DECIDING,)),
        DeadlinePassed: Row(decide.briefing_cut, (_DECIDING,)),
        Keyed: Row(decide.keyed, (_BRIEFING, *_CONNECTED, *_GIVEN_UP)),
        **_WITH_TARGET,
    },
    _DECIDING: {
        Keyed: Row(decide.keyed, (_DECIDING, *_CONNECTED, *_GIVEN_UP)),
        Said: Row(decide.said, (_DECIDING, *_CONNECTED, *_GIVEN_UP)),
        DeadlinePassed: Row(decide.no_decision, _GIVEN_UP),
        **_WITH_TARGET,
    },
    _REPLACING: {
        Refused: Row(decide.replaces_refused, _BOTH_HERE),
        ReferAccepted: Row(decide.replaces_accepted, (_REPLACING,)),
        ReferRefused: Row(decide.replaces_refused, _BOTH_HERE),
        Notify: Row(decide.replaces_notified, (_REPLACING, _ENDED, *_BOTH_HERE)),
        TargetFailed: Row(decide.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        TargetHungUp: Row(decide.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        TargetLost: Row(decide.target_gone_replacing, (_REPLACING, *_AT_ONCE)),
        CallerLeft: Row(decide.caller_left_replacing, (_ENDED,)),
        CallerLost: Row(decide.caller_lost_while_referred, (_REPLACING,)),
        Cancel: Row(decide.cancel, (_RETURNED,)),
        DeadlinePassed: Row(decide.replaces_never_told, (_JOINED, _RETURNED)),
    },
    _CLEARING: {
        TargetAnswered: Row(decide.answered_too_late, (_CLEARING,)),
        TargetFailed: Row(decide.cleared, (_DIALLING,)),
        TargetHungUp: Row(decide.cleared, (_DIALLING,)),
        TargetLost: Row(decide.lost_while_clearing, (_CLEARING, _DIALLING)),
        DeadlinePassed: Row(decide.not_cleared, (_RETURNED,)),
        **_WITH_CALLER,
    },
    _JOINED: {
        Refused: Row(decide.unjoined, (_RETURNED,)),
        TargetHungUp: Row(decide.conversation_over, (_RETURNED, _ENDED)),
        TargetFailed: Row(decide.unjoined, (_RETURNED,)),
        TargetLost: Row(decide.unjoined, (_RETURNED,)),
        VoicemailDetected: Row(decide.unjoined, (_RETURNED,)),
        CallerLeft: Row(decide.caller_left_joined, (_ENDED,)),
        CallerLost: Row(decide.caller_left_joined, (_ENDED,)),
    },
    _RETURNED: {
        TargetAnswered: Row(decide.answered_too_late, (_RETURNED,)),
        Notify: Row(decide.notified_late, (_RETURNED, _ENDED)),
        CallerLeft: Row(decide.caller_left_returned, (_ENDED,)),
    },
    _ENDED: {
        TargetAnswered: Row(decide.answered_too_late, (_ENDED,)),
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


class Transfer:
    """One caller on the way to one of `targets`, tried in order. `now` is monotonic seconds throughout."""

    def __init__(
        self, kind: Kind, targets: Sequence[Target], policy: Policy | None = None, *, can_refer: bool = True
    ) -> None:
        """`can_refer`: the caller's leg can be put through by its carrier (REFER, or Twilio's <Dial>)."""
        self._way = Way(kind, targets, policy, can_refer=can_refer)

    @property
    def state(self) -> State:
        return self._way.state

    @property
    def result(self) -> Result | None:
        """Of the whole, once it is JOINED, RETURNED or ENDED."""
        return self._way.result

    @property
    def attempt(self) -> Attempt:
        """The current or last one, as it stands."""
        return replace(self._way.attempt)

    @property
    def policy(self) -> Policy:
        """Of the current target."""
        return self._way.policy

    @property
    def unsettled(self) -> bool:
        """The caller is back, but a REFER may still be followed: the carrier may take the caller away yet, so NOTIFYs
        still belong here, and a further transfer might ring at two telephones."""
        return self._way.state is State.RETURNED and self._way.refer_open

    def begin(self, now: float) -> list[Effect]:
        """Once."""
        way = self._way
        assert way.state is State.READY, "a transfer begins once"
        way.began_at = now
        way.hold("caller")
        way.state = way.try_target(now)
        return way.take_effects()

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects, in order. Raises KeyError naming state and event for a pair that has no row: our bug."""
        way = self._way
        key = (way.state, type(event))
        if key in IGNORED:
            return []
        row = TABLE[way.state].get(type(event))
        if row is None:
            raise KeyError(key)
        if isinstance(event, DeadlinePassed):
            if way.deadline_at is None or now < way.deadline_at - TIMER_SLACK_S:
                return []
        elif isinstance(event, AttemptEvent) and event.attempt != way.attempt.number:
            return [HangUpTarget(event.attempt)] if isinstance(event, TargetAnswered) else []
        before, way.state = way.state, row.decide(way, event, now)
        assert way.state in row.leads_to, f"{before} {event} led to {way.state}"
        return way.take_effects()

    def close(self, why: str, now: float) -> list[Effect]:
        """The call is over, or its caller's leg is: what is under way is given up. Nothing where it was settled."""
        way = self._way
        if (way.state, Cancel) in IGNORED:
            return []
        if not way.caller_lost:
            return self.handle(Cancel(why), now)
        way.state = way.gone("carrier_vanished", now, why)
        return way.take_effects()
