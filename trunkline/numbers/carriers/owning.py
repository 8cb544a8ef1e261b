"""Buying, pointing and releasing numbers with care: a number is never bought twice, and never torn from what uses it.

An order to buy is sent once. When its answer is lost, the account's own list is asked whether the number has come; when
that cannot say either, the outcome is Unclear, and the next `acquire` of the same number begins with the same look.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from trunkline.numbers.carriers.account import (
    TOO_MANY,
    NotTaken,
    NumberAccount,
    Owned,
    Pointing,
    Released,
    Search,
    Terms,
    Unknown,
)
from trunkline.types import E164

LOOKS_AFTER_S = (1.0, 3.0, 10.0)
"""A lost order has been seen to be done seconds later."""

VOICE_PATH, STATUS_PATH = "/twilio/voice", "/twilio/status"


@dataclass(frozen=True, slots=True)
class Acquired:
    owned: Owned
    bought: bool
    """False: it was the account's already, and nothing was spent."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing happened. `remedy` is for the admin."""

    why: str
    remedy: str = ""
    answer: NotTaken | None = None


@dataclass(frozen=True, slots=True)
class Unclear:
    """It may have happened."""

    why: str
    remedy: str


Sleep = Callable[[float], Awaitable[None]]


async def acquire(
    account: NumberAccount, number: E164, terms: Terms, sleep: Sleep = asyncio.sleep
) -> Acquired | Failed | Unclear:
    """Cancelled, it may have been bought: `find` says."""
    before = await account.find(number)
    if isinstance(before, Owned):
        return Acquired(before, bought=False)
    if isinstance(before, NotTaken):
        return failed(before, f"nothing was ordered: {number} could not be looked for first")
    if isinstance(before, Unknown):
        remedy = "nothing was ordered; try again"
        return Failed(f"Twilio did not say whether {number} is yours already ({before.why})", remedy)
    answer = await account.buy(number, terms)
    if isinstance(answer, Owned):
        return Acquired(answer, bought=True)
    if isinstance(answer, NotTaken):
        # Somebody else of this account may have been first.
        taken = await account.find(number) if answer.code == NOT_AVAILABLE else None
        return Acquired(taken, bought=False) if isinstance(taken, Owned) else failed(answer, f"{number} was not bought")
    for wait_s in LOOKS_AFTER_S:
        await sleep(wait_s)
        found = await account.find(number)
        if isinstance(found, Owned):
            return Acquired(found, bought=True)
    return Unclear(
        f"the order of {number} had no answer ({answer.why}), and it is not among your numbers yet",
        f"look with: trunkline numbers owned {number}; order it again only when it is not there after a minute",
    )


def pointing(origin: str) -> Pointing:
    """`origin`: http.public_url. The fallback is the same URL: it is asked again when it failed, and a gateway that is
    full or stopping answers it with `twilio.fallback_number`."""
    voice = origin.rstrip("/") + VOICE_PATH
    return Pointing(voice, origin.rstrip("/") + STATUS_PATH, voice)


async def point(
    account: NumberAccount, number: E164, wanted: Pointing, *, detach: bool = False
) -> Owned | Failed | Unclear:
    """Without `detach` a number that goes to a SIP trunk or an application stays there: Failed says so."""
    owned = await account.find(number)
    if isinstance(owned, NotTaken):
        return failed(owned, f"{number} was not pointed")
    if isinstance(owned, Unknown):
        return Unclear(f"Twilio did not answer ({owned.why})", "try again: pointing twice does no harm")
    if owned is None:
        return Failed(f"{number} is no number of this account", "buy it, or look at twilio.account_sid")
    if (held := holder(owned)) and not detach:
        return Failed(f"{number} goes to {held}, which would be cut off", f"to do it all the same: --detach ({held})")
    if not mispointed(owned, wanted):
        return owned
    answer = await account.point(owned.id, wanted, detach=bool(held))
    if isinstance(answer, NotTaken):
        return failed(answer, f"{number} was not pointed")
    if isinstance(answer, Unknown):
        return Unclear(f"Twilio did not answer ({answer.why})", "try again: pointing twice does no harm")
    return answer


async def release(account: NumberAccount, number: E164) -> Released | Failed | Unclear:
    """It is gone for good: whoever wants it may buy it. Idempotent."""
    owned = await account.find(number)
    if isinstance(owned, NotTaken):
        return failed(owned, f"{number} was not released")
    if isinstance(owned, Unknown):
        return Unclear(f"Twilio did not answer ({owned.why})", "nothing was released; try again")
    if owned is None:
        return Released("")
    answer = await account.release(owned.id)
    if isinstance(answer, NotTaken):
        return failed(answer, f"{number} was not released")
    if isinstance(answer, Unknown):
        return Unclear(
            f"the release of {number} had no answer ({answer.why})", f"look with: trunkline numbers owned {number}"
        )
    return answer


