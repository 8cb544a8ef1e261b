"""A server that speaks OpenAI's HTTP API: its client, its key, its failures as ours. The one file with the SDK.

`llm.openai` and `tts.openai` share it. The deadlines are theirs, not the SDK's, and nothing is tried twice here: a
caller is waiting, and the cascade decides.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trunkline.agents.options import is_third_party
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.privacy.redaction import quoted

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
KEPT_S = 60.0
"""So long a connection waits for the next turn. The SDK's own would go after 5 s: then nearly every turn begins with a
handshake."""
_LEFT_TO_US = "X-Stainless-Raw-Response"
"""With `stream`, as the SDK's own `with_streaming_response` does: the body is neither read nor parsed."""


class OpenAiHttp:
    def __init__(self, name: str, base_url: str, keys: Mapping[str, str], third_party: bool | None = None) -> None:
        """`name`: the provider in errors; `third_party`: as the file says. Raises
        ConfigError for OpenAI's own server without a key; MissingExtra without the `openai` package."""
        self.name, self.base_url = name, base_url
        self.third_party = is_third_party(base_url, third_party)
        self._key = keys.get("openai")
        if self._key is None and base_url == OPENAI_URL:
            raise ConfigError("openai.api_key", None, "an API key is needed for OpenAI's own server")
        self._sdk = sdk()
        self.sdk_error: type[Exception] = self._sdk.OpenAIError
        self._client: openai.AsyncOpenAI | None = None

    def start(self) -> None:
        """On the loop of the calls."""
        import anyio  # the SDK's, as is httpx2
        import httpx2

        anyio.Event()  # loads what else the first request would: 60 ms, while every call of the process waits
        limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEPT_S)
        self._client = self._sdk.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=None,
            http_client=self._sdk.DefaultAsyncHttpxClient(limits=limits, timeout=None),
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer's head; its body comes by `iter_bytes`, and close() ends it. Raises ProviderError before start and
        after close, else the SDK's errors.

        Not by the SDK's methods for each endpoint: they go through `body` by its types, in every request, and build
        these at the first, while every call of the process waits.
        """
        if self._client is None:
            raise self.error("unavailable", "not started", retryable=False)
        headers: dict[str, Any] = {_LEFT_TO_US: "stream"}
        if self._key is None:
            headers["Authorization"] = self._sdk.Omit()
        return await self._client.post(path, body=body, cast_to=object, options={"headers": headers})

    # --- failures ---

    def failed(self, error: Exception, *, begun: bool) -> ProviderError:
        """`begun`: the server had accepted the request and was answering."""
        sdk = self._sdk
        if isinstance(error, sdk.APITimeoutError):
            return self.error("timeout", "", retryable=True)
        if isinstance(error, sdk.APIStatusError):
            return self._status_failed(error)
        if not begun:
            return self.error("unavailable", "no connection", retryable=True)
        if isinstance(error, ValueError):
            return self.error("protocol", f"the answer cannot be read: {type(error).__name__}", retryable=False)
        return self.error("protocol", "the answer broke off", retryable=True)

    def refused(self, code: str, message: str) -> ProviderError:
        """An error the server told in mid-answer, by OpenAI's names where it uses them."""
        match code:
            case "insufficient_quota":
                return self.error("rate_limited", "quota used up", retryable=False)
            case "rate_limit_exceeded":
                return self.error("rate_limited", "", retryable=True)
            case "server_error":
                return self.error("unavailable", self._shown(message), retryable=True)
            case "server_is_overloaded" | "slow_down":
                return self.error("overloaded", "", retryable=True)
        if code.startswith("invalid_") or code.endswith(("_policy", "_policy_violation", "_mismatch")):
            return self.error("bad_request", f"{code}: {self._shown(message)}", retryable=False)
        return self.error("protocol", f"the answer broke off: {self._shown(f'{code} {message}')}", retryable=True)

    def error(self, code: str, detail: str, *, retryable: bool) -> ProviderError:
        return ProviderError(self.name, code, detail, retryable=retryable)

    def _status_failed(self, error: "openai.APIStatusError") -> ProviderError:
        status = error.status_code
        if status in (401, 403):  # the server's text may quote the key
            return self.error("auth", f"status {status}", retryable=False)
        if status == 429:
            after = error.response.headers.get("retry-after", "")
            quota = error.code == "insufficient_quota"
            detail = "quota used up" if quota else f"retry after {after} s" if after else ""
            return self.error("rate_limited", detail, retryable=not quota)
        if status == 408:
            return self.error("timeout", f"status {status}", retryable=True)
        if status >= 500:
            return self.error("unavailable", f"status {status}", retryable=True)
        body = error.body if isinstance(error.body, Mapping) else {}
        return self.error("bad_request", f"status {status}: {self._shown(body.get('message', ''))}", retryable=False)

    def _shown(self, message: Any) -> str:
        text = quoted(str(message), 200)
        return text.replace(self._key, "***") if self._key else text


def sdk() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("openai", "openai") from None
    return openai
