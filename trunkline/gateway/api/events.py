"""/v1/calls/live: what is on the line now; /v1/events: what changes of calls, as it happens (server-sent events). Of
this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.gateway.api.calls import LiveCalls, shown
from trunkline.gateway.api.principal import principal_of, tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.feed import CallFeed, Listener

HEARTBEAT_S = 15.0
LIFE_S = 300.0
WORDS = ("caller_text", "agent_text", "cut_text")
"""Of a turn, for who may listen."""


def event_routes(live_calls: LiveCalls, feed: CallFeed, heartbeat_s: float = HEARTBEAT_S) -> list[Route]:
    """To stand before those of /v1/calls/{call_id}."""

    async def live(request: Request) -> Response:
        tenant = tenant_of(request)
        calls = sorted(
            (call for call in live_calls.all_live() if call.started.tenant == tenant),
            key=lambda call: call.started.at,
            reverse=True,
        )
        return JSONResponse({"calls": [shown({}, call) for call in calls]})

    async def events(request: Request) -> Response:
        listener = feed.listen(tenant_of(request))
        if listener is None:
            return problem(503, "too many listen already", {"Retry-After": "30"})
        hidden = () if principal_of(request).may("listen") else WORDS
        return StreamingResponse(_told(listener, heartbeat_s, hidden), media_type="text/event-stream")

    return [
        Route("/v1/calls/live", live, methods=["GET"]),
        Route("/v1/events", events, methods=["GET"]),
    ]


async def _told(listener: Listener, heartbeat_s: float, hidden: Sequence[str] = ()) -> AsyncIterator[str]:
    """Cancelled when they leave. It ends by itself: who comes back passes the gate again, or does not."""
    try:
        yield "retry: 1000\n\n"
        now = asyncio.get_running_loop().time
        until = now() + LIFE_S
        while now() < until:
            change = await listener.next(heartbeat_s)
            if change is None:
                yield ": still here\n\n"
                continue
            data = {name: value for name, value in change.data.items() if name not in hidden}
            yield f"event: {change.type}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    finally:
        listener.close()
