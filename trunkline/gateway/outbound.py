"""Which trunk a call of ours is tried on next, and when: plain over events and `now`. No call is dialled twice.

    begin ──► Place ──► (failed, and nobody can have been rung) ──► Place on the next trunk
                │     └► (busy, no answer, or no trunk left, and the policy says so) ──► Wait ──► due ──► Place
                │     └► anything else ──► Finish
                └────► answered

One attempt at a time. The performer of a Place records it (`begun`) *before* its INVITE leaves, and how it ended
(`concluded`) after; the record is durable when it is appended. So after a crash an attempt that was recorded and has no
end may have rung somebody: it is `gateway_lost` and never repeated (`Attempts.after_restart`).

When may the next trunk be tried? Only where nobody can have been rung by this one:

- The INVITE never left: the trunk is known to be down, its name has no address, the connection was refused, its
  certificate is not believed.
- The trunk itself said that it cannot: 500, 502, 503, 504 (RFC 3261 21.5.4: on 503 a client should try another server),
  or that it does not know us, 401 and 407; and there was no ringing (any 18x) before, and no Q.850 cause beside it that
  comes from the called side (busy, no answer, a timer that ran out over there).

Not on silence. A transaction that times out (RFC 3261 17.1.1.2, Timer B; 8.1.3.1 calls it 408) proves that no answer
came to us, not that no INVITE came to them: with a wrong address in our Via or a firewall in between the phone rings
all the same, and a second trunk would ring it again. It cannot be taken back either: before a provisional answer no
CANCEL may be sent (9.1). A dead trunk is found by its OPTIONS ping (health.py) within seconds and passed over, before
it costs a call. For the same reason not when a connection broke after the INVITE was written to it.

Nor on 408 from a trunk (it waited for somebody), 480, 486, 6xx or any other 4xx: those are answers about the number,
and the next trunk has the same number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from trunkline.gateway.endings import Ended, ended, from_sip, from_twilio_api, unreachable
from trunkline.gateway.sip.message import Reason
from trunkline.gateway.sip.trunks import Trunk
from trunkline.ports import EndReason, Refuse
from trunkline.settings import Outbound
from trunkline.types import E164

BEGUN, CONCLUDED = "attempt", "attempt_ended"
"""Kinds of CallEvent."""

# --- routes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """A way out that takes calls, as it is now."""

    trunk: str
    caller_id: E164 | None = None
    """Who calls on this trunk."""
    cost_per_minute: Decimal | None = None
    """None: not said, so after those that are."""
    usable: bool = True
    """Not known to be down."""


def routes(
    trunks: Iterable[Trunk],
    usable: Callable[[str], bool],
    number: E164,
    from_number: E164 | None = None,
    only: str | None = None,
) -> list[Route]:
    """The trunks that take calls, as configured. `usable`: whether the trunk of this name is not known to be down.
    `from_number` and `only`: as ordered."""
    return [
        Route(
            trunk.name,
            from_number or trunk.caller_id,
            cost(trunk.cost_per_minute, number),
            usable(trunk.name),
        )
        for trunk in trunks
        if trunk.host is not None and only in (None, trunk.name)
    ]


def cost(costs: Mapping[str, Decimal], number: E164) -> Decimal | None:
    """The longest beginning decides; `*` is for all others."""
    beginnings = [beginning for beginning in costs if beginning != "*" and number.startswith(beginning)]
    return costs[max(beginnings, key=len)] if beginnings else costs.get("*")


def cheapest_first(routes: Iterable[Route]) -> list[Route]:
    """Those that can be used; of equal cost, or without one, as configured."""
    return sorted(
        (route for route in routes if route.usable),
        key=lambda route: (route.cost_per_minute is None, route.cost_per_minute or 0),
    )


# --- how an attempt failed ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    ended: Ended
    may_have_rung: bool
    """So no other trunk is tried."""
    lasting: bool = False
    """It would fail again: a number that is none, a trunk that does not know us."""
    retry_after_s: float = 0.0
    """The trunk's own wish (Retry-After)."""


@runtime_checkable
class Tried(Protocol):
    """A leg that knows more of why nobody answered than its `finished` says. Set before that."""

    failure: Failure | None


