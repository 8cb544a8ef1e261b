"""The front door: one port for HTTP and for media.

uvicorn takes the protocol class of its connections as a parameter (`http=`). Ours reads the start of the first request:
`GET /twilio/media` makes the connection a media leg, which never meets ASGI (0.17-0.25 against 0.34 % of a core per
call, measured); anything else is handed to uvicorn's own HTTP protocol with what was read so far, as if it had been
there from the first byte. Only the first request counts: a WebSocket client opens a connection of its own.

This leans on: the constructor's keywords (config, server_state, app_state, _loop), on server_state.connections, whose
members have shutdown(), and on set_protocol. uvicorn is pinned to one minor version and tests/gateway/test_front.py
and tests/e2e hold it to that.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trunkline.gateway.twilio.webhooks import MEDIA_PATH

REQUEST_START = b"GET " + MEDIA_PATH.encode()
FIRST_BYTES_S = 10.0  # a connection that says nothing is closed


def front_door(media_leg: Callable[[], asyncio.Protocol]) -> type[asyncio.Protocol]:
    """The class for `uvicorn.Config(http=...)`; `media_leg` makes the protocol of a media connection."""

    class FrontDoor(asyncio.Protocol):
        def __init__(self, **uvicorn: Any) -> None:
            self._uvicorn = uvicorn
            self._start = b""
            self._transport: asyncio.Transport | None = None
            self._deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast(asyncio.Transport, transport)
            self._uvicorn["server_state"].connections.add(self)
            self._deadline = asyncio.get_running_loop().call_later(FIRST_BYTES_S, self._transport.abort)

        def data_received(self, data: bytes) -> None:
            self._start += data
            is_media = _is_media(self._start)
            if is_media is None:
                return
            self._leave()
            assert self._transport is not None
            protocol = media_leg() if is_media else HttpToolsProtocol(**self._uvicorn)
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(self._start)

        def connection_lost(self, error: Exception | None) -> None:
            self._leave()

        def shutdown(self) -> None:
            """The server stops, and this peer has asked for nothing yet."""
            if self._transport is not None:
                self._transport.close()

        def _leave(self) -> None:
            self._uvicorn["server_state"].connections.discard(self)
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return FrontDoor


def _is_media(start: bytes) -> bool | None:
    """Whether the connection's first request is for the media path; None while too little is known."""
    if len(start) <= len(REQUEST_START):
        return None if REQUEST_START.startswith(start) else False
    return start.startswith(REQUEST_START) and start[len(REQUEST_START) : len(REQUEST_START) + 1] in (b" ", b"?")
