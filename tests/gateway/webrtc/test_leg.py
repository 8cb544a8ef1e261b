import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="libopus comes with the extra webrtc")

from trunkline.gateway import live
from trunkline.gateway.device import MAX_MESSAGES_S, MESSAGE_BURST_S
from trunkline.gateway.entering import Entered
from trunkline.gateway.webrtc import rtp
from trunkline.gateway.webrtc.leg import WebRtcLeg
from trunkline.gateway.webrtc.opus import Encoder
from trunkline.gateway.webrtc.outgoing import webrtc_lead
from trunkline.gateway.webrtc.sdp import read_offer
from trunkline.media.playout import Message
from trunkline.ports import Refuse
from trunkline.testing.clock import ManualClock

from .test_sdp import CHROME

OFFER = read_offer(CHROME.encode())
JOINED = live.Joined("session", "call", "clinic")


class FakeWire:
    def __init__(self) -> None:
        self.sent: list[rtp.Packet] = []
        self.control: list[bytes] = []
        self.told: list[dict[str, Any]] = []
        self.reads = True
        self.closed: list[float] = []

    def send(self, packet: bytes) -> None:
        read = rtp.read(packet)
        assert read is not None
        self.sent.append(read)

    def send_control(self, packet: bytes) -> None:
        self.control.append(packet)

    def tell(self, message: str) -> bool:
        if self.reads:
            self.told.append(json.loads(message))
        return self.reads

    def close(self, linger_s: float = 0.0) -> None:
        self.closed.append(linger_s)

    async def gather(self, *_: Any) -> Any: ...

    def start(self, *_: Any) -> None: ...

    def add_candidates(self, candidates: Sequence[str], *, end: bool) -> None: ...

    async def closed_(self) -> None: ...


class FakeCall:
    """The leg's call and its bus."""

    id = "call"

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, int]] = []
        self.marks: list[str] = []
        self.said: list[Any] = []
        self.refuses = False
        self.breaks = False

    def attach(self, leg: Any) -> Any:
        return Refuse("ending", "the call is ending") if self.refuses else self

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        if self.breaks:
            raise RuntimeError("a bug")
        self.heard.append((audio, carrier_ms))

    def mark_returned(self, name: str) -> None:
        self.marks.append(name)

    def __getattr__(self, name: str) -> Any:
        if name not in ("key", "lost", "stopped", "finished", "crashed", "event", "typed", "flush", "never_came"):
            raise AttributeError(name)
        return lambda *args, **more: self.said.append((name, *(a for a in args if not isinstance(a, WebRtcLeg))))


class Rig:
    """A leg, with the browser's end of it."""

    def __init__(self, *, needs_arming: bool = False, call: FakeCall | None = None) -> None:
        self.clock, self.wire, self.call = ManualClock(), FakeWire(), call or FakeCall()
        self.gone: list[str] = []
        wire: Any = self.wire
        line: Any = self.call
        desk: Any = self
        self.leg = WebRtcLeg(wire, OFFER, desk, Entered(line, JOINED, needs_arming), webrtc_lead(), self.clock)
        self.leg.connected()
        self.leg.opened()
        self.encoder = Encoder()
        self.sequence = 100

    def left(self, leg: Any, why: str) -> None:
        self.gone.append(why)

    def beat(self) -> None:
        self.leg.beat(self.clock.advance(0.02))

    def speak(self, n: int = 1, *, lose: bool = False) -> None:
        """20 ms of a tone each, and a beat."""
        for _ in range(n):
            at = (self.sequence * 160 + np.arange(160)) / 8000
            pcm = (8000 * np.sin(2 * np.pi * 400 * at)).astype("<i2").tobytes()
            payload = self.encoder.encode(pcm)
            if not lose:
                self.leg.packet(rtp.write(111, self.sequence, self.sequence * 960, 9, payload, marker=False))
            self.sequence += 1
            self.beat()

    def tells(self, kind: str) -> list[dict[str, Any]]:
        return [told for told in self.wire.told if told["type"] == kind]


