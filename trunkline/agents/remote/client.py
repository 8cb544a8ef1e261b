"""Who asks: channels to the servers of a remote port, and requests over them.

The deadlines are ours. Where the first server asked is not there, and nothing has come of it, the session's next one
is asked, within the same deadline; a session that was answered before stays where it was (fleet.py).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from trunkline.agents.remote import wire
from trunkline.agents.remote.fleet import Fleet
from trunkline.agents.remote.options import Options
from trunkline.errors import ConfigError, ProviderError

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),  # a path that swallows everything is noticed
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # a caller is waiting: the cascade decides
)

BROKEN_WRITE = "Internal error from Core"

Method = Callable[[Any], Any]
"""Of a channel, the stub's method."""


class Client:
    """`key`: the token that the servers want, where they want one."""

    def __init__(self, provider: str, options: Options, key: str | None) -> None:
        """Raises ConfigError."""
        self._provider, self._options, self._key = provider, options, key
        self._credentials = _credentials(options) if options.tls else None
        self._channels: dict[str, Any] = {}
        self.fleet = Fleet(options.targets)

    async def start(self, describe: Method, request: Any) -> list[Any]:
        """What those servers say of themselves that are there. Raises ProviderError when none is."""
        for target in self._options.targets:
            if target not in self._channels:
                self._channels[target] = self._open(target)
        found = await asyncio.gather(*(self._describe(target, describe, request) for target in self._channels))
        said = [each for each in found if not isinstance(each, ProviderError)]
        for target, each in zip(self._channels, found, strict=True):
            if isinstance(each, ProviderError):
                log.warning("%s at %s: %s", self._provider, target, each)
        if not said:
            raise next(each for each in found if isinstance(each, ProviderError))
        return said

    async def close(self) -> None:
        """Idempotent. Requests under way are cancelled."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def ask(self, session: str, method: Method, request: Any, deadline_s: float) -> Any:
        """One request, one response. Raises ProviderError."""
        answered = self.stream(session, method, request, deadline_s, deadline_s, single=True)
        try:
            return await anext(answered)
        finally:
            await answered.aclose()

    async def stream(
        self, session: str, method: Method, request: Any, first_s: float, between_s: float, *, single: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The messages that answer the request. Closing the generator cancels it. Raises ProviderError."""
        loop = asyncio.get_running_loop()
        due = loop.time() + first_s
        last: ProviderError | None = None
        for target in self.choices(session):
            call, begun = self.begin(session, target, method, request), False
            try:
                message = await self.within(due, call if single else call.read())
                begun = True
                self.fleet.keep(session, target)
                while message is not grpc.aio.EOF:
                    yield message
                    if single:
                        return
                    message = await self.within(loop.time() + between_s, call.read())
                return
            except ProviderError as error:
                if begun or error.code != "unavailable":
                    raise
                last = error
            finally:
                call.cancel()
        raise last or self.error("unavailable", "not started")

    def choices(self, session: str) -> list[str]:
        return self.fleet.choices(session, self._is_down) if self._channels else []

    def begin(self, session: str, target: str, method: Method, request: Any = None) -> Any:
        """The call of grpc.aio; without a request, one whose requests are written to it."""
        metadata = [(wire.SESSION, session)]
        if self._key is not None:
            metadata.append((wire.AUTHORIZATION, f"Bearer {self._key}"))
        multi = method(self._channels[target])
        return multi(metadata=metadata) if request is None else multi(request, metadata=metadata)

    async def within(self, due: float, message: Awaitable[Any]) -> Any:
        """The message, or a ProviderError; `due` in the loop's time."""
        try:
            async with asyncio.timeout_at(due):
                found = await message
        except TimeoutError:
            raise self.error("timeout", "no answer in time") from None
        except Exception as error:
            raise self.failed(error) from None
        if found is None:
            raise self.garbage()
        return found

    def garbage(self) -> ProviderError:
        """grpc gives None for a message that is none."""
        return self.error("protocol", "the answer cannot be read")

    def failed(self, error: Exception) -> ProviderError:
        if isinstance(error, grpc.aio.AioRpcError):
            if error.details() == BROKEN_WRITE:  # what grpc makes of a write to a stream that is no more
                return self.error("unavailable", "the stream broke")
            trailer = {k: v for k, v in error.trailing_metadata() or () if isinstance(v, str)}
            return wire.error_of(self._provider, error.code().name, error.details() or "", trailer)
        if isinstance(error, grpc.aio.UsageError):  # the channel was closed under it
            return self.error("unavailable", "closed")
        return self.error("protocol", f"the answer fails: {type(error).__name__}")

    def error(self, code: str, detail: str) -> ProviderError:
        return ProviderError(self._provider, code, detail, retryable=True)

    def _open(self, target: str) -> Any:
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(target, self._credentials, options=CHANNEL_OPTIONS)

    def _is_down(self, target: str) -> bool:
        """As far as is known; asking makes it connect."""
        state = self._channels[target].get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def _describe(self, target: str, describe: Method, request: Any) -> Any:
        due = asyncio.get_running_loop().time() + self._options.deadlines_ms["first_ms"] / 1000
        call = self.begin("", target, describe, request)
        try:
            return await self.within(due, call)
        except ProviderError as error:
            return error
        finally:
            call.cancel()


def token(keys: Mapping[str, str]) -> str | None:
    """What our servers ask for: `remote.api_key` of the settings."""
    return keys.get("remote")


def _credentials(options: Options) -> Any:
    root = _pem("tls_ca", options.tls_ca)
    key, certificate = _pem("tls_key", options.tls_key), _pem("tls_cert", options.tls_cert)
    return grpc.ssl_channel_credentials(root, key, certificate)


def _pem(name: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(name, path, f"a readable PEM file ({error.strerror})") from None
