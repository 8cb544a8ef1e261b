"""The `http` tool: one request to the admin's own webhook, on behalf of a caller whose words are in it.

What a caller says can fill a slot but never steer: slots are encoded, the host is fixed by the file, the connection
goes to the very address that was judged (`fetching.py`), redirects are not followed, and time and size have limits.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from trunkline.agents.script import template
from trunkline.agents.script.model import Tool
from trunkline.fetching import FetchError, Resolve, client, fetch, resolve

MAX_VALUE_CHARACTERS = 500  # of a result: it is going to be spoken
MAX_CONNECTIONS = 64
_CODES = {"no_host": "unavailable", "compressed": "bad_answer"}
_KEY = re.compile(r"\{key:([A-Za-z0-9_]+)\}")


class HttpToolError(Exception):
    """`code`: timeout, unavailable, forbidden_address, bad_arguments, no_key, bad_status, too_large or bad_answer."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why

    def __str__(self) -> str:
        return f"{self.code}: {self.why}"


class HttpTools:
    """Shared by all calls of an agent. Close it when the agent ends."""

    def __init__(
        self, keys: Mapping[str, str] | None = None, *, allow_private: bool = False, resolve: Resolve = resolve
    ) -> None:
        self._keys, self._allow_private, self._resolve = keys or {}, allow_private, resolve
        self._client = client(MAX_CONNECTIONS)

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

    async def _fetch(self, tool: Tool, url: httpx.URL, headers: Mapping[str, str], content: bytes | None) -> bytes:
        sent = dict(headers)
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            found = await fetch(
                self._client,
                url,
                self._resolve,
                allow_private=self._allow_private,
                max_bytes=tool.max_bytes,
                fits=httpx.codes.is_success,
                method=tool.method,
                headers=sent,
                content=content,
            )
        except FetchError as error:
            raise HttpToolError(_CODES.get(error.code, error.code), error.why) from None
        except httpx.ConnectError:
            raise HttpToolError("unavailable", "the host does not answer") from None
        except httpx.HTTPError as error:
            raise HttpToolError("unavailable", type(error).__name__) from None
        return found.body


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
