"""What is owed for a call: the opening lines, and what must be agreed to before anything of it is kept or handed on."""

from collections.abc import Iterable

from trunkline.compliance.tables import Disclosure, Recording, Tables
from trunkline.ports import Door, Obligation, ObligationKind, Purpose
from trunkline.types import Direction

_LINES: dict[str, ObligationKind] = {
    "business": "say_business",
    "ai": "say_ai",
    "recording": "say_recording",
    "opt_out": "say_opt_out",
    "callback": "say_callback",
}
"""Which line of the table each is; compliance/opening.py has the order they are spoken in."""


def duties(
    places: tuple[str | None, ...],
    ours: str | None,
    direction: Direction,
    purpose: Purpose | None,
    kept: tuple[Door, ...],
    tables: Tables,
) -> tuple[Obligation, ...]:
    """`places`: everywhere the other party may be; `ours`: where this end is, None where nobody knows. `kept`: the
    doors that may be open in this call."""
    key = ("duties", places, ours, direction, purpose, kept)
    return tables.remembered(key, lambda: _duties(places, ours, direction, purpose, kept, tables))


def _duties(
    places: tuple[str | None, ...],
    ours: str | None,
    direction: Direction,
    purpose: Purpose | None,
    kept: tuple[Door, ...],
    tables: Tables,
) -> tuple[Obligation, ...]:
    basis: dict[str, str] = {}
    for place in (*places, ours):
        for row in sorted(tables.rows(tables.disclosure, place), key=lambda row: row.region):
            if _of(row, direction, purpose):
                basis.setdefault(row.line, f"disclosure/{row.region}")
    asked = asked_for((*places, ours), tables)
    if kept:
        basis.setdefault("recording", asked or "disclosure/*")
    said = [
        Obligation(kind, kept if line == "recording" else (), basis[line])
        for line, kind in _LINES.items()
        if line in basis and (line != "recording" or kept)
    ]
    if asked is not None and kept:
        said.append(Obligation("ask_consent", kept, asked))
    return tuple(said)


def asked_for(places: Iterable[str | None], tables: Tables) -> str | None:
    """The row by which everybody must agree; None: one party's consent is enough, and that is ours."""
    for place in places:
        rows: tuple[Recording, ...] = tables.rows(tables.recording, place)
        everybody = min((row.region for row in rows if row.parties == "all"), default=None)
        if everybody is not None:
            return f"recording/{everybody if place is not None else 'unknown'}"
    return None


def _of(row: Disclosure, direction: Direction, purpose: Purpose | None) -> bool:
    return row.direction in (None, direction) and (purpose is None or row.purpose in (None, purpose))
