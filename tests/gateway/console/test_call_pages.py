"""The pages of what calls do, over a real database: what each role sees, and that nothing said there is markup."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from trunkline.gateway.api.calls import LiveCall
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.console.callpages import call_pages
from trunkline.gateway.console.livecalls import LivePages
from trunkline.gateway.console.pages import POLICY, Pages
from trunkline.gateway.console.today import AgentView, BudgetView, Health
from trunkline.gateway.feed import QUEUE, CallFeed
from trunkline.gateway.party import OtherView
from trunkline.identity import ROLES, Principal, Role
from trunkline.ports import (
    CallEnded,
    CallEvent,
    CallStarted,
    Cost,
    RecordEvent,
    Refuse,
    TurnEnded,
    TurnRecord,
    Usage,
    UsageMetered,
)
from trunkline.store.engine import Database, database_url
from trunkline.store.records import CallRecords
from trunkline.store.spool import Spool
from trunkline.store.writer import RecordWriter
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId, TenantId

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)
ANNA, OURS = "+14155550101", "+14155550199"
EVIL = "<script>alert(1)</script>"
CSRF = "of-this-session"
STEPS = [
    {"at_ms": 0, "inbound": True, "what": "INVITE", "cseq": "1", "peer": "udp 192.0.2.1:5060", "repeated": 0},
    {"at_ms": 4, "inbound": False, "what": "200 OK", "cseq": "1", "peer": "udp 192.0.2.1:5060", "repeated": 2},
]


def started(name: str, tenant: str = DEFAULT_TENANT, seconds: float = 0) -> CallStarted:
    at = AT + timedelta(seconds=seconds)
    return CallStarted(CallId(name), TenantId(tenant), "inbound", "sip", "clinic", at, ANNA, OURS, f"id-{name}")


def event(name: str, seconds: float, kind: str, **data: Any) -> CallEvent:
    return CallEvent(CallId(name), AT + timedelta(seconds=seconds), kind, data)


def turn(name: str, seconds: float, heard: str, said: str, index: int = 1, **more: Any) -> TurnEnded:
    return TurnEnded(CallId(name), AT + timedelta(seconds=seconds), TurnRecord(index, heard, said, **more))


WHOLE = (
    started("whole"),
    event("whole", 0.1, "stir", verdict="passed", attest="A", reason=None),
    event("whole", 0.1, "decision", door="answer", decision="refuse", code="hours", why=f"closed {EVIL}"),
    event("whole", 0.2, "answered"),
    event("whole", 1, "consent", state="granted", doors=["record", "transcript"], via="keypad"),
    turn(
        "whole", 5, f"my tooth {EVIL}", "We are open until", interrupted=True, cut_text="five",
        endpointing_ms=300.0, stt_ms=40.0, llm_ms=200.0, tts_ms=100.0, total_ms=640.0, tools=("book",),
    ),
    event("whole", 5, "tools_used", turn=1, tools=[{"name": "book", "arguments": {"day": EVIL}, "outcome": "ok"}]),
    event("whole", 6, "transfer", target="desk", to="+14155550155"),
    event("whole", 8, "sip_media", mos=4.12, in_loss_percent=0.5, in_jitter_ms=3.0, rtt_ms=None),
    event("whole", 8, "sip_ladder", steps=STEPS),
    event("whole", 8, "recorded", audio_bytes=16000, failed=""),
    UsageMetered(AT, Usage(CallId("whole"), "twilio", "leg", "seconds", 60, "inbound"), (Cost("leg", "60", "0.0125"),)),
    CallEnded(CallId("whole"), AT + timedelta(seconds=9), "caller_hung_up"),
)  # fmt: skip


class Party:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def views(self) -> list[OtherView]:
        return [OtherView("leg_1", "supervisor", "joined", "", "desk", "listen", False)]

    def invite(self, invitation: Any) -> OtherView | Refuse:
        self.asked.append(("invite", invitation.order.to_number, invitation.supervision))
        return self.views()[0]

    def change(self, name: str, change: Any) -> Refuse | None:
        self.asked.append(("change", name, change.supervision))
        return None

    def dismiss(self, name: str) -> Refuse | None:
        self.asked.append(("dismiss", name))
        return None


class Call:
    """A live one, which notes what is asked of it."""

    def __init__(self, begun: CallStarted) -> None:
        self.started, self.state, self.party = begun, "active", Party()
        self.asked: list[Any] = []
        self.refusing: Refuse | None = None

    def target_names(self) -> list[str]:
        return ["desk"]

    def _note(self, *what: Any) -> Refuse | None:
        self.asked.append(what)
        return self.refusing

    def send_to(self, target: str, kind: str, summary: str = "") -> Refuse | None:
        return self._note("transfer", target, kind, summary)

    def take_back(self) -> Refuse | None:
        return self._note("take_back")

    def hold(self) -> Refuse | None:
        return self._note("hold")

    def resume(self) -> Refuse | None:
        return self._note("resume")


class Switchboard:
    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    def live(self, call_id: CallId) -> LiveCall | None:
        call = self.calls.get(call_id)
        return None if call is None else LiveCall(call.started, call.state, {"usd": "0.02"})

    def all_live(self) -> list[LiveCall]:
        return [cast(LiveCall, self.live(CallId(name))) for name in self.calls]

    def hang_up(self, call_id: CallId) -> bool:
        return bool(self.calls[call_id]._note("hang_up") is None)

    def call(self, call_id: CallId) -> Any:
        return self.calls.get(call_id)


class House:
    def __init__(self, folder: Path) -> None:
        self.database = Database(database_url(None, folder))
        self.clock = ManualClock(wall=AT + timedelta(seconds=30))
        self.spool = Spool(folder / "spool", sync_period_s=None)
        self.writer = RecordWriter(self.spool, self.database, self.clock, worker="w0")
        self.records, self.switchboard = CallRecords(self.database), Switchboard()
        self.feed = CallFeed(SimpleNamespace(append=self.spool.append))
        self.pages = Pages()
        self.played: list[str] = []
        self.known: list[str] = []

        async def play(request: Request) -> Response:
            self.played.append(request.path_params["call_id"])
            return PlainTextResponse("RIFF")

        async def know(number: str) -> None:
            self.known.append(number)

        async def budgets(tenant: TenantId) -> list[BudgetView]:
            return [BudgetView("all calls", Decimal(10), "day", Decimal(9))]

        health = Health(
            lambda: ["draining"],
            lambda: [TrunkView("front", "down", takes_calls=True, calls=0)],
            lambda: [{"provider": "stt.local", "state": "closed", "last_error": None}],
            lambda tenant: [AgentView("clinic", True), AgentView("night", False)],
            budgets,
        )
        routes = call_pages(
            self.pages, cast(Any, self.switchboard), self.records, self.records, self.feed, self.clock,
            find=self.switchboard.call, know=know, health=health, play=play,
        )  # fmt: skip
        app = Starlette(routes=routes, lifespan=lambda app: self.opened())

        async def as_role(scope: Scope, receive: Receive, send: Send) -> None:
            """In the guard's place."""
            if scope["type"] == "http":
                role, _, tenant = dict(scope["headers"]).get(b"as", b"").decode().partition("@")
                if role:
                    named = cast(Role, role)
                    who = Principal(TenantId(tenant or DEFAULT_TENANT), "user:ann", ROLES[named], named)
                    scope.setdefault("state", {}).update(principal=who, csrf=CSRF)
            await app(scope, receive, send)

        self.client = TestClient(as_role, follow_redirects=False)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        await self.writer.start()
        yield
        await self.writer.close()
        self.spool.close()
        await self.database.close()

    def happened(self, *entries: RecordEvent) -> None:
        for entry in entries:
            self.spool.append(entry)
        assert self.client.portal is not None
        assert self.client.portal.call(self.writer.flush)

    def on_the_line(self, begun: CallStarted) -> Call:
        call = self.switchboard.calls[begun.call_id] = Call(begun)
        self.happened(begun)
        return call

    def get(self, path: str, role: str = "supervisor") -> str:
        answer = self.client.get(f"/console/{path}", headers={"as": role})
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, role: str = "supervisor", csrf: str = CSRF, **fields: str) -> Any:
        return self.client.post(f"/console/{path}", data={"csrf_token": csrf, **fields}, headers={"as": role})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    with found.client:
        yield found


