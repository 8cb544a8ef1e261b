"""`realtime.openai`: OpenAI's Realtime API over WebSocket, mu-law both ways: nothing is decoded in between.

The wire protocol is spoken directly: the SDK's client builds a typed object for every event and walks every event it
sends, which costs more than all the rest of a call (bench/README.md). Its types are what the tests hold us to.

Orders leave for the socket at once; what the server says comes to `on_event` from the socket's callback. Every wait has
a deadline of ours.
"""

import asyncio
import json
import ssl
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import SPEAK_LANGUAGE, primary
from trunkline.agents.llm.told import EXPECT_DIGITS, NEVER_AGAIN, vouched
from trunkline.agents.openai_http import OPENAI_URL
from trunkline.agents.options import THIRD_PARTY, is_third_party
from trunkline.agents.prompts import Told, canonical
from trunkline.agents.providers import Services
from trunkline.agents.realtime.openai_wire import DECODE, Error, Event, Response, Session, appended, arguments, items
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.agents.script.model import Script
from trunkline.agents.tools import tool_specs
from trunkline.agents.websocket import Gone, Link, Refused
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import (
    CallerVerdict,
    CallFacts,
    Message,
    ModelLost,
    ModelOpened,
    ModelRefused,
    ModelSpeechEnded,
    ModelSpeechStarted,
    ModelTook,
    ModelTranscribed,
    RealtimeEvent,
    ReplyAudio,
    ReplyEnded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyText,
    ReplyTool,
    ToolCall,
)
from trunkline.types import ALAW_8K, MULAW_8K, Format

PHONE_RULES = (
    "You are speaking on the telephone. Answer in one to three short sentences of plain spoken language. If you did "
    "not understand the caller, ask again. Say goodbye before you end the call."
)
LANGUAGES = (
    "You speak these languages, named by their tags: {tags}, and no others. Answer in the one the caller speaks; begin "
    "in the first. Whenever the language changes, call {tool} before you say a word in the other."
)
VERBATIM = "Speak this line to the caller, word for word, and nothing else: "
PULSE_S = 5.0  # from ping to ping; one that is not answered until the next is the last
PREFIX_MS = 300  # of audio before the speech that its detector heard
BATCH_MS = 40  # of the caller's audio in one message: half the messages for 10 ms on average
SPEECH_BATCH_MS = 100  # where we commit: that sends the rest at once

OPTIONS: Keys = {
    "model": Key("text", "Name of the model.", required=True),
    "base_url": Key("text", "The server's address, up to and with `/v1`.", OPENAI_URL),
    "third_party": THIRD_PARTY,
    "instructions": Key("text", "Who the agent is, what it knows and how it behaves.", ""),
    "voice": Key("text", "The voice it speaks with.", "marin"),
    "transcription": Key(
        "text", "The model that writes down what callers say, for the record; `none`: nobody does.", "gpt-transcribe"
    ),
    "max_tokens": Key("whole", "The longest reply, in tokens of audio and text.", 2048, low=64, high=4096),
    "vad": Key(
        "text",
        'turns = "server": by silence, or by what was said.',
        "server_vad",
        choices=("server_vad", "semantic_vad"),
    ),
    "vad_silence_ms": Key("whole", "server_vad: silence that ends a turn.", 500, low=100, high=5000),
    "vad_threshold": Key("number", "server_vad: how loud is speech, 0 to 1.", 0.5, low=0, high=1),
    "eagerness": Key(
        "text",
        "semantic_vad: how soon it takes the turn.",
        "auto",
        choices=("low", "medium", "high", "auto"),
    ),
    "connect_ms": Key("whole", "The longest wait for a session.", 4000, low=50, high=60000),
}


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    base_url: str
    third_party: bool | None
    instructions: str
    voice: str
    transcription: str
    max_tokens: int
    vad: str
    vad_silence_ms: int
    vad_threshold: float
    eagerness: str
    connect_ms: int


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


