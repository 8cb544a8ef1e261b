"""Wires the rooms: one process, one event loop, one heartbeat. `serve` is the whole life of a gateway.

Order of leaving: new calls go to the fallback, live ones finish (Switchboard.drain), the media sockets are closed, only
then does the HTTP server stop (it would send 1012 to every WebSocket of its own), and last the record is drained.
"""

import asyncio
import contextlib
import errno
import logging
import secrets
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from trunkline import logs, telemetry
from trunkline.agents import script
from trunkline.agents.alone import nobody_serves
from trunkline.agents.attending import Agent
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.examples import example
from trunkline.agents.here import AgentHere
from trunkline.agents.houselines import HouseVoice
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.providers import Minds, Services, Wrap
from trunkline.agents.roster import Roster
from trunkline.agents.script.family import MAX_AGENTS
from trunkline.agents.tools.http import HttpTools
from trunkline.agents.wishes.ears import SecondEars
from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.compliance import opening
from trunkline.compliance.destinations import country_of
from trunkline.compliance.money.treasury import Treasury
from trunkline.compliance.office import Office
from trunkline.compliance.residency import Residency
from trunkline.errors import ConfigError, MissingExtra, ProviderError, StoreError
from trunkline.gateway.answeredby import MachineTerms
from trunkline.gateway.api.accounts import account_routes
from trunkline.gateway.api.app import create_http, plain_index
from trunkline.gateway.api.compliance import ComplianceDesk, compliance_routes
from trunkline.gateway.api.control import control_routes
from trunkline.gateway.api.desk import desk_routes
from trunkline.gateway.api.devices import NoRooms, Rooms, device_routes
from trunkline.gateway.api.events import event_routes
from trunkline.gateway.api.gate import Gate, Identities
from trunkline.gateway.api.history import history_routes
from trunkline.gateway.api.legs import leg_routes
from trunkline.gateway.api.providers import provider_routes
from trunkline.gateway.api.recordings import recording_routes
from trunkline.gateway.api.routed import routed_routes
from trunkline.gateway.api.trunks import TrunkView, trunk_routes
from trunkline.gateway.api.webhooks import webhook_desk_routes
from trunkline.gateway.call import DIAL_SLACK_S
from trunkline.gateway.callingback import CallingBack
from trunkline.gateway.consent import House, open_house
from trunkline.gateway.console.accounts import Accounts as ConsoleAccounts
from trunkline.gateway.console.callpages import call_pages
from trunkline.gateway.console.cookies import Cookies
from trunkline.gateway.console.doors import Doors, Render
from trunkline.gateway.console.drafts import checking, talking, trials
from trunkline.gateway.console.oidc import Provider
from trunkline.gateway.console.oidc import Terms as OidcTerms
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.passwords import Passwords
from trunkline.gateway.console.people import PeopleParts
from trunkline.gateway.console.routes import Parts, desk_page_routes
from trunkline.gateway.console.today import AgentView, BudgetView, Health
from trunkline.gateway.console.vouched import Mapped
from trunkline.gateway.console.webhooks import WebhookParts
from trunkline.gateway.console.welcome import rendering
from trunkline.gateway.console.whoanswers import checks_of, who_answers
from trunkline.gateway.entering import Entrance, Origins
from trunkline.gateway.feed import CallFeed
from trunkline.gateway.forbidden import refuse_forbidden
from trunkline.gateway.front import front_door
from trunkline.gateway.hooks.bodies import Bodies
from trunkline.gateway.hooks.sending import Sender
from trunkline.gateway.hooks.worker import HookWorker
from trunkline.gateway.joining import Verifier
from trunkline.gateway.livekit.desk import DeskTerms as LivekitTerms
from trunkline.gateway.livekit.desk import Enter, LivekitDesk
from trunkline.gateway.livekit.outgoing import livekit_lead
from trunkline.gateway.outbound import retry_policy
from trunkline.gateway.page.routes import page_routes
from trunkline.gateway.recital import Reciter
from trunkline.gateway.regions import Regions
from trunkline.gateway.regionwatch import RegionWatch
from trunkline.gateway.routed import Routing
from trunkline.gateway.sessions.livekit import configured as livekit_configured
from trunkline.gateway.sessions.opening import open_sessions, our_regions
from trunkline.gateway.sip import trunks
from trunkline.gateway.sip.desk import LIMIT_SLACK_S, SipDesk
from trunkline.gateway.sip.desktrunks import DeskTrunks
from trunkline.gateway.sip.leg import sip_lead
from trunkline.gateway.sip.signing import open_signer
from trunkline.gateway.sip.stack import FrontCounters, Stack
from trunkline.gateway.sip.vouching import open_vouching
from trunkline.gateway.slots import SlotLimits, Slots
from trunkline.gateway.spending import Spending, Ways
from trunkline.gateway.switchboard import Limits, Line, Switchboard
from trunkline.gateway.twilio.dialler import TRUNK as TWILIO_TRUNK
from trunkline.gateway.twilio.dialler import Detection, Terms, TwilioDialler
from trunkline.gateway.twilio.sockets import SocketLimits, Sockets
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import MEDIA_PATH
from trunkline.gateway.watched import Watched
from trunkline.gateway.webrtc import ice
from trunkline.gateway.webrtc.desk import DeskTerms, WebRtcDesk
from trunkline.gateway.webrtc.outgoing import webrtc_lead
from trunkline.gateway.webrtc.whip import WHIP_PATH, whip_routes
from trunkline.gateway.webrtc.wire import Paths
from trunkline.gateway.websocket.desk import WS_AUDIO_PATH, AudioSockets, AudioTerms
from trunkline.gateway.wishes import TOLD_KEY
from trunkline.keeping import (
    audit_custody,
    audit_folder,
    audit_place,
    desk_seal,
    master_keys,
    recording_folders,
    residency_of,
    shared_of,
    terms_of,
)
from trunkline.legal import policy_of
from trunkline.media.ears import Ears
from trunkline.media.echo import EchoGuard
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.music import hold_music
from trunkline.media.playout import LeadPolicy
from trunkline.media.recorder import Finished
from trunkline.media.recordings import Recordings
from trunkline.media.sources import soft_work
from trunkline.media.vad import EnergyGate, SileroBatch
from trunkline.metrics import Metrics
from trunkline.monies import budgets_of, check_money, missing_prices, money_policy, own_budgets
from trunkline.numbers.carriers.account import NumberAccount
from trunkline.numbers.desk import Desk
from trunkline.numbers.directory import Directory
from trunkline.ports import RECORDED, Budgets, CallEvent, CallQuery, Door, RecordSink, SlotStore
from trunkline.privacy.calls import Policies, RedactedRecords, by_itself
from trunkline.privacy.keys import MasterKeys
from trunkline.privacy.redaction import Kind, Policy
from trunkline.privacy.texts import TextSeal
from trunkline.settings import Settings
from trunkline.settings.privacy import Privacy
from trunkline.store.accounts import Accounts
from trunkline.store.apikeys import ApiKeys
from trunkline.store.budgets import DatabaseBudgets, taken_on
from trunkline.store.callbacks import DatabaseCallBacks
from trunkline.store.callsout import CallsOut
from trunkline.store.consentjournal import ConsentJournal
from trunkline.store.consents import ConsentLedger
from trunkline.store.desk import Desk as DeskStore
from trunkline.store.devices import KnownDevices
from trunkline.store.directory import DatabaseNumbers
from trunkline.store.dnc import DncLists
from trunkline.store.engine import Database, database_url
from trunkline.store.hookqueue import HookQueue
from trunkline.store.hooks import WebhookEndpoints
from trunkline.store.hookspool import HookSpool
from trunkline.store.orders import OrderKeys
from trunkline.store.records import LIMIT, CallRecords, Page, Record
from trunkline.store.replies import Replies
from trunkline.store.slots import DatabaseSlots
from trunkline.store.spool import Spool
from trunkline.store.stats import By
from trunkline.store.subjects import Subjects
from trunkline.store.writer import RecordWriter
from trunkline.types import DEFAULT_TENANT, E164, MULAW_8K, CallId, TenantId

