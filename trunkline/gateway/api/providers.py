"""/v1/providers: how the agent's providers are, by their circuit breakers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def provider_routes(providers: Callable[[], Sequence[Mapping[str, Any]]]) -> list[Route]:
    """One that was never asked is not listed."""

    async def list_providers(request: Request) -> Response:
        return JSONResponse({"providers": [dict(each) for each in providers()]})

    return [Route("/v1/providers", list_providers, methods=["GET"])]
