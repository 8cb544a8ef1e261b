"""What interrupts the agent and what does not: real calls with noises, echoes and real words over long answers.

What was heard is compared frame by frame with what the voice says: the far end plays whole 20 ms frames and an answer
is resumed at one, so every frame heard is a frame of the answer, and its place in the answer is known exactly.
"""

import asyncio
import random
import statistics
import wave
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Speak,
    place_call,
)
from trunkline.testing.caller.speech import synthesize, to_speech
from trunkline.testing.noises import KINDS
from trunkline.types import FRAME_MS

pytestmark = [pytest.mark.e2e, pytest.mark.alone]  # a starved recogniser is late, and late is another test

Start = Callable[..., Any]  # conftest.start_gateway

AGENTS = Path(__file__).parent / "agents"
LONGEST_WORD_FRAMES = {"storyteller": 10, "reader": 40}
UNSURE_FRAMES = 5
QUIET = 8  # of 32,768: the codes next to zero
ASK, INTERRUPT = "how do I get there", "when are you open"
IT_IS_OVER = Listen(quiet_ms=1500, timeout_s=4.0)  # also where a noise that stopped nobody awaits no answer


async def said(text: str, voice: str = "en-us") -> Speak:
    return Speak(to_speech(text, await synthesize(text, voice)))


def made(kind: str, seed: int) -> Speak:
    return Speak(to_speech(f"({kind} {seed})", np.concatenate([KINDS[kind](seed), np.zeros(400, np.float32)])))


async def calls(
    origin: str, folder: Path, plans: Sequence[tuple[Sequence[Action], Mapping[str, Any]]]
) -> list["Heard"]:
    """All at once, each with its record and its recording."""

    async def one(at: int, actions: Sequence[Action], options: Mapping[str, Any]) -> "Heard":
        await asyncio.sleep(at * 0.4)
        out = folder / f"call{at}.wav"
        report = await place_call(
            CallOptions(origin, actions, out=out, api_url="auto", seed=at, max_duration_s=100, **options)
        )
        return Heard(report, _frames(out))

    async with asyncio.timeout(110):
        return list(await asyncio.gather(*(one(at, *plan) for at, plan in enumerate(plans))))


def _frames(path: Path) -> list[bytes]:
    """The agent's side of a recording, in 20 ms of 16-bit PCM."""
    with wave.open(str(path)) as wav:
        both = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").reshape(-1, 2)
    right = np.ascontiguousarray(both[:, 1])
    return [right[i : i + 160].tobytes() for i in range(0, len(right) - 159, 160)]


def audible(frame: bytes) -> bool:
    return int(np.abs(np.frombuffer(frame, dtype="<i2").astype(np.int32)).max()) > QUIET


@dataclass
class Heard:
    report: CallReport
    frames: list[bytes]

    @property
    def turns(self) -> list[Mapping[str, Any]]:
        assert self.report.record is not None, self.report
        turns: list[Mapping[str, Any]] = self.report.record["turns"]
        return turns

    def told(self) -> str:
        """For a failure: what the record says, and how late the rig was."""
        turns = [(t["caller_text"], t["understood"], t["interrupted"], t["agent_text"][:20]) for t in self.turns]
        said = [(t.said, round(t.at_ms or 0), t.barge_in_ms) for t in self.report.turns]
        late, gaps = self.report.rig_late_max_ms, self.report.gap_ms
        return f"{self.report.end}, rig late {late:.0f} ms, gaps {gaps} ms\n{turns}\n{said}"

    @property
    def pauses(self) -> int:
        return int(self.report.counts["clears_in"])

    @property
    def cuts(self) -> int:
        return sum(bool(turn["interrupted"]) for turn in self.turns)


@dataclass
class Laid:
    """What was heard, laid beside the undisturbed answer. In frames."""

    lost: int = 0
    foreign: int = 0
    """Within the answer, and no part of it."""
    again: list[int] = field(default_factory=list)
    """How much was said twice, at each place where the voice went back."""


