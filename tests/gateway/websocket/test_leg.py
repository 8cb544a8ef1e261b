"""A leg between a fake transport and a WebSocket client that is not ours, on a clock moved by hand."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from tests.gateway.socket_transport import FakeTransport
from trunkline.gateway import live
from trunkline.gateway.entering import Entered, Origins
from trunkline.gateway.mediasocket import CLOSE_WAIT_S, STALL_S, MediaSocket
from trunkline.gateway.websocket.leg import MAX_FAULTS, PING_S, WebSocketLeg
from trunkline.media.g711 import decode, encode
from trunkline.media.playout import LeadPolicy, Message
from trunkline.ports import Refuse
from trunkline.testing.clock import ManualClock
from trunkline.types import MULAW_8K

JOINED = live.Joined("session", "call", "clinic", resume_token="again")
MULAW = {"type": "start", "encoding": "mulaw", "rate_hz": 8000, "acks": True}
PCM_16K = {"type": "start", "encoding": "pcm16", "rate_hz": 16_000, "acks": True}
FRAME = bytes(range(160))
START_S, MEDIA_S = 5.0, 10.0


class FakeCall:
    """The leg's call and its bus."""

    id = "call"

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, int]] = []
        self.marks: list[str] = []
        self.said: list[Any] = []
        self.refuses = self.breaks = False
        self.hangs_up = ""
        self.greeting: list[Message] = []

    def attach(self, leg: Any) -> Any:
        leg.send(self.greeting)
        if self.hangs_up:
            leg.close(self.hangs_up)
            return self
        return Refuse("ending", "the call is ending") if self.refuses else self

    def receive(self, audio: bytes, carrier_ms: int) -> None:
        if self.breaks:
            raise RuntimeError("a bug")
        self.heard.append((audio, carrier_ms))

    def mark_returned(self, name: str) -> None:
        self.marks.append(name)

    def __getattr__(self, name: str) -> Any:
        if name not in ("key", "lost", "stopped", "crashed", "event", "typed", "flush"):
            raise AttributeError(name)
        return lambda *args, **more: self.said.append((name, *(a for a in args if not isinstance(a, WebSocketLeg))))


class Rig:
    """The door of one leg, and the device's end of it."""

    def __init__(self, start: dict[str, Any] | None = MULAW, *, needs_arming: bool = False, origin: str = "") -> None:
        self.origins = Origins("http://here:8080", ("https://shop.example",))
        self.clock, self.transport, self.call = ManualClock(), FakeTransport(), FakeCall()
        self.needs_arming, self.full = needs_arming, False
        self.tokens: list[str] = []
        self.codes: list[int] = []
        self.misbehaviour: list[str] = []
        self.leg = WebSocketLeg(
            self, self.clock, LeadPolicy(200, 200, 600, 40), start_timeout_s=START_S, media_timeout_s=MEDIA_S
        )
        self.leg.connection_made(self.transport)  # type: ignore[arg-type]
        self.client = ClientProtocol(parse_uri("ws://127.0.0.1:8080/ws/audio"))
        request = self.client.connect()
        request.headers.update({"Origin": origin} if origin else {})
        self.client.send_request(request)
        self._read = 0
        (self.response,) = self.flush()
        if start is not None:
            assert self.say(start) == []
            self.let_in()
            assert self.news() == [json.loads(live.encode(JOINED))]

    # --- AudioDoor ---

    def welcome(self, socket: MediaSocket) -> bool:
        return not self.full

    def gone(self, socket: MediaSocket, code: int) -> None:
        self.codes.append(code)

    def misbehaved(self, what: str) -> None:
        self.misbehaviour.append(what)

    def enter(self, leg: WebSocketLeg, token: str) -> None:
        self.tokens.append(token)

    # --- the device ---

    def let_in(self) -> None:
        call: Any = self.call
        self.leg.entered(Entered(call, JOINED, self.needs_arming))

    def flush(self) -> list[Any]:
        self.leg.data_received(b"".join(self.client.data_to_send()))
        return self.news()

    def news(self) -> list[Any]:
        """JSON as it is, audio as bytes, a close as its code."""
        self.client.receive_data(self.transport.written[self._read :])
        self._read = len(self.transport.written)
        found: list[Any] = []
        for event in self.client.events_received():
            if isinstance(event, Response):
                found.append(event)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found.append(json.loads(bytes(event.data)))
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                found.append(bytes(event.data))
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                found.append(int.from_bytes(event.data[:2], "big"))
            elif isinstance(event, Frame):
                found.append(event.opcode)
        return found

    def say(self, *messages: dict[str, Any] | bytes | str) -> list[Any]:
        for message in messages:
            if isinstance(message, bytes):
                self.client.send_binary(message)
            else:
                self.client.send_text((message if isinstance(message, str) else json.dumps(message)).encode())
        return self.flush()

    def pass_s(self, seconds: float, *, answers: bool = False) -> None:
        for _ in range(round(seconds / 0.25)):
            self.leg.check(self.clock.advance(0.25))
            if answers:
                self.news()
                self.flush()

    def beats(self, count: int) -> None:
        for _ in range(count):
            self.leg.beat(self.clock.advance(0.02))


