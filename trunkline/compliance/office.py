"""The edge of compliance: gathers what is known of a number before the question is asked, and counts what goes out.

A ledger or a list that cannot be read in time is Unknown, never clean. The company's own list is kept in memory, so
that "stop calling me" counts from the moment it is said, in this process, and within seconds in others.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from trunkline.clock import Clock
from trunkline.compliance.caps import HOUR, Outgoing
from trunkline.compliance.consent import Row, Wanted, held
from trunkline.compliance.decision import Policy
from trunkline.compliance.places import where
from trunkline.compliance.tables import load
from trunkline.errors import ConfigError, StoreError
from trunkline.ports import CallOut, Consents, Decision, Facts, Grant, Lists, Purpose, Revocation, Standing
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger(__name__)

LOOKUP_S = 2.0
"""For all that is asked about one number."""
REFRESH_S = 2.0
STALE_S = 60.0
"""The company's list is unknown once it could not be read for so long."""
OVERLAP = timedelta(seconds=120)  # a row is dated before its transaction ends
LOOK_BACK = timedelta(days=30)
SEEN_S = 30.0
"""How long what was gathered may answer for a further leg."""
_REMEMBERED = 1024
_REVOKED = 10_000

LookUp = Callable[[str, datetime | None], Awaitable[bool | None]]
"""A service that is asked about a number, and since when it was consented to. None: it does not know. Raises
ProviderError."""


class Ledger(Protocol):
    async def of(self, tenant: TenantId, subject: str) -> Sequence[Row]: ...


class Found(Protocol):
    @property
    def on(self) -> frozenset[tuple[str, str]]: ...

    @property
    def drawn(self) -> Mapping[tuple[str, str], datetime]: ...


class DoNotCall(Protocol):
    async def look(self, tenant: TenantId, number: str) -> Found: ...

    async def since(self, tenant: TenantId, at: datetime | None) -> tuple[list[str], bool, datetime | None]: ...

    async def attempts(self, tenant: TenantId, number: str, since: datetime) -> tuple[datetime, ...]: ...

    async def attempt(
        self, tenant: TenantId, number: str, at: datetime, since: datetime
    ) -> tuple[str, tuple[datetime, ...]]: ...

    async def not_tried(self, tenant: TenantId, attempt_id: str) -> None: ...


class CallsOut(Protocol):
    """Where every worker tells of its calls out. Raises StoreError."""

    async def note(self, tenant: TenantId, calls: Sequence[CallOut]) -> None: ...

    async def since(self, tenant: TenantId, at: datetime) -> Sequence[CallOut]: ...


@dataclass(frozen=True, slots=True)
class LookUps:
    """Services beside the lists that were imported."""

    litigator: LookUp | None = None
    reassigned: LookUp | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """`attempt`: the id of the try that was noted."""

    standing: Standing
    attempt: str | None = None


