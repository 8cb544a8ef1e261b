"""Nova and Flux against a server with the real wire protocol."""

import asyncio
import json
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.deepgram_server import (
    Break,
    Connection,
    Deaf,
    DeepgramServer,
    Fault,
    Garbage,
    Hang,
    Refuse,
    Silent,
    Slow,
    in_language,
)
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services, load
from trunkline.agents.stt import deepgram as module
from trunkline.agents.stt.deepgram import (
    KEPT_S,
    DeepgramStt,
    Heard,
    Stream,
    Utterance,
    read_message,
    read_options,
    share,
    since,
)
from trunkline.errors import ConfigError, MisuseError, ProviderError
from trunkline.ports import Expectation, Stt, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.testing.clock import ManualClock
from trunkline.testing.conformance import Situation, Stage, SttConformance
from trunkline.testing.conformance.stage import CALL
from trunkline.types import ALAW_8K, MULAW_8K, Format

KEY = "dg-secret-4711"
CHOICE = ProviderChoice("deepgram")
AGENT = AgentDefinition("Bakery", CHOICE, CHOICE, CHOICE, "Hello.")
MODELS = ["nova-3", "flux-general-en"]
HURRY = {"final_ms": 300, "connect_ms": 300}
FRAME = 160
LOUD, QUIET = b"\x90" * FRAME, b"\xff" * FRAME

FAULTS: dict[Situation, Fault | None] = {
    "answers": None,
    "silent": Silent(),
    "breaks": Break(after_ms=400),
    "garbage": Garbage(),
    "unauthorized": Refuse(401, message=f"INVALID_AUTH {KEY}"),
    "rate_limited": Refuse(429, {"retry-after": "7"}),
    "fails": Refuse(500),
    "absent": None,
}


def services(clock: ManualClock | None = None) -> Services:
    return Services(clock or ManualClock(), keys={"deepgram": KEY})


class Conforms(SttConformance):
    model = "nova-3"

    @asynccontextmanager
    async def stage(self, situation: Situation) -> AsyncGenerator[Stage[Stt], None]:
        async with DeepgramServer(always=FAULTS[situation]) as server:
            options = {"url": server.url, "model": self.model, **HURRY}
            if situation == "absent":
                await server.__aexit__()
            yield Stage(DeepgramStt(AGENT, options, services()), server.disconnected.wait)


class TestNova(Conforms):
    situations = frozenset(FAULTS)
    secrets = (KEY,)


class TestFlux(Conforms):
    situations = frozenset(FAULTS)
    secrets = (KEY,)
    model = "flux-general-en"


# --- stories of one call ---


class Story:
    """A call's ears before a server; `clock` is the stream's."""

    def __init__(self, server: DeepgramServer, options: dict[str, Any], format: Format) -> None:
        self.server, self.clock = server, ManualClock()
        self.events: list[SttEvent] = []
        self.came = asyncio.Event()
        stt = DeepgramStt(AGENT, {"url": server.url, **HURRY, **options}, services(self.clock))
        self.stream: Stream = stt.open(CALL, format, self.take)

    def take(self, event: SttEvent) -> None:
        self.events.append(event)
        self.came.set()

    async def say(self, ms: int = 600, quiet_ms: int = 0) -> None:
        for frame, size in ((LOUD, ms), (QUIET, quiet_ms)):
            for _ in range(size // 20):
                self.stream.feed(frame)
                await asyncio.sleep(0)

    @property
    def ends(self) -> list[SttFinal | SttFailed]:
        return [event for event in self.events if isinstance(event, SttFinal | SttFailed)]

    @property
    def partials(self) -> list[SttPartial]:
        return [event for event in self.events if isinstance(event, SttPartial)]

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.001)

    async def connected(self, count: int = 1) -> Connection:
        await self.until(lambda: len(self.server.connections) >= count)
        return self.server.connections[count - 1]

    async def final(self) -> SttFinal | SttFailed:
        count = len(self.ends)
        self.stream.finalize()
        await self.until(lambda: len(self.ends) > count)
        return self.ends[-1]


def tell(
    story: Callable[[Story], Awaitable[None]],
    *lines: str,
    faults: list[Fault | None] | None = None,
    always: Fault | None = None,
    format: Format = MULAW_8K,
    **options: Any,
) -> None:
    async def told() -> None:
        async with asyncio.timeout(15), DeepgramServer(*lines, faults=faults or (), always=always) as server:
            one = Story(server, options, format)
            try:
                await story(one)
            finally:
                one.stream.close()

    asyncio.run(told())


