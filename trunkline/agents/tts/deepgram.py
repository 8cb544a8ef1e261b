"""`tts.deepgram`: Aura, one streamed request for a phrase, mu-law as it comes. No word times.

`POST /v1/speak` and not its WebSocket: a phrase is all there when it is asked for, connections are kept and used again,
and a request that is closed is closed for good. On the WebSocket `Clear` may come after what it was to prevent, and
phrases would wait for each other.
"""

import asyncio
import warnings
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import primary
from trunkline.agents.options import THIRD_PARTY, is_third_party
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import TtsAudio
from trunkline.types import Format

if TYPE_CHECKING:
    from deepgram import AsyncDeepgramClient

DEEPGRAM_URL = "https://api.deepgram.com"
MAX_TEXT_CHARS = 2000  # Deepgram's own limit of a request
VOICES = {
    "en": "aura-2-thalia-en",
    "es": "aura-2-celeste-es",
    "de": "aura-2-viktoria-de",
    "fr": "aura-2-agathe-fr",
    "nl": "aura-2-rhea-nl",
    "it": "aura-2-livia-it",
    "ja": "aura-2-izanami-ja",
}
"""Aura's languages, and who speaks each where the file does not say."""
ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "pcm16": "linear16"}

KEPT_S = 60.0
"""So long a connection waits for the next phrase: httpx's own 5 s are less than the caller's turn."""

