"""Forms of what admins own, as values. Plain.

A field is named by its path in the resource (`answer.agents.0.agent`), as DeskError names what is wrong there; so a
refusal finds its field by itself. Rows are added and taken away by buttons that send the whole form, so that it works
without scripts:

    do=save     do=add:rules     do=remove:rules.2     do=up:rules.2
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_FIELDS = 4000
MAX_DEPTH = 8
MAX_ROWS = 500
DIFF_LINES = 2000


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Of two with one name the last one counts: a hidden `false` stands before its checkbox. Raises ValueError for
    names that no form of ours has."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        *way, last = name.split(".")
        if len(way) >= MAX_DEPTH:
            raise ValueError(f"{name}: too deep")
        at = found
        for part in way:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ValueError(f"{name}: a part and a whole")
        if isinstance(at.get(last), dict):
            raise ValueError(f"{name}: a part and a whole")
        at[last] = value.replace("\r\n", "\n")
    listed = _listed(found)
    assert isinstance(listed, dict)
    return listed


def _listed(value: Any) -> Any:
    """Whose keys are all numbers is a list, in their order."""
    if not isinstance(value, dict):
        return value
    made = {name: _listed(each) for name, each in value.items()}
    if made and all(name.isascii() and name.isdigit() and len(name) < 6 for name in made):
        return [made[name] for name in sorted(made, key=int)]
    return made


def at(values: Any, path: str) -> Any:
    """None: there is nothing."""
    for part in path.split("."):
        if isinstance(values, Mapping):
            values = values.get(part)
        elif (
            isinstance(values, Sequence) and not isinstance(values, str) and part.isdigit() and int(part) < len(values)
        ):
            values = values[int(part)]
        else:
            return None
    return values


def changed(values: dict[str, Any], do: str) -> str:
    """What a button of the form asks for, done to its rows: `add:rules`, `remove:rules.2`, `up:rules.2`. The path of
    the row that is to be looked at next. Anything else is left alone, and the path is empty."""
    verb, _, path = do.partition(":")
    if verb == "add":
        rows = _rows(values, path)
        if rows is None or len(rows) >= MAX_ROWS:
            return path
        rows.append({})
        return f"{path}.{len(rows) - 1}"
    whole, _, place = path.rpartition(".")
    rows = _rows(values, whole) if verb in ("remove", "up") else None
    if rows is None or not place.isdigit() or int(place) >= len(rows):
        return ""
    if verb == "remove":
        del rows[int(place)]
        return f"{whole}.{min(int(place), len(rows) - 1)}" if rows else whole
    above = max(int(place) - 1, 0)
    rows.insert(above, rows.pop(int(place)))
    return f"{whole}.{above}"


def _rows(values: dict[str, Any], path: str) -> list[Any] | None:
    """Made, where there are none yet. None: there can be none."""
    *way, last = path.split(".")
    holder: Any = values
    for part in way:
        if isinstance(holder, list):
            holder = holder[int(part)] if part.isdigit() and int(part) < len(holder) else None
        elif isinstance(holder, dict):
            holder = holder.setdefault(part, {})
    if not isinstance(holder, dict):
        return None
    if not isinstance(holder.get(last), list):
        holder[last] = []
    rows: list[Any] = holder[last]
    return rows


def given(values: Any) -> Any:
    """Without fields that are empty: for these, what is so by default."""
    if isinstance(values, dict):
        kept = {name: given(each) for name, each in values.items()}
        return {name: each for name, each in kept.items() if each not in ("", {}, None)}
    if isinstance(values, list):
        return [each for each in map(given, values) if each not in ("", {}, None)]
    return values.strip() if isinstance(values, str) else values


def words(text: Any) -> list[str]:
    """Of a field that takes several: by lines, commas or spaces."""
    return text if isinstance(text, list) else str(text or "").replace(",", " ").split()


@dataclass(frozen=True, slots=True)
class Form:
    """What a form's fields show, and what is wrong there."""

    values: Mapping[str, Any]
    wrong: Mapping[str, str] = field(default_factory=dict)
    """By path."""
    why: str = ""
    """That it was refused, in a line."""
    focus: str = ""
    """The path that is to be looked at first."""
    _focused: list[str] = field(default_factory=list)
    """The field that has been given it: a page has one."""

    def value(self, path: str, between: str = "\n") -> str:
        found = at(self.values, path)
        if isinstance(found, bool):
            return "true" if found else "false"
        if isinstance(found, list | tuple):
            return between.join(map(str, found))
        return "" if found is None or isinstance(found, Mapping) else str(found)

    def rows(self, path: str) -> range:
        found = at(self.values, path)
        return range(len(found)) if isinstance(found, list | tuple) else range(0)

    def error(self, path: str) -> str:
        """Its own, or of a part of it that has no field (a line of several in one)."""
        if path in self.wrong:
            return self.wrong[path]
        return next((why for name, why in self.wrong.items() if name.startswith(f"{path}.")), "")

    @property
    def first(self) -> str:
        """The field that has the focus."""
        return self.focus or next(iter(self.wrong), "")

    def is_first(self, path: str) -> bool:
        """Whether this field gets the focus. Asked of each in the page's order: the first that is it, or part of it."""
        wanted = self.first
        is_it = bool(wanted) and (wanted == path or wanted.startswith(f"{path}.") or path.startswith(f"{wanted}."))
        if is_it and not self._focused:
            self._focused.append(path)
        return self._focused == [path]


def identity(path: str) -> str:
    """Of a field in the page."""
    return "f-" + path.replace(".", "-")


# --- what two versions differ in -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    path: str
    before: str | None
    """None: it was not there."""
    after: str | None


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Difference]:
    """By path. Of texts of several lines, what `lines` of them differ in is for the page."""
    old, new = dict(_leaves(before or {})), dict(_leaves(after or {}))
    return [Difference(path, old.get(path), new.get(path)) for path in {**old, **new} if old.get(path) != new.get(path)]


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        for place, each in enumerate(value):
            yield from _leaves(each, f"{path}.{place + 1}")
    elif isinstance(value, list | tuple):
        if value:
            yield path, ", ".join(map(str, value))
    elif isinstance(value, bool):
        yield path, "yes" if value else "no"
    elif value is not None and value != "":
        yield path, str(value)


def line_diff(before: str, after: str) -> list[tuple[str, str]]:
    """(`+`, `-`, ` ` or `@`, line), with three lines around what differs."""
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), n=3, lineterm="")
    lines = [_told(line) for line in list(found)[2:] if line]
    return lines[:DIFF_LINES] + ([("@", "and more")] if len(lines) > DIFF_LINES else [])


def _told(line: str) -> tuple[str, str]:
    """Of `@@ -5,7 +6,7 @@`, where it is now."""
    place = re.match(r"@@ .*\+([0-9]+)", line)
    return ("@", f"line {place[1]}") if place is not None else (line[0], line[1:])
