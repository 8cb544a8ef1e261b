"""The pages of what calls do: today, live calls, calls, one call. Wired here, one function for the application."""

from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.calls import CallRecords, LiveCalls
from trunkline.gateway.api.history import History
from trunkline.gateway.console.calllist import call_list_routes
from trunkline.gateway.console.livecalls import Find, Know, LivePages
from trunkline.gateway.console.onecall import Play, one_call_routes
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.today import Health, today_routes
from trunkline.gateway.console.words import FILTERS
from trunkline.gateway.feed import CallFeed


def call_pages(
    pages: Pages,
    live: LiveCalls,
    records: CallRecords,
    history: History,
    feed: CallFeed,
    clock: Clock,
    *,
    find: Find,
    know: Know,
    health: Health,
    play: Play | None,
) -> list[Route]:
    """`records` and `history` are one store, `live` and `find` one switchboard. `play` answers for a recording."""
    pages.environment.filters.update(FILTERS)
    return [
        *today_routes(pages, history, live, health, clock),
        *LivePages(pages, live, records, feed, find, know, clock).routes(),
        *call_list_routes(pages, records, history, live),
        *one_call_routes(pages, records, live, play),
    ]
