"""One HTTP exchange with a host that somebody else named: an agent's `http` tool, a caller's x5u, a webhook's receiver.

The name is resolved here, once, and the connection made to the very address that was judged (`addresses.py`), so a name
that changes its answer between check and use gains nothing. The certificate is still the name's. Size is bounded; time
is the caller's `asyncio.timeout`.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

import httpx

from trunkline.addresses import forbidden

Resolve = Callable[[str, int], Awaitable[list[str]]]
Code = Literal["no_host", "forbidden_address", "bad_status", "compressed", "too_large"]
_ADDRESSES_TRIED = 2
KEPT_S = 15.0  # shorter than most servers keep an idle connection


class FetchError(Exception):
    """`httpx.HTTPError` comes through as it is."""

    def __init__(
        self, code: Literal["no_host", "forbidden_address", "bad_status", "compressed", "too_large"], why: str
    ):
        super().__init__(code, why)
        self.code, self.why = code, why


class Fetched(NamedTuple):
    body: bytes
    headers: httpx.Headers


def resolver(threads: int, name: str) -> Resolve:
    """Of the system, in threads of its own: a look-up cannot be cancelled, and a slow name server would hold up what
    else the loop's threads are for."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def resolve(host: str, port: int) -> list[str]:
        asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(pool, asked)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    return resolve


resolve = resolver(16, "resolve")


def client(max_connections: int, kept: int = 0, **options: object) -> httpx.AsyncClient:
    """No redirect, no proxy of the environment, and no connection is kept: one made for a name must not serve another
    name at the same address. `kept`: so many are, of a client that is asked for one name only."""
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=kept, keepalive_expiry=KEPT_S)
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=None, **options)  # type: ignore[arg-type]


async def fetch(
    client: httpx.AsyncClient,
    url: httpx.URL,
    resolve: Resolve,
    *,
    allow_private: bool,
    max_bytes: int,
    fits: Callable[[int], bool],
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> Fetched:
    """`fits`: the status. The next address is tried where one does not connect. Raises FetchError and what httpx does;
    cancelled, the connection is closed."""
    sent = {**(headers or {}), "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
    host = url.raw_host.decode("ascii")
    addresses = await _judged(host, url.port or (443 if url.scheme == "https" else 80), resolve, allow_private)
    for at, address in enumerate(addresses):
        request = client.build_request(
            method,
            url.copy_with(host=address),
            headers=sent,
            content=content,
            extensions={"sni_hostname": host},  # the certificate is the name's
        )
        try:
            return await _exchange(client, request, max_bytes, fits)
        except httpx.ConnectError:
            if at == len(addresses) - 1:
                raise
    raise AssertionError("the last address either answers or raises")


async def _judged(host: str, port: int, resolve: Resolve, allow_private: bool) -> list[str]:
    try:
        addresses = await resolve(host, port)
    except (OSError, UnicodeError):
        raise FetchError("no_host", "the host's name is not known") from None
    for address in addresses:  # one bad address among good ones is an attack, not an accident
        why = forbidden(address, allow_private=allow_private)
        if why is not None:
            raise FetchError("forbidden_address", f"the host is {why}")
    if not addresses:
        raise FetchError("no_host", "the host has no address")
    return addresses[:_ADDRESSES_TRIED]


async def _exchange(
    client: httpx.AsyncClient, request: httpx.Request, max_bytes: int, fits: Callable[[int], bool]
) -> Fetched:
    response = await client.send(request, stream=True)
    try:
        if not fits(response.status_code):
            raise FetchError("bad_status", f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError("compressed", "the answer is compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise FetchError("too_large", f"the answer is longer than {max_bytes} bytes")
        return Fetched(bytes(body), response.headers)
    finally:
        await response.aclose()
