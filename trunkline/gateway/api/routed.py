"""POST /v1/numbers/{number}/route: who would answer it, and why. Nothing is noted, and no agent is started."""

from datetime import datetime
from typing import Any, get_args
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.compliance.destinations import country_of
from trunkline.errors import StoreError
from trunkline.gateway.api.desk import object_of
from trunkline.gateway.api.principal import principal_of
from trunkline.gateway.api.problems import problem
from trunkline.numbers.directory import Directory
from trunkline.numbers.resources import Verdict, is_number
from trunkline.numbers.routing import Caller, View, answer, draw_of, told

PATH = "/v1/numbers/{key}/route"
MAX_CHARS = 200
_FIELDS = ("at", "from", "verdict", "trunk", "call")


def routed_routes(directory: Directory, clock: Clock) -> list[Route]:
    async def would_answer(request: Request) -> Response:
        number, asked = request.path_params["key"], await object_of(request)
        wrong = _wrong(number, asked)
        if wrong:
            errors = [{"field": name, "detail": detail} for name, detail in wrong.items()]
            return problem(422, "wrong fields", code="invalid_fields", errors=errors)
        tenant = principal_of(request).tenant
        view = await directory.view(number, asked.get("trunk", ""), tenant)
        if view is None and not directory.is_empty:
            raise StoreError("numbers cannot be read")
        view = view or View(tenant)
        at = datetime.fromisoformat(asked["at"]) if "at" in asked else clock.wall()
        if at.tzinfo is None:
            at = at.replace(tzinfo=ZoneInfo(view.terms.zone))
        caller = Caller(
            asked.get("from"), at, draw_of(asked.get("call", "")), asked.get("verdict", "unknown"), country_of
        )
        return JSONResponse({"at": at.isoformat(), **told(answer(view, caller))})

    return [Route(PATH, would_answer, methods=["POST"])]


def _wrong(number: str, asked: dict[str, Any]) -> dict[str, str]:
    wrong = {name: f"one of {', '.join(_FIELDS)} expected" for name in asked if name not in _FIELDS}
    if not is_number(number):
        wrong["number"] = "a phone number as +COUNTRY NUMBER without spaces expected"
    for name in _FIELDS:
        value = asked.get(name, "")
        if not isinstance(value, str) or len(value) > MAX_CHARS:
            wrong[name] = f"text of at most {MAX_CHARS} characters expected"
    if wrong:
        return wrong
    if "from" in asked and not is_number(asked["from"]):
        wrong["from"] = "a phone number as +COUNTRY NUMBER expected; left out, it is withheld"
    if "verdict" in asked and asked["verdict"] not in get_args(Verdict):
        wrong["verdict"] = f"one of {', '.join(get_args(Verdict))} expected"
    if "at" in asked:
        try:
            datetime.fromisoformat(asked["at"])
        except ValueError:
            wrong["at"] = "a time such as 2026-12-24T10:00 expected"
    return wrong
