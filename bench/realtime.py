"""What a call on a realtime model costs the gateway: `python bench/realtime.py [calls] [seconds]`.

A whole gateway, in this process on the first core: Twilio's protocol on one side, OpenAI's on the other. On the second
core a rig whose calls are silent, its frames spread over the 20 ms, and a model's server that does nothing but say
"speech started", "speech ended" and 4 s of audio to each session, again and again. Audio carries the time it was sent,
in the lowest bits of its first bytes. All processes read one monotonic clock.

1. Gateway time of a frame, to the model: from its sending into our socket (so the wait there counts) to its message
   having been given to the model's socket. What it waits for the frames it shares a message with is no work of ours:
   it is told apart, and counted for the last frame of a message only.
2. Gateway time of the model's audio: from the server's sending into our socket to its being in the call's playout; of
   the first of an answer, to its having been given to the caller's socket.
3. The wire alone, through our session and through the SDK's client: CPU for the same messages.
"""

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from openai import AsyncOpenAI
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from trunkline.agents.definition import AgentDefinition, ProviderChoice, RealtimeTerms
from trunkline.agents.local.voice import synthesize
from trunkline.agents.providers import Services
from trunkline.agents.realtime.attendant import RealtimeAttendant
from trunkline.agents.realtime.openai import OpenAiRealtime, OpenAiRealtimeSession
from trunkline.app import serve as serve_gateway
from trunkline.clock import SYSTEM_CLOCK
from trunkline.media.g711 import encode
from trunkline.media.heartbeat import Heartbeat
from trunkline.ports import CallFacts
from trunkline.settings import Http, ProviderKey, Settings, Sip
from trunkline.testing.caller.bench import Bench, BenchOptions, TwilioDialer
from trunkline.testing.caller.bulk import Ticker
from trunkline.testing.caller.speech import PlainMouth, Speech
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, FRAME_MS, MULAW_8K, CallId

STAMP_BYTES = 64
QUIETLY, ALOUD = bytes.maketrans(b"01", b"\xfe\xff"), bytes.maketrans(b"\xfe\xff", b"01")
"""A frame's time stands in the lowest bits of silence: nothing that ears would notice."""
ROUND_S, ANSWER_DELTAS, DELTA_MS = 6.0, 20, 200
QUIET = b"\xff" * 160
SPEECH = encode(synthesize("So that is what we do on Mondays and on Tuesdays"), "mulaw")
SLICES = 20  # a frame of five calls in each millisecond
TALK_FRAMES = 600
WARM_UP_S = 6.0
MEMORY = (
    Path("/dev/shm") if Path("/dev/shm").is_dir() else None
)  # records are kept there: the disk of a busy machine is not what is measured


def stamped(audio: bytes) -> bytes:
    return format(time.perf_counter_ns(), "064b").encode().translate(QUIETLY) + audio[STAMP_BYTES:]


def age_ms(audio: bytes, at: int = 0) -> float | None:
    """None: no frame begins there, as in the pre-roll."""
    stamp = audio[at : at + STAMP_BYTES].translate(ALOUD)
    if len(stamp) < STAMP_BYTES or stamp.strip(b"01"):
        return None
    return (time.perf_counter_ns() - int(stamp, 2)) / 1e6


# --- the server -----------------------------------------------------------------------------------------------------


class Server:
    async def session(self, socket: ServerConnection) -> None:
        await socket.send('{"type":"session.created","event_id":"e","session":{"type":"realtime"}}')
        answering: asyncio.Task[None] | None = None
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await socket.recv(decode=False)
                if not message.startswith(b'{"type":"input_audio') and json.loads(message)["type"] == "session.update":
                    await socket.send('{"type":"session.updated","event_id":"e","session":{"type":"realtime"}}')
                    answering = asyncio.create_task(self.answers(socket))
        if answering is not None:
            answering.cancel()

    async def answers(self, socket: ServerConnection) -> None:
        spread = id(socket) % 997 / 997 * ROUND_S
        await asyncio.sleep(spread)
        for at in itertools.count(1):
            item, reply = f"item{at}", f"resp{at}"
            for kind in ("speech_started", "speech_stopped"):
                place = "audio_start_ms" if kind == "speech_started" else "audio_end_ms"
                await send(socket, type=f"input_audio_buffer.{kind}", item_id=f"u{at}", **{place: 0})
                await asyncio.sleep(0.3)
            await send(socket, type="response.created", response={"id": reply, "status": "in_progress"})
            for _ in range(ANSWER_DELTAS):
                delta = b64encode(stamped(SPEECH[: DELTA_MS * 8])).decode()
                where = {"response_id": reply, "item_id": item, "output_index": 0, "content_index": 0}
                await send(socket, type="response.output_audio.delta", delta=delta, **where)
                await send(socket, type="response.output_audio_transcript.delta", delta="some words ", **where)
                await asyncio.sleep(DELTA_MS / 1000 / 2)
            await send(socket, type="response.done", response={"id": reply, "status": "completed"})
            await asyncio.sleep(ROUND_S - 0.6 - ANSWER_DELTAS * DELTA_MS / 2000)


