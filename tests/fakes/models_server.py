"""A server of ports.proto that misbehaves as told: raw gRPC handlers, so that garbage can be sent, behind a TCP relay
that can be cut.

Sources: trunkline/agents/remote/ports.proto; gRPC's status codes and `grpc-retry-pushback-ms` (gRFC A6). Where it
`answers` it is our own ModelServer with the stand-in providers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.endofturn import RuleTurnDetector
from trunkline.agents.providers import Minds, Services
from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote.server import ModelServer
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation
from trunkline.testing.ports import lease
from trunkline.testing.standin import StandinLlm, StandinStt, StandinTts

SERVICE = "trunkline.ports.v1."
CHOICE = ProviderChoice("standin")
AGENT = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.")


def standins() -> Minds:
    services = Services(ManualClock())
    return Minds(
        StandinStt(AGENT, {"final_ms": 1}, services),
        StandinLlm(AGENT, {"first_token_ms": 0, "token_ms": 0}, services),
        StandinTts(AGENT, {"first_audio_ms": 0}, services),
    )


class StandinServer:
    """Our own server with stand-in providers, on loopback."""

    def __init__(self, minds: Minds | None = None, **options: Any) -> None:
        self.minds = minds or standins()
        self._server = ModelServer(self.minds, RuleTurnDetector(), ManualClock(), **options)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.port}"

    async def __aenter__(self) -> Self:
        await self.minds.start()
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.__aexit__()
        await self.minds.close()


class BadServer:
    """Describes itself properly (unless it refuses everybody); then it is in its situation."""

    def __init__(self, situation: Situation, key: str = "") -> None:
        self._situation, self._key = situation, key
        self.closed = asyncio.Event()
        """A request was cancelled by the client."""
        self.sessions: list[str] = []
        self._port = 0
        self._server: Any = None
        self._relay: asyncio.Server | None = None
        self._wires: set[asyncio.StreamWriter] = set()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        if self._situation == "absent":
            self._port = lease()
            return self
        self._server = grpc.aio.server()
        described = {
            "StreamingAsr": pb.AsrDescription(
                name="fake", feed_mode="gated", formats=[pb.AudioFormat(encoding="mulaw", rate_hz=8000)]
            ),
            "LlmOrchestrator": pb.LlmDescription(name="fake"),
            "StreamingTts": pb.TtsDescription(name="fake", word_times=True),
        }
        began = {
            "StreamingAsr": pb.AsrEvent(utterance=1, partial=pb.AsrPartial(text="caller")),
            "LlmOrchestrator": pb.ReplyEvent(text="We open "),
            "StreamingTts": pb.SpeakEvent(audio=b"\x31" * 800),
        }
        methods = {"StreamingAsr": "Recognize", "LlmOrchestrator": "Reply", "StreamingTts": "Speak"}
        for service, description in described.items():
            handlers = {
                "Describe": grpc.unary_unary_rpc_method_handler(_describes(description.SerializeToString())),
                methods[service]: self._streams(service, began[service].SerializeToString()),
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE + service, handlers),))
        behind = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)
            self._wires |= {writer, far_writer}
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

        self._relay = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._port = self._relay.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(0)
        if self._relay is not None:
            self._relay.close()
            self._cut()
            await self._relay.wait_closed()
            await asyncio.sleep(0.01)

    def _cut(self) -> None:
        for writer in self._wires:
            writer.transport.abort()
        self._wires.clear()

    def _streams(self, service: str, began: bytes) -> Any:
        async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
            self.sessions.append(dict(context.invocation_metadata())["trunkline-session"])
            try:
                if service == "StreamingAsr" and self._situation in ("stalls", "breaks", "garbage"):
                    yield pb.AsrEvent(ready=pb.Ready()).SerializeToString()
                async for each in self._misbehave(began, context):
                    yield each
            except asyncio.CancelledError:
                self.closed.set()
                raise

        if service == "StreamingAsr":
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_stream_rpc_method_handler(stream)

    async def _misbehave(self, began: bytes, context: Any) -> AsyncIterator[bytes]:
        match self._situation:
            case "silent":
                await asyncio.sleep(3600)
            case "stalls":
                yield began
                await asyncio.sleep(3600)
            case "breaks":
                yield began
                await asyncio.sleep(0.05)
                self._cut()
                await asyncio.sleep(3600)
            case "garbage":
                yield b"\xff\xff\xff\xff"
                await asyncio.sleep(3600)
            case "unauthorized":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"Bearer {self._key} is not known")
            case "rate_limited":
                trailer = (("grpc-retry-pushback-ms", "7000"),)
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._key} asks too often", trailer)
            case "fails":
                await context.abort(grpc.StatusCode.UNKNOWN, f"no {self._key}")


def _describes(description: bytes) -> Any:
    async def describe(request: bytes, context: Any) -> bytes:
        return description

    return describe


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