def lay(heard: Sequence[bytes], answer: Sequence[bytes]) -> Laid:
    places: dict[bytes, list[int]] = defaultdict(list)
    for at, frame in enumerate(answer):
        places[frame].append(at)
    laid, seen, at = Laid(), set[int](), -1
    for frame in filter(audible, heard):
        found = places.get(frame)
        if not found:
            laid.foreign += bool(seen)
            continue
        place = at + 1 if at + 1 in found else min(found, key=lambda p: abs(p - at))
        if place <= at:
            laid.again.append(at - place + 1)
        seen.add(place)
        at = place
    laid.lost = len(answer) - len(seen)
    return laid


NOISES = ("cough", "mm-hm", "throat", "burst", "cough", "mm-hm", "door", "burst", "keyboard", "cough", "mm-hm", "burst")


async def story() -> list[Action]:
    """The caller has spoken (so the ears know the voice), and then keyed what leads to the long answer."""
    return [Listen(), await said(INTERRUPT), ListenInto(600), Keys("1")]


async def disturbed(seed: int, noises: int) -> list[Action]:
    """A long answer, and noises while it is given."""
    rng = random.Random(seed)
    actions: list[Action] = [*await story(), ListenInto(800)]
    for i in range(noises):
        kind = NOISES[(i + 5 * seed) % len(NOISES)]
        actions += [made(kind, 100 * seed + i), Pause(rng.randrange(1000, 1900, 20))]
    return [*actions, IT_IS_OVER, HangUp()]


@pytest.mark.parametrize("agent", ["storyteller", "reader"])
def test_noises_over_an_answer_do_not_end_it(agent: str, start_gateway: Start, tmp_path: Path) -> None:
    """Fifty-four noises over each voice, and the echo of whole calls: near and loud, far and late."""
    gateway = start_gateway(AGENTS / f"{agent}.toml")

    async def run() -> list[Heard]:
        asked = [*await story(), IT_IS_OVER, HangUp()]
        return await calls(
            gateway.origin,
            tmp_path,
            [
                ([Listen(), Keys("1"), IT_IS_OVER, HangUp()], {}),
                *[(await disturbed(seed, 10), {"noise_dbfs": -60.0}) for seed in range(5)],
                (await disturbed(5, 4), {"echo_db": -15.0, "echo_delay_ms": 180}),
                (asked, {"echo_db": -10.0, "echo_delay_ms": 60, "noise_dbfs": -60.0}),
                (asked, {"echo_db": -20.0, "echo_delay_ms": 400, "noise_dbfs": -60.0}),
            ],
        )

    undisturbed, *others = asyncio.run(run())
    assert undisturbed.pauses == undisturbed.cuts == 0
    answer = next(t for t in undisturbed.turns if t["keyed"])["agent_text"]
    assert len(answer.split()) > 90
    begins = int(undisturbed.report.answers[1].at_ms) // FRAME_MS - 10  # in the silence before it
    line = [frame for frame in undisturbed.frames[begins:] if audible(frame)]
    laid = [lay(call.frames, line) for call in others]
    keyed = [next(t for t in call.turns if t["keyed"]) for call in others]
    wrongly_cut = sum(t["interrupted"] for t in keyed)
    pauses = sum(c.pauses for c in others) - len(others)  # without that of the key
    print(
        f"\n{agent}: 54 noises and 3 echoes: paused {pauses}, wrongly cut {wrongly_cut}; "
        f"lost {sum(x.lost for x in laid) * FRAME_MS} ms, "
        f"said again {[again * FRAME_MS for x in laid for again in x.again]} ms"
    )
    for call, turn, beside in zip(others, keyed, laid, strict=True):
        assert not turn["interrupted"], call.told()
        assert turn["agent_text"] == answer
        assert turn is call.turns[-1], call.told()
        assert (beside.foreign, beside.lost) == (0, 0), f"{beside} {call.told()}"
        # Of each resumption at most the word that was cut, and by how much the ear is ahead of what we are sure of.
        assert all(again <= LONGEST_WORD_FRAMES[agent] + UNSURE_FRAMES for again in beside.again), beside
    assert pauses >= 8, "mm-hms are voices: without a pause nothing was tried"


