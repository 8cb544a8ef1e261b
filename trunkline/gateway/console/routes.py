"""The desk's pages of the console, wired: what admins own."""

from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.console.agents import AgentPages, Check, Talk
from trunkline.gateway.console.edge import Edge
from trunkline.gateway.console.numbers import Besides, NumberPages
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.tenant import TenantPages
from trunkline.numbers.desk import Desk


def desk_page_routes(
    pages: Pages, desk: Desk, clock: Clock, check: Check, *, besides: Besides = Besides(), talk: Talk | None = None
) -> list[Route]:
    """`check`: of agent scripts. `talk`: None where a draft cannot be talked to."""
    edge = Edge(pages)
    return [
        *TenantPages(edge, desk).routes(),
        *AgentPages(edge, desk, check, talk).routes(),
        *NumberPages(edge, desk, clock, besides).routes(),
    ]