OPTIONS: Keys = {
    "model": Key("text", "The voice: `aura-2-thalia-en` and others.", "aura-2-thalia-en"),
    "speed": Key("number", "How fast it speaks, 0.7 to 1.5; without it, as the voice does.", low=0, high=2),
    "first_audio_ms": Key("whole", "The longest wait for a phrase's first audio.", 3000, low=50, high=30000),
    "between_audio_ms": Key("whole", "The longest pause within it.", 2000, low=50, high=30000),
    "url": Key("text", "Another server that speaks Deepgram's protocol, such as your own.", DEEPGRAM_URL),
    "third_party": THIRD_PARTY,
    "opt_out": Key("flag", "Out of Deepgram's model improvement programme (`mip_opt_out`); it costs more.", False),
}


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ConfigError."""
    held = {name: key.default for name, key in OPTIONS.items()}
    for name, value in options.items():
        key = OPTIONS.get(name)
        if key is None:
            raise ConfigError(f"tts.{name}", value, f"unknown key{nearest(name, OPTIONS)}")
        if wrong := fault(key, value):
            raise ConfigError(f"tts.{name}", value, wrong[1])
        held[name] = value
    if held["speed"] is not None and not 0.7 <= held["speed"] <= 1.5:
        raise ConfigError("tts.speed", held["speed"], "a number from 0.7 to 1.5")
    parts = urlsplit(held["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError("tts.url", held["url"], "must start with https:// or http:// and a host, without password")
    return held


class DeepgramTts:
    name = "deepgram"
    elsewhere = True
    word_times = False

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError; MissingExtra without the `deepgram-sdk` package."""
        self._options = read_options(options)
        self.third_party = is_third_party(self._options["url"], self._options["third_party"])
        self.product = ("opt-out-" if self._options["opt_out"] else "") + self._options["model"]
        key = services.keys.get("deepgram")
        if key is None and self._options["url"] == DEEPGRAM_URL:
            raise ConfigError("deepgram.api_key", None, "an API key is needed for Deepgram's own server")
        self._key = key or "none"
        self._sdk = _sdk()
        self._api_error: type[Any] = self._sdk.core.api_error.ApiError
        self._client: AsyncDeepgramClient | None = None
        self._http: httpx.AsyncClient | None = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    @staticmethod
    def in_language(options: Mapping[str, Any], tag: str, *, inherited: bool = True) -> dict[str, Any] | None:
        """An Aura voice speaks the one language that its name ends with."""
        wanted, model = primary(tag), str(options.get("model", VOICES["en"]))
        if not model.startswith("aura-") or model.rpartition("-")[2] == wanted:
            return dict(options)
        return {**options, "model": VOICES[wanted]} if wanted in VOICES else None

    async def start(self) -> None:
        """Idempotent."""
        if self._http is not None:
            return
        url = self._options["url"].rstrip("/")
        environment = self._sdk.environment.DeepgramClientEnvironment(
            base=url, production=url, agent=url, agent_rest=url
        )
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=KEPT_S)
        self._http = httpx.AsyncClient(timeout=None, limits=limits)  # the deadlines are ours
        self._client = self._sdk.AsyncDeepgramClient(
            api_key=self._key,
            environment=environment,
            httpx_client=self._http,
            max_retries=0,  # a caller is waiting: the cascade decides
        )

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator closes the request. Text without words gives no audio. Raises ProviderError."""
        text = " ".join(text.split())
        if not any(character.isalnum() for character in text):
            return
        if self._client is None:
            raise self._error("unavailable", "not started", retryable=False)
        if len(text) > MAX_TEXT_CHARS:
            raise self._error("bad_request", f"{len(text)} characters in one phrase", retryable=False)
        request = self._client.speak.v1.audio.with_raw_response.generate(**self._request(text, format))
        begun, odd = False, b""
        sample_bytes = len(format.silence)
        deadline_s = self._options["first_audio_ms"] / 1000
        try:
            try:
                async with asyncio.timeout(deadline_s):
                    response = await request.__aenter__()
                begun = True
                if not response.headers.get("content-type", "audio/").startswith("audio/"):
                    raise self._error("protocol", "the answer is no audio", retryable=False)
                chunks = aiter(response.data)
                while True:
                    async with asyncio.timeout(deadline_s):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    whole = odd + chunk
                    odd = whole[len(whole) - len(whole) % sample_bytes :]
                    if len(whole) > len(odd):
                        yield TtsAudio(whole[: len(whole) - len(odd)])
                    deadline_s = self._options["between_audio_ms"] / 1000
            finally:
                await request.__aexit__(None, None, None)
        except TimeoutError:
            what = "the voice stalled" if begun else "no audio came"
            raise self._error("timeout", what, retryable=True) from None
        except self._api_error as error:
            raise self._refused(error) from None
        except httpx.HTTPError as error:
            code = "protocol" if begun else "unavailable"
            raise self._error(code, type(error).__name__, retryable=True) from None

    async def close(self) -> None:
        """Idempotent."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    def _request(self, text: str, format: Format) -> dict[str, Any]:
        options = self._options
        request = {
            "text": text,
            "model": options["model"],
            "encoding": ENCODINGS[format.encoding],
            "sample_rate": format.rate_hz,
            "container": "none",
        }
        if options["speed"] is not None:
            request["speed"] = options["speed"]
        if options["opt_out"]:
            request["mip_opt_out"] = True
        return request

    def _refused(self, error: Any) -> ProviderError:
        status, headers = error.status_code or 0, error.headers or {}
        if status in (401, 403):  # the server's text may quote the key
            return self._error("auth", f"status {status}", retryable=False)
        if status == 402:
            return self._error("rate_limited", "quota used up", retryable=False)
        if status == 429:
            after = str(headers.get("retry-after", ""))[:20]
            return self._error("rate_limited", f"retry after {after} s" if after else "", retryable=True)
        if status >= 500:
            return self._error("unavailable", f"status {status}", retryable=True)
        return self._error("bad_request", f"status {status}", retryable=False)

    def _error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return ProviderError(self.name, code, detail, retryable=retryable)


def _sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks `websockets` for names of old
        try:
            import deepgram
            import deepgram.core.api_error
            import deepgram.environment
            import deepgram.speak.v1.audio.client
            import deepgram.speak.v1.client
        except ImportError:
            raise MissingExtra("deepgram-sdk", "deepgram") from None
    return deepgram
