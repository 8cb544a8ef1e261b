import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline import telemetry as module
from trunkline.errors import MissingExtra
from trunkline.ports import CallEnded, CallStarted, EndReason, TurnEnded, TurnRecord
from trunkline.telemetry import Telemetry, create_telemetry, traced
from trunkline.types import DEFAULT_TENANT, CallId

AT = datetime(2026, 11, 22, 15, 0, 0, 123456, tzinfo=UTC)
CALL = CallId("call-1")
STARTED = CallStarted(CALL, DEFAULT_TENANT, "inbound", "twilio", "clinic", AT, "+14155550123", "+18005550199", "CA1")
TURN = TurnRecord(
    0, "secret words", "secret answer", endpointing_ms=200, stt_ms=50, llm_ms=350, tts_ms=100.5, total_ms=700.5
)


def after(ms: float) -> datetime:
    return AT + timedelta(milliseconds=ms)


def at_ms(time_ns: int | None) -> float:
    assert time_ns is not None
    base = int(AT.timestamp()) * 1_000_000_000 + AT.microsecond * 1000
    return (time_ns - base) / 1_000_000


def traced_call(reason: EndReason = "caller_hung_up") -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    telemetry = traced(SimpleSpanProcessor(exporter))
    telemetry.call_started(STARTED)
    telemetry.turn(TurnEnded(CALL, after(3000), TURN), after(1000))
    telemetry.call_ended(CallEnded(CALL, after(5000), reason))
    telemetry.call_ended(CallEnded(CALL, after(9000), "error"))
    telemetry.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_call_its_turn_and_its_stages_are_spans_with_their_own_times() -> None:
    spans = traced_call()
    times = {name: (at_ms(span.start_time), at_ms(span.end_time)) for name, span in spans.items()}
    assert times == {
        "endpointing": (1000, 1200),
        "stt": (1200, 1250),
        "llm": (1250, 1600),
        "tts": (1600, 1700.5),
        "turn": (1000, 3000),
        "call": (0, 5000),
    }
    parents = {
        name: next((n for n, s in spans.items() if span.parent and s.context.span_id == span.parent.span_id), None)
        for name, span in spans.items()
    }
    assert parents == dict.fromkeys(("endpointing", "stt", "llm", "tts"), "turn") | {"turn": "call", "call": None}


def test_neither_numbers_nor_words_leave() -> None:
    shown = "".join(span.to_json() for span in traced_call().values())
    assert "call-1" in shown
    for hidden in ("4155550123", "8005550199", "secret"):
        assert hidden not in shown


@pytest.mark.parametrize(("reason", "ok"), [("agent_hung_up", True), ("media_lost", False)])
def test_the_end_reason_is_told_and_a_failure_marked(reason: EndReason, ok: bool) -> None:
    call = traced_call(reason)["call"]
    assert call.attributes is not None
    assert call.attributes["trunkline.call.end_reason"] == reason
    assert (call.status.status_code.name != "ERROR") == ok


def test_unknown_calls_and_turns_that_end_before_they_begin_harm_nothing() -> None:
    exporter = InMemorySpanExporter()
    telemetry = traced(SimpleSpanProcessor(exporter))
    telemetry.turn(TurnEnded(CALL, AT, TURN), AT)
    telemetry.call_ended(CallEnded(CALL, AT, "error"))
    assert exporter.get_finished_spans() == ()
    telemetry.call_started(STARTED)
    telemetry.turn(TurnEnded(CALL, AT, TurnRecord(0, "", "")), after(50))
    (turn,) = exporter.get_finished_spans()
    assert (at_ms(turn.start_time), at_ms(turn.end_time)) == (50, 50)


def test_a_turn_whose_start_is_unknown_is_marked() -> None:
    exporter = InMemorySpanExporter()
    telemetry = traced(SimpleSpanProcessor(exporter))
    telemetry.call_started(STARTED)
    telemetry.turn(TurnEnded(CALL, after(3000), TURN))
    turn = exporter.get_finished_spans()[-1]
    assert (at_ms(turn.start_time), at_ms(turn.end_time)) == (2299.5, 3000)
    assert turn.attributes is not None
    assert turn.attributes["trunkline.turn.placed_late"] is True


def test_calls_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_CALLS", 1)
    telemetry = traced(SimpleSpanProcessor(InMemorySpanExporter()))
    telemetry.call_started(STARTED)
    telemetry.call_started(CallStarted(CallId("call-2"), DEFAULT_TENANT, "inbound", "twilio", "clinic", AT))
    assert telemetry.dropped == 1


def test_without_an_endpoint_nothing_happens() -> None:
    telemetry = create_telemetry(None)
    telemetry.call_started(STARTED)
    telemetry.turn(TurnEnded(CALL, AT, TURN), AT)
    telemetry.call_ended(CallEnded(CALL, AT, "error"))
    telemetry.close()
    assert telemetry.dropped == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(MissingExtra, match=r"trunkline\[otel\]"):
        create_telemetry("http://127.0.0.1:4318")


class StuckExporter(InMemorySpanExporter):
    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert self.may_go_on.wait(10)
        return super().export(spans)


def test_a_collector_that_is_stuck_holds_up_no_call() -> None:
    exporter = StuckExporter()
    telemetry = traced(BatchSpanProcessor(exporter, max_queue_size=8, max_export_batch_size=4))
    for _ in range(100):
        telemetry.call_started(STARTED)
        telemetry.call_ended(CallEnded(CALL, after(5000), "error"))
    exporter.may_go_on.set()
    telemetry.close()
    assert 8 <= len(exporter.get_finished_spans()) < 100


def test_an_endpoint_makes_a_tracer() -> None:
    telemetry = create_telemetry("http://127.0.0.1:1")
    assert isinstance(telemetry, Telemetry)
    telemetry.close()
