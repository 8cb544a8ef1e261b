"""The agents of this process: those of the settings' files, which are there from start to end, and versions of the
desk's, which come and go while calls are held.

    want(keys) ──► read, checked, built, started ──► agents[key] ──► nobody wants it, no call has it, GRACE_S ──► closed
    draft(...) ──►               "                                   DRAFT_S, no call has it                  ──► closed

A call looks an agent up and never waits: `agents` is what is here now. What cannot be started says why, and is tried
again after FAILED_S. A call keeps the version it began with, whatever is published meanwhile; a hand-off leads to the
version of the other agent that is published then (`agents["default/billing"]`).

Reading and building take 60 ms of work each: they have a thread, and no frame of a call waits for them.
"""

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from trunkline.agents.attending import Agent
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.here import AgentHere
from trunkline.agents.script.check import Problem, read_text
from trunkline.agents.script.family import MAX_AGENTS
from trunkline.agents.script.foreign import Shared
from trunkline.clock import Clock
from trunkline.errors import ConfigError, MissingExtra, ProviderError, StoreError
from trunkline.ports import AgentVersions, Refuse
from trunkline.types import AgentVersion, TenantId

STORE_S = 5.0
START_S = 60.0  # voices that warm up, models that load
READY_S = 10.0
FAILED_S = 10.0
GRACE_S = 900.0  # a call that comes back, a session that goes on: ten minutes
DRAFT_S = 600.0
MAX_DRAFTS = 5
SWEEP_S = 5.0
STARTS_AT_ONCE = 2

Make = Callable[[AgentDefinition, str], AgentHere]
"""(definition, prefix of its providers' keys) -> the agent, not yet started. Raises ConfigError, MissingExtra."""
Check = Callable[[AgentDefinition], None]
"""What the script alone does not show. Raises ConfigError."""
Began = Callable[[AgentHere], Awaitable[None]]

log = logging.getLogger(__name__)


class NoVersions:
    """Where there is no desk."""

    async def text(self, tenant: TenantId, agent: str, version: int) -> str | None:
        return None

    async def published(self, tenant: TenantId, agent: str) -> int | None:
        return None


@dataclass(slots=True)
class _Here:
    """A version that is started."""

    agent: AgentHere
    stack: contextlib.AsyncExitStack
    kept_until: float = 0.0
    """A draft's end."""
    idle_since: float | None = None


@dataclass(slots=True)
class _Failed:
    why: Refuse
    until: float


