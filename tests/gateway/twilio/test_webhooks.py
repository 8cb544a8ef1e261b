import io
import logging
import re
import wave
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlencode
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from starlette.applications import Starlette
from starlette.datastructures import ImmutableMultiDict
from starlette.testclient import TestClient
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from trunkline.compliance.stir.verstat import fold, values
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.routed import Elsewhere, Queued
from trunkline.gateway.twilio.signature import Signatures
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import (
    LOST_TEXT,
    MAX_BODY_BYTES,
    CallStatus,
    CallView,
    Heard,
    Webhooks,
    phone_number,
    webhook_routes,
)
from trunkline.metrics import Metrics
from trunkline.numbers.queueing import OFFER, TURN_S, TURNS_OF_MUSIC, Hold
from trunkline.ports import Allow, CallerVerdict, Refuse
from trunkline.testing.clock import ManualClock
from trunkline.types import E164, CallId, CallSid, StreamSid

SID = CallSid("CA" + "0a" * 16)
STREAM = StreamSid("MZ" + "0b" * 16)
ORIGIN = "https://voice.example.com"
CALLER = {"CallSid": SID, "From": "+14155550123", "To": "+18005550199", "CallStatus": "ringing", "Direction": "inbound"}


@dataclass
class FakeSwitchboard:
    refuse: Refuse | None = None
    breaks: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    calls: dict[CallSid, CallView] = field(default_factory=dict)
    heard: list[tuple[Any, ...]] = field(default_factory=list)

    def admit(self, arrival: Arrival) -> CallId | Refuse:
        if self.breaks:
            raise RuntimeError("a bug")
        self.arrivals.append(arrival)
        if self.refuse:
            return self.refuse
        fresh = CallView(CallId(f"call-{len(self.calls) + 1}"), "live")
        return self.calls.setdefault(CallSid(arrival.provider_call_id), fresh).call_id

    def by_call_sid(self, call_sid: CallSid) -> CallView | None:
        return self.calls.get(call_sid)

    def status(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        self.heard.append(("status", call_sid, status, duration_s))

    def stream_event(self, call_sid: CallSid, stream_sid: StreamSid, event: str, error: str) -> None:
        self.heard.append(("stream", call_sid, stream_sid, event, error))

    def dialled(self, call_sid: CallSid, status: CallStatus, duration_s: int | None) -> None:
        self.heard.append(("dialled", call_sid, status, duration_s))

    def sent_on(self, call_sid: CallSid, duration_s: int) -> None:
        self.heard.append(("sent_on", call_sid, duration_s))


@dataclass
class FakePlaced:
    """Knows the token `t`."""

    wanted: Literal["call", "leg"] | None = "call"
    answered: list[CallSid] = field(default_factory=list)
    said: list[Heard] = field(default_factory=list)
    machines: list[tuple[Any, ...]] = field(default_factory=list)
    streams: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, token: str, call_sid: CallSid) -> Literal["call", "leg"] | None:
        self.answered.append(call_sid)
        return self.wanted if token == "t" else None

    def heard(self, token: str, heard: Heard) -> bool:
        self.said.append(heard)
        return token == "t"

    def machine(self, token: str, call_sid: CallSid, answered_by: str, after_ms: int | None) -> None:
        self.machines.append((token, call_sid, answered_by, after_ms))

    def stream_event(self, token: str, call_sid: CallSid, event: str, error: str) -> bool:
        if token != "t" or self.wanted != "leg":
            return False
        self.streams.append((event, error))
        return True


