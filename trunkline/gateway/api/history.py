"""The record of calls, to look at: /v1/calls/{id}/timeline, /v1/calls/export, /v1/stats."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.errors import MissingExtra
from trunkline.gateway.api.callquery import call_query, moment, parameters
from trunkline.gateway.api.calls import call_id_of
from trunkline.gateway.api.principal import tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.api.trunks import TrunkView, may_see, of_trunk, trunk_shown
from trunkline.gateway.timeline import timeline
from trunkline.ports import CallQuery
from trunkline.types import CallId, TenantId

Format = Literal["csv", "parquet"]
By = Literal["hour", "day"]
MEDIA_TYPES: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
STATS_SPAN = timedelta(days=1)


class History(Protocol):
    """The store's read side (`store.records`). All raise StoreError, and ValueError in words for the user."""

    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None: ...

    def export(self, tenant: TenantId, query: CallQuery, format: Format) -> AsyncGenerator[bytes, None]:
        """Also raises MissingExtra. Nothing is raised before it is iterated."""
        ...

    async def stats(self, tenant: TenantId, since: datetime, until: datetime, by: By) -> Mapping[str, Any]: ...


def history_routes(history: History, clock: Clock, trunks: Callable[[], Sequence[TrunkView]]) -> list[Route]:
    """To stand before those of /v1/calls/{call_id}."""

    async def show_timeline(request: Request) -> Response:
        record = await history.get(tenant_of(request), call_id_of(request))
        if record is None:
            raise HTTPException(404, "no such call")
        return JSONResponse(timeline(record))

    async def export(request: Request) -> Response:
        query, asked = call_query(request, "format")
        format = asked.get("format", "csv")
        if format not in MEDIA_TYPES:
            raise HTTPException(400, f"format: {' | '.join(MEDIA_TYPES)} expected")
        parts = history.export(tenant_of(request), query, cast(Format, format))
        try:
            first = await anext(parts)  # what cannot be asked is told before the answer begins
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        except MissingExtra as error:
            return problem(501, str(error))
        headers = {"Content-Disposition": f'attachment; filename="calls.{format}"'}
        return StreamingResponse(all_parts(first, parts), media_type=MEDIA_TYPES[format], headers=headers)

    async def stats(request: Request) -> Response:
        given = parameters(request, "since", "until", "by")
        by = given.get("by", "hour")
        if by not in ("hour", "day"):
            raise HTTPException(400, "by: hour | day expected")
        until = moment(given, "until") or clock.wall()
        since = moment(given, "since") or until - STATS_SPAN
        try:
            found = await history.stats(tenant_of(request), since, until, cast(By, by))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        seen = [trunk_shown(trunk) for trunk in trunks() if may_see(request, of_trunk(trunk.name))]
        return JSONResponse({**found, "trunks": seen})

    return [
        Route("/v1/calls/export", export, methods=["GET"]),
        Route("/v1/calls/{call_id}/timeline", show_timeline, methods=["GET"]),
        Route("/v1/stats", stats, methods=["GET"]),
    ]


async def all_parts(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for part in rest:
            yield part
    finally:
        await rest.aclose()
