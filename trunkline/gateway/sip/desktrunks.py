"""Trunks that admins own, beside those of the settings: they come, change and go while the gateway runs.

Looked at once every LOOK_S, when a revision has moved. A trunk of a tenant may not take in peers of another's or of the
settings': whose call it is would be anybody's guess, so that one is not in force, and the trunks page says why.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from pydantic import ValidationError

from trunkline.errors import StoreError
from trunkline.gateway.sip import trunks
from trunkline.gateway.sip.trunks import Trunk
from trunkline.numbers.resources import said
from trunkline.settings import Sip, SipTrunk, StirPolicy
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger("trunkline.sip")

LOOK_S = 1.0
READ_S = 5.0
MAX_TRUNKS = 200
"""PJSIP as built has room for 256 accounts."""
MAX_OF_A_TENANT = 50
NARROWEST = {4: 16, 6: 32}
"""The shortest prefix of a peer of a tenant's, by IP version."""

Row = tuple[TenantId, Mapping[str, Any]]


class Rows(Protocol):
    """Raise StoreError when the database is away."""

    async def trunks(self) -> Sequence[Row]: ...

    async def revisions(self) -> int: ...


class Desk(Protocol):
    async def bring(self, wanted: Sequence[Trunk]) -> Mapping[str, str]: ...


def called(tenant: TenantId, name: str) -> str:
    """By which it is known in this process and to orders."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}.{name}"


def in_force(
    sip: Sip, stir: StirPolicy, rows: Sequence[Row], now: Sequence[Trunk] = ()
) -> tuple[tuple[Trunk, ...], dict[str, str]]:
    """The settings' trunks and those of the rows; and of which not, why. With no trunk at all: loopback's. What is in
    force `now`, unchanged, stays so before others; then whoever was there first."""
    found = {name: trunks.as_written(name, written, sip, stir) for name, written in sip.trunks.items()}
    out: dict[str, str] = {}
    wanted: list[tuple[bool, Any, str, Trunk]] = []
    for tenant, row in rows:
        name = called(tenant, row["name"])
        trunk = _made(name, tenant, row, sip, stir)
        if isinstance(trunk, str):
            out[name] = trunk
        else:
            wanted.append((trunk not in now, row["created_at"], name, trunk))
    for *_, name, made in sorted(wanted, key=lambda each: each[:3]):
        if name in found:
            out[name] = "the settings have a trunk of this name"
        elif (other := _overlapping(made, found.values())) is not None:
            out[name] = f"its peers are those of the trunk {other.name} of {other.tenant or 'the settings'}, too"
        elif len(found) >= MAX_TRUNKS:
            out[name] = f"there are {MAX_TRUNKS} trunks already"
        elif sum(each.tenant == made.tenant for each in found.values()) >= MAX_OF_A_TENANT:
            out[name] = f"its tenant has {MAX_OF_A_TENANT} trunks already"
        else:
            found[name] = made
    return tuple(found.values()) or (trunks.loopback_trunk(stir),), out


def _made(name: str, tenant: TenantId, row: Mapping[str, Any], sip: Sip, stir: StirPolicy) -> Trunk | str:
    secrets = {key: row[key] for key in ("password", "auth_password") if row.get(key) is not None}
    try:
        written = SipTrunk.model_validate({**row["settings"], **secrets})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = first["loc"] or (first.get("ctx", {}).get("key", "settings"),)
        return f"{'.'.join(map(str, key))}: {said(first)}"
    wide = next((peer for peer in written.peers if peer.prefixlen < NARROWEST[peer.version]), None)
    if wide is not None and tenant != DEFAULT_TENANT:
        return f"peers: {wide} is wider than a tenant may have (/{NARROWEST[wide.version]})"
    return trunks.as_written(name, written, sip, stir, tenant)


def _overlapping(made: Trunk, others: Iterable[Trunk]) -> Trunk | None:
    return next(
        (
            other
            for other in others
            if other.tenant != made.tenant
            and any(a.version == b.version and a.overlaps(b) for a in made.peers for b in other.peers)
        ),
        None,
    )


class DeskTrunks:
    """Of one process."""

    def __init__(self, rows: Rows, desk: Desk, sip: Sip, stir: StirPolicy) -> None:
        self._rows, self._desk, self._sip, self._stir = rows, desk, sip, stir
        self._seen: int | None = None
        self._now, self._not = in_force(sip, stir, ())
        self._task: asyncio.Task[None] | None = None
        self._said = ""

    @property
    def not_in_force(self) -> Mapping[str, str]:
        """By name, why."""
        return self._not

    async def start(self) -> None:
        """The settings' trunks are there already."""
        await self.look()
        self._task = asyncio.create_task(self._keep_looking(), name="desk trunks")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Does not raise."""
        try:
            async with asyncio.timeout(READ_S):
                revision = await self._rows.revisions()
                if revision == self._seen:
                    return
                rows = await self._rows.trunks()
        except (StoreError, TimeoutError) as error:
            self._say(f"trunks of the desk stay as they are: {str(error) or 'the database does not answer'}")
            return
        wanted, out = in_force(self._sip, self._stir, rows, self._now)
        if wanted != self._now:
            try:
                out |= await self._desk.bring(wanted)
            except TimeoutError:
                self._say("trunks of the desk stay as they are: PJSIP does not answer")
                return
            log.info("trunks: %s", ", ".join(trunk.name for trunk in wanted if trunk.name not in out))
            self._now = wanted
        for name in out.keys() - self._not.keys():
            log.warning("the trunk %s is not in force: %s", name, out[name])
        self._not, self._seen, self._said = out, revision, ""

    def _say(self, what: str) -> None:
        """Once."""
        if what != self._said:
            log.warning("%s", what)
        self._said = what

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("trunks of the desk")
