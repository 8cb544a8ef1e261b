"""A local server that speaks ElevenLabs' multi-context WebSocket: `/v1/text-to-speech/{voice}/multi-stream-input`.
(And so much of `stream-input`, one context a connection, as the SDK's own client needs: bench/voices.py.)

Written from the service's AsyncAPI description (docs: api-reference/text-to-speech, Multi-Context WebSocket), its guide
"Multi-Context Websocket" (five contexts a connection), errors as users of the service report them (a message with
`error`, `message` and `code`, then close code 1008), and the SDK's types, which build what it sends. It speaks with
espeak-ng, whose word times are real: each character gets its part of its word's time, as the service's alignment does.

    async with ElevenLabsServer() as server:
        server.takes.append(Take(fault="stall"))       # how the next phrases are spoken; then all is well
        ... server.base_url ... server.phrases[0].words
"""

import asyncio
import base64
import functools
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from elevenlabs.types import Alignment, AudioOutputMulti, FinalOutputMulti, NormalizedAlignment
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from trunkline.agents.local.voice import VoiceOptions, WordTime, pieces, utterance
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

FORMATS = {"ulaw_8000": MULAW_8K, "alaw_8000": ALAW_8K, "pcm_8000": PCM_8K, "pcm_16000": PCM_16K}
_QUIET = logging.getLogger("fake.elevenlabs")  # tests look for the key in what the gateway logs
_QUIET.setLevel(logging.CRITICAL)

MAX_CONTEXTS = 5
MESSAGE_MS = 250

Times = Literal["both", "alignment", "normalized", "none"]


