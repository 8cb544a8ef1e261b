"""Many callers at once: who listen, speak, interrupt, and write down how the gateway did. Numbers from the rig's side.

Each caller hears the greeting, then turn after turn says one of the phrases; `interrupt_share` of the answers are
interrupted at a random moment, the others heard out. Only turns and answers that begin inside the window count: it
opens when every call has started and `warm_up_s` have passed, and lasts `duration_s`.
"""

import asyncio
import gc
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx
from rich.console import Console
from rich.table import Table

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError
from trunkline.testing.caller import process, records
from trunkline.testing.caller.answers import Answer
from trunkline.testing.caller.bulk import Ticker, run_bulk
from trunkline.testing.caller.figures import SipFigures, Spread, no_spread
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.phone import Phone, new_call_sid
from trunkline.testing.caller.report import CallReport
from trunkline.testing.caller.script import Action, HangUp, Listen, ListenInto, Pause, Speak
from trunkline.testing.caller.sip.call import SipOptions
from trunkline.testing.caller.speech import (
    PlainMouth,
    Samples,
    Speech,
    read_wav,
    synthesize,
    to_speech,
    write_stereo_wav,
)
from trunkline.testing.caller.turns import Turn
from trunkline.testing.caller.webhook import CallFields, Webhook
from trunkline.testing.caller.wire import Wire

PHRASES = (
    "I would like to know your opening hours",
    "can you tell me when you are open on Saturday",
    "please confirm my appointment for next week",
    "what do I have to bring to the first visit",
    "could you please repeat that more slowly",
    "I want to speak to a person at the front desk",
)
RIG_LATE_P99_MS = 10.0  # above this, or RIG_CPU_PERCENT, figures say more of the rig than of the gateway
RIG_CPU_PERCENT = 85.0
FINISH_S = 15.0
SETTLE_S = 1.0  # the last records are written shortly after their calls
WORD_MS = 200  # the stand-in voice's "word0 word1 ..."


@dataclass(frozen=True, slots=True)
class BenchOptions:
    target: str
    calls: int = 1
    duration_s: float = 20.0
    spread_s: float = 4.0
    """Calls start evenly over this time."""
    warm_up_s: float = 3.0
    interrupt_share: float = 0.3
    interrupt_ms: tuple[int, int] = (300, 2500)
    """Where in an answer, evenly."""
    pause_ms: tuple[int, int] = (200, 3000)
    """Between an answer heard out and the next phrase, beside 400-700 ms of listening for its end."""
    noise_dbfs: float | None = -60.0
    phrases: Sequence[str] = PHRASES
    wavs: Sequence[Path] = ()
    """Recorded phrases instead."""
    voice: str = "en-us"
    answer_timeout_s: float = 10.0
    account_sid: str = "AC" + "0" * 32
    from_number: str = "+15005550006"
    to_number: str = "+15005550001"
    auth_token: str = ""
    public_url: str = ""
    pid: int | None = None
    """The gateway's. None: whoever listens on the target's port here, else its /metrics."""
    rig_core: int | None = None
    """Pin this process to a core."""
    heard: bool = False
    """Compare what the record says was heard with what was played (stand-in voice)."""
    heard_dir: Path | None = None
    """Write the played audio of each interrupted answer there."""
    api_url: str = ""
    """Origin of /v1; empty: the target's."""
    api_key: str = ""
    seed: int = 1
    silent: bool = False
    """Nobody says anything: the calls are held up and audio flows."""
    verify_tls: bool = True
    """Of a SIP target."""
    sip: SipOptions = field(default_factory=SipOptions)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the caller really heard of an answer it interrupted."""

    call_sid: str
    turn: int
    """Of the caller's turns, the one that interrupted."""
    played_ms: int
    unheard_ms: int
    """Sent and thrown away by the clear."""
    last_mark: str
    pending_marks: tuple[str, ...]
    recorded: str | None = None
    """The record's `agent_text` of that answer."""
    words_more: int | None = None
    """Words recorded minus words played in full: 0 is exact, above 0 is a promise broken."""


