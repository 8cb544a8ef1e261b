"""An agent's script tried by typing at it, without a call: what it would say, and what it would do.

The mind is the agent's own model or script; nobody hears, nobody speaks, and nothing is done. Tools are judged as in a
call (their arguments, the targets there are), then shown in place of performed: an `http` tool is not sent and answers
its `result` names with `[name]`, or with what the trial was told. Of a realtime model's agent the cascade of the same
file is tried: such a model cannot be typed at.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.agents import languages
from trunkline.agents.attendant import TOOL_ROUNDS
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.exchange import Written
from trunkline.agents.help import asks_for_help, help_line
from trunkline.agents.providers import Services, build_llm
from trunkline.agents.script.model import Tool
from trunkline.agents.tools import perform
from trunkline.agents.tools.http import build_url
from trunkline.errors import ProviderError
from trunkline.ports import (
    Allow,
    CallFacts,
    Decision,
    EndReason,
    Expect,
    Llm,
    LlmSession,
    Message,
    TextDelta,
    ToolCall,
    Wish,
)
from trunkline.privacy.sensitive import Sensitive
from trunkline.types import DEFAULT_TENANT, CallId

TURN_S = 30.0
MAX_TURNS = 100
MAX_CHARACTERS = 1000
KEYS = frozenset("0123456789*#")

Kind = Literal["say", "tool", "request", "transfer", "hand_off", "call_back", "keys", "hang_up", "expects", "failed"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that the agent does. `tool` is a model's or script's wish, with its `result`; behind it stands what
    would come of it: `request` (an http tool's method and address), `transfer` (the target's name), `hand_off`,
    `call_back`, `keys`, `hang_up`. `expects` is for how many digits a question waits."""

    kind: Kind
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Trial:
    """`begin`, then `say` and `key` by turns until it is `over`; `close` at last. One at a time."""

    def __init__(
        self,
        definition: AgentDefinition,
        services: Services,
        answers: Mapping[str, Mapping[str, str]] | None = None,
        *,
        caller_number: str | None = None,
    ) -> None:
        """`answers`: of http tools, by name: the variables of their `result`."""
        self.definition, self._services, self._answers = definition, services, answers or {}
        now = services.clock.wall()
        self._call = CallFacts(CallId("trial"), DEFAULT_TENANT, "inbound", caller_number, None, now)
        self._minds: dict[str, Llm] = {}
        self._sessions: dict[str, LlmSession] = {}
        self._language = definition.language
        self._turns = 0
        self.conversation: list[Message] = []
        self.over = False

    async def begin(self) -> list[Line]:
        """The greeting. Raises ConfigError, MissingExtra and ProviderError: the mind cannot be had."""
        await self._session()
        self.conversation.append(Message("agent", self.definition.greeting))
        return [Line("say", self.definition.greeting)]

    async def say(self, text: str) -> list[Line]:
        """What the caller says; digits alone are keyed. Nothing once it is over. Raises nothing of the mind's."""
        compact = "".join(text.split())
        keyed = bool(compact) and KEYS.issuperset(compact)
        return await self._turn(Message("caller", (compact if keyed else text)[:MAX_CHARACTERS], keyed=keyed))

    async def close(self) -> None:
        """Idempotent."""
        self.over = True
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        minds, self._minds = list(self._minds.values()), {}
        for mind in minds:
            await mind.close()

    # --- a turn ---

    async def _turn(self, said: Message) -> list[Line]:
        lines: list[Line] = []
        if self.over:
            return lines
        self._turns += 1
        if self._turns > MAX_TURNS:
            self.over = True
            return [Line("failed", f"this trial has had {MAX_TURNS} turns: begin another one")]
        self.conversation.append(said)
        if not said.keyed and asks_for_help(said.text, self._language):
            self._says(lines, help_line(self._call, self._language))
            return lines
        try:
            async with asyncio.timeout(TURN_S):
                await self._reply(lines)
        except TimeoutError:
            lines.append(Line("failed", f"no answer within {TURN_S:.0f} s"))
        except ProviderError as error:
            lines.append(Line("failed", str(error)))
        return lines

    def _says(self, lines: list[Line], text: str) -> None:
        self.conversation.append(Message("agent", text))
        lines.append(Line("say", text))

    async def _reply(self, lines: list[Line]) -> None:
        for _ in range(TOOL_ROUNDS):
            written, asked = Written(language=self._language), list[ToolCall]()
            session = await self._session()
            async with aclosing(session.reply(self.conversation)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        written.text += event.text
                    elif isinstance(event, ToolCall):
                        asked.append(event)
                    elif isinstance(event, Expect) and (most := event.expectation.digits_max):
                        least = event.expectation.digits_min
                        expects = Line("expects", str(most) if least == most else f"{least} to {most}")
                        lines.append(expects)
            if text := written.text.strip():
                at = next((at for at, line in enumerate(lines) if line.kind == "expects"), len(lines))
                lines.insert(at, Line("say", text))
            for call in asked:
                await self._use(call, written, lines)
            self.conversation += written.messages()
            if not asked or self.over:
                return
        lines.append(Line("failed", "it only uses tools"))

    async def _use(self, call: ToolCall, written: Written, lines: list[Line]) -> None:
        written.calls.append(call)
        shown = _Shown(self._answers)
        if call.name == languages.SPEAK_LANGUAGE:
            result = self._speak(call, written)
        else:
            result = await perform(
                call, self.definition, shown, shown, caller_number=self._call.from_number, caller_verified=False
            )
        written.results[call.id] = result
        lines.append(Line("tool", call.name, {"arguments": dict(call.arguments), "result": json.loads(result)}))
        lines += shown.lines
        self.over = self.over or shown.over

    def _speak(self, call: ToolCall, written: Written) -> str:
        tag = languages.lookup(str(call.arguments.get("language", "")) or "-", self.definition.tags)
        if tag is None:
            return json.dumps({"ok": False, "code": "bad_arguments", "why": "there is no such language"})
        written.changed[call.id] = self._language = tag
        return json.dumps({"ok": True})

    async def _session(self) -> LlmSession:
        """Of the language spoken now. Raises ConfigError, MissingExtra, ProviderError."""
        spoken = self.definition.in_language(self._language)
        key = self._language if spoken.llm != self.definition.llm else ""
        if key not in self._sessions:
            self._minds[key] = mind = build_llm(self.definition, spoken.llm, self._services)
            await mind.start()
            self._sessions[key] = mind.open(self._call)
        return self._sessions[key]


class _Shown:
    """A call's hands (ports.CallControl) and its http tools (tools.HttpRunner), which only say what they would do."""

    def __init__(self, answers: Mapping[str, Mapping[str, str]]) -> None:
        self._answers = answers
        self.lines: list[Line] = []
        self.over = False

    def _would(self, kind: Kind, text: str, *, ends: bool = False) -> Decision:
        self.lines.append(Line(kind, text))
        self.over = self.over or ends
        return Allow()

    def hang_up(self, reason: EndReason) -> None:
        self._would("hang_up", reason, ends=True)

    def transfer(self, target: str) -> Decision:
        return self._would("transfer", target, ends=True)

    def hand_off(self, agent: str) -> Decision:
        return self._would("hand_off", agent, ends=True)

    def send_dtmf(self, digits: str) -> None:
        self._would("keys", digits)

    def call_back(self) -> Decision:
        return self._would("call_back", "")

    def wished(self, wish: Wish) -> None:
        self._would("hang_up", wish.kind, ends=True)

    async def collect(self, name: str, least: int, most: int) -> Sensitive | None:
        """Nobody keys a card at a trial."""
        self._would("expects", f"{name}: {least} to {most}")
        return Sensitive(f"[{name}]")

    async def run(self, tool: Tool, values: Mapping[str, str]) -> dict[str, str] | str:
        """Raises HttpToolError for values that would change more than their place."""
        self._would("request", f"{tool.method} {build_url(tool.url, values)}")
        given = self._answers.get(tool.name, {})
        return {name: given.get(name, f"[{name}]") for name in tool.result} or "[the answer]"
