"""/v1/numbers, /v1/routes, /v1/agents...: what admins own, one set of routes for all kinds.

    GET    /v1/KIND?limit&cursor&search&...   a page, by key
    POST   /v1/KIND                           201, ETag, Location
    GET    /v1/KIND/KEY                       ETag
    PUT    /v1/KIND/KEY   If-Match            whole
    PATCH  /v1/KIND/KEY   If-Match            what differs (RFC 7396)
    DELETE /v1/KIND/KEY   If-Match            204

What is changed must be named as it was seen: without If-Match it is 428, with another version's ETag 412; `*` changes
whatever is there. POSTs take an Idempotency-Key (replies.py).
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.callquery import parameters
from trunkline.gateway.api.principal import principal_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.api.replies import Replies, once
from trunkline.numbers import ascode, importing
from trunkline.numbers.desk import Desk, shown
from trunkline.numbers.resources import KINDS, MAX_VERSION, Agent, Tenant
from trunkline.owned import Changed, DeskError, Fault, Kept, Version
from trunkline.types import TenantId

MAX_PAGE, DEFAULT_PAGE = 200, 50
MAX_SEARCH_CHARS, MAX_NOTE_CHARS = 100, 500
PATHS: Mapping[str, str] = {kind: f"/v1/{'sip-trunks' if kind == 'trunks' else kind}" for kind in KINDS}
"""/v1/trunks tells how all trunks are, those of the settings too."""
FILTERS: Mapping[str, Mapping[str, str]] = {
    "numbers": {"route": "route", "carrier": "carrier", "trunk": "trunk", "tag": "tags", "agent": "agents"},
    "routes": {"agent": "agents", "hours": "hours"},
}
"""Of a kind's list: parameter -> field, or for `agent` the kind that is named."""
_STATUS: Mapping[Fault, int] = {
    "not_found": 404,
    "taken": 409,
    "in_use": 409,
    "stale": 412,
    "unknown_name": 422,
    "invalid_fields": 422,
}
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,9})"')
_COUNTRY = re.compile("[A-Z]{2}")
TOML = "application/toml"

Endpoint = Callable[[Request], Awaitable[Response]]


def desk_routes(desk: Desk, replies: Replies) -> list[Route]:
    routes: list[Route] = []
    for kind, model in KINDS.items():
        path = PATHS[kind]
        if model is Tenant:
            routes += [Route(path, _of_tenant(desk), methods=["GET", "PUT", "PATCH"])]
            continue
        made = once(replies, _create(desk, kind))
        routes += [
            Route(path, _told(_page(desk, kind)), methods=["GET"]),
            Route(path, _told(made), methods=["POST"]),
            Route(f"{path}/{{key}}", _told(_one(desk, kind)), methods=["GET", "PUT", "PATCH", "DELETE"]),
        ]
    return [*_import_routes(desk), *routes, *_agent_routes(desk, replies), *_code_routes(desk), *_change_routes(desk)]


def refused(error: DeskError) -> Response:
    errors = [{"field": path, "detail": wanted} for path, wanted in error.fields.items()]
    more: dict[str, Any] = {"errors": errors} if errors else {}
    return problem(_STATUS[error.code], error.why, code=error.code, **more)


def _told(endpoint: Endpoint) -> Endpoint:
    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except DeskError as error:
            return refused(error)

    return told


# --- one kind ---


def _page(desk: Desk, kind: str) -> Endpoint:
    async def page(request: Request) -> Response:
        filters = FILTERS.get(kind, {})
        asked = parameters(request, "limit", "cursor", "search", *filters)
        if len(asked.get("search", "")) > MAX_SEARCH_CHARS:
            raise HTTPException(400, f"search: at most {MAX_SEARCH_CHARS} characters")
        where: dict[str, Any] = {}
        for name, of in filters.items():
            if (value := asked.get(name)) is not None:
                where |= {"uses": (of, value)} if name == "agent" else {of: value}
        try:
            found = await desk.store.page(
                principal_of(request).tenant,
                kind,
                limit=limit_of(request),
                cursor=asked.get("cursor"),
                search=asked.get("search", ""),
                where=where,
            )
        except ValueError:
            raise HTTPException(400, "cursor: the next_cursor of an earlier answer expected") from None
        return JSONResponse({"items": [shown(kept) for kept in found.items], "next_cursor": found.next_cursor})

    return page


def _create(desk: Desk, kind: str) -> Endpoint:
    async def create(request: Request) -> Response:
        who = principal_of(request)
        kept = await desk.make(who.tenant, who.actor, kind, await object_of(request))
        return _answer(kept, 201, {"Location": f"{PATHS[kind]}/{kept.key}"})

    return create


