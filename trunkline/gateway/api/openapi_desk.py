"""The desk in the API's document, made from the resources and their routes."""

from collections.abc import Mapping
from typing import Any, get_args

from trunkline.gateway.api.desk import DEFAULT_PAGE, FILTERS, MAX_NOTE_CHARS, MAX_PAGE, MAX_SEARCH_CHARS, TOML
from trunkline.gateway.api.desk import PATHS as OF
from trunkline.gateway.api.openapi_common import DESK_ETAG_PATTERN, IDEMPOTENCY_KEY_PATTERN
from trunkline.gateway.api.orders import E164_PATTERN
from trunkline.gateway.api.routed import MAX_CHARS
from trunkline.numbers.resources import KINDS, MAX_VERSION, Agent, Resource, Tenant, Verdict

JSON = "application/json"
_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_ETAG = {"headers": {"ETag": {"description": "Its version.", "schema": {"type": "string"}}}}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of what was seen, or * for whatever is there.",
    "schema": {"type": "string", "pattern": DESK_ETAG_PATTERN},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
    "description": "Of the client's choice: the same request with the same key within a day is done once.",
}
_KEY = {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
    },
    {"name": "cursor", "in": "query", "schema": {"type": "string"}, "description": "next_cursor of the page before."},
]
_SEARCH = {
    "name": "search",
    "in": "query",
    "schema": {"type": "string", "maxLength": MAX_SEARCH_CHARS},
    "description": "Part of its name, number or label.",
}
_CALLED = {
    "tenant": "what holds for the tenant",
    "hours": "opening hours",
    "trunks": "a SIP trunk",
    "agents": "an AI agent",
}


def _saying(description: str) -> dict[str, Any]:
    return _PROBLEM | {"description": description}


_NOT_THERE, _TAKEN = _saying("There is none."), _saying("`code`: taken: there is one already.")
_STALE = _saying("It was changed meanwhile; `code`: stale.")
_NO_MATCH = _saying("If-Match is missing.")
_WRONG = _saying("Wrong fields, by path in `errors`; `code`: invalid_fields, unknown_name.")
_IN_USE = _saying("`code`: in_use; what names it is in `detail`.")


def _json(description: str, schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": dict(schema)}}, **more}


def _body(schema: Mapping[str, Any], media_type: str = JSON) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": dict(schema)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _name(model: type[Resource]) -> str:
    return "SipTrunk" if model.kind == "trunks" else model.__name__


def _a(kind: str) -> str:
    return _CALLED.get(kind, f"a {kind.removesuffix('s')}")


def _schema_of(model: type[Resource]) -> dict[str, dict[str, Any]]:
    """As it is given (`Number`) and as it is told (`NumberKept`), with what they are made of."""
    given = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, dict[str, Any]] = given.pop("$defs", {})
    fields = given["properties"]
    told = {name: field for name, field in fields.items() if name not in model.secrets}
    told |= {f"has_{name}": {"type": "boolean"} for name in model.secrets}
    time = {"type": ["string", "null"] if model is Tenant else "string", "format": "date-time"}
    told |= {"version": {"type": "integer"}, "created_at": time, "updated_at": time}
    kept = {"type": "object", "required": [model.key_field, "version"], "properties": told}
    return {**parts, _name(model): given, f"{_name(model)}Kept": kept}


def _patch_of(model: type[Resource]) -> dict[str, Any]:
    """Any part of it; what an answer tells besides may be sent back."""
    told = [*(f"has_{name}" for name in model.secrets), "version", "created_at", "updated_at"]
    fields: dict[str, Any] = {name: {} for name in (*model.model_fields, *told)}
    described = "What differs (RFC 7396): null takes away, objects are merged, all else replaces."
    return {"type": "object", "description": described, "additionalProperties": False, "properties": fields}


def _of_kind(kind: str, model: type[Resource]) -> dict[str, Any]:
    path, a = OF[kind], _a(kind)
    given, kept = _ref(_name(model)), _ref(f"{_name(model)}Kept")
    seen = _json(f"{a.capitalize()}.", kept, **_ETAG)
    changed = {"200": seen, "412": _STALE, "422": _WRONG, "428": _NO_MATCH, "default": _PROBLEM}
    if model is Tenant:
        return {
            path: {
                "get": {"summary": f"See {a}", "responses": {"200": seen, "default": _PROBLEM}},
                "put": _changing(f"Replace {a}", given, changed),
                "patch": _changing(f"Change {a}", _patch_of(model), changed),
            }
        }
    filters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in FILTERS.get(kind, {})]
    made = _json("Made.", kept, headers={**_ETAG["headers"], "Location": {"schema": {"type": "string"}}})
    return {
        path: {
            "get": {
                "summary": f"List {kind}",
                "parameters": [*_PAGE, _SEARCH, *filters],
                "responses": {"200": _json("A page, by key.", _paged(kept)), "default": _PROBLEM},
            },
            "post": {
                "summary": f"Make {a}",
                "parameters": [_IDEMPOTENCY_KEY],
                "requestBody": _body(given),
                "responses": {"201": made, "409": _TAKEN, "422": _WRONG, "default": _PROBLEM},
            },
        },
        f"{path}/{{key}}": {
            "parameters": [_KEY],
            "get": {"summary": f"See {a}", "responses": {"200": seen, "404": _NOT_THERE, "default": _PROBLEM}},
            "put": _changing(f"Replace {a}", given, changed | {"404": _NOT_THERE}),
            "patch": _changing(f"Change {a}", _patch_of(model), changed | {"404": _NOT_THERE}),
            "delete": {
                "summary": f"Delete {a}",
                "parameters": [_IF_MATCH],
                "responses": {
                    "204": {"description": "Gone."},
                    "404": _NOT_THERE,
                    "409": _IN_USE,
                    "412": _STALE,
                    "428": _NO_MATCH,
                    "default": _PROBLEM,
                },
            },
        },
    }


