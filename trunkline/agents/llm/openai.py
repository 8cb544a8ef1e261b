"""`llm.openai`: any server that speaks OpenAI's API: OpenAI itself, vLLM, llama.cpp, Ollama, a gateway.

One streaming request per reply, to Chat Completions or to Responses (`api`): openai_chat and openai_responses say what
is asked and what an answer means, `told` what a model learns of the call. The deadlines are ours: one to the first
token, one between tokens; a request that misses one is closed.

The SDK makes the request and tells what became of it; the events of the answer are read here (`sse`): the SDK's models
of them cost four times the rest (bench/README.md).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from trunkline.agents import languages
from trunkline.agents import options as given
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.llm import openai_chat, openai_responses, told
from trunkline.agents.openai_http import OPENAI_URL, OpenAiHttp
from trunkline.agents.prompts import sha256_of
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys
from trunkline.agents.script.model import Script
from trunkline.agents.sse import Events
from trunkline.ports import CallerVerdict, CallFacts, Expect, Expectation, LlmEvent, Message, TextDelta

OPTIONS: Keys = {
    "model": Key("text", "Name of the model, as the server knows it.", required=True),
    "base_url": Key("text", "The server's address, up to and with `/v1`.", OPENAI_URL),
    "third_party": given.THIRD_PARTY,
    "api": Key(
        "text",
        "Which of OpenAI's APIs: Chat Completions, which most servers have, or Responses.",
        "chat",
        choices=("chat", "responses"),
    ),
    "instructions": Key("text", "Who the agent is, what it knows and how it behaves.", ""),
    "max_tokens": Key("whole", "The longest reply, in tokens.", 300, low=16, high=8192),
    "temperature": Key("number", "How freely it speaks, 0 to 2; without it, as the server likes.", low=0, high=2),
    "first_token_ms": Key("whole", "The longest wait for the first word.", 6000, low=50, high=60000),
    "between_tokens_ms": Key("whole", "The longest pause between words.", 3000, low=50, high=60000),
    "max_messages": Key("whole", "How much of the conversation the model sees: messages.", 40, low=2, high=1000),
    "max_characters": Key("whole", "And characters.", 16000, low=500, high=1000000),
}

_Answer = openai_chat.Answer | openai_responses.Answer


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    base_url: str
    third_party: bool | None
    api: str
    instructions: str
    max_tokens: int
    temperature: float | None
    first_token_ms: int
    between_tokens_ms: int
    max_messages: int
    max_characters: int


def read_options(options: Mapping[str, Any]) -> Options:
    """Raises ConfigError."""
    held = given.read(OPTIONS, options)
    given.check_url("base_url", held["base_url"], ("https", "http"))
    return Options(**held)


class OpenAiLlm:
    name = "openai"
    elsewhere = True

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError; MissingExtra without the `openai` package."""
        self._definition, self._clock = definition, services.clock
        self.options = read_options(options)
        self.product = self.options.model
        self.http = OpenAiHttp(self.name, self.options.base_url, services.keys, self.options.third_party)
        self.third_party = self.http.third_party
        self.path = "/responses" if self.options.api == "responses" else "/chat/completions"
        self._script = Script.of(definition)
        self._scripts = {tag: Script.of(definition.in_language(tag)) for tag in definition.tags}
        self._functions = told.functions(definition, self._script)

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    async def start(self) -> None:
        self.http.start()

    def open(self, call: CallFacts) -> "OpenAiSession":
        return OpenAiSession(self, call.stir)

    async def close(self) -> None:
        await self.http.close()

    # --- what the session asks of it ---

    def request(
        self, conversation: Sequence[Message], understood: bool, stir: CallerVerdict | None = None
    ) -> dict[str, Any]:
        options = self.options
        now = self._clock.wall()
        system = told.system(self._definition, self._script, options.instructions, now, conversation, stir)
        kept = conversation  # within its limits by summaries, where the file has them
        if self._definition.context is None:
            kept = told.recent(conversation, options.max_messages, options.max_characters)
        seen = told.whole(kept)
        if options.api == "responses":
            request = openai_responses.request(system, seen, self._functions, understood)
            request["max_output_tokens"] = options.max_tokens
        else:
            request = openai_chat.request(system, seen, self._functions, understood)
            if options.base_url == OPENAI_URL:
                request |= {"max_completion_tokens": options.max_tokens, "store": False}
            else:  # most other servers know the old name only, and nothing of storing
                request["max_tokens"] = options.max_tokens
        if options.temperature is not None:
            request["temperature"] = options.temperature
        return {"model": options.model, **request}

    def answer(self) -> _Answer:
        return openai_responses.Answer() if self.options.api == "responses" else openai_chat.Answer()

    def expect_digits(self, name: str, conversation: Sequence[Message]) -> tuple[Expectation, str]:
        """What the keypad is expected to give, and how the file asks for it in the language of the conversation."""
        tag = languages.of_conversation(conversation, tuple(self._scripts))
        entry = self._scripts[tag].digits.get(name) or self._script.digits.get(name)
        if entry is None:
            return Expectation(), ""
        return Expectation(digits_min=entry.min, digits_max=entry.max), entry.prompt