# --- what stands in the way -----------------------------------------------------------------------------------------


def holder(owned: Owned) -> str:
    """What a call goes to before our URLs are asked; empty: nothing.
    https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource: voice URLs are ignored where a trunk or
    an application is set."""
    if owned.trunk_id:
        return f"the SIP trunk {owned.trunk_id}"
    return f"the application {owned.application_id}" if owned.application_id else ""


def mispointed(owned: Owned, wanted: Pointing) -> list[str]:
    """Each a line: what is not as it is to be. Empty: calls come to us."""
    wrong = []
    if held := holder(owned):
        wrong.append(f"calls go to {held}, and the voice URL is ignored")
    if owned.receives == "fax":
        wrong.append("it is set to receive faxes")
    asked = (
        ("voice URL", owned.voice_url, owned.voice_method, wanted.voice_url),
        ("status callback", owned.status_url, owned.status_method, wanted.status_url),
        ("fallback URL", owned.fallback_url, owned.fallback_method, wanted.fallback_url),
    )
    for name, url, method, right in asked:
        if not same_url(url, right):
            wrong.append(f"its {name} is {url or 'not set'}, and should be {right}")
        elif method.upper() != "POST":
            wrong.append(f"its {name} is asked by {method}, and should be by POST")
    return wrong


def same_url(one: str, other: str) -> bool:
    """Host and scheme in any case; the port that goes without saying."""
    return _normal(one) == _normal(other)


def _normal(url: str) -> tuple[str, str, int | None, str, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        return parts.scheme, parts.hostname or "", port, parts.path, parts.query
    except ValueError:
        return "", url, None, "", ""


# --- what refusals mean ---------------------------------------------------------------------------------------------

NOT_AVAILABLE = 21422
_REMEDIES: dict[int, str] = {
    # https://www.twilio.com/docs/api/errors
    20003: "see twilio.account_sid, api_key_sid and auth_token (an API key may be a restricted one)",
    20404: "see twilio.account_sid, and whether Twilio has such numbers in that country",
    21404: "a trial account has one number: upgrade it",
    21421: "write it as +COUNTRY NUMBER",
    NOT_AVAILABLE: "somebody else has it: search again",
    21613: "an address must be on file: --address AD... (Twilio console, Phone Numbers, Addresses)",
    21631: "an address must be on file: --address AD... (Twilio console, Phone Numbers, Addresses)",
    21649: "the country's regulation wants papers: --bundle BU... (Twilio console, Regulatory Compliance)",
}


def failed(answer: NotTaken, what: str) -> Failed:
    if answer.unreached:
        return Failed(f"{what}: Twilio cannot be reached ({answer.why})", "look at the network", answer)
    code = f" (Twilio's {answer.code})" if answer.code else f" (HTTP {answer.status})"
    remedy = _REMEDIES.get(answer.code or 0, "")
    if not remedy and answer.unauthorized:
        remedy = _REMEDIES[20003]
    if answer.status == TOO_MANY:
        remedy = f"wait {answer.retry_after_s:.0f} s" if answer.retry_after_s else "wait, and try again"
    if not remedy and answer.code:
        remedy = f"https://www.twilio.com/docs/errors/{answer.code}"
    return Failed(f"{what}: {answer.why}{code}", remedy, answer)


def unfit(search: Search) -> str:
    """What is wrong with it before anybody is asked; empty: nothing."""
    if search.area_code and not (len(search.area_code) == 3 and search.area_code.isdigit()):
        return f"area code {search.area_code!r}: three digits"
    if search.area_code and search.country not in ("US", "CA"):
        return f"area code {search.area_code!r}: only in the United States and Canada; elsewhere use contains"
    # https://www.twilio.com/docs/phone-numbers/api/availablephonenumberlocal-resource: 2 to 16, two of them no wildcard
    contains = search.contains
    if contains and not (
        len(contains) <= 16
        and re.fullmatch(r"\+?[A-Za-z0-9*%]+\$?", contains, re.ASCII)
        and len(re.sub(r"[^A-Za-z0-9]", "", contains)) >= 2
    ):
        return f"contains {contains!r}: 2 to 16 digits or letters; * is any one of them, + the beginning, $ the end"
    return ""
