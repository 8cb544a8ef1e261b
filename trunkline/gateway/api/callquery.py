"""The search parameters of /v1/calls as a `CallQuery`. A parameter that is not known is an error: a filter that nobody
reads would show calls that were not asked for."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request

from trunkline.gateway.api.principal import require
from trunkline.gateway.leg import LegKind
from trunkline.ports import CallQuery, EndedBy, EndReason, Having
from trunkline.types import Direction

NUMBER_PATTERN = r"^[^*\u0000]{1,64}\*?$"
TEXT_PATTERN = r"^[^\u0000]*$"
MAX_TEXT, MAX_AGENT = 200, 200
MAX_SECONDS, MAX_USD = 10**7, 10**6
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "direction": get_args(Direction),
    "leg": get_args(LegKind),
    "end_reason": get_args(EndReason),
    "ended_by": get_args(EndedBy),
    "live": ("true", "false"),
}
HAVING: tuple[str, ...] = get_args(Having)
FILTERS = (
    *("number", "our_number", "agent", *_CHOICES, "since", "until", "min_duration_s", "min_cost_usd", "text"),
    "having",
)


def call_query(request: Request, *others: str) -> tuple[CallQuery, Mapping[str, str]]:
    """And the `others`, where they were given. Raises HTTPException, naming the parameter."""
    given = parameters(request, *FILTERS, *others)
    if "text" in given:  # whoever may not read what was said may not guess it either
        require(request, "listen")
    for name, choices in _CHOICES.items():
        if name in given and given[name] not in choices:
            raise HTTPException(400, f"{name}: {' | '.join(choices)} expected")
    having = frozenset(given["having"].split(",") if given.get("having") else ())
    if not having <= set(HAVING):
        raise HTTPException(400, f"having: {' | '.join(HAVING)}, several with commas, expected")
    seconds, usd = decimal(given, "min_duration_s", MAX_SECONDS), decimal(given, "min_cost_usd", MAX_USD)
    query = CallQuery(
        number=_number(given, "number"),
        our_number=_number(given, "our_number"),
        agent=_text(given, "agent", 1, MAX_AGENT),
        direction=cast(Any, given.get("direction")),
        leg=given.get("leg"),
        end_reason=cast(Any, given.get("end_reason")),
        ended_by=cast(Any, given.get("ended_by")),
        live=None if "live" not in given else given["live"] == "true",
        since=moment(given, "since"),
        until=moment(given, "until"),
        min_duration_s=None if seconds is None else float(seconds),
        min_cost_usd=usd,
        text=_text(given, "text", 2, MAX_TEXT),
        having=cast(Any, having),
    )
    return query, {name: given[name] for name in others if name in given}


def parameters(request: Request, *names: str) -> dict[str, str]:
    """Raises HTTPException for one that is not among them, or is there twice."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            raise HTTPException(400, f"{name[:64]!r}: no such parameter; there are {', '.join(names)}")
        if name in given:
            raise HTTPException(400, f"{name}: once")
        given[name] = value
    return given


def _number(given: Mapping[str, str], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if value.startswith(" "):  # a + that nobody has encoded
        value = f"+{value[1:]}"
    if not re.match(NUMBER_PATTERN, value):
        raise HTTPException(400, f"{name}: a number such as +14155550100, or its beginning and *, expected")
    return value


def _text(given: Mapping[str, str], name: str, least: int, most: int) -> str | None:
    value = given.get(name)
    if value is not None and (not least <= len(value) <= most or "\0" in value):
        raise HTTPException(400, f"{name}: {least} to {most} characters expected")
    return value


def decimal(given: Mapping[str, str], name: str, most: int) -> Decimal | None:
    if name not in given:
        return None
    try:
        value = Decimal(given[name])
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or not 0 <= value <= most:
        raise HTTPException(400, f"{name}: a number from 0 to {most} expected")
    return value


def moment(given: Mapping[str, str], name: str) -> datetime | None:
    """UTC."""
    if name not in given:
        return None
    try:
        at = datetime.fromisoformat(given[name].replace(" ", "+"))  # a + that nobody has encoded
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except OverflowError:  # at either end of the calendar
        return at.replace(tzinfo=UTC)
    except ValueError:
        raise HTTPException(400, f"{name}: a time with its zone, such as 2026-11-28T09:00:00Z, expected") from None