_TRUNK_CANNOT = {500, 502, 503, 504}
_TRUNK_DOES_NOT_KNOW_US = {401, 407}
_NO_CONNECTION = ("Connection refused", "No route to host", "Network is unreachable", "certificate", "SSL")
"""In the stack's words when it has no connection. Others (a reset, a timeout) may be of one that carried the INVITE."""
_NETWORK_CAUSES = {2, 3, 34, 38, 41, 42, 44, 47}
"""Q.850: no route, no circuit, congestion, a network out of order. Any other may come from the called side."""
_LASTING = {401, 403, 404, 405, 407, 410, 415, 416, 420, 428, 433, 436, 437, 438, 484, 485, 488, 604, 606}


def sip_failure(
    status: int,
    reasons: Sequence[Reason] = (),
    *,
    from_peer: bool,
    rang: bool,
    we_gave_up: bool = False,
    dialled: bool = True,
    words: str = "",
    retry_after_s: float = 0.0,
) -> Failure:
    """`from_peer`: the final answer came over the network; else it is the stack's own, for want of one, in its own
    `words`. `rang`: a provisional answer above 100 had come. `dialled`: the stack took the INVITE to be sent."""
    own = not from_peer and not we_gave_up and (status >= 500 or not dialled)
    end = unreachable(words) if own else from_sip(status, reasons, rang=rang, we_gave_up=we_gave_up)
    exchange = [r.cause for r in reasons if r.protocol == "Q.850" and r.cause is not None]
    if from_peer:
        safe = status in _TRUNK_CANNOT | _TRUNK_DOES_NOT_KNOW_US and set(exchange) <= _NETWORK_CAUSES
    else:
        safe = not dialled or status == 502 or (status == 503 and any(sign in words for sign in _NO_CONNECTION))
    return Failure(
        end, rang or we_gave_up or not safe, lasting=from_peer and status in _LASTING, retry_after_s=retry_after_s
    )


def twilio_failure(http_status: int, error: int | None = None) -> Failure:
    """An order that Twilio's REST API did not take. What it refuses (4xx) it has not dialled; after its own failures
    (5xx) and silence (0) nobody knows."""
    refused = 400 <= http_status < 500 and http_status != 408
    return Failure(from_twilio_api(http_status, error), not refused, lasting=refused and http_status != 429)


def unplaced(refused: Refuse) -> Failure:
    """The dialler itself said no: nothing left this machine."""
    return Failure(ended("failed", refused.code, by="gateway"), may_have_rung=False)


# --- the policy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Again:
    times: int
    after_s: float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    again: Mapping[EndReason, Again] = field(default_factory=dict)
    """By how the last attempt ended. What is not here is not repeated."""
    max_attempts: int = 6
    """INVITEs, over all trunks and repeats."""
    give_up_after_s: float = 3600.0
    """After `begin`; no attempt begins later."""


NEVER_AGAIN = RetryPolicy()


def retry_policy(written: Outbound) -> RetryPolicy:
    rules: dict[EndReason, Again] = {
        "busy": Again(written.retry_busy, written.retry_busy_after_s),
        "no_answer": Again(written.retry_no_answer, written.retry_no_answer_after_s),
        "failed": Again(written.retry_failed, written.retry_failed_after_s),
    }
    again = {reason: rule for reason, rule in rules.items() if rule.times}
    return RetryPolicy(again, written.max_attempts, written.give_up_after_s)


# --- steps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Ask the dial door, record `begun(place)`, then dial; in this order."""

    attempt: int
    """From 1, within the call."""
    route: Route


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is out; call `due` at `until`, with the routes as they are then."""

    until: float
    after: Ended


@dataclass(frozen=True, slots=True)
class Finish:
    ended: Ended


Step = Place | Wait | Finish
State = Literal["new", "trying", "waiting", "answered", "over"]


def begun(place: Place) -> dict[str, Any]:
    """Data of the CallEvent BEGUN."""
    price = place.route.cost_per_minute
    return {
        "attempt": place.attempt,
        "trunk": place.route.trunk,
        "cost_per_minute": None if price is None else str(price),
    }


def concluded(attempt: int, failure: Failure) -> dict[str, Any]:
    """Data of the CallEvent CONCLUDED. An attempt that was answered needs none: the call's `answered` says so."""
    end = failure.ended
    return {
        "attempt": attempt,
        "reason": end.reason,
        "by": end.by,
        "detail": end.detail,
        "provider_code": end.provider_code,
        "may_have_rung": failure.may_have_rung,
    }


