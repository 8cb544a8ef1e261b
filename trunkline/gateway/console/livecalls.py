"""Live calls: the list, one of them, what changes as it happens (server-sent events), and the hands on it.

What goes to a browser is made here of what was recorded: state, words and numbers as whoever looks may see them. A
browser that does not read loses the oldest (gateway/feed.py), is told that, and asks for the page again; one that has
gone is forgotten with its connection. The list is of this process.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast, get_args

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.calls import CallRecords, LiveCall, LiveCalls
from trunkline.gateway.api.control import MAX_SUMMARY_CHARS, OperatedCall
from trunkline.gateway.api.legs import AttendedCall
from trunkline.gateway.api.problems import problem
from trunkline.gateway.console.pages import ROOT, Pages
from trunkline.gateway.console.seeing import FOREIGN, NoSuch, form_of, page, told
from trunkline.gateway.console.words import ended_by, parties, reason, state
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.feed import CallFeed, Change, Listener
from trunkline.gateway.party import Change as LegChange
from trunkline.gateway.party import Invitation
from trunkline.identity import Principal
from trunkline.media.members import Supervision
from trunkline.ports import Refuse
from trunkline.types import E164, CallId

HEARTBEAT_S = 15.0
HAPPENED = 20
DONE: Mapping[str, str] = {
    "hang-up": "The call is being ended.",
    "hold": "The caller is on hold.",
    "resume": "The caller is back.",
    "transfer": "The call is being put through.",
    "take-back": "The transfer is given up.",
    "listen": "Your phone is ringing.",
    "change": "Changed.",
    "dismiss": "That leg is being ended.",
}


class HeldCall(OperatedCall, AttendedCall, Protocol):
    """A live call, as the switchboard has it."""

    def target_names(self) -> Sequence[str]:
        """To whom it may be put through."""
        ...


Find = Callable[[CallId], HeldCall | None]
Know = Callable[[str], Awaitable[object]]
"""Gathers what the dial door wants to know of a number."""


class LivePages:
    def __init__(
        self, pages: Pages, live: LiveCalls, records: CallRecords, feed: CallFeed, find: Find, know: Know, clock: Clock
    ) -> None:
        self._pages, self._live, self._records, self._feed = pages, live, records, feed
        self._find, self._know, self._clock = find, know, clock
        self.heartbeat_s = HEARTBEAT_S

    def routes(self) -> list[Route]:
        one = "live/{call_id}"
        return [
            page(self._pages, "live", "read", self._list),
            page(self._pages, "live/events", "read", self._events),
            page(self._pages, one, "read", self._one),
            page(self._pages, f"{one}/events", "read", self._events_of_one),
            *(page(self._pages, f"{one}/{act}", "calls", self._act(act), "POST") for act in DONE),
        ]

    # --- the list ---

    async def _list(self, request: Request, who: Principal) -> Response:
        calls = [self._row(call, who) for call in self._all(who)]
        return self._pages.answer(request, "live.html", {"calls": calls, "may_hear": who.may("listen")})

    def _all(self, who: Principal) -> list[LiveCall]:
        ours = (call for call in self._live.all_live() if call.started.tenant == who.tenant)
        return sorted(ours, key=lambda call: call.started.at, reverse=True)

    def _row(self, call: LiveCall, who: Principal) -> dict[str, Any]:
        started = call.started
        numbers = {"direction": started.direction, "from_number": started.from_number, "to_number": started.to_number}
        return {
            "id": started.call_id,
            "at": started.at.isoformat(),
            "lasted_ms": (self._clock.wall() - started.at).total_seconds() * 1000,
            "state": state(call.state),
            "direction": started.direction,
            "agent": started.agent,
            "leg": started.leg,
            "cost": None if call.cost is None else call.cost.get("usd"),
            **parties(numbers, in_full=who.may("listen")),
        }

    # --- one ---

    def _call(self, request: Request, who: Principal) -> LiveCall | None:
        call = self._live.live(CallId(request.path_params["call_id"]))
        return call if call is not None and call.started.tenant == who.tenant else None

    async def _one(self, request: Request, who: Principal) -> Response:
        call_id = CallId(request.path_params["call_id"])
        call = self._call(request, who)
        if call is None:
            return await self._over(who, call_id)
        return await self._shown(request, who, call)

    async def _over(self, who: Principal, call_id: CallId) -> Response:
        if await self._records.get(who.tenant, call_id) is None:
            raise NoSuch("There is no such call.")
        return RedirectResponse(f"{ROOT}/calls/{call_id}", 303)

    async def _shown(
        self, request: Request, who: Principal, call: LiveCall, wrong: str = "", given: Mapping[str, str] | None = None
    ) -> Response:
        record = await self._records.get(who.tenant, call.started.call_id) or {}
        held = self._find(call.started.call_id)
        context = {
            "call": self._row(call, who),
            "turns": record.get("turns", ()) if who.may("listen") else (),
            "happened": [
                {"at": event["at"], "what": event["kind"].replace("_", " ")}
                for event in reversed(record.get("events", ())[-HAPPENED:])
            ],
            "targets": () if held is None else held.target_names(),
            "legs": () if held is None else held.party.views(),
            "may_hear": who.may("listen"),
            "may_act": who.may("calls"),
            "said": DONE.get(request.query_params.get("done", ""), ""),
            "wrong": wrong,
            "given": given or {},
            "modes": get_args(Supervision),
        }
        return self._pages.answer(request, "livecall.html", context, 409 if wrong else 200)

    # --- as it happens ---

    async def _events(self, request: Request, who: Principal) -> Response:
        return self._stream(who, None)

    async def _events_of_one(self, request: Request, who: Principal) -> Response:
        if self._call(request, who) is None:
            return Response(status_code=204)  # an EventSource then asks no more
        return self._stream(who, CallId(request.path_params["call_id"]))

    def _stream(self, who: Principal, only: CallId | None) -> Response:
        listener = self._feed.listen(who.tenant)
        if listener is None:
            return problem(503, "too many listen already", {"Retry-After": "30"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._as_it_happens(listener, who, only), media_type="text/event-stream", headers=headers
        )

    async def _as_it_happens(self, listener: Listener, who: Principal, only: CallId | None) -> AsyncIterator[str]:
        """Cancelled when they leave."""
        try:
            yield "retry: 3000\n\n"
            while True:
                change = await listener.next(self.heartbeat_s)
                if change is None:
                    yield ": still here\n\n"
                    continue
                if only is not None and change.data.get("call_id", only) != only:
                    continue
                told = self._news(change, who)
                if told is not None:
                    yield f"event: {change.type}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"
        finally:
            listener.close()

    def _news(self, change: Change, who: Principal) -> dict[str, Any] | None:
        if change.type == "dropped":
            return change.data
        data, call_id = change.data, CallId(change.data["call_id"])
        now = self._live.live(call_id)
        news: dict[str, Any] = {"id": call_id, "at": data["at"], "state": state("ended" if now is None else now.state)}
        match change.type:
            case "call.started" if now is not None:
                return self._row(now, who)
            case "call.turn" if who.may("listen"):
                told = ("index", "caller_text", "agent_text", "cut_text", "interrupted", "total_ms")
                return news | {name: data.get(name) for name in told}
            case "call.turn":
                return news | {"index": data["index"], "total_ms": data.get("total_ms")}
            case "call.event":
                return news | {"what": data["kind"].replace("_", " ")}
            case "call.ended":
                return news | {"state": state("ended"), "why": reason(data["reason"]), "by": ended_by(data["by"])}
        return None

    # --- hands ---

    def _act(self, act: str) -> Callable[[Request, Principal], Awaitable[Response]]:
        async def done(request: Request, who: Principal) -> Response:
            call = self._call(request, who)
            held = self._find(CallId(request.path_params["call_id"]))
            if call is None or held is None:
                return await self._over(who, CallId(request.path_params["call_id"]))
            form = await form_of(request)
            if form is None:
                return told(self._pages, request, 403, "Not sent by this page", FOREIGN)
            refused = await self._do(act, held, form, who)
            if refused is not None:
                return await self._shown(request, who, call, refused.why, form)
            return RedirectResponse(f"{ROOT}/live/{call.started.call_id}?done={act}", 303)

        return done

    async def _do(self, act: str, call: HeldCall, form: Mapping[str, str], who: Principal) -> Refuse | None:
        match act:
            case "hang-up":
                self._live.hang_up(call.started.call_id)
                return None
            case "hold":
                return call.hold()
            case "resume":
                return call.resume()
            case "transfer":
                return _transfer(call, form)
            case "take-back":
                return call.take_back()
            case "listen":
                return await self._listen(call, form, who)
            case "change":
                mode = form.get("supervision", "")
                if mode not in get_args(Supervision) or (mode != "listen" and not who.may("listen")):
                    return Refuse("not_supported", "choose listen, whisper or speak")
                return call.party.change(form.get("leg", ""), LegChange(cast(Supervision, mode)))
            case _:
                return call.party.dismiss(form.get("leg", ""))

    async def _listen(self, call: HeldCall, form: Mapping[str, str], who: Principal) -> Refuse | None:
        """Rings a supervisor's phone, and lets them in."""
        number, mode = form.get("to", "").strip().replace(" ", ""), form.get("supervision", "listen")
        if not who.may("listen"):
            return Refuse("forbidden", "your role may not listen to calls")
        if mode not in get_args(Supervision):
            return Refuse("not_supported", "choose listen, whisper or speak")
        if not (number.startswith("+") and number[1:].isascii() and number[1:].isdigit() and 8 <= len(number) <= 16):
            return Refuse("invalid_number", "your phone: a number with its country, such as +14155550100")
        await self._know(number)
        order = DialOrder(E164(number), detects_machine=False)
        role: Literal["supervisor"] = "supervisor"
        rung = call.party.invite(Invitation(order, role, cast(Supervision, mode)))
        return rung if isinstance(rung, Refuse) else None


def _transfer(call: HeldCall, form: Mapping[str, str]) -> Refuse | None:
    target, summary = form.get("target", ""), form.get("summary", "").strip()
    if target not in call.target_names():
        return Refuse("unknown_target", "choose whom the caller is put through to")
    if len(summary) > MAX_SUMMARY_CHARS or not summary.isprintable():
        return Refuse("invalid_fields", f"the note: one line of at most {MAX_SUMMARY_CHARS} characters")
    return call.send_to(target, "auto", summary)
