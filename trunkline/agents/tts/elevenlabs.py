"""`tts.elevenlabs`: ElevenLabs' voices over their multi-context WebSocket, in the lane's own encoding, with word times.

A phrase is one context: opened, given its text, flushed and closed at once, so that the service says when it is over.
A connection is lent to one phrase at a time and kept for the next, which saves its handshake; audio of two calls can
never meet on one. A phrase that is cancelled takes its connection with it: the service flushes what it was given even
of a closed context, and only the end of the socket stops it. Another is then opened for the phrase that will follow.

The wire is spoken with `websockets`: the SDK's client for it is synchronous, knows one context and hides the times.
"""

# ruff: noqa: SIM905 - word lists read best as words
import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from trunkline.agents import options as given
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import primary
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import TtsAudio, Word
from trunkline.privacy.redaction import quoted
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

ELEVENLABS_URL = "wss://api.elevenlabs.io"
OUTPUT_FORMATS = {MULAW_8K: "ulaw_8000", ALAW_8K: "alaw_8000", PCM_8K: "pcm_8000", PCM_16K: "pcm_16000"}
MAX_TEXT_CHARS = 5000
INACTIVITY_S = 180  # the most the service allows; its own 20 s would end a connection between two turns
IDLE_S = 150.0  # ours is sooner: a phrase must not begin on a connection that is being closed
MAX_IDLE = 32  # of one format
MAX_OPEN = 256
WARM_DEADLINE_S = 5.0
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MESSAGES_WAITING = 256  # a phrase that is spoken long before it is heard waits here, or its pings would, too

OPTIONS: Keys = {
    "voice": Key("text", "The voice's id.", required=True),
    "model": Key("text", "The model.", "eleven_flash_v2_5"),
    "base_url": Key("text", "The server: another region's, or one that speaks the same protocol.", ELEVENLABS_URL),
    "third_party": given.THIRD_PARTY,
    "language": Key("text", "ISO 639-1 code that the text is read in; without it, as the model finds."),
    "stability": Key("number", "0 to 1; without it, as the voice is set.", low=0, high=1),
    "similarity_boost": Key("number", "0 to 1; without it, as the voice is set.", low=0, high=1),
    "speed": Key("number", "0.7 to 1.2; without it, as the voice is set.", low=0, high=2),
    "first_audio_ms": Key("whole", "The longest wait for a phrase's first audio.", 3000, low=50, high=60000),
    "between_audio_ms": Key("whole", "The longest pause within it.", 2000, low=50, high=60000),
}
_SPEEDS = (0.7, 1.2)
_MULTILINGUAL = frozenset(
    "en ja zh de hi fr ko pt it es id nl tr fil pl sv bg ro ar cs el fi hr ms sk da ta uk ru".split()
)
LANGUAGES: Mapping[str, frozenset[str]] = {
    "eleven_flash_v2_5": _MULTILINGUAL | {"hu", "no", "nb", "vi"},
    "eleven_turbo_v2_5": _MULTILINGUAL | {"hu", "no", "nb", "vi"},
    "eleven_multilingual_v2": _MULTILINGUAL,
    "eleven_flash_v2": frozenset({"en"}),
    "eleven_turbo_v2": frozenset({"en"}),
    "eleven_monolingual_v1": frozenset({"en"}),
}
"""Of the models whose languages we know."""
TOLD = ("eleven_flash_v2_5", "eleven_turbo_v2_5")
"""The models that may be told the language; others find it in the text."""

_QUOTA = {"quota_exceeded"}
_AUTH = {
    "invalid_api_key",
    "missing_api_key",
    "missing_permissions",
    "invalid_authorization_header",
    "needs_authorization",
    "detected_unusual_activity",
    "authentication_error",
    "authorization_error",
}
_LIMITED = {"too_many_concurrent_requests", "concurrent_limit_exceeded", "rate_limit_exceeded", "rate_limit_error"}
_BUSY = {"system_busy", "max_active_conversations", "service_unavailable", "internal_error", "internal_server_error"}


