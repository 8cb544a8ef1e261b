"""The part of /openapi.json that is about users and API keys."""

from typing import Any

from trunkline.gateway.api.accounts import (
    DEFAULT_PAGE,
    LABEL_PATTERN,
    MAX_LABEL_CHARS,
    MAX_PAGE,
    NAME_PATTERN,
)
from trunkline.gateway.api.openapi_common import ETAG_PATTERN, control_free
from trunkline.gateway.api.orders import JSON
from trunkline.gateway.console.accounts import EMAIL_PATTERN, MAX_EMAIL_CHARS
from trunkline.identity import ROLES, SCOPES

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_NULLABLE_TIME = {"type": ["string", "null"], "format": "date-time"}
_BOOLEAN = {"type": "boolean"}
_VERSION = {"type": "integer", "minimum": 1}
_NAME = {"type": "string", "pattern": NAME_PATTERN}
_EMAIL = {
    "type": "string",
    "maxLength": MAX_EMAIL_CHARS,
    "pattern": EMAIL_PATTERN,
    "description": "Nobody else has it, in any tenant.",
}
_LABEL = {"type": "string", "maxLength": MAX_LABEL_CHARS, "pattern": control_free(LABEL_PATTERN)}
_ROLE = {"type": "string", "enum": list(ROLES)}
_SCOPES = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string", "enum": list(SCOPES)}}
_ETAG = {"ETag": {"description": "Its version.", "schema": _TEXT}}
_LOCATION = {"Location": {"description": "It.", "schema": _TEXT}}
_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_KEY = {"name": "key", "in": "path", "required": True, "schema": _TEXT, "description": "Its name."}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": _TEXT | {"pattern": ETAG_PATTERN},
    "description": "The ETag that was last seen: 412 when it is at another one by now.",
}
_PAGE = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
    },
    {"name": "cursor", "in": "query", "schema": _TEXT, "description": "The next_cursor of the page before."},
]


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _route(summary: str, answer: Any, status: str = "200", body: Any = None, **more: Any) -> dict[str, Any]:
    ok: dict[str, Any] = {"description": "So it is."}
    if answer is not None:
        ok["content"] = {JSON: {"schema": answer}}
    if "headers" in more:
        ok["headers"] = more.pop("headers")
    route: dict[str, Any] = {"summary": summary, "responses": {status: ok, "default": _PROBLEM}, **more}
    if body is not None:
        route["requestBody"] = {"required": True, "content": {JSON: {"schema": body | {"additionalProperties": False}}}}
    return route


_USER = _object(
    ["name", "email", "role", "enabled", "version"],
    name=_NAME,
    email=_EMAIL,
    label=_LABEL,
    role=_ROLE,
    enabled=_BOOLEAN,
    has_password=_BOOLEAN,
    has_oidc=_BOOLEAN,
    version=_VERSION,
    created_at=_TIME,
    updated_at=_TIME,
)
_API_KEY = _object(
    ["name", "id", "scopes", "enabled", "version"],
    name=_NAME,
    label=_LABEL,
    id={"type": "string", "description": "It stands in the key: tlk_ID_..."},
    scopes=_SCOPES,
    enabled=_BOOLEAN,
    expires_at=_NULLABLE_TIME,
    used_at=_NULLABLE_TIME | {"description": "To the minute."},
    created_by=_TEXT,
    version=_VERSION,
    created_at=_TIME,
    updated_at=_TIME,
)
SCHEMAS: dict[str, Any] = {"User": _USER, "ApiKey": _API_KEY}
_A_USER, _A_KEY = {"$ref": "#/components/schemas/User"}, {"$ref": "#/components/schemas/ApiKey"}
_CURSOR = {"type": ["string", "null"], "description": "For the page after; null: that was the last."}
_LINK = {"type": "string", "description": "Sets the password, once, within a day. It is shown here only."}

PATHS: dict[str, Any] = {
    "/v1/users": {
        "get": _route(
            "Who may use the console, by name.",
            _object(["users"], users={"type": "array", "items": _A_USER}, next_cursor=_CURSOR),
            parameters=_PAGE,
        ),
        "post": _route(
            "Add a user, who sets a password by the link.",
            {"allOf": [_A_USER, _object(["link"], link=_LINK)]},
            "201",
            _object(
                ["email"],
                email=_EMAIL,
                role=_ROLE | {"default": "viewer"},
                name=_NAME | {"type": ["string", "null"]},
                label=_LABEL,
            ),
            headers=_ETAG | _LOCATION,
        ),
    },
    "/v1/users/{key}": {
        "parameters": [_KEY],
        "get": _route("One user.", _A_USER, headers=_ETAG),
        "patch": _route(
            "Change a user. Disabled, or with another role or email, they are signed out. The last admin stays one.",
            _A_USER,
            body=_object([], email=_EMAIL, role=_ROLE, label=_LABEL, enabled=_BOOLEAN),
            headers=_ETAG,
            parameters=[_IF_MATCH],
        ),
        "delete": _route("Remove a user. Not the last admin.", None, "204", parameters=[_IF_MATCH]),
    },
    "/v1/users/{key}/link": {
        "parameters": [_KEY],
        "post": _route("A link to set a new password.", _object(["link"], link=_LINK), "201"),
    },
    "/v1/users/{key}/sign-out": {
        "parameters": [_KEY],
        "post": _route("Sign a user out of all browsers.", _object(["closed"], closed={"type": "integer"})),
    },
    "/v1/keys": {
        "get": _route(
            "The API keys, by name; without what is secret.",
            _object(["keys"], keys={"type": "array", "items": _A_KEY}, next_cursor=_CURSOR),
            parameters=_PAGE,
        ),
        "post": _route(
            "Make an API key, of scopes that one has oneself.",
            {"allOf": [_A_KEY, _object(["key"], key={"type": "string", "description": "It is shown here only."})]},
            "201",
            _object(["name", "scopes"], name=_NAME, scopes=_SCOPES, label=_LABEL, expires_at=_NULLABLE_TIME),
            headers=_ETAG | _LOCATION,
        ),
    },
    "/v1/keys/{key}": {
        "parameters": [_KEY],
        "get": _route("One API key.", _A_KEY, headers=_ETAG),
        "patch": _route(
            "Change or switch off an API key.",
            _A_KEY,
            body=_object([], scopes=_SCOPES, label=_LABEL, enabled=_BOOLEAN, expires_at=_NULLABLE_TIME),
            headers=_ETAG,
            parameters=[_IF_MATCH],
        ),
        "delete": _route("Revoke an API key.", None, "204", parameters=[_IF_MATCH]),
    },
    "/v1/me": {
        "get": _route(
            "Who asks, and what they may.",
            _object(
                ["tenant", "actor", "scopes"],
                tenant=_TEXT,
                actor=_TEXT,
                role={"type": ["string", "null"]},
                scopes={"type": "array", "items": {"type": "string", "enum": list(SCOPES)}},
            ),
        )
    },
}
