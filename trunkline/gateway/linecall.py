"""One call on its line: a leg, a bus, an attendant and the state machine (`call.py`) whose effects are performed here.

What ends, ends once: bus and attendant are released, the record is closed. Errors of this call are caught here and end
it (`reason="error"`); no other call notices.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from trunkline.agents import languages
from trunkline.agents.attending import Agent
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Minds
from trunkline.agents.wishes import wish_of
from trunkline.agents.wishes.ears import Overhearing
from trunkline.compliance.answers import out, told
from trunkline.compliance.money.account import NOTHING, SoFar
from trunkline.gateway import call as c
from trunkline.gateway import transfer_steps as t
from trunkline.gateway.answeredby import MessageListener
from trunkline.gateway.arrival import Arrival, Why, vouched
from trunkline.gateway.consent import CallConsent, Carried
from trunkline.gateway.consent import Party as Who
from trunkline.gateway.dialledleg import DialledLeg
from trunkline.gateway.dialling import new_call_id
from trunkline.gateway.endings import leg_product
from trunkline.gateway.handover import Handover
from trunkline.gateway.hands import Hands, Holds
from trunkline.gateway.leg import Leg, Plan, Telling
from trunkline.gateway.live import encode
from trunkline.gateway.notice import Notice
from trunkline.gateway.party import Invitation, Party
from trunkline.gateway.payable import Payable
from trunkline.gateway.referred import Leaving, Movable, Referrals, our_number
from trunkline.gateway.routed import Routed
from trunkline.gateway.succession import BACK, RESUMED, TRANSFER_FAILED, Succession, first_line
from trunkline.gateway.targets import targets_of
from trunkline.gateway.transfer_record import Kind, TransferFailed, named_target
from trunkline.gateway.wishes import CallWishes
from trunkline.live import Follower, TurnOver
from trunkline.media.bus import NOBODY, Bus, Receiver
from trunkline.media.gate import Gate
from trunkline.media.members import move
from trunkline.media.voicemail import After
from trunkline.ports import (
    ENDED_BY,
    HERE,
    NAMED,
    Allow,
    CallEnded,
    CallEvent,
    CallFacts,
    CallStarted,
    CapturedBy,
    Decision,
    Door,
    EndedBy,
    EndReason,
    Facts,
    Message,
    Refuse,
    Standing,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
    Wish,
)
from trunkline.privacy.calls import AGENT_CHANGED, TOOLS_USED, RedactedConversation, RedactedFollowing
from trunkline.types import DEFAULT_TENANT, E164, FRAME_MS, CallId, TenantId

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Switchboard

log = logging.getLogger(__name__)

GOODBYE_S = 8.0  # for the last words to be said
CONFIRM_S = 20.0  # for ours, which are longer
MESSAGE_S = 90.0  # for a text in place of a conversation
SUMMARY, SUMMARY_OF_NOTHING = "You have a caller, who last said:", "You have a caller."
SUMMARY_CHARS = 200
NO_CONSENT = "no_consent"
"""The code of a door that is shut until the caller agrees."""
_BY_SERVERS = frozenset(("livekit",))  # legs whose messages to the device pass through another's server
BOUND = Refuse("consent", "with the rules in force nobody takes the place of who has heard the lines and agreed")
GREETINGS: Mapping[Why, str | None] = {
    "new": None,
    "leg_lost": RESUMED,
    "transfer_failed": TRANSFER_FAILED,
    "again": BACK,
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A transfer that was allowed and has not begun."""

    kind: Kind
    target: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class FormerCall:
    """What is remembered of a call that has ended."""

    id: CallId
    reason: EndReason
    conversation: tuple[Message, ...] = ()
    """Of a call that may return."""
    agent: Agent | None = None
    """And who attended it."""
    consent: Carried | None = None
    """What was settled about keeping it; None: nobody knows."""
    so_far: SoFar = NOTHING
    """What a call that goes on has cost."""
    routed: Routed | None = None
    """By which route, of a call that may return: it has the same again."""

    @property
    def may_return(self) -> bool:
        """The leg was lost and its carrier asks us again; or no line was free and the carrier tries once more."""
        return self.reason in ("media_lost", "overloaded")


