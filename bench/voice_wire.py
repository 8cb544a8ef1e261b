"""What a phrase of a cloud voice costs: Deepgram's SDK, `httpx` under it, and a new connection for each phrase.

    python bench/voice_wire.py [--phrases 300]

A phrase of 10 words is 1.5 s of mu-law in chunks of 100 ms, against tests/fakes/deepgram_server.py in another process.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable

import httpx
import uvloop

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.providers import Services
from trunkline.agents.tts.deepgram import DeepgramTts
from trunkline.clock import SYSTEM_CLOCK
from trunkline.types import MULAW_8K

TEXT = "We are open from eight to five on every weekday."
SERVER = """
import asyncio, sys
sys.path.insert(0, ".")
from tests.fakes.deepgram_server import AuraServer
async def main():
    async with AuraServer() as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
QUERY = "model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000&container=none"


async def measure(speak: Callable[[], AsyncIterator[bytes]], phrases: int) -> tuple[float, float, float]:
    """CPU ms a phrase; first audio p50 and p95 ms."""
    firsts: list[float] = []
    for warm in (True, False):
        cpu = time.process_time()
        for _ in range(10 if warm else phrases):
            begun, first = time.perf_counter(), 0.0
            async for _ in speak():
                first = first or time.perf_counter() - begun
            if not warm:
                firsts.append(first * 1000)
    spent_ms = (time.process_time() - cpu) * 1000 / phrases
    return spent_ms, statistics.median(firsts), statistics.quantiles(firsts, n=20)[-1]


async def run(url: str, phrases: int) -> None:
    choice = ProviderChoice("deepgram")
    agent = AgentDefinition("bench", choice, choice, choice, "Hello.")
    tts = DeepgramTts(agent, {"url": url}, Services(SYSTEM_CLOCK, keys={"deepgram": "key"}))
    await tts.start()
    client = httpx.AsyncClient(timeout=None)

    async def ours() -> AsyncIterator[bytes]:
        async for audio in tts.speak(TEXT, MULAW_8K):
            yield audio.data

    async def plain(client: httpx.AsyncClient = client) -> AsyncIterator[bytes]:
        headers = {"Authorization": "Token key"}
        async with client.stream("POST", f"{url}/v1/speak?{QUERY}", json={"text": TEXT}, headers=headers) as response:
            async for data in response.aiter_bytes():
                yield data

    async def anew() -> AsyncIterator[bytes]:
        async with httpx.AsyncClient(timeout=None, verify=False) as fresh:
            async for data in plain(fresh):
                yield data

    ways = {"tts.deepgram (SDK)": ours, "httpx": plain, "httpx, a connection a phrase": anew}
    for name, speak in ways.items():
        cpu_ms, p50_ms, p95_ms = await measure(speak, phrases)
        print(f"{name:30} {cpu_ms:5.2f} ms of CPU a phrase, first audio p50 / p95 {p50_ms:.1f} / {p95_ms:.1f} ms")
    await client.aclose()
    await tts.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--phrases", type=int, default=300)
    asked = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(server.stdout.readline().strip(), asked.phrases))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
