"""`trunkline doctor`: what a gateway needs, looked at one by one, each with one line and its remedy.

The database is opened as at a start (its tables are made or upgraded), ports are bound and given back, and each
provider of the agent, and of those it hands calls to, is asked for something small, with a deadline: that costs as much
as a word or two.
"""

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Literal

import httpx
from sqlalchemy.exc import SQLAlchemyError

from trunkline.agents import script
from trunkline.agents.alone import LACKING, build_alone
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.examples import example
from trunkline.agents.invoiced import product_of
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import KINDS, Kind, Minds, Services, build, build_realtime, build_summariser
from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.compliance.money.prices import load as load_prices
from trunkline.errors import ConfigError, MissingExtra, ProviderError, StoreError
from trunkline.gateway.livekit.room import AGENT_IDENTITY
from trunkline.gateway.sessions.livekit import LivekitServer, access_token, configured
from trunkline.ports import (
    HERE,
    CallFacts,
    Message,
    ModelLost,
    ModelOpened,
    RealtimeEvent,
    ReplyAudio,
    ReplyEnded,
    SttEvent,
    SttFailed,
    SttFinal,
    TextDelta,
)
from trunkline.settings import Settings
from trunkline.store.engine import Database, database_url
from trunkline.types import DEFAULT_TENANT, MULAW_8K, CallId, Format, SessionId

Verdict = Literal["ok", "warning", "error"]
Asked = Kind | Literal["realtime", "turn"]

PROVIDER_S = 10.0
LIVEKIT_S = 5.0
DATABASE_S = 10.0
DISK_LOW_BYTES = 1 << 30  # a day of records, or ten hours of recordings

REMEDIES = {
    "auth": "the key is refused: set another in the settings",
    "rate_limited": "wait, or raise the limit or the quota of the account",
    "timeout": "it is slow or cannot be reached: look at the network and the provider's status page",
    "unavailable": "it cannot be reached: look at its address, the network and the provider's status page",
    "overloaded": "it is overloaded: try again, or choose another model",
    "bad_request": "it refuses the request: look at the options in the agent's file (model, voice, language)",
    "protocol": "it answers what it should not: is the address that of such a service?",
}


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    took_ms: int | None = None


