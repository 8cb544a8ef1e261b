"""`trunkline drill`: each provider of an agent fails in turn on a live test call, and what the caller heard is told.

The gateway runs in this process, on a free port of this machine, with the agent's own providers behind wrappers
(faults.py); the call is Twilio's protocol in real time. A fault begins when the caller begins to speak, and lasts.
When a provider that follows others is drilled, those before it are dead.
"""

import asyncio
import contextlib
import json
import tempfile
import wave
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import KINDS, Minds
from trunkline.app import Gateway, serve
from trunkline.errors import ConfigError
from trunkline.settings import Http, Settings, Sip, Twilio
from trunkline.testing.caller.commands import CallOptions, HangUp, Listen, Say, place_call
from trunkline.testing.caller.line import Event
from trunkline.testing.caller.report import CallReport
from trunkline.testing.drilled import Heard, asked_for, compare, heard, without
from trunkline.testing.faults import FAULTS, Fault, Faults, Utterance
from trunkline.testing.ports import lease

QUESTION = "can you tell me about your opening hours please"
QUIET_MS = 2600  # more than any silence that is allowed in an answer
START_S = 60.0
RECORDING_S = 20.0
CALL_S = 90.0


@dataclass(frozen=True, slots=True)
class Drill:
    provider: str
    """Its key: `llm.openai`."""
    fault: Fault | None
    """None: a call without any, to compare with."""
    dead_air_ms: int
    """The longest silence from the end-of-turn decision to the agent's last word."""
    lost_words: int
    repeated_words: int
    ended: str
    """The record's end_reason."""
    following: str | None = None
    """Who was left; None: nobody."""
    first_word_ms: int = 0
    """From the end-of-turn decision to the first sound, a filler too."""
    heard: str = ""
    switches: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class DrillOptions:
    say: str = ""
    """What the caller asks; empty: the agent's first phrase, or QUESTION."""
    only: tuple[str, ...] = ()
    """Kinds or keys; empty: all."""
    faults: tuple[Fault, ...] = FAULTS


class _Drilling:
    def __init__(self, running: Gateway, faults: Faults, port: int, folder: Path, say: str) -> None:
        self.gateway = running
        self.minds: Minds = running.minds
        self.agent: AgentDefinition = running.agent
        self.faults, self.folder, self.say = faults, folder, say
        self.origin = f"http://127.0.0.1:{port}"
        self.rehearsed: list[str] | None = None
        """The words of the answer, where it is the same every time."""
        self._calls = 0

    @property
    def lines(self) -> Collection[str]:
        agent = self.agent
        return {*agent.filler, *agent.no_input, agent.greeting, agent.goodbye}

    async def rehearse(self) -> Drill:
        first, spoken = await self._call({})
        again, _ = await self._call({})
        if first.words == again.words:
            self.rehearsed = list(first.words)
        return self._drill("", None, None, first, asked_for(spoken), self._last)

    async def drill(self, kind: Any, key: str, fault: Fault) -> Drill:
        if kind == "realtime":
            return await self._drill_realtime(key, fault)
        keys = list(self.minds.named(kind))
        at = keys.index(key)
        following = keys[at + 1] if at + 1 < len(keys) else None
        took, spoken = await self._call({**dict.fromkeys(keys[:at], "refused"), key: fault})
        reference = asked_for(spoken)
        goes_on = kind != "llm" or all(getattr(each, "continues", True) for each in self.minds.named("llm").values())
        if self.rehearsed is not None and following is not None and goes_on:
            reference = self.rehearsed
        return self._drill(key, fault, following, took, reference, self._last)

    async def _drill_realtime(self, key: str, fault: Fault) -> Drill:
        """A session that breaks in the middle is followed by another; a model that is dead by the agent's cascade."""
        took, spoken = await self._call({key: fault})
        terms = self.agent.realtime
        if fault in ("broken_middle", "stalled_middle"):
            return self._drill(key, fault, key, took, self.rehearsed or asked_for(spoken), self._last)
        following = "cascade" if terms is not None and terms.fallback else None
        return self._drill(key, fault, following, took, asked_for(spoken), self._last)

    def _drill(
        self,
        key: str,
        fault: Fault | None,
        following: str | None,
        took: Heard,
        reference: Sequence[str],
        report: CallReport,
    ) -> Drill:
        record = report.record or {}
        lost, repeated = compare(reference, took.words)
        events = record.get("events", ())
        switches = [event["data"] for event in events if event["kind"] == "provider_switched"]
        left = [
            f"{key}: {event['data']['code']}" for event in events if event["kind"] in ("session_lost", "model_lost")
        ]
        return Drill(
            key,
            fault,
            took.silence_ms,
            lost,
            repeated,
            str(record.get("end_reason") or report.end),
            following,
            took.first_ms,
            " ".join(took.words),
            (*(f"{each['provider']} > {each['following']}: {each['code']}" for each in switches), *dict.fromkeys(left)),
        )

    async def _call(self, armed: dict[str, Fault]) -> tuple[Heard, list[Utterance]]:
        """One call; the faults begin when the caller does."""
        for breaker in self.minds.health.breakers.values():
            breaker.mended()
        self.faults.armed.clear()
        self._calls += 1
        out = self.folder / f"{self._calls}.wav"
        begun = False

        def on_event(event: Event, started_at: float) -> None:
            nonlocal begun
            if event.kind == "caller" and not begun:
                begun = True
                fillers = self.agent.filler  # recorded at start, and heard without being spoken again
                self.faults.spoken[:] = [each for each in self.faults.spoken if each.text in fillers]
                self.faults.armed.update(armed)

        options = CallOptions(
            self.origin,
            [Listen(), Say(self.say), Listen(quiet_ms=QUIET_MS), HangUp()],
            out=out,
            api_url="auto",
            max_duration_s=CALL_S,
        )
        try:
            report = await place_call(options, on_event=on_event)
        finally:
            self.faults.armed.clear()
        self._last = report
        caller, played = await asyncio.to_thread(_sides, out)
        spoken = list(self.faults.spoken)
        turns = (report.record or {}).get("turns") or [{}]
        endpointing_ms = next((turn["endpointing_ms"] for turn in turns if turn.get("endpointing_ms")), 0.0)
        return heard(caller, played, spoken, endpointing_ms, self.lines), without(spoken, self.lines)

    _last: CallReport


