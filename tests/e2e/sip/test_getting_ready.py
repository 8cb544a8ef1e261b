"""Callers of an agent that is not ready yet: its speech worker is held up as it starts."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

CLINIC = Path(__file__).parents[3] / "trunkline" / "agents" / "examples" / "clinic.toml"


class Held:
    """A gateway whose speech worker was killed; the one in its place is stopped as it starts."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        (first,) = self._workers()
        os.kill(first, signal.SIGKILL)
        gateway.until(lambda: self._workers() not in ([], [first]))
        (self.stopped,) = self._workers()
        os.kill(self.stopped, signal.SIGSTOP)

    def _workers(self) -> list[int]:
        pid = self.gateway.process.pid
        found = []
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if "local.worker" in Path(f"/proc/{child}/cmdline").read_text(errors="replace"):
                    found.append(int(child))
        return found

    def let_go(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.stopped, signal.SIGCONT)


@pytest.fixture
def held(sip_gateway: Any) -> Iterator[Held]:
    one = Held(sip_gateway(agent=CLINIC))
    yield one
    one.let_go()


def test_callers_hear_ringing_until_the_agent_can_speak(held: Held, wires: Any) -> None:
    given_up, patient = wires(held.gateway), wires(held.gateway)
    given_up.send(given_up.request("INVITE", branch="one", body=given_up.sdp()))
    assert [m.start for m in given_up.drain(0.5)] == ["SIP/2.0 100 Trying", "SIP/2.0 180 Ringing"]
    given_up.send(given_up.request("CANCEL", branch="one"))
    ended = given_up.until(487, "INVITE")
    given_up.send(given_up.request("ACK", branch="one", tag=ended.to_tag))
    record = held.gateway.ended(given_up.call_id)
    assert record.end() == ("caller_hung_up", "cancelled")
    assert record["answered_at"] is None
    said = [step for step in record.ladder() if step not in ("out 200 OK", "in ACK")]  # the ACK may come after the end
    assert said[-2:] == ["in CANCEL", "out 487 Request Terminated"]

    patient.send(patient.request("INVITE", branch="two", body=patient.sdp()))
    patient.until(180, "INVITE")
    held.let_go()
    answer = patient.until(200, "INVITE", within_s=6)
    patient.send(patient.request("ACK", branch="ack", tag=answer.to_tag))
    patient.send(patient.request("BYE", 2, tag=answer.to_tag))
    patient.until(200, "BYE")
    assert held.gateway.ended(patient.call_id).end() == ("caller_hung_up", "")
    assert held.gateway.complaints() == []


def test_whoever_rings_for_too_long_is_sent_elsewhere(held: Held, wires: Any) -> None:
    wire = wires(held.gateway)
    wire.send(wire.request("INVITE", branch="one", body=wire.sdp()))
    wire.until(180, "INVITE")
    refused = wire.until(503, "INVITE", within_s=8)
    wire.send(wire.request("ACK", branch="one", tag=refused.to_tag))
    assert int(refused.header("Retry-After")) > 0
    record = held.gateway.ended(wire.call_id)
    assert record.end() == ("overloaded", "the agent was not ready in time")
