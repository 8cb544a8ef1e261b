"""How many calls a tenant and a number of ours may have at once, over all processes.

Each call holds a *slot* in the store: a lease that is renewed while the call lives, so those of a process that died
come back by themselves. A slot is asked for before the switchboard is (`ask`, which awaits), and taken up by the call
when it is let in (`claim`, which does not); whoever is turned away for another reason gives it back (`free`).

    edge: await ask ─► store ─┬─► a slot ─► claim: the call has it ─► free
                              ├─► full ───► claim: Refuse
                              └─► away ───► claim: calls in by what this process has itself, calls out are refused

Calls out find a scope full while as many are still free as it keeps for calls that come in.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.ports import Refuse, SlotStore
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger(__name__)

LEASE_S = 30.0
RENEW_S = 10.0
ASK_S = 1.5
"""Then the store counts as away: a caller waits."""
ASK_AGAIN_S = 0.3
"""While it does."""
PENDING_S = 15.0
"""From the store's answer to the call that was to follow."""

Direction = Literal["inbound", "outbound"]
Scopes = Mapping[str, int]
"""What a call counts in, and how many calls may be there before it."""

FULL = {
    "tenant": Refuse(
        "tenant_full",
        "there are as many calls at once as may be (max_calls of the tenant, or limits.max_calls_per_tenant)",
    ),
    "number": Refuse(
        "number_full",
        "this number has as many calls at once as it may (its max_calls, or limits.max_calls_per_number)",
    ),
}
KEPT = "the lines that are free are kept for calls that come in (reserved_inbound, or limits.reserved_inbound_per_{})"
UNKNOWN = Refuse("slots_unknown", "how many calls there are cannot be read")


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """None: no limit."""

    per_tenant: int | None = None
    per_number: int | None = None
    reserved_per_tenant: int = 0
    reserved_per_number: int = 0
    tenant: TenantId = DEFAULT_TENANT
    """Whose they are."""

    @property
    def any(self) -> bool:
        return self.per_tenant is not None or self.per_number is not None

    def scopes(self, direction: Direction, number: str | None) -> dict[str, int]:
        """`number`: ours."""
        out = direction == "outbound"
        found: dict[str, int] = {}
        if self.per_tenant is not None:
            found["tenant"] = self.per_tenant - self.reserved_per_tenant * out
        if self.per_number is not None and number is not None:
            found[f"number:{number}"] = self.per_number - self.reserved_per_number * out
        return found

    def refusal(self, scope: str, direction: Direction) -> Refuse:
        kind = scope.partition(":")[0]
        reserved = self.reserved_per_tenant if kind == "tenant" else self.reserved_per_number
        full = FULL[kind]
        return Refuse(full.code, KEPT.format(kind)) if direction == "outbound" and reserved else full


@dataclass(slots=True)
class _Slot:
    limits: SlotLimits
    scopes: Scopes
    answer: Literal["taken", "away"] | Refuse
    asked_at: float
    asked: bool = True
    claimed: bool = False


