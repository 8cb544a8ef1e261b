"""What a cloud recogniser's connection costs: Deepgram's SDK, a `websockets` client, and ours, beside each other.

    python bench/recogniser_wire.py [--calls 50] [--seconds 10]

Each way feeds as many calls 20 ms of mu-law every 20 ms and takes the results, against tests/fakes/deepgram_server.py
in another process. Shown: CPU of this process for a second of a call's audio, over what feeding nothing costs.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services
from trunkline.agents.stt.deepgram import DeepgramStt
from trunkline.agents.websocket import Link
from trunkline.clock import SYSTEM_CLOCK
from trunkline.testing.conformance.stage import CALL
from trunkline.types import MULAW_8K

LOUD, QUIET = b"\x90" * 160, b"\xff" * 160
PATTERN = [LOUD] * 40 + [QUIET] * 40
"""A caller who speaks half of the time."""
SERVER = """
import asyncio, sys
sys.path.insert(0, ".")
from tests.fakes.deepgram_server import DeepgramServer
async def main():
    async with DeepgramServer("when do you open on Saturday") as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""

Feed = Callable[[bytes], Awaitable[None] | None]
Way = Callable[[str, AsyncExitStack, list[int]], Awaitable[Feed]]


async def nothing(url: str, stack: AsyncExitStack, results: list[int]) -> Feed:
    return lambda audio: None


def sdk(chunk_frames: int) -> Way:
    async def opened(url: str, stack: AsyncExitStack, results: list[int]) -> Feed:
        from deepgram import AsyncDeepgramClient
        from deepgram.core.events import EventType
        from deepgram.environment import DeepgramClientEnvironment

        place = DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)
        client = AsyncDeepgramClient(api_key="key", environment=place)
        socket: Any = await stack.enter_async_context(
            client.listen.v1.connect(
                model="nova-3", encoding="mulaw", sample_rate=8000, interim_results="true", endpointing="300"
            )
        )
        socket.on(EventType.MESSAGE, lambda message: results.append(len(message.channel.alternatives[0].transcript)))
        listening = asyncio.get_running_loop().create_task(socket.start_listening())
        stack.callback(listening.cancel)
        return _chunked(chunk_frames, socket.send_media)

    return opened


async def websockets_client(url: str, stack: AsyncExitStack, results: list[int]) -> Feed:
    from websockets.asyncio.client import connect

    query = "model=nova-3&encoding=mulaw&sample_rate=8000&interim_results=true&endpointing=300"
    socket = await stack.enter_async_context(
        connect(f"{url}/v1/listen?{query}", additional_headers={"Authorization": "Token key"}, compression=None)
    )

    async def listen() -> None:
        async for message in socket:
            results.append(len(json.loads(message)["channel"]["alternatives"][0]["transcript"]))

    listening = asyncio.get_running_loop().create_task(listen())
    stack.callback(listening.cancel)
    return _chunked(4, socket.send)


async def our_link(url: str, stack: AsyncExitStack, results: list[int]) -> Feed:
    query = "model=nova-3&encoding=mulaw&sample_rate=8000&interim_results=true&endpointing=300"

    def take(message: str | bytes) -> None:
        results.append(len(json.loads(message)["channel"]["alternatives"][0]["transcript"]))

    link = Link(f"{url}/v1/listen?{query}", {"Authorization": "Token key"}, take, lambda gone: None)
    await link.open(None)
    stack.callback(link.close)
    kept = bytearray()

    def feed(audio: bytes) -> None:
        kept.extend(audio)
        if len(kept) >= 4 * 160:
            link.send(bytes(kept))
            kept.clear()

    return feed


async def ours(url: str, stack: AsyncExitStack, results: list[int]) -> Feed:
    choice = ProviderChoice("deepgram")
    agent = AgentDefinition("bench", choice, choice, choice, "Hello.")
    stt = DeepgramStt(agent, {"url": url}, Services(SYSTEM_CLOCK, keys={"deepgram": "key"}))
    stream = stt.open(CALL, MULAW_8K, lambda event: results.append(1))
    stack.callback(stream.close)
    return stream.feed


def _chunked(frames: int, send: Callable[[bytes], Awaitable[None]]) -> Feed:
    kept = bytearray()

    async def feed(audio: bytes) -> None:
        kept.extend(audio)
        if len(kept) >= frames * 160:
            data = bytes(kept)
            kept.clear()
            await send(data)

    return feed


async def measure(way: Way, url: str, calls: int, seconds: float) -> tuple[float, int]:
    """CPU seconds in all, and messages."""
    results: list[int] = []
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        feeds = [await way(url, stack, results) for _ in range(calls)]
        await asyncio.sleep(0.5)
        before, begun = time.process_time(), loop.time()
        for tick in range(int(seconds * 50)):
            frame = PATTERN[tick % len(PATTERN)]
            for feed in feeds:
                waits = feed(frame)
                if waits is not None:
                    await waits
            await asyncio.sleep(max(0.0, begun + (tick + 1) * 0.02 - loop.time()))
        spent = time.process_time() - before
    return spent, len(results)


WAYS: dict[str, Way] = {
    "nothing": nothing,
    "SDK, 20 ms a message": sdk(1),
    "SDK, 80 ms": sdk(4),
    "websockets' client, 80 ms": websockets_client,
    "our link alone, 80 ms": our_link,
    "stt.deepgram": ours,
}


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        audio_s = asked.calls * asked.seconds
        idle = 0.0
        for name, way in WAYS.items():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                spent, results = runner.run(measure(way, url, asked.calls, asked.seconds))
            idle = idle or spent
            cost_ms = (spent - idle) / audio_s * 1000
            print(f"{name:28} {cost_ms:6.2f} ms of CPU a second, {results / audio_s:.1f} results a second")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
