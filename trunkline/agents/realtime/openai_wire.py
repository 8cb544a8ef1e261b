"""OpenAI's Realtime API as bytes: its events as we read them, and the conversation's items as we write them.

The SDK's own types cost more than all the rest of a call (bench/README.md): tests hold these to them.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.agents.llm.told import so_far
from trunkline.ports import Message, RealtimeUsage, TranscriptionUsage


class Cached(msgspec.Struct):
    text_tokens: int | None = None
    audio_tokens: int | None = None


class Tokens(msgspec.Struct):
    text_tokens: int | None = None
    audio_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: Cached | None = None


class Usage(msgspec.Struct):
    """Of a reply, or of a transcription (`type` tokens or duration)."""

    type: str | None = None
    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: Tokens | None = None
    output_token_details: Tokens | None = None

    def read(self) -> RealtimeUsage:
        text_in, audio_in = _apart(self.input_tokens, self.input_token_details)
        text_out, audio_out = _apart(self.output_tokens, self.output_token_details)
        text_cached, audio_cached = _cached(self.input_token_details)
        return RealtimeUsage(
            text_in,
            text_out,
            audio_in,
            audio_out,
            min(text_cached, text_in or 0),
            min(audio_cached, audio_in or 0),
        )

    def of_transcription(self, model: str) -> TranscriptionUsage:
        text_in, audio_in = _apart(self.input_tokens, self.input_token_details)
        return TranscriptionUsage(model, self.seconds or 0.0, text_in or 0, audio_in or 0, self.output_tokens or 0)


def _cached(details: Tokens | None) -> tuple[int, int]:
    """Of text and of audio. Told together, they are of text: its discount is the smaller one."""
    if details is None:
        return 0, 0
    apart = details.cached_tokens_details
    if apart is None:
        return details.cached_tokens or 0, 0
    return apart.text_tokens or 0, apart.audio_tokens or 0


def _apart(total: int | None, details: Tokens | None) -> tuple[int | None, int | None]:
    if details is None or details.audio_tokens is None:
        return total, None
    text = details.text_tokens
    return (total - details.audio_tokens if text is None and total is not None else text), details.audio_tokens


class Error(msgspec.Struct):
    type: str | None = None
    code: str | None = None
    event_id: str | None = None


class StatusDetails(msgspec.Struct):
    error: Error | None = None


class Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None

    @property
    def tag(self) -> str:
        return (self.metadata or {}).get("tag", "")


class Session(msgspec.Struct):
    expires_at: int | None = None
    """Seconds since the epoch."""


class Event(msgspec.Struct):
    """Any of the server's events, as far as we read it."""

    type: str
    item_id: str = ""
    response_id: str = ""
    delta: str = ""
    transcript: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    audio_start_ms: int = 0
    audio_end_ms: int = 0
    response: Response | None = None
    usage: Usage | None = None
    error: Error | None = None
    session: Session | None = None


DECODE = msgspec.json.Decoder(Event).decode


def appended(audio: bytes | bytearray) -> str:
    """`input_audio_buffer.append`, in one pass: base64 needs no escaping."""
    return f'{{"type":"input_audio_buffer.append","audio":"{b64encode(audio).decode()}"}}'


def arguments(text: str) -> Mapping[str, Any]:
    """What is no JSON object becomes none: the tool refuses and the model may try again."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def items(message: Message, audio: bytes) -> list[dict[str, Any]]:
    """A message as items of the conversation."""
    if message.role == "summary":
        content = {"type": "input_text", "text": so_far(message)}
        return [{"type": "message", "role": "user", "content": [content]}]
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}]
    if message.role == "caller":
        content = (
            {"type": "input_audio", "audio": b64encode(audio).decode()}
            if audio
            else {"type": "input_text", "text": _said(message)}
        )
        return [{"type": "message", "role": "user", "content": [content]}]
    found: list[dict[str, Any]] = []
    if message.text:
        text = f"{message.text}..." if message.cut else message.text
        found.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
    for call in message.tool_calls:
        arguments = json.dumps(dict(call.arguments))
        found.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    return found


def _said(message: Message) -> str:
    if message.keyed:
        return f"(keyed on the telephone's keypad) {message.text}"
    return message.text or "(the caller spoke, but the words were not recognised)"
