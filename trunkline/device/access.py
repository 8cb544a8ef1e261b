"""How the device gets in: its connection to `WS /ws/audio`, and the session it asks the gateway's API for."""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from trunkline.agents.websocket import Gone, Link, Refused
from trunkline.errors import ConfigError

API_S = 2.0  # for an answer of the API's
NAME = "trunkline device"


class Unreachable(Exception):
    """There is no gateway, or it does not answer."""


class NotLetIn(Exception):
    def __init__(self, code: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, why)
        self.code, self.why, self.retry_after_s = code, why, retry_after_s


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where it is, and who the device is to it."""

    origin: str
    """http(s)://HOST[:PORT]."""
    device_id: str = ""
    account_id: str = ""
    agent: str = ""
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        parts = urlsplit(self.origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("gateway", self.origin, "http://HOST:PORT or https://HOST")
        if self.api_key and not (self.device_id and self.account_id):
            raise ConfigError("api-key-file", "given", "needs --device-id and --account-id, too")

    @property
    def asks(self) -> bool:
        return bool(self.api_key)

    @property
    def ws_url(self) -> str:
        parts = urlsplit(self.origin)
        scheme = "wss" if parts.scheme == "https" else "ws"
        return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws/audio", "", ""))


class Sessions:
    """The API, asked by the device itself. A product's devices ask their own backend, which holds the key."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._registered = False

    async def open(self) -> tuple[str, str]:
        """The WebSocket's URL and a join token. Raises Unreachable, NotLetIn."""
        gateway = self._gateway
        headers = {"Authorization": f"Bearer {gateway.api_key}"}
        client = httpx.AsyncClient(base_url=gateway.origin, headers=headers, timeout=API_S, trust_env=False)
        async with client:
            if not self._registered:
                asked = {"account_id": gateway.account_id, "name": NAME, "needs_arming": True}
                await self._post(client, f"/v1/device/{quote(gateway.device_id, safe='')}/register", asked)
                self._registered = True
            asked = {"device_id": gateway.device_id, "account_id": gateway.account_id}
            session = await self._post(
                client, "/v1/session", asked | ({"agent": gateway.agent} if gateway.agent else {})
            )
        return str(session["ws_url"]), str(session["join_token"])

    async def _post(self, client: httpx.AsyncClient, path: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = await client.post(path, json=asked)
        except httpx.HTTPError as error:
            raise Unreachable(type(error).__name__) from error
        told = _object(answer.content)
        if answer.status_code == 201:
            return told
        code, why = str(told.get("code") or answer.status_code), str(told.get("detail") or told.get("title") or "")
        raise NotLetIn(code, why, _seconds(answer.headers.get("retry-after")))


class Connection:
    """One connection: `on_event` gets messages, `on_audio` audio, `on_gone` its loss."""

    def __init__(
        self,
        on_event: Callable[[Mapping[str, Any]], None],
        on_audio: Callable[[bytes], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._on_event, self._on_audio, self._on_gone = on_event, on_audio, on_gone
        self._link: Link | None = None

    async def open(self, url: str, token: str | None) -> None:
        """Raises Unreachable, NotLetIn. `joined` or `refused` follows, as an event."""
        link = Link(url, {}, self._message, lambda gone: self._on_gone(f"the connection broke ({gone.code})"))
        try:
            await link.open(ssl.create_default_context() if url.startswith("wss:") else None)
        except Refused as error:
            told = _object(error.body)
            code = str(told.get("code") or error.status)
            raise NotLetIn(code, str(told.get("detail", "")), _seconds(error.headers.get("retry-after"))) from error
        except (OSError, Gone) as error:
            raise Unreachable(type(error).__name__) from error
        self._link = link
        start = {"type": "start", "encoding": "pcm16", "rate_hz": 16_000, "acks": True}
        self.send(start | ({"token": token} if token else {}))

    def send(self, message: Mapping[str, Any]) -> None:
        if self._link is not None:
            self._link.send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    def send_audio(self, pcm16: bytes) -> None:
        if self._link is not None:
            self._link.send(pcm16)

    def close(self) -> None:
        """Idempotent; nothing is told any more."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _message(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self._on_audio(data)
        else:
            self._on_event(_object(data))


def _object(data: str | bytes) -> Mapping[str, Any]:
    """What is no JSON object is an empty one."""
    try:
        given = json.loads(data)
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
