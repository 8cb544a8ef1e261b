"""The edge: prices read again, budgets of several processes, a store that is away."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from trunkline.compliance.money.account import Account, Terms
from trunkline.compliance.money.prices import COLUMNS, leg_units
from trunkline.compliance.money.treasury import Own, Policy, Treasury, Wanted
from trunkline.errors import StoreError
from trunkline.monies import own_budgets
from trunkline.ports import Refuse, Share, Usage
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId, TenantId

D = Decimal
LEG = ("twilio", "leg", "inbound-US")
VOICE = ("elevenlabs", "tts", "eleven_flash_v2_5")


def wanted(call: str = "c1", *needs: tuple[str, str, str]) -> Wanted:
    return Wanted(call, "clinic", "+14155550100", needs or (LEG, VOICE))  # type: ignore[arg-type]


class Purses:
    """The store, or its absence."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.away = False

    async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
        if self.away:
            raise StoreError("away")
        given = max(0, min(share.nano_usd, share.limit_nano_usd - self.taken.get(budget, 0)))
        self.taken[budget] = self.taken.get(budget, 0) + given
        return given

    async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
        if self.away:
            raise StoreError("away")
        self.taken[budget] -= nano_usd


def treasury(purses: Purses | None = None, **policy: object) -> Treasury:
    return Treasury(Policy(**policy), purses or Purses(), ManualClock())  # type: ignore[arg-type]


def opened(made: Account | Refuse) -> Account:
    assert isinstance(made, Account), made
    return made


def test_an_unknown_price_is_refused_by_the_name_of_its_row() -> None:
    refused = treasury(refuse_unknown=True).open(wanted("c1", LEG, ("openai", "llm", "gpt-9")))
    assert refused == Refuse("unknown_price", "no price for openai,llm,gpt-9 per tokens_in: add the row to prices.csv")


def test_a_budget_below_a_minute_and_a_goodbye_lets_nobody_in() -> None:
    made = treasury(terms=Terms(call_usd=D("0.017")))
    assert isinstance(refused := made.open(wanted()), Refuse)
    assert (refused.code, "0.0173" in refused.why) == ("budget", True)  # 1.25 cents and 120 characters
    assert isinstance(treasury(terms=Terms(call_usd=D("0.0173"))).open(wanted()), Account)


def test_two_processes_spend_one_budget() -> None:
    async def scenario() -> None:
        purses = Purses()
        one, other = (treasury(purses, tenant_day_usd=D("0.30")) for _ in range(2))
        first = opened(one.open(wanted("a")))
        calls, refused = 1, 0
        while refused < 2:
            for process in (one, other):
                await process.turn()
                made = process.open(wanted(f"c{calls}"))
                calls += isinstance(made, Account)
                refused = refused + 1 if made == Refuse("budget", "the tenant's budget of the day is spent") else 0
        assert 13 <= calls <= 17  # of 1.73 cents each: what one process has left over, the other cannot spend
        assert sum(purses.taken.values()) == 300_000_000
        first.close(0)
        assert isinstance(one.open(wanted("d")), Account)

    asyncio.run(scenario())


def test_what_a_process_did_not_spend_is_there_for_others() -> None:
    async def scenario() -> None:
        purses = Purses()
        one = treasury(purses, tenant_day_usd=D(1))
        account = opened(one.open(wanted()))
        await one.turn()
        for unit in leg_units(LEG[0]):
            account.take(Usage(CallId("a"), *LEG[:2], unit, 30, LEG[2]), 30)  # type: ignore[arg-type]
        account.close(30)
        await one.close()
        assert list(purses.taken.values()) == [12_500_000]

    asyncio.run(scenario())


def test_while_the_store_is_away_calls_go_on_and_new_ones_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        purses = Purses()
        purses.away = True
        made = treasury(purses, number_day_usd=D(1))
        account = opened(made.open(wanted("a")))
        await made.turn()
        await made.turn()
        assert account.look(500.0) is None
        refused = made.open(wanted("b"))
        assert isinstance(refused, Refuse)
        assert refused.code == "budget_unknown"
        purses.away = False
        await made.turn()
        assert isinstance(made.open(wanted("b")), Account)

    asyncio.run(scenario())
    assert len(caplog.messages) == 2


def test_while_the_store_is_away_new_calls_are_paid_by_what_was_granted_and_not_more() -> None:
    async def scenario() -> None:
        purses = Purses()
        made = treasury(purses, tenant_day_usd=D("0.20"))
        first = opened(made.open(wanted("a")))
        await made.turn()  # 6.73 cents; each call holds 1.73
        purses.away = True
        for name in "bc":
            opened(made.open(wanted(name)))
        await made.turn()
        refused = made.open(wanted("d"))
        assert isinstance(refused, Refuse)
        assert refused.code == "budget_unknown"
        assert first.look(500.0) is None
        assert isinstance(made.open(wanted("d")), Account)

    asyncio.run(scenario())


def test_a_store_that_does_not_answer_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Purses):
        async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
            await asyncio.Event().wait()
            return 0

    async def scenario() -> None:
        monkeypatch.setattr("trunkline.compliance.money.treasury.TAKE_S", 0.01)
        made = treasury(Hanging(), tenant_day_usd=D(1))
        opened(made.open(wanted("a")))
        await made.turn()
        refused = made.open(wanted("b"))
        assert isinstance(refused, Refuse)
        assert refused.code == "budget_unknown"

    asyncio.run(scenario())