def test_a_queue_that_was_full_takes_more_when_it_is_not() -> None:
    rig = Rig()
    rig.leg.send([Message(b"\x10" * 160, "", 0.0)] * 12)
    assert not rig.leg.writable
    for _ in range(3):
        rig.beat()
    assert not rig.leg.writable
    for _ in range(10):
        rig.beat()
    assert rig.leg.writable


def test_the_callers_opus_is_the_lanes_mulaw() -> None:
    rig = Rig()
    rig.speak(5)
    assert [(len(audio), at) for audio, at in rig.call.heard] == [(160, n * 20) for n in range(5)]


def test_a_lost_packet_is_concealed_and_time_keeps_its_place() -> None:
    rig = Rig()
    rig.speak(5)
    rig.speak(1, lose=True)
    rig.speak(10)
    assert [at for _, at in rig.call.heard] == [n * 20 for n in range(16)]
    concealed = rig.call.heard[5][0]
    assert len(set(concealed)) > 10  # no silence
    assert rig.leg.stats()["lost_packets"] == 1


def test_the_agents_first_frame_leaves_at_once_and_the_rest_a_beat_each() -> None:
    rig = Rig()
    rig.leg.send([Message(bytes([n]) * 160, f"0:{n * 20}", 0.0) for n in (1, 2, 3)])
    assert len(rig.wire.sent) == 1
    assert rig.wire.sent[0].marker
    assert rig.call.marks == []  # told with the beat, not within the sending
    rig.beat()
    assert (len(rig.wire.sent), rig.call.marks) == (2, ["0:20"])
    assert rig.leg.clear() == 20
    rig.beat()
    rig.beat()
    assert rig.call.marks == ["0:20", "0:40"] or rig.call.marks == ["0:20"]
    assert {packet.payload_type for packet in rig.wire.sent} == {111}
    numbers = [packet.sequence for packet in rig.wire.sent]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_device_is_heard_from_its_armed_on() -> None:
    rig = Rig(needs_arming=True)
    rig.speak(10)
    assert {audio for audio, _ in rig.call.heard} == {b"\xff" * 160}  # time goes on, in silence
    assert rig.leg.stats()["unarmed_packets"] == 10
    assert [m["code"] for m in rig.tells("mistake")] == ["not_armed"]  # once
    rig.leg.message('{"type":"armed","by":"wake_word","wake_word":"trunkline"}')
    before = len(rig.call.heard)
    rig.speak(3)
    assert all(len(set(audio)) > 10 for audio, _ in rig.call.heard[before:])
    rig.leg.message('{"type":"disarmed"}')
    rig.speak(2)
    assert rig.leg.stats()["unarmed_packets"] == 12


def test_a_page_needs_no_arming_and_cannot_disarm_itself_deaf() -> None:
    rig = Rig()
    rig.leg.message('{"type":"armed","by":"button"}')
    rig.leg.message('{"type":"disarmed"}')
    rig.speak(1)
    assert len(rig.call.heard) == 1


def test_the_first_message_says_what_was_joined_and_earlier_ones_follow() -> None:
    rig = Rig()
    wire: Any = FakeWire()
    call: Any = FakeCall()
    desk: Any = rig
    leg = WebRtcLeg(wire, OFFER, desk, Entered(call, JOINED), webrtc_lead(), rig.clock)
    leg.tell('{"type":"state","state":"speaking"}')
    leg.opened()
    assert [told["type"] for told in wire.told] == ["joined", "state"]


def test_keys_words_and_flush_reach_the_call() -> None:
    rig = Rig()
    for message in ('{"type":"dtmf","digits":"4#"}', '{"type":"text","text":"hello"}', '{"type":"flush"}'):
        rig.leg.message(message)
    assert rig.call.said == [("key", "4"), ("key", "#"), ("typed", "hello"), ("flush",)]