@dataclass
class Roster:
    """Its methods are the event loop's. `start` it, and `close` it after the calls have ended."""

    family: Mapping[str, AgentHere]
    """Of the settings, by their files, the first first."""
    versions: AgentVersions
    make: Make
    clock: Clock
    shared: Shared = field(default_factory=Shared)
    checks: tuple[Check, ...] = ()
    began: list[Began] = field(default_factory=list)
    """Told of each agent of the desk that has started, before calls are given to it."""
    in_use: Callable[[], Iterable[Agent]] = lambda: ()
    """Whom live calls have now."""
    max_agents: int = MAX_AGENTS

    def __post_init__(self) -> None:
        self.agents: dict[str, Agent] = {file: each.agent for file, each in self.family.items()}
        """What is here now: by file, by version (`default/reception@3`), and the published one of those that calls are
        given or handed to (`default/reception`)."""
        self.sha256 = {each.definition.name: each.definition.sha256 for each in self.family.values()}
        """Of all that are here, by the name that their calls' records have."""
        self._here: dict[str, _Here] = {}
        self._failed: dict[str, _Failed] = {}
        self._starting: dict[str, asyncio.Task[Agent | Refuse]] = {}
        self._wanted: frozenset[str] = frozenset()
        self._published: dict[str, str] = {}
        self._permits = asyncio.Semaphore(STARTS_AT_ONCE)
        self._look_again = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    # --- looking up: at once ---

    def agent(self, key: str) -> Agent | None:
        """A version that is here, or by `default/reception` the published one. Not yet `ready()`, perhaps: its
        providers may be away."""
        found = self.agents.get(key)
        return found if found is not None and found.definition.version else None

    def why_not(self, key: str) -> Refuse | None:
        """Of a version that is not here. None: nobody has asked for it, or it is being started."""
        failed = self._failed.get(key)
        return None if failed is None else failed.why

    def everyone(self) -> Iterator[AgentHere]:
        yield from self.family.values()
        yield from (each.agent for each in self._here.values())

    # --- what is wanted ---

    def want(self, keys: Iterable[str]) -> None:
        """All versions that calls may be given from now on, in place of those before. What is missing is started in the
        background, with those that it hands calls to; what is not wanted any more ends when its calls have. To be said
        again, with the same keys too, when anything was published: hand-offs lead there then."""
        self._wanted = frozenset(keys)
        self._look_again.set()

    async def ready(self, key: str, within_s: float = READY_S) -> Agent | Refuse:
        """The version, started if need be; many who ask at once start it once. Codes: `unknown_agent`, `agent_broken`
        (its script, an extra that is missing here), `agent_away` (the store, or it takes too long), `too_many_agents`.
        Raises nothing. Cancel-safe: it goes on being started. One that nobody wants is closed again after GRACE_S."""
        if (here := self.agent(key)) is not None:
            return here
        if (failed := self._failed.get(key)) is not None and self.clock.now() < failed.until:
            return failed.why
        version = AgentVersion.read(key)
        if version is None or version.is_draft:
            return _unknown(key)
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(self._start_once(key, version, None))
        except TimeoutError:
            return Refuse("agent_away", f"{key} is still being started")

    async def draft(self, tenant: TenantId, agent: str, text: str) -> str | Refuse:
        """A name for DRAFT_S by which who knows it may talk to this script; nobody can guess it. Codes: as of `ready`.
        Beyond MAX_DRAFTS the oldest without a call ends."""
        version = AgentVersion(tenant, agent, f"draft-{secrets.token_hex(8)}")
        while sum(each.kept_until > 0 for each in self._here.values()) >= MAX_DRAFTS:
            if not self._end_one(lambda each: each.kept_until > 0):
                return Refuse("too_many_agents", f"{MAX_DRAFTS} drafts are being talked to")
        started = await asyncio.shield(self._start_once(str(version), version, text))
        self._failed.pop(str(version), None)
        return started if isinstance(started, Refuse) else str(version)

    async def read(self, text: str) -> tuple[AgentDefinition | None, list[Problem]]:
        """A script of the desk, if it has no error (`trying.Trial` takes it), and everything that is wrong with it."""
        definition, problems = await asyncio.to_thread(read_text, text, None, self.shared)
        try:
            if definition is not None:
                self._check(definition)
        except ConfigError as error:
            return None, [Problem(1, 1, error.key, f"is {error.value!r}: {error.allowed}"), *problems]
        return definition, problems

    async def check(self, text: str) -> list[Problem]:
        """Everything that is wrong with a script of the desk."""
        return (await self.read(text))[1]

    # --- its life ---

    def start(self) -> None:
        self._tending = asyncio.create_task(self._tend(), name="roster")

    async def close(self) -> None:
        """All versions; the settings' agents are not its own. Idempotent."""
        tasks = [task for task in (self._tending, *self._starting.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in list(self._here):
            self._end(key)
        await asyncio.gather(*self._closing)

    async def _tend(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._look_again.wait()
            changed = self._look_again.is_set()
            self._look_again.clear()
            try:
                await self.tend(changed=changed)
            except Exception:  # of a plug-in's: the others are to go on
                log.exception("the agents of the desk could not be looked after; it is tried again")

    async def tend(self, *, changed: bool = True) -> None:
        """One look at all: what is missing is started, what has gone out of use is closed. `changed`: what is wanted
        or published may be other than before."""
        missing = sorted(self._wanted - self._here.keys())
        started = await asyncio.gather(*(self.ready(key, START_S) for key in missing))
        if changed or any(not isinstance(each, Refuse) for each in started):
            await self._follow_published()
        self.sweep(self.clock.now())

    def sweep(self, now: float) -> None:
        """Close what nobody wants, no call has, and no call may come back to."""
        held = self._held()
        for key, each in list(self._here.items()):
            if key in held or now < each.kept_until:
                each.idle_since = None
                continue
            if each.idle_since is None:
                each.idle_since = now
            if each.kept_until or now - each.idle_since >= GRACE_S:
                self._end(key)
        self._failed = {key: each for key, each in self._failed.items() if now < each.until or key in self._wanted}

    # --- starting ---

    def _start_once(self, key: str, version: AgentVersion, text: str | None) -> "asyncio.Task[Agent | Refuse]":
        task = self._starting.get(key)
        if task is None:
            task = self._starting[key] = asyncio.create_task(self._start(key, version, text), name=f"agent {key}")
            task.add_done_callback(lambda done: self._starting.pop(key, None))
        return task

    async def _start(self, key: str, version: AgentVersion, text: str | None) -> Agent | Refuse:
        """`text`: of a draft."""
        try:
            async with self._permits:
                found = await self._started(key, version, text)
        except Exception as error:  # of a plug-in's provider: it must not end more than this
            log.exception("agent %s cannot be started", key)
            found = Refuse("agent_broken", f"{type(error).__name__}: {error}")
        if isinstance(found, Refuse):
            if (before := self._failed.get(key)) is None or before.why != found:
                log.warning("agent %s is not here: %s", key, found.why)
            self._failed[key] = _Failed(found, self.clock.now() + FAILED_S)
        else:
            self._failed.pop(key, None)
        return found

    async def _started(self, key: str, version: AgentVersion, text: str | None) -> Agent | Refuse:
        if self._full() and not self._end_one(lambda each: True):
            return Refuse("too_many_agents", f"at most {self.max_agents} agents in one gateway")
        if text is None:
            try:
                async with asyncio.timeout(STORE_S):
                    text = await self.versions.text(version.tenant, version.agent, int(version.number))
            except (StoreError, OSError, TimeoutError) as error:
                return Refuse("agent_away", f"its script cannot be read: {str(error) or type(error).__name__}")
            if text is None:
                return _unknown(key)
        try:
            definition = await asyncio.to_thread(self._definition, version, text)
            self._check(definition)
            made = await asyncio.to_thread(self.make, definition, f"{key}/")
        except (ConfigError, MissingExtra) as error:
            return Refuse("agent_broken", str(error))
        return await self._begun(key, made, version)

    def _definition(self, version: AgentVersion, text: str) -> AgentDefinition:
        """Raises ConfigError for its first error."""
        definition, problems = read_text(text, foreign=self.shared)
        if definition is None:
            first = next(problem for problem in problems if problem.severity == "error")
            raise ConfigError(f"line {first.line} {first.key}".rstrip(), str(version), first.message)
        others = {
            name: replace(terms, file=AgentVersion(version.tenant, terms.file, 0).family)
            for name, terms in definition.agents.items()
        }
        return replace(definition, version=str(version), agents=others)

    def _check(self, definition: AgentDefinition) -> None:
        for check in self.checks:
            check(definition)

    async def _begun(self, key: str, made: AgentHere, version: AgentVersion) -> Agent | Refuse:
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(START_S):
                    await stack.enter_async_context(made.started(self.clock, needed=False))
                    for began in self.began:
                        await began(made)
            except (ConfigError, MissingExtra, ProviderError) as error:
                return Refuse("agent_broken", str(error))
            except TimeoutError:
                return Refuse("agent_away", f"it takes longer than {START_S:.0f} s to start")
            kept_until = self.clock.now() + DRAFT_S if version.is_draft else 0.0
            self._here[key] = _Here(made, stack.pop_all(), kept_until)
        self.agents[key] = made.agent
        self.sha256[key] = made.definition.sha256
        if made.definition.agents:
            self._look_again.set()
        log.info("agent %s (%s) may have calls", key, made.definition.name)
        return made.agent

    # --- hand-offs ---

    async def _follow_published(self) -> None:
        """Whom calls may be handed to is here as well, and known by the agent's name."""
        looked: set[str] = set()
        while names := self._named() - looked:
            for name in sorted(names):
                looked.add(name)
                await self._follow(name)
        for name in self._published.keys() - looked:
            self._unpublish(name)

    def _named(self) -> set[str]:
        """Every agent of the desk that a call may be with, or be handed to: `default/billing`."""
        families = {version.family for key in self._here if (version := AgentVersion.read(key)) is not None}
        return families | self._handed_to()

    def _handed_to(self) -> set[str]:
        return {terms.file for each in self._here.values() for terms in each.agent.definition.agents.values()}

    def _unpublish(self, name: str) -> None:
        self._published.pop(name, None)
        self.agents.pop(name, None)

    async def _follow(self, name: str) -> None:
        tenant, _, agent = name.partition("/")
        try:
            async with asyncio.timeout(STORE_S):
                number = await self.versions.published(TenantId(tenant), agent)
        except (StoreError, OSError, TimeoutError) as error:
            log.warning("which version of %s is published cannot be read: %s", name, str(error) or "it takes too long")
            return  # it stays as it was
        if number is None:
            self._unpublish(name)
            return
        key = str(AgentVersion(TenantId(tenant), agent, number))
        found = await self.ready(key, START_S) if name in self._handed_to() else self.agent(key)
        if found is None and key not in self._wanted:
            self._unpublish(name)
        elif found is not None and not isinstance(found, Refuse):  # else the one before goes on
            self._published[name] = key
            self.agents[name] = found

    # --- ending ---

    def _held(self) -> set[str]:
        """By who is wanted, in place of a wanted one that is not here by the one before it, by calls, and by those that
        these may hand their calls to."""
        calls = {id(agent) for agent in self.in_use()}
        held = {
            key
            for key, each in self._here.items()
            if key in self._wanted or any(id(face) in calls for face in each.agent.faces)
        }
        awaited = {version.family for key in self._wanted - self._here.keys() if (version := AgentVersion.read(key))}
        held |= {key for name, key in self._published.items() if name in awaited and key in self._here}
        waiting = list(held)
        while waiting:
            for terms in self._here[waiting.pop()].agent.definition.agents.values():
                key = self._published.get(terms.file, "")
                if key in self._here and key not in held:
                    held.add(key)
                    waiting.append(key)
        return held

    def _full(self) -> bool:
        return len(self.family) + len(self._here) >= self.max_agents

    def _end_one(self, of: Callable[[_Here], bool]) -> bool:
        """To make room: of those that are not held, the one that is so longest, or the oldest draft."""
        held = self._held()
        free = [
            (each.kept_until, math.inf if each.idle_since is None else each.idle_since, key)
            for key, each in self._here.items()
            if key not in held and of(each)
        ]
        if not free:
            return False
        self._end(min(free)[2])
        return True

    def _end(self, key: str) -> None:
        each = self._here.pop(key)
        del self.sha256[key]
        for name in [name for name, agent in self.agents.items() if agent is each.agent.agent]:
            del self.agents[name]
            self._published.pop(name, None)
        closing = asyncio.create_task(self._close(key, each), name=f"close {key}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, key: str, each: _Here) -> None:
        try:
            await each.stack.aclose()
        except Exception as error:  # a provider's: it is gone all the same
            log.warning("agent %s did not close well: %s", key, error)
        else:
            log.info("agent %s is closed", key)


def _unknown(key: str) -> Refuse:
    return Refuse("unknown_agent", f"there is no agent {key}")