class OpenAiSession:
    def __init__(self, llm: OpenAiLlm, stir: CallerVerdict | None = None) -> None:
        self._llm, self._stir = llm, stir
        self.prompt_sha256 = ""

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        """Closing the generator closes the connection: the server stops writing. Raises ProviderError."""
        llm, http = self._llm, self._llm.http
        answer = llm.answer()
        request = llm.request(conversation, understood, self._stir)
        self.prompt_sha256 = sha256_of(request)
        response: Any = None
        try:
            try:
                async with asyncio.timeout(llm.options.first_token_ms / 1000):
                    response = await http.post(llm.path, request)
                    chunks = _events(response.iter_bytes())
                    chunk = await _first(chunks, answer)
            except TimeoutError:
                raise http.error("timeout", "no first token", retryable=True) from None
            except Exception as error:
                if response is None and not isinstance(error, http.sdk_error):
                    raise
                raise http.failed(error, begun=response is not None) from None
            while chunk is not None:
                for text in answer.take(chunk):
                    yield TextDelta(text)
                if answer.refused is not None:
                    raise http.refused(*answer.refused)
                try:
                    async with asyncio.timeout(llm.options.between_tokens_ms / 1000):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    if answer.finished:  # nothing is missing but the end of the connection
                        break
                    raise http.error("timeout", "the model stalled in mid-answer", retryable=True) from None
                except Exception as error:  # whatever a stranger's bytes make of it
                    raise http.failed(error, begun=True) from None
        finally:
            if response is not None:
                await response.close()
        if not answer.finished:
            raise http.error("protocol", "the answer ended in the middle", retryable=True)
        for event in self._end(answer, conversation):
            yield event

    def close(self) -> None:
        pass

    def _end(self, answer: _Answer, conversation: Sequence[Message]) -> list[LlmEvent]:
        calls = answer.calls()
        events: list[LlmEvent] = []
        expectation = Expectation()
        for call in calls:
            if call.name == told.EXPECT_DIGITS:
                expectation, prompt = self._llm.expect_digits(str(call.arguments.get("name", "")), conversation)
                if not answer.spoke and len(calls) == 1 and prompt:
                    events.append(TextDelta(prompt))
        events += [call for call in calls if call.name != told.EXPECT_DIGITS]
        if answer.usage is not None:
            events.append(answer.usage)
        return [*events, Expect(expectation)]


async def _events(body: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """To the end of the body, so that its connection can be used again. Raises ValueError."""
    events = Events()
    async for data in body:
        for event in events.feed(data):
            if event != b"[DONE]":
                yield msgspec.json.decode(event)


async def _first(chunks: AsyncIterator[Any], answer: _Answer) -> Any:
    """The first chunk that says something. Those before it are kept in `answer`."""
    while (chunk := await anext(chunks, None)) is not None:
        if answer.begins(chunk):
            return chunk
        answer.take(chunk)
    return None
