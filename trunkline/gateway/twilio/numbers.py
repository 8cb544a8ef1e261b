"""An account's phone numbers over Twilio's REST API, through rest.py: search, buy, list, point, release.

https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource,
https://www.twilio.com/docs/phone-numbers/api/availablephonenumber-resource,
https://www.twilio.com/docs/phone-numbers/pricing. A number's URLs are of a region: what is set here counts for calls
that Twilio handles in `twilio.region`.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, cast, get_args

from trunkline.gateway.twilio.rest import TwilioRest
from trunkline.numbers.carriers.account import (
    AddressRequired,
    Available,
    Capability,
    Listing,
    NotTaken,
    NumberKind,
    Owned,
    Pointing,
    Prices,
    Released,
    Search,
    Terms,
    Unknown,
)
from trunkline.types import E164

PAGE = 1000  # Twilio's largest
MAX_SEARCHED = 100
NO_SUCH = 404
_SID = re.compile(r"PN[0-9a-f]{32}")
_KINDS: dict[str, NumberKind] = {"local": "local", "mobile": "mobile", "toll free": "toll_free"}
"""As the price list names them."""


class TwilioNumbers:
    """numbers.carriers.account.NumberAccount."""

    def __init__(self, rest: TwilioRest) -> None:
        """`rest` stays its owner's to close."""
        self._rest = rest

    async def available(self, search: Search) -> Sequence[Available] | NotTaken | Unknown:
        limit = min(search.limit, MAX_SEARCHED)
        asked: dict[str, Any] = {f"{name}_enabled": True for name in search.capabilities}
        if search.area_code:
            asked["area_code"] = int(search.area_code)
        if search.contains:
            asked["contains"] = search.contains

        async def work(client: Any) -> Sequence[Available]:
            shelf = getattr(client.available_phone_numbers(search.country), search.kind)
            found = await shelf.list_async(**asked, limit=limit, page_size=limit)
            return [_available(each, search.kind) for each in found]

        return await self._rest.ask(work)

    async def prices(self, country: str) -> Prices | NotTaken | Unknown:
        async def work(client: Any) -> Prices:
            found = await client.pricing.v1.phone_numbers.countries(country).fetch_async()
            return _prices(found)

        return await self._rest.ask(work)

    async def owned(self, limit: int) -> Listing | NotTaken | Unknown:
        async def work(client: Any) -> Listing:
            found = await client.incoming_phone_numbers.list_async(limit=limit + 1, page_size=min(limit + 1, PAGE))
            return Listing([_owned(each) for each in found[:limit]], len(found) <= limit)

        return await self._rest.ask(work)

    async def find(self, number: E164) -> Owned | NotTaken | Unknown | None:
        async def work(client: Any) -> Owned | None:
            # Twilio takes it for a part of a number.
            found = await client.incoming_phone_numbers.list_async(phone_number=number, limit=PAGE, page_size=50)
            return next((_owned(each) for each in found if each.phone_number == number), None)

        return await self._rest.ask(work)

    async def buy(self, number: E164, terms: Terms) -> Owned | NotTaken | Unknown:
        asked: dict[str, str] = {"phone_number": number}
        if terms.pointing is not None:
            asked |= _urls(terms.pointing)
        named = {"friendly_name": terms.label[:64], "address_sid": terms.address_id, "bundle_sid": terms.bundle_id}
        asked |= {name: value for name, value in named.items() if value}

        async def work(client: Any) -> Owned:
            return _owned(await client.incoming_phone_numbers.create_async(**asked))

        return await self._rest.ask(work)

    async def point(self, number_id: str, pointing: Pointing, *, detach: bool) -> Owned | NotTaken | Unknown:
        asked = _urls(pointing) | {"voice_receive_mode": "voice"}
        if detach:
            asked |= {"trunk_sid": "", "voice_application_sid": ""}

        async def work(client: Any) -> Owned:
            return _owned(await client.incoming_phone_numbers(number_id).update_async(**asked))

        return await self._rest.ask(work)

    async def release(self, number_id: str) -> Released | NotTaken | Unknown:
        async def work(client: Any) -> Released:
            await client.incoming_phone_numbers(number_id).delete_async()
            return Released(number_id)

        answer = await self._rest.ask(work)
        return Released(number_id) if isinstance(answer, NotTaken) and answer.status == NO_SUCH else answer


def _urls(pointing: Pointing) -> dict[str, str]:
    return {
        "voice_url": pointing.voice_url,
        "voice_method": "POST",
        "voice_fallback_url": pointing.fallback_url,
        "voice_fallback_method": "POST",
        "status_callback": pointing.status_url,
        "status_callback_method": "POST",
    }


def _owned(found: Any) -> Owned:
    """Raises ValueError for what is no number's resource."""
    if not _SID.fullmatch(str(found.sid)) or not str(found.phone_number).startswith("+"):
        raise ValueError("an answer without a number")
    return Owned(
        found.sid,
        E164(found.phone_number),
        found.friendly_name or "",
        _capabilities(found.capabilities),
        found.voice_url or "",
        found.voice_method or "POST",
        found.voice_fallback_url or "",
        found.voice_fallback_method or "POST",
        found.status_callback or "",
        found.status_callback_method or "POST",
        found.trunk_sid or "",
        found.voice_application_sid or "",
        "fax" if found.voice_receive_mode == "fax" else "voice",
    )


def _available(found: Any, kind: NumberKind) -> Available:
    required = found.address_requirements
    return Available(
        E164(str(found.phone_number)),
        found.iso_country or "",
        kind,
        _capabilities(found.capabilities),
        found.locality or "",
        found.region or "",
        cast(AddressRequired, required) if required in get_args(AddressRequired) else "none",
        bool(found.beta),
    )


def _capabilities(found: Any) -> frozenset[Capability]:
    """Twilio writes `sms` here and `SMS` there."""
    given = {str(name).lower() for name, has in (found or {}).items() if has}
    return frozenset(name for name in get_args(Capability) if name in given)


def _prices(found: Any) -> Prices:
    prices: dict[NumberKind, Decimal] = {}
    for row in found.phone_number_prices or ():
        kind = _KINDS.get(str(row.get("number_type", "")).lower())
        try:
            if kind is not None:
                prices[kind] = Decimal(str(row.get("current_price") or row["base_price"]))
        except (InvalidOperation, KeyError):
            continue
    return Prices(str(found.price_unit or "").upper(), prices)
