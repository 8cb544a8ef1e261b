"""From a file to an AgentDefinition, and from a mistake to the line it stands on.

`check` finds all it can in one pass; `load` is check plus the definition, and raises for the first error.
"""

import importlib.util
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path as FilePath
from typing import Any, Literal

import phonenumbers

from trunkline.agents.definition import (
    NO_DETECTOR,
    AgentDefinition,
    ContextTerms,
    Failover,
    HandOff,
    ProviderChoice,
    RealtimeTerms,
    TransferTerms,
    TurnTaking,
)
from trunkline.agents.languages import is_tag
from trunkline.agents.script import keys
from trunkline.agents.script.foreign import Shared, check_headers
from trunkline.agents.script.keys import Severity, nearest
from trunkline.agents.script.lines import Path, Place, Places, places
from trunkline.agents.script.model import SECTIONS, Script, read_script
from trunkline.agents.script.review import review
from trunkline.agents.script.template import NAME, fill
from trunkline.agents.script.tongues import read_languages
from trunkline.errors import ConfigError, MissingExtra

MAX_FILE_BYTES = 512 * 1024  # a thousand intents; the largest real one we know has forty

KINDS: tuple[Literal["stt", "llm", "tts"], ...] = ("stt", "llm", "tts")
TURN_DETECTOR = "turn_detector"
"""Its table; its providers are named `turn.NAME`."""
AGENT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
"""Of the desk."""
DEFAULT_PROVIDERS: Mapping[str, str] = {"stt": "pocketsphinx", "llm": "script", "tts": "espeak"}


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    column: int
    key: str
    """`intents[2].reply`; empty where the file is no TOML."""
    message: str
    severity: Severity = "error"
    file: str = ""
    """Where it is in another file than the one that was looked at: that agent's."""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"line {self.line}: {self.severity}: {key}{self.message}"


class Problems:
    """Collects reports by path and gives them a line."""

    def __init__(self, places: Places) -> None:
        self.places, self.found = places, list[Problem]()

    def report(self, path: Path, message: str, severity: Severity) -> None:
        place = self.places.find(path)
        problem = Problem(place.line, place.column, written(path), message, severity)
        if problem not in self.found:
            self.found.append(problem)


