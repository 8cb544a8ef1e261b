"""POST /v1/calls: the order as JSON, and the switchboard's refusal as a problem document.

A form or plain text is not taken: without an API key we answer to this machine, and there any web page may post those,
but no other site's page may post JSON.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from trunkline.compliance.places import known_zone
from trunkline.gateway.api.problems import problem
from trunkline.gateway.dialling import RING_TIMEOUT_S, DialOrder
from trunkline.ports import Purpose, Refuse
from trunkline.types import E164

JSON = "application/json"
MAX_NUMBER_CHARS = 32
RING_S_MIN, RING_S_MAX = 5, 120
MAX_ATTRIBUTES, MAX_ATTRIBUTE_CHARS = 32, 512
E164_PATTERN = r"^\+[1-9][0-9]{6,14}$"
NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
REGION_PATTERN = r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"
TEXT_PATTERN = r"^\P{Cc}*$"  # attributes may become SIP headers: no line ends
RETRY_AFTER_S = 5

_WANTED = {
    "to": "a number as +COUNTRY NUMBER without spaces, such as +14155550100",
    "from": "a number as +COUNTRY NUMBER without spaces, such as +14155550100",
    "trunk": "the name of a trunk",
    "ring_timeout_s": f"seconds from {RING_S_MIN} to {RING_S_MAX}",
    "purpose": "marketing, transactional or informational",
    "region": "where the number's owner is: a country or its part, such as DE, US-CA",
    "zone": "a time zone as IANA names it, such as America/New_York",
    "attributes": f"at most {MAX_ATTRIBUTES} texts by name, of {MAX_ATTRIBUTE_CHARS} characters without line ends",
}
# What a refusal is to the client: busy (try again), a wrong field of the order, or else simply no.
_BUSY = {"overloaded", "draining", "no_trunk", "trunk_down", "trunk_unauthorized", "full"}
_BUSY |= {
    "slots_unknown",
    "company_dnc_unknown",
    "stopped_unknown",
    "consent_unknown",
    "frequency_unknown",
}  # the database is away
_FIELDS = {"invalid_number": "to", "unknown_trunk": "trunk", "no_caller_id": "from"}

_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Number = Annotated[str, Field(pattern=E164_PATTERN)]
_Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=MAX_ATTRIBUTE_CHARS)]


def _zone(name: str) -> str:
    if not known_zone(name):
        raise ValueError("no time zone")
    return name


class _Order(BaseModel):
    """`to` is a text here: what may be dialled is the dial door's to say, so that 911 is refused as what it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    to: str = Field(min_length=1, max_length=MAX_NUMBER_CHARS)
    from_number: _Number | None = Field(default=None, alias="from")
    trunk: _Name | None = None
    ring_timeout_s: float = Field(default=RING_TIMEOUT_S, ge=RING_S_MIN, le=RING_S_MAX, allow_inf_nan=False)
    attributes: dict[_Name, _Text] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)
    purpose: Purpose | None = None
    region: Annotated[str, Field(pattern=REGION_PATTERN)] | None = None
    zone: Annotated[str, AfterValidator(_zone)] | None = None


def order(content_type: str, body: bytes) -> DialOrder | Response:
    """What the body asks for, or the problem with it. The problem never shows what the body held."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        return problem(415, f"Content-Type: {JSON} expected")
    try:
        given = _Order.model_validate_json(body)
    except ValidationError as invalid:
        fields = {_field(error["type"], error["loc"]): None for error in invalid.errors(include_input=False)}
        if "" in fields:
            return problem(400, "a JSON object expected")
        return wrong_fields("invalid_fields", {name: _WANTED.get(name, "no such field") for name in fields})
    return DialOrder(
        to_number=E164(given.to),
        from_number=None if given.from_number is None else E164(given.from_number),
        trunk=given.trunk,
        ring_timeout_s=given.ring_timeout_s,
        attributes=given.attributes,
        purpose=given.purpose,
        region=given.region,
        zone=given.zone,
    )


def _field(error_type: str, loc: tuple[int | str, ...]) -> str:
    """'' when it is not even a JSON object."""
    if not loc or error_type == "json_invalid":
        return ""
    name = str(loc[0])
    return name if name in _WANTED or (name.isidentifier() and len(name) <= 64) else "?"


def wrong_fields(code: str, errors: dict[str, str]) -> Response:
    detail = "; ".join(f"{name}: {wanted}" for name, wanted in errors.items())
    return problem(
        422, detail, code=code, errors=[{"field": name, "detail": wanted} for name, wanted in errors.items()]
    )


_CAPS = {"number_cap", "country_cap", "total_cap"}
CAP_RETRY_S = 600  # the hour moves on; when its oldest call leaves it, this does not know
_FULL = {"tenant_full", "number_full"}


def refusal(refused: Refuse) -> Response:
    if refused.code in _BUSY:
        return problem(503, refused.why, {"Retry-After": str(RETRY_AFTER_S)}, code=refused.code)
    if refused.code in _FIELDS:
        return wrong_fields(refused.code, {_FIELDS[refused.code]: refused.why})
    if refused.code in _CAPS:
        return problem(429, refused.why, {"Retry-After": str(CAP_RETRY_S)}, code=refused.code)
    if refused.code in _FULL:
        return problem(429, refused.why, {"Retry-After": str(RETRY_AFTER_S)}, code=refused.code)
    return problem(403, refused.why, code=refused.code)
