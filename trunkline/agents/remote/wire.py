"""The values of ports.py as the messages of ports.proto and back, and errors as statuses and back. Plain.

What comes from the wire is not trusted: reading raises WireError where a value cannot be what the proto says.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, cast

from trunkline.agents.remote import ports_pb2 as pb
from trunkline.errors import ProviderError
from trunkline.ports import (
    Attest,
    CallerVerdict,
    CallFacts,
    Expect,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    Mode,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    ToolCall,
    TtsAudio,
    Word,
)
from trunkline.privacy.redaction import quoted
from trunkline.types import E164, CallId, Encoding, Format, TenantId

SESSION = "trunkline-session"
CODE = "trunkline-code"
RETRYABLE = "trunkline-retryable"
PUSHBACK_MS = "grpc-retry-pushback-ms"  # gRFC A6
AUTHORIZATION = "authorization"

MAX_DETAIL = 300
RATES_HZ = (8000, 16000)


class WireError(ValueError):
    pass


# --- values ---------------------------------------------------------------------------------------------------------


def write_call(call: CallFacts) -> pb.Call:
    return pb.Call(
        call_id=call.call_id,
        tenant=call.tenant,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        started_ms=int(call.started.timestamp() * 1000),
        attributes=dict(call.attributes),
        caller_verdict=None if call.stir is None else _write_verdict(call.stir),
    )


def read_call(call: pb.Call) -> CallFacts:
    if call.direction not in ("inbound", "outbound"):
        raise WireError("direction")
    try:
        started = datetime.fromtimestamp(call.started_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        raise WireError("started_ms") from None
    return CallFacts(
        CallId(call.call_id),
        TenantId(call.tenant),
        cast(Literal["inbound", "outbound"], call.direction),
        E164(call.from_number) if call.HasField("from_number") else None,
        E164(call.to_number) if call.HasField("to_number") else None,
        started,
        dict(call.attributes),
        _read_verdict(call.caller_verdict) if call.HasField("caller_verdict") else None,
    )


def _write_verdict(verdict: CallerVerdict) -> pb.CallerVerdict:
    """What an agent may know of it: the carrier's own words and the origid stay here."""
    return pb.CallerVerdict(
        verdict=verdict.verdict,
        attest=verdict.attest or "",
        reason=verdict.reason or "",
        mode=verdict.mode,
        source=verdict.source,
        rcd=dict(verdict.rcd),
    )


def _read_verdict(verdict: pb.CallerVerdict) -> CallerVerdict:
    if verdict.verdict not in ("passed", "failed", "none"):
        raise WireError("caller_verdict.verdict")
    if verdict.attest not in ("", "A", "B", "C"):
        raise WireError("caller_verdict.attest")
    if verdict.mode not in ("direct", "diverted", "passthrough"):
        raise WireError("caller_verdict.mode")
    return CallerVerdict(
        cast(Literal["passed", "failed", "none"], verdict.verdict),
        cast(Attest, verdict.attest) if verdict.attest else None,
        verdict.reason or None,
        mode=cast(Mode, verdict.mode),
        source=verdict.source,
        rcd=tuple(sorted(verdict.rcd.items())),
    )


def write_format(format: Format) -> pb.AudioFormat:
    return pb.AudioFormat(encoding=format.encoding, rate_hz=format.rate_hz)


def read_format(format: pb.AudioFormat) -> Format:
    if format.encoding not in ("mulaw", "alaw", "pcm16") or format.rate_hz not in RATES_HZ:
        raise WireError("format")
    return Format(cast(Encoding, format.encoding), format.rate_hz)


def write_expectation(expectation: Expectation) -> pb.Expectation:
    return pb.Expectation(
        grammar=expectation.grammar, digits_min=expectation.digits_min, digits_max=expectation.digits_max
    )


def read_expectation(expectation: pb.Expectation) -> Expectation:
    """Without a grammar: `main`."""
    return Expectation(expectation.grammar or "main", expectation.digits_min, expectation.digits_max)


def write_message(message: Message) -> pb.Message:
    return pb.Message(
        role=message.role,
        text=message.text,
        keyed=message.keyed,
        tool_calls=[_write_tool_call(call) for call in message.tool_calls],
        tool_call_id=message.tool_call_id,
        cut=message.cut,
        language=message.language or "",
    )


def read_message(message: pb.Message) -> Message:
    if message.role not in ("caller", "agent", "tool", "summary"):
        raise WireError("role")
    return Message(
        cast(Literal["caller", "agent", "tool", "summary"], message.role),
        message.text,
        message.keyed,
        tuple(_read_tool_call(call) for call in message.tool_calls),
        message.tool_call_id,
        message.cut,
        message.language or None,
    )


def _write_tool_call(call: ToolCall) -> pb.ToolCall:
    return pb.ToolCall(id=call.id, name=call.name, arguments_json=json.dumps(dict(call.arguments)))


def _read_tool_call(call: pb.ToolCall) -> ToolCall:
    try:
        arguments = json.loads(call.arguments_json or "{}")
    except (ValueError, RecursionError):
        raise WireError("arguments_json") from None
    if not isinstance(arguments, dict) or not call.name:
        raise WireError("tool call")
    return ToolCall(call.id, call.name, arguments)


