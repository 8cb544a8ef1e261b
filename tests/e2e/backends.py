"""The show: one conversation with the clinic on each backend, over Twilio's protocol or SIP, recorded on both sides.

    greeting · a question · an interruption of its answer · a number that is keyed · a tool · goodbye

The services are the fakes of tests/fakes, whose voices are espeak-ng; the clinic has an appointment system of its own,
a small HTTP server that its tool asks. `scripts/show.py` keeps the recordings, `test_backends.py` judges them.
"""

import asyncio
import contextlib
import json
import struct
import wave
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes import elevenlabs_server
from tests.fakes.deepgram_server import AuraServer, DeepgramServer, Spoken
from tests.fakes.elevenlabs_server import ElevenLabsServer
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply, Tool
from tests.fakes.openai_server import SPEECH_HZ, Answer, Call, OpenAiServer, Speech
from trunkline.agents.examples import example
from trunkline.agents.local.voice import synthesize
from trunkline.media import g711
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Say,
    place_call,
)
from trunkline.types import MULAW_8K

KEY = "the-clinic-s-own-key"
GREETING = "Elm Street Clinic, how can I help you?"
HOURS = (
    "Our hours are eight to five on Monday, Tuesday and Thursday, eight to noon on Wednesday, "
    "and eight to three on Friday."
)
ASK = "Please key in the four digits of your appointment number, or say them one by one."
TIME = "Monday at nine"
NOTED = f"Your appointment is on {TIME}."
GOODBYE = "Thank you for calling Elm Street Clinic. Goodbye."
NEVER_SAID = "The helicopter lands on our roof every second Saturday in November."
QUESTION, INTERRUPTION, DIGITS, PARTING = (
    "what are your opening hours",
    "I want to confirm my appointment",
    "4711",
    "goodbye",
)
ACTIONS: tuple[Action, ...] = (
    Listen(),
    Say(QUESTION),
    ListenInto(2200),
    Say(INTERRUPTION),
    Listen(),
    Keys(DIGITS),
    Listen(),
    Say(PARTING),
    Listen(),
    HangUp(),
)
CALL_S = 90.0
FRAME = 160

# The products' published first-chunk latencies.
STT_S, LLM_S, TTS_S = 0.15, 0.35, 0.12

Start = Callable[..., Any]  # conftest.start_gateway


# --- the clinic and its appointment system --------------------------------------------------------------------------

TOOL = """
[tools.confirm]
type = "http"
method = "POST"
url = "{url}/confirm/{{appointment}}"
result = {{ time = "appointment.time" }}
"""
PATIENT = """
[turns]
filler_after_ms = 6000

[failover] # the machine may be busy: nobody is to be followed or filled here
first_word_ms = 6000
first_audio_ms = 5000
stall_ms = 5000
final_ms = 4000
"""
LOCAL = {"stt": 'provider = "pocketsphinx"', "llm": 'provider = "script"', "tts": 'provider = "espeak"'}


def clinic(folder: Path, appointments: str, ports: Mapping[str, str], more: str = "") -> Path:
    """The example's file with these in the places of its ports, a shorter greeting and the tool it proposes."""
    text = example("clinic").read_text(encoding="utf-8")
    greeting = text.partition('greeting = """')[2].partition('"""')[0]
    text = text.replace(f'greeting = """{greeting}"""', f'greeting = "{GREETING}"')
    for kind, table in ports.items():
        assert text.count(LOCAL[kind]) == 1
        text = text.replace(LOCAL[kind], table)
    noted = text.partition('ask = "appointment"\nreply = """')[2].partition('"""')[0]
    text = text.replace(f'reply = """{noted}"""', 'tool = "confirm"\nreply = "Your appointment is on {time}."')
    assert GREETING in text
    assert 'tool = "confirm"' in text
    file = folder / "clinic.toml"
    file.write_text(text + TOOL.format(url=appointments) + PATIENT + more, encoding="utf-8")
    return file


