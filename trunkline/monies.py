"""[money] of the settings as the meter's terms, and what is wrong with them."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

from trunkline.agents.attending import Agent
from trunkline.compliance.money.account import Need, Terms
from trunkline.compliance.money.meter import ZERO, text
from trunkline.compliance.money.prices import Missing, Prices, leg_units
from trunkline.compliance.money.treasury import Own, Policy, Treasury
from trunkline.errors import ConfigError
from trunkline.gateway.spending import needs_of
from trunkline.settings import Settings
from trunkline.settings.money import Money
from trunkline.types import TenantId


def money_policy(money: Money) -> Policy:
    minutes = money.cheaper_after_minutes
    terms = Terms(
        call_usd=money.call_usd,
        wrap_up_share=Decimal(money.wrap_up_percent) / 100,
        cheaper_after_s=None if minutes is None else minutes * 60,
        cheaper_after_usd=money.cheaper_after_usd,
        cheaper_after_tools=frozenset(money.cheaper_after_tools),
        backend_s={name: minutes * 60 for name, minutes in money.backend_max_minutes.items()},
        assumed_usd_minute=money.assumed_usd_per_minute if money.limited else None,
    )
    return Policy(
        terms,
        money.number_day_usd,
        money.agent_day_usd,
        money.tenant_day_usd,
        refuse_unknown=money.limited and money.unknown_price == "refuse",
        price_max_age_days=money.price_max_age_days,
        prices=money.prices,
        assumed_usd_minute=money.assumed_usd_per_minute,
    )


def own_budgets(rows: Iterable[tuple[TenantId, Mapping[str, Any]]]) -> dict[TenantId, list[Own]]:
    """Of desks (numbers.resources.Budget), by tenant."""
    found: dict[TenantId, list[Own]] = {}
    for tenant, row in rows:
        key = row["number"] if row["scope"] == "number" else row["agent"] and f"{tenant}/{row['agent']}"
        own = Own(row["name"], row["scope"], key or None, row["per"], Decimal(row["usd"]))
        found.setdefault(tenant, []).append(own)
    return found


def budgets_of(
    money: Money, taken: Mapping[tuple[str, str], Decimal]
) -> list[tuple[str, Decimal, Literal["call", "day"], Decimal | None]]:
    """For people: each budget's name, its limit, of what it is, and what is taken of it. `taken`: of today, in USD, by
    scope and key."""
    found: list[tuple[str, Decimal, Literal["call", "day"], Decimal | None]] = []
    if money.call_usd is not None:
        found.append(("each call", money.call_usd, "call", None))
    if money.tenant_day_usd is not None:
        spent = sum((usd for (scope, _), usd in taken.items() if scope == "tenant"), ZERO)
        found.append(("all calls", money.tenant_day_usd, "day", spent))
    for kind, limit in (("agent", money.agent_day_usd), ("number", money.number_day_usd)):
        if limit is not None:
            rows = sorted((key, usd) for (scope, key), usd in taken.items() if scope == kind)
            found += [(f"{kind} {key}", limit, "day", usd) for key, usd in rows] or [
                (f"each {kind}", limit, "day", ZERO)
            ]
    return found


def missing_prices(treasury: Treasury, agents: Iterable[Agent]) -> list[Missing]:
    """Of the agents' providers, and of who follows a realtime model that is lost."""
    needs = [need for agent in agents for each in (agent, agent.fallback) if each for need in needs_of(each)]
    return list(dict.fromkeys(treasury.missing(needs)))


def check_money(settings: Settings, treasury: Treasury, agent: Agent) -> None:
    """`agent` has every call first. Raises ConfigError."""
    money, definition = settings.money, agent.definition
    for key, names in (("cheaper_agent", definition.agents), ("at_limit_target", definition.targets)):
        name = getattr(money, key)
        if name and name not in names:
            known = ", ".join(sorted(names)) or "it has none"
            raise ConfigError(f"money.{key}", name, f"a name of [{key.split('_')[-1]}s] in the agent's file: {known}")
    least = least_usd(settings, treasury, agent)
    for key in ("call_usd", "number_day_usd", "agent_day_usd", "tenant_day_usd"):
        budget = getattr(money, key)
        if budget is not None and budget < least:
            raise ConfigError(f"money.{key}", text(budget), f"at least {text(least)} (USD): a minute and a goodbye")


def least_usd(settings: Settings, treasury: Treasury, agent: Agent) -> Decimal:
    """A first minute on the cheapest leg that is set up, and a goodbye: no budget can be less."""
    legs = [kind for kind, there in (("twilio", settings.twilio.auth_token), ("sip", settings.sip.trunks)) if there]
    minutes = [minute for kind in legs if (minute := _cheapest_minute(treasury.prices, kind)) is not None]
    return min(minutes, default=ZERO) + treasury.goodbye_usd(needs_of(agent))


def _cheapest_minute(prices: Prices, provider: str) -> Decimal | None:
    products = {row.product for row in prices.rows if row.provider == provider and row.kind == "leg"}
    needs: list[Need] = [(provider, "leg", product) for product in products]
    found = [
        [row for unit in leg_units(provider) for row in prices.of(*need, unit)]
        for need in needs
        if prices.of(*need, "seconds")
    ]
    return min((sum((row.cost(Decimal(9)) for row in rows), ZERO) for rows in found), default=None)
