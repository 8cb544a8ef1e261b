"""What a call on a realtime model costs the gateway: `python bench/realtime.py [calls] [seconds]`.

A server of its own process speaks the wire protocol and does nothing else: every session says "speech started", "speech
ended" and answers with 4 s of audio, again and again. Frames carry the time they were made in their first bytes.

1. Whole calls in this process (ears with Silero, echo guard, bus, playout, attendant, session): from a frame's arrival
   at the bus to its arrival at the server, less the wait for the frame it shares a message with; from the server's
   sending of a delta to its being in the call's playout.
2. The wire alone, through our session and through the SDK's client: CPU for the same messages.
"""

import asyncio
import json
import multiprocessing
import sys
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import uvloop
from openai import AsyncOpenAI
from websockets.asyncio.server import ServerConnection, serve

from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition, ProviderChoice, RealtimeTerms
from trunkline.agents.local.voice import synthesize
from trunkline.agents.providers import Minds, Services
from trunkline.agents.realtime.attendant import RealtimeAgent
from trunkline.agents.realtime.openai import OpenAiRealtime
from trunkline.clock import SYSTEM_CLOCK
from trunkline.media.bus import Bus
from trunkline.media.ears import Ears
from trunkline.media.echo import EchoGuard
from trunkline.media.g711 import encode
from trunkline.media.heartbeat import Heartbeat
from trunkline.media.playout import LeadPolicy
from trunkline.media.vad import EnergyGate, SileroBatch
from trunkline.ports import Allow, CallFacts, ReplyAudio
from trunkline.testing.standin import StandinLlm, StandinStt, StandinTts
from trunkline.types import DEFAULT_TENANT, FRAME_MS, MULAW_8K, CallId

STAMP_BYTES = 64
QUIETLY, ALOUD = bytes.maketrans(b"01", b"\xfe\xff"), bytes.maketrans(b"\xfe\xff", b"01")
"""A frame's time stands in the lowest bits of silence: nothing that ears would notice."""
ROUND_S, ANSWER_DELTAS, DELTA_MS = 6.0, 20, 200
QUIET = b"\xff" * 160
SPEECH = encode(synthesize("So that is what we do on Mondays and on Tuesdays"), "mulaw")
SLICES = 20


def stamped(audio: bytes) -> bytes:
    return format(time.perf_counter_ns(), "064b").encode().translate(QUIETLY) + audio[STAMP_BYTES:]


def age_ms(audio: bytes, at: int = 0) -> float:
    return (time.perf_counter_ns() - int(audio[at : at + STAMP_BYTES].translate(ALOUD), 2)) / 1e6


# --- the server -----------------------------------------------------------------------------------------------------


class Server:
    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.audio_bytes = 0

    async def session(self, socket: ServerConnection) -> None:
        await socket.send('{"type":"session.created","event_id":"e","session":{"type":"realtime"}}')
        answering: asyncio.Task[None] | None = None
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "input_audio_buffer.append":
                audio = b64decode(event["audio"])
                self.audio_bytes += len(audio)
                self.late_ms.append(age_ms(audio, len(audio) - MULAW_8K.frame_bytes))  # of the last of the message
            elif event["type"] == "session.update":
                await socket.send('{"type":"session.updated","event_id":"e","session":{"type":"realtime"}}')
                answering = asyncio.create_task(self.answers(socket))
            elif event["type"] == "bench.stop":
                await socket.send(json.dumps({"type": "bench", "late_ms": self.late_ms, "bytes": self.audio_bytes}))
        if answering is not None:
            answering.cancel()

    async def answers(self, socket: ServerConnection) -> None:
        spread = id(socket) % 997 / 997 * ROUND_S
        await asyncio.sleep(spread)
        at = 0
        while True:
            at += 1
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


def run_server(port: Any, stop: Any) -> None:
    async def main() -> None:
        server = Server()
        async with serve(server.session, "127.0.0.1", 0, compression=None, max_size=1 << 26) as listening:
            port.value = next(iter(listening.sockets)).getsockname()[1]
            await asyncio.get_running_loop().run_in_executor(None, stop.wait)

    uvloop.run(main())


# --- whole calls ----------------------------------------------------------------------------------------------------


class Leg:
    writable = True

    def __init__(self) -> None:
        self.marks: list[tuple[float, str]] = []

    def send(self, messages: Any) -> None:
        self.marks += [(message.play_at + len(message.audio) / 8000, message.mark) for message in messages]

    def clear(self) -> None:
        self.marks.clear()


class Control:
    sends_dtmf = True

    def hang_up(self, reason: str) -> None: ...
    def transfer(self, target: str) -> Allow:
        return Allow()

    def send_dtmf(self, digits: str) -> None: ...
    def fall_back(self) -> None:
        print("a session was lost")

    def turn(self, turn: Any, ago_s: float) -> None: ...
    def usage(self, usage: Any) -> None: ...
    def event(self, kind: str, **data: Any) -> None:
        print(kind, data)

    def crashed(self, error: BaseException) -> None:
        print("crashed:", repr(error))


