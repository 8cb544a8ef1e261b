"""Twilio's REST API by its own package: the only file that imports its client (half a second, so at start and only
where there is an account). https://www.twilio.com/docs/usage/api

The package builds the requests and reads the answers; the HTTP below it is httpx, because its own clients either block
or know no time limit, and neither shows the headers of an error (Retry-After). Nothing is repeated here.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from twilio.base.exceptions import TwilioException  # type: ignore[import-untyped]
from twilio.http import AsyncHttpClient  # type: ignore[import-untyped]
from twilio.http.response import Response  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

from trunkline.clock import Clock
from trunkline.gateway.twilio.account import CallOrder, Listed, NotTaken, Taken, Unknown
from trunkline.types import E164, CallSid

log = logging.getLogger("trunkline.twilio")

CONNECT_S = 5.0
ANSWER_S = 28.0  # Twilio's API has been seen to stall for 20 s and then to do as told
MAX_CONNECTIONS = 64  # twice the orders that may be under way: hanging up must not wait for those that stall
MAX_LISTED = 20
MAX_WHY_CHARS = 300
STATUS_EVENTS = ["initiated", "ringing", "answered", "completed"]
OVER = {20404, 21220}  # no such call; it is not in progress
_CALL_SID = re.compile(r"CA[0-9a-f]{32}")
_NO_ENVIRONMENT = {"TWILIO": "our settings only"}  # an empty one would make the package read the process's

_T = TypeVar("_T")


class TwilioRest:
    """account.Account; `numbers.py` asks the rest of the API through it."""

    def __init__(
        self,
        account_sid: str,
        login: tuple[str, str],
        clock: Clock,
        *,
        region: str | None = None,
        edge: str | None = None,
        api_url: str | None = None,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._account_sid, self._login, self._clock = account_sid, login, clock
        self._region, self._edge, self._api_url, self._answer_s = region, edge, api_url, answer_s
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(answer_s, connect=CONNECT_S, pool=CONNECT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            trust_env=False,
            verify=not (api_url or "").startswith("http:"),  # half a second of reading certificates
        )

    async def create(self, order: CallOrder) -> Taken | NotTaken | Unknown:
        detection: dict[str, Any] = {}
        if order.machine_detection:
            detection = {
                "machine_detection": order.machine_detection,
                "async_amd": "true",  # else nobody speaks to a person for seconds
                "async_amd_status_callback": order.machine_callback,
                "async_amd_status_callback_method": "POST",
            }

        async def work(client: Any) -> Taken | Unknown:
            call = await client.calls.create_async(
                to=order.to_number,
                from_=order.from_number,
                url=order.url,
                method="POST",
                status_callback=order.status_callback,
                status_callback_event=STATUS_EVENTS,
                status_callback_method="POST",
                timeout=order.ring_s,
                time_limit=order.limit_s,
                **detection,
            )
            return _taken(call.sid)

        return await self.ask(work)

    async def recent(self, to_number: E164, from_number: E164) -> Sequence[Listed] | NotTaken | Unknown:
        async def work(client: Any) -> Sequence[Listed]:
            calls = await client.calls.list_async(
                to=to_number, from_=from_number, limit=MAX_LISTED, page_size=MAX_LISTED
            )
            return [_listed(call) for call in calls if _CALL_SID.fullmatch(str(call.sid))]

        return await self.ask(work)

    async def requested(self, call_sid: CallSid) -> Sequence[str] | NotTaken | Unknown:
        async def work(client: Any) -> Sequence[str]:
            events = await client.calls(call_sid).events.list_async(limit=MAX_LISTED, page_size=MAX_LISTED)
            return [str((event.request or {}).get("url", "")) for event in events]

        return await self.ask(work)

    async def end(self, call_sid: CallSid) -> Taken | NotTaken | Unknown:
        async def work(client: Any) -> Taken | Unknown:
            # `completed` ends a ringing call as well; `canceled` would miss one that is answered meanwhile.
            call = await client.calls(call_sid).update_async(status="completed")
            return _taken(call.sid)

        answer = await self.ask(work)
        return Taken(call_sid) if isinstance(answer, NotTaken) and answer.code in OVER else answer

    async def check(self) -> NotTaken | Unknown | None:
        async def work(client: Any) -> None:
            # Not the account itself, which API keys may not read.
            await client.calls.list_async(limit=1, page_size=1)

        return await self.ask(work)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, work: Callable[[Any], Awaitable[_T]]) -> _T | NotTaken | Unknown:
        """`work` gets the package's client, for one request or the pages of a list. Nothing is repeated."""
        exchange = _Exchange(self._http, self._api_url)
        client = Client(
            *self._login,
            account_sid=self._account_sid,
            region=self._region,
            edge=self._edge,
            http_client=exchange,
            environment=_NO_ENVIRONMENT,
        )
        try:
            async with asyncio.timeout(self._answer_s):  # httpx counts from byte to byte
                return await work(client)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotTaken(0, None, type(error).__name__)
        except (httpx.HTTPError, TimeoutError) as error:
            return Unknown(f"no answer ({type(error).__name__})")
        except (TwilioException, ValueError, KeyError, TypeError, AttributeError) as error:
            return _refused(exchange.response, error, self._clock.wall())


