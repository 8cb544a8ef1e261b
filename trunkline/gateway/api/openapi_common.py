"""What many routes have in common in /openapi.json, said once: `completed` adds it to them."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from trunkline.gateway.api.guard import COUNTED, LOCKED, MAX_BODY_BYTES

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_METHODS = ("get", "post", "put", "patch", "delete")
_WHOLE = {"type": "integer", "minimum": 0}
HEADERS: dict[str, Any] = {
    "RateLimit": {"description": 'Such as "default";r=599;t=0.', "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": 'Such as "default";q=600;w=60.', "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds.", "schema": _WHOLE},
    "Allow": {"description": "What may be asked here.", "schema": {"type": "string"}},
    "Challenge": {"description": "Bearer.", "schema": {"type": "string"}},
}
_RATE = {name: {"$ref": f"#/components/headers/{name}"} for name in ("RateLimit", "RateLimit-Policy")}
_LATER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}


def _answer(description: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"description": description, "content": _PROBLEM}
    return told | ({"headers": dict(headers)} if headers else {})


RESPONSES: dict[str, Any] = {
    "Malformed": _answer("Not as this document has it; `detail` names what."),
    "Unauthorized": _answer(
        "An API key is needed, or it is not good any more.",
        {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}},
    ),
    "Forbidden": _answer("Not with this key (`code`: scope, tenant, csrf), or not for this tenant."),
    "NotThere": _answer("There is none."),
    "NotAllowed": _answer("Not this method.", {"Allow": {"$ref": "#/components/headers/Allow"}}),
    "TooLarge": _answer(f"The body is larger than may be: {MAX_BODY_BYTES} bytes, of agents and files more."),
    "WrongType": _answer("Not in this media type."),
    "TooMany": _answer("Too many requests within the minute.", _LATER),
    "Away": _answer("The database, or what is asked here, is away.", _LATER),
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{name}"}


def completed(paths: Mapping[str, Any]) -> dict[str, Any]:
    """With the answers that the guard, the router and the store give on every route of a kind. What a route says
    itself of such an answer stays."""
    made = copy.deepcopy(dict(paths))
    for path, item in made.items():
        for method in _METHODS:
            if method in item:
                _complete(path, item[method], has_path_parameter="{" in path)
    return made


def _complete(path: str, route: dict[str, Any], *, has_path_parameter: bool) -> None:
    common: dict[str, Any] = {"400": _ref("Malformed"), "405": _ref("NotAllowed")}
    if path.startswith(LOCKED):
        common |= {"401": _ref("Unauthorized"), "403": _ref("Forbidden"), "503": _ref("Away")}
    if path.startswith(COUNTED):
        common["429"] = _ref("TooMany")
    if has_path_parameter:
        common["404"] = _ref("NotThere")
    if "requestBody" in route:
        common |= {"413": _ref("TooLarge"), "415": _ref("WrongType")}
    answers = route["responses"]
    route["responses"] = {**common, **answers}
    if path.startswith(COUNTED):
        for status, answer in answers.items():
            answer["headers"] = _RATE | answer.get("headers", {})
            if status == "429":
                answer["headers"] |= _LATER


def control_free(pattern: str) -> str:
    r"""`\P{Cc}` spelled out: not every reader of patterns knows Unicode's classes."""
    return pattern.replace(r"\P{Cc}", r"[^\u0000-\u001f\u007f-\u009f]")


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """A body's schema in one piece, from what reads it."""
    schema = model.model_json_schema(by_alias=True)
    parts = schema.pop("$defs", {})

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return plain(parts[value["$ref"].rpartition("/")[2]])
            kept = {
                name: plain(each) for name, each in value.items() if not (name == "title" and isinstance(each, str))
            }
            if isinstance(kept.get("pattern"), str):
                kept["pattern"] = control_free(kept["pattern"])
            return kept
        return [plain(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = plain(schema)
    found.pop("description", None)
    return found


ETAG_PATTERN = r'^(\*|"[0-9]{1,9}")$'
DESK_ETAG_PATTERN = r'^(\*|(W/)?"[0-9]{1,9}")$'
IDEMPOTENCY_KEY_PATTERN = r'^("[!#-\[\]-~]{1,128}"|[!#-\[\]-~]{1,128})$'
