"""`trunkline call` and `trunkline bench twilio` as plain async functions; the command line wires their options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError
from trunkline.testing.caller import records
from trunkline.testing.caller.bench import BenchOptions, BenchReport, bench_twilio, cuts_jsonl, render_bench
from trunkline.testing.caller.carrier import Carrier
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
from trunkline.testing.caller.speech import MixingMouth, Speech, read_wav, synthesize, to_speech, write_stereo_wav
from trunkline.testing.caller.webhook import CallFields, Webhook

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
    "Speak",
    "Stall",
    "Vanish",
    "Wav",
    "bench_twilio",
    "conversation",
    "cuts_jsonl",
    "parse_script",
    "place_call",
    "render_bench",
    "render_call",
    "render_event",
    "to_json",
    "to_values",
]

TEST_ACCOUNT_SID = "AC" + "0" * 32


@dataclass(frozen=True, slots=True)
class CallOptions:
    target: str
    """The voice webhook, `http(s)://host/twilio/voice`; a bare origin gets that path."""
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
    """On the first stream only."""
    max_duration_s: float = 600.0
    out: Path | None = None
    """Stereo WAV: left the caller as sent, right what was heard."""
    api_url: str = ""
    """Origin whose `GET /v1/calls/...` tells, after the call, what was understood and said. `auto`: the target's."""
    api_key: str = ""
    seed: int = 0
    call_sid: str = ""
    verify_tls: bool = True


async def place_call(
    options: CallOptions,
    *,
    on_event: Callable[[Event, float], None] | None = None,
    on_say: Callable[[str], None] = lambda text: None,
    clock: Clock = SYSTEM_CLOCK,
) -> CallReport:
    """One call, as a carrier would place it. `on_event(event, started_at)`: the live view. Raises ConfigError for
    options that cannot be; what the server does wrong is in the report."""
    target = voice_url(options.target)
    actions = await resolve(options.actions or [Listen(), HangUp()], options.voice)
    origin = _origin(target)
    via = origin if options.public_url else ""
    line_started: list[float] = []
    script = iter(actions)  # a call that is resumed on a second stream goes on where it was

    def tell(event: Event) -> None:
        if on_event is not None:
            on_event(event, line_started[-1])

    def make_line(carrier: Carrier) -> Line:
        line_started.append(clock.now())
        mouth = MixingMouth(
            noise_dbfs=options.noise_dbfs,
            echo_delay_ms=options.echo_delay_ms,
            echo_db=options.echo_db,
            seed=options.seed,
        )
        live = tell if on_event is not None else None
        resumed = [Listen()] if len(line_started) > 1 else []
        return Line(
            carrier,
            chain(resumed, script),
            mouth,
            stalls=options.stalls,
            max_duration_s=options.max_duration_s,
            on_event=live,
        )

    fields = CallFields(options.account_sid, options.call_sid or new_call_sid(), options.from_number, options.to_number)
    async with httpx.AsyncClient(verify=options.verify_tls, trust_env=False) as http:
        webhook = Webhook(http, auth_token=options.auth_token, signed_origin=options.public_url, via_origin=via)
        phone = Phone(
            webhook,
            fields,
            make_line,
            lambda url, line: run_line(url, line, clock, options.misbehave if len(line_started) == 1 else None),
            clock,
            voice_url=target,
            status_url=origin + "/twilio/status" if options.status_url is None else options.status_url,
            via_origin=via,
            keep_audio=options.out is not None or options.echo_db is not None,
            on_say=on_say,
        )
        report = await phone.call()
        if options.out is not None and phone.lines:
            sent = [frame for line in phone.lines for frame in line.sent]
            write_stereo_wav(options.out, sent, [frame for line in phone.lines for frame in line.carrier.heard])
            report.recording = str(options.out)
        if options.api_url:
            api = origin if options.api_url == "auto" else options.api_url
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


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
