"""`trunkline serve-models`: the providers of an agent file, started, behind a ModelServer until SIGTERM.

Loopback is open. Any other address is refused until clients must show a token (`remote.api_key`) or a certificate:
who reaches the port hears and speaks at our cost.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.endofturn import RuleTurnDetector
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import KINDS, Services, build
from trunkline.agents.remote.server import ModelServer
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.settings import Settings, is_loopback

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bind:
    host: str = "127.0.0.1"
    port: int = 50051
    """0: a free one."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None


def check(bind: Bind, token: str | None, definition: AgentDefinition) -> None:
    """Raises ConfigError."""
    if (bind.tls_cert is None) != (bind.tls_key is None):
        raise ConfigError("--tls-cert", _shown(bind.tls_cert), "--tls-cert and --tls-key, or neither")
    if bind.tls_client_ca is not None and bind.tls_cert is None:
        raise ConfigError("--tls-client-ca", _shown(bind.tls_client_ca), "needs --tls-cert and --tls-key as well")
    if not is_loopback(bind.host) and token is None and bind.tls_client_ca is None:
        raise ConfigError(
            "--host", bind.host, "reachable from outside, so remote.api_key or --tls-client-ca must be set as well"
        )
    for kind in KINDS:
        choices = definition.choices(kind)
        spoken = (definition, *definition.languages.values())
        if any(choice.provider == "remote" for each in spoken for choice in each.choices(kind)):
            raise ConfigError(f"{kind}.provider", "remote", "served from here are providers, not other servers")
        if len(choices) > 1:
            names = ", ".join(choice.provider for choice in choices)
            raise ConfigError(kind, names, "one is served; who follows whom is for the gateway's file to say")


async def serve_models(
    settings: Settings, definition: AgentDefinition, bind: Bind, ready: Callable[[int], None]
) -> None:
    """`ready` is called with the port. Raises ConfigError, MissingExtra, ProviderError."""
    keys = settings.provider_keys()
    token = keys.get("remote")
    check(bind, token, definition)
    certificate = _pair(bind)
    client_ca = _pem("--tls-client-ca", bind.tls_client_ca)
    if not is_loopback(bind.host) and certificate is None:
        log.warning("what callers say crosses the network in the clear: --tls-cert and --tls-key are not set")
    clock, detector = SYSTEM_CLOCK, RuleTurnDetector()
    services = Services(
        clock=clock,
        keys=keys,
        speech_workers=settings.speech.workers,
        speech_pool=SpeechPool(settings.speech.workers),
        allow_private_addresses=settings.tools.allow_private_addresses,
    )
    minds = build(replace(definition, failover=replace(definition.failover, lifeboat=False)), services)
    asked, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (again if asked.is_set() else asked).set())
    try:
        await minds.start()
        server = ModelServer(
            minds,
            detector,
            clock,
            host=bind.host,
            port=bind.port,
            token=token,
            certificate=certificate,
            client_ca=client_ca,
        )
        async with server:
            ready(server.port)
            await asked.wait()
            leaving = loop.create_task(server.stop())
            hurry = loop.create_task(again.wait())
            await asyncio.wait((leaving, hurry), return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            leaving.cancel()
    finally:
        await minds.close()


def _pair(bind: Bind) -> tuple[bytes, bytes] | None:
    certificate, key = _pem("--tls-cert", bind.tls_cert), _pem("--tls-key", bind.tls_key)
    return (certificate, key) if certificate is not None and key is not None else None


def _pem(option: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(option, str(path), f"a readable PEM file ({error.strerror})") from None


def _shown(path: Path | None) -> str | None:
    return None if path is None else str(path)
