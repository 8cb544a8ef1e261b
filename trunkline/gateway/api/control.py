"""/v1/calls/{id}/transfer, /hold, /resume, /mute: an operator's hands on a live call.

Every POST is JSON, `{}` where there is nothing to say: a page of another site may post forms, but no JSON. What the
call cannot do is a problem with a `code`: not_supported and not_now (409), unknown_target (422), a rule's own (403).
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Protocol, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.orders import JSON, NAME_PATTERN, wrong_fields
from trunkline.gateway.api.principal import tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.transfer_record import Kind
from trunkline.ports import CallStarted, Refuse
from trunkline.types import CallId

MAX_SUMMARY_CHARS = 1000
_CONFLICTS = {"not_supported", "not_now", "conference_full"}
_BUSY = {"no_trunk", "trunk_down", "trunk_unauthorized", "overloaded", "draining"}
_UNKNOWN = {"unknown_leg"}
_FIELDS = {"unknown_target": "target", "bad_target": "target", "no_number": "target", "invalid_number": "to"}
_WANTED = {
    "target": "the name of a target of the agent",
    "kind": "auto, blind, attended, bridged or warm",
    "summary": f"at most {MAX_SUMMARY_CHARS} characters",
    "muted": "true or false",
}


class OperatedCall(Protocol):
    """A live call. What it refuses, it says; None: it is done, or has begun."""

    @property
    def started(self) -> CallStarted: ...

    def send_to(self, target: str, kind: Kind, summary: str = "") -> Refuse | None: ...

    def take_back(self) -> Refuse | None: ...

    def hold(self) -> Refuse | None: ...

    def resume(self) -> Refuse | None: ...

    def mute(self, muted: bool) -> Refuse | None: ...


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _rfc3339(value: object) -> object:
    if not isinstance(value, str) or not _MOMENT.match(value):  # pydantic also takes numbers, and dates alone
        raise ValueError("a time with its zone")
    return value


_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}")
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]


class _Transfer(Body):
    target: Annotated[str, Field(pattern=NAME_PATTERN)]
    kind: Kind = "auto"
    summary: Annotated[str, Field(max_length=MAX_SUMMARY_CHARS, pattern=r"^\P{Cc}*$")] = ""


class _Mute(Body):
    muted: bool


B = TypeVar("B", bound=Body)


def control_routes(find: Callable[[CallId], OperatedCall | None]) -> list[Route]:
    """`find`: a live call."""

    def call_of(request: Request) -> OperatedCall:
        call = find(CallId(request.path_params["call_id"]))
        if call is None or call.started.tenant != tenant_of(request):
            raise HTTPException(404, "no such live call")
        return call

    async def transfer(request: Request) -> Response:
        asked = await read_json(request, _Transfer, _WANTED)
        if isinstance(asked, Response):
            return asked
        return _answer(request, call_of(request).send_to(asked.target, asked.kind, asked.summary))

    async def take_back(request: Request) -> Response:
        return _answer(request, call_of(request).take_back())

    async def hold(request: Request) -> Response:
        asked = await read_json(request, Body, _WANTED)
        return asked if isinstance(asked, Response) else _answer(request, call_of(request).hold())

    async def resume(request: Request) -> Response:
        asked = await read_json(request, Body, _WANTED)
        return asked if isinstance(asked, Response) else _answer(request, call_of(request).resume())

    async def mute(request: Request) -> Response:
        asked = await read_json(request, _Mute, _WANTED)
        return asked if isinstance(asked, Response) else _answer(request, call_of(request).mute(asked.muted))

    here = "/v1/calls/{call_id}"
    return [
        Route(f"{here}/transfer", transfer, methods=["POST"]),
        Route(f"{here}/transfer", take_back, methods=["DELETE"]),
        Route(f"{here}/hold", hold, methods=["POST"]),
        Route(f"{here}/resume", resume, methods=["POST"]),
        Route(f"{here}/mute", mute, methods=["POST"]),
    ]


async def read_json(request: Request, kind: type[B], wanted: Mapping[str, str]) -> B | Response:
    """What the body asks for, or the problem with it, which never shows what the body held. `wanted`: what its fields
    should be, in words."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        return problem(415, f"Content-Type: {JSON} expected")
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as invalid:
        errors = invalid.errors(include_input=False)
        fields = {str(error["loc"][0]) if error["loc"] else "" for error in errors}
        if "" in fields or any(error["type"] == "json_invalid" for error in errors):
            return problem(400, "a JSON object expected")
        known = {name: wanted[name] for name in sorted(fields & set(wanted))}
        return wrong_fields("invalid_fields", known or {"?": "no such field"})


def refusal(refused: Refuse) -> Response:
    if refused.code in _FIELDS:
        return wrong_fields(refused.code, {_FIELDS[refused.code]: refused.why})
    if refused.code in _BUSY:
        return problem(503, refused.why, code=refused.code)
    if refused.code in _UNKNOWN:
        return problem(404, refused.why, code=refused.code)
    return problem(409 if refused.code in _CONFLICTS else 403, refused.why, code=refused.code)


def _answer(request: Request, refused: Refuse | None) -> Response:
    if refused is not None:
        return refusal(refused)
    return JSONResponse({"id": request.path_params["call_id"]}, 202)