@dataclass(frozen=True)
class Take:
    """How one phrase is spoken."""

    first_s: float = 0.0
    between_s: float = 0.0
    fault: Literal["", "silent", "stall", "drop", "garbage", "close", "mute"] = ""
    """`silent`: nothing comes. The others after `after` messages: nothing more, the connection breaks, bytes that
    nobody can read, a close with 1011. `mute`: the end without audio."""
    after: int = 1
    error: tuple[str, str] | None = None
    """Name and message of an error instead of an answer."""
    times: Times = "both"
    stray: bool = False
    """Audio of another context comes in between."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP error instead of a connection."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Phrase:
    text: str
    context: str
    connection: int
    format: Format
    settings: Any = None
    audio: bytes = b""
    words: list[WordTime] = field(default_factory=list)
    """Where they lie in `audio`."""
    complete: bool = False


@dataclass(frozen=True)
class Connection:
    voice: str
    query: Mapping[str, str]
    headers: Headers = field(repr=False)


class ElevenLabsServer:
    def __init__(self, key: str | None = None, *, handshake_s: float = 0.0, first_s: float = 0.0) -> None:
        self.takes: deque[Take] = deque()
        self.refusals: deque[Refusal] = deque()
        self.refused: dict[str, Refusal] = {}
        """Always, by voice."""
        self.connections: list[Connection] = []
        self.phrases: list[Phrase] = []
        self.open: set[ServerConnection] = set()
        self.disconnected = asyncio.Event()
        """Set when a client leaves before its phrase is complete."""
        self._key, self._handshake_s, self._usual = key, handshake_s, Take(first_s=first_s)
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._connected,
            "127.0.0.1",
            0,
            process_request=self._admit,
            compression=None,
            close_timeout=0.2,
            logger=_QUIET,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for connection in self.open:
                connection.transport.abort()
            await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    def lose(self, voice: str, refusal: Refusal) -> None:
        """It is gone from now on, connections that were kept ready as well."""
        self.refused[voice] = refusal
        for connection in self.open:
            if connection.request is not None and voice in connection.request.path:
                connection.transport.abort()

    def next_take(self) -> Take:
        return self.takes.popleft() if self.takes else self._usual

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        await asyncio.sleep(self._handshake_s)
        if self._key is not None and request.headers.get("xi-api-key") != self._key:
            self.refusals.appendleft(
                Refusal(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}})
            )
        refusal = self.refused.get(urlsplit(request.path).path.split("/")[3])
        if refusal is None and self.refusals:
            refusal = self.refusals.popleft()
        if refusal is None:
            return None
        body = b"" if refusal.body is None else json.dumps(refusal.body).encode()
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close", **refusal.headers})
        return Response(refusal.status, "No", headers, body)

    async def _connected(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        parts = urlsplit(connection.request.path)
        _, v1, kind, voice, endpoint = parts.path.split("/")
        assert (v1, kind) == ("v1", "text-to-speech"), parts.path
        assert endpoint in ("multi-stream-input", "stream-input"), parts.path
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.connections.append(Connection(voice, query, connection.request.headers))
        self.open.add(connection)
        try:
            contexts = _Contexts(self, connection, FORMATS[query["output_format"]])
            await (contexts.serve() if endpoint == "multi-stream-input" else contexts.serve_one())
        finally:
            self.open.discard(connection)


class _Contexts:
    """Those of one connection."""

    def __init__(self, server: ElevenLabsServer, connection: ServerConnection, format: Format) -> None:
        self.server, self.connection, self.format = server, connection, format
        self.number = len(server.connections) - 1
        self.texts: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self.spoken: set[str] = set()
        """Contexts that are being spoken."""
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        try:
            async for data in self.connection:
                await self.handle(json.loads(data))
        except ConnectionClosed:
            pass
        finally:
            if self.spoken:
                self.server.disconnected.set()
            for task in self.tasks:
                task.cancel()

    async def serve_one(self) -> None:
        """`stream-input`: an empty text is the end of the text, and after its audio of the connection."""
        text = ""
        try:
            async for data in self.connection:
                message = json.loads(data)
                if message["text"] == "":
                    phrase = Phrase(text.strip(), "", self.number, self.format)
                    self.texts[""] = text
                    await self.say(phrase, self.server.next_take())
                    return
                text += message["text"]
        except ConnectionClosed:
            pass

    async def handle(self, message: dict[str, Any]) -> None:
        assert not set(message) - {"text", "context_id", "flush", "close_context", "close_socket", "voice_settings"}
        if message.get("close_socket"):
            await self.connection.close()
            return
        context = message["context_id"]
        if context not in self.texts:
            assert message["text"] == " ", "a context begins with a space"
            if len(self.texts) >= MAX_CONTEXTS:
                await self.fail("max_active_conversations", "Maximum simultaneous contexts exceeded (5).")
                return
            self.texts[context], self.settings[context] = "", message.get("voice_settings")
        else:
            assert "voice_settings" not in message, "only in the first message"
            if text := message.get("text"):
                assert text.endswith(" "), "text ends with a space"
                self.texts[context] += text
        if message.get("flush"):
            self.speak(context)
        if message.get("close_context") and context not in self.spoken:
            del self.texts[context]

    def speak(self, context: str) -> None:
        text = self.texts[context].strip()
        phrase = Phrase(text, context, self.number, self.format, self.settings[context])
        self.server.phrases.append(phrase)
        task = asyncio.get_running_loop().create_task(self.say(phrase, self.server.next_take()))
        self.spoken.add(context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def say(self, phrase: Phrase, take: Take) -> None:
        if take.fault == "silent":
            await asyncio.Event().wait()
        if take.error is not None:
            await self.fail(*take.error)
            return
        phrase.audio, phrase.words = spoken(phrase.text, self.format)
        chars = char_times(phrase.words)
        await asyncio.sleep(take.first_s)
        step = MESSAGE_MS * self.format.bytes_per_ms
        for number, start in enumerate(range(0, 0 if take.fault == "mute" else len(phrase.audio), step)):
            if take.fault and number == take.after:
                await self.misbehave(take.fault)
            if take.stray:
                await self.send(audio_message(b"\xff" * 800, [], 0, "another", "both"))
            at_ms = start // self.format.bytes_per_ms
            said = [char for char in chars if at_ms <= char[1] < at_ms + MESSAGE_MS]
            audio = phrase.audio[start : start + step]
            await self.send(audio_message(audio, said, at_ms, phrase.context, take.times))
            await asyncio.sleep(take.between_s)
        phrase.complete = True
        self.spoken.discard(phrase.context)
        del self.texts[phrase.context]
        final: dict[str, Any] = {"isFinal": True, "contextId": phrase.context}
        await self.send(FinalOutputMulti(**final).json())

    async def misbehave(self, fault: str) -> None:
        match fault:
            case "drop":
                self.spoken.clear()
                self.connection.transport.abort()
            case "garbage":
                await self.send('{"audio": 7')
            case "close":
                self.spoken.clear()
                await self.connection.close(1011, "internal error")
        await asyncio.Event().wait()

    async def fail(self, name: str, message: str) -> None:
        self.spoken.clear()
        await self.send(json.dumps({"message": message, "error": name, "code": 1008}))
        await self.connection.close(1008, message)

    async def send(self, text: str) -> None:
        try:
            await self.connection.send(text)
        except ConnectionClosed:
            pass


Char = tuple[str, float, float]
"""A character, where it starts and how long it lasts, in ms of the phrase."""


@functools.cache
def spoken(text: str, format: Format) -> tuple[bytes, list[WordTime]]:
    """The same audio each time, which espeak-ng alone does not give."""
    whole = utterance(VoiceOptions(), format)
    cut, audio, words = pieces(text), bytearray(), list[WordTime]()
    for index, piece in enumerate(cut):
        for chunk, ended in whole.say(piece, last=index == len(cut) - 1):
            audio += chunk
            words += ended
    return bytes(audio), words


def char_times(words: list[WordTime]) -> list[Char]:
    """Letters share their word's time; the space before a word has the time since the last."""
    chars: list[Char] = []
    last_ms = 0
    for at, (word, start, end) in enumerate(words):
        if at:
            chars.append((" ", last_ms, start - last_ms))
        sound = [char for char in word if char.isalnum()] or list(word)
        each = (end - start) / len(sound)
        clock = float(start)
        for char in word:
            lasts = each if char in sound else 0.0
            chars.append((char, clock, lasts))
            clock += lasts
        last_ms = end
    return chars


def audio_message(audio: bytes, chars: list[Char], at_ms: int, context: str, times: Times) -> str:
    """Times are whole milliseconds within this message's audio, as the service gives them."""
    columns: dict[str, Any] = {
        "chars": [char for char, _, _ in chars],
        "charStartTimesMs": [round(start - at_ms) for _, start, _ in chars],
        "charDurationsMs": [round(start + lasts) - round(start) for _, start, lasts in chars],
    }
    plain = Alignment(**columns) if times in ("both", "alignment") and chars else None
    normalized = NormalizedAlignment(**columns) if times in ("both", "normalized") and chars else None
    return AudioOutputMulti(
        audio=base64.b64encode(audio).decode(),
        alignment=plain,
        normalizedAlignment=normalized,  # type: ignore[call-arg]
        contextId=context,
    ).json()