class OpenAiRealtime:
    name = "openai"
    elsewhere = True
    formats: tuple[Format, ...] = (MULAW_8K, ALAW_8K)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError."""
        self.options = read_options(options)
        self.third_party = is_third_party(self.options.base_url, self.options.third_party)
        key = services.keys.get("openai")
        if key is None and self.options.base_url == OPENAI_URL:
            raise ConfigError("openai.api_key", None, "an API key is needed for OpenAI's own server")
        self.product = self.options.model
        self.transcriber = self.options.transcription if self.options.transcription != "none" else ""
        self.transcribes = self.options.transcription != "none"
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = f"ws{self.options.base_url[4:].rstrip('/')}/realtime?model={quote(self.options.model)}"
        self.tls = ssl.create_default_context() if self.url.startswith("wss:") else None
        self.sessions: set[OpenAiRealtimeSession] = set()
        self._definition, self._clock = definition, services.clock
        self._script = Script.of(definition)
        self._tools = _tools(definition, self._script)
        self._started = False

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    async def start(self) -> None:
        self._started = True

    def open(
        self,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> "OpenAiRealtimeSession":
        if not self._started:
            raise ProviderError(self.name, "unavailable", "not started", retryable=False)
        return OpenAiRealtimeSession(self, format, conversation, on_event, call.stir)

    async def close(self) -> None:
        """Sessions that are still open are closed."""
        self._started = False
        for session in tuple(self.sessions):
            session.close()
            await session.closed()

    # --- what a session asks of it ---

    def session(self, format: Format, stir: CallerVerdict | None = None) -> dict[str, Any]:
        """The body of `session.update`."""
        options = self.options
        audio = {"type": "audio/pcmu" if format.encoding == "mulaw" else "audio/pcma"}
        return {
            "type": "realtime",
            "instructions": self._instructions(stir),
            "output_modalities": ["audio"],
            "max_output_tokens": options.max_tokens,
            "audio": {
                "input": {
                    "format": audio,
                    "transcription": self._transcription(),
                    "turn_detection": self._turn_detection(),
                },
                "output": {"format": audio, "voice": options.voice},
            },
            "tools": self._tools,
            "tool_choice": "auto",
        }

    def lasts_s(self, expires_at: int | None) -> float | None:
        """A clock that is wrong by more than the session's length is not believed."""
        left_s = None if expires_at is None else expires_at - self._clock.wall().timestamp()
        return left_s if left_s is not None and left_s > 0 else None

    def error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return ProviderError(self.name, code, detail, retryable=retryable)

    def refused(self, refused: Refused) -> ProviderError:
        """The handshake was answered, but not with 101."""
        status = refused.status
        if status in (401, 403):
            return self.error("auth", f"status {status}", retryable=False)
        if status == 429:
            quota = b"insufficient_quota" in refused.body
            after = refused.headers.get("retry-after", "")
            detail = "quota used up" if quota else f"retry after {after} s" if after else ""
            return self.error("rate_limited", detail, retryable=not quota)
        if status == 408:
            return self.error("timeout", f"status {status}", retryable=True)
        if status >= 500:
            return self.error("unavailable", f"status {status}", retryable=True)
        return self.error("bad_request", f"status {status}", retryable=False)

    def failed(self, code: str | None, kind: str | None) -> ProviderError:
        """An error that the server told. Its text may quote the key or the caller: it is left out."""
        said = code or kind or ""
        if said in ("insufficient_quota", "billing_hard_limit_reached"):
            return self.error("rate_limited", "quota used up", retryable=False)
        if said.startswith("rate_limit"):
            return self.error("rate_limited", "", retryable=True)
        if said in ("invalid_api_key", "authentication_error"):
            return self.error("auth", said, retryable=False)
        if said in ("server_error", "session_expired", "internal_error"):
            return self.error("unavailable", said, retryable=True)
        return self.error("bad_request", said[:60], retryable=False)

    @property
    def batch_ms(self) -> int:
        return BATCH_MS if self._turn_detection() is not None else SPEECH_BATCH_MS

    @property
    def silence_ms(self) -> int:
        """How much silence the server's detector counts into a turn; 0: it does not say."""
        return self.options.vad_silence_ms if self.options.vad == "server_vad" else 0

    def _instructions(self, stir: CallerVerdict | None) -> str:
        parts = [self.options.instructions or f"You answer the telephone of {self._definition.name}.", PHONE_RULES]
        parts += [NEVER_AGAIN] if self._definition.heeds else []
        parts += vouched(stir)
        hours = self._script.hours
        if hours is not None:
            now = self._clock.wall()
            local = now.astimezone(hours.zone)
            state = "open" if hours.is_open(now) else f"closed until {hours.spoken(now)['next_opening']}"
            parts.append(f"It is {local:%A, %d %B %Y, %H:%M}. We are {state}.")
        if self._definition.languages:
            parts.append(LANGUAGES.format(tags=", ".join(self._definition.tags), tool=SPEAK_LANGUAGE))
        return "\n\n".join(parts)

    def _transcription(self) -> dict[str, Any] | None:
        if not self.transcribes:
            return None
        if self._definition.languages:  # it finds which of them is spoken, and does not tell
            return {"model": self.options.transcription}
        return {"model": self.options.transcription, "language": primary(self._definition.language)}

    def _turn_detection(self) -> dict[str, Any] | None:
        terms, options = self._definition.realtime, self.options
        if terms is None or terms.turns == "ours":
            return None
        answers = {"create_response": True, "interrupt_response": True}
        if options.vad == "semantic_vad":
            return {"type": "semantic_vad", "eagerness": options.eagerness, **answers}
        return {
            "type": "server_vad",
            "threshold": options.vad_threshold,
            "prefix_padding_ms": PREFIX_MS,
            "silence_duration_ms": options.vad_silence_ms,
            **answers,
        }


