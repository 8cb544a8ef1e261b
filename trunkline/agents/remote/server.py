"""Who answers: the providers of one agent file behind the services of ports.proto.

A request that the client cancels cancels the handler's task, which closes the provider's generator. What a provider
makes faster than the client takes it waits in bounded queues: gRPC's own windows, and EVENTS of a recogniser.
"""

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc

from trunkline.agents import languages
from trunkline.agents.providers import Minds
from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote import ports_pb2_grpc as grpc_of
from trunkline.agents.remote import wire
from trunkline.clock import Clock
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import ON_BEHALF_OF, LlmSession, SttEvent, SttPartial, SttStream, TurnDetector
from trunkline.types import CallId

log = logging.getLogger(__name__)

EVENTS = 256  # of a recogniser, not yet sent
MAX_SESSIONS = 2_000  # whose mind is remembered; the one that was asked longest ago is forgotten first
SESSION_IDLE_S = 1800.0
MAX_REQUESTS = 4_000  # at once: a call has one stream and two requests
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_AHEAD = 16  # utterances of a call, finalized and not yet answered
GRACE_S = 5.0
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),  # a client that is gone without a word is noticed: its streams end
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a share of it
)


class ModelServer:
    """`async with ModelServer(...)`: listens; `port` is where. `token`: what every request must bear."""

    def __init__(
        self,
        minds: Minds,
        detector: TurnDetector,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        certificate: tuple[bytes, bytes] | None = None,
        client_ca: bytes | None = None,
    ) -> None:
        """`certificate`: its PEM and its key's. `client_ca`: clients must show one of these."""
        self._minds, self._detector = minds, detector
        self._host, self.port = host, port
        self._certificate, self._client_ca = certificate, client_ca
        self._guard = [_Token(token)] if token else []
        self._sessions = _Sessions(clock)
        self._server: Any = None

    async def __aenter__(self) -> "ModelServer":
        """Raises ConfigError when it cannot listen. The providers are started already."""
        server = grpc.aio.server(interceptors=self._guard, options=SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_REQUESTS)
        minds = self._minds
        grpc_of.add_StreamingAsrServicer_to_server(_Asr(minds), server)
        grpc_of.add_LlmOrchestratorServicer_to_server(_Llm(minds, self._sessions), server)
        grpc_of.add_StreamingTtsServicer_to_server(_Tts(minds), server)
        grpc_of.add_TurnDetectorServicer_to_server(_Detector(self._detector), server)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            if self._certificate is None:
                self.port = server.add_insecure_port(f"{host}:{self.port}")
            else:
                certificate, key = self._certificate
                credentials = grpc.ssl_server_credentials(
                    [(key, certificate)], self._client_ca, require_client_auth=self._client_ca is not None
                )
                self.port = server.add_secure_port(f"{host}:{self.port}", credentials)
        except RuntimeError:
            raise ConfigError("--port", self.port, f"a free port of {self._host}, and certificates that fit") from None
        await server.start()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(0)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """New requests are refused; those under way have so long. Idempotent."""
        if self._server is not None:
            await self._server.stop(grace_s)
        self._sessions.close()


