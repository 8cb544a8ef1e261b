"""A local server that speaks Twilio's REST API for calls and phone numbers, and behaves as Twilio does once it has a
call: callbacks signed for our webhooks, the voice URL asked when somebody answers, the media stream opened, <Dial>
tried, the end told.

    async with TwilioServer(account_sid, {sid: secret}, auth_token) as twilio:
        twilio.fates.append(Fate("busy"))
        ... twilio.origin ... twilio.created ... twilio.requests
        caller = twilio.rings(gateway.origin, Fate(live=True))
        ... caller.do(Keys("1")) ... caller.heard

Shapes are those of https://www.twilio.com/docs/voice/api/call-resource. Each POST of a call takes the next fate.
"""

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import chain
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.fakes.twilio_numbers import Shelf
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import PeerError
from trunkline.testing.caller.client import run_line
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.phone import Phone, new_call_sid
from trunkline.testing.caller.script import Action, HangUp, Listen, Pause
from trunkline.testing.caller.speech import MixingMouth, Speech
from trunkline.testing.caller.webhook import CallFields, Dial, Verb, Webhook

Form = Mapping[str, list[str]]
FINAL = {"completed", "busy", "failed", "no-answer", "canceled"}
FIELDS = {
    "To", "From", "Url", "Method", "StatusCallback", "StatusCallbackEvent", "StatusCallbackMethod", "Timeout",
    "TimeLimit", "MachineDetection", "AsyncAmd", "AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod",
}  # fmt: skip
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True)
class Refusal:
    """The order is answered so, and nothing is created."""

    status: int
    code: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fate:
    """What becomes of an order. `rest`: of its answer; but for a Refusal there is a call all the same, unless
    `created` is False."""

    end: Literal["answer", "busy", "no-answer", "failed", "ring"] = "answer"
    rest: Literal["ok", "lost", "500", "garbage"] | Refusal = "ok"
    stall_s: float = 0.0
    """Before the answer; the call goes on meanwhile."""
    created: bool = True
    answered_by: str = ""
    """human, machine_start...: what machine detection says."""
    actions: Sequence[Action] = (Listen(), HangUp())
    """Of whoever answers."""
    live: bool = False
    """Afterwards the person stays, and does what FakeCall.do() says."""
    ring_s: float = 0.05
    callbacks: bool = True
    """Whether status callbacks reach us."""
    sip_status: int | None = None
    error: int | None = None
    dial: Sequence[str] = ()
    """How each <Dial> goes: DialCallStatus."""


@dataclass
class Request:
    method: str
    path: str
    query: Form
    form: Form
    headers: Mapping[str, str]


@dataclass
class FakeCall:
    sid: str
    form: Form
    fate: Fate
    created: datetime
    status: str = "queued"
    told: list[str] = field(default_factory=list)
    """Statuses, as the callbacks had them."""
    requested: list[str] = field(default_factory=list)
    dials: list[Dial] = field(default_factory=list)
    phone: "Phone | None" = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Over REST."""
    direction: Literal["inbound", "outbound-api"] = "outbound-api"
    says: bytes = b""
    """A frame of mu-law: what the person sounds like all the time."""
    to_do: deque[Action] = field(default_factory=deque)

    def first(self, name: str) -> str:
        return self.form.get(name, [""])[0]

    def do(self, *actions: Action) -> None:
        self.to_do.extend(actions)

    @property
    def heard(self) -> list[bytes]:
        """Frames of mu-law, one every 20 ms of the current stream."""
        lines = self.phone.lines if self.phone is not None else []
        return lines[-1].carrier.heard if lines else []

    def drop(self) -> None:
        """Its socket is closed on the way, without a stop: Twilio asks what next."""
        assert self.phone is not None
        self.phone.lines[-1].closed(SYSTEM_CLOCK.now(), clean=False)

    @property
    def connected(self) -> bool:
        """Its stream has begun."""
        return self.phone is not None and bool(self.phone.lines)

    def acts(self, actions: Iterable[Action]) -> Iterator[Action]:
        yield from actions
        while self.fate.live:
            yield self.to_do.popleft() if self.to_do else Pause(20)


class _Mouth:
    """What the call's person says at any time, over the speech of the script."""

    def __init__(self, call: FakeCall) -> None:
        self._call, self._mouth = call, MixingMouth()

    def frame(self, speech: Speech | None, index: int, heard: Sequence[bytes]) -> bytes:
        if speech is None and self._call.says:
            return b64encode(self._call.says)
        return self._mouth.frame(speech, index, heard)


