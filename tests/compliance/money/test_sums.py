"""Whatever is used in whatever order: the meter's sum is that of an invoice written down by itself here, and budgets
that processes share neither lose nor invent money."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.compliance.money.account import Account, Terms
from trunkline.compliance.money.invoice import invoice
from trunkline.compliance.money.leases import NANO, Lease, Leases, Purse
from trunkline.compliance.money.meter import Meter
from trunkline.compliance.money.prices import COLUMNS, read
from trunkline.ports import HERE, Usage
from trunkline.types import CallId

F = Fraction
TABLE = """
t,leg,inbound*,voice,seconds,0.0085,60,60
t,leg,inbound-GB,voice,seconds,0.01,60,6
t,leg,inbound-GB,fee,seconds,0.001,60,
s,leg,transfer*,voice,seconds,0.0123,60,1
d,stt,ears,hearing,seconds,0.0077,60,
d,tts,voice,speaking,characters,15,1000000,
d,tts,voice,streaming,characters,0.00001,1,100
o,llm,mind,asking,tokens_in,0.4,1000000,
o,llm,mind,asking,cached_tokens_in,0.1,1000000,
o,llm,mind,answering,tokens_out,1.6,1000000,
o,llm,old,asking,tokens_in,2,1000000,
"""
PRICES = read("\n".join(["# version 1", COLUMNS, *(f"{row},2026-11-28,x" for row in TABLE.split())]))

BY_HAND: dict[tuple[str, str, str, str], list[tuple[Fraction, int | None]]] = {
    ("t", "leg", "inbound-US", "seconds"): [(F(85, 600_000), 60)],
    ("t", "leg", "inbound-GB", "seconds"): [(F(1, 6000), 6), (F(1, 60_000), None)],
    ("s", "leg", "transfer-DE", "seconds"): [(F(123, 600_000), 1)],
    ("d", "stt", "ears", "seconds"): [(F(77, 600_000), None)],
    ("d", "tts", "voice", "characters"): [(F(15, 10**6), None), (F(1, 10**5), 100)],
    ("o", "llm", "mind", "tokens_in"): [(F(4, 10**7), None)],
    ("o", "llm", "mind", "cached_tokens_in"): [(F(1, 10**7), None)],
    ("o", "llm", "mind", "tokens_out"): [(F(16, 10**7), None)],
    ("o", "llm", "old", "tokens_in"): [(F(2, 10**6), None)],
    ("o", "llm", "old", "cached_tokens_in"): [(F(2, 10**6), None)],
}
"""USD a unit, and the step it is billed in."""
WITHOUT = [("o", "llm", "old", "tokens_out"), ("x", "stt", "new", "seconds"), ("t", "leg", "outbound-CU", "seconds")]
OURS = [("e", "tts", HERE, "characters"), ("webrtc", "leg", HERE, "seconds")]
CUT_OFF = [("o", "llm", "mind", "calls"), ("o", "llm", "old", "calls")]
WHOLE = {"characters", "tokens_in", "cached_tokens_in", "tokens_out", "calls"}
A_PICO = F(1, 10**12)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    provider, kind, product, unit = draw(st.sampled_from([*BY_HAND, *WITHOUT, *OURS, *CUT_OFF]))
    counts = st.integers(0, 3 if unit == "calls" else 200_000)
    quantity = draw(counts if unit in WHOLE else st.integers(0, 4_000_000).map(lambda ms: ms / 1000))
    return Usage(CallId("c"), provider, kind, unit, quantity, product)  # type: ignore[arg-type]


def hand(used: Sequence[Usage]) -> Fraction:
    total, last = F(0), dict[str, int]()
    for usage in used:
        quantity, unit = F(str(usage.quantity)), str(usage.unit)
        if unit == "tokens_in":
            last[usage.product] = int(usage.quantity)
        if unit == "calls":
            quantity, unit = quantity * last.get(usage.product, 1500), "tokens_in"
        for usd, step in BY_HAND.get((usage.provider, usage.kind, usage.product, unit), []):
            total += usd * (quantity if step is None else ceil(quantity / step) * step)
    return total


@settings(max_examples=100, deadline=None)
@given(st.lists(usages(), max_size=40))
def test_a_calls_sum_is_that_of_its_invoice_by_hand(used: list[Usage]) -> None:
    account = Account(Meter(PRICES), Terms(), Decimal(0))
    rows: list[dict[str, Any]] = []
    for at, usage in enumerate(used):
        of = {"provider": usage.provider, "kind": usage.kind, "product": usage.product, "unit": usage.unit}
        rows += [of | {"item": cost.item, "usd": cost.usd} for cost in account.take(usage, float(at))]
    off = F(account.cost(1e6)) - hand(used)
    assert abs(off) <= A_PICO * (2 * len(used))
    told = account.told(1e6)
    assert invoice(rows) == {name: told[name] for name in invoice(rows)}
    for what in ("product", "provider", "kind", "leg"):
        whole = told["usd"] if what != "leg" else told["by_kind"].get("leg", "0")
        assert sum(map(Decimal, told[f"by_{what}"].values())) == Decimal(whole)
    lacking = [u for u in used if (u.provider, u.kind, u.product, u.unit) in WITHOUT and u.quantity]
    assert told["complete"] == (not lacking)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([key for key in BY_HAND if key[1] == "leg"]), st.integers(0, 300_000)), max_size=6
    ),
    st.integers(0, 400_000),
)
def test_what_is_reserved_for_legs_is_what_they_would_be_billed(
    legs: list[tuple[tuple[str, str, str, str], int]], at_ms: int
) -> None:
    meter, expected = Meter(PRICES), F(0)
    for (provider, _, product, _), began_ms in legs:
        meter.take(Usage(CallId("c"), provider, "leg", "calls", 1, product), began_ms / 1000)
    for (provider, kind, product, unit), began_ms in legs:
        seconds = round(max(0.0, at_ms / 1000 - began_ms / 1000), 3)
        expected += hand([Usage(CallId("c"), provider, kind, unit, seconds, product)])  # type: ignore[arg-type]
    assert abs(F(meter.reserved(at_ms / 1000)) - expected) <= A_PICO * 12
    for (provider, _, product, _), began_ms in legs:
        seconds = round(max(0.0, at_ms / 1000 - began_ms / 1000), 3)
        meter.take(Usage(CallId("c"), provider, "leg", "seconds", seconds, product), at_ms / 1000)
    assert meter.reserved(1e6) == 0
    assert abs(F(meter.spent) - expected) <= A_PICO * 12


# --- budgets ---

TODAY, TOMORROW = "2026-11-28", "2026-11-29"
PURSE = Purse("tenant", "default", TODAY)
LIMIT = Decimal(10)
CALLS = [f"c{n}" for n in range(4)]
STEPS = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 1), st.sampled_from(CALLS), st.integers(0, 4_000_000_000)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from(CALLS), st.integers(0, 4_000_000_000)),
    st.tuples(st.just("take"), st.integers(0, 1), st.just(""), st.just(0)),
    st.tuples(st.just("midnight"), st.integers(0, 1), st.just(""), st.just(0)),
    st.tuples(st.just("late"), st.integers(0, 1), st.sampled_from(CALLS), st.integers(-1_000_000_000, 1_000_000_000)),
)


class Processes:
    """Two, of one store, as `store.budgets` counts: never more than the limit is given out."""

    def __init__(self) -> None:
        self.taken = self.settled = 0
        self.processes = [Leases(), Leases()]
        self.calls: list[dict[str, Lease]] = [{}, {}]
        self.over: list[Lease] = []
        """Whose rest was given back."""

    def take(self, who: int) -> None:
        for purse, share in self.processes[who].wanted(0.0):
            given = max(0, min(share.nano_usd, share.limit_nano_usd - self.taken))
            self.taken += given
            self.processes[who].granted(purse, share, given, 0.0)

    def give_back(self, who: int, today: str, *, everything: bool = False) -> None:
        lease = self.processes[who].of(PURSE, LIMIT)
        for _, left in self.processes[who].over(today, everything=everything):
            self.taken -= left
            self.over.append(lease)

    def step(self, what: str, who: int, call: str, nano_usd: int) -> None:
        usd, calls = Decimal(nano_usd) / NANO, self.calls[who]
        match what:
            case "hold":
                lease = calls.get(call) or self.processes[who].of(PURSE, LIMIT)
                before = lease.holds.get(call, Decimal(0)), lease.used
                if lease.hold(call, usd):
                    calls[call] = lease
                else:
                    assert (lease.holds.get(call, Decimal(0)), lease.used) == before, "it stays as it was"
            case "settle" if call in calls:
                calls.pop(call).settle(call, usd)
                self.settled += nano_usd
            case "late" if call not in calls:
                lease = self.processes[who].of(PURSE, LIMIT)
                lease.settle(call, usd)
                self.settled += nano_usd
            case "take":
                self.take(who)
            case "midnight":
                self.give_back(who, TOMORROW)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_no_order_of_holding_settling_and_giving_back_loses_or_invents_money(
    steps: list[tuple[str, int, str, int]],
) -> None:
    world = Processes()
    for step in steps:
        world.step(*step)
        for who in (0, 1):
            lease = world.processes[who].of(PURSE, LIMIT)
            held = sum(lease.holds.values(), Decimal(0))
            assert lease.holds.keys() == world.calls[who].keys()
            assert lease.used >= held or any(what == "late" for what, *_ in steps)
    for who in (0, 1):
        for call in list(world.calls[who]):
            world.step("settle", who, call, 123_456_789)
        world.give_back(who, TODAY, everything=True)
    assert world.taken == world.settled, "what was taken of the budget is what calls have cost"


def test_the_table_here_is_the_one_by_hand() -> None:
    """Or the invoice would be one of other prices."""
    for (provider, kind, product, unit), items in BY_HAND.items():
        rows = PRICES.of(provider, kind, product, unit)  # type: ignore[arg-type]
        found = [(F(row.price) / row.per, None if row.round_to is None else int(row.round_to)) for row in rows]
        assert set(found) == set(items)
    for provider, kind, product, unit in WITHOUT:
        assert PRICES.of(provider, kind, product, unit) == ()  # type: ignore[arg-type]
