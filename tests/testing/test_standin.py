import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services
from trunkline.errors import ConfigError
from trunkline.ports import CallFacts, LlmEvent, LlmUsage, Message, SttEvent, SttFinal, SttPartial, TextDelta, TtsAudio
from trunkline.testing.clock import ManualClock
from trunkline.testing.standin import PARTIAL_AFTER_MS, WORD_MS, StandinLlm, StandinStt, StandinTts
from trunkline.types import DEFAULT_TENANT, MULAW_8K, PCM_8K, PCM_16K, CallId, Format

CHOICE = ProviderChoice("standin")
AGENT = AgentDefinition("bench", CHOICE, CHOICE, CHOICE, greeting="word0.")
SERVICES = Services(ManualClock())
FACTS = CallFacts(CallId("call_1"), DEFAULT_TENANT, "inbound", None, None, datetime(2026, 11, 22, tzinfo=UTC))


def test_any_speech_is_the_callers_phrase_complete_after_a_while() -> None:
    async def main() -> list[SttEvent]:
        events: list[SttEvent] = []
        stream = StandinStt(AGENT, {"final_ms": 0}, SERVICES).open(FACTS, MULAW_8K, events.append)
        for _ in range(2):
            for _ in range(PARTIAL_AFTER_MS // 20 + 5):
                stream.feed(b"\xff" * 160)
            stream.finalize()
            await asyncio.sleep(0.001)
        return events

    assert asyncio.run(main()) == [SttPartial("caller phrase", complete=True), SttFinal("caller phrase")] * 2


def test_what_is_cancelled_has_no_final_and_what_was_finalized_keeps_its_own() -> None:
    async def main() -> list[SttEvent]:
        events: list[SttEvent] = []
        stream = StandinStt(AGENT, {"final_ms": 0}, SERVICES).open(FACTS, MULAW_8K, events.append)
        stream.feed(b"\xff" * 160)
        stream.finalize()
        stream.feed(b"\xff" * 160)
        stream.cancel()
        await asyncio.sleep(0.001)
        stream.finalize()
        stream.close()
        await asyncio.sleep(0.001)
        return events

    assert asyncio.run(main()) == [SttFinal("caller phrase")]


def test_the_model_counts_words_in_sentences_of_ten() -> None:
    async def main() -> list[LlmEvent]:
        session = StandinLlm(AGENT, {"first_token_ms": 0, "token_ms": 0, "words": 11}, SERVICES).open(FACTS)
        async with aclosing(session.reply([Message("caller", "caller phrase")])) as events:
            return [event async for event in events]

    *deltas, usage = asyncio.run(main())
    text = "".join(event.text for event in deltas if isinstance(event, TextDelta))
    assert text == "word0 word1 word2 word3 word4 word5 word6 word7 word8 word9. word10 "
    assert usage == LlmUsage(2, 11)


def spoken(text: str, format: Format = MULAW_8K) -> list[TtsAudio]:
    async def main() -> list[TtsAudio]:
        voice = StandinTts(AGENT, {"first_audio_ms": 0}, SERVICES)
        voice._speech = bytes(range(256)) * 400  # 3.2 s
        async with aclosing(voice.speak(text, format)) as audio:
            return [chunk async for chunk in audio]

    return asyncio.run(main())


@pytest.mark.parametrize("words", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("format", [MULAW_8K, PCM_8K])
def test_every_word_is_exactly_as_long_as_the_next(words: int, format: Format) -> None:
    chunks = spoken(" ".join(f"word{i}" for i in range(words)), format)
    assert sum(len(chunk.data) for chunk in chunks) == words * WORD_MS * format.bytes_per_ms
    told = [(word.text, word.start_ms, word.end_ms) for chunk in chunks for word in chunk.words]
    assert told == [(f"word{i}", i * WORD_MS, (i + 1) * WORD_MS) for i in range(words)]


def test_words_come_with_the_audio_that_ends_them() -> None:
    at_ms = 0
    for chunk in spoken("a b c d e"):
        at_ms += len(chunk.data) // MULAW_8K.bytes_per_ms
        assert chunk.words
        assert chunk.words[-1].end_ms == at_ms


def test_a_lane_the_voice_cannot_speak_on_is_the_admins_mistake() -> None:
    with pytest.raises(ConfigError, match="8000"):
        spoken("a", PCM_16K)


@pytest.mark.parametrize("options", [{"final": 5}, {"final_ms": -1}, {"final_ms": 1.5}, {"final_ms": True}])
def test_a_wrong_option_names_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as wrong:
        StandinStt(AGENT, options, SERVICES)
    assert wrong.value.key == next(iter(options))
    assert wrong.value.allowed in ("one of final_ms", "a whole number from 0 to 60000")