log = logging.getLogger(__name__)

SPARE_SLOTS = 16  # of the ears: calls that are ending while others begin
GAUGES_S = 1.0
DESKS_S = 1.0
PURGE_EVERY_S, PURGE_S = 3600.0, 600.0
RECORDINGS_S = 2.0  # for what is written last
BACKLOG = 2048
FRESH_S = 0.5  # a database that is slower answers with what it has
SHUTDOWN_S = 5  # for HTTP requests under way


@dataclass(slots=True)
class Gateway:
    """A gateway that runs; `http` is its ASGI application."""

    settings: Settings
    agent: AgentDefinition
    roster: Roster
    """Its agents: the settings' and the desk's."""
    services: Services
    """What agents are built of: for trials of drafts (agents/trying.py)."""
    http: Starlette
    switchboard: Switchboard
    sockets: Sockets
    heartbeat: Heartbeat
    minds: Minds
    front_door: type[asyncio.Protocol]
    sip: "_Sip"
    twilio: TwilioDialler | None
    webrtc: "_WebRtc"
    audio: AudioSockets
    livekit: LivekitDesk | None
    verifier: Verifier
    """Of devices' join tokens."""
    records: Callable[[float], Awaitable[bool]]
    """Wait until the record is in the database, at most so many seconds."""
    recording: "asyncio.Task[None]"
    """Of the agent's fixed lines."""
    setup_link: str | None
    """With which the console's first admin is made. None: there is one."""

    async def hang_up(self) -> None:
        """Cut off what is left of calls, sockets and dialogs. Idempotent."""
        self.sockets.say_goodbye()
        self.switchboard.close()
        await self.sockets.close()
        if self.twilio is not None:
            await self.twilio.close()
        if self.sip.desk is not None:
            await self.sip.desk.close()
        if self.webrtc.desk is not None:
            await self.webrtc.desk.close()
        await self.audio.close()
        if self.livekit is not None:
            await self.livekit.close()


def load_agent(settings: Settings) -> AgentDefinition:
    """Of the agent that has every call first. Raises ConfigError naming file, line and mistake."""
    return script.load(settings.agent or example("clinic"))


def load_family(settings: Settings) -> dict[str, AgentDefinition]:
    """That agent, and those that calls may be handed to, by their files. Raises ConfigError."""
    return script.load_family(settings.agent or example("clinic"))


