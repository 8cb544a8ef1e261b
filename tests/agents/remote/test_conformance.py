"""The conformance suites on the remote ports, before our own server and before ones that misbehave."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.fakes.models_server import AGENT, BadServer, StandinServer
from trunkline.agents.llm.remote import RemoteLlm
from trunkline.agents.providers import Services
from trunkline.agents.stt.remote import RemoteStt
from trunkline.agents.tts.remote import RemoteTts
from trunkline.ports import Llm, Stt, Tts
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import LlmConformance, Situation, Stage, SttConformance, TtsConformance

KEY = "token-4711-secret"
SERVICES = Services(ManualClock(), keys={"remote": KEY})
SITUATIONS: frozenset[Situation] = frozenset(
    {"answers", "silent", "stalls", "breaks", "garbage", "unauthorized", "rate_limited", "fails"}
)
P = TypeVar("P")


@asynccontextmanager
async def staged(
    situation: Situation, provider: Callable[..., P], **deadlines: int
) -> AsyncGenerator[Stage[Any], None]:
    if situation == "answers":
        async with StandinServer(token=KEY) as server:
            yield Stage(provider(AGENT, {"targets": [server.target]}, SERVICES))
        return
    async with BadServer(situation, KEY) as bad:
        yield Stage(provider(AGENT, {"targets": [bad.target], **deadlines}, SERVICES), bad.closed.wait)


class TestRemoteStt(SttConformance):
    situations = SITUATIONS
    secrets = (KEY,)
    unsaid = "caller phrase"
    quiet_s = 0.05

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Stt], None]:
        async with staged(situation, RemoteStt, final_ms=300) as stage:
            yield stage


class TestRemoteLlm(LlmConformance):
    situations = SITUATIONS
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Llm], None]:
        async with staged(situation, RemoteLlm, first_ms=300, between_ms=300) as stage:
            yield stage


class TestRemoteTts(TtsConformance):
    situations = SITUATIONS
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        async with staged(situation, RemoteTts, first_ms=300, between_ms=300) as stage:
            yield stage
