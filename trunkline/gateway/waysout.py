"""By which dialler and trunk an order goes out: what the diallers say, put together. Nothing happens here."""

from collections.abc import Sequence
from dataclasses import replace

from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import Dialler, Plan
from trunkline.gateway.outbound import Attempts, Failure, Place, Route, Step, unplaced
from trunkline.ports import Refuse

Way = tuple[Place, Dialler, Plan]
"""An attempt that can be made."""


def routes(diallers: Sequence[Dialler], order: DialOrder) -> list[Route]:
    return [route for dialler in diallers for route in dialler.routes(order)]


def way(diallers: Sequence[Dialler], order: DialOrder, place: Place) -> tuple[Dialler, Plan] | Refuse:
    """Over the trunk that the place names."""
    over_it = replace(order, trunk=place.route.trunk)
    refused = Refuse("no_trunk", f"no trunk {place.route.trunk} takes outbound calls")
    for dialler in diallers:
        plan = dialler.plan(over_it)
        if not isinstance(plan, Refuse):
            return dialler, plan
        if plan.code != "no_trunk":
            refused = plan
    return refused


def no_way_out(diallers: Sequence[Dialler], order: DialOrder) -> Refuse:
    """Of the diallers, the first that has more to say than that the trunk is none of its own."""
    said = [plan for dialler in diallers if isinstance(plan := dialler.plan(order), Refuse)]
    more = [refused for refused in said if refused.code != "no_trunk"]
    return (more or said or [Refuse("no_trunk", "no trunk takes outbound calls")])[0]


class WaysOut:
    """Of one order: trunk after trunk, as `outbound.Attempts` allows it, until nobody is left to be tried. Its own
    refusals (an attempt that could not be planned) are passed over here."""

    def __init__(self, diallers: Sequence[Dialler], order: DialOrder) -> None:
        self._diallers, self._order = tuple(diallers), order
        self._attempts = Attempts()
        self._refused: Refuse | None = None

    def first(self, now: float) -> Way | Refuse:
        found = self._follow(self._attempts.begin(routes(self._diallers, self._order), now), now)
        return found or self._refused or no_way_out(self._diallers, self._order)

    def rang(self, attempt: int) -> None:
        self._attempts.rang(attempt)

    def next(self, attempt: int, failure: Failure, now: float) -> Way | None:
        """This attempt has failed. None: no other may follow."""
        return self._follow(self._attempts.failed(attempt, failure, now), now)

    def _follow(self, step: Step | None, now: float) -> Way | None:
        while isinstance(step, Place):
            found = way(self._diallers, self._order, step)
            if not isinstance(found, Refuse):
                return step, *found
            self._refused = self._refused or found
            step = self._attempts.failed(step.attempt, unplaced(found), now)
        return None
