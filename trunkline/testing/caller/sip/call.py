"""One whole call over SIP: dial, talk, hang up. An edge; returns a report, never raises for what the far end does."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.media.g711 import Law
from trunkline.testing.caller.bulk import Ticker
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.report import CallReport, SipReport
from trunkline.testing.caller.sip import rtp, sdp
from trunkline.testing.caller.sip.dialog import Answered, Dialog, Effect, Ended, MediaChanged, Progress
from trunkline.testing.caller.sip.digest import Credentials
from trunkline.testing.caller.sip.endpoint import Endpoint
from trunkline.testing.caller.sip.message import Uri
from trunkline.testing.caller.sip.sockets import StampedSocket, bind_rtp
from trunkline.testing.caller.sip.stream import RtpStream

BYE_S = 5.0  # for the answer to BYE or CANCEL; then the call is over all the same
_ENDS = {"refused": "rejected", "cancelled": "cancelled", "lost": "failed", "far_end": "server_closed"}


@dataclass(frozen=True, slots=True)
class SipOptions:
    """What only a SIP call has."""

    username: str = ""
    """With the password: the answer to a 401 or 407."""
    password: str = field(default="", repr=False)
    laws: tuple[Law, ...] = ("mulaw", "alaw")
    """Offered, by preference."""
    dtmf: Literal["rfc4733", "info"] = "rfc4733"
    late_offer: bool = False
    """The INVITE carries no SDP."""
    headers: Sequence[tuple[str, str]] = ()
    """More of them in the INVITE."""
    ring_timeout_s: float = 60.0
    cancel_after_ms: int | None = None
    """Give up ringing so long after the INVITE."""
    ca_file: Path | None = None
    """Whose certificates a TLS target may show; None: the system's."""

    @property
    def credentials(self) -> Credentials | None:
        return Credentials(self.username, self.password) if self.username else None


