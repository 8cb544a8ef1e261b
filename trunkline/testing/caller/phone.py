"""One whole call as Twilio runs it: ring the webhook, follow the verbs, stream, callbacks. An edge; returns a report.

Verbs are followed in order. <Connect><Stream> lasts until one side ends it; then its action URL is asked what next, or
the next verb is followed. A caller who has hung up still causes the action and the status callback, as at Twilio.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from trunkline.clock import Clock
from trunkline.errors import PeerError
from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.client import StreamEnd
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.report import CallReport
from trunkline.testing.caller.webhook import (
    CallFields,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    Verb,
    Webhook,
    join,
    reorigin,
)
from trunkline.types import CallSid, StreamSid

MAX_DOCUMENTS = 20  # redirects and actions of one call
MAX_PAUSE_S = 10.0  # a test call has no use for longer silence

MakeLine = Callable[[Carrier], Line]
RunLine = Callable[[str, Line], Awaitable[StreamEnd]]
"""Holds one stream at a URL until the line or the server ends it; raises PeerError when it cannot be opened."""


def new_call_sid() -> CallSid:
    return CallSid("CA" + secrets.token_hex(16))


def new_stream_sid() -> StreamSid:
    return StreamSid("MZ" + secrets.token_hex(16))


class Phone:
    """One call: `await Phone(...).call()`, once. Never raises for what the server does: the report says it."""

    def __init__(
        self,
        webhook: Webhook,
        fields: CallFields,
        make_line: MakeLine,
        run_line: RunLine,
        clock: Clock,
        *,
        voice_url: str,
        status_url: str = "",
        via_origin: str = "",
        keep_audio: bool = False,
        keep_answers: bool = False,
        on_say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._webhook, self._fields, self._clock = webhook, fields, clock
        self._make_line, self._run_line = make_line, run_line
        self._url, self._status_url, self._via_origin = voice_url, status_url, via_origin
        self._keep_audio, self._keep_answers, self._on_say = keep_audio, keep_answers, on_say
        self._verbs: list[Verb] = []
        self._documents = 0
        self._callbacks: set[asyncio.Task[None]] = set()
        self.report = CallReport(fields.call_sid)
        self.lines: list[Line] = []
        """One for each stream; a call has more than one when it was resumed."""

    async def call(self) -> CallReport:
        started = self._clock.now()
        try:
            await self._fetch(self._url, "ringing")
            self.report.webhook_ms = (self._clock.now() - started) * 1000
            await self._follow()
        except PeerError as error:
            self.report.end = self.report.end or "failed"
            self.report.detail = str(error)
        self.report.duration_s = self._clock.now() - started
        await self._completed()
        return self.report

    async def _fetch(self, url: str, status: str, **more: str) -> None:
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            raise PeerError(f"more than {MAX_DOCUMENTS} TwiML documents in one call")
        self._url = join(self._url, url)
        self._verbs = await self._webhook.twiml(self._url, self._fields.form(status, **more))

    async def _follow(self) -> None:
        while self._verbs:
            verb = self._verbs.pop(0)
            self.report.verbs.append(type(verb).__name__)
            if not await self._do(verb):
                return
        self.report.end = self.report.end or "server_closed"  # the end of TwiML hangs up

    async def _do(self, verb: Verb) -> bool:
        """False: the call is over."""
        match verb:
            case Stream():
                return await self._stream(verb)
            case Say(text):
                self._on_say(text)
            case Play(url):
                self._on_say(url)
                await asyncio.sleep(min(await self._webhook.play(join(self._url, url)), MAX_PAUSE_S))
            case Gather(verbs, timeout_s=timeout_s):
                for each in verbs:
                    await self._do(each)
                await asyncio.sleep(min(timeout_s, MAX_PAUSE_S))
            case Pause(seconds):
                await asyncio.sleep(min(seconds, MAX_PAUSE_S))
            case Redirect(url):
                await self._fetch(url, "in-progress")
            case Dial(numbers):
                self.report.end, self.report.detail = "dialed", f"{len(numbers)} number(s)"
                return False
            case Reject(reason):
                self.report.end, self.report.detail = "rejected", reason
                return False
            case Hangup():
                self.report.end = self.report.end or "server_closed"
                return False
        return True

    async def _stream(self, verb: Stream) -> bool:
        ids = StreamIds(self._fields.account_sid, CallSid(self._fields.call_sid), new_stream_sid())
        carrier = Carrier(ids, verb.parameters, keep_audio=self._keep_audio, keep_answers=self._keep_answers)
        line = self._make_line(carrier)
        self.lines.append(line)
        url = reorigin(verb.url, self._via_origin) if self._via_origin else verb.url
        try:
            self._stream_event(verb, ids, "stream-started")
            end = await self._run_line(url, line)
        except PeerError as error:
            self._stream_event(verb, ids, "stream-error", str(error))
            self.report.end, self.report.detail = "failed", str(error)
            return await self._after_stream(verb, hung_up=False)
        self._stream_event(verb, ids, "stream-stopped")
        self.report.add_line(line)
        self.report.close_codes.append(end.close_code)
        self.report.close_code, self.report.close_reason = end.close_code, end.close_reason
        self.report.rig_late_max_ms = end.late_max_ms
        self.report.end = line.ended or ""
        return await self._after_stream(verb, hung_up=line.ended in ("hung_up", "no_answer", "max_duration"))

    async def _after_stream(self, verb: Stream, *, hung_up: bool) -> bool:
        if not verb.action:
            return not hung_up
        if self.report.end == "vanished":
            return False
        await self._fetch(verb.action, "completed" if hung_up else "in-progress")
        return not hung_up

    def _stream_event(self, verb: Stream, ids: StreamIds, event: str, error: str = "") -> None:
        if not verb.status_callback:
            return
        wall: datetime = self._clock.wall()
        form = self._fields.form(
            "in-progress", StreamSid=ids.stream_sid, StreamName=verb.name or ids.stream_sid, StreamEvent=event
        )
        form |= {"Timestamp": wall.isoformat()} | ({"StreamError": error} if error else {})
        self._later(join(self._url, verb.status_callback), form)

    def _later(self, url: str, form: Mapping[str, str]) -> None:
        """Twilio's callbacks do not hold the call up."""

        async def post() -> None:
            try:
                await self._webhook.post(url, form)
            except PeerError as error:
                self.report.detail = self.report.detail or f"callback: {error}"

        task = asyncio.create_task(post())
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

    async def _completed(self) -> None:
        if self._status_url and self.report.end != "vanished":
            seconds = str(max(0, round(self.report.duration_s)))
            form = self._fields.form("completed", CallDuration=seconds, Duration=seconds, SequenceNumber="0")
            form |= {"CallbackSource": "call-progress-events", "Timestamp": self._clock.wall().isoformat()}
            self._later(join(self._url, self._status_url), form)
        if self._callbacks:
            await asyncio.gather(*self._callbacks)
