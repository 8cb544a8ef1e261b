"""The ways to a target, over the wire: trunk after trunk, target after target, and who answers there. sipp is the
caller and the targets."""

import asyncio
import re
import time
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.testing.caller.speech import synthesize, to_frames
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

CALLS = """
> INVITE sdp @timer
<? 100
<? 180
< 200
> ACK 2xx
"""
LEAVES, IS_LEFT = "> BYE\n< 200\n", "< BYE\n> 200 plain\n"
ANSWERS = "< INVITE\n> 100\n> 180\n. 200\n> 200 sdp\n< ACK\n"
RINGS = "< INVITE\n> 100\n> 180\n< CANCEL\n> 200\n> 487 invite\n< ACK\n"
CANNOT = "< INVITE\n> 503\n< ACK"
BUSY = "< INVITE\n> 100\n> 180\n. 200\n> 486\n< ACK"
TEXTS = {"timer": "Supported: timer"}


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return lease(), lease()


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, ports: tuple[int, int], pytestconfig: Any) -> Any:
    return shared_sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "terms.toml",
        outbound__allow="US",
        limits__max_calls="3",
        sip__trunks__old__peers="127.0.0.1/32",
        sip__trunks__old__profile="strict",
        sip__trunks__cheap__host=f"127.0.0.1:{ports[0]}",
        sip__trunks__cheap__ping_s="0",
        sip__trunks__cheap__caller_id="+14155550101",
        sip__trunks__cheap__media_peers="127.0.0.1/32",
        sip__trunks__cheap__cost_per_minute="0.01",
        sip__trunks__dear__host=f"127.0.0.1:{ports[1]}",
        sip__trunks__dear__ping_s="0",
        sip__trunks__dear__caller_id="+14155550102",
        sip__trunks__dear__media_peers="127.0.0.1/32",
        sip__trunks__dear__cost_per_minute="0.05",
    )


def asks(gateway: Any, sipp: Any, phone: Any, script: str) -> Any:
    """A caller who presses 0 at the greeting."""
    run = sipp.call(gateway, CALLS + script, phone, texts=TEXTS, options=("-timeout", "40"))
    phone.until(lambda: phone.loud() > 5)
    phone.key("0")
    return run


def call_id_of(gateway: Any, run: Any) -> str:
    name = run.messages()[0].header("Call-ID")
    return str(next(c["id"] for c in gateway.calls() if c["provider_call_id"] == name))


def record_of(gateway: Any, run: Any) -> Any:
    return gateway.ended(run.messages()[0].header("Call-ID"))


def invites(run: Any) -> list[str]:
    found = [m for m in run.messages() if m.received and m.start.startswith("INVITE")]
    return list(dict.fromkeys(m.start.split("@")[0].removeprefix("INVITE sip:") for m in found))


def attempts(record: Any) -> list[tuple[str, str, str]]:
    found = [e["data"] for e in record["events"] if e["kind"] == "transfer_attempt"]
    return [(one["target"], one["how"], one["result"]) for one in found]


def of_kind(record: Any, kind: str, key: str) -> list[Any]:
    return [e["data"][key] for e in record["events"] if e["kind"] == kind]