@dataclass(slots=True)
class BenchReport:
    calls: int
    window_s: float = 0.0
    connected: int = 0
    failed_calls: dict[str, int] = field(default_factory=dict)
    """Calls that ended before they were told to, by why."""
    turns: int = 0
    unanswered: int = 0
    talked_over: int = 0
    greeting_ms: Spread = field(default_factory=no_spread)
    turn_ms: Spread = field(default_factory=no_spread)
    """T1 - T0."""
    interruptions: int = 0
    barge_in_ms: Spread = field(default_factory=no_spread)
    missed_clears: int = 0
    false_clears: int = 0
    """Clears while the caller was not speaking: noise taken for speech."""
    answers: int = 0
    talk_percent: float = 0.0
    """Agent audio heard, of call time."""
    gap_percent: float = 0.0
    """Silence inside answers, of agent audio."""
    gaps: int = 0
    largest_gap_ms: int = 0
    invalid: dict[str, int] = field(default_factory=dict)
    gateway_cpu_percent: float | None = None
    """Of one core, over the window."""
    gateway_cpu_percent_per_call: float | None = None
    children_cpu_percent: float | None = None
    gateway_rss_mb: float | None = None
    gateway_rss_kb_per_call: float | None = None
    """Growth from before the first call to the window's end, a call."""
    rig_cpu_percent: float = 0.0
    rig_late_ms: Spread = field(default_factory=no_spread)
    rig_resyncs: int = 0
    warnings: list[str] = field(default_factory=list)
    heard: dict[str, Any] | None = None
    cuts: list[Heard] = field(default_factory=list)
    sip: SipFigures | None = None

    @property
    def ok(self) -> bool:
        return self.connected == self.calls and not self.failed_calls and not self.unanswered


MakeLine = Callable[[Wire], Line]


class Dialer(Protocol):
    """What kind of calls they are."""

    raw: bool
    """Its wire takes raw frames, not base64."""
    origin: str
    """Of the gateway's API and metrics."""
    local_port: int | None
    """The gateway's, when it is on this machine."""

    async def open(self) -> None: ...

    async def call(self, make_line: MakeLine) -> CallReport: ...

    def window_opens(self) -> None: ...

    def window_closes(self, report: "BenchReport") -> None: ...

    def hang_up(self) -> None:
        """What has not been answered yet; the lines hang up by themselves."""
        ...

    def ended(self, report: "BenchReport") -> None:
        """All calls are over."""
        ...

    async def close(self) -> None: ...


class TwilioDialer:
    raw = False

    def __init__(self, options: BenchOptions, clock: Clock, ticker: Ticker) -> None:
        self._options, self._clock, self._ticker = options, clock, ticker
        parts = urlsplit(options.target if "://" in options.target else f"http://{options.target}")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.local_port = (parts.port or (443 if parts.scheme == "https" else 80)) if is_local(parts.hostname) else None
        self._voice_url = urlunsplit((*parts[:2], parts.path.rstrip("/") or "/twilio/voice", parts.query, ""))
        self._via = self.origin if options.public_url else ""
        self._http = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=50))
        self._webhook = Webhook(
            self._http, auth_token=options.auth_token, signed_origin=options.public_url, via_origin=self._via
        )

    async def open(self) -> None: ...

    async def call(self, make_line: MakeLine) -> CallReport:
        options = self._options
        phone = Phone(
            self._webhook,
            CallFields(options.account_sid, new_call_sid(), options.from_number, options.to_number),
            make_line,
            lambda url, line: run_bulk(url, line, self._clock, self._ticker),
            self._clock,
            voice_url=self._voice_url,
            status_url=self.origin + "/twilio/status",
            via_origin=self._via,
            keep_answers=options.heard_dir is not None,
        )
        return await phone.call()

    def window_opens(self) -> None: ...

    def window_closes(self, report: "BenchReport") -> None: ...

    def hang_up(self) -> None: ...

    def ended(self, report: "BenchReport") -> None: ...

    async def close(self) -> None:
        await self._http.aclose()


