"""The `http` tool: one request to the admin's own webhook, on behalf of a caller whose words are in it.

What a caller says can fill a slot but never steer: slots are encoded, the host is fixed by the file, the name is
resolved here and the connection goes to the very address that was judged (so a name that changes its answer between
check and use gains nothing), redirects are not followed, and time and size have limits.
"""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from trunkline.addresses import forbidden
from trunkline.agents.script import template
from trunkline.agents.script.model import Tool

Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_VALUE_CHARACTERS = 500  # of a result: it is going to be spoken
MAX_CONNECTIONS = 64
_ADDRESSES_TRIED = 2
_KEY = re.compile(r"\{key:([A-Za-z0-9_]+)\}")


class HttpToolError(Exception):
    """`code`: timeout, unavailable, forbidden_address, bad_arguments, no_key, bad_status, too_large or bad_answer."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why

    def __str__(self) -> str:
        return f"{self.code}: {self.why}"


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpTools:
    """Shared by all calls of an agent. Close it when the agent ends."""

    def __init__(
        self, keys: Mapping[str, str] | None = None, *, allow_private: bool = False, resolve: Resolve = resolve
    ) -> None:
        self._keys, self._allow_private, self._resolve = keys or {}, allow_private, resolve
        # No connection is kept: one made for a name must not serve another name at the same address.
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=None)

    async def run(self, tool: Tool, values: Mapping[str, str]) -> dict[str, str] | str:
        """The tool's `result` variables, or the whole answer as text where it names none. Raises HttpToolError.

        Cancel-safe: the connection is closed.
        """
        url = build_url(tool.url, values)
        headers = {name: _KEY.sub(self._key, value) for name, value in tool.headers.items()}
        content = json.dumps(_filled(tool.body, values)).encode() if tool.body else None
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000):
                body = await self._fetch(tool, httpx.URL(url), headers, content)
        except TimeoutError:
            raise HttpToolError("timeout", f"no answer within {tool.timeout_ms} ms") from None
        return extract(body, tool.result) if tool.result else body.decode("utf-8", "replace")

    async def close(self) -> None:
        await self._client.aclose()

    def _key(self, match: re.Match[str]) -> str:
        try:
            return self._keys[match[1]]
        except KeyError:
            raise HttpToolError("no_key", f"the settings hold no key {match[1]!r}") from None

    async def _addresses(self, url: httpx.URL) -> list[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(url.raw_host.decode("ascii"), port)
        except (OSError, UnicodeError):
            raise HttpToolError("unavailable", "the host's name is not known") from None
        for address in addresses:  # one bad address among good ones is an attack, not an accident
            why = forbidden(address, allow_private=self._allow_private)
            if why is not None:
                raise HttpToolError("forbidden_address", f"the host is {why}")
        if not addresses:
            raise HttpToolError("unavailable", "the host has no address")
        return addresses[:_ADDRESSES_TRIED]

    async def _fetch(self, tool: Tool, url: httpx.URL, headers: Mapping[str, str], content: bytes | None) -> bytes:
        sent = {**headers, "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        addresses = await self._addresses(url)
        for at, address in enumerate(addresses):
            request = self._client.build_request(
                tool.method,
                url.copy_with(host=address),
                headers=sent,
                content=content,
                extensions={"sni_hostname": url.raw_host.decode("ascii")},  # the certificate is the name's
            )
            try:
                return await self._exchange(request, tool.max_bytes)
            except httpx.ConnectError:
                if at == len(addresses) - 1:
                    raise HttpToolError("unavailable", "the host does not answer") from None
            except httpx.HTTPError as error:
                raise HttpToolError("unavailable", type(error).__name__) from None
        raise AssertionError("the last address either answers or raises")

    async def _exchange(self, request: httpx.Request, max_bytes: int) -> bytes:
        response = await self._client.send(request, stream=True)
        try:
            if not response.is_success:
                raise HttpToolError("bad_status", f"status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise HttpToolError("bad_answer", "the answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise HttpToolError("too_large", f"the answer is longer than {max_bytes} bytes")
            return bytes(body)
        finally:
            await response.aclose()


def build_url(text: str, values: Mapping[str, str]) -> str:
    """`text` with its slots encoded. Raises HttpToolError if a value would change more than its own place."""
    head, mark, query = text.partition("?")
    for name in template.variables(head):
        value = values.get(name, "")
        if not value:
            raise HttpToolError("bad_arguments", f"{name} is empty")
        if re.search(r"[/\\]|[\x00-\x1f\x7f]", value):  # some servers undo %2F before they look at the path
            raise HttpToolError("bad_arguments", f"{name} cannot stand in a path")
    path = template.fill(head, values, _encode)
    if any(part in (".", "..") for part in path.split("/")):
        raise HttpToolError("bad_arguments", "a part of the path would be . or ..")
    url = path + mark + template.fill(query, values, _encode)
    if urlsplit(url)[:2] != urlsplit(text)[:2]:
        raise HttpToolError("bad_arguments", "a slot would change the host")
    return url


def extract(body: bytes, paths: Mapping[str, str]) -> dict[str, str]:
    """Variables out of a JSON answer: `appointment.time`, `items.0.name` or `$.items[0].name`. Raises HttpToolError."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise HttpToolError("bad_answer", "the answer is no JSON") from None
    return {name: _value(answer, path) for name, path in paths.items()}


def _value(answer: Any, path: str) -> str:
    for part in re.findall(r"[^.\[\]]+", path.removeprefix("$")):
        if isinstance(answer, Mapping) and part in answer:
            answer = answer[part]
        elif isinstance(answer, list) and part.isdecimal() and int(part) < len(answer):
            answer = answer[int(part)]
        else:
            raise HttpToolError("bad_answer", f"the answer has no {path}")
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if not isinstance(answer, str | int | float):
        raise HttpToolError("bad_answer", f"{path} of the answer is no text and no number")
    return re.sub(r"[\x00-\x1f\x7f]+", " ", str(answer))[:MAX_VALUE_CHARACTERS]


def _encode(value: str) -> str:
    return quote(value, safe="", errors="replace")


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return template.fill(value, values)
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each, values) for each in value]
    return value
