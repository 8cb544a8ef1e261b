"""Calls: searched by a form, page by page, and the same search as a file.

The form's fields are the parameters of GET /v1/calls. Who may not listen sees numbers without what would reach a
person, and cannot search by them, nor by what was said: else they could be found out by asking.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from trunkline.errors import MissingExtra
from trunkline.gateway.api.callquery import FILTERS, HAVING, call_query
from trunkline.gateway.api.calls import CallRecords, LiveCalls
from trunkline.gateway.api.history import MEDIA_TYPES, Format, History, all_parts
from trunkline.gateway.console.pages import ROOT, Pages
from trunkline.gateway.console.seeing import page, told
from trunkline.gateway.console.words import ENDED_BY, WENT_WRONG, parties, reason
from trunkline.gateway.leg import LegKind
from trunkline.identity import Principal
from trunkline.ports import EndedBy, EndReason
from trunkline.types import CallId

PAGE = 50
LISTENERS_ONLY = ("number", "text")
_SHORT_TIME = len("2026-11-28T09:00")
_ALWAYS = {"number", "our_number", "agent", "end_reason"}


def call_list_routes(pages: Pages, records: CallRecords, history: History, live: LiveCalls) -> list[Route]:
    async def show(request: Request, who: Principal) -> Response:
        asked = _asked(request, who)
        try:
            query, others = call_query(_as_request(request, asked), "cursor")
            found = await records.search(who.tenant, query, limit=PAGE, cursor=others.get("cursor"))
        except HTTPException as error:
            return _form(pages, request, who, asked, wrong=str(error.detail), status=400)
        except ValueError as error:
            return _form(pages, request, who, asked, wrong=str(error), status=400)
        calls = [_row(call, who, live) for call in found.calls]
        return _form(pages, request, who, asked, calls, found.next_cursor)

    async def export(request: Request, who: Principal) -> Response:
        asked = _asked(request, who, "format")
        format = asked.pop("format", "csv")
        asked.pop("cursor", None)
        if format not in MEDIA_TYPES:
            return told(pages, request, 400, "Not that", f"format: {' or '.join(MEDIA_TYPES)} expected.")
        try:
            query, _ = call_query(_as_request(request, asked))
            parts = history.export(who.tenant, query, cast(Format, format))
            first = await anext(parts)  # what cannot be asked is told before the answer begins
        except HTTPException as error:
            return told(pages, request, 400, "Not that", str(error.detail))
        except ValueError as error:
            return told(pages, request, 400, "Not that", str(error))
        except MissingExtra as error:
            return told(pages, request, 501, "Not here", str(error))
        headers = {"Content-Disposition": f'attachment; filename="calls.{format}"'}
        return StreamingResponse(all_parts(first, parts), media_type=MEDIA_TYPES[format], headers=headers)

    return [page(pages, "calls", "read", show), page(pages, "calls/export", "listen", export)]


def _asked(request: Request, who: Principal, *others: str) -> dict[str, str]:
    """What the form says, without the fields that were left alone. Times without a zone are UTC, as the form says."""
    asked: dict[str, str] = {}
    for name in (*FILTERS, "cursor", *others):
        if name in LISTENERS_ONLY and not who.may("listen"):
            continue
        value = ",".join(part for part in request.query_params.getlist(name) if part.strip())
        if value:
            asked[name] = f"{value}Z" if name in ("since", "until") and len(value) == _SHORT_TIME else value
    return asked


def _as_request(request: Request, asked: Mapping[str, str]) -> Request:
    return Request({**request.scope, "query_string": urlencode(asked).encode()})


def _form(
    pages: Pages,
    request: Request,
    who: Principal,
    asked: dict[str, str],
    calls: Sequence[Mapping[str, Any]] = (),
    cursor: str | None = None,
    wrong: str = "",
    status: int = 200,
) -> Response:
    search = {name: value for name, value in asked.items() if name != "cursor"}
    field, _, why = wrong.partition(": ")
    here = f"{ROOT}/calls"
    context = {
        "asked": search,
        "having": search.get("having", "").split(","),
        "havings": HAVING,
        "reasons": {name: reason(name) for name in get_args(EndReason)},
        "enders": {name: ENDED_BY.get(name, name) for name in get_args(EndedBy)},
        "legs": [(leg, leg) for leg in get_args(LegKind)],
        "more": bool(wrong or set(search) - _ALWAYS),
        "wrong": {field: why} if why else {},
        "wrong_all": "" if why and field in FILTERS else wrong,
        "calls": calls,
        "is_first": "cursor" not in asked,
        "first": f"{here}?{urlencode(search)}" if search else here,
        "next": f"{here}?{urlencode({**search, 'cursor': cursor})}" if cursor else None,
        "export": f"{here}/export?{urlencode(search)}" if search else f"{here}/export?",
        "may_listen": who.may("listen"),
    }
    return pages.answer(request, "calls.html", context, status)


def _row(call: Mapping[str, Any], who: Principal, live: LiveCalls) -> dict[str, Any]:
    now = live.live(CallId(call["id"]))
    return {
        **call,
        **parties(call, in_full=who.may("listen")),
        "state": None if now is None or now.started.tenant != who.tenant else now.state,
        "went_wrong": call.get("end_reason") in WENT_WRONG,
    }
