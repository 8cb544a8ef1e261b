"""One attempt: a signed POST to an endpoint whose host is resolved and judged each time, within SEND_S.

An answer counts by its status alone; its body is read a little (so that the connection can be kept) and forgotten. A
redirect is not followed: it would lead past the judging, and is a failure like any other status.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import httpx

from trunkline import __version__, fetching
from trunkline.clock import Clock
from trunkline.fetching import FetchError
from trunkline.gateway.hooks import signing
from trunkline.hooks import Attempt

SEND_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 4
"""To one host: as many as an endpoint has attempts at once."""
MAX_HOSTS = 64
"""Whose connections are kept."""


class Sender:
    def __init__(
        self, clock: Clock, *, allow_private: bool, resolve: fetching.Resolve = fetching.resolve, send_s: float = SEND_S
    ) -> None:
        self._clock, self._resolve, self._allow_private, self._send_s = clock, resolve, allow_private, send_s
        self._clients: OrderedDict[str, httpx.AsyncClient] = OrderedDict()
        self._trust = httpx.create_ssl_context()
        self._in_use: dict[str, int] = {}

    async def send(self, url: str, message_id: str, body: bytes, secrets: Sequence[str]) -> Attempt:
        """Never raises for what the far end does."""
        began = self._clock.now()
        status, wait_s, error = await self._send(url, message_id, body, secrets)
        return Attempt(status, error, wait_s, self._clock.now() - began)

    async def _send(
        self, url: str, message_id: str, body: bytes, secrets: Sequence[str]
    ) -> tuple[int | None, float | None, str]:
        to, statuses = httpx.URL(url), list[int]()

        def fits(status: int) -> bool:
            statuses.append(status)
            return True

        at = int(self._clock.wall().timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": f"Trunkline/{__version__}",
            **signing.headers(secrets, message_id, at, body),
        }
        host = f"{to.scheme}://{to.netloc.decode('ascii')}"
        client = self._client(host)
        self._in_use[host] = self._in_use.get(host, 0) + 1
        wait_s = None
        try:
            async with asyncio.timeout(self._send_s):
                answer = await fetching.fetch(
                    client,
                    to,
                    self._resolve,
                    allow_private=self._allow_private,
                    max_bytes=MAX_ANSWER_BYTES,
                    fits=fits,
                    method="POST",
                    headers=headers,
                    content=body,
                )
            wait_s = self._asked_to_wait_s(answer.headers.get("retry-after", ""))
        except FetchError as error:
            if not statuses:
                return None, None, error.why
        except TimeoutError:
            if not statuses:
                return None, None, f"no answer within {self._send_s:g} s"
        except httpx.HTTPError as error:
            if not statuses:
                return None, None, f"no answer: {type(error).__name__}"
        finally:
            await self._done(host)
        status = statuses[-1]
        return status, wait_s, "" if 200 <= status < 300 else f"status {status}"

    def _asked_to_wait_s(self, text: str) -> float | None:
        """Retry-After (RFC 9110 10.2.3)."""
        if text.isascii() and text.isdigit() and len(text) <= 9:
            return float(text)
        try:
            return max(0.0, (parsedate_to_datetime(text) - self._clock.wall()).total_seconds())
        except (ValueError, TypeError):
            return None

    def _client(self, host: str) -> httpx.AsyncClient:
        """Of its own, so that a connection kept for a name serves no other."""
        found = self._clients.pop(host, None)
        if found is None:
            found = fetching.client(MAX_CONNECTIONS * 4, MAX_CONNECTIONS, verify=self._trust)
        self._clients[host] = found
        return found

    async def _done(self, host: str) -> None:
        self._in_use[host] -= 1
        if not self._in_use[host]:
            del self._in_use[host]
        if len(self._clients) > MAX_HOSTS:
            idle = next((each for each in self._clients if each not in self._in_use), None)
            if idle is not None:
                await self._clients.pop(idle).aclose()

    async def close(self) -> None:
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()