# --- events ---------------------------------------------------------------------------------------------------------


def write_llm_event(event: LlmEvent) -> pb.ReplyEvent:
    match event:
        case TextDelta(text):
            return pb.ReplyEvent(text=text)
        case ToolCall():
            return pb.ReplyEvent(tool_call=_write_tool_call(event))
        case Expect(expectation):
            return pb.ReplyEvent(expect=write_expectation(expectation))
        case LlmUsage(tokens_in, tokens_out):
            return pb.ReplyEvent(usage=pb.LlmUsage(tokens_in=tokens_in, tokens_out=tokens_out))


def read_llm_event(event: pb.ReplyEvent) -> LlmEvent | None:
    """None: empty text."""
    match event.WhichOneof("event"):
        case "text":
            return TextDelta(event.text) if event.text else None
        case "tool_call":
            return _read_tool_call(event.tool_call)
        case "expect":
            return Expect(read_expectation(event.expect))
        case "usage":
            return LlmUsage(event.usage.tokens_in, event.usage.tokens_out)
        case _:
            raise WireError("an event of an unknown kind")


def write_stt_event(utterance: int, event: SttEvent) -> pb.AsrEvent:
    match event:
        case SttPartial(text, complete):
            return pb.AsrEvent(utterance=utterance, partial=pb.AsrPartial(text=text, complete=complete))
        case SttFinal(text, understood, language):
            final = pb.AsrFinal(text=text, understood=understood, language=language or "")
            return pb.AsrEvent(utterance=utterance, final=final)
        case SttFailed(error):
            return pb.AsrEvent(utterance=utterance, failed=write_failure(error))


def read_stt_event(event: pb.AsrEvent, provider: str) -> SttEvent:
    match event.WhichOneof("event"):
        case "partial":
            return SttPartial(event.partial.text, event.partial.complete)
        case "final":
            return SttFinal(event.final.text, event.final.understood, event.final.language or None)
        case "failed":
            failed = event.failed
            return SttFailed(
                ProviderError(provider, _code(failed.code), _plain(failed.detail), retryable=failed.retryable)
            )
        case _:
            raise WireError("an event of an unknown kind")


def write_audio(audio: TtsAudio) -> pb.SpeakEvent:
    words = [pb.Word(text=word.text, start_ms=word.start_ms, end_ms=word.end_ms) for word in audio.words]
    return pb.SpeakEvent(audio=audio.data, words=words)


def read_audio(event: pb.SpeakEvent, format: Format) -> TtsAudio:
    if len(event.audio) % (format.frame_bytes // format.frame_samples):
        raise WireError("half a sample")
    return TtsAudio(event.audio, tuple(Word(word.text, word.start_ms, word.end_ms) for word in event.words))


# --- errors ---------------------------------------------------------------------------------------------------------

# code -> gRPC's status, and what a status means where the trailer says nothing: code, retryable
_STATUS = {
    "timeout": "DEADLINE_EXCEEDED",
    "unavailable": "UNAVAILABLE",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "auth": "UNAUTHENTICATED",
    "bad_request": "INVALID_ARGUMENT",
    "protocol": "INTERNAL",
    "overloaded": "RESOURCE_EXHAUSTED",
}
_MEANING = {
    "DEADLINE_EXCEEDED": ("timeout", True),
    "UNAVAILABLE": ("unavailable", True),
    "CANCELLED": ("unavailable", True),  # by the server: we do not ask about what we cancelled
    "ABORTED": ("unavailable", True),
    "UNKNOWN": ("unavailable", True),  # the server's own exception
    "RESOURCE_EXHAUSTED": ("rate_limited", True),
    "UNAUTHENTICATED": ("auth", False),
    "PERMISSION_DENIED": ("auth", False),
    "INTERNAL": ("protocol", True),
    "DATA_LOSS": ("protocol", True),
}


def write_failure(error: Exception) -> pb.Failure:
    """Of a bug of ours nothing is told but that it was one."""
    if isinstance(error, ProviderError):
        return pb.Failure(code=error.code, detail=quoted(error.detail, MAX_DETAIL), retryable=error.retryable)
    return pb.Failure(code="unavailable", detail="the server failed", retryable=True)


def status_of(error: ProviderError) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """The status's name, its details, its trailing metadata."""
    trailer = ((CODE, error.code), (RETRYABLE, "true" if error.retryable else "false"))
    return _STATUS.get(error.code, "UNKNOWN"), quoted(error.detail, MAX_DETAIL), trailer


def error_of(provider: str, status: str, details: str, trailer: Mapping[str, str]) -> ProviderError:
    """`details` is told to the admin only where our own kind of server wrote it: another's may quote the token."""
    code, retryable = _MEANING.get(status, ("bad_request", False))
    detail = status
    if CODE in trailer:
        code, detail = _code(trailer[CODE]), _plain(details)
        retryable = trailer.get(RETRYABLE) == "true"
    pushback = trailer.get(PUSHBACK_MS, "")
    if pushback.isdecimal():
        detail = f"retry after {int(pushback) / 1000:g} s"
    return ProviderError(provider, code, detail, retryable=retryable)


def _code(code: str) -> str:
    return code if code in _STATUS else "protocol"


def _plain(detail: str) -> str:
    return quoted(detail, MAX_DETAIL)
