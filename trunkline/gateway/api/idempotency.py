"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07) on POST /v1/calls: an order repeated is one call.

    claim (durable) ──► Claimed  ──► dial ──► 201, or the refusal and the key is free again
                    ├─► Known    ──► 201, the same call: it is named with the claim, so its answer is known as well
                    └─► Conflict ──► 422

What dies between the claim and the dialling was never dialled, and is not dialled afterwards either: its record says
gateway_lost. A repeat that comes while the order is being placed gets 409, as the draft has it; the answer is there a
moment later. A refusal frees the key, because nothing was dialled: the same order may be tried again.
"""

import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from starlette.responses import Response

from trunkline.errors import StoreError
from trunkline.gateway.api.problems import problem
from trunkline.gateway.dialling import DialOrder, new_call_id
from trunkline.ports import Conflict, Known, Orders, Refuse
from trunkline.types import CallId, TenantId

log = logging.getLogger(__name__)

MAX_KEY_CHARS = 128
_KEY = re.compile(r'(?:"([!#-\[\]-~]{1,128})"|([!#-\[\]-~]{1,128}))')  # as the draft's quoted string, or bare


class Calls(Protocol):
    """The switchboard."""

    def live(self, call_id: CallId) -> object | None: ...

    def lost(self, order: DialOrder) -> None: ...


Place = Callable[[DialOrder], Awaitable[CallId | Refuse]]
"""Places an order that is taken."""


class Records(Protocol):
    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None: ...


def key_of(headers: Sequence[str]) -> str | Response | None:
    """None: the client does not ask for it."""
    if not headers:
        return None
    found = _KEY.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        detail = f"Idempotency-Key: one, of 1 to {MAX_KEY_CHARS} ASCII characters without blanks"
        return problem(400, detail, code="idempotency_key_invalid")
    return found[1] or found[2]


def fingerprint(body: bytes) -> str:
    """The same for the same JSON, however it is written."""
    plain = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


class OrderDesk:
    """Takes each order once. A key is its tenant's only."""

    def __init__(self, orders: Orders, calls: Calls, records: Records, dial: Place) -> None:
        self._orders, self._calls, self._records = orders, calls, records
        self._dial = dial
        self._being_placed: set[tuple[TenantId, str]] = set()

    async def place(self, tenant: TenantId, key: str, body: bytes, order: DialOrder) -> CallId | Refuse | Response:
        """Raises StoreError when the database is away: nothing is dialled then."""
        if (tenant, key) in self._being_placed:
            detail = "an order with this key is being placed"
            return problem(409, detail, {"Retry-After": "1"}, code="idempotency_key_in_use")
        self._being_placed.add((tenant, key))
        try:
            return await self._place(tenant, key, fingerprint(body), replace(order, call_id=new_call_id()))
        finally:
            self._being_placed.discard((tenant, key))

    async def _place(self, tenant: TenantId, key: str, mark: str, order: DialOrder) -> CallId | Refuse | Response:
        assert order.call_id is not None
        taken = await self._orders.claim(tenant, key, mark, order.call_id)
        if isinstance(taken, Conflict):
            return problem(422, "this key was used for another order", code="idempotency_key_reused")
        if isinstance(taken, Known):
            return await self._again(tenant, taken, order)
        placed = await self._dial(order)
        if isinstance(placed, Refuse):
            await self._release(tenant, key, order.call_id)
        return placed

    async def _again(self, tenant: TenantId, known: Known, order: DialOrder) -> CallId:
        """A call without a trace was lost with its process. Another worker's is left to that worker."""
        call_id = known.call_id
        traced = not known.ours or self._calls.live(call_id) or await self._records.get(tenant, call_id)
        if not traced:
            self._calls.lost(replace(order, call_id=call_id))
        return call_id

    async def _release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        try:
            await self._orders.release(tenant, key, call_id)
        except StoreError as error:  # the key stays with the refused call for a day
            log.error("an idempotency key is not released: %s", error)