def test_a_key_of_rtp_is_a_key() -> None:
    rig = Rig()
    for n in range(5):
        rig.leg.packet(rtp.write(110, n, 4800, 9, bytes((5, 0, 0, n)), marker=n == 0))
    assert rig.call.said == [("key", "5")]


@pytest.mark.parametrize("message", ["{", b"\xff\xfe", "[1]", "x" * 5000, '{"type":"dtmf","digits":"ABC!"}'])
def test_an_absurd_message_is_a_mistake_and_the_call_goes_on(message: str | bytes) -> None:
    rig = Rig()
    rig.leg.message(message)
    assert len(rig.tells("mistake")) == 1
    rig.speak(1)
    assert rig.call.said == []


def test_too_many_messages_are_dropped_and_told_once() -> None:
    rig = Rig()
    for _ in range(500):
        rig.leg.message('{"type":"dtmf","digits":"1"}')
    assert len(rig.call.said) == MESSAGE_BURST_S * MAX_MESSAGES_S
    assert [m["code"] for m in rig.tells("mistake")] == ["too_many"]


def test_events_that_nobody_reads_are_dropped_and_counted() -> None:
    rig = Rig()
    rig.wire.reads = False
    rig.leg.tell("{}")
    assert rig.leg.stats()["dropped_events"] == 1


def test_reports_are_few_and_say_what_was_lost() -> None:
    rig = Rig()
    rig.speak(20)
    rig.speak(5, lose=True)
    rig.speak(500)
    assert 2 <= len(rig.wire.control) <= 3
    read = [found for packet in rig.wire.control for found in rtp.read_rtcp(packet)]
    assert max(f.lost for f in read if isinstance(f, rtp.Fared)) == 5
    assert 1.0 < rig.leg.stats()["mos"] < 4.4


def test_an_end_of_ours_is_told_and_what_was_said_is_heard() -> None:
    rig = Rig()
    rig.leg.close("agent_hung_up")
    assert rig.tells("ended") == [{"type": "ended", "reason": "agent_hung_up"}]
    assert rig.wire.closed[0] > 0.2
    assert [said[0] for said in rig.call.said] == ["lost"]
    rig.leg.close("agent_hung_up")
    rig.speak(1)
    assert len(rig.gone) == 1


def test_the_far_ends_goodbye_and_its_silence_are_not_the_same() -> None:
    rig = Rig()
    rig.leg.gone("closed", in_order=True)
    assert rig.call.said == [("stopped",)]
    rig = Rig()
    rig.leg.gone("consent expired")
    assert rig.call.said == [("lost", "consent expired")]


def test_what_never_connected_never_started() -> None:
    rig = Rig()
    wire: Any = FakeWire()
    call: Any = FakeCall()
    desk: Any = rig
    leg = WebRtcLeg(wire, OFFER, desk, Entered(call, JOINED), webrtc_lead(), rig.clock)
    leg.gone("ICE did not complete within 10 s")
    assert call.said == [("never_came", "never_started", "ICE did not complete within 10 s")]


def test_a_refused_leg_is_closed() -> None:
    call = FakeCall()
    call.refuses = True
    rig = Rig(call=call)
    assert rig.wire.closed
    assert rig.call.said == []


def test_our_own_bug_ends_this_call_only() -> None:
    rig = Rig()
    rig.call.breaks = True
    rig.speak(3)
    assert [said[0] for said in rig.call.said] == ["crashed", "lost"]


def test_no_packet_is_too_strange() -> None:
    rig, rng = Rig(), random.Random(1)
    for _ in range(500):
        payload = rng.randbytes(rng.randrange(60))
        rig.leg.packet(
            rtp.write(
                rng.choice((111, 110, 0)), rng.randrange(1 << 16), rng.randrange(1 << 32), 9, payload, marker=False
            )
        )
        rig.leg.control(rng.randbytes(rng.randrange(80)))
        rig.beat()
    assert [said for said in rig.call.said if said[0] != "key"] == []
