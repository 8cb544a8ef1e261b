"""What admins of a tenant own, as values: what the API takes and gives, what `trunkline apply` reads, what is stored.

Each resource has a key among those of its kind and tenant: its `name`, or of a number the number itself. A resource
that names another does so by that key, and `uses` says which; the desk sees to it that what is named is there, and that
nothing that is named goes away.

    Number ──► Route ──► Agent (a version of it)
       │         └─────► Hours
       └─► Trunk ──► Carrier            Budget ──► Number, Agent            Tenant: one, for all its numbers
"""

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from trunkline.settings.money import Usd
from trunkline.settings.trunk import SipTrunk
from trunkline.settings.values import contradiction

ANONYMOUS = "anonymous"
MAX_TEXT = 500
MAX_SCRIPT_CHARS = 256 * 1024
MAX_VERSION = 999_999_999  # every database's integers hold it
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_NAME = "^[a-z0-9][a-z0-9_-]{0,39}$"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}\*")
_RANGE = re.compile(rf"({_E164.pattern})-({_E164.pattern})")
_SPAN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")


def is_number(value: str) -> bool:
    return _E164.fullmatch(value) is not None


def _number(value: str) -> str:
    if not is_number(value):
        raise ValueError("a phone number as +COUNTRY NUMBER without spaces, such as +14155550100")
    return value


def _numbers(value: str) -> str:
    found = _RANGE.fullmatch(value)
    if found is not None and (len(found[1]) != len(found[2]) or found[1] > found[2]):
        raise ValueError("a range from the lower to the higher of two numbers of one length")
    if found is None and not _PREFIX.fullmatch(value) and not _E164.fullmatch(value):
        raise ValueError("a number, a beginning such as +1415*, or a range such as +14155550100-+14155550199")
    return value


def _caller(value: str) -> str:
    return value if value == ANONYMOUS else _numbers(value)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a time zone by its IANA name, such as America/New_York") from None
    return value


def _span(value: str) -> str:
    if not _SPAN.fullmatch(value) or value[:5] >= value[6:]:
        raise ValueError("a time from and a later one to, such as 09:00-17:30 (24:00 at most)")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("1 to 40 small letters, digits, - and _, such as front-desk")
    return value


def _country(value: str) -> str:
    if not re.fullmatch("[A-Z]{2}", value):
        raise ValueError("a country by its two letters, such as US")
    return value


E164 = Annotated[str, AfterValidator(_number), Field(json_schema_extra={"pattern": f"^{_E164.pattern}$"})]
Numbers = Annotated[str, AfterValidator(_numbers), Field(max_length=40)]
"""A number, a beginning (`+1415*`) or a range (`+14155550100-+14155550199`)."""
Callers = Annotated[str, AfterValidator(_caller), Field(max_length=40)]
"""As Numbers, or `anonymous`: who withholds theirs."""
Zone = Annotated[str, AfterValidator(_zone), Field(max_length=64)]
Span = Annotated[str, AfterValidator(_span), Field(json_schema_extra={"pattern": f"^{_SPAN.pattern}$"})]
"""Within a day of its zone: `09:00-17:30`."""
Country = Annotated[str, AfterValidator(_country), Field(json_schema_extra={"pattern": "^[A-Z]{2}$"})]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": _NAME})]
Label = Annotated[str, Field(max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Tag = Name
Verdict = Literal["verified", "invalid", "unsigned", "unknown"]
Secret = Annotated[str, Field(min_length=1, max_length=256)]
"""Written, never read: None where one is given back, and None keeps what is there."""

Use = tuple[str, str]
"""The kind and key of what is named."""


def said(error: ErrorDetails) -> str:
    """What pydantic finds wrong, as we would say it."""
    context = error.get("ctx", {})
    if error["type"] in _SAID:
        return _SAID[error["type"]].format(**context)
    return str(context.get("allowed") or error["msg"]).removeprefix("Value error, ")


_SAID = {
    "missing": "must be given",
    "extra_forbidden": "there is no such field",
    "union_tag_invalid": "a kind: one of {expected_tags}",
    "union_tag_not_found": "a kind",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_type": "a text",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
}


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- who answers ----------------------------------------------------------------------------------------------------


class Share(_Value):
    """An agent's part of the calls."""

    agent: Name
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)] | None = None
    """Pinned to it. None: the one that is published."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 100
    """Against the other shares; 0: none of the calls."""


class ByAgents(_Value):
    kind: Literal["agents"] = "agents"
    agents: Annotated[tuple[Share, ...], Field(min_length=1, max_length=10)]

    @model_validator(mode="after")
    def _some_weight(self) -> "ByAgents":
        if not any(share.weight for share in self.agents):
            raise ValueError("a weight above 0 somewhere")
        return self


class ByNumber(_Value):
    """The caller is put through to a phone number; nobody of ours is on the line."""

    kind: Literal["number"] = "number"
    number: E164


class ByMessage(_Value):
    """The caller hears this, then the call ends."""

    kind: Literal["message"] = "message"
    text: Annotated[Text, Field(min_length=1)]


class ByBusy(_Value):
    """A busy tone."""

    kind: Literal["busy"] = "busy"


Answer = Annotated[ByAgents | ByNumber | ByMessage | ByBusy, Field(discriminator="kind")]


class Rule(_Value):
    """The first rule whose every condition holds answers in place of its route."""

    name: Name
    callers: Annotated[tuple[Callers, ...], Field(max_length=100)] = ()
    """Any of them. None given: any caller."""
    verdicts: Annotated[tuple[Verdict, ...], Field(max_length=4)] = ()
    """What STIR/SHAKEN says of the caller's number."""
    hours: Name | None = None
    """Only then."""
    answer: Answer


