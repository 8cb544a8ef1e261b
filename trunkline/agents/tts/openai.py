"""`tts.openai`: any server with OpenAI's speech endpoint (`/v1/audio/speech`): OpenAI's, or your own voice behind it.

One streamed request per phrase, raw PCM of 24 kHz, brought to the lane's rate and encoding as it comes. It gives no
word times: what was heard of it is an estimate.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.agents import options as given
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.openai_http import OPENAI_URL, OpenAiHttp
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys
from trunkline.errors import ConfigError, ProviderError
from trunkline.media import g711
from trunkline.media.resample import Resampler
from trunkline.ports import TtsAudio
from trunkline.types import Format

RATE_HZ = 24_000  # of `response_format = "pcm"`: 16-bit, little-endian, mono
MAX_TEXT_CHARS = 4096
_SPEEDS = (0.25, 4.0)
BY_AUDIO = "gpt-"
"""Its models whose invoice counts tokens of audio, which are so many a second; the older ones' counts characters."""

OPTIONS: Keys = {
    "model": Key("text", "Name of the model, as the server knows it.", required=True),
    "voice": Key("text", "Name of the voice, as the server knows it.", required=True),
    "base_url": Key("text", "The server's address, up to and with `/v1`.", OPENAI_URL),
    "third_party": given.THIRD_PARTY,
    "instructions": Key("text", "How to speak, for models that listen to that.", ""),
    "speed": Key("number", "0.25 to 4; without it, as the voice speaks.", low=0, high=4),
    "first_audio_ms": Key("whole", "The longest wait for a phrase's first audio.", 4000, low=50, high=60000),
    "between_audio_ms": Key("whole", "The longest pause within it.", 2000, low=50, high=60000),
}


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    voice: str
    base_url: str
    third_party: bool | None
    instructions: str
    speed: float | None
    first_audio_ms: int
    between_audio_ms: int


def read_options(options: Mapping[str, Any]) -> Options:
    """Raises ConfigError."""
    held = given.read(OPTIONS, options)
    given.check_url("base_url", held["base_url"], ("https", "http"))
    if held["speed"] is not None and not _SPEEDS[0] <= held["speed"] <= _SPEEDS[1]:
        raise ConfigError("speed", held["speed"], "a number from 0.25 to 4")
    return Options(**held)


class OpenAiTts:
    name = "openai"
    elsewhere = True
    word_times = False

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError; MissingExtra without the `openai` package."""
        self.options = read_options(options)
        self.product = self.options.model
        self.billed_in = "seconds" if self.product.startswith(BY_AUDIO) else "characters"
        self.http = OpenAiHttp(self.name, self.options.base_url, services.keys, self.options.third_party)
        self.third_party = self.http.third_party

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    async def start(self) -> None:
        self.http.start()

    async def close(self) -> None:
        await self.http.close()

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator closes the request. Text without words gives no audio. Raises ProviderError."""
        text = " ".join(text.split())
        if not any(char.isalnum() for char in text):
            return
        if len(text) > MAX_TEXT_CHARS:
            raise self._error("bad_request", f"{len(text)} characters in one phrase", retryable=False)
        resampler = Resampler(RATE_HZ, format.rate_hz)
        received = False
        response: Any = None
        try:
            try:
                async with asyncio.timeout(self.options.first_audio_ms / 1000):
                    response = await self._request(text)
                    chunks = aiter(response.iter_bytes())
                    pcm = await anext(chunks, b"")
                if _is_no_pcm(response.headers.get("content-type", ""), pcm):
                    raise self._error("protocol", "the server did not send PCM", retryable=False)
            except TimeoutError:
                raise self._error("timeout", "no first audio", retryable=True) from None
            except ProviderError:
                raise
            except Exception as error:
                if response is None and not isinstance(error, self.http.sdk_error):
                    raise
                raise self._failed(error, response) from None
            while pcm:
                received = True
                if audio := resampler.feed(pcm):
                    yield TtsAudio(_encode(audio, format))
                pcm = await self._next(chunks, response)
        finally:
            if response is not None:
                await response.close()
        if not received:
            raise self._error("protocol", "the phrase came without audio", retryable=True)
        if audio := resampler.flush():
            yield TtsAudio(_encode(audio, format))

    async def _request(self, text: str) -> Any:
        """The answer's head; its body is not read yet."""
        options = self.options
        request: dict[str, Any] = {
            "model": options.model,
            "voice": options.voice,
            "input": text,
            "response_format": "pcm",
        }
        if options.instructions:
            request["instructions"] = options.instructions
        if options.speed is not None:
            request["speed"] = options.speed
        return await self.http.post("/audio/speech", request)

    async def _next(self, chunks: AsyncIterator[bytes], response: Any) -> bytes:
        try:
            async with asyncio.timeout(self.options.between_audio_ms / 1000):
                return await anext(chunks, b"")
        except TimeoutError:
            raise self._error("timeout", "the voice stalled in mid-phrase", retryable=True) from None
        except Exception as error:  # whatever a stranger's bytes make the SDK raise
            raise self._failed(error, response) from None

    def _failed(self, error: Exception, response: Any) -> ProviderError:
        if response is not None and not isinstance(error, self.http.sdk_error):
            return self._error("protocol", "the audio broke off", retryable=True)  # raw bytes: there is nothing to read
        return self.http.failed(error, begun=response is not None)

    def _error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return self.http.error(code, detail, retryable=retryable)


def _is_no_pcm(content_type: str, begin: bytes) -> bool:
    """Whether it would be noise: a server that knows no `pcm` sends what it likes."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind.endswith("json") or begin.startswith((b"RIFF", b"ID3", b"OggS", b"fLaC"))


def _encode(pcm16: bytes, format: Format) -> bytes:
    return pcm16 if format.encoding == "pcm16" else g711.encode(pcm16, format.encoding)
