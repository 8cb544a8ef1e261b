"""From entries of the spool to rows of the database. Plain: what is known of the calls comes in, rows come out.

Order does not matter within a call, beyond this: the first CallEnded ends it. Events of a call that nobody has
started yet become unplaced rows; the CallStarted that comes later brings them along. A second CallStarted of a live
call changes one thing, its run: another process carries the call on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from trunkline.ports import ENDED_BY, NAMED, CallEnded, CallEvent, CallStarted, TurnEnded, UsageMetered
from trunkline.store import codec
from trunkline.store.codec import Entry, call_of
from trunkline.store.hours import Hours

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call that the database already has."""

    tenant: str
    run: str
    ended: bool
    answered: bool = False


@dataclass(slots=True)
class Rows:
    tenants: dict[str, datetime] = field(default_factory=dict)
    calls: list[Row] = field(default_factory=list)
    adopted: list[Row] = field(default_factory=list)
    answered: list[Row] = field(default_factory=list)
    named: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    call_events: list[Row] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    usage: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    unplaced: list[Row] = field(default_factory=list)
    ending: set[str] = field(default_factory=set)
    """Calls that end here."""
    late: set[str] = field(default_factory=set)
    """Calls that had ended, and of which something more is told."""
    heard: list[Row] = field(default_factory=list)
    """How a leg sounded."""
    hours: Hours = field(default_factory=Hours)


def fold(
    entries: Sequence[Entry], known: Mapping[str, KnownCall], taken: frozenset[tuple[str, str]], worker: str
) -> Rows:
    """`taken`: (tenant, provider_call_id) pairs that calls of the database have."""
    rows = Rows()
    starts: dict[str, Row] = {}
    provider_ids = set(taken)
    for entry in entries:
        if isinstance(entry.event, CallStarted):
            _start(rows, starts, provider_ids, known, entry, entry.event, worker)
    for entry in entries:
        if isinstance(entry.event, CallStarted):
            continue
        call_id = call_of(entry.event)
        if call_id in starts:
            _place(rows, entry, starts[call_id]["tenant_id"], starts[call_id], None)
        elif call_id in known:
            _place(rows, entry, known[call_id].tenant, None, known[call_id])
        else:
            rows.unplaced.append(unplaced(entry, "unknown_call"))
    return rows


def unplaced(entry: Entry, reason: Literal["unknown_call", "refused"]) -> Row:
    return {
        "run": entry.run,
        "seq": entry.seq,
        "call_id": str(call_of(entry.event)),
        "reason": reason,
        "body": codec.body(entry.event, entry.seq).decode(),
    }


def _start(
    rows: Rows,
    starts: dict[str, Row],
    provider_ids: set[tuple[str, str]],
    known: Mapping[str, KnownCall],
    entry: Entry,
    event: CallStarted,
    worker: str,
) -> None:
    if event.call_id in starts:
        return
    if (call := known.get(event.call_id)) is not None:
        if not call.ended and call.run != entry.run:
            rows.adopted.append({"call": event.call_id, "to_run": entry.run, "to_worker": worker})
        return
    provider_call_id = event.provider_call_id
    if provider_call_id is not None and (event.tenant, provider_call_id) in provider_ids:
        data = {"provider_call_id": provider_call_id}
        rows.call_events.append(_row(entry, event.tenant) | {"kind": "provider_call_id_taken", "data": data})
        provider_call_id = None
    elif provider_call_id is not None:
        provider_ids.add((event.tenant, provider_call_id))
    rows.tenants.setdefault(event.tenant, event.at)
    starts[event.call_id] = {
        "id": event.call_id,
        "tenant_id": event.tenant,
        "direction": event.direction,
        "leg": event.leg,
        "agent": event.agent,
        "provider_call_id": provider_call_id,
        "from_number": event.from_number,
        "to_number": event.to_number,
        "started_at": event.at,
        "answered_at": None,
        "ended_at": None,
        "end_reason": None,
        "end_detail": None,
        "ended_by": None,
        "provider_code": None,
        "worker": worker,
        "run": entry.run,
        "mos": None,
    }
    rows.hours.started(event.tenant, event.at, event.direction)
    rows.calls.append(starts[event.call_id])


def _row(entry: Entry, tenant: str) -> Row:
    at = entry.event.at
    return {"run": entry.run, "seq": entry.seq, "tenant_id": tenant, "call_id": call_of(entry.event), "at": at}


def _place(rows: Rows, entry: Entry, tenant: str, new: Row | None, known: KnownCall | None) -> None:
    """`new`: the call's own row when it is of this batch; `known`: what the database has of it else."""
    event = entry.event
    if isinstance(event, CallEnded):
        by = event.by or ENDED_BY.get(event.reason)
        said = event.provider_code or None
        if new is None:
            ended = {"call": event.call_id, "at": event.at, "reason": event.reason, "detail": event.detail}
            rows.ended.append(ended | {"by": by, "said": said})
            if known is not None and not known.ended:
                rows.ending.add(event.call_id)
        elif new["ended_at"] is None:
            new.update(ended_at=event.at, end_reason=event.reason, end_detail=event.detail)
            new.update(ended_by=by, provider_code=said)
            rows.ending.add(event.call_id)
        return
    if known is not None and known.ended:
        rows.late.add(call_of(event))
    row = _row(entry, tenant)
    if isinstance(event, CallEvent):
        rows.call_events.append(row | {"kind": event.kind, "data": dict(event.data)})
        if event.kind == NAMED:
            rows.named.append({"call": event.call_id, "name": str(event.data.get("provider_call_id"))})
        if isinstance(mos := event.data.get("mos"), int | float):
            rows.heard.append({"call": event.call_id, "heard": float(mos)})
        if event.kind == "answered":
            first = new["answered_at"] is None if new is not None else known is not None and not known.answered
            if new is None:
                already = any(row["call"] == event.call_id for row in rows.answered)
                rows.answered.append({"call": event.call_id, "at": event.at})
                first = first and not already
            elif first:
                new["answered_at"] = event.at
            if first:
                rows.hours.answered(tenant, event.at)
    elif isinstance(event, TurnEnded):
        turn = asdict(event.turn)
        del turn["evidence"]  # of the audit log only
        rows.turns.append(row | turn | {"tools": list(event.turn.tools)})
        rows.hours.turn(tenant, event.at, event.turn)
    elif isinstance(event, UsageMetered):
        usage = event.usage
        quantities = {"kind": usage.kind, "unit": usage.unit, "quantity": usage.quantity}
        used = row | {"provider": usage.provider, "product": usage.product} | quantities
        rows.usage.append(used)
        of = {name: value for name, value in used.items() if name != "quantity"}
        rows.costs += [of | asdict(cost) for cost in event.costs]
        for cost in event.costs:
            rows.hours.cost(tenant, event.at, usage, cost)
