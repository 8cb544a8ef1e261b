"""OpenAI's Chat Completions, which most servers speak: what is asked, and what a streamed answer says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.agents.llm import told
from trunkline.agents.llm.told import field_of
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
            case "summary":
                found.append({"role": "user", "content": told.so_far(message)})
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
    """A streamed answer as far as it has come, out of what its events hold as JSON. Nothing is taken on trust."""

    finished: bool = False
    spoke: bool = False
    usage: LlmUsage | None = None
    refused: tuple[str, str] | None = None
    """Code and message of an error in mid-answer."""
    partial: dict[int, PartialCall] = field(default_factory=dict)

    def take(self, chunk: Any) -> list[str]:
        """Keep what the chunk says; its text."""
        self._take_usage(field_of(chunk, "usage"))
        if error := field_of(chunk, "error"):
            code = field_of(error, "code") or field_of(error, "type")
            self.refused = str(code or ""), str(field_of(error, "message") or "")
        texts: list[str] = []
        choice = _first(field_of(chunk, "choices"))
        delta = field_of(choice, "delta")
        content = field_of(delta, "content")
        if isinstance(content, str) and content:
            texts.append(content)
        calls = field_of(delta, "tool_calls")
        for call in calls if isinstance(calls, list) else ():
            self._take_call(call)
        if field_of(choice, "finish_reason"):
            self.finished = True
        self.spoke = self.spoke or any(text.strip() for text in texts)
        return texts

    def begins(self, chunk: Any) -> bool:
        """Whether the chunk says something; a role or an empty text does not."""
        choice = _first(field_of(chunk, "choices"))
        delta = field_of(choice, "delta")
        said = field_of(delta, "content") or field_of(delta, "tool_calls")
        return bool(said or field_of(choice, "finish_reason") or field_of(chunk, "error"))

    def calls(self) -> list[ToolCall]:
        return [
            told.tool_call(part.id or f"call_{index}", part.name, part.arguments)
            for index, part in sorted(self.partial.items())
            if part.name
        ]

    def _take_usage(self, usage: Any) -> None:
        tokens_in, tokens_out = field_of(usage, "prompt_tokens"), field_of(usage, "completion_tokens")
        if isinstance(tokens_in, int) and isinstance(tokens_out, int):
            self.usage = LlmUsage(tokens_in, tokens_out, told.cached(usage, "prompt_tokens_details", tokens_in))

    def _take_call(self, delta: Any) -> None:
        index = field_of(delta, "index")
        if not isinstance(index, int):
            index = len(self.partial)  # some servers send whole calls without an index
        part = self.partial.setdefault(index, PartialCall())
        function = field_of(delta, "function")
        part.id = part.id or str(field_of(delta, "id") or "")
        part.name = part.name or str(field_of(function, "name") or "")
        part.arguments += str(field_of(function, "arguments") or "")


def _first(choices: Any) -> Any:
    return choices[0] if isinstance(choices, list) and choices else None
