"""The API in its own words: /openapi.json. A test holds it against the routes."""

from collections.abc import Sequence
from typing import Any, get_args

from trunkline import __version__
from trunkline.gateway.api import (
    devices,
    openapi_accounts,
    openapi_calls,
    openapi_compliance,
    openapi_desk,
    openapi_hooks,
    orders,
)
from trunkline.gateway.api.calls import DEFAULT_PAGE, MAX_PAGE
from trunkline.gateway.api.control import MAX_SUMMARY_CHARS
from trunkline.gateway.api.openapi_common import HEADERS, IDEMPOTENCY_KEY_PATTERN, RESPONSES, completed, control_free
from trunkline.gateway.dialling import RING_TIMEOUT_S
from trunkline.gateway.party import OtherRole
from trunkline.gateway.transfer_record import Kind
from trunkline.media.members import Supervision
from trunkline.ports import EndedBy, EndReason, Purpose

_CALL_ID = {"name": "call_id", "in": "path", "required": True, "schema": {"type": "string"}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
    "description": "Of the client's choice: the same order with the same key within a day is the same call.",
}
_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_ATTRIBUTES: dict[str, Any] = {
    "type": "object",
    "maxProperties": orders.MAX_ATTRIBUTES,
    "propertyNames": {"pattern": orders.NAME_PATTERN},
    "additionalProperties": {
        "type": "string",
        "maxLength": orders.MAX_ATTRIBUTE_CHARS,
        "pattern": control_free(orders.TEXT_PATTERN),
    },
}
_NULLABLE_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_NULLABLE_TIME = _NULLABLE_TEXT | {"format": "date-time"}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _saying(description: str) -> dict[str, Any]:
    return _PROBLEM | {"description": description}


def _hand(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = {"requestBody": {"required": True, "content": {orders.JSON: {"schema": body}}}} if body else {}
    return {
        "summary": summary,
        **request,
        "responses": {
            "202": _json("It is done, or has begun; how it goes is in the call's record.", {"type": "object"}),
            "403": _saying("Not allowed; `code`: the rule's."),
            "409": _saying("`code`: not_supported (never on this line) or not_now."),
            "422": _saying("Wrong fields, by name in `errors`; `code`: invalid_fields, unknown_target."),
            "default": _PROBLEM,
        },
    }


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {orders.JSON: {"schema": schema}}}


_ACCOUNT = {"type": "string", "pattern": devices.ID_PATTERN, "description": "Whose it is, by your own names."}
_SESSION_ID = {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}}
_OWNER = {"name": "account_id", "in": "query", "required": True, "schema": _ACCOUNT}
_RETRY_LATER = {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}}
_OPENED = {
    "201": _json("Its device may join.", {"$ref": "#/components/schemas/OpenedSession"})
    | {"headers": {"Location": {"description": "The session.", "schema": {"type": "string"}}}},
    "422": _saying("Wrong fields, by name in `errors`; `code`: invalid_fields or unknown_agent."),
    "503": _saying("Not now; `code`: overloaded, draining, sessions_full; or a store is away.") | _RETRY_LATER,
    "default": _PROBLEM,
}


def document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trunkline", "version": __version__, "license": {"name": "Apache-2.0"}},
        "security": [{"bearer": []}, {"header": []}],
        "paths": completed(_PATHS | {path: item for part in _PARTS for path, item in part.PATHS.items()}),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "headers": HEADERS,
            "responses": RESPONSES,
            "schemas": _SCHEMAS | {name: schema for part in _PARTS for name, schema in part.SCHEMAS.items()},
        },
    }