PAGES = ("", "?span=7d", "?span=30d", "live", "live/now", "calls", "calls?number=%2B1415*&having=errors", "calls/whole")


@pytest.mark.parametrize("role", ["viewer", "supervisor", "admin"])
def test_every_page_is_whole_for_every_role_and_nothing_in_it_is_inline(house: House, role: str) -> None:
    house.happened(*WHOLE)
    house.on_the_line(started("now"))
    for path in PAGES:
        is_whole(house, role, path)


def is_whole(house: House, role: str, path: str) -> None:
    answer = house.client.get(f"/console/{path}", headers={"as": role})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    html = answer.text
    assert not re.search(r"<[^>]*\s(style|on\w+)=", html)
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    assert EVIL not in html
    assert html.count("<h1") == 1
    for labelled in re.findall(r"aria-labelledby=\"([^\"]+)\"", html):
        assert f'id="{labelled}"' in html
    ids = re.findall(r"\sid=\"([^\"]+)\"", html)
    assert len(ids) == len(set(ids))


def test_nobody_is_led_to_the_sign_in(house: House) -> None:
    for path in (*PAGES, "data/stats", "live/events", "calls/export", "calls/whole/recording"):
        answer = house.client.get(f"/console/{path}")
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/console/sign-in")


def test_another_tenants_call_is_not_there(house: House) -> None:
    house.happened(*WHOLE)
    call = house.on_the_line(started("now"))
    stranger = {"as": "admin@other"}
    for path in ("calls/whole", "live/whole", "live/now", "calls/nothing"):
        assert house.client.get(f"/console/{path}", headers=stranger).status_code == 404, path
    assert house.client.get("/console/live/now/events", headers=stranger).status_code == 204
    assert house.post("live/now/hang-up", "admin@other").status_code == 404
    assert call.asked == []
    assert "whole" not in house.get("calls", "admin@other")
    assert "data-call=" not in house.get("live", "admin@other")
    today = house.get("", "admin@other")
    assert "front" not in today
    assert "stt.local" not in today


