"""A caller, the AI agent and a supervisor's telephone: who hears what while the supervisor listens and then speaks, by
the recordings of two softphones."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.testing.softphone import Softphones, only_loopback, plain, words_heard

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("baresip") is None, reason="no softphone: apt install baresip-core"),
    pytest.mark.skipif(only_loopback(), reason="baresip opens no socket where the only interface is loopback"),
]

NUMBER, SUPERVISOR = "+15005550001", "+14155550177"
QUESTION, ANSWER = "when are you open", "We open at eight in the morning."
COACH = "can you send me the bill please"
OTHERS = ("the clinic is closed tomorrow",)


@pytest.fixture
def telephones(tmp_path: Path) -> Iterator[Softphones]:
    phones = Softphones(tmp_path)
    yield phones
    phones.close()


def test_a_supervisor_listens_unheard_and_then_speaks(
    sip_gateway: Any, telephones: Softphones, pytestconfig: Any
) -> None:
    floor = telephones.start(
        SUPERVISOR, dict.fromkeys(np.arange(1.0, 55.0, 3.0).tolist(), COACH), account=";answermode=auto"
    )
    gateway = sip_gateway(
        agent=pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml",
        outbound__allow="US",
        sip__trunks__office__peers="127.0.0.1/32",
        sip__trunks__office__host=f"127.0.0.1:{floor.port}",
        sip__trunks__office__ping_s="0",
        sip__trunks__office__caller_id="+14155550100",
    )
    caller = telephones.start("+15005550006", dict.fromkeys((8.0, 16.0), QUESTION))
    caller.dial(f"sip:{NUMBER}@127.0.0.1:{gateway.sip_port}")
    gateway.live(1)
    legs = f"{gateway.origin}/v1/calls/{gateway.calls()[0]['id']}/legs"
    gateway.until(lambda: gateway.get(f"/v1/calls/{gateway.calls()[0]['id']}")["state"] == "active")
    rung = httpx.post(legs, json={"to": SUPERVISOR}, timeout=5.0)
    assert rung.status_code == 201, rung.text
    leg = f"{legs}/{rung.json()['id']}"

    def answers() -> int:
        turns = gateway.get(f"/v1/calls/{gateway.calls()[0]['id']}")["turns"]
        return sum(ANSWER in turn["agent_text"] for turn in turns)

    gateway.until(lambda: answers() == 2, 40)
    assert [one["state"] for one in httpx.get(legs, timeout=5.0).json()["legs"]] == ["joined"]
    assert httpx.patch(leg, json={"supervision": "speak"}, timeout=5.0).json()["supervision"] == "speak"
    time.sleep(9)
    assert httpx.delete(leg, timeout=5.0).status_code == 202
    gateway.until(lambda: httpx.get(legs, timeout=5.0).json() == {"legs": []})
    time.sleep(1)
    caller.hang_up()
    record = gateway.ended()
    assert record.end() == ("caller_hung_up", "")
    assert record.event("leg_ended")["role"] == "supervisor"

    heard = [f"{QUESTION}. {ANSWER}", COACH, *OTHERS]  # the agent answers before a pause tells the two apart
    floors = words_heard(floor.heard(), heard)
    assert floors.count(plain(ANSWER)) == 2, floors
    assert floors.count(QUESTION) == 2, floors
    assert COACH not in floors, floors
    callers = words_heard(caller.heard(), heard)
    first_words = callers.find(COACH)
    assert first_words > callers.rfind(plain(ANSWER)) > 0, callers
    gateway.is_well()
