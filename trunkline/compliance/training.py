"""What of the record may train a model: calls of people who agreed to just that, and have taken nothing back since.

Plain: a call's record and its person's ledger in, a line of the export or the reason why not out. Everything is
redacted once more, of every kind, whatever the settings redact when it is written.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, cast, get_args

from trunkline.compliance.consent import Row
from trunkline.privacy.calls import Speakers
from trunkline.privacy.redaction import KINDS, Policy

Why = Literal["no_number", "no_consent", "withdrawn", "goes_on", "locked", "no_words"]
WHYS: tuple[Why, ...] = get_args(Why)
_TAKEN_BACK = frozenset(("training", "recording", "transcript", "ai_processing"))
"""Who takes one of these back wants nothing of their words kept."""
_EXPRESS = ("express_written", "express_oral")
_LOCKED = "[sealed: "


def subject_of(call: Mapping[str, Any]) -> str | None:
    number = call["from_number"] if call["direction"] == "inbound" else call["to_number"]
    return cast("str | None", number)


def consent(rows: Iterable[Row], now: datetime) -> Why | None:
    """None: in force. Of two at one moment the revocation counts; who agreed again later has agreed."""
    found: Why | None = "no_consent"
    for row in sorted(rows, key=lambda row: (row.at, row.event == "revoke")):
        technologies = row.body.get("technologies") or ()
        if row.event == "revoke":
            if found is None and (not technologies or not _TAKEN_BACK.isdisjoint(technologies)):
                found = "withdrawn"
        elif row.event == "grant" and "training" in technologies and _in_force(row.body, now):
            found = None
    return found


def _in_force(body: Mapping[str, Any], now: datetime) -> bool:
    until = body.get("valid_until")
    begun = datetime.fromisoformat(body["valid_from"]) <= now
    return body.get("form") in _EXPRESS and begun and (until is None or now < datetime.fromisoformat(until))


def sample(record: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any] | Why:
    """`call_id` finds the call again, so that a line can be taken out of a set when somebody takes it back later."""
    if record["ended_at"] is None:
        return "goes_on"
    turns = record["turns"]
    if any(turn[side].startswith(_LOCKED) for turn in turns for side in ("caller_text", "agent_text")):
        return "locked"
    speakers = Speakers(Policy(frozenset(KINDS), names))
    messages = []
    for turn in turns:
        said = (
            ("caller", speakers.caller.whole(turn["caller_text"])),
            ("agent", speakers.agent.whole(turn["agent_text"])),
        )
        messages += [{"role": role, "text": text} for role, text in said if text]
    if not any(message["role"] == "caller" for message in messages):
        return "no_words"
    return {"call_id": record["id"], "agent": record["agent"], "messages": messages}
