"""The costs of a record, summed."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from trunkline.compliance.money.meter import ZERO, leg_name, text
from trunkline.compliance.money.prices import Missing
from trunkline.ports import HERE


def invoice(costs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of `costs` (usd, provider, kind, product, item) as an account tells them: USD as text. `missing`: what was
    used and had no price."""
    total, missing = ZERO, dict[str, None]()
    sums: dict[str, dict[str, Decimal]] = {"product": {}, "provider": {}, "kind": {}, "leg": {}}
    for cost in costs:
        if cost["usd"] is None:
            missing[str(Missing(cost["provider"], cost["kind"], cost["product"], cost["unit"]))] = None
            continue
        usd = Decimal(cost["usd"])
        total += usd
        for what, by in sums.items():
            if what == "leg":
                if cost["kind"] != "leg":
                    continue
                name = leg_name(cost["provider"], cost["product"])
            else:
                name = cost["provider"] if cost[what] in ("", HERE) else cost[what]
            by[name] = by.get(name, ZERO) + usd
    found: dict[str, Any] = {"usd": text(total), "complete": not missing, "missing": list(missing)}
    return found | {f"by_{what}": {name: text(usd) for name, usd in by.items()} for what, by in sums.items()}
