"""Who attends a call, one after another: the agent it began with, the cascade that one falls back to, another agent it
is handed to, and the same again after a transfer or a lost leg.

There is one way of changing: who attends leaves, the conversation as it was heard stays, and who follows takes the line
with a line of their own or answers what the caller said last. Whom the caller's audio and text would newly be given to
is asked of the third_party door beforehand: a hand-off that it refuses changes nothing.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trunkline.agents import languages
from trunkline.agents.attendant import Control, Report
from trunkline.agents.attending import Agent, Attending, Recognising
from trunkline.clock import Clock
from trunkline.errors import ProviderError
from trunkline.gateway.transfer_record import TransferFailed
from trunkline.media.bus import NOBODY, Bus
from trunkline.ports import Allow, CallFacts, Decision, Door, Message, Refuse

HAND_OFFS_MAX = 10
"""In one call: agents that send a caller to and fro are stopped."""
NOT_HANDED_OVER = "I'm sorry, I can't put you through right now. Can I help you with anything else?"
UNREACHABLE = "that agent cannot be reached: help the caller yourself"
RESUMED = "I'm sorry, we were cut off. How can I help?"
TRANSFER_FAILED = "I'm sorry, I could not reach them. Can I help you with anything else?"
FAILED_AS: Mapping[str, str] = {
    "busy": "I'm sorry, the line is busy. Can I help you with anything else?",
    "no_answer": "I'm sorry, nobody answers there. Can I help you with anything else?",
    "voicemail": "I'm sorry, I only reached their voicemail. Can I help you with anything else?",
    "declined": "I'm sorry, nobody can take your call right now. Can I help you with anything else?",
    "refused": "I'm sorry, I can't put you through right now. Can I help you with anything else?",
    "target_lost": "I'm sorry, we lost them. Can I help you with anything else?",
    "cancelled": "I'm here again. Can I help you with anything else?",
}
"""By the transfer's result; all others are TRANSFER_FAILED."""
BACK = "I'm here again. Can I help you with anything else?"
BEFORE_QUESTION: Mapping[str, str] = {
    line: line.rpartition(". ")[0] + "." for line in (RESUMED, TRANSFER_FAILED, *FAILED_AS.values(), BACK)
}
"""Those lines without the question they end with: where the agent's own is open, that one is asked again."""


def first_line(why: str, greeting: str | None, failed: TransferFailed | None) -> str | None:
    """Of the agent that takes the line. `why`: as call.Attend has it; `greeting`: of a call that begins, None: the
    agent's own."""
    match why:
        case "replaced":
            return RESUMED
        case "back":
            return BACK
        case "transfer_failed":
            return TRANSFER_FAILED if failed is None else FAILED_AS.get(failed.reason, TRANSFER_FAILED)
        case _:
            return greeting


class Host(Control, Report, Protocol):
    """The call."""

    def facts(self) -> CallFacts: ...

    def ask(self, door: Door, target: str | None = None) -> Decision: ...

    def attended_by(self, agent: Agent) -> None: ...

    def may_pay(self, agent: Agent) -> Decision:
        """Whether what its providers cost is known, where it must be."""
        ...