def test_what_is_asked_for_nova() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        assert connection.path == "/v1/listen"
        assert connection.headers["authorization"] == f"Token {KEY}"
        assert connection.query == {
            "model": ["nova-3"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "keyterm": ["Dr. Lee", "Elm Street"],
            "numerals": ["true"],
            "mip_opt_out": ["true"],
            "language": ["de"],
            "interim_results": ["true"],
            "endpointing": ["200"],
            "smart_format": ["true"],
        }

    options: dict[str, Any] = {"keyterms": ["Dr. Lee", "Elm Street"], "language": "de", "endpointing_ms": 200}
    tell(story, smart_format=True, opt_out=True, **options)


def test_what_is_asked_for_flux() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        assert connection.path == "/v2/listen"
        assert connection.query == {
            "model": ["flux-general-multi"],
            "encoding": ["alaw"],
            "sample_rate": ["8000"],
            "numerals": ["true"],
            "eot_threshold": ["0.8"],
            "eot_timeout_ms": ["3000"],
            "eager_eot_threshold": ["0.4"],
            "language_hint": ["es"],
        }

    options: dict[str, Any] = {
        "eot_threshold": 0.8,
        "eager_eot_threshold": 0.4,
        "eot_timeout_ms": 3000,
        "language": "es",
    }
    tell(story, model="flux-general-multi", format=ALAW_8K, **options)


@pytest.mark.parametrize("model", MODELS)
def test_all_audio_arrives_as_it_was_fed_also_what_came_before_the_connection(model: str) -> None:
    async def story(call: Story) -> None:
        audio = bytes(range(256)) * 40
        call.stream.feed(audio[:5000])  # nobody has answered the handshake yet
        assert call.server.connections == []
        connection = await call.connected()
        for start in range(5000, len(audio), FRAME):
            call.stream.feed(audio[start : start + FRAME])
        await call.final()
        assert bytes(connection.audio) == audio

    tell(story, model=model)


@pytest.mark.parametrize("model", MODELS)
def test_partials_grow_and_say_when_a_phrase_is_complete(model: str) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(700)
        await call.say(0, quiet_ms=240)
        await call.until(lambda: len(call.partials) >= 2)
        assert call.partials[0] == SttPartial("when")
        assert not any(partial.complete for partial in call.partials if partial.text != "when do you open")
        await call.say(0, quiet_ms=40)
        if model == "nova-3":
            await call.say(0, quiet_ms=100)  # 300 ms: its endpointing
            await call.until(lambda: call.partials[-1] == SttPartial("when do you open", complete=True))
        else:
            await call.until(lambda: SttPartial("when do you open", complete=True) in call.partials)
        assert await call.final() == SttFinal("when do you open")

    tell(story, "when do you open", model=model)


@pytest.mark.parametrize("model", MODELS)
def test_a_phrase_stays_complete_in_the_silence_after_it(model: str) -> None:
    async def story(call: Story) -> None:
        call.stream.expect(Expectation("digits", 4, 4))  # or Flux would end the turn
        await call.say(600, quiet_ms=320)
        await call.until(lambda: call.partials and call.partials[-1] == SttPartial("when do you open", complete=True))
        await call.say(0, quiet_ms=1000)
        await asyncio.sleep(0.05)
        assert call.partials[-1] == SttPartial("when do you open", complete=True)

    tell(story, "when do you open", model=model)


@pytest.mark.parametrize("model", MODELS)
def test_a_short_noise_that_was_cancelled_costs_no_connection(model: str) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(0, quiet_ms=160)
        call.stream.cancel()
        await asyncio.sleep(0.4)  # longer than it waits for an answer
        await call.say(600, quiet_ms=60)
        assert await call.final() == SttFinal("when do you open")
        assert len(call.server.connections) == 1

    tell(story, "when do you open", model=model)


def test_nova_phrases_of_one_utterance_are_one_final() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=400)
        await call.say(600, quiet_ms=100)
        assert await call.final() == SttFinal("when do you open on Saturday")

    tell(story, "when do you", "open on Saturday")


SPANISH = replace(AGENT, language="es-ES")
BOTH = replace(AGENT, languages={"es-ES": SPANISH})


