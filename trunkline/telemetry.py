"""OpenTelemetry spans per call, turn and stage, made afterwards from the record's own events.

Nothing wraps the hot path: spans get explicit times, and a background thread exports them, dropping when the collector
is slow. No phone number and no word spoken leaves in a span.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from trunkline import __version__
from trunkline.errors import MissingExtra
from trunkline.ports import CallEnded, CallStarted, TurnEnded
from trunkline.types import CallId

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

MAX_OPEN_CALLS = 10_000  # a call whose end is never told must not stay for ever
STAGES = ("endpointing", "stt", "llm", "tts")
FAILURES = frozenset(("media_lost", "never_started", "overloaded", "drained", "gateway_lost", "failed", "error"))
FLUSH_TIMEOUT_MS = 3000
MAX_QUEUED_SPANS = 8192


class Telemetry:
    """Without a tracer every method does nothing."""

    def __init__(self, tracer: Tracer | None = None, provider: "TracerProvider | None" = None) -> None:
        self._tracer, self._provider = tracer, provider
        self._calls: dict[CallId, Span] = {}
        self.dropped = 0
        """Calls without a span: too many were open."""

    def call_started(self, started: CallStarted) -> None:
        if self._tracer is None:
            return
        if len(self._calls) >= MAX_OPEN_CALLS:
            self.dropped += 1
            return
        attributes = {
            "trunkline.call.id": started.call_id,
            "trunkline.tenant": started.tenant,
            "trunkline.call.direction": started.direction,
            "trunkline.call.leg": started.leg,
            "trunkline.agent": started.agent,
        }
        span = self._tracer.start_span("call", attributes=attributes, start_time=_ns(started.at))
        self._calls[started.call_id] = span

    def turn(self, ended: TurnEnded, t0: datetime | None = None) -> None:
        """`t0`: last frame of caller speech received. The stages follow one another from there; `ended.at` is when the
        agent had finished or was cut. Without `t0` the span ends with the first audio, is laid before `ended.at` and
        is marked `trunkline.turn.placed_late`: durations are right, its place is not."""
        call = self._calls.get(ended.call_id)
        if self._tracer is None or call is None:
            return
        turn = ended.turn
        attributes: dict[str, str | int | float | bool] = {
            "trunkline.turn.index": turn.index,
            "trunkline.turn.understood": turn.understood,
            "trunkline.turn.interrupted": turn.interrupted,
            "trunkline.turn.keyed": turn.keyed,
        }
        for name in ("total_ms", "barge_in_ms"):
            if (value := getattr(turn, name)) is not None:
                attributes[f"trunkline.turn.{name}"] = value
        if t0 is None:
            attributes["trunkline.turn.placed_late"] = True
            t0 = ended.at - timedelta(milliseconds=turn.total_ms or 0)
        within = trace.set_span_in_context(call)
        span = self._tracer.start_span("turn", within, attributes=attributes, start_time=_ns(t0))
        self._stages(ended, t0, span)
        span.end(max(_ns(ended.at), _ns(t0)))

    def _stages(self, ended: TurnEnded, t0: datetime, turn: Span) -> None:
        assert self._tracer is not None
        within, at = trace.set_span_in_context(turn), t0
        for stage in STAGES:
            latency_ms = getattr(ended.turn, f"{stage}_ms")
            if latency_ms is None:
                continue
            span = self._tracer.start_span(stage, within, start_time=_ns(at))
            at += timedelta(milliseconds=latency_ms)
            span.end(_ns(at))

    def call_ended(self, ended: CallEnded) -> None:
        """Once; a second end of the same call changes nothing."""
        span = self._calls.pop(ended.call_id, None)
        if span is None:
            return
        span.set_attribute("trunkline.call.end_reason", ended.reason)
        if ended.reason in FAILURES:
            span.set_status(Status(StatusCode.ERROR, ended.reason))
        span.end(_ns(ended.at))

    def close(self) -> None:
        """Export what is left. Blocks for up to FLUSH_TIMEOUT_MS: call it in a thread."""
        if self._provider is not None:
            self._provider.force_flush(FLUSH_TIMEOUT_MS)
            self._provider.shutdown()


def create_telemetry(endpoint: str | None) -> Telemetry:
    """`endpoint`: an OTLP/HTTP collector, or None. Raises MissingExtra."""
    if endpoint is None:
        return Telemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra("opentelemetry-sdk", "otel") from error
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=2)
    return traced(BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED_SPANS))


def traced(processor: "SpanProcessor") -> Telemetry:
    """With any span processor of the SDK. Raises MissingExtra."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise MissingExtra("opentelemetry-sdk", "otel") from error
    resource = Resource({"service.name": "trunkline", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return Telemetry(provider.get_tracer("trunkline", __version__), provider)


def _ns(at: datetime) -> int:
    seconds = int(at.timestamp())
    return seconds * 1_000_000_000 + at.microsecond * 1000
