"""Pages of numbers, routes, opening hours, trunks, carriers and budgets: one way of editing, and what each shows
besides."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from starlette.responses import Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.console import kinds, week
from trunkline.gateway.console.edge import Asked, Edge
from trunkline.gateway.console.editing import Editing, choices
from trunkline.gateway.console.forms import Form
from trunkline.gateway.console.tenant import zones
from trunkline.numbers.desk import Desk
from trunkline.numbers.readiness import Check
from trunkline.numbers.resources import ANONYMOUS, DAYS, Hours
from trunkline.owned import Kept
from trunkline.types import DEFAULT_TENANT, TenantId

DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Answered(Protocol):
    """`numbers.routing.Answered`."""

    @property
    def why(self) -> Sequence[str]: ...
    @property
    def route(self) -> str | None: ...
    @property
    def fallback_number(self) -> str | None: ...
    @property
    def overflow_number(self) -> str | None: ...
    @property
    def max_calls(self) -> int | None: ...


WhoAnswers = Callable[[TenantId, str, str | None, datetime], Awaitable[Answered | None]]
"""(tenant, number that is called, caller's or None, when) -> who, and why. None: the number is another tenant's."""


TrunkChecks = Callable[[Kept], Awaitable[Sequence[Check]]]
"""Of one trunk, whether calls come and go."""


@dataclass(frozen=True, slots=True)
class Besides:
    """What other parts of the gateway tell these pages. None: that part is not here, and its button neither."""

    trunks: Callable[[], Sequence[TrunkView]] = field(default=lambda: ())
    trunk_checks: TrunkChecks | None = None
    who_answers: WhoAnswers | None = None
    can_buy: bool = False


class NumberPages:
    def __init__(self, edge: Edge, desk: Desk, clock: Clock, besides: Besides) -> None:
        self._edge, self._desk, self._clock, self._besides = edge, desk, clock, besides

    def routes(self) -> list[Route]:
        edge, desk = self._edge, self._desk
        pages = {
            kind.kind: Editing(edge, desk, kind)
            for kind in (kinds.NUMBERS, kinds.ROUTES, kinds.HOURS, kinds.TRUNKS, kinds.CARRIERS, kinds.BUDGETS)
        }
        pages["numbers"].more_of_list = self._of_numbers
        pages["hours"].more, pages["hours"].more_of_list = self._of_one_hours, self._of_hours
        pages["trunks"].more, pages["trunks"].more_of_list = self._of_trunk, self._of_trunks
        who = [edge.get("numbers/_who", self.who)]
        return who + [route for each in pages.values() for route in each.routes()]

    async def _of_numbers(self, asked: Asked, items: Sequence[Kept]) -> Mapping[str, Any]:
        return {"can_buy": self._besides.can_buy}

    # --- hours ---

    async def _of_hours(self, asked: Asked, items: Sequence[Kept]) -> Mapping[str, Any]:
        now = self._clock.wall()
        open_now = {kept.key: week.is_open(Hours.model_validate(kept.body), now) for kept in items}
        return {"now_open": open_now, "days": DAYS}

    async def _of_one_hours(self, asked: Asked, kept: Kept | None) -> Mapping[str, Any]:
        context: dict[str, Any] = {"zones": zones(), "day_names": list(zip(DAYS, DAY_NAMES, strict=True))}
        if kept is None:
            return context
        hours, now = Hours.model_validate(kept.body), self._clock.wall()
        open_now = week.is_open(hours, now)
        return {
            **context,
            "open_now": open_now,
            "told": week.told(hours, now).partition(": ")[2],
            "next_change": week.next_change(hours, now),
        }

    # --- trunks ---

    async def _of_trunks(self, asked: Asked, items: Sequence[Kept]) -> Mapping[str, Any]:
        """Lines of the settings are the operator's, whose tenant is the default one."""
        live = self._besides.trunks()
        theirs = live if asked.who.tenant == DEFAULT_TENANT else ()
        states = {trunk.name: trunk.state for trunk in live if trunk.name in {kept.key for kept in items}}
        return {"live": theirs, "states": states}

    async def _of_trunk(self, asked: Asked, kept: Kept | None) -> Mapping[str, Any]:
        checks = self._besides.trunk_checks
        return {"checks": () if kept is None or checks is None else await checks(kept)}

    # --- who would answer ---

    async def who(self, asked: Asked) -> Response:
        number, caller, when = asked.query("at", 20).strip(), asked.query("from", 20).strip(), asked.query("when", 20)
        wrong: dict[str, str] = {}
        at = _moment(when, self._clock.wall())
        if when and at is None:
            wrong["when"] = "a day and a time"
        found = None
        if number and at is not None and self._besides.who_answers is not None:
            from_number = None if caller in ("", ANONYMOUS) else caller
            found = await self._besides.who_answers(asked.who.tenant, number, from_number, at)
            if found is None:
                wrong["at"] = "a number of yours: this one is none, and no pattern of a route fits"
        context = {
            "f": Form({"at": number, "from": caller, "when": when}, wrong),
            "found": found,
            "is_here": self._besides.who_answers is not None,
            "choices": await choices(self._desk, asked.who.tenant, ("numbers",)),
        }
        return self._edge.show(asked, "numbers_who.html", context, 422 if wrong else 200)


def _moment(text: str, now: datetime) -> datetime | None:
    """As `datetime-local` gives it, in UTC. Empty: now."""
    if not text:
        return now
    try:
        return datetime.fromisoformat(text).replace(tzinfo=now.tzinfo)
    except ValueError:
        return None
