"""Deepgram, OpenAI and ElevenLabs, two of each, and all that may befall the first of a kind on the wire.

The real providers talk to the servers of tests/fakes through a relay that can be cut. A fault begins when the caller
begins to speak, and lasts; what the caller heard is told from the sound, as `trunkline drill` does.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import SecretStr

from tests.fakes import elevenlabs_server
from tests.fakes.deepgram_server import Break, DeepgramServer, Garbage, Refuse, Silent
from tests.fakes.elevenlabs_server import ElevenLabsServer, Refusal, Take
from tests.fakes.openai_server import Answer, Drop, OpenAiServer, Raw, Wait
from tests.fakes.openai_server import Refusal as Refused
from trunkline.agents.providers import Minds
from trunkline.agents.seam import GO_ON
from trunkline.app import Gateway
from trunkline.ports import Word
from trunkline.settings import ProviderKey, Settings
from trunkline.testing import drill
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Listen, Say, place_call
from trunkline.testing.caller.line import Event
from trunkline.testing.drilled import asked_for, compare, heard, without
from trunkline.testing.faults import Utterance
from trunkline.testing.ports import lease
from trunkline.types import MULAW_8K

Kind = Literal["stt", "llm", "tts"]
WireFault = Literal["killed", "stalled_first", "stalled_middle", "429", "500", "disconnected", "garbage"]
WIRE_FAULTS: tuple[WireFault, ...] = get_args(WireFault)

KEY = "a-key-of-the-cloud"
GREETING = "Good morning, this is the bakery."
QUESTION = "when do you open on Saturday morning please"
FIRST = "We open at seven on Saturday, and the bread is warm by then."
SECOND = "On Sunday we sleep until nine, but the cake from yesterday is still very good."
ANSWER = f"{FIRST} {SECOND}"
MIDDLE_WORDS = 17  # of the model: in the second sentence
STT_S, LLM_S, TTS_S = 0.15, 0.35, 0.12
LIFEBOAT_INTENT = f"""
[[intents]]
name = "opening"
phrases = ["{QUESTION.lower()}"]
reply = "We open at seven."
"""


class Wire:
    """A relay on a port of its own, that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self.port, self._to = lease(), port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Nobody listens any more, and every connection is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def drop(self) -> None:
        """Every connection is gone."""
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self._to)
        ends = {writer, here}
        self._ends |= ends
        try:
            await asyncio.gather(self._pass(reader, here), self._pass(there, writer))
        finally:
            self._ends -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


class Teller(OpenAiServer):
    """Answers with ANSWER, or with what follows what was said of it."""

    fault: WireFault | None = None

    def _answer(self, request: Any) -> Any:
        messages = request.body["messages"]
        begun = len(messages[-2]["content"].split()) if messages[-1]["content"] == GO_ON else 0
        words = [f"{word} " for word in ANSWER.split()[begun:]]
        middle = words[:MIDDLE_WORDS]
        match self.fault:
            case "stalled_first":
                return Answer(Wait())
            case "stalled_middle":
                return Answer(*middle, Wait(), delay_s=LLM_S)
            case "429":
                return Refused(429, code="rate_limit_exceeded", headers={"retry-after": "20"})
            case "500":
                return Refused(500)
            case "disconnected":
                return Answer(*middle, Drop(), delay_s=LLM_S)
            case "garbage":
                return Answer(Raw(b"data: {garbage\n\n"))
        return Answer(*words, delay_s=LLM_S, between_s=0.02)


@dataclass(frozen=True)
class Heard:
    """One call."""

    kind: Kind | None
    fault: WireFault | None
    both: bool
    """The second of the kind, too: the lifeboat is all there is."""
    dead_air_ms: int
    lost_words: int
    repeated_words: int
    ended: str
    answer: str
    """By the record."""
    switches: tuple[str, ...]