class _Token(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")

        # For the client, a refusal is the same status, whatever kind of answer it had asked for.
        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, proceed: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        given = dict(details.invocation_metadata).get(wire.AUTHORIZATION, "")
        if isinstance(given, str) and hmac.compare_digest(given.encode(), self._expected):
            return await proceed(details)
        return self._refusal


async def _fail(context: Any, error: Exception) -> NoReturn:
    """The status that says so. Of a bug of ours nothing is told but that it was one."""
    if isinstance(error, wire.WireError):
        error = ProviderError("", "bad_request", str(error), retryable=False)
    if not isinstance(error, ProviderError):
        log.error("a provider raised %s", type(error).__name__, exc_info=error)
        error = ProviderError("", "unavailable", "the server failed", retryable=True)
    status, details, trailer = wire.status_of(error)
    await context.abort(grpc.StatusCode[status], details, trailer)
    raise AssertionError("abort raises")


def _session(context: Any) -> str:
    value = dict(context.invocation_metadata() or ()).get(wire.SESSION, "")
    return value[:200] if isinstance(value, str) else ""


# --- ears -----------------------------------------------------------------------------------------------------------


class _Asr(grpc_of.StreamingAsrServicer):
    def __init__(self, minds: Minds) -> None:
        self._stt = minds.stt

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.AsrDescription:
        stt = self._stt
        formats = [wire.write_format(format) for format in stt.formats]
        return pb.AsrDescription(name=stt.name, feed_mode=stt.feed_mode, formats=formats)

    async def Recognize(
        self, requests: AsyncIterator[pb.AsrRequest], context: Any
    ) -> AsyncGenerator[pb.AsrEvent, None]:
        ears = _Ears()
        try:
            ears.open(self._stt, await anext(aiter(requests), None))
        except Exception as error:
            await _fail(context, error)
        yield pb.AsrEvent(ready=pb.Ready())
        reader = asyncio.get_running_loop().create_task(ears.listen(requests))
        try:
            while (event := await ears.events.get()) is not None:
                yield event
            await reader
        except (ProviderError, wire.WireError) as error:
            await _fail(context, error)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            ears.close()


class _Ears:
    """One call's stream: which utterance an event belongs to."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[pb.AsrEvent | None] = asyncio.Queue(EVENTS + 1)
        self._stream: SttStream | None = None
        self._current = 0
        self._finalized: list[int] = []
        self._overrun = False

    def open(self, stt: Any, request: pb.AsrRequest | None) -> None:
        if request is None or request.WhichOneof("request") != "start":
            raise wire.WireError("the first request must be start")
        format = wire.read_format(request.start.format)
        if format not in stt.formats:
            raise wire.WireError("this recogniser does not take the format")
        self._stream = stt.open(wire.read_call(request.start.call), format, self._take)

    async def listen(self, requests: AsyncIterator[pb.AsrRequest]) -> None:
        """Until the client has nothing more to say, then ends the events."""
        try:
            async for request in requests:
                self._perform(request)
        finally:
            if self.events.full():
                self.events.get_nowait()
            self.events.put_nowait(None)

    def _perform(self, request: pb.AsrRequest) -> None:
        assert self._stream is not None
        if self._overrun:
            raise ProviderError("", "overloaded", "events are not taken", retryable=True)
        self._current = request.utterance
        match request.WhichOneof("request"):
            case "audio":
                self._stream.feed(request.audio)
            case "expect":
                self._stream.expect(wire.read_expectation(request.expect))
            case "began":
                self._stream.began(request.began.ago_ms)
            case "finalize":
                if len(self._finalized) >= MAX_AHEAD:
                    raise ProviderError("", "overloaded", "too many utterances at once", retryable=True)
                self._finalized.append(request.utterance)
                self._stream.finalize()
            case "cancel":
                self._stream.cancel()
            case _:
                raise wire.WireError("a request of an unknown kind")

    def _take(self, event: SttEvent) -> None:
        utterance = self._current
        if not isinstance(event, SttPartial):  # 0: the recogniser ended the utterance by itself, as some do
            utterance = self._finalized.pop(0) if self._finalized else 0
        if self.events.qsize() < EVENTS:
            self.events.put_nowait(wire.write_stt_event(utterance, event))
        else:
            self._overrun = True

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


# --- mind -----------------------------------------------------------------------------------------------------------


class _Sessions:
    """Minds by session. Replies of one session share its state, and its last use keeps it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, LlmSession]] = OrderedDict()

    def of(self, session: str, make: Callable[[], LlmSession]) -> LlmSession:
        now = self._clock.now()
        held = self._held.pop(session, None)
        mind = held[1] if held is not None else make()
        self._held[session] = (now, mind)
        while len(self._held) > MAX_SESSIONS or next(iter(self._held.values()))[0] < now - SESSION_IDLE_S:
            self._held.popitem(last=False)[1][1].close()
        return mind

    def forget(self, session: str) -> None:
        held = self._held.pop(session, None)
        if held is not None:
            held[1].close()

    def close(self) -> None:
        for session in list(self._held):
            self.forget(session)


class _Llm(grpc_of.LlmOrchestratorServicer):
    def __init__(self, minds: Minds, sessions: _Sessions) -> None:
        self._llm, self._sessions = minds.llm, sessions

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.LlmDescription:
        return pb.LlmDescription(name=self._llm.name)

    async def Reply(self, request: pb.ReplyRequest, context: Any) -> AsyncGenerator[pb.ReplyEvent, None]:
        try:
            call = wire.read_call(request.call)
            conversation = [wire.read_message(message) for message in request.conversation]
            mind = self._sessions.of(_session(context) or call.call_id, lambda: self._llm.open(call))
            async with aclosing(mind.reply(conversation, understood=request.understood)) as events:
                async for event in events:
                    yield wire.write_llm_event(event)
        except Exception as error:
            await _fail(context, error)

    async def Close(self, request: pb.CloseRequest, context: Any) -> pb.CloseResponse:
        self._sessions.forget(_session(context))
        return pb.CloseResponse()


# --- voice ----------------------------------------------------------------------------------------------------------


class _Tts(grpc_of.StreamingTtsServicer):
    def __init__(self, minds: Minds) -> None:
        self._minds, self._tts = minds, minds.tts
        spoken = (minds, *minds.languages.values())
        self._word_times = all(each.tts.word_times for each in spoken)

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.TtsDescription:
        return pb.TtsDescription(name=self._tts.name, word_times=self._word_times)

    async def Speak(self, request: pb.SpeakRequest, context: Any) -> AsyncGenerator[pb.SpeakEvent, None]:
        ON_BEHALF_OF.set(CallId(_session(context)) or None)  # of this request's task
        try:
            format = wire.read_format(request.format)
            tag = languages.lookup(request.language, self._minds.languages) if request.language else None
            tts = self._tts if tag is None else self._minds.in_language(tag).tts
            async with aclosing(tts.speak(request.text, format)) as chunks:
                async for audio in chunks:
                    yield wire.write_audio(audio)
        except Exception as error:
            await _fail(context, error)


class _Detector(grpc_of.TurnDetectorServicer):
    def __init__(self, detector: TurnDetector) -> None:
        self._detector = detector

    async def Detect(self, request: pb.DetectRequest, context: Any) -> pb.DetectResponse:
        try:
            probability = await self._detector.probability(request.text, request.language)
        except Exception as error:
            await _fail(context, error)
        return pb.DetectResponse(probability=probability)