class Queue(_Value):
    """Where callers wait while no line is free, each number's own."""

    max_waiting: Annotated[int, Field(ge=1, le=500)] = 10
    max_wait_s: Annotated[int, Field(ge=10, le=3600)] = 300
    say_position: bool = True
    offer_callback: bool = False
    """Callers may key 1 to be called back when a line is free."""


# --- the kinds ------------------------------------------------------------------------------------------------------


class Resource(_Value):
    kind: ClassVar[str]
    """As in the API's paths."""
    key_field: ClassVar[str] = "name"
    secrets: ClassVar[tuple[str, ...]] = ()
    """Fields that are written and never read."""

    @property
    def key(self) -> str:
        return str(getattr(self, self.key_field))

    def uses(self) -> Iterator[Use]:
        yield from ()


class Hours(Resource):
    """When somebody is there."""

    kind = "hours"

    name: Name
    label: Label = ""
    zone: Zone
    weekly: dict[
        Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], Annotated[tuple[Span, ...], Field(max_length=8)]
    ]
    """By day; a day that is not there is closed."""
    holidays: Annotated[tuple["Holiday", ...], Field(max_length=400)] = ()

    @model_validator(mode="after")
    def _once_each(self) -> "Hours":
        dates = [holiday.date for holiday in self.holidays]
        if len(set(dates)) < len(dates):
            twice = next(day for day in dates if dates.count(day) > 1)
            raise ValueError(f"each holiday once: {twice} is there twice")
        return self


class Holiday(_Value):
    date: date
    name: Label = ""
    open: Annotated[tuple[Span, ...], Field(max_length=8)] = ()
    """In place of that day's hours. None: closed."""


class Agent(Resource):
    """An AI agent. What answers calls is a version, which nobody changes any more; the draft is what is worked on."""

    kind = "agents"

    name: Name
    label: Label = ""
    draft: Annotated[str, Field(max_length=MAX_SCRIPT_CHARS)] = ""
    """An agent script (docs/agent-script.md)."""
    published: Annotated[int, Field(ge=1, le=MAX_VERSION)] | None = None
    """The version that answers; None: none yet."""


class Route(Resource):
    """Who answers a number, and when."""

    kind = "routes"

    name: Name
    label: Label = ""
    matches: Annotated[tuple[Numbers, ...], Field(max_length=200)] = ()
    """Numbers that are not in the inventory by themselves: of a SIP trunk, say. The most specific match answers."""
    trunk: Name | None = None
    """Of `matches`: only calls that come over it."""
    answer: Answer
    rules: Annotated[tuple[Rule, ...], Field(max_length=50)] = ()
    hours: Name | None = None
    """None: always open."""
    closed: Answer | None = None
    """Outside of hours. None: as when open."""
    queue: Queue | None = None
    max_calls: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """At once on each of its numbers that has no limit of its own."""
    reserved_inbound: Annotated[int, Field(ge=0, le=9_999)] = 0
    """Of max_calls: kept free for calls that come in."""
    overflow_number: E164 | None = None
    """Where callers go when there is no line, and no place in the queue."""
    fallback_number: E164 | None = None
    """Where callers go when we cannot take them at all."""

    def uses(self) -> Iterator[Use]:
        for answer in (self.answer, self.closed, *(rule.answer for rule in self.rules)):
            if isinstance(answer, ByAgents):
                yield from (("agents", share.agent) for share in answer.agents)
        for hours in (self.hours, *(rule.hours for rule in self.rules)):
            if hours is not None:
                yield "hours", hours
        if self.trunk is not None:
            yield "trunks", self.trunk


