"""How calls end, over all kinds of legs: what SIP and Twilio say becomes one closed list (`ports.EndReason`), with who
ended it and the provider's own code. Plain tables; docs/endings.md is written from them (scripts/reference.py).

A provider code is `KIND:VALUE`, several with `;` between, the same for the same end: `sip:486;q850:17`,
`twilio:failed;sip:404;error:13224`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.compliance.destinations import country_of
from trunkline.gateway.sip import causes
from trunkline.gateway.sip.message import Reason
from trunkline.ports import ENDED_BY, EndedBy, EndReason


@dataclass(frozen=True, slots=True)
class Ended:
    reason: EndReason
    by: EndedBy
    detail: str = ""
    """A few words for people."""
    provider_code: str = ""


MEANING: dict[EndReason, str] = {
    "caller_hung_up": "the other end hung up, or cancelled before we answered",
    "agent_hung_up": "the agent said goodbye, or somebody ended the call over the API",
    "opted_out": "they asked not to be called again, and heard that they will not be",
    "transferred": "the caller was put through to somebody else",
    "no_input": "the caller said nothing, twice",
    "max_duration": "the call lasted as long as it may",
    "budget": "what the call may cost was spent",
    "media_lost": "no audio came any more, or the connection broke",
    "never_started": "answered, but no audio ever came",
    "refused": "a rule said no",
    "overloaded": "no line was free",
    "drained": "the gateway was being stopped",
    "gateway_lost": "the gateway died; found after its restart",
    "busy": "busy",
    "no_answer": "nobody answered, or the phone could not be reached",
    "rejected": "the other end, its network or the trunk said no",
    "failed": "it could not be connected: a wrong number, no route, a trunk that is down, no common codec",
    "error": "a mistake of ours, or a provider that failed with no way out",
}
WHO: dict[EndedBy, str] = {
    "caller": "the person at the other end, whoever dialled",
    "agent": "the AI agent",
    "operator": "somebody with a key to the API",
    "network": "a carrier, a trunk or the way there",
    "gateway": "Trunkline",
    "policy": "a rule or a limit that was set",
}


def ended(reason: EndReason, detail: str = "", by: EndedBy | None = None) -> Ended:
    """One of ours: no provider said so."""
    return Ended(reason, by or ENDED_BY[reason], detail)


# --- SIP ------------------------------------------------------------------------------------------------------------

_THEY_SAID_NO = {603, 607}  # a person or their device, RFC 3261 21.6.2 and RFC 8197; 403 and 608 are a network's


def from_sip(status: int, reasons: Sequence[Reason] = (), *, rang: bool = True, we_gave_up: bool = False) -> Ended:
    """A call of ours that was never answered; parameters as of `causes.unanswered`."""
    reason, detail = causes.unanswered(status, tuple(reasons), rang=rang, we_gave_up=we_gave_up)
    by: EndedBy = "gateway" if we_gave_up else "caller" if status in _THEY_SAID_NO else ENDED_BY[reason]
    return Ended(reason, by, detail, sip_code(status, reasons))


def unreachable(words: str) -> Ended:
    """A trunk that the stack could not send to; `words` are its own: nobody there said anything."""
    return Ended(
        "failed", "network", f"the trunk cannot be reached: {words}" if words else "the trunk cannot be reached"
    )


def from_sip_dialog(status: int, reasons: Sequence[Reason] = (), *, by_us: bool) -> Ended:
    """A call that had been answered. `status` is 200 for a BYE, else that of the request that failed; 0: nothing said.
    Our own hanging up has its reason already: `by_us` here is the stack's."""
    code = sip_code(0 if status == 200 else status, reasons)
    if by_us:
        return Ended(
            "failed", "gateway", f"ended by the stack (SIP {status})" if status else "ended by the stack", code
        )
    if status in (0, 200):
        return Ended("caller_hung_up", "caller", "", code)
    return Ended("media_lost", "network", f"the dialog failed (SIP {status})", code)


def sip_code(status: int, reasons: Sequence[Reason] = ()) -> str:
    """`sip:486;q850:17`; nothing where nothing was said."""
    q850 = next((r.cause for r in reasons if r.protocol == "Q.850" and r.cause is not None), None)
    return ";".join(part for part in (status and f"sip:{status}", q850 is not None and f"q850:{q850}") if part)