_PARTS: Sequence[Any] = (openapi_accounts, openapi_calls, openapi_compliance, openapi_desk, openapi_hooks)
_SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "required": ["title", "status"],
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "For programs: why, where the status does not say it all."},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                },
                "description": "Which fields were wrong, and what is wanted there.",
            },
        },
    },
    "DialOrder": {
        "type": "object",
        "required": ["to"],
        "additionalProperties": False,
        "properties": {
            "to": {
                "type": "string",
                "minLength": 1,
                "maxLength": orders.MAX_NUMBER_CHARS,
                "description": "E.164, such as +14155550100.",
            },
            "from": _NULLABLE_TEXT | {"pattern": orders.E164_PATTERN, "description": "Default: the trunk's caller id."},
            "trunk": _NULLABLE_TEXT | {"pattern": orders.NAME_PATTERN, "description": "Default: the first that can."},
            "ring_timeout_s": {
                "type": "number",
                "minimum": orders.RING_S_MIN,
                "maximum": orders.RING_S_MAX,
                "default": RING_TIMEOUT_S,
            },
            "purpose": openapi_compliance.PURPOSE | {"type": ["string", "null"], "enum": [*get_args(Purpose), None]},
            "region": openapi_compliance.REGION | {"type": ["string", "null"]},
            "zone": openapi_compliance.ZONE | {"type": ["string", "null"]},
            "attributes": _ATTRIBUTES
            | {"description": "Kept with the call; the trunk's map makes SIP headers of them."},
        },
    },
    "Leg": {
        "type": "object",
        "required": ["id", "role", "state"],
        "properties": {
            "id": {"type": "string"},
            "role": {"enum": list(get_args(OtherRole))},
            "state": {"enum": ["ringing", "joined", "ending"]},
            "name": {"type": "string", "description": "Of the target; empty where a number was given."},
            "trunk": {"type": "string"},
            "supervision": {"enum": [*get_args(Supervision), None], "description": "null: a representative."},
            "muted": {"type": "boolean"},
        },
    },
    "Dialling": {
        "type": "object",
        "required": ["id", "call_id", "state"],
        "properties": {
            "id": {"type": "string"},
            "call_id": {"type": "string", "description": "The same."},
            "state": {"const": "dialling"},
            "direction": {"const": "outbound"},
            "to_number": {"type": "string"},
            "from_number": _NULLABLE_TEXT,
            "trunk": _NULLABLE_TEXT,
        },
    },
    "Trunk": {
        "type": "object",
        "required": ["name", "state", "takes_calls", "calls"],
        "properties": {
            "name": {"type": "string"},
            "state": {"enum": ["unknown", "up", "down"], "description": "By its answers to us."},
            "takes_calls": {"type": "boolean", "description": "Whether we can dial over it."},
            "registered": {"type": "boolean", "description": "With its registrar, where it is to be."},
            "calls": {"type": "integer", "description": "On it now, both ways."},
            "why": {"type": "string", "description": "Such as trunk_unauthorized: it does not accept our login."},
        },
    },
    "Provider": {
        "type": "object",
        "required": ["provider", "state", "successes", "failures", "opened", "last_error", "probe_in_s"],
        "properties": {
            "provider": {"type": "string", "description": "Such as llm.openai."},
            "state": {
                "enum": ["closed", "open", "half_open"],
                "description": "Of its circuit breaker: closed is well; open is asked last; half_open is being tried.",
            },
            "successes": {"type": "integer"},
            "failures": {"type": "integer"},
            "opened": {"type": "integer", "description": "How often it was found to fail."},
            "last_error": {"type": ["string", "null"], "description": "Such as timeout or auth."},
            "probe_in_s": {"type": ["number", "null"], "description": "Until it is tried again, where it is not well."},
        },
    },
    "OpenedSession": {
        "type": "object",
        "required": ["session_id", "webrtc_url", "ws_url", "join_token", "expires_at", "region"],
        "properties": {
            "session_id": {"type": "string"},
            "webrtc_url": {"type": "string", "description": "Where the device posts its offer (WHIP)."},
            "ws_url": {"type": "string", "description": "Where it goes if UDP is blocked."},
            "join_token": {"type": "string", "description": "For one join."},
            "expires_at": {"type": "string", "format": "date-time", "description": "Of the token."},
            "region": {"type": "string"},
            "livekit_url": {"type": "string", "description": "Where a LiveKit server is configured."},
            "livekit_token": {"type": "string", "description": "For the room of the session's name."},
            "livekit_refused": {
                "type": "object",
                "description": "Instead of both: the agent does not come to that room.",
                "required": ["code", "why"],
                "properties": {
                    "code": {"enum": ["livekit_away", "overloaded", "draining"]},
                    "why": {"type": "string"},
                },
            },
        },
    },
    "Session": {
        "type": "object",
        "required": ["session_id", "device_id", "account_id", "region", "created_at", "joins", "conversation"],
        "properties": {
            "session_id": {"type": "string"},
            "device_id": {"type": "string"},
            "account_id": _ACCOUNT,
            "agent": _NULLABLE_TEXT | {"description": "Who attends it; null: whoever has every call first."},
            "region": {"type": "string", "description": "Where it was joined last."},
            "created_at": {"type": "string", "format": "date-time"},
            "joins": {"type": "integer", "description": "How often it was joined."},
            "call_id": _NULLABLE_TEXT | {"description": "Its call now, or the last one."},
            "ended_as": _NULLABLE_TEXT | {"enum": [*get_args(EndReason), None], "description": "Why that is over."},
            "conversation": {
                "type": "array",
                "description": "As it was heard, tools left out.",
                "items": {
                    "type": "object",
                    "properties": {
                        "at": {"type": "string", "format": "date-time"},
                        "role": {"enum": ["caller", "agent"]},
                        "text": {"type": "string"},
                        "cut": {"type": "boolean", "description": "The caller interrupted here."},
                    },
                },
            },
        },
    },
    "Device": {
        "type": "object",
        "required": ["device_id", "account_id", "name", "needs_arming", "facts", "created_at", "seen_at"],
        "properties": {
            "device_id": {"type": "string"},
            "account_id": _ACCOUNT,
            "name": {"type": "string"},
            "needs_arming": {"type": "boolean", "description": "It sends audio only after its wake word or button."},
            "facts": {"type": "object", "additionalProperties": {"type": "string"}},
            "created_at": {"type": "string", "format": "date-time"},
            "seen_at": {"type": "string", "format": "date-time"},
        },
    },
    "RoutingHint": {
        "type": "object",
        "required": ["region", "url", "webrtc_url", "ws_url", "session_url", "distance_km"],
        "properties": {
            "region": {"type": "string"},
            "url": {"type": "string"},
            "webrtc_url": {"type": "string"},
            "ws_url": {"type": "string"},
            "session_url": {"type": "string", "description": "Where its sessions are opened."},
            "distance_km": {"type": ["number", "null"], "description": "null where it is not known."},
        },
    },
    "Call": {
        "type": "object",
        "required": ["id", "live"],
        "properties": {
            "id": {"type": "string"},
            "live": {"type": "boolean", "description": "On the line now."},
            "state": {"type": "string", "description": "The call's state, while it is live."},
            "direction": {"enum": ["inbound", "outbound"]},
            "leg": {"enum": ["twilio", "sip", "webrtc", "websocket", "livekit"]},
            "agent": {"type": "string"},
            "from_number": _NULLABLE_TEXT,
            "to_number": _NULLABLE_TEXT,
            "provider_call_id": _NULLABLE_TEXT,
            "started_at": {"type": "string", "format": "date-time"},
            "answered_at": _NULLABLE_TIME,
            "ended_at": _NULLABLE_TIME,
            "end_reason": _NULLABLE_TEXT | {"enum": [*get_args(EndReason), None]},
            "ended_by": _NULLABLE_TEXT | {"enum": [*get_args(EndedBy), None]},
            "provider_code": _NULLABLE_TEXT | {"description": "The provider's own, such as sip:486;q850:17."},
            **openapi_calls.SUMMED,
            "turns": {"type": "array", "items": {"type": "object"}, "description": "Of a single call only."},
            "cost": {
                "type": "object",
                "description": (
                    "Of a single call, and of live ones: usd (a decimal as text), by_product, by_provider, by_kind, "
                    "by_leg; complete and missing tell what has no price and is in no sum. Of a live call also "
                    "reserved_usd, forecast_usd, budget_usd, and before_usd: what a call that goes on here had cost "
                    "before, which is of the same budget and not in usd."
                ),
            },
        },
    },
}

