"""From what happened to what is told of it. Plain.

What the record has redacted stays so. Numbers are told in full, but for agents whose policy redacts `phone` or
`number`: theirs are told as the log tells them. Words (turns, messages) are told to who asks for them only, and only
those that the record has kept.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trunkline.hooks import CallSummary, EventType, Happening, Told
from trunkline.logs import mask_number
from trunkline.ports import CallEnded, CallEvent, CallStarted, Revocation
from trunkline.privacy.calls import LEFT_MESSAGE, Policies
from trunkline.privacy.redaction import Policy, redact

_DAILY = frozenset(("number", "agent", "tenant"))  # budgets of a day, which end many calls and are told of once


class Bodies:
    """`hooks.EventOf`."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def __call__(self, happened: Happening, words: bool) -> Told | None:
        said = happened.said
        if isinstance(said, Revocation):
            return _revoked(said, self._policies.every)
        call = happened.call
        if call is None:
            return None
        policy = self._policies.of(call.agent)
        if isinstance(said, CallStarted):
            return Told("call.started", said.at, _call(call, policy))
        if isinstance(said, CallEnded):
            return Told("call.ended", said.at, _ended(call, policy, words))
        if not isinstance(said, CallEvent):
            return None
        found = _of_kind(said, words)
        if found is None:
            return None
        event, more = found
        once = _once(said, call) if event == "budget.reached" else ""
        return Told(event, said.at, _call(call, policy) | more, once)


def number(value: str | None, policy: Policy) -> str | None:
    """As it may be told."""
    if value is None or policy.kinds.isdisjoint(("phone", "number")):
        return value
    return mask_number(value)


def _call(call: CallSummary, policy: Policy) -> dict[str, Any]:
    return {
        "call_id": call.id,
        "direction": call.direction,
        "leg": call.leg,
        "agent": call.agent,
        "from_number": number(call.from_number, policy),
        "to_number": number(call.to_number, policy),
        "provider_call_id": call.provider_call_id,
        "started_at": _iso(call.started_at),
    }


def _ended(call: CallSummary, policy: Policy, words: bool) -> dict[str, Any]:
    began = call.answered_at or call.ended_at
    told: dict[str, Any] = _call(call, policy) | {
        "answered_at": _iso(call.answered_at),
        "ended_at": _iso(call.ended_at),
        "duration_s": None if call.ended_at is None else round((call.ended_at - call.started_at).total_seconds(), 3),
        "talk_s": None if call.ended_at is None or began is None else round((call.ended_at - began).total_seconds(), 3),
        "end_reason": call.end_reason,
        "end_detail": redact(call.end_detail, policy) if call.end_detail else "",
        "ended_by": call.ended_by,
        "cost_usd": None if call.usd is None else str(call.usd),
    }
    if words:
        told["turns"] = [
            {
                "at": _iso(turn["at"]),
                "caller_text": turn["caller_text"],
                "agent_text": turn["agent_text"],
            }
            for turn in call.turns
        ]
    return told


def _of_kind(said: CallEvent, words: bool) -> tuple[EventType, dict[str, Any]] | None:
    data = said.data
    match said.kind:
        case "answered":
            return "call.answered", {"answered_at": _iso(said.at)}
        case "transfer_attempt":
            if data.get("result") != "transferred":
                return None
            return "call.transferred", _some(data, "target", "how", "trunk", "confirmed", "time_to_human_ms")
        case "refused" | "turned_away":
            return "call.refused", {"door": data.get("door", "answer"), **_some(data, "target", "code")}
        case "budget_spent":
            return "budget.reached", _some(data, "budget")
        case kind if kind == LEFT_MESSAGE:
            return "call.message", {"left_at": _iso(said.at)} | (_some(data, "text") if words else {})
    return None


def _once(said: CallEvent, call: CallSummary) -> str:
    budget = str(said.data.get("budget"))
    if budget not in _DAILY:
        return ""
    ours = call.to_number if call.direction == "inbound" else call.from_number
    whose = {"number": ours, "agent": call.agent, "tenant": ""}[budget]
    return f"budget/{budget}/{whose}/{said.at.date().isoformat()}"


def _revoked(said: Revocation, policy: Policy) -> Told:
    """Not in the words it was said with."""
    told = {
        "subject": number(said.subject, policy) if said.subject.startswith("+") else said.subject,
        "at": _iso(said.at),
        "via": said.via,
        "technologies": list(said.technologies),
        "purposes": list(said.purposes),
        "do_not_call": said.do_not_call,
        "call_id": said.call_id,
    }
    return Told("consent.revoked", said.at, told)


def _some(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: data.get(name) for name in names}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
