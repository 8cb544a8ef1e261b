"""The record's part of /openapi.json: searches, timelines, exports, recordings, statistics, what is live."""

from typing import Any, get_args

from trunkline.gateway import timeline
from trunkline.gateway.api import callquery as q
from trunkline.gateway.api.recordings import NUMBER_MAX
from trunkline.gateway.leg import LegKind
from trunkline.ports import EndedBy, EndReason

_PROBLEM = {
    "description": "An error (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_CALL_ID = {"name": "call_id", "in": "path", "required": True, "schema": {"type": "string"}}
_TEXT = {"type": "string"}
_WHOLE = {"type": "integer", "minimum": 0}
_USD = {"type": "string", "description": "A decimal."}
_TIME = {"type": "string", "format": "date-time"}
_MS = {"type": ["number", "null"]}


def _asked(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema} | ({"description": description} if description else {})


def _one_of(values: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(get_args(values))}


def _answer(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _saying(description: str) -> dict[str, Any]:
    return _PROBLEM | {"description": description}


_NUMBER = {"type": "string", "pattern": q.NUMBER_PATTERN}
_SINCE = _asked("since", _TIME, "Inclusive.")
_UNTIL = _asked("until", _TIME, "Exclusive.")
FILTERS: list[dict[str, Any]] = [
    _asked("number", _NUMBER, "Of either party; its beginning and * for all that begin so."),
    _asked("our_number", _NUMBER, "That was called, or that we called from; * as above."),
    _asked("agent", {"type": "string", "minLength": 1, "maxLength": q.MAX_AGENT, "pattern": q.TEXT_PATTERN}),
    _asked("direction", {"type": "string", "enum": ["inbound", "outbound"]}),
    _asked("leg", _one_of(LegKind)),
    _asked("end_reason", _one_of(EndReason)),
    _asked("ended_by", _one_of(EndedBy)),
    _asked("live", {"type": "boolean"}, "Without an end in the record, or with one."),
    _SINCE | {"description": "Of the call's start, inclusive."},
    _UNTIL,
    _asked("min_duration_s", {"type": "number", "minimum": 0, "maximum": q.MAX_SECONDS}, "From its answer to its end."),
    _asked("min_cost_usd", {"type": "number", "minimum": 0, "maximum": q.MAX_USD}, "Of what has a price."),
    _asked(
        "text",
        {"type": "string", "minLength": 2, "maxLength": q.MAX_TEXT, "pattern": q.TEXT_PATTERN},
        "Somewhere in what was said, as one piece, whatever its case. 400 where what was said is sealed.",
    ),
    _asked(
        "having",
        {"type": "string", "pattern": f"^(({'|'.join(q.HAVING)})(,({'|'.join(q.HAVING)}))*)?$"},
        f"At least one of each: {', '.join(q.HAVING)}, with commas between.",
    ),
]

SUMMED: dict[str, Any] = {
    "duration_ms": {"type": ["integer", "null"], "description": "From its answer to its end; null while it is live."},
    "turn_count": {"type": ["integer", "null"]},
    "turn_p95_ms": _MS | {"description": "95 % of its turns' latencies were no longer."},
    "cost_usd": {"type": ["string", "null"], "description": "A decimal: of what has a price."},
    "mos": _MS | {"description": "As we heard the far end (E-model), at worst; null where no leg can tell."},
    "error_count": {"type": ["integer", "null"]},
    "refusal_count": {"type": ["integer", "null"]},
    "transfer_count": {"type": ["integer", "null"]},
}

_PART = {
    "type": "object",
    "required": ["count", "p50", "p95", "p99"],
    "properties": {"count": _WHOLE, "p50": _MS, "p95": _MS, "p99": _MS},
}
_COUNTED: dict[str, Any] = {
    "type": "object",
    "required": ["calls", "answered", "ended", "end_reasons", "minutes", "cost_usd", "cost_by_product", "latency_ms"],
    "properties": {
        "at": _TIME,
        "calls": _WHOLE | {"description": "That began."},
        "inbound": _WHOLE,
        "outbound": _WHOLE,
        "answered": _WHOLE,
        "ended": _WHOLE,
        "end_reasons": {"type": "object", "additionalProperties": _WHOLE},
        "minutes": {"type": "number", "description": "From answer to end, of those that ended."},
        "cost_usd": _USD,
        "cost_by_product": {"type": "object", "additionalProperties": _USD},
        "unpriced": {"type": "array", "items": _TEXT, "description": "Products that were used and have no price."},
        "latency_ms": {
            "type": "object",
            "properties": {part: _PART for part in ("endpointing", "stt", "llm", "tts", "total")},
            "description": "Of turns, within 5 %.",
        },
    },
}

SCHEMAS: dict[str, Any] = {
    "Timeline": {
        "type": "object",
        "required": ["id", "entries", "cost", "media", "recording"],
        "properties": {
            "id": _TEXT,
            "entries": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["at", "after_ms", "kind", "text", "data"],
                    "properties": {
                        "at": _TIME,
                        "after_ms": {"type": "integer", "description": "Since the call's start."},
                        "kind": {"enum": list(timeline.KINDS)},
                        "text": {"type": "string", "description": "One line, for people."},
                        "event": {"type": "string", "description": "The event of the record it is of."},
                        "data": {
                            "type": "object",
                            "description": "As recorded. Of a turn: caller_text, agent_text (what was heard of it), "
                            "cut_text (what was not), latency_ms by part, tools with arguments and outcome.",
                        },
                    },
                },
            },
            "cost": {"type": "object", "description": "As of a single call."},
            "media": {"type": "array", "items": {"type": "object"}, "description": "How each leg sounded."},
            "recording": {
                "type": "object",
                "required": ["made", "may_be_played", "why"],
                "properties": {
                    "made": {"type": "boolean"},
                    "may_be_played": {"type": "boolean", "description": "By what the caller agreed to."},
                    "why": {"type": "string", "description": "... not."},
                },
            },
        },
    },
    "Statistics": {
        "type": "object",
        "required": ["since", "until", "by", "total", "slots", "trunks"],
        "properties": {
            "since": _TIME,
            "until": _TIME,
            "by": {"enum": ["hour", "day"]},
            "total": _COUNTED,
            "slots": {"type": "array", "items": _COUNTED, "description": "Hours or days of UTC, each there."},
            "trunks": {"type": "array", "items": {"$ref": "#/components/schemas/Trunk"}},
        },
    },
}