@contextlib.asynccontextmanager
async def gateway(settings: Settings, clock: Clock = SYSTEM_CLOCK, wrap: Wrap | None = None) -> AsyncGenerator[Gateway]:
    """Everything started, in order, and stopped in the reverse. `wrap`: what stands before the agent's providers."""
    family = load_family(settings)
    if settings.compliance.business:
        family = {file: each.heeding() for file, each in family.items()}
    first, agent = next(iter(family.items()))
    metrics = Metrics()
    spans = telemetry.create_telemetry(settings.otel.endpoint)
    pool = SpeechPool(settings.speech.workers)
    written, untold = policies(settings.privacy)
    services = Services(
        clock=clock,
        keys=settings.provider_keys(),
        speech_workers=settings.speech.workers,
        speech_pool=pool,
        allow_private_addresses=settings.tools.allow_private_addresses,
        untold=untold,
    )
    http_tools = HttpTools(services.keys, allow_private=services.allow_private_addresses)

    residency = residency_of(settings)
    may_be_alone = bool(settings.compliance.business) or residency.limits_providers

    def speech_ready() -> bool:
        return not pool.in_use or pool.ready_workers > 0

    agents = {
        file: AgentHere(
            each, services, http_tools, speech_ready, wrap if file == first else None, prefix, may_be_alone=may_be_alone
        )
        for (file, each), prefix in zip(family.items(), script.prefixes(family), strict=True)
    }

    shared = shared_of(settings)
    shared_tools = HttpTools(shared.keys(services.keys), allow_private=shared.private_addresses)

    def of_desk(definition: AgentDefinition, prefix: str) -> AgentHere:
        heard = definition.heeding() if settings.compliance.business else definition
        return AgentHere(heard, services, shared_tools, speech_ready, None, prefix, may_be_alone=may_be_alone)

    _writable(settings.data_dir)
    refuse_forbidden(family, settings.twilio.fallback_number)

    async with contextlib.AsyncExitStack() as stack:
        keys, seal, spool = await _opened_keys(settings)
        stack.callback(spool.close)
        own_seal = await asyncio.to_thread(desk_seal, settings, keys)  # a key service takes its time
        database = Database(database_url(settings.database, settings.data_dir), seal=seal)
        stack.push_async_callback(database.close)
        hooks = HookSpool(database, Bodies(written), clock)
        desk_store = DeskStore(database, clock, own_seal, hooks)
        roster = Roster(agents, desk_store, of_desk, clock, shared, (_calls_nobody_forbidden,))
        writer = RecordWriter(spool, database, clock, worker=settings.worker, hooks=hooks)
        stack.push_async_callback(writer.close)
        stack.push_async_callback(http_tools.close)
        stack.push_async_callback(shared_tools.close)
        await writer.start()
        for file, each in agents.items():
            await stack.enter_async_context(each.started(clock, needed=file == first))
            if each.alone_lacks:
                log.warning("%s", nobody_serves(each.definition, each.alone_lacks))

        stack.push_async_callback(roster.close)
        capacity = settings.limits.max_calls + SPARE_SLOTS
        ears = Ears(MULAW_8K, capacity, SileroBatch(capacity), EnergyGate(capacity))
        heartbeat = Heartbeat(clock, ears.beat, metrics.beat)
        office, counsel, noted = await _open_compliance(settings, database, hooks, clock)
        stack.push_async_callback(noted.close)
        stack.push_async_callback(office.close)
        tokens = Tokens(worker=settings.worker)
        recordings = Recordings(settings.data_dir / "recordings", keys, _noted(spool, clock))
        stack.push_async_callback(asyncio.to_thread, recordings.wait, RECORDINGS_S)
        hold_music()  # made now: it takes 50 ms, which no call is to notice
        if any(each.background for each in family.values()):
            soft_work()
        feed = CallFeed(await _audited(stack, settings, roster.sha256, keys, spool, metrics, clock))
        switchboard = Switchboard(
            agents[first].agent,
            Line(
                ears,
                heartbeat,
                echo=lambda: EchoGuard(MULAW_8K),
                recorder=recordings.open,
            ),
            Limits(
                max_calls=settings.limits.max_calls,
                max_call_s=settings.limits.max_call_seconds,
                reserved_inbound=settings.limits.reserved_inbound,
            ),
            RedactedRecords(feed, written),
            residency.guarding(office.decide),
            metrics,
            spans,
            clock,
            retry_policy(settings.outbound),
            roster.agents,
        )
        feed.state_of = lambda call_id: call.machine.state.value if (call := switchboard.call(call_id)) else None
        roster.in_use = switchboard.attending
        recordings.folder_of = partial(_folder_of, settings, residency, switchboard)
        treasury = await _open_money(stack, settings, switchboard, agents[first].agent, database, clock)
        roster.began.append(partial(_introduced, treasury))
        switchboard.slots = _open_slots(stack, settings, database, clock)
        switchboard.routing = await _open_routing(stack, database, roster, clock)
        switchboard.went_out, switchboard.prepare = office.went_out, counsel.prepare
        if office.policy.in_force:
            switchboard.consents, office.revoked = office, switchboard.revoked
            switchboard.keys = settings.consent.opt_out_key, settings.consent.withdraw_key
            switchboard.second_ears = await _second_ears(stack, pool)
            here = [(each.definition, each.minds) for each in agents.values()]
            switchboard.house = house = await stack.enter_async_context(_open_house(settings, here, services, office))
            roster.began.append(lambda begun: house.welcome(begun.definition))
        switchboard.policies = written
        twilio = _open_twilio(settings, family.values(), switchboard, clock)
        if twilio is not None:
            stack.push_async_callback(twilio.close)
        hang_up, further = (twilio.hang_up, twilio.further) if twilio is not None else (None, None)
        sockets = Sockets(switchboard, tokens, _socket_limits(settings), metrics, clock, hang_up, further)
        records = _Fresh(database, writer)

        def not_ready() -> list[str]:
            return ["draining"] * switchboard.draining + ["no speech worker"] * (not speech_ready())

        sip = await _open_sip(settings, switchboard, clock)
        if sip.desk is not None:
            switchboard.reciter = await _open_reciter(stack, agents[first].agent, services, speech_ready)
        if sip.desk is not None:
            stack.push_async_callback(sip.desk.close)
        ways_out = [way.trunks for way in (sip.desk, twilio) if way is not None]

        def all_trunks() -> list[TrunkView]:
            return [trunk for trunks in ways_out for trunk in trunks()]

        more = trunk_routes(all_trunks)
        recording = recording_routes(records, lambda: recording_folders(settings), keys, clock)
        first_routes = [
            *history_routes(records, clock, all_trunks),
            *event_routes(switchboard, feed),
            *recording,
        ]
        more += provider_routes(lambda: [row for each in roster.everyone() for row in each.health(clock.now())])
        more += control_routes(switchboard.call) + leg_routes(switchboard.call, partial(office.know, purpose=None))
        webhooks = _open_hooks(stack, settings, database, hooks, metrics, clock, own_seal)
        more += compliance_routes(counsel)
        more += webhook_desk_routes(
            webhooks.endpoints, webhooks.send, clock, allow_private=settings.webhooks.allow_private_addresses
        )
        desk = Desk(desk_store, partial(script.mistakes, foreign=shared), switchboard.routing.directory.changed)
        more += routed_routes(switchboard.routing.directory, clock)
        if sip.desk is not None:
            sip.of_desks = DeskTrunks(desk_store, sip.desk, settings.sip, settings.stir.policy)
            await sip.of_desks.start()
            stack.push_async_callback(sip.of_desks.close)
        more += desk_routes(desk, Replies(database, clock))
        devices = KnownDevices(database, clock)
        sessions = await stack.enter_async_context(
            open_sessions(settings, switchboard, devices, metrics, clock, settings.worker, seal)
        )
        regions = Regions(our_regions(settings), settings.region, lambda: not not_ready())
        watch = RegionWatch(regions)
        watch.start()
        stack.push_async_callback(watch.close)
        livekit = _open_livekit(settings, switchboard, sessions.desk, clock)
        if livekit is not None:
            stack.push_async_callback(livekit.close)
        more += device_routes(sessions.desk, devices, regions, livekit or _NO_ROOMS)
        webrtc = _open_webrtc(settings, switchboard, sessions.desk, clock)
        if webrtc.desk is not None:
            stack.push_async_callback(webrtc.desk.close)
            more += whip_routes(webrtc.desk, settings.devices.origins, settings.http.origin)
        more += page_routes(settings.devices.origins, plain_index(settings.http.origin))
        pages = Pages()
        more += call_pages(
            pages,
            switchboard,
            records,
            records,
            feed,
            clock,
            find=switchboard.call,
            know=partial(office.know, purpose=None),
            health=Health(
                not_ready,
                all_trunks,
                lambda: [row for each in roster.everyone() for row in each.health(clock.now())],
                partial(_agents_of, roster),
                partial(_budgets_now, settings, database, clock),
            ),
            play=recording[0].endpoint,
        )
        audio = _open_audio(settings, switchboard, sessions.desk, metrics, clock)
        stack.push_async_callback(audio.close)
        identity = _open_identity(stack, settings, database, clock, rendering(pages))
        more += identity.routes
        parts = Parts(
            check=checking(roster.read),
            trunks=all_trunks,
            trunk_checks=checks_of(settings, all_trunks),
            who_answers=who_answers(switchboard.routing.directory),
            account=_number_account(stack, settings, clock),
            origin=settings.http.public_url or "",
            people=identity.people,
            webhooks=webhooks,
            talk=talking(roster, sessions.desk),
            open_trial=trials(roster.read, services),
        )
        more += [*pages.static_routes(), *desk_page_routes(pages, desk, clock, parts)]
        orders = OrderKeys(database, clock, worker=settings.worker)
        http = create_http(
            settings,
            switchboard,
            records,
            metrics,
            clock,
            not_ready,
            tokens,
            more,
            orders=orders,
            placed=twilio,
            counsel=counsel,
            may_fall_back=switchboard.may_fall_back,
            expect=switchboard.expect,
            keyed=switchboard.waiting.keyed,
            expect_order=switchboard.expect_order,
            gate=identity.gate,
            first_routes=first_routes,
        )
        _call_back(stack, switchboard, DatabaseCallBacks(database, clock), counsel, twilio is not None, clock)
        purging = asyncio.create_task(_purges(settings, database, keys, clock), name="purge")
        stack.push_async_callback(_cancelled, purging)
        counted = _gauges(metrics, spool, pool, ears, switchboard.second_ears, sip, webrtc, roster.everyone)
        gauges = asyncio.create_task(counted, name="gauges")
        stack.push_async_callback(_cancelled, gauges)
        roster.start()
        following = asyncio.create_task(_follow_desks(roster, treasury, desk_store), name="desks")
        stack.push_async_callback(_cancelled, following)
        heartbeat.start()
        stack.callback(heartbeat.stop)
        stack.callback(spans.close)
        door = front_door({MEDIA_PATH: sockets.new_leg, WS_AUDIO_PATH: audio.new_leg})
        yield Gateway(
            settings,
            agent,
            roster,
            services,
            http,
            switchboard,
            sockets,
            heartbeat,
            agents[first].minds,
            door,
            sip,
            twilio,
            webrtc,
            audio,
            livekit,
            sessions.desk,
            writer.drain,
            agents[first].recording,
            await _setup_link(settings, identity.accounts),
        )


