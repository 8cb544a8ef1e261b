"""Stand-in providers: scripted latencies, real speech out, no thinking. For measuring the gateway alone (bench/).

The recogniser hears any speech as "caller phrase", complete after PARTIAL_AFTER_MS of it; the model answers with
numbered words ("word0 word1 ..."), token by token, and goes on after those that another model has said; the voice
speaks each word in exactly WORD_MS of synthesized speech, so what was heard can be told from how long it was played.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.seam import GO_ON
from trunkline.errors import ConfigError
from trunkline.media import g711
from trunkline.ports import (
    CallFacts,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    SttEvent,
    SttFinal,
    SttPartial,
    TextDelta,
    TtsAudio,
    Word,
)
from trunkline.types import MULAW_8K, Format

WORD_MS = 200
PARTIAL_AFTER_MS = 600
CHUNK_MS = 400
WORDS_A_SENTENCE = 10
SPEECH = (
    "This is the voice of the stand in agent. It reads a passage of ordinary length, at an ordinary pace, "
    "so that what is sent down the line is speech and not a tone or silence."
)


def _milliseconds(options: Mapping[str, Any], known: Mapping[str, int]) -> dict[str, int]:
    for key, value in options.items():
        if key not in known:
            raise ConfigError(key, value, f"one of {', '.join(sorted(known))}")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 60_000:
            raise ConfigError(key, value, "a whole number from 0 to 60000")
    return {**known, **options}


class StandinStt:
    name = "standin"
    feed_mode: Literal["all", "gated"] = "gated"
    third_party = False
    free_text = False
    formats: tuple[Format, ...] = (MULAW_8K,)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self._final_s = _milliseconds(options, {"final_ms": 50})["final_ms"] / 1000

    async def start(self) -> None: ...

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "StandinSttStream":
        return StandinSttStream(format, on_event, self._final_s)

    async def close(self) -> None: ...


class StandinSttStream:
    def __init__(self, format: Format, on_event: Callable[[SttEvent], None], final_s: float) -> None:
        self._enough_bytes = PARTIAL_AFTER_MS * format.bytes_per_ms
        self._on_event: Callable[[SttEvent], None] | None = on_event
        self._final_s = final_s
        self._fed_bytes = 0
        self._finals: list[asyncio.TimerHandle] = []

    def feed(self, audio: bytes) -> None:
        before, self._fed_bytes = self._fed_bytes, self._fed_bytes + len(audio)
        if before < self._enough_bytes <= self._fed_bytes and self._on_event is not None:
            self._on_event(SttPartial("caller phrase", complete=True))

    def began(self, ago_ms: int) -> None: ...

    def expect(self, expectation: Expectation) -> None: ...

    def finalize(self) -> None:
        if self._on_event is None:
            return
        self._fed_bytes = 0
        loop = asyncio.get_running_loop()
        self._finals.append(loop.call_later(self._final_s, self._final))

    def _final(self) -> None:
        self._finals.pop(0)
        if self._on_event is not None:
            self._on_event(SttFinal("caller phrase"))

    def cancel(self) -> None:
        self._fed_bytes = 0

    def close(self) -> None:
        self._on_event = None
        for timer in self._finals:
            timer.cancel()
        self._finals.clear()


class StandinLlm:
    name = "standin"
    third_party = False

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        given = _milliseconds(options, {"first_token_ms": 350, "token_ms": 20, "words": 20})
        self.first_s, self.token_s = given["first_token_ms"] / 1000, given["token_ms"] / 1000
        self.words = given["words"]

    async def start(self) -> None: ...

    def open(self, call: CallFacts) -> "StandinLlmSession":
        return StandinLlmSession(self)

    async def close(self) -> None: ...


class StandinLlmSession:
    def __init__(self, llm: StandinLlm) -> None:
        self._llm = llm

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._llm.first_s
        for i in range(_begun(conversation), self._llm.words):
            await asyncio.sleep(max(0.0, due - loop.time()))  # absolute: a loop's timer steps do not add up
            due += self._llm.token_s
            yield TextDelta(f"word{i}" + (". " if i % WORDS_A_SENTENCE == WORDS_A_SENTENCE - 1 else " "))
        yield LlmUsage(sum(len(m.text.split()) for m in conversation), self._llm.words)

    def close(self) -> None: ...


def _begun(conversation: Sequence[Message]) -> int:
    """How many words of the answer another model has said."""
    goes_on = len(conversation) > 1 and conversation[-1].text == GO_ON
    return len(conversation[-2].text.split()) if goes_on else 0


class StandinTts:
    name = "standin"
    third_party = False
    word_times = True

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self._first_s = _milliseconds(options, {"first_audio_ms": 100})["first_audio_ms"] / 1000
        self._speech = b""

    async def start(self) -> None:
        from trunkline.agents.local.voice import synthesize  # only where it is used: needs the `local` extra

        self._speech = await asyncio.get_running_loop().run_in_executor(None, synthesize, SPEECH)

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        words = text.split()
        audio = self._spoken(text, len(words) * WORD_MS, format)
        await asyncio.sleep(self._first_s)
        step = CHUNK_MS * format.bytes_per_ms
        for start in range(0, len(audio), step):
            first = start // format.bytes_per_ms // WORD_MS
            said = range(first, min(first + CHUNK_MS // WORD_MS, len(words)))
            yield TtsAudio(
                audio[start : start + step], tuple(Word(words[i], i * WORD_MS, (i + 1) * WORD_MS) for i in said)
            )

    def _spoken(self, text: str, length_ms: int, format: Format) -> bytes:
        """A piece of the passage, another for another text."""
        if format.rate_hz != 8000:
            raise ConfigError("tts.provider", self.name, "a lane of 8000 Hz")
        size = length_ms * 16
        start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % max(1, len(self._speech) - size)
        start -= start % 2
        pcm = self._speech[start : start + size].ljust(size, b"\0")
        return pcm if format.encoding == "pcm16" else g711.encode(pcm, format.encoding)

    async def close(self) -> None: ...