def mistake(told: list[Any]) -> str:
    (only,) = told
    assert only["type"] == "mistake"
    return str(only["code"])


# --- coming in ---


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("", 101),
        ("http://here:8080", 101),
        ("http://127.0.0.1:8080", 101),
        ("https://shop.example", 101),
        ("https://127.0.0.1:8080", 403),
        ("https://elsewhere.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_other_origins_may_not_call(origin: str, status: int) -> None:
    rig = Rig(None, origin=origin)
    assert rig.response.status_code == status
    assert rig.transport.closed == (status != 101)


def test_while_the_token_is_redeemed_nothing_is_read_and_nothing_lost() -> None:
    rig = Rig(None)
    rig.client.send_text(json.dumps(MULAW | {"token": "good"}).encode())
    assert rig.say(FRAME, {"type": "dtmf", "digits": "7"}) == []
    assert (rig.tokens, rig.transport.reading, rig.call.heard) == (["good"], False, [])
    rig.pass_s(START_S + 1)
    rig.let_in()
    assert [news["type"] for news in rig.news()] == ["joined"]
    assert rig.transport.reading
    assert rig.call.heard == [(FRAME, 0)]
    assert rig.call.said == [("key", "7")]


def test_joined_is_the_first_message_of_an_agent_that_greets_at_once() -> None:
    rig = Rig(None)
    rig.call.greeting = [Message(FRAME, "1:20", 0.0)]
    rig.say(PCM_16K)
    rig.let_in()
    first, audio = rig.news()
    assert (first["type"], len(audio)) == ("joined", 640)
    rig.say({"type": "played", "ms": 20})
    assert rig.call.marks == ["1:20"]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("{", "not_json"),
        ("[" * 9000, "not_json"),
        ("[]", "no_start"),
        ({"type": "armed", "by": "button"}, "no_start"),
        (FRAME, "no_start"),
        (MULAW | {"rate_hz": 16_000}, "bad_format"),
        (MULAW | {"encoding": "opus"}, "bad_format"),
        (MULAW | {"encoding": ["mulaw"]}, "bad_format"),
        (MULAW | {"rate_hz": 8000.5}, "bad_format"),
        (MULAW | {"rate_hz": True}, "bad_format"),
        (MULAW | {"acks": 1}, "bad_value"),
        (MULAW | {"token": 1}, "bad_value"),
        (MULAW | {"token": "x" * 3000}, "bad_value"),
    ],
)
def test_a_bad_beginning_is_refused_with_a_reason(first: Any, code: str) -> None:
    rig = Rig(None)
    told, closed = rig.say(first)
    assert (told["type"], told["code"], closed) == ("refused", code, 1008)
    assert rig.tokens == []


def test_without_a_token_only_by_a_loopback_name() -> None:
    rig = Rig(None)
    rig.leg = WebSocketLeg(rig, rig.clock, LeadPolicy(), start_timeout_s=START_S, media_timeout_s=MEDIA_S)
    rig.transport, rig._read = FakeTransport(), 0
    rig.leg.connection_made(rig.transport)  # type: ignore[arg-type]
    rig.client = ClientProtocol(parse_uri("ws://rebound.example:8080/ws/audio"))
    rig.client.send_request(rig.client.connect())
    rig.flush()
    told, closed = rig.say(MULAW)
    assert (told["code"], closed, rig.tokens) == ("no_token", 1008, [])


