"""Decisions as JSON: for the record, the API and the command line."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from trunkline.compliance.destinations import is_extension
from trunkline.compliance.imports import Asked
from trunkline.ports import Decision, Door, Facts, Purpose, Refuse, Standing
from trunkline.types import DEFAULT_TENANT, Direction


def explained(decision: Decision) -> dict[str, Any]:
    """Every check with its input, the version of its data, and its answer; and what is owed."""
    refused = decision if isinstance(decision, Refuse) else None
    owed = () if isinstance(decision, Refuse) else decision.obligations
    return {
        "decision": "refuse" if refused else "allow",
        "code": refused.code if refused else "",
        "why": refused.why if refused else "",
        "checks": [
            {"name": c.name, "answer": c.answer, "input": c.input, "data": c.data, "why": c.why}
            for c in decision.checks
        ],
        "obligations": [{"kind": o.kind, "doors": list(o.doors), "basis": o.basis} for o in owed],
    }


def told(door: Door, decision: Decision) -> dict[str, Any]:
    """Data of the event `decision`."""
    return {"door": door, **explained(decision)}


def out(facts: Facts) -> str | None:
    """The number that is called, where one is. An extension counts for none."""
    number = {"dial": facts.to_number, "transfer": facts.target_number}.get(facts.door)
    return None if number is None or is_extension(number) else number


def call_facts(
    direction: Direction, from_number: str | None, to_number: str | None, purpose: Purpose | None, standing: Standing
) -> Facts:
    """Of a call that somebody asks about."""
    door: Door = "dial" if direction == "outbound" else "answer"
    return Facts(door, DEFAULT_TENANT, direction, from_number, to_number, purpose=purpose, standing=standing)


def previewed(rows: Sequence[tuple[Asked, Decision]], at: datetime) -> dict[str, Any]:
    """Of a batch: who would be skipped, and why. Nobody's number but by its row."""
    skipped = [
        {"row": asked.row, "code": decision.code, "why": decision.why}
        for asked, decision in rows
        if isinstance(decision, Refuse)
    ]
    codes: dict[str, int] = {}
    for each in skipped:
        codes[str(each["code"])] = codes.get(str(each["code"]), 0) + 1
    return {
        "at": at.isoformat(),
        "calls": len(rows),
        "skipped": len(skipped),
        "codes": dict(sorted(codes.items(), key=lambda item: (-item[1], item[0]))),
        "rows": skipped,
    }
