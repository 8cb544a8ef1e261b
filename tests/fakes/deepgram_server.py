"""A local Deepgram: Nova on `/v1/listen`, Flux on `/v2/listen` (DeepgramServer), Aura on `/v1/speak` (AuraServer).

Written from Deepgram's documentation (developers.deepgram.com: Finalize, KeepAlive, CloseStream, Endpointing and
Interim Results, Utterance End, Flux state machine, Force End Turn, Configure, "WebSocket, NET and DATA errors", Text to
Speech) and from the types of `deepgram-sdk` 7, from which every message is built.

It "recognises" by a script: each stretch of loud audio is the next line of `lines` (the last one again and again),
whose words appear one for each WORD_MS of it. Times are those of the received audio: nothing depends on a clock.
A word of a line may be marked with its language (`in_language`), which is told where several are asked for: by Nova-3
with `language=multi` for every word and for all together, by `flux-general-multi` for the turn ("Nova-3 Language
Prompting", "Flux Multilingual & Language Prompting").

    async with DeepgramServer("when do you open") as server:
        ... server.url ... server.connections[0].query["model"]
"""

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
from deepgram.listen.v1.types.listen_v1results import ListenV1Results
from deepgram.listen.v1.types.listen_v1utterance_end import ListenV1UtteranceEnd
from deepgram.listen.v2.types.listen_v2connected import ListenV2Connected
from deepgram.listen.v2.types.listen_v2fatal_error import ListenV2FatalError
from deepgram.listen.v2.types.listen_v2turn_info import ListenV2TurnInfo
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.fakes import http_server
from tests.fakes.http_server import HttpServer

_SILENT = logging.getLogger("tests.fakes.deepgram.silent")
_SILENT.disabled = True  # or the key it was sent would be in the log
WORD_MS = 150
INTERIM_MS = 240
FRAME_BYTES = 160  # 20 ms
LOUD = frozenset(byte for byte in range(256) if (~byte >> 4) & 7 >= 3)
"""Mu-law bytes of at least an eighth of the loudest."""


def in_language(tag: str, text: str) -> str:
    """A line, or a part of one, that is spoken in it."""
    return " ".join(f"{word}/{tag}" for word in text.split())


def languages_of(words: Sequence[str]) -> list[str]:
    """Of marked words, the most frequent first."""
    tags = Counter(word.partition("/")[2] for word in words)
    return [tag for tag, _ in tags.most_common() if tag]