def _call_back(
    stack: contextlib.AsyncExitStack,
    switchboard: Switchboard,
    backs: DatabaseCallBacks,
    counsel: ComplianceDesk,
    over_twilio: bool,
    clock: Clock,
) -> None:
    """Whoever asked for it while they waited for a line."""
    switchboard.waiting.call_backs = backs
    calling = CallingBack(switchboard, backs, counsel, clock, trunk=TWILIO_TRUNK if over_twilio else None)
    calling.start()
    stack.push_async_callback(calling.close)


async def _follow_desks(roster: Roster, treasury: Treasury, desk: DeskStore) -> None:
    """The versions that calls may be given are there before they come, and what calls may cost is known. What cannot be
    read now is read a second later."""
    seen: int | None = None
    while True:
        with contextlib.suppress(StoreError):
            revision = await desk.revisions()
            if revision != seen:
                roster.want(await desk.answering(MAX_AGENTS - len(roster.family)))
                treasury.own = own_budgets(await desk.budgets())
                seen = revision
        await asyncio.sleep(DESKS_S)


def _calls_nobody_forbidden(definition: AgentDefinition) -> None:
    refuse_forbidden({definition.known_as: definition}, None)


async def _introduced(treasury: Treasury, begun: AgentHere) -> None:
    for missing in missing_prices(treasury, [begun.agent]):
        log.warning("%s: %s: %s", begun.definition.known_as, missing, _without_price(treasury))
    if begun.alone_lacks:
        log.warning("%s", nobody_serves(begun.definition, begun.alone_lacks))
    if begun.definition.background:
        await asyncio.to_thread(soft_work)


async def _opened_keys(settings: Settings) -> tuple[MasterKeys | None, TextSeal | None, Spool]:
    """And the spool, which wants the keys of what dead processes left. Raises ConfigError, StoreError."""

    def opened() -> tuple[MasterKeys | None, TextSeal | None, Spool]:
        keys = master_keys(settings)
        seal = None if keys is None else TextSeal(keys)
        return keys, seal, Spool(settings.data_dir / "spool" / settings.worker, seal=seal)

    return opened() if settings.privacy.kms is None else await asyncio.to_thread(opened)  # a service takes its time


async def _audited(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    agents: Mapping[str, str],
    keys: MasterKeys | None,
    records: RecordSink,
    metrics: Metrics,
    clock: Clock,
) -> RecordSink:
    """`agents`: SHA-256 of their scripts, by name. Raises ConfigError for a folder that cannot be written, and without
    the extra."""
    given = settings.audit
    if not given.is_on:
        return records
    custody, folder = audit_custody(settings, keys), audit_place(settings)
    from trunkline.store.audit.files import AuditFiles
    from trunkline.store.audit.log import AuditedRecords, AuditLog
    from trunkline.store.audit.rows import Sampling

    files = AuditFiles(folder, settings.worker, custody)
    audit = AuditLog(files, clock, partial(metrics.drop, "audit_full"), given.batch_seconds, metrics.audit_waiting)
    try:
        await audit.start()
    except StoreError as error:
        raise ConfigError("audit.folder", str(folder), f"a folder we may write to ({error})") from error
    stack.push_async_callback(audit.close)
    return AuditedRecords(records, Sampling(given.sample_percent, agents, words=given.transcripts), audit.append)


async def _second_ears(stack: contextlib.AsyncExitStack, pool: SpeechPool) -> SecondEars:
    """During the opening lines, and beside an agent that may not write down what callers say."""
    ears = SecondEars(pool)
    await ears.start()
    stack.push_async_callback(ears.close)
    return ears


