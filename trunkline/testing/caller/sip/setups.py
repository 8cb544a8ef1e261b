"""Set-ups a second: INVITE, 200, ACK, a short hold, BYE; no audio of ours, what the far end sends is not looked at."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from rich.console import Console

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError
from trunkline.testing.caller import process
from trunkline.testing.caller.bench import is_local, render_spread
from trunkline.testing.caller.figures import Spread, no_spread
from trunkline.testing.caller.sip import sdp
from trunkline.testing.caller.sip.call import SipOptions
from trunkline.testing.caller.sip.dialog import Answered, Dialog, Effect, Ended
from trunkline.testing.caller.sip.endpoint import Endpoint, api_beside, tls_context
from trunkline.testing.caller.sip.message import sip_target
from trunkline.testing.caller.sip.sockets import bind_rtp

LATE_S = 1.0  # the rig is this far behind its own pace: the rate asked for was never there
FINISH_S = 10.0


@dataclass(frozen=True, slots=True)
class SetupOptions:
    target: str
    per_s: float = 100.0
    seconds: float = 10.0
    hold_ms: int = 200
    from_number: str = "+15005550006"
    to_number: str = "+15005550001"
    pid: int | None = None
    """The gateway's. None: whoever listens on the target's port here, else its /metrics."""
    api_url: str = ""
    verify_tls: bool = True
    sip: SipOptions = field(default_factory=SipOptions)


@dataclass(slots=True)
class SetupReport:
    asked_per_s: float
    hold_ms: int
    attempts: int = 0
    answered: int = 0
    completed: int = 0
    """Answered, and our BYE answered with 200."""
    failed: dict[str, int] = field(default_factory=dict)
    """By final status, or by what happened instead."""
    per_s: float = 0.0
    """Set-ups begun a second, in fact."""
    setup_ms: Spread = field(default_factory=no_spread)
    """INVITE sent -> 200 received."""
    bye_ms: Spread = field(default_factory=no_spread)
    """BYE sent -> 200 received."""
    resent: int = 0
    most_at_once: int = 0
    gateway_cpu_percent: float | None = None
    gateway_cpu_ms_per_call: float | None = None
    gateway_rss_mb: float | None = None
    rig_cpu_percent: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.completed == self.attempts and not self.warnings


class _Setup:
    """One call: only notes."""

    def __init__(
        self, dialog: Dialog, now: float, on_answer: Callable[["_Setup"], None], on_end: Callable[[], None]
    ) -> None:
        self.dialog, self.began_at, self._on_answer, self._on_end = dialog, now, on_answer, on_end
        self.answered_at: float | None = None
        self.bye_at: float | None = None
        self.ended: Ended | None = None
        self.ended_at = 0.0

    def on_effect(self, effect: Effect, at: float) -> None:
        if isinstance(effect, Answered):
            self.answered_at = at
            self._on_answer(self)
        elif isinstance(effect, Ended):
            self.ended, self.ended_at = effect, at
            self._on_end()

    @property
    def failure(self) -> str | None:
        ended = self.ended
        if ended is None:
            return "never ended"
        if self.answered_at is None:
            return f"{ended.code} {ended.reason}".strip() if ended.code else ended.reason or ended.by
        return None if ended.code == 200 else f"BYE: {ended.code} {ended.reason}".strip()


async def bench_setups(options: SetupOptions, *, clock: Clock = SYSTEM_CLOCK) -> SetupReport:
    """Raises ConfigError for options that cannot be, PeerError for a target that cannot be reached."""
    if options.per_s <= 0 or options.seconds <= 0 or options.hold_ms < 0:
        raise ConfigError("cps, seconds, hold_ms", (options.per_s, options.seconds, options.hold_ms), "above zero")
    return await _Setups(options, clock).run()


class _Setups:
    def __init__(self, options: SetupOptions, clock: Clock) -> None:
        self._options, self._clock = options, clock
        self._target = sip_target(options.target, options.to_number)
        context = tls_context(options.sip.ca_file, options.verify_tls) if self._target.transport == "tls" else None
        self._endpoint = Endpoint(self._target, clock, context=context)
        self._setups: list[_Setup] = []
        self._live = 0
        self._quiet = asyncio.Event()  # none is live

    async def run(self) -> SetupReport:
        options, clock = self._options, self._clock
        report = SetupReport(options.per_s, options.hold_ms)
        await self._endpoint.open()
        sink = bind_rtp(self._endpoint.host, self._endpoint.stamps)  # where the far end's audio goes unread
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                before, own, began = await self._load(http), process.own_cpu_s(), clock.now()
                await self._dial(sink.address, report)
                took_s = clock.now() - began
                after = await self._load(http)
            report.rig_cpu_percent = (process.own_cpu_s() - own) / took_s * 100
            report.attempts = len(self._setups)
            report.per_s = report.attempts / took_s
            if before is not None and after is not None:
                cpu_s = after.cpu_s - before.cpu_s
                report.gateway_cpu_percent = cpu_s / took_s * 100
                report.gateway_cpu_ms_per_call = cpu_s * 1000 / max(1, report.attempts)
                report.gateway_rss_mb = after.rss_bytes / 2**20
            await self._finish()
        finally:
            await self._endpoint.close()
            sink.close()
        self._count(report)
        return report

    async def _load(self, http: httpx.AsyncClient) -> process.Load | None:
        port = self._target.address[1] if is_local(self._target.host) else None
        return await process.load_of(self._options.pid, port, http, self._options.api_url or api_beside(self._target))

    async def _dial(self, sink: tuple[str, int], report: SetupReport) -> None:
        options, clock = self._options, self._clock
        deadline = clock.now()
        for _ in range(round(options.per_s * options.seconds)):
            now = clock.now()
            if now < deadline:
                await asyncio.sleep(deadline - now)
            elif now - deadline > LATE_S:
                report.warnings.append("the rig cannot keep this rate")
                deadline = now
            deadline += 1 / options.per_s
            self._begin(sink)
            report.most_at_once = max(report.most_at_once, self._live)

    def _begin(self, sink: tuple[str, int]) -> None:
        options = self._options
        media = sdp.LocalMedia(*sink, options.sip.laws, session_id=secrets.randbits(31))
        dialog = Dialog(
            self._target,
            options.from_number,
            self._endpoint.via,
            media,
            credentials=options.sip.credentials,
            late_offer=options.sip.late_offer,
            headers=options.sip.headers,
        )
        setup = _Setup(dialog, self._clock.now(), self._hold, self._ended)
        self._setups.append(setup)
        self._live += 1
        self._quiet.clear()
        self._endpoint.start(dialog, setup.on_effect)

    def _ended(self) -> None:
        self._live -= 1
        if not self._live:
            self._quiet.set()

    def _hold(self, setup: _Setup) -> None:
        asyncio.get_running_loop().call_later(self._options.hold_ms / 1000, self._hang_up, setup)

    def _hang_up(self, setup: _Setup) -> None:
        if setup.ended is None:
            setup.bye_at = self._clock.now()
            self._endpoint.perform(setup.dialog, setup.dialog.hang_up(setup.bye_at), setup.bye_at)

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.hold_ms / 1000 + FINISH_S):
                await self._quiet.wait()

    def _count(self, report: SetupReport) -> None:
        failed: Counter[str] = Counter()
        for setup in self._setups:
            failure = setup.failure
            report.answered += setup.answered_at is not None
            report.resent += setup.dialog.resent
            if failure is None:
                report.completed += 1
            else:
                failed[failure] += 1
        report.failed = dict(failed)
        report.setup_ms = Spread.of([(s.answered_at - s.began_at) * 1000 for s in self._setups if s.answered_at])
        byes = [(s.ended_at - s.bye_at) * 1000 for s in self._setups if s.bye_at and s.ended is not None]
        report.bye_ms = Spread.of(byes)


def render_setups(report: SetupReport, console: Console) -> None:
    console.print(
        f"{report.attempts} set-ups at {report.per_s:.1f} a second, {report.answered} answered, {report.completed} "
        f"completed, {report.most_at_once} at once, {report.resent} messages resent\n"
        f"set-up {render_spread(report.setup_ms)}\nBYE {render_spread(report.bye_ms)}"
    )
    if report.gateway_cpu_percent is not None:
        console.print(
            f"gateway: {report.gateway_cpu_percent:.0f} % CPU ({report.gateway_cpu_ms_per_call or 0:.2f} ms a call), "
            f"{report.gateway_rss_mb or 0:.0f} MB"
        )
    console.print(f"rig: {report.rig_cpu_percent:.0f} % CPU")
    if report.failed:
        console.print(f"[red]{report.failed}[/]")
    for warning in report.warnings:
        console.print(f"[yellow]{warning}[/]")
