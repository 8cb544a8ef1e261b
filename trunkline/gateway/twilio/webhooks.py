"""Twilio's webhooks: what to do with a caller, at every point of the call where Twilio asks.

    voice ──► <Connect><Stream> ──► (the conversation) ──► continue ──► <Hangup>            we ended it
                     ▲                                        ├──────► <Dial> ─► dial-status   a transfer
                     └──────────── n + 1 ─────────────────────┴──────► again                the leg was lost

A caller for whom there is no line yet hears words and music, and is asked for at queue until there is one, or their
wait is over (waiting.py). A call of ours (dialler.py) begins at voice as well, when the far end answers; `?order=` is
the token of its order. A second leg of a call, to whom its caller is put through, gets a stream of its own there, and
is hung up when that ends. How often a call was reconnected travels in the action URL (`?n=1`), not in memory: the
worker that knew may be dead. A signed, well-formed webhook is never answered with an HTTP error: the caller hears the
fallback instead.

`Webhooks` takes forms and `now` and returns TwiML; `webhook_routes` is the edge.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.compliance.stir.verstat import carriers_word
from trunkline.errors import PeerError
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.routed import Elsewhere, Queued
from trunkline.gateway.twilio import twiml
from trunkline.gateway.twilio.holdmusic import MUSIC_PATH, hold_music_piece, music_path
from trunkline.gateway.twilio.signature import ALGORITHM_HEADER, SIGNATURE_HEADER, Signatures, socket_origin
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.metrics import Metrics, Outcome, Webhook
from trunkline.numbers.queueing import OFFER, TURN_S
from trunkline.ports import Allow, Decision, Refuse
from trunkline.types import E164, CallId, CallSid, StreamSid

log = logging.getLogger("trunkline.twilio")

MEDIA_PATH = "/twilio/media"
QUEUE_PATH = "/twilio/queue"
VERSTAT = "StirVerstat"  # there when the call came with a PASSporT
MAX_BODY_BYTES = 64 * 1024  # a voice webhook is under 2 KiB
MAX_FIELDS = 200
BODY_TIMEOUT_S = 10.0
MAX_FORWARDED_CHARS = 32
MAX_RECONNECTS = 2
NO_HELP_HERE = "This line cannot reach emergency services. Hang up and dial 9 1 1 or 1 1 2 directly."
HOLD_TEXT = "All our lines are busy. Please hold."
POSITION_TEXT = "You are number {} in line."
UNWRITTEN_TEXT = "I'm sorry, that could not be noted. Please stay on the line."
LOST_TEXT = "I'm sorry, we have a technical problem. Please call again in a few minutes. Goodbye."

Form = ImmutableMultiDict[str, str]
CallStatus = Literal[
    "queued", "initiated", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled"
]
FINAL = {"completed", "busy", "failed", "no-answer", "canceled"}
STATUSES = FINAL | {"queued", "initiated", "ringing", "in-progress"}
ANSWERED_BY = {
    "human",
    "fax",
    "unknown",
    "machine_start",
    "machine_end_beep",
    "machine_end_silence",
    "machine_end_other",
}
STREAM_EVENTS = {"stream-started", "stream-stopped", "stream-error"}

# https://help.twilio.com/articles/223179988: ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on a keypad
WITHHELD = {"+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253"}
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_CALL_SID = re.compile(r"CA[0-9a-f]{32}")
_STREAM_SID = re.compile(r"MZ[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class CallView:
    """What a webhook must know of a call that was admitted."""

    call_id: CallId
    state: Literal["live", "transferring", "ended"]
    """ended: by us or by the caller, so nothing is to be reconnected. live: as far as we know, the leg still is."""
    transfer_number: E164 | None = None
    """The number of the named target, while transferring."""
    limit_s: int | None = None
    """How long they may talk, then."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A status callback of a call of ours."""

    call_sid: CallSid
    status: CallStatus
    duration_s: int | None = None
    sip_status: int | None = None
    error: int | None = None


class PlacedCalls(Protocol):
    """Calls of ours (`dialler.TwilioDialler`), by the token of their order. Every method returns at once."""

    def answer(self, token: str, call_sid: CallSid) -> Literal["call", "leg"] | None:
        """The far end picked up: of a call, or of a second leg. None: it is not, or no longer, wanted."""
        ...

    def heard(self, token: str, heard: Heard) -> bool:
        """False: no such order."""
        ...

    def machine(self, token: str, call_sid: CallSid, answered_by: str, after_ms: int | None) -> None:
        """Twilio's guess who answered: human, fax, unknown or machine_..."""
        ...

    def stream_event(self, token: str, call_sid: CallSid, event: str, error: str) -> bool:
        """Of a second leg's stream. False: no such leg."""
        ...