_PATHS: dict[str, Any] = {
    "/v1/calls": {
        "get": {
            "summary": "Calls, newest first",
            "parameters": [
                {
                    "name": "limit",
                    "in": "query",
                    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
                },
                {
                    "name": "cursor",
                    "in": "query",
                    "schema": {"type": "string"},
                    "description": "An earlier next_cursor.",
                },
                *openapi_calls.FILTERS,
            ],
            "responses": {
                "200": _json(
                    "A page of calls. It may be short, even empty, while there is a next_cursor: a search looks at a "
                    "bounded number of calls at a time, and goes on from there.",
                    {
                        "type": "object",
                        "required": ["calls", "next_cursor"],
                        "properties": {
                            "calls": {"type": "array", "items": {"$ref": "#/components/schemas/Call"}},
                            "next_cursor": _NULLABLE_TEXT,
                        },
                    },
                ),
                "default": _PROBLEM,
            },
        },
        "post": {
            "summary": "Place a call: closed until outbound.allow opens its country",
            "parameters": [_IDEMPOTENCY_KEY],
            "requestBody": {
                "required": True,
                "content": {orders.JSON: {"schema": {"$ref": "#/components/schemas/DialOrder"}}},
            },
            "responses": {
                "201": _json("It is being dialled.", {"$ref": "#/components/schemas/Dialling"})
                | {"headers": {"Location": {"description": "The call.", "schema": {"type": "string"}}}},
                "403": _saying(
                    "Not allowed; `code`: outbound_closed, country_closed, emergency, premium, or a rule's."
                ),
                "429": _saying(
                    "A cap within the hour is reached; `code`: number_cap, country_cap, total_cap. Or as many calls "
                    "are live as may be; `code`: tenant_full, number_full."
                )
                | {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}},
                "409": _saying("The same order is being placed; `code`: idempotency_key_in_use.")
                | {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}},
                "422": _saying(
                    "Wrong fields, by name in `errors`; `code`: invalid_fields, invalid_number, ...; or the key is "
                    "another order's; `code`: idempotency_key_reused."
                ),
                "503": _saying("Not now; `code`: overloaded, draining, no_trunk, trunk_down or full.")
                | {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}},
                "default": _PROBLEM,
            },
        },
    },
    "/v1/calls/{call_id}": {
        "parameters": [_CALL_ID],
        "get": {
            "summary": "One call, live or ended",
            "responses": {"200": _json("The call.", {"$ref": "#/components/schemas/Call"}), "default": _PROBLEM},
        },
        "delete": {
            "summary": "Hang up",
            "responses": {
                "202": _json("The call is being ended.", {"type": "object"}),
                "204": {"description": "The call had ended already."},
                "default": _PROBLEM,
            },
        },
    },
    "/v1/calls/{call_id}/transfer": {
        "parameters": [_CALL_ID],
        "post": _hand(
            "Put the caller through to a named target of the agent",
            {
                "type": "object",
                "required": ["target"],
                "additionalProperties": False,
                "properties": {
                    "target": {"type": "string", "pattern": orders.NAME_PATTERN},
                    "kind": {"enum": list(get_args(Kind)), "default": "auto"},
                    "summary": {
                        "type": "string",
                        "maxLength": MAX_SUMMARY_CHARS,
                        "pattern": control_free(orders.TEXT_PATTERN),
                        "description": "Spoken to the representative of a warm transfer.",
                    },
                },
            },
        ),
        "delete": _hand("Give the transfer up: the caller is with the agent again"),
    },
    "/v1/calls/{call_id}/hold": {
        "parameters": [_CALL_ID],
        "post": _hand("The caller hears music and is heard by nobody", {"type": "object", "maxProperties": 0}),
    },
    "/v1/calls/{call_id}/resume": {
        "parameters": [_CALL_ID],
        "post": _hand("Off hold", {"type": "object", "maxProperties": 0}),
    },
    "/v1/calls/{call_id}/mute": {
        "parameters": [_CALL_ID],
        "post": _hand(
            "Whether the representative hears the caller",
            {
                "type": "object",
                "required": ["muted"],
                "additionalProperties": False,
                "properties": {"muted": {"type": "boolean"}},
            },
        ),
    },
    "/v1/calls/{call_id}/legs": {
        "parameters": [_CALL_ID],
        "get": {
            "summary": "Who else is in a live call",
            "responses": {
                "200": _json(
                    "Those who ring or have joined.",
                    {
                        "type": "object",
                        "required": ["legs"],
                        "properties": {"legs": {"type": "array", "items": {"$ref": "#/components/schemas/Leg"}}},
                    },
                ),
                "default": _PROBLEM,
            },
        },
        "post": {
            "summary": "Ring a supervisor or a further representative",
            "requestBody": {
                "required": True,
                "content": {
                    orders.JSON: {
                        "schema": {
                            "type": "object",
                            "additionalProperties": False,
                            "description": "Either `target` or `to`.",
                            "oneOf": [{"required": ["target"]}, {"required": ["to"]}],
                            "properties": {
                                "target": {
                                    "type": "string",
                                    "pattern": orders.NAME_PATTERN,
                                    "description": "A name of the agent's targets.",
                                },
                                "to": {"type": "string", "minLength": 1, "maxLength": orders.MAX_NUMBER_CHARS},
                                "from": {"type": "string", "pattern": orders.E164_PATTERN},
                                "role": {"enum": list(get_args(OtherRole)), "default": "supervisor"},
                                "supervision": {"enum": list(get_args(Supervision)), "default": "listen"},
                                "ring_timeout_s": {
                                    "type": "number",
                                    "minimum": orders.RING_S_MIN,
                                    "maximum": orders.RING_S_MAX,
                                    "default": RING_TIMEOUT_S,
                                },
                            },
                        }
                    }
                },
            },
            "responses": {
                "201": _json("It rings.", {"$ref": "#/components/schemas/Leg"}),
                "403": _saying("Not allowed; `code`: the rule's."),
                "409": _saying("`code`: not_supported, not_now or conference_full."),
                "422": _saying("Wrong fields, by name in `errors`."),
                "503": _saying("No trunk takes the call now."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/calls/{call_id}/legs/{leg_id}": {
        "parameters": [_CALL_ID, {"name": "leg_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "patch": {
            "summary": "Whether a supervisor listens, whispers or speaks; whether anybody hears that leg",
            "requestBody": {
                "required": True,
                "content": {
                    orders.JSON: {
                        "schema": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "supervision": {"enum": list(get_args(Supervision))},
                                "muted": {"type": "boolean"},
                            },
                        }
                    }
                },
            },
            "responses": {
                "200": _json("As it is now.", {"$ref": "#/components/schemas/Leg"}),
                "404": _saying("No such live call or leg."),
                "409": _saying("`code`: not_supported: a representative has no supervision."),
                "default": _PROBLEM,
            },
        },
        "delete": {
            "summary": "Hang up that leg; the call goes on",
            "responses": {"202": _json("It is being hung up.", {"type": "object"}), "default": _PROBLEM},
        },
    },
    "/v1/session": {
        "post": {
            "summary": "Open a session for a device, which is known from then on",
            "requestBody": _body(
                {
                    "type": "object",
                    "required": ["device_id", "account_id"],
                    "additionalProperties": False,
                    "properties": {
                        "device_id": {"type": "string", "pattern": devices.ID_PATTERN},
                        "account_id": _ACCOUNT,
                        "agent": _NULLABLE_TEXT
                        | {
                            "minLength": 1,
                            "maxLength": devices.MAX_NAME_CHARS,
                            "pattern": control_free(orders.TEXT_PATTERN),
                            "description": "By its name; default: who has every call first.",
                        },
                    },
                }
            ),
            "responses": {"409": _saying("The device is another account's; `code`: device_taken."), **_OPENED},
        },
    },
    "/v1/session/{session_id}": {
        "parameters": [_SESSION_ID, _OWNER],
        "get": {
            "summary": "A session, for its owner",
            "responses": {
                "200": _json("As it is now.", {"$ref": "#/components/schemas/Session"}),
                "403": _saying("`code`: not_owner."),
                "404": _saying("`code`: unknown_session: it was ended, or idle for too long."),
                "default": _PROBLEM,
            },
        },
        "delete": {
            "summary": "End it, and its call, for its owner",
            "responses": {
                "204": {"description": "It is over; a call in another worker ends within seconds."},
                "403": _saying("`code`: not_owner."),
                "404": _saying("`code`: unknown_session."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/session/{session_id}/token": {
        "parameters": [_SESSION_ID],
        "post": {
            "summary": "Another join token: the device comes back, here or elsewhere",
            "requestBody": _body(
                {
                    "type": "object",
                    "required": ["account_id"],
                    "additionalProperties": False,
                    "properties": {"account_id": _ACCOUNT},
                }
            ),
            "responses": {
                "403": _saying("`code`: not_owner."),
                "404": _saying("`code`: unknown_session."),
                **_OPENED,
            },
        },
    },
    "/v1/device/{device_id}/register": {
        "parameters": [
            {
                "name": "device_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": devices.ID_PATTERN},
            }
        ],
        "post": {
            "summary": "Register a device, or change what it says of itself: the same as often as it is asked",
            "requestBody": _body(
                {
                    "type": "object",
                    "required": ["account_id"],
                    "additionalProperties": False,
                    "properties": {
                        "account_id": _ACCOUNT,
                        "name": {
                            "type": "string",
                            "maxLength": devices.MAX_NAME_CHARS,
                            "pattern": control_free(orders.TEXT_PATTERN),
                        },
                        "needs_arming": {"type": "boolean", "default": False},
                        "facts": _ATTRIBUTES | {"description": "Public. `lat` and `lon`, in degrees, say where it is."},
                    },
                }
            ),
            "responses": {
                "201": _json("It is known.", {"$ref": "#/components/schemas/Device"}),
                "409": _saying("It is another account's; `code`: device_taken."),
                "422": _saying("Wrong fields, by name in `errors`."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/routing/hint": {
        "get": {
            "summary": "The nearest healthy region; without coordinates where the device said it is, else here",
            "parameters": [
                {
                    "name": "device_id",
                    "in": "query",
                    "required": True,
                    "schema": {"type": "string", "pattern": devices.ID_PATTERN},
                },
                {"name": "lat", "in": "query", "schema": {"type": "number", "minimum": -90, "maximum": 90}},
                {"name": "lon", "in": "query", "schema": {"type": "number", "minimum": -180, "maximum": 180}},
            ],
            "responses": {
                "200": _json("The region and its URLs.", {"$ref": "#/components/schemas/RoutingHint"}),
                "422": _saying("Wrong fields, by name in `errors`."),
                "503": _saying("No region is ready; `code`: no_region.") | _RETRY_LATER,
                "default": _PROBLEM,
            },
        }
    },
    "/whip": {
        "post": {
            "summary": "A call over WebRTC (shaped like RFC 9725, and our answer speaks as well)",
            "description": "With a session's join token as Bearer; without one only where the gateway is open.",
            "requestBody": {"required": True, "content": {"application/sdp": {"schema": {"type": "string"}}}},
            "responses": {
                "201": {
                    "description": "The answer. `Location` and `ETag` are of the call, `Link` names ICE servers.",
                    "content": {"application/sdp": {"schema": {"type": "string"}}},
                },
                "400": _saying("`code`: malformed."),
                "401": _saying("`code`: no_token, no_sessions, session_over, or what is wrong with the token."),
                "403": _saying("Not allowed; `code`: the rule's, or origin."),
                "413": _saying("`code`: too_large."),
                "415": _saying("`code`: not_sdp."),
                "422": _saying("`code`: no_audio, no_codec, not_supported, unknown_agent."),
                "503": _saying("No line is free, or something is away.") | _RETRY_LATER,
                "default": _PROBLEM,
            },
        },
    },
    "/whip/{name}": {
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        "patch": {
            "summary": "Trickled ICE candidates, with If-Match",
            "parameters": [
                {
                    "name": "If-Match",
                    "in": "header",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "The ETag of the answer.",
                }
            ],
            "requestBody": {
                "required": True,
                "content": {"application/trickle-ice-sdpfrag": {"schema": {"type": "string"}}},
            },
            "responses": {
                "204": {"description": "They are known."},
                "404": _saying("There is no such call any more; `code`: unknown."),
                "412": _saying("`code`: wrong_etag."),
                "422": _saying("ICE cannot be restarted: POST anew with a token of the session; `code`: no_restart."),
                "428": _saying("If-Match is missing; `code`: no_etag."),
                "default": _PROBLEM,
            },
        },
        "delete": {
            "summary": "Hang up",
            "responses": {
                "200": {"description": "The call ends."},
                "404": _saying("There is no such call any more; `code`: unknown."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/providers": {
        "get": {
            "summary": "The agent's recognisers, models and voices, and how they are",
            "responses": {
                "200": _json(
                    "All that have been asked for anything since the start.",
                    {
                        "type": "object",
                        "required": ["providers"],
                        "properties": {
                            "providers": {"type": "array", "items": {"$ref": "#/components/schemas/Provider"}}
                        },
                    },
                ),
                "default": _PROBLEM,
            },
        }
    },
    "/v1/trunks": {
        "get": {
            "summary": "Trunks, SIP and Twilio, and whether they answer",
            "responses": {
                "200": _json(
                    "All that are configured.",
                    {
                        "type": "object",
                        "required": ["trunks"],
                        "properties": {"trunks": {"type": "array", "items": {"$ref": "#/components/schemas/Trunk"}}},
                    },
                ),
                "default": _PROBLEM,
            },
        }
    },
    "/metrics": {
        "get": {"summary": "Prometheus metrics", "responses": {"200": _text("The exposition."), "default": _PROBLEM}}
    },
    "/healthz": {
        "get": {
            "summary": "The process lives",
            "security": [],
            "responses": {"200": _json("It does.", {"type": "object"})},
        }
    },
    "/readyz": {
        "get": {
            "summary": "New calls are welcome",
            "security": [],
            "responses": {
                "200": _json("They are.", {"type": "object"}),
                "503": _json("They are not; `reasons` says why.", {"type": "object"}),
            },
        }
    },
    "/openapi.json": {
        "get": {"summary": "This document", "security": [], "responses": {"200": _json("It.", {"type": "object"})}}
    },
}
