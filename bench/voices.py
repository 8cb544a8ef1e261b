"""What the cloud voices and models cost this process a phrase or answer: the SDKs, our wire, and as little as can be.

The far ends are the fakes of tests/fakes in a process of their own, without any latency of theirs.

    python bench/voices.py [--phrases 200]
"""

import argparse
import asyncio
import base64
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import msgspec
from elevenlabs.client import ElevenLabs as Sdk
from elevenlabs.core.unchecked_base_model import construct_type
from elevenlabs.types import WebsocketTtsServerMessageMulti
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from tests.fakes.elevenlabs_server import ElevenLabsServer, audio_message, char_times, spoken
from tests.fakes.openai_server import SPEECH_HZ, Answer, OpenAiServer, Refusal, Request, Speech
from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.llm.openai import OpenAiLlm
from trunkline.agents.local.voice import synthesize
from trunkline.agents.providers import Services
from trunkline.agents.tts import elevenlabs
from trunkline.agents.tts.elevenlabs import CharTimes, ElevenLabs, Reply, WordTimes
from trunkline.agents.tts.openai import OpenAiTts
from trunkline.clock import SYSTEM_CLOCK
from trunkline.ports import CallFacts, Message, TextDelta
from trunkline.types import DEFAULT_TENANT, MULAW_8K, CallId

PHRASE = "We are open from eight in the morning until six in the evening, Monday to Friday."
TOKENS = 60
NONE = ProviderChoice("standin")
AGENT = AgentDefinition("Bench", NONE, NONE, NONE, "Hello.")
SERVICES = Services(SYSTEM_CLOCK)
CALL = CallFacts(CallId("c"), DEFAULT_TENANT, "inbound", None, None, SYSTEM_CLOCK.wall())
ASKED = [Message("caller", "When do you open?")]

First = Callable[[], Awaitable[float]]
"""One phrase or answer; the monotonic time of its first chunk."""


class Endless(OpenAiServer):
    def __init__(self) -> None:
        super().__init__()
        pcm = synthesize(PHRASE, rate_hz=SPEECH_HZ)
        self.speech = Speech(*(pcm[at : at + 4800] for at in range(0, len(pcm), 4800)))

    def _answer(self, request: Request) -> Answer | Speech | Refusal:
        return self.speech if request.path == "/v1/audio/speech" else Answer(*["word "] * TOKENS)


