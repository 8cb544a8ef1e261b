"""A local server that speaks OpenAI's Realtime API (GA) on the wire: one WebSocket a session.

Sources: the SDK's types (`openai.types.realtime`), whose docstrings are the API reference's text, and the guide to
Realtime conversations they link to. What a client sends is parsed with the types of `RealtimeClientEvent` and refused
where it does not fit; what we send is built from the types of `RealtimeServerEvent`. So a test of either side is a
round trip through them.

The model "hears" by timing: a committed utterance is worth the next of `transcripts`, whatever its audio; its own
detector (`server_vad`) goes by loudness. It answers with the next of `replies`:

    async with OpenAiRealtimeServer() as server:
        server.replies.append(Reply("We open at eight.", audio=speech))
        ... server.base_url ... server.sessions[0].truncated
"""

import asyncio
import contextlib
import itertools
import logging
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from openai.types.realtime import (
    ConversationItemAdded,
    ConversationItemDeletedEvent,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompletedEvent,
    ConversationItemTruncatedEvent,
    InputAudioBufferClearedEvent,
    InputAudioBufferCommittedEvent,
    InputAudioBufferSpeechStartedEvent,
    InputAudioBufferSpeechStoppedEvent,
    RateLimitsUpdatedEvent,
    RealtimeClientEvent,
    RealtimeErrorEvent,
    RealtimeResponse,
    RealtimeResponseUsage,
    ResponseAudioDeltaEvent,
    ResponseAudioDoneEvent,
    ResponseAudioTranscriptDeltaEvent,
    ResponseAudioTranscriptDoneEvent,
    ResponseCreatedEvent,
    ResponseDoneEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    SessionCreatedEvent,
    SessionUpdatedEvent,
)
from pydantic import BaseModel, TypeAdapter, ValidationError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

_SILENT = logging.getLogger("tests.fakes.openai_realtime.silent")
_SILENT.disabled = True  # or the key it was sent would be in the log
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
PER_MS = 8  # G.711
DELTA_MS = 200
LOUD = 0x60  # of a mu-law byte's magnitude, the lower the louder
MIN_COMMIT_MS = 100
ITEM = "item_"


@dataclass(frozen=True)
class Tool:
    name: str
    arguments: str = "{}"
    call_id: str = "call_abc"