@dataclass(frozen=True, slots=True)
class Options:
    voice: str
    model: str
    base_url: str
    third_party: bool | None
    language: str | None
    stability: float | None
    similarity_boost: float | None
    speed: float | None
    first_audio_ms: int
    between_audio_ms: int


def read_options(options: Mapping[str, Any]) -> Options:
    """Raises ConfigError."""
    held = given.read(OPTIONS, options)
    given.check_url("base_url", held["base_url"], ("wss", "ws"))
    if held["speed"] is not None and not _SPEEDS[0] <= held["speed"] <= _SPEEDS[1]:
        raise ConfigError("speed", held["speed"], "a number from 0.7 to 1.2")
    return Options(**held)


# --- the wire: its messages, and words out of its characters --------------------------------------------------------


class CharTimes(msgspec.Struct, rename="camel"):
    """Characters and where they lie in this message's audio."""

    chars: list[str] = []
    char_start_times_ms: list[float] = []
    char_durations_ms: list[float] = []


class Reply(msgspec.Struct, rename="camel"):
    """A message of the service. Its reference and its guide spell two names differently."""

    audio: bytes | None = None
    alignment: CharTimes | None = None
    normalized_alignment: CharTimes | None = None
    is_final: bool | None = None
    final: bool | None = msgspec.field(default=None, name="is_final")
    context_id: str | None = None
    context: str | None = msgspec.field(default=None, name="context_id")
    error: str | None = None
    message: str | None = None

    @property
    def over(self) -> bool:
        return bool(self.is_final or self.final)

    def belongs(self, context: str) -> bool:
        return (self.context_id or self.context or context) == context


_QUIET = logging.getLogger("trunkline.elevenlabs")
_QUIET.setLevel(logging.WARNING)  # in detail, `websockets` logs the key and the audio

_read = msgspec.json.Decoder(Reply).decode
_write = msgspec.json.encode


class WordTimes:
    """Timed characters, message by message, into the words of `text.split()`.

    A word is found by its letters and digits in their order, whatever spaces and punctuation lie between (the service
    splits words over messages, and now and then a space into one). It ends where its last letter does: the pause in
    its punctuation is nobody's. One without any ("-", "&") ends where the next begins. A word the characters do not
    give ("10:30" that comes as "ten thirty"), and those after it, have no times: theirs are for others to estimate.
    """

    def __init__(self, text: str) -> None:
        self._waiting = deque((word, deque(filter(str.isalnum, word.lower()))) for word in text.split())
        self._found: deque[Word] = deque()
        self._start_ms: int | None = None
        self._end_ms = 0

    def feed(self, times: CharTimes, offset_ms: int) -> None:
        """Of audio that begins at `offset_ms` of the phrase."""
        for char, start, duration in zip(times.chars, times.char_start_times_ms, times.char_durations_ms, strict=False):
            if (anchors := next((anchors for _, anchors in self._waiting if anchors), None)) is None:
                return
            if char.lower() != anchors[0]:
                continue
            anchors.popleft()
            if self._start_ms is None:
                self._start_ms = max(self._end_ms, offset_ms + int(start))
                while self._waiting[0][1] is not anchors:
                    self._found.append(Word(self._waiting.popleft()[0], self._end_ms, self._start_ms))
            if not anchors:
                end_ms = max(self._start_ms, offset_ms + round(start + duration))
                self._found.append(Word(self._waiting.popleft()[0], self._start_ms, end_ms))
                self._start_ms, self._end_ms = None, end_ms

    def ended(self, until_ms: int) -> tuple[Word, ...]:
        """The words that end by then, each once."""
        words = []
        while self._found and self._found[0].end_ms <= until_ms:
            words.append(self._found.popleft())
        return tuple(words)

    def rest(self, until_ms: int) -> tuple[Word, ...]:
        """Those that would end later, now that the audio is over."""
        words = [Word(w.text, min(w.start_ms, until_ms), until_ms) for w in self._found]
        if not any(anchors for _, anchors in self._waiting):  # a dash at the end has no sound
            words += [Word(word, until_ms, until_ms) for word, _ in self._waiting]
        self._found.clear()
        self._waiting.clear()
        return tuple(words)