# --- Twilio ---------------------------------------------------------------------------------------------------------

# https://www.twilio.com/docs/voice/api/call-resource#call-status-values
TWILIO_STATUS: dict[str, EndReason] = {
    "completed": "caller_hung_up",
    "busy": "busy",
    "no-answer": "no_answer",
    "failed": "failed",
    "canceled": "caller_hung_up",
}

# https://www.twilio.com/docs/api/errors
TWILIO_ERRORS: dict[int, tuple[EndReason, str]] = {
    10003: ("failed", "Twilio refuses the account"),
    10004: ("failed", "Twilio has too many calls of the account"),
    13223: ("failed", "no such number"),
    13224: ("failed", "no such number, or Twilio cannot reach it"),
    13225: ("rejected", "Twilio does not call this number"),
    13226: ("failed", "no such country code"),
    13227: ("rejected", "Twilio's geographic permissions do not allow it"),
    20003: ("failed", "Twilio did not accept our credentials"),
    20429: ("failed", "Twilio has too many requests of the account"),
    21210: ("failed", "Twilio does not let us call with this number"),
    21211: ("failed", "no such number"),
    21212: ("failed", "Twilio does not let us call with this number"),
    21214: ("failed", "Twilio cannot reach this number"),
    21215: ("rejected", "Twilio's geographic permissions do not allow it"),
    21216: ("rejected", "Twilio does not let the account call this number"),
    21217: ("failed", "no such number"),
    32224: ("rejected", "Twilio blocked a forwarded call"),
    34002: ("busy", "busy"),
}


def from_twilio(
    status: str,
    *,
    outbound: bool = False,
    answered: bool = True,
    sip_status: int | None = None,
    error: int | None = None,
) -> Ended:
    """`status`: a final CallStatus, or DialCallStatus of a <Dial>. `sip_status`: SipResponseCode. `error`: ErrorCode.
    A status that is not final or not known is a failure, as the call is over all the same."""
    parts = (f"twilio:{status}", sip_status is not None and f"sip:{sip_status}", error and f"error:{error}")
    code = ";".join(part for part in parts if part)
    if (
        status == "completed" and answered
    ):  # Twilio does not say by whom; what we ended ourselves has its reason already
        return Ended("caller_hung_up", "caller", "", code)
    if status == "canceled":
        if outbound:  # only its owner can cancel a call
            return Ended("no_answer", "gateway", "cancelled before it was answered", code)
        return Ended("caller_hung_up", "caller", "cancelled", code)
    if error in TWILIO_ERRORS:
        reason, words = TWILIO_ERRORS[error]
        return Ended(reason, ENDED_BY[reason], words, code)
    if sip_status is not None and sip_status >= 300 and status in ("failed", "busy"):
        said = from_sip(sip_status)
        return Ended(said.reason, said.by, said.detail, code)
    reason = TWILIO_STATUS.get(status, "failed") if status != "completed" else "no_answer"
    return Ended(reason, ENDED_BY[reason], _WORDS.get(reason, ""), code)


def from_twilio_api(http_status: int, error: int | None = None) -> Ended:
    """An order that Twilio's REST API did not take. `http_status` 0: no answer came."""
    parts = (f"twilio:http_{http_status}" if http_status else "twilio:no_answer", error and f"error:{error}")
    code = ";".join(part for part in parts if part)
    if error in TWILIO_ERRORS:
        reason, words = TWILIO_ERRORS[error]
        return Ended(reason, ENDED_BY[reason], words, code)
    words = f"Twilio refused the order (HTTP {http_status})" if http_status else "Twilio did not answer"
    return Ended("failed", "network", words, code)


_WORDS: dict[EndReason, str] = {
    "busy": "busy",
    "no_answer": "nobody answered",
    "failed": "Twilio could not complete the call",
}


def leg_product(direction: str, number: str | None, trunk: str = "") -> str:
    """As price tables name a leg: `inbound-US`, `outbound`, `transfer-DE`; over a SIP trunk with its name,
    `acme/inbound-US`. `number` is the one that was called."""
    country = country_of(number) if number else None
    product = f"{direction}-{country}" if country else direction
    return f"{trunk}/{product}" if trunk else product
