"""Aura against a server with the real wire protocol."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from tests.fakes.deepgram_server import WORD_MS, AuraServer, Refuse, Spoken, voice
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services, load
from trunkline.agents.tts import deepgram as module
from trunkline.agents.tts.deepgram import DeepgramTts, read_options
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import Tts
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation, Stage, TtsConformance
from trunkline.types import ALAW_8K, MULAW_8K, PCM_16K, Format

KEY = "dg-secret-4711"
SERVICES = Services(ManualClock(), keys={"deepgram": KEY})
CHOICE = ProviderChoice("deepgram")
AGENT = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.")
TEXT = "We open at eight."
HURRY = {"first_audio_ms": 300, "between_audio_ms": 300}

ANSWERS: dict[Situation, Spoken | Refuse] = {
    "answers": Spoken(),
    "silent": Spoken(delay_s=float("inf")),
    "stalls": Spoken(stall_after=2),
    "breaks": Spoken(break_after=2),
    "garbage": Spoken(content_type="text/html"),
    "unauthorized": Refuse(401, message=f"INVALID_AUTH {KEY}"),
    "rate_limited": Refuse(429, {"retry-after": "7"}),
    "fails": Refuse(500),
    "absent": Spoken(),
}


class TestDeepgramTts(TtsConformance):
    situations = frozenset(ANSWERS)
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        async with AuraServer(always=ANSWERS[situation]) as server:
            url = server.url
            if situation == "absent":
                await server.__aexit__()
            yield Stage(DeepgramTts(AGENT, {"url": url, **HURRY}, SERVICES), server.disconnected.wait)


def with_server(
    test: Callable[[AuraServer, DeepgramTts], Awaitable[None]], *answers: Spoken | Refuse, **options: Any
) -> None:
    async def run() -> None:
        async with AuraServer(*answers) as server:
            tts = DeepgramTts(AGENT, {"url": server.url, **HURRY, **options}, SERVICES)
            await tts.start()
            await tts.start()
            try:
                await test(server, tts)
            finally:
                await tts.close()

    asyncio.run(run())


async def spoken(tts: DeepgramTts, text: str = TEXT, format: Format = MULAW_8K) -> bytes:
    return b"".join([audio.data async for audio in tts.speak(text, format)])


def test_the_audio_is_the_servers_untouched_and_asked_for_in_the_lanes_format() -> None:
    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        assert await spoken(tts, f"  {TEXT}\n") == voice(TEXT, 4 * WORD_MS)
        (request,) = server.requests
        assert request.body == {"text": TEXT}
        assert request.headers["authorization"] == f"Token {KEY}"
        assert request.query == {
            "model": ["aura-2-luna-en"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "container": ["none"],
            "speed": ["1.2"],
            "mip_opt_out": ["true"],
        }

    with_server(test, model="aura-2-luna-en", speed=1.2, opt_out=True)


@pytest.mark.parametrize(("format", "encoding", "rate"), [(ALAW_8K, "alaw", "8000"), (PCM_16K, "linear16", "16000")])
def test_other_lanes_have_their_own_format(format: Format, encoding: str, rate: str) -> None:
    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        await spoken(tts, format=format)
        query = server.requests[0].query
        assert (query["encoding"], query["sample_rate"]) == ([encoding], [rate])

    with_server(test)


def test_a_sample_is_never_cut_in_two() -> None:
    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        sizes = [len(audio.data) async for audio in tts.speak(TEXT, PCM_16K)]
        assert len(sizes) > 1
        assert all(size % 2 == 0 for size in sizes)

    with_server(test, Spoken(ms=201, chunk_ms=33))


def test_a_connection_is_used_again_for_the_next_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 s later, for who counts how long it is idle."""
    at = 1000.0
    monkeypatch.setattr(httpcore._async.http11, "time", SimpleNamespace(monotonic=lambda: at))

    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        nonlocal at
        for _ in range(3):
            await spoken(tts)
            at += 40.0
        assert (len(server.requests), server.accepted) == (3, 1)

    with_server(test)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(402, "rate_limited", False), (403, "auth", False), (400, "bad_request", False), (503, "unavailable", True)],
)
def test_a_refusal_says_whether_another_try_may_help(status: int, code: str, retryable: bool) -> None:
    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        with pytest.raises(ProviderError) as caught:
            await spoken(tts)
        assert (caught.value.code, caught.value.retryable) == (code, retryable)
        assert len(server.requests) == 1  # and the SDK does not try again by itself

    with_server(test, Refuse(status))


def test_a_phrase_that_is_too_long_is_not_sent() -> None:
    async def test(server: AuraServer, tts: DeepgramTts) -> None:
        with pytest.raises(ProviderError) as caught:
            await spoken(tts, "word " * 500)
        assert (caught.value.code, server.requests) == ("bad_request", [])

    with_server(test)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"voice": "x"}, "tts.voice"),
        ({"speed": 3}, "tts.speed"),
        ({"speed": 0.1}, "tts.speed"),
        ({"url": "ws://x"}, "tts.url"),
        ({"url": "https://user:pw@x"}, "tts.url"),
        ({"first_audio_ms": 0}, "tts.first_audio_ms"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


def test_deepgrams_own_server_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"deepgram\.api_key"):
        DeepgramTts(AGENT, {}, Services(ManualClock()))


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepgram", None)
    with pytest.raises(MissingExtra, match=r"trunkline\[deepgram\]"):
        module._sdk()


def test_an_agent_names_it() -> None:
    assert load("tts", CHOICE) is DeepgramTts