async def send(socket: ServerConnection, **event: Any) -> None:
    await socket.send(json.dumps({"event_id": "e", **event}))


def run_server(core: int, port: Any, stop: Any) -> None:
    os.sched_setaffinity(0, {core})

    async def main() -> None:
        server = Server()
        async with serve(server.session, "127.0.0.1", 0, compression=None, max_size=1 << 26) as listening:
            port.value = next(iter(listening.sockets)).getsockname()[1]
            await asyncio.get_running_loop().run_in_executor(None, stop.wait)

    uvloop.run(main())


# --- whole calls ----------------------------------------------------------------------------------------------------


class StampingMouth(PlainMouth):
    """Says when it said it. It speaks for a tenth of the time."""

    def frame(self, speech: Speech | None, index: int, heard: Sequence[bytes]) -> bytes:
        self._at = (self._at + 1) % TALK_FRAMES
        sound = SPEECH[self._at * 160 : self._at * 160 + 160] if self._at < TALK_FRAMES // 10 else QUIET
        return b64encode(stamped(sound))

    def share(self, seed: int) -> "StampingMouth":
        other = StampingMouth()
        other._at = seed % TALK_FRAMES
        return other


class Dialer(TwilioDialer):
    opened: Any

    def window_opens(self) -> None:
        self.opened.set()


def run_rig(core: int, target: str, calls: int, seconds: float, opened: Any, result: Any) -> None:
    """Calls that listen, and speak a little, for so long. `opened`: all of them are there."""
    os.sched_setaffinity(0, {core})

    async def main() -> None:
        ticker = Ticker(SYSTEM_CLOCK, slots=SLICES)
        options = BenchOptions(target, calls, duration_s=seconds, silent=True, warm_up_s=WARM_UP_S)
        dialer = Dialer(options, SYSTEM_CLOCK, ticker)
        dialer.opened = opened
        bench = Bench(options, (), SYSTEM_CLOCK, ticker, dialer)
        bench._mouth = StampingMouth()
        report = await bench.run()
        result.put((report.connected, report.gateway_cpu_percent, report.rig_late_ms, report.warnings))

    uvloop.run(main())


@dataclass
class Seen:
    """What was measured within the gateway, in ms."""

    to_model: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    """How much longer the first frame of a message waited than the last."""
    to_playout: list[float] = field(default_factory=list)
    to_caller: list[float] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)

    def watch(self) -> None:
        """From here on all sessions, attendants and beats of this process are looked at."""
        flush, audio, beat = OpenAiRealtimeSession._flush, RealtimeAttendant._audio, Heartbeat.beat
        seen = self

        def flushed(session: Any) -> None:
            heard = bytes(session._audio)
            flush(session)
            first, last = age_ms(heard), age_ms(heard, max(0, len(heard) - MULAW_8K.frame_bytes))
            if first is not None and last is not None:
                seen.to_model.append(last)
                seen.shared.append(first - last)

        def spoken(attendant: Any, reply: str, name: str, data: bytes) -> None:
            first = attendant._turn is not None and attendant._turn.first_audio_at is None
            audio(attendant, reply, name, data)
            took_ms = age_ms(data)
            if took_ms is not None:
                (seen.to_caller if first else seen.to_playout).append(took_ms)

        def beaten(heartbeat: Any, now: float) -> None:
            beat(heartbeat, now)
            seen.beats.append((time.monotonic() - now) * 1000)

        OpenAiRealtimeSession._flush = flushed  # type: ignore[method-assign]
        RealtimeAttendant._audio = spoken  # type: ignore[method-assign]
        Heartbeat.beat = beaten  # type: ignore[method-assign]

    def forget(self) -> None:
        for values in (self.to_model, self.shared, self.to_playout, self.to_caller, self.beats):
            values.clear()


AGENT = """
name = "bench"
greeting = "Hello."
filler = []
[turns]
no_input_ms = 60000
[realtime]
provider = "openai"
model = "m"
base_url = "{url}"
turns = "server"
lines = "tts"
connect_ms = 60000
[stt]
provider = "standin"
[llm]
provider = "standin"
[tts]
provider = "standin"
"""