def _sides(path: Path) -> tuple[bytes, bytes]:
    if not path.exists():
        return b"", b""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
    return samples[:, 0].tobytes(), samples[:, 1].tobytes()


async def drill(
    settings: Settings, options: DrillOptions, tell: Callable[[Drill], None] = lambda drill: None
) -> list[Drill]:
    """The rehearsal first. Raises ConfigError where the agent cannot be started or `only` names nobody."""
    done: list[Drill] = []
    with tempfile.TemporaryDirectory(prefix="trunkline-drill-") as folder:
        async with _gateway(settings, Path(folder), options.say) as drilling:
            named: list[tuple[str, str]] = [(kind, key) for kind in KINDS for key in drilling.minds.named(kind)]
            if drilling.agent.realtime is not None:  # the cascade is not asked while it lives
                named = [("realtime", f"realtime.{drilling.agent.realtime.model.provider}")]
            chosen = [each for each in named if not options.only or {*each} & {*options.only}]
            if not chosen:
                raise ConfigError("--only", ", ".join(options.only), ", ".join(key for _, key in named))
            done.append(await drilling.rehearse())
            tell(done[-1])
            for kind, key in chosen:
                for fault in options.faults:
                    done.append(await drilling.drill(kind, key, fault))
                    tell(done[-1])
    return done


@contextlib.asynccontextmanager
async def _gateway(settings: Settings, folder: Path, say: str) -> AsyncGenerator[_Drilling]:
    port, faults = lease(), Faults()
    ours = settings.model_copy(
        update={
            "http": Http(host="127.0.0.1", port=port),
            "sip": Sip(enabled=False),
            "twilio": Twilio(),
            "data_dir": folder / "data",
            "database_url": None,
        }
    )
    begun = list[Gateway]()
    serving = asyncio.create_task(serve(ours, begun.append, faults.wrap), name="gateway")
    try:
        async with asyncio.timeout(START_S):
            while not begun:
                if serving.done():
                    await serving  # raises
                await asyncio.sleep(0.05)
            await _answers(port)
        running = begun[0]
        await asyncio.wait([running.recording], timeout=RECORDING_S)  # of lines that no drill is to take for its own
        yield _Drilling(running, faults, port, folder, say or _first_phrase(running.agent) or QUESTION)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _answers(port: int) -> None:
    """The HTTP server begins a moment after the gateway is ready."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await asyncio.sleep(0.2)
            return


def _first_phrase(agent: AgentDefinition) -> str:
    """As it is written, where it has no brackets."""
    for intent in agent.script.get("intents", ()):
        for phrase in intent.get("phrases", ()):
            if not set(phrase) & set("[](){}|"):
                return str(phrase)
    return ""


def to_json(drills: Sequence[Drill]) -> str:
    return json.dumps({"drills": [asdict(drill) for drill in drills if drill.fault is not None]}, indent=2)


def render(drills: Sequence[Drill], console: Console) -> None:
    table = Table(show_edge=False)
    for name in ("provider", "fault", "followed by"):
        table.add_column(name)
    for name in ("dead air ms", "lost words", "repeated words"):
        table.add_column(name, justify="right")
    table.add_column("ended")
    for each in drills:
        bad = each.dead_air_ms > 2000 or (each.following is not None and each.lost_words + each.repeated_words)
        table.add_row(
            each.provider or "(none)",
            (each.fault or "-").replace("_", " "),
            each.following or "-",
            str(each.dead_air_ms),
            str(each.lost_words),
            str(each.repeated_words),
            each.ended,
            style="red" if bad else None,
        )
    console.print(table)


def well(drills: Sequence[Drill]) -> bool:
    """No silence over two seconds, no word lost or repeated, wherever somebody was left."""
    return all(
        drill.dead_air_ms <= 2000 and not drill.lost_words and not drill.repeated_words
        for drill in drills
        if drill.following is not None
    )
