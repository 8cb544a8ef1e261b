"""The conversation of a script: one message in, the state after it and what to say and do out. No clock, no wires.

A State is a value, so a reply that is thrown away (a speculation, an interruption before its first word) leaves no
trace: the session just goes on from the state before. What is open, at most one of each:

- a Task: an intent that still needs answers (`ask`), or a yes (`confirm`), before it replies and acts
- a Question: what the caller was asked last: a slot, digits, the read-back of spoken digits, or the intent's confirm
- a Waiting: a tool at work, whose result will lead to the reply

Whatever is open, the caller may change the subject: a phrase of any intent starts that intent, and what was open is
forgotten. Only repeat forgets nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import SPEAK_LANGUAGE, primary
from trunkline.agents.script import template
from trunkline.agents.script.grammar import (
    DIGITS,
    MAIN,
    NO,
    SLOT,
    YES,
    YES_NO,
    Grammar,
    Meaning,
    expected_grammar,
    script_grammars,
    slot_grammar,
)
from trunkline.agents.script.model import HAND_OFF, HANG_UP, TRANSFER, DigitsEntry, Intent, Script
from trunkline.agents.script.review import OF_THE_CALL, texts_of
from trunkline.agents.script.words import say_digits, spoken_digits
from trunkline.ports import (
    CallFacts,
    Expect,
    Expectation,
    LlmEvent,
    Message,
    OpenQuestion,
    TextDelta,
    ToolCall,
    is_vouched,
)

YES_KEY, NO_KEY = "1", "2"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Task:
    intent: str
    missing: tuple[str, ...] = ()
    entry: str | None = None
    """The digits that were asked for: their reply and action serve where the intent has none."""
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    kind: Literal["slot", "digits", "read_back", "confirm"]
    name: str
    held: str = ""
    """read_back: the digits heard."""


@dataclass(frozen=True, slots=True)
class Waiting:
    call_id: str
    reply: tuple[str, ...] = ()
    """Spoken when the tool has succeeded."""
    reply_key: str = ""
    error: str = ""
    last_resort: bool = False
    """The fallback's transfer: if it fails too, the call ends."""


@dataclass(frozen=True, slots=True)
class State:
    last: str
    """The last reply, for `repeat`."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What the caller and the tools have told, by name."""
    spoken: Mapping[str, str] = field(default_factory=dict)
    """How a value is said where that differs: digits."""
    task: Task | None = None
    question: Question | None = None
    waiting: Waiting | None = None
    said: Mapping[str, int] = field(default_factory=dict)
    """How often each reply has been given: variations take turns."""
    misunderstood: int = 0
    """Times in a row."""
    calls: int = 0
    language: str = ""
    """What the dialog that left it speaks."""