class Line:
    """The webhooks behind a test client, and what they answered."""

    def __init__(
        self,
        auth_tokens: tuple[str, ...] = (),
        fallback_number: str | None = None,
        dial_caller_id: str = "",
        refuse_fallback: Refuse | None = None,
    ) -> None:
        self.expected: list[Arrival] = []
        self.keys: list[tuple[str, str]] = []
        self.switchboard, self.clock, self.metrics = FakeSwitchboard(), ManualClock(), Metrics()
        self.tokens, self.placed = Tokens(), FakePlaced()
        webhooks = Webhooks(
            self.switchboard,
            self.tokens,
            ORIGIN,
            fallback_number=fallback_number,
            fallback_text="All lines are busy.",
            max_call_seconds=3600,
            dial_caller_id=dial_caller_id,
            placed=self.placed,
            signed=bool(auth_tokens),
            may_fall_back=lambda ours: refuse_fallback or Allow(),
            expect=self._expect,
            keyed=self._keyed,
        )
        routes = webhook_routes(webhooks, Signatures(auth_tokens, ORIGIN), self.metrics, self.clock)
        self.client = TestClient(Starlette(routes=routes))

    def post(self, path: str, form: dict[str, str], status: int = 200, **headers: str) -> Element:
        response = self.client.post(path, data=form, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (status, "text/xml; charset=utf-8")
        return ElementTree.fromstring(response.text)

    async def _expect(self, arrival: Arrival) -> None:
        self.expected.append(arrival)

    async def _keyed(self, call_sid: str, digits: str) -> None:
        self.keys.append((call_sid, digits))

    def token(self, document: Element) -> str:
        return next(p.attrib["value"] for p in document.iter("Parameter") if p.attrib["name"] == "token")


@pytest.fixture
def line() -> Line:
    return Line()


def tags(document: Element) -> list[str]:
    return [element.tag for element in document]


def test_a_call_is_connected_to_the_media_socket(line: Line) -> None:
    document = line.post("/twilio/voice", CALLER)
    (connect,) = document
    (stream,) = connect
    assert connect.attrib == {"action": f"{ORIGIN}/twilio/continue?n=0", "method": "POST"}
    assert stream.attrib["url"] == "wss://voice.example.com/twilio/media"
    assert stream.attrib["statusCallback"] == f"{ORIGIN}/twilio/stream-status"
    assert line.tokens.redeem(line.token(document), SID, line.clock.now()) == "call-1"
    assert line.switchboard.arrivals == [Arrival(SID, "twilio", "inbound", E164("+14155550123"), E164("+18005550199"))]


def test_a_duplicate_is_the_same_call_with_a_fresh_token(line: Line) -> None:
    first, second = line.post("/twilio/voice", CALLER), line.post("/twilio/voice", CALLER)
    now = line.clock.now()
    assert line.tokens.redeem(line.token(first), SID, now) == line.tokens.redeem(line.token(second), SID, now)


def test_a_late_duplicate_of_an_ended_call_hangs_up(line: Line) -> None:
    line.switchboard.calls[SID] = CallView(CallId("call-1"), "ended")
    assert tags(line.post("/twilio/voice", CALLER)) == ["Hangup"]
    assert line.switchboard.arrivals == []


@pytest.mark.parametrize(
    "value", ["", "anonymous", "client:alice", "sip:bob@example.com", "+266696687", "12345", "+1415", "+1 415 555 0123"]
)
def test_what_is_no_phone_number_is_unknown(value: str) -> None:
    assert phone_number(value) is None


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        ({}, "CallSid: missing"),
        ({"CallSid": "CA123"}, "CallSid: CA and 32 hex digits expected"),
        ({"CallSid": "CA" + "0A" * 16}, "CallSid: CA and 32 hex digits expected"),
        ({"CallSid": SID + "\n"}, "CallSid: CA and 32 hex digits expected"),
        ([("CallSid", SID), ("CallSid", SID)], "CallSid: given 2 times"),
        ({"CallSid": SID, "From": ["a", "b"]}, "From: given 2 times"),
    ],
)
def test_a_malformed_webhook_is_told_what_is_wrong(line: Line, form: Any, detail: str) -> None:
    body = urlencode(form, doseq=True)
    response = line.client.post(
        "/twilio/voice", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (response.status_code, response.text) == (400, detail + "\n")
    assert line.switchboard.arrivals == []


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=b", "", 415),
        (b"a=" + b"b" * MAX_BODY_BYTES, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=%d" % i for i in range(300)), "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        ("a=é".encode(), "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 400),
    ],
)
def test_what_is_no_form_is_refused(line: Line, content: bytes, content_type: str, status: int) -> None:
    response = line.client.post("/twilio/voice", content=content, headers={"Content-Type": content_type})
    assert response.status_code == status


def test_only_post(line: Line) -> None:
    assert line.client.get("/twilio/voice").status_code == 405


def test_the_signature_is_over_the_public_origin_whatever_host_says() -> None:
    line = Line(auth_tokens=("old", "secret"))
    signature = RequestValidator("secret").compute_signature(f"{ORIGIN}/twilio/voice?x=%7E1", CALLER)
    headers = {"X-Twilio-Signature": signature, "Host": "evil.example.com", "X-Forwarded-Host": "evil.example.com"}
    assert tags(line.post("/twilio/voice?x=%7E1", CALLER, **headers)) == ["Connect"]
    for path, form, given in [
        ("/twilio/voice?x=~1", CALLER, signature),
        ("/twilio/voice", CALLER, signature),
        ("/twilio/voice?x=%7E1", CALLER | {"From": "+14155550124"}, signature),
        ("/twilio/voice?x=%7E1", CALLER, ""),
    ]:
        response = line.client.post(path, data=form, headers={"X-Twilio-Signature": given})
        assert response.status_code == 403
    evil = RequestValidator("secret").compute_signature("https://evil.example.com/twilio/voice", CALLER)
    response = line.client.post(
        "/twilio/voice", data=CALLER, headers={"X-Twilio-Signature": evil, "Host": "evil.example.com"}
    )
    assert response.status_code == 403
    assert len(line.switchboard.arrivals) == 1
    assert b'trunkline_webhooks_total{kind="voice",outcome="bad_signature"} 5.0' in line.metrics.text()


@pytest.mark.parametrize("path", ["voice", "status", "stream-status", "continue", "dial-status"])
def test_every_webhook_is_signed(path: str) -> None:
    line = Line(auth_tokens=("secret",))
    assert line.client.post(f"/twilio/{path}", data=CALLER).status_code == 403
    assert (line.switchboard.arrivals, line.switchboard.heard) == ([], [])


@pytest.mark.parametrize("code", ["draining", "overloaded"])
def test_a_full_house_says_so(line: Line, code: str) -> None:
    line.switchboard.refuse = Refuse(code, "")
    document = line.post("/twilio/voice", CALLER)
    assert (tags(document), document.findtext("Say")) == (["Say", "Hangup"], "All lines are busy.")


@pytest.mark.parametrize("code", ["number_full", "tenant_full"])
def test_where_there_are_as_many_calls_as_may_be_it_is_busy(line: Line, code: str) -> None:
    line.switchboard.refuse = Refuse(code, "")
    (reject,) = line.post("/twilio/voice", CALLER)
    assert (reject.tag, reject.attrib["reason"]) == ("Reject", "busy")
    assert [each.provider_call_id for each in line.expected] == [CALLER["CallSid"]]
    spare = Line(fallback_number="+14155550100")
    spare.switchboard.refuse = Refuse(code, "")
    assert tags(spare.post("/twilio/voice", CALLER)) == ["Dial"]


def test_a_full_house_dials_the_fallback_number() -> None:
    line = Line(fallback_number="+14155550100")
    line.switchboard.refuse = Refuse("draining", "")
    (dial,) = line.post("/twilio/voice", CALLER)
    assert dial.findtext("Number") == "+14155550100"
    after = dial.attrib["action"].removeprefix(ORIGIN)
    assert tags(line.post(after, CALLER | {"DialCallStatus": "completed"})) == ["Hangup"]
    assert line.post(after, CALLER | {"DialCallStatus": "busy"}).findtext("Say") == "All lines are busy."
    assert line.switchboard.heard == []


def test_a_fallback_number_that_a_rule_refuses_is_not_dialled() -> None:
    line = Line(fallback_number="+14155550100", refuse_fallback=Refuse("total_cap", "1200 calls within an hour"))
    line.switchboard.refuse = Refuse("overloaded", "")
    assert tags(line.post("/twilio/voice", CALLER)) == ["Say", "Hangup"]


def test_an_emergency_call_that_was_forwarded_hears_what_to_dial(line: Line) -> None:
    line.switchboard.refuse = Refuse("emergency", "")
    said = line.post("/twilio/voice", CALLER | {"ForwardedFrom": "911"})
    assert "9 1 1" in (said.findtext("Say") or "")
    assert tags(said) == ["Say", "Hangup"]


def test_a_refused_call_is_rejected_before_it_is_answered(line: Line) -> None:
    line.switchboard.refuse = Refuse("blocked", "")
    assert tags(line.post("/twilio/voice", CALLER)) == ["Reject"]


def test_a_bug_of_ours_is_heard_as_the_fallback(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.switchboard.breaks = True
    with caplog.at_level(logging.CRITICAL, "trunkline"):
        document = line.post("/twilio/voice", CALLER)
        assert document.findtext("Say") == "All lines are busy."
        assert line.post("/twilio/continue", CALLER).findtext("Say") == LOST_TEXT
    assert b'outcome="error"} 1.0' in line.metrics.text()


def test_after_our_own_goodbye_twilio_hangs_up(line: Line) -> None:
    line.switchboard.calls[SID] = CallView(CallId("call-1"), "ended")
    assert tags(line.post("/twilio/continue?n=0", CALLER)) == ["Hangup"]


def test_a_transfer_dials_and_its_success_ends_the_call(line: Line) -> None:
    line.switchboard.calls[SID] = CallView(CallId("call-1"), "transferring", E164("+14155550100"))
    (dial,) = line.post("/twilio/continue?n=0", CALLER)
    assert (dial.attrib["timeLimit"], dial.findtext("Number")) == ("3600", "+14155550100")
    line.switchboard.calls[SID] = replace(line.switchboard.calls[SID], limit_s=180)
    assert line.post("/twilio/continue?n=0", CALLER)[0].attrib["timeLimit"] == "180"
    after = dial.attrib["action"].removeprefix(ORIGIN)
    form = CALLER | {"DialCallStatus": "completed", "DialCallDuration": "42"}
    assert tags(line.post(after, form)) == ["Hangup"]
    assert line.switchboard.heard == [("dialled", SID, "completed", 42)]


def test_a_transfer_that_fails_comes_back_to_the_agent(line: Line) -> None:
    line.switchboard.calls[SID] = CallView(CallId("call-1"), "transferring", E164("+14155550100"))
    document = line.post("/twilio/dial-status?n=0", CALLER | {"DialCallStatus": "no-answer"})
    assert tags(document) == ["Connect"]
    assert document[0].attrib["action"].endswith("?n=1")
    assert line.switchboard.heard == [("dialled", SID, "no-answer", None)]
    (arrival,) = line.switchboard.arrivals
    assert (arrival.why, arrival.reconnects) == ("transfer_failed", 1)


def test_who_calls_in_a_transfer_is_the_caller_or_as_set() -> None:
    for caller_id, shown in (("", None), ("+14155550177", "+14155550177")):
        line = Line(dial_caller_id=caller_id)
        line.switchboard.calls[SID] = CallView(CallId("call-1"), "transferring", E164("+14155550100"))
        assert line.post("/twilio/continue?n=0", CALLER)[0].get("callerId") == shown


# --- calls of ours ---

OURS = CALLER | {"Direction": "outbound-api", "From": "+18005550199", "To": "+14155550123", "CallStatus": "in-progress"}


def test_a_call_of_ours_that_is_answered_gets_a_stream(line: Line) -> None:
    document = line.post("/twilio/voice?order=t", OURS)
    assert tags(document) == ["Connect"]
    assert line.placed.answered == [SID]
    (arrival,) = line.switchboard.arrivals
    assert (arrival.direction, arrival.to_number) == ("outbound", "+14155550123")


def test_a_second_leg_that_is_answered_gets_a_stream_of_its_own_and_is_no_call(line: Line) -> None:
    line.placed.wanted = "leg"
    document = line.post("/twilio/voice?order=t", OURS)
    assert tags(document) == ["Connect"]
    assert line.switchboard.arrivals == []
    assert line.tokens.redeem(line.token(document), SID, line.clock.now()) == "t"
    stream = document[0][0]
    assert stream.attrib["statusCallback"] == f"{ORIGIN}/twilio/stream-status?order=t"
    form = {"CallSid": SID, "StreamSid": STREAM, "StreamEvent": "stream-started"}
    assert line.client.post("/twilio/stream-status?order=t", data=form).status_code == 204
    assert line.placed.streams == [("stream-started", "")]
    assert line.switchboard.heard == []
    after = document[0].attrib["action"].removeprefix(ORIGIN)
    assert tags(line.post(after, OURS)) == ["Hangup"]
    assert line.switchboard.arrivals == []


@pytest.mark.parametrize("token", ["", "another", "t"])
def test_an_answer_that_nobody_waits_for_is_hung_up_on(line: Line, token: str) -> None:
    """Ordered by a process that is dead, or given up meanwhile."""
    line.placed.wanted = None
    assert tags(line.post(f"/twilio/voice?order={token}", OURS)) == ["Hangup"]
    assert line.switchboard.arrivals == []


def test_the_status_of_a_call_of_ours_is_told_with_its_codes(line: Line) -> None:
    form = OURS | {"CallStatus": "failed", "SipResponseCode": "404", "ErrorCode": "13224", "CallDuration": "0"}
    assert line.client.post("/twilio/status?order=t", data=form).status_code == 204
    assert line.placed.said == [Heard(SID, "failed", 0, 404, 13224)]
    assert line.switchboard.heard == []
    line.client.post("/twilio/status?order=another", data=OURS | {"CallStatus": "completed"})
    assert line.switchboard.heard == [("status", SID, "completed", None)]


def test_who_answered_is_told(line: Line) -> None:
    form = {"CallSid": SID, "AnsweredBy": "machine_end_beep", "MachineDetectionDuration": "2900"}
    assert line.client.post("/twilio/machine?order=t", data=form).status_code == 204
    assert line.placed.machines == [("t", SID, "machine_end_beep", 2900)]
    assert line.client.post("/twilio/machine?order=t", data=form | {"AnsweredBy": "a cat"}).status_code == 400


@pytest.mark.parametrize("known", [True, False])
def test_a_lost_leg_is_reconnected_twice_then_comes_a_goodbye(line: Line, known: bool) -> None:
    """Not known: another process answers, the one that knew is dead."""
    if known:
        line.switchboard.calls[SID] = CallView(CallId("call-1"), "live")
    action = "/twilio/continue?n=0"
    for reconnects in (1, 2):
        document = line.post(action, CALLER | {"CallStatus": "in-progress"})
        assert tags(document) == ["Connect"]
        assert line.tokens.redeem(line.token(document), SID, line.clock.now()) == "call-1"
        assert (line.switchboard.arrivals[-1].why, line.switchboard.arrivals[-1].reconnects) == ("leg_lost", reconnects)
        action = document[0].attrib["action"].removeprefix(ORIGIN)
    document = line.post(action, CALLER)
    assert (tags(document), document.findtext("Say")) == (["Say", "Hangup"], LOST_TEXT)
    assert len(line.switchboard.arrivals) == 2


@pytest.mark.parametrize("n", ["", "-1", "99999999999999999999", "x"])
def test_a_strange_count_counts_as_the_last(line: Line, n: str) -> None:
    assert tags(line.post(f"/twilio/continue?n={n}", CALLER)) == ["Say", "Hangup"]


def test_a_caller_who_has_gone_is_not_reconnected(line: Line) -> None:
    assert tags(line.post("/twilio/continue?n=0", CALLER | {"CallStatus": "completed"})) == ["Hangup"]
    gone = CALLER | {"CallStatus": "completed", "DialCallStatus": "canceled"}
    assert tags(line.post("/twilio/dial-status?n=0", gone)) == ["Hangup"]
    assert line.switchboard.arrivals == []


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled", "in-progress"])
def test_the_calls_status_reaches_the_switchboard(line: Line, status: str) -> None:
    response = line.client.post("/twilio/status", data=CALLER | {"CallStatus": status, "CallDuration": "7"})
    assert (response.status_code, response.content) == (204, b"")
    assert line.switchboard.heard == [("status", SID, status, 7)]


def test_an_unknown_status_is_refused(line: Line) -> None:
    assert line.client.post("/twilio/status", data=CALLER | {"CallStatus": "asleep"}).status_code == 400
    assert line.client.post("/twilio/status", data={"CallSid": SID}).status_code == 400
    assert line.switchboard.heard == []


def test_the_streams_own_events_are_another_thing(line: Line) -> None:
    form = {"CallSid": SID, "StreamSid": STREAM, "StreamEvent": "stream-error", "StreamError": "x" * 999}
    assert line.client.post("/twilio/stream-status", data=form).status_code == 204
    assert line.switchboard.heard == [("stream", SID, STREAM, "stream-error", "x" * 200)]
    assert line.client.post("/twilio/stream-status", data=form | {"StreamEvent": "?"}).status_code == 400
    assert line.client.post("/twilio/stream-status", data=form | {"StreamSid": "MZ"}).status_code == 400


def test_a_multi_dict_is_what_the_validator_expects() -> None:
    form = ImmutableMultiDict([("a", "2"), ("a", "1")])
    assert RequestValidator("t").compute_signature("u", form) == RequestValidator("t").compute_signature("ua1a2", {})


def test_the_token_leaves_no_trace_in_the_log(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "trunkline"):
        document = line.post("/twilio/voice", CALLER)
    assert line.token(document) not in caplog.text
    assert re.search(r"call call-1: CA0a", caplog.text)


# --- who vouches for the caller -------------------------------------------------------------------------------------


def called_with(line: Line, *words: str, key: str | None = "key") -> tuple[int, CallerVerdict | None]:
    """The status, and what the arrival says of the caller."""
    fields = [*CALLER.items(), *(("StirVerstat", word) for word in words)]
    body, form = urlencode(fields), ImmutableMultiDict(fields)
    signature = RequestValidator(key).compute_signature(f"{ORIGIN}/twilio/voice", form) if key else ""
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    response = line.client.post("/twilio/voice", content=body, headers=headers)
    arrivals = line.switchboard.arrivals
    return response.status_code, arrivals[-1].stir if arrivals else None


@pytest.mark.parametrize("word", values("twilio"))
def test_each_of_twilios_21_words_counts_where_webhooks_are_signed(word: str) -> None:
    status, verdict = called_with(Line(("key",)), word)
    assert status == 200
    assert verdict == fold("twilio", word)


def test_twilios_word_counts_from_twilio_only() -> None:
    assert called_with(Line(("key",)), "TN-Validation-Passed-A", key="other") == (403, None)
    assert called_with(Line(("key",)), "TN-Validation-Passed-A", key=None) == (403, None)
    assert called_with(Line(), "TN-Validation-Passed-A", key=None) == (200, None)  # anybody may have said it
    assert called_with(Line(("key",))) == (200, None)  # nobody looked


def test_words_that_differ_are_none() -> None:
    _, verdict = called_with(Line(("key",)), "TN-Validation-Passed-A", "TN-Validation-Failed")
    assert verdict is not None
    assert verdict.verdict == "none"


# --- a caller whom no agent of ours answers ---


def test_a_caller_is_put_through_by_the_numbers_route() -> None:
    line = Line(dial_caller_id="+18005550188")
    line.switchboard.refuse = Elsewhere("number", "by its route", number=E164("+14155550177"))
    (dial,) = line.post("/twilio/voice", CALLER)
    assert dial.attrib == {
        "action": f"{ORIGIN}/twilio/dial-status?fallback=1",
        "method": "POST",
        "timeout": "25",
        "timeLimit": "3600",
        "callerId": "+18005550188",
    }
    assert [element.text for element in dial] == ["+14155550177"]
    form = CALLER | {"DialCallStatus": "completed", "DialCallDuration": "42"}
    assert tags(line.post("/twilio/dial-status?fallback=1", form)) == ["Hangup"]
    assert line.switchboard.heard == [("sent_on", SID, 42)]
    line.switchboard.refuse = Elsewhere("number", "by its route", number=E164("+14155550177"), limit_s=180)
    assert line.post("/twilio/voice", CALLER)[0].attrib["timeLimit"] == "180"


def test_a_message_is_said_and_a_busy_tone_is_one(line: Line) -> None:
    line.switchboard.refuse = Elsewhere("message", "closed", text="We are <closed>.")
    document = line.post("/twilio/voice", CALLER)
    assert tags(document) == ["Say", "Hangup"]
    assert document[0].text == "We are <closed>."
    line.switchboard.refuse = Refuse("busy", "a busy tone")
    (reject,) = line.post("/twilio/voice", CALLER)
    assert reject.attrib == {"reason": "busy"}
    line.switchboard.refuse = Refuse("no_agent", "none is ready")
    assert line.post("/twilio/voice", CALLER)[0].text == "All lines are busy."


# --- callers who wait -----------------------------------------------------------------------------------------------


def queued(line: Line, unwritten: bool = False, **changes: Any) -> None:
    turn = Hold(2, says=True, says_position=True, offers=False, takes_key=False, music=1, seconds=TURN_S)
    line.switchboard.refuse = Queued("number_full", "full", turn=replace(turn, **changes), unwritten=unwritten)


def test_a_caller_for_whom_there_is_no_line_hears_their_position_and_music(line: Line) -> None:
    queued(line)
    document = line.post("/twilio/voice", CALLER)
    assert tags(document) == ["Say", "Say", "Play", "Redirect"]
    assert [element.text for element in document] == [
        "All our lines are busy. Please hold.",
        "You are number 2 in line.",
        f"{ORIGIN}/twilio/hold-1.wav",
        f"{ORIGIN}/twilio/queue",
    ]


def test_the_last_turn_is_as_short_as_what_is_left(line: Line) -> None:
    queued(line, says=False, seconds=3)
    document = line.post("/twilio/voice", CALLER)
    assert tags(document) == ["Pause", "Redirect"]
    assert document[0].attrib == {"length": "3"}


def test_a_callback_is_offered_and_its_key_told_before_the_switchboard_is_asked(line: Line) -> None:
    queued(line, offers=True, takes_key=True)
    document = line.post("/twilio/voice", CALLER)
    gather, redirect = document
    assert gather.attrib == {
        "input": "dtmf",
        "numDigits": "1",
        "timeout": "1",
        "action": f"{ORIGIN}/twilio/queue",
        "method": "POST",
    }
    assert [element.tag for element in gather] == ["Say", "Say", "Say", "Play"]
    assert gather[2].text == OFFER
    assert redirect.text == f"{ORIGIN}/twilio/queue"
    line.switchboard.refuse = Elsewhere("callback", "they will be called back", text="We will call you.")
    told = line.post("/twilio/queue", {**CALLER, "CallStatus": "in-progress", "Digits": "1"})
    assert line.keys == [(SID, "1")]
    assert tags(told) == ["Say", "Hangup"]


def test_a_callback_that_was_not_noted_is_said_not_to_be(line: Line) -> None:
    queued(line, unwritten=True, says=False)
    assert line.post("/twilio/queue", CALLER)[0].text == "I'm sorry, that could not be noted. Please stay on the line."


def test_who_has_waited_is_connected_when_it_is_their_turn(line: Line) -> None:
    document = line.post("/twilio/queue", {**CALLER, "CallStatus": "in-progress"})
    assert tags(document) == ["Connect"]
    assert [arrival.why for arrival in line.expected] == ["new"]


@pytest.mark.parametrize("code", ["number_full", "overloaded", "draining"])
def test_who_has_waited_in_vain_hears_why_and_is_not_rejected(line: Line, code: str) -> None:
    line.switchboard.refuse = Refuse(code, "full")
    document = line.post("/twilio/queue", {**CALLER, "CallStatus": "in-progress"})
    assert tags(document) == ["Say", "Hangup"]
    assert document[0].text == "All lines are busy."


def test_who_hung_up_while_they_waited_is_not_asked_for_again(line: Line) -> None:
    assert tags(line.post("/twilio/queue", {**CALLER, "CallStatus": "completed"})) == ["Hangup"]
    line.switchboard.calls[SID] = CallView(CallId("call-1"), "ended")
    assert tags(line.post("/twilio/queue", CALLER)) == ["Hangup"]
    assert line.switchboard.arrivals == []


def test_the_queue_is_signed_like_the_other_webhooks() -> None:
    assert Line(auth_tokens=("secret",)).client.post("/twilio/queue", data=CALLER).status_code == 403


def test_the_hold_music_may_be_cached_and_its_pieces_are_a_turn_long(line: Line) -> None:
    pieces = [line.client.get(f"/twilio/hold-{piece}.wav") for piece in range(TURNS_OF_MUSIC)]
    for piece in pieces:
        assert (piece.headers["content-type"], piece.headers["cache-control"]) == ("audio/wav", "public, max-age=86400")
        with wave.open(io.BytesIO(piece.content)) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (8000, TURN_S * 8000)
            assert any(sound.readframes(8000))
    assert pieces[0].content != pieces[1].content
    assert line.client.get(f"/twilio/hold-{TURNS_OF_MUSIC}.wav").status_code == 404
