"""The ElevenLabs voice against a server with the real wire protocol."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from elevenlabs.core.unchecked_base_model import construct_type
from elevenlabs.types import WebsocketTtsServerMessageMulti
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from tests.fakes.elevenlabs_server import ElevenLabsServer, Refusal, Take, char_times
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services
from trunkline.agents.tts import elevenlabs
from trunkline.agents.tts.elevenlabs import CharTimes, ElevenLabs, WordTimes, read_options
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import Tts, TtsAudio, Word
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation, Stage, TtsConformance
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

CLOCK = ManualClock()
KEY = "xi-secret-4711"
STANDIN = ProviderChoice("standin")
AGENT = AgentDefinition("Bakery", STANDIN, STANDIN, STANDIN, "Hello.")
TEXT = "We open at 8:30, Mr. Smith; the bread is warm - by then."
SITUATIONS: dict[Situation, Take | Refusal | None] = {
    "answers": None,
    "silent": Take(fault="silent"),
    "stalls": Take(fault="stall"),
    "breaks": Take(fault="drop"),
    "garbage": Take(fault="garbage"),
    "unauthorized": Refusal(401, {"detail": {"status": "invalid_api_key", "message": f"Invalid API key: {KEY}"}}),
    "rate_limited": Refusal(429, {"detail": {"status": "too_many_concurrent_requests"}}, {"retry-after": "7"}),
    "fails": Refusal(500, {"detail": f"no {KEY}"}),
    "absent": None,
}


class TestConformance(TtsConformance):
    situations = frozenset(SITUATIONS)
    secrets = (KEY,)

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Tts], None]:
        async with ElevenLabsServer() as server:
            how = SITUATIONS[situation]
            if isinstance(how, Take):
                server.takes.append(how)
            elif how is not None:
                server.refusals.append(how)
            patience_ms = 300 if situation in ("silent", "stalls") else 1500  # a machine at work is slow
            tts = voice(server, first_audio_ms=patience_ms, between_audio_ms=patience_ms)
            if situation == "absent":
                await server.__aexit__()
            yield Stage(tts, server.disconnected.wait)


def voice(server: ElevenLabsServer, key: str | None = KEY, **options: Any) -> ElevenLabs:
    services = Services(CLOCK, keys={} if key is None else {"elevenlabs": key})
    return ElevenLabs(AGENT, {"voice": "alice", "base_url": server.base_url, **options}, services)


def with_server(
    test: Callable[[ElevenLabsServer, ElevenLabs], Awaitable[None]], *takes: Take, key: str | None = KEY, **options: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), ElevenLabsServer(key) as server:
            server.takes.extend(takes)
            tts = voice(server, key, **options)
            await tts.start()
            try:
                await test(server, tts)
            finally:
                await tts.close()

    asyncio.run(run())


async def collect(tts: ElevenLabs, text: str = TEXT, format: Format = MULAW_8K) -> list[TtsAudio]:
    return [audio async for audio in tts.speak(text, format)]


def words_of(chunks: list[TtsAudio]) -> list[Word]:
    return [word for chunk in chunks for word in chunk.words]


def failure_of(*takes: Take, refusal: Refusal | None = None, **options: Any) -> ProviderError:
    found: list[ProviderError] = []

    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        server.refusals.extend([] if refusal is None else [refusal])
        with pytest.raises(ProviderError) as caught:
            await collect(tts)
        found.append(caught.value)

    with_server(test, *takes, **options)
    assert KEY not in repr(found[0])
    return found[0]


# --- the wire ---


def test_the_sdks_types_read_what_the_fake_writes() -> None:
    async def test(server: ElevenLabsServer, _: ElevenLabs) -> None:
        url = f"{server.base_url}/v1/text-to-speech/v/multi-stream-input?output_format=ulaw_8000"
        async with connect(url, additional_headers={"xi-api-key": KEY}) as socket:
            for message in (
                {"context_id": "c", "text": " "},
                {"context_id": "c", "text": "Hello there. ", "flush": True},
                {"context_id": "c", "close_context": True},
            ):
                await socket.send(json.dumps(message))
            chars = ""
            while True:
                data = json.loads(await socket.recv())
                reply: Any = construct_type(type_=WebsocketTtsServerMessageMulti, object_=data)
                assert isinstance(reply, WebsocketTtsServerMessageMulti)
                assert reply.context_id == "c"
                if data.get("isFinal"):
                    break
                if reply.alignment is None:  # a pause
                    continue
                assert reply.alignment.chars is not None
                assert reply.alignment.char_start_times_ms is not None
                assert len(reply.alignment.chars) == len(reply.alignment.char_start_times_ms)
                chars += "".join(reply.alignment.chars)
            assert chars == "Hello there."

    with_server(test)


def test_the_connection_is_asked_for_the_lanes_encoding_times_and_no_waiting() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)
        (connection,) = server.connections
        assert connection.voice == "alice"
        assert connection.headers["xi-api-key"] == KEY
        assert connection.query == {
            "model_id": "eleven_flash_v2_5",
            "output_format": "ulaw_8000",
            "auto_mode": "true",
            "sync_alignment": "true",
            "inactivity_timeout": "180",
            "language_code": "en",
        }
        assert server.phrases[0].settings == {"stability": 0.4, "speed": 1.1}

    with_server(test, language="en", stability=0.4, speed=1.1)


@pytest.mark.parametrize("format", [MULAW_8K, ALAW_8K, PCM_8K, PCM_16K])
def test_audio_comes_through_as_it_was_sent(format: Format) -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        chunks = await collect(tts, format=format)
        assert b"".join(chunk.data for chunk in chunks) == server.phrases[0].audio
        assert server.phrases[0].format == format

    with_server(test)


@pytest.mark.parametrize("times", ["both", "alignment", "normalized"])
def test_words_have_the_times_they_were_spoken_at(times: Any) -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        words = words_of(await collect(tts))
        assert [word.text for word in words] == TEXT.split()
        for word, (_, start, end) in zip(words, server.phrases[0].words, strict=True):
            assert abs(word.start_ms - start) <= 1 or word.text == "-", (word, start)
            assert abs(word.end_ms - end) <= 1, (word, end)

    with_server(test, Take(times=times))


def test_a_phrase_without_times_has_audio_and_no_words() -> None:
    """What was heard of it is for the ledger to estimate, and to mark so."""

    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        chunks = await collect(tts)
        assert b"".join(chunk.data for chunk in chunks) == server.phrases[0].audio
        assert words_of(chunks) == []

    with_server(test, Take(times="none"))


def test_audio_of_another_context_is_not_ours() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        chunks = await collect(tts)
        assert b"".join(chunk.data for chunk in chunks) == server.phrases[0].audio

    with_server(test, Take(stray=True))


# --- connections ---


def test_a_connection_is_kept_for_the_next_phrase() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        for _ in range(7):
            await collect(tts, "Yes.")
        assert len(server.connections) == 1
        assert len({phrase.context for phrase in server.phrases}) == 7

    with_server(test)


def test_phrases_at_once_have_a_connection_each() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        texts = [f"This is line {number}." for number in range(4)]
        spoken = await asyncio.gather(*(collect(tts, text) for text in texts))
        audio = {phrase.text: phrase.audio for phrase in server.phrases}
        assert [b"".join(chunk.data for chunk in chunks) for chunks in spoken] == [audio[text] for text in texts]
        assert {phrase.connection for phrase in server.phrases} == {0, 1, 2, 3}
        assert len(server.open) == 4

    with_server(test, *[Take(between_s=0.01)] * 4)


def test_a_cancelled_phrase_closes_its_connection_and_the_next_finds_one_ready() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        speech = tts.speak(TEXT, MULAW_8K)
        await anext(speech)
        await speech.aclose()
        await server.disconnected.wait()
        while len(server.open) != 1 or len(server.connections) != 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        await collect(tts)
        assert len(server.connections) == 2
        assert server.phrases[-1].connection == 1

    with_server(test, Take(fault="stall"))


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_without_a_word() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)
        for connection in list(server.open):
            connection.transport.abort()
        while server.open:
            await asyncio.sleep(0.001)
        assert words_of(await collect(tts))
        assert len(server.connections) == 2

    with_server(test)


def test_a_kept_connection_that_breaks_at_the_first_use_is_replaced_once() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)
        server.takes += [Take(fault="drop", after=0)]
        assert words_of(await collect(tts))
        assert len(server.connections) == 2
        server.takes += [Take(fault="drop", after=0), Take(fault="drop", after=0)]
        with pytest.raises(ProviderError) as caught:
            await collect(tts)
        assert (caught.value.code, caught.value.retryable) == ("protocol", True)

    with_server(test)


def test_a_connection_that_nobody_used_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs, "IDLE_S", 0.01)

    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)
        while server.open:
            await asyncio.sleep(0.001)
        await collect(tts)
        assert len(server.connections) == 2

    with_server(test)


def test_more_phrases_at_once_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs, "MAX_OPEN", 1)

    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        speech = tts.speak(TEXT, MULAW_8K)
        await anext(speech)
        with pytest.raises(ProviderError) as caught:
            await collect(tts)
        assert (caught.value.code, caught.value.retryable) == ("overloaded", True)
        await speech.aclose()

    with_server(test, Take(fault="stall"))


def test_connections_that_are_still_being_opened_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs, "MAX_OPEN", 1)

    async def run() -> None:
        async with ElevenLabsServer(handshake_s=0.05) as server:
            tts = voice(server)
            await tts.start()
            spoken = await asyncio.gather(collect(tts), collect(tts), return_exceptions=True)
            assert [isinstance(each, ProviderError) for each in spoken] == [False, True]
            await tts.close()

    asyncio.run(run())


def test_a_connection_that_opens_after_the_voice_was_closed_is_closed() -> None:
    async def run() -> None:
        async with ElevenLabsServer(handshake_s=0.05) as server:
            tts = voice(server)
            await tts.start()
            phrase = asyncio.ensure_future(collect(tts))
            await asyncio.sleep(0.01)
            await tts.close()
            with pytest.raises(ProviderError) as caught:
                await phrase
            assert caught.value.code == "unavailable"
            while server.open:
                await asyncio.sleep(0.001)

    asyncio.run(run())


def test_closing_the_voice_closes_every_connection() -> None:
    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)
        speech = tts.speak(TEXT, MULAW_8K)
        await anext(speech)
        await tts.close()
        await tts.close()
        while server.open:
            await asyncio.sleep(0.001)
        with pytest.raises(ProviderError):
            await collect(tts)
        await speech.aclose()

    with_server(test, Take(), Take(fault="stall"))


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("refusal", "code", "retryable"),
    [
        (Refusal(401, {"detail": {"status": "invalid_api_key", "message": KEY}}), "auth", False),
        (Refusal(401, {"detail": {"status": "quota_exceeded", "message": KEY}}), "rate_limited", False),
        (Refusal(403), "auth", False),
        (Refusal(429, headers={"retry-after": "7"}), "rate_limited", True),
        (Refusal(429, {"detail": {"code": "quota_exceeded"}}), "rate_limited", False),
        (Refusal(404, {"detail": f"no voice {KEY}"}), "bad_request", False),
        (Refusal(422, [1]), "bad_request", False),
        (Refusal(408), "timeout", True),
        (Refusal(503), "unavailable", True),
    ],
)
def test_a_refused_connection_says_whether_another_try_may_help(refusal: Refusal, code: str, retryable: bool) -> None:
    error = failure_of(refusal=refusal)
    assert (error.code, error.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("name", "code", "retryable"),
    [
        ("quota_exceeded", "rate_limited", False),
        ("invalid_api_key", "auth", False),
        ("too_many_concurrent_requests", "rate_limited", True),
        ("max_active_conversations", "overloaded", True),
        ("system_busy", "overloaded", True),
        ("input_timeout_exceeded", "timeout", True),
        ("voice_not_found", "bad_request", False),
    ],
)
def test_an_error_in_place_of_audio_is_typed(name: str, code: str, retryable: bool) -> None:
    error = failure_of(Take(error=(name, f"no {KEY}")))
    assert (error.code, error.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [("close", "unavailable", True), ("drop", "protocol", True), ("garbage", "protocol", False)],
)
def test_a_phrase_that_breaks_off_is_an_error(fault: Any, code: str, retryable: bool) -> None:
    error = failure_of(Take(fault=fault))
    assert (error.code, error.retryable) == (code, retryable)


def test_a_phrase_without_audio_is_an_error() -> None:
    error = failure_of(Take(fault="mute"))
    assert (error.code, error.retryable) == ("protocol", True)


def test_a_handshake_that_takes_too_long_is_a_timeout() -> None:
    async def run() -> None:
        async with ElevenLabsServer(handshake_s=5.0) as server:
            tts = voice(server, first_audio_ms=50)
            await tts.start()
            with pytest.raises(ProviderError) as caught:
                await collect(tts)
            assert caught.value.code == "timeout"
            await tts.close()

    asyncio.run(run())


def test_neither_key_nor_audio_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test(server: ElevenLabsServer, tts: ElevenLabs) -> None:
        await collect(tts)

    with_server(test)
    assert not [record for record in caplog.records if KEY in record.getMessage() or "audio" in record.getMessage()]


# --- words out of characters ---


def times_of(chars: str, start_ms: int = 0, each_ms: int = 10) -> CharTimes:
    return CharTimes(list(chars), [start_ms + at * each_ms for at in range(len(chars))], [each_ms] * len(chars))


def test_a_word_split_over_messages_is_one() -> None:
    words = WordTimes("Hello there.")
    words.feed(times_of("Hel"), 0)
    assert words.ended(1000) == ()
    words.feed(times_of("lo th"), 30)
    assert words.ended(1000) == (Word("Hello", 0, 50),)
    words.feed(times_of(" ere."), 80)  # the space that the service puts before a normalized message
    assert words.ended(1000) == (Word("there.", 60, 120),)
    assert words.rest(1000) == ()


def test_a_word_waits_for_its_audio() -> None:
    words = WordTimes("one two")
    words.feed(times_of("one two"), 0)
    assert words.ended(29) == ()
    assert words.ended(30) == (Word("one", 0, 30),)
    assert words.ended(69) == ()
    assert words.rest(65) == (Word("two", 40, 65),)


def test_words_that_were_read_differently_have_no_times() -> None:
    words = WordTimes("at 10:30 sharp")
    words.feed(times_of("at ten thirty sharp"), 0)
    assert words.ended(1000) == (Word("at", 0, 20),)
    assert words.rest(1000) == ()


def test_a_dash_is_a_word_of_its_own() -> None:
    words = WordTimes("warm - bread")
    words.feed(times_of("warm - bread"), 0)
    assert [word.text for word in words.ended(1000)] == ["warm", "-", "bread"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_however_it_is_cut_every_word_comes_once_and_never_before_its_end(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.text("abC1'.,-?", min_size=1, max_size=8), min_size=1, max_size=8))
    clock, spoken = 0, []
    for token in tokens:
        clock += data.draw(st.integers(0, 200))
        end = clock + data.draw(st.integers(1, 400))
        spoken.append((token, clock, end))
        clock = end
    chars, length_ms = char_times(spoken), clock + data.draw(st.integers(0, 200))
    cuts = sorted({0, length_ms, *data.draw(st.lists(st.integers(0, length_ms), max_size=6))})
    words, found = WordTimes(" ".join(tokens)), list[Word]()
    for at_ms, until_ms in pairwise(cuts):
        said = [char for char in chars if at_ms <= char[1] < until_ms]
        starts = [round(start - at_ms) for _, start, _ in said]
        lasting = [round(start + lasts) - round(start) for _, start, lasts in said]
        words.feed(CharTimes([char for char, _, _ in said], list(map(float, starts)), list(map(float, lasting))), at_ms)
        ended = words.ended(until_ms)
        assert all(word.end_ms <= until_ms for word in ended)
        found += ended
    found += words.rest(length_ms)
    assert [word.text for word in found] == tokens
    for word, (_, _, end) in zip(found, spoken, strict=True):
        assert word.end_ms >= end - 1, (word, end)


# --- options ---


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "voice"),
        ({"voice": "a", "speeed": 1}, "speeed"),
        ({"voice": "a", "speed": 2}, "speed"),
        ({"voice": "a", "stability": 3}, "stability"),
        ({"voice": "a", "base_url": "https://x"}, "base_url"),
        ({"voice": "a", "first_audio_ms": 1}, "first_audio_ms"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


@pytest.mark.parametrize("url", ["wss://api.elevenlabs.io", "wss://api.eu.residency.elevenlabs.io"])
def test_the_services_own_servers_need_a_key(url: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        ElevenLabs(AGENT, {"voice": "a", "base_url": url}, Services(CLOCK))
    assert ElevenLabs(AGENT, {"voice": "a", "base_url": url}, Services(CLOCK, keys={"elevenlabs": KEY})).third_party
