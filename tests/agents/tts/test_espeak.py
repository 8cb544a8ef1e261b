import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import astuple
from typing import Any

import pytest

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.local.pool import Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.agents.providers import Services, load
from trunkline.agents.tts import espeak
from trunkline.agents.tts.espeak import Espeak, PhraseCache, read_options
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import TtsAudio
from trunkline.testing.clock import ManualClock
from trunkline.types import MULAW_8K, PCM_8K

NONE = ProviderChoice("none")
DEFINITION = AgentDefinition("test", NONE, NONE, ProviderChoice("espeak"), greeting="Hello, this is a test.")
PHRASE = "Please come to the second floor, at 10:30. The doctor is expecting you."


Story = Callable[[Espeak, SpeechPool], Coroutine[Any, Any, None]]
Run = Callable[[Story], None]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Tells a story with the module's one voice and worker, which comes back when a story killed it."""
    pool = SpeechPool(1)
    voice = Espeak(DEFINITION, {"words_per_minute": 180}, Services(clock=ManualClock(), speech_pool=pool))

    async def bounded(story: Story) -> None:
        async with asyncio.timeout(10):
            await voice.start()  # loads nothing twice
            await pool.preload("voice", Message("voice", {"voice": astuple(voice.voice)}))  # waits for the worker
            await story(voice, pool)

    with asyncio.Runner() as runner:
        yield lambda story: runner.run(bounded(story))
        runner.run(voice.close())
        runner.run(voice.close())
    assert pool.pids == ()


async def heard(voice: Espeak, text: str = PHRASE) -> list[TtsAudio]:
    return [audio async for audio in voice.speak(text, MULAW_8K)]


async def drain(speech: AsyncGenerator[TtsAudio, None]) -> None:
    async for _ in speech:
        pass


def test_a_phrase_comes_in_chunks_with_its_words_and_the_second_time_from_the_cache(run: Run) -> None:
    async def story(voice: Espeak, pool: SpeechPool) -> None:
        chunks = await heard(voice)
        words = [word for audio in chunks for word in audio.words]
        assert [word.text for word in words] == PHRASE.split()
        assert len(chunks[0].data) <= 70 * 8
        assert words[-1].end_ms <= sum(len(audio.data) for audio in chunks) / 8
        jobs = pool.stats.jobs
        assert await heard(voice, f"  {PHRASE}\n") == chunks
        assert (pool.stats.jobs, pool.live_jobs) == (jobs, 0)
        pcm = [audio.data async for audio in voice.speak(PHRASE, PCM_8K)]  # espeak-ng varies by a few ms
        assert sum(map(len, pcm)) == pytest.approx(2 * sum(len(audio.data) for audio in chunks), rel=0.02)

    run(story)


def test_closing_the_generator_gives_the_worker_back(run: Run) -> None:
    async def story(voice: Espeak, pool: SpeechPool) -> None:
        speech = voice.speak(PHRASE * 20, MULAW_8K)
        await anext(speech)
        assert pool.live_jobs == 1
        await speech.aclose()
        assert pool.live_jobs == 0
        assert await heard(voice)

    run(story)


def test_a_worker_that_says_nothing_is_a_timeout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(voice: Espeak, pool: SpeechPool) -> None:
        monkeypatch.setattr(espeak, "CHUNK_DEADLINE_S", 0.02)
        os.kill(pool.pids[0], signal.SIGSTOP)
        try:
            with pytest.raises(ProviderError) as raised:
                await heard(voice, "Something else.")
        finally:
            os.kill(pool.pids[0], signal.SIGCONT)
        assert (raised.value.provider, raised.value.code, raised.value.retryable) == ("espeak", "timeout", True)

    run(story)


def test_nothing_to_say_is_no_audio_and_too_much_is_refused(run: Run) -> None:
    async def story(voice: Espeak, _: SpeechPool) -> None:
        assert await heard(voice, " \n") == []
        assert await heard(voice, "\N{GRINNING FACE}") == []
        with pytest.raises(ProviderError, match="bad_request"):
            await heard(voice, "a" * 20_000)

    run(story)


def test_the_cache_drops_the_least_recently_used_and_never_a_kept_line() -> None:
    cache = PhraseCache(max_bytes=250)
    phrases = {name: (TtsAudio(name.encode() * 100),) for name in "abcx"}
    cache.put(("x", MULAW_8K), phrases["x"], keep=True)
    for name in "ab":
        cache.put((name, MULAW_8K), phrases[name])
    assert cache.get(("a", MULAW_8K)) == phrases["a"]
    cache.put(("c", MULAW_8K), phrases["c"])
    assert [name for name in "abcx" if cache.get((name, MULAW_8K))] == ["a", "c", "x"]
    assert cache.bytes == 200
    cache.put(("long", MULAW_8K), (TtsAudio(bytes(300)),))
    assert cache.get(("long", MULAW_8K)) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"voice": "klingon-x"}, "en-us"),
        ({"voice": 3}, "en-us"),
        ({"words_per_minute": 20}, "from 80 to 450"),
        ({"pitch": "high"}, "from 0 to 99"),
        ({"pitch": True}, "from 0 to 99"),
        ({"speed": 3}, "voice, words_per_minute, pitch"),
    ],
)
def test_a_wrong_option_names_what_is_allowed(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_options(options)


def test_the_entry_point_leads_here() -> None:
    assert load("tts", ProviderChoice("espeak")) is Espeak


def test_the_fixed_lines_are_there_when_the_pool_is_full_or_dead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(voice: Espeak, pool: SpeechPool) -> None:
        monkeypatch.setattr(pool, "jobs_per_worker", 1)
        replies: asyncio.Queue[Reply] = asyncio.Queue()
        pool.borrow("voice", replies.put_nowait)
        with pytest.raises(ProviderError, match="overloaded"):
            await heard(voice, "Something new.")
        assert await heard(voice, DEFINITION.greeting)
        os.kill(pool.pids[0], signal.SIGKILL)
        assert isinstance(await replies.get(), ProviderError)
        assert await heard(voice, DEFINITION.failure)

    run(story)


def test_a_worker_that_dies_fails_the_phrase_at_once(run: Run) -> None:
    async def story(voice: Espeak, pool: SpeechPool) -> None:
        speech = voice.speak(PHRASE * 20, MULAW_8K)
        await anext(speech)
        os.kill(pool.pids[0], signal.SIGKILL)
        with pytest.raises(ProviderError, match="unavailable"):
            await drain(speech)

    run(story)


@pytest.mark.parametrize(
    ("language", "name"),
    [("en-US", "en-us"), ("en", "en-us"), ("en-GB", "en-gb"), ("es-MX", "es-mx"), ("tlh", "en-us")],
)
def test_without_a_voice_it_speaks_the_agents_language(language: str, name: str) -> None:
    assert read_options({}, language).name == name
    assert read_options({"voice": "de"}, language).name == "de"
