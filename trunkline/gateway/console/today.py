"""Today: what calls do now and did lately, in figures and charts, and whether all that they need is there.

The page comes with its figures and tables; the charts are drawn by the browser from /console/data/stats once it is
there. All of it is read from hours that were counted when calls ended, never from calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from math import inf
from typing import Any, Literal, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.calls import LiveCalls
from trunkline.gateway.api.history import By, History
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.seeing import page
from trunkline.gateway.console.words import END_REASONS, PARTS
from trunkline.identity import Principal
from trunkline.types import DEFAULT_TENANT, TenantId

PRODUCTS = 5
"""Drawn by name; the others are one."""
KEPT_S, KEPT_MOST = 10.0, 64
"""What a page was made of is what its charts are drawn from a moment later."""
HEALTH_S = 0.3
"""For what the store is asked beside the figures: a page waits no longer for it."""


class Span(NamedTuple):
    name: str
    length: timedelta
    by: By


SPANS: Mapping[str, Span] = {
    "24h": Span("24 hours", timedelta(hours=24), "hour"),
    "7d": Span("7 days", timedelta(days=7), "day"),
    "30d": Span("30 days", timedelta(days=30), "day"),
}


@dataclass(frozen=True, slots=True)
class AgentView:
    name: str
    ready: bool
    why: str = ""
    """It is not."""


@dataclass(frozen=True, slots=True)
class BudgetView:
    name: str
    usd: Decimal
    per: Literal["call", "day"]
    taken_usd: Decimal | None = None
    """Of today, by calls that are over and for those that go on; None: nobody counts it."""

    @property
    def percent(self) -> int | None:
        if self.taken_usd is None or self.usd <= 0:
            return None
        return min(100, round(self.taken_usd / self.usd * 100))


@dataclass(frozen=True, slots=True)
class Health:
    """What calls need, as it is now. All of it is asked when a page is."""

    not_ready: Callable[[], Sequence[str]] = tuple
    trunks: Callable[[], Sequence[TrunkView]] = tuple
    providers: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    agents: Callable[[TenantId], Sequence[AgentView]] = lambda tenant: ()
    budgets: Callable[[TenantId], Awaitable[Sequence[BudgetView]]] | None = None
    """Raises StoreError."""


def today_routes(pages: Pages, history: History, live: LiveCalls, health: Health, clock: Clock) -> list[Route]:
    kept: dict[tuple[TenantId, str], tuple[float, Mapping[str, Any]]] = {}

    async def figures(tenant: TenantId, chosen: str, kept_s: float = 0.0) -> Mapping[str, Any]:
        then, found = kept.get((tenant, chosen), (-inf, {}))
        if clock.now() - then <= kept_s:
            return found
        span, now = SPANS[chosen], clock.wall()
        found = await history.stats(tenant, now - span.length, now, span.by)
        kept.pop((tenant, chosen), None)
        if len(kept) >= KEPT_MOST:
            del kept[next(iter(kept))]
        kept[tenant, chosen] = clock.now(), found
        return found

    async def show(request: Request, who: Principal) -> Response:
        chosen = _chosen(request)
        now = clock.wall()
        begun = now.replace(hour=0, minute=0, second=0, microsecond=0)
        found, today, budgets = await asyncio.gather(
            figures(who.tenant, chosen),
            history.stats(who.tenant, begun, now + timedelta(seconds=1), "hour"),
            _budgets(health, who.tenant),
        )
        operated = who.tenant == DEFAULT_TENANT  # what the process has is the installation's, not a tenant's
        context = {
            "spans": SPANS,
            "chosen": chosen,
            "now": sum(call.started.tenant == who.tenant for call in live.all_live()),
            "today": today["total"],
            "stats": found,
            "drawn": drawn(found),
            "not_ready": health.not_ready() if operated else (),
            "operated": operated,
            "trunks": health.trunks() if operated else (),
            "providers": health.providers() if operated else (),
            "agents": health.agents(who.tenant),
            "budgets": budgets,
        }
        return pages.answer(request, "today.html", context)

    async def data(request: Request, who: Principal) -> Response:
        return JSONResponse(drawn(await figures(who.tenant, _chosen(request), KEPT_S)))

    return [page(pages, "", "read", show), page(pages, "data/stats", "read", data)]


def _chosen(request: Request) -> str:
    asked = request.query_params.get("span", "24h")
    return asked if asked in SPANS else "24h"


async def _budgets(health: Health, tenant: TenantId) -> Sequence[BudgetView]:
    if health.budgets is None:
        return ()
    try:
        async with asyncio.timeout(HEALTH_S):
            return await health.budgets(tenant)
    except TimeoutError:
        return ()


# --- what is drawn ---


def drawn(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Each chart as columns over the times of `at` (UTC), one a line of its table. None: nothing to draw there."""
    slots: Sequence[Mapping[str, Any]] = stats["slots"]
    reasons = _most({name: Decimal(count) for name, count in stats["total"]["end_reasons"].items()})
    products = _most({name: Decimal(usd) for name, usd in stats["total"]["cost_by_product"].items()})
    charts: dict[str, Any] = {
        "calls": {
            "inbound": [slot["inbound"] for slot in slots],
            "outbound": [slot["outbound"] for slot in slots],
        },
        "latency": {PARTS[part]: [slot["latency_ms"][part]["p95"] for slot in slots] for part in PARTS},
        "median": {PARTS[part]: [slot["latency_ms"][part]["p50"] for slot in slots] for part in PARTS},
        "cost": _columns(slots, products, "cost_by_product"),
        "ends": {
            END_REASONS.get(name, name): column for name, column in _columns(slots, reasons, "end_reasons").items()
        },
    }
    return {"at": [slot["at"] for slot in slots], "by": stats["by"], "charts": charts}


OTHERS = "others"


def _most(amounts: Mapping[str, Decimal]) -> list[str]:
    ranked = sorted(amounts, key=lambda name: (-amounts[name], name))
    return ranked if len(ranked) <= PRODUCTS + 1 else [*ranked[:PRODUCTS], OTHERS]


def _columns(slots: Sequence[Mapping[str, Any]], names: Sequence[str], what: str) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {name: [] for name in names}
    for slot in slots:
        amounts = {name: float(amount) for name, amount in slot[what].items()}
        for name in names:
            columns[name].append(amounts.pop(name, 0.0) if name != OTHERS else 0.0)
        if OTHERS in columns:
            columns[OTHERS][-1] = round(sum(amounts.values()), 6)
    return columns