async def tools(*_: Any) -> str:
    return ""


async def whole_calls(url: str, calls: int, seconds: float) -> None:
    choice = ProviderChoice("standin")
    terms = RealtimeTerms(ProviderChoice("openai"), turns="server", lines="tts")
    definition = AgentDefinition("bench", choice, choice, choice, greeting="", filler=(), realtime=terms)
    services = Services(SYSTEM_CLOCK, keys={"openai": "k"})
    standins = [made(definition, {}, services) for made in (StandinStt, StandinLlm, StandinTts)]
    cascade = Cascade(definition, Minds(*standins), tools)  # type: ignore[arg-type]
    model = OpenAiRealtime(definition, {"model": "m", "base_url": url, "connect_ms": 60000}, services)
    await model.start()
    ears = Ears(MULAW_8K, calls, SileroBatch(calls), EnergyGate(calls))
    beats_ms: list[float] = []
    heartbeat = Heartbeat(SYSTEM_CLOCK, ears.beat, lambda late_s, took_s: beats_ms.append(took_s * 1000))
    heartbeat.start()
    loop, now = asyncio.get_running_loop(), datetime.now(UTC)
    legs, buses, attendants, back_ms = [], [], [], []
    for number in range(calls):
        leg = Leg()
        bus = Bus(leg, ears, heartbeat, SYSTEM_CLOCK, LeadPolicy(), EchoGuard(MULAW_8K))
        facts = CallFacts(CallId(f"c{number}"), DEFAULT_TENANT, "inbound", None, None, now)
        control: Any = Control()
        attendant = RealtimeAgent(cascade, model, terms).attend(
            facts, bus, control, control, SYSTEM_CLOCK, loop.call_later
        )
        heard = attendant._from_session

        def timed(session: Any, event: Any, heard: Any = heard) -> None:
            heard(session, event)
            if isinstance(event, ReplyAudio):
                back_ms.append(age_ms(event.data))

        attendant._from_session = timed  # type: ignore[method-assign]
        attendant.begin("")
        legs.append(leg), buses.append(bus), attendants.append(attendant)
    await asyncio.sleep(3)
    last: Any = attendants[0]
    cpu, began = time.process_time(), time.perf_counter()
    frames, pairs = int(seconds * 1000 / FRAME_MS), list(zip(buses, legs, strict=True))
    back_ms.clear()
    beats_ms.clear()
    for number in range(frames):
        for part in range(SLICES):  # as over sockets: not all in one moment
            due = began + (number + part / SLICES) * FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            at = time.monotonic()
            for index in range(part, calls, SLICES):
                bus, leg = pairs[index]
                at_frame = (number + index * 3) % 600  # a tenth of them speak
                sound = SPEECH[at_frame * 160 : at_frame * 160 + 160] if at_frame < 60 else QUIET
                bus.receive(stamped(sound), bus.carrier_ms + FRAME_MS)
                while leg.marks and leg.marks[0][0] <= at:
                    bus.mark_returned(leg.marks.pop(0)[1])
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    late = await results(last._live)
    print(f"{calls} calls, {took:.0f} s: {cpu / took:.0%} of a core, {cpu / took / calls:.2%} a call")
    print(f"beats: {figures(beats_ms)}")
    print(f"frames to the model: {figures(late)}; audio of the model: {figures(back_ms)}")
    for attendant, bus in zip(attendants, buses, strict=True):
        attendant.close()
        bus.close()
    heartbeat.stop()
    await model.close()


async def results(session: Any) -> list[float]:
    """Of the server, over the session's own connection."""
    got: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
    decoded = session._decoded

    def listening(raw: bytes) -> Any:
        if raw.startswith(b'{"type": "bench"') and not got.done():
            got.set_result(json.loads(raw)["late_ms"])
        return decoded(raw)

    session._decoded = listening
    for _ in range(2):  # the first answer goes to who is waiting already
        session._put('{"type":"bench.stop"}')
    return await asyncio.wait_for(got, 30)


def figures(values: list[float]) -> str:
    ordered = sorted(values)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, of {len(ordered)}"


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
    server = context.Process(target=run_server, args=(port, stop), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.05)
    url = f"http://127.0.0.1:{port.value}/v1"
    few = min(calls, 20)
    try:
        uvloop.run(whole_calls(url, calls, seconds))
        a, b = uvloop.run(ours(url, few, seconds)), uvloop.run(the_sdks(url, few, seconds))
        each = seconds * few
        print(f"the wire alone, {few} calls: ours {a / each:.2%} of a core a call, the SDK's {b / each:.2%}")
        print(f"the SDK's client costs {b / a:.1f} times as much")
    finally:
        stop.set()
        server.join(5)


if __name__ == "__main__":
    main()