class Appointments:
    """The clinic's own system. `asked`: the paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split()[1].decode())
            body = json.dumps({"appointment": {"time": TIME}}).encode()
            length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}".encode() + body)
            await writer.drain()
        writer.close()


# --- the services ---------------------------------------------------------------------------------------------------


@cache
def spoken(text: str, rate_hz: int = 8000) -> bytes:
    """16-bit PCM, made once: espeak-ng says nothing twice in the same way, and making it would hold the loop."""
    return synthesize(text, rate_hz=rate_hz)


@cache
def spoken_mulaw(text: str) -> bytes:
    return g711.encode(spoken(text), "mulaw")


class Clerk(OpenAiServer):
    """OpenAI's server, which answers what was said last: over Chat Completions and Responses; speech in 24 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self.first_audio_s = TTS_S

    def _answer(self, request: Any) -> Any:
        if request.path == "/v1/audio/speech":
            pcm = spoken(request.body["input"], SPEECH_HZ)
            return Speech(*(pcm[at : at + 4800] for at in range(0, len(pcm), 4800)), delay_s=TTS_S)
        last = (request.body.get("messages") or request.body.get("input"))[-1]
        if last.get("role") == "tool" or last.get("type") == "function_call_output":
            said = json.loads(last.get("content") or last["output"])
            return Answer(*_words(f"Your appointment is on {said['result']['time']}."), delay_s=LLM_S, between_s=0.02)
        text = str(last["content"]).lower()
        if DIGITS in text:
            return Answer(Call("confirm", json.dumps({"appointment": DIGITS})), finish="tool_calls", delay_s=LLM_S)
        if "appointment" in text:
            ask = Call("expect_digits", '{"name": "appointment"}')
            return Answer(*_words(ASK), ask, finish="tool_calls", delay_s=LLM_S, between_s=0.02)
        if "goodbye" in text:
            return Answer(*_words(GOODBYE), Call("hang_up", "{}"), finish="tool_calls", delay_s=LLM_S, between_s=0.02)
        return Answer(*_words(HOURS), delay_s=LLM_S, between_s=0.02)


def _words(text: str) -> list[str]:
    return [f"{word} " for word in text.split()]


LINES = ("What are your opening hours?", "I want to confirm my appointment.", "Goodbye.")


@dataclass
class Service:
    """What a backend needs running, and what it told us."""

    ports: dict[str, str] = field(default_factory=dict)
    more: str = ""


@dataclass(frozen=True)
class Models:
    """What a `trunkline serve-models` of the clinic needs; `start` gives the target of one that is ready."""

    start: Callable[[Path], str]
    folder: Path
    appointments: str


Backend = Callable[[contextlib.AsyncExitStack, Models], Awaitable[Service]]


