"""What we answer when we refuse, and what the far end's final answer to a call of ours means: two tables."""

from dataclasses import dataclass

from trunkline.compliance.stir.reasons import PHRASES
from trunkline.gateway.sip.message import Reason
from trunkline.ports import EndReason

# --- ours -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


_REFUSALS: dict[str, tuple[int, str]] = {
    "unknown_number": (404, "Not Found"),
    "emergency": (404, "Not Found"),  # not 403, after which no other route is tried, nor 503, which is about all calls
    "declined": (603, "Decline"),
    "no_agent": (480, "Temporarily Unavailable"),
    "busy": (486, "Busy Here"),
    "number_full": (486, "Busy Here"),
    "overloaded": (503, "Service Unavailable"),
    "tenant_full": (503, "Service Unavailable"),
    "draining": (503, "Service Unavailable"),
    "ended": (481, "Call/Transaction Does Not Exist"),
    "no_codec": (488, "Not Acceptable Here"),
    "insecure_media": (488, "Not Acceptable Here"),
    "malformed": (400, "Bad Request"),
    "error": (500, "Server Internal Error"),
    **{f"stir_{status}": (status, phrase) for status, phrase in PHRASES.items()},  # RFC 8224 6.2.2
}
_POLICY = (403, "Forbidden")  # every other code is a rule's that said no; the caller is not told which
_COME_BACK = {503, 500}


def refusal(code: str, retry_after_s: int = 30) -> FinalAnswer:
    """How a Refuse with this code is said in SIP. Carriers try their next route on 503, none on 6xx."""
    status, reason = _REFUSALS.get(code, _POLICY)
    headers = (("Retry-After", str(max(1, retry_after_s))),) if status in _COME_BACK else ()
    return FinalAnswer(status, reason, headers)


# --- theirs ---------------------------------------------------------------------------------------------------------

Ending = tuple[EndReason, str]

_NO_NUMBER: Ending = ("failed", "no such number")
_REJECTED: Ending = ("rejected", "rejected")
_BUSY: Ending = ("busy", "busy")
_SILENT: Ending = ("no_answer", "nobody answered")
_AWAY: Ending = ("no_answer", "not reachable")
_FULL: Ending = ("failed", "the network is full")
_NO_ROUTE: Ending = ("failed", "the trunk has no route to this number")
_NO_MEDIA: Ending = ("failed", "no common codec or encryption")
_NO_ENTRY: Ending = ("failed", "the trunk did not accept our credentials")
_NO_IDENTITY: Ending = ("failed", "the trunk did not accept the caller's identity")
_DOWN: Ending = ("failed", "the trunk did not answer")
_BROKEN: Ending = ("failed", "the trunk failed")

BY_STATUS: dict[int, Ending] = {
    401: _NO_ENTRY,
    403: _REJECTED,
    404: _NO_NUMBER,
    407: _NO_ENTRY,
    408: _SILENT,
    410: _NO_NUMBER,
    415: _NO_MEDIA,
    428: _NO_IDENTITY,  # RFC 8224 6.2.2
    433: _REJECTED,  # anonymity disallowed, RFC 5079
    436: _NO_IDENTITY,
    437: _NO_IDENTITY,
    438: _NO_IDENTITY,
    480: _AWAY,
    484: _NO_NUMBER,
    485: _NO_NUMBER,
    486: _BUSY,
    487: _SILENT,
    488: _NO_MEDIA,
    600: _BUSY,
    603: _REJECTED,
    604: _NO_NUMBER,
    606: _NO_MEDIA,
    607: ("rejected", "unwanted"),  # RFC 8197
    608: ("rejected", "blocked by a network on the way"),  # RFC 8688
}

BY_Q850: dict[int, Ending] = {
    1: _NO_NUMBER,
    2: _NO_ROUTE,
    3: _NO_ROUTE,
    17: _BUSY,
    18: _SILENT,
    19: _SILENT,
    20: _AWAY,
    21: _REJECTED,
    22: _NO_NUMBER,
    26: _NO_NUMBER,
    27: ("failed", "the destination is out of order"),
    28: _NO_NUMBER,
    29: ("rejected", "a facility was rejected"),
    34: _FULL,
    38: ("failed", "the network is out of order"),
    41: ("failed", "the network failed for a moment"),
    42: _FULL,
    44: _FULL,
    47: _FULL,
    50: ("rejected", "a facility was not subscribed to"),
    52: ("rejected", "outgoing calls are barred"),
    54: ("rejected", "incoming calls are barred"),
    55: ("rejected", "incoming calls are barred"),
    57: ("rejected", "not authorised"),
    58: _NO_MEDIA,
    65: _NO_MEDIA,
    79: _NO_MEDIA,
    88: _NO_MEDIA,
}
_EXACT = {401, 407, 607, 608}  # says more than the cause a telephone exchange put beside it


def unanswered(
    status: int, reasons: tuple[Reason, ...] = (), *, rang: bool = True, we_gave_up: bool = False
) -> tuple[EndReason, str]:
    """Why a call of ours was never answered: the end reason and a few words for the record.

    `status` is the final one, 0 where none came; `reasons` those of its message, of which a Q.850 cause says more than
    the status (RFC 6432). `rang`: something provisional had come, without which a 408 is the stack's own and means that
    nobody is there. `we_gave_up`: after the ring timeout.
    """
    exchange = next((r.cause for r in reasons if r.protocol == "Q.850" and r.cause in BY_Q850), None)
    if exchange is not None and status not in _EXACT and status >= 300 and not we_gave_up:
        end, words = BY_Q850[exchange]
        return end, f"{words} (SIP {status}, Q.850 {exchange})"
    if status == 0 or (status == 408 and not rang):
        return _SILENT if we_gave_up and rang else _DOWN
    end, words = BY_STATUS.get(status) or _by_class(status)
    return end, f"{words} (SIP {status})"


def _by_class(status: int) -> Ending:
    if 300 <= status < 400:
        return "failed", "redirected elsewhere"
    if 500 <= status < 600:
        return _BROKEN
    return "failed", "refused" if status >= 400 else "ended before it was answered"