# --- today ---


def test_today_tells_figures_charts_have_tables_and_what_is_wrong_is_told(house: House) -> None:
    house.happened(*WHOLE)
    house.on_the_line(started("now"))
    html = house.get("")
    for text in ("draining", "does not answer", "works", "90 % taken", "not ready", "the caller hung up"):
        assert text in html
    data = house.client.get("/console/data/stats?span=24h", headers={"as": "viewer"}).json()
    assert len(data["at"]) == 25
    assert sum(data["charts"]["calls"]["inbound"]) == 2
    assert data["charts"]["ends"]["the caller hung up"][-1] == 1
    assert data["charts"]["cost"]["inbound"][-1] == 0.0125
    assert 600 < data["charts"]["latency"]["total"][-1] < 680
    assert len(house.client.get("/console/data/stats?span=30d", headers={"as": "viewer"}).json()["at"]) == 31


# --- calls ---


def test_a_viewer_sees_no_number_and_cannot_find_it_out_by_asking(house: House) -> None:
    house.happened(*WHOLE)
    for path in ("calls", "calls/whole", "calls?number=%2B14155550101", "calls?text=tooth"):
        html = house.get(path, "viewer")
        assert ANNA not in html
        assert "5550155" not in html
        assert "tooth" not in html
    assert "+14155••••••" in house.get("calls", "viewer")
    assert "whole" in house.get("calls?number=%2B1999*", "viewer")  # not asked
    assert "whole" not in house.get("calls?number=%2B1999*")
    assert ANNA in house.get("calls")
    assert house.client.get("/console/calls/export", headers={"as": "viewer"}).status_code == 403