async def embedded(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    return Service()


async def nova_chat_elevenlabs(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    ears = await stack.enter_async_context(DeepgramServer(*LINES))
    mind = await stack.enter_async_context(Clerk())
    for text in (GREETING, HOURS, ASK, NOTED, *GOODBYE.split(". ")):
        elevenlabs_server.spoken(text, MULAW_8K)
    voice = await stack.enter_async_context(ElevenLabsServer(KEY, first_s=TTS_S))
    return Service(
        {
            "stt": f'provider = "deepgram"\nurl = "{ears.url}"\nmodel = "nova-3"',
            "llm": f'provider = "openai"\nbase_url = "{mind.base_url}"\nmodel = "fake"',
            "tts": f'provider = "elevenlabs"\nvoice = "alice"\nbase_url = "{voice.base_url}"',
        }
    )


async def flux_responses_aura(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    ears = await stack.enter_async_context(DeepgramServer(*LINES))
    mind = await stack.enter_async_context(Clerk())
    voice = await stack.enter_async_context(AuraServer(always=Spoken(delay_s=TTS_S), voice=spoken_mulaw))
    return Service(
        {
            "stt": f'provider = "deepgram"\nurl = "{ears.url}"\nmodel = "flux-general-en"',
            "llm": f'provider = "openai"\nbase_url = "{mind.base_url}"\nmodel = "fake"\napi = "responses"',
            "tts": f'provider = "deepgram"\nurl = "{voice.url}"',
        }
    )


async def openai_speech(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    """Local ears, a cloud's mind and voice."""
    mind = await stack.enter_async_context(Clerk())
    return Service(
        {
            "llm": f'provider = "openai"\nbase_url = "{mind.base_url}"\nmodel = "fake"',
            "tts": f'provider = "openai"\nbase_url = "{mind.base_url}"\nmodel = "tts"\nvoice = "alloy"',
        }
    )


async def remote(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    (folder := models.folder / "served").mkdir()
    target = await asyncio.to_thread(models.start, clinic(folder, models.appointments, {}))
    table = f'provider = "remote"\ntargets = ["{target}"]'
    return Service({"stt": table, "llm": table, "tts": table})


async def realtime_ours(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    return await _realtime(stack, "ours")


async def realtime_server(stack: contextlib.AsyncExitStack, models: Models) -> Service:
    return await _realtime(stack, "server")


async def _realtime(stack: contextlib.AsyncExitStack, turns: str) -> Service:
    server = await stack.enter_async_context(OpenAiRealtimeServer(key=KEY))
    server.transcript_s = STT_S
    server.transcripts += LINES
    server.line = Reply(audio=spoken_mulaw(GREETING))
    first_s = 0.3
    server.replies += [
        Reply(HOURS, spoken_mulaw(HOURS), first_s=first_s, between_s=0.05),
        Reply(ASK, spoken_mulaw(ASK), (Tool("expect_digits", '{"name": "appointment"}'),), first_s=first_s),
        Reply(),
        Reply(tools=(Tool("confirm", json.dumps({"appointment": DIGITS}), "call_confirm"),), first_s=first_s),
        Reply(NOTED, spoken_mulaw(NOTED), first_s=first_s),
        Reply(GOODBYE, spoken_mulaw(GOODBYE), (Tool("hang_up", call_id="call_end"),), first_s=first_s),
    ]
    table = f'\n[realtime]\nprovider = "openai"\nbase_url = "{server.base_url}"\nmodel = "fake"\nturns = "{turns}"\n'
    return Service(more=table)


BACKENDS: dict[str, Backend] = {
    "embedded": embedded,
    "nova+chat+elevenlabs": nova_chat_elevenlabs,
    "flux+responses+aura": flux_responses_aura,
    "openai-speech": openai_speech,
    "realtime-ours": realtime_ours,
    "realtime-server": realtime_server,
    "remote": remote,
}


# --- the call -------------------------------------------------------------------------------------------------------


@dataclass
class Shown:
    """One call, and both recordings of it (16-bit PCM at 8 kHz): caller's side, agent's side."""

    backend: str
    report: CallReport
    gateway: Any
    asked: Sequence[str]
    callers: tuple[NDArray[np.int16], NDArray[np.int16]]
    gateways: tuple[NDArray[np.int16], NDArray[np.int16]]

    @property
    def record(self) -> Mapping[str, Any]:
        assert self.report.record is not None, self.report
        return self.report.record


async def show(
    backend: str, start_gateway: Start, serve_models: Callable[[Path], str], folder: Path, sip_port: int | None = None
) -> Shown:
    """`sip_port`: over SIP; None: over Twilio's protocol. The recordings stay in `folder`."""
    async with contextlib.AsyncExitStack() as stack:
        appointments = Appointments()
        url = await stack.enter_async_context(appointments)
        service = await BACKENDS[backend](stack, Models(serve_models, folder, url))
        agent = clinic(folder, url, service.ports, service.more)
        keys = {f"{name}__api_key": KEY for name in ("openai", "deepgram", "elevenlabs")}
        sip = {} if sip_port is None else {"sip__enabled": "true", "sip__port": str(sip_port)}
        gateway = await asyncio.to_thread(
            start_gateway, agent, record="true", tools__allow_private_addresses="true", **keys, **sip
        )
        target = gateway.origin if sip_port is None else f"sip:+15005550001@127.0.0.1:{sip_port}"
        out = folder / "caller.wav"
        async with asyncio.timeout(CALL_S):
            report = await place_call(CallOptions(target, ACTIONS, api_url=gateway.origin, out=out, noise_dbfs=-60.0))
    assert report.record is not None, gateway.log
    print(*report.record["turns"], *report.record["events"], sep="\n")
    assert KEY not in gateway.log
    ours = gateway.data_dir / "recordings" / f"{report.record['id']}.wav"
    async with asyncio.timeout(10):
        size = -1
        while size != (size := ours.stat().st_size if ours.exists() else -2):  # its last seconds come after the call
            await asyncio.sleep(1.0)
    return Shown(backend, report, gateway, appointments.asked, _pcm(out), _mulaw(ours))


def _pcm(path: Path) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


def _mulaw(path: Path) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Of the recorder, in the lane's own encoding, which the `wave` module does not read."""
    data = path.read_bytes()
    at = 12
    while data[at : at + 4] != b"data":
        at += 8 + struct.unpack("<I", data[at + 4 : at + 8])[0]
    pcm = np.frombuffer(g711.decode(data[at + 8 : len(data) // 2 * 2], "mulaw"), dtype="<i2")
    both = pcm[: len(pcm) // 2 * 2].reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


# --- what is on a recording -----------------------------------------------------------------------------------------


def envelope(pcm: NDArray[np.int16] | bytes) -> NDArray[np.float64]:
    """Loudness of each 20 ms, in steps a hearer would notice."""
    samples = np.frombuffer(pcm, "<i2") if isinstance(pcm, bytes) else pcm
    frames = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    loudness: NDArray[np.float64] = np.log1p(np.sqrt((frames**2).mean(axis=1)) / 50.0)
    return loudness


PIECE = 50  # frames: a gap of a busy machine spoils one piece, not the sentence
SHIFTS = (0, 40, 80, 120)  # samples: a recording's frames are not the voice's


def likeness(text: str, played: NDArray[np.int16]) -> float:
    """How surely this sentence is somewhere in the sound: the correlation of loudness at the best places of its pieces,
    1 at most."""
    wanted = envelope(spoken(text))
    loud = np.flatnonzero(wanted > 1.0)
    wanted = wanted[loud[0] : loud[-1] + 1]
    pieces = np.array_split(wanted, max(1, round(len(wanted) / PIECE)))
    found = [envelope(played[shift:]) for shift in SHIFTS]
    return float(np.mean([max(_likeness(piece, where) for where in found) for piece in pieces]))


def _likeness(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    if len(found) < len(wanted):
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(found, len(wanted))
    wanted = wanted - wanted.mean()
    spread = windows.std(axis=1) * wanted.std() * len(wanted)
    return float(((windows * wanted).sum(axis=1) / np.maximum(spread, 1e-9)).max())


def table(shown: Sequence[Shown]) -> str:
    """What was heard, as markdown."""
    lines = [
        "| backend | leg | caller, as understood | heard of the answer | ms | exact |",
        "|---|---|---|---|---|---|",
    ]
    for each in shown:
        for turn in each.record["turns"]:
            cut = " (interrupted)" if turn["interrupted"] else ""
            ms = "" if turn["total_ms"] is None else f"{turn['total_ms']:.0f}"
            exact = "yes" if turn["heard_exact"] else "estimate"
            row = (each.backend, each.record["leg"], turn["caller_text"], turn["agent_text"] + cut, ms, exact)
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"
