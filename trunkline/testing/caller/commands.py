"""`trunkline call` and `trunkline bench` as plain async functions; the command line wires their options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError, PeerError
from trunkline.media.g711 import Law
from trunkline.testing.caller import records
from trunkline.testing.caller.bench import BenchOptions, BenchReport, bench_twilio, cuts_jsonl, render_bench
from trunkline.testing.caller.bulk import Ticker
from trunkline.testing.caller.client import Misbehave, run_line
from trunkline.testing.caller.line import Event, Line, Stall
from trunkline.testing.caller.phone import Phone, new_call_sid
from trunkline.testing.caller.report import CallReport, render_call, render_event, to_json, to_values
from trunkline.testing.caller.script import (
    Action,
    FallSilent,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Say,
    Speak,
    Vanish,
    Wav,
    conversation,
    parse_script,
)
from trunkline.testing.caller.sip.bench import bench_sip
from trunkline.testing.caller.sip.call import SipCall, SipOptions
from trunkline.testing.caller.sip.endpoint import Endpoint, api_beside, tls_context
from trunkline.testing.caller.sip.message import sip_target
from trunkline.testing.caller.sip.setups import SetupOptions, SetupReport, bench_setups, render_setups
from trunkline.testing.caller.speech import (
    MixingMouth,
    Speech,
    from_base64,
    read_wav,
    synthesize,
    to_speech,
    write_stereo_wav,
)
from trunkline.testing.caller.webhook import CallFields, Webhook
from trunkline.testing.caller.webrtc import SCHEME, WhipCall, bench_webrtc, whip_url
from trunkline.testing.caller.websocket import SCHEMES, DeviceAudio, DeviceStream, bench_ws, send, ws_call, ws_url
from trunkline.testing.caller.wire import Wire

__all__ = [
    "Action",
    "BenchOptions",
    "BenchReport",
    "CallOptions",
    "CallReport",
    "Event",
    "FallSilent",
    "HangUp",
    "Keys",
    "Listen",
    "ListenInto",
    "Misbehave",
    "Pause",
    "Say",
    "SetupOptions",
    "SetupReport",
    "SipOptions",
    "Speak",
    "Stall",
    "Vanish",
    "Wav",
    "bench_setups",
    "bench_sip",
    "bench_twilio",
    "bench_webrtc",
    "bench_ws",
    "conversation",
    "cuts_jsonl",
    "parse_script",
    "place_call",
    "render_bench",
    "render_call",
    "render_event",
    "render_setups",
    "sip_options",
    "to_json",
    "to_values",
]

TEST_ACCOUNT_SID = "AC" + "0" * 32


@dataclass(frozen=True, slots=True)
class CallOptions:
    target: str
    """The voice webhook, `http(s)://host/twilio/voice` (a bare origin gets that path), or a SIP address,
    `sip:number@host:port;transport=tcp`, or a WHIP endpoint, `whip:http(s)://host/whip`, or a
    WebSocket of devices, `ws(s)://host/ws/audio`."""
    actions: Sequence[Action] = ()
    """What the caller does; `conversation(...)` or `parse_script(...)` make them. Empty: hear the greeting, hang up."""
    from_number: str = "+15005550006"  # Twilio's test numbers
    to_number: str = "+15005550001"
    account_sid: str = TEST_ACCOUNT_SID
    auth_token: str = ""
    """Signs every request."""
    public_url: str = ""
    """The origin signatures are made for, where it is not the target's. URLs of that host then lead to the target."""
    status_url: str | None = None
    """The number's status callback. None: `/twilio/status` beside the target; empty: none."""
    voice: str = "en-us"
    """Of espeak-ng."""
    noise_dbfs: float | None = None
    echo_delay_ms: int = 200
    echo_db: float | None = None
    """The agent's own audio comes back at this level; None: no echo."""
    stalls: Sequence[Stall] = ()
    misbehave: Misbehave | None = None
    """On the first stream only; not over SIP."""
    max_duration_s: float = 600.0
    out: Path | None = None
    """Stereo WAV: left the caller as sent, right what was heard."""
    api_url: str = ""
    """Origin whose `GET /v1/calls/...` tells, after the call, what was understood and said. `auto`: the target's (of a
    SIP target: port 8080 of its host)."""
    api_key: str = ""
    seed: int = 0
    call_sid: str = ""
    verify_tls: bool = True
    sip: SipOptions = field(default_factory=SipOptions)
    """Of a SIP target only."""
    join_token: str = field(default="", repr=False)
    """Of a session; of a WHIP or WebSocket target only."""
    audio: DeviceAudio = "mulaw"
    """On the wire; of a WebSocket target only."""


