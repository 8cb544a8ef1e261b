"""What calls do, in the words of the pages: plain values, for templates and for what comes live."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

END_REASONS: Mapping[str, str] = {
    "caller_hung_up": "the caller hung up",
    "agent_hung_up": "the agent said goodbye",
    "opted_out": "they asked not to be called again",
    "transferred": "put through",
    "no_input": "nobody spoke",
    "max_duration": "the longest time was reached",
    "budget": "the budget was spent",
    "media_lost": "the sound was lost",
    "never_started": "the sound never came",
    "refused": "refused by a rule",
    "overloaded": "too many calls",
    "drained": "the gateway was stopped",
    "gateway_lost": "the gateway failed",
    "busy": "busy",
    "no_answer": "no answer",
    "rejected": "turned away",
    "failed": "could not be placed",
    "error": "an error",
}
ENDED_BY: Mapping[str, str] = {
    "caller": "the caller",
    "agent": "the agent",
    "operator": "an operator",
    "network": "the network",
    "gateway": "the gateway",
    "policy": "a rule or limit",
}
STATES: Mapping[str, str] = {
    "ringing": "ringing",
    "active": "talking",
    "transferring": "being put through",
    "handover": "with someone else, or on hold",
    "ending": "ending",
    "ended": "ended",
}
PARTS: Mapping[str, str] = {
    "endpointing": "end of turn",
    "stt": "speech to text",
    "llm": "model",
    "tts": "voice",
    "total": "total",
}
WENT_WRONG = frozenset({"error", "failed", "media_lost", "never_started", "gateway_lost", "overloaded"})
_DIGITS = re.compile(r"\+?\d[\d ().-]{4,}\d")
HIDDEN = "•"
SHOWN_DIGITS = 6


def reason(name: str | None) -> str:
    return "" if name is None else END_REASONS.get(name, name.replace("_", " "))


def ended_by(name: str | None) -> str:
    return "" if name is None else ENDED_BY.get(name, name)


def state(name: str | None) -> str:
    return "" if name is None else STATES.get(name, name)


def part(name: str) -> str:
    return PARTS.get(name, name)


def lasted(ms: float | None) -> str:
    """12 s, 3:04, 1:02:03."""
    if ms is None:
        return "–"
    seconds = round(ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def took(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def usd(amount: str | Decimal | None) -> str:
    """As an account shows it: cents, and more where there is less than a cent."""
    if amount is None:
        return "–"
    value = Decimal(amount)
    if value == 0:
        return "$0.00"
    return f"${value:,.2f}" if value >= Decimal("0.1") else f"${value:.4f}"


def plain(value: float | None) -> str:
    """A cell of a table."""
    return "–" if value is None else f"{round(value, 4):g}" if value < 1e6 else f"{value:,.0f}"


def mos(score: float | None) -> tuple[str, str]:
    """A word, and how to show it (ITU-T G.107: below 3.6 many are dissatisfied, below 3.1 nearly all)."""
    if score is None:
        return "not measured", "faint"
    if score >= 4.0:
        return "good", "good"
    if score >= 3.6:
        return "fair", "good"
    return ("poor", "warn") if score >= 3.1 else ("bad", "bad")


def moment(at: str | datetime | None) -> str:
    """UTC, for who has no scripts."""
    if at is None:
        return ""
    when = datetime.fromisoformat(at) if isinstance(at, str) else at
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def hidden_number(number: str | None) -> str | None:
    """Without what would reach a person; names of devices stay."""
    if not number or not number.lstrip("+").isdigit():
        return number
    return number[:SHOWN_DIGITS] + HIDDEN * max(0, len(number) - SHOWN_DIGITS)


def hidden_text(text: str) -> str:
    """Any number in it is hidden."""
    return _DIGITS.sub(lambda found: hidden_number(re.sub(r"[^\d+]", "", found[0])) or "", text)


def parties(call: Mapping[str, Any], *, in_full: bool) -> dict[str, str]:
    """`theirs` and `ours`, by who called. Ours is no secret: it is a number of the tenant's."""
    came, went = call.get("from_number"), call.get("to_number")
    theirs, ours = (came, went) if call.get("direction") == "inbound" else (went, came)
    shown = theirs if in_full else hidden_number(theirs)
    return {"theirs": shown or "withheld", "ours": ours or "none"}


FILTERS: Mapping[str, Any] = {
    "reason": reason,
    "ended_by": ended_by,
    "state": state,
    "part": part,
    "lasted": lasted,
    "took": took,
    "usd": usd,
    "moment": moment,
    "plain": plain,
}
