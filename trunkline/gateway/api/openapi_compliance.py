"""The compliance routes' part of /openapi.json."""

from typing import Any

from trunkline.gateway.api import compliance
from trunkline.gateway.api.openapi_common import schema_of
from trunkline.gateway.api.orders import E164_PATTERN, JSON, REGION_PATTERN

_NUMBER = {"type": "string", "pattern": E164_PATTERN}
_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
PURPOSE: dict[str, Any] = {"type": "string", "enum": ["marketing", "transactional", "informational"]}
REGION = {"type": "string", "pattern": REGION_PATTERN, "description": "Where they are by address: US-CA, DE."}
ZONE = {"type": "string", "description": "The time zone there, as IANA names it."}
_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_SUBJECT = {"name": "subject", "in": "path", "required": True, "schema": _NUMBER}
_ROW: dict[str, Any] = {
    "type": "object",
    "required": ["to"],
    "additionalProperties": False,
    "description": "As a row of a file: an empty text is none.",
    "properties": {
        "to": _TEXT | {"minLength": 1, "maxLength": 32},
        "purpose": PURPOSE | {"enum": [*PURPOSE["enum"], ""]},
        "region": REGION | {"pattern": f"^$|{REGION_PATTERN}"},
        "zone": ZONE,
    },
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _route(summary: str, answer: dict[str, Any], status: str = "200", body: Any = None, on: Any = None) -> Any:
    ok = {"description": "So it is.", "content": {JSON: {"schema": answer}}}
    route: dict[str, Any] = {"summary": summary, "responses": {status: ok, "default": _PROBLEM}}
    if body is not None:
        route["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    if on is not None:
        route["parameters"] = [on]
    return route


_LISTED = _object(
    decision={"type": "string", "enum": ["allow", "refuse"]},
    code=_TEXT,
    why=_TEXT,
    checks={"type": "array", "items": _object(name=_TEXT, answer=_TEXT, input=_TEXT, data=_TEXT, why=_TEXT)},
    obligations={"type": "array", "items": _object(kind=_TEXT, doors={"type": "array", "items": _TEXT}, basis=_TEXT)},
)
_PREVIEW: dict[str, Any] = {
    "calls": {"type": "array", "minItems": 1, "maxItems": compliance.MAX_ROWS, "items": _ROW},
    "at": {"type": ["string", "null"], "format": "date-time"},
}
_STOPPED = _object(stopped={"type": "boolean"})

SCHEMAS: dict[str, Any] = {}
PATHS: dict[str, Any] = {
    "/v1/compliance/check": {
        "post": _route(
            "What would be decided of a call; nothing is noted",
            _LISTED,
            body=schema_of(compliance.CheckBody),
        )
    },
    "/v1/compliance/preview": {
        "post": _route(
            "Who of a batch would be skipped, and why",
            _object(at=_TIME, calls={"type": "integer"}, skipped={"type": "integer"}, codes={"type": "object"}),
            body=schema_of(compliance.PreviewBody) | {"properties": _PREVIEW},
        )
    },
    "/v1/compliance/tables": {"get": _route("Versions of the tables and lists in force", {"type": "object"})},
    "/v1/compliance/ledger": {"get": _route("Check the consent chain: the first broken row", {"type": "object"})},
    "/v1/compliance/stop": {
        "put": _route("No call goes out any more", _STOPPED),
        "delete": _route("Calls may go out again", _STOPPED),
    },
    "/v1/consent": {
        "post": _route(
            "Note that somebody agreed, or took it back", {"type": "object"}, "201", body=schema_of(compliance.SaidBody)
        )
        | {
            "responses": {
                "201": {"description": "It is in the ledger."},
                "202": {"description": "It counts, and is in the ledger as soon as the database is there."},
                "default": _PROBLEM,
            }
        }
    },
    "/v1/consent/{subject}": {
        "get": _route("All that the ledger holds about somebody", {"type": "object"}, on=_SUBJECT),
        "delete": _route("Forget it; the chain and do-not-call entries stay", {"type": "object"}, on=_SUBJECT),
    },
    "/v1/dnc": {
        "post": _route(
            "Put a number on the company's do-not-call list",
            {"type": "object"},
            "201",
            body=schema_of(compliance.ListedBody),
        )
    },
    "/v1/dnc/{subject}": {"get": _route("Which lists hold a number; null is unknown", {"type": "object"}, on=_SUBJECT)},
}