def test_real_words_stop_the_agent_at_once_also_through_its_echo(start_gateway: Start, tmp_path: Path) -> None:
    gateway = start_gateway(AGENTS / "reader.toml")
    voices = ("en-us", "en-us+m3", "en-gb")

    async def run() -> list[Heard]:
        ask = await said(ASK)
        plans: list[tuple[list[Action], dict[str, Any]]] = []
        for at in range(6):
            words = await said(INTERRUPT, voices[at % 3])
            rng = random.Random(at)
            actions: list[Action] = [Listen(), ask]
            for _ in range(4):
                actions += [ListenInto(rng.randrange(1500, 3500)), words]
            echo = {"echo_db": (-10.0, -15.0, -20.0)[at % 3], "echo_delay_ms": (60, 180, 320)[at % 3]}
            plans.append(([*actions, ListenInto(2500), HangUp()], {"noise_dbfs": -60.0} | (echo if at >= 3 else {})))
        return await calls(gateway.origin, tmp_path, plans)

    stops: dict[str, list[float]] = {"without echo": [], "with echo": []}
    understood = missed = 0
    for at, call in enumerate(asyncio.run(run())):
        for turn in call.report.turns:
            if turn.interrupting:
                missed += turn.barge_in_ms is None
                stops["with echo" if at >= 3 else "without echo"].append(turn.barge_in_ms or 9999.0)
        answers = [t for t in call.turns if t["caller_text"] == INTERRUPT.lower() and t["understood"]]
        understood += len(answers)
        cut = [t for t in call.turns if t["interrupted"] and t["caller_text"]]
        assert len(cut) >= 3, call.turns
        assert all(0 < len(t["agent_text"].split()) < 16 for t in cut), cut
    for name, measured in stops.items():
        inside = sum(ms <= 200 for ms in measured)
        print(f"\n{name}: stopped in median {statistics.median(measured):.0f} ms, worst {max(measured):.0f} ms")
        assert len(measured) >= 11
        assert statistics.median(measured) < 150
        assert inside >= len(measured) - 1, sorted(measured)  # the machine is shared
    print(f"{understood} of 24 interruptions understood, {missed} missed")
    assert missed == 0
    assert understood >= 18


def test_line_noise_neither_pauses_the_agent_nor_delays_the_end_of_a_turn(start_gateway: Start, tmp_path: Path) -> None:
    """White noise at -44 dBFS on half of the calls. Delay is of the first audio after the caller's last word."""
    gateway = start_gateway(AGENTS / "reader.toml")

    async def run() -> list[Heard]:
        ask = await said(ASK)
        actions: list[Action] = [Listen(), Keys("1"), IT_IS_OVER, Keys("1"), ListenInto(500), HangUp()]
        turns: list[Action] = [Listen(), ask]
        for _ in range(5):
            turns += [ListenInto(1200), await said(INTERRUPT)]
        turns += [ListenInto(500), HangUp()]
        noisy: dict[str, Any] = {"noise_dbfs": -44.0}
        return await calls(gateway.origin, tmp_path, [(actions, noisy)] * 3 + [(turns, noisy)] * 3 + [(turns, {})] * 3)

    heard = asyncio.run(run())
    spoken_min = sum(a.heard_ms for c in heard[:3] for a in c.report.answers) / 60_000
    pauses = sum(c.pauses for c in heard[:3])
    latencies = [
        [t.latency_ms for c in some for t in c.report.turns if t.latency_ms is not None]
        for some in (heard[3:6], heard[6:])
    ]
    noisy, quiet = map(statistics.median, latencies)
    print(f"\n-44 dBFS: {pauses} false pauses in {spoken_min:.1f} min of speech; ", end="")
    print(f"first audio after {noisy:.0f} ms with noise, {quiet:.0f} without")
    for call in heard[:3]:
        assert [t["caller_text"] for t in call.turns] == ["", "1", "1"], call.told()
        assert not any(t["interrupted"] for t in call.turns[:2])
    assert spoken_min > 1
    assert pauses <= spoken_min
    assert min(map(len, latencies)) >= 12
    assert noisy - quiet < 50
