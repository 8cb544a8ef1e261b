"""An agent that is only a stream of packets: what a caller makes of it, on a clock moved by hand."""

from typing import Any

import numpy as np

from trunkline.testing.caller.line import Event, Line
from trunkline.testing.caller.script import FallSilent, HangUp, Keys, Listen, ListenInto, Pause, Speak
from trunkline.testing.caller.sip import rtp, sdp
from trunkline.testing.caller.sip.stream import STOP_MS, RtpStream
from trunkline.testing.caller.speech import PlainMouth, Speech, to_speech
from trunkline.testing.caller.wire import AUDIBLE, MUTE, NOTHING, Invalid

SESSION = sdp.Session("192.0.2.2", 4444, "mulaw", 0, 101)
LOUD, QUIET = b"\x10" * 160, b"\xff" * 160
FADING = b"\x10" * 100 + b"\xff" * 60


def speech(ms: int = 200) -> Speech:
    return to_speech("hello", (np.sin(np.arange(8 * ms) * 0.5) * 0.3).astype(np.float32))


class Rig:
    """20 ms at a time: a packet of the agent comes, then the line ticks."""

    def __init__(self, *actions: Any, session: sdp.Session = SESSION, **options: Any) -> None:
        self.now = 100.0
        self.digits = ""
        self.stream = RtpStream(
            "id@host", session, rtp.Sender(1, 0, 0), send_info=self._info, keep_audio=True, **options
        )
        self.events: list[Event] = []
        self.line = Line(self.stream, actions, PlainMouth(raw=True), on_event=self.events.append)
        self.line.open(self.now)
        self.sent: list[rtp.Packet] = []
        self._agent = rtp.Sender(2, 0, 0)

    def _info(self, digit: str) -> None:
        self.digits += digit

    def run(self, ms: int, payload: bytes | None = QUIET, payload_type: int = 0) -> "Rig":
        for _ in range(ms // 20):
            self._agent.tick()
            if payload is not None:
                self.line.receive(self._agent.audio(payload, payload_type), self.now)
            self.now += 0.02
            for data in self.line.tick(self.now) if self.line.ended is None else ():
                packet = rtp.parse(data)
                if packet is not None:
                    self.sent.append(packet)
        return self

    def agent(self, ms: int) -> "Rig":
        """Speech that fades at its end, as a voice does."""
        return self.run(ms - 20, LOUD).run(20, FADING)


def test_a_turn_is_timed_from_the_last_speech_sent_to_the_first_audible_packet() -> None:
    rig = Rig(Listen(), Speak(speech()), Listen(), HangUp())
    rig.run(100).agent(400).run(600).run(200 + 300)
    (turn,) = rig.line.turns.all
    rig.agent(300).run(700)
    assert turn.latency_ms is not None
    assert 250 <= turn.latency_ms <= 400
    assert not turn.interrupting
    assert rig.line.ended == "hung_up"
    assert [a.heard_ms for a in rig.stream.answers] == [400, 300]
    assert rig.line.turns.greeted_at is not None


def test_an_interrupted_agent_stops_with_its_last_audible_packet() -> None:
    rig = Rig(ListenInto(400), Speak(speech(600)), Listen(), HangUp())
    rig.run(400, LOUD).run(140, LOUD).run(STOP_MS + 40)
    (turn,) = rig.line.turns.all
    assert turn.interrupting
    assert turn.barge_in_ms is not None
    assert 100 <= turn.barge_in_ms <= 140
    assert turn.cut is rig.stream.answers[0]
    assert rig.stream.answers[0].heard_ms == 540
    assert not turn.missed_clear
    assert [e.kind for e in rig.events][:3] == ["agent", "caller", "clear"]


def test_an_agent_that_talks_on_has_missed_the_interruption() -> None:
    rig = Rig(ListenInto(400), Speak(speech(600)), Listen(timeout_s=60))
    rig.run(400, LOUD).run(1200, LOUD).run(1000)
    (turn,) = rig.line.turns.all
    assert turn.missed_clear
    assert turn.barge_in_ms is None


def test_an_agent_that_is_interrupted_in_a_pause_of_its_own_has_no_time() -> None:
    rig = Rig(Pause(600), Speak(speech(600)), Listen()).agent(500).run(600)
    (turn,) = rig.line.turns.all
    assert turn.interrupting
    assert turn.barge_in_ms is None
    assert not turn.missed_clear
    assert turn.cut is rig.stream.answers[0]


def test_an_agent_that_had_ended_was_not_interrupted() -> None:
    rig = Rig(Pause(500 + STOP_MS), Speak(speech(600)), Listen()).agent(500).run(STOP_MS + 400)
    (turn,) = rig.line.turns.all
    assert turn.first_at is not None
    assert not turn.interrupting


def test_a_pause_of_the_voice_is_no_gap_and_counts_as_heard() -> None:
    rig = Rig(Listen()).agent(200).run(300).agent(200)
    (answer,) = rig.stream.answers
    assert (answer.gaps, answer.heard_ms) == (0, 700)


def test_a_voice_that_is_torn_off_has_a_gap() -> None:
    rig = Rig(Listen()).run(200, LOUD).run(60).run(200, LOUD)
    (answer,) = rig.stream.answers
    assert (answer.gaps, answer.gap_ms, answer.heard_ms) == (1, 60, 400)


def test_packets_that_never_came_are_lost_and_heard_as_a_gap() -> None:
    rig = Rig(Listen()).run(200, LOUD)
    for _ in range(3):
        rig._agent.audio(LOUD, 0)
    rig.run(200, LOUD)
    assert rig.stream.receiver.counts.lost == 3


def test_comfort_noise_is_silence() -> None:
    rig = Rig(Listen()).run(200, b"\xfd\x7c" * 80)
    assert rig.stream.answers == []
    rig.run(20, b"\x40", sdp.COMFORT_NOISE)
    assert rig.stream.counts.noise_in == 1


def test_a_law_is_spoken_and_heard_where_it_was_agreed() -> None:
    session = sdp.Session("192.0.2.2", 4444, "alaw", 8, None)
    rig = Rig(Speak(speech()), Pause(1000), session=session)
    rig.run(100, b"\xd5" * 160, 8)
    assert rig.stream.answers == []
    rig.run(40, b"\x2a" * 160, 8)
    assert rig.stream.answers[0].heard_ms == 40
    rig.run(200, b"\xd5" * 160, 8)
    assert {p.payload_type for p in rig.sent} == {8}
    assert rig.sent[-1].payload == b"\xd5" * 160  # silence of A-law


def test_digits_are_events_in_place_of_audio() -> None:
    rig = Rig(Keys("1#"), Pause(1000)).run(600)
    events = [p for p in rig.sent if p.payload_type == 101]
    assert [p.payload[0] for p in events] == [1] * 7 + [11] * 7
    assert len(rig.sent) == 30
    assert rig.line.turns.all[0].keyed


def test_digits_go_as_info_where_the_far_end_takes_no_events() -> None:
    rig = Rig(Keys("12"), Pause(1000), session=sdp.Session("192.0.2.2", 4444, "mulaw", 0)).run(600)
    assert rig.digits == "12"
    assert {p.payload_type for p in rig.sent} == {0}


def test_digits_of_the_far_end_are_noted_once_each() -> None:
    rig = Rig(Pause(1000))
    sender = rtp.Sender(9, 0, 0)
    for digit in "7#":
        sender.tick()
        sender.key(digit)
        while sender.keying:
            assert rig.line.carrier.receive(sender.event(101), rig.now) == NOTHING
        for _ in range(10):
            sender.tick()
    assert rig.stream.keys_in == "7#"


def test_on_hold_nothing_is_sent_and_time_runs_on() -> None:
    rig = Rig(Pause(10_000)).run(100)
    rig.stream.session = sdp.Session("192.0.2.2", 4444, "mulaw", 0, direction="sendonly")
    rig.run(100)
    assert len(rig.sent) == 5
    rig.stream.session = SESSION
    rig.run(20)
    assert rig.sent[-1].timestamp - rig.sent[-2].timestamp == 6 * 160
    assert rig.sent[-1].marker


def test_a_caller_that_falls_silent_sends_nothing() -> None:
    rig = Rig(FallSilent(200), Pause(1000)).run(160)
    assert rig.sent == []


def test_audio_before_the_answer_is_counted_but_not_heard() -> None:
    stream = RtpStream("id", SESSION, rtp.Sender(1, 0, 0))
    assert stream.receive(rtp.Sender(2, 0, 0).audio(LOUD, 0), 1.0) == NOTHING
    assert stream.counts.early_in == 1
    assert stream.answers == []


def test_what_is_no_audio_of_the_call_is_counted() -> None:
    rig = Rig(Pause(1000))
    assert rig.stream.receive(b"hello", 1.0) == Invalid("not RTP")
    assert rig.stream.receive(rtp.Sender(2, 0, 0).audio(LOUD, 96), 1.0) == Invalid("payload type 96")
    assert rig.stream.receive(rtp.Sender(3, 0, 0).audio(QUIET, 0), 1.0) == MUTE
    assert rig.stream.receive(rtp.Sender(4, 0, 0).audio(LOUD, 0), 1.0) == AUDIBLE


def test_what_was_heard_is_a_frame_a_tick_and_what_was_sent_as_well() -> None:
    rig = Rig(Pause(10_000)).agent(200).run(100)
    assert len(rig.stream.heard) == len(rig.line.sent) == 15
    assert rig.stream.heard[0] == QUIET  # the jitter buffer waits
    assert rig.stream.heard[2:11] == [LOUD] * 9