async def _open_compliance(
    settings: Settings, database: Database, hooks: HookSpool, clock: Clock
) -> tuple[Office, ComplianceDesk, ConsentJournal]:
    policy = policy_of(settings)
    ledger, lists = ConsentLedger(database, hooks), DncLists(database)
    journal = ConsentJournal(settings.data_dir / "spool" / f"{settings.worker}.consent.jsonl", ledger.note)
    calls_out = CallsOut(database)
    office = Office(policy, ledger, lists, journal, clock, tables=settings.compliance.tables, calls_out=calls_out)
    await office.start()
    journal.start()
    return office, ComplianceDesk(office, ledger, lists, clock, journal.drain), journal


def _open_house(
    settings: Settings, agents: Sequence[tuple[AgentDefinition, Minds]], services: Services, office: Office
) -> contextlib.AbstractAsyncContextManager[House]:
    """What callers hear before the agent does. Raises ConfigError, also for a name that cannot be spoken."""
    given, terms = settings.compliance, settings.consent
    wording = opening.Wording(
        opening.load(terms.lines),
        given.business,
        given.callback_number,
        terms.opt_out_key or TOLD_KEY,
        terms.opt_out_number,
    )
    kept: tuple[Door, ...] = ("transcript", "third_party")
    if settings.record:
        kept = ("record", *kept)
    return open_house(wording, agents, services, office, kept, terms.answer_seconds)


def _open_hooks(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    database: Database,
    hooks: HookSpool,
    metrics: Metrics,
    clock: Clock,
    seal: TextSeal,
) -> WebhookParts:
    """Webhooks out: the sending of them. `seal`: of their secrets."""
    allow_private = settings.webhooks.allow_private_addresses
    sender = Sender(clock, allow_private=allow_private)
    stack.push_async_callback(sender.close)
    queue = HookQueue(database, clock, worker=settings.worker, seal=seal)
    worker = HookWorker(queue, sender.send, metrics, clock)
    hooks.on_new = worker.wake
    worker.start()
    stack.push_async_callback(worker.close)
    return WebhookParts(WebhookEndpoints(database, clock, seal), sender.send, allow_private)


async def _open_money(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    switchboard: Switchboard,
    agent: Agent,
    database: Database,
    clock: Clock,
) -> Treasury:
    """Raises ConfigError for a price table that is wrong, and for limits that cannot be kept."""
    budgets: Budgets = DatabaseBudgets(database, clock)
    if settings.redis is not None:
        from trunkline.store.redis import RedisBudgets

        budgets = redis = RedisBudgets(settings.redis)
        stack.push_async_callback(redis.close)
    treasury = Treasury(money_policy(settings.money), budgets, clock)
    check_money(settings, treasury, agent)
    for missing in missing_prices(treasury, [agent, *switchboard.agents.values()]):
        log.warning("%s: %s", missing, _without_price(treasury))
    ways = Ways(settings.money.cheaper_agent, settings.money.at_limit_target)
    switchboard.spending = spending = Spending(treasury, ways, switchboard.metrics, clock.now)
    treasury.start()
    stack.push_async_callback(treasury.close)
    spending.start()
    stack.push_async_callback(spending.close)
    return treasury


def _without_price(treasury: Treasury) -> str:
    return "calls are refused" if treasury.policy.refuse_unknown else "costs are told without it"


def _open_slots(stack: contextlib.AsyncExitStack, settings: Settings, database: Database, clock: Clock) -> Slots:
    """Where calls of all processes are counted together: those of the settings' limits, and of numbers that have their
    own."""
    given = settings.limits
    store: SlotStore = DatabaseSlots(database, clock)
    if settings.redis is not None:
        from trunkline.store.redis import RedisSlots

        store = redis = RedisSlots(settings.redis)
        stack.push_async_callback(redis.close)
    limits = SlotLimits(
        given.max_calls_per_tenant,
        given.max_calls_per_number,
        given.reserved_inbound_per_tenant,
        given.reserved_inbound_per_number,
    )
    slots = Slots(limits, store, clock, process=secrets.token_hex(8))
    slots.start()
    stack.push_async_callback(slots.close)
    return slots


async def _open_routing(stack: contextlib.AsyncExitStack, database: Database, roster: Roster, clock: Clock) -> Routing:
    """Who answers a number, as the desk says."""
    directory = Directory(DatabaseNumbers(database))
    await directory.start()
    stack.push_async_callback(directory.close)
    return Routing(directory, roster, clock, country_of)


@dataclass(frozen=True, slots=True)
class _Identity:
    gate: Gate
    accounts: ConsoleAccounts
    routes: list[Route]
    people: PeopleParts


def _open_identity(
    stack: contextlib.AsyncExitStack, settings: Settings, database: Database, clock: Clock, render: Render
) -> _Identity:
    """Who may come in. Raises MissingExtra where OpenID is set and its packages are not there."""
    users, keys, passwords = Accounts(database, clock), ApiKeys(database, clock), Passwords()
    stack.callback(passwords.close)
    accounts = ConsoleAccounts(users, passwords, clock)
    cookies = Cookies(https=settings.http.origin.startswith("https:"))
    gate = Gate(settings.api_keys, clock, Identities(users, keys, accounts, cookies))
    stack.push_async_callback(gate.close)
    accounts.changed = gate.forget_locked
    oidc, provider = settings.console.oidc, None
    if oidc.issuer is not None and oidc.client_id is not None:
        secret = None if oidc.client_secret is None else oidc.client_secret.get_secret_value()
        redirect = f"{settings.http.origin}/console/oidc/callback"
        provider = Provider(OidcTerms(oidc.issuer, oidc.client_id, redirect, secret), clock)
    mapped = Mapped(oidc.allowed_domains, oidc.role_claim, oidc.role_map, oidc.auto_create)
    doors = Doors(accounts, users, cookies, render, provider, mapped)
    origin = settings.http.origin
    routes = account_routes(users, keys, accounts, clock, origin, gate.forget_key, gate.forget_locked)
    people = PeopleParts(users, keys, accounts, origin, gate.forget_key, gate.forget_locked)
    return _Identity(gate, accounts, [*routes, *doors.routes()], people)