@pytest.mark.parametrize(("code", "closed", "retry"), [("token_used", 1008, None), ("overloaded", 1013, 2)])
def test_who_is_not_let_in_learns_whether_to_try_again(code: str, closed: int, retry: int | None) -> None:
    rig = Rig(None)
    rig.say(MULAW | {"token": "t"})
    rig.leg.refuse(Refuse(code, "no"))
    told, with_code = rig.news()
    assert (told["code"], told.get("retry_after_s"), with_code) == (code, retry, closed)
    assert rig.transport.reading


def test_too_late_and_too_much_before_it_was_let_in() -> None:
    late = Rig(None)
    late.pass_s(START_S + 0.25)
    told, closed = late.news()
    assert (told["code"], closed) == ("too_late", 1008)
    rig = Rig(None)
    assert rig.say(MULAW, *[FRAME * 8] * 60)[-1] == 1008
    full = Rig(None)
    full.full = True
    assert full.leg.writable


def test_whose_call_is_ending_or_whose_socket_is_gone_meanwhile() -> None:
    ending = Rig(None)
    ending.call.refuses = True
    ending.say(MULAW)
    ending.let_in()
    assert ending.news()[0]["code"] == "ending"
    gone = Rig(None)
    gone.say(MULAW)
    gone.leg.connection_lost(None)
    gone.let_in()
    assert gone.call.said == [("lost", "socket lost")]


# --- the caller's audio ---


