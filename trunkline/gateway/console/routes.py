"""The desk's pages of the console, wired: what admins own, who they are, and how one begins."""

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.console.agents import AgentPages, Check, Talk
from trunkline.gateway.console.buying import BuyPages, TemplatePages
from trunkline.gateway.console.edge import Edge
from trunkline.gateway.console.imports import ImportPages
from trunkline.gateway.console.numbers import Besides, NumberPages, TrunkChecks, WhoAnswers
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.people import PeoplePages, PeopleParts
from trunkline.gateway.console.start import StartPages
from trunkline.gateway.console.tenant import TenantPages
from trunkline.gateway.console.trying import OpenTrial, TryPages
from trunkline.gateway.console.webhooks import WebhookPages, WebhookParts
from trunkline.numbers.carriers.account import NumberAccount
from trunkline.numbers.desk import Desk


@dataclass(frozen=True, slots=True)
class Parts:
    """What other parts of the gateway do for these pages. None: it is not here, and nor are its pages and buttons."""

    check: Check
    trunks: Callable[[], list[TrunkView]] = field(default=lambda: [])
    trunk_checks: TrunkChecks | None = None
    who_answers: WhoAnswers | None = None
    talk: Talk | None = None
    open_trial: OpenTrial | None = None
    account: NumberAccount | None = None
    """With Twilio."""
    origin: str = ""
    people: PeopleParts | None = None
    webhooks: WebhookParts | None = None


def desk_page_routes(pages: Pages, desk: Desk, clock: Clock, parts: Parts) -> list[Route]:
    edge = Edge(pages)
    besides = Besides(parts.trunks, parts.trunk_checks, parts.who_answers, can_buy=parts.account is not None)
    found = ImportPages(edge, desk).routes() + TemplatePages(edge, desk).routes()
    if parts.account is not None:
        found += BuyPages(edge, desk, parts.account, parts.origin).routes()
    if parts.open_trial is not None:
        found += TryPages(edge, desk, clock, parts.open_trial).routes()
    if parts.people is not None:
        found += PeoplePages(edge, parts.people, clock).routes()
    if parts.webhooks is not None:
        found += WebhookPages(edge, parts.webhooks, clock).routes()
    return [
        *found,
        *StartPages(edge, desk, parts.talk).routes(),
        *TenantPages(edge, desk).routes(),
        *AgentPages(edge, desk, parts.check, parts.talk, can_try=parts.open_trial is not None).routes(),
        *NumberPages(edge, desk, clock, besides).routes(),
    ]