def _paged(item: Mapping[str, Any]) -> dict[str, Any]:
    cursor = {"type": ["string", "null"], "description": "For the page after; null at the end."}
    items = {"items": {"type": "array", "items": dict(item)}, "next_cursor": cursor}
    return {"type": "object", "required": ["items", "next_cursor"], "properties": items}


def _changing(summary: str, schema: Mapping[str, Any], responses: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": [_IF_MATCH],
        "requestBody": _body(schema),
        "responses": dict(responses),
    }


def _flag(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "schema": {"type": "boolean", "default": False},
        "description": description,
    }


_IMPORTED: dict[str, Any] = {
    "type": "object",
    "required": ["applied", "created", "changed", "unchanged", "mistakes", "mistakes_count", "unknown_columns"],
    "properties": {
        "applied": {"type": "boolean"},
        "created": {"type": "integer"},
        "changed": {"type": "integer"},
        "unchanged": {"type": "integer"},
        "mistakes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["line", "column", "value", "remedy"],
                "properties": {
                    "line": {"type": "integer", "description": "Of the file, from 1; 0: the file as a whole."},
                    "column": {"type": "string"},
                    "value": {"type": "string"},
                    "remedy": {"type": "string"},
                },
            },
        },
        "mistakes_count": {"type": "integer"},
        "unknown_columns": {"type": "array", "items": {"type": "string"}},
    },
}
_AGENT = f"{OF[Agent.kind]}/{{key}}"
_NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
_FILE = {"type": "object", "additionalProperties": False, "properties": {kind: {} for kind in KINDS}}
_MORE: dict[str, Any] = {
    f"{_AGENT}/versions": {
        "parameters": [_KEY],
        "get": {
            "summary": "An agent's versions, newest first, without their scripts",
            "responses": {
                "200": _json(
                    "All there are.",
                    {
                        "type": "object",
                        "required": ["items"],
                        "properties": {"items": {"type": "array", "items": _ref("AgentVersion")}},
                    },
                ),
                "404": _NOT_THERE,
                "default": _PROBLEM,
            },
        },
    },
    f"{_AGENT}/versions/{{number}}": {
        "parameters": [_KEY, _NUMBER],
        "get": {
            "summary": "One version, with its script",
            "responses": {"200": _json("It.", _ref("AgentVersion")), "404": _NOT_THERE, "default": _PROBLEM},
        },
    },
    f"{_AGENT}/publish": {
        "parameters": [_KEY],
        "post": {
            "summary": "Make the draft the next version, which answers from now on",
            "parameters": [_IF_MATCH, _IDEMPOTENCY_KEY],
            "requestBody": _body(
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"note": {"type": "string", "maxLength": MAX_NOTE_CHARS}},
                }
            ),
            "responses": {
                "201": _json("The version.", _ref("AgentVersion")),
                "404": _NOT_THERE,
                "412": _STALE,
                "422": _saying("The draft has mistakes, each in `errors`; `code`: invalid_fields."),
                "428": _NO_MATCH,
                "default": _PROBLEM,
            },
        },
    },
    f"{_AGENT}/roll-back": {
        "parameters": [_KEY],
        "post": {
            "summary": "Let a version that there is answer from now on",
            "parameters": [_IF_MATCH],
            "requestBody": _body(
                {
                    "type": "object",
                    "required": ["version"],
                    "additionalProperties": False,
                    "properties": {"version": {"type": "integer", "minimum": 1, "maximum": MAX_VERSION}},
                }
            ),
            "responses": {
                "200": _json("The agent.", _ref("AgentKept"), **_ETAG),
                "404": _NOT_THERE,
                "412": _STALE,
                "422": _WRONG,
                "428": _NO_MATCH,
                "default": _PROBLEM,
            },
        },
    },
    "/v1/numbers/import": {
        "post": {
            "summary": "Bring numbers in from a CSV: all of it in one transaction, or with a mistake nothing",
            "parameters": [
                _flag("dry_run", "Only look."),
                _flag("skip_mistakes", "Leave the lines with mistakes out, and take the others."),
                {
                    "name": "country",
                    "in": "query",
                    "schema": {"type": "string", "pattern": "^[A-Z]{2}$"},
                    "description": "How numbers without + are read.",
                },
            ],
            "requestBody": {
                "required": True,
                "description": "Columns and rows as docs/numbers.md has them.",
                "content": {"text/csv": {"schema": {"type": "string"}}},
            },
            "responses": {
                "200": _json("What came of it.", _IMPORTED),
                "422": {
                    "description": "Mistakes, each by its line; nothing was written.",
                    "content": {
                        JSON: {"schema": _IMPORTED},
                        "application/problem+json": {"schema": _ref("Problem")},
                    },
                },
                "default": _PROBLEM,
            },
        }
    },
    "/v1/export": {
        "get": {
            "summary": "Everything the tenant owns, without secrets, as /v1/apply takes it",
            "responses": {
                "200": {
                    "description": "TOML; JSON where Accept asks for it.",
                    "content": {TOML: {"schema": {"type": "string"}}, JSON: {"schema": {"type": "object"}}},
                },
                "default": _PROBLEM,
            },
        }
    },
    "/v1/apply": {
        "post": {
            "summary": "Bring the desk to what a file says, in one transaction",
            "parameters": [
                _flag("dry_run", "Only tell the steps."),
                _flag("prune", "Delete what the file has not, of the kinds that it has."),
            ],
            "requestBody": {
                "required": True,
                "content": {TOML: {"schema": {"type": "string"}}, JSON: {"schema": _FILE}},
            },
            "responses": {
                "200": _json(
                    "What it took; nothing where it was so already.",
                    {
                        "type": "object",
                        "required": ["applied", "steps"],
                        "properties": {
                            "applied": {"type": "boolean"},
                            "steps": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["action", "kind", "key", "fields"],
                                    "properties": {
                                        "action": {"enum": ["create", "replace", "publish", "delete"]},
                                        "kind": {"enum": list(KINDS)},
                                        "key": {"type": "string"},
                                        "fields": {"type": "array", "items": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                ),
                "409": _IN_USE,
                "422": _WRONG,
                "default": _PROBLEM,
            },
        }
    },
    "/v1/numbers/{key}/route": {
        "parameters": [_KEY | {"schema": {"type": "string", "pattern": E164_PATTERN}}],
        "post": {
            "summary": "Who would answer a number, and why",
            "requestBody": _body(
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "at": {
                            "type": "string",
                            "maxLength": MAX_CHARS,
                            "description": "Such as 2026-12-24T10:00, in the tenant's zone. Left out: now.",
                        },
                        "from": {
                            "type": "string",
                            "pattern": E164_PATTERN,
                            "description": "Who calls. Left out: a number that is withheld.",
                        },
                        "verdict": {"enum": list(get_args(Verdict)), "default": "unknown"},
                        "trunk": {
                            "type": "string",
                            "maxLength": MAX_CHARS,
                            "description": "The SIP trunk it comes over. Left out: Twilio.",
                        },
                        "call": {
                            "type": "string",
                            "maxLength": MAX_CHARS,
                            "description": "Its CallSid or Call-ID, which draws its share.",
                        },
                    },
                }
            ),
            "responses": {
                "200": _json(
                    "The answer.",
                    {
                        "type": "object",
                        "required": ["at", "by", "tenant", "route", "why"],
                        "properties": {
                            "at": {"type": "string", "format": "date-time"},
                            "by": {"enum": ["agent", "own_agent", "number", "message", "busy", "nobody"]},
                            "tenant": {"type": "string"},
                            "route": {"type": ["string", "null"]},
                            "why": {"type": "array", "items": {"type": "string"}},
                        },
                    },
                ),
                "422": _WRONG,
                "default": _PROBLEM,
            },
        },
    },
    "/v1/changes": {
        "get": {
            "summary": "Who changed what, newest first",
            "parameters": [
                *_PAGE,
                {"name": "kind", "in": "query", "schema": {"type": "string"}},
                {"name": "key", "in": "query", "schema": {"type": "string"}},
            ],
            "responses": {"200": _json("A page.", _paged(_ref("Change"))), "default": _PROBLEM},
        }
    },
}
_TEXT = {"type": "string"}
PATHS: dict[str, Any] = {
    path: item for kind, model in KINDS.items() for path, item in _of_kind(kind, model).items()
} | _MORE
SCHEMAS: dict[str, Any] = {name: schema for model in KINDS.values() for name, schema in _schema_of(model).items()} | {
    "AgentVersion": {
        "type": "object",
        "required": ["agent", "number", "sha256", "note", "created_by", "created_at"],
        "properties": {
            "agent": _TEXT,
            "number": {"type": "integer"},
            "script": _TEXT,
            "sha256": _TEXT,
            "note": _TEXT,
            "created_by": _TEXT,
            "created_at": _TEXT | {"format": "date-time"},
        },
    },
    "Change": {
        "type": "object",
        "required": ["id", "at", "actor", "action", "kind", "key", "before", "after"],
        "properties": {
            "id": _TEXT,
            "at": _TEXT | {"format": "date-time"},
            "actor": _TEXT | {"description": "Such as user:ann, key:crm, operator."},
            "action": _TEXT,
            "kind": _TEXT,
            "key": _TEXT,
            "before": {"type": ["object", "null"]},
            "after": {"type": ["object", "null"]},
        },
    },
}