def greeting() -> bytes:
    t = np.arange(3200) / 8000
    beep = (0.25 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    said = asyncio.run(synthesize("You have reached the desk. Nobody is here now. Please leave a message."))
    return b"".join(to_frames(np.concatenate([said, np.zeros(5600, np.float32), beep])))


def test_the_target_is_dialled_over_the_next_trunk_when_the_first_cannot(
    gateway: Any, sipp: Any, phones: Any, ports: tuple[int, int]
) -> None:
    caller, target = phones(), phones()
    first = sipp.answer(ports[0], CANNOT)
    second = sipp.answer(ports[1], ANSWERS + IS_LEFT, target)
    run = asks(gateway, sipp, caller, ". 4000\n" + LEAVES)
    first.ok()
    second.until(lambda: second.has("ACK"))
    run.ok()
    second.ok()
    assert invites(first) == invites(second) == ["+14155550177"]
    record = record_of(gateway, run)
    assert attempts(record) == [("desk", "bridged", "transferred")]
    assert of_kind(record, "leg_dialled", "trunk") == ["cheap", "dear"]
    assert of_kind(record, "leg_failed", "provider_code") == ["sip:503"]
    assert "sip:+14155550102@" in second.got("INVITE").header("From")
    gateway.is_well()


def test_a_target_that_is_busy_has_a_fallback_that_is_briefed_in_its_own_words(
    gateway: Any, sipp: Any, phones: Any, ports: tuple[int, int]
) -> None:
    """One telephone after the other: the porter's INVITE comes when the desk's is over."""
    caller, porter = phones(), phones()
    desk = sipp.answer(ports[0], BUSY)
    run = asks(gateway, sipp, caller, ". 11000\n" + LEAVES)
    desk.ok()
    again = sipp.answer(ports[0], ANSWERS + IS_LEFT, porter)
    porter.until(lambda: porter.loud() > 50)
    keys = re.search(r"a=rtpmap:(\d+) telephone-event", again.got("INVITE").text)
    assert keys is not None
    porter.keys_type = int(keys[1])
    porter.key("1")
    again.until(lambda: again.has("ACK"))
    run.ok(20)
    again.ok()
    assert (invites(desk), invites(again)) == (["+14155550177"], ["+14155550178"])
    assert attempts(record_of(gateway, run)) == [("desk", "bridged", "busy"), ("porter", "warm", "transferred")]
    gateway.is_well()


def test_a_voicemail_gives_the_caller_back_out_of_the_conversation(
    gateway: Any, sipp: Any, phones: Any, ports: tuple[int, int]
) -> None:
    caller, target = phones(), phones()
    said = greeting()
    machine = sipp.answer(ports[0], ANSWERS + IS_LEFT, target)
    run = asks(gateway, sipp, caller, ". 15000\n" + LEAVES)
    machine.until(lambda: machine.has("ACK"))
    began = time.monotonic()
    target.say(said)
    machine.ok()
    assert time.monotonic() - began < len(said) / 8000 + 1.5
    run.ok(20)
    record = record_of(gateway, run)
    assert attempts(record) == [("desk", "bridged", "transferred")]
    assert of_kind(record, "answered_by", "who")[-1] in ("machine_start", "machine_end_beep")
    assert "I only reached their voicemail" in record["turns"][-1]["agent_text"]
    assert record["end_reason"] == "caller_hung_up"
    gateway.is_well()


def test_a_queue_may_speak_as_long_as_it_wants(gateway: Any, sipp: Any, phones: Any, ports: tuple[int, int]) -> None:
    caller, target = phones(), phones()
    said = greeting()
    queue = sipp.answer(ports[0], ANSWERS + IS_LEFT, target)
    run = sipp.call(gateway, CALLS + ". 12000\n" + LEAVES, caller, texts=TEXTS)
    caller.until(lambda: caller.loud() > 20)
    asked = {"target": "queue"}
    answer = httpx.post(f"{gateway.origin}/v1/calls/{call_id_of(gateway, run)}/transfer", json=asked, timeout=5.0)
    assert answer.status_code == 202, answer.text
    queue.until(lambda: queue.has("ACK"))
    target.say(said)
    run.ok()
    queue.ok()
    record = record_of(gateway, run)
    assert attempts(record) == [("queue", "bridged", "transferred")]
    assert record["end_reason"] == "transferred"
    assert "answered_by" not in record.kinds()
    gateway.is_well()


def test_a_transfer_takes_a_line_and_finds_none_where_all_are_taken(
    gateway: Any, sipp: Any, phones: Any, ports: tuple[int, int]
) -> None:
    one, two, three = phones(), phones(), phones()
    others = [sipp.call(gateway, CALLS + ". 9000\n" + LEAVES, other, texts=TEXTS) for other in (two, three)]
    two.until(lambda: two.loud() > 5)
    three.until(lambda: three.loud() > 5)
    run = asks(gateway, sipp, one, ". 6000\n" + LEAVES)
    run.ok()
    for other in others:
        other.ok()
    record = record_of(gateway, run)
    assert {result for _, _, result in attempts(record)} == {"refused"}
    assert record.event("transfer_attempt")["detail"].startswith("overloaded")
    assert "I can't put you through right now" in record["turns"][-1]["agent_text"]
    gateway.live(0)
    gateway.is_well()
