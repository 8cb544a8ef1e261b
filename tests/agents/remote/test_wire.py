"""Values there and back through bytes, as the generated types write them."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote import wire
from trunkline.errors import ProviderError
from trunkline.ports import (
    CallerVerdict,
    CallFacts,
    Expect,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    ToolCall,
    TtsAudio,
    Word,
)
from trunkline.types import MULAW_8K, PCM_16K, CallId, TenantId

CALL = CallFacts(
    CallId("call_1"), TenantId("t"), "outbound", "+12025550123", None, datetime(2026, 11, 27, tzinfo=UTC), {"a": "b"}
)
TOOL = ToolCall("call_0", "look_up", {"day": "Monday", "n": [1, None, 2.5]})
CODES = ("timeout", "unavailable", "rate_limited", "auth", "bad_request", "protocol", "overloaded")


def test_a_call() -> None:
    assert wire.read_call(pb.Call.FromString(wire.write_call(CALL).SerializeToString())) == CALL


@pytest.mark.parametrize(
    "verdict",
    [
        CallerVerdict("passed", "A", rcd=(("name", "Bank"),)),
        CallerVerdict("failed", "B", "stale", mode="diverted"),
        CallerVerdict("none", reason="carrier_none", source="telnyx"),
    ],
)
def test_who_vouches_for_the_caller(verdict: CallerVerdict) -> None:
    call = replace(CALL, stir=verdict)
    assert wire.read_call(pb.Call.FromString(wire.write_call(call).SerializeToString())) == call


def test_what_only_the_record_has_of_a_verdict_stays_here() -> None:
    whole = CallerVerdict("failed", reason="carrier_failed", sip_code=438, source="pai", raw="x", why="y", origid="z")
    written = wire.write_call(replace(CALL, stir=whole))
    assert wire.read_call(written).stir == CallerVerdict("failed", reason="carrier_failed", source="pai")


def test_a_client_of_before_says_nothing_of_verdicts_and_a_server_of_before_reads_past_them() -> None:
    older = pb.Call(call_id="call_1", direction="inbound")
    assert wire.read_call(pb.Call.FromString(older.SerializeToString())).stir is None
    newer = wire.write_call(replace(CALL, stir=CallerVerdict("passed", "A")))
    assert newer.DESCRIPTOR.fields_by_name["caller_verdict"].number == 8
    assert [field.number for field in newer.DESCRIPTOR.fields][:7] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "message",
    [
        Message("caller", "Grüß Gott", keyed=True),
        Message("agent", "One moment", tool_calls=(TOOL,), cut=True),
        Message("tool", '{"free": true}', tool_call_id="call_0"),
        Message("caller", "quiero una cita", language="es-ES"),
        Message("summary", "They have paid."),
    ],
)
def test_a_message(message: Message) -> None:
    assert wire.read_message(pb.Message.FromString(wire.write_message(message).SerializeToString())) == message


@pytest.mark.parametrize("event", [TextDelta("We "), TOOL, Expect(Expectation("digits", 4, 6)), LlmUsage(120, 7)])
def test_an_event_of_the_mind(event: LlmEvent) -> None:
    assert wire.read_llm_event(pb.ReplyEvent.FromString(wire.write_llm_event(event).SerializeToString())) == event


@pytest.mark.parametrize(
    "event",
    [SttPartial("we", True), SttFinal("we open"), SttFinal("", understood=False), SttFinal("sí", language="es")],
)
def test_an_event_of_the_ears(event: SttEvent) -> None:
    written = wire.write_stt_event(7, event)
    assert (written.utterance, wire.read_stt_event(written, "remote")) == (7, event)


def test_audio_and_its_words() -> None:
    audio = TtsAudio(b"\x01\x02", (Word("hello", 0, 310),))
    assert wire.read_audio(wire.write_audio(audio), MULAW_8K) == audio
    with pytest.raises(wire.WireError):
        wire.read_audio(pb.SpeakEvent(audio=b"123"), PCM_16K)


@pytest.mark.parametrize(
    "read",
    [
        lambda: wire.read_call(pb.Call(direction="sideways")),
        lambda: wire.read_call(pb.Call(direction="inbound", caller_verdict=pb.CallerVerdict(verdict="yes"))),
        lambda: wire.read_call(
            pb.Call(direction="inbound", caller_verdict=pb.CallerVerdict(verdict="passed", attest="D", mode="direct"))
        ),
        lambda: wire.read_call(pb.Call(direction="inbound", caller_verdict=pb.CallerVerdict(verdict="none", mode="x"))),
        lambda: wire.read_call(pb.Call(direction="inbound", started_ms=2**62)),
        lambda: wire.read_format(pb.AudioFormat(encoding="opus", rate_hz=8000)),
        lambda: wire.read_format(pb.AudioFormat(encoding="mulaw", rate_hz=0)),
        lambda: wire.read_message(pb.Message(role="system")),
        lambda: wire.read_llm_event(pb.ReplyEvent()),
        lambda: wire.read_llm_event(pb.ReplyEvent(tool_call=pb.ToolCall(name="x", arguments_json="[1]"))),
        lambda: wire.read_llm_event(pb.ReplyEvent(tool_call=pb.ToolCall(name="x", arguments_json="[" * 100_000))),
        lambda: wire.read_stt_event(pb.AsrEvent(), "remote"),
    ],
)
def test_what_cannot_be_is_refused(read: "object") -> None:
    assert callable(read)
    with pytest.raises(wire.WireError):
        read()


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("code", CODES)
def test_an_error_comes_out_as_it_went_in(code: str, retryable: bool) -> None:
    error = ProviderError("espeak", code, "two  words", retryable=retryable)
    status, details, trailer = wire.status_of(error)
    back = wire.error_of("remote", status, details, dict(trailer))
    assert (back.provider, back.code, back.detail, back.retryable) == ("remote", code, "two words", retryable)
    failed = wire.read_stt_event(wire.write_stt_event(1, SttFailed(error)), "remote")
    assert isinstance(failed, SttFailed)
    assert isinstance(failed.error, ProviderError)
    assert (failed.error.code, failed.error.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        ("UNAVAILABLE", "unavailable", True),
        ("UNAUTHENTICATED", "auth", False),
        ("PERMISSION_DENIED", "auth", False),
        ("RESOURCE_EXHAUSTED", "rate_limited", True),
        ("DEADLINE_EXCEEDED", "timeout", True),
        ("UNIMPLEMENTED", "bad_request", False),
        ("UNKNOWN", "unavailable", True),
        ("INTERNAL", "protocol", True),
    ],
)
def test_a_stranger_s_status_is_read_without_its_text(status: str, code: str, retryable: bool) -> None:
    error = wire.error_of("remote", status, "Bearer secret", {})
    assert (error.code, error.retryable, error.detail) == (code, retryable, status)


def test_for_how_long_to_wait_is_told() -> None:
    error = wire.error_of("remote", "RESOURCE_EXHAUSTED", "", {"grpc-retry-pushback-ms": "1500"})
    assert error.detail == "retry after 1.5 s"


def test_a_bug_of_the_server_is_not_described() -> None:
    assert "secret" not in str(wire.write_failure(RuntimeError("secret")))
