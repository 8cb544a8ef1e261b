"""What of the record goes into the audit log: a sample of the turns, and every refusal. Plain: record events in, rows
out.

A turn is taken by its id alone, so whoever has the record can tell which turns must be there. One within which
something was refused is taken as well. The events are those that are written, redacted and without the words of whoever
did not agree: nothing else is known here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, TurnEnded, UsageMetered
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
    prompt_sha256: str = ""
    """Of all that the agent's file says."""
    consent: str = "not_asked"
    """What was settled with the caller about keeping the call: not_asked, granted, refused, withdrawn."""
    caller_text: str = field(default="", repr=False)
    agent_text: str = field(default="", repr=False)
    tools: tuple[str, ...] = ()
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


def is_sampled(turn_id: str, percent: float) -> bool:
    drawn = int.from_bytes(hashlib.sha256(turn_id.encode()).digest()[:8], "big")
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
    """`prompts`: SHA-256 by the agent's name. `words`: whether rows may hold what was said."""

    def __init__(self, percent: float, prompts: Mapping[str, str], *, words: bool = True) -> None:
        self._percent, self._prompts, self._words = percent, prompts, words
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
            self._calls.pop(event.call_id, None)
        return None

    def _of(self, call_id: CallId) -> _Call:
        return self._calls.get(call_id) or _Call({})

    def _agent(self, name: str) -> dict[str, str]:
        return {"agent": name, "prompt_sha256": self._prompts.get(name, "")}

    def _turn(self, event: TurnEnded, call: _Call) -> Row | None:
        turn, turn_id = event.turn, f"{event.call_id}:{event.turn.index}"
        cost, complete, refused = call.cost, call.complete, call.refused
        call.cost, call.complete, call.refused = Decimal(0), True, False
        if not refused and not is_sampled(turn_id, self._percent):
            return None
        return Row(
            turn_id,
            "turn",
            "refusal" if refused else "sample",
            event.at,
            event.call_id,
            **call.about,
            caller_text=turn.caller_text if self._words else "",
            agent_text=turn.agent_text if self._words else "",
            tools=turn.tools,
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

    @staticmethod
    def _refusal(event: CallEvent, call: _Call, **data: Any) -> Row:
        call.refusals, call.refused = call.refusals + 1, True
        turn_id = f"{event.call_id}:refused:{call.refusals}"
        return Row(turn_id, "refusal", "refusal", event.at, event.call_id, **call.about, **data)
