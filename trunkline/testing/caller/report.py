"""What a test call has shown: values, JSON, and lines for a terminal."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trunkline.testing.caller.line import Event, Line
from trunkline.testing.caller.turns import Turn


@dataclass(frozen=True, slots=True)
class TurnReport:
    index: int
    said: str
    keyed: bool
    at_ms: float | None
    """When the caller began, from the start of the stream."""
    latency_ms: float | None
    """T1 - T0; None when no answer came."""
    interrupting: bool
    barge_in_ms: float | None
    """First speech frame sent -> clear received."""
    heard_before_barge_in_ms: int | None
    missed_clear: bool
    talked_over: bool
    understood: str | None = None
    """What the agent understood, from the call's record."""
    answered: str | None = None
    """What was heard of its answer, by the record."""


@dataclass(frozen=True, slots=True)
class AnswerReport:
    index: int
    at_ms: float
    heard_ms: int
    gaps: int
    gap_ms: int
    largest_gap_ms: int
    cleared: bool
    unheard_ms: int
    last_mark: str


@dataclass(slots=True)
class SipReport:
    """What a SIP call has and a Twilio stream has not. Times from the first INVITE."""

    transport: str
    code: int = 0
    """The final status of the INVITE; 0: none came."""
    reason: str = ""
    ring_ms: float | None = None
    """-> the first 18x."""
    provisionals: list[int] = field(default_factory=list)
    setup_ms: float | None = None
    """-> 200."""
    first_rtp_ms: float | None = None
    """200 -> the first packet of the far end; negative: early media."""
    codec: str = ""
    telephone_events: bool = False
    challenges: int = 0
    resent: int = 0
    """SIP messages sent again for want of an answer."""
    renegotiations: int = 0
    keys_in: str = ""
    rtp: dict[str, Any] = field(default_factory=dict)
    """By sequence numbers and kernel timestamps: see sip.rtp.Received; `interval_ms` between neighbouring packets."""


@dataclass(slots=True)
class CallReport:
    call_sid: str
    """The provider's id: Twilio's CallSid, SIP's Call-ID. Over WebRTC there is none: ours."""
    end: str = ""
    """hung_up, server_closed, server_lost, no_answer, vanished, max_duration, rejected, cancelled, dialed or failed."""
    detail: str = ""
    stream_sid: str = ""
    webhook_ms: float | None = None
    """Voice webhook posted -> TwiML read."""
    greeting_ms: float | None = None
    """`start` sent -> first audible agent media."""
    greeting: str | None = None
    """By the call's record."""
    duration_s: float = 0.0
    turns: list[TurnReport] = field(default_factory=list)
    answers: list[AnswerReport] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    close_code: int | None = None
    """Of the last stream."""
    close_codes: list[int | None] = field(default_factory=list)
    """Of every stream: a call that was resumed has more than one."""
    close_reason: str = ""
    rig_late_max_ms: float = 0.0
    verbs: list[str] = field(default_factory=list)
    """TwiML followed, in order."""
    record: Mapping[str, Any] | None = None
    """GET /v1/calls/{id}, where asked for and found."""
    recording: str | None = None
    sip: SipReport | None = None

    @property
    def gaps(self) -> int:
        return sum(a.gaps for a in self.answers)

    @property
    def gap_ms(self) -> int:
        return sum(a.gap_ms for a in self.answers)

    @property
    def ok(self) -> bool:
        """The call went as a call should: answered at every turn and ended by one of the two, cleanly."""
        return self.end in ("hung_up", "server_closed", "dialed") and all(
            t.latency_ms is not None or t.talked_over for t in self.turns[:-1]
        )

    def add_line(self, line: Line) -> None:
        started = line.turns.started_at or 0.0
        self.stream_sid = line.carrier.stream_id
        if line.turns.greeted_at is not None and self.greeting_ms is None:
            self.greeting_ms = (line.turns.greeted_at - started) * 1000
        first_turn, first_answer = len(self.turns), len(self.answers)
        self.turns += [turn_report(t, started, first_turn) for t in line.turns.all]
        self.answers += [
            AnswerReport(
                first_answer + a.index,
                (a.started_at - started) * 1000,
                a.heard_ms,
                a.gaps,
                a.gap_ms,
                a.largest_gap_ms,
                a.cleared_at is not None,
                a.unheard_ms,
                a.last_mark,
            )
            for a in line.carrier.answers
        ]
        counts = asdict(line.carrier.counts)
        del counts["invalid"]  # asdict cannot copy a Counter
        invalid = Counter(self.counts.get("invalid")) + line.carrier.counts.invalid
        self.counts = {k: v + self.counts.get(k, 0) for k, v in counts.items()} | {"invalid": dict(invalid)}