def test_of_an_agent_of_several_languages_all_are_asked_for() -> None:
    assert read_options({}, BOTH.heard).language == "multi"
    nova = read_options({}, BOTH.heard).address(MULAW_8K)
    assert "language=multi" in nova
    assert "language_hint=en-US&language_hint=es-ES" in nova
    flux = read_options({"model": "flux-general-multi"}, BOTH.heard).address(MULAW_8K)
    assert "language_hint=en-US&language_hint=es-ES" in flux
    assert "language=" not in flux
    told = read_options({"language": "es"}, BOTH.heard).address(MULAW_8K)
    assert "language=es" in told
    assert "hint" not in told
    older = read_options({"model": "nova-2"}, BOTH.heard).address(MULAW_8K)
    assert "hint" not in older, "Nova-3 only"
    assert "language=en-US" in read_options({}, AGENT.heard).address(MULAW_8K)
    own = replace(BOTH, languages={"es-ES": replace(SPANISH, stt=ProviderChoice("deepgram", {"language": "es"}))})
    assert read_options({}, own.heard).language == "en-US"


@pytest.mark.parametrize("model", ["nova-3", "flux-general-multi"])
@pytest.mark.parametrize(
    ("line", "text", "language"),
    [
        (in_language("es", "quiero una cita"), "quiero una cita", "es"),
        (in_language("en", "see you") + " " + in_language("es", "el martes"), "see you el martes", None),
        ("when do you open", "when do you open", None),
    ],
)
def test_a_final_says_what_it_was_spoken_in(model: str, line: str, text: str, language: str | None) -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=100)
        assert await call.final() == SttFinal(text, language=language)

    tell(story, line, model=model, language="multi", eager_eot_threshold=0)


def test_a_name_of_another_language_changes_none() -> None:
    async def story(call: Story) -> None:
        await call.say(900, quiet_ms=100)
        assert await call.final() == SttFinal("my name is Juan García and", language="en")

    line = f"{in_language('en', 'my name is')} {in_language('es', 'Juan García')} {in_language('en', 'and')}"
    tell(story, line, language="multi")


def test_phrases_of_one_utterance_are_weighed_together() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=400)
        await call.say(900, quiet_ms=100)
        assert await call.final() == SttFinal("ok pues quiero pedir una cita mañana", language="es")
        await call.say(600, quiet_ms=100)
        assert await call.final() == SttFinal("see you then", language="en"), "each utterance anew"

    first, second = f"{in_language('en', 'ok')} pues/es", in_language("es", "quiero pedir una cita mañana")
    tell(story, first, second, in_language("en", "see you then"), language="multi")


def test_a_turn_that_flux_ends_by_itself_is_a_final_and_the_next_finalize_brings_only_what_followed() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=400)
        await call.until(lambda: call.ends)
        assert call.ends == [SttFinal("when do you open")]
        await call.say(400, quiet_ms=100)
        assert await call.final() == SttFinal("on Saturday")
        assert await call.final() == SttFinal("", understood=False)

    tell(story, "when do you open", "on Saturday", model="flux-general-en")


def test_a_turn_that_flux_ends_while_we_do_is_one_final() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        await call.say(600, quiet_ms=320)  # Flux ends it at 300
        call.stream.finalize()  # before its message is here
        await call.until(lambda: call.ends)
        await call.until(lambda: "ForceEndTurn" in connection.kinds())
        await asyncio.sleep(0.05)
        assert call.ends == [SttFinal("when do you open")]

    tell(story, "when do you open", model="flux-general-en", faults=[Slow(0.02)])


def test_a_speech_that_resumes_takes_the_complete_back() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=200)
        await call.until(lambda: any(partial.complete for partial in call.partials))
        await call.say(400)
        await call.until(lambda: not call.partials[-1].complete)

    tell(story, "when do you open", model="flux-general-en")


@pytest.mark.parametrize("model", MODELS)
def test_words_said_before_a_cancel_are_not_in_the_next_final(model: str) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(500)
        call.stream.cancel()
        await call.say(500, quiet_ms=60)
        assert await call.final() == SttFinal("on Saturday")
        assert call.ends == [SttFinal("on Saturday")]

    tell(story, "when do you open", "on Saturday", model=model)


@pytest.mark.parametrize("model", MODELS)
def test_a_finalize_that_is_not_answered_takes_the_words_there_are(model: str) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(600, quiet_ms=240)
        await call.until(lambda: call.partials and call.partials[-1].text == "when do you open")
        assert await call.final() == SttFinal("when do you open")
        assert len(call.server.connections) == 1

    tell(story, "when do you open", model=model, faults=[Deaf()])


