"""What an account with a carrier can be asked for, and what its answers mean. Plain values; the wire is the gateway's.

The one question that matters of an answer to an order is: has it happened? 4xx: no. A connection that never was: no. A
lost answer, a stall, 5xx: nobody knows. What costs money is not ordered again then, but looked for (`owning.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

from trunkline.types import E164

NumberKind = Literal["local", "mobile", "toll_free"]
Capability = Literal["voice", "sms", "mms", "fax"]
AddressRequired = Literal["none", "any", "local", "foreign"]
"""What address of the buyer's must be on file with the carrier; `local`: one in the number's country."""

UNAUTHORIZED = 401
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Certainly nothing happened."""

    status: int
    """HTTP; 0: the carrier was not reached."""
    code: int | None
    """The carrier's own; Twilio's: https://www.twilio.com/docs/api/errors"""
    why: str
    retry_after_s: float | None = None

    @property
    def unauthorized(self) -> bool:
        return self.status == UNAUTHORIZED

    @property
    def unreached(self) -> bool:
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened."""

    why: str


@dataclass(frozen=True, slots=True)
class Search:
    country: str
    """Two letters."""
    kind: NumberKind = "local"
    area_code: str = ""
    """United States and Canada."""
    contains: str = ""
    """Digits or letters; * is any one of them, % any few, a + at the beginning the number's begin, a $ its end."""
    capabilities: frozenset[Capability] = frozenset({"voice"})
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Available:
    """A number that can be bought."""

    number: E164
    country: str
    kind: NumberKind
    capabilities: frozenset[Capability]
    locality: str = ""
    region: str = ""
    address_required: AddressRequired = "none"
    beta: bool = False
    """New to the carrier."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a month."""

    currency: str
    """In capitals."""
    by_kind: Mapping[NumberKind, Decimal]


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where the carrier is to ask what to do with a call."""

    voice_url: str
    status_url: str
    fallback_url: str
    """Asked when voice_url fails."""


@dataclass(frozen=True, slots=True)
class Owned:
    id: str
    """The carrier's: of Twilio's PN and 32 hex digits."""
    number: E164
    label: str = ""
    capabilities: frozenset[Capability] = frozenset()
    voice_url: str = ""
    voice_method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    status_url: str = ""
    status_method: str = "POST"
    trunk_id: str = ""
    """Of Twilio's SIP trunk that calls go to; the URLs above are then asked nothing."""
    application_id: str = ""
    """Of Twilio's application; its URLs are asked then."""
    receives: Literal["voice", "fax"] = "voice"


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order says besides the number."""

    label: str = ""
    pointing: Pointing | None = None
    address_id: str = ""
    """Of Twilio's AD..., where an address is required."""
    bundle_id: str = ""
    """Of Twilio's BU..., where a country's regulation wants papers."""


@dataclass(frozen=True, slots=True)
class Released:
    number_id: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All of an account's numbers, or the first `limit`."""

    numbers: Sequence[Owned] = field(default_factory=tuple)
    complete: bool = True


class NumberAccount(Protocol):
    """Every method answers within half a minute; none raises but when cancelled."""

    async def available(self, search: Search) -> Sequence[Available] | NotTaken | Unknown: ...

    async def prices(self, country: str) -> Prices | NotTaken | Unknown: ...

    async def owned(self, limit: int) -> Listing | NotTaken | Unknown: ...

    async def find(self, number: E164) -> Owned | NotTaken | Unknown | None:
        """None: the account does not have it."""
        ...

    async def buy(self, number: E164, terms: Terms) -> Owned | NotTaken | Unknown:
        """Costs money, is sent once, and is not idempotent: call `owning.acquire`."""
        ...

    async def point(self, number_id: str, pointing: Pointing, *, detach: bool) -> Owned | NotTaken | Unknown:
        """Idempotent. `detach`: also away from a trunk or an application."""
        ...

    async def release(self, number_id: str) -> Released | NotTaken | Unknown:
        """Idempotent: one that the account does not have counts as released."""
        ...
