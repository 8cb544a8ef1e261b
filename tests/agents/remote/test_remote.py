"""The remote ports between real gRPC servers on loopback: who is asked, what a cancel does, who may ask."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.fakes.models_server import AGENT, BadServer, StandinServer, standins
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.llm.remote import RemoteLlm
from trunkline.agents.providers import Minds, Services, load
from trunkline.agents.remote.detector import RemoteTurnDetector
from trunkline.agents.remote.host import Bind, check
from trunkline.agents.stt.remote import MAX_QUEUED, RemoteStt
from trunkline.agents.tts.remote import RemoteTts
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import (
    ON_BEHALF_OF,
    CallFacts,
    LlmEvent,
    Message,
    SttEvent,
    SttFailed,
    SttFinal,
    TextDelta,
    TtsAudio,
)
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance.stage import CALL
from trunkline.testing.ports import lease
from trunkline.testing.standin import StandinStt, StandinSttStream
from trunkline.types import MULAW_8K, CallId, Format

SERVICES = Services(ManualClock())
ASKED = (Message("caller", "When do you open?"),)
LIMIT_S = 10.0


def run(main: Callable[[], Any]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main()

    asyncio.run(limited())


class NamingTts:
    """Speaks a byte that is its own, and notes for whom."""

    name = "naming"
    third_party = False
    word_times = False

    def __init__(self, byte: int) -> None:
        self.data = bytes([byte]) * 160
        self.spoken_for: list[CallId | None] = []

    async def start(self) -> None: ...

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        self.spoken_for.append(ON_BEHALF_OF.get())
        yield TtsAudio(self.data)

    async def close(self) -> None: ...


class EndlessLlm:
    """Answers without end; what it was told, and that it was stopped, is noted."""

    name = "endless"
    third_party = False

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[CallFacts] = []
        self.conversations: list[tuple[Message, ...]] = []
        self.stopped, self.closed = asyncio.Event(), asyncio.Event()

    async def start(self) -> None: ...

    def open(self, call: CallFacts) -> "EndlessMind":
        self.calls.append(call)
        return EndlessMind(self)

    async def close(self) -> None: ...


class EndlessMind:
    def __init__(self, llm: EndlessLlm) -> None:
        self._llm = llm

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        self._llm.conversations.append(tuple(conversation))
        try:
            yield TextDelta("on ")
            if self._llm.error is not None:
                raise self._llm.error
            while True:
                yield TextDelta("and on ")
                await asyncio.sleep(0.01)
        finally:
            self._llm.stopped.set()

    def close(self) -> None:
        self._llm.closed.set()


def with_mind(llm: EndlessLlm) -> Minds:
    ready = standins()
    return Minds(ready.stt, llm, ready.tts)


def with_voice(voice: NamingTts) -> Minds:
    ready = standins()
    return Minds(ready.stt, ready.llm, voice)


async def said(tts: RemoteTts, call: str = "") -> bytes:
    token = ON_BEHALF_OF.set(CallId(call) if call else None)
    try:
        return b"".join([audio.data async for audio in tts.speak("hello", MULAW_8K)])
    finally:
        ON_BEHALF_OF.reset(token)


def test_a_voice_is_asked_for_the_language_and_the_server_has_one_for_each() -> None:
    async def main() -> None:
        english, spanish = NamingTts(1), NamingTts(2)
        both = replace(with_voice(english), languages={"es-ES": with_voice(spanish)})
        async with StandinServer(both) as server, StandinServer(with_voice(NamingTts(3))) as one:
            for language, target, heard in (
                ("en-US", server, b"\x01"),
                ("es-ES", server, b"\x02"),
                ("es-MX", server, b"\x02"),
                ("fr", server, b"\x01"),
                ("es-ES", one, b"\x03"),
            ):
                tts = RemoteTts(replace(AGENT, language=language), {"targets": [target.target]}, SERVICES)
                await tts.start()
                assert await said(tts) == heard * 160, language
                await tts.close()

    asyncio.run(main())


# --- who is asked ---------------------------------------------------------------------------------------------------


def test_a_call_s_voice_is_always_the_same_and_calls_are_spread() -> None:
    async def main() -> None:
        voices = [NamingTts(1), NamingTts(2), NamingTts(3)]
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(StandinServer(with_voice(voice))) for voice in voices]
            tts = RemoteTts(AGENT, {"targets": [server.target for server in servers]}, SERVICES)
            await tts.start()
            heard = {call: {await said(tts, call) for _ in range(3)} for call in (f"call_{n}" for n in range(30))}
            await tts.close()
        assert all(len(voices) == 1 for voices in heard.values()), heard
        assert len({voice for voices in heard.values() for voice in voices}) == 3
        assert {call for voice in voices for call in voice.spoken_for} == set(heard)

    run(main)


def test_a_new_call_goes_past_a_server_that_is_not_there_and_then_stays() -> None:
    async def main() -> None:
        async with StandinServer(with_voice(NamingTts(1))) as one:
            absent = [f"127.0.0.1:{lease()}" for _ in range(3)]
            tts = RemoteTts(AGENT, {"targets": [*absent, one.target]}, SERVICES)
            await tts.start()
            for n in range(8):
                assert await said(tts, f"call_{n}") == b"\x01" * 160
            await tts.close()

    run(main)


def test_a_call_whose_server_dies_is_told_and_does_not_change_its_voice() -> None:
    async def main() -> None:
        async with StandinServer(with_voice(NamingTts(2))) as stays:
            dies = StandinServer(with_voice(NamingTts(1)))
            await dies.__aenter__()
            tts = RemoteTts(AGENT, {"targets": [dies.target, stays.target], "first_ms": 2000}, SERVICES)
            await tts.start()
            voices = {call: await said(tts, call) for call in (f"call_{n}" for n in range(10))}
            await dies.__aexit__()
            for call, voice in voices.items():
                if voice == b"\x02" * 160:
                    assert await said(tts, call) == voice
                    continue
                with pytest.raises(ProviderError) as failed:
                    await said(tts, call)
                assert (failed.value.code, failed.value.retryable) == ("unavailable", True)
            assert await said(tts, "call_new") == b"\x02" * 160
            await tts.close()
        assert len(set(voices.values())) == 2

    run(main)


@pytest.mark.parametrize("provider", [RemoteStt, RemoteLlm, RemoteTts])
def test_without_any_server_it_does_not_start(provider: Any) -> None:
    async def main() -> None:
        remote = provider(AGENT, {"targets": [f"127.0.0.1:{lease()}"]}, SERVICES)
        with pytest.raises(ProviderError, match="remote: unavailable") as failed:
            await remote.start()
        assert failed.value.retryable
        await remote.close()

    run(main)


def test_what_the_servers_say_of_themselves_is_so_for_all_only_where_all_say_it() -> None:
    async def main() -> None:
        async with StandinServer() as timed, StandinServer(with_voice(NamingTts(1))) as untimed:
            for servers, expected in (([timed], True), ([timed, untimed], False)):
                tts = RemoteTts(AGENT, {"targets": [server.target for server in servers]}, SERVICES)
                await tts.start()
                assert tts.word_times is expected
                await tts.close()
            stt = RemoteStt(AGENT, {"targets": [timed.target]}, SERVICES)
            await stt.start()
            assert (stt.feed_mode, stt.formats) == ("gated", (MULAW_8K,))
            await stt.close()

    run(main)


# --- minds ----------------------------------------------------------------------------------------------------------


def test_closing_a_reply_closes_the_provider_s_generator_and_a_session_is_closed_with_the_call() -> None:
    async def main() -> None:
        mind = EndlessLlm()
        async with StandinServer(with_mind(mind)) as server:
            llm = RemoteLlm(AGENT, {"targets": [server.target]}, SERVICES)
            await llm.start()
            session = llm.open(CALL)
            for _ in range(2):
                mind.stopped.clear()
                reply = session.reply(ASKED)
                assert await anext(reply) == TextDelta("on ")
                assert not mind.stopped.is_set()
                await reply.aclose()
                await mind.stopped.wait()
            assert mind.calls == [CALL], "a session is one mind, however often it is asked"
            assert mind.conversations == [ASKED, ASKED]
            assert not mind.closed.is_set()
            session.close()
            session.close()
            await mind.closed.wait()
            await llm.close()

    run(main)


@pytest.mark.parametrize(
    ("error", "code", "retryable", "detail"),
    [
        (ProviderError("x", "rate_limited", "quota used up", retryable=False), "rate_limited", False, "quota used up"),
        (ProviderError("x", "overloaded", "", retryable=True), "overloaded", True, ""),
        (RuntimeError("a secret of the server"), "unavailable", True, "the server failed"),
    ],
)
def test_an_error_of_the_provider_is_the_caller_s_error(
    error: Exception, code: str, retryable: bool, detail: str
) -> None:
    async def main() -> None:
        async with StandinServer(with_mind(EndlessLlm(error))) as server:
            llm = RemoteLlm(AGENT, {"targets": [server.target]}, SERVICES)
            await llm.start()
            reply = llm.open(CALL).reply(ASKED)
            assert await anext(reply) == TextDelta("on ")
            with pytest.raises(ProviderError) as failed:
                await anext(reply)
            told = failed.value
            assert (told.provider, told.code, told.retryable, told.detail) == ("remote", code, retryable, detail)
            await llm.close()

    run(main)


# --- ears -----------------------------------------------------------------------------------------------------------


def test_ears_that_broke_hear_the_next_utterance_on_a_new_stream() -> None:
    async def main() -> None:
        port = lease()
        first = StandinServer(port=port)
        await first.__aenter__()
        stt = RemoteStt(AGENT, {"targets": [first.target]}, SERVICES)
        await stt.start()
        events: asyncio.Queue[SttEvent] = asyncio.Queue()
        stream = stt.open(CALL, MULAW_8K, events.put_nowait)
        speech = b"\x31" * 8000
        stream.feed(speech)
        assert await events.get() is not None  # a partial: it is there
        await first.__aexit__()
        stream.finalize()
        failed = await events.get()
        assert isinstance(failed, SttFailed)
        assert isinstance(failed.error, ProviderError)
        assert (failed.error.provider, failed.error.code, failed.error.retryable) == ("remote", "unavailable", True)
        async with StandinServer(port=port):
            end: SttEvent = failed
            while not isinstance(end, SttFinal):  # the channel waits a moment before it connects again
                await asyncio.sleep(0.05)
                stream.feed(speech)
                stream.finalize()
                while not isinstance(end := await events.get(), SttFinal | SttFailed):
                    pass
            assert end == SttFinal("caller phrase")
            stream.close()
            await stt.close()

    run(main)


def test_audio_for_a_server_that_does_not_listen_is_bounded() -> None:
    async def main() -> None:
        async with BadServer("silent") as server:
            stt = RemoteStt(AGENT, {"targets": [server.target]}, SERVICES)
            await stt.start()
            events: asyncio.Queue[SttEvent] = asyncio.Queue()
            stream = stt.open(CALL, MULAW_8K, events.put_nowait)
            for _ in range(MAX_QUEUED + 10):
                stream.feed(b"\x31" * 160)
            assert stream.dropped_bytes > 0
            stream.finalize()
            failed = await events.get()
            assert isinstance(failed, SttFailed)
            assert "overloaded" in str(failed.error)
            await stt.close()

    run(main)


def test_ears_that_are_fed_everything_are_told_when_the_caller_begins() -> None:
    told: list[tuple[int, int]] = []

    class Everything(StandinStt):
        feed_mode: Literal["all", "gated"] = "all"

        def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "Noted":
            return Noted(format, on_event, 0.0)

    class Noted(StandinSttStream):
        def began(self, ago_ms: int) -> None:
            told.append((ago_ms, self._fed_bytes))

    async def main() -> None:
        minds = replace(standins(), stt=Everything(AGENT, {"final_ms": 1}, SERVICES))
        async with StandinServer(minds) as server:
            stt = RemoteStt(AGENT, {"targets": [server.target]}, SERVICES)
            await stt.start()
            assert stt.feed_mode == "all"
            events: asyncio.Queue[SttEvent] = asyncio.Queue()
            stream = stt.open(CALL, MULAW_8K, events.put_nowait)
            stream.began(300)  # of nothing
            stream.feed(b"\x31" * 4000)
            stream.began(300)
            stream.feed(b"\x31" * 4000)
            stream.finalize()
            while not isinstance(await events.get(), SttFinal):
                pass
            assert told == [(300, 4000)]
            stream.close()
            await stt.close()

    run(main)


def test_a_turn_detector_is_asked() -> None:
    async def main() -> None:
        async with StandinServer() as server:
            detector = RemoteTurnDetector(
                AGENT, {"targets": [server.target], "first_ms": 5000}, Services(ManualClock())
            )
            await detector.start()
            assert await detector.probability("yes please", "en-US") == pytest.approx(0.95)
            assert await detector.probability("my number is", "en-US") == pytest.approx(0.05)
            await detector.close()

    run(main)


# --- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"remote": "another"}])
def test_without_the_token_nobody_is_served(keys: Mapping[str, str]) -> None:
    async def main() -> None:
        async with StandinServer(token="the-right-token") as server:
            tts = RemoteTts(AGENT, {"targets": [server.target]}, Services(ManualClock(), keys=keys))
            with pytest.raises(ProviderError, match="auth") as failed:
                await tts.start()
            assert not failed.value.retryable
            with pytest.raises(ProviderError, match="auth"):
                await said(tts)
            await tts.close()

    run(main)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_over_tls_with_certificates_of_both_sides(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate

    async def main() -> None:
        pair = (cert.read_bytes(), key.read_bytes())
        async with StandinServer(certificate=pair, client_ca=cert.read_bytes()) as server:
            where = {"targets": [server.target], "tls": True, "tls_ca": str(cert), "first_ms": 1000}
            known = RemoteTts(AGENT, {**where, "tls_cert": str(cert), "tls_key": str(key)}, SERVICES)
            await known.start()
            assert await said(known)
            await known.close()
            for options in (where, {"targets": [server.target], "first_ms": 1000}):
                stranger = RemoteTts(AGENT, options, SERVICES)
                with pytest.raises(ProviderError):
                    await stranger.start()
                await stranger.close()

    run(main)


CLINIC = AgentDefinition("Bakery", ProviderChoice("standin"), ProviderChoice("standin"), ProviderChoice("standin"), "")


def test_what_is_reachable_from_outside_needs_a_token_or_certificates() -> None:
    check(Bind(), None, CLINIC)
    check(Bind("0.0.0.0"), "token", CLINIC)
    some = Path("x.pem")
    check(Bind("0.0.0.0", 1, some, some, some), None, CLINIC)
    for bind in (Bind("0.0.0.0"), Bind("::"), Bind("models.example.com"), Bind("0.0.0.0", 1, some, some)):
        with pytest.raises(ConfigError, match=r"remote\.api_key"):
            check(bind, None, CLINIC)
    for bind in (Bind(tls_cert=some), Bind(tls_key=some), Bind(tls_client_ca=some)):
        with pytest.raises(ConfigError, match="tls"):
            check(bind, None, CLINIC)


def test_a_server_does_not_serve_other_servers() -> None:
    remote = AgentDefinition("Bakery", ProviderChoice("standin"), ProviderChoice("remote"), ProviderChoice("x"), "")
    with pytest.raises(ConfigError, match="llm"):
        check(Bind(), None, remote)


def test_a_server_serves_one_of_each() -> None:
    """Who follows whom is told by the gateway's file: a list here would be followed by nobody."""
    listed = replace(CLINIC, spares={"tts": (ProviderChoice("standin"),)})
    with pytest.raises(ConfigError, match="tts"):
        check(Bind(), None, listed)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, "targets"),
        ({"targets": []}, "targets"),
        ({"targets": ["127.0.0.1"]}, "host:port"),
        ({"targets": ["127.0.0.1:0"]}, "host:port"),
        ({"targets": ["http://127.0.0.1:1"]}, "host:port"),
        ({"targets": ["::1:50051"]}, "host:port"),
        ({"targets": ["127.0.0.1:1", "127.0.0.1:1"]}, "different"),
        ({"targets": ["gpu.example.com:1"]}, "tls = true"),
        ({"targets": ["127.0.0.1:1"], "tls_ca": "x.pem"}, "tls = true"),
        ({"targets": ["127.0.0.1:1"], "tls": True, "tls_ca": "/nowhere/x.pem"}, "PEM"),
        ({"targets": ["127.0.0.1:1"], "target": "x"}, "did you mean targets"),
        ({"targets": ["127.0.0.1:1"], "first_ms": 1}, "first_ms"),
    ],
)
def test_options_that_cannot_be(options: Mapping[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        RemoteTts.check_options(options)


def test_who_is_a_third_party() -> None:
    for target, options, third in (
        ("127.0.0.1:1", {}, False),
        ("[::1]:1", {}, False),
        ("localhost:1", {}, False),
        ("gpu.example.com:1", {"tls": True}, True),
        ("10.0.0.7:1", {"plaintext": True}, True),
        ("10.0.0.7:1", {"plaintext": True, "third_party": False}, False),
        ("127.0.0.1:1", {"third_party": True}, True),
        ("unix:/run/models.sock", {}, False),
    ):
        assert RemoteLlm(AGENT, {"targets": [target], **options}, SERVICES).third_party is third


@pytest.mark.parametrize(("kind", "provider"), [("stt", RemoteStt), ("llm", RemoteLlm), ("tts", RemoteTts)])
def test_an_agent_names_it(kind: Any, provider: Any) -> None:
    assert load(kind, ProviderChoice("remote")) is provider
