"""The webhooks' part of /openapi.json."""

from typing import Any

from trunkline.gateway.api.openapi_common import ETAG_PATTERN
from trunkline.gateway.api.orders import JSON
from trunkline.gateway.api.webhooks import DEFAULT_PAGE, MAX_PAGE, MAX_URL_CHARS, PREVIOUS_S_DEFAULT, PREVIOUS_S_MAX
from trunkline.hooks import EVENT_TYPES, STATES

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
_ID = {"name": "webhook_id", "in": "path", "required": True, "schema": _TEXT}
_DELIVERY_ID = {"name": "delivery_id", "in": "path", "required": True, "schema": _TEXT}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": _TEXT | {"pattern": ETAG_PATTERN},
    "description": "The ETag of an earlier answer: refused with 412 where it has changed since.",
}
_ETAG = {"ETag": {"schema": _TEXT, "description": "Its version."}}
_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_WEBHOOK_REF = {"$ref": "#/components/schemas/Webhook"}
_DELIVERY_REF = {"$ref": "#/components/schemas/WebhookDelivery"}


def _saying(description: str) -> dict[str, Any]:
    return _PROBLEM | {"description": description}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _whole(**properties: Any) -> dict[str, Any]:
    return _object([*properties], **properties)


_WANTED: dict[str, Any] = {
    "url": {"type": "string", "format": "uri", "minLength": 1, "maxLength": MAX_URL_CHARS},
    "events": {
        "type": "array",
        "maxItems": 64,
        "items": {"type": "string", "enum": [*EVENT_TYPES]},
        "description": "Empty: all.",
    },
    "enabled": {"type": "boolean", "description": "A disabled one gets nothing; what waits for it is dead."},
    "transcripts": {"type": "boolean", "description": "Whether words that were said, and kept, are told."},
}
_WITH_SECRET = {
    "allOf": [
        _WEBHOOK_REF,
        _object(["secret"], secret={"type": "string", "description": "whsec_...: in this answer and no other."}),
    ]
}

SCHEMAS: dict[str, Any] = {
    "Webhook": _whole(
        id=_TEXT,
        **_WANTED,
        created_at=_TIME,
        version={"type": "integer"},
        disabled_why={"type": "string", "description": "Why it was disabled by itself: 410, or days of failures."},
        failing_since=_MAYBE_TIME,
    ),
    "WebhookDelivery": _whole(
        id={"type": "string", "description": "The event's, as the header webhook-id."},
        event=_TEXT,
        call_id={"type": ["string", "null"]},
        state={"type": "string", "enum": [*STATES]},
        attempts={"type": "integer"},
        created_at=_TIME,
        next_at=_MAYBE_TIME,
        last_at=_MAYBE_TIME,
        last_status={"type": ["integer", "null"]},
        last_error={"type": ["string", "null"]},
    ),
}


def _ok(schema: dict[str, Any], description: str = "So it is.", headers: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "content": {JSON: {"schema": schema}}}
    return found | ({"headers": headers} if headers else {})


def _route(summary: str, responses: dict[str, Any], body: Any = None, more: Any = (), *, one: bool = True) -> Any:
    missing = {"404": _saying("There is no such one.")} if one else {}
    route: dict[str, Any] = {"summary": summary, "responses": responses | missing | {"default": _PROBLEM}}
    if body is not None:
        route["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
        route["responses"]["422"] = _saying("Wrong fields, by name in `errors`; `code`: invalid_fields.")
    if parameters := [*([_ID] if one else []), *more]:
        route["parameters"] = parameters
    return route


def _asked(*required: str, **properties: Any) -> dict[str, Any]:
    return _object([*required], **properties) | {"additionalProperties": False}


_CHANGED = {"412": _saying("Somebody has changed it meanwhile; `code`: wrong_etag.")}
_NOTHING = _asked()
_ONE = "/v1/webhooks/{webhook_id}"

PATHS: dict[str, Any] = {
    "/v1/webhooks": {
        "get": _route(
            "Who is told what happens",
            {"200": _ok(_whole(webhooks={"type": "array", "items": _WEBHOOK_REF}))},
            one=False,
        ),
        "post": _route(
            "Tell one more",
            {
                "201": _ok(_WITH_SECRET, "From now on; the secret is in this answer only.", _ETAG),
                "409": _saying("There are as many as there may be; `code`: too_many."),
            },
            _asked("url", **_WANTED),
            one=False,
        ),
    },
    _ONE: {
        "get": _route("One of them", {"200": _ok(_WEBHOOK_REF, headers=_ETAG)}),
        "patch": _route(
            "Change it; enabling it clears what it was disabled for",
            {"200": _ok(_WEBHOOK_REF, headers=_ETAG), **_CHANGED},
            _asked(**_WANTED),
            [_IF_MATCH],
        ),
        "delete": _route(
            "Tell it nothing more; its deliveries are deleted",
            {"204": {"description": "It is gone."}, **_CHANGED},
            more=[_IF_MATCH],
        ),
    },
    f"{_ONE}/rotate": {
        "post": _route(
            "A new secret; for a while both sign",
            {
                "200": _ok(
                    {"allOf": [_WITH_SECRET, _whole(previous_valid_until=_TIME)]},
                    "The secret is in this answer only.",
                    _ETAG,
                )
            },
            _asked(
                previous_valid_s={
                    "type": "integer",
                    "minimum": 0,
                    "maximum": PREVIOUS_S_MAX,
                    "default": PREVIOUS_S_DEFAULT,
                }
            ),
        )
    },
    f"{_ONE}/test": {
        "post": _route(
            "Send a `ping` now, and say what it answered",
            {
                "200": _ok(
                    _whole(
                        delivered={"type": "boolean"},
                        status={"type": ["integer", "null"]},
                        error=_TEXT,
                        took_ms={"type": "integer"},
                    )
                )
            },
            _NOTHING,
        )
    },
    f"{_ONE}/deliveries": {
        "get": _route(
            "What it was told, newest first",
            {
                "200": _ok(
                    _whole(
                        deliveries={"type": "array", "items": _DELIVERY_REF},
                        next_cursor={"type": ["string", "null"]},
                    )
                )
            },
            more=[
                {
                    "name": "limit",
                    "in": "query",
                    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
                },
                {"name": "cursor", "in": "query", "schema": _TEXT},
                {"name": "state", "in": "query", "schema": {"type": "string", "enum": [*STATES]}},
            ],
        )
    },
    f"{_ONE}/deliveries/{{delivery_id}}/redeliver": {
        "post": _route(
            "Send it again, with the same id",
            {
                "202": _ok(_DELIVERY_REF, "It waits to be sent."),
                "409": _saying("The webhook is disabled; `code`: disabled."),
            },
            _NOTHING,
            [_DELIVERY_ID],
        )
    },
}