def test_a_table_that_became_wrong_leaves_the_last_good_one_and_calls_keep_theirs(tmp_path: Path) -> None:
    def write(price: str) -> None:
        row = f"twilio,leg,inbound-US,voice,seconds,{price},60,60,2026-11-28,contract"
        (tmp_path / "prices.csv").write_text(f"# version {price}\n{COLUMNS}\n{row}")

    write("0.01")
    made = Treasury(Policy(prices=tmp_path), None, ManualClock())
    account = opened(made.open(wanted("c1", LEG)))
    write("-0.01")
    made.reread()
    assert "row 3, price" in made.problem
    assert made.prices.version == "0.01"
    write("0.020")
    made.reread()
    assert (made.problem, made.prices.version) == ("", "0.020")
    account.take(Usage(CallId("c1"), *LEG[:2], "seconds", 30, LEG[2]), 30)  # type: ignore[arg-type]
    assert account.close(30) == D("0.01")


def test_old_rows_are_warned_of_with_the_oldest(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    row = "t,leg,*,voice,seconds,1,60,60,2001-01-01,contract"
    (tmp_path / "prices.csv").write_text(f"# version 1\n{COLUMNS}\n{row}")
    Treasury(Policy(prices=tmp_path), None, ManualClock())
    assert "1 rows are older than 90 days; the oldest is row 3 (t, *, of 2001-01-01)" in caplog.text


def test_a_table_that_was_replaced_by_a_wrong_one_or_taken_away_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "prices.csv"
    row = "twilio,leg,inbound-US,voice,seconds,0.01,60,60,2026-11-28,contract"
    table.write_text(f"# version mine\n{COLUMNS}\n{row}")
    made = Treasury(Policy(prices=tmp_path), None, ManualClock())
    for wrong in (f"{row}\n{row}", row.replace("0.01", ""), "twilio,leg"):
        caplog.clear()
        table.write_text(f"# version {len(wrong)}\n{COLUMNS}\n{wrong}")
        for _ in range(5):
            made.reread()
        assert [message.endswith("; the last good table stays in force") for message in caplog.messages] == [True]
        assert "prices.csv row " in made.problem
        assert made.prices.version == "mine"
    caplog.clear()
    table.unlink()
    for _ in range(5):
        made.reread()
    assert len(caplog.messages) == 1
    assert (made.problem[:10], made.prices.version) == ("prices.csv", "mine")
    assert opened(made.open(wanted("c1", LEG))).meter.prices.version == "mine"


def test_an_old_row_of_our_table_is_warned_of_when_it_is_first_used(caplog: pytest.LogCaptureFixture) -> None:
    made = treasury(price_max_age_days=90)
    made.open(wanted("a"))
    assert caplog.messages == []
    for call in "bc":
        made.open(wanted(call, LEG, ("deepgram", "stt", "flux-general-en")))
    assert len(caplog.messages) == 1
    assert "deepgram flux-general-en per seconds is of 2026-06-07, more than 90 days ago" in caplog.messages[0]


def test_a_burst_before_the_store_has_answered_spends_a_slice_of_the_day_at_most() -> None:
    made = treasury(tenant_day_usd=D("1.00"))
    opened_now = [made.open(wanted(f"c{i}")) for i in range(200)]
    held = made.leases.of(next(purse for purse, _ in made.leases.wanted(0.0)), D(1)).used
    assert held <= D("0.25")
    assert opened_now[-1] == Refuse("budget_unknown", "what is left of the tenant's budget of the day was not told yet")


def test_a_store_that_hangs_when_given_back_to_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.compliance.money.treasury.GIVE_BACK_S", 0.01)

    class Hanging(Purses):
        async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        clock = ManualClock()
        made = Treasury(Policy(tenant_day_usd=D(1)), Hanging(), clock)
        opened(made.open(wanted("a"))).close(0.0)
        await made.turn()
        clock.advance(86_400)
        async with asyncio.timeout(5.0):
            await made.turn()

    asyncio.run(scenario())


# --- budgets of desks ---


def own(scope: str, usd: str, per: str = "day", key: str | None = None) -> Own:
    return Own("b", scope, key, per, D(usd))  # type: ignore[arg-type]


def test_the_least_budget_that_applies_holds() -> None:
    made = treasury(tenant_day_usd=D(5))
    made.own = {DEFAULT_TENANT: [own("tenant", "3"), own("number", "2", key="+14155550199"), own("agent", "4")]}
    limits = {scope: lease.limit for scope, lease in made.account(wanted()).leases.items()}
    assert limits == {"tenant": D(3), "agent": D(4)}
    made.own = {DEFAULT_TENANT: [own("tenant", "9")]}
    assert made.account(wanted("c2")).leases["tenant"].limit == D(5)
    made.own = {TenantId("other"): [own("tenant", "1")]}
    assert made.account(wanted("c3")).leases["tenant"].limit == D(5)


def test_a_desks_budget_of_a_call_refuses_what_cannot_be_paid() -> None:
    made = treasury(terms=Terms(call_usd=D(2)))
    made.own = {DEFAULT_TENANT: [own("agent", "0.0001", "call")]}
    refused = made.open(wanted())
    assert isinstance(refused, Refuse)
    assert refused.code == "budget"
    assert refused.why.startswith("the budget of a call is less than a minute and a goodbye")
    made.own = {DEFAULT_TENANT: [own("agent", "0.0001", "call", key="default/another")]}
    assert not isinstance(made.open(wanted()), Refuse)


def test_rows_of_desks_are_budgets_by_tenant() -> None:
    rows = [
        (DEFAULT_TENANT, {"name": "a", "scope": "agent", "agent": "desk", "number": None, "per": "day", "usd": "1.5"}),
        (TenantId("t"), {"name": "b", "scope": "number", "agent": None, "number": None, "per": "call", "usd": "2"}),
    ]
    assert own_budgets(rows) == {
        DEFAULT_TENANT: [Own("a", "agent", "default/desk", "day", D("1.5"))],
        TenantId("t"): [Own("b", "number", None, "call", D(2))],
    }
