"""Peers that must show a password, and those that guess it."""

import re
import time
from typing import Any

import pytest

from trunkline.testing.caller.sip import digest

pytestmark = pytest.mark.e2e

RIGHT, WRONG = digest.Credentials("pbx", "correct-horse"), digest.Credentials("pbx", "battery-staple")


AUTH_URI = "+15005550001@127.0.0.1:{}"


@pytest.fixture
def gateway(sip_gateway: Any) -> Any:
    return sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__username="pbx",
        sip__trunks__pbx__password=RIGHT.password,
        sip__trunks__pbx__digest_algorithms="SHA-256, MD5",
    )


def challenges(message: Any) -> list[str]:
    return re.findall(r"^WWW-Authenticate:[ \t]*(.*)$", message.text, re.M | re.I)


def attempt(wire: Any, who: digest.Credentials, number: int, algorithm: str = "SHA-256", uri: str | None = None) -> Any:
    """An INVITE with credentials for a fresh challenge; its final answer, None without one."""
    call_id = f"{wire.call_id}-{number}"
    wire.send(wire.request("INVITE", 1, call_id=call_id, body=wire.sdp()))
    challenge = wire.receive(1.0)
    if challenge is None:
        return None
    assert challenge.start == "SIP/2.0 401 Unauthorized"
    wire.send(wire.request("ACK", 1, call_id=call_id, tag=challenge.to_tag))
    asked = digest.choose([one for one in challenges(challenge) if f"algorithm={algorithm}" in one.replace('"', "")])
    assert asked is not None
    uri = uri or f"sip:+15005550001@127.0.0.1:{wire.to[1]}"
    shown = digest.authorization(asked, who, "INVITE", uri, "cnonce")
    wire.send(wire.request("INVITE", 2, call_id=call_id, body=wire.sdp(), authorization=shown))
    while (answer := wire.receive(1.0)) is not None:
        if not answer.start.startswith("SIP/2.0 1"):
            wire.send(wire.request("ACK", 2, call_id=call_id, tag=answer.to_tag))
            return answer
    return None


def test_the_right_password_lets_a_call_in(sip_gateway: Any, sipp: Any, phone: Any) -> None:
    """Of a device that knows MD5 alone: nothing else is offered unless it is wished."""
    gateway = sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__username="pbx",
        sip__trunks__pbx__password=RIGHT.password,
    )
    script = """
    > INVITE sdp
    < 401 auth
    > ACK
    > INVITE early sdp @shown
    < 100
    < 180
    < 200
    > ACK 2xx
    . 1500
    > BYE
    < 200
    """
    texts = {"shown": f"[authentication username={RIGHT.username} password={RIGHT.password}]"}
    run = sipp.call(gateway, script, phone, texts=texts, options=("-auth_uri", AUTH_URI.format(gateway.sip_port))).ok()
    assert RIGHT.password not in run.got("401").text
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("arrived")["trunk"] == "pbx"
    assert RIGHT.password not in gateway.log
    gateway.is_well()


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_each_algorithm_that_is_offered_is_taken(gateway: Any, wires: Any, algorithm: str) -> None:
    wire = wires(gateway)
    wire.send(wire.request("INVITE", 1, body=wire.sdp()))
    offered = challenges(wire.until(401, "INVITE"))
    assert [one.rpartition("algorithm=")[2].partition(",")[0].strip('"') for one in offered] == ["SHA-256", "MD5"]
    assert attempt(wire, RIGHT, 1, algorithm).start == "SIP/2.0 200 OK"
    assert attempt(wire, WRONG, 2, algorithm).start == "SIP/2.0 403 Forbidden"
    gateway.is_well()


@pytest.mark.parametrize("elsewhere", ["sip:+15005550002@127.0.0.1:{}", "sip:+15005550001@127.0.0.2:{}", "nonsense"])
def test_credentials_for_another_number_are_refused(gateway: Any, wires: Any, elsewhere: str) -> None:
    """Overheard, they must not let somebody dial where they like."""
    wire = wires(gateway)
    for number in range(8):  # and that is no guessing
        answer = attempt(wire, RIGHT, number, uri=elsewhere.format(wire.to[1]))
        assert answer.start == "SIP/2.0 400 Bad Request"
    gateway.until(lambda: gateway.metric("trunkline_sip_turned_away_total") >= 8)
    assert attempt(wire, RIGHT, 9).start == "SIP/2.0 200 OK"
    gateway.is_well()


def test_an_algorithm_that_was_not_offered_is_asked_again(sip_gateway: Any, wires: Any) -> None:
    gateway = sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__username="pbx",
        sip__trunks__pbx__password=RIGHT.password,
        sip__trunks__pbx__digest_algorithms="SHA-256",
    )
    wire = wires(gateway)
    wire.send(wire.request("INVITE", 1, body=wire.sdp()))
    (offered,) = challenges(wire.until(401, "INVITE"))
    asked = digest.parse_challenge(offered.replace("SHA-256", "MD5"))
    assert asked is not None
    uri = f"sip:+15005550001@127.0.0.1:{wire.to[1]}"
    shown = digest.authorization(asked, RIGHT, "INVITE", uri, "cnonce")
    wire.send(wire.request("INVITE", 2, body=wire.sdp(), authorization=shown))
    wire.until(401, "INVITE")
    gateway.is_well()


def test_guessing_becomes_slow_and_is_said_once(gateway: Any, wires: Any) -> None:
    wire = wires(gateway)
    heard = [attempt(wire, WRONG, number) for number in range(5)]
    assert {answer.start.split()[1] for answer in heard if answer} <= {"401", "403"}
    asked = time.monotonic()
    assert attempt(wire, RIGHT, 90) is None  # not even the right one: the source is not heard
    while (answer := attempt(wire, RIGHT, int(time.monotonic() * 100))) is None:
        assert time.monotonic() - asked < 8
    assert answer.start == "SIP/2.0 200 OK"
    said = re.findall(r".*wrong passwords from 127\.0\.0\.1.*", gateway.log)
    assert len(said) == 1
    assert WRONG.password not in gateway.log
    assert gateway.metric("trunkline_sip_turned_away_total") >= 5
    gateway.is_well()


def test_credentials_of_another_call_are_worth_nothing_for_long(gateway: Any, wires: Any) -> None:
    """A nonce that we did not give is asked again, not believed."""
    wire = wires(gateway)
    forged = digest.Challenge("trunkline", "1234567890.abcdef", qop=("auth",))
    shown = digest.authorization(forged, RIGHT, "INVITE", "sip:+15005550001@127.0.0.1", "cnonce")
    wire.send(wire.request("INVITE", 1, body=wire.sdp(), authorization=shown))
    assert wire.until(401, "INVITE").header("WWW-Authenticate")
