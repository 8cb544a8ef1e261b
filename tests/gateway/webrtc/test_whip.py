"""The HTTP side and the desk behind it, with wires that carry nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

pytest.importorskip("av", reason="libopus comes with the extra webrtc")

from starlette.applications import Starlette

from trunkline.gateway.joining import Joining
from trunkline.gateway.webrtc import ice, rtp
from trunkline.gateway.webrtc.desk import DeskTerms, WebRtcDesk
from trunkline.gateway.webrtc.opus import SILENCE
from trunkline.gateway.webrtc.outgoing import webrtc_lead
from trunkline.gateway.webrtc.sdp import Fingerprint
from trunkline.gateway.webrtc.whip import whip_routes
from trunkline.gateway.webrtc.wire import Here, Paths
from trunkline.ports import Refuse
from trunkline.testing.board import Board, play
from trunkline.types import SessionId, TenantId

from .test_sdp import CHROME

OFFER, SDP = CHROME.encode(), {"Content-Type": "application/sdp"}
FRAGMENT = "application/trickle-ice-sdpfrag"
CANDIDATE = b"m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2 192.0.2.9 5000 typ host\r\n"


class FakeWire:
    def __init__(self) -> None:
        self.candidates: list[str] = []
        self.sink: Any = None
        self.is_closed = False

    async def gather(self, paths: Any, given: Any) -> Here:
        await asyncio.sleep(0.01)
        return Here("ours", "p" * 22, Fingerprint("sha-256", "AB:CD"), ("1 1 udp 1 192.0.2.1 20000 typ host",))

    def start(self, offer: Any, connect_s: float, sink: Any) -> None:
        self.sink = sink

    def add_candidates(self, candidates: Any, *, end: bool) -> None:
        self.candidates += candidates

    def send(self, packet: bytes) -> None: ...

    def send_control(self, packet: bytes) -> None: ...

    def tell(self, message: str) -> bool:
        return True

    def close(self, linger_s: float = 0.0) -> None:
        self.is_closed = True

    async def closed(self) -> None: ...


class Sessions:
    """A Verifier with one token."""

    async def join(self, token: str) -> Joining | Refuse:
        if token == "away":
            return Refuse("sessions_away", "the store is away")
        if token != "good":
            return Refuse("token_used", "this token was used")
        return Joining(
            SessionId("s1"), TenantId("default"), "lamp", "owner", "", needs_arming=True, resume_token="again"
        )

    async def check(self, token: str) -> Refuse | None:
        return None if token == "good" else Refuse("token_expired", "this token has expired")


class Door:
    def __init__(self, board: Board, **terms: Any) -> None:
        self.board, self.wires = board, list[FakeWire]()
        given: dict[str, Any] = {"paths": Paths(), "lead": webrtc_lead(), "max_connecting": 5}
        given |= {"media_timeout_s": 10.0, "anonymous": True} | terms
        self.desk = WebRtcDesk(board.switchboard, Sessions(), self._wire, DeskTerms(**given), board.clock)
        app = Starlette(routes=[*whip_routes(self.desk, ["https://shop.example"], "http://127.0.0.1:8080")])
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")

    def _wire(self) -> Any:
        self.wires.append(FakeWire())
        return self.wires[-1]

    async def offer(self, body: bytes = OFFER, token: str = "", **headers: str) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.post("/whip", content=body, headers=SDP | bearer | headers)


def at_the_door(scenario: Callable[[Door], Coroutine[Any, Any, None]], max_calls: int = 10, **terms: Any) -> Board:
    async def with_door(board: Board) -> None:
        door = Door(board, **terms)
        try:
            await scenario(door)
        finally:
            await door.desk.close()
            await door.http.aclose()

    return play(Board(max_calls), with_door)


def test_an_offer_is_answered_with_where_and_which() -> None:
    async def scenario(door: Door) -> None:
        response = await door.offer()
        assert response.status_code == 201
        assert response.headers["content-type"] == "application/sdp"
        assert response.headers["location"].startswith("/whip/")
        assert response.headers["etag"].startswith('"')
        assert "a=candidate:1 1 udp 1 192.0.2.1 20000 typ host" in response.text
        door.wires[0].sink.connected()
        assert (door.board.switchboard.live_calls, len(door.board.attendants)) == (1, 1)
        assert (await door.http.delete(response.headers["location"])).status_code == 200
        assert (await door.http.delete(response.headers["location"])).status_code == 404
        assert door.wires[0].is_closed

    board = at_the_door(scenario)
    assert board.ends() == [("caller_hung_up", "")]


def test_what_comes_of_offers_and_legs_is_counted() -> None:
    async def scenario(door: Door) -> None:
        await door.offer()
        await door.offer()
        await door.offer(b"hello")
        await door.offer(token="stale")
        first, second = (wire.sink for wire in door.wires[:2])
        first.connected()
        door.desk.measure()
        counted = metrics_of(door)
        assert counted('legs{state="connecting"}') == counted('legs{state="connected"}') == 1
        first.packet(rtp.write(111, 1, 960, 9, SILENCE, marker=False))
        first.packet(rtp.write(111, 4, 3840, 9, SILENCE, marker=False))
        door.board.clock.advance(1)
        first.packet(rtp.write(111, 5, 4800, 9, b"", marker=False))
        first.gone("the far end has closed it", in_order=True)
        second.gone("ICE did not complete within 10 s")
        door.desk.measure()
        counted = metrics_of(door)
        assert counted('legs{state="connecting"}') == counted('legs{state="connected"}') == 0
        assert counted('offers_total{outcome="opened"}') == 2
        assert counted('offers_total{outcome="malformed"}') == counted('offers_total{outcome="token_used"}') == 1
        assert counted('unreached_total{phase="ice"}') == 1
        assert counted('packets_total{fate="received"}') == 3
        assert counted('packets_total{fate="undecodable"}') == 1
        assert counted("jitter_seconds_count") == 1

    at_the_door(scenario)


def metrics_of(door: Door) -> Callable[[str], float]:
    lines = door.board.switchboard.metrics.text().decode().splitlines()
    return lambda name: float(next(line.split()[-1] for line in lines if line.startswith(f"trunkline_webrtc_{name} ")))


def test_candidates_trickle_in_by_the_etag() -> None:
    async def scenario(door: Door) -> None:
        response = await door.offer()
        where, etag = response.headers["location"], response.headers["etag"]

        async def patch(match: str = "", body: bytes = CANDIDATE, kind: str = FRAGMENT) -> tuple[int, str]:
            headers = {"Content-Type": kind} | ({"If-Match": match} if match else {})
            answer = await door.http.patch(where, content=body, headers=headers)
            return answer.status_code, answer.json()["code"] if answer.content else ""

        assert await patch(etag) == (204, "")
        assert door.wires[0].candidates == ["1 1 udp 2 192.0.2.9 5000 typ host"]
        assert await patch() == (428, "no_etag")
        assert await patch('"other"') == (412, "wrong_etag")
        assert await patch("*") == (422, "no_restart")
        assert await patch(etag, b"a=ice-ufrag:newer\r\n" + CANDIDATE) == (422, "no_restart")
        assert await patch(etag, b"\xff") == (400, "malformed")
        assert await patch(etag, kind="text/plain") == (415, "not_sdp")

    at_the_door(scenario)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"hello", 400, "malformed"),
        (OFFER[: OFFER.index(b"m=audio")], 422, "no_audio"),
        (OFFER.replace(b"opus/48000/2", b"speex/16000"), 422, "no_codec"),
        (OFFER + b"a=" + b"x" * 40_000, 413, "too_large"),
    ],
)
def test_a_bad_offer_is_a_problem_and_no_call(body: bytes, status: int, code: str) -> None:
    async def scenario(door: Door) -> None:
        response = await door.offer(body)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.headers["content-type"] == "application/problem+json"
        assert door.wires == []

    assert at_the_door(scenario).records == []


def test_no_more_connect_at_once_than_may() -> None:
    async def scenario(door: Door) -> None:
        answers = await asyncio.gather(*(door.offer() for _ in range(50)))
        codes = [answer.status_code for answer in answers]
        assert (codes.count(201), codes.count(503)) == (5, 45)
        assert next(a for a in answers if a.status_code == 503).headers["retry-after"] == "2"
        door.wires[0].sink.connected()  # makes room for one
        assert [(await door.offer()).status_code for _ in range(2)] == [201, 503]

    at_the_door(scenario)


def test_a_full_or_leaving_gateway_says_when_to_try_again() -> None:
    async def scenario(door: Door) -> None:
        assert (await door.offer()).status_code == 201
        full = await door.offer()
        assert (full.status_code, full.json()["code"]) == (503, "overloaded")
        door.board.switchboard.draining = True
        assert (await door.offer()).json()["code"] == "draining"

    at_the_door(scenario, max_calls=1)


def test_a_token_is_asked_for_where_others_could_reach_us() -> None:
    async def scenario(door: Door) -> None:
        refused = await door.offer()
        assert (refused.status_code, refused.json()["code"]) == (401, "no_token")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert (await door.offer(token="used")).json()["code"] == "token_used"
        assert (await door.offer(token="away")).status_code == 503
        assert (await door.offer(token="good")).status_code == 201
        call = next(iter(door.board.switchboard._calls.values()))
        assert call.arrival.attributes["device_id"] == "lamp"
        assert all(wire.is_closed for wire in door.wires[:-1])

    at_the_door(scenario, anonymous=False)


def test_another_name_for_this_machine_is_no_loopback() -> None:
    async def scenario(door: Door) -> None:
        assert (await door.offer(Host="rebound.example")).status_code == 401

    at_the_door(scenario)


def test_pages_of_other_sites_are_let_in_by_the_list() -> None:
    async def scenario(door: Door) -> None:
        assert (await door.offer(Origin="https://evil.example")).status_code == 403
        own = await door.offer(Origin="http://127.0.0.1:8080")
        assert own.status_code == 201
        shop = await door.offer(Origin="https://shop.example")
        assert shop.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Location" in shop.headers["access-control-expose-headers"]
        asked = await door.http.options("/whip", headers={"Origin": "https://shop.example"})
        assert asked.status_code == 204
        assert "PATCH" in asked.headers["access-control-allow-methods"]
        assert "If-Match" in asked.headers["access-control-allow-headers"]

    at_the_door(scenario)


def test_devices_are_told_of_the_relays_with_credentials_that_end() -> None:
    async def scenario(door: Door) -> None:
        link = (await door.offer()).headers["link"]
        assert link.startswith('<turn:relay.example>; rel="ice-server"; username="')
        expiry = int(link.partition('username="')[2].partition(":")[0])
        assert 3500 < expiry - door.board.clock.wall().timestamp() <= 3600

    at_the_door(scenario, paths=Paths(servers=(ice.read("turn:relay.example"),)), turn_secret="s")


def test_a_leg_that_falls_silent_is_lost() -> None:
    async def scenario(door: Door) -> None:
        await door.offer()
        door.wires[0].sink.connected()
        await asyncio.sleep(9)
        assert door.desk.legs == 1
        await asyncio.sleep(2)
        assert door.desk.legs == 0

    assert at_the_door(scenario).ends() == [("media_lost", "no media")]


def test_what_never_connects_leaves_a_record() -> None:
    async def scenario(door: Door) -> None:
        await door.offer()
        door.wires[0].sink.gone("ICE did not complete within 10 s")
        assert door.desk.legs == 0

    assert at_the_door(scenario).ends() == [("never_started", "ICE did not complete within 10 s")]


def test_another_type_is_not_read() -> None:
    async def scenario(door: Door) -> None:
        response = await door.http.post("/whip", content=OFFER, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.headers["accept-post"]) == (415, "application/sdp")

    at_the_door(scenario)


def test_who_may_call_learns_the_servers_before_the_offer_and_nobody_else() -> None:
    async def scenario(door: Door) -> None:
        mine = {"Authorization": "Bearer good"}
        told = await door.http.options("/whip", headers=mine)
        assert (told.status_code, told.headers["accept-post"]) == (204, "application/sdp")
        assert "credential=" in told.headers["link"]
        late = await door.http.options("/whip", headers={"Authorization": "Bearer late"})
        assert (late.status_code, late.json()["code"], "link" in late.headers) == (401, "token_expired", False)
        for headers in ({}, mine | {"Access-Control-Request-Method": "OPTIONS", "Origin": "https://shop.example"}):
            nobody = await door.http.options("/whip", headers=headers)
            assert (nobody.status_code, "link" in nobody.headers) == (204, False)

    at_the_door(scenario, paths=Paths(servers=(ice.read("turn:relay.example"),)), turn_secret="s", anonymous=False)


def test_where_the_gateway_is_open_only_a_loopback_name_learns_the_servers() -> None:
    async def scenario(door: Door) -> None:
        assert "credential=" in (await door.http.options("/whip")).headers["link"]
        rebound = await door.http.options("/whip", headers={"Host": "evil.example"})
        assert "link" not in rebound.headers

    at_the_door(scenario, paths=Paths(servers=(ice.read("turn:relay.example"),)), turn_secret="s")


def test_the_answer_brings_the_token_for_the_next_time_where_there_is_a_session() -> None:
    async def scenario(door: Door) -> None:
        assert (await door.offer(token="good")).headers["resume-token"] == "again"
        assert "resume-token" not in (await door.offer()).headers

    at_the_door(scenario)


def test_a_second_way_in_that_never_connects_leaves_the_live_call_alone() -> None:
    async def scenario(door: Door) -> None:
        await door.offer(token="good")
        door.wires[0].sink.connected()
        second = await door.offer(token="good")
        await door.http.delete(second.headers["location"])
        await door.offer(token="good")
        door.wires[2].sink.gone("ICE did not complete within 10 s")
        assert door.board.switchboard.live_calls == 1

    assert at_the_door(scenario).ends() != [("caller_hung_up", "")]
