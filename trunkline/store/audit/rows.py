"""What of the record goes into the audit log: a sample of the turns, and every refusal. Plain: record events in, rows
out.

A call is taken whole or not at all, by its id alone (in a session by the session's, so that one that goes on over
another leg stays whole): whoever has the record can tell which calls must be there. Of the others, turns within which
something was refused are taken. The events are those that are written, redacted and without the words of whoever did
not agree: nothing else is known here.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallStarted,
    RecordEvent,
    ToolUse,
    TurnEnded,
    TurnEvidence,
    UsageMetered,
)
from trunkline.types import CallId

CALLS = 10_000
"""Whose state is kept. A turn of a call beyond is taken without what came before it."""
REFUSALS = frozenset({"refused", "turned_away", "hand_off_refused", "model_refused"})
UNWILLING = frozenset({"refused", "withdrawn"})


@dataclass(frozen=True, slots=True)
class Row:
    """Latencies in ms, as TurnRecord has them. Empty or None: not of this kind, or not known."""

    turn_id: str
    """CALL:INDEX; of a refusal CALL:refused:COUNT."""
    kind: Literal["turn", "refusal"]
    why: Literal["sample", "refusal"]
    """Why it is here."""
    at: datetime
    call_id: str
    tenant: str = ""
    session_id: str = ""
    direction: str = ""
    leg: str = ""
    agent: str = ""
    agent_sha256: str = ""
    """Of all that the agent's file says."""
    prompts_sha256: tuple[str, ...] = ()
    """Of each request to a model in the turn, in order (agents/prompts)."""
    consent: str = "not_asked"
    """What was settled with the caller about keeping the call: not_asked, granted, refused, withdrawn."""
    caller_text: str = field(default="", repr=False)
    agent_text: str = field(default="", repr=False)
    tools: tuple[str, ...] = ()
    tool_calls: tuple[str, ...] = field(default=(), repr=False)
    """JSON: {"name", "arguments", "outcome"}."""
    understood: bool | None = None
    interrupted: bool | None = None
    endpointing_ms: float | None = None
    stt_ms: float | None = None
    llm_ms: float | None = None
    tts_ms: float | None = None
    total_ms: float | None = None
    barge_in_ms: float | None = None
    cost_usd: Decimal | None = None
    """Of what was metered since the turn before."""
    cost_complete: bool | None = None
    """False: something had no price."""
    door: str = ""
    target: str = ""
    code: str = ""
    reason: str = ""


def is_sampled(id: str, percent: float) -> bool:
    """`id`: of the session, or of the call where it has none."""
    drawn = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")
    return drawn < percent / 100 * 2**64


@dataclass(slots=True)
class _Call:
    about: dict[str, Any]
    cost: Decimal = Decimal(0)
    complete: bool = True
    refusals: int = 0
    refused: bool = False
    """Since the turn before."""


class Sampling:
    """`agents`: SHA-256 of their files, by name. `words`: whether rows may hold what was said."""

    def __init__(self, percent: float, agents: Mapping[str, str], *, words: bool = True) -> None:
        self._percent, self._agents, self._words = percent, agents, words
        self._calls: dict[CallId, _Call] = {}

    def take(self, event: RecordEvent) -> Row | None:
        if isinstance(event, CallStarted):
            if len(self._calls) >= CALLS:
                del self._calls[next(iter(self._calls))]
            self._calls[event.call_id] = _Call(
                {
                    "tenant": event.tenant,
                    "direction": event.direction,
                    "leg": event.leg,
                    **self._agent(event.agent),
                }
            )
        elif isinstance(event, UsageMetered):
            call = self._of(event.usage.call_id)
            for cost in event.costs:
                call.cost += Decimal(cost.usd or 0)
                call.complete &= cost.usd is not None
        elif isinstance(event, TurnEnded):
            return self._turn(event, self._of(event.call_id))
        elif isinstance(event, CallEvent):
            return self._event(event, self._of(event.call_id))
        elif isinstance(event, CallEnded):
            return self._ended(event, self._calls.pop(event.call_id) if event.call_id in self._calls else _Call({}))
        return None

    def _of(self, call_id: CallId) -> _Call:
        return self._calls.get(call_id) or _Call({})

    def _agent(self, name: str) -> dict[str, str]:
        return {"agent": name, "agent_sha256": self._agents.get(name, "")}

    def _turn(self, event: TurnEnded, call: _Call) -> Row | None:
        turn, turn_id = event.turn, f"{event.call_id}:{event.turn.index}"
        cost, complete, refused = call.cost, call.complete, call.refused
        call.cost, call.complete, call.refused = Decimal(0), True, False
        sampled = is_sampled(call.about.get("session_id") or event.call_id, self._percent)
        if not refused and not sampled:
            return None
        evidence = turn.evidence or TurnEvidence()
        return Row(
            turn_id,
            "turn",
            "sample" if sampled else "refusal",
            event.at,
            event.call_id,
            **call.about,
            caller_text=turn.caller_text if self._words else "",
            agent_text=turn.agent_text if self._words else "",
            prompts_sha256=evidence.prompts,
            tools=turn.tools,
            tool_calls=tuple(_told(use, self._words) for use in evidence.tools),
            understood=turn.understood,
            interrupted=turn.interrupted,
            endpointing_ms=turn.endpointing_ms,
            stt_ms=turn.stt_ms,
            llm_ms=turn.llm_ms,
            tts_ms=turn.tts_ms,
            total_ms=turn.total_ms,
            barge_in_ms=turn.barge_in_ms,
            cost_usd=cost,
            cost_complete=complete,
        )

    def _event(self, event: CallEvent, call: _Call) -> Row | None:
        data = event.data
        if event.kind == "attributes":
            call.about["session_id"] = str(data.get("session_id", ""))
        elif event.kind == "agent_changed":
            call.about |= self._agent(str(data.get("agent", "")))
        elif event.kind == "consent":
            call.about["consent"] = str(data.get("state", ""))
            if call.about["consent"] in UNWILLING:
                doors = ",".join(data.get("doors", ()))
                return self._refusal(event, call, door=doors, code=f"consent_{call.about['consent']}")
        elif event.kind in REFUSALS:
            return self._refusal(
                event,
                call,
                door=str(data.get("door") or event.kind),
                target=str(data.get("target") or data.get("agent") or ""),
                code=str(data.get("code") or ""),
                reason=str(data.get("why") or ""),
            )
        return None

    def _ended(self, event: CallEnded, call: _Call) -> Row | None:
        """Of one that found no line nothing else tells that it was refused."""
        if event.reason not in ("refused", "overloaded") or call.refusals:
            return None
        door = {"inbound": "answer", "outbound": "dial"}.get(call.about.get("direction", ""), "")
        return self._refusal(event, call, door=door, code=event.detail or event.reason)

    @staticmethod
    def _refusal(event: CallEvent | CallEnded, call: _Call, **data: Any) -> Row:
        call.refusals, call.refused = call.refusals + 1, True
        turn_id = f"{event.call_id}:refused:{call.refusals}"
        return Row(turn_id, "refusal", "refusal", event.at, event.call_id, **call.about, **data)


def _told(use: ToolUse, words: bool) -> str:
    said = {"name": use.name, "arguments": use.arguments if words else {}, "outcome": use.outcome}
    return json.dumps(said, ensure_ascii=False, default=str)