def written(path: Path) -> str:
    """`("intents", 2, "reply")` as an admin writes it: `intents[3].reply`, counted from one."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def load(path: FilePath | str) -> AgentDefinition:
    """This file alone. Raises ConfigError naming the file, the line and the key of the first error."""
    definition, problems = read_file(FilePath(path))
    for problem in problems:
        if problem.severity == "error":
            where = f"{FilePath(path).name}:{problem.line}"
            raise ConfigError("agent", f"{where} {problem.key}".rstrip(), problem.message)
    assert definition is not None, "a file without errors has a definition"
    return definition


def check_text(text: str, foreign: Shared | None = None) -> list[Problem]:
    return read_text(text, foreign=foreign)[1]


def mistakes(text: str, foreign: Shared | None = None) -> list[str]:
    """A line each; what is only not advised is none."""
    return [str(problem) for problem in check_text(text, foreign) if problem.severity == "error"]


def read_file(path: FilePath) -> tuple[AgentDefinition | None, list[Problem]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None, [Problem(1, 1, "", f"the file is larger than {MAX_FILE_BYTES} bytes")]
        return read_text(path.read_bytes().decode("utf-8-sig"), path.absolute().parent)
    except UnicodeDecodeError as error:
        return None, [Problem(1, 1, "", f"the file is not UTF-8 text: byte {error.start}")]
    except OSError as error:
        return None, [Problem(1, 1, "", f"the file cannot be read: {error.strerror}")]


def read_text(
    text: str, folder: FilePath | None = None, foreign: Shared | None = None
) -> tuple[AgentDefinition | None, list[Problem]]:
    """The definition, if there is no error, and all problems in the order of their lines. `folder`: where the files it
    names are. `foreign`: the script is not the operator's (foreign.py), and may name no more of the gateway's than
    this; its HandOff.file is then the name of an AI agent of its tenant."""
    if foreign is not None and len(text) > MAX_FILE_BYTES:
        return None, [Problem(1, 1, "", f"the script is longer than {MAX_FILE_BYTES} characters")]
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_problem(text, str(error))]
    except RecursionError:
        return None, [Problem(1, 1, "", "brackets in brackets without end")]
    problems = Problems(places(text))
    definition = _definition(raw, problems, folder, foreign)
    found = sorted(problems.found, key=lambda problem: (problem.line, problem.column))
    failed = any(problem.severity == "error" for problem in found)
    return (None if failed else definition), found


def _syntax_problem(text: str, message: str) -> Problem:
    at = re.search(r"\(at line (\d+), column (\d+)\)", message)
    lines = text.splitlines() or [""]
    place = Place(int(at[1]), int(at[2])) if at else Place(len(lines), len(lines[-1]) + 1)
    reason = re.sub(r"\s*\(at .*\)$", "", message)
    hint = ""
    if "Invalid value" in reason:
        hint = ": a text stands in quotes, true and false without"
    elif "Illegal character" in reason or "Unterminated" in reason:
        hint = ": is a closing quote missing?"
    elif "Expected '='" in reason:
        hint = ": write name = value"
    elif "Cannot overwrite" in reason or "twice" in reason:
        hint = ": the same key stands there twice"
    return Problem(place.line, place.column, "", f"not valid TOML: {reason}{hint}")


def _definition(
    raw: Mapping[str, Any], problems: Problems, folder: FilePath | None, foreign: Shared | None
) -> AgentDefinition | None:
    report = problems.report
    top = keys.read(raw, keys.FILE, (), report)
    choices = {kind: _providers(kind, top[kind], problems) for kind in DEFAULT_PROVIDERS}
    turns = keys.read(top["turns"] or {}, keys.TURNS, ("turns",), report)
    if not turns["endpointing_min_ms"] <= turns["endpointing_ms"] <= turns["endpointing_max_ms"]:
        report(("turns",), "endpointing_min_ms, endpointing_ms and endpointing_max_ms must rise in this order", "error")
    targets, terms = _targets(top["targets"] or {}, problems)
    raw_script = {name: top[name] for name in SECTIONS if top[name] is not None}
    script = read_script(raw_script, report)
    if not str(top["language"]).lower().startswith("en") and "words" not in raw:
        report(("language",), "yes, no, repeat and goodbye are in English: write [words] in your language", "warning")
    definition = AgentDefinition(
        name=top["name"] or "",
        stt=choices["stt"][0],
        llm=choices["llm"][0],
        tts=choices["tts"][0],
        greeting=top["greeting"] or "",
        goodbye=top["goodbye"],
        no_input=top["no_input"],
        filler=top["filler"],
        apology=top["apology"],
        failure=top["failure"],
        language=top["language"],
        greeting_interruptible=top["greeting_interruptible"],
        turns=TurnTaking(**turns),
        spares={kind: tuple(ranked[1:]) for kind, ranked in choices.items() if ranked[1:]},
        failover=_failover(top["failover"] or {}, script, targets, problems),
        background=top["background"],
        targets=targets,
        terms=terms,
        script=raw_script,
        realtime=_realtime(top["realtime"], problems),
        turn_detector=_turn_detector(top["turn_detector"], problems),
        agents=_agents(top["agents"] or {}, problems, folder, in_files=foreign is None),
        context=_context(top["context"], choices["llm"], problems),
    )
    if not is_tag(definition.language):
        report(("language",), f"{definition.language!r} is no tag of a language: write en-US, es or pt-BR", "error")
    others = read_languages(top["languages"] or {}, definition, partial(_named, problems), report)
    definition = replace(definition, languages=others.languages)
    review(definition, script, report)
    if any(choice.provider == "pocketsphinx" for choice in choices["stt"]):
        _unknown_words(definition, problems)
    if foreign is not None:
        check_headers(raw, foreign, report)
    _check_options(definition, others.written, problems, foreign)
    return definition


def _providers(kind: str, ranked: Any, problems: Problems) -> list[ProviderChoice]:
    """The preferred first."""
    if ranked is None:
        return [ProviderChoice(DEFAULT_PROVIDERS[kind])]
    return [choice for _, choice in _named(problems, kind, ranked, (kind,))]


def _named(problems: Problems, kind: str, ranked: Any, path: Path) -> list[tuple[Path, ProviderChoice]]:
    """With where each stands."""
    if isinstance(ranked, Mapping):
        return [(path, _provider(kind, ranked, path, problems))]
    return [((*path, at), _provider(kind, table, (*path, at), problems)) for at, table in enumerate(ranked)]


def _provider(kind: str, table: Mapping[str, Any], path: Path, problems: Problems) -> ProviderChoice:
    held = keys.read(table, keys.PROVIDER, path, problems.report, extra=True)
    name = held.pop("provider") or DEFAULT_PROVIDERS[kind]
    known = tuple(sorted(provider_names(kind)))
    if known and name not in known:
        problems.report((*path, "provider"), f"there is no {kind} provider {name!r}{nearest(name, known)}", "error")
    return ProviderChoice(name, held)


def _failover(table: Mapping[str, Any], script: Script, targets: Mapping[str, str], problems: Problems) -> Failover:
    """Where the file says nothing else, callers whom nobody can hear or answer go where `[fallback]` sends those who
    are not understood, and in its words."""
    held = keys.read(table, keys.FAILOVER, ("failover",), problems.report)
    fallback = script.fallback
    if fallback.transfer in targets and held["target"] is None:
        if "last_resort" not in table:
            held["last_resort"] = "transfer"
        if held["last_resort"] == "transfer":
            held |= {"target": fallback.transfer, "words": fill(fallback.reply[0], script.variables)}
    target = held["target"]
    if held["last_resort"] == "transfer" and target is None:
        problems.report(("failover",), "target is missing: a name of [targets]", "error")
    if target is not None and target not in targets:
        problems.report(
            ("failover", "target"), f"there is no {target!r} in [targets]{nearest(target, targets)}", "error"
        )
    return Failover(**held)


def _realtime(table: Mapping[str, Any] | None, problems: Problems) -> RealtimeTerms | None:
    if table is None:
        return None
    held = keys.read(table, keys.REALTIME, ("realtime",), problems.report, extra=True)
    common = {name: held.pop(name) for name in keys.REALTIME if name != "provider"}
    choice = _provider("realtime", {"provider": held.pop("provider") or "openai", **held}, ("realtime",), problems)
    return RealtimeTerms(choice, **common)


def _turn_detector(table: Mapping[str, Any] | None, problems: Problems) -> ProviderChoice | None:
    if table is None:
        return None
    if table.get("provider") == NO_DETECTOR:
        keys.read(table, keys.PROVIDER, (TURN_DETECTOR,), problems.report)
        return ProviderChoice(NO_DETECTOR)
    return _provider("turn", {"provider": "rules", **table}, (TURN_DETECTOR,), problems)


def _agents(
    table: Mapping[str, Any], problems: Problems, folder: FilePath | None, *, in_files: bool
) -> dict[str, HandOff]:
    found: dict[str, HandOff] = {}
    for name, terms in table.items():
        path: Path = ("agents", name)
        if not NAME.fullmatch(name):
            problems.report(path, f"{name!r} is not a name: lowercase letters, digits and _", "error")
            continue
        if not isinstance(terms, Mapping):
            problems.report(path, f"must be a table: [agents.{name}]", "error")
            continue
        held = keys.read(terms, keys.AGENT, path, problems.report)
        held["greeting"] = held["greeting"] if "greeting" in terms else ""
        named = held.pop("agent")
        if not in_files:
            held["file"] = _of_tenant(named, terms, path, problems)
        elif "agent" in terms:
            problems.report((*path, "agent"), "is for AI agents of the desk: a file names a file", "error")
        elif "file" not in terms:
            problems.report(path, f"file is missing: {keys.AGENT['file'].meaning}", "error")
        if held["file"] is None or held["when"] is None:
            continue
        if folder is not None:
            file = (folder / held["file"]).resolve()
            if not file.is_file():
                problems.report((*path, "file"), f"there is no file {held['file']!r} beside this one", "error")
            held["file"] = str(file)
        found[name] = HandOff(**held)
    return found


def _of_tenant(named: str | None, terms: Mapping[str, Any], path: Path, problems: Problems) -> str | None:
    if "file" in terms:
        wrong = 'an AI agent of the desk names no files: write agent = "NAME" of another one'
        problems.report((*path, "file"), wrong, "error")
    elif "agent" not in terms:
        problems.report(path, f"agent is missing: {keys.AGENT['agent'].meaning}", "error")
    elif named is not None and not AGENT_NAME.fullmatch(named):
        wrong = f"{named!r} is no name of an AI agent: lowercase letters, digits, _ and -"
        problems.report((*path, "agent"), wrong, "error")
        return None
    return named


def _context(table: Mapping[str, Any] | None, models: list[ProviderChoice], problems: Problems) -> ContextTerms | None:
    if table is None:
        return None
    held = keys.read(table, keys.CONTEXT, ("context",), problems.report)
    named = isinstance(table.get("llm"), Mapping)
    held["llm"] = _provider("llm", held["llm"], ("context", "llm"), problems) if named else None
    summarises = [held["llm"]] if named else models
    if all(choice.provider == "script" for choice in summarises):
        problems.report(("context",), "a script writes no summaries: name a model, [context.llm]", "error")
    return ContextTerms(**held)


def provider_names(kind: str) -> frozenset[str]:
    found = entry_points(group="trunkline.providers")
    return frozenset(entry.name.partition(".")[2] for entry in found if entry.name.startswith(f"{kind}."))


def _check_options(
    definition: AgentDefinition,
    written: Iterable[tuple[Path, str, ProviderChoice]],
    problems: Problems,
    foreign: Shared | None,
) -> None:
    """A provider may offer `check_options(options)`, which raises ConfigError: then its mistakes have a line too. It
    may look at what the options name, so it is not asked of those that a foreign script must not name."""
    choices: list[tuple[Path, str, ProviderChoice]] = []
    for each in KINDS:
        ranked = definition.choices(each)
        choices += [((each, at) if len(ranked) > 1 else (each,), each, choice) for at, choice in enumerate(ranked)]
    if definition.realtime is not None:
        choices.append((("realtime",), "realtime", definition.realtime.model))
    if definition.turn_detector is not None:
        choices.append(((TURN_DETECTOR,), "turn", definition.turn_detector))
    if definition.context is not None and definition.context.llm is not None:
        choices.append((("context", "llm"), "llm", definition.context.llm))
    found = {entry.name: entry for entry in entry_points(group="trunkline.providers")}
    for path, kind, choice in (*choices, *written):
        wrong = () if foreign is None else tuple(foreign.faults(kind, choice.provider, choice.options))
        for name, why in wrong:
            problems.report((*path, name), why, "error")
        if wrong:
            continue
        entry = found.get(f"{kind}.{choice.provider}")
        if entry is None:
            continue
        try:
            check_options = getattr(entry.load(), "check_options", None)
            if check_options is not None:
                check_options(choice.options)
        except ConfigError as error:
            where = (*path, error.key.removeprefix(f"{kind}."))
            problems.report(where, f"is {error.value!r}: {error.allowed}", "error")
        except (MissingExtra, ImportError, AttributeError) as error:
            problems.report((*path, "provider"), str(error), "warning")


def _targets(table: Mapping[str, Any], problems: Problems) -> tuple[dict[str, str], dict[str, TransferTerms]]:
    """The numbers, and the terms of those that are tables."""
    numbers: dict[str, str] = {}
    terms: dict[str, TransferTerms] = {}
    for name, written_as in table.items():
        path: Path = ("targets", name)
        if not NAME.fullmatch(name):
            problems.report(path, f"{name!r} is not a name: lowercase letters, digits and _", "error")
        elif isinstance(written_as, str):
            number = _number(written_as, path, problems)
            if number:
                numbers[name] = number
        elif isinstance(written_as, Mapping):
            held = keys.read(written_as, keys.TARGET, path, problems.report)
            terms[name] = _terms(held, written_as)
            number = _number(held["address"], (*path, "address"), problems) if held["address"] else None
            if number:
                numbers[name] = number
        else:
            problems.report(path, 'must be a number in quotes, such as "+12025550123", or a table', "error")
    _fallbacks(terms, table, problems)
    return numbers, terms


def _terms(held: Mapping[str, Any], given: Mapping[str, Any]) -> TransferTerms:
    return TransferTerms(
        kind=held["kind"],
        summary=held["summary"] if "summary" in given else "",
        prompt=held["prompt"] if "prompt" in given else "",
        ring_s=held["ring_seconds"],
        fallback=held["fallback"],
        after_target=held["after_target"],
        detect_voicemail=held["detect_voicemail"],
    )


def _number(text: str, path: Path, problems: Problems) -> str | None:
    compact = re.sub(r"[ ().-]", "", text)
    try:
        parsed = phonenumbers.parse(compact, None)
    except phonenumbers.NumberParseException:
        problems.report(path, f"{text!r} is not an international number: write +, country and number", "error")
        return None
    if not phonenumbers.is_possible_number(parsed):
        problems.report(path, f"{text!r} has too few or too many digits for its country", "error")
        return None
    if not phonenumbers.is_valid_number(parsed):
        problems.report(path, f"{text!r} is in no known range of its country", "warning")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def _fallbacks(terms: Mapping[str, TransferTerms], table: Mapping[str, Any], problems: Problems) -> None:
    for name, its in terms.items():
        path = ("targets", name, "fallback")
        if its.fallback is not None and its.fallback not in table:
            problems.report(path, f"there is no {its.fallback!r} in [targets]{nearest(its.fallback, table)}", "error")
            continue
        seen, at = [name], its.fallback
        while at is not None and at not in seen:
            seen.append(at)
            at = terms[at].fallback if at in terms else None
        if at == name:
            problems.report(path, f"leads back to itself: {' -> '.join((*seen, name))}", "error")


# --- words that the local recogniser has never heard ----------------------------------------------------------------


@lru_cache(maxsize=1)
def pocketsphinx_words() -> frozenset[str]:
    """The words of PocketSphinx's English dictionary; empty where it is not installed."""
    spec = importlib.util.find_spec("pocketsphinx")
    if spec is None or spec.origin is None:
        return frozenset()
    file = FilePath(spec.origin).parent / "model" / "en-us" / "cmudict-en-us.dict"
    if not file.exists():
        return frozenset()
    with file.open(encoding="utf-8") as lines:
        return frozenset(line.partition(" ")[0] for line in lines)


def _unknown_words(definition: AgentDefinition, problems: Problems) -> None:
    from trunkline.agents.script.phrases import node_words

    known = pocketsphinx_words()
    if not known:
        return
    script = read_script(definition.script, lambda *_: None)
    phrases = [phrase for intent in script.intents for phrase in intent.phrases] + [*script.yes, *script.no]
    for phrase in phrases:
        for word in sorted(node_words(phrase.node) - known):
            problems.report(phrase.path, _not_heard(word), "error")
    for slot in script.slots.values():
        for value, nodes in slot.vocabulary.values.items():
            for word in sorted(frozenset().union(*map(node_words, nodes)) - known):
                problems.report(("slots", slot.name, "values", value), _not_heard(word), "error")


def _not_heard(word: str) -> str:
    return f"the recogniser does not know the word {word!r}: write it in other words, as it sounds"