_BYTES: dict[str, Any] = {"type": "string", "contentEncoding": "binary"}
_WAV = {"audio/wav": {"schema": _BYTES}}

PATHS: dict[str, Any] = {
    "/v1/calls/live": {
        "get": {
            "summary": "Calls on the line now, of this process, newest first",
            "responses": {
                "200": _answer(
                    {
                        "type": "object",
                        "required": ["calls"],
                        "properties": {"calls": {"type": "array", "items": {"$ref": "#/components/schemas/Call"}}},
                    },
                    "They.",
                ),
                "default": _PROBLEM,
            },
        }
    },
    "/v1/calls/export": {
        "get": {
            "summary": "Calls as a file, newest first",
            "description": "In CSV a cell that a spreadsheet would take for a formula has an apostrophe before it; "
            "numbers such as +14155550100 are as they are.",
            "parameters": [
                _asked("format", {"type": "string", "enum": ["csv", "parquet"], "default": "csv"}),
                *FILTERS,
            ],
            "responses": {
                "200": {
                    "description": "All of them, as they are read.",
                    "content": {
                        "text/csv": {"schema": _TEXT},
                        "application/vnd.apache.parquet": {"schema": _BYTES},
                    },
                },
                "501": _saying("Parquet needs the extra `audit`."),
                "default": _PROBLEM,
            },
        }
    },
    "/v1/calls/{call_id}/timeline": {
        "parameters": [_CALL_ID],
        "get": {
            "summary": "What happened in a call, in order",
            "responses": {
                "200": _answer({"$ref": "#/components/schemas/Timeline"}, "It."),
                "404": _saying("There is no such call."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/calls/{call_id}/recording": {
        "parameters": [_CALL_ID],
        "get": {
            "summary": "A call's recording: caller left, agent right",
            "description": "That it was played, by whom, is in the call's record before the first byte leaves.",
            "parameters": [
                _asked(
                    "number",
                    {"type": "integer", "minimum": 1, "maximum": NUMBER_MAX, "default": 1},
                    "Which, of a call that has several.",
                ),
                {"name": "Range", "in": "header", "schema": _TEXT, "description": "One range of bytes (RFC 9110)."},
            ],
            "responses": {
                "200": {"description": "All of it.", "content": _WAV},
                "206": {"description": "A part of it.", "content": _WAV},
                "403": _saying("The caller has not agreed to it, or no more; `code`: no_consent."),
                "404": _saying("No such call, or no such recording of it (any more)."),
                "409": _saying("It cannot be opened; `code`: unreadable."),
                "416": _saying("There are no such bytes."),
                "default": _PROBLEM,
            },
        },
    },
    "/v1/events": {
        "get": {
            "summary": "What changes of calls, as it happens (server-sent events), of this process",
            "description": "Events: call.started, call.event (kind, and the call's state), call.turn, call.ended; "
            "dropped (count) where the client did not read fast enough. Data is JSON. A comment each 15 s.",
            "responses": {
                "200": {"description": "They.", "content": {"text/event-stream": {"schema": _TEXT}}},
                "503": _saying("As many listen already as may."),
                "default": _PROBLEM,
            },
        }
    },
    "/v1/stats": {
        "get": {
            "summary": "Calls in numbers, by the hour or day",
            "parameters": [
                _SINCE | {"description": "Default: a day before `until`."},
                _UNTIL | {"description": "Default: now. 31 days at most by the hour, 92 by the day."},
                _asked("by", {"type": "string", "enum": ["hour", "day"], "default": "hour"}),
            ],
            "responses": {
                "200": _answer({"$ref": "#/components/schemas/Statistics"}, "They."),
                "400": _saying("Not a span, or too long a one."),
                "default": _PROBLEM,
            },
        }
    },
}