async def place_call(
    options: CallOptions,
    *,
    on_event: Callable[[Event, float], None] | None = None,
    on_say: Callable[[str], None] = lambda text: None,
    clock: Clock = SYSTEM_CLOCK,
) -> CallReport:
    """One call, as a carrier would place it. `on_event(event, started_at)`: the live view. Raises ConfigError for
    options that cannot be; what the server does wrong is in the report."""
    placing = _Placing(options, await resolve(options.actions or [Listen(), HangUp()], options.voice), on_event, clock)
    if options.target.lower().startswith(("sip:", "sips:")):
        return await _place_sip(placing)
    if options.target.lower().startswith(SCHEME):
        return await _place_whip(placing)
    if options.target.lower().startswith(SCHEMES):
        return await _place_ws(placing)
    return await _place_twilio(placing, on_say)


class _Placing:
    """One call's lines: its script, its mouth, its live view."""

    def __init__(
        self,
        options: CallOptions,
        actions: Sequence[Action],
        on_event: Callable[[Event, float], None] | None,
        clock: Clock,
    ) -> None:
        self.options, self.clock = options, clock
        self._on_event = on_event
        self._script = iter(actions)  # a call that is resumed on a second stream goes on where it was
        self.started: list[float] = []

    @property
    def keep_audio(self) -> bool:
        return self.options.out is not None or self.options.echo_db is not None

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event, self.started[-1])

    def make_line(self, wire: Wire, *, raw: bool = False) -> Line:
        options = self.options
        self.started.append(self.clock.now())
        mouth = MixingMouth(
            noise_dbfs=options.noise_dbfs,
            echo_delay_ms=options.echo_delay_ms,
            echo_db=options.echo_db,
            seed=options.seed,
            raw=raw,
        )
        resumed = [Listen()] if len(self.started) > 1 else []
        return Line(
            wire,
            chain(resumed, self._script),
            mouth,
            stalls=options.stalls,
            max_duration_s=options.max_duration_s,
            on_event=self._tell if self._on_event is not None else None,
        )

    def record(self, report: CallReport, sent: Sequence[bytes], heard: Sequence[bytes]) -> None:
        if self.options.out is not None:
            write_stereo_wav(self.options.out, sent, heard)
            report.recording = str(self.options.out)


async def _place_twilio(placing: _Placing, on_say: Callable[[str], None]) -> CallReport:
    options, clock = placing.options, placing.clock
    target = voice_url(options.target)
    origin = _origin(target)
    via = origin if options.public_url else ""
    fields = CallFields(options.account_sid, options.call_sid or new_call_sid(), options.from_number, options.to_number)
    async with httpx.AsyncClient(verify=options.verify_tls, trust_env=False) as http:
        webhook = Webhook(http, auth_token=options.auth_token, signed_origin=options.public_url, via_origin=via)
        phone = Phone(
            webhook,
            fields,
            placing.make_line,
            lambda url, line: run_line(url, line, clock, options.misbehave if len(placing.started) == 1 else None),
            clock,
            voice_url=target,
            status_url=origin + "/twilio/status" if options.status_url is None else options.status_url,
            via_origin=via,
            keep_audio=placing.keep_audio,
            on_say=on_say,
        )
        report = await phone.call()
        if phone.lines:
            sent = from_base64(frame for line in phone.lines for frame in line.sent)
            placing.record(report, sent, [frame for line in phone.lines for frame in line.carrier.heard])
        if options.api_url:
            api = origin if options.api_url == "auto" else options.api_url
            await records.annotate(report, http, api, options.api_key)
    return report


