"""The provider over a pool that is a fake, and once over a real worker."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pytest
import soxr

from trunkline.agents.definition import AgentDefinition, ProviderChoice, RealtimeTerms
from trunkline.agents.local import voice
from trunkline.agents.local.pool import OnReply, Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.agents.providers import Services, load
from trunkline.agents.stt.pocketsphinx import MAX_UTTERANCES, Pocketsphinx, Stream
from trunkline.errors import ConfigError, MisuseError, ProviderError
from trunkline.media import g711
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, MULAW_8K, PCM_16K, CallId

NONE = ProviderChoice("none")
SCRIPT = {"intents": [{"name": "hours", "phrases": ["what are your opening hours", "hours please"], "reply": "Nine."}]}
AGENT = AgentDefinition("test", ProviderChoice("pocketsphinx"), NONE, NONE, "Hello.", script=SCRIPT)
CALL = CallFacts(CallId("c"), DEFAULT_TENANT, "inbound", None, None, datetime(2026, 1, 1, tzinfo=UTC))
AUDIO = b"\xff" * 160
LINE = {"mean": [50.0] * 13, "frames": 120.0, "usual": -12.0}


@dataclass
class FakeJob:
    pool: "FakePool"
    on_reply: OnReply
    setup: Message
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    open: bool = True

    def send(self, name: str, data: bytes = b"", **fields: Any) -> None:
        if self.pool.behind:
            raise ProviderError("speech", "overloaded", "a speech worker is behind", retryable=True)
        self.sent.append((name, data))

    def close(self) -> None:
        self.open = False

    def reply(self, reply: Reply) -> None:
        assert self.open
        self.on_reply(reply)

    def partial(self, text: str, *, stable: bool = False, likely: bool = True) -> None:
        self.reply(Message("partial", {"text": text, "stable": stable, "likely": likely}))

    def final(self, text: str, *, understood: bool = True) -> None:
        self.reply(Message("final", {"text": text, "understood": understood, "score": -10.0, "line": LINE}))


@dataclass
class FakePool:
    jobs: list[FakeJob] = field(default_factory=list)
    preloaded: list[Message] = field(default_factory=list)
    full: bool = False
    behind: bool = False
    refuses: bool = False
    users: int = 0

    async def start(self) -> None:
        self.users += 1

    async def close(self) -> None:
        self.users -= 1

    def forget(self, kind: str, message: Message) -> None:
        self.preloaded.remove(message)

    async def preload(self, kind: str, message: Message) -> None:
        assert kind == "ears"
        if self.refuses:
            raise ProviderError("speech", "bad_request", "the recogniser does not know 'xyzzy'", retryable=False)
        self.preloaded.append(message)

    def borrow(self, kind: str, on_reply: OnReply, setup: Message) -> FakeJob:
        if self.full:
            raise ProviderError("speech", "overloaded", "every speech worker is full", retryable=True)
        self.jobs.append(FakeJob(self, on_reply, setup))
        return self.jobs[-1]


def provider(pool: "FakePool | SpeechPool") -> Pocketsphinx:
    return Pocketsphinx(AGENT, {}, Services(clock=ManualClock(), speech_pool=cast(SpeechPool, pool)))


Story = Callable[[FakePool, Stream, list[SttEvent]], Coroutine[Any, Any, None]]


def tell(story: Story) -> None:
    async def told() -> None:
        pool = FakePool()
        events: list[SttEvent] = []
        await story(pool, provider(pool).open(CALL, MULAW_8K, events.append), events)

    asyncio.run(told())


async def settle() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def error_of(event: SttEvent) -> ProviderError:
    assert isinstance(event, SttFailed)
    assert isinstance(event.error, ProviderError)
    return event.error


def test_an_utterance_is_borrowed_fed_and_given_back_with_its_final() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.feed(AUDIO)
        (job,) = pool.jobs
        assert job.setup.fields["grammar"] == "main"
        assert job.setup.fields["encoding"] == "mulaw"
        stream.finalize()
        assert job.sent == [("audio", AUDIO), ("audio", AUDIO), ("finish", b"")]
        job.final("hours please")
        assert events == [SttFinal("hours please", True)]
        assert not job.open

    tell(story)


def test_a_partial_is_complete_when_it_is_a_whole_phrase_that_has_settled_and_wrong_words_are_taken_back() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        (job,) = pool.jobs
        job.partial("what", likely=False)
        job.partial("what are")
        job.partial("hours please")
        job.partial("hours please", stable=True)
        job.partial("what are", likely=False)
        assert events == [
            SttPartial("what are"),
            SttPartial("hours please"),
            SttPartial("hours please", complete=True),
            SttPartial(""),
        ]

    tell(story)


def test_a_settled_whole_phrase_counts_even_when_it_is_not_likely_enough_to_interrupt() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        pool.jobs[0].partial("hours please", stable=True, likely=False)
        assert events == [SttPartial("hours please", complete=True)]

    tell(story)


def test_the_expected_grammar_is_taken_with_the_next_utterance_and_an_unknown_one_is_main() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.expect(Expectation("yes_no"))
        stream.feed(AUDIO)
        stream.finalize()
        stream.feed(AUDIO)
        stream.finalize()
        stream.expect(Expectation("nobody_knows"))
        stream.feed(AUDIO)
        assert [job.setup.fields["grammar"] for job in pool.jobs] == ["main", "yes_no", "main"]

    tell(story)


def test_what_was_learnt_of_the_line_goes_with_the_next_utterance() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.finalize()
        pool.jobs[0].final("", understood=False)
        stream.feed(AUDIO)
        assert "line" not in pool.jobs[0].setup.fields
        assert pool.jobs[1].setup.fields["line"] == LINE

    tell(story)


def test_finals_come_in_the_order_of_the_utterances() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        for _ in range(2):
            stream.feed(AUDIO)
            stream.finalize()
        pool.jobs[1].final("second")
        assert events == []
        pool.jobs[0].final("first")
        assert events == [SttFinal("first"), SttFinal("second")]

    tell(story)


def test_finalize_without_audio_is_a_final_without_words_and_not_from_within_the_call() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.finalize()
        assert events == []
        await settle()
        assert events == [SttFinal("", understood=False)]

    tell(story)


def test_a_cancelled_utterance_has_no_final_and_the_next_is_another() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.cancel()
        stream.cancel()
        assert not pool.jobs[0].open
        stream.feed(AUDIO)
        stream.finalize()
        pool.jobs[1].final("hours please")
        assert events == [SttFinal("hours please")]

    tell(story)


@pytest.mark.parametrize("when", ["borrow", "feed", "finish", "reply"])
def test_a_failure_is_told_once_and_retryable_when_the_utterance_is_finalised(when: str) -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        pool.full = when == "borrow"
        stream.feed(AUDIO)
        pool.behind = when == "feed"
        stream.feed(AUDIO)
        if when == "reply":
            pool.jobs[0].reply(ProviderError("speech", "unavailable", "the speech worker ended", retryable=True))
        stream.feed(AUDIO)
        await settle()
        assert events == []
        pool.behind = when == "finish"
        stream.finalize()
        await settle()
        (event,) = events
        error = error_of(event)
        assert (error.provider, error.retryable) == ("pocketsphinx", True)
        assert error.code == ("unavailable" if when == "reply" else "overloaded")
        assert all(not job.open for job in pool.jobs)
        pool.full = pool.behind = False
        stream.feed(AUDIO)
        assert pool.jobs[-1].open

    tell(story)


def test_a_worker_that_dies_between_finalize_and_final_is_told() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.finalize()
        pool.jobs[0].reply(ProviderError("speech", "unavailable", "the speech worker ended", retryable=True))
        await settle()
        assert [error_of(event).code for event in events] == ["unavailable"]

    tell(story)


def test_audio_of_an_utterance_that_failed_is_counted() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        pool.full = True
        stream.feed(AUDIO)
        stream.feed(AUDIO)
        assert stream.dropped_bytes == 2 * len(AUDIO)

    tell(story)


def test_a_call_has_so_many_utterances_under_way_and_no_more() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        for _ in range(MAX_UTTERANCES + 1):
            stream.feed(AUDIO)
            stream.finalize()
        assert len(pool.jobs) == MAX_UTTERANCES
        for job in pool.jobs:
            job.final("hours please")
        await settle()
        assert len(events) == MAX_UTTERANCES + 1
        assert error_of(events[-1]).code == "overloaded"

    tell(story)


def test_after_close_everything_is_given_back_and_nothing_comes() -> None:
    async def story(pool: FakePool, stream: Stream, events: list[SttEvent]) -> None:
        stream.feed(AUDIO)
        stream.finalize()
        stream.feed(AUDIO)
        stream.close()
        stream.close()
        stream.feed(AUDIO)
        stream.finalize()
        await settle()
        assert events == []
        assert [job.open for job in pool.jobs] == [False, False]

    tell(story)


def test_start_loads_the_scripts_grammars_once_and_a_refusal_gives_the_pool_back() -> None:
    async def story() -> None:
        pool = FakePool()
        ears = provider(pool)
        await ears.start()
        await ears.start()
        (message,) = pool.preloaded
        assert set(message.fields["grammars"]) == {"main", "yes_no"}
        await ears.close()
        await ears.close()
        assert (pool.users, pool.preloaded) == (0, [])
        pool.refuses = True
        with pytest.raises(ProviderError, match="xyzzy"):
            await provider(pool).start()
        assert pool.users == 0

    asyncio.run(story())


def test_wrong_options_formats_and_an_empty_script_are_refused() -> None:
    services = Services(clock=ManualClock())
    with pytest.raises(ConfigError, match=r"stt\.model"):
        Pocketsphinx(AGENT, {"model": "big"}, services)
    with pytest.raises(ConfigError, match="phrases of a script"):
        Pocketsphinx(AgentDefinition("mute", NONE, NONE, NONE, "Hello."), {}, services)
    realtime = RealtimeTerms(ProviderChoice("openai"))  # needs it for yes and no of a representative alone
    Pocketsphinx(AgentDefinition("mute", NONE, NONE, NONE, "Hello.", realtime=realtime), {}, services)
    with pytest.raises(MisuseError):
        provider(FakePool()).open(CALL, PCM_16K, lambda event: None)
    assert load("stt", AGENT.stt) is Pocketsphinx


def test_a_real_worker_hears_a_real_phrase_and_its_death_is_told() -> None:
    options = voice.VoiceOptions("en-us")
    samples = voice.engine().speak("what are your opening hours", options).samples.astype(np.float32)
    speech = soxr.resample(samples, voice.engine().rate_hz, 8000) * voice.gain(options, 8000) * 0.5
    line = np.concatenate([np.zeros(2400), speech, np.zeros(1600)]) + np.random.default_rng(1).normal(0, 8)
    audio = g711.encode(line.astype("<i2").tobytes(), "mulaw")

    async def story() -> None:
        pool = SpeechPool(1)
        ears = provider(pool)
        await ears.start()
        try:
            events: asyncio.Queue[SttEvent] = asyncio.Queue()
            stream = ears.open(CALL, MULAW_8K, events.put_nowait)
            stream.feed(audio)
            stream.finalize()
            async with asyncio.timeout(5):
                while isinstance(event := await events.get(), SttPartial):
                    pass
            assert event == SttFinal("what are your opening hours", True)
            stream.feed(audio)
            pool._workers[0]._end()  # as if it had crashed: the pool's own tests kill it for real
            stream.close()
        finally:
            await ears.close()

    asyncio.run(story())