def is_local(host: str | None) -> bool:
    return host in ("127.0.0.1", "localhost", "::1")


class Bench:
    """One run: `await Bench(...).run()`, once."""

    def __init__(
        self, options: BenchOptions, speeches: Sequence[Speech], clock: Clock, ticker: Ticker, dialer: Dialer
    ) -> None:
        self._options, self._speeches, self._clock = options, speeches, clock
        self._ticker, self._dialer = ticker, dialer
        self._lines: list[Line] = []
        self._random = random.Random(options.seed)
        self._mouth = PlainMouth(options.noise_dbfs, options.seed, raw=dialer.raw)
        self._stopping = False

    async def run(self) -> BenchReport:
        options, dialer = self._options, self._dialer
        report = BenchReport(options.calls)
        async with httpx.AsyncClient(trust_env=False) as http:
            try:
                await dialer.open()
                before = await self._load(http)
                self._ticker.start()
                gc.freeze()
                await self._calls(http, before, report)
            finally:
                await dialer.close()
                self._ticker.stop()
                gc.unfreeze()
            dialer.ended(report)
            if options.heard:
                await self._compare(http, report)
        self._warn(report)
        return report

    async def _calls(self, http: httpx.AsyncClient, before: process.Load | None, report: BenchReport) -> None:
        tasks = [asyncio.create_task(self._one(i)) for i in range(self._options.calls)]
        try:
            await self._window(http, before, report)
            self._stopping = True
            for line in self._lines:
                line.hang_up()
            self._dialer.hang_up()
            await asyncio.wait(tasks, timeout=FINISH_S)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        self._count_ends(ended, report)

    # --- the callers ----------------------------------------------------------------------------------------------

    async def _one(self, index: int) -> CallReport:
        await asyncio.sleep(index * self._options.spread_s / self._options.calls)
        rng = random.Random(self._random.random())

        def make_line(wire: Wire) -> Line:
            line = Line(wire, self._script(rng), self._mouth.share(rng.randrange(1 << 16)), max_duration_s=1e9)
            self._lines.append(line)
            return line

        return await self._dialer.call(make_line)

    def _script(self, rng: random.Random) -> Iterator[Action]:
        options, timeout_s = self._options, self._options.answer_timeout_s
        while options.silent:
            yield Pause(1 << 30)
        yield Listen(timeout_s=timeout_s)
        while not self._stopping:
            yield Speak(rng.choice(self._speeches))
            if rng.random() < options.interrupt_share:
                yield ListenInto(rng.randint(*options.interrupt_ms), timeout_s)
            else:
                yield Listen(rng.randint(400, 700), timeout_s)
                yield Pause(rng.randint(*options.pause_ms))
        yield HangUp()

    # --- the measurements -----------------------------------------------------------------------------------------

    async def _load(self, http: httpx.AsyncClient) -> process.Load | None:
        return await process.load_of(self._options.pid, self._dialer.local_port, http, self._dialer.origin)

    async def _window(self, http: httpx.AsyncClient, before: process.Load | None, report: BenchReport) -> None:
        await asyncio.sleep(self._options.spread_s + self._options.warm_up_s)
        opens, rig, late = self._clock.now(), process.own_cpu_s(), len(self._ticker.late_ms)
        load = await self._load(http)
        self._dialer.window_opens()
        heard = {line: _heard_bytes(line) for line in self._lines}
        await asyncio.sleep(self._options.duration_s)
        after = await self._load(http)
        closes = self._clock.now()
        self._dialer.window_closes(report)
        report.window_s = closes - opens
        report.rig_cpu_percent = (process.own_cpu_s() - rig) / report.window_s * 100
        report.rig_late_ms = Spread.of(self._ticker.late_ms[late:])
        report.rig_resyncs = self._ticker.resyncs
        live = sum(line.ended is None for line in self._lines)
        if load is not None and after is not None:
            report.gateway_cpu_percent = (after.cpu_s - load.cpu_s) / report.window_s * 100
            report.gateway_cpu_percent_per_call = report.gateway_cpu_percent / max(1, live)
            report.children_cpu_percent = (after.children_cpu_s - load.children_cpu_s) / report.window_s * 100
            report.gateway_rss_mb = after.rss_bytes / 2**20
        if before is not None and after is not None:
            report.gateway_rss_kb_per_call = (after.rss_bytes - before.rss_bytes) / 1024 / max(1, live)
        heard_ms = sum(_heard_bytes(line) - heard.get(line, 0) for line in self._lines) / 8
        report.talk_percent = heard_ms / 10 / (report.window_s * max(1, live))
        self._measure(opens, closes, report)

    def _measure(self, opens: float, closes: float, report: BenchReport) -> None:
        turns: list[Turn] = []
        answers: list[Answer] = []
        greetings: list[float] = []
        invalid: Counter[str] = Counter()
        for line in self._lines:
            turns += (t for t in line.turns.all if t.last_at is not None and opens <= t.last_at < closes)
            answers += (a for a in line.carrier.answers if opens <= a.started_at < closes)
            invalid += line.carrier.counts.invalid
            if line.turns.greeted_at is not None and line.turns.started_at is not None:
                greetings.append((line.turns.greeted_at - line.turns.started_at) * 1000)
            report.cuts += _cuts(line, opens, closes)
            report.false_clears += _false_clears(line, opens, closes)
        timeout_s = self._options.answer_timeout_s
        report.turns = len(turns)
        report.connected = len(self._lines) if self._options.silent else len(greetings)
        report.unanswered = sum(
            t.latency_ms is None and not t.talked_over and closes - (t.last_at or closes) > timeout_s for t in turns
        )
        report.talked_over = sum(t.talked_over for t in turns)
        report.greeting_ms = Spread.of(greetings)
        report.turn_ms = Spread.of([t.latency_ms for t in turns if t.latency_ms is not None])
        barges = [t for t in turns if t.interrupting]
        report.interruptions = len(barges)
        report.barge_in_ms = Spread.of([t.barge_in_ms for t in barges if t.barge_in_ms is not None])
        report.missed_clears = sum(t.missed_clear for t in barges)
        report.answers, report.gaps = len(answers), sum(a.gaps for a in answers)
        report.gap_percent = sum(a.gap_ms for a in answers) * 100 / max(1, sum(a.heard_ms for a in answers))
        report.largest_gap_ms = max((a.largest_gap_ms for a in answers), default=0)
        report.invalid = dict(invalid)
        if self._options.heard_dir is not None:
            _write_cuts(self._options.heard_dir, self._lines)

    def _count_ends(self, ended: Sequence[CallReport | BaseException], report: BenchReport) -> None:
        ends: Counter[str] = Counter()
        for end in ended:
            if isinstance(end, BaseException):
                ends[type(end).__name__] += 1
            elif end.end != "hung_up":
                ends[f"{end.end}: {end.detail}" if end.detail else end.end] += 1
        report.failed_calls = dict(ends)

    def _warn(self, report: BenchReport) -> None:
        late = report.rig_late_ms.p99 or 0.0
        if late > RIG_LATE_P99_MS or report.rig_cpu_percent > RIG_CPU_PERCENT or report.rig_resyncs:
            report.warnings.append(
                f"the rig itself is at its limit (p99 {late:.1f} ms late, {report.rig_cpu_percent:.0f} % CPU, "
                f"{report.rig_resyncs} resyncs): these figures say little of the gateway"
            )
        if report.gateway_cpu_percent is None:
            report.warnings.append("the gateway's process was not found: no CPU or memory figures")

    # --- heard, by the record -------------------------------------------------------------------------------------

    async def _compare(self, http: httpx.AsyncClient, report: BenchReport) -> None:
        api = self._options.api_url or self._dialer.origin
        said = {line.carrier.call_id: len(line.turns.all) for line in self._lines}
        await asyncio.sleep(SETTLE_S)
        found = await records.fetch_all(http, api, self._options.api_key, {cut.call_sid for cut in report.cuts})
        report.cuts = [judge(cut, found.get(cut.call_sid, {}), said[cut.call_sid]) for cut in report.cuts]
        differences = Counter(str(c.words_more) for c in report.cuts)
        judged = [c.words_more for c in report.cuts if c.words_more is not None]
        report.heard = {
            "cuts": len(report.cuts),
            "judged": len(judged),
            "more": sum(d > 0 for d in judged),
            "over_one_less": sum(d < -1 for d in judged),
            "differences": dict(differences),
        }