class Cloud:
    def __init__(self) -> None:
        self.ears = [DeepgramServer(QUESTION), DeepgramServer(QUESTION)]
        self.minds = [Teller(), Teller()]
        self.voices = [ElevenLabsServer(KEY, first_s=TTS_S), ElevenLabsServer(KEY, first_s=TTS_S)]
        self.wires: dict[Kind, list[Wire]] = {}
        self.folder = Path()
        self.origin = ""
        self.gateway: Gateway
        self._calls = 0

    # --- faults ---

    def arm(self, kind: Kind, at: int, fault: WireFault) -> None:
        wire = self.wires[kind][at]
        if fault == "killed":
            wire.cut()
        elif kind == "llm":
            self.minds[at].fault = fault
        elif kind == "stt":
            self._arm_ears(self.ears[at], wire, fault)
        else:
            self._arm_voice(self.voices[at], wire, fault)

    def _arm_ears(self, ears: DeepgramServer, wire: Wire, fault: WireFault) -> None:
        if fault in ("429", "500"):  # of a connection anew
            ears.always = Refuse(int(fault), {"retry-after": "20"} if fault == "429" else {})
            wire.drop()
            return
        ears.always = Garbage() if fault == "garbage" else Break(600) if fault == "disconnected" else Silent()
        for session in ears.sessions:
            if fault == "disconnected":
                session.fault = Break(session.now_ms + 600)
            elif fault == "stalled_middle":
                asyncio.get_running_loop().call_later(0.6, setattr, session, "fault", Silent())
            else:
                session.fault = ears.always

    def _arm_voice(self, voice: ElevenLabsServer, wire: Wire, fault: WireFault) -> None:
        if fault in ("429", "500"):
            headers = {"retry-after": "20"} if fault == "429" else {}
            voice.refusals.extend([Refusal(int(fault), {"detail": {"status": "busy"}}, headers)] * 50)
            wire.drop()
            return
        takes = {
            "stalled_first": Take(fault="silent"),
            "stalled_middle": Take(TTS_S, fault="stall", after=3),
            "disconnected": Take(TTS_S, fault="drop", after=3),
            "garbage": Take(fault="garbage", after=0),
        }
        voice.takes.extend([takes[fault]] * 50)

    async def mend(self) -> None:
        """All is well again."""
        for wires in self.wires.values():
            for wire in wires:
                await wire.mend()
        for mind in self.minds:
            mind.fault = None
        for ears in self.ears:
            ears.always = None
            ears.sessions.clear()
        for voice in self.voices:
            voice.takes.clear()
            voice.refusals.clear()
            voice.phrases.clear()
        minds: Minds = self.gateway.minds
        for breaker in minds.health.breakers.values():
            breaker.mended()

    # --- a call ---

    async def call(self, kind: Kind | None = None, fault: WireFault | None = None, *, both: bool = False) -> Heard:
        await self.mend()
        self._calls += 1
        out = self.folder / f"{self._calls}.wav"
        begun = False

        def on_event(event: Event, started_at: float) -> None:
            nonlocal begun
            if event.kind == "caller" and not begun:
                begun = True
                for voice in self.voices:
                    voice.phrases.clear()
                if kind is not None and fault is not None:
                    for at in range(1 + both):
                        self.arm(kind, at, fault)

        actions: list[Action] = [Listen(), Say(QUESTION), Listen(quiet_ms=drill.QUIET_MS), HangUp()]
        options = CallOptions(self.origin, actions, out=out, api_url="auto", max_duration_s=60)
        report = await place_call(options, on_event=on_event)
        record = report.record or {}
        caller, played = await asyncio.to_thread(drill._sides, out)
        lines = {*self.gateway.agent.filler, self.gateway.agent.apology, GREETING}
        spoken = [_utterance(phrase) for voice in self.voices for phrase in voice.phrases if phrase.audio]
        turns = record.get("turns", ())
        waited_ms = next((turn["endpointing_ms"] for turn in turns if turn["endpointing_ms"]), 0.0)
        took = heard(caller, played, spoken, waited_ms, lines)
        reference = ANSWER.split() if not both else asked_for(without(spoken, lines))
        lost, repeated = compare(reference, took.words)
        switched = [event["data"] for event in record.get("events", ()) if event["kind"] == "provider_switched"]
        return Heard(
            kind,
            fault,
            both,
            took.silence_ms,
            lost,
            repeated,
            str(record.get("end_reason") or report.end),
            " / ".join(turn["agent_text"] for turn in turns[1:]),
            tuple(f"{each['provider']} > {each['following']}: {each['code']}" for each in switched),
        )


def _utterance(phrase: Any) -> Utterance:
    words = [Word(word, int(start), int(end)) for word, start, end in phrase.words]
    return Utterance("elevenlabs", phrase.text, MULAW_8K, True, bytearray(phrase.audio), words, whole=True)


@contextlib.asynccontextmanager
async def cloud() -> AsyncGenerator[Cloud]:
    """Servers, relays and a gateway in this process: what is measured is theirs together."""
    made = Cloud()
    for text in (GREETING, FIRST, SECOND):
        elevenlabs_server.spoken(text, MULAW_8K)  # made now: it would hold the loop
    async with contextlib.AsyncExitStack() as stack:
        made.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cloud-")))
        servers: list[Any] = [*made.ears, *made.minds, *made.voices]
        for server in servers:
            await stack.enter_async_context(server)
        urls: dict[Kind, list[str]] = {
            "stt": [each.url for each in made.ears],
            "llm": [each.base_url for each in made.minds],
            "tts": [each.base_url for each in made.voices],
        }
        through: dict[Kind, list[str]] = {}
        for kind, given in urls.items():
            made.wires[kind] = [Wire(int(url.rpartition(":")[2].partition("/")[0])) for url in given]
            for wire in made.wires[kind]:
                await wire.mend()
                stack.callback(wire.cut)
            through[kind] = [
                url.replace(f":{wire._to}", f":{wire.port}") for url, wire in zip(given, made.wires[kind], strict=True)
            ]
        agent = made.folder / "agent.toml"
        agent.write_text(agent_file(through), encoding="utf-8")
        keys = {name: ProviderKey(api_key=SecretStr(KEY)) for name in ("openai", "deepgram", "elevenlabs")}
        settings = Settings(agent=agent, **keys)  # type: ignore[arg-type]
        drilling = await stack.enter_async_context(drill._gateway(settings, made.folder, QUESTION))
        made.origin, made.gateway = drilling.origin, drilling.gateway
        yield made


def agent_file(urls: dict[Kind, list[str]]) -> str:
    tables = [f'name = "Bakery"\ngreeting = "{GREETING}"\n']
    tables += [f'[[stt]]\nprovider = "deepgram"\nurl = "{url}"\n' for url in urls["stt"]]
    tables += [f'[[llm]]\nprovider = "openai"\nbase_url = "{url}"\nmodel = "fake"\n' for url in urls["llm"]]
    tables += [f'[[tts]]\nprovider = "elevenlabs"\nvoice = "alice"\nbase_url = "{url}"\n' for url in urls["tts"]]
    return "\n".join([*tables, LIFEBOAT_INTENT])