def test_a_search_is_kept_goes_on_page_by_page_and_is_exported_as_it_is(house: House) -> None:
    house.happened(*(started(f"c{number:03}", seconds=number) for number in range(60)), *WHOLE)
    first = house.get("calls?direction=inbound&agent=&having=&our_number=%2B14155550199")
    assert first.count("<tr>") == 51
    assert "c059" in first
    assert "c000" not in first
    older = re.search(r'href="/console/([^"]+)" rel="next"', first)
    assert older is not None
    second = house.get(older[1].replace("&amp;", "&"))
    assert "c000" in second
    assert "c059" not in second
    assert 'rel="next"' not in second
    assert 'value="inbound" selected' in second
    given = house.client.get("/console/calls/export?agent=clinic&having=errors", headers={"as": "admin"})
    assert given.text.splitlines()[0].startswith("id,")
    assert len(given.text.splitlines()) == 1
    all_of_them = house.client.get("/console/calls/export?format=csv&agent=clinic", headers={"as": "admin"})
    assert len(all_of_them.text.splitlines()) == 62


WRONG = (
    ("number=*", "number", "a number"),
    ("min_duration_s=-1", "min_duration_s", "0 to"),
    ("text=x", "text", "2 to 200"),
)


def test_what_cannot_be_asked_is_told_at_its_field_with_what_was_typed(house: House) -> None:
    for query, field, why in WRONG:
        is_told(house, query, field, why)
    assert house.client.get("/console/calls?cursor=nonsense", headers={"as": "admin"}).status_code == 400


def is_told(house: House, query: str, field: str, why: str) -> None:
    answer = house.client.get(f"/console/calls?{query}", headers={"as": "admin"})
    assert answer.status_code == 400
    wrong = re.search(rf'id="f-{field}"[^>]*value="([^"]+)"[^>]*aria-describedby="(w-[^"]+)"', answer.text)
    assert wrong is not None
    assert wrong[1] == query.partition("=")[2]
    assert why in answer.text.partition(f'id="{wrong[2]}"')[2].partition("</p>")[0]


# --- one call ---


def test_one_call_tells_what_was_said_heard_and_cut_what_it_cost_and_how_it_sounded(house: House) -> None:
    house.happened(*WHOLE)
    html = house.get("calls/whole")
    assert "my tooth &lt;script&gt;" in html
    assert re.search(r"We are open until <del>.*five</del>", html)
    assert "$0.0125" in html
    assert "4.12, good" in html
    assert "attested A" in html
    assert "answer refused: hours (closed &lt;script&gt;" in html
    assert "granted for record, transcript by keypad" in html
    assert html.count("<polygon") == 2
    assert "200 OK ×3" in html
    assert '<audio controls preload="none" src="/console/calls/whole/recording"' in html
    assert re.search(r"<rect x=\"0.0\" width=\"93.8\"[^>]*part-endpointing", html)
    viewer = house.get("calls/whole", "viewer")
    for secret in ("tooth", "five", "192.0.2.1", "book", "<audio", ANNA, "recorded ("):
        assert secret not in viewer
    assert "<polygon" in viewer
    assert "$0.0125" in viewer


def test_a_recording_is_for_listeners(house: House) -> None:
    house.happened(*WHOLE)
    path = "/console/calls/whole/recording"
    assert house.client.get(path, headers={"as": "viewer"}).status_code == 403
    assert house.played == []
    assert house.client.get(path, headers={"as": "supervisor"}).text == "RIFF"
    assert house.played == ["whole"]


# --- live ---


def test_hands_do_what_they_are_asked_and_say_why_not(house: House) -> None:
    call = house.on_the_line(started("now"))
    for act, fields in (
        ("hold", {}), ("resume", {}), ("take-back", {}), ("transfer", {"target": "desk", "summary": "An invoice."}),
        ("hang-up", {}),
    ):  # fmt: skip
        answer = house.post(f"live/now/{act}", **fields)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console/live/now?done={act}")
    wanted = [("hold",), ("resume",), ("take_back",), ("transfer", "desk", "auto", "An invoice."), ("hang_up",)]
    assert call.asked == wanted
    call.refusing = Refuse("not_now", f"not with the agent {EVIL}")
    refused = house.post("live/now/transfer", target="desk", summary="kept")
    assert refused.status_code == 409
    assert "not with the agent &lt;" in refused.text
    assert 'value="kept"' in refused.text
    assert house.post("live/now/transfer", target="elsewhere").status_code == 409
    house.post("live/now/listen", to="+1 415 555 0177", supervision="whisper")
    house.post("live/now/change", leg="leg_1", supervision="speak")
    house.post("live/now/dismiss", leg="leg_1")
    assert call.party.asked == [
        ("invite", "+14155550177", "whisper"), ("change", "leg_1", "speak"), ("dismiss", "leg_1"),
    ]  # fmt: skip
    assert house.known == ["+14155550177"]
    assert house.post("live/now/listen", to="911").status_code == 409


