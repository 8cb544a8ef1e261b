"""The front door: one port for HTTP and for media.

uvicorn takes the protocol class of its connections as a parameter (`http=`). Ours reads the start of the first request:
`GET /twilio/media` and `GET /ws/audio` make the connection a media leg, which never meets ASGI (0.17-0.25 against
0.34 % of a core per call, measured); anything else is handed to uvicorn's own HTTP protocol with what was read so far,
as if it had been there from the first byte. Only the first request counts: a WebSocket client opens a connection of its
own.

This leans on: the constructor's keywords (config, server_state, app_state, _loop), on server_state.connections, whose
members have shutdown(), and on set_protocol. uvicorn is pinned to one minor version and tests/gateway/test_front.py
and tests/e2e hold it to that.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

FIRST_BYTES_S = 10.0  # a connection that says nothing is closed


NewLeg = Callable[[], asyncio.Protocol]


def front_door(media_legs: Mapping[str, NewLeg]) -> type[asyncio.Protocol]:
    """The class for `uvicorn.Config(http=...)`; `media_legs` make the protocols of media connections, by path."""
    starts = {b"GET " + path.encode(): new_leg for path, new_leg in media_legs.items()}

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
            if (asked := _asked(self._start, starts)) is None:
                return
            self._leave()
            assert self._transport is not None
            protocol = starts[asked]() if asked else HttpToolsProtocol(**self._uvicorn)
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


def _asked(start: bytes, starts: Iterable[bytes]) -> bytes | None:
    """Which of the media requests the connection's first is, empty for none; None while too little is known."""
    undecided = False
    for wanted in starts:
        if len(start) <= len(wanted):
            undecided = undecided or wanted.startswith(start)
        elif start.startswith(wanted) and start[len(wanted) : len(wanted) + 1] in (b" ", b"?"):
            return wanted
    return None if undecided else b""
