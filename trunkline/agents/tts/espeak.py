"""The `espeak` voice: espeak-ng in the pool of speech workers. Needs no account and no network."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import astuple
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import lookup, primary
from trunkline.agents.local import voice
from trunkline.agents.local.pool import Reply, SpeechPool
from trunkline.agents.local.voice import PITCHES, RATES_WPM, VoiceOptions
from trunkline.agents.local.wire import Message
from trunkline.agents.providers import Services
from trunkline.errors import ConfigError, ProviderError
from trunkline.ports import TtsAudio, Word
from trunkline.types import MULAW_8K, Format

CHUNK_DEADLINE_S = 2.0
MAX_TEXT_CHARS = 10_000  # a phrase is under 300; this is ten minutes of speech
CACHE_BYTES = 4 * 1024 * 1024  # 8 minutes of G.711
MAX_CACHED_BYTES = CACHE_BYTES // 8  # one phrase must not push all others out
OPTIONS = "voice, words_per_minute, pitch"

_Key = tuple[str, Format]


class PhraseCache:
    """Phrases already spoken, the least recently used dropped first; `kept` ones never (an agent's fixed lines)."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._phrases: OrderedDict[_Key, tuple[TtsAudio, ...]] = OrderedDict()
        self._kept: dict[_Key, tuple[TtsAudio, ...]] = {}
        self.bytes = 0
        """Held by phrases that may be dropped."""

    def get(self, key: _Key) -> tuple[TtsAudio, ...] | None:
        if (kept := self._kept.get(key)) is not None:
            return kept
        if (phrase := self._phrases.get(key)) is not None:
            self._phrases.move_to_end(key)
        return phrase

    def put(self, key: _Key, phrase: tuple[TtsAudio, ...], *, keep: bool = False) -> None:
        size = _size(phrase)
        if keep:
            self._kept[key] = phrase
        elif size <= min(MAX_CACHED_BYTES, self._max_bytes) and key not in self._phrases:
            self._phrases[key] = phrase
            self.bytes += size
            while self.bytes > self._max_bytes:
                self.bytes -= _size(self._phrases.popitem(last=False)[1])


def _size(phrase: tuple[TtsAudio, ...]) -> int:
    return sum(len(audio.data) + 100 * len(audio.words) for audio in phrase)


class Espeak:
    """Options: `voice` (a language of espeak-ng, maybe with a variant: en-us, en-gb+f3; without it, the agent's
    `language`), `words_per_minute`, `pitch`.

    The agent's fixed lines are spoken once at start for a mu-law leg: they are there when the pool is not.
    """

    name = "espeak"
    third_party = False
    word_times = True

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self.voice = read_options(options, definition.language)
        self._pool = services.speech_pool or SpeechPool(services.speech_workers)
        lines = (definition.greeting, definition.goodbye, definition.apology, definition.failure)
        self._lines = {_normal(line) for line in (*lines, *definition.no_input, *definition.filler)}
        self._cache = PhraseCache()
        self._started = self._loaded = False

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    @staticmethod
    def in_language(options: Mapping[str, Any], tag: str, *, inherited: bool = True) -> dict[str, Any] | None:
        """The same variant of the other language's voice."""
        name, plus, variant = str(options.get("voice", "")).partition("+")
        if primary(name.replace("_", "-")) == primary(tag):
            return dict(options)
        language = lookup(tag, voice.languages())
        return None if language is None else {**options, "voice": language + plus + variant}

    async def start(self) -> None:
        """Raises ProviderError. Idempotent."""
        if self._started:
            return
        await self._pool.start()
        self._started = True
        try:
            await self._pool.preload("voice", self._preload)
            self._loaded = True
            for line in sorted(self._lines):
                async for _ in self.speak(line, MULAW_8K):
                    pass
        except BaseException:
            await self.close()
            raise

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator cancels the synthesis. Text without words gives no audio. Raises ProviderError."""
        text = _normal(text)
        if len(text) > MAX_TEXT_CHARS:
            raise ProviderError(self.name, "bad_request", f"{len(text)} characters in one phrase", retryable=False)
        key = (text, format)
        if (cached := self._cache.get(key)) is not None:
            for audio in cached:
                yield audio
            return
        spoken: list[TtsAudio] = []
        spoken_bytes = 0
        async with aclosing(self._synthesize(text, format)) as synthesis:
            async for audio in synthesis:
                spoken_bytes += len(audio.data)
                if spoken_bytes <= MAX_CACHED_BYTES:
                    spoken.append(audio)
                yield audio
        if spoken_bytes <= MAX_CACHED_BYTES:
            self._cache.put(key, tuple(spoken), keep=text in self._lines)

    async def _synthesize(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        pieces = voice.pieces(text)
        if not pieces:
            return
        replies: asyncio.Queue[Reply] = asyncio.Queue()  # bounded by what one or two pieces make
        begin = {"voice": astuple(self.voice), "encoding": format.encoding, "rate_hz": format.rate_hz}
        job = self._pool.borrow("voice", replies.put_nowait, Message("begin", begin))
        try:
            for index, piece in enumerate(pieces):
                job.send("say", text=piece, last=index == len(pieces) - 1)
                while (audio := await self._next(replies)) is not None:
                    yield audio
        finally:
            job.close()

    async def _next(self, replies: "asyncio.Queue[Reply]") -> TtsAudio | None:
        """None when the piece is all said."""
        if replies.empty():
            try:
                async with asyncio.timeout(CHUNK_DEADLINE_S):
                    reply = await replies.get()
            except TimeoutError:
                raise ProviderError(self.name, "timeout", "no audio came", retryable=True) from None
        else:
            reply = replies.get_nowait()
        if isinstance(reply, ProviderError):
            raise reply
        if reply.name == "said":
            return None
        return TtsAudio(reply.data, tuple(Word(*word) for word in reply.fields.get("words", ())))

    @property
    def _preload(self) -> Message:
        return Message("voice", {"voice": astuple(self.voice)})

    async def close(self) -> None:
        """Idempotent."""
        if self._loaded:
            self._loaded = False
            self._pool.forget("voice", self._preload)
        if self._started:
            self._started = False
            await self._pool.close()


def read_options(options: Mapping[str, Any], language: str = "en-US") -> VoiceOptions:
    """Raises ConfigError naming what is allowed, MissingExtra."""
    for key in options:
        if key not in ("voice", "words_per_minute", "pitch"):
            raise ConfigError(f"tts.{key}", options[key], f"no such option; espeak takes {OPTIONS}")
    defaults = VoiceOptions()
    ours = defaults.name if language.lower() == "en" else lookup(language, voice.languages()) or defaults.name
    name = options.get("voice", ours)
    if not isinstance(name, str) or voice.voice_file(name) is None:
        known = ", ".join(tag for tag in voice.languages() if tag.startswith("en"))
        allowed = f"a language of espeak-ng ({known}, de, fr, es, ...), maybe with +f1 to +f5 or +m1 to +m8 behind"
        raise ConfigError("tts.voice", name, allowed)
    rate = _whole("words_per_minute", options.get("words_per_minute", defaults.words_per_minute), RATES_WPM)
    return VoiceOptions(name, rate, _whole("pitch", options.get("pitch", defaults.pitch), PITCHES))


def _whole(key: str, value: Any, limits: tuple[int, int]) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not limits[0] <= value <= limits[1]:
        raise ConfigError(f"tts.{key}", value, f"a whole number from {limits[0]} to {limits[1]}")
    return value


def _normal(text: str) -> str:
    return " ".join(text.split())
