"""Peers that must show a password, and those that guess it."""

import re
import time
from typing import Any

import pytest

from trunkline.testing.caller.sip import digest

pytestmark = pytest.mark.e2e

RIGHT, WRONG = digest.Credentials("pbx", "correct-horse"), digest.Credentials("pbx", "battery-staple")
URI = "sip:+15005550001@127.0.0.1"


@pytest.fixture
def gateway(sip_gateway: Any) -> Any:
    return sip_gateway(
        sip__trunks__pbx__peers="127.0.0.1/32",
        sip__trunks__pbx__username="pbx",
        sip__trunks__pbx__password=RIGHT.password,
    )


def attempt(wire: Any, who: digest.Credentials, number: int) -> Any:
    """An INVITE with credentials for a fresh challenge; its final answer, None without one."""
    call_id = f"{wire.call_id}-{number}"
    wire.send(wire.request("INVITE", 1, call_id=call_id, body=wire.sdp()))
    challenge = wire.receive(1.0)
    if challenge is None:
        return None
    assert challenge.start == "SIP/2.0 401 Unauthorized"
    wire.send(wire.request("ACK", 1, call_id=call_id, tag=challenge.to_tag))
    asked = digest.choose([challenge.header("WWW-Authenticate")])
    assert asked is not None
    shown = digest.authorization(asked, who, "INVITE", URI, "cnonce")
    wire.send(wire.request("INVITE", 2, call_id=call_id, body=wire.sdp(), authorization=shown))
    while (answer := wire.receive(1.0)) is not None:
        if not answer.start.startswith("SIP/2.0 1"):
            wire.send(wire.request("ACK", 2, call_id=call_id, tag=answer.to_tag))
            return answer
    return None


def test_the_right_password_lets_a_call_in(gateway: Any, sipp: Any, phone: Any) -> None:
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
    run = sipp.call(gateway, script, phone, texts=texts).ok()
    assert RIGHT.password not in run.got("401").text
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("arrived")["trunk"] == "pbx"
    assert RIGHT.password not in gateway.log
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
    shown = digest.authorization(forged, RIGHT, "INVITE", URI, "cnonce")
    wire.send(wire.request("INVITE", 1, body=wire.sdp(), authorization=shown))
    assert wire.until(401, "INVITE").header("WWW-Authenticate")