def _number_account(stack: contextlib.AsyncExitStack, settings: Settings, clock: Clock) -> NumberAccount | None:
    """Where numbers are bought that can be pointed at us."""
    given = settings.twilio
    if given.account_sid is None or not settings.http.public_url:
        return None
    from trunkline.gateway.twilio.numbers import TwilioNumbers
    from trunkline.gateway.twilio.rest import TwilioRest

    rest = TwilioRest(
        given.account_sid, given.login, clock, region=given.region, edge=given.edge, api_url=given.api_url
    )
    stack.push_async_callback(rest.close)
    return TwilioNumbers(rest)


async def _setup_link(settings: Settings, accounts: ConsoleAccounts) -> str | None:
    try:
        async with asyncio.timeout(FRESH_S):
            token = await accounts.setup_token()
    except (StoreError, TimeoutError) as error:
        log.warning("whether the console has an admin is not known: %s", str(error) or "the database is slow")
        return None
    return None if token is None else f"{settings.http.origin}/console/setup?token={token}"


def _socket_limits(settings: Settings) -> SocketLimits:
    media = settings.media
    return SocketLimits(
        max_unauthenticated=settings.twilio.max_unauthenticated,
        start_timeout_s=settings.twilio.start_timeout_s,
        media_timeout_s=settings.twilio.media_timeout_s,
        lead=LeadPolicy(
            start_ms=min(max(600, media.lead_ms_min), media.lead_ms_max),
            min_ms=media.lead_ms_min,
            max_ms=media.lead_ms_max,
            message_ms=media.message_ms,
        ),
    )


_DETECTION: dict[str, Detection] = {"enable": "Enable", "detect_message_end": "DetectMessageEnd"}


def _open_twilio(
    settings: Settings, agents: Iterable[AgentDefinition], switchboard: Switchboard, clock: Clock
) -> TwilioDialler | None:
    """Calls of ours over the account, where there is one."""
    given = settings.twilio
    if given.account_sid is None:
        return None
    from trunkline.gateway.twilio.rest import TwilioRest

    account = TwilioRest(
        given.account_sid, given.login, clock, region=given.region, edge=given.edge, api_url=given.api_url
    )
    max_call_s = settings.limits.max_call_seconds
    terms = Terms(
        origin=settings.http.origin,
        from_number=E164(given.from_number) if given.from_number else None,
        limit_s=max_call_s + LIMIT_SLACK_S + (max_call_s + DIAL_SLACK_S if any(each.targets for each in agents) else 0),
        machine_detection=_DETECTION.get(given.machine_detection),
        hang_up_on_machine=given.on_machine == "hang_up",
    )
    dialler = TwilioDialler(account, switchboard, terms, clock)
    switchboard.diallers.append(dialler)
    dialler.start()
    return dialler


@dataclass(slots=True)
class _Sip:
    about: str
    """Where we answer over SIP, or why we do not: a line for people."""
    desk: SipDesk | None = None
    stack: Stack | None = None
    of_desks: DeskTrunks | None = None
    """The trunks that admins own."""


async def _open_sip(settings: Settings, switchboard: Switchboard, clock: Clock) -> _Sip:
    """Raises ConfigError for what was asked for and cannot be; what nobody asked for is left out, with a line."""
    wanted = settings.sip.enabled is True or bool(settings.sip.trunks)
    if settings.sip.enabled is False:
        return _Sip("SIP is off (sip.enabled)")
    try:
        from trunkline.gateway.sip.pjsip.build import PUBLISHED_CALLS
        from trunkline.gateway.sip.pjsip.stack import PjsipStack
    except ImportError as error:
        if wanted:
            raise ConfigError("sip.enabled", settings.sip.enabled, f"needs PJSIP: make pjsip ({error})") from error
        return _Sip("no SIP: PJSIP is not installed (make pjsip)")
    configured = trunks.configured(settings.sip, settings.stir.policy)
    stack = PjsipStack(settings.sip, configured, settings.limits.max_calls, clock)
    desk = SipDesk(
        stack,
        switchboard,
        configured,
        clock,
        media_timeout_s=settings.sip.media_timeout_s,
        lead=sip_lead(settings.sip.lead_ms),
        machine=MachineTerms(settings.sip.machine_detection, settings.sip.on_machine == "hang_up"),
        vouching=open_vouching(settings.stir, settings.sip, clock),
        signer=open_signer(settings.stir, clock),
    )
    try:
        await desk.start()
    except ConfigError as error:
        await desk.close()
        if wanted:
            raise
        return _Sip(f"no SIP: {error}")
    names = ", ".join(trunk.name for trunk in configured)
    host = f"[{settings.sip.host}]" if ":" in settings.sip.host else settings.sip.host
    about = f"sip:{host}:{settings.sip.port} (trunks: {names})"
    if not stack.tuned:
        about += f"; with the published PJSIP, {PUBLISHED_CALLS} calls at most: make pjsip builds ours"
    return _Sip(about, desk, stack)


async def _open_reciter(
    stack: contextlib.AsyncExitStack, agent: Agent, services: Services, ready: Callable[[], bool]
) -> Reciter | None:
    """Says messages, an outage's among them, whether the agent's model is there or not."""
    try:
        voice = HouseVoice(agent.definition, agent.minds, services)
        await voice.start(())
    except (ConfigError, MissingExtra, ProviderError) as error:
        log.warning("messages over SIP need the voice of %s: %s", agent.definition.name, error)
        return None
    stack.push_async_callback(voice.close)
    return Reciter(voice, ready, services.clock)


@dataclass(slots=True)
class _WebRtc:
    about: str
    """Where browsers call us, or why they cannot: a line for people."""
    desk: WebRtcDesk | None = None


def _open_webrtc(settings: Settings, switchboard: Switchboard, verifier: Verifier, clock: Clock) -> _WebRtc:
    """Raises ConfigError for what was asked for and cannot be; what nobody asked for is left out, with a line."""
    given = settings.webrtc
    if given.enabled is False:
        return _WebRtc("WebRTC is off (webrtc.enabled)")
    try:
        from trunkline.gateway.webrtc.opus import library
        from trunkline.gateway.webrtc.rtc import AiortcWire, certificate

        library()
        certificate()
    except (ImportError, MissingExtra) as error:
        if given.enabled is True:
            raise ConfigError(
                "webrtc.enabled", True, f"needs aiortc: pip install 'trunkline[webrtc]' ({error})"
            ) from error
        return _WebRtc("no WebRTC: aiortc is not installed (pip install 'trunkline[webrtc]')")
    terms = DeskTerms(
        Paths(
            given.own_addresses,
            settings.is_open,
            given.told_address,
            given.port_min,
            given.port_max,
            given.relay_only,
            tuple(ice.read(url) for url in given.ice_servers),
            connect_s=given.connect_timeout_s,
        ),
        webrtc_lead(given.lead_ms),
        given.max_connecting,
        given.media_timeout_s,
        settings.is_open,
        given.turn_secret.get_secret_value() if given.turn_secret else "",
    )
    return _WebRtc(f"{settings.http.origin}{WHIP_PATH}", WebRtcDesk(switchboard, verifier, AiortcWire, terms, clock))


