"""`trunkline bench sip`: the bench's callers over SIP, with what only SIP can show."""

from collections import Counter
from dataclasses import asdict

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.testing.caller.bench import BenchOptions, BenchReport, MakeLine, is_local, run_bench
from trunkline.testing.caller.bulk import Ticker
from trunkline.testing.caller.figures import SipFigures, Spread
from trunkline.testing.caller.report import CallReport
from trunkline.testing.caller.sip.call import SipCall, rtp_figures
from trunkline.testing.caller.sip.endpoint import Endpoint, api_beside, tls_context
from trunkline.testing.caller.sip.message import sip_target
from trunkline.testing.caller.sip.rtp import Received


class SipDialer:
    raw = True

    def __init__(self, options: BenchOptions, clock: Clock, ticker: Ticker) -> None:
        self._options, self._clock, self._ticker = options, clock, ticker
        self._target = sip_target(options.target, options.to_number)
        context = tls_context(options.sip.ca_file, options.verify_tls) if self._target.transport == "tls" else None
        self.endpoint = Endpoint(self._target, clock, context=context)
        self.origin = options.api_url or api_beside(self._target)
        self.local_port = self._target.address[1] if is_local(self._target.host) else None
        self.figures = SipFigures(self._target.transport)
        self._calls: list[SipCall] = []
        self._before: list[tuple[SipCall, int, Received]] = []
        self._setups: list[float] = []
        self._failed: Counter[str] = Counter()
        self._codecs: Counter[str] = Counter()

    async def open(self) -> None:
        await self.endpoint.open()

    async def call(self, make_line: MakeLine) -> CallReport:
        options = self._options
        keep = options.heard_dir is not None
        call = SipCall(
            self.endpoint,
            self._target,
            options.from_number,
            make_line,
            self._clock,
            self._ticker,
            options.sip,
            keep_answers=keep,
        )
        self._calls.append(call)
        report = await call.call()
        if call.line is None:
            self._failed[failure(report)] += 1
        return report

    def window_opens(self) -> None:
        streams = [(call, call.stream.receiver) for call in self._calls if call.stream is not None]
        self._before = [(c, len(r.intervals_ms), Received(**asdict(r.counts))) for c, r in streams]

    def window_closes(self, report: BenchReport) -> None:
        receivers = [call.stream.receiver for call, _, _ in self._before if call.stream is not None]
        rtp = rtp_figures(receivers, [at for _, at, _ in self._before])
        for _, _, before in self._before:
            for name in ("packets", "lost", "duplicate", "reordered", "late", "restarts"):
                rtp[name] -= getattr(before, name)
        self.figures.rtp = rtp

    def hang_up(self) -> None:
        for call in self._calls:
            if call.line is None:
                call.hang_up()

    def ended(self, report: BenchReport) -> None:
        figures = self.figures
        for call in self._calls:
            if call.sip.setup_ms is not None:
                self._setups.append(call.sip.setup_ms)
                self._codecs[call.sip.codec] += 1
            figures.resent += call.sip.resent
            figures.unsent += call.unsent
        figures.setup_ms, figures.codecs = Spread.of(self._setups), dict(self._codecs)
        figures.failed_setups = dict(self._failed)
        report.sip = figures

    async def close(self) -> None:
        await self.endpoint.close()


def failure(report: CallReport) -> str:
    """Why there was no call: by status where there is one."""
    code = report.sip.code if report.sip is not None else 0
    return f"{code} {report.sip.reason}" if report.sip is not None and code >= 300 else report.detail or report.end


async def bench_sip(options: BenchOptions, *, clock: Clock = SYSTEM_CLOCK) -> BenchReport:
    """As `bench_twilio`, with `options.target` a SIP address. A target that cannot be reached raises PeerError."""
    return await run_bench(options, clock, lambda ticker: SipDialer(options, clock, ticker))
