"""A whole call over `ws://HOST/ws/audio`, by the `websockets` library: what a device does.

`DeviceStream` is plain. To the `Line` it is Twilio's stream with another spelling: frames are appended to a buffer and
played in real time, a clear empties it, and a mark behind every frame of the agent's tells how far it was played.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigError, PeerError
from trunkline.media.g711 import decode, encode
from trunkline.media.halfband import Doubler, Halver
from trunkline.testing.caller.bench import BenchOptions, BenchReport, MakeLine, is_local, run_bench
from trunkline.testing.caller.bulk import Ticker, run_bulk, text_frame
from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.client import StreamEnd
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.phone import RunLine
from trunkline.testing.caller.report import CallReport
from trunkline.testing.caller.wire import NOTHING, Cleared, Received
from trunkline.types import FRAME_MS, MULAW_8K, PCM_8K, PCM_16K, CallSid, StreamSid

SCHEMES = ("ws:", "wss:")
PLAYED_MS = 100  # between two words of how much was played
DeviceAudio = Literal["mulaw", "pcm16-8k", "pcm16-16k"]
_FRAME_BYTES: dict[str, int] = {
    "mulaw": MULAW_8K.frame_bytes,
    "pcm16-8k": PCM_8K.frame_bytes,
    "pcm16-16k": PCM_16K.frame_bytes,
}
_NOBODY = StreamIds("", CallSid(""), StreamSid(""))
_TEXT, _BINARY = b"t", b"b"  # what each message to the gateway begins with, here


def ws_url(target: str) -> str:
    """`ws://HOST:PORT/ws/audio`, or just its origin. Raises ConfigError."""
    parts = urlsplit(target)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise ConfigError("target", target, "ws(s)://HOST[:PORT]/ws/audio")
    return parts._replace(path=parts.path.rstrip("/") or "/ws/audio").geturl()


class DeviceStream(Carrier):
    """Messages to the gateway begin with a letter: whether they go as text or as binary."""

    def __init__(
        self, audio: DeviceAudio, token: str = "", *, keep_audio: bool = False, keep_answers: bool = False
    ) -> None:
        super().__init__(_NOBODY, {}, keep_audio=keep_audio, keep_answers=keep_answers)
        self._audio, self._token = audio, token
        self._doubler, self._halver = Doubler(), Halver()
        self._sent_ms = 0  # by the gateway
        self._told_ms = 0
        self.events: list[dict[str, Any]] = []

    @property
    def call_id(self) -> str:
        return next((str(event.get("call_id", "")) for event in self.events if event.get("type") == "joined"), "")

    @property
    def stream_id(self) -> str:
        return self.call_id

    # --- to the gateway ---

    def opening(self) -> list[bytes]:
        rate_hz = 16_000 if self._audio == "pcm16-16k" else 8000
        start = {"type": "start", "encoding": self._audio.partition("-")[0], "rate_hz": rate_hz, "acks": True}
        return [
            _json(start | ({"token": self._token} if self._token else {})),
            _json({"type": "armed", "by": "button"}),
        ]

    def media(self, payload: bytes) -> bytes:
        """The caller's next 20 ms of mu-law."""
        self.counts.media_out += 1
        if self._audio == "mulaw":
            return _BINARY + payload
        pcm = decode(payload, "mulaw")
        return _BINARY + (self._doubler.feed(pcm) if self._audio == "pcm16-16k" else pcm)

    def dtmf(self, digit: str) -> list[bytes]:
        self.caller_spoke()
        return [_json({"type": "dtmf", "digits": digit})]

    def stop(self) -> list[bytes]:
        return []  # the close says it

    # --- from the gateway ---

    def receive(self, text: bytes | str, now: float) -> Received:
        if isinstance(text, bytes):
            return self._frame(text, now)
        event = json.loads(text)
        self.events.append(event)
        return self._cleared(int(event["sent_ms"]), now) if event.get("type") == "clear" else NOTHING

    def _frame(self, data: bytes, now: float) -> Received:
        if len(data) != _FRAME_BYTES[self._audio]:
            return self._invalid("not 20 ms")
        if self._audio != "mulaw":
            data = encode(self._halver.feed(data) if self._audio == "pcm16-16k" else data, "mulaw")
        self._sent_ms += FRAME_MS
        received = self.play(data, now)
        self._marks.append((self._queued, str(self._sent_ms)))
        return received

    def _cleared(self, sent_ms: int, now: float) -> Received:
        if sent_ms != self._sent_ms:
            return self._invalid("another count than ours")
        unheard_ms = self.queued_bytes // MULAW_8K.bytes_per_ms
        cut = self.drop(now)
        self._told_ms = sent_ms
        return Cleared([_json({"type": "cleared", "sent_ms": sent_ms, "played_ms": sent_ms - unheard_ms})], cut)

    def tick(self, now: float) -> list[bytes]:
        reached = super().tick(now)
        played_ms = self._sent_ms - self.queued_bytes // MULAW_8K.bytes_per_ms
        if reached and (played_ms - self._told_ms >= PLAYED_MS or not self.queued_bytes):
            self._told_ms = played_ms
            return [_json({"type": "played", "ms": played_ms})]
        return []


