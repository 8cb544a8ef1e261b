"""One transfer of one call, performed: `transfer.Transfer` decides, this does it, and tells it what came of it.

From the first effect on the caller is in the call's room (`room.py`), with music, ringback or the target; the AI agent
has stepped aside. What happens while effects are performed waits its turn. An attempt that we dial goes over the next
trunk while nobody can have been rung (`outbound.py`), each time as a leg of its own, which takes a line.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from trunkline.agents.providers import Minds
from trunkline.clock import Clock
from trunkline.compliance.destinations import country_of
from trunkline.gateway import transfer_steps as t
from trunkline.gateway.briefing import Briefing
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.hands import Hands
from trunkline.gateway.leg import Dialler
from trunkline.gateway.notice import Notice, before_joining
from trunkline.gateway.outbound import Failure
from trunkline.gateway.referred import Movable, our_number
from trunkline.gateway.room import CallRoom
from trunkline.gateway.secondleg import SecondLeg
from trunkline.gateway.transfer import Transfer
from trunkline.gateway.transfer_record import Target, TransferFailed
from trunkline.gateway.transfer_way import State
from trunkline.gateway.waysout import Way, WaysOut
from trunkline.media import tones
from trunkline.media.bus import Receiver
from trunkline.media.members import Port
from trunkline.media.music import hold_music
from trunkline.media.sources import Source
from trunkline.ports import CallFacts, Decision, Door, EndReason, Refuse, Usage
from trunkline.types import E164, CallId

if TYPE_CHECKING:
    from trunkline.gateway.switchboard import Line

RING_SLACK_S = 5.0  # the dialler's own ringing limit is behind the machine's


class Caller(Protocol):
    """What a transfer asks of its call."""

    @property
    def id(self) -> CallId: ...

    def event(self, kind: str, **data: object) -> None: ...

    def usage(self, usage: Usage) -> None: ...

    def ask(self, door: Door, target: str | None = None, target_number: str | None = None) -> Decision: ...

    def may_call(self, number: E164, *, goes: bool = True) -> Decision:
        """The dial door, for a number that a representative names."""
        ...

    def facts(self) -> CallFacts: ...

    def notice(self) -> Notice | None:
        """That a representative hears before they are with the caller."""
        ...

    def hang_up(self, reason: EndReason) -> None: ...

    def back(self, failed: TransferFailed | None) -> None:
        """The agent has the line again."""
        ...

    def put_through(self) -> None:
        """The caller is with the target, or was: the call ends as transferred."""
        ...

    def crashed(self, error: BaseException) -> None: ...

    def take_line(self) -> Refuse | None: ...

    def give_line(self) -> None: ...


class Handover:
    """The line is taken when it is made; `active` until the caller is back or gone. All methods return at once."""

    def __init__(
        self,
        call: Caller,
        leg: Hands,
        room: CallRoom,
        targets: Sequence[Target],
        diallers: Sequence[Dialler],
        line: "Line",
        minds: Callable[[], Minds | None],
        clock: Clock,
    ) -> None:
        """`minds`: who may speak and hear for us now; None: nobody."""
        self.call = call
        self.transfer = Transfer("auto", targets, can_refer=leg.puts_through)
        self._leg, self._diallers = leg, diallers
        self._line, self._minds, self._clock = line, minds, clock
        self._country = country_of(targets[0].number or "")
        self._call_room, self._room, self._caller = room, room.conference, room.caller
        self._seconds: dict[int, SecondLeg] = {}
        """By attempt, the latest of each."""
        self._ways: dict[int, WaysOut] = {}
        self._briefing: Briefing | None = None
        self._waits_with = ""
        self._events: deque[t.Event] = deque()
        self._busy = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return self._clock.now()

    @property
    def active(self) -> bool:
        """The caller is not with the agent."""
        return not self._closed and self.transfer.state not in (State.RETURNED, State.ENDED)

    @property
    def put_through(self) -> bool:
        return self.transfer.result == "transferred"

    @property
    def joined(self) -> bool:
        return self.transfer.state is State.JOINED

    def begin(self) -> None:
        self._busy = True
        try:
            for effect in self.transfer.begin(self.now()):
                self._perform(effect)
        finally:
            self._busy = False
        self._handle_waiting()

    def feed(self, event: t.Event) -> None:
        """Never raises: what fails ends the call."""
        self._events.append(event)
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._events and not self._closed:
                for effect in self.transfer.handle(self._events.popleft(), self.now()):
                    self._perform(effect)
        except Exception as error:
            self._busy = False
            self.call.crashed(error)
        finally:
            self._busy = False

    def close(self, why: str = "") -> TransferFailed | None:
        """The call is over, or the leg is needed elsewhere: nobody is left on a line. What was given up of a transfer
        that was under way. Idempotent."""
        failed: TransferFailed | None = None
        if self._closed:
            return failed
        self._closed = True
        self._stop_timer()
        for effect in self.transfer.close(why, self.now()):
            if isinstance(effect, t.RecordAttempt):
                self._perform(effect)
            elif isinstance(effect, t.Resume):
                failed = effect.failed
        for second in self._seconds.values():
            second.referrals.close()
            second.hang_up_leg()
        for second in self._seconds.values():
            self._leaves_room(second)
        self._stop_briefing()
        return failed

    # --- the operator's ---

    def mute(self, muted: bool) -> Refuse | None:
        if not self.joined:
            return Refuse("not_now", "the caller is with nobody who could be spared hearing them")
        self._room.mute(self._caller, muted)
        return None

    def hold(self) -> Refuse | None:
        if not self.joined:
            return Refuse("not_now", "the caller waits already")
        self._room.hold(self._caller, hold_music().play())
        return None

    def resume(self) -> Refuse | None:
        if not self.joined:
            return Refuse("not_now", "a transfer is under way")
        self._room.resume(self._caller)
        return None

    def _source(self, name: str) -> Source:
        return hold_music().play() if name == "music" else tones.tone("ringback", self._country).play()

    # --- effects ---

    def _perform(self, effect: t.Effect) -> None:
        match effect:
            case t.Hold("caller", source):
                self._room.mute(self._caller, False)
                if not self._caller.held or self._waits_with != source:  # else it goes on
                    self._waits_with = source
                    self._room.hold(self._caller, self._source(source))
            case t.Hold("target", source):
                port = self._target_port(self.transfer.attempt.number)
                if port is not None:
                    self._room.hold(port, self._source(source))
            case t.HearTarget():
                self._room.mute(self._caller, True)
                self._room.resume(self._caller)
            case t.Refer(attempt, target):
                self._refer(attempt, target)
            case t.ReferReplaces(attempt):
                self._refer_replaces(attempt)
            case t.Dial(attempt, target):
                self._dial(attempt, target)
            case t.Brief(attempt, spoken):
                self._brief(attempt, spoken)
            case t.Ask(_, spoken):
                if self._briefing is not None:
                    self._briefing.say(spoken)
            case t.Join(attempt):
                self._join(attempt)
            case t.AgentLeaves():
                pass  # it stepped aside when the transfer began
            case t.Resume(failed):
                self._stop_timer()
                self._stop_briefing()
                self._call_room.free_caller()
                self.call.back(failed)
            case t.HangUpTarget(attempt):
                self._hang_up_target(attempt)
            case t.HangUpCaller():
                self.call.put_through()
            case t.SetDeadline(after_s):
                self._stop_timer()
                self._timer = asyncio.get_running_loop().call_later(after_s, self.feed, t.DeadlinePassed())
            case t.RecordAttempt(attempt):
                second = self._seconds.get(attempt.number)
                self.call.event("transfer_attempt", leg=second.name if second else None, **attempt.event())

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _refused(self, attempt: int, refused: Refuse) -> None:
        self.feed(t.Refused(attempt, refused.code, refused.why))

    # --- REFER ---

    def _refer(self, attempt: int, target: Target) -> None:
        decision = self.call.ask("transfer", target.name, target.dialled)
        if isinstance(decision, Refuse):
            self._refused(attempt, decision)
            return
        self._sent(attempt, self._leg.put_through(target.address, partial(self._told, attempt)))

    def _refer_replaces(self, attempt: int) -> None:
        second = self._seconds[attempt]
        assert second.media is not None
        self._sent(attempt, self._leg.put_through_to(second.media, partial(self._told, attempt)))

    def _sent(self, attempt: int, trunk: str | Refuse) -> None:
        if isinstance(trunk, Refuse):
            self._refused(attempt, trunk)
        else:
            self.feed(t.Sent(attempt, trunk))

    def _told(self, attempt: int, code: int, reason: str, *, notify: bool, final: bool) -> None:
        self.call.event("refer", attempt=attempt, code=code, reason=reason, notify=notify, final=final)
        if notify:
            self.feed(t.Notify(attempt, code or None, final))
        elif 200 <= code < 300:
            self.feed(t.ReferAccepted(attempt, code))
        else:
            self.feed(t.ReferRefused(attempt, code, f"REFER: {code} {reason}".strip() if code else ""))

    # --- the target's leg ---

    def _dial(self, attempt: int, target: Target) -> None:
        number = target.number
        if number is None:
            self._refused(attempt, Refuse("no_number", f"{target.name} has no number that can be dialled"))
            return
        decision = self.call.ask("transfer", target.name, number)
        if isinstance(decision, Refuse):
            self._refused(attempt, decision)
            return
        ring_s = self.transfer.policy.ring_s + RING_SLACK_S
        order = DialOrder(
            number, ring_timeout_s=ring_s, forwarded_by=our_number(self.call.facts()), detects_machine=False
        )
        ways = self._ways[attempt] = WaysOut(self._diallers, order)
        way = ways.first(self.now())
        refused = way if isinstance(way, Refuse) else self._dial_over(attempt, target, way)
        if refused is not None:
            self._refused(attempt, refused)

    def _dial_over(self, attempt: int, target: Target, way: Way) -> Refuse | None:
        """A leg of its own, recorded before its INVITE leaves."""
        if (no_line := self.call.take_line()) is not None:
            return no_line
        place, dialler, plan = way
        second = SecondLeg(self, attempt, target, place.attempt, plan.trunk)
        self._seconds[attempt] = second
        self.call.event("leg_dialled", leg=second.name, attempt=attempt, target=target.name, trunk=plan.trunk)
        try:
            leg = dialler.dial(plan, second)
        except Exception as error:  # our own bug costs this attempt, not the call
            second.never_was()
            self.call.event("crashed", leg=second.name, error=type(error).__name__)
            return Refuse("error", "the call could not be placed")
        second.expect(leg)
        self.feed(t.Sent(attempt, plan.trunk))
        return None

    def rang(self, second: SecondLeg) -> None:
        self._ways[second.attempt].rang(second.place)
        self.feed(t.TargetRinging(second.attempt))

    def unanswered(self, second: SecondLeg, failed: t.TargetFailed, failure: Failure) -> None:
        """Its leg is over: over the next trunk, while it is still wanted and nobody can have been rung."""
        attempt = self.transfer.attempt
        wanted = attempt.number == second.attempt and self.transfer.state is State.DIALLING and not self._closed
        way = self._ways[second.attempt].next(second.place, failure, self.now()) if wanted else None
        if way is None:
            self.feed(failed)
        elif (refused := self._dial_over(second.attempt, second.target, way)) is not None:
            self._refused(second.attempt, refused)

    def _target_port(self, attempt: int) -> Port | None:
        """Its place in the room, made when it is first needed."""
        second = self._seconds.get(attempt)
        if second is None or second.media is None or second.over:
            return None
        if second.port is None:
            port = self._call_room.join(second.media, "representative", second.name)
            assert isinstance(port, Port), "a place is kept for the target"
            second.port = port
            second.plug(port)
        return second.port

    def early_media(self, second: SecondLeg) -> Receiver | Refuse:
        if second.attempt != self.transfer.attempt.number or self.transfer.attempt.how != "bridged":
            return Refuse("not_now", "nobody listens yet")
        port = self._target_port(second.attempt)
        self.feed(t.TargetEarlyMedia(second.attempt))
        return port or Refuse("ending", "it is over")

    def target_answered(self, second: SecondLeg) -> Receiver | Refuse:
        self.feed(t.TargetAnswered(second.attempt))
        hears = None if second.media is None else second.media.bus
        return hears or Refuse("ending", "nobody waits for it any more")

    def target_over(self, second: SecondLeg) -> None:
        second.referrals.close()
        self._leaves_room(second)
        if self._briefing is not None and second.attempt == self.transfer.attempt.number:
            self._stop_briefing()

    # --- a representative's place (relief.py) ---

    @property
    def diallers(self) -> Sequence[Dialler]:
        return self._diallers

    def has_place(self, second: SecondLeg) -> bool:
        return self.joined and self._seconds.get(second.attempt) is second and not second.over

    def relieve(self, second: SecondLeg, leg: Movable) -> Receiver | Refuse:
        """`leg` takes its place beside the caller."""
        if not self.has_place(second):
            return Refuse("not_now", "they are not with the caller")
        attempt = second.attempt
        self._leaves_room(second)
        second.relieved()
        successor = SecondLeg(self, attempt, second.target, second.place, second.trunk)
        self._seconds[attempt] = successor
        successor.take(leg)
        leg.call = successor
        port = self._target_port(attempt)
        assert port is not None
        notice = self.call.notice()
        before_joining(self._room, port, notice, partial(self._let_in, successor, port, notice))
        return leg.bus or port  # the listener for voicemail, before it

    def _leaves_room(self, second: SecondLeg) -> None:
        port = second.unplug()
        if port is not None:
            self._room.leave(port)

    def _hang_up_target(self, attempt: int) -> None:
        second = self._seconds.get(attempt)
        if second is not None:
            self._stop_briefing()
            self._leaves_room(second)
            second.hang_up_leg()

    def _join(self, attempt: int) -> None:
        self._stop_briefing()
        if self.transfer.attempt.accepted_at is not None:
            self._seconds[attempt].believe()
        port = self._target_port(attempt)
        if port is None:
            self._refused(attempt, Refuse("not_now", "the target's leg is over"))
            return
        second, notice = self._seconds[attempt], self.call.notice()
        if notice is not None and not self._caller.held:  # they heard it ring, and go on to
            self._waits_with = "ringback"
            self._room.hold(self._caller, self._source("ringback"))
        before_joining(self._room, port, notice, partial(self._with_caller, second, port, notice))

    def _with_caller(self, second: SecondLeg, port: Port, notice: Notice | None, told: bool) -> None:
        if not self._closed and second.port is port:
            self._room.mute(self._caller, False)
            self._room.resume(self._caller)
            self._let_in(second, port, notice, told)

    def _let_in(self, second: SecondLeg, port: Port, notice: Notice | None, told: bool) -> None:
        if self._closed or second.port is not port:
            return
        if told and notice is not None:
            self.call.event("notified", **notice.event(second.name))
        self._room.resume(port)
        self.call.event("joined", leg=second.name, attempt=second.attempt)

    # --- the briefing ---

    def facts(self) -> CallFacts:
        return self.call.facts()

    def usage(self, usage: Usage) -> None:
        self.call.usage(usage)

    def _brief(self, attempt: int, spoken: str) -> None:
        second = self._seconds[attempt]
        assert second.media is not None
        minds = self._minds()
        if minds is None:
            self.feed(t.BriefingFailed(attempt, "the caller has not agreed to whoever would speak"))
            return
        try:
            self._briefing = Briefing(self, attempt, second.media, self._line, minds, self._clock)
        except RuntimeError as error:  # no ears are free: keys still count
            self.feed(t.BriefingFailed(attempt, str(error)))
            return
        second.plug(self._briefing.bus)
        self._briefing.say(spoken)

    def _stop_briefing(self) -> None:
        briefing, self._briefing = self._briefing, None
        if briefing is not None:
            briefing.close()

    def leg_named(self, name: str | None) -> SecondLeg | None:
        return next((second for second in self._seconds.values() if second.name == name), None)