def turn_report(turn: Turn, started_at: float, first: int = 0) -> TurnReport:
    return TurnReport(
        first + turn.index,
        turn.said,
        turn.keyed,
        None if turn.first_at is None else (turn.first_at - started_at) * 1000,
        turn.latency_ms,
        turn.interrupting,
        turn.barge_in_ms,
        turn.cut.heard_ms if turn.cut is not None and turn.interrupting else None,
        turn.missed_clear,
        turn.talked_over,
    )


def to_json(report: Any) -> str:
    """A CallReport or BenchReport as JSON text."""
    return json.dumps(to_values(report), indent=2, default=str)


def to_values(report: Any) -> dict[str, Any]:
    """... as plain values, milliseconds rounded to a tenth."""
    values: dict[str, Any] = _rounded(asdict(report))
    for name in ("gaps", "gap_ms", "ok"):
        if hasattr(report, name):
            values[name] = getattr(report, name)
    return values


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3 if abs(value) < 10 else 1)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value


# --- for a terminal -------------------------------------------------------------------------------------------------

_WHO = {
    "agent": "[green]agent ",
    "agent_done": "[green]agent ",
    "caller": "[cyan]caller",
    "keys": "[cyan]caller",
    "clear": "[yellow]clear ",
    "invalid": "[red]wrong ",
    "ended": "[dim]end   ",
}


def render_event(event: Event, started_at: float, console: Console) -> None:
    """One line of the live view, as it happens."""
    text = {
        "caller": f"“{event.text}”",
        "keys": f"keys {event.text}",
        "agent_done": f"finished after {event.text}",
        "clear": f"agent stops ({event.text})",
    }
    took = f" [bold]{event.ms:.0f} ms[/]" if event.ms is not None else ""
    line = escape(text.get(event.kind, event.text))
    console.print(
        f"[dim]{max(0.0, event.at - started_at):7.2f} s[/]  {_WHO.get(event.kind, event.kind)}[/]  {line}{took}"
    )


def render_call(report: CallReport, console: Console) -> None:
    table = Table(title=f"call {report.call_sid[:10]}…", title_justify="left", show_edge=False)
    for name in ("caller", "understood", "answer heard"):
        table.add_column(name, overflow="fold")
    for name in ("latency ms", "barge-in ms"):
        table.add_column(name, justify="right")
    if report.greeting is not None or report.greeting_ms is not None:
        table.add_row("", "", escape(report.greeting or "(greeting)"), _ms(report.greeting_ms), "")
    for turn in report.turns:
        flags = " [red](clear missed)[/]" if turn.missed_clear else " [red](talked over)[/]" if turn.talked_over else ""
        said = escape(f"keys {turn.said}" if turn.keyed else turn.said)
        table.add_row(
            said + flags,
            escape(turn.understood or ""),
            escape(turn.answered or ""),
            _ms(turn.latency_ms),
            _ms(turn.barge_in_ms),
        )
    if report.sip is not None:
        render_sip(report.sip, console)
    if not report.stream_sid:  # no stream was ever open
        console.print(f"[red]{report.end}[/]: {escape(report.detail)}")
        return
    console.print(table)
    heard_s = sum(a.heard_ms for a in report.answers) / 1000
    console.print(
        f"{report.end}{': ' + escape(report.detail) if report.detail else ''}; {report.duration_s:.1f} s, "
        f"agent heard {heard_s:.1f} s, "
        f"{report.gaps} gaps ({report.gap_ms} ms), "
        + (
            f"{report.counts.get('marks_in', 0)} marks, {report.counts.get('clears_in', 0)} clears, "
            f"{report.counts.get('bytes_in', 0)} bytes of audio, close code {report.close_code}"
            if report.sip is None
            else f"{report.counts.get('bytes_in', 0)} bytes of audio"
        )
    )
    if report.counts.get("invalid"):
        who = "Twilio" if report.sip is None else "a telephone"
        console.print(f"[red]what {who} would refuse: {report.counts['invalid']}[/]")
    if report.recording:
        console.print(f"recording: {report.recording}")


def render_sip(sip: SipReport, console: Console) -> None:
    rtp, interval = sip.rtp, sip.rtp.get("interval_ms") or {}
    console.print(
        f"{sip.transport}: {sip.code} {escape(sip.reason)}, ringing {_ms(sip.ring_ms) or '-'} ms, "
        f"set up {_ms(sip.setup_ms) or '-'} ms, {sip.codec or 'no audio'}, {sip.resent} resent"
    )
    if rtp:
        spread = " / ".join(f"{interval[name]:.1f}" for name in ("p1", "p50", "p99", "p999") if interval.get(name))
        console.print(
            f"RTP in: {rtp['packets']} packets, {rtp['lost']} lost, {rtp['late']} late, {rtp['reordered']} reordered, "
            f"jitter {rtp['jitter_ms']:.1f} ms, interval {spread or '-'} ms (p1 / p50 / p99 / p99.9)"
        )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