class Dialog:
    """One agent's conversation with one call. Reads only; everything that changes is in State."""

    def __init__(
        self,
        definition: AgentDefinition,
        script: Script,
        grammars: Mapping[str, Grammar],
        call: CallFacts,
        greetings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`greetings`: by the agent's languages."""
        self.definition, self.script, self.grammars, self.call = definition, script, grammars, call
        self.greetings = greetings

    def first_state(self) -> State:
        return State(last=self.definition.greeting, language=self.definition.language)

    def taken_over(self, state: State) -> State:
        """As this dialog goes on from what one in another language has left. What is open stays open where this script
        knows it too."""
        if state.language == self.definition.language:
            return state
        task, question = state.task, state.question
        known = {*self.script.slots, *self.script.digits, *(intent.name for intent in self.script.intents)}
        names = [*((task.intent, *task.missing) if task else ()), *((question.name,) if question else ())]
        if not known.issuperset(names):
            task = question = None
        last, language = self.definition.greeting, self.definition.language
        return replace(state, last=last, language=language, task=task, question=question, said={}, misunderstood=0)

    def answer(
        self, state: State, unanswered: Sequence[Message], now: datetime, *, understood: bool = True
    ) -> tuple[State, tuple[LlmEvent, ...]]:
        """Answer a tool's result, or what the caller said since the agent was last heard. `understood` is of the last.
        `now` is timezone-aware: the opening hours are asked of it."""
        turn = _Turn(self, state, now)
        last = unanswered[-1]
        if last.role == "tool":
            turn.tool_answered(last)
        elif last.keyed:
            turn.keyed(last.text)
        else:
            turn.heard([message.text for message in unanswered if not message.keyed], understood)
        events = tuple(turn.events())
        return turn.state, events

    def expectation(self, question: Question | None) -> Expectation:
        """What may come next: a question's answer, else an intent by its phrase or its key."""
        if question is None:
            keys = 1 if any(intent.key for intent in self.script.intents) else 0
            return Expectation(MAIN, keys, keys)
        match question.kind:
            case "slot":
                return Expectation(slot_grammar(question.name))
            case "digits":
                entry = self.script.digits[question.name]
                return Expectation(expected_grammar(entry), entry.min, entry.max)
            case _:
                return Expectation(YES_NO, 1, 1)

    def left_open(self, state: State, now: datetime) -> OpenQuestion | None:
        if state.question is None:
            return None
        turn = _Turn(self, state, now)
        turn.ask_again()
        return OpenQuestion(" ".join(turn.texts), self.expectation(state.question))

    def understand(self, question: Question | None, texts: Sequence[str], last_understood: bool) -> Meaning | None:
        """What the caller means who said `texts` one after the other, without an answer between.

        A sentence may have been taken for two, so all together is tried first; else the last counts, else an earlier.
        """
        *earlier, last = texts
        found = None
        if last_understood:
            found = self.exactly(question, " ".join(texts)) or self.nearly(question, last)
        if found is None and earlier:
            found = self.nearly(question, " ".join(texts)) if last_understood else None
            for text in reversed(earlier):
                found = found or self.exactly(question, text)
        return found

    def exactly(self, question: Question | None, text: str) -> Meaning | None:
        """Phrases of the open question first, then of any intent."""
        return self.grammars[self.expectation(question).grammar].parse(text) or self.grammars[MAIN].parse(text)

    def nearly(self, question: Question | None, text: str) -> Meaning | None:
        asked = self.grammars[self.expectation(question).grammar]
        return (
            self.exactly(question, text)
            or (asked.opening(text, (YES, NO)) if asked.name == YES_NO else None)
            or asked.understand(text)
            or self.grammars[MAIN].understand(text)
        )


def make_dialog(definition: AgentDefinition, call: CallFacts) -> Dialog:
    """Raises ConfigError."""
    script = Script.of(definition)
    return Dialog(definition, script, script_grammars(script), call)


class _Turn:
    """One answer in the making."""

    def __init__(self, dialog: Dialog, state: State, now: datetime) -> None:
        self.dialog, self.script, self.now = dialog, dialog.script, now
        self.before, self.state = state, state
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.expects = True

    def events(self) -> list[LlmEvent]:
        text = " ".join(self.texts)
        if text:
            self.state = replace(self.state, last=text)
        found: list[LlmEvent] = [TextDelta(sentence) for sentence in sentences(text)]
        found += self.calls
        if self.expects:
            found.append(Expect(self.dialog.expectation(self.state.question)))
        return found

    def ask_again(self) -> None:
        """What is open."""
        if self.state.question is not None:
            self._ask(self.state.question)

    # --- what came in ---

    def heard(self, texts: Sequence[str], understood: bool) -> None:
        question = self.state.question
        meaning = self.dialog.understand(question, texts, understood)
        if meaning is None:
            asked = self.script.digits.get(question.name) if question and question.kind == "digits" else None
            if asked is not None and asked.spoken and understood and spoken_digits(texts[-1]) is not None:
                self._invalid(asked)  # a number, but of the wrong length
            else:
                self._not_understood()
            return
        self._understood()
        match meaning.intent:
            case x if x == YES:
                self._yes()
            case x if x == NO:
                self._no()
            case x if x == SLOT:
                self._told(meaning.slots)
            case x if x == DIGITS and question is not None:
                self._digits(self.script.digits[question.name], meaning.slots["digits"], spoken=True)
            case "repeat":
                self.texts.append(self.before.last)
            case "goodbye":
                self._goodbye()
            case name:
                self._start(name, meaning.slots)

    def keyed(self, keys: str) -> None:
        digits = keys.strip().removesuffix("#")
        question = self.state.question
        self.state = replace(self.state, waiting=None)
        by_key = next((intent for intent in self.script.intents if intent.key == digits), None)
        if question is not None and question.kind in ("confirm", "read_back") and digits in (YES_KEY, NO_KEY):
            self._understood()
            self._yes() if digits == YES_KEY else self._no()
        elif question is not None and question.kind in ("digits", "read_back"):
            entry = self.script.digits[question.name]
            if by_key is not None and by_key.anywhere and len(digits) < entry.min:
                self._start(by_key.name, {})
            else:
                self._digits(entry, digits, spoken=False)
        elif by_key is not None:
            self._understood()
            self._start(by_key.name, {})
        else:
            self._not_understood()

    def tool_answered(self, message: Message) -> None:
        waiting = self.state.waiting
        if waiting is None or waiting.call_id != message.tool_call_id:
            self.expects = False  # the caller has changed the subject meanwhile
            return
        self.state = replace(self.state, waiting=None)
        result = _result(message.text)
        if result is None:
            self._say(waiting.error)
            if waiting.last_resort:
                self._goodbye()
            return
        self._keep(result)
        self._say_variation(waiting.reply_key, waiting.reply)
        self.expects = bool(self.texts)

    # --- the ladder of misunderstanding ---

    def _understood(self) -> None:
        self.state = replace(self.state, misunderstood=0, waiting=None)

    def _not_understood(self) -> None:
        if self._step_down():
            self._say(self.script.fallback.not_understood[self.state.misunderstood - 1])
            self.ask_again()

    def _invalid(self, entry: DigitsEntry) -> None:
        if self._step_down():
            self._say(entry.invalid)
            self._ask(Question("digits", entry.name))

    def _step_down(self) -> bool:
        """One more misunderstanding in a row; False when that was the last and the way out is taken."""
        self.state = replace(self.state, misunderstood=self.state.misunderstood + 1, waiting=None)
        fallback = self.script.fallback
        if self.state.misunderstood <= len(fallback.not_understood):
            return True
        self._say_variation("fallback", fallback.reply)
        self.state = replace(self.state, task=None, question=None, misunderstood=0)
        if fallback.transfer is None:
            self._goodbye()
        else:
            self._call(
                TRANSFER, {"target": fallback.transfer}, Waiting("", error=fallback.no_transfer, last_resort=True)
            )
        return False

    # --- intents, step by step ---

    def _start(self, name: str, slots: Mapping[str, str]) -> None:
        intent = self.script.intent(name)
        assert intent is not None, f"a grammar has an intent that the script has not: {name}"
        self.state = replace(self.state, question=None, misunderstood=0, waiting=None)
        self._keep(slots)
        hours = self.script.hours
        if intent.reply_closed and hours is not None and not hours.is_open(self.now):
            self.state = replace(self.state, task=None)
            self._say_variation(f"closed {name}", intent.reply_closed)
            return
        missing = tuple(wanted for wanted in intent.ask if wanted not in slots)
        self._proceed(Task(name, missing))

    def _proceed(self, task: Task) -> None:
        intent = self.script.intent(task.intent)
        assert intent is not None, f"a task of no intent: {task.intent}"
        self.state = replace(self.state, task=task, question=None)
        if task.missing:
            name = task.missing[0]
            self._ask(Question("digits" if name in self.script.digits else "slot", name))
        elif intent.confirm is not None and not task.confirmed:
            self._ask(Question("confirm", intent.name))
        else:
            self._finish(intent, self.script.digits.get(task.entry or ""))

    def _finish(self, intent: Intent, entry: DigitsEntry | None) -> None:
        self.state = replace(self.state, task=None, question=None)
        key, reply = f"intent {intent.name}", intent.reply
        if intent.language is not None:
            greeting = self.dialog.greetings.get(intent.language, "")
            self._call(SPEAK_LANGUAGE, {"language": intent.language}, Waiting("", reply or (greeting,), key))
            return
        if not reply and entry is not None:
            key, reply = f"digits {entry.name}", entry.reply
        transfer, name, agent = intent.transfer, intent.tool, intent.hand_off
        if transfer is None and name is None and agent is None and entry is not None:
            transfer, name, agent = entry.transfer, entry.tool, entry.hand_off
        tool = self.script.tools.get(name or "")
        if tool is not None and tool.type in ("http", "call_back"):
            self._say(tool.wait)
            self._call(tool.name, self._arguments(tool.name), Waiting("", reply, key, tool.error))
            return
        self._say_variation(key, reply)
        if transfer is not None:
            self._call(TRANSFER, {"target": transfer}, Waiting("", error=self.script.fallback.no_transfer))
        elif agent is not None:
            self._call(HAND_OFF, {"agent": agent}, Waiting("", error=self.script.fallback.no_transfer))
        elif tool is not None:
            self._call(tool.name, {}, Waiting("", error=tool.error))
        elif name == HANG_UP:
            self._call(HANG_UP, {}, Waiting(""))

    def _ask(self, question: Question) -> None:
        self.state = replace(self.state, question=question)
        match question.kind:
            case "slot":
                self._say(self.script.slots[question.name].prompt or "")
            case "digits":
                self._say(self.script.digits[question.name].prompt)
            case "read_back":
                said = self._digits_said(question.held)
                spoken = {"digits": said, question.name: said}
                self._say(self.script.digits[question.name].confirm, spoken)
            case "confirm":
                intent = self.script.intent(question.name)
                self._say((intent.confirm if intent else None) or "")

    def _told(self, values: Mapping[str, str], spoken: Mapping[str, str] | None = None) -> None:
        self._keep(values, spoken)
        task = self.state.task
        if task is not None:
            self._proceed(replace(task, missing=tuple(name for name in task.missing if name not in values)))

    def _digits(self, entry: DigitsEntry, digits: str, *, spoken: bool) -> None:
        if not digits.isdecimal() or not entry.valid(digits):
            self._invalid(entry)
        elif spoken:
            self._ask(Question("read_back", entry.name, digits))
        else:
            self._accept(entry, digits)

    def _accept(self, entry: DigitsEntry, digits: str) -> None:
        self._understood()
        if self.state.task is not None:
            self.state = replace(self.state, task=replace(self.state.task, entry=entry.name))
        said = self._digits_said(digits)
        self._told({entry.name: digits, "digits": digits}, {entry.name: said, "digits": said})

    def _yes(self) -> None:
        question, task = self.state.question, self.state.task
        if question is not None and question.kind == "read_back":
            self._accept(self.script.digits[question.name], question.held)
        elif task is not None:
            self._proceed(replace(task, confirmed=True))

    def _no(self) -> None:
        question, task = self.state.question, self.state.task
        if question is not None and question.kind == "read_back":
            self.state = replace(self.state, misunderstood=self.before.misunderstood)  # wrong again is a step down
            if self._step_down():
                self._ask(Question("digits", question.name))
        elif task is not None:
            intent = self.script.intent(task.intent)
            self.state = replace(self.state, task=None, question=None)
            self._say(intent.declined if intent else "")

    def _goodbye(self) -> None:
        self.state = replace(self.state, task=None, question=None)
        self._say(self.dialog.definition.goodbye)
        self._call(HANG_UP, {}, Waiting(""))

    # --- words and deeds ---

    def _keep(self, values: Mapping[str, str], spoken: Mapping[str, str] | None = None) -> None:
        others = {name: said for name, said in self.state.spoken.items() if name not in values}
        self.state = replace(self.state, values={**self.state.values, **values}, spoken={**others, **(spoken or {})})

    def _say(self, text: str, more: Mapping[str, str] | None = None) -> None:
        filled = " ".join(template.fill(text, {**self._spoken_values(), **(more or {})}).split())
        if filled:
            self.texts.append(filled)

    def _digits_said(self, digits: str) -> str:
        """In English as words; in another language one by one, as its voice says them."""
        return say_digits(digits) if primary(self.dialog.definition.language) == "en" else ", ".join(digits)

    def _say_variation(self, key: str, texts: tuple[str, ...]) -> None:
        if not texts:
            return
        count = self.state.said.get(key, 0)
        self.state = replace(self.state, said={**self.state.said, key: count + 1})
        self._say(texts[count % len(texts)])

    def _call(self, name: str, arguments: Mapping[str, Any], waiting: Waiting) -> None:
        number = self.state.calls + 1
        call = ToolCall(f"script_{number}", name, arguments)
        self.state = replace(self.state, calls=number, waiting=replace(waiting, call_id=call.id))
        self.calls.append(call)
        self.expects = False

    def _arguments(self, tool_name: str) -> dict[str, str]:
        tool = self.script.tools[tool_name]
        texts = [tool.url, *(text for _, text in texts_of(tool.body))]
        needed = {name for text in texts for name in template.variables(text)}
        values = {**self._fixed_values(), **self.state.values}
        return {name: values[name] for name in sorted(needed) if name in values and name not in OF_THE_CALL}

    def _fixed_values(self) -> dict[str, str]:
        hours = self.script.hours
        return {
            "name": self.dialog.definition.name,
            "caller_number": self.dialog.call.from_number or "",
            "caller_verified": "yes" if is_vouched(self.dialog.call.stir) else "no",
            **(hours.spoken(self.now) if hours is not None else {}),
            **self.script.variables,
        }

    def _spoken_values(self) -> dict[str, str]:
        values = {**self._fixed_values(), **self.state.values, **self.state.spoken}
        values["caller_number"] = self._digits_said(re.sub(r"\D", "", values["caller_number"]))
        return values


def sentences(text: str) -> list[str]:
    """`text` phrase by phrase, so that the first can be spoken at once. Joined they are `text`."""
    parts = _SENTENCE_END.split(text) if text else []
    return [part if at == len(parts) - 1 else part + " " for at, part in enumerate(parts)]


def _result(text: str) -> dict[str, str] | None:
    """The variables of a tool that succeeded; None of one that failed."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        return None
    result = answer.get("result")
    return {str(k): str(v) for k, v in result.items()} if isinstance(result, dict) else {}
