"""/v1/calls/{id}/legs: who else is in a live call. Supervisors and further representatives are rung, listed, changed
and sent away. Errors are as in control.py."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Protocol

from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.control import Body, read_json, refusal
from trunkline.gateway.api.orders import E164_PATTERN, MAX_NUMBER_CHARS, NAME_PATTERN, RING_S_MAX, RING_S_MIN
from trunkline.gateway.api.principal import tenant_of
from trunkline.gateway.dialling import RING_TIMEOUT_S, DialOrder
from trunkline.gateway.party import Change, Invitation, OtherRole, OtherView, Party
from trunkline.media.members import Supervision
from trunkline.ports import CallStarted, Refuse
from trunkline.types import E164, CallId

_WANTED = {
    "target": "the name of a target of the agent; either it or `to`",
    "to": "a number as +COUNTRY NUMBER without spaces, such as +14155550100; either it or `target`",
    "from": "a number as +COUNTRY NUMBER without spaces, such as +14155550100",
    "role": "supervisor or representative",
    "supervision": "listen, whisper or speak",
    "muted": "true or false",
    "ring_timeout_s": f"seconds from {RING_S_MIN} to {RING_S_MAX}",
}


class AttendedCall(Protocol):
    """A live call, and who is in it."""

    @property
    def started(self) -> CallStarted: ...

    @property
    def party(self) -> Party: ...

    def number_of(self, target: str) -> E164 | Refuse:
        """Of a named target. Codes: `unknown_target`, `bad_target`, `no_number`."""
        ...


class _Invite(Body):
    target: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    to: Annotated[str, Field(min_length=1, max_length=MAX_NUMBER_CHARS)] | None = None
    from_number: Annotated[str, Field(pattern=E164_PATTERN)] | None = Field(default=None, alias="from")
    role: OtherRole = "supervisor"
    supervision: Supervision = "listen"
    ring_timeout_s: float = Field(default=RING_TIMEOUT_S, ge=RING_S_MIN, le=RING_S_MAX, allow_inf_nan=False)

    @property
    def one_of_them(self) -> bool:
        return (self.target is None) != (self.to is None)


class _Change(Body):
    supervision: Supervision | None = None
    muted: bool | None = None


def leg_routes(
    find: Callable[[CallId], AttendedCall | None], know: Callable[[str], Awaitable[object]] | None = None
) -> list[Route]:
    """`find`: a live call. `know`: gathers what the dial door wants to know of a number."""

    def call_of(request: Request) -> AttendedCall:
        call = find(CallId(request.path_params["call_id"]))
        if call is None or call.started.tenant != tenant_of(request):
            raise HTTPException(404, "no such live call")
        return call

    async def listed(request: Request) -> Response:
        return JSONResponse({"legs": [asdict(view) for view in call_of(request).party.views()]})

    async def invite(request: Request) -> Response:
        asked = await read_json(request, _Invite, _WANTED)
        if isinstance(asked, Response):
            return asked
        call = call_of(request)
        if not asked.one_of_them:
            return refusal(Refuse("unknown_target", _WANTED["target"]))
        number = E164(asked.to) if asked.to is not None else call.number_of(asked.target or "")
        if isinstance(number, Refuse):
            return refusal(number)
        order = DialOrder(
            number,
            from_number=None if asked.from_number is None else E164(asked.from_number),
            ring_timeout_s=asked.ring_timeout_s,
            detects_machine=False,
        )
        if know is not None and asked.to is not None:
            await know(asked.to)
        rung = call.party.invite(Invitation(order, asked.role, asked.supervision, asked.target or ""))
        if isinstance(rung, Refuse):
            return refusal(rung)
        here = f"{request.url.path.rstrip('/')}/{rung.id}"
        return JSONResponse(asdict(rung), 201, headers={"Location": here})

    async def change(request: Request) -> Response:
        asked = await read_json(request, _Change, _WANTED)
        if isinstance(asked, Response):
            return asked
        party, leg_id = call_of(request).party, request.path_params["leg_id"]
        refused = party.change(leg_id, Change(asked.supervision, asked.muted))
        return refusal(refused) if refused else JSONResponse(asdict(_view(party, leg_id)))

    async def dismiss(request: Request) -> Response:
        leg_id = request.path_params["leg_id"]
        refused = call_of(request).party.dismiss(leg_id)
        return refusal(refused) if refused else JSONResponse({"id": leg_id, "state": "ending"}, 202)

    legs, leg = "/v1/calls/{call_id}/legs", "/v1/calls/{call_id}/legs/{leg_id}"
    return [
        Route(legs, listed, methods=["GET"]),
        Route(legs, invite, methods=["POST"]),
        Route(leg, change, methods=["PATCH"]),
        Route(leg, dismiss, methods=["DELETE"]),
    ]


def _view(party: Party, leg_id: str) -> OtherView:
    return next(view for view in party.views() if view.id == leg_id)
