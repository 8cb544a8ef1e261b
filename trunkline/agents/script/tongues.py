"""`[languages.TAG]` of an agent's file: the whole agent as it is in that language.

What a table does not say is the file's, where that can be: lines are not (they would be read out in the wrong
language), a voice only if it speaks the language too, the script only with `intents` of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Literal

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.languages import is_tag, primary
from trunkline.agents.script import keys, template
from trunkline.agents.script.keys import Report, Severity
from trunkline.agents.script.lines import Path
from trunkline.agents.script.model import SECTIONS, Script, read_script
from trunkline.agents.script.review import HOURS_VARIABLES, review, texts_of
from trunkline.errors import ConfigError, MissingExtra

Kind = Literal["stt", "llm", "tts"]
KINDS: tuple[Kind, ...] = ("stt", "llm", "tts")
LINES = ("greeting", "goodbye", "no_input", "filler", "apology", "failure")
ENGLISH_ONLY = "pocketsphinx"

Ranked = Callable[[str, Any, Path], list[tuple[Path, ProviderChoice]]]
"""(kind, what is written, where) -> the providers it names, and where each stands."""


@dataclass(slots=True)
class Read:
    languages: dict[str, AgentDefinition] = field(default_factory=dict)
    written: list[tuple[Path, str, ProviderChoice]] = field(default_factory=list)
    """Where, of which kind: the providers that the tables name or change, whose options are still to be checked."""


def read_languages(tables: Mapping[str, Any], definition: AgentDefinition, ranked: Ranked, report: Report) -> Read:
    """`definition`: the file's, in its first language."""
    found = Read()
    tags = [definition.language, *tables]
    for tag, table in tables.items():
        path: Path = ("languages", tag)
        if not isinstance(table, Mapping):
            report(path, f"must be a table: [languages.{tag}]", "error")
        elif not is_tag(tag):
            report(path, f"{tag!r} is no tag of a language: write es, es-ES, pt-BR or zh-Hant", "error")
        elif tag.lower() in (each.lower() for each in tags if each is not tag):
            report(path, f"{tag} is there already", "error")
        else:
            found.languages[tag] = _Reading(tag, table, definition, tuple(tags), report, found).definition(ranked)
    return found