async def serve() -> None:
    async with ElevenLabsServer() as voices, Endless() as openai:
        spoken(PHRASE, MULAW_8K)
        print(voices.base_url, openai.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(name: str, one: First, phrases: int) -> None:
    for _ in range(5):
        await one()
    firsts, before = [], cpu_s()
    for _ in range(phrases):
        begun = time.monotonic()
        firsts.append((await one() - begun) * 1000)
    cpu_ms = (cpu_s() - before) * 1000 / phrases
    cuts = statistics.quantiles(firsts, n=20)
    print(f"| {name} | {cpu_ms:.2f} | {statistics.median(firsts):.2f} | {cuts[-1]:.2f} |", flush=True)


async def first_of(chunks: AsyncIterator[Any]) -> float:
    at = 0.0
    async for chunk in chunks:
        if not at and (not hasattr(chunk, "text") or isinstance(chunk, TextDelta)):
            at = time.monotonic()
    return at


async def bench_elevenlabs(url: str, phrases: int) -> None:
    ours = ElevenLabs(AGENT, {"voice": "v", "base_url": url}, SERVICES)
    await ours.start()

    async def kept() -> float:
        async with aclosing(ours.speak(PHRASE, MULAW_8K)) as chunks:
            return await first_of(chunks)

    await measure("`tts.elevenlabs`, connection kept", kept, phrases)
    most, elevenlabs.MAX_IDLE = elevenlabs.MAX_IDLE, 0
    for lines in ours._lines.values():
        lines.idle.clear()
    await measure("`tts.elevenlabs`, a connection a phrase", kept, phrases)
    elevenlabs.MAX_IDLE = most
    await ours.close()

    query = "output_format=ulaw_8000&auto_mode=true&sync_alignment=true"
    async with connect(f"{url}/v1/text-to-speech/v/multi-stream-input?{query}", compression=None) as socket:
        numbers = iter(range(1_000_000))

        async def bare() -> float:
            context, at = f"c{next(numbers)}", 0.0
            await socket.send(json.dumps({"context_id": context, "text": " "}))
            await socket.send(json.dumps({"context_id": context, "text": PHRASE + " ", "flush": True}))
            await socket.send(json.dumps({"context_id": context, "close_context": True}))
            while True:
                reply = json.loads(await socket.recv())
                if reply.get("isFinal"):
                    return at
                base64.b64decode(reply["audio"])
                at = at or time.monotonic()

        await measure("`websockets` and `json`, no word times", bare, phrases)

    sdk = Sdk(api_key="k", base_url="http://127.0.0.1")
    sdk.text_to_speech._ws_base_url = url

    def blocking() -> float:
        at = 0.0
        chunks = sdk.text_to_speech.convert_realtime("v", text=iter([PHRASE]), model_id="m", output_format="ulaw_8000")
        for _ in chunks:
            at = at or time.monotonic()
        return at

    await measure("SDK (`convert_realtime`) in a thread", lambda: asyncio.to_thread(blocking), phrases)


def bench_reading() -> None:
    audio, words = spoken(PHRASE, MULAW_8K)
    chars = [char for char in char_times(words) if char[1] < 250]
    message = audio_message(audio[:2000], chars, 0, "c", "both")

    def ours() -> None:
        reply = msgspec.json.decode(message, type=Reply)
        assert isinstance(reply.alignment, CharTimes)
        WordTimes(PHRASE).feed(reply.alignment, 0)

    def sdks() -> None:
        reply: Any = construct_type(type_=WebsocketTtsServerMessageMulti, object_=json.loads(message))
        base64.b64decode(reply.audio)

    for name, read in (("ours, with words", ours), ("the SDK's types", sdks)):
        begun = time.perf_counter()
        for _ in range(2000):
            read()
        print(f"a message of 250 ms, {name}: {(time.perf_counter() - begun) / 2000 * 1e6:.0f} us")


async def bench_openai(url: str, phrases: int) -> None:
    for api in ("chat", "responses"):
        llm = OpenAiLlm(AGENT, {"model": "m", "base_url": url, "api": api}, SERVICES)
        await llm.start()
        session = llm.open(CALL)

        async def answer(session: Any = session) -> float:
            async with aclosing(session.reply(ASKED)) as events:
                return await first_of(events)

        await measure(f"`llm.openai`, {api}", answer, phrases)
        await llm.close()
    async with AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as sdk:

        async def sdks() -> float:
            at = 0.0
            messages: Any = [{"role": "user", "content": "hi"}]
            async for chunk in await sdk.chat.completions.create(model="m", stream=True, messages=messages):
                at = at or (time.monotonic() if chunk.choices and chunk.choices[0].delta.content else 0.0)
            return at

        await measure("the SDK's own stream, chat", sdks, phrases)

        async def sdks_responses() -> float:
            at = 0.0
            async for event in await sdk.responses.create(model="m", stream=True, input="hi"):
                at = at or (time.monotonic() if event.type == "response.output_text.delta" else 0.0)
            return at

        await measure("the SDK's own stream, responses", sdks_responses, phrases)

    async with httpx.AsyncClient(timeout=None) as client:

        async def bare() -> float:
            at = 0.0
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        delta = msgspec.json.decode(line[6:])["choices"][0]["delta"].get("content")
                        at = at or (time.monotonic() if delta else 0.0)
            return at

        await measure("`httpx` and `msgspec`, chat", bare, phrases)

        tts = OpenAiTts(AGENT, {"model": "m", "voice": "v", "base_url": url}, SERVICES)
        await tts.start()

        async def speech() -> float:
            async with aclosing(tts.speak(PHRASE, MULAW_8K)) as chunks:
                return await first_of(chunks)

        await measure("`tts.openai`: the SDK, resampled to mu-law", speech, phrases)
        await tts.close()

        async def bare_speech() -> float:
            at = 0.0
            async with client.stream("POST", f"{url}/audio/speech", json={"input": PHRASE}) as response:
                async for _ in response.aiter_bytes():
                    at = at or time.monotonic()
            return at

        await measure("`httpx`, its PCM left as it is", bare_speech, phrases)


async def run(voices: str, openai: str, phrases: int) -> None:
    print(f"a phrase of {len(spoken(PHRASE, MULAW_8K)[0]) / 8000:.1f} s, an answer of {TOKENS} tokens")
    print("| | CPU ms | first chunk p50 ms | p95 ms |\n|---|---|---|---|")
    await bench_elevenlabs(voices, phrases)
    await bench_openai(openai, phrases)
    bench_reading()


def main(phrases: int) -> None:
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        asyncio.run(run(*server.stdout.readline().split(), phrases))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--phrases", type=int, default=200)
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    else:
        main(given.phrases)
