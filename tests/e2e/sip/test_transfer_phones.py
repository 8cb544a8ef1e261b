"""Two softphones and the AI agent: one calls and asks, the other is the representative's. Who heard what is judged by
their recordings: words by PocketSphinx, hold music by its waveform."""

import re
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trunkline.media import g711
from trunkline.media.music import hold_music
from trunkline.testing.caller.speech import Samples
from trunkline.testing.softphone import Softphone, Softphones, only_loopback, plain, spoken_parts, words_heard

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("baresip") is None, reason="no softphone: apt install baresip-core"),
    pytest.mark.skipif(only_loopback(), reason="baresip opens no socket where the only interface is loopback"),
]

RATE_HZ = 8000
NUMBER, DESK = "+15005550001", "+14155550177"
QUESTION, ANSWER = "when are you open", "We open at eight in the morning."
CALLERS, DESKS = "my washing machine is broken", "can you send me the bill please"
"""What each says to the other."""
OTHERS = ("the clinic is closed tomorrow",)
SUMMARY = "You have a caller, who last said: when are you open."
TAKE_IT = "Press one or say yes to take the call."
SLACK_S = 1.0
"""Between the record's clock and a recording."""


@pytest.fixture
def telephones(tmp_path: Path) -> Iterator[Softphones]:
    phones = Softphones(tmp_path)
    yield phones
    phones.close()


