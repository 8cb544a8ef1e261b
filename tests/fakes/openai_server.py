"""A local server that speaks OpenAI on the wire: Chat Completions, Responses and speech, with all that goes wrong.

Bodies are built from the SDK's own types, so the wire is what the SDK's authors say it is. A test queues answers:

    async with OpenAiServer() as server:
        server.answers.append(Answer("Hello", " there."))
        ... server.base_url ... server.requests[0].body["messages"]

An Answer goes by the API it was asked for over. Speech that nobody queued is spoken by espeak-ng.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import (
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.shared import ErrorObject

from tests.fakes import http_server, openai_responses
from tests.fakes.http_server import HttpServer, Request
from trunkline.agents.local.voice import synthesize


@dataclass(frozen=True)
class Call:
    """A tool call, streamed with its arguments in pieces."""

    name: str
    arguments: str
    id: str = "call_abc"
    index: int = 0


@dataclass(frozen=True)
class Wait:
    """Nothing for this long; forever means until the client goes away."""

    seconds: float = float("inf")


@dataclass(frozen=True)
class Raw:
    """These bytes, as they are."""

    data: bytes


@dataclass(frozen=True)
class Drop:
    """The connection breaks here."""


@dataclass(frozen=True)
class Fail:
    """The model fails here (Responses: `response.failed`), or the server does (`event`: its `error`)."""

    code: str
    message: str = "no"
    event: bool = False


Part = str | Call | Wait | Raw | Drop | Fail


class Answer:
    def __init__(
        self,
        *parts: Part,
        finish: Literal["stop", "tool_calls", "length"] | None = "stop",
        usage: tuple[int, int] | None = (12, 5),
        delay_s: float = 0.0,
        between_s: float = 0.0,
    ) -> None:
        self.parts, self.finish, self.usage = parts, finish, usage
        self.delay_s, self.between_s = delay_s, between_s


SPEECH_HZ = 24_000


class Speech:
    """Audio, in the pieces given."""

    def __init__(
        self, *parts: bytes | Wait | Raw | Drop, content_type: str = "audio/pcm", delay_s: float = 0.0
    ) -> None:
        self.parts, self.content_type, self.delay_s = parts, content_type, delay_s


@dataclass(frozen=True)
class Refusal:
    """An error instead of an answer."""

    status: int
    message: str = "no"
    type: str = "invalid_request_error"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class OpenAiServer(HttpServer):
    def __init__(self) -> None:
        super().__init__()
        self.answers: deque[Answer | Speech | Refusal] = deque()
        self.requests: list[Request] = []
        self.first_audio_s = 0.0

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def answer(self, request: Request, stream: http_server.Stream) -> None:
        self.requests.append(request)
        answer = self._answer(request)
        told = _Stream(stream, request.body)
        match answer:
            case Refusal():
                error = ErrorObject(code=answer.code, message=answer.message, param=None, type=answer.type)
                await stream.whole(answer.status, {"error": error.model_dump()}, answer.headers)
            case Speech():
                await told.speak(answer)
            case Answer():
                await (told.respond if request.path == "/v1/responses" else told.send)(answer)

    def _answer(self, request: Request) -> Answer | Speech | Refusal:
        if request.path == "/v1/audio/speech" and (not self.answers or isinstance(self.answers[0], Answer)):
            pcm = synthesize(request.body["input"], rate_hz=SPEECH_HZ)
            return Speech(*(pcm[at : at + 4800] for at in range(0, len(pcm), 4800)), delay_s=self.first_audio_s)
        return self.answers.popleft()


class _Stream:
    """One streamed answer."""

    def __init__(self, http: http_server.Stream, body: Any) -> None:
        self.http, self.body = http, body
        self.raw, self.wait, self.end = http.chunk, http.wait, http.end

    async def speak(self, speech: Speech) -> None:
        await self.wait(speech.delay_s)
        self.http.begin(speech.content_type)
        for part in speech.parts:
            match part:
                case bytes():
                    await self.raw(part)
                case Raw(data):  # beside the framing of HTTP
                    await self.http.unframed(data)
                case _:
                    await self.part(part)
        await self.end()

    async def respond(self, answer: Answer) -> None:
        """Over the Responses API."""
        self.http.begin("text/event-stream; charset=utf-8")
        await self.wait(answer.delay_s)
        events = openai_responses.Events()
        for event in events.begin():
            await self.named(event)
        for part in answer.parts:
            match part:
                case str():
                    made = events.text(part)
                case Call():
                    made = events.call(part.name, part.arguments, part.id)
                case Fail(code, message, event=as_event):
                    made = events.error(code, message) if as_event else events.failed(code, message)
                case _:
                    await self.part(part)
                    continue
            for event in made:
                await self.named(event)
            if isinstance(part, Fail):
                await self.end()
                return
            await self.wait(answer.between_s)
        if answer.finish is not None:
            for event in events.end(answer.usage, complete=answer.finish != "length"):
                await self.named(event)
        await self.end()

    async def named(self, event: Any) -> None:
        await self.raw(f"event: {event.type}\ndata: {event.model_dump_json(exclude_unset=True)}\n\n".encode())

    async def send(self, answer: Answer) -> None:
        self.http.begin("text/event-stream; charset=utf-8")
        await self.wait(answer.delay_s)
        await self.event(_chunk([_choice(ChoiceDelta(role="assistant", content=""))]))
        for part in answer.parts:
            await self.part(part)
            await self.wait(answer.between_s)
        if answer.finish is not None:
            await self.event(_chunk([_choice(ChoiceDelta(), answer.finish)]))
        if answer.usage is not None and (self.body.get("stream_options") or {}).get("include_usage"):
            tokens_in, tokens_out = answer.usage
            usage = CompletionUsage(
                prompt_tokens=tokens_in, completion_tokens=tokens_out, total_tokens=tokens_in + tokens_out
            )
            await self.event(_chunk([], usage))
        await self.raw(b"data: [DONE]\n\n")
        await self.end()

    async def part(self, part: Part) -> None:
        match part:
            case str():
                await self.event(_chunk([_choice(ChoiceDelta(content=part))]))
            case Call():
                for delta in call_deltas(part):
                    await self.event(_chunk([_choice(ChoiceDelta(tool_calls=[delta]))]))
            case Wait(seconds):
                await self.wait(seconds)
            case Raw(data):
                await self.raw(data)
            case Drop():
                self.http.drop()
            case Fail(_, message):
                await self.raw(b"data: " + json.dumps({"error": {"message": message}}).encode() + b"\n\n")

    async def event(self, chunk: ChatCompletionChunk) -> None:
        await self.raw(b"data: " + chunk.model_dump_json(exclude_unset=True).encode() + b"\n\n")


def call_deltas(call: Call) -> list[ChoiceDeltaToolCall]:
    """As OpenAI streams it: id and name first, then the arguments in small pieces."""
    pieces = [call.arguments[at : at + 4] for at in range(0, len(call.arguments), 4)]
    head = ChoiceDeltaToolCall(
        index=call.index,
        id=call.id,
        type="function",
        function=ChoiceDeltaToolCallFunction(name=call.name, arguments=""),
    )
    tail = [
        ChoiceDeltaToolCall(index=call.index, function=ChoiceDeltaToolCallFunction(arguments=piece)) for piece in pieces
    ]
    return [head, *tail]


def _choice(delta: ChoiceDelta, finish: Literal["stop", "tool_calls", "length"] | None = None) -> Choice:
    return Choice(index=0, delta=delta, finish_reason=finish)


def _chunk(choices: Sequence[Choice], usage: CompletionUsage | None = None) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        id="chatcmpl-1",
        object="chat.completion.chunk",
        created=1763800000,
        model="fake",
        choices=list(choices),
        usage=usage,
    )
