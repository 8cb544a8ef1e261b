"""A session: the conversation with a device, which outlives the leg it came by, the worker that held it and the region.

Its fence is `joins`: every join raises it, a token opens exactly one of them, and whoever holds an older one may not
write any more. Plain values and their JSON.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

from trunkline.compliance.money.account import NOTHING, SoFar
from trunkline.errors import StoreError
from trunkline.ports import Door, EndReason, Message, ToolCall
from trunkline.types import CallId, SessionId, TenantId

MAX_MESSAGES = 200  # an hour of talk; what came before is forgotten, but for a summary
MAX_TEXT_CHARS = 4000

_ROLES = ("caller", "agent", "tool", "summary")


def new_session_id() -> SessionId:
    """Nobody guesses it."""
    return SessionId(f"ses_{secrets.token_hex(16)}")


@dataclass(frozen=True, slots=True)
class Said:
    """An entry of the conversation, and when it came about."""

    message: Message
    at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    id: SessionId
    tenant: TenantId
    device_id: str
    device_account: str
    created: datetime
    agent: str = ""
    """Who attends it, by name; empty: whoever has every call first."""
    needs_arming: bool = False
    region: str = ""
    worker: str = ""
    """Who owns it: both of the last join."""
    joins: int = 0
    call_id: CallId | None = None
    """Its call now, or the last one."""
    ended_as: EndReason | None = None
    """Why that call is over; None: it lives, or nobody could say any more."""
    said: tuple[Said, ...] = ()
    shut: tuple[Door, ...] = ()
    """What its caller has refused, or taken back: of each call that follows."""
    so_far: SoFar = NOTHING
    """What that call costs, within a cent: one that goes on from it has no other budget."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        return tuple(said.message for said in self.said)

    @property
    def cut_off(self) -> bool:
        return self.ended_as in (None, "media_lost", "drained", "gateway_lost", "error")


def timed(before: Sequence[Said], conversation: Sequence[Message], now: datetime) -> tuple[Said, ...]:
    """The conversation with its times: what was there before keeps them."""
    shared = 0
    for said, message in zip(before, conversation, strict=False):
        if said.message is not message and said.message != message:
            break
        shared += 1
    return (*before[:shared], *(Said(message, now) for message in conversation[shared:]))


def kept(conversation: Sequence[Message]) -> tuple[Message, ...]:
    """So much of it as a session keeps. What is left out are the oldest; a tool's result goes with who asked it."""
    found = list(conversation)
    if len(found) > MAX_MESSAGES:
        summary = [found[0]] if found[0].role == "summary" else []
        found = found[len(summary) - MAX_MESSAGES :]
        while found and found[0].role == "tool":
            del found[0]
        found = summary + found
    return tuple(m if len(m.text) <= MAX_TEXT_CHARS else replace(m, text=m.text[:MAX_TEXT_CHARS]) for m in found)


# --- as text --------------------------------------------------------------------------------------------------------


def to_fields(session: Session) -> dict[str, str]:
    """For a store that has texts by name. What never changes is one of them."""
    facts = {
        "id": session.id,
        "tenant": session.tenant,
        "device_id": session.device_id,
        "device_account": session.device_account,
        "needs_arming": session.needs_arming,
        "created": session.created.isoformat(),
    }
    return {
        "facts": _json(facts),
        "agent": session.agent,
        "region": session.region,
        "worker": session.worker,
        "joins": str(session.joins),
        "call_id": session.call_id or "",
        "ended_as": session.ended_as or "",
        "said": _json([_said(said) for said in session.said]),
        "shut": " ".join(session.shut),
        "so_far": f"{session.so_far.usd:f} {session.so_far.seconds!r}",
    }


def from_fields(fields: Mapping[str, str]) -> Session:
    """Raises StoreError for what we did not write."""
    try:
        facts = json.loads(fields["facts"])
        ended_as = fields.get("ended_as", "")
        return Session(
            id=SessionId(str(facts["id"])),
            tenant=TenantId(str(facts["tenant"])),
            device_id=str(facts["device_id"]),
            device_account=str(facts["device_account"]),
            created=_instant(facts["created"]),
            needs_arming=bool(facts["needs_arming"]),
            agent=fields["agent"],
            region=fields["region"],
            worker=fields["worker"],
            joins=int(fields["joins"]),
            call_id=CallId(fields["call_id"]) if fields.get("call_id") else None,
            ended_as=ended_as if ended_as in get_args(EndReason) else None,  # type: ignore[arg-type]
            said=tuple(_heard(each) for each in json.loads(fields["said"])),
            so_far=_so_far(fields.get("so_far", "")),
            shut=tuple(door for door in get_args(Door) if door in fields.get("shut", "").split()),
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, InvalidOperation) as error:
        raise StoreError(f"a session in the store is not one of ours ({type(error).__name__})") from None


def _so_far(text: str) -> SoFar:
    usd, _, seconds = (text or "0 0").partition(" ")
    return SoFar(Decimal(usd), float(seconds))


def _json(value: Any) -> str:
    """ASCII: a lone surrogate of a model's must not keep the rest from being written."""
    return json.dumps(value, separators=(",", ":"), default=str)


def _said(said: Said) -> dict[str, Any]:
    message = said.message
    optional = {
        "keyed": message.keyed,
        "cut": message.cut,
        "tool_call_id": message.tool_call_id,
        "tool_calls": [[call.id, call.name, dict(call.arguments)] for call in message.tool_calls],
    }
    given = {name: value for name, value in optional.items() if value}
    return {"at": said.at.isoformat(), "role": message.role, "text": message.text, **given}


def _heard(given: Mapping[str, Any]) -> Said:
    if given["role"] not in _ROLES:
        raise ValueError("a role")
    message = Message(
        given["role"],
        str(given["text"]),
        keyed=bool(given.get("keyed", False)),
        tool_calls=tuple(
            ToolCall(str(name), str(tool), dict(arguments)) for name, tool, arguments in given.get("tool_calls", ())
        ),
        tool_call_id=str(given.get("tool_call_id", "")),
        cut=bool(given.get("cut", False)),
    )
    return Said(message, _instant(given["at"]))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