def _open_audio(
    settings: Settings, switchboard: Switchboard, verifier: Verifier, metrics: Metrics, clock: Clock
) -> AudioSockets:
    """Devices' calls over WebSockets."""
    given = settings.websocket
    lead = LeadPolicy(given.lead_ms_min, given.lead_ms_min, given.lead_ms_max, message_ms=100)
    return AudioSockets(
        Entrance(switchboard, verifier, anonymous=settings.is_open),
        Origins(settings.http.origin, settings.devices.origins),
        AudioTerms(lead, given.max_unauthenticated, given.start_timeout_s, given.media_timeout_s),
        metrics,
        clock,
    )


_NO_ROOMS: Rooms = NoRooms()


def _open_livekit(settings: Settings, switchboard: Switchboard, sessions: Enter, clock: Clock) -> LivekitDesk | None:
    """Raises ConfigError where there is a server and not its SDK."""
    server = livekit_configured(settings.livekit)
    if server is None:
        return None
    try:
        from trunkline.gateway.livekit.rtc import SdkRoom
    except ImportError as error:
        wanted = f"needs LiveKit's SDK: pip install 'trunkline[livekit]' ({error})"
        raise ConfigError("livekit.url", server.url, wanted) from error
    terms = LivekitTerms(server, livekit_lead(), settings.livekit.max_rooms)
    return LivekitDesk(switchboard, sessions, SdkRoom, terms, clock)


class _Fresh(CallRecords):
    """Reads what was appended before the question, not what happens to be in the database already."""

    def __init__(self, database: Database, writer: RecordWriter) -> None:
        super().__init__(database)
        self._writer = writer

    async def get(self, tenant: TenantId, call_id: CallId) -> Record | None:
        await self._writer.flush(FRESH_S)
        return await super().get(tenant, call_id)

    async def search(
        self, tenant: TenantId, query: CallQuery, *, limit: int = LIMIT, cursor: str | None = None
    ) -> Page:
        await self._writer.flush(FRESH_S)
        return await super().search(tenant, query, limit=limit, cursor=cursor)

    async def stats(self, tenant: TenantId, since: datetime, until: datetime, by: By) -> Record:
        await self._writer.flush(FRESH_S)
        return await super().stats(tenant, since, until, by)


def _agents_of(roster: Roster, tenant: TenantId) -> list[AgentView]:
    """That are here: those of the settings are the operator's."""
    whole = tenant == DEFAULT_TENANT
    here = [each for each in roster.everyone() if whole or each.definition.name.startswith(f"{tenant}/")]
    return [AgentView(each.definition.name, each.agent.ready()) for each in here]


async def _budgets_now(settings: Settings, database: Database, clock: Clock, tenant: TenantId) -> list[BudgetView]:
    day = clock.wall().date().isoformat()
    return [BudgetView(*each) for each in budgets_of(settings.money, await taken_on(database, tenant, day))]


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = (error.strerror or "not writable").lower()
        raise ConfigError("data_dir", str(folder), f"a folder we may write to ({why})") from error


def _folder_of(settings: Settings, residency: Residency, switchboard: Switchboard, call_id: CallId) -> Path:
    call = switchboard.call(call_id)
    started = None if call is None else call.started
    place = (
        residency.place_of("inbound", None, None)
        if started is None
        else residency.place_of(started.direction, started.from_number, started.to_number)
    )
    own = None if place is None else settings.privacy.residency[place.name].recordings
    return own or settings.data_dir / "recordings"


def _noted(spool: Spool, clock: Clock) -> Callable[[CallId, Finished], None]:
    """Straight into the spool, which takes it from any thread; there is nothing in it to redact."""

    def noted(call_id: CallId, finished: Finished) -> None:
        spool.append(CallEvent(call_id, clock.wall(), RECORDED, asdict(finished)))

    return noted


async def _purges(settings: Settings, database: Database, keys: MasterKeys | None, clock: Clock) -> None:
    """What is old is deleted once an hour. A database that is away is asked again an hour later."""
    subjects = Subjects(database, *recording_folders(settings), audit=audit_folder(settings, keys))
    terms = terms_of(settings)
    while True:
        try:
            async with asyncio.timeout(PURGE_S):
                done = await subjects.purge(terms, clock.wall())
        except (StoreError, OSError, TimeoutError) as error:
            log.error("what is old was not deleted: %s", str(error) or type(error).__name__)
        else:
            if any(done.values()):
                log.info("deleted what is old: %s", ", ".join(f"{count} {what}" for what, count in done.items()))
        await asyncio.sleep(PURGE_EVERY_S)


async def _gauges(
    metrics: Metrics,
    spool: Spool,
    pool: SpeechPool,
    ears: Ears,
    second_ears: SecondEars | None,
    sip: _Sip,
    webrtc: _WebRtc,
    agents: Callable[[], Iterable[AgentHere]],
) -> None:
    """What others count, for /metrics, once a second."""
    dropped = 0
    seen = {"done": 0, "overloaded": 0, "restarted": 0}
    turned, providers = FrontCounters(), set[str]()
    while True:
        await asyncio.sleep(GAUGES_S)
        metrics.spool_backlog(spool.stats.appended - spool.stats.committed)
        metrics.speech_queue(pool.live_jobs)
        metrics.tasks(len(asyncio.all_tasks()))
        metrics.slots_free(ears.free)
        before, providers = providers, set()
        for each in agents():
            for key, breaker in each.minds.health.breakers.items():
                metrics.provider(each.prefix + key, breaker.state, breaker.successes, breaker.failures)
                providers.add(each.prefix + key)
        for key in before - providers:
            metrics.no_provider(key)
        metrics.drop("spool_full", spool.stats.dropped - dropped)
        dropped = spool.stats.dropped
        now = {"done": pool.stats.jobs, "overloaded": pool.stats.overloads, "restarted": pool.stats.restarts}
        for event, count in now.items():
            if count > seen[event]:
                metrics.speech_job(event, count - seen[event])  # type: ignore[arg-type]
        seen = now
        if second_ears is not None:
            second_ears.count(metrics.overheard)
        if sip.desk is not None and sip.stack is not None:
            turned = _sip_gauges(metrics, sip.desk, sip.stack, turned)
        if webrtc.desk is not None:
            webrtc.desk.measure()