class OpenAiRealtimeSession:
    """`close` closes the connection: the server stops speaking. What is sent leaves at once and what comes is told at
    once: no task and no queue lies between the call and the socket."""

    def __init__(
        self,
        provider: OpenAiRealtime,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
        stir: CallerVerdict | None = None,
    ) -> None:
        self._provider, self._format, self._on_event, self._stir = provider, format, on_event, stir
        self._batch_bytes = provider.batch_ms * format.bytes_per_ms
        self._audio = bytearray()
        self._told = Told()
        self._sent_bytes = 0
        self._uncommitted: deque[str] = deque()  # names of utterances, in the order of their commits
        self._link = Link(provider.url, provider.headers, self._received, self._gone)
        self._awaited: tuple[str, asyncio.Future[Session]] | None = None  # while it opens: the type of event
        self._pulse: asyncio.TimerHandle | None = None
        self._closed = False
        provider.sessions.add(self)
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.create_task(self._open(conversation), name="realtime session")

    # --- RealtimeSession ---

    def hear(self, audio: bytes) -> None:
        self._audio += audio
        if len(self._audio) >= self._batch_bytes:
            self._flush()

    def commit(self, utterance: str) -> None:
        self._flush()
        self._uncommitted.append(utterance)
        self._send({"type": "input_audio_buffer.commit", "event_id": f"commit-{utterance}"})

    def clear(self) -> None:
        self._audio.clear()
        self._send({"type": "input_audio_buffer.clear"})

    def tell(self, message: Message, audio: bytes = b"") -> None:
        for item in items(message, audio):
            self._send({"type": "conversation.item.create", "item": item})

    def respond(self, tag: str, say: str | None = None) -> None:
        response: dict[str, Any] = {"metadata": {"tag": tag}}
        if say is not None:
            response |= {"instructions": f"{VERBATIM}{json.dumps(say, ensure_ascii=False)}", "tool_choice": "none"}
        self._send({"type": "response.create", "event_id": f"respond-{tag}", "response": response})

    def cancel(self, reply: str) -> None:
        self._send({"type": "response.cancel", **({"response_id": reply} if reply else {})})

    def truncate(self, item: str, heard_ms: int) -> None:
        if heard_ms <= 0:
            self.forget(item)
            return
        self._send(
            {"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": heard_ms}
        )

    def forget(self, item: str) -> None:
        self._send({"type": "conversation.item.delete", "item_id": item})

    def close(self) -> None:
        if not self._closed:
            self._over()
            self._link.close()

    async def closed(self) -> None:
        """After close(): nothing of it runs any more."""
        await asyncio.gather(self._opening, return_exceptions=True)

    # --- the wire ---

    def _flush(self) -> None:
        """One message of the caller's audio."""
        if self._audio:
            self._sent_bytes += len(self._audio)
            self._link.send(appended(self._audio))
            self._audio.clear()

    def _send(self, event: dict[str, Any]) -> None:
        self._told.add(canonical(event))
        self._link.send(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    @property
    def prompt_sha256(self) -> str:
        return self._told.sha256

    async def _open(self, conversation: Sequence[Message]) -> None:
        provider = self._provider
        try:
            async with asyncio.timeout(provider.options.connect_ms / 1000):
                self._awaited = created = ("session.created", self._loop.create_future())
                await self._link.open(provider.tls)
                expires_at = (await created[1]).expires_at
                self._awaited = updated = ("session.updated", self._loop.create_future())
                self._send({"type": "session.update", "session": provider.session(self._format, self._stir)})
                await updated[1]
        except TimeoutError:
            self._lose(provider.error("timeout", "no session", retryable=True))
        except Refused as refused:
            self._lose(provider.refused(refused))
        except (OSError, Gone) as failed:
            self._lose(provider.error("unavailable", f"no connection: {type(failed).__name__}", retryable=True))
        except ProviderError as failed:
            self._lose(failed)
        else:
            self._awaited = None
            for message in conversation:
                self.tell(message)
            self._pulse = self._loop.call_later(PULSE_S, self._beat, -1)
            self._tell(ModelOpened(provider.lasts_s(expires_at)))

    def _beat(self, received_bytes: int) -> None:
        """A server that answers no ping does not read, or is gone without a word."""
        if self._link.received_bytes == received_bytes:
            self._lose(self._provider.error("timeout", "the server fell silent", retryable=True))
            return
        received_bytes = self._link.received_bytes
        self._link.ping()
        self._pulse = self._loop.call_later(PULSE_S, self._beat, received_bytes)

    def _received(self, data: str | bytes) -> None:
        try:
            event = self._decoded(data)
            if self._awaited is None:
                self._heard(event)
            else:
                self._while_opening(event, *self._awaited)
        except ProviderError as error:
            self._lose(error)
        except Exception as unforeseen:  # whatever a stranger's bytes make us raise
            self._lose(self._provider.error("protocol", type(unforeseen).__name__, retryable=False))

    def _while_opening(self, event: Event, wanted: str, come: asyncio.Future[Session]) -> None:
        if come.done():
            return
        if event.type == wanted:
            come.set_result(event.session or Session())
        elif event.type == "error" and event.error is not None:
            come.set_exception(self._provider.failed(event.error.code, event.error.type))

    def _gone(self, gone: Gone) -> None:
        why = "the server ended the session" if gone.code in (1000, 1001) else "the connection broke"
        self._lose(self._provider.error("unavailable", why, retryable=True))

    def _lose(self, error: ProviderError) -> None:
        if self._closed:
            return
        self._over()
        self._link.abort()
        self._on_event(ModelLost(error))

    def _over(self) -> None:
        self._closed = True
        self._provider.sessions.discard(self)
        if self._pulse is not None:
            self._pulse.cancel()
        if self._awaited is not None:
            self._awaited[1].cancel()
        if self._opening is not asyncio.current_task(self._loop):
            self._opening.cancel()

    def _decoded(self, raw: bytes | str) -> Event:
        try:
            return DECODE(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._provider.error("protocol", "an event that cannot be read", retryable=True) from None

    def _tell(self, event: RealtimeEvent) -> None:
        if not self._closed:
            self._on_event(event)

    def _ago_ms(self, position_ms: int) -> int:
        """How long ago the caller's audio at this position of the session was sent."""
        return max(0, self._sent_bytes // self._format.bytes_per_ms - position_ms)

    def _heard(self, event: Event) -> None:
        reply, item = event.response_id, event.item_id
        match event.type:
            case "response.output_audio.delta":
                try:
                    data = a2b_base64(event.delta, strict_mode=True)
                except (Base64Error, ValueError):
                    raise self._provider.error("protocol", "audio that is not base64", retryable=True) from None
                self._tell(ReplyAudio(reply, item, data))
            case "response.output_audio_transcript.delta":
                self._tell(ReplyText(reply, item, event.delta))
            case "response.output_audio_transcript.done":
                self._tell(ReplyText(reply, item, event.transcript, whole=True))
            case "response.output_audio.done":
                self._tell(ReplyItemEnded(reply, item))
            case "response.function_call_arguments.done":
                self._tell(ReplyTool(reply, ToolCall(event.call_id or item, event.name, arguments(event.arguments))))
            case "response.created" if event.response is not None:
                self._tell(ReplyStarted(event.response.id or "", event.response.tag))
            case "response.done" if event.response is not None:
                self._tell(self._ended(event.response))
            case "input_audio_buffer.speech_started":
                self._tell(ModelSpeechStarted(self._ago_ms(event.audio_start_ms + PREFIX_MS)))
            case "input_audio_buffer.speech_stopped":
                self._tell(ModelSpeechEnded(item, self._ago_ms(event.audio_end_ms) + self._provider.silence_ms))
            case "input_audio_buffer.committed":
                if self._uncommitted:  # else it is the server's own
                    self._tell(ModelTook(self._uncommitted.popleft(), item))
            case "conversation.item.input_audio_transcription.completed":
                used = event.usage.of_transcription(self._provider.options.transcription) if event.usage else None
                self._tell(ModelTranscribed(item, event.transcript.strip(), used=used))
            case "conversation.item.input_audio_transcription.failed":
                self._tell(ModelTranscribed(item, "", failed=True))
            case "error" if event.error is not None:
                self._refused(event.error)

    def _ended(self, response: Response) -> ReplyEnded:
        error: ProviderError | None = None
        if response.status == "failed":
            said = response.status_details.error if response.status_details is not None else None
            error = self._provider.failed(said.code if said else None, said.type if said else "server_error")
        usage = response.usage.read() if response.usage is not None else None
        return ReplyEnded(response.id or "", response.tag, usage, error)

    def _refused(self, error: Error) -> None:
        """Most errors leave the session as it was. One that ends it is followed by its close."""
        order, _, name = (error.event_id or "").partition("-")
        failed = self._provider.failed(error.code, error.type)
        if failed.code in ("auth", "unavailable") or (failed.code == "rate_limited" and not failed.retryable):
            raise failed
        if order == "commit" and name in self._uncommitted:
            self._uncommitted.remove(name)
        if order in ("commit", "respond"):
            self._tell(ModelRefused(name, error.code or ""))


def _tools(definition: AgentDefinition, script: Script) -> list[dict[str, Any]]:
    found = [
        {"type": "function", "name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
        for spec in tool_specs(definition)
    ]
    if script.digits:
        names = {"type": "string", "enum": list(script.digits)}
        found.append(
            {
                "type": "function",
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
    return found