class SipCall:
    """`await SipCall(...).call()`, once, on a ticker that runs."""

    def __init__(
        self,
        endpoint: Endpoint,
        target: Uri,
        from_user: str,
        make_line: Callable[[RtpStream], Line],
        clock: Clock,
        ticker: Ticker,
        options: SipOptions,
        *,
        keep_audio: bool = False,
        keep_answers: bool = False,
    ) -> None:
        self._endpoint, self._target, self._from, self._make_line = endpoint, target, from_user, make_line
        self._clock, self._ticker, self._options = clock, ticker, options
        self._keep_audio, self._keep_answers = keep_audio, keep_answers
        self.line: Line | None = None
        self.stream: RtpStream | None = None
        loop = asyncio.get_running_loop()
        self._socket: StampedSocket | None = None
        self._dialog: Dialog | None = None
        self._far: tuple[str, int] = ("", 0)
        self._answered: asyncio.Future[bool] = loop.create_future()  # False: it never will be
        self._over: asyncio.Future[None] = loop.create_future()  # the line has ended
        self._ended: asyncio.Future[Ended] = loop.create_future()
        self._invited_at = self._answered_at = 0.0
        self._first_rtp_at: float | None = None
        self.sip = SipReport(endpoint.via.transport)
        self.report = CallReport("", sip=self.sip)

    async def call(self) -> CallReport:
        started = self._clock.now()
        try:
            self._dial()
            await self._ring()
            if self.line is not None:
                await self._over
            await self._finish()
        except PeerError as error:
            self.report.end, self.report.detail = "failed", str(error)
        finally:
            self._ticker.leave(self)
            if self._socket is not None:
                self._socket.close()
        self.report.duration_s = self._clock.now() - started
        return self._write()

    # --- set-up ---------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        endpoint, options = self._endpoint, self._options
        self._socket = bind_rtp(endpoint.host, endpoint.stamps)
        media = sdp.LocalMedia(*self._socket.address, options.laws, session_id=secrets.randbits(31))
        self._dialog = Dialog(
            self._target,
            self._from,
            endpoint.via,
            media,
            credentials=options.credentials,
            late_offer=options.late_offer,
            headers=options.headers,
        )
        self.report.call_sid = self._dialog.call_id
        self._invited_at = self._clock.now()
        endpoint.start(self._dialog, self._on_effect)

    async def _ring(self) -> None:
        options = self._options
        wait_s = options.ring_timeout_s if options.cancel_after_ms is None else options.cancel_after_ms / 1000
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.shield(self._answered)
        except TimeoutError:
            if self.line is None:
                self.report.detail = self.report.detail or f"not answered in {wait_s:g} s"

    def _on_effect(self, effect: Effect, at: float) -> None:
        match effect:
            case Progress(code, reason, session):
                self.sip.provisionals.append(code)
                self.sip.code, self.sip.reason = code, reason
                if code >= 180 and self.sip.ring_ms is None:
                    self.sip.ring_ms = (at - self._invited_at) * 1000
                if session is not None:
                    self._hear(session)
            case Answered(session):
                self._answer(session, at)
            case MediaChanged(session):
                self.sip.renegotiations += 1
                self._hear(session)
            case Ended():
                self._end(effect, at)

    def _hear(self, session: sdp.Session) -> None:
        """Early media, an answer or a renegotiation: audio goes and comes like this from now on."""
        self._far = (session.host, session.port)
        self.sip.codec, self.sip.telephone_events = session.codec, session.event_payload_type is not None
        if self.stream is not None:
            self.stream.session = session
            return
        assert self._dialog is not None
        sender = rtp.Sender(secrets.randbits(32), secrets.randbits(15), secrets.randbits(32))
        self.stream = RtpStream(
            self._dialog.call_id,
            session,
            sender,
            send_info=self._send_info,
            prefer_info=self._options.dtmf == "info",
            keep_audio=self._keep_audio,
            keep_answers=self._keep_answers,
        )
        self._ticker.join(self, lambda: None if self._over.done() else self._over.set_result(None))

    def _answer(self, session: sdp.Session, at: float) -> None:
        self._answered_at = at
        self.sip.code, self.sip.reason = 200, "OK"
        self.sip.setup_ms = (at - self._invited_at) * 1000
        self._hear(session)
        assert self.stream is not None
        self.line = self._make_line(self.stream)
        self.line.open(at)
        if not self._answered.done():
            self._answered.set_result(True)

    def _send_info(self, digit: str) -> None:
        assert self._dialog is not None
        now = self._clock.now()
        self._endpoint.perform(self._dialog, self._dialog.info(digit, now), now)

    # --- the call -------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        assert self._socket is not None
        assert self.stream is not None
        self._socket.drain(self._packet)
        line = self.line
        if line is None:
            return not self._ended.done()
        if line.ended is not None:
            return False
        send, far = self._socket.send, self._far
        for packet in line.tick(self._clock.now()):
            if packet:
                send(packet, far)
        return line.ended is None

    def _packet(self, data: bytes, source: tuple[str, int], at: float) -> None:
        if self._first_rtp_at is None:
            self._first_rtp_at = at
        if self.line is not None:
            self.line.receive(data, at)
        elif self.stream is not None:
            self.stream.receive(data, at)

    @property
    def unsent(self) -> int:
        return self._socket.unsent if self._socket is not None else 0

    def hang_up(self) -> None:
        """At the next tick, or while it rings: now."""
        if self.line is not None:
            self.line.hang_up()
        elif not self._answered.done():
            self.report.detail = "not answered"
            self._answered.set_result(False)

    # --- the end --------------------------------------------------------------------------------------------------

    def _end(self, ended: Ended, at: float) -> None:
        if self.line is None:
            self.sip.code, self.sip.reason = ended.code or self.sip.code, ended.reason
        if not self._ended.done():
            self._ended.set_result(ended)
        if not self._answered.done():
            self._answered.set_result(False)
        if self.line is not None:
            self.line.closed(at, clean=ended.by in ("far_end", "caller"))

    async def _finish(self) -> None:
        assert self._dialog is not None
        line = self.line
        if line is not None and line.ended == "vanished":
            self._endpoint.forget(self._dialog)
        elif not self._ended.done():
            now = self._clock.now()
            self._endpoint.perform(self._dialog, self._dialog.hang_up(now), now)
            try:
                async with asyncio.timeout(BYE_S):
                    await asyncio.shield(self._ended)
            except TimeoutError:
                self.report.detail = self.report.detail or "no answer to BYE"
        if line is not None:
            self.report.end = line.ended or ""
            return
        ended = self._ended.result() if self._ended.done() else Ended("lost", 0, "no answer to CANCEL")
        self.report.end = _ENDS.get(ended.by, "cancelled")
        why = f"{ended.code} {ended.reason}".strip() if ended.code else ended.reason
        self.report.detail = self.report.detail or why

    def _write(self) -> CallReport:
        report, sip, stream = self.report, self.sip, self.stream
        if self.line is not None:
            report.add_line(self.line)
        if self._dialog is not None:
            sip.challenges, sip.resent = self._dialog.challenges, self._dialog.resent
        if stream is not None:
            sip.keys_in = stream.keys_in
            sip.rtp = rtp_figures([stream.receiver]) | {"played_late": stream.playout.late}
            if self._first_rtp_at is not None and self._answered_at:
                sip.first_rtp_ms = (self._first_rtp_at - self._answered_at) * 1000
        return report


def rtp_figures(receivers: Sequence[rtp.Receiver], since: Sequence[int] | None = None) -> dict[str, Any]:
    """The sums of several streams, and the spread of their packets' intervals (from index `since` of each)."""
    total = rtp.Received()
    for receiver in receivers:
        counts = receiver.counts
        for name in ("packets", "lost", "duplicate", "reordered", "late", "restarts"):
            setattr(total, name, getattr(total, name) + getattr(counts, name))
        total.jitter_ms = max(total.jitter_ms, counts.jitter_ms)
    parts = [
        np.frombuffer(r.intervals_ms, dtype=np.float32)[0 if since is None else since[i] :]
        for i, r in enumerate(receivers)
    ]
    merged = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    interval = None
    if len(merged):
        values = np.percentile(merged, (1, 50, 99, 99.9))
        interval = dict(zip(("p1", "p50", "p99", "p999"), map(float, values), strict=True)) | {"n": len(merged)}
        interval["max"] = float(merged.max())
    return asdict(total) | {"interval_ms": interval}