def judge(cut: Heard, record: Mapping[str, Any], turns: int) -> Heard:
    """What the record says was heard of it. `turns`: the caller's in this call; a record that counts otherwise (by more
    than the turn the hang-up cut off) cannot be laid beside them, and the cut stays unjudged."""
    exchanges = records.turns_of(record)
    spoken = [i for i, t in enumerate(exchanges) if t.get("caller_text") or t.get("understood") is False]
    if not spoken or not 0 <= turns - len(spoken) <= 1 or cut.turn >= len(spoken):
        return cut
    interrupted = spoken[cut.turn] - 1
    if interrupted < 0:
        return cut
    text = str(exchanges[interrupted].get("agent_text") or "")
    return replace(cut, recorded=text, words_more=len(text.split()) - cut.played_ms // WORD_MS)


def _cuts(line: Line, opens: float, closes: float) -> list[Heard]:
    """Interruptions inside the window, with all that was heard since the turn before."""
    found: list[Heard] = []
    for before, turn in zip([None, *line.turns.all], line.turns.all, strict=False):
        if not turn.interrupting or turn.cut is None or not opens <= (turn.last_at or 0.0) < closes:
            continue
        since = (before.answered_at or before.last_at or 0.0) if before is not None else 0.0
        answers = line.carrier.answers[: turn.cut.index + 1]
        played = sum(a.heard_ms for a in answers if a.started_at >= since)
        cut = turn.cut
        sid = line.carrier.call_id
        found.append(Heard(sid, turn.index, played, cut.unheard_ms, cut.last_mark, cut.pending_marks))
    return found


def _false_clears(line: Line, opens: float, closes: float) -> int:
    """Answers cleared in the window that no turn's speech explains."""
    explained = {id(t.cut) for t in line.turns.all if t.cut is not None}
    cleared = (a for a in line.carrier.answers if a.cleared_at is not None and opens <= a.cleared_at < closes)
    return sum(id(a) not in explained for a in cleared)


def _write_cuts(folder: Path, lines: Sequence[Line]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in lines:
        for turn in line.turns.all:
            if turn.interrupting and turn.cut is not None and turn.cut.audio is not None:
                name = f"{line.carrier.call_id}-{turn.index}.wav"
                write_stereo_wav(folder / name, (), [bytes(turn.cut.audio)])


def _heard_bytes(line: Line) -> int:
    return sum(a.heard_bytes for a in line.carrier.answers)


async def bench_twilio(options: BenchOptions, *, clock: Clock = SYSTEM_CLOCK) -> BenchReport:
    """Raises ConfigError for options that cannot be; all else is in the report. Best on uvloop, one core to itself."""
    return await run_bench(options, clock, lambda ticker: TwilioDialer(options, clock, ticker))


async def run_bench(options: BenchOptions, clock: Clock, make_dialer: Callable[[Ticker], Dialer]) -> BenchReport:
    if options.calls < 1 or options.duration_s <= 0:
        raise ConfigError("calls, duration_s", (options.calls, options.duration_s), "at least 1 call, some seconds")
    if options.rig_core is not None:
        os.sched_setaffinity(0, {options.rig_core})
    speeches = [] if options.silent else await _speeches(options)
    ticker = Ticker(clock)
    return await Bench(options, speeches, clock, ticker, make_dialer(ticker)).run()


async def _speeches(options: BenchOptions) -> list[Speech]:
    named: list[tuple[str, Samples]] = [(path.stem, read_wav(path)) for path in options.wavs]
    if not named:
        named = [(text, await synthesize(text, options.voice)) for text in options.phrases]
    return [to_speech(n, s, noise_dbfs=options.noise_dbfs, seed=i) for i, (n, s) in enumerate(named)]


def render_bench(report: BenchReport, console: Console) -> None:
    table = Table(title=f"{report.calls} calls, {report.window_s:.0f} s", title_justify="left", show_edge=False)
    for name in ("", "n", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="left" if not name else "right")
    rows = {"greeting": report.greeting_ms, "turn (T1 - T0)": report.turn_ms, "barge-in": report.barge_in_ms}
    for name, spread in (rows | {"rig late": report.rig_late_ms}).items():
        figures = ("" if v is None else f"{v:.1f}" for v in (spread.p50, spread.p95, spread.p99, spread.max))
        table.add_row(f"{name}, ms", str(spread.n), *figures)
    console.print(table)
    console.print(
        f"{report.connected} connected, {report.turns} turns, {report.unanswered} unanswered, {report.talked_over} "
        f"talked over; {report.interruptions} interruptions, {report.missed_clears} clears missed, "
        f"{report.false_clears} false; agent talks {report.talk_percent:.0f} %, gaps {report.gap_percent:.2f} % "
        f"({report.gaps}, largest {report.largest_gap_ms} ms)"
    )
    if report.gateway_cpu_percent is not None:
        memory = f"{report.gateway_rss_mb or 0:.0f} MB, {report.gateway_rss_kb_per_call or 0:.0f} KB a call"
        each = report.gateway_cpu_percent_per_call or 0.0
        console.print(f"gateway: {report.gateway_cpu_percent:.0f} % CPU ({each:.3f} a call), {memory}")
    if report.sip is not None:
        render_sip_figures(report.sip, console)
    console.print(f"rig: {report.rig_cpu_percent:.0f} % CPU")
    if report.heard is not None:
        console.print(f"heard, by the record against what was played: {json.dumps(report.heard)}")
    for what in (report.failed_calls, report.invalid):
        if what:
            console.print(f"[red]{what}[/]")
    for warning in report.warnings:
        console.print(f"[yellow]{warning}[/]")


def render_sip_figures(sip: SipFigures, console: Console) -> None:
    rtp, interval = sip.rtp, sip.rtp.get("interval_ms") or {}
    spread = " / ".join(f"{interval.get(name, 0.0):.2f}" for name in ("p1", "p50", "p99", "p999"))
    console.print(
        f"{sip.transport}: set-up {render_spread(sip.setup_ms)}, {sip.resent} resent; codecs {sip.codecs}\n"
        f"RTP in: {rtp.get('packets', 0)} packets, {rtp.get('lost', 0)} lost, {rtp.get('late', 0)} late, wire interval "
        f"{spread} ms (p1 / p50 / p99 / p99.9)"
    )
    if sip.failed_setups:
        console.print(f"[red]set-ups failed: {sip.failed_setups}[/]")


def render_spread(spread: Spread) -> str:
    """p50 / p95 / p99 / max."""
    values = (spread.p50, spread.p95, spread.p99, spread.max)
    return " / ".join("-" if v is None else f"{v:.1f}" for v in values) + " ms (p50 / p95 / p99 / max)"


def cuts_jsonl(report: BenchReport) -> str:
    """One line for each interruption: what was really heard."""
    return "".join(json.dumps(asdict(cut)) + "\n" for cut in report.cuts)