@dataclass(slots=True)
class Slots:
    """Of one process. Names are a call's, as its carrier or we have it; in the store they are made unique."""

    limits: SlotLimits
    """Of calls whose number has none of its own."""
    store: SlotStore
    clock: Clock
    process: str
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _free: dict[str, TenantId] = field(default_factory=dict)
    """To be given back."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _away: bool = False
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="slots")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._free |= {name: slot.limits.tenant for name, slot in self._slots.items()}
        self._slots.clear()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                await self._give_back()

    # --- a call ---

    async def ask(self, name: str, direction: Direction, number: str | None, limits: SlotLimits | None = None) -> None:
        """Does not raise, and takes ASK_S at most. Whoever has asked claims or frees it."""
        limits = limits or self.limits
        scopes = limits.scopes(direction, number)
        if name in self._slots or not scopes:
            return
        self._free.pop(name, None)
        answer: Literal["taken", "away"] | Refuse = "away"
        try:
            async with asyncio.timeout(ASK_AGAIN_S if self._away else ASK_S):
                full = await self.store.take(limits.tenant, self._unique(name), scopes, LEASE_S)
        except (StoreError, TimeoutError) as error:
            self._is_away(str(error) or "slots: the store does not answer")
        else:
            answer = "taken" if full is None else limits.refusal(full, direction)
            self._is_back()
        if name not in self._slots:  # asked twice at once, and let in
            self._slots[name] = _Slot(limits, scopes, answer, self.clock.now())

    async def reserve(
        self, name: str, direction: Direction, number: str | None, limits: SlotLimits | None = None
    ) -> Refuse | None:
        """As `ask`, for whoever asks again later: what was refused is forgotten. None: `claim` will let them, within
        PENDING_S. Codes as of `claim`; `slots_unknown` where the store is away."""
        await self.ask(name, direction, number, limits)
        slot = self._slots.get(name)
        if slot is None or slot.answer == "taken" or slot.claimed:
            return None
        del self._slots[name]
        return UNKNOWN if slot.answer == "away" else slot.answer

    def claim(
        self, name: str, direction: Direction, number: str | None, limits: SlotLimits | None = None
    ) -> Refuse | None:
        """For a call that is let in now. Codes: `tenant_full`, `number_full`, `slots_unknown`."""
        slot = self._slots.get(name)
        if slot is None:  # who comes back after a lost leg,
            limits = limits or self.limits
            slot = _Slot(limits, limits.scopes(direction, number), "away", self.clock.now(), asked=False)
            self._slots[name] = slot
        if slot.answer == "away" and not slot.claimed:
            tenant = slot.limits.tenant
            full = next((scope for scope, most in slot.scopes.items() if self._here(tenant, scope) >= most), None)
            if full is not None:
                slot.answer = slot.limits.refusal(full, direction)
            elif direction == "outbound" and slot.asked:
                slot.answer = UNKNOWN
        if isinstance(slot.answer, Refuse):
            del self._slots[name]
            return slot.answer
        slot.claimed = True
        return None

    def free(self, name: str) -> None:
        """Idempotent."""
        slot = self._slots.pop(name, None)
        if slot is not None and slot.scopes and not isinstance(slot.answer, Refuse):
            self._free[name] = slot.limits.tenant
            self._wake.set()

    def _here(self, tenant: TenantId, scope: str) -> int:
        return sum(
            slot.claimed and slot.limits.tenant == tenant and scope in slot.scopes for slot in self._slots.values()
        )

    def _unique(self, name: str) -> str:
        return f"{self.process}:{name}"

    # --- the store ---

    async def _keep(self) -> None:
        renew_at = self.clock.now() + RENEW_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.1, renew_at - self.clock.now())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._free:
                    await self._give_back()
                if self.clock.now() >= renew_at:
                    renew_at = self.clock.now() + RENEW_S
                    await self.renew()
            except (StoreError, TimeoutError) as error:
                self._is_away(str(error) or "slots: the store does not answer")
            except Exception:
                log.exception("slots")

    async def renew(self) -> None:
        """Also of those that the store was not told of, or has forgotten."""
        for name, slot in tuple(self._slots.items()):
            if not slot.claimed and self.clock.now() >= slot.asked_at + PENDING_S:
                self.free(name)
        held: dict[TenantId, dict[str, list[str]]] = {}
        for name, slot in self._slots.items():
            if slot.claimed and slot.scopes:
                held.setdefault(slot.limits.tenant, {})[self._unique(name)] = list(slot.scopes)
        if not held and self._away:
            held[self.limits.tenant] = {}
        if not held:
            return
        for tenant, slots in held.items():
            async with asyncio.timeout(ASK_S):
                await self.store.renew(tenant, slots, LEASE_S)
        self._is_back()

    async def _give_back(self) -> None:
        for tenant in set(self._free.values()):
            names: Sequence[str] = [name for name, whose in self._free.items() if whose == tenant]
            async with asyncio.timeout(ASK_S):
                await self.store.give_back(tenant, [self._unique(name) for name in names])
            for name in names:
                self._free.pop(name, None)

    def _is_away(self, why: str) -> None:
        if not self._away:
            log.warning("%s; calls in are counted by this process alone, calls out are refused", why)
        self._away = True

    def _is_back(self) -> None:
        if self._away:
            log.warning("slots can be read again")
        self._away = False
