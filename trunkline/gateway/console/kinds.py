"""How each kind's form is written and read. Plain: from the body that is kept to fields, and back."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w

from trunkline.gateway.console.editing import Kind
from trunkline.gateway.console.forms import given, words
from trunkline.numbers.resources import DAYS
from trunkline.owned import DeskError

_OF_ANSWER = {"agents": ("agents",), "number": ("number",), "message": ("text",), "busy": ()}


def _answer(typed: Any) -> dict[str, Any] | None:
    """Only what belongs to its kind: the form has the fields of all of them."""
    typed = typed if isinstance(typed, dict) else {}
    kind = str(typed.get("kind", ""))
    if not kind:
        return None
    found = {name: typed.get(name) for name in _OF_ANSWER.get(kind, ())}
    return (
        {"kind": kind, **given(found)} if kind != "agents" else {"kind": kind, "agents": given(found["agents"] or [])}
    )


def number_fields(typed: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = given(typed)
    return {**fields, "tags": words(typed.get("tags"))}


def route_fields(typed: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = given(
        {**typed, "answer": None, "closed": None, "rules": None, "queue": None, "patterns": None}
    )
    fields |= {"matches": words(typed.get("patterns")), "answer": _answer(typed.get("answer")) or {}}
    if (closed := _answer(typed.get("closed"))) is not None:
        fields["closed"] = closed
    rules = typed.get("rules")
    fields["rules"] = [_rule(rule) for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
    queue = typed.get("queue")
    if isinstance(queue, dict) and queue.get("wanted") == "true":
        fields["queue"] = given({name: value for name, value in queue.items() if name != "wanted"})
    return fields


def _rule(typed: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = given({**typed, "answer": None, "verdicts": None})
    verdicts = typed.get("verdicts")
    chosen = [name for name, on in verdicts.items() if on == "true"] if isinstance(verdicts, dict) else []
    return {
        **fields,
        "callers": words(typed.get("callers")),
        "verdicts": chosen,
        "answer": _answer(typed.get("answer")) or {},
    }


def route_form(body: Mapping[str, Any]) -> Mapping[str, Any]:
    queue = body.get("queue")
    rules = [
        {**rule, "verdicts": {verdict: "true" for verdict in rule.get("verdicts", ())}}
        for rule in body.get("rules", ())
    ]
    shown = {name: value for name, value in body.items() if name != "matches"}
    return {
        **shown,
        "patterns": body.get("matches"),
        "rules": rules,
        "queue": None if queue is None else {**queue, "wanted": True},
    }


_BETWEEN = re.compile(r"[,;\s]+")


def spans(text: Any) -> list[str]:
    """`9:00 - 12:30, 13:30-17` as the desk has them: `09:00-12:30`, `13:30-17:00`. What is none stays as it is."""
    joined = re.sub(r"\s*[-\u2013]\s*", "-", str(text or ""))
    found = []
    for part in filter(None, _BETWEEN.split(joined)):
        ends = part.split("-")
        found.append("-".join(map(_time, ends)) if len(ends) == 2 else part)
    return found


def _time(text: str) -> str:
    found = re.fullmatch(r"([0-9]{1,2})(?::([0-9]{2}))?", text)
    return text if found is None else f"{int(found[1]):02}:{found[2] or '00'}"


def hours_fields(typed: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = given({**typed, "weekly": None, "holidays": None})
    week = typed.get("weekly")
    week = week if isinstance(week, dict) else {}
    fields["weekly"] = {day: found for day in DAYS if (found := spans(week.get(day)))}
    holidays = typed.get("holidays")
    fields["holidays"] = [
        {**given({**each, "open": None}), "open": spans(each.get("open"))}
        for each in (holidays if isinstance(holidays, list) else [])
        if isinstance(each, dict) and any(each.values())
    ]
    return fields


def trunk_fields(typed: dict[str, Any]) -> dict[str, Any]:
    """Its settings are written as TOML, as docs/settings.md has them. Raises DeskError."""
    fields: dict[str, Any] = given({**typed, "settings": None})
    try:
        fields["settings"] = tomllib.loads(str(typed.get("settings", "")))
    except tomllib.TOMLDecodeError as error:
        why = f'settings as in docs/settings.md, such as host = "sip.example.com": {error}'
        raise DeskError("invalid_fields", f"settings: {why}", {"settings": why}) from None
    return fields


def trunk_form(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**body, "settings": tomli_w.dumps(body["settings"])}


def tenant_fields(typed: dict[str, Any]) -> dict[str, Any]:
    return {**given(typed), "countries": [word.upper() for word in words(typed.get("countries"))]}


def budget_fields(typed: dict[str, Any]) -> dict[str, Any]:
    """A number or an agent only where it is of that scope: the form has fields for both."""
    fields: dict[str, Any] = given(typed)
    scope = fields.get("scope")
    return {name: value for name, value in fields.items() if name not in ("number", "agent") or name == scope}


NUMBERS = Kind(
    "numbers",
    "numbers",
    "number",
    number_fields,
    names=("routes", "agents", "trunks", "carriers"),
    filters={"route": "route", "tag": "tags", "trunk": "trunk", "agent": "agents"},
    start={"enabled": True},
)
ROUTES = Kind(
    "routes",
    "routes",
    "route",
    route_fields,
    route_form,
    names=("agents", "hours", "trunks"),
    filters={"agent": "agents", "hours": "hours"},
    start={"answer": {"kind": "agents", "agents": [{"weight": 100}]}},
    renamed={"matches": "patterns"},
)
HOURS = Kind(
    "hours",
    "hours",
    "opening hours",
    hours_fields,
    start={"zone": "UTC", "weekly": {day: ["09:00-17:00"] for day in DAYS[:5]}},
)
TRUNKS = Kind("trunks", "trunks", "trunk", trunk_fields, trunk_form, names=("carriers",), start={"enabled": True})
CARRIERS = Kind("carriers", "carriers", "carrier", start={"type": "twilio"})
BUDGETS = Kind(
    "budgets",
    "budgets",
    "budget",
    budget_fields,
    names=("numbers", "agents"),
    start={"scope": "tenant", "per": "day"},
)