class Switchboard(Protocol):
    """The live calls. Every method returns at once."""

    def admit(self, arrival: Arrival) -> CallId | Refuse:
        """Idempotent by CallSid: a call that is known and not ended keeps its id (and on a reconnect, its session).
        Refuse codes with a meaning here: `draining` and `overloaded` (the fallback speaks), `tenant_full` and
        `number_full` (busy, or the fallback number), `busy`, `no_agent` (the fallback speaks), `ended` (hang up); an
        Elsewhere is put through, or hears its text; a Queued waits, and is asked for again; any other rejects the
        call."""
        ...

    def by_call_sid(self, call_sid: CallSid) -> CallView | None:
        """None: never seen, or by another process; ended calls may be forgotten after a minute."""
        ...

    def status(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        """The call's status callback. A final status ends the record. Unknown CallSids are ignored."""
        ...

    def stream_event(self, call_sid: CallSid, stream_sid: StreamSid, event: str, error: str) -> None:
        """The stream's own callback: stream-started, stream-stopped or stream-error. An event of the record."""
        ...

    def dialled(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        """How a transfer went. `completed` ends the call as transferred; anything else comes back to the agent."""
        ...

    def sent_on(self, call_sid: CallSid, duration_s: int) -> None:
        """How long the caller of a call that was not taken talked to a number, where `admit` sent them. Unknown
        CallSids are ignored."""
        ...


class Webhooks:
    def __init__(
        self,
        switchboard: Switchboard,
        tokens: Tokens,
        origin: str,
        *,
        fallback_number: str | None,
        fallback_text: str,
        max_call_seconds: int,
        dial_caller_id: str = "",
        placed: PlacedCalls | None = None,
        signed: bool = False,
        may_fall_back: Callable[[E164 | None], Decision] = lambda ours: Allow(),
        expect: Callable[[Arrival], Awaitable[None]] | None = None,
        keyed: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        """`dial_caller_id`: who calls when a caller is put through; without it, the caller. `signed`: whoever asks has
        shown to be Twilio, so what it says of the caller's number counts. `may_fall_back`: the transfer door, for
        callers of this number of ours who go to the fallback number. `expect`: told of a call before the switchboard is
        asked to admit it. `keyed`: of the keys that one who waits has pressed, by CallSid, before that."""
        self._expect, self._keyed = expect, keyed
        self._signed, self._may_fall_back = signed, may_fall_back
        self._switchboard, self._tokens, self._origin, self._placed = switchboard, tokens, origin, placed
        self._dial_caller_id = dial_caller_id
        self._fallback_number, self._fallback_text = fallback_number, fallback_text
        self._max_call_seconds = max_call_seconds

    async def before(self, form: Form, query: Mapping[str, str]) -> None:
        """Comes before `voice`, `queue`, `continue_` and `dial_status`, which do not wait. Raises PeerError."""
        if self._keyed is not None and (digits := _field(form, "Digits", "")[:1]):
            await self._keyed(_call_sid(form), digits)
        if self._expect is not None and "order" not in query and "fallback" not in query:
            arrival = _arrival(form)
            if arrival.direction == "inbound":
                await self._expect(arrival)

    def voice(self, form: Form, query: Mapping[str, str], now: float) -> str:
        """A new call, or one of ours that is answered. A duplicate gets the same call and a fresh token."""
        arrival = _arrival(form)
        if self._signed and arrival.direction == "inbound" and (words := form.getlist(VERSTAT)):
            arrival = replace(arrival, stir=carriers_word("twilio", words))
        if (token := query.get("order")) is not None:
            call_sid = CallSid(arrival.provider_call_id)
            answered = self._placed.answer(token, call_sid) if self._placed is not None else None
            if answered is None:  # given up meanwhile, or ordered by a process that died: nobody would know what to say
                log.warning("%s was answered and nobody here wants it", arrival.provider_call_id)
                return twiml.hangup()
            if answered == "leg":
                order = f"?order={token}"
                return self._stream(call_sid, token, f"/twilio/continue{order}", f"/twilio/stream-status{order}", now)
        seen = self._switchboard.by_call_sid(CallSid(arrival.provider_call_id))
        if seen and seen.state == "ended":
            return twiml.hangup()
        return self._connect(arrival, now)

    def queue(self, form: Form, query: Mapping[str, str], now: float) -> str:
        """A caller who waits has heard all that we had to say."""
        call_sid = _call_sid(form)
        seen = self._switchboard.by_call_sid(call_sid)
        if (seen and seen.state == "ended") or _one_of(form, "CallStatus", STATUSES, "in-progress") in FINAL:
            return twiml.hangup()
        return self._connect(_arrival(form), now, answered=True)

    def continue_(self, form: Form, query: Mapping[str, str], now: float) -> str:
        """The stream is over: <Connect action>."""
        call_sid = _call_sid(form)
        if _one_of(form, "CallStatus", STATUSES, "in-progress") in FINAL:
            return twiml.hangup()  # the caller has gone; the status callback closes the record
        if "order" in query:
            return twiml.hangup()  # a second leg's: whoever it was called for is told by its stream's end
        seen = self._switchboard.by_call_sid(call_sid)
        if seen and seen.state == "ended":
            return twiml.hangup()
        reconnects = _reconnects(query)
        if seen and seen.state == "transferring" and seen.transfer_number:
            action_url = self._url(f"/twilio/dial-status?n={reconnects}")
            return twiml.dial(
                seen.transfer_number,
                action_url=action_url,
                time_limit_s=seen.limit_s or self._max_call_seconds,
                caller_id=self._dial_caller_id,
            )
        return self._reconnect(form, reconnects, "leg_lost", now)

    def dial_status(self, form: Form, query: Mapping[str, str], now: float) -> str:
        """The <Dial> is over: a transfer, or with `?fallback=1` the fallback number."""
        call_sid = _call_sid(form)
        status: CallStatus = _one_of(form, "DialCallStatus", STATUSES | {"answered"}, "failed")  # type: ignore[assignment]
        if query.get("fallback"):
            if talked_s := _whole(form, "DialCallDuration"):
                self._switchboard.sent_on(call_sid, talked_s)
            return twiml.hangup() if status in ("completed", "answered") else twiml.say_and_hangup(self._fallback_text)
        status = "completed" if status not in STATUSES else status  # <Dial> also says `answered`, in conferences
        self._switchboard.dialled(call_sid, status, _whole(form, "DialCallDuration"))
        if status == "completed" or _one_of(form, "CallStatus", STATUSES, "in-progress") in FINAL:
            return twiml.hangup()
        return self._reconnect(form, _reconnects(query), "transfer_failed", now)

    def status(self, form: Form, query: Mapping[str, str], now: float) -> str:
        status: CallStatus = _one_of(form, "CallStatus", STATUSES)  # type: ignore[assignment]
        call_sid, duration_s = _call_sid(form), _whole(form, "CallDuration")
        if (token := query.get("order")) is not None and self._placed is not None:
            sip_status, error = _whole(form, "SipResponseCode"), _whole(form, "ErrorCode")
            if self._placed.heard(token, Heard(call_sid, status, duration_s, sip_status, error)):
                return ""
        self._switchboard.status(call_sid, status, duration_s)
        return ""

    def machine(self, form: Form, query: Mapping[str, str], now: float) -> str:
        """Who answered a call of ours, as far as Twilio can tell."""
        answered_by = _one_of(form, "AnsweredBy", ANSWERED_BY)
        if self._placed is not None:
            after_ms = _whole(form, "MachineDetectionDuration")
            self._placed.machine(query.get("order", ""), _call_sid(form), answered_by, after_ms)
        return ""

    def stream_status(self, form: Form, query: Mapping[str, str], now: float) -> str:
        stream_sid = _field(form, "StreamSid")
        if not _STREAM_SID.fullmatch(stream_sid):
            raise PeerError("StreamSid: MZ and 32 hex digits expected")
        event = _one_of(form, "StreamEvent", STREAM_EVENTS)
        error = _field(form, "StreamError", "")[:200]
        token, placed = query.get("order"), self._placed
        if token is None or placed is None or not placed.stream_event(token, _call_sid(form), event, error):
            self._switchboard.stream_event(_call_sid(form), StreamSid(stream_sid), event, error)
        return ""

    def fallback(self, *, answered: bool = False, ours: E164 | None = None) -> str:
        """We cannot take this caller now, who called this number."""
        if self._fallback_number and not answered and isinstance(self._may_fall_back(ours), Allow):
            return twiml.dial(self._fallback_number, action_url=self._url("/twilio/dial-status?fallback=1"))
        return twiml.say_and_hangup(LOST_TEXT if answered else self._fallback_text)

    def _reconnect(self, form: Form, reconnects: int, why: Literal["leg_lost", "transfer_failed"], now: float) -> str:
        if reconnects >= MAX_RECONNECTS:
            return twiml.say_and_hangup(LOST_TEXT)
        return self._connect(_arrival(form, reconnects + 1, why), now)

    def _connect(self, arrival: Arrival, now: float, *, answered: bool = False) -> str:
        """`answered`: they have heard something already."""
        admitted = self._switchboard.admit(arrival)
        if isinstance(admitted, Queued):
            return self._hold(admitted)
        if isinstance(admitted, Refuse):
            return self._refused(arrival, admitted, answered=answered or arrival.why != "new")
        log.info(
            "call %s: %s from %s to %s is %s",
            admitted,
            arrival.provider_call_id,
            arrival.from_number or "withheld",
            arrival.to_number or "unknown",
            arrival.why,
        )
        action = f"/twilio/continue?n={arrival.reconnects}"
        return self._stream(CallSid(arrival.provider_call_id), admitted, action, "/twilio/stream-status", now)

    def _stream(self, call_sid: CallSid, whose: str, action: str, status: str, now: float) -> str:
        """`whose`: our call's id, or the order of a second leg."""
        return twiml.connect_stream(
            socket_origin(self._origin) + MEDIA_PATH,
            self._tokens.issue(call_sid, whose, now),
            {},
            action_url=self._url(action),
            status_callback=self._url(status),
        )

    def _hold(self, queued: Queued) -> str:
        turn, say = queued.turn, []
        if queued.unwritten:
            say.append(UNWRITTEN_TEXT)
        if turn.says:
            say.append(HOLD_TEXT)
        if turn.says and turn.says_position:
            say.append(POSITION_TEXT.format(turn.position))
        if turn.offers:
            say.append(OFFER)
        pause_s = 0 if turn.seconds == TURN_S else turn.seconds
        music_url, next_url = self._url(music_path(turn.music)), self._url(QUEUE_PATH)
        return twiml.hold(say, music_url, pause_s, next_url=next_url, keys=turn.takes_key)

    def _refused(self, arrival: Arrival, refused: Refuse, *, answered: bool) -> str:
        log.warning("%s refused: %s", arrival.provider_call_id, refused.code)
        if isinstance(refused, Elsewhere):
            return self._elsewhere(refused)
        if refused.code == "ended":
            return twiml.hangup()
        if refused.code == "busy":
            return twiml.hangup() if answered else twiml.reject(busy=True)
        if refused.code in ("draining", "overloaded", "no_agent"):
            return self.fallback(ours=arrival.to_number)
        if refused.code in _FULL:  # a busy tone where nobody else is to answer
            spare = self._fallback_number or answered
            return self.fallback(ours=arrival.to_number) if spare else twiml.reject(busy=True)
        if refused.code == "emergency":  # who dialled for help is told where to; a busy tone would not
            return twiml.say_and_hangup(NO_HELP_HERE)
        return twiml.say_and_hangup(LOST_TEXT) if answered else twiml.reject()

    def _elsewhere(self, refused: Elsewhere) -> str:
        if refused.number is None:
            return twiml.say_and_hangup(refused.text)
        return twiml.dial(
            refused.number,
            action_url=self._url("/twilio/dial-status?fallback=1"),
            time_limit_s=refused.limit_s or self._max_call_seconds,
            caller_id=self._dial_caller_id,
        )

    def _url(self, target: str) -> str:
        return self._origin + target


# --- fields: each raises PeerError saying what was expected ---------------------------------------------------------


def phone_number(value: str) -> E164 | None:
    """None for what is no dialable number: withheld, client:, sip:, short codes."""
    return E164(value) if _E164.fullmatch(value) and value not in WITHHELD else None


def _arrival(form: Form, reconnects: int = 0, why: Literal["new", "leg_lost", "transfer_failed"] = "new") -> Arrival:
    return Arrival(
        provider_call_id=_call_sid(form),
        leg="twilio",
        direction="outbound" if _field(form, "Direction", "inbound").startswith("outbound") else "inbound",
        from_number=phone_number(_field(form, "From", "")),
        to_number=phone_number(_field(form, "To", "")),
        forwarded_by=_field(form, "ForwardedFrom", "")[:MAX_FORWARDED_CHARS] or None,
        reconnects=reconnects,
        why=why,
    )


def _call_sid(form: Form) -> CallSid:
    call_sid = _field(form, "CallSid")
    if not _CALL_SID.fullmatch(call_sid):
        raise PeerError("CallSid: CA and 32 hex digits expected")
    return CallSid(call_sid)


def _field(form: Form, name: str, default: str | None = None) -> str:
    values = form.getlist(name)
    if len(values) > 1:
        raise PeerError(f"{name}: given {len(values)} times")
    if not values and default is None:
        raise PeerError(f"{name}: missing")
    return values[0] if values else default or ""


def _one_of(form: Form, name: str, allowed: set[str], default: str | None = None) -> str:
    value = _field(form, name, default)
    if value not in allowed:
        raise PeerError(f"{name}: one of {', '.join(sorted(allowed))} expected")
    return value


def _whole(form: Form, name: str) -> int | None:
    """None for what is no number."""
    value = _field(form, name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _reconnects(query: Mapping[str, str]) -> int:
    n = query.get("n", "0")
    return int(n) if n in ("0", "1", "2") else MAX_RECONNECTS


# --- the edge -------------------------------------------------------------------------------------------------------

_FULL = ("tenant_full", "number_full")
_ADMITTING = ("voice", "queue", "continue", "dial_status")
_CALLBACKS = ("status", "stream_status", "machine")  # Twilio does not read their answers
Answer = Callable[[Form, Mapping[str, str], float], str]


def webhook_routes(webhooks: Webhooks, signatures: Signatures, metrics: Metrics, clock: Clock) -> list[Route]:
    def route(path: str, kind: Webhook, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _respond(request, kind, answer)

        return Route(path, endpoint, methods=["POST"], name=f"twilio_{kind}")

    async def _respond(request: Request, kind: Webhook, answer: Answer) -> Response:
        try:
            form = await _read(request)
        except _Unreadable as unreadable:
            return _error(kind, "bad_request", unreadable.status, str(unreadable))
        raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
        target = raw_path.partition(b"?")[0].decode("latin-1")
        if request.url.query:
            target += f"?{request.url.query}"
        headers = request.headers
        if not signatures.valid(target, form, headers.get(SIGNATURE_HEADER, ""), headers.get(ALGORITHM_HEADER, "")):
            return _error(kind, "bad_signature", 403, "the signature does not match")
        try:
            if kind in _ADMITTING:
                await webhooks.before(form, request.query_params)
            text = answer(form, request.query_params, clock.now())
        except PeerError as error:
            return _error(kind, "bad_request", 400, str(error))
        except Exception:  # our own bug must not become dead air for this caller
            log.exception("webhook %s failed", kind)
            metrics.webhook(kind, "error")
            return _twiml("" if kind in _CALLBACKS else webhooks.fallback(answered=kind != "voice"))
        metrics.webhook(kind, "ok")
        return _twiml(text)

    def _error(kind: Webhook, outcome: Outcome, status: int, detail: str) -> Response:
        metrics.webhook(kind, outcome)
        log.warning("webhook %s: %d %s", kind, status, detail)
        return Response(detail + "\n", status, media_type="text/plain")

    return [
        route("/twilio/voice", "voice", webhooks.voice),
        route(QUEUE_PATH, "queue", webhooks.queue),
        Route(MUSIC_PATH, hold_music_piece, methods=["GET"]),
        route("/twilio/continue", "continue", webhooks.continue_),
        route("/twilio/status", "status", webhooks.status),
        route("/twilio/stream-status", "stream_status", webhooks.stream_status),
        route("/twilio/dial-status", "dial_status", webhooks.dial_status),
        route("/twilio/machine", "machine", webhooks.machine),
    ]


def _twiml(text: str) -> Response:
    return Response(text, media_type="text/xml") if text else Response(status_code=204)


class _Unreadable(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


async def _read(request: Request) -> Form:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise _Unreadable(415, "application/x-www-form-urlencoded expected")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _body(request)
    except TimeoutError:
        raise _Unreadable(408, "the body did not come in time") from None
    except ClientDisconnect:
        raise _Unreadable(400, "the client went away") from None
    try:
        text = body.decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS) if text else []
    except ValueError:
        raise _Unreadable(400, "not a form") from None
    return ImmutableMultiDict(fields)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _Unreadable(413, f"at most {MAX_BODY_BYTES} bytes")
    return bytes(body)
