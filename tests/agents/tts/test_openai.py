"""The OpenAI-compatible voice against a server with the real wire protocol."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from tests.fakes.openai_server import SPEECH_HZ, Drop, OpenAiServer, Raw, Refusal, Speech, Wait
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.local.voice import synthesize
from trunkline.agents.providers import Services
from trunkline.agents.tts.openai import OpenAiTts, read_options
from trunkline.errors import ConfigError, ProviderError
from trunkline.media import g711
from trunkline.media.resample import Resampler
from trunkline.ports import Tts
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation, Stage, TtsConformance
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

KEY = "sk-secret-4711"
STANDIN = ProviderChoice("standin")
AGENT = AgentDefinition("Bakery", STANDIN, STANDIN, STANDIN, "Hello.")
TEXT = "We open at eight."
SOUND = synthesize(TEXT, rate_hz=SPEECH_HZ)
BEGIN = SOUND[:24_000]
SITUATIONS: dict[Situation, Speech | Refusal | None] = {
    "answers": None,
    "silent": Speech(Wait()),
    "stalls": Speech(BEGIN, Wait()),
    "breaks": Speech(BEGIN, Drop()),
    "garbage": Speech(BEGIN, Raw(b"no chunk of HTTP")),
    "unauthorized": Refusal(401, f"Incorrect API key provided: {KEY}"),
    "rate_limited": Refusal(429, headers={"retry-after": "7"}),
    "fails": Refusal(500, f"no {KEY}"),
    "absent": None,
}


class TestConformance(TtsConformance):
    situations = frozenset(SITUATIONS)
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        async with OpenAiServer() as server:
            if (how := SITUATIONS[situation]) is not None:
                server.answers.append(how)
            patience_ms = 300 if situation in ("silent", "stalls") else 1500  # a machine at work is slow
            tts = voice(server, first_audio_ms=patience_ms, between_audio_ms=patience_ms)
            if situation == "absent":
                await server.__aexit__()
            yield Stage(tts, server.disconnected.wait)


def voice(server: OpenAiServer, key: str | None = KEY, **options: Any) -> OpenAiTts:
    services = Services(ManualClock(), keys={} if key is None else {"openai": key})
    return OpenAiTts(AGENT, {"model": "m", "voice": "alloy", "base_url": server.base_url, **options}, services)


def with_server(
    test: Callable[[OpenAiServer, OpenAiTts], Awaitable[None]], *answers: Speech | Refusal, **options: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), OpenAiServer() as server:
            server.answers.extend(answers)
            tts = voice(server, **options)
            await tts.start()
            try:
                await test(server, tts)
            finally:
                await tts.close()

    asyncio.run(run())


async def collect(tts: OpenAiTts, format: Format = MULAW_8K, text: str = TEXT) -> bytes:
    return b"".join([audio.data async for audio in tts.speak(text, format)])


def failure_of(*answers: Speech | Refusal, **options: Any) -> ProviderError:
    found: list[ProviderError] = []

    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        with pytest.raises(ProviderError) as caught:
            await collect(tts)
        found.append(caught.value)

    with_server(test, *answers, **options)
    assert KEY not in repr(found[0])
    return found[0]


def test_the_request_is_for_streamed_pcm() -> None:
    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        await collect(tts)
        (request,) = server.requests
        assert request.path == "/v1/audio/speech"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body == {
            "model": "m",
            "voice": "alloy",
            "input": TEXT,
            "response_format": "pcm",
            "instructions": "Cheerful.",
            "speed": 1.2,
        }

    with_server(test, instructions="Cheerful.", speed=1.2)


def test_a_server_without_a_key_gets_none() -> None:
    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        await collect(tts)
        assert "authorization" not in server.requests[0].headers

    with_server(test, key=None)


@pytest.mark.parametrize("format", [MULAW_8K, ALAW_8K, PCM_8K, PCM_16K])
@pytest.mark.parametrize("piece", [333, 4800])
def test_the_audio_is_the_servers_in_the_lanes_format_however_it_is_cut(format: Format, piece: int) -> None:
    resampler = Resampler(SPEECH_HZ, format.rate_hz)
    pcm = resampler.feed(SOUND) + resampler.flush()
    expected = pcm if format.encoding == "pcm16" else g711.encode(pcm, format.encoding)

    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        found = await collect(tts, format)
        assert len(found) == len(expected)
        if format.encoding == "pcm16":
            difference = np.frombuffer(found, np.int16).astype(int) - np.frombuffer(expected, np.int16)
            assert np.abs(difference).max() <= 2

    with_server(test, Speech(*(SOUND[at : at + piece] for at in range(0, len(SOUND), piece))))


def test_the_first_audio_does_not_wait_for_the_rest() -> None:
    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        speech = tts.speak(TEXT, MULAW_8K)
        async with asyncio.timeout(2):
            assert (await anext(speech)).data
        await speech.aclose()
        await server.disconnected.wait()

    with_server(test, Speech(BEGIN, Wait()))


@pytest.mark.parametrize(
    "answer",
    [
        Speech(b'{"error": "no such format"}', content_type="application/json"),
        Speech(b"<html>", content_type="text/html; charset=utf-8"),
        Speech(b"RIFF....WAVE", content_type="audio/wav"),
        Speech(b"ID3", content_type="audio/mpeg"),
    ],
)
def test_what_is_no_pcm_is_never_played(answer: Speech) -> None:
    error = failure_of(answer)
    assert (error.code, error.retryable) == ("protocol", False)


def test_a_phrase_without_audio_is_an_error() -> None:
    error = failure_of(Speech())
    assert (error.code, error.retryable) == ("protocol", True)


def test_a_used_up_quota_is_not_tried_again() -> None:
    error = failure_of(Refusal(429, code="insufficient_quota"))
    assert (error.code, error.retryable) == ("rate_limited", False)


def test_neither_key_nor_audio_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test(server: OpenAiServer, tts: OpenAiTts) -> None:
        await collect(tts)

    with_server(test)
    assert not [record for record in caplog.records if KEY in record.getMessage()]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"model": "m"}, "voice"),
        ({"voice": "v"}, "model"),
        ({"model": "m", "voice": "v", "speed": 0.1}, "speed"),
        ({"model": "m", "voice": "v", "base_url": "ws://x"}, "base_url"),
        ({"model": "m", "voice": "v", "format": "mp3"}, "format"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


def test_openais_own_server_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="API key"):
        OpenAiTts(AGENT, {"model": "m", "voice": "v"}, Services(ManualClock()))