class _Reading:
    """One table."""

    def __init__(
        self, tag: str, table: Mapping[str, Any], file: AgentDefinition, tags: tuple[str, ...], report: Report, to: Read
    ) -> None:
        self.tag, self.table, self.file, self.tags, self.report, self.to = tag, table, file, tags, report, to
        self.path: Path = ("languages", tag)
        self.held = keys.read(table, keys.LANGUAGE, self.path, report)
        self.alike = primary(tag) == primary(file.language)

    def definition(self, ranked: Ranked) -> AgentDefinition:
        sections = {name: self.held[name] for name in SECTIONS if self.held.get(name) is not None}
        if "variables" in sections:
            sections["variables"] = {**self.file.script.get("variables", {}), **sections["variables"]}
        choices = {kind: self._choices(kind, ranked) for kind in KINDS}
        lines = {name: self._line(name) for name in LINES}
        spoken = replace(
            self.file,
            **lines,
            language=self.tag,
            stt=choices["stt"][0],
            llm=choices["llm"][0],
            tts=choices["tts"][0],
            spares={kind: tuple(each[1:]) for kind, each in choices.items() if each[1:]},
            failover=replace(self.file.failover, message=self._message()),
            script={**self.file.script, **sections},
        )
        script = read_script(spoken.script, self._own)
        spoken = replace(spoken, failover=replace(spoken.failover, words=self._words(script)))
        review(spoken, script, self._own, self.tags)
        if any(choice.provider == "script" for choice in choices["llm"]):
            self._script(script)
        return spoken

    def _own(self, path: Path, message: str, severity: Severity) -> None:
        """What is wrong with the file's own script is reported with that."""
        if path and path[0] in self.table:
            self.report((*self.path, *path), message, severity)

    # --- lines ---

    def _line(self, name: str) -> Any:
        ours = getattr(self.file, name)
        if self.held[name] is not None:
            return self.held[name]
        if not self.alike and ours:
            self._missing(name)
        return ours

    def _message(self) -> str:
        failover = keys.read(self.held["failover"] or {}, keys.LANGUAGE_FAILOVER, (*self.path, "failover"), self.report)
        if failover["message"] is None and self.file.failover.last_resort == "message" and not self.alike:
            self._missing("failover.message")
        return str(failover["message"] or self.file.failover.message)

    def _words(self, script: Script) -> str:
        """Of the fallback, where they are the way out's."""
        words = self.file.failover.words
        if "fallback" in self.table and words:
            return template.fill((*script.fallback.reply, "")[0], script.variables)
        return words if self.alike else ""  # then it is `failure`

    def _missing(self, name: str) -> None:
        self.report(self.path, f"{name} is missing: the file has it in {self.file.language} only", "error")

    # --- providers ---

    def _choices(self, kind: Kind, ranked: Ranked) -> list[ProviderChoice]:
        """The preferred first; never empty."""
        table, file = self.held[kind], self.file.choices(kind)
        if table is None:
            inherited = self._all_inherited(kind, file)
            if not inherited:
                self._nobody(kind)
            return inherited or [file[0]]
        if isinstance(table, Mapping) and "provider" not in table:
            changed = ProviderChoice(file[0].provider, {**file[0].options, **table})
            own = self._written(kind, (*self.path, kind), changed, table)
            return [own, *self._all_inherited(kind, file[1:])]
        named = ranked(kind, table, (*self.path, kind))
        return [self._written(kind, path, choice, choice.options) for path, choice in named]

    def _all_inherited(self, kind: Kind, choices: Iterable[ProviderChoice]) -> list[ProviderChoice]:
        return [fitted for choice in choices if (fitted := self._inherited(kind, choice)) is not None]

    def _nobody(self, kind: Kind) -> None:
        wanted = f"no voice of [tts] speaks {self.tag}: name one in [languages.{self.tag}.tts]"
        if kind == "llm":
            wanted = f"[[languages.{self.tag}.intents]] are missing: the script would answer in {self.file.language}"
        self.report(self.path, wanted, "error")

    def _inherited(self, kind: Kind, choice: ProviderChoice) -> ProviderChoice | None:
        """As it serves this language, too; None: it does not."""
        if kind == "tts":
            return self._fitted(kind, choice, inherited=True)
        if kind == "llm" and choice.provider == "script" and not self.alike and "intents" not in self.table:
            return None
        if kind == "stt" and choice.provider == ENGLISH_ONLY and primary(self.tag) != "en":
            if choice == self.file.stt:
                why = f"{ENGLISH_ONLY} hears English only: in {self.tag} callers have their keypad alone"
                self.report(self.path, f"{why}; [languages.{self.tag}.stt] may name another", "warning")
                return choice
            return None
        return choice

    def _written(self, kind: str, path: Path, choice: ProviderChoice, own: Mapping[str, Any]) -> ProviderChoice:
        fitted = self._fitted(kind, choice, inherited=False)
        wrong = [name for name in own if fitted is not None and fitted.options.get(name) != own[name]]
        if fitted is None or wrong:
            name = own[wrong[0]] if wrong else choice.options.get("model", choice.provider)
            self.report((*path, *wrong[:1]), f"{name} does not speak {self.tag}", "error")
            fitted = None
        made = fitted or choice
        self.to.written.append((path, kind, made))
        return made

    def _fitted(self, kind: str, choice: ProviderChoice, *, inherited: bool) -> ProviderChoice | None:
        """What the provider says of the language (`in_language`)."""
        found = [e for e in entry_points(group="trunkline.providers") if e.name == f"{kind}.{choice.provider}"]
        try:
            in_language = getattr(found[0].load(), "in_language", None) if found else None
            if in_language is None:
                return choice
            options = in_language(choice.options, self.tag, inherited=inherited)
        except (MissingExtra, ImportError, AttributeError, ConfigError):  # said where its options are checked
            return choice
        return None if options is None else ProviderChoice(choice.provider, options)

    # --- the script, as an answer ---

    def _script(self, script: Script) -> None:
        if self.alike or "intents" not in self.table:
            return
        if "fallback" not in self.table:
            self._missing("fallback")
        if "words" not in self.table and primary(self.tag) != "en":
            why = f"words is missing: yes, no, repeat and goodbye are in {self.file.language}"
            self.report(self.path, why, "warning")
        for section in ("slots", "digits", "tools"):
            if section not in self.table and (used := sorted(self._used(script, section))):
                where = f"[{section}.{used[0]}] is in {self.file.language}"
                self.report(self.path, f"{where}: write [languages.{self.tag}.{section}.{used[0]}]", "warning")
        if primary(self.tag) == "en":
            return
        for section in ("intents", "digits", "fallback"):
            for path, text in texts_of(self.table.get(section)):
                for name in template.variables(text):
                    if name in HOURS_VARIABLES:
                        self.report((*self.path, section, *path), f"{{{name}}} is said in English", "warning")

    def _used(self, script: Script, section: str) -> Iterator[str]:
        there: Mapping[str, Any] = getattr(script, section)
        for intent in script.intents:
            yield from (name for name in (*intent.ask, intent.tool or "") if name in there)