def test_hands_are_for_those_who_may_and_for_pages_of_their_session(house: House) -> None:
    call = house.on_the_line(started("now"))
    for act in ("hang-up", "hold", "resume", "transfer", "take-back", "listen", "change", "dismiss"):
        assert house.post(f"live/now/{act}", "viewer").status_code == 403
        assert house.post(f"live/now/{act}", csrf="").status_code == 403
        assert house.post(f"live/now/{act}", csrf="of-another").status_code == 403
    assert call.asked == []
    assert call.party.asked == []
    assert '<form method="post" action="/console/live' not in house.get("live/now", "viewer")


def test_a_call_that_is_over_leads_to_its_record(house: House) -> None:
    house.happened(*WHOLE)
    answer = house.client.get("/console/live/whole", headers={"as": "viewer"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/calls/whole")


def told(pages: LivePages, role: Role, entries: list[RecordEvent], only: str | None = None) -> list[str]:
    """What a browser of this role would get of them."""
    feed: Any = pages._feed

    async def scenario() -> list[str]:
        listener = feed.listen(DEFAULT_TENANT)
        stream = pages._as_it_happens(
            listener, Principal(DEFAULT_TENANT, "user:ann", ROLES[role], role), CallId(only) if only else None
        )
        found = [await anext(stream)]
        for entry in entries:
            feed.append(entry)
        while True:
            try:
                async with asyncio.timeout(0.05):
                    part = await anext(stream)
            except (TimeoutError, StopAsyncIteration):
                break
            if not part.startswith(":"):
                found.append(part)
        await cast(Any, stream).aclose()
        assert feed._listeners == ()
        return found

    return asyncio.run(scenario())


def live_pages(switchboard: Switchboard) -> LivePages:
    feed = CallFeed(SimpleNamespace(append=lambda event: None))
    clock = ManualClock(wall=AT)
    return LivePages(Pages(), cast(Any, switchboard), cast(Any, None), feed, switchboard.call, cast(Any, None), clock)


def test_what_happens_is_told_as_whoever_looks_may_see_it() -> None:
    switchboard = Switchboard()
    begun = started("now")
    switchboard.calls["now"] = Call(begun)
    entries: list[RecordEvent] = [
        begun, started("foreign", "other"), event("now", 1, "answered"), turn("now", 2, "my tooth", EVIL),
        turn("foreign", 2, "secret", "secret"), CallEnded(CallId("now"), AT, "caller_hung_up"),
    ]  # fmt: skip
    heard = "".join(told(live_pages(switchboard), "supervisor", entries))
    kinds = re.findall(r"event: (\S+)", heard)
    assert kinds == ["call.started", "call.event", "call.turn", "call.ended"]
    assert ANNA in heard
    assert "my tooth" in heard
    assert "secret" not in heard
    assert '"why": "the caller hung up"' in heard
    seen = "".join(told(live_pages(switchboard), "viewer", entries))
    assert re.findall(r"event: (\S+)", seen) == kinds
    assert ANNA not in seen
    assert "tooth" not in seen
    assert "script" not in seen
    assert "+14155•" in seen
    assert told(live_pages(switchboard), "viewer", entries, "another")[1:] == []


def test_a_browser_that_does_not_read_loses_the_oldest_and_is_told() -> None:
    switchboard = Switchboard()
    begun = started("now")
    switchboard.calls["now"] = Call(begun)
    entries: list[RecordEvent] = [begun, *(event("now", number, "answered") for number in range(QUEUE + 9))]
    found = told(live_pages(switchboard), "admin", entries)
    assert found[1] == 'event: dropped\ndata: {"count": 10}\n\n'
    assert len(found) == 2 + QUEUE
