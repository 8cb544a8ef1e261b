"""The script as values: what `llm.script`, the grammars and the tools read.

`read_script` reports what is wrong key by key and leaves the wrong thing out; `Script.of` raises instead, for a
definition that was checked when it was loaded.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.script import keys
from trunkline.agents.script.hours import WEEKDAYS, Hours, read_spans, time_zone
from trunkline.agents.script.keys import Report, Severity
from trunkline.agents.script.lines import Path
from trunkline.agents.script.phrases import Node, PhraseError, Vocabulary, parse_phrase, slot_names
from trunkline.agents.script.template import NAME
from trunkline.errors import ConfigError

HANG_UP = "hang_up"
TRANSFER = "transfer"
HAND_OFF = "hand_off"
BUILT_IN_INTENTS = ("repeat", "goodbye")
SECTIONS = ("variables", "hours", "intents", "slots", "digits", "tools", "fallback", "words")
"""The tables of the file that are the script; the rest is the definition."""

_LENGTHS = re.compile(r"[1-9]|[12]\d|[1-9]-[12]\d|[1-9]-[1-9]|[12]\d-[12]\d")

T = TypeVar("T")

_OUR_HEADERS = frozenset(("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade"))
_PATTERN_LENGTH = 80
_PATTERN_LOOPS = 3  # each loop multiplies the work by the entry's 32 digits


@dataclass(frozen=True, slots=True)
class Phrase:
    text: str
    node: Node
    path: Path


@dataclass(frozen=True, slots=True)
class Intent:
    name: str
    phrases: tuple[Phrase, ...] = ()
    description: str = ""
    key: str | None = None
    anywhere: bool = False
    ask: tuple[str, ...] = ()
    confirm: str | None = None
    declined: str = ""
    reply: tuple[str, ...] = ()
    reply_closed: tuple[str, ...] = ()
    language: str | None = None
    transfer: str | None = None
    tool: str | None = None
    hand_off: str | None = None
    path: Path = ()


@dataclass(frozen=True, slots=True)
class SlotList:
    name: str
    vocabulary: Vocabulary
    prompt: str | None


@dataclass(frozen=True, slots=True)
class DigitsEntry:
    name: str
    prompt: str
    min: int
    max: int
    pattern: str | None
    spoken: bool
    confirm: str
    invalid: str
    reply: tuple[str, ...]
    transfer: str | None
    tool: str | None
    hand_off: str | None = None

    def valid(self, digits: str) -> bool:
        right_length = self.min <= len(digits) <= self.max
        return right_length and (self.pattern is None or re.fullmatch(self.pattern, digits) is not None)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    type: str
    description: str = ""
    error: str = ""
    target: str | None = None
    agent: str | None = None
    digits: str | None = None
    url: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    timeout_ms: int = 3000
    max_bytes: int = 65536
    result: Mapping[str, str] = field(default_factory=dict)
    wait: str = ""
    secure: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""

    def digits_of(self, name: str) -> tuple[int, int]:
        """The least and the most of what is keyed as `name`."""
        least, _, most = self.secure[name].partition("-")
        return int(least), int(most or least)


@dataclass(frozen=True, slots=True)
class Fallback:
    not_understood: tuple[str, ...]
    reply: tuple[str, ...]
    transfer: str | None
    no_transfer: str


@dataclass(frozen=True, slots=True)
class Script:
    intents: tuple[Intent, ...]
    """With the built-in ones, `repeat` and `goodbye`, at the end."""
    slots: Mapping[str, SlotList]
    digits: Mapping[str, DigitsEntry]
    tools: Mapping[str, Tool]
    fallback: Fallback
    yes: tuple[Phrase, ...]
    no: tuple[Phrase, ...]
    variables: Mapping[str, str]
    hours: Hours | None

    @staticmethod
    def of(definition: AgentDefinition) -> "Script":
        """Raises ConfigError for the first mistake."""

        def refuse(path: Path, message: str, severity: Severity) -> None:
            if severity == "error":
                raise ConfigError(".".join(map(str, path)), definition.name, message)

        return read_script(definition.script, refuse)

    def intent(self, name: str) -> Intent | None:
        return next((intent for intent in self.intents if intent.name == name), None)

    @property
    def vocabularies(self) -> dict[str, Vocabulary]:
        return {name: slot.vocabulary for name, slot in self.slots.items()}


def read_script(raw: Mapping[str, Any], report: Report) -> Script:
    top = keys.read({k: v for k, v in raw.items() if k in SECTIONS}, _SECTION_KEYS, (), report)
    said = keys.read(top["words"] or {}, keys.WORDS, ("words",), report)
    fallback = keys.read(top["fallback"] or {}, keys.FALLBACK, ("fallback",), report)
    slots = _named(top["slots"], ("slots",), report, _slot)
    intents = [_intent(table, ("intents", at), report) for at, table in enumerate(top["intents"] or ())]
    return Script(
        intents=(
            *(intent for intent in intents if intent),
            *(_built_in(name, said[name], report) for name in BUILT_IN_INTENTS),
        ),
        slots=slots,
        digits=_named(top["digits"], ("digits",), report, _digits),
        tools=_named(top["tools"], ("tools",), report, _tool),
        fallback=Fallback(**fallback),
        yes=_phrases(said["yes"], ("words", "yes"), report),
        no=_phrases(said["no"], ("words", "no"), report),
        variables=_variables(top["variables"] or {}, report),
        hours=_hours(top["hours"], report),
    )


_SECTION_KEYS = {name: keys.FILE[name] for name in SECTIONS}


def _named(
    tables: Mapping[str, Any] | None,
    path: Path,
    report: Report,
    each: Callable[[str, Mapping[str, Any], Path, Report], T | None],
) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, table in (tables or {}).items():
        if not NAME.fullmatch(name):
            report((*path, name), f"{name!r} is not a name: lowercase letters, digits and _", "error")
        elif not isinstance(table, Mapping):
            report((*path, name), f"must be a table: [{path[0]}.{name}]", "error")
        else:
            value = each(name, table, (*path, name), report)
            if value is not None:
                found[name] = value
    return found


def _intent(table: Mapping[str, Any], path: Path, report: Report) -> Intent | None:
    held = keys.read(table, keys.INTENT, path, report)
    name = held["name"]
    if name is None:
        return None
    if not NAME.fullmatch(name):
        report((*path, "name"), f"{name!r} is not a name: lowercase letters, digits and _", "error")
        return None
    if name in BUILT_IN_INTENTS:
        report((*path, "name"), f"{name} is built in; its phrases are [words] {name}", "error")
        return None
    if held["key"] is not None and held["key"] not in tuple("0123456789"):
        report((*path, "key"), f"is {held['key']!r}; it must be one key, 0 to 9", "error")
        held["key"] = None
    held["phrases"] = _phrases(held["phrases"], (*path, "phrases"), report)
    return Intent(**held, path=path)


def _built_in(name: str, said: tuple[str, ...], report: Report) -> Intent:
    return Intent(name, _phrases(said, ("words", name), report), anywhere=True, path=("words", name))


def _phrases(texts: tuple[str, ...], path: Path, report: Report) -> tuple[Phrase, ...]:
    found = []
    for at, text in enumerate(texts):
        try:
            found.append(Phrase(text, parse_phrase(text), (*path, at)))
        except PhraseError as error:
            report((*path, at), f"{text!r}: {error}", "error")
    return tuple(found)


def _slot(name: str, table: Mapping[str, Any], path: Path, report: Report) -> SlotList | None:
    held = keys.read(table, keys.SLOT, path, report)
    values = held["values"]
    listed = isinstance(values, list | tuple)
    if listed:
        values = {value: [] for value in values} if all(isinstance(value, str) for value in values) else None
    if not isinstance(values, Mapping) or not values or len(values) > keys.MAX_ENTRIES:
        report((*path, "values"), f"must list 1 to {keys.MAX_ENTRIES} values, or be a table of them", "error")
        return None
    ways: dict[str, tuple[Node, ...]] = {}
    for at, (value, others) in enumerate(values.items()):
        where = (*path, "values", at if listed else value)
        others = [others] if isinstance(others, str) else others
        if not isinstance(others, list | tuple) or not all(isinstance(other, str) for other in others):
            report(where, "must be a list of other words for it", "error")
            continue
        if re.search(r"[()\[\]{}|]", value):
            report(where, f"{value!r} is what replies say: plain words, without brackets", "error")
            continue
        nodes = [phrase.node for phrase in _phrases((value, *others), where, report)]
        if any(slot_names(node) for node in nodes):
            report(where, "a value of a slot cannot hold a slot", "error")
            continue
        if nodes:
            ways[value] = tuple(nodes)
    return SlotList(name, Vocabulary(ways), held["prompt"]) if ways else None


def _digits(name: str, table: Mapping[str, Any], path: Path, report: Report) -> DigitsEntry | None:
    held = keys.read(table, keys.DIGITS, path, report)
    if held["min"] > held["max"]:
        report((*path, "min"), f"is {held['min']}, more than max, {held['max']}", "error")
        held["min"] = held["max"]
    if held["pattern"] is not None:
        wrong = _pattern_fault(held["pattern"])
        if wrong:
            report((*path, "pattern"), wrong, "error")
            held["pattern"] = None
    if held["prompt"] is None:
        return None
    return DigitsEntry(name, **held)


def _pattern_fault(pattern: str) -> str | None:
    """A pattern runs while other calls wait: it must be short, and its loops few and not nested."""
    if len(pattern) > _PATTERN_LENGTH:
        return f"has {len(pattern)} characters; at most {_PATTERN_LENGTH} are allowed"
    if re.search(r"\)[*+{]|\\[1-9]|\(\?", pattern):
        return "a group cannot be repeated or referred to: write [0-9]{3}, not ([0-9])+"
    if len(re.findall(r"[*+]|\{\d*,\d*\}", pattern)) > _PATTERN_LOOPS:
        return f"at most {_PATTERN_LOOPS} of * + {{2,5}} are allowed"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return None


def _tool(name: str, table: Mapping[str, Any], path: Path, report: Report) -> Tool | None:
    held = keys.read(table, keys.TOOL, path, report)
    kind = held["type"]
    if name in (HANG_UP, TRANSFER, HAND_OFF):
        report(path, f"{name} is built in; choose another name", "error")
    if kind is None:
        return None
    for key in table:
        if key in keys.TOOL and key not in keys.TOOL_KEYS_BY_TYPE[kind] | {"type", "description", "error"}:
            report((*path, key), f"a {kind} tool has no {key}", "error")
    needed = {"transfer": "target", "hand_off": "agent", "send_dtmf": "digits", "http": "url"}.get(kind)
    if needed and held[needed] is None:
        report(path, f"{needed} is missing: {keys.TOOL[needed].meaning}", "error")
        return None
    if held["digits"] is not None and not re.fullmatch(r"[0-9*#A-DwW]{1,64}", held["digits"]):
        report((*path, "digits"), "may hold 1 to 64 of 0-9 * # A-D and w", "error")
        return None
    if kind == "http" and (wrong := _url_fault(held["url"])):
        report((*path, "url"), wrong, "error")
        return None
    for section in ("headers", "result"):
        for key, value in held[section].items():
            if not isinstance(value, str):
                report((*path, section, key), "must be a text in quotes", "error")
                return None
    for key, value in held["secure"].items():
        if not isinstance(value, str) or not _LENGTHS.fullmatch(value) or not NAME.fullmatch(key):
            report((*path, "secure", key), 'a name with how many digits: card_number = "13-19"', "error")
            return None
        if "{" + key + "}" in held["url"]:
            report((*path, "url"), f"{{{key}}} is secure: an address is logged on its way, use the body", "error")
            return None
    for header, value in held["headers"].items():
        if wrong := _header_fault(header, value):
            report((*path, "headers", header), wrong, "error")
            return None
    held["url"] = held["url"] or ""
    return Tool(name, **held)


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a bad port
    except ValueError as error:
        return f"is not an address: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must start with https:// (or http://) and a host"
    if "{" in parts.scheme + parts.netloc or "}" in parts.netloc:
        return "a {name} may stand in the path and the query, never in the host"
    if parts.username is not None or parts.password is not None:
        return "cannot hold a user or password: use headers"
    if parts.fragment or re.search(r"\s", url):
        return "cannot hold a # part or spaces"
    return None


def _header_fault(name: str, value: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z0-9-]+", name) or name.lower() in _OUR_HEADERS:
        return f"{name} cannot be set here"
    if not re.fullmatch(r"[\x20-\x7e]*", value):
        return "may hold printable ASCII only"
    if re.search(r"[{}]", re.sub(r"\{key:[A-Za-z0-9_]+\}", "", value)):
        return "may hold {key:NAME}, a key of the gateway's settings, and no other braces"
    return None


def _variables(table: Mapping[str, Any], report: Report) -> dict[str, str]:
    found = {}
    for name, value in table.items():
        if not NAME.fullmatch(name):
            report(("variables", name), f"{name!r} is not a name: lowercase letters, digits and _", "error")
        elif not isinstance(value, str | int | float) or isinstance(value, bool):
            report(("variables", name), "must be a text or a number", "error")
        else:
            found[name] = str(value)
    return found


def _hours(table: Mapping[str, Any] | None, report: Report) -> Hours | None:
    if table is None:
        return None
    held = keys.read(table, keys.HOURS, ("hours",), report)
    if held["time_zone"] is None:
        return None
    try:
        zone = time_zone(held["time_zone"])
    except ValueError as error:
        report(("hours", "time_zone"), str(error), "error")
        return None
    week = {}
    for at, day in enumerate(WEEKDAYS):
        try:
            week[at] = read_spans(held[day])
        except ValueError as error:
            report(("hours", day), str(error), "error")
    closed = set()
    days = held["closed_days"]
    if not isinstance(days, list | tuple):
        report(("hours", "closed_days"), "must be a list of days", "error")
        days = ()
    for at, text in enumerate(days):
        try:
            closed.add(text if isinstance(text, date) else date.fromisoformat(text))
        except (TypeError, ValueError):
            report(("hours", "closed_days", at), f"{text!r} is not a day: write 2026-12-25", "error")
    return Hours(zone, week, frozenset(closed))
