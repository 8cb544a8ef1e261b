"""INVITEs that come: which become calls of the switchboard, and what the others are told.

    Incoming ─► the headers can be read ─► the trunk's rules ─► (who vouches?) ─► the switchboard's ─► a call

Who is turned away is told at once, and where a rule of the trunk's did it the record says so."""

import logging
from dataclasses import dataclass, replace

from trunkline.compliance.destinations import MAX_EXTENSION_DIGITS, is_emergency_in
from trunkline.errors import PeerError
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.leg import LegCall
from trunkline.gateway.routed import Elsewhere
from trunkline.gateway.sip import causes, message, trunks
from trunkline.gateway.sip.dialog import shown
from trunkline.gateway.sip.stack import Handle, Incoming, Stack
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.gateway.switchboard import Switchboard
from trunkline.ports import CallerVerdict, Refuse
from trunkline.types import E164

log = logging.getLogger(__name__)

RETRY_AFTER_S = 30
MAX_CALL_ID_CHARS = 200  # of a peer's, in a record


@dataclass(frozen=True, slots=True)
class Admitted:
    call: LegCall
    screened: Screened


class Arrivals:
    def __init__(self, stack: Stack, switchboard: Switchboard) -> None:
        self._stack, self._board = stack, switchboard
        self._turned_away: dict[Handle, str] = {}  # with their Call-IDs, until their dialogs are over

    def screen(self, event: Incoming, trunk: Trunk, calls: int) -> Screened | None:
        """`calls`: those that have come over the trunk and are not over. None: it was turned away."""
        head = _head(event.message)
        if isinstance(head, Refuse):
            self._refuse_call(event, trunk, head, None)
            return None
        screened = trunks.screen(trunk, head, calls)
        if isinstance(screened, Refuse):
            self._refuse_call(event, trunk, screened, head)
            return None
        return screened

    def admit(
        self, event: Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None
    ) -> Admitted | None:
        """None: it was turned away."""
        arrival = self._arrival(event, trunk, screened, verdict)
        if trunk.stir == "require" and (verdict is None or verdict.verdict != "passed"):
            refused = unproven(verdict)
            log.warning("trunk %s: a call is refused: %s (%s)", trunk.name, refused.code, refused.why)
            self._board.turn_away(arrival, refused)
            self._turn_away(event, refused.code)
            return None
        admitted = self._board.admit(arrival)
        if isinstance(admitted, Refuse):
            if isinstance(admitted, Elsewhere) and admitted.number is not None:
                self._send_on(event, trunk, admitted.number)
            else:
                self._turn_away(event, admitted.code)
            return None
        call = self._board.call(admitted)
        assert call is not None
        return Admitted(call, screened)

    async def expect(self, event: Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None) -> None:
        """Before `admit`, where calls need slots that other processes share, or have a route."""
        await self._board.expect(self._arrival(event, trunk, screened, verdict))

    def gave_up(self, event: Incoming, trunk: Trunk, screened: Screened) -> None:
        """Before we knew who vouches for them."""
        arrival = self._arrival(event, trunk, screened, None)
        self._board.turn_away(arrival, Refuse("cancelled", "the caller did not wait"))

    def refuse(self, handle: Handle, code: str) -> None:
        answer = causes.refusal(code, RETRY_AFTER_S)
        self._stack.refuse(handle, answer.status, answer.reason, answer.headers)

    def over(self, handle: Handle) -> None:
        """The dialog of a call that may have been turned away."""
        call_id = self._turned_away.pop(handle, None)
        if call_id is not None:
            self._stack.ladder(call_id)  # nobody asks for it

    def _refuse_call(self, event: Incoming, trunk: Trunk, refused: Refuse, head: message.Head | None) -> None:
        log.warning("trunk %s: a call is refused: %s (%s)", trunk.name, refused.code, refused.why)
        arrival = Arrival(self._name(event), "sip", "inbound", None, None)
        if head is not None:
            called, caller = trunks.called_number(trunk, head), trunks.caller(trunk, head)
            arrival = replace(arrival, from_number=_shown_number(caller), to_number=called.number if called else None)
        self._board.turn_away(arrival, refused)
        self._turn_away(event, refused.code)

    def _turn_away(self, event: Incoming, code: str) -> None:
        self._turned_away[event.handle] = event.call_id
        self.refuse(event.handle, code)

    def _send_on(self, event: Incoming, trunk: Trunk, number: E164) -> None:
        """302 (RFC 3261 8.1.3.4): the carrier calls that number, and not us, where it follows."""
        self._turned_away[event.handle] = event.call_id
        contact = f"tel:{number}" if trunk.host is None else trunks.request_uri(trunk, number)
        self._stack.refuse(event.handle, 302, "Moved Temporarily", (("Contact", f"<{contact}>"),))

    def _arrival(self, event: Incoming, trunk: Trunk, screened: Screened, verdict: CallerVerdict | None) -> Arrival:
        return Arrival(
            provider_call_id=self._name(event),
            leg="sip",
            direction="inbound",
            from_number=_shown_number(screened.caller),
            to_number=screened.called.number,
            attributes=screened.attributes,
            identity=screened.identities,
            forwarded_by=_forwarded_by(screened),
            stir=verdict,
            trunk=trunk.name,
            tenant=trunk.tenant,
        )

    def _name(self, event: Incoming) -> str:
        name = shown(event.call_id, MAX_CALL_ID_CHARS)
        # Some devices count up CSeq instead of making a new Call-ID.
        return f"{name};{event.handle}" if self._board.knows(name) else name


def _forwarded_by(screened: Screened) -> str | None:
    """Short digits too: whose call for help was sent on, perhaps over several lines."""
    asked = [(each.number, each.user) for each in screened.forwardings] + [(None, screened.called.user)]
    urgent = next((user for number, user in asked if number is None and is_emergency_in(user, ())), None)
    return urgent or (screened.forwardings[0].number or _short(screened) if screened.forwardings else None)


def _short(screened: Screened) -> str | None:
    user = screened.forwardings[0].user
    return user if user.isdecimal() and user.isascii() and len(user) <= MAX_EXTENSION_DIGITS else None


def unproven(verdict: CallerVerdict | None) -> Refuse:
    """What a call is refused with that needs a verdict and has no good one."""
    if verdict is None:
        return Refuse("stir_428", "nobody looked at who vouches for the caller")
    why = f"{verdict.reason}: {verdict.why}" if verdict.why else verdict.reason or verdict.verdict
    return Refuse(f"stir_{verdict.sip_code or 438}", why)


def _head(text: str) -> message.Head | Refuse:
    try:
        return message.parse_head(text)
    except PeerError as error:
        return Refuse("malformed", str(error))


def _shown_number(caller: message.Caller) -> E164 | None:
    return None if caller.withheld else caller.number
