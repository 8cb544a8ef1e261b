"""/v1/trunks: over whom calls go and come, and whether they are there."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class TrunkView:
    name: str
    state: Literal["unknown", "up", "down"]
    """By its answers to our OPTIONS or REST requests; `unknown`: not asked, or not answered yet."""
    takes_calls: bool
    """Of ours: it has a host."""
    calls: int
    """On it now, both ways."""
    why: str = ""
    """The code that a call over it would be refused with now, where it says more than `down`."""
    registered: bool | None = None
    """With its registrar, where it is to be."""


def trunk_routes(trunks: Callable[[], Sequence[TrunkView]]) -> list[Route]:
    async def list_trunks(request: Request) -> Response:
        return JSONResponse({"trunks": [trunk_shown(trunk) for trunk in trunks()]})

    return [Route("/v1/trunks", list_trunks, methods=["GET"])]


def trunk_shown(trunk: TrunkView) -> dict[str, Any]:
    shown = asdict(trunk)
    return {name: value for name, value in shown.items() if value not in ("", None)}