def _sip_gauges(metrics: Metrics, desk: SipDesk, stack: Stack, before: FrontCounters) -> FrontCounters:
    metrics.sip_dialogs(desk.dialogs)
    for name, state in desk.trunk_states.items():
        metrics.sip_trunk(name, {"up": 1, "down": 0, "unknown": -1}[state])
    metrics.sip_clock_late(stack.clock().get("late_ms_p99", 0.0) / 1000)
    now = stack.front()
    for cause, count, last in (
        ("stranger", now.strangers, before.strangers),
        ("over_rate", now.over_rate, before.over_rate),
        ("bad_digest", now.bad_digest, before.bad_digest),
        ("full", now.full, before.full),
        ("malformed", now.malformed, before.malformed),
        ("refer", now.refers, before.refers),
    ):
        metrics.sip_turned_away(cause, count - last)  # type: ignore[arg-type]
    return now


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# --- serving --------------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """uvicorn, but the signals are ours: calls are drained before it hears of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Peers that neither send nor read are cut off before uvicorn would cancel their requests as errors."""
        cut = asyncio.get_running_loop().call_later(SHUTDOWN_S - 1, self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut_off(self) -> None:
        for connection in tuple(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


def listen(settings: Settings) -> socket.socket:
    """The bound socket. Raises ConfigError naming host or port."""
    host, port = settings.http.host, settings.http.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # now: with SO_REUSEADDR two may bind to a port, but only one may listen
    except (OSError, OverflowError) as error:
        sock.close()
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "another port: this one is taken" if error.errno == errno.EADDRINUSE else "a port we may use"
            raise ConfigError("http.port", port, why) from error
        raise ConfigError("http.host", host, "an address of this machine") from error
    sock.setblocking(False)
    return sock


def _check_tls(settings: Settings) -> None:
    cert, key = settings.http.tls_cert, settings.http.tls_key
    if cert is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:  # SSLError too: not PEM, or the key of another certificate
        raise ConfigError(
            "http.tls_cert", str(cert), f"a PEM certificate that goes with http.tls_key ({error})"
        ) from error


async def serve(settings: Settings, ready: Callable[[Gateway], None] | None = None, wrap: Wrap | None = None) -> None:
    """Until SIGTERM or SIGINT; a second one stops waiting for calls. `wrap`: as for `gateway`."""
    _check_tls(settings)
    sock = listen(settings)
    try:
        async with gateway(settings, wrap=wrap) as running:
            server = _Server(
                uvicorn.Config(
                    running.http,
                    http=running.front_door,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    proxy_headers=False,  # signatures are checked against the configured origin, never a header's
                    server_header=False,
                    ssl_certfile=settings.http.tls_cert,
                    ssl_keyfile=settings.http.tls_key,
                    timeout_graceful_shutdown=SHUTDOWN_S,
                )
            )
            leaving = asyncio.create_task(_leave(running, server), name="leave")
            watched = _watched(settings, running) if settings.limits.watchdog else None
            if watched is not None:
                watched.start()
            if ready is not None:
                ready(running)
            try:
                await server.serve(sockets=[sock])
            finally:
                await _cancelled(leaving)
                await running.hang_up()
                if watched is not None:
                    await watched.close()
                for number in _SIGNALS:
                    asyncio.get_running_loop().remove_signal_handler(number)
            if not await running.records(SHUTDOWN_S):
                log.warning("some records are not yet in the database; they stay in the spool for the next start")
    finally:
        sock.close()


def _watched(settings: Settings, running: Gateway) -> Watched:
    account, desk = _twilio_account(settings), running.sip.desk
    if desk is None:
        return Watched(running.switchboard, account)
    return Watched(running.switchboard, account, desk.farewells, (settings.sip.host, settings.sip.port))


def _twilio_account(settings: Settings) -> dict[str, str | None]:
    """As the watchdog reads it."""
    given = settings.twilio
    user, password = given.login if given.account_sid is not None else ("", "")
    place = {"region": given.region, "edge": given.edge, "api_url": given.api_url}
    return {"account_sid": given.account_sid, "user": user, "password": password, **place}


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def _leave(running: Gateway, server: uvicorn.Server) -> None:
    """Wait for a signal, drain, then stop the HTTP server."""
    loop, asked, again = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (again if asked.is_set() else asked).set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    await asked.wait()
    try:
        await _finish_calls(running, again)
    finally:
        server.should_exit = True


async def _finish_calls(running: Gateway, again: asyncio.Event) -> None:
    calls, patience_s = running.switchboard.live_calls, running.settings.limits.drain_seconds
    if calls:
        log.warning("stopping: %d calls may finish within %d s (once more to stop now)", calls, patience_s)
    drain = asyncio.create_task(running.switchboard.drain(patience_s))
    hurry = asyncio.create_task(again.wait())
    await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
    drain.cancel()
    hurry.cancel()
    if again.is_set():
        await running.switchboard.drain(0, 0)
    await running.hang_up()


def policies(privacy: Privacy) -> tuple[Policies, Policies]:
    """What is not written, and what models of third parties are not told."""

    def policy(kinds: Iterable[str]) -> Policy:
        return Policy(frozenset(cast(Iterable[Kind], kinds)), privacy.names)

    def chosen(own: Iterable[str] | None, every: Iterable[str]) -> Policy:
        return policy(every if own is None else own)

    agents = privacy.agents.items()
    return (
        Policies(policy(privacy.redact), {name: chosen(own.redact, privacy.redact) for name, own in agents}),
        Policies(
            policy(privacy.redact_for_models),
            {name: chosen(own.redact_for_models, privacy.redact_for_models) for name, own in agents},
        ),
    )


def configure_logs(settings: Settings) -> None:
    written, _ = policies(settings.privacy)
    kinds = written.every.kinds.union(*(own.kinds for own in written.agents.values()))  # a line is nobody's
    logs.configure(settings.log.level, settings.log.format, settings.secrets(), policy=by_itself(Policy(kinds)))