@dataclass(frozen=True)
class Reply:
    """What the model says and does. `audio` is G.711, as the session asks for it."""

    text: str = ""
    audio: bytes = b""
    tools: tuple[Tool, ...] = ()
    first_s: float = 0.0
    """From the request to the first audio; infinity: it stalls."""
    between_s: float = 0.0
    """Between deltas of 200 ms."""
    stall_after: int | None = None
    """Deltas after which nothing more comes."""
    drop_after: int | None = None
    """Deltas after which the connection breaks."""
    fails: str | None = None
    """The response fails with this code."""
    usage: tuple[int, int, int, int] | None = (30, 12, 40, 60)
    """Text in, text out, audio in, audio out."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP status in place of a session."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = "{}"


@dataclass
class Spoken:
    id: str
    audio_ms: int
    """All that was sent of it so far."""


@dataclass
class Session:
    """One connection, as a test looks at it."""

    headers: Mapping[str, str]
    path: str
    config: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    """Of the client, without the audio it appends."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """That the client created."""
    heard: bytearray = field(default_factory=bytearray)
    """All audio that was appended."""
    heard_at: list[float] = field(default_factory=list)
    """When each piece of it came: UNIX time."""
    told_at: list[float] = field(default_factory=list)
    """When each message came, audio or not, on the loop's clock."""
    utterances: list[bytes] = field(default_factory=list)
    spoken: dict[str, Spoken] = field(default_factory=dict)
    truncated: list[tuple[str, int]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    cancelled: int = 0
    refused: list[str] = field(default_factory=list)
    """Codes of the errors we sent."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    socket: ServerConnection | None = None

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


class OpenAiRealtimeServer:
    def __init__(self, *, key: str | None = None) -> None:
        self.key = key
        self.replies: deque[Reply] = deque()
        self.transcripts: deque[str] = deque()
        self.refusals: deque[Refusal] = deque()
        self.sessions: list[Session] = []
        self.line = Reply()
        """How a fixed line is spoken (`instructions` of a response.create): its audio."""
        self.transcript_s = 0.0
        self.create_s = 0.0
        """From the connection to session.created."""
        self.lasts_s: float | None = None
        """A session is ended when it is so old, with `session_expired`; it says so when it is made (`expires_at`)."""
        self.epoch = time.time
        self.garbage: bytes | None = None
        """Sent in place of the next response."""
        self.ids = itertools.count(1)
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            compression=None,
            close_timeout=0.5,
            logger=_SILENT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    @property
    def session(self) -> Session:
        return self.sessions[-1]

    def drop(self) -> None:
        """Every live connection breaks."""
        for session in self.sessions:
            if session.socket is not None and not session.closed.is_set():
                session.socket.transport.abort()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        refusal = self.refusals.popleft() if self.refusals else None
        if refusal is None and self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            refusal = Refusal(401)
        if refusal is None:
            return None
        body = refusal.body.encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers})
        return Response(refusal.status, HTTPStatus(refusal.status).phrase, headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        session = Session(dict(socket.request.headers.raw_items()), socket.request.path, socket=socket)
        self.sessions.append(session)
        talk = _Talk(self, session, socket)
        try:
            await talk.run()
        except ConnectionClosed:
            pass
        finally:
            await talk.end()
            session.closed.set()


class _Talk:
    """The server's side of one session."""

    def __init__(self, server: OpenAiRealtimeServer, session: Session, socket: ServerConnection) -> None:
        self.server, self.session, self.socket = server, session, socket
        self.buffer = bytearray()
        self.hearing = False
        self.silence_bytes = 0
        self.item = ""
        self.speaking: asyncio.Task[None] | None = None
        self.response = ""
        self.metadata: dict[str, str] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.answers_owed = False

    async def run(self) -> None:
        if self.server.create_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.server.create_s):
                    await self.socket.wait_closed()
        session: dict[str, Any] = {"type": "realtime"}
        if self.server.lasts_s is not None:
            session["expires_at"] = round(self.server.epoch() + self.server.lasts_s)
            self.tasks.add(asyncio.get_running_loop().create_task(self.expire(self.server.lasts_s)))
        await self.send(
            SessionCreatedEvent.model_validate(
                {"type": "session.created", "event_id": self.id("event"), "session": session}
            )
        )
        async for message in self.socket:
            await self.take(message)

    async def expire(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.error("session_expired")
        await self.socket.close(1001)

    async def end(self) -> None:
        for task in (*self.tasks, *((self.speaking,) if self.speaking else ())):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await task

    def id(self, kind: str) -> str:
        return f"{kind}_{next(self.server.ids)}"

    async def send(self, event: BaseModel) -> None:
        await self.socket.send(event.model_dump_json(exclude_unset=True, by_alias=True))

    async def error(self, code: str, event_id: str | None = None, kind: str = "invalid_request_error") -> None:
        self.session.refused.append(code)
        error = {"type": kind, "code": code, "message": f"it is {code}", "event_id": event_id}
        await self.send(
            RealtimeErrorEvent.model_validate({"type": "error", "event_id": self.id("event"), "error": error})
        )

    # --- what the client says ---

    async def take(self, message: str | bytes) -> None:
        self.session.told_at.append(asyncio.get_running_loop().time())
        try:
            event = CLIENT_EVENT.validate_json(message)
        except ValidationError:
            await self.error("invalid_event")
            return
        said = event.model_dump(exclude_unset=True, by_alias=True)
        if event.type == "input_audio_buffer.append":
            await self.hear(b64decode(event.audio, validate=True))
            return
        self.session.events.append(said)
        match event.type:
            case "session.update":
                self.session.config = said["session"]
                await self.send(
                    SessionUpdatedEvent.model_validate(
                        {"type": "session.updated", "event_id": self.id("event"), "session": said["session"]}
                    )
                )
            case "input_audio_buffer.commit":
                await self.commit(event.event_id)
            case "input_audio_buffer.clear":
                self.buffer.clear()
                self.hearing = False
                await self.send(
                    InputAudioBufferClearedEvent(event_id=self.id("event"), type="input_audio_buffer.cleared")
                )
            case "conversation.item.create":
                item = {"id": self.id("item"), **said["item"]}
                self.session.items.append(item)
                await self.added(item)
            case "conversation.item.delete":
                self.session.deleted.append(event.item_id)
                await self.send(
                    ConversationItemDeletedEvent(
                        event_id=self.id("event"), item_id=event.item_id, type="conversation.item.deleted"
                    )
                )
            case "conversation.item.truncate":
                await self.truncate(event.item_id, event.audio_end_ms, event.event_id)
            case "response.create":
                await self.respond(said.get("response") or {}, event.event_id)
            case "response.cancel":
                await self.cancel("client_cancelled", event.event_id)

    async def hear(self, audio: bytes) -> None:
        self.session.heard += audio
        self.session.heard_at.append(time.time())
        self.buffer += audio
        detection = ((self.session.config.get("audio") or {}).get("input") or {}).get("turn_detection")
        if detection is not None:
            await self.detect(audio, detection)

    async def detect(self, audio: bytes, detection: dict[str, Any]) -> None:
        loud = sum(1 for byte in audio if (byte & 0x7F) < LOUD) > len(audio) // 10
        position_ms = len(self.session.heard) // PER_MS
        if loud:
            self.silence_bytes = 0
            if not self.hearing:
                self.hearing, self.item = True, self.id("item")
                del self.buffer[: -300 * PER_MS - len(audio)]
                await self.send(
                    InputAudioBufferSpeechStartedEvent(
                        audio_start_ms=max(0, position_ms - 300 - len(audio) // PER_MS),
                        event_id=self.id("event"),
                        item_id=self.item,
                        type="input_audio_buffer.speech_started",
                    )
                )
                if detection.get("interrupt_response", True):
                    await self.cancel("turn_detected", None)
            return
        self.silence_bytes += len(audio)
        if self.hearing and self.silence_bytes >= detection.get("silence_duration_ms", 500) * PER_MS:
            self.hearing = False
            await self.send(
                InputAudioBufferSpeechStoppedEvent(
                    audio_end_ms=position_ms,
                    event_id=self.id("event"),
                    item_id=self.item,
                    type="input_audio_buffer.speech_stopped",
                )
            )
            await self.commit(None, self.item)
            if detection.get("create_response", True):
                await self.respond({}, None)

    async def commit(self, event_id: str | None, item: str = "") -> None:
        if len(self.buffer) < MIN_COMMIT_MS * PER_MS:
            await self.error("input_audio_buffer_commit_empty", event_id)
            return
        item = item or self.id("item")
        self.session.utterances.append(bytes(self.buffer))
        self.buffer.clear()
        await self.send(
            InputAudioBufferCommittedEvent(
                event_id=self.id("event"), item_id=item, type="input_audio_buffer.committed", previous_item_id=None
            )
        )
        content = [{"type": "input_audio", "transcript": None}]
        await self.added({"id": item, "type": "message", "role": "user", "status": "completed", "content": content})
        if (self.session.config["audio"]["input"].get("transcription") or {}).get("model"):
            task = asyncio.get_running_loop().create_task(self.transcribe(item))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def transcribe(self, item: str) -> None:
        await asyncio.sleep(self.server.transcript_s)
        with contextlib.suppress(ConnectionClosed):
            await self.send(
                ConversationItemInputAudioTranscriptionCompletedEvent.model_validate(
                    {
                        "type": "conversation.item.input_audio_transcription.completed",
                        "event_id": self.id("event"),
                        "item_id": item,
                        "content_index": 0,
                        "transcript": self.server.transcripts.popleft() if self.server.transcripts else "",
                        "usage": {"type": "duration", "seconds": 1.0},
                    }
                )
            )

    async def added(self, item: dict[str, Any]) -> None:
        for kind, made in (("added", ConversationItemAdded), ("done", ConversationItemDone)):
            await self.send(
                made.model_validate({"type": f"conversation.item.{kind}", "event_id": self.id("event"), "item": item})
            )

    async def truncate(self, item: str, audio_end_ms: int, event_id: str | None) -> None:
        spoken = self.session.spoken.get(item)
        if spoken is None or audio_end_ms > spoken.audio_ms:
            await self.error("invalid_value", event_id)
            return
        self.session.truncated.append((item, audio_end_ms))
        await self.send(
            ConversationItemTruncatedEvent(
                audio_end_ms=audio_end_ms,
                content_index=0,
                event_id=self.id("event"),
                item_id=item,
                type="conversation.item.truncated",
            )
        )

    # --- what the model says ---

    async def respond(self, asked: dict[str, Any], event_id: str | None) -> None:
        if self.speaking is not None and not self.speaking.done():
            await self.error("conversation_already_has_active_response", event_id)
            return
        if self.server.garbage is not None:
            garbage, self.server.garbage = self.server.garbage, None
            await self.socket.send(garbage, text=True)
            return
        self.response, self.metadata = self.id("resp"), asked.get("metadata")
        if "instructions" in asked:
            line = asked["instructions"].rpartition(": ")[2].strip('"')
            reply = Reply(line, self.server.line.audio, first_s=self.server.line.first_s, usage=self.server.line.usage)
        elif self.server.replies:
            reply = self.server.replies.popleft()
        else:
            reply = Reply()
        await self.send(ResponseCreatedEvent.model_validate(self.event("response.created", status="in_progress")))
        await self.send(
            RateLimitsUpdatedEvent.model_validate(
                {
                    "type": "rate_limits.updated",
                    "event_id": self.id("event"),
                    "rate_limits": [{"name": "tokens", "limit": 40000, "remaining": 39000, "reset_seconds": 1.0}],
                }
            )
        )
        self.speaking = asyncio.get_running_loop().create_task(self.speak(reply, self.response))

    def event(self, kind: str, **response: Any) -> dict[str, Any]:
        body = {"id": self.response, "object": "realtime.response", "metadata": self.metadata, **response}
        return {
            "type": kind,
            "event_id": self.id("event"),
            "response": RealtimeResponse.model_validate(body).model_dump(exclude_unset=True),
        }

    async def speak(self, reply: Reply, response: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            await asyncio.sleep(reply.first_s if reply.first_s != float("inf") else 1e6)
            if reply.fails is not None:
                error = {"code": reply.fails, "type": "server_error", "message": "no"}
                details = {"type": "failed", "error": error}
                await self.done(reply, status="failed", status_details=details)
                return
            if reply.text or reply.audio:
                await self.say(reply, response)
            for at, tool in enumerate(reply.tools, 1):
                await self.call(tool, response, at)
            await self.done(reply, status="completed")

    async def say(self, reply: Reply, response: str) -> None:
        item = self.id("item")
        at: dict[str, Any] = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        message = {"id": item, "type": "message", "role": "assistant", "content": []}
        await self.send(self.output_item("added", response, 0, message))
        spoken = self.session.spoken[item] = Spoken(item, 0)
        words, size = deque(reply.text.split()), DELTA_MS * PER_MS
        deltas = [reply.audio[start : start + size] for start in range(0, len(reply.audio), size)]
        each = -(-len(words) // max(1, len(deltas))) + 1  # words come a little ahead of their audio
        for number, delta in enumerate(deltas or [b""]):
            text = " ".join(words.popleft() for _ in range(min(each, len(words))))
            if text:
                await self.send(
                    ResponseAudioTranscriptDeltaEvent(
                        type="response.output_audio_transcript.delta",
                        event_id=self.id("event"),
                        delta=f"{text} ",
                        **at,
                    )
                )
            if number == reply.drop_after:
                self.socket.transport.abort()
                return
            if number == reply.stall_after:
                await asyncio.sleep(1e6)
            if delta:
                spoken.audio_ms += len(delta) // PER_MS
                await self.send(
                    ResponseAudioDeltaEvent(
                        type="response.output_audio.delta",
                        event_id=self.id("event"),
                        delta=b64encode(delta).decode(),
                        **at,
                    )
                )
            await asyncio.sleep(reply.between_s)
        await self.send(ResponseAudioDoneEvent(type="response.output_audio.done", event_id=self.id("event"), **at))
        await self.send(
            ResponseAudioTranscriptDoneEvent(
                type="response.output_audio_transcript.done",
                event_id=self.id("event"),
                transcript=reply.text,
                **at,
            )
        )
        whole = {**message, "content": [{"type": "output_audio", "transcript": reply.text}]}
        await self.send(self.output_item("done", response, 0, whole))

    def output_item(self, kind: str, response: str, index: int, item: dict[str, Any]) -> BaseModel:
        made = ResponseOutputItemAddedEvent if kind == "added" else ResponseOutputItemDoneEvent
        body = {"event_id": self.id("event"), "item": item, "output_index": index, "response_id": response}
        return made.model_validate({"type": f"response.output_item.{kind}", **body})

    async def call(self, tool: Tool, response: str, index: int) -> None:
        item = self.id("item")
        call = {"id": item, "type": "function_call", "call_id": tool.call_id, "name": tool.name, "arguments": ""}
        await self.send(self.output_item("added", response, index, call))
        await self.send(
            ResponseFunctionCallArgumentsDoneEvent(
                type="response.function_call_arguments.done",
                event_id=self.id("event"),
                response_id=response,
                item_id=item,
                output_index=index,
                call_id=tool.call_id,
                name=tool.name,
                arguments=tool.arguments,
            )
        )
        await self.send(self.output_item("done", response, index, {**call, "arguments": tool.arguments}))

    async def done(self, reply: Reply, **response: Any) -> None:
        if reply.usage is not None:
            text_in, text_out, audio_in, audio_out = reply.usage
            response["usage"] = RealtimeResponseUsage.model_validate(
                {
                    "input_tokens": text_in + audio_in,
                    "output_tokens": text_out + audio_out,
                    "total_tokens": sum(reply.usage),
                    "input_token_details": {"text_tokens": text_in, "audio_tokens": audio_in, "cached_tokens": 0},
                    "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
                }
            ).model_dump(exclude_unset=True)
        await self.send(ResponseDoneEvent.model_validate(self.event("response.done", **response)))

    async def cancel(self, reason: str, event_id: str | None) -> None:
        task, self.speaking = self.speaking, None
        if task is None or task.done():
            if reason == "client_cancelled":
                await self.error("response_cancel_not_active", event_id)
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.session.cancelled += 1
        details = {"type": "cancelled", "reason": reason}
        await self.done(Reply(usage=(30, 2, 40, 10)), status="cancelled", status_details=details)