@dataclass(frozen=True)
class Refuse:
    """The handshake is answered with this."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "no"


@dataclass(frozen=True)
class Silent:
    """Takes all and says nothing."""


@dataclass(frozen=True)
class Hang:
    """Takes the connection and does not answer the handshake."""


@dataclass(frozen=True)
class Break:
    """The connection breaks when so much audio has come; `close`: with this code and reason."""

    after_ms: int
    close: tuple[int, str] | None = None


@dataclass(frozen=True)
class Garbage:
    """Sends this instead of results."""

    data: str | bytes = "{garbage"


@dataclass(frozen=True)
class Deaf:
    """Understands, but never answers Finalize or ForceEndTurn, which the documentation lets it."""


@dataclass(frozen=True)
class Slow:
    """What it says comes this much later."""

    delay_s: float


@dataclass(frozen=True)
class Late:
    """What it says comes this much later, and it hears on meanwhile."""

    delay_s: float


Fault = Refuse | Silent | Hang | Break | Garbage | Deaf | Slow | Late


@dataclass
class Connection:
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    audio: bytearray = field(default_factory=bytearray)
    heard_at: list[float] = field(default_factory=list)
    """When each piece of audio came: UNIX time."""
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def kinds(self) -> list[str]:
        return [str(message["type"]) for message in self.messages]


class DeepgramServer:
    def __init__(
        self,
        *lines: str,
        faults: Sequence[Fault | None] = (),
        always: Fault | None = None,
        word_ms: int = WORD_MS,
    ) -> None:
        """`faults`: of the first connections, one each; `always`: of all that follow. `word_ms`: of loud audio, for
        each word."""
        self.word_ms = word_ms
        self.lines = deque(lines or ("caller phrase",))
        self.faults, self.always = deque(faults), always
        self.connections: list[Connection] = []
        self.disconnected = asyncio.Event()
        """Set when a client leaves."""
        self.sessions: list[_Session] = []
        """All there were: a test may give one that is open another `fault`."""
        self._fault: dict[ServerConnection, Fault | None] = {}
        self._server: Server | None = None
        self._hung: set[asyncio.Event] = set()

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._answer,
            compression=None,
            ping_interval=None,
            logger=_SILENT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for hung in self._hung:
            hung.set()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    def next_line(self) -> str:
        return self.lines.popleft() if len(self.lines) > 1 else self.lines[0]

    async def _answer(self, client: ServerConnection, request: Request) -> Response | None:
        fault = self.faults.popleft() if self.faults else self.always
        self._fault[client] = fault
        if isinstance(fault, Hang):
            hung = asyncio.Event()
            self._hung.add(hung)
            await hung.wait()
        if isinstance(fault, Refuse):
            body = fault.message.encode()
            kept = {"content-length": str(len(body)), "connection": "close"}
            headers = Headers({"dg-request-id": "r", "dg-error": fault.message, **kept, **fault.headers})
            return Response(fault.status, HTTPStatus(fault.status).phrase, headers, body)
        if request.headers.get("authorization", "").partition(" ")[0] != "Token":
            return Response(401, "Unauthorized", Headers({"dg-error": "INVALID_AUTH"}))
        return None

    async def _serve(self, client: ServerConnection) -> None:
        assert client.request is not None
        parts = urlsplit(client.request.path)
        query = parse_qs(parts.query)
        headers = {name.lower(): value for name, value in client.request.headers.raw_items()}
        connection = Connection(parts.path, query, headers)
        self.connections.append(connection)
        kind = {"/v1/listen": _Nova, "/v2/listen": _Flux}[parts.path]
        session = kind(self, client, connection, self._fault.pop(client))
        self.sessions.append(session)
        try:
            await session.run()
        except ConnectionClosed:
            pass
        finally:
            connection.closed.set()
            self.disconnected.set()


class _Session:
    """One stream of audio: lines as they are heard."""

    def __init__(
        self, server: DeepgramServer, client: ServerConnection, connection: Connection, fault: Fault | None
    ) -> None:
        self.server, self.client, self.connection, self.fault = server, client, connection, fault
        self.now_ms = 0
        self.line: list[str] | None = None
        """Being said."""
        self.began_ms = self.loud_ms = self.quiet_ms = 0
        self.ended = True
        """The line is over: what is loud next is another."""
        self._behind = bytearray()
        self.sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self.opened()
        async for message in self.client:
            if isinstance(message, bytes):
                self.connection.audio += message
                self.connection.heard_at.append(time.time())
                await self.hear(message)
            else:
                parsed = json.loads(message)
                self.connection.messages.append(parsed)
                if parsed["type"] == "CloseStream":
                    await self.bye()
                    return
                await self.control(parsed)

    async def hear(self, audio: bytes) -> None:
        self._behind += audio
        while len(self._behind) >= FRAME_BYTES:
            frame = bytes(self._behind[:FRAME_BYTES])
            del self._behind[:FRAME_BYTES]
            self.now_ms += 20
            if isinstance(self.fault, Garbage):
                await self.client.send(self.fault.data)
                return
            if isinstance(self.fault, Break) and self.now_ms >= self.fault.after_ms:
                if self.line is not None and not self.ended:
                    self.server.lines.appendleft(" ".join(self.line))  # to be heard on the next connection
                if self.fault.close is not None:
                    await self.client.close(*self.fault.close)
                else:
                    self.client.transport.abort()
                return
            if sum(byte in LOUD for byte in frame) >= FRAME_BYTES // 4:
                if self.ended:
                    self.begin()
                self.loud_ms += 20
                self.quiet_ms = 0
            elif self.line is not None:
                self.quiet_ms += 20
            await self.tick()

    def begin(self) -> None:
        self.line = self.server.next_line().split()
        self.began_ms, self.loud_ms, self.quiet_ms = self.now_ms - 20, 0, 0
        self.ended = False

    @property
    def heard(self) -> list[str]:
        return (self.line or [])[: self.loud_ms // self.server.word_ms]

    def word_times(self, words: list[str]) -> list[tuple[str, float, float]]:
        span = max(20, self.now_ms - self.began_ms - self.quiet_ms) / max(1, len(words)) / 1000
        start = self.began_ms / 1000
        return [(word, start + at * span, start + (at + 1) * span) for at, word in enumerate(words)]

    async def say(self, message: Any) -> None:
        if isinstance(self.fault, Silent):
            return
        if isinstance(self.fault, Slow):
            await asyncio.sleep(self.fault.delay_s)
        data = message.json(exclude_none=True)
        if isinstance(self.fault, Late):
            asyncio.get_running_loop().call_later(self.fault.delay_s, self.send_soon, data)
        else:
            await self.send(data)

    def send_soon(self, data: str) -> None:
        task = asyncio.get_running_loop().create_task(self.send(data))
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def send(self, data: str) -> None:
        try:
            await self.client.send(data)
        except ConnectionClosed:
            pass  # what it sent before it left is still to be read

    async def opened(self) -> None: ...

    async def tick(self) -> None:
        """20 ms more of audio."""

    async def control(self, message: Mapping[str, Any]) -> None: ...

    async def bye(self) -> None: ...


class _Nova(_Session):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.final_ms = 0
        """All before it has been told as final."""
        self.told_words = 0
        self.interim_ms = 0
        self.endpointing_ms = int(self.connection.query["endpointing"][0])
        self.multi = self.connection.query.get("language") == ["multi"]

    async def tick(self) -> None:
        if self.line is not None and not self.ended and self.quiet_ms == self.endpointing_ms:
            await self.result(final=True, speech_final=True, whole=True)
            self.ended = True
        elif self.now_ms - self.interim_ms >= INTERIM_MS:
            self.interim_ms = self.now_ms
            await self.result(final=self.now_ms - self.final_ms >= 3000)
        if (
            self.line is not None
            and self.ended
            and self.quiet_ms == 1000
            and "utterance_end_ms" in self.connection.query
        ):
            await self.say(ListenV1UtteranceEnd(channel=[0, 1], last_word_end=(self.now_ms - 1000) / 1000))

    def begin(self) -> None:
        super().begin()
        self.told_words = 0

    async def result(
        self, *, final: bool, speech_final: bool = False, from_finalize: bool = False, whole: bool = False
    ) -> None:
        all_words = [] if self.line is None or self.ended else self.word_times(self.line if whole else self.heard)
        words = all_words[self.told_words :]
        text = " ".join(word.partition("/")[0] for word, _, _ in words)
        languages = languages_of([word for word, _, _ in words]) if self.multi else []
        told: dict[str, Any] = {"languages": languages} if languages else {}
        if self.multi:
            told["languages_hinted"] = [hint.split("-")[0] for hint in self.connection.query.get("language_hint", [])]
        await self.say(
            ListenV1Results.construct(
                type="Results",
                channel_index=[0, 1],
                start=self.final_ms / 1000,
                duration=(self.now_ms - self.final_ms) / 1000,
                is_final=final,
                speech_final=speech_final,
                from_finalize=from_finalize,
                channel={
                    "alternatives": [
                        {
                            "transcript": text,
                            "confidence": 0.9,
                            "words": [self.word(*each) for each in words],
                            **told,
                        }
                    ]
                },
                metadata={
                    "request_id": "r",
                    "model_uuid": "m",
                    "model_info": {"name": "general-nova-3", "version": "1", "arch": "nova-3"},
                },
            )
        )
        if final:
            self.final_ms = self.now_ms
            self.told_words += len(words)

    def word(self, marked: str, start: float, end: float) -> dict[str, Any]:
        word, _, language = marked.partition("/")
        told = {"language": language} if language and self.multi else {}
        return {"word": word, "start": start, "end": end, "confidence": 0.9, "punctuated_word": word, **told}

    async def control(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "Finalize" and not isinstance(self.fault, Deaf):
            await self.result(final=True, from_finalize=True, whole=True)
            self.ended = True

    async def bye(self) -> None:
        await self.say(
            ListenV1Metadata(
                type="Metadata",
                transaction_key="deprecated",
                request_id="r",
                sha256="0",
                created="2026-11-27T00:00:00Z",
                duration=self.now_ms / 1000,
                channels=1,
            )
        )


class _Flux(_Session):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.sequence = 0
        self.turn = 0
        self.turn_began_ms = 0
        self.update_ms = 0
        self.eager: bool = False
        self.state: Literal["ready", "speaking", "awaiting"] = "ready"
        self.threshold = float(self.connection.query.get("eot_threshold", ["0.7"])[0])
        self.multi = self.connection.query["model"] == ["flux-general-multi"]

    async def opened(self) -> None:
        await self.say(ListenV2Connected(type="Connected", request_id="r", sequence_id=self.next()))

    def next(self) -> int:
        self.sequence += 1
        return self.sequence - 1

    async def tick(self) -> None:
        if self.state == "ready" and not self.ended and self.heard:
            self.state = "speaking"
            await self.info("StartOfTurn")
        elif self.state == "awaiting" and self.quiet_ms == 0:
            self.state = "speaking"
            await self.info("TurnResumed")
        elif self.state == "speaking" and self.quiet_ms == 160 and "eager_eot_threshold" in self.connection.query:
            self.state = "awaiting"
            await self.info("EagerEndOfTurn", whole=True)
        elif self.state != "ready" and self.quiet_ms == 300 and self.threshold < 1.0:
            await self.end("model")
        elif self.now_ms - self.update_ms >= INTERIM_MS:
            self.update_ms = self.now_ms
            await self.info("Update")

    async def end(self, trigger: str) -> None:
        await self.info("EndOfTurn", whole=True, trigger=trigger)
        self.turn += 1
        self.turn_began_ms = self.now_ms
        self.state, self.ended = "ready", True

    async def info(self, event: str, *, whole: bool = False, trigger: str | None = None) -> None:
        words = [] if self.ended else self.word_times((self.line or []) if whole else self.heard)
        languages = languages_of([word for word, _, _ in words]) if self.multi else []
        words = [(word.partition("/")[0], start, end) for word, start, end in words]
        await self.say(
            ListenV2TurnInfo.construct(
                type="TurnInfo",
                request_id="r",
                sequence_id=self.next(),
                event=event,
                turn_index=self.turn,
                audio_window_start=self.turn_began_ms / 1000,
                audio_window_end=self.now_ms / 1000,
                transcript=" ".join(word for word, _, _ in words),
                words=[{"word": word, "confidence": 0.9, "start": a, "end": b} for word, a, b in words],
                end_of_turn_confidence=0.9 if event == "EndOfTurn" else 0.1,
                trigger=trigger,
                languages=languages or None,
                languages_hinted=self.connection.query.get("language_hint") if self.multi else None,
            )
        )

    async def control(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "ForceEndTurn":
                if not self.ended and self.line is not None and not isinstance(self.fault, Deaf):
                    await self.end("manual")
            case "Configure":
                self.threshold = float(message.get("thresholds", {}).get("eot_threshold", self.threshold))
            case _:  # KeepAlive is Nova's
                error = ListenV2FatalError(
                    type="Error",
                    sequence_id=self.next(),
                    code="UNPARSABLE_CLIENT_MESSAGE",
                    description="no such message",
                )
                await self.say(error)
                await self.client.close(1008, "UNPARSABLE_CLIENT_MESSAGE")


# --- Aura -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoken:
    """A phrase: so much mu-law, in chunks. What is asked for decides the bytes: each phrase sounds otherwise."""

    ms: int | None = None
    """None: WORD_MS for a word."""
    chunk_ms: int = 100
    delay_s: float = 0.0
    stall_after: int | None = None
    """Chunks, then nothing until the client leaves."""
    break_after: int | None = None
    """Chunks, then the connection breaks."""
    content_type: str = "audio/basic"


class AuraServer(HttpServer):
    """`POST /v1/speak`."""

    def __init__(
        self,
        *answers: "Spoken | Refuse",
        always: "Spoken | Refuse | None" = None,
        voice: Callable[[str], bytes] | None = None,
    ) -> None:
        """`voice`: the mu-law of a text, for those who want to listen; None: tones."""
        super().__init__()
        self.answers, self.always = deque(answers), always or Spoken()
        self._voice = voice
        self.requests: list[http_server.Request] = []

    async def answer(self, request: http_server.Request, stream: http_server.Stream) -> None:
        assert request.path == "/v1/speak", request.path
        self.requests.append(request)
        answer = self.answers.popleft() if self.answers else self.always
        if isinstance(answer, Refuse):
            body = {"err_code": "NO", "err_msg": answer.message, "request_id": "r"}
            await stream.whole(answer.status, body, answer.headers)
        else:
            await self._speak(stream, request.body["text"], answer)

    async def _speak(self, stream: http_server.Stream, text: str, spoken: Spoken) -> None:
        await stream.wait(spoken.delay_s)
        stream.begin(spoken.content_type, {"dg-model-name": "fake"})
        ms = WORD_MS * len(text.split()) if spoken.ms is None else spoken.ms
        audio = voice(text, ms) if self._voice is None else self._voice(text)
        size = spoken.chunk_ms * 8
        for at, start in enumerate(range(0, len(audio), size)):
            if at == spoken.stall_after:
                await stream.wait(float("inf"))
            if at == spoken.break_after:
                stream.drop()
            await stream.chunk(audio[start : start + size])
            await asyncio.sleep(0)
        await stream.end()


def voice(text: str, ms: int) -> bytes:
    """Mu-law that is loud and depends on the text."""
    seed = sum(text.encode()) % 64
    wave = bytes(0x90 + (seed + at * 7) % 32 for at in range(80)) + bytes(
        0x10 + (seed + at * 5) % 32 for at in range(80)
    )
    return (wave * (ms // 20 + 1))[: ms * 8]
