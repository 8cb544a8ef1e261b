"""The conformance suites on the providers that need no cloud of their own module's tests."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fakes.openai_server import Answer, Drop, OpenAiServer, Raw, Refusal, Wait
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.llm.openai import OpenAiLlm
from trunkline.agents.llm.script import ScriptLlm
from trunkline.agents.local import voice
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import Services
from trunkline.agents.stt.pocketsphinx import Pocketsphinx
from trunkline.agents.tts.espeak import Espeak
from trunkline.media import g711
from trunkline.ports import Llm, Stt, Tts
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import LlmConformance, Situation, Stage, SttConformance, TtsConformance
from trunkline.testing.standin import StandinLlm, StandinStt, StandinTts

CLOCK = ManualClock()
KEY = "sk-secret-4711"
CHOICE = ProviderChoice("standin")
SCRIPT = {
    "intents": [{"name": "hours", "phrases": ["when do you open", "what are your opening hours"], "reply": "At nine."}]
}
AGENT = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.", script=SCRIPT)
SERVICES = Services(CLOCK, keys={"openai": KEY})

OPENAI: dict[Situation, list[Answer | Refusal]] = {
    "answers": [Answer("We open", " at eight.")] * 2,
    "silent": [Answer(Wait())],
    "stalls": [Answer("We open", Wait())],
    "breaks": [Answer("We open", Drop())],
    "garbage": [Answer("We open", Raw(b"data: {garbage\n\n"))],
    "unauthorized": [Refusal(401, f"Incorrect API key provided: {KEY}")],
    "rate_limited": [Refusal(429, headers={"retry-after": "7"})],
    "fails": [Refusal(500, f"no {KEY}")],
    "absent": [],
}


class TestOpenAiLlm(LlmConformance):
    situations = frozenset(OPENAI)
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Llm], None]:
        async with OpenAiServer() as server:
            server.answers.extend(OPENAI[situation])
            options = {"model": "m", "base_url": server.base_url, "first_token_ms": 300, "between_tokens_ms": 300}
            if situation == "absent":
                await server.__aexit__()
            yield Stage(OpenAiLlm(AGENT, options, SERVICES), server.disconnected.wait)


class TestScriptLlm(LlmConformance):
    usage_reported = False

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Llm], None]:
        yield Stage(ScriptLlm(AGENT, {}, SERVICES))


class TestStandinLlm(LlmConformance):
    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Llm], None]:
        yield Stage(StandinLlm(AGENT, {"first_token_ms": 0, "token_ms": 0}, SERVICES))


class OnThePool:
    """A worker process takes a second to start: one for all."""

    _runner: asyncio.Runner
    services: Services

    @pytest.fixture(autouse=True)
    def _on_the_pool(self, pool: tuple[asyncio.Runner, SpeechPool]) -> None:
        self._runner = pool[0]
        self.services = Services(CLOCK, speech_pool=pool[1])

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        self._runner.run(main)


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[asyncio.Runner, SpeechPool]]:
    workers = SpeechPool(1)
    with asyncio.Runner() as runner:
        runner.run(workers.start())
        yield runner, workers
        runner.run(workers.close())


class TestPocketsphinx(OnThePool, SttConformance):
    words = "when do you open"
    quiet_s = 0.1
    deadline_s = 10.0  # a worker process starts

    def speech(self) -> bytes:
        return g711.encode(voice.synthesize(self.words) + bytes(3200), "mulaw")

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Stt], None]:
        yield Stage(Pocketsphinx(AGENT, {}, self.services))


class TestStandinStt(SttConformance):
    unsaid = "caller phrase"
    quiet_s = 0.05

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Stt], None]:
        yield Stage(StandinStt(AGENT, {"final_ms": 1}, SERVICES))


class TestEspeak(OnThePool, TtsConformance):
    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        yield Stage(Espeak(AGENT, {}, self.services))


class TestStandinTts(TtsConformance):
    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        yield Stage(StandinTts(AGENT, {"first_audio_ms": 0}, SERVICES))