def test_mulaw_is_the_lanes_own_and_pieces_become_frames() -> None:
    rig = Rig()
    assert rig.say(FRAME, FRAME[:80], FRAME[80:] + FRAME, FRAME * 10) == []
    assert rig.call.heard == [(FRAME, 20 * n) for n in range(13)]


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_pcm_becomes_the_lanes_mulaw(rate_hz: int) -> None:
    rig = Rig(PCM_16K | {"rate_hz": rate_hz})
    tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(rate_hz // 5) / rate_hz)).astype(np.int16).tobytes()
    step = rate_hz // 50 * 2
    rig.say(*(tone[at : at + step] for at in range(0, len(tone), step)))
    assert [ms for _, ms in rig.call.heard] == list(range(0, 200, 20))
    heard = np.frombuffer(b"".join(decode(frame, "mulaw") for frame, _ in rig.call.heard), np.int16)
    assert np.abs(heard[400:]).max() == pytest.approx(8000, rel=0.05)
    assert np.abs(np.fft.rfft(heard[400:1200])).argmax() == 50  # 500 Hz


@pytest.mark.parametrize("bad", [b"", b"\0", bytes(158), bytes(641), bytes(6404)])
def test_audio_that_is_none_is_told_once_and_counted(bad: bytes) -> None:
    rig = Rig(PCM_16K)
    assert mistake(rig.say(bad)) == "bad_value"
    assert rig.say(bad) == []
    assert rig.say(bytes(640)) == []
    assert rig.leg.stats()["bad_messages"] == 2
    assert len(rig.call.heard) == 1


def test_what_no_network_can_hold_back_is_not_taken() -> None:
    rig = Rig()
    assert rig.say(*[FRAME * 10] * 50) == []  # 10 s at once, after a stall
    assert mistake(rig.say(*[FRAME] * 3)) == "too_many"
    assert rig.leg.stats()["over_rate_messages"] == 3
    rig.clock.advance(1.0)
    assert rig.say(FRAME) == []
    assert len(rig.call.heard) == 501


def test_a_device_is_heard_only_while_it_is_armed() -> None:
    rig = Rig(needs_arming=True)
    assert mistake(rig.say(FRAME, FRAME)) == "not_armed"
    rig.beats(3)
    assert rig.call.heard == [(b"\xff" * 160, ms) for ms in (0, 20, 40)]  # silence meanwhile
    rig.say({"type": "armed", "by": "wake_word", "wake_word": "computer", "score": 0.9}, FRAME)
    rig.beats(3)
    assert rig.call.heard[3:] == [(FRAME, 60)]
    rig.say({"type": "disarmed"}, FRAME)
    assert rig.leg.stats()["unarmed_messages"] == 3
    assert ("event", "armed") in rig.call.said


def test_silence_that_was_held_up_long_is_not_made_up_for() -> None:
    rig = Rig(needs_arming=True)
    rig.clock.advance(3.0)
    rig.beats(1)
    assert len(rig.call.heard) == 1
    rig.clock.advance(0.08)
    rig.beats(1)
    assert len(rig.call.heard) == 6


# --- what it asks ---


def test_it_writes_keys_and_flushes() -> None:
    rig = Rig()
    rig.say({"type": "text", "text": "on Mondays"}, {"type": "dtmf", "digits": "42"}, {"type": "flush"})
    assert rig.call.said == [("typed", "on Mondays"), ("key", "4"), ("key", "2"), ("flush",)]
    assert mistake(rig.say({"type": "dance"})) == "unknown_type"
    assert mistake(rig.say("{")) == "not_json"
    assert mistake(rig.say(MULAW)) == "unknown_type"
    assert mistake(rig.say({"type": "text", "text": "x" * 5000})) == "too_long"


def test_who_goes_on_with_mistakes_is_cut_off() -> None:
    rig = Rig()
    for _ in range(MAX_FAULTS):
        rig.say(b"\0")
    assert rig.say(b"\0") == [1008]
    assert rig.call.said == [("lost", "too many mistakes")]


def test_a_bug_of_ours_ends_this_call() -> None:
    rig = Rig()
    rig.call.breaks = True
    assert rig.say(FRAME) == [1011]
    assert [said[0] for said in rig.call.said] == ["crashed"]


# --- the agent's audio ---


def speak(rig: Rig, *ends_ms: int, size_ms: int = 40) -> None:
    rig.leg.send([Message(b"\x80" * (size_ms * 8), f"1:{end}", 0.0) for end in ends_ms])


def test_the_agents_voice_leaves_in_frames_of_20_ms_in_the_devices_format() -> None:
    rig = Rig()
    speak(rig, 40)
    assert rig.news() == [b"\x80" * 160] * 2
    wide = Rig(PCM_16K)
    speak(wide, 40)
    first, second = wide.news()
    assert (len(first), len(second)) == (640, 640)
    level = np.frombuffer(decode(b"\x80", "mulaw"), np.int16)[0]
    assert np.frombuffer(second, np.int16)[100:] == pytest.approx(level, rel=0.01)
    assert encode(decode(FRAME, "mulaw"), "mulaw") != b""


def test_marks_are_reached_by_what_was_played() -> None:
    rig = Rig()
    speak(rig, 40, 80, 120)
    rig.news()
    for ms, marks in ((39, 0), (40, 1), (100, 2), (100, 2), (120, 3)):
        assert rig.say({"type": "played", "ms": ms}) == []
        assert len(rig.call.marks) == marks
    assert rig.call.marks == ["1:40", "1:80", "1:120"]


@pytest.mark.parametrize("ms", [-1, 1.5, True, "40", None, 121, 10**400])
def test_no_more_is_played_than_was_sent(ms: Any) -> None:
    rig = Rig()
    speak(rig, 40, 80, 120)
    rig.news()
    assert mistake(rig.say({"type": "played", "ms": ms})) == "bad_value"
    assert rig.call.marks == []


def test_what_was_played_does_not_fall() -> None:
    rig = Rig()
    speak(rig, 40, 80)
    rig.news()
    rig.say({"type": "played", "ms": 80})
    assert mistake(rig.say({"type": "played", "ms": 60})) == "bad_value"


def test_a_word_that_was_under_way_when_we_cleared_reaches_no_mark() -> None:
    rig = Rig()
    speak(rig, 40, 80, 120)
    rig.news()
    rig.say({"type": "played", "ms": 40})
    assert rig.leg.clear() == 80
    assert rig.news() == [{"type": "clear", "sent_ms": 120}]
    speak(rig, 80)  # again, from where it was heard
    assert rig.say({"type": "played", "ms": 90}) == [b"\x80" * 160] * 2
    assert rig.say({"type": "cleared", "sent_ms": 120, "played_ms": 90}) == []
    assert rig.call.marks == ["1:40"]
    rig.say({"type": "played", "ms": 160})
    assert rig.call.marks == ["1:40", "1:80"]


@pytest.mark.parametrize(("sent_ms", "played_ms"), [(80, 40), (120, 130), (None, 0), (120, -1)])
def test_a_clear_is_answered_with_what_it_said(sent_ms: Any, played_ms: int) -> None:
    rig = Rig()
    speak(rig, 40, 80, 120)
    rig.leg.clear()
    rig.news()
    assert mistake(rig.say({"type": "cleared", "sent_ms": sent_ms, "played_ms": played_ms})) == "bad_value"
    assert rig.say({"type": "cleared", "sent_ms": 120, "played_ms": 40}) == []
    assert mistake(rig.say({"type": "cleared", "sent_ms": 120, "played_ms": 40})) == "bad_value"


def test_without_acks_the_clock_tells() -> None:
    rig = Rig(MULAW | {"acks": False})
    speak(rig, 40, 80, 120)
    rig.beats(3)
    assert rig.call.marks == []  # 60 ms: the way, and not yet 40 of it
    rig.beats(1)
    assert rig.call.marks == ["1:40"]
    assert rig.leg.clear() == 80  # 70 ms are left, in frames
    rig.beats(10)
    assert rig.call.marks == ["1:40"]
    rig.news()
    assert mistake(rig.say({"type": "played", "ms": 40})) == "unknown_type"


# --- life and end ---


def test_who_answers_pings_lives_and_who_does_not_is_lost() -> None:
    rig = Rig()
    rig.pass_s(4 * MEDIA_S, answers=True)
    assert rig.call.said == []
    rig.pass_s(PING_S + 1)
    assert rig.news() == [Opcode.PING]
    rig.pass_s(MEDIA_S)
    assert rig.call.said == [("lost", "no media")]
    assert 1001 in rig.news()


def test_a_slow_reader_costs_only_itself() -> None:
    rig = Rig()
    rig.leg.pause_writing()
    rig.leg.tell('{"type":"state"}')
    assert rig.leg.stats()["dropped_events"] == 1
    assert not rig.leg.writable
    rig.leg.resume_writing()
    assert rig.leg.writable
    rig.leg.pause_writing()
    rig.pass_s(STALL_S + 0.5)
    assert rig.call.said[-1] == ("lost", "peer does not read")
    assert rig.transport.aborted


def test_the_reason_is_the_last_message() -> None:
    rig = Rig()
    rig.leg.close("agent_hung_up")
    rig.leg.close("agent_hung_up")
    assert rig.news() == [{"type": "ended", "reason": "agent_hung_up"}, 1000]
    speak(rig, 40)
    rig.leg.tell("{}")
    rig.leg.clear()
    assert rig.news() == []
    rig.pass_s(CLOSE_WAIT_S + 0.5)
    assert rig.transport.aborted


def test_another_leg_takes_over() -> None:
    rig = Rig()
    rig.leg.detach()
    rig.leg.close("replaced")
    assert rig.news() == [1001]
    rig.leg.connection_lost(None)
    assert (rig.call.said, rig.codes) == ([], [1001])


@pytest.mark.parametrize(
    ("code", "said"),
    [(1000, ("stopped",)), (1001, ("stopped",)), (4000, ("lost", "the device closed the socket (4000)"))],
)
def test_a_device_that_closes_in_order_has_hung_up(code: int, said: tuple[str, ...]) -> None:
    rig = Rig()
    rig.client.send_close(code)
    assert rig.flush() == [code]
    assert rig.call.said == [said]


def test_a_device_that_vanishes_is_lost() -> None:
    rig = Rig()
    rig.leg.connection_lost(None)
    assert rig.call.said == [("lost", "socket lost")]
    assert "again" not in repr(JOINED)


# --- whatever comes ---


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=700),
            st.text(max_size=60),
            st.fixed_dictionaries(
                {"type": st.sampled_from(["played", "cleared", "armed", "text", "dtmf", "flush", "start"])},
                optional={
                    key: st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans())
                    for key in ("ms", "sent_ms", "played_ms", "by", "text", "digits", "score")
                },
            ),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_no_message_breaks_it(messages: list[Any], acks: bool) -> None:
    rig = Rig(MULAW | {"acks": acks})
    speak(rig, 40, 80)
    rig.say(*messages)
    rig.beats(2)
    assert not any(said[0] == "crashed" for said in rig.call.said)
    assert all(len(frame) == MULAW_8K.frame_bytes for frame, _ in rig.call.heard)
    assert not rig.leg.closing


def test_who_is_hung_up_on_as_they_come_in_learns_why() -> None:
    rig = Rig(None)
    rig.call.hangs_up = "refused"
    assert rig.say(MULAW) == []
    rig.let_in()
    assert rig.news() == [{"type": "ended", "reason": "refused"}, 1000]
    assert rig.transport.reading