class Succession:
    """Of one call. `agents`: those of this process, by their files."""

    def __init__(
        self, host: Host, agent: Agent, agents: Mapping[str, Agent], conversation: Sequence[Message], clock: Clock
    ) -> None:
        self.agent = agent
        self.attendant: Attending | None = None
        self.conversation = conversation
        """As whoever attended last has left it."""
        self._host, self._agents, self._clock = host, agents, clock
        self.held = False  # by the far end
        self._whole: Agent | None = None  # who would attend, were no third party shut out; None: none is
        self._following: str | None = None  # that was allowed, and waits for the last words to be heard
        self._hand_offs = 0
        self._note: Message | None = None
        self._instruction = ""  # that holds for whoever attends until the end
        self._unwritten = b""  # of what the caller said to whoever attended last
        self._line: str | None = None  # that who attends began with
        self._heard_before: Sequence[Message] = ()  # of agents, when they began

    @property
    def so_far(self) -> tuple[Message, ...]:
        """The conversation now, also while somebody attends."""
        return tuple(self.conversation if self.attendant is None else self.attendant.conversation)

    # --- the one who attends ---

    def take(self, bus: Bus) -> None:
        """The present agent has the line; `begin` follows. Raises ProviderError when it cannot."""
        host, loop = self._host, asyncio.get_running_loop()
        self._following = None
        host.attended_by(self.agent)
        self.attendant = self.agent.attend(host.facts(), bus, host, host, self._clock, loop.call_later)
        if self.held:
            self.attendant.hold(True)
        if self._instruction:
            self.attendant.instruct(self._instruction)

    def begin(self, greeting: str | None = None, pending: Sequence[str] = ()) -> None:
        """Where the conversation is. `pending`: what the caller said last is answered, in place of a greeting."""
        assert self.attendant is not None
        self._line, self._heard_before = greeting, _of_agents(self.conversation)
        lead = BEFORE_QUESTION.get(greeting or "", "")
        self.attendant.begin(greeting, self.conversation, pending, before_question=lead)

    def announce(self, announcer: Attending) -> None:
        """The gateway's own lines come first; `take` and `begin` follow."""
        self._following = None
        self.attendant = announcer
        if self.held:
            announcer.hold(True)
        announcer.begin()

    def leave(self) -> None:
        """Nobody attends. Idempotent."""
        attendant, self.attendant = self.attendant, None
        if attendant is not None:
            try:
                attendant.close()
            finally:
                self.conversation = tuple(attendant.conversation)
                self._unwritten = attendant.unwritten

    def key(self, digit: str) -> None:
        if self.attendant is not None:
            self.attendant.key(digit)

    def typed(self, text: str) -> None:
        if self.attendant is not None:
            self.attendant.typed(text)

    def flush(self) -> None:
        if self.attendant is not None:
            self.attendant.flush()

    def instruct(self, text: str) -> None:
        """The model that attends, and those that will, are told so."""
        self._instruction = text
        if self.attendant is not None:
            self.attendant.instruct(text)

    def hold(self, on: bool) -> None:
        """By the far end: whoever attends, now and later, waits."""
        self.held = on
        if self.attendant is not None:
            self.attendant.hold(on)

    def may_hear(self, agent: Agent) -> Decision:
        """Whether the caller's audio and text may be given to its providers, at a price that is known."""
        if isinstance(unknown := self._host.may_pay(agent), Refuse):
            return unknown
        for provider in agent.providers:
            if provider.third_party and isinstance(decision := self._host.ask("third_party", provider.name), Refuse):
                return decision
        return Allow()

    @property
    def whole(self) -> Agent:
        """Who would attend, were no third party shut out."""
        return self._whole or self.agent

    def may_serve(self) -> Decision:
        """Whether the agent may have the line, whole or as what of it is this machine's: it is that from now on."""
        whole = self.whole
        decision = self.may_hear(whole)
        agent = whole if isinstance(decision, Allow) else whole.alone()
        if agent is None:
            return decision
        self._whole = None if agent is whole else whole
        if agent is not self.agent:
            self._become(agent, "consent" if isinstance(decision, Allow) else decision.code)
        return Allow()

    # --- another one ---

    def fall_back(self, bus: Bus) -> Decision:
        """The mind of the one who attends is lost. Where the caller has not heard them yet, who follows begins as they
        would have. Refused: nothing has changed."""
        agent = self.agent.fallback
        assert agent is not None
        decision = self.may_hear(agent)
        if isinstance(decision, Allow):
            self._change(agent, bus, "model_lost")
            said = self.conversation
            pending = (said[-1].text,) if said and said[-1].role == "caller" and said[-1].text else ()
            unheard = _of_agents(said) == self._heard_before
            self.take(bus)
            if isinstance(self.attendant, Recognising) and self._unwritten:
                while said and said[-1].role == "caller" and not said[-1].text:
                    said = said[:-1]
                self.attendant.go_on(said, self._unwritten)
            else:
                self.begin(self._line if unheard else agent.definition.apology, pending)
        return decision

    def may_hand_off(self, name: str) -> Decision:
        """Allowed: `hand_over` when the last words before it were heard."""
        decision = self._may_hand_off(name)
        if isinstance(decision, Allow):
            self._following = name
        else:
            self._host.event("hand_off_refused", agent=name, code=decision.code)
        return decision

    def _may_hand_off(self, name: str) -> Decision:
        terms = self.agent.definition.agents.get(name)
        agent = None if terms is None else self._agents.get(terms.file)
        if agent is None:
            return Refuse("unknown_agent", f"there is no agent {name}")
        if self._hand_offs >= HAND_OFFS_MAX:
            return Refuse("too_many", "this call was handed over too often: help the caller yourself")
        if not agent.ready():
            return Refuse("unreachable", UNREACHABLE)
        return self.may_hear(self._as_now(agent))

    def _as_now(self, agent: Agent) -> Agent:
        """That agent as it serves this call: without third parties, once it goes without."""
        return (agent.alone() or agent) if self._whole is not None else agent

    def hand_over(self, bus: Bus) -> None:
        """To whom it was allowed. Where they cannot begin, the present agent goes on, and knows it."""
        name, self._following = self._following, None
        if name is None:
            return
        before, terms, whole = self.agent, self.agent.definition.agents[name], self._whole
        self._hand_offs += 1
        following = self._agents[terms.file]
        self._change(self._as_now(following), bus, "handed_off")
        self._whole = None if whole is None else following
        said = self._with_note(terms.summary)
        last = next((message.text for message in reversed(said) if message.role == "caller"), None)
        try:
            self.take(bus)
        except ProviderError as error:
            self._host.event("hand_off_failed", agent=name, error=str(error), code=error.code)
            self.conversation, self._whole = _failed(said), whole
            self._change(before, bus, "hand_off_failed")
            self.take(bus)
            self.begin(NOT_HANDED_OVER)
            return
        greeting = terms.greeting or None
        if languages.of_conversation(said, self.agent.definition.tags) != self.agent.definition.language:
            greeting = None  # it is in their first language, and the call is not: the caller is answered
        self.begin(greeting, (last,) if last and not greeting else ())  # never written down: they greet, and ask

    def may_take_over(self, name: str) -> Decision:
        """Without a word, at the end of a turn: `take_over`."""
        return self._may_hand_off(name)

    def take_over(self, name: str, bus: Bus) -> None:
        """The caller does not notice. Where they cannot begin, the present agent goes on."""
        terms = self.agent.definition.agents.get(name)
        if terms is None or isinstance(self._may_hand_off(name), Refuse):
            return
        before, whole, following = self.agent, self._whole, self._agents[terms.file]
        self._change(self._as_now(following), bus, "cheaper")
        bus.forget_speech()  # what the caller says already begins anew for who follows
        self._whole = None if whole is None else following
        self._with_note(terms.summary)
        try:
            self.take(bus)
        except ProviderError as error:
            self._host.event("hand_off_failed", agent=name, error=str(error), code=error.code)
            self._whole = whole
            self._change(before, bus, "hand_off_failed")
            self.take(bus)
        self.begin("")

    def _change(self, agent: Agent, bus: Bus, why: str) -> None:
        self.leave()
        bus.listener = NOBODY
        self._become(agent, why)

    def _become(self, agent: Agent, why: str) -> None:
        before, self.agent = self.agent, agent
        self._host.event(
            "agent_changed",
            agent=agent.definition.known_as,
            before=before.definition.known_as,
            why=why,
            providers=[provider.name for provider in agent.providers],
        )

    def _with_note(self, text: str) -> Sequence[Message]:
        """What the file has the next agent told; what it had the one before told is nobody's business any more."""
        said = [message for message in self.conversation if message is not self._note]
        self._note = Message("summary", text) if text else None
        self.conversation = said if self._note is None else [self._note, *said]
        return self.conversation


def _of_agents(said: Sequence[Message]) -> Sequence[Message]:
    return [message for message in said if message.role == "agent"]


def _failed(said: Sequence[Message]) -> list[Message]:
    """The hand-off that this conversation ends with has failed."""
    found: list[Any] = list(said)
    if found and found[-1].role == "tool":
        failed = {"ok": False, "code": "failed", "why": UNREACHABLE}
        found[-1] = replace(found[-1], text=json.dumps(failed))
    return found
