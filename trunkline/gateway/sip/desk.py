"""The SIP desk: what the stack reports becomes calls of the switchboard, and what calls ask for becomes commands.

    Incoming ─► `arrivals` admits it ─► 180 ─► (the agent is ready) ─► 200 ─► Confirmed ─► media ─► attach
    dial     ─► Progress, early media ─────────────────────────────────────────► Confirmed ─► media ─► attach

The conversation begins with the far end's first RTP packet or FIRST_MEDIA_S after the ACK, whichever is first: a
greeting that is spoken into a path not yet open is lost at its beginning. Disconnected ends the dialog and, if nothing
else has, the call. Commands and events cross: a command for a dialog that is gone does nothing, and what comes for a
dialog we are leaving is answered by leaving again.

One timer looks at all of it: calls that hear nothing any more, trunks whose ping is due, whether calls are taken.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from trunkline.clock import Clock
from trunkline.compliance.money.account import Need
from trunkline.errors import PeerError
from trunkline.gateway import outbound
from trunkline.gateway.answeredby import (
    NO_DETECTION,
    AnsweredBy,
    AnswerListener,
    MachineTerms,
    greeting_over,
    is_machine,
)
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.endings import leg_product
from trunkline.gateway.leg import FurtherLegCall, Leg, LegCall, Plan
from trunkline.gateway.linecall import GOODBYE_S
from trunkline.gateway.outbound import Route
from trunkline.gateway.sip import profiles, quality, trunks
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.arrivals import RETRY_AFTER_S, Arrivals
from trunkline.gateway.sip.desktrunks import called
from trunkline.gateway.sip.dialog import Dialog, ending, failure, shown
from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.sip.farhold import RESUME_AGAIN_S
from trunkline.gateway.sip.health import State as Health
from trunkline.gateway.sip.leg import SipLeg, sip_lead
from trunkline.gateway.sip.refers import Refers
from trunkline.gateway.sip.signing import Signer
from trunkline.gateway.sip.stack import Handle, Stack
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.gateway.sip.trunkwatch import TrunkWatch
from trunkline.gateway.sip.vouching import Vouching
from trunkline.gateway.switchboard import Switchboard
from trunkline.media.answering import SHORT_GREETING_MS, AnsweringDetector
from trunkline.media.detect import DtmfDetector
from trunkline.media.playout import LeadPolicy
from trunkline.ports import CallerVerdict, Refuse
from trunkline.types import E164, CallId

log = logging.getLogger(__name__)

CHECK_S = 0.25
FIRST_MEDIA_S = 1.0
READY_POLL_S = 0.1
READY_WAIT_S = 5.0  # callers hear ringing meanwhile; longer, and another gateway should have them
LIMIT_SLACK_S = GOODBYE_S + 5.0  # beyond max_call_seconds the line ends by itself
DIGIT_S, PAUSE_S = 0.25, {"w": 0.5, "W": 1.0}
MAX_PROGRESS = 16  # provisional answers in a record

_REFUSED_AS = {"drained": "draining", "overloaded": "overloaded", "error": "error", "refused": "policy"}
"""What a caller who still rings is told, by why we leave; any other reason declines."""


class SipDesk:
    """The Dialler of the switchboard and the LegDesk of its legs. All methods run on the loop and return at once."""

    def __init__(
        self,
        stack: Stack,
        switchboard: Switchboard,
        configured: Sequence[Trunk],
        clock: Clock,
        *,
        media_timeout_s: float,
        lead: LeadPolicy | None = None,
        machine: MachineTerms = NO_DETECTION,
        vouching: Vouching | None = None,
        signer: Signer | None = None,
    ) -> None:
        """`vouching`: for trunks whose policy is to look; without it nobody does."""
        self._stack, self._board, self._clock = stack, switchboard, clock
        self._trunks = {trunk.name: trunk for trunk in configured}
        self._media_timeout_s, self._lead = media_timeout_s, lead or sip_lead()
        self._machine = machine
        self._vouching, self._signer = vouching, signer
        self._expecting: set[asyncio.Task[None]] = set()
        self._asked: dict[Handle, tuple[s.Incoming, Trunk, Screened]] = {}
        """Calls whose verdict is waited for."""
        self._dialogs: dict[Handle, Dialog] = {}
        self._call_ids: set[str] = set()
        self._inbound: Counter[str] = Counter()
        self._watch = TrunkWatch(stack, configured, clock)
        self._arrivals = Arrivals(stack, switchboard)
        self._refers = Refers(stack, clock, self._dialogs.get)
        self._accepting = True
        self._checking: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen. Raises ConfigError."""
        await self._stack.start(self.on_event, self._board.line.heartbeat.hear)
        self._watch.start()
        if self._vouching is not None:
            self._vouching.start()
        if self._signer is not None:
            self._signer.start()
        self._board.diallers.insert(0, self)
        self._check()

    async def close(self) -> None:
        """After the switchboard has left its calls: the stack says BYE and stops. Idempotent."""
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        if self in self._board.diallers:
            self._board.diallers.remove(self)
        if self._vouching is not None:
            await self._vouching.close()
        for task in tuple(self._expecting):
            task.cancel()
        if self._signer is not None:
            self._signer.close()
        await self._stack.close()
        for dialog in tuple(self._dialogs.values()):
            self._forget(dialog)

    async def bring(self, wanted: Sequence[Trunk]) -> Mapping[str, str]:
        """These trunks in place of those that there were, while calls go on. By name, why one is not taken."""
        refused = await self._stack.bring(wanted)
        taken = [trunk for trunk in wanted if trunk.name not in refused]
        self._trunks = {trunk.name: trunk for trunk in taken}
        self._watch.bring(taken)
        return refused

    @property
    def trunk_states(self) -> Mapping[str, Health]:
        return self._watch.states

    def trunks(self) -> list[TrunkView]:
        on, states = Counter(dialog.trunk.name for dialog in self._dialogs.values()), self._watch.states
        return [
            TrunkView(name, states[name], trunk.host is not None, on[name], registered=self._watch.registered(name))
            for name, trunk in self._trunks.items()
        ]

    @property
    def dialogs(self) -> int:
        return len(self._dialogs)

    def farewells(self) -> dict[str, tuple[CallId, Farewell]]:
        """By name, of dialogs that are answered and not being left: whose, and what a BYE takes."""
        found: dict[str, tuple[CallId, Farewell]] = {}
        for handle, dialog in self._dialogs.items():
            if dialog.confirmed and dialog.closing is None and (each := self._stack.farewell(handle)) is not None:
                found[str(handle)] = dialog.call.id, each
        return found

    # --- events -----------------------------------------------------------------------------------------------------

    def on_event(self, event: s.Event) -> None:
        """Never raises: what fails ends its call."""
        try:
            if isinstance(event, s.Incoming):
                self._incoming(event)
            elif isinstance(event, s.Pinged):
                self._watch.pinged(event)
            elif isinstance(event, s.Registered):
                self._watch.register_changed(event)
            elif (dialog := self._dialogs.get(event.handle)) is not None:
                self._happened(dialog, event)
            elif isinstance(event, s.Disconnected):
                self._gone(event.handle)
        except Exception as error:
            self._crashed(event, error)

    def _happened(self, dialog: Dialog, event: s.Event) -> None:
        match event:
            case s.Dialled():
                dialog.dialled = True
            case s.Progress(_, code, reason):
                self._progress(dialog, code, reason)
            case s.Confirmed():
                self._confirmed(dialog)
            case s.MediaUp():
                self._media_up(dialog, event)
            case s.FirstMedia():
                self._first_media(dialog)
            case s.Keyed(_, digit):
                if dialog.leg.detector is None:  # else every digit would come twice
                    dialog.call.key(digit)
            case s.MediaDown(_, report):
                dialog.call.event("sip_media", **quality.as_record(report))
            case s.Referred(_, code, reason, notify, final):
                dialog.leg.referred(code, shown(reason), notify=notify, final=final)
            case s.Renegotiated(_, code):
                self._renegotiated(dialog, code)
            case s.ReferAsked():
                self._refers.asked(dialog, event)
            case s.ReferTold():
                self._refers.told(event)
            case s.LimitReached():
                dialog.call.hang_up("max_duration")
            case s.Disconnected():
                self._disconnected(dialog, event)

    def _crashed(self, event: s.Event, error: Exception) -> None:
        handle = getattr(event, "handle", None)
        dialog = self._dialogs.get(handle) if handle is not None else None
        if dialog is None:
            log.error("SIP %s: %s", type(event).__name__, error, exc_info=error)
            if isinstance(event, s.Incoming):
                self._arrivals.refuse(event.handle, "error")
            return
        dialog.call.crashed(error)
        if isinstance(event, s.Disconnected):
            self._forget(dialog)

    # --- calls that come --------------------------------------------------------------------------------------------

    def _incoming(self, event: s.Incoming) -> None:
        trunk = self._trunks.get(event.trunk)
        if trunk is None:
            raise PeerError(f"no trunk is named {event.trunk}")
        if event.call_id in self._call_ids:  # RFC 3261 8.2.2.2: forked on its way, it came twice
            self._stack.refuse(event.handle, 482, "Loop Detected")
            return
        screened = self._arrivals.screen(event, trunk, self._inbound[trunk.name])
        if screened is None:
            return
        if self._vouching is None:
            self._welcome(event, trunk, screened, None)
            return
        self._keep_waiting(event, trunk, screened)
        self._vouching.ask(event.handle, trunk, screened, partial(self._vouched, event))

    def _vouched(self, event: s.Incoming, verdict: CallerVerdict | None) -> None:
        """Never raises."""
        asked = self._no_longer_asked(event.handle)
        try:
            if asked is not None:
                self._welcome(*asked, verdict)
        except Exception as error:
            self._crashed(event, error)

    def _keep_waiting(self, event: s.Incoming, trunk: Trunk, screened: Screened) -> None:
        self._asked[event.handle] = event, trunk, screened
        self._call_ids.add(event.call_id)
        self._inbound[trunk.name] += 1

    def _no_longer_asked(self, handle: Handle) -> tuple[s.Incoming, Trunk, Screened] | None:
        asked = self._asked.pop(handle, None)
        if asked is not None:
            event, trunk, _ = asked
            self._call_ids.discard(event.call_id)
            self._inbound[trunk.name] -= 1
        return asked

    def _gone(self, handle: Handle) -> None:
        """The end of a dialog that carries no call."""
        if self._vouching is not None:
            self._vouching.forget(handle)
        if (asked := self._no_longer_asked(handle)) is not None:
            self._arrivals.gave_up(*asked)
        self._arrivals.over(handle)

    def _welcome(self, event: s.Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None) -> None:
        if not self._board.waits:
            self._let_in(event, trunk, screened, verdict)
            return
        self._keep_waiting(event, trunk, screened)
        task = asyncio.create_task(self._expected(event, trunk, screened, verdict), name="sip slot")
        self._expecting.add(task)
        task.add_done_callback(self._expecting.discard)

    async def _expected(
        self, event: s.Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None
    ) -> None:
        """Never raises."""
        try:
            await self._arrivals.expect(event, trunk, screened, verdict)
            asked = self._no_longer_asked(event.handle)
            if asked is not None:  # a slot of who gave up is given back by itself
                self._let_in(*asked, verdict)
        except Exception as error:
            self._crashed(event, error)

    def _let_in(self, event: s.Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None) -> None:
        admitted = self._arrivals.admit(event, trunk, screened, verdict)
        if admitted is None:
            return
        call = admitted.call
        dialog = self._open(event.handle, trunk, event.call_id, call, inbound=True)
        dialog.peer = event.source
        call.expect(dialog.leg)
        who = {"asserted": screened.caller.asserted, "withheld": screened.caller.withheld}
        to_user = {} if screened.called.number else {"to_user": screened.called.user}
        call.event("arrived", trunk=trunk.name, source=event.source, transport=event.transport, **who, **to_user)
        log.info("call %s: a call from trunk %s", call.id, trunk.name)
        if dialog.closing is None:
            self._stack.ring(event.handle)
            self._answer(dialog, self._clock.now() + READY_WAIT_S)

    def _answer(self, dialog: Dialog, until: float) -> None:
        """As soon as the agent can speak."""
        dialog.timer = None
        if self._board.is_ready(dialog.call.id):
            dialog.answered = True
            self._stack.answer(dialog.leg.handle, self._board.may_last_s(dialog.call.id, LIMIT_SLACK_S))
        elif self._clock.now() < until:
            self._later(dialog, READY_POLL_S, partial(self._answer, dialog, until))
        else:
            dialog.call.finished("overloaded", "the agent was not ready in time")

    # --- calls that go (Dialler) ------------------------------------------------------------------------------------

    def plan(self, order: DialOrder) -> Plan | Refuse:
        trunk = self._way_out(order)
        if isinstance(trunk, Refuse):
            return trunk
        try:
            trunks.headers_out(trunk, order.attributes)
        except ValueError as error:
            return Refuse("bad_attribute", str(error))
        from_number = order.from_number or trunk.caller_id
        return Plan(order, "sip", secrets.token_hex(16), trunk.name, from_number)

    def routes(self, order: DialOrder) -> list[Route]:
        """The trunks that take calls of this tenant, or the named one, as they are now."""
        ours = [trunk for trunk in self._trunks.values() if trunk.tenant in (None, order.tenant)]
        wanted = order.trunk
        if wanted is not None and not any(trunk.name == wanted for trunk in ours):
            wanted = called(order.tenant, wanted)
        return outbound.routes(ours, self._watch.usable, order.to_number, order.from_number, wanted)

    def _way_out(self, order: DialOrder) -> Trunk | Refuse:
        """The cheapest that is not down."""
        found = self.routes(order)
        if not found:
            return Refuse("no_trunk", f"no trunk {order.trunk or ''} takes outbound calls".replace("  ", " "))
        up = outbound.cheapest_first(found)
        return self._trunks[up[0].trunk] if up else Refuse("trunk_down", f"the trunk {found[0].trunk} does not answer")

    def dial(self, plan: Plan, call: LegCall) -> Leg:
        trunk = self._trunks[plan.trunk]
        to_uri = trunks.request_uri(trunk, plan.order.to_number)
        from_uri = trunks.from_uri(trunk, plan.from_number, "localhost")
        product = leg_product("transfer", plan.order.to_number, plan.trunk)
        further: Need | None = ("sip", "leg", product) if isinstance(call, FurtherLegCall) else None
        limit_s = self._board.may_last_s(call.id, LIMIT_SLACK_S, further) + plan.order.ring_timeout_s
        headers = trunks.headers_out(trunk, plan.order.attributes)
        headers += trunks.identity_headers(
            trunk, plan.from_number, "localhost", plan.order.forwarded_by, mapped=headers
        )
        if self._signer is not None and not any(name.lower() == "identity" for name, _ in headers):
            forwarded = plan.order.forwarded_by is not None
            headers += self._signer.headers(trunk, plan.from_number, plan.order.to_number, forwarded=forwarded)
        handle = self._stack.dial(trunk, to_uri, from_uri, limit_s, headers, plan.provider_call_id)
        log.info("call %s: dialled over trunk %s", call.id, trunk.name)
        dialog = self._open(handle, trunk, plan.provider_call_id, call, inbound=False)
        dialog.detects = self._machine.detection != "off" and plan.order.detects_machine
        return dialog.leg

    def _progress(self, dialog: Dialog, code: int, reason: str) -> None:
        dialog.rang = True
        seen = dialog.progress
        if (not seen or seen[-1] != code) and len(seen) < MAX_PROGRESS:
            seen.append(code)
            dialog.call.event("progress", code=code, reason=shown(reason))

    # --- the conversation -------------------------------------------------------------------------------------------

    def _confirmed(self, dialog: Dialog) -> None:
        dialog.confirmed = True
        if dialog.closing is not None:  # its answer crossed our CANCEL
            self._stack.hang_up(dialog.leg.handle)
            return
        dialog.call.answered()
        if dialog.heard:
            self._attach(dialog)
        else:
            self._later(dialog, FIRST_MEDIA_S, partial(self._attach, dialog))

    def _media_up(self, dialog: Dialog, event: s.MediaUp) -> None:
        leg, trunk = dialog.leg, dialog.trunk
        leg.line = event.line  # to be closed with the dialog, in any case
        if dialog.closing is not None:
            return
        event.line.sink = leg
        was_on_hold, dialog.on_hold = dialog.on_hold, event.direction != "sendrecv"
        if was_on_hold:
            dialog.resumed_at = self._clock.now()
        leg.dtmf = _dtmf(trunk, event.telephone_events)
        dialog.call.held(event.direction in ("recvonly", "inactive"))
        dialog.call.event(
            "sip_audio",
            codec=event.codec,
            srtp=event.srtp,
            telephone_events=event.telephone_events,
            direction=event.direction,
        )
        if trunk.srtp == "required" and not event.srtp:
            dialog.call.finished("refused", "the far end did not encrypt its media")

    def _first_media(self, dialog: Dialog) -> None:
        dialog.heard = True
        if dialog.leg.line is None:
            return
        if dialog.confirmed:
            self._attach(dialog)
        elif not dialog.inbound:
            bus = dialog.call.listen(dialog.leg)
            if not isinstance(bus, Refuse):
                dialog.leg.bus = bus
                dialog.call.event("early_media", codec=dialog.leg.line.codec)

    def _attach(self, dialog: Dialog) -> None:
        dialog.stop_timer()
        if dialog.attached:
            return
        if dialog.leg.line is None:
            dialog.call.finished("failed", "no audio was negotiated")
            return
        dialog.attached = True
        bus = dialog.call.attach(dialog.leg)
        if isinstance(bus, Refuse):
            return
        dialog.leg.bus = bus
        if dialog.detects:
            told = partial(self._answered_by, dialog)
            dialog.leg.bus = AnswerListener(dialog.leg, bus, AnsweringDetector(SHORT_GREETING_MS), told)

    def _answered_by(self, dialog: Dialog, who: AnsweredBy, after_ms: int) -> None:
        if dialog.closing is not None:
            return
        early = who == "machine_start" and self._machine.detection == "detect_message_end"  # not told of yet
        if not early:
            dialog.call.event("answered_by", who=who, after_ms=after_ms)
        if is_machine(who) and self._machine.hang_up and not early:
            dialog.call.finished("no_answer", "a machine answered", "policy")
        elif is_machine(who):
            dialog.call.answered_by_machine(greeting_over(who))

    # --- LegDesk ----------------------------------------------------------------------------------------------------

    def leave(self, leg: SipLeg, why: str) -> None:
        dialog = self._dialogs.get(leg.handle)
        if dialog is None or dialog.closing is not None:
            return
        dialog.closing = why
        dialog.stop_timer()
        if dialog.inbound and not dialog.answered:
            self._arrivals.refuse(leg.handle, _REFUSED_AS.get(why, "declined"))
        else:
            self._stack.hang_up(leg.handle)

    def send_digits(self, leg: SipLeg, digits: str) -> None:
        """Runs of digits between pauses, each when those before it are out."""
        loop, after_s, run = asyncio.get_running_loop(), 0.0, ""
        for key in digits + "w":
            if key not in PAUSE_S:
                run += key.upper()
                continue
            if run and leg.dtmf is not None:
                loop.call_later(after_s, self._stack.send_digits, leg.handle, run, leg.dtmf)
            after_s += len(run) * DIGIT_S + PAUSE_S[key]
            run = ""

    def hold(self, leg: SipLeg, held: bool) -> None:
        """By re-INVITE, where the trunk takes one. The music is heard either way, so a refusal costs nothing."""
        dialog = self._dialogs.get(leg.handle)
        if dialog is None or not dialog.confirmed:
            return
        if dialog.trunk.quirks.reinvite == "yes" and dialog.trunk.tells_hold:
            self._renegotiate(dialog, dialog.far_hold.want(held))

    def _renegotiate(self, dialog: Dialog, held: bool | None) -> None:
        if held is None or dialog.closing is not None:
            return
        if held:
            self._stack.hold(dialog.leg.handle)
        else:
            self._stack.resume(dialog.leg.handle)

    def _renegotiated(self, dialog: Dialog, code: int) -> None:
        held = dialog.far_hold.answered(code)
        dialog.call.event("held", held=held, code=code)
        if dialog.far_hold.refused:
            self._later(dialog, RESUME_AGAIN_S, partial(self._resume_again, dialog))
        else:
            self._renegotiate(dialog, dialog.far_hold.next())

    def _resume_again(self, dialog: Dialog) -> None:
        self._renegotiate(dialog, dialog.far_hold.next())

    def refer(self, leg: SipLeg, to: str | SipLeg) -> str | Refuse:
        dialog = self._dialogs.get(leg.handle)
        if dialog is None or dialog.closing is not None or not dialog.confirmed:
            return Refuse("not_now", "the call is not answered, or is ending")
        trunk, other = dialog.trunk, None if isinstance(to, str) else self._dialogs.get(to.handle)
        quirk = trunk.quirks.refer if isinstance(to, str) else trunk.quirks.refer_replaces
        if quirk == "no":
            return Refuse("not_supported", f"the trunk {trunk.name} refuses REFER")
        if isinstance(to, str):
            self._stack.refer(leg.handle, _refer_to(dialog, to))
        elif other is None or other.closing is not None or not other.confirmed:
            return Refuse("not_now", "the other call is not answered, or is ending")
        else:
            self._stack.refer_to_call(leg.handle, to.handle)
        return trunk.name

    # --- the end of a dialog ----------------------------------------------------------------------------------------

    def _disconnected(self, dialog: Dialog, event: s.Disconnected) -> None:
        steps = self._stack.ladder(dialog.call_id)
        if steps:
            dialog.call.event("sip_ladder", steps=[asdict(step) for step in steps])
        if not dialog.confirmed and not dialog.inbound:
            dialog.leg.failure = failure(dialog, event)
        end = ending(dialog, event)
        dialog.closing = dialog.closing or end.reason  # nothing is to be sent
        dialog.call.finished(end.reason, end.detail, end.by, end.provider_code)
        self._forget(dialog)

    def _open(self, handle: Handle, trunk: Trunk, call_id: str, call: LegCall, *, inbound: bool) -> Dialog:
        leg = SipLeg(handle, self, call, self._lead, puts_through=trunk.quirks.refer == "yes")
        if trunk.dtmf_in == "inband":
            leg.detector = DtmfDetector()
        dialog = Dialog(trunk, inbound, call_id, leg)
        self._dialogs[handle] = dialog
        self._call_ids.add(call_id)
        self._inbound[trunk.name] += inbound
        return dialog

    def _forget(self, dialog: Dialog) -> None:
        dialog.stop_timer()
        self._refers.forget(dialog, dialog.leg.handle)
        if self._dialogs.pop(dialog.leg.handle, None) is not None:
            self._call_ids.discard(dialog.call_id)
            self._inbound[dialog.trunk.name] -= dialog.inbound
        dialog.leg.over()

    def _later(self, dialog: Dialog, after_s: float, then: partial[None]) -> None:
        dialog.stop_timer()
        dialog.timer = asyncio.get_running_loop().call_later(after_s, self._guarded, dialog, then)

    def _guarded(self, dialog: Dialog, then: partial[None]) -> None:
        try:
            then()
        except Exception as error:
            dialog.call.crashed(error)

    # --- the timer --------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._checking = asyncio.get_running_loop().call_later(CHECK_S, self._check)
        for dialog in tuple(self._dialogs.values()):
            self._guarded(dialog, partial(self._check_media, dialog))
        try:
            self._check_admission()
            self._watch.check()
        except Exception:
            log.exception("the SIP desk's timer")

    def _check_media(self, dialog: Dialog) -> None:
        line = dialog.leg.line
        if line is None or dialog.on_hold or dialog.closing is not None:
            return
        quiet_s = line.counters().quiet_s
        if dialog.resumed_at is not None:
            quiet_s = min(quiet_s, self._clock.now() - dialog.resumed_at)
        if quiet_s > self._media_timeout_s:
            dialog.call.lost(dialog.leg, "no media")

    def _check_admission(self) -> None:
        accept = self._board.no_line() is None
        if accept != self._accepting:
            self._accepting = accept
            self._stack.accept_calls(accept, RETRY_AFTER_S)


def _refer_to(dialog: Dialog, address: str) -> str:
    """A number is one of the carrier that is to call it."""
    if not address.startswith("+"):
        return address
    trunk = dialog.trunk
    return profiles.number_uri(trunk.quirks, E164(address), trunk.host or dialog.peer, trunk.country, trunk.transport)


def _dtmf(trunk: Trunk, telephone_events: bool) -> s.DtmfMethod | None:
    if trunk.dtmf == "info":
        return "info"
    return "rfc4733" if trunk.dtmf == "rfc4733" and telephone_events else None
