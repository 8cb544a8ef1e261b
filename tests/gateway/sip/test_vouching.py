"""Who vouches, between INVITE and ringing: the desk, a CA of our own, and a web that answers, or does not."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from trunkline.compliance.stir import client
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.client import Certificates
from trunkline.compliance.stir.reasons import Rejected
from trunkline.gateway.sip import rereading, vouching
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import SipDesk
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.sip.vouching import WAIT_S, Vouching
from trunkline.testing.board import Board, play
from trunkline.testing.clock import ManualClock
from trunkline.testing.sipstack import ScriptedStack
from trunkline.testing.stir import X5U, Authority, Holder, claims

REQUIRE = Trunk("carrier", (ip_network("198.51.100.0/24"),), country="US", ping_s=0, stir="require")
OBSERVE = replace(REQUIRE, stir="observe")
CALLER, CALLED = "14155550123", "14155550100"


class Web:
    """Whom x5u leads to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.addresses = ["93.184.216.34"]
        self.response = response(404)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        await self.answers.wait()
        return self.addresses

    def get(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host in self.addresses  # the address that was judged, and no name
        status, content, headers = self.response
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))

    def client(self, *_: Any, **__: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.get))


def response(status: int, content: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, content, {name.replace("_", "-"): value for name, value in headers.items()}


class World(Board):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__(10)
        self.stack, self.trunk = ScriptedStack(), trunk
        self.desk: SipDesk
        self.web: Web
        self.authority: Authority
        self.signer: Holder

    def identity(self, signer: Holder | None = None, age_s: int = 0, **more: Any) -> str:
        iat = int(self.clock.wall().timestamp()) - age_s
        return f"Identity: {(signer or self.signer).identity(claims(CALLER, CALLED, iat) | more)}\r\n"

    def invited(self, headers: str = "", **how: Any) -> s.Handle:
        return self.stack.invite(headers=headers, **how)

    @property
    def turned_away(self) -> list[int]:
        return [told[2] for told in self.stack.told if told[0] == "refuse"]

    @property
    def rang(self) -> int:
        return sum(told[0] == "ring" for told in self.stack.told)

    @property
    def verdicts(self) -> list[tuple[str, str | None]]:
        return [(event["verdict"], event["reason"]) for event in self.events("stir")]


def run(monkeypatch: pytest.MonkeyPatch, trunk: Trunk, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> World:
    world = World(trunk)

    async def whole(here: World) -> None:
        here.web = web = Web()
        here.authority = Authority(here.clock.wall())
        here.signer = here.authority.holder()
        web.response = response(200, here.signer.pem)
        monkeypatch.setattr(
            client, "client", lambda *_, **__: httpx.AsyncClient(transport=httpx.MockTransport(web.get))
        )
        certificates = Certificates((here.authority.certificate,), here.clock, resolve=web.resolve)
        here.desk = SipDesk(
            here.stack,
            here.switchboard,
            [here.trunk],
            here.clock,
            media_timeout_s=10.0,
            vouching=Vouching(certificates, here.clock),
        )
        await here.desk.start()
        try:
            await scenario(here)
        finally:
            await here.desk.close()

    play(world, whole)
    return world


async def settled() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


def test_a_call_rings_when_its_certificate_is_there_and_the_next_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.web.answers.clear()
        here.invited(here.identity())
        await settled()
        assert here.rang == 0
        here.web.answers.set()
        await settled()
        assert here.rang == 1
        here.invited(here.identity(), call_id="two@test")
        assert here.rang == 2
        assert here.web.asked == ["cert.example.com"]
        assert here.verdicts == [("passed", None)] * 2

    run(monkeypatch, REQUIRE, scenario)


def test_a_caller_who_does_not_wait_for_the_verdict_is_over_and_can_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.web.answers.clear()
        handle = here.invited(here.identity())
        await settled()
        here.stack.over(handle, 487, "Request Terminated")  # CANCEL
        assert here.ends() == [("refused", "cancelled")]
        assert (here.rang, here.turned_away) == (0, [])
        here.web.answers.set()
        await settled()
        await asyncio.sleep(WAIT_S + 1)
        assert (here.rang, here.turned_away, here.attendants) == (0, [], [])  # the verdict came for nobody
        here.invited(here.identity())  # by the same Call-ID
        await settled()
        assert here.rang == 1

    run(monkeypatch, replace(REQUIRE, max_calls=1), scenario)


def test_an_invite_that_comes_twice_while_its_verdict_is_awaited_is_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.web.answers.clear()
        here.invited(here.identity())
        here.invited(here.identity())
        assert here.turned_away == [482]
        here.invited(here.identity(), call_id="two@test")
        assert here.turned_away == [482, 486]  # who is waited for counts

    run(monkeypatch, replace(REQUIRE, max_calls=1), scenario)


def test_all_that_wait_are_left_when_the_gateway_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.web.answers.clear()
        here.invited(here.identity())
        await settled()

    assert run(monkeypatch, REQUIRE, scenario).rang == 0


def test_a_web_that_does_not_answer_costs_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for trunk, refused, rang in ((REQUIRE, [436], 0), (OBSERVE, [], 1)):

        async def scenario(here: World, refused: list[int] = refused, rang: int = rang) -> None:
            here.web.answers.clear()
            began = here.clock.now()
            here.invited(here.identity())
            while not here.turned_away and not here.rang:
                await asyncio.sleep(0.05)
            assert here.clock.now() - began == pytest.approx(WAIT_S, abs=0.1)
            assert (here.turned_away, here.rang) == (refused, rang)
            assert here.verdicts == [("failed", "certificate_unavailable")]

        run(monkeypatch, trunk, scenario)


def x5u(url: str) -> Callable[[World], str]:
    def header(here: World) -> str:
        iat = int(here.clock.wall().timestamp())
        return f"Identity: {here.signer.identity(claims(CALLER, CALLED, iat), x5u=url)}\r\n"

    return header


def answered(given: tuple[int, bytes, dict[str, str]]) -> Callable[[World], str]:
    def header(here: World) -> str:
        here.web.response = given
        return here.identity()

    return header


def at_home(here: World) -> str:
    here.web.addresses = ["93.184.216.34", "10.0.0.7"]
    return here.identity()


def of_another_authority(here: World) -> str:
    here.web.response = response(200, Authority(here.clock.wall()).holder().pem)
    return here.identity()


def expired(here: World) -> str:
    old = here.authority.holder(valid=(timedelta(days=-9), timedelta(days=-1)))
    here.web.response = response(200, old.pem)
    return here.identity(old)


def forged(here: World) -> str:
    return here.identity(Holder(ec.generate_private_key(ec.SECP256R1()), here.signer.chain))


@pytest.mark.parametrize(
    ("headers", "answer", "reason"),
    [
        (lambda here: "", 428, "no_identity"),
        (x5u("http://cert.example.com/sp.pem"), 436, "bad_x5u"),
        (x5u("https://cert.example.com:22/sp.pem"), 436, "bad_x5u"),
        (at_home, 436, "bad_x5u"),
        (answered(response(302, location=X5U)), 436, "certificate_unavailable"),
        (answered(response(404)), 436, "certificate_unavailable"),
        (answered(response(200, b"x" * 65_537)), 436, "certificate_unavailable"),
        (answered(response(200, b"x", content_encoding="gzip")), 436, None),
        (answered(response(200, b"no certificate")), 437, "bad_certificate"),
        (of_another_authority, 437, "untrusted_certificate"),
        (expired, 437, "expired_certificate"),
        (lambda here: here.identity().replace("alg=ES256", "alg=none"), 437, "unsupported_alg"),
        (forged, 438, "bad_signature"),
        (lambda here: here.identity(age_s=61), 403, "stale"),
        (lambda here: here.identity(orig={"tn": "14155550999"}), 438, "orig_mismatch"),
        (lambda here: here.identity() * 9, 438, "too_many_headers"),
        (lambda here: f"Identity: {'x' * 9000}\r\n", 438, "malformed_header"),
    ],
)
def test_what_each_is_refused_with_by_a_trunk_that_requires_and_none_by_one_that_observes(
    monkeypatch: pytest.MonkeyPatch, headers: Callable[[World], str], answer: int, reason: str | None
) -> None:
    async def required(here: World) -> None:
        here.invited(headers(here))
        await settled()
        assert (here.turned_away, here.rang) == ([answer], 0)
        assert here.ends() == [("refused", f"stir_{answer}")]
        assert reason is None or here.verdicts[0][1] == reason

    async def observed(here: World) -> None:
        here.invited(headers(here))
        await settled()
        assert (here.turned_away, here.rang) == ([], 1)

    run(monkeypatch, REQUIRE, required)
    run(monkeypatch, OBSERVE, observed)


def test_a_certificate_that_was_renewed_where_it_was_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache-Control may say thirty days; the certificate has an hour left."""

    async def scenario(here: World) -> None:
        soon = here.authority.holder(valid=(timedelta(days=-1), timedelta(hours=1)))
        forever = {"cache_control": "max-age=2592000"}
        here.web.response = response(200, soon.pem, **forever)
        here.invited(here.identity(soon), call_id="1@test")
        await settled()
        here.clock.advance(3601)
        here.web.response = response(200, here.signer.pem, **forever)
        here.invited(here.identity(), call_id="2@test")
        await settled()
        here.clock.advance(86_400)
        here.invited(here.identity(), call_id="3@test")
        await settled()
        assert here.verdicts == [("passed", None)] * 3
        assert len(here.web.asked) == 2

    run(monkeypatch, REQUIRE, scenario)


def test_what_proved_nothing_is_asked_for_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.web.response = response(200, Authority(here.clock.wall()).holder().pem)
        here.invited(here.identity(), call_id="1@test")
        await settled()
        here.web.response = response(200, here.signer.pem)
        here.invited(here.identity(), call_id="2@test")
        await settled()
        assert len(here.web.asked) == 1
        here.clock.advance(client.NOT_AGAIN_S + 1)
        here.invited(here.identity(), call_id="3@test")
        await settled()
        assert [verdict for verdict, _ in here.verdicts] == ["failed", "failed", "passed"]

    run(monkeypatch, REQUIRE, scenario)


# --- the anchors, while it runs -------------------------------------------------------------------------------------


def test_new_anchors_are_in_force_soon_and_broken_ones_leave_the_last_good_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rereading, "READ_AGAIN_S", 0.01)
    caplog.set_level(logging.INFO, vouching.__name__)
    clock = ManualClock()
    ours, theirs = Authority(clock.wall()), Authority(clock.wall())
    signer, file = theirs.holder(), tmp_path / "ca.pem"
    file.write_bytes(ours.pem)
    written = iter(range(1, 100))

    def write(content: bytes) -> None:
        file.write_bytes(content)
        os.utime(file, ns=(0, next(written)))

    async def logged(words: str) -> None:
        async with asyncio.timeout(10):
            while words not in caplog.text:
                await asyncio.sleep(0.01)
        caplog.clear()

    async def scenario() -> None:
        web = Web()
        web.response = response(200, signer.pem)
        monkeypatch.setattr(
            client, "client", lambda *_, **__: httpx.AsyncClient(transport=httpx.MockTransport(web.get))
        )
        certificates = Certificates((ours.certificate,), clock, resolve=web.resolve)
        watching = Vouching(certificates, clock, trust=tmp_path)
        watching.start()
        await asyncio.sleep(0.1)
        assert isinstance(await certificates.fetch(X5U), Rejected)
        write(ours.pem + theirs.pem)
        await logged("2 trust anchors are in force")
        assert isinstance(certificates.kept(X5U), Credential)  # what was kept is judged again
        for broken in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", theirs.pem[:-40]):
            write(broken)
            await logged("the trust anchors read last stay in force: stir.trust")
            assert isinstance(certificates.kept(X5U), Credential)
        file.unlink()
        await logged("the trust anchors read last stay in force: stir.trust")
        write(ours.pem)
        await logged("1 trust anchors are in force")
        assert isinstance(certificates.kept(X5U), Rejected)
        await watching.close()

    asyncio.run(scenario())


# --- carriers' words ------------------------------------------------------------------------------------------------

PAI = "P-Asserted-Identity: <sip:+14155550123{0}@carrier.example>\r\n"


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        (PAI.format(";verstat=TN-Validation-Passed"), ("passed", None)),
        (PAI.format(";verstat=TN-Validation-Failed"), ("failed", "carrier_failed")),
        (PAI.format(";verstat=No-TN-Validation"), ("none", "carrier_none")),
        (PAI.format(""), ("none", "carrier_silent")),
        (PAI.format(";verstat=tn-validation-passed"), ("none", "carrier_unknown")),
        (
            PAI.format(";verstat=TN-Validation-Passed") + PAI.format(";verstat=No-TN-Validation"),
            ("none", "carrier_unknown"),
        ),
    ],
)
@pytest.mark.parametrize("caller", ["", ";verstat=TN-Validation-Passed"])
def test_the_carriers_word_is_in_what_it_asserted_not_in_what_the_caller_wrote(
    monkeypatch: pytest.MonkeyPatch, headers: str, verdict: tuple[str, str | None], caller: str
) -> None:
    async def scenario(here: World) -> None:
        here.invited(headers, caller=f"<sip:+14155550123{caller}@198.51.100.7>;tag=a")
        assert here.verdicts == [verdict]
        assert here.events("stir")[0]["source"] == "pai"

    run(monkeypatch, replace(REQUIRE, stir="off", verstat="pai"), scenario)


def test_nobodys_word_is_taken_where_the_trunk_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.invited(PAI.format(";verstat=TN-Validation-Passed") + "X-Twilio-VerStat: TN-Validation-Passed-A\r\n")
        assert here.events("stir") == []

    run(monkeypatch, replace(REQUIRE, stir="off"), scenario)


def test_our_own_eyes_come_before_the_carriers_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: World) -> None:
        here.invited(forged(here) + PAI.format(";verstat=TN-Validation-Passed"))
        await settled()
        assert here.verdicts == [("failed", "bad_signature")]
        assert here.turned_away == [438]

    run(monkeypatch, replace(REQUIRE, verstat="pai"), scenario)
