"""OpenAI's Responses API: what is asked, and what a streamed answer says.

Nothing is stored there (`store = false`): the conversation is ours, whole in each request, cut to what was heard. A
reasoning model's thoughts are not carried from one request to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.agents.llm import told
from trunkline.agents.llm.told import field_of
from trunkline.ports import LlmUsage, Message, ToolCall

_TEXT = ("response.output_text.delta", "response.refusal.delta")


def request(
    system: str, conversation: Sequence[Message], functions: Sequence[dict[str, Any]], understood: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "instructions": system,
        "input": _items(conversation, understood),
        "stream": True,
        "store": False,
    }
    if functions:  # strict schemas allow no optional argument; ours may have some
        found["tools"] = [{"type": "function", **function, "strict": False} for function in functions]
    return found


def _items(conversation: Sequence[Message], understood: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, message in enumerate(conversation):
        match message.role:
            case "summary":
                found.append({"role": "user", "content": told.so_far(message)})
            case "caller":
                last = at == len(conversation) - 1
                found.append({"role": "user", "content": told.caller_text(message, understood or not last)})
            case "agent":
                if text := told.agent_text(message):
                    found.append({"role": "assistant", "content": text})
                found += [
                    {
                        "type": "function_call",
                        "call_id": call.id,
                        "name": call.name,
                        "arguments": told.arguments(call),
                    }
                    for call in message.tool_calls
                ]
            case "tool":
                found.append({"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text})
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

    def take(self, event: Any) -> list[str]:
        """Keep what the event says; its text."""
        kind = field_of(event, "type")
        if kind in _TEXT:
            return self._text(field_of(event, "delta"))
        match kind:
            case "response.output_item.added" | "response.output_item.done":
                self._take_item(event)
            case "response.function_call_arguments.delta":
                if (part := self._part(event)) is not None:
                    part.arguments += _text(event, "delta")
            case "response.completed" | "response.incomplete":
                self._take_usage(field_of(field_of(event, "response"), "usage"))
                self.finished = True
            case "response.failed":
                error = field_of(field_of(event, "response"), "error")
                self.refused = _text(error, "code"), _text(error, "message")
            case "error":
                error = field_of(event, "error") or event  # as the API tells it in a body, and as an event of its own
                self.refused = _text(error, "code"), _text(error, "message")
        return []

    def begins(self, event: Any) -> bool:
        """Whether the event says something; that the response was created, or is being thought about, does not."""
        kind = field_of(event, "type")
        if kind == "response.output_item.added":
            return bool(field_of(field_of(event, "item"), "type") == "function_call")
        return kind in (*_TEXT, "response.completed", "response.incomplete", "response.failed", "error")

    def calls(self) -> list[ToolCall]:
        return [
            told.tool_call(part.id or f"call_{index}", part.name, part.arguments)
            for index, part in sorted(self.partial.items())
            if part.name
        ]

    def _text(self, delta: Any) -> list[str]:
        if not isinstance(delta, str) or not delta:
            return []
        self.spoke = self.spoke or bool(delta.strip())
        return [delta]

    def _take_item(self, event: Any) -> None:
        item = field_of(event, "item")
        if field_of(item, "type") != "function_call" or (part := self._part(event)) is None:
            return
        part.id, part.name = _text(item, "call_id") or part.id, _text(item, "name") or part.name
        part.arguments = _text(item, "arguments") or part.arguments  # all of them, once it is done

    def _part(self, event: Any) -> PartialCall | None:
        index = field_of(event, "output_index")
        return self.partial.setdefault(index, PartialCall()) if isinstance(index, int) else None

    def _take_usage(self, usage: Any) -> None:
        tokens_in, tokens_out = field_of(usage, "input_tokens"), field_of(usage, "output_tokens")
        if isinstance(tokens_in, int) and isinstance(tokens_out, int):
            self.usage = LlmUsage(tokens_in, tokens_out, told.cached(usage, "input_tokens_details", tokens_in))


def _text(value: Any, name: str) -> str:
    found = field_of(value, name)
    return found if isinstance(found, str) else ""
