"""`llm.openai`: any server that speaks OpenAI's Chat Completions: OpenAI itself, vLLM, llama.cpp, Ollama, a gateway.

One streaming request per reply. The deadlines are ours, not the SDK's: one to the first token, one between tokens; a
request that misses one is closed. What the model is told of the call is `_messages`; what it may do is `tool_specs`.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.agents.script.model import Script
from trunkline.agents.tools import tool_specs
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import (
    CallFacts,
    Expect,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    TextDelta,
    ToolCall,
)

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
EXPECT_DIGITS = "expect_digits"
"""A tool without effects, answered here: the model says that the caller is about to key a number of the file."""

PHONE_RULES = (
    "You are speaking on the telephone. Answer in one to three short sentences of plain spoken language: no markup, no "
    "lists, no emoji; write numbers as they are said. The caller's words come from speech recognition and may be "
    "wrong: if they make no sense, ask again. Say goodbye before you end the call."
)

OPTIONS: Keys = {
    "model": Key("text", "Name of the model, as the server knows it.", required=True),
    "base_url": Key("text", "The server's address, up to and with `/v1`.", OPENAI_URL),
    "instructions": Key("text", "Who the agent is, what it knows and how it behaves.", ""),
    "max_tokens": Key("whole", "The longest reply, in tokens.", 300, low=16, high=8192),
    "temperature": Key("number", "How freely it speaks, 0 to 2; without it, as the server likes.", low=0, high=2),
    "first_token_ms": Key("whole", "The longest wait for the first word.", 6000, low=50, high=60000),
    "between_tokens_ms": Key("whole", "The longest pause between words.", 3000, low=50, high=60000),
    "max_messages": Key("whole", "How much of the conversation the model sees: messages.", 40, low=2, high=1000),
    "max_characters": Key("whole", "And characters.", 16000, low=500, high=1000000),
}


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    base_url: str
    instructions: str
    max_tokens: int
    temperature: float | None
    first_token_ms: int
    between_tokens_ms: int
    max_messages: int
    max_characters: int


def read_options(options: Mapping[str, Any]) -> Options:
    """Raises ConfigError."""
    held = {name: key.default for name, key in OPTIONS.items()}
    for name, value in options.items():
        key = OPTIONS.get(name)
        if key is None:
            raise ConfigError(name, value, f"unknown key{nearest(name, OPTIONS)}")
        if wrong := fault(key, value):
            raise ConfigError(name, value, wrong[1])
        held[name] = value
    if held["model"] is None:
        raise ConfigError("model", None, f"is missing: {OPTIONS['model'].meaning}")
    parts = urlsplit(held["base_url"])
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError(
            "base_url", held["base_url"], "must start with https:// or http:// and a host, without password"
        )
    return Options(**held)


class OpenAiLlm:
    name = "openai"

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError; MissingExtra without the `openai` package."""
        self._definition, self._clock = definition, services.clock
        self.options = read_options(options)
        self.third_party = not _on_this_machine(self.options.base_url)
        self._key = services.keys.get("openai")
        if self._key is None and self.options.base_url == OPENAI_URL:
            raise ConfigError("openai.api_key", None, "an API key is needed for OpenAI's own server")
        self._sdk = _sdk()
        self.sdk_error: type[Exception] = self._sdk.OpenAIError
        self._script = Script.of(definition)
        self._tools = _tools(definition, self._script)
        self._client: openai.AsyncOpenAI | None = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    async def start(self) -> None:
        self._client = self._sdk.AsyncOpenAI(
            base_url=self.options.base_url,
            api_key=self._key or "none",
            max_retries=0,  # a caller is waiting: the cascade decides
            timeout=None,  # the deadlines are ours
        )

    def open(self, call: CallFacts) -> "OpenAiSession":
        if self._client is None:
            raise ProviderError(self.name, "unavailable", "not started", retryable=False)
        return OpenAiSession(self, self._client)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    # --- what the session asks of it ---

    def request(self, conversation: Sequence[Message], understood: bool) -> dict[str, Any]:
        options = self.options
        request: dict[str, Any] = {
            "model": options.model,
            "messages": [
                {"role": "system", "content": self._system()},
                *_messages(_recent(conversation, options), understood),
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            # OpenAI has renamed it; most other servers know the old name only.
            "max_completion_tokens" if options.base_url == OPENAI_URL else "max_tokens": options.max_tokens,
        }
        if self._tools:
            request["tools"] = self._tools
        if self._key is None:
            request["extra_headers"] = {"Authorization": self._sdk.Omit()}
        if options.temperature is not None:
            request["temperature"] = options.temperature
        return request

    def expect_digits(self, name: str) -> tuple[Expectation, str]:
        """What the keypad is expected to give, and how the file asks for it."""
        entry = self._script.digits.get(name)
        if entry is None:
            return Expectation(), ""
        return Expectation(digits_min=entry.min, digits_max=entry.max), entry.prompt

    def failed(self, error: Exception, *, begun: bool) -> ProviderError:
        """`begun`: the server had accepted the request and was answering."""
        sdk = self._sdk
        if isinstance(error, sdk.APITimeoutError):
            return self.error("timeout", "", retryable=True)
        if isinstance(error, sdk.APIStatusError):
            return self._status_failed(error)
        if not begun:
            return self.error("unavailable", "no connection", retryable=True)
        if isinstance(error, sdk.APIError):  # the connection broke, or the server sent an error event
            return self.error("protocol", "the answer broke off", retryable=True)
        return self.error("protocol", f"the answer cannot be read: {type(error).__name__}", retryable=False)

    def _status_failed(self, error: "openai.APIStatusError") -> ProviderError:
        status = error.status_code
        if status in (401, 403):  # the server's text may quote the key
            return self.error("auth", f"status {status}", retryable=False)
        if status == 429:
            after = error.response.headers.get("retry-after", "")
            quota = error.code == "insufficient_quota"
            detail = "quota used up" if quota else f"retry after {after} s" if after else ""
            return self.error("rate_limited", detail, retryable=not quota)
        if status == 408:
            return self.error("timeout", f"status {status}", retryable=True)
        if status >= 500:
            return self.error("unavailable", f"status {status}", retryable=True)
        return self.error("bad_request", f"status {status}: {self._said(error)}", retryable=False)

    def error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return ProviderError(self.name, code, detail, retryable=retryable)

    def _said(self, error: "openai.APIStatusError") -> str:
        body = error.body if isinstance(error.body, Mapping) else {}
        text = " ".join(str(body.get("message", "")).split())[:200]
        return text.replace(self._key, "***") if self._key else text

    def _system(self) -> str:
        parts = [self.options.instructions or f"You answer the telephone of {self._definition.name}.", PHONE_RULES]
        hours = self._script.hours
        if hours is not None:
            now = self._clock.wall()
            local = now.astimezone(hours.zone)
            state = "open" if hours.is_open(now) else f"closed until {hours.spoken(now)['next_opening']}"
            parts.append(f"It is {local:%A, %d %B %Y, %H:%M}. We are {state}.")
        return "\n\n".join(parts)


class OpenAiSession:
    def __init__(self, llm: OpenAiLlm, client: "openai.AsyncOpenAI") -> None:
        self._llm, self._client = llm, client

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        """Closing the generator closes the connection: the server stops writing. Raises ProviderError."""
        llm = self._llm
        answer = _Answer()
        request = llm.request(conversation, understood)
        stream: Any = None
        try:
            try:
                async with asyncio.timeout(llm.options.first_token_ms / 1000):
                    stream = await self._client.chat.completions.create(**request)
                    chunks = aiter(stream)
                    chunk = await _first(chunks, answer)
            except TimeoutError:
                raise llm.error("timeout", "no first token", retryable=True) from None
            except Exception as error:
                if stream is None and not isinstance(error, llm.sdk_error):
                    raise
                raise llm.failed(error, begun=stream is not None) from None
            while chunk is not None:
                for text in answer.take(chunk):
                    yield TextDelta(text)
                try:
                    async with asyncio.timeout(llm.options.between_tokens_ms / 1000):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    raise llm.error("timeout", "the model stalled in mid-answer", retryable=True) from None
                except Exception as error:  # whatever a stranger's bytes make the SDK raise
                    raise llm.failed(error, begun=True) from None
        finally:
            if stream is not None:
                await stream.close()
        if not answer.finished:
            raise llm.error("protocol", "the answer ended in the middle", retryable=True)
        for event in self._end(answer):
            yield event

    def close(self) -> None:
        pass

    def _end(self, answer: "_Answer") -> list[LlmEvent]:
        calls = answer.calls()
        events: list[LlmEvent] = []
        expectation = Expectation()
        for call in calls:
            if call.name == EXPECT_DIGITS:
                expectation, prompt = self._llm.expect_digits(str(call.arguments.get("name", "")))
                if not answer.spoke and len(calls) == 1 and prompt:
                    events.append(TextDelta(prompt))
        events += [call for call in calls if call.name != EXPECT_DIGITS]
        if answer.usage is not None:
            events.append(answer.usage)
        return [*events, Expect(expectation)]


@dataclass(slots=True)
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _Answer:
    """A streamed answer as far as it has come. The SDK does not check what it parses: nothing is taken on trust."""

    finished: bool = False
    spoke: bool = False
    usage: LlmUsage | None = None
    partial: dict[int, _PartialCall] = field(default_factory=dict)

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

    def calls(self) -> list[ToolCall]:
        """Arguments that are no JSON object become none: the tool refuses and the model may try again."""
        found = []
        for index, part in sorted(self.partial.items()):
            try:
                arguments = json.loads(part.arguments or "{}")
            except ValueError:
                arguments = {}
            if part.name:
                kept = arguments if isinstance(arguments, dict) else {}
                found.append(ToolCall(part.id or f"call_{index}", part.name, kept))
        return found

    def _take_usage(self, usage: Any) -> None:
        tokens_in, tokens_out = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if isinstance(tokens_in, int) and isinstance(tokens_out, int):
            self.usage = LlmUsage(tokens_in, tokens_out)

    def _take_call(self, delta: Any) -> None:
        index = getattr(delta, "index", None)
        if not isinstance(index, int):
            index = len(self.partial)  # some servers send whole calls without an index
        part = self.partial.setdefault(index, _PartialCall())
        function = getattr(delta, "function", None)
        part.id = part.id or str(getattr(delta, "id", None) or "")
        part.name = part.name or str(getattr(function, "name", None) or "")
        part.arguments += str(getattr(function, "arguments", None) or "")


async def _first(chunks: AsyncIterator[Any], answer: _Answer) -> Any:
    """The first chunk that says something. Those before it (a role, an empty text) are kept in `answer`."""
    while (chunk := await anext(chunks, None)) is not None:
        choices = getattr(chunk, "choices", None)
        delta = getattr(choices[0], "delta", None) if isinstance(choices, list) and choices else None
        finish = getattr(choices[0], "finish_reason", None) if isinstance(choices, list) and choices else None
        if getattr(delta, "content", None) or getattr(delta, "tool_calls", None) or finish:
            return chunk
        answer.take(chunk)
    return None


def _recent(conversation: Sequence[Message], options: Options) -> list[Message]:
    """The last of the conversation that fits. At least the last message, however long."""
    kept: list[Message] = []
    characters = 0
    for message in reversed(conversation):
        characters += len(message.text)
        if kept and (len(kept) >= options.max_messages or characters > options.max_characters):
            break
        kept.append(message)
    return kept[::-1]


def _messages(conversation: Sequence[Message], understood: bool) -> list[dict[str, Any]]:
    """The conversation as the API wants it: every tool call has its result and every result its call."""
    results = {message.tool_call_id for message in conversation if message.role == "tool"}
    called: set[str] = set()
    found: list[dict[str, Any]] = []
    for at, message in enumerate(conversation):
        match message.role:
            case "caller":
                last = at == len(conversation) - 1
                found.append({"role": "user", "content": _heard(message, understood or not last)})
            case "agent":
                calls = [call for call in message.tool_calls if call.id in results]
                called |= {call.id for call in calls}
                if message.text or calls:
                    found.append(_assistant(message, calls))
            case "tool":
                if message.tool_call_id in called:
                    found.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.text})
    return found


def _heard(message: Message, understood: bool) -> str:
    if message.keyed:
        return f"(keyed on the telephone's keypad) {message.text}"
    if not understood or not message.text.strip():
        guess = f": perhaps {message.text!r}" if message.text.strip() else ""
        return f"(the caller spoke, but the words were not recognised{guess})"
    return message.text


def _assistant(message: Message, calls: Sequence[ToolCall]) -> dict[str, Any]:
    text = f"{message.text}..." if message.cut and message.text else message.text
    found: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in calls
        ]
    return found


def _tools(definition: AgentDefinition, script: Script) -> list[dict[str, Any]]:
    found = [
        {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
        for spec in tool_specs(definition)
    ]
    if script.digits:
        names = {"type": "string", "enum": list(script.digits)}
        found.append(
            {
                "name": EXPECT_DIGITS,
                "description": "Call this whenever you ask the caller to key in a number, together with your question.",
                "parameters": {
                    "type": "object",
                    "properties": {"name": names},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            }
        )
    return [{"type": "function", "function": function} for function in found]


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if re.fullmatch(r"(.+\.)?localhost", host):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _sdk() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("openai", "openai") from None
    return openai