# --- connections ----------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Line:
    """One connection, lent to one phrase at a time."""

    socket: ClientConnection
    used: bool = False
    retire: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.socket.state is State.OPEN

    def drop(self) -> None:
        """At once, without a closing handshake: the service must not go on."""
        self.socket.transport.abort()


@dataclass(eq=False, slots=True)
class Lines:
    """The connections of one format: those that wait, the latest used last."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    idle: list[Line] = field(default_factory=list)
    lent: set[Line] = field(default_factory=set)
    opening: int = 0
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    closed: bool = False

    async def take(self, *, fresh: bool) -> Line:
        """Raises what `websockets` does, and OverflowError."""
        while self.idle and not fresh:
            line = self._unretire(self.idle.pop())
            if line.open:
                self.lent.add(line)
                return line
        if len(self.lent) + self.opening >= MAX_OPEN:
            raise OverflowError
        self.opening += 1
        try:
            line = await self._connect()
        finally:
            self.opening -= 1
        if self.closed:
            line.drop()
            raise ConnectionAbortedError
        self.lent.add(line)
        return line

    def give(self, line: Line) -> None:
        """Back, for the next phrase."""
        self.lent.discard(line)
        line.used = True
        if self.closed or not line.open or len(self.idle) >= MAX_IDLE:
            line.drop()
            return
        line.retire = asyncio.get_running_loop().call_later(IDLE_S, self._retired, line)
        self.idle.append(line)

    def drop(self, line: Line) -> None:
        """Its phrase was not spoken to the end."""
        self.lent.discard(line)
        line.drop()

    def warm(self) -> None:
        """Have one ready. Its failure is the next phrase's to tell."""
        if not self.closed and not self.idle and not self.tasks:
            task = asyncio.get_running_loop().create_task(self._warm())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def close(self) -> None:
        self.closed = True
        for task in self.tasks:
            task.cancel()
        for line in [*self.idle, *self.lent]:
            self._unretire(line).drop()
        self.idle.clear()
        self.lent.clear()

    async def _connect(self) -> Line:
        return Line(
            await connect(
                self.url,
                additional_headers=self.headers,
                open_timeout=None,  # the deadline is the phrase's
                close_timeout=1.0,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=MESSAGES_WAITING,
                compression=None,  # base64 of speech does not shrink enough to pay for it
                user_agent_header=None,
                logger=_QUIET,
            )
        )

    async def _warm(self) -> None:
        try:
            async with asyncio.timeout(WARM_DEADLINE_S):
                line = await self._connect()
        except (OSError, TimeoutError, WebSocketException):
            return
        self.give(line)
        line.used = False

    def _retired(self, line: Line) -> None:
        line.retire = None
        if line in self.idle:
            self.idle.remove(line)
            line.drop()

    def _unretire(self, line: Line) -> Line:
        if line.retire is not None:
            line.retire.cancel()
            line.retire = None
        return line


# --- the voice ------------------------------------------------------------------------------------------------------