class LineCall:
    """One call: the leg's LegCall, the agent's CallControl and Report."""

    def __init__(
        self,
        board: "Switchboard",
        arrival: Arrival,
        before: FormerCall | None,
        ring_s: float | None = None,
        call_id: CallId | None = None,
        routed: Routed | None = None,
        tenant: TenantId = DEFAULT_TENANT,
    ) -> None:
        """`before`: what is remembered of it, when it comes back. `ring_s`: it is a call of ours, not yet answered.
        `call_id`: the name it was promised. `routed`: who answers; None: the gateway's own agent, for `tenant`."""
        self.routed = routed
        self.says = ""
        """In place of a conversation: then it is hung up."""
        self.arrival = arrival
        self.id = call_id or new_call_id()
        self.machine = c.Call(board.limits.max_call_s, ring_s)
        self.end_reason: EndReason | None = None
        self.transfer_number: E164 | None = None
        self.billed_as = ""
        """Its leg, where that is another than it began with."""
        self._board = board
        self._greeting = GREETINGS[arrival.why]
        self._leg: Leg | None = None
        self._bus: Bus | None = None
        conversation: Sequence[Message] = before.conversation if before is not None else ()
        agent = board.agent if routed is None or routed.agent is None else routed.agent
        if before is not None and before.agent is not None and (still := board.still_here(before.agent)) is not None:
            agent = still
        self.attended = Succession(self, agent, board.agents, conversation, board.clock)
        """Who attends it, and what was said."""
        self.consent = CallConsent(self, board.house, board.clock, before.consent if before is not None else None)
        """What the caller hears first, and whether anything of the call may be kept."""
        policy = board.policies.of(agent.definition.known_as)
        self._discreet, self._told = RedactedConversation(policy), RedactedFollowing(policy)
        self._deadline: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._spent = self._leaves_spent = False
        self._so_far = before.so_far if before is not None else SoFar()
        self._cheaper = ""  # who goes on from the end of this turn
        self._gives_over = False
        self._wanted: _Wanted | None = None
        """A transfer of ours, once the agent's words were heard."""
        self.diallers = Payable(board.diallers, self.may_pay_leg)
        self.party = Party(self, self.diallers, board.line, board.clock)
        self._handover: Handover | None = None
        self._on_hold = False  # by an operator
        self._back_with: TransferFailed | None = None
        self.referrals = Referrals(self)
        """What its far end asks by REFER."""
        self.wishes = None if board.consents is None else CallWishes(self, board.consents, board.clock, *board.keys)
        self._overhearing: Overhearing | None = None
        self._attached_at: float | None = None
        self._answered = False
        self._turns = 0
        self._may_keep: bool | None = None  # what is said: in its session, for its return
        self._gate: Gate | None = None  # before the recorder
        self._message: MessageListener | None = None  # for when a machine begins to listen
        self._ending_as: EndReason | None = None
        self._said: dict[EndReason, tuple[EndedBy | None, str]] = {}
        """Who would be ending it for this reason, and the provider's code."""
        # Twilio keeps the CallSid when a call comes back, a session its id; a record of ours ends once, so each has a
        # name of its own.
        again = f"/{arrival.reconnects + 1}" if arrival.reconnects else ""
        self.started = CallStarted(
            call_id=self.id,
            tenant=tenant if routed is None else routed.tenant,
            direction=arrival.direction,
            leg=arrival.leg,
            agent=agent.definition.known_as if routed is None or routed.to_agent else "",
            at=board.clock.wall(),
            from_number=arrival.from_number,
            to_number=arrival.to_number,
            provider_call_id=arrival.provider_call_id + again,
        )

    # --- records ---

    def record_start(self) -> None:
        self._board.records.append(self.started)
        self._board.telemetry.call_started(self.started)
        if self.arrival.attributes:
            self._note("attributes", self.arrival.attributes)
        if self.arrival.stir is not None:
            self._note("stir", vouched(self.arrival.stir))
        if self.routed is not None:
            self._note("routed", self.routed.told())
        settled = self.consent.carried.doors
        for state in dict.fromkeys(settled.values()):
            doors = [door for door, found in settled.items() if found == state]
            self._note("consent", {"state": state, "doors": doors, "via": "carried", "basis": ""})

    def event(self, kind: str, **data: Any) -> None:
        if kind == "message" and not self.may_keep_words:  # what a caller has left, in their words
            data = {**data, "text": ""}
        if kind == AGENT_CHANGED:
            policy = self._board.policies.of(data["agent"])
            self._discreet.attended_by(policy)
            self._told.attended_by(policy)
        self._note(kind, data)

    def _note(self, kind: str, data: Mapping[str, Any]) -> None:
        self._board.records.append(CallEvent(self.id, self._board.clock.wall(), kind, data))

    def named(self, provider_call_id: str) -> None:
        self.arrival = replace(self.arrival, provider_call_id=provider_call_id)
        self.started = replace(self.started, provider_call_id=provider_call_id)
        self._note(NAMED, {"provider_call_id": provider_call_id})

    def turn(self, turn: TurnRecord, ago_s: float) -> None:
        board = self._board
        now = board.clock.wall()
        turn = replace(turn, index=self._turns)  # of the call: each attendant counts its own
        self._turns += 1
        board.metrics.turn(turn)
        if (tell := self.follower) is not None:
            tell(TurnOver.of(turn))
        if not self.may_keep_words:
            turn = turn.without_words()
        ended = TurnEnded(self.id, now, turn)
        board.records.append(ended)
        if turn.evidence is not None and turn.evidence.tools:
            self._note(TOOLS_USED, {"turn": turn.index, "tools": [asdict(use) for use in turn.evidence.tools]})
        board.telemetry.turn(ended, now - timedelta(seconds=ago_s))
        if board.spending is not None:
            board.spending.turn_over(self, turn.tools)
        if self._cheaper and not turn.interrupted:
            asyncio.get_running_loop().call_soon(self._go_cheaper)

    @property
    def follower(self) -> Follower | None:
        leg = self._leg
        if not isinstance(leg, Telling) or (leg.kind in _BY_SERVERS and not self.may_keep_words):
            return None
        tell = leg.tell
        return self._told.before(lambda told: tell(encode(told)))

    def usage(self, usage: Usage) -> None:
        """That a leg was answered is for the account only."""
        costs = self._board.spending.used(self, usage) if self._board.spending is not None else ()
        if usage.kind != "leg" or usage.unit != "calls":
            self._board.records.append(UsageMetered(self._board.clock.wall(), usage, costs))

    def ask(
        self,
        door: Door,
        target: str | None = None,
        target_number: str | None = None,
        dialled: E164 | None = None,
        *,
        goes: bool = True,
        counts: bool = True,
    ) -> Decision:
        """Every door leads through here; what was refused is in the record, and what the rules looked at. `dialled`: a
        further leg of the call. `goes`: what is allowed is done at once; `counts`: as a call out, which whoever asks
        tells else. What the caller has not agreed to is refused before anything else is looked at."""
        if (shut := self.consent.shut(door)) is not None:
            return shut
        facts = Facts(
            door=door,
            tenant=self.started.tenant,
            direction=self.started.direction if dialled is None else "outbound",
            from_number=self.started.from_number if dialled is None else None,
            to_number=self.started.to_number if dialled is None else dialled,
            target=target,
            target_number=target_number,
            identity=self.arrival.identity,
            forwarded_by=self.arrival.forwarded_by,
            stir=self.arrival.stir,
            purpose=self.arrival.purpose if dialled is None else None,
            standing=self.arrival.standing if dialled is None else Standing(),
        )
        decision = self.consent.checked(door, self._board.decide(facts, self._board.clock.wall()))
        if isinstance(decision, Allow) and door in ("answer", "dial") and dialled is None:
            self.consent.owes(decision.obligations)
        if decision.checks and (goes or isinstance(decision, Refuse)):
            self.event("decision", **told(door, decision))
        if isinstance(decision, Allow) and goes and counts and (number := out(facts)) is not None:
            self._board.went_out(number, door == "transfer")
        if isinstance(decision, Refuse) and door != "record":
            self.event("refused", door=door, target=target, code=decision.code, why=decision.why)
        return decision

    # --- the machine ---

    def begin(self) -> None:
        if self.arrival.direction == "inbound":  # ringing does not count
            self._begin_limit()
        self._perform_all(self.machine.begin())

    def _begin_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(self._board.limits.max_call_s, self._out_of_time)

    def happened(self, event: c.Event) -> None:
        """Never raises: what fails ends this call."""
        try:
            effects = self.machine.handle(event)
        except Exception as error:
            self.crashed(error)
        else:
            self._perform_all(effects)

    def _perform_all(self, effects: Sequence[c.Effect]) -> None:
        """Each, whatever became of those before: a bus that cannot be released must not keep the record open."""
        for effect in effects:
            try:
                self._perform(effect)
            except Exception as error:
                self.crashed(error)

    def _perform(self, effect: c.Effect) -> None:
        match effect:
            case c.Listen():
                self._open_bus()
            case c.Attend(why):
                self._attend(why)
            case c.StepAside():
                self._step_aside()
            case c.Release():
                self._release()
            case c.CloseLeg(why):
                self.party.close(why)
                if self._leg is not None:
                    self._leg.close(why)
            case c.SetDeadline(after_s):
                self._set_deadline(after_s)
            case c.EndRecord(reason, detail):
                self.end(reason, detail)

    def _out_of_time(self) -> None:
        """The agent has limits of its own; this one also holds across lost legs, and when the agent is stuck."""
        loop = asyncio.get_running_loop()
        if self.machine.state is c.State.TRANSFERRING:  # there <Dial timeLimit> holds
            self._limit = loop.call_later(GOODBYE_S, self._out_of_time)
            return
        self._limit = loop.call_later(GOODBYE_S, self.hang_up, "max_duration")
        self.say_goodbye("max_duration")

    def _set_deadline(self, after_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.end_reason is not None:
            return
        self._deadline = asyncio.get_running_loop().call_later(after_s, self.happened, c.DeadlinePassed())

    # --- the leg (LegCall) ---

    def expect(self, leg: Leg) -> None:
        """It rings. One that has nobody to ring for any more is closed at once."""
        self._leg = leg
        if self.machine.state is not c.State.RINGING:
            leg.close(self.end_reason or "")

    def listen(self, leg: Leg) -> Bus | Refuse:
        if self.machine.state is not c.State.RINGING:
            return Refuse("ending", "the call does not ring")
        self._leg = leg
        self.happened(c.EarlyMedia())
        return self._bus or Refuse("error", "the call could not be heard")

    def pause(self) -> None:
        """Of a call of ours, whose attempt has failed: its leg is gone, and another may come."""
        self._release()
        self._leg = None

    def answered(self) -> None:
        if self.machine.state is c.State.RINGING and not self._answered:
            self._answered = True
            self._begin_limit()
            if self._board.spending is not None:
                self._board.spending.line_began(self)
            self.event("answered")
            self.happened(c.Answered())

    def attach(self, leg: Leg) -> Receiver | Refuse:
        """The agent speaks from here on. During a handover too: that leg is lost, though nobody has told us yet."""
        if self.machine.state in (c.State.ENDING, c.State.ENDED):
            return Refuse("ending", "the call is ending")
        old, self._leg = self._leg, leg
        self.happened(c.MediaStarted())
        if old is not None and old is not leg:
            old.detach()
            old.close("replaced")
        if self.party.room is not None:
            return self.party.room.caller  # others are waiting there
        return self._bus or Refuse("error", "the call could not be attended")

    def key(self, digit: str) -> None:
        attendant = self.attended.attendant
        wishes = self.wishes if attendant is not None else None  # else it is a representative's menu
        if getattr(attendant, "keyed_in_secret", False):  # any digits may be in a card
            wishes = None
        if wishes is None or not (wishes.opted_out or wishes.key(digit)):
            self.attended.key(digit)

    def typed(self, text: str) -> None:
        attendant = self.attended.attendant
        if self.wishes is not None and (wish := wish_of(text, self.language, "web_form")) is not None:
            self.wished(wish)
            if wish.kind == "do_not_call" or self.attended.attendant is not attendant or self.consent.announcing:
                return
        self.attended.typed(text)

    def flush(self) -> None:
        self.attended.flush()

    def never_came(self, reason: EndReason, detail: str) -> None:
        if self._leg is None:
            self.finished(reason, detail)

    def held(self, on: bool) -> None:
        self.attended.hold(on)

    def answered_by_machine(self, after: After | None = None) -> None:
        try:
            self.consent.answered_by_machine(self._caller, after)
            if self._message is not None and after is None:
                self._message.is_machine()
        except Exception as error:
            self.crashed(error)

    def _machine_heard(self, after: After) -> None:
        asyncio.get_running_loop().call_soon(self.answered_by_machine, after)  # not within the hearing of it

    def stopped(self, leg: Leg) -> None:
        if leg is self._leg:
            over = self._caller_over("caller_hung_up")
            self.happened(c.MediaStopped() if over == "caller_hung_up" else c.StatusFinal(over))

    def lost(self, leg: Leg, why: str) -> None:
        if leg is not self._leg:
            return
        handover = self._handover
        if handover is not None and handover.active:
            handover.feed(t.CallerLost(why))
            if handover.active:
                return  # its carrier may have turned the media to the target
        self.happened(c.MediaLost(why))

    def finished(self, reason: EndReason, detail: str = "", by: EndedBy | None = None, provider_code: str = "") -> None:
        over = self._caller_over(reason)
        self._said.setdefault(over, (by, provider_code))
        self.happened(c.StatusFinal(over, detail))

    # --- a REFER from the far end (referred.Host) ---

    @property
    def our_number(self) -> E164 | None:
        return our_number(self.facts())

    def now(self) -> float:
        return self._board.clock.now()

    def may_call(self, number: E164, *, goes: bool = True) -> Decision:
        return self.ask("dial", dialled=number, goes=goes)

    def bound(self) -> Refuse | None:
        """Lines, consent and do-not-call are this party's: of who came in their place nobody knows whose number it is
        and what they would have agreed to."""
        return None if self._board.house is None else BOUND

    def talks_with(self, leg: Leg) -> bool:
        if self.bound() is not None:
            return False
        return leg is self._leg and self.machine.state is c.State.ACTIVE and self._bus is not None

    def succeed(self, leg: Movable) -> Receiver | Refuse:
        bus, old = self._bus, self._leg
        if bus is None or not isinstance(old, Movable) or not self.talks_with(old):
            return Refuse("not_now", "the agent does not talk with who asked")
        self.party.suspend()
        if self.attended.held:
            self.held(False)  # that was the other one's
        self._bill(leg.call)
        leg.continue_from(bus.carrier_ms + FRAME_MS)
        move(bus, leg)
        self._leg, leg.call, old.call = leg, self, Leaving(self, old)
        old.detach()
        leg.bus = bus
        self.party.gather()
        return leg.bus

    def _bill(self, whose: object) -> None:
        """From now on the leg that was theirs, in place of ours."""
        spending, now = self._board.spending, self._board.clock.now()
        if spending is None or self._attached_at is None:
            return
        seconds, self._attached_at = round(now - self._attached_at, 3), now
        if isinstance(whose, DialledLeg):
            spending.succeeded(self, whose.product, seconds)
        elif isinstance(whose, LineCall):
            spending.succeeded(self, spending.leg(whose), seconds)

    def give_up(self, leg: Leg) -> Movable | Refuse:
        if not isinstance(leg, Movable) or not self.talks_with(leg):
            return Refuse("not_now", "the agent does not talk with that far end")
        self.party.suspend()
        leg.clear()
        leg.detach()
        self._leg = None
        self.happened(c.StatusFinal("transferred", "taken by another call"))
        return leg

    # --- the agent (CallControl and Report) ---

    def hang_up(self, reason: EndReason, by: EndedBy | None = None) -> None:
        if by is not None:
            self._said.setdefault(reason, (by, ""))
        if reason == "transferred" and self._wanted is not None:
            self.happened(c.HandOver())
        elif reason == "transferred" and self.transfer_number is not None:
            self.happened(c.Transfer())
        else:
            self.happened(c.HangUp(self._ending_as or reason))

    def transfer(self, target: str) -> Decision:
        """Allowed: performed when the agent hangs up with reason `transferred`, after its words were heard."""
        by_carrier = self._by_carrier(target, "auto")
        return self._ask_dial(target) if by_carrier else self._ask_for(_Wanted("auto", target))

    def hand_off(self, agent: str) -> Decision:
        """Allowed: performed by `handed_off`, after the agent's words were heard."""
        return self.attended.may_hand_off(agent)

    # --- what the caller wishes (wishes.Host) ---

    def wished(self, wish: Wish) -> None:
        if wish.via == "speech" and self.party.others_speak:
            return  # it may have been theirs: keys are the caller's
        if self.wishes is not None:
            if wish.kind == "do_not_call":
                self.consent.leave_off()
            self.wishes.wished(wish)

    @property
    def tenant(self) -> TenantId:
        return self.started.tenant

    @property
    def other_number(self) -> str | None:
        return self.started.from_number if self.started.direction == "inbound" else self.started.to_number

    @property
    def language(self) -> str:
        return getattr(self.attended.attendant, "language", self._definition.language)

    @property
    def digits_awaited(self) -> bool:
        return getattr(self.attended.attendant, "digits_awaited", False)

    @property
    def told_how_to_opt_out(self) -> bool:
        return self.consent.tells_how_to_opt_out

    def opted_out(self, line: str) -> None:
        """The last words are given CONFIRM_S; who is with nobody that could say them is hung up on."""
        if self.end_reason is None:
            asyncio.get_running_loop().call_later(CONFIRM_S, self.hang_up, "opted_out")
            self.say_goodbye("opted_out", line)

    def keep_nothing(self, wish: Wish) -> None:
        self.consent.withdraw(wish, self._caller)

    def consent_revoked(self, via: CapturedBy) -> None:
        """It is in the ledger already."""
        self.consent.withdraw(Wish("keep_nothing", "", via), self._caller, written=True)

    @property
    def _definition(self) -> AgentDefinition:
        """Of who attends: theirs are the targets."""
        return self.attended.agent.definition

    def _by_carrier(self, target: str, kind: Kind) -> bool:
        """Twilio's <Dial>: the carrier calls the target, and our stream ends."""
        if kind == "auto":
            kind = self._definition.terms_of(target).kind
        return self._leg is not None and self._leg.transfers and kind in ("auto", "blind")

    def _ask_dial(self, name: str) -> Decision:
        target = named_target(self._definition.targets, name)
        if isinstance(target, Refuse):
            return target
        if target.number is None:
            return Refuse("no_number", f"{name} has no number that can be dialled")
        if (spending := self._board.spending) is not None:
            known = spending.may_add(self, self.started.leg, leg_product("transfer", target.number))
            if isinstance(known, Refuse):
                return known
        decision = self.ask("transfer", target.name, target.number)
        if isinstance(decision, Allow):
            self.transfer_number, self._wanted = target.number, None
            self.event("transfer", target=target.name)
        return decision

    def _ask_for(self, wanted: "_Wanted") -> Decision:
        """A transfer that we perform ourselves (`handover.py`): whether it may begin."""
        if self._bus is None or not isinstance(self._leg, Hands):
            return Refuse("not_supported", "this line cannot put callers through")
        if self._handover is not None and (self._handover.active or self._handover.transfer.unsettled):
            return Refuse("not_now", "the last transfer may be followed yet")
        targets = targets_of(self._definition, wanted.target, wanted.kind, "")
        if isinstance(targets, Refuse):
            return targets
        for target in targets:  # one that is closed has a fallback that may be open
            decision = self.ask("transfer", target.name, target.dialled, goes=False)  # asked again as it is dialled
            if isinstance(decision, Allow):
                self._wanted, self.transfer_number = wanted, None
                self.event("transfer", target=wanted.target, wanted=wanted.kind)
                break
        return decision

    # --- an operator's hands ---

    def send_to(self, target: str, kind: Kind, summary: str = "") -> Refuse | None:
        """At once, whatever the agent says. Codes: `not_now`, `not_supported`, `unknown_target`, the door's own."""
        if self.machine.state is not c.State.ACTIVE:
            return Refuse("not_now", "the caller is not with the agent")
        by_carrier = self._by_carrier(target, kind)
        decision = self._ask_dial(target) if by_carrier else self._ask_for(_Wanted(kind, target, summary))
        if isinstance(decision, Refuse):
            return decision
        self.event("operator", asked="transfer", target=target, transfer=kind)
        self.happened(c.Transfer() if by_carrier else c.HandOver())
        return None

    def take_back(self) -> Refuse | None:
        """The transfer under way is given up."""
        if self._handover is None or not self._handover.active or self._handover.joined:
            return Refuse("not_now", "no transfer is under way")
        self._asked("take_back")
        self._handover.feed(t.Cancel("by an operator"))
        return None

    def hold(self) -> Refuse | None:
        """The caller hears music; the agent, or whom they talk to, does not hear them."""
        if self._handover is not None and self._handover.active:
            return self._tell_hold(True, self._asked("hold", self._handover.hold()))
        if self.machine.state is not c.State.ACTIVE:
            return Refuse("not_now", "the caller is on hold, or not with the agent")
        if self._bus is None or not isinstance(self._leg, Hands):
            return Refuse("not_supported", "this kind of line cannot be put on hold")
        self._wanted = None
        self._asked("hold")
        self.happened(c.HandOver())
        return self._tell_hold(True)

    def resume(self) -> Refuse | None:
        if self._handover is not None and self._handover.active:
            return self._tell_hold(False, self._asked("resume", self._handover.resume()))
        if not self._on_hold:
            return Refuse("not_now", "the caller is not on hold")
        self._asked("resume")
        self.back(None)
        return None

    def _tell_hold(self, held: bool, refused: Refuse | None = None) -> Refuse | None:
        """The far end is told, where its leg can."""
        if refused is None and isinstance(self._leg, Holds):
            self._leg.hold(held)
        return refused

    def mute(self, muted: bool) -> Refuse | None:
        """Whom the caller was put through to does not hear them."""
        if self._handover is None or not self._handover.active:
            return Refuse("not_now", "the caller is not with a representative")
        return self._asked("mute" if muted else "unmute", self._handover.mute(muted))

    def target_names(self) -> list[str]:
        return list(self._definition.targets)

    # --- who else is in the call (party.Host) ---

    def number_of(self, target: str) -> E164 | Refuse:
        named = named_target(self._definition.targets, target)
        if isinstance(named, Refuse):
            return named
        return named.number or Refuse("no_number", f"the target {target} has no number that can be dialled")

    def may_come(self, invitation: Invitation) -> Decision:
        if self._bus is not None and not isinstance(self._leg, Hands):
            return Refuse("not_supported", "nobody can join this kind of line")
        if self.here() is None or self.consent.announcing:
            return Refuse("not_now", "there is no conversation to come to")
        number = invitation.order.to_number
        if invitation.name:
            return self.ask("transfer", invitation.name, number)
        return self.ask("dial", dialled=number)

    def here(self) -> tuple[Hands, Bus, bool] | None:
        talking = self.machine.state in (c.State.ACTIVE, c.State.HANDOVER)
        if not talking or self._bus is None or not isinstance(self._leg, Hands):
            return None
        return self._leg, self._bus, self.attended.attendant is not None

    def take_line(self) -> Refuse | None:
        return self._board.take_line()

    def give_line(self) -> None:
        self._board.give_line()

    def member_crashed(self, name: str | None, error: Exception) -> None:
        leg = self.party.leg_named(name)
        if leg is None and self._handover is not None:
            leg = self._handover.leg_named(name)
        (leg or self).crashed(error)

    def _asked(self, what: str, refused: Refuse | None = None) -> Refuse | None:
        if refused is None:
            self.event("operator", asked=what)
        return refused

    # --- a transfer of ours ---

    def _step_aside(self) -> None:
        board, leg = self._board, self._leg
        assert isinstance(leg, Hands)
        wanted, self._wanted = self._wanted, None
        self.attended.leave()
        room = self.party.enter()
        if wanted is None:
            self._on_hold = True
            room.hold_caller()
            return
        targets = targets_of(self._definition, wanted.target, wanted.kind, self._summary(), wanted.summary)
        assert not isinstance(targets, Refuse)
        self._handover = Handover(
            self,
            leg,
            room,
            targets,
            tuple(self.diallers),
            board.line,
            self._minds_now,
            board.clock,
        )
        self._handover.begin()

    def _minds_now(self) -> Minds | None:
        """For what the gateway itself says: nobody's who may not hear of this call. None: there is nobody."""
        return self.attended.agent.minds if isinstance(self.attended.may_serve(), Allow) else None

    def _summary(self) -> str:
        told = self._discreet(self.attended.conversation)
        said = [m.text for m in told if m.role == "caller" and m.text and not m.keyed]
        return f"{SUMMARY} {said[-1][:SUMMARY_CHARS]}." if said else SUMMARY_OF_NOTHING

    def back(self, failed: TransferFailed | None) -> None:
        self._on_hold = False
        self.party.leave()
        self._back_with = failed
        self._tell_hold(False)
        self.happened(c.Returned(failed is not None))

    def put_through(self) -> None:
        if not self.party.represented:
            self.happened(c.HangUp("transferred"))

    def deserted(self) -> None:
        handover = self._handover
        if handover is not None and handover.put_through and not handover.active:
            self.happened(c.HangUp("transferred"))

    def _caller_over(self, reason: EndReason) -> EndReason:
        """The caller's leg is: what that means for the call while a transfer has the line."""
        handover = self._handover
        if handover is None or not handover.active:
            with_somebody = handover is not None and handover.put_through and self.party.represented
            return "transferred" if with_somebody and reason == "caller_hung_up" else reason
        handover.feed(t.CallerLeft() if reason == "caller_hung_up" else t.CallerLost(reason))
        return "transferred" if handover.put_through else reason

    def call_back(self) -> Decision:
        inbound = self.started.direction == "inbound"
        if (self.started.from_number if inbound else self.started.to_number) is None:
            return Refuse("no_number", "the number of this call is not known")
        self.event("call_back_wanted")
        return Allow()

    @property
    def sends_dtmf(self) -> bool:
        """The leg sends digits; where not, the agent sounds them in its audio."""
        return self._leg is not None and self._leg.sends_dtmf

    def send_dtmf(self, digits: str) -> None:
        self.event("dtmf_sent", count=len(digits))
        if self._leg is not None and self._leg.sends_dtmf:
            self._leg.send_dtmf(digits)

    def say_goodbye(self, reason: EndReason, line: str | None = None) -> None:
        """The line the caller hears before we leave, the agent's own where none is given; ends with this reason."""
        if self._ending_as == "opted_out":
            return  # they are hearing that
        attendant = self.attended.attendant
        if attendant is None:
            self.hang_up(reason)
        else:
            self._ending_as = reason
            attendant.say_goodbye(line)

    # --- what it may cost (spending.py) ---

    @property
    def limited(self) -> bool:
        """Its time runs."""
        return self._limit is not None

    @property
    def is_away(self) -> bool:
        """Its carrier has it, with a target: there <Dial timeLimit> holds."""
        return self.machine.state is c.State.TRANSFERRING

    def ends_in_s(self) -> float:
        """By its own limit at the latest."""
        return 0.0 if self._limit is None else self._limit.when() - asyncio.get_running_loop().time()

    def may_pay(self, agent: Agent) -> Decision:
        spending = self._board.spending
        return Allow() if spending is None else spending.may_attend(self, agent)

    def may_pay_leg(self, plan: Plan, direction: str = "transfer") -> Decision:
        """Another one, dialled beside the caller's; `outbound`: in place of one that was not answered."""
        spending, number = self._board.spending, plan.order.to_number
        if spending is None:
            return Allow()
        ask = spending.may_replace if direction == "outbound" else spending.may_add
        return ask(self, plan.kind, leg_product(direction, number, plan.sip_trunk))

    def attended_by(self, agent: Agent) -> None:
        if self._board.spending is not None:
            self._board.spending.attended(self, agent)

    def instruct(self, text: str) -> None:
        self.attended.instruct(text)

    def cheaper(self, agent: str, why: str) -> bool:
        """Another agent goes on from the end of this turn; False: there is none, or none that may now."""
        if not agent or isinstance(self.attended.may_take_over(agent), Refuse):
            return False
        self._cheaper = agent
        self.event("cheaper_route", agent=agent, why=why)
        return True

    def _go_cheaper(self) -> None:
        if self.machine.state is not c.State.ACTIVE or self._bus is None or not self._cheaper:
            return  # at the end of another turn
        if self._gives_over or self._spent or self.consent.announcing:
            return
        agent, self._cheaper = self._cheaper, ""
        try:
            self.attended.take_over(agent, self._bus)
        except Exception as error:
            self.crashed(error)

    def out_of_budget(self, budget: str, target: str) -> None:
        """A transfer, where it is wanted and can be, else a goodbye. Idempotent."""
        if self._spent or self.end_reason is not None:
            return
        if self.is_away:
            return
        self._spent = True
        self.event("budget_spent", budget=budget)
        if target and self.machine.state is c.State.ACTIVE and self.send_to(target, "auto") is None:
            return
        self._leave_spent()

    def _leave_spent(self) -> None:
        """Last words, which are given GOODBYE_S once: a leg that is replaced meanwhile has what is left of them."""
        if not self._leaves_spent:
            self._leaves_spent = True
            if self._limit is not None:
                self._limit.cancel()
            self._limit = asyncio.get_running_loop().call_later(GOODBYE_S, self.hang_up, "budget")
        self.say_goodbye("budget")

    def crashed(self, error: BaseException) -> None:
        log.error("call %s: %s", self.id, error, exc_info=error)
        if self.end_reason is None:
            self.event("crashed", error=type(error).__name__)
            self.happened(c.HangUp("error"))

    # --- effects ---

    def _open_bus(self) -> Bus:
        """Idempotent."""
        if self._bus is not None:
            return self._bus
        board, line, leg = self._board, self._board.line, self._leg
        assert leg is not None
        self._bus = bus = Bus(leg, line.ears, line.heartbeat, board.clock, leg.lead, line.echo())
        if self.wishes is not None and board.second_ears is not None:
            loop = asyncio.get_running_loop()
            self._overhearing = board.second_ears.overhear(
                bus, lambda: self.attended.attendant, self.wished, loop.call_later
            )
        permit = self.ask("record")
        if isinstance(permit, Allow) or permit.code == NO_CONSENT:
            self._gate = Gate(lambda: line.recorder(self.id, Allow()), is_open=isinstance(permit, Allow))
            bus.taps.append(self._gate)
        return bus

    def _doors_moved(self) -> None:
        self._may_keep = None
        if self._gate is None:
            return
        if isinstance(self.ask("record"), Allow):
            self._gate.open()
        else:
            self._gate.shut()

    def fall_back(self) -> Decision:
        bus = self._bus
        if self.machine.state is c.State.ACTIVE and bus is not None and self.attended.agent.fallback is not None:
            try:
                return self.attended.fall_back(bus)
            except Exception as error:
                self.crashed(error)
        return Allow()

    def handed_off(self) -> None:
        self._gives_over = True
        asyncio.get_running_loop().call_soon(self._hand_over)  # not within the doing of the one who leaves

    def _hand_over(self) -> None:
        self._gives_over = False
        if self.machine.state is not c.State.ACTIVE or self._bus is None:
            return
        try:
            self.attended.hand_over(self._bus)
        except Exception as error:
            self.crashed(error)

    def _attend(self, why: str) -> None:
        board = self._board
        if self.wishes is not None and self.wishes.opted_out:  # their leg was lost in the middle of the confirmation
            self.happened(c.HangUp("opted_out"))
            return
        due = self.consent.due and not self.says
        if not due and not self.says and isinstance(self.attended.may_serve(), Refuse):
            self.happened(c.HangUp("refused"))
            return
        if self._bus is not None:
            self._bus.forget_speech()  # of an announcement, before the far end answered
        bus = self._open_bus()
        if why == "new" and self._may_be_machine and self._message is None:
            self._message = MessageListener(self._machine_heard)
            bus.taps.append(self._message)
            if self.consent.machine:  # its carrier was faster than its sound
                self._message.is_machine()
        if not due and not self.says:
            self.attended.take(bus)
        if self._attached_at is None:
            self._attached_at = board.clock.now()
        if board.spending is not None:
            board.spending.answered(self)
        self.transfer_number = self._wanted = None
        if not self._answered or why != "new":
            self._answered = True
            self.event("answered" if why == "new" else "resumed")
        if self._limit is None:
            self._begin_limit()
        failed, self._back_with = self._back_with, None
        self.party.gather()
        greeting = "" if self._spent else first_line(why, self._greeting, failed)
        if self.says:
            self._say_and_leave(bus)
        elif due:
            said = self.attended.conversation
            self.attended.announce(
                self.consent.announcer(bus, self._definition, self._caller, greeting, said, self._with_others)
            )
        else:
            self.attended.begin(greeting)
        if self._spent:  # the transfer that was to end it did not
            self._leave_spent()

    def _say_and_leave(self, bus: Bus) -> None:
        asyncio.get_running_loop().call_later(MESSAGE_S, self.hang_up, "agent_hung_up")
        reciter = self._board.reciter
        if reciter is not None:
            over = partial(self.hang_up, "agent_hung_up")
            self.attended.announce(reciter.attend(bus, self.says, self._definition.language, over, self.crashed))
        else:
            self.attended.take(bus)
            self.attended.begin("")
            self.say_goodbye("agent_hung_up", self.says)

    @property
    def _may_be_machine(self) -> bool:
        outbound = self.arrival.direction == "outbound" and not self.arrival.reconnects
        return outbound and self._board.house is not None

    def _with_others(self) -> bool:
        return self.party.room is not None

    def _caller(self) -> Who:
        inbound = self.started.direction == "inbound"
        number = self.started.from_number if inbound else self.started.to_number
        tags = self._definition.tags
        asked = languages.lookup(self.arrival.attributes.get("language", ""), tags)
        said = self.attended.so_far
        language = languages.of_conversation(said, tags) if said else asked or tags[0]
        return Who(self.started.tenant, self.started.direction, number, language)

    # --- what the caller has agreed to (consent.Host), and who comes in is told ---

    def notice(self) -> Notice | None:
        return self.consent.notice(self._definition.language)

    def agent_goes_on(self, greeting: str | None) -> None:
        announcer = self.attended.attendant  # who is still at it
        asyncio.get_running_loop().call_soon(self._agent_goes_on, greeting, announcer)

    def _agent_goes_on(self, greeting: str | None, announcer: object) -> None:
        bus, attends = self._bus, self.attended.attendant
        if self.machine.state is not c.State.ACTIVE or bus is None or attends is None or attends is not announcer:
            return
        try:
            self.attended.leave()
            bus.listener = NOBODY
            if self.says:
                self._say_and_leave(bus)
                return
            if isinstance(self.attended.may_serve(), Refuse):
                self.attended.announce(self.consent.unserved(bus, self._definition, self._caller))
                return
            self.attended.take(bus)
            self.attended.begin(None if self.attended.agent.greets_again else greeting)
        except Exception as error:
            self.crashed(error)

    def opened(self) -> None:
        """What was heard before is not in the recording: silence keeps its place."""
        self._doors_moved()

    def shut_now(self) -> None:
        self._doors_moved()
        bus = self._bus
        if bus is None or self.consent.announcing or self.machine.state is not c.State.ACTIVE or self.consent.machine:
            return
        self.attended.leave()  # whoever of another company attends hears no further word
        bus.listener = NOBODY
        self.attended.announce(self.consent.confirm(bus, self._definition, self._caller, self.attended.conversation))

    def machine_listens(self) -> None:
        """What was heard so far is its greeting, and nobody's conversation."""
        bus = self._bus
        if bus is None or self.machine.state is not c.State.ACTIVE or self._ending_as is not None:
            return
        self.attended.leave()
        bus.listener = NOBODY
        self.attended.conversation = ()
        self.attended.announce(self.consent.announcer(bus, self._definition, self._caller, None, (), self._with_others))

    def facts(self) -> CallFacts:
        failed = self._back_with
        after = {} if failed is None else {"transfer_failed": failed.reason, "transfer_target": failed.target}
        return CallFacts(
            call_id=self.id,
            tenant=self.started.tenant,
            direction=self.started.direction,
            from_number=self.started.from_number,
            to_number=self.started.to_number,
            started=self.started.at,
            attributes={**self.arrival.attributes, **after},
            stir=self.arrival.stir,
        )

    def _release(self) -> None:
        bus, self._bus = self._bus, None
        try:
            self.referrals.close()
            handover, self._handover = self._handover, None
            if handover is not None:
                replaced = self.machine.state is c.State.ACTIVE
                given_up = handover.close("the caller's leg was replaced" if replaced else "the call is over")
                self._back_with = given_up if replaced else None
            self.attended.leave()
        finally:
            self._on_hold = False
            self.party.suspend()
            if self._overhearing is not None:
                self._overhearing.close()
                self._overhearing = None
            if bus is not None:
                bus.close()
        if bus is None:
            return
        stats, lane = bus.playout.stats, bus.stats
        if self._attached_at is not None:
            seconds, self._attached_at = round(self._board.clock.now() - self._attached_at, 3), None
            spending, leg = self._board.spending, self.started.leg
            used = Usage(self.id, leg, "leg", "seconds", seconds)
            self.usage(used if spending is None else spending.leg_used(self, seconds))
        if self._gate is not None and (kept_s := round(self._gate.kept_s, 3)):
            self.usage(Usage(self.id, "disk", "recording", "seconds", kept_s, HERE))
        self.event(
            "media",
            received_frames=lane.received_frames,
            lost_ms=lane.lost_ms,
            sent_ms=stats.sent_ms,
            underruns=stats.underruns,
            underrun_ms=round(stats.underrun_ms),
            clears=stats.clears,
            late_marks=stats.late_marks,
            dead_marks=stats.dead_marks,
            dropped_ms=stats.dropped_ms,
            **cast(Leg, bus.leg).stats(),
        )

    def end(self, reason: EndReason, detail: str = "") -> None:
        """Close the record, once."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        for timer in (self._deadline, self._limit):
            if timer is not None:
                timer.cancel()
        self._deadline = self._limit = self._leg = None
        by, code = self._said.get(reason, (None, ""))
        ended = CallEnded(self.id, self._board.clock.wall(), reason, detail, by or ENDED_BY[reason], code)
        try:
            if self._board.spending is not None:
                self._board.spending.line_over(self)
            self._so_far = self.so_far
            if self._board.spending is not None and (cost := self._board.spending.ended(self)) is not None:
                self._note("cost", cost)
            self._board.records.append(ended)
            self._board.metrics.call_ended(reason)
            self._board.telemetry.call_ended(ended)
        finally:
            self._board.ended(self)
        log.info("call %s ended: %s%s", self.id, reason, f" ({detail})" if detail else "")

    # --- the session it belongs to (joining.SessionCall) ---

    @property
    def conversation(self) -> tuple[Message, ...]:
        return self._discreet(self.attended.so_far) if self.may_keep_words else ()

    @property
    def may_keep_words(self) -> bool:
        """Asked once, and again when a door has moved."""
        if self._may_keep is None:
            self._may_keep = isinstance(self.ask("transcript"), Allow)
        return self._may_keep

    @property
    def shut_doors(self) -> tuple[Door, ...]:
        """That the caller has refused, or taken back."""
        return tuple(door for door, state in self.consent.carried.doors.items() if state != "granted")

    @property
    def so_far(self) -> SoFar:
        spending = self._board.spending
        return (None if spending is None else spending.so_far(self)) or self._so_far

    @property
    def agent_name(self) -> str:
        return self.attended.agent.definition.known_as

    def former(self) -> FormerCall:
        assert self.end_reason is not None
        former = FormerCall(self.id, self.end_reason)
        if self.arrival.session_id is None and not former.may_return:
            return former  # thousands of them are remembered
        former = replace(former, consent=self.consent.carried, so_far=self.so_far)
        if not former.may_return:
            return former
        said = tuple(self.attended.conversation)
        said = said if said and self.may_keep_words else ()
        return replace(
            former, conversation=said, agent=self.attended.whole, consent=self.consent.carried, routed=self.routed
        )