class _Noting(Webhook):
    """Every request made of a call stands in its Events."""

    call: FakeCall

    async def post(self, url: str, form: Mapping[str, str]) -> str:
        self.call.requested.append(url)
        return await super().post(url, form)


class _Callee(Phone):
    """Whoever is called, with <Dial> followed."""

    call_of_ours: FakeCall
    dial_fates: list[str]

    async def _fetch(self, url: str, status: str, **more: str) -> None:
        ours = self.call_of_ours.direction == "outbound-api"
        await super()._fetch(url, "in-progress" if status == "ringing" and ours else status, **more)

    async def _do(self, verb: Verb) -> bool:
        if not isinstance(verb, Dial):
            return await super()._do(verb)
        self.call_of_ours.dials.append(verb)
        outcome = self.dial_fates.pop(0) if self.dial_fates else "busy"
        if outcome == "for ever":
            await self.call_of_ours.hung_up.wait()
            self.report.end = "hung_up"
            return False
        await self._fetch(verb.action, "in-progress", DialCallStatus=outcome, DialCallSid=new_call_sid())
        return True


class TwilioServer:
    def __init__(
        self, account_sid: str, logins: Mapping[str, str], auth_token: str, numbers: Sequence[str] = ()
    ) -> None:
        """`logins`: user and password of Basic authentication. `numbers`: those the account may call from, or any."""
        self.account_sid, self.logins, self.auth_token, self.numbers = account_sid, dict(logins), auth_token, numbers
        self.fates: deque[Fate] = deque()
        self.fates_of: dict[str, Fate] = {}
        """By called number; these come first."""
        self.requests: list[Request] = []
        self.calls: dict[str, FakeCall] = {}
        self.unknown_fields: set[str] = set()
        self.shelf = Shelf(account_sid)
        """Numbers to buy, and those of the account."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._http = httpx.AsyncClient(trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._http is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    @property
    def origin(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def created(self) -> list[FakeCall]:
        """By orders."""
        return [call for call in self.calls.values() if call.direction == "outbound-api"]

    def orders(self) -> list[Request]:
        return [r for r in self.requests if r.method == "POST" and r.path.endswith("/Calls.json")]

    def endings(self) -> list[Request]:
        return [r for r in self.requests if r.method == "POST" and "/Calls/" in r.path]

    # --- HTTP -------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader)
            self.requests.append(request)
            async for chunk in self._answer(request):
                writer.write(chunk)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Request) -> AsyncIterator[bytes]:
        if (refused := self._unauthorized(request)) is not None:
            yield refused
            return
        if (reply := self.shelf.answer(request.method, request.path, request.query, request.form)) is not None:
            await asyncio.sleep(reply.stall_s)
            answer = _json(reply.status, reply.body, reply.headers)
            yield answer[: len(answer) // 2] if reply.cut else answer
            return
        rest = request.path.removeprefix(f"/2010-04-01/Accounts/{self.account_sid}/")
        if rest == request.path:
            yield _error(404, 20404, f"The requested resource {request.path} was not found")
        elif rest == "Calls.json" and request.method == "POST":
            async for chunk in self._create(request.form):
                yield chunk
        elif rest == "Calls.json":
            yield self._list(request.query)
        elif found := re.fullmatch(r"Calls/(CA[0-9a-f]{32})(/Events)?\.json", rest):
            call = self.calls.get(found[1])
            if call is None:
                yield _error(404, 20404, f"The requested resource {request.path} was not found")
            elif found[2]:
                yield _events(request.path, call)
            elif request.method == "POST":
                yield self._update(call, request.form)
            else:
                yield _json(200, self._resource(call))
        else:
            yield _error(404, 20404, f"The requested resource {request.path} was not found")

    def _unauthorized(self, request: Request) -> bytes | None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        user, _, password = b64decode(given).decode().partition(":") if kind == "Basic" else ("", "", "")
        if self.logins.get(user, "") == password != "":
            return None
        return _error(401, 20003, "Authenticate")

    async def _create(self, form: Form) -> AsyncIterator[bytes]:
        if (wrong := self._wrong(form)) is not None:
            yield wrong
            return
        fate = self.fates_of.get(form["To"][0]) or (self.fates.popleft() if self.fates else Fate())
        if isinstance(fate.rest, Refusal):
            yield _error(fate.rest.status, fate.rest.code, fate.rest.message, fate.rest.headers)
            return
        call = FakeCall(new_call_sid(), form, fate, datetime.now(UTC))
        if fate.created:
            self.calls[call.sid] = call
            self._go(self._live(call))
        await asyncio.sleep(fate.stall_s)
        answer = _json(201, self._resource(call))
        if fate.rest == "500":
            yield _json(500, {"code": 20500, "message": "Internal Server Error", "status": 500})
        elif fate.rest == "garbage":
            yield answer.partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Was") + b"\r\n\r\n<html>"
        elif fate.rest == "lost":
            yield answer[: len(answer) // 2]
        else:
            yield answer

    def _wrong(self, form: Form) -> bytes | None:
        first = {name: values[0] for name, values in form.items()}
        self.unknown_fields |= set(form) - FIELDS
        if not _E164.fullmatch(first.get("To", "")):
            return _error(400, 21211, f"The phone number you are attempting to call, {first.get('To')}, is not valid.")
        if not _E164.fullmatch(first.get("From", "")):
            return _error(400, 21212, f"The source phone number provided, {first.get('From')}, is not valid.")
        if self.numbers and first["From"] not in self.numbers:
            return _error(400, 21210, f"The source phone number provided, {first['From']}, is not yet verified.")
        if not first.get("Url", "").startswith("http"):
            return _error(400, 21205, "Url is not a valid URL")
        events = set(form.get("StatusCallbackEvent", []))
        if not events <= {"initiated", "ringing", "answered", "completed"}:
            return _error(400, 21626, "Invalid StatusCallbackEvents")
        if not 1 <= int(first.get("Timeout", "60")) <= 600 or not 1 <= int(first.get("TimeLimit", "14400")) <= 14400:
            return _error(400, 20001, "Parameter out of range")
        if first.get("MachineDetection", "Enable") not in ("Enable", "DetectMessageEnd"):
            return _error(400, 20001, "MachineDetection")
        return None

    def _list(self, query: Form) -> bytes:
        size = int(query.get("PageSize", ["50"])[0])
        wanted = {name: query[name][0] for name in ("To", "From", "Status") if name in query}
        found = [
            call
            for call in reversed(self.calls.values())
            if all(wanted[n] == (call.status if n == "Status" else call.first(n)) for n in wanted)
        ]
        uri = f"/2010-04-01/Accounts/{self.account_sid}/Calls.json?PageSize={size}&Page=0"
        page = {"calls": [self._resource(call) for call in found[:size]], "page": 0, "page_size": size, "uri": uri}
        page |= {"first_page_uri": uri, "next_page_uri": None, "previous_page_uri": None, "start": 0, "end": size - 1}
        return _json(200, page)

    def _update(self, call: FakeCall, form: Form) -> bytes:
        status = form.get("Status", [""])[0]
        if status not in ("completed", "canceled"):
            return _error(400, 20001, "Status")
        if call.status in FINAL:
            return _error(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or call.status != "in-progress":
            call.hung_up.set()
            if call.phone is not None:
                for line in call.phone.lines:
                    line.hang_up()
        return _json(200, self._resource(call))

    def _resource(self, call: FakeCall) -> dict[str, Any]:
        uri = f"/2010-04-01/Accounts/{self.account_sid}/Calls/{call.sid}"
        date = format_datetime(call.created)
        return {
            "sid": call.sid, "account_sid": self.account_sid, "to": call.first("To"), "from": call.first("From"),
            "to_formatted": call.first("To"), "from_formatted": call.first("From"), "status": call.status,
            "date_created": date, "date_updated": date, "start_time": None, "end_time": None, "duration": None,
            "price": None, "price_unit": "USD", "direction": call.direction, "answered_by": None, "annotation": None,
            "api_version": "2010-04-01", "forwarded_from": None, "group_sid": None, "caller_name": None,
            "parent_call_sid": None, "phone_number_sid": "PN" + "0" * 32, "queue_time": "0", "trunk_sid": None,
            "uri": uri + ".json", "subresource_uris": {"events": uri + "/Events.json"},
        }  # fmt: skip

    # --- the call ---------------------------------------------------------------------------------------------------

    def rings(self, origin: str, fate: Fate, from_number: str = "+14155550199", to_number: str = "") -> FakeCall:
        """Somebody calls a number of the account, whose webhooks are at `origin`."""
        to_number = to_number or (self.numbers[0] if self.numbers else "+18005550199")
        form = {
            "From": [from_number],
            "To": [to_number],
            "Url": [f"{origin}/twilio/voice"],
            "StatusCallback": [f"{origin}/twilio/status"],
        }
        call = FakeCall(new_call_sid(), form, fate, datetime.now(UTC), "ringing", direction="inbound")
        self.calls[call.sid] = call
        self._go(self._incoming(call))
        return call

    async def _incoming(self, call: FakeCall) -> None:
        assert self._http is not None
        webhook = _Noting(self._http, auth_token=self.auth_token)
        webhook.call = call
        fields = CallFields(self.account_sid, call.sid, call.first("From"), call.first("To"), "inbound")
        call.status = "in-progress"
        await self._talk(call, webhook, fields)
        call.status = "completed"
        call.told.append("completed")
        form = fields.form("completed", CallDuration="1", SequenceNumber="0", CallbackSource="call-progress-events")
        with suppress(PeerError):
            await webhook.post(call.first("StatusCallback"), form)
        call.ended.set()

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, call: FakeCall) -> None:
        assert self._http is not None
        webhook = _Noting(self._http, auth_token=self.auth_token)
        webhook.call = call
        number = iter(range(1000))

        async def tell(status: str, **more: str) -> None:
            call.status = status if status != "initiated" else "queued"
            event = {"in-progress": "answered"}.get(status, "completed" if status in FINAL else status)
            if event not in call.form.get("StatusCallbackEvent", ["completed"]):
                return
            call.told.append(status)
            call.requested.append(call.first("StatusCallback"))
            if call.fate.callbacks:
                form = fields.form(status, SequenceNumber=str(next(number)), CallbackSource="call-progress-events")
                with suppress(PeerError):
                    await webhook.post(call.first("StatusCallback"), form | more)

        fields = CallFields(self.account_sid, call.sid, call.first("From"), call.first("To"), "outbound-api")
        await tell("initiated")
        await tell("ringing")
        fate = call.fate
        ring_s = int(call.first("Timeout") or 60) if fate.end == "ring" else fate.ring_s
        with suppress(TimeoutError):
            async with asyncio.timeout(ring_s):
                await call.hung_up.wait()
        said = {"SipResponseCode": str(fate.sip_status)} if fate.sip_status else {}
        said |= {"ErrorCode": str(fate.error)} if fate.error else {}
        if call.hung_up.is_set():
            await tell("canceled", **said)
        elif fate.end != "answer":
            await tell("no-answer" if fate.end == "ring" else fate.end, **said)
        else:
            await tell("in-progress")
            await self._talk(call, webhook, fields)
            await tell("completed", CallDuration="1", **said)
        call.ended.set()

    async def _talk(self, call: FakeCall, webhook: Webhook, fields: CallFields) -> None:
        if call.first("MachineDetection") and call.fate.answered_by:
            form = {"CallSid": call.sid, "AccountSid": self.account_sid, "AnsweredBy": call.fate.answered_by}
            self._go(webhook.post(call.first("AsyncAmdStatusCallback"), form | {"MachineDetectionDuration": "1234"}))
        script, streams = iter(call.acts(call.fate.actions)), iter(range(99))

        def line(carrier: Any) -> Line:
            again = [Listen()] if next(streams) else []
            return Line(carrier, chain(again, script), _Mouth(call), max_duration_s=60)

        call.phone = phone = _Callee(
            webhook,
            fields,
            line,
            lambda url, line: run_line(url, line, SYSTEM_CLOCK),
            SYSTEM_CLOCK,
            voice_url=call.first("Url"),
            keep_audio=True,
        )
        phone.call_of_ours, phone.dial_fates = call, list(call.fate.dial)
        talking = asyncio.create_task(phone.call())
        hung_up = asyncio.create_task(call.hung_up.wait())
        await asyncio.wait((talking, hung_up), return_when=asyncio.FIRST_COMPLETED)
        with suppress(TimeoutError):
            await asyncio.wait_for(talking, 3.0)
        hung_up.cancel()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    form = parse_qs(body.decode(), keep_blank_values=True)
    return Request(method, parts.path, parse_qs(parts.query, keep_blank_values=True), form, headers)


def _json(status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    fixed = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (fixed | dict(headers or {})).items())
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\n{lines}\r\n".encode() + content


def _error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> bytes:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return _json(status, {"code": code, "message": message, "more_info": more_info, "status": status}, headers)


def _events(path: str, call: FakeCall) -> bytes:
    events = [
        {"request": {"method": "POST", "url": url, "parameters": {}}, "response": {"response_code": 200}}
        for url in call.requested
    ]
    page = {"events": events, "page": 0, "page_size": 50, "uri": path, "first_page_uri": path, "next_page_uri": None}
    return _json(200, page | {"previous_page_uri": None, "start": 0, "end": len(events)})
