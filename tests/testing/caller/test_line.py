"""A whole call on a clock moved by hand: the caller's script against a server of a few lines."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.line import Event, Line, Stall
from trunkline.testing.caller.script import (
    Action,
    FallSilent,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Speak,
    Vanish,
)
from trunkline.testing.caller.speech import PlainMouth, Speech, to_speech
from trunkline.types import CallSid, StreamSid


def speech(label: str = "hello", lead_ms: int = 40, ms: int = 200, tail_ms: int = 60) -> Speech:
    tone = np.sin(np.arange(8 * ms) * 0.5) * 0.3
    parts = [np.zeros(8 * lead_ms), tone, np.zeros(8 * tail_ms)]
    return to_speech(label, np.concatenate(parts).astype(np.float32))


class Rig:
    """Moves the line 20 ms at a time."""

    def __init__(self, actions: Sequence[Action], **options: Any) -> None:
        self.now = 100.0
        self.events: list[Event] = []
        carrier = Carrier(StreamIds("AC1", CallSid("CA1"), StreamSid("MZ1")), {}, keep_audio=True)
        self.line = Line(carrier, actions, PlainMouth(), on_event=self.events.append, **options)
        self.sent = [json.loads(m) for m in self.line.open(self.now)]

    def run(self, ms: int) -> "Rig":
        for _ in range(ms // 20):
            self.now += 0.02
            if self.line.ended is None:
                self.sent += [json.loads(m) for m in self.line.tick(self.now)]
        return self

    def agent(self, ms: int) -> "Rig":
        payload = b64encode(b"\x10" * (8 * ms)).decode()
        self.line.receive(json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": payload}}), self.now)
        return self

    def clear(self) -> "Rig":
        self.line.receive('{"event":"clear","streamSid":"MZ1"}', self.now)
        return self

    def kinds(self) -> list[str]:
        return [m["event"] for m in self.sent]


def test_a_turn_is_timed_from_the_last_speech_frame_to_the_first_agent_audio() -> None:
    rig = Rig([Listen(), Speak(speech()), Listen(), HangUp()])
    rig.run(100).agent(200).run(200 + 500)
    assert rig.line.turns.current is None
    rig.run(20 + 40 + 200)  # the tick that begins it, its lead, its speech
    (turn,) = rig.line.turns.all
    assert turn.last_at is not None
    t0 = turn.last_at
    rig.run(300).agent(100)
    assert turn.latency_ms is not None
    assert abs(turn.latency_ms - (rig.now - t0) * 1000) < 0.01
    assert 250 < turn.latency_ms < 350
    assert not turn.interrupting
    rig.run(2000)
    assert rig.line.ended == "hung_up"
    assert rig.kinds()[-1] == "stop"


def test_silence_from_the_agent_is_no_answer() -> None:
    rig = Rig([Speak(speech()), Listen()])
    rig.run(400)
    muted = b64encode(b"\xff" * 160).decode()
    rig.line.receive(json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": muted}}), rig.now)
    assert rig.line.turns.all[0].latency_ms is None


def test_barging_in_is_timed_from_the_first_speech_frame_to_the_clear() -> None:
    rig = Rig([ListenInto(400), Speak(speech(lead_ms=40)), Listen(), HangUp()])
    rig.agent(3000).run(420)
    rig.run(100)
    (turn,) = rig.line.turns.all
    assert turn.interrupting
    assert turn.first_at is not None
    rig.agent(100)  # still the old answer: not T1
    rig.clear()
    assert turn.barge_in_ms is not None
    assert abs(turn.barge_in_ms - (rig.now - turn.first_at) * 1000) < 0.01
    assert turn.cut is not None
    assert turn.cut.heard_ms == rig.line.carrier.answers[0].heard_ms == 520
    rig.run(300)
    assert turn.latency_ms is None
    rig.agent(100)
    assert turn.latency_ms is not None
    assert not turn.missed_clear


def test_an_agent_that_talks_on_has_missed_its_clear() -> None:
    rig = Rig([ListenInto(200), Speak(speech()), Listen(timeout_s=5)])
    rig.agent(4000).run(2500)
    (turn,) = rig.line.turns.all
    assert turn.missed_clear
    assert turn.barge_in_ms is None


def test_an_answer_that_ends_by_itself_soon_has_missed_nothing() -> None:
    rig = Rig([ListenInto(200), Speak(speech()), Listen()])
    rig.agent(700).run(2500)
    (turn,) = rig.line.turns.all
    assert turn.interrupting
    assert not turn.missed_clear


def test_an_agent_that_begins_while_the_caller_speaks_talks_over() -> None:
    rig = Rig([Speak(speech(ms=1000)), Listen(), HangUp()])
    rig.run(500).agent(100).run(2000)
    (turn,) = rig.line.turns.all
    assert turn.talked_over
    assert turn.latency_ms is None
    assert rig.line.ended == "hung_up"


def test_no_answer_in_time_ends_the_call() -> None:
    rig = Rig([Listen(timeout_s=2), HangUp()])
    rig.run(1990)
    assert rig.line.ended is None
    rig.run(60)
    assert rig.line.ended == "no_answer"


def test_an_answer_longer_than_the_callers_patience_is_heard_to_its_end() -> None:
    rig = Rig([Listen(), Speak(speech()), Listen(quiet_ms=500, timeout_s=2), HangUp()])
    rig.agent(400).run(1400).agent(5000).run(5200)
    assert rig.line.ended is None
    rig.run(600)
    assert rig.line.ended == "hung_up"


def test_after_a_clear_without_an_answer_the_call_does_not_wait_for_ever() -> None:
    rig = Rig([ListenInto(200), Speak(speech()), Listen(timeout_s=3), HangUp()])
    rig.agent(2000).run(400).clear().run(6000)
    assert rig.line.ended == "no_answer"


def test_keys_go_one_by_one_and_the_last_is_t0() -> None:
    rig = Rig([Keys("4#"), Listen(), HangUp()])
    rig.run(600)
    assert [m["dtmf"]["digit"] for m in rig.sent if m["event"] == "dtmf"] == ["4", "#"]
    rig.agent(100)
    (turn,) = rig.line.turns.all
    assert turn.keyed
    assert turn.latency_ms is not None


def test_an_interrupting_phrase_is_said_even_when_the_answer_was_too_short() -> None:
    rig = Rig([ListenInto(2000), Speak(speech()), HangUp()])
    rig.agent(200).run(1000)
    (turn,) = rig.line.turns.all
    assert not turn.interrupting
    assert rig.line.ended == "hung_up"


def test_a_stall_holds_what_is_sent_and_delivers_it_in_a_burst() -> None:
    rig = Rig([Pause(10_000)], stalls=[Stall(at_ms=190, hold_ms=290)])
    rig.run(180)
    before = len(rig.sent)
    rig.run(300)
    assert len(rig.sent) == before
    rig.run(40)
    assert len(rig.sent) == before + 17  # fifteen held, two since
    chunks = [int(m["media"]["chunk"]) for m in rig.sent if m["event"] == "media"]
    assert chunks == list(range(1, len(chunks) + 1))


def test_a_vanished_caller_sends_no_stop_and_a_silent_one_no_media() -> None:
    vanished = Rig([Vanish()]).run(40)
    assert vanished.line.ended == "vanished"
    assert "stop" not in vanished.kinds()
    silent = Rig([Pause(100), FallSilent(1000), HangUp()]).run(1000)
    assert silent.kinds().count("media") < 8
    assert silent.run(400).line.ended == "hung_up"


def test_hanging_up_from_outside_wins_over_what_the_caller_is_doing() -> None:
    rig = Rig([Speak(speech(ms=2000)), Listen()]).run(400)
    rig.line.hang_up()
    rig.run(20)
    assert rig.line.ended == "hung_up"


def test_a_server_that_closes_ends_the_call_once() -> None:
    rig = Rig([Listen()])
    rig.line.closed(rig.now, clean=True)
    rig.line.closed(rig.now, clean=False)
    assert rig.line.ended == "server_closed"
    assert [e.kind for e in rig.events] == ["ended"]


def test_what_was_sent_and_what_was_heard_have_the_same_length() -> None:
    rig = Rig([Listen(), Speak(speech()), Listen(), HangUp()]).agent(300).run(1500)
    assert len(rig.line.sent) == len(rig.line.carrier.heard) == 75


def test_the_live_view_tells_the_call_in_order() -> None:
    rig = Rig([Listen(), Speak(speech("hi")), Listen(), HangUp()])
    rig.agent(100).run(1200).agent(100).run(1000)
    assert [(e.kind, e.text) for e in rig.events] == [
        ("agent", "greets"),
        ("agent_done", "100 ms"),
        ("caller", "hi"),
        ("agent", "answers"),
        ("agent_done", "100 ms"),
        ("ended", "hung_up"),
    ]
