"""What no single key shows: names that lead nowhere, variables no one sets, phrases that two intents claim."""

from collections.abc import Iterable

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.script import template
from trunkline.agents.script.keys import Report, nearest
from trunkline.agents.script.lines import Path
from trunkline.agents.script.model import HANG_UP, Intent, Script, Tool
from trunkline.agents.script.phrases import expansions, slot_names, sure_slots

OF_THE_CALL = ("caller_number", "caller_verified")
"""Values that no model and no caller gives."""
BUILT_IN_VARIABLES = ("name", "today", "hours_today", "next_opening", *OF_THE_CALL, "digits")
HOURS_VARIABLES = ("today", "hours_today", "next_opening")
_WAYS_COMPARED = 100  # ways of saying one phrase that are compared with other intents' phrases


def review(definition: AgentDefinition, script: Script, report: Report, tags: tuple[str, ...] = ()) -> None:
    """`tags`: of the agent's languages, where they are not the definition's."""
    _Review(definition, script, report, tags or definition.tags).run()


def _without(text: str, names: Iterable[str]) -> str:
    for name in names:
        text = text.replace("{" + name + "}", "")
    return text


class _Review:
    def __init__(self, definition: AgentDefinition, script: Script, report: Report, tags: tuple[str, ...]) -> None:
        self.definition, self.script, self.report, self.tags = definition, script, report, tags
        self.known = {
            *BUILT_IN_VARIABLES,
            *script.variables,
            *script.slots,
            *script.digits,
            *(name for tool in script.tools.values() for name in tool.result),
        }

        self._by_script = any(choice.provider == "script" for choice in definition.choices("llm"))

    def run(self) -> None:
        self._names()
        for intent in self.script.intents:
            if intent.name == intent.path[-1]:
                continue  # built in
            self._intent(intent)
        for entry in self.script.digits.values():
            path: Path = ("digits", entry.name)
            given = {entry.name, "digits"}
            self._action(path, entry.transfer, entry.tool, entry.hand_off)
            self._texts((*path, "reply"), entry.reply, given | self._tool_results(entry.tool))
            for key in ("prompt", "confirm", "invalid"):
                self._texts((*path, key), (getattr(entry, key),), given)
        for tool in self.script.tools.values():
            self._tool(tool)
        fallback = self.script.fallback
        self._action(("fallback",), fallback.transfer, None, None)
        self._texts(("fallback", "not_understood"), fallback.not_understood, self.known)
        self._texts(("fallback", "reply"), fallback.reply, self.known)
        self._texts(("fallback", "no_transfer"), (fallback.no_transfer,), self.known)
        for key in ("greeting", "goodbye", "apology", "failure"):
            if template.variables(getattr(self.definition, key)):
                self.report((key,), "is spoken as it is written: it cannot hold a {variable}", "error")
        if self._by_script and self.definition.realtime is None and len(self.script.intents) == 2:
            self.report((), "there are no [[intents]]: the agent would understand nothing", "error")
        self._same_phrases()

    def _names(self) -> None:
        seen: dict[str, Path] = {}
        keys: dict[str, str] = {}
        for intent in self.script.intents:
            if intent.name in seen:
                self.report((*intent.path, "name"), f"there is another intent {intent.name}", "error")
            seen[intent.name] = intent.path
            if intent.key is not None and keys.setdefault(intent.key, intent.name) != intent.name:
                self.report((*intent.path, "key"), f"key {intent.key} is also the key of {keys[intent.key]}", "error")
        for name in self.script.digits:
            if name in self.script.slots:
                self.report(("digits", name), f"there is also a [slots.{name}]; choose another name", "error")
        for section, names in (
            ("slots", self.script.slots),
            ("digits", self.script.digits),
            ("variables", self.script.variables),
        ):
            for name in names:
                if name in BUILT_IN_VARIABLES:
                    self.report((section, name), f"{name} is a variable of ours; choose another name", "error")

    def _intent(self, intent: Intent) -> None:
        path = intent.path
        if not intent.phrases and intent.key is None and self._by_script:
            self.report(path, "has neither phrases nor a key: no caller can reach it", "error")
        for phrase in intent.phrases:
            for name in sorted(slot_names(phrase.node) - set(self.script.slots)):
                self.report(phrase.path, f"there is no [slots.{name}]{nearest(name, self.script.slots)}", "error")
        for at, name in enumerate(intent.ask):
            if name in self.script.slots:
                if self.script.slots[name].prompt is None:
                    self.report(("slots", name), f"prompt is missing: {intent.name} asks for it", "error")
            elif name not in self.script.digits:
                there = (*self.script.slots, *self.script.digits)
                self.report((*path, "ask", at), f"there are no slots or digits {name!r}{nearest(name, there)}", "error")
        self._action(path, intent.transfer, intent.tool, intent.hand_off)
        if intent.language is not None and intent.language not in self.tags:
            wrong = f"there is no {intent.language!r} in [languages]{nearest(intent.language, self.tags)}"
            self.report((*path, "language"), wrong, "error")
        if intent.language is not None and (intent.transfer or intent.tool or intent.hand_off):
            self.report((*path, "language"), "choose one of language, transfer, tool and hand_off", "error")
        if intent.reply_closed and self.script.hours is None:
            self.report((*path, "reply_closed"), "there are no [hours]: it would never be spoken", "warning")
        self._silent(intent)
        given = set(intent.ask) | ({"digits"} if any(name in self.script.digits for name in intent.ask) else set())
        if intent.phrases and intent.key is None:
            given |= frozenset.intersection(*(sure_slots(phrase.node) for phrase in intent.phrases))
        if intent.confirm is not None:
            self._texts((*path, "confirm"), (intent.confirm,), given)
        self._texts((*path, "declined"), (intent.declined,), given)
        self._texts((*path, "reply"), intent.reply, given | self._tool_results(intent.tool))
        self._texts((*path, "reply_closed"), intent.reply_closed, given)

    def _silent(self, intent: Intent) -> None:
        asked = [self.script.digits[name] for name in intent.ask if name in self.script.digits]
        answers = intent.language is not None or bool(intent.reply)  # a language greets
        answers = answers or any(entry.reply or entry.tool or entry.transfer or entry.hand_off for entry in asked)
        if not answers and intent.transfer is None and intent.hand_off is None and intent.tool != HANG_UP:
            self.report(intent.path, "has no reply: the caller would hear nothing", "error")
        if intent.reply and any(entry.reply for entry in asked):
            self.report((*intent.path, "reply"), "is spoken; the reply of the digits it asks for is not", "warning")

    def _action(self, path: Path, transfer: str | None, tool: str | None, hand_off: str | None) -> None:
        if transfer is not None and transfer not in self.definition.targets:
            there = nearest(transfer, tuple(self.definition.targets))
            self.report((*path, "transfer"), f"there is no {transfer!r} in [targets]{there}", "error")
        if tool is not None and tool != HANG_UP and tool not in self.script.tools:
            there = nearest(tool, (*self.script.tools, HANG_UP))
            self.report((*path, "tool"), f"there is no [tools.{tool}]{there}", "error")
        if hand_off is not None and hand_off not in self.definition.agents:
            there = nearest(hand_off, tuple(self.definition.agents))
            self.report((*path, "hand_off"), f"there is no [agents.{hand_off}]{there}", "error")
        if transfer is not None and tool is not None:
            self.report((*path, "tool"), "choose one of transfer and tool", "error")
        elif hand_off is not None and (transfer is not None or tool is not None):
            self.report((*path, "hand_off"), "choose one of hand_off, transfer and tool", "error")

    def _tool(self, tool: Tool) -> None:
        path: Path = ("tools", tool.name)
        self._texts((*path, "error"), (tool.error,), self.known)
        if tool.type == "transfer" and tool.target not in self.definition.targets:
            there = nearest(tool.target or "", tuple(self.definition.targets))
            self.report((*path, "target"), f"there is no {tool.target!r} in [targets]{there}", "error")
        if tool.type == "hand_off" and tool.agent not in self.definition.agents:
            there = nearest(tool.agent or "", tuple(self.definition.agents))
            self.report((*path, "agent"), f"there is no [agents.{tool.agent}]{there}", "error")
        if tool.type != "http":
            return
        self._texts((*path, "url"), (tool.url,), self.known)
        self._texts((*path, "wait"), (tool.wait,), self.known)
        for where, text in texts_of(tool.body):
            self._texts((*path, "body", *where), (_without(text, tool.secure),), self.known)
        if tool.url.startswith("http:"):
            self.report(
                (*path, "url"), "http:// is sent in the clear: use https:// outside your own network", "warning"
            )
        if tool.body and tool.method == "GET":
            self.report((*path, "body"), 'a GET has no body: add method = "POST"', "error")
        for name in tool.result:
            if not template.NAME.fullmatch(name):
                self.report((*path, "result", name), f"{name!r} is not a name: lowercase letters, digits, _", "error")

    def _tool_results(self, tool: str | None) -> set[str]:
        found = self.script.tools.get(tool or "")
        return set(found.result) if found else set()

    def _texts(self, path: Path, texts: Iterable[str], given: Iterable[str]) -> None:
        always = {*given, *self.script.variables, "name", "caller_number"}
        if self.script.hours is not None:
            always |= {*HOURS_VARIABLES}
        for text in texts:
            for wrong in template.faults(text):
                self.report(path, wrong, "error")
            for name in template.variables(text):
                if not template.NAME.fullmatch(name):
                    continue
                if name not in self.known:
                    self.report(
                        path, f"there is no variable {{{name}}}{nearest(name, tuple(sorted(self.known)))}", "error"
                    )
                elif name in HOURS_VARIABLES and self.script.hours is None:
                    self.report(path, f"{{{name}}} needs [hours]", "error")
                elif name not in always:
                    self.report(path, f"{{{name}}} may not be known here: ask for it first", "warning")

    def _same_phrases(self) -> None:
        claimed: dict[tuple[str, ...], str] = {}
        vocabularies = self.script.vocabularies
        for intent in self.script.intents:
            for phrase in intent.phrases:
                for said, _ in expansions(phrase.node, vocabularies, _WAYS_COMPARED):
                    other = claimed.setdefault(said, intent.name)
                    if other != intent.name:
                        self.report(phrase.path, f"'{' '.join(said)}' is also a phrase of {other}", "warning")
                        break


def texts_of(value: object, path: Path = ()) -> Iterable[tuple[Path, str]]:
    """Every text in a JSON-like value, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from texts_of(each, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            yield from texts_of(each, (*path, at))