class ElevenLabs:
    name = "elevenlabs"
    elsewhere = True
    word_times = True

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError."""
        if definition.languages and "language" not in options:  # short phrases are of any: it is told which
            options = self.in_language(options, definition.language) or options
        self.options = read_options(options)
        self.product = self.options.model
        self.third_party = given.is_third_party(self.options.base_url, self.options.third_party)
        self._key = services.keys.get("elevenlabs")
        if self._key is None and (urlsplit(self.options.base_url).hostname or "").endswith("elevenlabs.io"):
            raise ConfigError("elevenlabs.api_key", None, "an API key is needed for ElevenLabs' own server")
        self._lines: dict[Format, Lines] = {}
        self._contexts = itertools.count(1)
        self._started = False

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    @staticmethod
    def in_language(options: Mapping[str, Any], tag: str, *, inherited: bool = True) -> dict[str, Any] | None:
        """The same voice, told what it reads."""
        model, language = options.get("model", OPTIONS["model"].default), primary(tag)
        if model in LANGUAGES and language not in LANGUAGES[model]:
            return None
        if model not in TOLD:
            return dict(options)
        told = "no" if language == "nb" else language
        return {**options, "language": told}

    async def start(self) -> None:
        self._started = True

    async def close(self) -> None:
        """Idempotent."""
        self._started = False
        lines, self._lines = list(self._lines.values()), {}
        for each in lines:
            each.close()

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator closes the connection. Text without words gives no audio. Raises ProviderError."""
        text = " ".join(text.split())
        if not any(char.isalnum() for char in text):
            return
        if len(text) > MAX_TEXT_CHARS:
            raise self._error("bad_request", f"{len(text)} characters in one phrase", retryable=False)
        lines = self._of(format)
        context = f"phrase-{next(self._contexts)}"
        times, spoken_bytes, over = WordTimes(text), 0, False
        try:
            async with asyncio.timeout(self.options.first_audio_ms / 1000):
                line, reply = await self._begin(lines, context, text)
        except TimeoutError:
            raise self._error("timeout", "no first audio", retryable=True) from None
        try:
            while True:
                at_ms = spoken_bytes // format.bytes_per_ms
                audio = reply.audio or b""
                spoken_bytes += len(audio)
                if (chars := reply.alignment or reply.normalized_alignment) is not None:
                    times.feed(chars, at_ms)
                over = reply.over
                until_ms = spoken_bytes // format.bytes_per_ms
                words = times.ended(until_ms)
                if over and spoken_bytes:
                    words += times.rest(until_ms)
                if audio or words:
                    yield TtsAudio(audio, words)
                if over:
                    break
                try:
                    async with asyncio.timeout(self.options.between_audio_ms / 1000):
                        reply = await self._next(line, context)
                except TimeoutError:
                    raise self._error("timeout", "the voice stalled in mid-phrase", retryable=True) from None
                except (ConnectionClosed, ValueError) as error:
                    raise self._failed(error, begun=True) from None
        finally:
            if over:
                lines.give(line)
            else:
                lines.drop(line)
                lines.warm()
        if not spoken_bytes:
            raise self._error("protocol", "the phrase came without audio", retryable=True)

    def _of(self, format: Format) -> Lines:
        if not self._started:
            raise self._error("unavailable", "not started", retryable=False)
        if format not in OUTPUT_FORMATS:
            raise self._error("bad_request", f"it does not speak {format}", retryable=False)
        if format not in self._lines:
            headers = {} if self._key is None else {"xi-api-key": self._key}
            self._lines[format] = Lines(self._url(format), headers)
        return self._lines[format]

    def _url(self, format: Format) -> str:
        options = self.options
        query = {
            "model_id": options.model,
            "output_format": OUTPUT_FORMATS[format],
            "auto_mode": "true",  # a phrase is whole when it comes: nothing is gained by waiting for more text
            "sync_alignment": "true",
            "inactivity_timeout": str(INACTIVITY_S),
            **({} if options.language is None else {"language_code": options.language}),
        }
        base = options.base_url.rstrip("/")
        return f"{base}/v1/text-to-speech/{quote(options.voice, safe='')}/multi-stream-input?{urlencode(query)}"

    async def _begin(self, lines: Lines, context: str, text: str) -> tuple[Line, Reply]:
        """The first audio. A kept connection that turns out to be gone is replaced once."""
        for fresh in (False, True):
            try:
                line = await lines.take(fresh=fresh)
            except OverflowError:
                raise self._error("overloaded", f"{MAX_OPEN} phrases at once", retryable=True) from None
            except (OSError, WebSocketException) as error:
                raise self._failed(error, begun=False) from None
            try:
                await line.socket.send(self._open(context))
                await line.socket.send(_write({"context_id": context, "text": text + " ", "flush": True}).decode())
                await line.socket.send(_write({"context_id": context, "close_context": True}).decode())
                while True:
                    reply = await self._next(line, context)
                    if reply.audio or reply.over:
                        return line, reply
            except (ConnectionClosed, ValueError) as error:
                lines.drop(line)
                if fresh or not line.used or not isinstance(error, ConnectionClosed):
                    raise self._failed(error, begun=True) from None
            except BaseException:
                lines.drop(line)
                lines.warm()
                raise
        raise AssertionError("unreachable")

    def _open(self, context: str) -> str:
        options = self.options
        settings = {
            name: value
            for name in ("stability", "similarity_boost", "speed")
            if (value := getattr(options, name)) is not None
        }
        first: dict[str, Any] = {"context_id": context, "text": " "}
        return _write(first | ({"voice_settings": settings} if settings else {})).decode()

    async def _next(self, line: Line, context: str) -> Reply:
        """Of this context. Raises ConnectionClosed, ValueError for what cannot be read, ProviderError."""
        while True:
            data = await line.socket.recv(decode=False)
            reply = _read(data)
            if reply.error is not None:
                raise self._refused(reply.error, reply.message or "")
            if reply.belongs(context):
                return reply

    # --- failures ---

    def _failed(self, error: Exception, *, begun: bool) -> ProviderError:
        if isinstance(error, InvalidStatus):
            return self._status_failed(error)
        if isinstance(error, ConnectionClosed):
            return self._closed(error)
        if not begun:
            return self._error("unavailable", "no connection", retryable=True)
        return self._error("protocol", f"the answer cannot be read: {type(error).__name__}", retryable=False)

    def _closed(self, error: ConnectionClosed) -> ProviderError:
        code = error.rcvd.code if error.rcvd is not None else 1006
        reason = error.rcvd.reason if error.rcvd is not None else ""
        if code == 1008:  # policy: it refused, and says why in words only
            return self._refused(next((k for k in (*_QUOTA, *_AUTH, *_LIMITED, *_BUSY) if k in reason), ""), reason)
        if code in (1011, 1012, 1013, 1014):
            return self._error("unavailable", f"close code {code}", retryable=True)
        return self._error("protocol", "the connection broke in mid-phrase", retryable=True)

    def _status_failed(self, error: InvalidStatus) -> ProviderError:
        response = error.response
        status = response.status_code
        said, message = _detail(response.body)
        if status == 429 or (status == 401 and said in _QUOTA):
            after = response.headers.get("Retry-After", "")
            if said in _QUOTA:
                return self._refused(said, "")
            return self._error("rate_limited", f"retry after {after} s" if after else "", retryable=True)
        if status in (401, 403):  # the server's text may quote the key
            return self._error("auth", f"status {status}", retryable=False)
        if status == 408:
            return self._error("timeout", f"status {status}", retryable=True)
        if status >= 500:
            return self._error("unavailable", f"status {status}", retryable=True)
        return self._error("bad_request", f"status {status}: {self._shown(message or said)}", retryable=False)

    def _refused(self, said: str, message: str) -> ProviderError:
        """An error by the name the service gives it."""
        if said in _QUOTA:
            return self._error("rate_limited", "quota used up", retryable=False)
        if said in _AUTH:
            return self._error("auth", said, retryable=False)
        if said in _LIMITED:
            return self._error("rate_limited", said, retryable=True)
        if said in _BUSY:
            return self._error("overloaded", said, retryable=True)
        if said == "input_timeout_exceeded":
            return self._error("timeout", said, retryable=True)
        return self._error("bad_request", self._shown(f"{said}: {message}" if said else message), retryable=False)

    def _error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return ProviderError(self.name, code, detail, retryable=retryable)

    def _shown(self, message: str) -> str:
        text = quoted(message, 200)
        return text.replace(self._key, "***") if self._key else text


def _detail(body: bytes | bytearray | None) -> tuple[str, str]:
    """Name and words of an HTTP error: {"detail": {"status" or "code": ..., "message": ...}}, or words alone."""
    try:
        detail = msgspec.json.decode(body or b"{}").get("detail", "")
    except (ValueError, AttributeError):
        return "", ""
    if not isinstance(detail, dict):
        return "", str(detail)
    return str(detail.get("status") or detail.get("code") or ""), str(detail.get("message", ""))
