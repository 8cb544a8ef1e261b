"""A REFER from the far end: somebody else asks us to call a number at our cost. Refused unless the trunk allows it, and
then still bound by everything that binds a call of ours. Plain rules over values and `now`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.gateway.sip.message import number_of, parameters, parse_name_addr
from trunkline.ports import Decision, Refuse
from trunkline.types import E164

MAX_REFER_TO_CHARS = 1024
REFERS_PER_MINUTE = 6.0
REFER_BURST = 3
TRUNK_REFERS_PER_MINUTE, TRUNK_REFER_BURST = 60.0, 10


@dataclass(frozen=True, slots=True)
class Replaces:
    """RFC 3891: the dialog whose place the new call is to take, as its other end names it."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False


@dataclass(frozen=True, slots=True)
class ReferFollowed:
    """202; the call to `number` goes over a trunk of ours, never to a host the REFER named. With `replaces` nothing is
    dialled: the two calls of ours are joined."""

    number: E164 | None
    replaces: Replaces | None = None


@dataclass(frozen=True, slots=True)
class ReferRefusal:
    status: int
    reason: str
    code: str
    """For the record: not_allowed, rate, malformed, foreign_scheme, foreign_method, no_number, unknown_dialog, not_now,
    pending, or the code of the rule that said no."""
    why: str = ""
    retry_after_s: int | None = None


ReferDecision = ReferFollowed | ReferRefusal


@dataclass(slots=True)
class ReferRate:
    """A token bucket; one per dialog, and `within` that of its trunk, which a dialog over its own does not use up.
    Refused REFERs count as well."""

    per_minute: float = REFERS_PER_MINUTE
    burst: int = REFER_BURST
    within: "ReferRate | None" = None
    _tokens: float = field(default=-1.0, init=False)
    _at: float = field(default=0.0, init=False)

    def allows(self, now: float) -> bool:
        if self._tokens < 0:
            self._tokens, self._at = float(self.burst), now
        self._tokens = min(float(self.burst), self._tokens + max(0.0, now - self._at) * self.per_minute / 60)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return self.within is None or self.within.allows(now)


def trunk_rate() -> ReferRate:
    return ReferRate(TRUNK_REFERS_PER_MINUTE, TRUNK_REFER_BURST)


@dataclass(frozen=True, slots=True)
class ReferRules:
    """What the trunk of the REFER allows, and what it is judged with."""

    allowed: bool
    country: str | None
    """For numbers without +, as of the trunk."""
    decide: Callable[[E164], Decision]
    """The dial door, asked for this number."""
    knows: Callable[[Replaces], bool]
    """Whether that dialog is a call of ours on the same trunk."""


def judge_refer(refer_to: str, rules: ReferRules, rate: ReferRate, now: float) -> ReferDecision:
    """`refer_to`: the Refer-To header's value, as it came."""
    if not rate.allows(now):
        return ReferRefusal(503, "Service Unavailable", "rate", "too many REFERs", retry_after_s=60)
    if not rules.allowed:
        return ReferRefusal(603, "Decline", "not_allowed", "the trunk does not allow REFER")
    if len(refer_to) > MAX_REFER_TO_CHARS:
        return ReferRefusal(400, "Bad Request", "malformed", "Refer-To is too long")
    # RFC 3261 20.10: without <> there can be no ?headers, and a Replaces must not get lost
    address = parse_name_addr(refer_to) if "<" in refer_to or "?" not in refer_to else None
    if address is None:
        return _unreadable(refer_to)
    uri = address.uri
    if uri.scheme == "sips":
        return ReferRefusal(416, "Unsupported URI Scheme", "foreign_scheme", "sips")
    if (uri.params.get("method") or address.params.get("method") or "INVITE").upper() != "INVITE":
        return ReferRefusal(403, "Forbidden", "foreign_method", "only an INVITE is sent for a REFER")
    if "replaces" in uri.headers:
        return _replacing(uri.headers["replaces"], rules)
    number = number_of(uri, rules.country)
    if number is None:
        return ReferRefusal(403, "Forbidden", "no_number", "only phone numbers are called")
    decision = rules.decide(number)
    if isinstance(decision, Refuse):
        return ReferRefusal(403, "Forbidden", decision.code, decision.why)
    return ReferFollowed(number)


def _unreadable(refer_to: str) -> ReferRefusal:
    inner = refer_to.partition("<")[2].partition(">")[0] or refer_to
    scheme, colon, _ = inner.strip().partition(":")
    if colon and scheme.isascii() and scheme.isalnum() and scheme.lower() not in ("sip", "sips", "tel"):
        return ReferRefusal(416, "Unsupported URI Scheme", "foreign_scheme", scheme[:16].lower())
    return ReferRefusal(400, "Bad Request", "malformed", "Refer-To holds no address")


def _replacing(header: str, rules: ReferRules) -> ReferDecision:
    replaces = parse_replaces(header)
    if replaces is None:
        return ReferRefusal(400, "Bad Request", "malformed", "Replaces is not as in RFC 3891")
    if not rules.knows(replaces):
        # Not 481: within a call it says that the call itself is gone (RFC 3261 12.2.1.2), and PBXs hang up then.
        return ReferRefusal(603, "Decline", "unknown_dialog", "Replaces names no call of ours")
    return ReferFollowed(None, replaces)


def replaced(refer_to: str) -> Replaces | None:
    """The dialog whose place is asked for, where the header's value names one."""
    address = parse_name_addr(refer_to) if "<" in refer_to and len(refer_to) <= MAX_REFER_TO_CHARS else None
    return None if address is None else parse_replaces(address.uri.headers.get("replaces", ""))


def parse_replaces(header: str) -> Replaces | None:
    """`call-id;to-tag=...;from-tag=...[;early-only]`, unescaped. None: not that."""
    call_id, *rest = header.split(";")
    fields = parameters(rest)
    to_tag, from_tag = fields.get("to-tag", ""), fields.get("from-tag", "")
    if not (call_id.strip() and to_tag and from_tag):
        return None
    return Replaces(call_id.strip(), to_tag, from_tag, "early-only" in fields)
