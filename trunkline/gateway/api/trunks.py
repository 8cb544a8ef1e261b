"""/v1/trunks: over whom calls go and come, and whether they are there."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.principal import principal_of
from trunkline.types import DEFAULT_TENANT, TenantId


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


def of_trunk(name: str) -> TenantId:
    """Whose it is: `acme.office` is acme's; those of the settings and its own are the default tenant's."""
    whose, mark, _ = name.partition(".")
    return TenantId(whose) if mark else DEFAULT_TENANT


def may_see(request: Request, owner: TenantId) -> bool:
    """Of what a process has for all: the operator all of it, others their own."""
    who = principal_of(request)
    return who.is_operator or owner == who.tenant


def trunk_routes(trunks: Callable[[], Sequence[TrunkView]]) -> list[Route]:
    async def list_trunks(request: Request) -> Response:
        seen = [trunk for trunk in trunks() if may_see(request, of_trunk(trunk.name))]
        return JSONResponse({"trunks": [trunk_shown(trunk) for trunk in seen]})

    return [Route("/v1/trunks", list_trunks, methods=["GET"])]


def trunk_shown(trunk: TrunkView) -> dict[str, Any]:
    shown = asdict(trunk)
    return {name: value for name, value in shown.items() if value not in ("", None)}
