"""/v1/trunks: whom we know over SIP, and whether they are there."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class TrunkView:
    name: str
    state: Literal["unknown", "up", "down"]
    """By its answers to our OPTIONS; `unknown`: not asked, or not answered yet."""
    takes_calls: bool
    """Of ours: it has a host."""
    calls: int
    """On it now, both ways."""


def trunk_routes(trunks: Callable[[], Sequence[TrunkView]]) -> list[Route]:
    async def list_trunks(request: Request) -> Response:
        return JSONResponse({"trunks": [asdict(trunk) for trunk in trunks()]})

    return [Route("/v1/trunks", list_trunks, methods=["GET"])]