async def examine(
    settings: Settings, clock: Clock = SYSTEM_CLOCK, tell: Callable[[Finding], None] = lambda finding: None
) -> list[Finding]:
    """In the order of a start. A check that fails stops no other."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        tell(finding)

    note(Finding("settings", "ok", "read and complete"))
    note(_folder(settings))
    note(_disk(settings))
    note(await _database(settings))
    note(_prices(settings, clock))
    if settings.redis is not None:
        note(await _redis(settings, settings.redis))
    if (server := configured(settings.livekit)) is not None:
        note(await _livekit(server, clock))
    for name, host, port, kinds in _ports(settings):
        note(_port(name, host, port, kinds))
    note(_pjsip(settings))
    for prefix, agent in _family(settings, note):
        await _providers(settings, prefix, agent, clock, note)
    return found


# --- this machine ---------------------------------------------------------------------------------------------------


def _folder(settings: Settings) -> Finding:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = (error.strerror or "not writable").lower()
        return Finding("data_dir", "error", f"{folder}: {why}", "give data_dir a folder we may write to")
    return Finding("data_dir", "ok", f"{folder} can be written to")


def _disk(settings: Settings) -> Finding:
    try:
        free = shutil.disk_usage(settings.data_dir).free
    except OSError:
        return Finding("disk", "error", "cannot be measured", "see data_dir")
    detail = f"{free / (1 << 30):.1f} GiB free"
    if free < DISK_LOW_BYTES:
        return Finding("disk", "warning", detail, "make room: records and recordings are written to data_dir")
    return Finding("disk", "ok", detail)


async def _database(settings: Settings) -> Finding:
    try:
        database = Database(database_url(settings.database, settings.data_dir))
    except (ConfigError, MissingExtra) as error:
        return Finding("database", "error", str(error), "mend database_url")
    try:
        async with asyncio.timeout(DATABASE_S):
            await database.upgrade()
    except (ConfigError, StoreError) as error:
        return Finding("database", "error", str(error), "start it, or mend database_url")
    except (TimeoutError, OSError, SQLAlchemyError) as error:
        return Finding(
            "database", "error", f"{database.name}: {type(error).__name__}", "start it, or mend database_url"
        )
    finally:
        await database.close()
    return Finding("database", "ok", f"{database.name} answers, and its tables are as they should be")


def _prices(settings: Settings, clock: Clock) -> Finding:
    try:
        prices = load_prices(settings.money.prices)
    except ConfigError as error:
        return Finding("prices", "error", str(error), "mend that row: without its table a gateway does not start")
    old = prices.old(clock.wall().date(), settings.money.price_max_age_days)
    detail = f"version {prices.version}, {len(prices.rows)} rows"
    if old and settings.money.prices is None:
        days = settings.money.price_max_age_days
        detail += f", {len(old)} of them looked up more than {days} days ago (trunkline costs prices)"
    elif old:
        detail += f"; {len(old)} were looked up more than {settings.money.price_max_age_days} days ago"
        return Finding("prices", "warning", detail, "trunkline costs prices shows which: look them up again")
    return Finding("prices", "ok", detail)


def _priced(settings: Settings, key: str, kind: Asked, provider: Any) -> Finding | None:
    """Which rows of the price table are missing for it."""
    if kind == "turn" or product_of(provider) == HERE:
        return None
    try:
        missing = load_prices(settings.money.prices).missing(provider.name, kind, product_of(provider))
    except ConfigError:
        return None  # as it was said
    if not missing:
        return None
    refused = settings.money.limited and settings.money.unknown_price == "refuse"
    then = "calls are refused" if refused else "its costs are told as missing"
    detail = f"{'; '.join(map(str, missing))}: {then}"
    verdict: Verdict = "error" if refused else "warning"
    return Finding(f"{key} price", verdict, detail, "add the rows to prices.csv (money.prices)")


async def _redis(settings: Settings, url: str) -> Finding:
    remedy = "start it, or mend redis_url; without it devices cannot join, all other calls can"
    try:
        from trunkline.gateway.sessions.redis import RedisSessions

        store = RedisSessions(url, idle_s=settings.sessions.idle_seconds)
    except MissingExtra as error:
        return Finding("redis", "error", str(error), "install it, or leave redis_url out")
    except ValueError:
        return Finding("redis", "error", "redis_url is none", "redis://HOST:PORT/DB, rediss://... or unix://PATH")
    try:
        await store.get(SessionId("ses_doctor"))
    except StoreError as error:
        return Finding("redis", "error", str(error), remedy)
    finally:
        await store.close()
    return Finding("redis", "ok", "answers: sessions are kept there")


async def _livekit(server: LivekitServer, clock: Clock) -> Finding:
    """Its `/rtc/validate`, with the token the agent would come with; no room is made."""
    remedy = "start it, or mend livekit.url; without it sessions are opened without a room"
    if importlib.util.find_spec("livekit") is None:
        missing = "LiveKit's SDK is not installed: the gateway does not start"
        return Finding("livekit", "error", missing, "pip install 'trunkline[livekit]', or leave [livekit] out")
    token = access_token(server, SessionId("ses_doctor"), AGENT_IDENTITY, clock.wall(), 60, kind="agent")
    url = "http" + server.url.removeprefix("ws") + "/rtc/validate"
    try:
        async with httpx.AsyncClient(timeout=LIVEKIT_S) as http:
            answer = await http.get(url, headers={"Authorization": f"Bearer {token}"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding("livekit", "error", f"cannot be reached ({type(error).__name__})", remedy)
    if answer.status_code in (401, 403):
        return Finding("livekit", "error", "refuses our token", "mend livekit.api_key and livekit.api_secret")
    if answer.status_code == 404:
        detail = "makes no rooms by itself, or is no LiveKit server (404)"
        return Finding("livekit", "warning", detail, "let it make rooms (room.auto_create), or mend livekit.url")
    if answer.status_code != 200:
        return Finding("livekit", "error", f"answers {answer.status_code}", remedy)
    return Finding("livekit", "ok", "answers, and lets the agent in")


def _ports(settings: Settings) -> list[tuple[str, str, int, tuple[int, ...]]]:
    ports: list[tuple[str, str, int, tuple[int, ...]]] = [
        ("http.port", settings.http.host, settings.http.port, (socket.SOCK_STREAM,))
    ]
    if settings.sip.enabled is not False and importlib.util.find_spec("pjsua2") is not None:
        ports.append(("sip.port", settings.sip.host, settings.sip.port, (socket.SOCK_STREAM, socket.SOCK_DGRAM)))
    return ports


def _port(name: str, host: str, port: int, kinds: tuple[int, ...]) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in kinds:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                if kind == socket.SOCK_STREAM:
                    probe.listen()
            except (OSError, OverflowError) as error:
                why = (getattr(error, "strerror", None) or "cannot be bound").lower()
                remedy = f"another {name}, or stop who has it (a gateway that runs, perhaps)"
                return Finding(name, "error", f"{host}:{port}: {why}", remedy)
    return Finding(name, "ok", f"{host}:{port} is free")


def _pjsip(settings: Settings) -> Finding:
    if settings.sip.enabled is False:
        return Finding("pjsip", "ok", "not wanted: SIP is off (sip.enabled)")
    if importlib.util.find_spec("pjsua2") is None:
        wanted = settings.sip.enabled is True or bool(settings.sip.trunks)
        return Finding("pjsip", "error" if wanted else "warning", "is not installed: no SIP", "make pjsip")
    try:
        importlib.import_module("trunkline.gateway.sip.pjsip.stack")
    except (ImportError, OSError) as error:
        return Finding("pjsip", "error", f"cannot be loaded: {error}", "make pjsip")
    return Finding("pjsip", "ok", "is installed")


# --- the agent ------------------------------------------------------------------------------------------------------


def _family(settings: Settings, note: Callable[[Finding], None]) -> list[tuple[str, AgentDefinition]]:
    """The agents of a start, each with what stands before its checks; none where there is a mistake in a file."""
    try:
        family = script.load_family(settings.agent or example("clinic"))
    except ConfigError as error:
        note(Finding("agent", "error", str(error), "trunkline agent check explains each mistake"))
        return []
    found = list(zip(script.prefixes(family), family.values(), strict=True))
    for file, (prefix, agent) in zip(family, found, strict=True):
        shown = file if prefix else settings.agent or "the built-in clinic"
        note(Finding(f"{prefix}agent", "ok", f"{agent.name}: {shown}"))
    return found


async def _providers(
    settings: Settings, prefix: str, agent: AgentDefinition, clock: Clock, note: Callable[[Finding], None]
) -> None:
    pool = SpeechPool(1)
    services = Services(clock=clock, keys=settings.provider_keys(), speech_workers=1, speech_pool=pool)
    try:
        minds, realtime = build(agent, services), build_realtime(agent, services)
        summariser = build_summariser(agent, services)
    except (ConfigError, MissingExtra) as error:
        note(Finding(f"{prefix}providers", "error", str(error), "set it, or name another provider in the agent's file"))
        return
    if settings.compliance.business:
        note(_alone(prefix, agent, minds, realtime, summariser, services))
    call = CallFacts(CallId("call_doctor"), DEFAULT_TENANT, "inbound", None, None, clock.wall().astimezone(UTC))
    asked: list[tuple[Asked, str, Any]] = []
    if realtime is not None:
        asked.append(("realtime", f"realtime.{realtime.name}", realtime))
    asked += [(kind, key, provider) for kind in KINDS for key, provider in minds.everything(kind).items()]
    if minds.detector is not None:
        asked.append(("turn", minds.detector_key, minds.detector))
    if summariser is not None:
        asked.append(("llm", f"context.{summariser.name}", summariser))
    try:
        for kind, key, provider in asked:
            note(await _provider(kind, prefix + key, provider, call, clock))
            if (unpriced := _priced(settings, prefix + key, kind, provider)) is not None:
                note(unpriced)
    finally:
        for provider in (realtime, summariser, minds):
            if provider is not None:
                await _closed(provider)


def _alone(
    prefix: str, agent: AgentDefinition, minds: Minds, realtime: Any, summariser: Any, services: Services
) -> Finding:
    """Who serves callers that agree to no third party (`compliance.business` is set)."""
    check, everyone = f"{prefix}alone", [*minds.everyone(), *(each for each in (realtime, summariser) if each)]
    if not any(each.third_party for each in everyone):
        return Finding(check, "ok", "no third party hears callers")
    try:
        alone = build_alone(agent, minds, services)
    except LACKING as error:
        remedy = f"give {agent.name} a local [stt] and [tts] as spares, or pip install 'trunkline[local]'"
        return Finding(check, "error", f"callers who agree to no third party are hung up on: {error}", remedy)
    if alone.menus:
        return Finding(
            check,
            "warning",
            f"who agrees to no third party is offered {'a person or ' if agent.targets else ''}a call back, no more"
            f" ({', '.join(sorted(alone.menus))})",
            "give the file [[intents]] for them, or a local [stt] and [llm] as spares",
        )
    return Finding(check, "ok", "who agrees to no third party is served by what of it is on this machine")


async def _provider(kind: Asked, key: str, provider: Any, call: CallFacts, clock: Clock) -> Finding:
    probe: dict[str, Callable[[Any, CallFacts], Awaitable[str]]] = {
        "stt": _hears,
        "llm": _answers,
        "tts": _speaks,
        "realtime": _converses,
        "turn": _tells,
    }
    begun = clock.now()
    try:
        async with asyncio.timeout(PROVIDER_S):
            await provider.start()
            begun = clock.now()
            did = await probe[kind](provider, call)
    except TimeoutError:
        return Finding(key, "error", f"nothing within {PROVIDER_S:.0f} s", REMEDIES["timeout"])
    except ProviderError as error:
        return Finding(
            key, "error", f"{error.code}{f' ({error.detail})' if error.detail else ''}", REMEDIES[error.code]
        )
    except (ConfigError, MissingExtra) as error:
        return Finding(key, "error", str(error), "set it, or name another provider in the agent's file")
    return Finding(key, "ok", did, took_ms=round((clock.now() - begun) * 1000))


async def _answers(llm: Any, call: CallFacts) -> str:
    session = llm.open(call)
    try:
        async with aclosing(session.reply([Message("caller", "Hello?")])) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event.text.strip():
                    return "answers"
        return "answers, without a word"
    finally:
        session.close()


async def _tells(detector: Any, call: CallFacts) -> str:
    await detector.probability("Thank you, that is all.", "en-US")
    return "tells the end of a turn"


async def _speaks(tts: Any, call: CallFacts) -> str:
    async with aclosing(_audio(tts, MULAW_8K)) as chunks:
        async for data in chunks:
            if data:
                return "speaks"
    raise ProviderError(tts.name, "protocol", "no audio", retryable=True)


async def _audio(tts: Any, format: Format) -> AsyncGenerator[bytes, None]:
    async with aclosing(tts.speak("Hello.", format)) as chunks:
        async for chunk in chunks:
            yield chunk.data


async def _hears(stt: Any, call: CallFacts) -> str:
    """A quarter of a second of silence: any final is an answer."""
    answered: asyncio.Future[SttEvent] = asyncio.get_running_loop().create_future()

    def on_event(event: SttEvent) -> None:
        if isinstance(event, SttFinal | SttFailed) and not answered.done():
            answered.set_result(event)

    stream = stt.open(call, MULAW_8K, on_event)
    try:
        for _ in range(12):
            stream.feed(MULAW_8K.silence * MULAW_8K.frame_bytes)
        stream.finalize()
        event = await answered
    finally:
        stream.close()
    if isinstance(event, SttFailed):
        if isinstance(event.error, ProviderError):
            raise event.error
        raise ProviderError(stt.name, "protocol", type(event.error).__name__, retryable=True)
    return "hears"


async def _converses(model: Any, call: CallFacts) -> str:
    """A session, and a word spoken in it."""
    over: asyncio.Future[ModelLost | ReplyEnded | ReplyAudio] = asyncio.get_running_loop().create_future()
    opened = asyncio.Event()

    def on_event(event: RealtimeEvent) -> None:
        if isinstance(event, ModelOpened):
            opened.set()
        elif isinstance(event, ModelLost | ReplyEnded | ReplyAudio) and not over.done():
            over.set_result(event)
            opened.set()

    session = model.open(call, MULAW_8K, (), on_event)
    try:
        await opened.wait()
        if not over.done():
            session.respond("doctor", "Hello.")
        event = await over
    finally:
        session.close()
    error = None if isinstance(event, ReplyAudio) else event.error
    if isinstance(event, ReplyAudio):
        return "opens a session, and speaks"
    if isinstance(error, ProviderError):
        raise error
    raise ProviderError(model.name, "protocol", "no audio", retryable=True)


async def _closed(provider: Any) -> None:
    with contextlib.suppress(Exception):  # it is about to be over
        await provider.close()
