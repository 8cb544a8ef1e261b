"""A CSV of numbers brought into a tenant's desk: looked at, then all of it in one transaction, or nothing.

The look is taken before the transaction, which would hold up whoever else changes the desk for seconds; what was
changed meanwhile is found by its version, and the whole file is then told to be looked at again.
"""

import asyncio
from collections.abc import Collection

from trunkline.numbers.csvimport import Known, Preview, preview
from trunkline.numbers.desk import Desk, new
from trunkline.numbers.resources import Agent, Carrier, Number, Route, Tenant, Trunk
from trunkline.types import TenantId


async def bring(
    desk: Desk,
    tenant: TenantId,
    actor: str,
    data: bytes | str,
    country: str | None = None,
    *,
    keep: bool = True,
    skip_mistakes: bool = False,
) -> Preview:
    """With a mistake nothing is written, unless they are skipped. `keep` False: it is only looked at. Raises DeskError
    (`taken`, `stale`, `unknown_name`, `invalid_fields`), and StoreError when the database is away."""
    existing, versions = {}, {}
    async for kept in desk.store.every(tenant, Number.kind):
        existing[kept.key], versions[kept.key] = Number.model_validate(kept.body), kept.version
    found = await asyncio.to_thread(preview, data, existing, await _known(desk, tenant), country)
    if not keep or not (found.create or found.change) or (not found.clean and not skip_mistakes):
        return found
    async with desk.store.changing(tenant, actor) as changes:
        await changes.all(Number.kind)  # else each is asked for by itself
        for number in (*found.create, *(change.after for change in found.change)):
            await desk.check(changes, number)
        await changes.create(await asyncio.to_thread(lambda: [new(number) for number in found.create]))
        for change in found.change:
            await changes.replace(new(change.after), versions[change.after.number])
    desk.changed(tenant)
    return found


async def _known(desk: Desk, tenant: TenantId) -> Known:
    async def names(kind: str) -> Collection[str]:
        return {kept.key async for kept in desk.store.every(tenant, kind)}

    terms = await desk.store.get(tenant, Tenant.kind, "tenant")
    return Known(
        await names(Agent.kind),
        await names(Route.kind),
        await names(Carrier.kind),
        await names(Trunk.kind),
        tuple(terms.body["countries"]) if terms is not None else (),
    )