def _json(message: dict[str, Any]) -> bytes:
    return _TEXT + json.dumps(message).encode()


async def send(socket: ClientConnection, message: bytes) -> None:
    """One of DeviceStream's, over the library's client."""
    await socket.send(message[1:], text=message[:1] == _TEXT)


async def ws_call(
    url: str,
    stream: DeviceStream,
    make_line: Callable[[DeviceStream], Line],
    clock: Clock,
    run: RunLine,
) -> tuple[CallReport, Line]:
    """The call's report and its line. `run` holds it. Never raises for what the gateway does."""
    report, started = CallReport(""), clock.now()
    line = make_line(stream)
    try:
        end = await run(url, line)
        report.add_line(line)
        report.close_codes.append(end.close_code)
        report.close_code, report.close_reason = end.close_code, end.close_reason
        report.rig_late_max_ms = end.late_max_ms
        report.end = line.ended or ""
        refused = next((event for event in stream.events if event.get("type") == "refused"), None)
        if refused is not None:
            report.end, report.detail = "failed", f"{refused.get('code')}: {refused.get('why')}"
    except PeerError as error:
        report.end, report.detail = "failed", str(error)
    report.duration_s = clock.now() - started
    report.call_sid = stream.call_id
    return report, line


# --- many ---


class WsDialer:
    raw = True

    def __init__(self, options: BenchOptions, audio: DeviceAudio, clock: Clock, ticker: Ticker) -> None:
        self._options, self._audio, self._clock, self._ticker = options, audio, clock, ticker
        self._url = ws_url(options.target)
        parts = urlsplit(self._url)
        secure = parts.scheme == "wss"
        self.origin = options.api_url or f"http{'s' if secure else ''}://{parts.netloc}"
        self.local_port = (parts.port or (443 if secure else 80)) if is_local(parts.hostname) else None

    async def open(self) -> None: ...

    async def call(self, make_line: MakeLine) -> CallReport:
        stream = DeviceStream(self._audio, keep_answers=self._options.heard_dir is not None)

        def run(url: str, line: Line) -> Awaitable[StreamEnd]:
            return run_bulk(url, line, self._clock, self._ticker, _framed)

        report, _ = await ws_call(self._url, stream, make_line, self._clock, run)
        return report

    def window_opens(self) -> None: ...

    def window_closes(self, report: BenchReport) -> None: ...

    def hang_up(self) -> None: ...

    def ended(self, report: BenchReport) -> None: ...

    async def close(self) -> None: ...


def _framed(message: bytes) -> bytes:
    return text_frame(message[1:], 0x1 if message[:1] == _TEXT else 0x2)


async def bench_ws(options: BenchOptions, audio: DeviceAudio = "mulaw", *, clock: Clock = SYSTEM_CLOCK) -> BenchReport:
    """As `bench_twilio`, with `options.target` a WebSocket of devices."""
    return await run_bench(options, clock, lambda ticker: WsDialer(options, audio, clock, ticker))