class Number(Resource):
    """A phone number we own."""

    kind = "numbers"
    key_field = "number"

    number: E164
    label: Label = ""
    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] = ()
    route: Name | None = None
    """None: the gateway's own agent, or the route whose `matches` has it."""
    agents: Annotated[tuple[Share, ...], Field(max_length=10)] = ()
    """In place of the agents of its route's `answer`: a split, a pinned version for this number."""
    carrier: Name | None = None
    carrier_id: Annotated[str, Field(max_length=64)] = ""
    """What the carrier calls it: Twilio's PN..."""
    trunk: Name | None = None
    enabled: bool = True
    """False: its calls are refused."""
    max_calls: Annotated[int, Field(ge=1, le=10_000)] | None = None
    reserved_inbound: Annotated[int, Field(ge=0, le=9_999)] = 0
    overflow_number: E164 | None = None
    fallback_number: E164 | None = None

    def uses(self) -> Iterator[Use]:
        for kind, name in (("routes", self.route), ("carriers", self.carrier), ("trunks", self.trunk)):
            if name is not None:
                yield kind, name
        yield from (("agents", share.agent) for share in self.agents)

    @model_validator(mode="after")
    def _some_go_out(self) -> "Number":
        if self.max_calls is not None and self.reserved_inbound >= self.max_calls:
            raise contradiction("reserved_inbound", self.reserved_inbound, f"less than max_calls ({self.max_calls})")
        return self


class Carrier(Resource):
    """Whom we have numbers and trunks of."""

    kind = "carriers"
    secrets = ("auth_token", "api_secret")

    name: Name
    label: Label = ""
    type: Literal["twilio", "telnyx", "asterisk", "generic"]
    account_sid: Annotated[str, Field(pattern="^(AC[0-9a-f]{32})?$")] = ""
    """Twilio's."""
    api_key: Annotated[str, Field(pattern="^(SK[0-9a-f]{32})?$")] = ""
    auth_token: Secret | None = Field(default=None, repr=False)
    api_secret: Secret | None = Field(default=None, repr=False)


class Trunk(Resource):
    """A SIP trunk: what `[sip.trunks.NAME]` of the settings is, without its passwords."""

    kind = "trunks"
    secrets = ("password", "auth_password")

    name: Name
    label: Label = ""
    carrier: Name | None = None
    enabled: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)
    """As docs/settings.md has them under sip.trunks.NAME."""
    password: Secret | None = Field(default=None, repr=False)
    auth_password: Secret | None = Field(default=None, repr=False)

    def uses(self) -> Iterator[Use]:
        if self.carrier is not None:
            yield "carriers", self.carrier

    @model_validator(mode="after")
    def _as_the_settings_have_it(self) -> "Trunk":
        if given := sorted({"password", "auth_password"} & self.settings.keys()):
            raise contradiction(f"settings.{given[0]}", "", f"{given[0]} beside settings, where it is sealed")
        standing_in = {
            secret: "x"
            for secret, user in (("password", "username"), ("auth_password", "auth_username"))
            if user in self.settings
        }
        try:
            SipTrunk.model_validate({**self.settings, **standing_in})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, ("settings", *first["loc"], *filter(None, [first.get("ctx", {}).get("key")]))))
            raise contradiction(key, "", said(first)) from None
        return self


class Budget(Resource):
    """What calls may cost. All that apply to a call hold."""

    kind = "budgets"

    name: Name
    label: Label = ""
    scope: Literal["tenant", "number", "agent"]
    number: E164 | None = None
    """Of `number`: which; None: each."""
    agent: Name | None = None
    """Of `agent`: which; None: each."""
    per: Literal["call", "day"]
    """A day is one of UTC."""
    usd: Usd

    def uses(self) -> Iterator[Use]:
        if self.number is not None:
            yield "numbers", self.number
        if self.agent is not None:
            yield "agents", self.agent

    @model_validator(mode="after")
    def _of_its_scope(self) -> "Budget":
        for scope in ("number", "agent"):
            if getattr(self, scope) is not None and self.scope != scope:
                raise contradiction(scope, getattr(self, scope), f"needs scope = {scope}")
        return self


class Tenant(Resource):
    """What holds for all numbers of a tenant. There is one, named `tenant`."""

    kind = "tenant"

    name: Literal["tenant"] = "tenant"
    label: Label = ""
    zone: Zone = "UTC"
    """Of reports."""
    countries: Annotated[tuple[Country, ...], Field(max_length=250)] = ()
    """That its numbers may be of, and whose callers may reach them. None: all."""
    max_calls: Annotated[int, Field(ge=1, le=100_000)] | None = None
    reserved_inbound: Annotated[int, Field(ge=0, le=99_999)] = 0
    fallback_number: E164 | None = None
    """Where callers go whom we cannot take, where neither number nor route says another."""
    outage: bool = False
    """The switch: no caller reaches an agent; all go to outage_number, or hear outage_text."""
    outage_number: E164 | None = None
    outage_text: Annotated[Text, Field(min_length=1)] = (
        "We are sorry, we cannot take your call now. Please call again later."
    )


KINDS: dict[str, type[Resource]] = {
    kind.kind: kind for kind in (Tenant, Carrier, Trunk, Hours, Agent, Route, Number, Budget)
}
"""In an order in which each is after what it uses."""