def test_noise_that_is_not_answered_is_no_failure_while_the_service_speaks() -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(0, quiet_ms=500)
        assert await call.final() == SttFinal("", understood=False)
        assert len(call.server.connections) == 1

    tell(story, faults=[Deaf()])


@pytest.mark.parametrize("model", MODELS)
def test_a_connection_that_breaks_in_mid_utterance_loses_no_word(model: str) -> None:
    async def story(call: Story) -> None:
        await call.say(900, quiet_ms=100)
        assert await call.final() == SttFinal("when do you open on Saturday")
        assert len(call.server.connections) == 2
        assert len(call.server.connections[1].audio) == 1000 * 8

    tell(story, "when do you open on Saturday", model=model, faults=[Break(after_ms=200)])


def test_a_connection_that_breaks_is_not_given_again_what_was_understood() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=400)
        await call.until(lambda: call.partials and call.partials[-1].complete)
        await call.say(600)
        second = await call.connected(2)
        assert await call.final() == SttFinal("when do you open on Saturday")
        assert len(second.audio) == (600 + 100) * 8  # Nova's result ended 300 ms after the words

    tell(story, "when do you open", "on Saturday", faults=[Break(after_ms=1300)])


def test_a_final_is_still_owed_when_the_connection_breaks_after_finalize() -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(500)
        call.stream.finalize()
        await call.say(500)
        call.stream.finalize()
        await call.until(lambda: len(call.ends) == 2)
        assert call.ends == [SttFinal("when do you open"), SttFinal("on Saturday")]
        assert len(call.server.connections) == 2

    tell(story, "when do you open", "on Saturday", faults=[Break(after_ms=240)])


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        (Refuse(402), "rate_limited", False),
        (Refuse(403), "auth", False),
        (Refuse(400), "bad_request", False),
        (Refuse(503), "unavailable", True),
        (Break(100, (1008, "DATA-0000")), "bad_request", False),
        (Break(100, (1011, "NET-0001")), "protocol", True),
        (Break(100, (1000, "")), "protocol", True),
        (Garbage(b"\xff\xfe"), "protocol", True),
        (Garbage("[]"), "protocol", True),
        (Garbage('{"type": "Results"}'), "protocol", True),
        (Garbage('{"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "x"}'), "protocol", True),
        (Hang(), "timeout", True),
    ],
)
def test_what_goes_wrong_is_told_with_the_next_final(fault: Fault, code: str, retryable: bool) -> None:
    async def story(call: Story) -> None:
        await call.say(600)
        failed = await call.final()
        assert isinstance(failed, SttFailed)
        assert isinstance(failed.error, ProviderError)
        assert (failed.error.code, failed.error.retryable) == (code, retryable)

    tell(story, always=fault, final_ms=600, connect_ms=200 if isinstance(fault, Hang) else 5000)


def test_messages_of_no_meaning_harm_nothing() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        await call.say(600)
        await call.until(lambda: len(connection.audio) >= 500 * 8)
        assert await call.final() == SttFinal("", understood=False)  # it has sent nothing else but the end
        assert len(call.server.connections) == 1

    tell(story, always=Garbage('{"type": "SpeechStarted", "channel": [0], "timestamp": 1}'))


def test_after_a_failure_the_next_attempt_waits_as_long_as_the_server_says() -> None:
    async def story(call: Story) -> None:
        await call.say(400)
        assert isinstance(await call.final(), SttFailed)
        call.clock.advance(6.9)
        await call.say(400)
        assert isinstance(await call.final(), SttFailed)
        call.clock.advance(0.2)
        await call.say(400)
        assert await call.final() == SttFinal("caller phrase")

    tell(story, faults=[Refuse(429, {"retry-after": "7"})])


def test_a_wrong_key_is_never_tried_again() -> None:
    async def story(call: Story) -> None:
        for _ in range(3):
            await call.say(400)
            assert isinstance(await call.final(), SttFailed)
            call.clock.advance(100)

    tell(story, faults=[Refuse(401)])


def test_audio_for_which_no_connection_comes_is_bounded_and_counted() -> None:
    async def story(call: Story) -> None:
        for _ in range((KEPT_S + 5) * 50):
            call.stream.feed(LOUD)
        assert len(call.stream._kept) == KEPT_S * 8000
        assert call.stream.dropped_bytes == 5 * 8000

    tell(story, always=Hang())


