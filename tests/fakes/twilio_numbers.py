"""Phone numbers as Twilio's REST API has them: what can be bought, what the account has, and what numbers cost.

    shelf = Shelf("AC...")
    shelf.stock("+14155550100")
    shelf.trouble.append(Trouble("stall"))      # becomes of the next POST or DELETE of a number
    shelf.answer(method, path, query, form) -> Reply | None

Shapes after https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource,
https://www.twilio.com/docs/phone-numbers/api/availablephonenumber-resource and
https://www.twilio.com/docs/phone-numbers/pricing. Plain: `twilio_server.py` is the socket.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

Form = Mapping[str, list[str]]
NUMBER_FIELDS = {
    "PhoneNumber", "AreaCode", "FriendlyName", "VoiceUrl", "VoiceMethod", "VoiceFallbackUrl", "VoiceFallbackMethod",
    "StatusCallback", "StatusCallbackMethod", "VoiceReceiveMode", "TrunkSid", "VoiceApplicationSid", "AddressSid",
    "BundleSid",
}  # fmt: skip
_WRITABLE = {
    "FriendlyName": "friendly_name",
    "VoiceUrl": "voice_url",
    "VoiceMethod": "voice_method",
    "VoiceFallbackUrl": "voice_fallback_url",
    "VoiceFallbackMethod": "voice_fallback_method",
    "StatusCallback": "status_callback",
    "StatusCallbackMethod": "status_callback_method",
    "VoiceReceiveMode": "voice_receive_mode",
    "AddressSid": "address_sid",
    "BundleSid": "bundle_sid",
}
_KINDS = {"Local": "local", "TollFree": "toll free", "Mobile": "mobile"}


@dataclass(frozen=True)
class Reply:
    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stall_s: float = 0.0
    cut: bool = False
    """The answer breaks off in its middle."""


@dataclass(frozen=True)
class Trouble:
    """`done`: the order is carried out all the same."""

    kind: Literal["stall", "lost", "500", "refused"] = "lost"
    done: bool = True
    code: int = 0
    message: str = "no"
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Stocked:
    number: str
    country: str
    kind: str
    address_requirements: str = "none"
    bundle: bool = False
    sms: bool = True


class Shelf:
    def __init__(self, account_sid: str) -> None:
        self.account_sid = account_sid
        self.stocked: dict[str, Stocked] = {}
        self.owned: dict[str, dict[str, Any]] = {}
        """By sid."""
        self.bought: list[str] = []
        """Each time money was spent."""
        self.trouble: deque[Trouble] = deque()
        self.reads: deque[Trouble] = deque()
        """Of GETs."""
        self.trial = False
        self.page_size: int | None = None
        """Smaller pages than asked for."""
        self.prices: dict[str, dict[str, str]] = {"US": {"local": "1.15", "toll free": "2.15"}}
        self.unknown_fields: set[str] = set()

    def stock(self, *numbers: str, country: str = "US", kind: str = "Local", **more: Any) -> None:
        for number in numbers:
            self.stocked[number] = Stocked(number, country, kind, **more)

    def own(self, number: str, **resource: Any) -> dict[str, Any]:
        """As if bought in the console."""
        sid = f"PN{len(self.owned) + len(self.bought):032x}"
        self.owned[sid] = self._resource(sid, number) | resource
        return self.owned[sid]

    def number(self, number: str) -> dict[str, Any] | None:
        return next((each for each in self.owned.values() if each["phone_number"] == number), None)

    def answer(self, method: str, path: str, query: Form, form: Form) -> Reply | None:
        """None: none of ours."""
        if found := re.fullmatch(r"/v1/PhoneNumbers/Countries/([A-Z]{2})", path):
            return self._read(self._price(found[1], path))
        rest = path.removeprefix(f"/2010-04-01/Accounts/{self.account_sid}/")
        if found := re.fullmatch(r"AvailablePhoneNumbers/([A-Z]{2})/(Local|TollFree|Mobile)\.json", rest):
            return self._read(self._available(path, found[1], found[2], query))
        if rest == "IncomingPhoneNumbers.json":
            if method == "POST":
                return self._write(lambda: self._buy(form))
            return self._read(self._list(path, query))
        if found := re.fullmatch(r"IncomingPhoneNumbers/(PN[0-9a-f]{32})\.json", rest):
            if found[1] not in self.owned:
                return _missing(path)
            if method == "DELETE":
                return self._write(lambda: self._release(found[1]))
            if method == "POST":
                return self._write(lambda: self._update(found[1], form))
            return self._read(Reply(200, self.owned[found[1]]))
        return None

    # --- reads ---

    def _read(self, reply: Reply) -> Reply:
        return self._troubled(self.reads.popleft(), reply) if self.reads else reply

    def _available(self, path: str, country: str, kind: str, query: Form) -> Reply:
        stocked = [each for each in self.stocked.values() if each.country == country]
        if kind not in {each.kind for each in stocked}:
            return _missing(path)
        area, contains = query.get("AreaCode", [""])[0], query.get("Contains", [""])[0]
        pattern = re.escape(contains.removeprefix("+").removesuffix("$")).replace(r"\*", "[0-9]").replace("%", "[0-9]*")
        found = [
            each
            for each in stocked
            if each.kind == kind
            and each.number[2:].startswith(area)
            and re.search(("^" if contains.startswith("+") else "") + pattern, each.number.removeprefix("+"))
            and (query.get("SmsEnabled") != ["true"] or each.sms)
        ]
        size = int(query.get("PageSize", ["50"])[0])
        body = {"available_phone_numbers": [_shown(each) for each in found[:size]], "uri": f"{path}?PageSize={size}"}
        return Reply(200, body)

    def _list(self, path: str, query: Form) -> Reply:
        size, page = int(query.get("PageSize", ["50"])[0]), int(query.get("Page", ["0"])[0])
        size = min(size, self.page_size or size, 1000)
        asked = query.get("PhoneNumber", [""])[0]
        found = [each for each in self.owned.values() if asked.replace("*", "") in each["phone_number"]]
        shown = found[page * size : (page + 1) * size]
        kept = {"PhoneNumber": asked} if asked else {}

        def uri(page: int) -> str:
            token = {"PageToken": f"PAPN{page}"} if page else {}
            return f"{path}?{urlencode({**kept, 'PageSize': size, 'Page': page, **token}, quote_via=quote)}"

        body = {
            "incoming_phone_numbers": shown,
            "page": page,
            "page_size": size,
            "start": page * size,
            "end": page * size + len(shown) - 1,
            "uri": uri(page),
            "first_page_uri": uri(0),
            "previous_page_uri": uri(page - 1) if page else None,
            "next_page_uri": uri(page + 1) if len(found) > (page + 1) * size else None,
        }
        return Reply(200, body)

    def _price(self, country: str, path: str) -> Reply:
        if country not in self.prices:
            return _missing(path)
        prices = [
            {"number_type": kind, "base_price": price, "current_price": price}
            for kind, price in self.prices[country].items()
        ]
        url = f"https://pricing.twilio.com{path}"
        return Reply(
            200,
            {
                "country": country,
                "iso_country": country,
                "price_unit": "usd",
                "url": url,
                "phone_number_prices": prices,
            },
        )

    # --- orders ---

    def _write(self, order: Any) -> Reply:
        if not self.trouble:
            reply: Reply = order()
            return reply
        trouble = self.trouble.popleft()
        reply = order() if trouble.done and trouble.kind != "refused" else Reply(201, {})
        return self._troubled(trouble, reply)

    def _troubled(self, trouble: Trouble, reply: Reply) -> Reply:
        if trouble.kind == "refused":
            return error(trouble.status, trouble.code, trouble.message, trouble.headers)
        if trouble.kind == "500":
            return error(500, 20500, "An internal server error has occurred")
        if trouble.kind == "stall":
            return Reply(reply.status, reply.body, reply.headers, stall_s=60)
        return Reply(reply.status, reply.body, reply.headers, cut=True)

    def _buy(self, form: Form) -> Reply:
        self.unknown_fields |= set(form) - NUMBER_FIELDS
        asked = form.get("PhoneNumber", [""])[0]
        if not re.fullmatch(r"\+[1-9][0-9]{6,14}", asked):
            return error(400, 21421, f"{asked} is not a valid number")
        if self.trial and self.owned:
            why = "Trial accounts are allowed only one Twilio number. To purchase additional numbers, please upgrade."
            return error(400, 21404, why)
        stocked = self.stocked.get(asked)
        if stocked is None:
            return error(400, 21422, f"{asked} is not available.")
        if stocked.address_requirements != "none" and "AddressSid" not in form:
            why = f"Phone Number Requires an Address but the 'AddressSid' parameter was empty. ({asked})"
            return error(400, 21631, why)
        if stocked.bundle and "BundleSid" not in form:
            return error(400, 21649, "Bundle required and not provided")
        del self.stocked[asked]
        self.bought.append(asked)
        resource = self.own(asked)
        self._set(resource, form)
        return Reply(201, resource)

    def _update(self, sid: str, form: Form) -> Reply:
        self.unknown_fields |= set(form) - NUMBER_FIELDS
        self._set(self.owned[sid], form)
        return Reply(200, self.owned[sid])

    def _release(self, sid: str) -> Reply:
        del self.owned[sid]
        return Reply(204)

    @staticmethod
    def _set(resource: dict[str, Any], form: Form) -> None:
        for name, key in _WRITABLE.items():
            if name in form:
                resource[key] = form[name][0]
        # Each deletes the other: an application's sid a trunk's, and vice versa.
        trunk, application = form.get("TrunkSid", [None])[0], form.get("VoiceApplicationSid", [None])[0]
        if trunk is not None:
            resource["trunk_sid"] = trunk or None
        if application is not None:
            resource["voice_application_sid"] = application
        if trunk:
            resource["voice_application_sid"] = ""
        if application:
            resource["trunk_sid"] = None

    def _resource(self, sid: str, number: str) -> dict[str, Any]:
        uri = f"/2010-04-01/Accounts/{self.account_sid}/IncomingPhoneNumbers/{sid}"
        date = format_datetime(datetime(2026, 11, 22, tzinfo=UTC))
        return {
            "sid": sid, "account_sid": self.account_sid, "phone_number": number, "friendly_name": number,
            "api_version": "2010-04-01", "origin": "twilio", "beta": False, "status": "in-use", "type": "local",
            "address_requirements": "none", "address_sid": None, "bundle_sid": None, "identity_sid": None,
            "capabilities": {"voice": True, "sms": True, "mms": True, "fax": False},
            "date_created": date, "date_updated": date, "emergency_status": "Active", "emergency_address_sid": None,
            "emergency_address_status": "unregistered", "sms_application_sid": "", "sms_fallback_method": "POST",
            "sms_fallback_url": "", "sms_method": "POST", "sms_url": "", "status_callback": "",
            "status_callback_method": "POST", "trunk_sid": None, "voice_application_sid": "",
            "voice_caller_id_lookup": False, "voice_fallback_method": "POST", "voice_fallback_url": "",
            "voice_method": "POST", "voice_receive_mode": "voice",
            "voice_url": "https://demo.twilio.com/welcome/voice/", "uri": uri + ".json",
            "subresource_uris": {"assigned_add_ons": uri + "/AssignedAddOns.json"},
        }  # fmt: skip


def _shown(each: Stocked) -> dict[str, Any]:
    return {
        "phone_number": each.number, "friendly_name": each.number, "iso_country": each.country, "beta": False,
        "locality": "San Francisco", "region": "CA", "rate_center": "SNFC CNTRL", "lata": "722", "postal_code": "94102",
        "latitude": "37.780000", "longitude": "-122.420000", "address_requirements": each.address_requirements,
        "capabilities": {"voice": True, "SMS": each.sms, "MMS": each.sms, "fax": False},
    }  # fmt: skip


def _missing(path: str) -> Reply:
    return error(404, 20404, f"The requested resource {path} was not found")


def error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": message, "more_info": more_info, "status": status}
    return Reply(status, body, dict(headers or {}))
