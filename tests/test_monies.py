"""[money] of the settings, and what is wrong with it before the first call."""

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from trunkline.agents.attending import Agent
from trunkline.agents.definition import HandOff
from trunkline.agents.providers import Minds
from trunkline.compliance.money.prices import COLUMNS
from trunkline.compliance.money.treasury import Treasury
from trunkline.errors import ConfigError
from trunkline.monies import check_money, money_policy
from trunkline.settings.money import Money
from trunkline.testing.board import DEFINITION
from trunkline.testing.clock import ManualClock

D = Decimal
VOICE = SimpleNamespace(name="elevenlabs", product="eleven_flash_v2_5", third_party=True)
HERE = SimpleNamespace(name="script", third_party=False)
DEFINED = SimpleNamespace(
    **{name: getattr(DEFINITION, name) for name in ("name", "targets")}, agents={"basic": HandOff("/b.toml", "all")}
)
AGENT = cast(
    Agent,
    SimpleNamespace(
        definition=DEFINED, minds=Minds(cast(Any, HERE), cast(Any, HERE), cast(Any, VOICE)), providers=(HERE, VOICE)
    ),
)


def check(*, twilio: bool = True, **money: Any) -> None:
    settings = SimpleNamespace(
        money=Money(**money),
        twilio=SimpleNamespace(auth_token="token" if twilio else None),
        sip=SimpleNamespace(trunks={}),
    )
    check_money(cast(Any, settings), Treasury(money_policy(settings.money), None, ManualClock()), AGENT)


@pytest.mark.parametrize("key", ["call_usd", "number_day_usd", "agent_day_usd", "tenant_day_usd"])
def test_a_budget_below_a_minute_and_a_goodbye_is_named_with_the_least_it_can_be(key: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        check(**cast(Any, {key: D("0.0172")}))
    assert str(wrong.value) == (
        f"money.{key} = '0.0172': at least 0.0173 (USD): a minute and a goodbye"
    )  # 0.0085 and 0.0040 the minute, 120 characters of 0.00004
    check(**cast(Any, {key: D("0.0173")}))


def test_a_target_without_transfer_is_a_contradiction() -> None:
    with pytest.raises(ValidationError, match="transfer: at_limit_target is set"):
        Money(at_limit_target="front")


def test_without_a_telephone_it_is_the_goodbye_alone() -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.0048 "):
        check(twilio=False, call_usd=D("0.0047"))
    check(twilio=False, call_usd=D("0.0048"))


@pytest.mark.parametrize(
    ("money", "named"),
    [
        ({"cheaper_agent": "ghost"}, "money.cheaper_agent = 'ghost'"),
        ({"at_limit": "transfer", "at_limit_target": "ghost"}, "money.at_limit_target = 'ghost'"),
    ],
)
def test_a_name_that_the_agents_file_has_not(money: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        check(**money)
    assert named in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["{row}", "{row}"], "row 4, product"),
        (["{row}"], ""),
        (["twilio,leg,*,voice,seconds,-1,60,60,2026-11-28,contract"], "row 3, price"),
        (["twilio,leg,*,voice,seconds,,60,60,2026-11-28,contract"], "row 3, price"),
        ([], "0 rows"),
    ],
)
def test_a_table_that_is_wrong_at_a_start_is_an_error_in_one_line(tmp_path: Path, rows: list[str], named: str) -> None:
    row = "twilio,leg,*,voice,seconds,1,60,60,2026-11-28,contract"
    (tmp_path / "prices.csv").write_text("\n".join(["# version 1", COLUMNS, *(each.format(row=row) for each in rows)]))
    if not named:
        check(prices=tmp_path)
        return
    with pytest.raises(ConfigError) as wrong:
        check(prices=tmp_path)
    assert str(wrong.value).startswith("prices.csv")
    assert named in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_the_policy_is_what_the_settings_say() -> None:
    policy = money_policy(Money(call_usd=D(2), cheaper_agent="basic", cheaper_after_minutes=5, wrap_up_percent=70))
    terms = policy.terms
    assert (terms.call_usd, terms.cheaper_after_s, terms.wrap_up_share) == (D(2), 300.0, D("0.7"))
    assert policy.refuse_unknown
    assert not money_policy(Money()).refuse_unknown, "without a budget nobody is refused"
    capped = money_policy(Money(call_usd=D(2), unknown_price="cap"))
    assert (capped.refuse_unknown, capped.terms.assumed_usd_minute) == (False, D("0.50"))
