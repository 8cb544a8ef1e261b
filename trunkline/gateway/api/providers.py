"""/v1/providers: how the agent's providers are, by their circuit breakers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.trunks import may_see
from trunkline.types import DEFAULT_TENANT, TenantId

_OF_DESK = re.compile(r"([^/]+)/[^/@]+@")


def _of_agent(provider: str) -> TenantId:
    """Whose agent's it is: `acme/reception@3/llm.openai` is acme's."""
    found = _OF_DESK.match(provider)
    return TenantId(found[1]) if found else DEFAULT_TENANT


def provider_routes(providers: Callable[[], Sequence[Mapping[str, Any]]]) -> list[Route]:
    """One that was never asked is not listed."""

    async def list_providers(request: Request) -> Response:
        seen = [dict(each) for each in providers() if may_see(request, _of_agent(str(each["provider"])))]
        return JSONResponse({"providers": seen})

    return [Route("/v1/providers", list_providers, methods=["GET"])]
