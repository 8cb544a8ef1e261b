"""What the ledger's rows amount to at a moment. Plain: rows in, an answer out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from trunkline.compliance.tables import FORMS
from trunkline.ports import ConsentForm, Purpose, Technology

Held = ConsentForm | Literal["none", "revoked"]


class Row(Protocol):
    @property
    def event(self) -> str: ...

    @property
    def at(self) -> datetime: ...

    @property
    def body(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """`purpose` None: every one of them must be agreed to."""

    purpose: Purpose | None
    seller: str
    technology: Technology = "artificial_voice"


def held(rows: Iterable[Row], wanted: Wanted, now: datetime) -> Held:
    """The best form in force. Of two at one moment the revocation counts; who agreed again later has agreed. A
    revocation counts for every seller and from whenever it is dated; a grant only for its own, in its time."""
    ordered = sorted(rows, key=lambda row: (row.at, row.event == "revoke"))
    if wanted.purpose is not None:
        return _held(ordered, wanted.purpose, wanted, now)
    each = [_held(ordered, purpose, wanted, now) for purpose in get_args(Purpose)]
    return "revoked" if "revoked" in each else min(each, key=_rank)


def _held(rows: Iterable[Row], purpose: Purpose, wanted: Wanted, now: datetime) -> Held:
    best: Held = "none"
    for row in rows:
        body = row.body
        if row.event == "revoke":
            if _covers(body, "technologies", wanted.technology) and _covers(body, "purposes", purpose):
                best = "revoked"
        elif row.event == "grant" and _in_force(body, purpose, wanted, now):
            form: Held = body["form"]
            best = form if best == "revoked" or _rank(form) > _rank(best) else best
    return best


def _covers(body: Mapping[str, Any], name: str, value: str) -> bool:
    return not body.get(name) or value in body[name]


def _in_force(body: Mapping[str, Any], purpose: Purpose, wanted: Wanted, now: datetime) -> bool:
    if body.get("seller") not in ("", wanted.seller) or "voice" not in body.get("channels", ()):
        return False
    if wanted.technology not in body.get("technologies", ()) or purpose not in body.get("purposes", ()):
        return False
    until = body.get("valid_until")
    return datetime.fromisoformat(body["valid_from"]) <= now and (until is None or now < datetime.fromisoformat(until))


def _rank(form: str) -> int:
    return FORMS.index(form) if form in FORMS else 0