def _one(desk: Desk, kind: str) -> Endpoint:
    async def one(request: Request) -> Response:
        who, key = principal_of(request), str(request.path_params["key"])
        if request.method in ("GET", "HEAD"):
            return _answer(await desk.get(who.tenant, kind, key))
        version = if_match(request)
        if request.method == "DELETE":
            await desk.delete(who.tenant, who.actor, kind, key, version)
            return Response(status_code=204)
        fields = _given(await object_of(request))
        if request.method == "PATCH":
            before = await desk.get(who.tenant, kind, key)
            fields = merged(before.body, fields)
            version = before.version if version is None else version
        return _answer(await desk.replace(who.tenant, who.actor, kind, key, fields, version))

    return one


def _of_tenant(desk: Desk) -> Endpoint:
    """What holds before anything was said has version 0."""
    kind, key = Tenant.kind, "tenant"

    async def now(tenant: TenantId) -> tuple[Mapping[str, Any], int, dict[str, Any]]:
        kept = await desk.store.get(tenant, kind, key)
        if kept is None:
            body = Tenant().model_dump(mode="json")
            return body, 0, {**body, "version": 0, "created_at": None, "updated_at": None}
        return kept.body, kept.version, shown(kept)

    async def tenant_terms(request: Request) -> Response:
        who = principal_of(request)
        body, at, told = await now(who.tenant)
        if request.method in ("GET", "HEAD"):
            return JSONResponse(told, headers={"ETag": f'"{at}"'})
        version, fields = if_match(request), _given(await object_of(request))
        if request.method == "PATCH":
            fields, version = merged(body, fields), at if version is None else version
        return _answer(await desk.replace(who.tenant, who.actor, kind, key, fields, version))

    return _told(tenant_terms)


# --- agents ---


def _agent_routes(desk: Desk, replies: Replies) -> list[Route]:
    path = PATHS[Agent.kind] + "/{key}"

    async def versions(request: Request) -> Response:
        who, key = principal_of(request), str(request.path_params["key"])
        await desk.get(who.tenant, Agent.kind, key)
        found = await desk.store.versions(who.tenant, key)
        return JSONResponse({"items": [_version(each, with_script=False) for each in found]})

    async def version(request: Request) -> Response:
        who, key = principal_of(request), str(request.path_params["key"])
        found = await desk.store.version(who.tenant, key, _whole(request.path_params["number"]))
        if found is None:
            raise HTTPException(404, "no such version")
        return JSONResponse(_version(found))

    async def publish(request: Request) -> Response:
        who, key, fields = principal_of(request), str(request.path_params["key"]), await object_of(request)
        note = fields.get("note", "")
        if not isinstance(note, str) or len(note) > MAX_NOTE_CHARS or fields.keys() - {"note"}:
            raise DeskError("invalid_fields", "note: a text", {"note": f"at most {MAX_NOTE_CHARS} characters"})
        made = await desk.publish(who.tenant, who.actor, key, note, if_match(request))
        return JSONResponse(_version(made), 201, {"Location": f"{PATHS[Agent.kind]}/{key}/versions/{made.number}"})

    async def roll_back(request: Request) -> Response:
        who, key, fields = principal_of(request), str(request.path_params["key"]), await object_of(request)
        number = fields.get("version")
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_VERSION:
            number = None
        if number is None or fields.keys() - {"version"}:
            raise DeskError("invalid_fields", "version: a number", {"version": "the number of a version"})
        return _answer(await desk.roll_back(who.tenant, who.actor, key, number, if_match(request)))

    return [
        Route(f"{path}/versions", _told(versions), methods=["GET"]),
        Route(f"{path}/versions/{{number}}", _told(version), methods=["GET"]),
        Route(f"{path}/publish", _told(once(replies, publish)), methods=["POST"]),
        Route(f"{path}/roll-back", _told(roll_back), methods=["POST"]),
    ]


def _version(version: Version, *, with_script: bool = True) -> dict[str, Any]:
    told = asdict(version) | {"created_at": version.created_at.isoformat()}
    return told if with_script else {name: value for name, value in told.items() if name != "script"}


# --- as code, and who changed what ---


