"""OpenAI's Chat Completions, which most servers speak: what is asked, and what a streamed answer says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.agents.llm import told
from trunkline.ports import LlmUsage, Message, ToolCall


def request(
    system: str, conversation: Sequence[Message], functions: Sequence[dict[str, Any]], understood: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messages": [{"role": "system", "content": system}, *_messages(conversation, understood)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if functions:
        found["tools"] = [{"type": "function", "function": function} for function in functions]
    return found


def _messages(conversation: Sequence[Message], understood: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, message in enumerate(conversation):
        match message.role:
            case "caller":
                last = at == len(conversation) - 1
                found.append({"role": "user", "content": told.caller_text(message, understood or not last)})
            case "agent":
                found.append(_assistant(message))
            case "tool":
                found.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.text})
    return found


def _assistant(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": "assistant", "content": told.agent_text(message) or None}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": told.arguments(call)}}
            for call in message.tool_calls
        ]
    return found


@dataclass(slots=True)
class PartialCall:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """A streamed answer as far as it has come. The SDK does not check what it parses: nothing is taken on trust."""

    finished: bool = False
    spoke: bool = False
    usage: LlmUsage | None = None
    refused: tuple[str, str] | None = None
    """Code and message of an error in mid-answer. Never here: the SDK raises it."""
    partial: dict[int, PartialCall] = field(default_factory=dict)

    def take(self, chunk: Any) -> list[str]:
        """Keep what the chunk says; its text."""
        self._take_usage(getattr(chunk, "usage", None))
        texts: list[str] = []
        choices = getattr(chunk, "choices", None)
        for choice in choices[:1] if isinstance(choices, list) else ():
            delta = getattr(choice, "delta", None)
            content = getattr(delta, "content", None)
            if isinstance(content, str) and content:
                texts.append(content)
            calls = getattr(delta, "tool_calls", None)
            for call in calls if isinstance(calls, list) else ():
                self._take_call(call)
            if getattr(choice, "finish_reason", None):
                self.finished = True
        self.spoke = self.spoke or any(text.strip() for text in texts)
        return texts

    def begins(self, chunk: Any) -> bool:
        """Whether the chunk says something; a role or an empty text does not."""
        choices = getattr(chunk, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        delta, finish = getattr(choice, "delta", None), getattr(choice, "finish_reason", None)
        return bool(getattr(delta, "content", None) or getattr(delta, "tool_calls", None) or finish)

    def calls(self) -> list[ToolCall]:
        return [
            told.tool_call(part.id or f"call_{index}", part.name, part.arguments)
            for index, part in sorted(self.partial.items())
            if part.name
        ]

    def _take_usage(self, usage: Any) -> None:
        tokens_in, tokens_out = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if isinstance(tokens_in, int) and isinstance(tokens_out, int):
            self.usage = LlmUsage(tokens_in, tokens_out)

    def _take_call(self, delta: Any) -> None:
        index = getattr(delta, "index", None)
        if not isinstance(index, int):
            index = len(self.partial)  # some servers send whole calls without an index
        part = self.partial.setdefault(index, PartialCall())
        function = getattr(delta, "function", None)
        part.id = part.id or str(getattr(delta, "id", None) or "")
        part.name = part.name or str(getattr(function, "name", None) or "")
        part.arguments += str(getattr(function, "arguments", None) or "")