class _Exchange(AsyncHttpClient):  # type: ignore[misc]
    """One request: keeps the answer, whatever the package makes of it."""

    def __init__(self, http: httpx.AsyncClient, api_url: str | None) -> None:
        super().__init__(log, True)
        self._http, self._api_url = http, api_url
        self.response: httpx.Response | None = None

    async def request(
        self,
        method: str,
        uri: str,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Any:
        url = _at(uri, self._api_url) if self._api_url else uri
        self.response = response = await self._http.request(
            method,
            url,
            params=dict(params) if params else None,  # empty ones would take the place of the URL's: of a next page
            data=dict(data or {}),
            headers=dict(headers or {}),
            auth=auth,
        )
        log.debug("> %s %s: %d", method, urlsplit(url).path, response.status_code)
        return Response(response.status_code, response.text, response.headers)


def _at(url: str, origin: str) -> str:
    parts, there = urlsplit(url), urlsplit(origin)
    return urlunsplit((there.scheme, there.netloc, parts.path, parts.query, ""))


def _taken(sid: Any) -> Taken | Unknown:
    if isinstance(sid, str) and _CALL_SID.fullmatch(sid):
        return Taken(CallSid(sid))
    return Unknown("an answer without a CallSid")


def _listed(call: Any) -> Listed:
    created = call.date_created if isinstance(call.date_created, datetime) else datetime.min
    return Listed(CallSid(call.sid), created.replace(tzinfo=UTC), call.direction == "outbound-api")


def _refused(response: httpx.Response | None, error: Exception, now: datetime) -> NotTaken | Unknown:
    if response is None:
        return Unknown(f"{type(error).__name__} before an answer")
    status = response.status_code
    if status < 300 or status == 408 or status >= 500:
        return Unknown(f"HTTP {status}")
    said = _error_of(response)  # the package keeps nothing of it where a list is refused
    code = getattr(error, "code", None) or said.get("code")
    why = str(getattr(error, "msg", "") or getattr(error, "title", "") or said.get("message") or f"HTTP {status}")
    why = re.sub(r"^Unable to \w+ record: ", "", why)[:MAX_WHY_CHARS]
    after_s = _retry_after_s(response.headers.get("Retry-After", ""), now)
    return NotTaken(status, code if isinstance(code, int) else None, why, after_s)


def _error_of(response: httpx.Response) -> Mapping[str, Any]:
    try:
        said = response.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _retry_after_s(text: str, now: datetime) -> float | None:
    """RFC 9110 10.2.3: seconds, or a date."""
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None