async def _place_sip(placing: _Placing) -> CallReport:
    options, clock = placing.options, placing.clock
    target = sip_target(options.target, options.to_number)
    context = tls_context(options.sip.ca_file, options.verify_tls) if target.transport == "tls" else None
    endpoint, ticker = Endpoint(target, clock, context=context), Ticker(clock, slots=1)
    try:
        await endpoint.open()
        ticker.start()
        call = SipCall(
            endpoint,
            target,
            options.from_number,
            lambda stream: placing.make_line(stream, raw=True),
            clock,
            ticker,
            options.sip,
            keep_audio=placing.keep_audio,
        )
        report = await call.call()
    except PeerError as error:
        return CallReport("", end="failed", detail=str(error))
    finally:
        ticker.stop()
        await endpoint.close()
    report.rig_late_max_ms = max(ticker.late_ms, default=0.0)
    if call.line is not None:
        placing.record(report, call.line.sent, call.line.carrier.heard)
        if options.api_url:
            api = api_beside(target) if options.api_url == "auto" else options.api_url
            async with httpx.AsyncClient(verify=options.verify_tls, trust_env=False) as http:
                await records.annotate(report, http, api, options.api_key)
    return report


async def _place_whip(placing: _Placing) -> CallReport:
    options, clock = placing.options, placing.clock
    url, ticker = whip_url(options.target), Ticker(clock, slots=1)
    async with httpx.AsyncClient(verify=options.verify_tls, trust_env=False) as http:
        ticker.start()
        try:
            call = WhipCall(
                http,
                url,
                lambda stream: placing.make_line(stream, raw=True),
                clock,
                ticker,
                token=options.join_token,
                keep_audio=placing.keep_audio,
            )
            report = await call.call()
        finally:
            ticker.stop()
        report.rig_late_max_ms = max(ticker.late_ms, default=0.0)
        if call.line is not None:
            placing.record(report, call.line.sent, call.line.carrier.heard)
            if options.api_url:
                api = _origin(url) if options.api_url == "auto" else options.api_url
                await records.annotate(report, http, api, options.api_key)
    return report


async def _place_ws(placing: _Placing) -> CallReport:
    options = placing.options
    url = ws_url(options.target)
    report, line = await ws_call(
        url,
        DeviceStream(options.audio, options.join_token, keep_audio=placing.keep_audio),
        lambda stream: placing.make_line(stream, raw=True),
        placing.clock,
        lambda url, line: run_line(url, line, placing.clock, options.misbehave, send),
    )
    placing.record(report, line.sent, line.carrier.heard)
    if options.api_url:
        api = _origin("http" + url[2:]) if options.api_url == "auto" else options.api_url
        async with httpx.AsyncClient(verify=options.verify_tls, trust_env=False) as http:
            await records.annotate(report, http, api, options.api_key)
    return report


async def resolve(actions: Sequence[Action], voice: str) -> list[Action]:
    """Text and files made audible. Raises ConfigError."""
    made: dict[str, Speech] = {}
    resolved: list[Action] = []
    for action in actions:
        if isinstance(action, Say):
            if action.text not in made:
                made[action.text] = to_speech(action.text, await synthesize(action.text, voice))
            resolved.append(Speak(made[action.text]))
        elif isinstance(action, Wav):
            resolved.append(Speak(to_speech(action.path.stem, read_wav(action.path))))
        else:
            resolved.append(action)
    return resolved


def voice_url(target: str) -> str:
    """Raises ConfigError for anything but an http(s) URL."""
    parts = urlsplit(target if "://" in target else f"http://{target}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("target", target, "http(s)://host[:port]/twilio/voice")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/twilio/voice", parts.query, ""))


LAWS: dict[str, Law] = {"pcmu": "mulaw", "pcma": "alaw"}


def sip_options(
    auth: str, codecs: Sequence[str], headers: Sequence[str], ca_file: Path | None, **more: Any
) -> SipOptions:
    """From what a command line says: `USER:PASSWORD`, `pcmu`, `Name: value`. Raises ConfigError."""
    username, separator, password = auth.partition(":")
    if auth and not (username and separator):
        raise ConfigError("--auth", "...", "USER:PASSWORD")
    if unknown := [c for c in codecs if c.lower() not in LAWS]:
        raise ConfigError("--codec", unknown[0], "pcmu or pcma")
    pairs = [tuple(part.strip() for part in h.partition(":")[::2]) for h in headers]
    if wrong := [h for h, pair in zip(headers, pairs, strict=True) if not all(pair) or not h.isprintable()]:
        raise ConfigError("--header", wrong[0], '"Name: value"')
    laws = tuple(LAWS[c.lower()] for c in codecs) or tuple(LAWS.values())
    return SipOptions(username, password, laws, headers=[(n, v) for n, v in pairs], ca_file=ca_file, **more)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