class Attempts:
    """Of one order. Every event names its attempt; what comes late, of an earlier one, is None: nothing to do."""

    def __init__(self, policy: RetryPolicy = NEVER_AGAIN) -> None:
        self.state: State = "new"
        self.number = 0
        """Of the latest attempt."""
        self._policy = policy
        self._routes: list[Route] = []
        self._repeats: dict[EndReason, int] = {}
        self._rang = False
        self._give_up_at = 0.0
        self._last: Ended | None = None

    # --- events ---

    def begin(self, routes: Iterable[Route], now: float) -> Place | Finish:
        self._give_up_at = now + self._policy.give_up_after_s
        self._routes = cheapest_first(routes)
        return self._next()

    def rang(self, attempt: int) -> None:
        """A provisional answer above 100, or Twilio's `ringing`: from here on somebody may have been rung."""
        if self._is_out(attempt):
            self._rang = True

    def answered(self, attempt: int) -> None:
        if self._is_out(attempt):
            self.state = "answered"

    def failed(self, attempt: int, failure: Failure, now: float) -> Step | None:
        """`concluded` is to be recorded before what this says is done."""
        if not self._is_out(attempt):
            return None
        self._last = failure.ended
        if not failure.may_have_rung and not self._rang and self._routes and self._more():
            return self._next()
        return self._again(failure, now)

    def refused(self, attempt: int, refused: Refuse) -> Finish | None:
        """The dial door said no to this attempt, which was therefore not begun: it is as final as for a first one."""
        if not self._is_out(attempt):
            return None
        return self._finish(ended("refused", refused.code))

    def due(self, routes: Iterable[Route], now: float) -> Place | Finish | None:
        """The wait is over."""
        if self.state != "waiting":
            return None
        assert self._last is not None
        if now > self._give_up_at:
            return self._finish(self._last)
        self._routes = cheapest_first(routes)
        return self._next()

    def stop(self, why: Ended) -> Finish | None:
        """Nobody wants it any more. What is out is for the performer to take back."""
        return None if self.state in ("answered", "over") else self._finish(why)

    # --- after a crash ---

    @staticmethod
    def after_restart(events: Iterable[tuple[str, Mapping[str, Any]]]) -> Ended | None:
        """From the call's events (kind, data): gateway_lost if an attempt has begun and not ended. None: none is open,
        and nothing that was recorded forbids another."""
        begun_, over = set(), set()
        for kind, data in events:
            if kind == BEGUN:
                begun_.add(data.get("attempt"))
            elif kind == CONCLUDED:
                over.add(data.get("attempt"))
        return ended("gateway_lost", "it may have rung when the gateway died") if begun_ - over else None

    # --- what follows ---

    def _is_out(self, attempt: int) -> bool:
        return self.state == "trying" and attempt == self.number

    def _more(self) -> bool:
        return self.number < self._policy.max_attempts

    def _next(self) -> Place | Finish:
        if not self._routes:
            return self._finish(self._last or ended("failed", "trunk_down"))
        self.number += 1
        self.state, self._rang = "trying", False
        return Place(self.number, self._routes.pop(0))

    def _again(self, failure: Failure, now: float) -> Wait | Finish:
        reason = failure.ended.reason
        rule, done = self._policy.again.get(reason), self._repeats.get(reason, 0)
        if rule is None or done >= rule.times or failure.lasting or not self._more():
            return self._finish(failure.ended)
        until = now + max(rule.after_s, failure.retry_after_s)
        if until > self._give_up_at:
            return self._finish(failure.ended)
        self._repeats[reason] = done + 1
        self.state = "waiting"
        return Wait(until, failure.ended)

    def _finish(self, why: Ended) -> Finish:
        self.state = "over"
        return Finish(why)
