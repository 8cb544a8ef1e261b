"""`llm.script`: the agent's own script as the mind of a call. Everything it decides is in `agents/script/dialog.py`.

A session keeps the state after each message it has answered, by how long the conversation was then. An answer that
was thrown away, or cut before a word of it was heard, needs no undoing: the next one starts from the state in which the
agent was last heard.

A conversation that began elsewhere (a leg, a worker or a region that is gone) is gone through again, so that a question
which was open is open still. What another agent said there is not what the script would have said: that counts as
nothing.
"""

from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trunkline.agents import languages
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.script.dialog import Dialog, State
from trunkline.agents.script.grammar import Grammar, script_grammars
from trunkline.agents.script.model import Script
from trunkline.clock import Clock
from trunkline.errors import ConfigError
from trunkline.ports import CallFacts, LlmEvent, Message, OpenQuestion, TextDelta

_STATES_KEPT = 8  # a speculation, a retry and a tool result reach back two or three


class ScriptLlm:
    name = "script"
    third_party = False
    continues = False
    speculates = False
    """It cannot go on with what another has begun: it answers anew."""

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError."""
        self.check_options(options)
        self._definition, self._clock = definition, services.clock
        self._spoken = {tag: _spoken(definition.in_language(tag)) for tag in definition.tags}

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            raise ConfigError(key, value, "the script has no options")

    async def start(self) -> None:
        pass

    def open(self, call: CallFacts) -> "ScriptSession":
        greetings = {tag: definition.greeting for tag, (definition, _, _) in self._spoken.items()}
        dialogs = {tag: Dialog(*spoken, call, greetings) for tag, spoken in self._spoken.items()}
        return ScriptSession(dialogs, self._clock)

    async def close(self) -> None:
        pass


def _spoken(definition: AgentDefinition) -> tuple[AgentDefinition, Script, dict[str, Grammar]]:
    script = Script.of(definition)
    return definition, script, script_grammars(script)


class ScriptSession:
    def __init__(self, dialogs: Mapping[str, Dialog], clock: Clock) -> None:
        """`dialogs`: by their languages, the agent's first first."""
        self._dialogs, self._clock = dialogs, clock
        self._states: deque[tuple[int, Message, State]] = deque(maxlen=_STATES_KEPT)

    def left_open(self, conversation: Sequence[Message]) -> OpenQuestion | None:
        if not conversation:
            return None
        dialog, state = self._settled(conversation, _answered(conversation))
        return dialog.left_open(state, self._clock.wall())

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        """All events are there at once. Asking again about the same conversation gives the same answer."""
        if not conversation or conversation[-1].role == "agent":
            return
        if conversation[-1].role == "tool" and not self._states:  # of whoever handed the call to us
            conversation = conversation[: _last_of_caller(conversation)]
        if not conversation:
            return
        answered = _answered(conversation)
        dialog, state = self._settled(conversation, answered)
        state, events = dialog.answer(state, conversation[answered:], self._clock.wall(), understood=understood)
        self._states.append((len(conversation), conversation[-1], state))
        for event in events:
            yield event

    def close(self) -> None:
        self._states.clear()

    def _settled(self, conversation: Sequence[Message], answered: int) -> tuple[Dialog, State]:
        """Who answers what comes after `answered` messages, and from where on."""
        dialog = self._dialogs[languages.of_conversation(conversation, tuple(self._dialogs))]
        return dialog, dialog.taken_over(self._state_at(dialog, conversation[:answered]))

    def _state_at(self, dialog: Dialog, conversation: Sequence[Message]) -> State:
        """After the newest message of `conversation` that this session has answered."""
        if conversation and conversation[0].role == "summary":  # of what stood there: positions say nothing
            known = [state for _, answered, state in self._states if answered in conversation]
            if known:
                return known[-1]
        while self._states:
            length, answered, state = self._states[-1]
            if length <= len(conversation) and conversation[length - 1] == answered:
                return state
            self._states.pop()
        calls = sum(message.role == "tool" for message in conversation)  # of others: no name is given twice
        return replace(self._again(dialog, conversation), calls=calls)

    def _again(self, dialog: Dialog, conversation: Sequence[Message]) -> State:
        """The state that a conversation was left in by the same script."""
        first = state = dialog.first_state()
        said: list[Message] = []
        reply: list[str] | None = None  # that the script would have given, in words
        for message in conversation:
            if message.role == "caller":
                said.append(message)
                continue
            if said:
                state, reply = self._answered_again(dialog, state, said)
                said = []
            if message.role == "tool" and reply is not None:
                state, more = self._answered_again(dialog, state, [message])
                reply += more
            elif message.role == "agent" and message.text and reply is not None:
                heard = message.text.split()
                if reply[: len(heard)] != heard:
                    state = first
                reply = None  # what it says without being asked (are you there?) changes nothing
        return state

    def _answered_again(self, dialog: Dialog, state: State, said: Sequence[Message]) -> tuple[State, list[str]]:
        state, events = dialog.answer(state, said, self._clock.wall())
        return state, "".join(event.text for event in events if isinstance(event, TextDelta)).split()


def _last_of_caller(conversation: Sequence[Message]) -> int:
    """The end of what the caller said last."""
    at = len(conversation)
    while at and conversation[at - 1].role != "caller":
        at -= 1
    return at


def _answered(conversation: Sequence[Message]) -> int:
    """How many messages are settled: all before a tool's result, or before what the caller said since the agent was
    last heard."""
    if conversation[-1].role == "tool":
        return len(conversation) - 1
    at = len(conversation)
    while at and conversation[at - 1].role == "caller":
        at -= 1
    return at