async def whole_calls(other_core: int, url: str, calls: int, seconds: float) -> None:
    seen = Seen()
    seen.watch()
    context, port = multiprocessing.get_context("spawn"), lease()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        agent = Path(folder) / "agent.toml"
        agent.write_text(AGENT.format(url=url))
        settings = Settings(
            agent=agent,
            data_dir=Path(folder) / "data",
            http=Http(host="127.0.0.1", port=port),
            sip=Sip(enabled=False),
            openai=ProviderKey(api_key=SecretStr("k")),
        )
        started = asyncio.Event()
        serving = asyncio.create_task(serve_gateway(settings, lambda _: started.set()))
        await asyncio.wait((serving, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # raises
        await asyncio.sleep(1.0)
        result, opened = context.Queue(), context.Event()
        target = f"http://127.0.0.1:{port}"
        rig = context.Process(target=run_rig, args=(other_core, target, calls, seconds, opened, result), daemon=True)
        rig.start()
        await asyncio.to_thread(opened.wait)
        await asyncio.sleep(0.5)
        seen.forget()
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds - 2.0)
        cpu, took = time.process_time() - cpu, time.perf_counter() - began
        figures_of = {
            "frames to the model": seen.to_model,
            "  and what the first of a message waited for the others": seen.shared,
            "audio of the model to the playout": seen.to_playout,
            "first audio of an answer to the caller's socket": seen.to_caller,
            "beats": seen.beats,
        }
        print(f"{calls} calls, {took:.0f} s: {cpu / took:.0%} of a core, {cpu / took / calls:.2%} a call")
        for what, values in figures_of.items():
            print(f"{what}: {figures(values)}")
        connected, _, late, warnings = await asyncio.to_thread(result.get)
        print(f"rig: {connected} calls connected, late {late}, {warnings}")
        rig.join(10)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


def figures(values: list[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "none"
    p50, p99, p999 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99, 0.999))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f}, p99.9 {p999:.2f}, of {len(ordered)}"


# --- the wire alone -------------------------------------------------------------------------------------------------


async def ours(url: str, calls: int, seconds: float) -> float:
    terms = RealtimeTerms(ProviderChoice("openai"), turns="server")
    definition = AgentDefinition("bench", *[ProviderChoice("standin")] * 3, greeting="", realtime=terms)
    model = OpenAiRealtime(definition, {"model": "m", "base_url": url}, Services(SYSTEM_CLOCK, keys={"openai": "k"}))
    await model.start()
    facts = CallFacts(CallId("c"), DEFAULT_TENANT, "inbound", None, None, datetime.now(UTC))
    sessions = [model.open(facts, MULAW_8K, (), lambda event: None) for _ in range(calls)]
    await asyncio.sleep(2)
    cpu = time.process_time()
    await paced(seconds, lambda: [session.hear(stamped(QUIET)) for session in sessions])
    cpu = time.process_time() - cpu
    await model.close()
    return cpu


async def the_sdks(url: str, calls: int, seconds: float) -> float:
    client = AsyncOpenAI(base_url=url, api_key="k")
    connections = [await client.realtime.connect(model="m").enter() for _ in range(calls)]

    async def read(connection: Any) -> None:
        async for _ in connection:
            pass

    async def write(connection: Any) -> None:
        for _ in range(int(seconds * 1000 / 40)):
            await connection.input_audio_buffer.append(audio=b64encode(stamped(QUIET) + stamped(QUIET)).decode())
            await asyncio.sleep(0.04)

    readers = []
    for connection in connections:
        await connection.session.update(session={"type": "realtime"})
        readers.append(asyncio.create_task(read(connection)))
    await asyncio.sleep(2)
    cpu = time.process_time()
    await asyncio.gather(*map(write, connections))
    cpu = time.process_time() - cpu
    for reader in readers:
        reader.cancel()
    for connection in connections:
        await connection.close()
    return cpu


async def paced(seconds: float, each: Any) -> None:
    began = time.perf_counter()
    for number in range(int(seconds * 1000 / FRAME_MS)):
        await asyncio.sleep(max(0.0, began + number * FRAME_MS / 1000 - time.perf_counter()))
        each()


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    context = multiprocessing.get_context("spawn")
    port, stop = context.Value("i", 0), context.Event()
    first, *_, last = sorted(os.sched_getaffinity(0))  # of ours: a child's are its parent's
    server = context.Process(target=run_server, args=(last, port, stop), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.05)
    url = f"http://127.0.0.1:{port.value}/v1"
    few = min(calls, 20)
    os.sched_setaffinity(0, {first})
    try:
        uvloop.run(whole_calls(last, url, calls, seconds))
        a, b = uvloop.run(ours(url, few, seconds)), uvloop.run(the_sdks(url, few, seconds))
        each = seconds * few
        print(f"the wire alone, {few} calls: ours {a / each:.2%} of a core a call, the SDK's {b / each:.2%}")
        print(f"the SDK's client costs {b / a:.1f} times as much")
    finally:
        stop.set()
        server.join(5)


if __name__ == "__main__":
    main()
