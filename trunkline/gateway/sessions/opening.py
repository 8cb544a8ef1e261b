"""The sessions of one gateway process, wired as its settings say."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trunkline.clock import Clock
from trunkline.errors import ConfigError
from trunkline.gateway.regions import Region
from trunkline.gateway.sessions import tokens
from trunkline.gateway.sessions.desk import SessionDesk, Terms
from trunkline.gateway.sessions.keeper import SessionKeeper
from trunkline.gateway.sessions.memory import MemorySessions
from trunkline.gateway.sessions.store import SessionStore
from trunkline.gateway.switchboard import Switchboard
from trunkline.metrics import Metrics
from trunkline.ports import Devices
from trunkline.privacy.texts import TextSeal
from trunkline.settings import Settings
from trunkline.types import DEFAULT_TENANT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sessions:
    desk: SessionDesk
    """The Verifier of the legs."""
    keeper: SessionKeeper


Key = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def open_sessions(
    settings: Settings,
    switchboard: Switchboard,
    devices: Devices,
    metrics: Metrics,
    clock: Clock,
    worker: str,
    seal: TextSeal | None = None,
) -> AsyncGenerator[Sessions]:
    """Raises ConfigError or MissingExtra. A Redis that is away keeps nobody from starting: devices cannot join until
    it is back, and all other calls need none."""
    store, key = _store(settings, clock, seal)
    keeper = SessionKeeper(store, clock, metrics.session_trouble)
    terms = Terms(
        region=settings.region,
        worker=worker,
        token_s=settings.sessions.join_token_seconds,
        rejoin_s=settings.limits.max_call_seconds + settings.sessions.idle_seconds,
    )
    desk = SessionDesk(
        store,
        keeper,
        key,
        devices,
        terms,
        no_line=switchboard.no_line,
        has_agent=lambda name: switchboard.agent_of(DEFAULT_TENANT, name) is not None,
        clock=clock,
        told=metrics.joined,
    )
    switchboard.sessions = keeper
    keeper.start()
    try:
        yield Sessions(desk, keeper)
    finally:
        await keeper.close()
        await store.close()


def _store(settings: Settings, clock: Clock, seal: TextSeal | None) -> tuple[SessionStore, Key]:
    own = settings.sessions.key.get_secret_value().encode() if settings.sessions.key else None
    idle_s = float(settings.sessions.idle_seconds)
    if settings.redis is None:
        key = own or tokens.key_in(settings.data_dir)
        return MemorySessions(clock, idle_s=idle_s, at_most=settings.sessions.max), _known(key)
    from trunkline.gateway.sessions.redis import RedisSessions

    try:
        redis = RedisSessions(settings.redis, idle_s=idle_s, seal=seal)
    except ValueError as error:
        raise ConfigError("redis_url", "(hidden)", "redis://HOST:PORT/DB, rediss://... or unix://PATH") from error
    return redis, _known(own) if own else _shared(redis.key)


def _known(key: bytes) -> Key:
    async def known() -> bytes:
        return key

    return known


def _shared(ask: Callable[[str], Awaitable[str]]) -> Key:
    """Asked of Redis each time; one that has lost it gets it back."""
    known = tokens.new_key()

    async def shared() -> bytes:
        nonlocal known
        known = await ask(known)
        return known.encode()

    return shared


def our_regions(settings: Settings) -> list[Region]:
    """As configured; where nothing is, ours alone."""
    if not settings.regions:
        return [Region(settings.region, settings.http.origin)]
    return [Region(name, place.url, place.lat, place.lon) for name, place in settings.regions.items()]