class Office:
    """`ports.Decide` and `ports.Consents` of a process."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        lists: DoNotCall,
        consents: Consents,
        clock: Clock,
        look_ups: LookUps = LookUps(),
        tables: Path | None = None,
        tenant: TenantId = DEFAULT_TENANT,
        calls_out: CallsOut | None = None,
    ) -> None:
        self._policy, self._ledger, self._lists, self._consents = policy, ledger, lists, consents
        self._clock, self._look_ups, self._tenant = clock, look_ups, tenant
        self._tables, self._tables_seen = tables, _marks(tables)
        self.outgoing, self._calls_out = Outgoing(), calls_out
        self._went = asyncio.Event()
        self._heard_at: datetime | None = None
        self.revoked: Callable[[Revocation], None] = lambda said: None
        """Told of each, for calls that are going on."""
        self._company: set[str] = set()
        self._revoked: OrderedDict[str, None] = OrderedDict()
        """In this process, and perhaps not yet in the database."""
        self._stopped = False
        self._latest: datetime | None = None
        self._read_at: float | None = None
        self._seen: OrderedDict[str, tuple[float, Standing]] = OrderedDict()
        self.problem = ""
        """Of the tables: why the last good ones are still in force."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Reads the company's list; when the database is away, that is tried again, and nobody is called meanwhile."""
        policy = self._policy
        policy.read_ahead()
        if policy.in_force and policy.outbound_allow and not policy.terms.callback:
            log.warning("compliance.callback_number is not set: calls out that must name one are refused")
        await self.refresh()
        await self.share()
        self._tasks = [
            asyncio.create_task(self._keep(), name="compliance"),
            asyncio.create_task(self._keep_sharing(), name="calls out"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.share()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
                await asyncio.to_thread(self.reread)
            except Exception:
                log.exception("compliance")

    async def _keep_sharing(self) -> None:
        """At once where we called, and every REFRESH_S what others have."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._went.wait()
            except TimeoutError:
                pass
            self._went.clear()
            try:
                await self.share()
            except Exception:
                log.exception("calls out")

    # --- the doors ---

    @property
    def policy(self) -> Policy:
        return self._policy

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """With what only this process knows."""
        number = facts.target_number if facts.door == "transfer" else facts.to_number
        if facts.door not in ("dial", "transfer") or number is None:
            return self._policy.decide(facts, now)
        if facts.standing == _NOTHING:  # of a further leg, whose way out does not wait for a database
            facts = replace(facts, standing=self._lately(number))
        lists = replace(facts.standing.lists, company=self._listed(number), stopped=self._now_stopped())
        traffic = self.outgoing.traffic(number, self._clock.wall())
        return self._policy.decide(
            replace(facts, standing=replace(facts.standing, lists=lists), traffic=facts.traffic or traffic), now
        )

    def went_out(self, number: str, to_target: bool = False) -> None:
        self.outgoing.went(number, self._clock.wall(), to_target=to_target)
        self._went.set()

    def _listed(self, number: str) -> bool | None:
        if number in self._company:
            return True
        return False if self._fresh else None

    def _now_stopped(self) -> bool | None:
        return True if self._stopped else False if self._fresh else None

    @property
    def _fresh(self) -> bool:
        return self._read_at is not None and self._clock.now() - self._read_at < STALE_S

    # --- what is known of a number ---

    async def know(
        self,
        number: str,
        purpose: Purpose | None,
        *,
        region: str | None = None,
        zone: str | None = None,
        tries: bool = False,
        now: datetime | None = None,
    ) -> Known:
        """Never raises: what cannot be told within LOOKUP_S is Unknown. `tries`: the number will be tried now, if the
        decision lets it; note it first, so that of two orders at once the second counts the first. `now`: another
        moment than this one, for a question only."""
        at = now or self._clock.wall()
        lists, consent, (attempt, times) = await asyncio.gather(
            self._in_time(self._lists_of(number, region, zone), Lists()),
            self._in_time(self._consent_of(number, purpose, at), None),
            self._in_time(self._attempts_of(number, tries, at), (None, None)),
        )
        if lists.reassigned and consent not in (None, "revoked"):
            consent = "none"  # it was somebody else's
        standing = Standing(region, zone, lists, consent, times)
        if now is None:
            self._remember(number, standing)
        return Known(standing, attempt)

    def _remember(self, number: str, standing: Standing) -> None:
        self._seen[number] = (self._clock.now(), standing)
        self._seen.move_to_end(number)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _lately(self, number: str) -> Standing:
        at, standing = self._seen.get(number, (0.0, _NOTHING))
        return standing if self._clock.now() - at < SEEN_S else _NOTHING

    async def forget_attempt(self, known: Known) -> None:
        """It was refused: nobody was tried."""
        if known.attempt is not None:
            await self._in_time(self._lists.not_tried(self._tenant, known.attempt), None)

    async def _in_time(self, asked: Awaitable[Any], otherwise: Any) -> Any:
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await asked
        except (StoreError, TimeoutError) as error:
            log.warning("compliance: what is known of a number could not be read: %s", str(error) or "too slow")
            return otherwise

    async def _attempts_of(self, number: str, tries: bool, now: datetime) -> tuple[str | None, tuple[datetime, ...]]:
        since = now - LOOK_BACK
        if tries:
            return await self._lists.attempt(self._tenant, number, now, since)
        return None, await self._lists.attempts(self._tenant, number, since)

    async def _consent_of(self, number: str, purpose: Purpose | None, now: datetime) -> Any:
        rows = await self._ledger.of(self._tenant, number)
        if number in self._revoked:
            return "revoked"
        terms = self._policy.terms
        return held(rows, Wanted(purpose or terms.purpose, terms.business), now)

    async def _lists_of(self, number: str, region: str | None, zone: str | None) -> Lists:
        found = await self._lists.look(self._tenant, number)
        at = where(number, region, zone, self._policy.tables, self._policy.terms.by_address)
        countries = {place.partition("-")[0] for place in at.regions}
        on = {name for name, _ in found.on}
        drawn = found.drawn
        litigator, reassigned = await asyncio.gather(
            self._service("litigator", number, on, drawn), self._service("reassigned", number, on, drawn)
        )
        national = [drawn.get(("national", country)) for country in countries]
        state = [drawn.get(("state", place)) for place in at.regions]
        as_of = {}
        for name, copies in (("national", national), ("state", state)):
            dates = [copy for copy in copies if copy is not None]
            if dates and len(dates) == len(copies):
                as_of[name] = min(dates)
        return Lists(
            stopped=self._now_stopped(),
            company=True if "company" in on else self._listed(number),
            litigator=litigator,
            national=True if "national" in on else False if "national" in as_of else None,
            state=True if "state" in on else False if "state" in as_of else None,
            reassigned=reassigned,
            as_of=as_of,
        )

    async def _service(
        self, name: str, number: str, on: set[str], drawn: Mapping[tuple[str, str], datetime]
    ) -> bool | None:
        if name in on:
            return True
        service: LookUp | None = getattr(self._look_ups, name)
        if service is None:
            return False if (name, "") in drawn else None
        try:
            async with asyncio.timeout(LOOKUP_S * 0.75):
                return await service(number, None)
        except Exception as error:  # a service that fails knows nothing
            log.warning("compliance: the %s look-up: %s", name, type(error).__name__)
            return None

    # --- what is kept current ---

    async def share(self) -> None:
        """Ours are told, and others' heard of. While the database is away each worker counts for itself."""
        if self._calls_out is None:
            return
        untold, now = self.outgoing.untold(), self._clock.wall()
        since = now - HOUR if self._heard_at is None else self._heard_at - OVERLAP
        try:
            async with asyncio.timeout(LOOKUP_S):
                if untold:
                    await self._calls_out.note(self._tenant, untold)
                    self.outgoing.told(untold)
                calls = await self._calls_out.since(self._tenant, since)
        except (StoreError, TimeoutError) as error:
            log.warning("calls out are counted by each worker for itself: %s", str(error) or "too slow")
            return
        self.outgoing.heard(calls, now)
        self._heard_at = now

    async def refresh(self) -> None:
        since = self._latest - OVERLAP if self._latest is not None else None
        try:
            async with asyncio.timeout(LOOKUP_S):
                numbers, stopped, latest = await self._lists.since(self._tenant, since)
        except (StoreError, TimeoutError) as error:
            if self._read_at is None or not self._fresh:
                log.warning("the company's do-not-call list cannot be read, and nobody is called: %s", error)
            return
        self._company.update(numbers)
        self._stopped, self._latest, self._read_at = stopped, latest, self._clock.now()

    def reread(self) -> None:
        """The tables, where their files have changed. A broken one leaves the last good ones in force."""
        marks = _marks(self._tables)
        if marks == self._tables_seen:
            return
        self._tables_seen = marks
        try:
            tables = load(self._tables)
        except ConfigError as error:
            self.problem = str(error)
            log.error("compliance tables: %s; the last good ones stay in force", error)
            return
        policy = replace(self._policy, tables=tables)
        policy.read_ahead()
        self._policy, self.problem = policy, ""
        log.warning("compliance tables: %s", ", ".join(f"{n} {v}" for n, v in tables.versions.items()))

    # --- Consents ---

    def grant(self, given: Grant) -> None:
        self._consents.grant(given)
        if "artificial_voice" in given.technologies:
            self._revoked.pop(given.subject, None)

    async def on_disk(self) -> bool:
        return await self._consents.on_disk()

    def revoke(self, said: Revocation) -> None:
        self._consents.revoke(said)
        if not said.technologies or "artificial_voice" in said.technologies:
            self._revoked[said.subject] = None
            if len(self._revoked) > _REVOKED:  # the oldest are in the database by now
                self._revoked.popitem(last=False)
        if said.do_not_call:
            self._company.add(said.subject)
        self._seen.pop(said.subject, None)
        self.revoked(said)


_NOTHING = Standing()


def _marks(folder: Path | None) -> tuple[tuple[str, int, int], ...]:
    if folder is None:
        return ()
    try:
        return tuple(sorted((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in folder.glob("*.csv")))
    except OSError:
        return ()