@pytest.mark.parametrize(("model", "spoken"), [("nova-3", ["KeepAlive"]), ("flux-general-en", [])])
def test_a_call_that_says_nothing_keeps_its_connection(
    model: str, spoken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_S", 0.02)

    async def story(call: Story) -> None:
        connection = await call.connected()
        if model == "nova-3":
            await call.until(lambda: connection.kinds()[:2] == spoken * 2)
            assert connection.audio == b""
        else:  # which knows no KeepAlive: it gets some silence
            await call.until(lambda: len(connection.audio) >= 2 * 640)
            assert set(connection.audio) == {0xFF}
            assert connection.kinds() == []

    tell(story, model=model)


def test_closing_says_so() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        await call.until(lambda: call.stream._link is not None)
        call.stream.close()
        async with asyncio.timeout(2):
            await connection.closed.wait()
        assert connection.kinds() == ["CloseStream"]

    tell(story)


def test_while_digits_are_awaited_only_we_say_when_the_turn_has_ended() -> None:
    async def story(call: Story) -> None:
        connection = await call.connected()
        await call.until(lambda: call.stream._link is not None)
        call.stream.expect(Expectation("digits", 4, 4))
        call.stream.expect(Expectation("digits", 4, 4))
        await call.say(400, quiet_ms=600)
        await call.say(400, quiet_ms=600)
        assert await call.final() == SttFinal("four seven one one")
        call.stream.expect(Expectation())
        await call.until(lambda: len(connection.kinds()) == 3)
        thresholds = [m["thresholds"]["eot_threshold"] for m in connection.messages if m["type"] == "Configure"]
        assert thresholds == [1.0, 0.7]

    tell(story, "four seven one one", model="flux-general-en")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("quiet_ms", [400, 2000])
def test_what_it_heard_before_the_caller_began_is_none_of_their_turn(model: str, quiet_ms: int) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(900, quiet_ms=quiet_ms)  # a television
        await call.until(lambda: [event for event in call.events if "today" in getattr(event, "text", "")])
        await call.say(100)
        before = len(call.events)  # its final may come until now
        call.stream.began(100)
        await call.say(600, quiet_ms=60)
        assert await call.final() == SttFinal("when do you open")
        assert not any("weather" in getattr(event, "text", "") for event in call.events[before:])

    tell(story, "and now here is the weather today", "when do you open", model=model)


@pytest.mark.parametrize("model", MODELS)
def test_of_one_result_the_words_are_the_callers_that_lie_behind_their_beginning(model: str) -> None:
    async def story(call: Story) -> None:
        await call.connected()
        await call.say(1500)
        await call.until(lambda: call.partials)
        call.stream.began(300)
        await call.say(300, quiet_ms=60)  # eleven words in 1,800 ms: from 1,200 on they are the caller's
        assert await call.final() == SttFinal("when do you open")

    tell(story, "and now here is the weather for Monday when do you open", model=model)


def test_words_that_nobody_took_for_a_turn_are_forgotten_after_a_while() -> None:
    async def story(call: Story) -> None:
        await call.say(600, quiet_ms=400)  # a television
        await call.say(0, quiet_ms=12_000)
        await call.say(600, quiet_ms=60)
        assert await call.final() == SttFinal("when do you open")

    tell(story, "and now the weather", "when do you open")


# --- the parts ---


def test_the_sdk_reads_what_the_fake_writes() -> None:
    """With the SDK's own client over its own socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from deepgram import AsyncDeepgramClient
        from deepgram.environment import DeepgramClientEnvironment
        from deepgram.listen.v1.types.listen_v1results import ListenV1Results
        from deepgram.listen.v2.types.listen_v2turn_info import ListenV2TurnInfo

        async def run() -> None:
            async with DeepgramServer("when do you open") as server:
                url = server.url
                place = DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)
                client = AsyncDeepgramClient(api_key=KEY, environment=place)
                common: dict[str, Any] = {"encoding": "mulaw", "sample_rate": 8000}
                async with client.listen.v1.connect(
                    model="nova-3", interim_results="true", endpointing="300", **common
                ) as nova:
                    await nova.send_media(LOUD * 40)
                    await nova.send_finalize()
                    while not (message := await nova.recv()).from_finalize:
                        assert isinstance(message, ListenV1Results)
                    assert isinstance(message, ListenV1Results)
                    assert message.is_final
                    assert message.channel.alternatives[0].transcript == "when do you open"
                    assert [word.word for word in message.channel.alternatives[0].words] == [
                        "when",
                        "do",
                        "you",
                        "open",
                    ]
                async with client.listen.v2.connect(model="flux-general-en", **common) as flux:
                    await flux.send_media(LOUD * 40)
                    await flux.send_force_end_turn()
                    while (turn := await flux.recv()).type != "TurnInfo" or turn.event != "EndOfTurn":
                        pass
                    assert isinstance(turn, ListenV2TurnInfo)
                    assert (turn.transcript, turn.trigger) == ("when do you open", "manual")

        async def of_several() -> None:
            async with DeepgramServer(in_language("es", "quiero una cita")) as server:
                url = server.url
                place = DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)
                client = AsyncDeepgramClient(api_key=KEY, environment=place)
                common: dict[str, Any] = {"encoding": "mulaw", "sample_rate": 8000, "language_hint": ["en", "es"]}
                async with client.listen.v1.connect(
                    model="nova-3", language="multi", interim_results="true", endpointing="300", **common
                ) as nova:
                    await nova.send_media(LOUD * 40)
                    await nova.send_finalize()
                    while not (message := await nova.recv()).from_finalize:
                        pass
                    assert isinstance(message, ListenV1Results)
                    found = message.channel.alternatives[0]
                    assert (found.transcript, found.languages) == ("quiero una cita", ["es"])
                    assert found.languages_hinted == ["en", "es"]
                    assert [word.language for word in found.words] == ["es", "es", "es"]
                async with client.listen.v2.connect(model="flux-general-multi", **common) as flux:
                    await flux.send_media(LOUD * 40)
                    await flux.send_force_end_turn()
                    while (turn := await flux.recv()).type != "TurnInfo" or turn.event != "EndOfTurn":
                        pass
                    assert isinstance(turn, ListenV2TurnInfo)
                    assert (turn.transcript, turn.languages) == ("quiero una cita", ["es"])

        asyncio.run(run())
        asyncio.run(of_several())


def test_a_result_of_two_utterances_is_shared_by_where_its_words_lie() -> None:
    message = {
        "type": "Results",
        "start": 1.0,
        "duration": 2.0,
        "is_final": True,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Yes. No thanks.",
                    "words": [
                        {"word": "yes", "punctuated_word": "Yes.", "start": 1.1, "end": 1.5},
                        {"word": "no", "punctuated_word": "No", "start": 2.1, "end": 2.4},
                        {"word": "thanks", "punctuated_word": "thanks.", "start": 2.4, "end": 2.9},
                    ],
                }
            ]
        },
    }
    heard = read_message(json.dumps(message), 8000, 8000)
    assert isinstance(heard, Heard)
    assert (heard.start, heard.end) == (16_000, 32_000)
    one, other = Utterance(8000, 24_000), Utterance(24_000)
    assert [(u, its.text) for u, its in share(heard, (one, other))] == [(one, "Yes."), (other, "No thanks.")]
    assert share(heard, (Utterance(40_000),)) == []
    assert [its.text for _, its in share(heard, (other,))] == ["No thanks."]
    assert [its.text for _, its in share(heard, (Utterance(8000),))] == ["Yes. No thanks."]
    assert [since(heard, at).text for at in (16_000, 20_000, 30_000)] == ["Yes. No thanks.", "No thanks.", ""]
    wordless = heard._replace(words=())
    assert [since(wordless, at).text for at in (20_000, 32_000)] == ["Yes. No thanks.", ""]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"modle": "x"}, "stt.modle"),
        ({"feed": "some"}, "stt.feed"),
        ({"eot_threshold": 0.2}, "stt.eot_threshold"),
        ({"eager_eot_threshold": 0.95}, "stt.eager_eot_threshold"),
        ({"url": "https://x"}, "stt.url"),
        ({"url": "wss://user:pw@x"}, "stt.url"),
        ({"final_ms": 10}, "stt.final_ms"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


def test_deepgrams_own_server_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"deepgram\.api_key"):
        DeepgramStt(AGENT, {}, Services(ManualClock()))


def test_the_feed_is_an_option() -> None:
    assert DeepgramStt(AGENT, {}, services()).feed_mode == "gated"
    assert DeepgramStt(AGENT, {"feed": "all"}, services()).feed_mode == "all"


def test_a_format_it_does_not_take_is_our_own_mistake() -> None:
    with pytest.raises(MisuseError):
        DeepgramStt(AGENT, {}, services()).open(CALL, Format("mulaw", 16000), lambda event: None)


def test_an_agent_names_it() -> None:
    assert load("stt", CHOICE) is DeepgramStt