class Case:
    """A caller's call to the agent, whose desk is a softphone that answers by itself."""

    def __init__(
        self, sip_gateway: Any, telephones: Softphones, agent: Path, desk_says: dict[float, str], insists: bool = True
    ) -> None:
        self.desk: Softphone = telephones.start(DESK, desk_says, account=";answermode=auto")
        self.gateway = sip_gateway(
            agent=agent,
            outbound__allow="US",
            sip__trunks__office__peers="127.0.0.1/32",
            sip__trunks__office__host=f"127.0.0.1:{self.desk.port}",
            sip__trunks__office__ping_s="0",
            sip__trunks__office__caller_id="+14155550100",
        )
        # the caller speaks all the time: what nobody is to hear is there to be heard
        says = {1.5: QUESTION} | dict.fromkeys(np.arange(9.0, 55.0 if insists else 9.0, 4.0).tolist(), CALLERS)
        self.caller: Softphone = telephones.start("+15005550006", says)
        self.caller.dial(f"sip:{NUMBER}@127.0.0.1:{self.gateway.sip_port}")
        self.until(lambda record: any(ANSWER in turn["agent_text"] for turn in record["turns"]), 20)

    def record(self) -> dict[str, Any]:
        calls = self.gateway.calls()
        return dict(self.gateway.get(f"/v1/calls/{calls[0]['id']}")) if calls else {"turns": [], "events": []}

    def until(self, happened: Any, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not happened(record := self.record()):
            assert time.monotonic() < deadline, (record, self.gateway.log, self.desk.log)
            time.sleep(0.1)

    def has(self, kind: str, within_s: float = 20.0, **like: Any) -> None:
        """Until the record has such an event."""
        self.until(
            lambda record: any(e["kind"] == kind and like.items() <= e["data"].items() for e in record["events"]),
            within_s,
        )

    def send(self, kind: str) -> None:
        url = f"{self.gateway.origin}/v1/calls/{self.record()['id']}/transfer"
        answer = httpx.post(url, json={"target": "desk", "kind": kind}, timeout=5.0)
        assert answer.status_code == 202, answer.text


def at(record: Any, kind: str) -> datetime:
    """Of the last event of a kind."""
    found = [e for e in record["events"] if e["kind"] == kind]
    assert found, [e["kind"] for e in record["events"]]
    return datetime.fromisoformat(found[-1]["at"])


def part(samples: Samples, began: datetime, first: datetime) -> Samples:
    """Of a recording that began then, what surely comes after."""
    return samples[int(((first - began).total_seconds() + SLACK_S) * RATE_HZ) :]


def music_in(samples: Samples) -> list[bool]:
    """Of each tenth of a second: whether it is hold music, from wherever in it, and nothing else."""
    source, size, n = hold_music().play(), RATE_HZ // 10, 1 << 17
    frames = b"".join(source.frame() for _ in range(13 * 50))
    music = np.frombuffer(g711.decode(frames, "mulaw"), dtype="<i2").astype(float)
    spectrum = np.fft.rfft(music, n)
    energy = np.concatenate([[0.0], np.cumsum(music**2)])
    norms = np.sqrt(np.maximum(energy[size:] - energy[:-size], 1.0))
    found = []
    for first in range(0, len(samples) - size, size):
        window = samples[first : first + size].astype(float)
        norm = float(np.sqrt((window**2).sum()))
        same = np.fft.irfft(spectrum * np.conj(np.fft.rfft(window, n)), n)[: len(norms)]
        found.append(norm > 0.1 and float(np.abs(same / norms).max()) > 0.98 * norm)
    return found


def after_music(samples: Samples, lasted_s: float) -> Samples:
    """What follows. The music was all that was heard for so long; packets that were late may have torn it."""
    found = music_in(samples)
    first, last = found.index(True), len(found) - found[::-1].index(True)
    assert abs((last - first) / 10 - lasted_s) < 1.5, (first, last, lasted_s)
    assert sum(found[first:last]) > 0.9 * (last - first), found
    return samples[last * RATE_HZ // 10 :]


def whole(samples: Samples) -> Samples:
    """Without what began before or was cut off at the end."""
    parts, frames = spoken_parts(samples), len(samples) // 160
    first = parts[0][1] if parts and parts[0][0] < 5 else 0
    last = parts[-1][0] if parts and parts[-1][1] > frames - 15 else frames
    return samples[first * 160 : last * 160]


def words(samples: Samples, *turns: str) -> str:
    return words_heard(samples, [*turns, *OTHERS])


def only(heard: str, phrase: str, at_least: int = 1) -> bool:
    return heard.count(phrase) >= at_least and heard.replace(phrase, "").strip() == ""


# --- warm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["key", "word"])
def test_a_representative_is_briefed_alone_and_takes_the_call(
    by: str, sip_gateway: Any, telephones: Softphones, pytestconfig: Any
) -> None:
    agent = pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml"
    says = dict.fromkeys(np.arange(20.0, 55.0, 5.0).tolist(), DESKS)
    case = Case(sip_gateway, telephones, agent, says if by == "key" else {13.0: "yes"} | says)
    case.send("warm")
    if by == "key":
        case.has("leg_dialled")
        time.sleep(11)
        case.desk.key("1")
    case.has("joined", 25)
    time.sleep(16)
    case.caller.hang_up()
    record = case.gateway.ended()
    attempt = record.event("transfer_attempt")
    assert (attempt["how"], attempt["result"]) == ("warm", "transferred")
    assert record["end_reason"] == "transferred"

    callers, desks = case.caller.heard(), case.desk.heard()
    later = after_music(callers, (at(record, "joined") - at(record, "operator")).total_seconds())
    assert only(heard := words(whole(later), DESKS, CALLERS, ANSWER), DESKS, 2), heard
    assert not any(music_in(desks))
    # the unknown ones: "press two or say no to decline", what is cut at the join and at the end
    briefing = plain(f"{SUMMARY} {TAKE_IT}")
    heard = words(desks, SUMMARY, TAKE_IT, CALLERS, DESKS, ANSWER)
    assert re.fullmatch(rf"{briefing} \?( \?)?( {CALLERS}){{2,}}( \?)?", heard), heard
    case.gateway.is_well()


def test_a_representative_who_declines_is_spared_and_the_caller_is_with_the_agent_again(
    sip_gateway: Any, telephones: Softphones, pytestconfig: Any
) -> None:
    agent = pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml"
    case = Case(sip_gateway, telephones, agent, {}, insists=False)
    case.send("warm")
    case.has("leg_dialled")
    time.sleep(5)
    case.desk.key("2")
    case.has("resumed")
    time.sleep(6)
    case.caller.hang_up()
    record = case.gateway.ended()
    attempt = record.event("transfer_attempt")
    assert (attempt["how"], attempt["result"]) == ("warm", "declined")
    assert record["end_reason"] == "caller_hung_up"
    callers, desks = case.caller.heard(), case.desk.heard()
    later = after_music(callers, (at(record, "resumed") - at(record, "operator")).total_seconds())
    heard = words(later, "I'm sorry, nobody can take your call right now. Can I help you with anything else?", ANSWER)
    assert "nobody can take your call right now" in heard, heard
    assert words(desks, SUMMARY, TAKE_IT, CALLERS).startswith(plain(SUMMARY))
    case.gateway.is_well()


# --- bridged --------------------------------------------------------------------------------------------------------


def test_a_caller_who_is_joined_and_the_desk_hear_each_other_and_nobody_else(
    sip_gateway: Any, telephones: Softphones, pytestconfig: Any
) -> None:
    agent = pytestconfig.rootpath / "tests" / "e2e" / "agents" / "transfer.toml"
    case = Case(sip_gateway, telephones, agent, dict.fromkeys(np.arange(3.0, 55.0, 5.0).tolist(), DESKS))
    case.send("bridged")
    case.has("joined")
    time.sleep(14)
    case.desk.hang_up()
    record = case.gateway.ended()
    assert record["end_reason"] == "transferred"
    callers, desks = case.caller.heard(), case.desk.heard()
    joined = at(record, "joined")
    heard = words(whole(part(callers, at(record, "answered"), joined)), DESKS, CALLERS, ANSWER)
    assert only(heard, DESKS, 2), heard
    heard = words(whole(desks), CALLERS, DESKS, ANSWER)
    assert only(heard, CALLERS, 2), heard
    case.gateway.is_well()