def _code_routes(desk: Desk) -> list[Route]:
    async def export(request: Request) -> Response:
        document = await ascode.export(desk, principal_of(request).tenant)
        if "json" in request.headers.get("accept", ""):
            return JSONResponse(document)
        return Response(await asyncio.to_thread(ascode.written, document), media_type=TOML)

    async def apply(request: Request) -> Response:
        who, asked = principal_of(request), parameters(request, "dry_run", "prune")
        dry_run, prune = _yes(asked, "dry_run"), _yes(asked, "prune")
        text = await _text(request)
        is_json = request.headers.get("content-type", "").partition(";")[0].strip() != TOML
        document = await asyncio.to_thread(ascode.read_document, text, is_json=is_json)
        steps = await ascode.apply(desk, who.tenant, who.actor, document, prune=prune, keep=not dry_run)
        told = [{"action": s.action, "kind": s.kind, "key": s.key, "fields": list(s.fields)} for s in steps]
        return JSONResponse({"applied": not dry_run, "steps": told})

    return [
        Route("/v1/export", _told(export), methods=["GET"]),
        Route("/v1/apply", _told(apply), methods=["POST"]),
    ]


def _import_routes(desk: Desk) -> list[Route]:
    async def bring(request: Request) -> Response:
        who, asked = principal_of(request), parameters(request, "dry_run", "skip_mistakes", "country")
        dry_run, skips, country = _yes(asked, "dry_run"), _yes(asked, "skip_mistakes"), asked.get("country")
        if country is not None and not _COUNTRY.fullmatch(country):
            raise HTTPException(400, "country: two letters, such as US")
        found = await importing.bring(
            desk,
            who.tenant,
            who.actor,
            await request.body(),
            country,
            keep=not dry_run,
            skip_mistakes=skips,
        )
        written = not dry_run and (found.clean or skips)
        told = {
            "applied": written,
            "created": len(found.create),
            "changed": len(found.change),
            "unchanged": len(found.unchanged),
            "mistakes": [asdict(mistake) for mistake in found.mistakes],
            "mistakes_count": found.mistakes_count,
            "unknown_columns": list(found.unknown_columns),
        }
        return JSONResponse(told, 200 if written or dry_run else 422)

    return [Route("/v1/numbers/import", _told(bring), methods=["POST"])]


def _change_routes(desk: Desk) -> list[Route]:
    async def changes(request: Request) -> Response:
        asked = parameters(request, "limit", "cursor", "kind", "key")
        try:
            found, cursor = await desk.store.changes(
                principal_of(request).tenant,
                limit=limit_of(request),
                cursor=asked.get("cursor"),
                kind=asked.get("kind", ""),
                key=asked.get("key", ""),
            )
        except ValueError:
            raise HTTPException(400, "cursor: the next_cursor of an earlier answer expected") from None
        return JSONResponse({"items": [_line(each) for each in found], "next_cursor": cursor})

    return [Route("/v1/changes", changes, methods=["GET"])]


def _line(line: Changed) -> dict[str, Any]:
    told = {name: getattr(line, name) for name in ("actor", "action", "kind", "key", "before", "after")}
    return {"id": f"{line.seq}.{line.part}", "at": line.at.isoformat(), **told}


# --- what is asked ---


def _yes(asked: Mapping[str, str], name: str) -> bool:
    """Raises HTTPException: a change is kept, or something deleted, only where it is said plainly."""
    if asked.get(name, "false") not in ("true", "false"):
        raise HTTPException(400, f"{name}: true | false expected")
    return asked.get(name) == "true"


def limit_of(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MAX_PAGE):
        raise HTTPException(400, f"limit: 1 to {MAX_PAGE}")
    return int(text)


def if_match(request: Request) -> int | None:
    """The version it is to have; None: any. Raises HTTPException 428, DeskError."""
    text = request.headers.get("if-match")
    if text is None:
        raise HTTPException(428, 'If-Match: the ETag of what you have seen, such as "3", or * for whatever is there')
    if text.strip() == "*":
        return None
    found = _ETAG.fullmatch(text.strip())
    if found is None:
        raise DeskError("stale", 'If-Match: an ETag of ours, such as "3"')
    return int(found[1])


async def object_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises HTTPException."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type not in ("application/json", "application/merge-patch+json"):
        raise HTTPException(415, "application/json expected")
    body = await request.body()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "a JSON object expected")
    return found


async def _text(request: Request) -> str:
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "UTF-8 expected") from None


def merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: null takes away, objects are merged, all else replaces."""
    found = dict(before)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            old = found.get(name)
            found[name] = merged(old if isinstance(old, Mapping) else {}, value)
        else:
            found[name] = value
    return found


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what an answer tells besides: what was read may be sent back."""
    return {name: value for name, value in fields.items() if name not in _TOLD and not name.startswith("has_")}


_TOLD = {"version", "created_at", "updated_at"}


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _answer(kept: Kept, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(shown(kept), status, {"ETag": f'"{kept.version}"', **(headers or {})})
