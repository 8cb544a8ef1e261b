"""What a caller lives through where everybody must agree: real gateways, real calls, real time.

What they heard first is recognised from the audio they received.
"""

import asyncio
import sqlite3
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.deepgram_server import DeepgramServer
from trunkline.agents.examples import example
from trunkline.agents.local.ears import Ears, Line
from trunkline.compliance.opening import load
from trunkline.testing.caller.commands import Action, CallOptions, HangUp, Keys, Listen, Pause, Say, place_call
from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

CALLER = "+14155550123"  # California: all parties
RULES = {"compliance__business": "Elm Street Clinic", "compliance__region": "US-CA", "record": "true"}
ASKS = "what are your opening hours"
HOURS = "eight to five"
DEEPGRAM = '[stt]\nprovider = "deepgram"\nurl = "{url}"\nmodel = "nova-3"\nfeed = "all"\nthird_party = true\n'


LINES = {
    "business": "you have reached elm street clinic",
    "ai": "you are talking with an artificial intelligence not with a person",
    "question": "may we record this call write it down and let other companies process what you say",
    "say yes": "say yes or press one",
    "say no": "say no or press two",
    "thanks": "thank you",
    "nothing kept": "all right nothing of this call is kept",
    "hours": "eight to noon on wednesday",
    "friday": "and eight to three on friday",
    "hours, whole": "our hours are eight to five on monday",
    "thursday": "tuesday and thursday",
}
PAUSE_MS = 200


def heard(path: Path) -> list[str]:
    """The sentences that the caller received, in their order, by words: each stretch between two pauses is recognised
    for itself. What is none of LINES is `?`."""
    return sentences(received(path))


def received(path: Path) -> Any:
    with wave.open(str(path)) as wav:
        return np.frombuffer(wav.readframes(wav.getnframes()), dtype=np.int16)[1::2]


def sentences(samples: Any) -> list[str]:
    ears = Ears()
    ears.add({"lines": f"#JSGF V1.0;\ngrammar lines;\npublic <lines> = ({' | '.join(LINES.values())})+;\n"})
    line, said = Line(), []
    for stretch in stretches(samples):
        utterance = ears.begin("lines", line)
        utterance.feed(stretch.tobytes())
        found, understood, line = utterance.finish()
        text = found.text if understood else "?"
        for name, words in LINES.items():
            text = text.replace(words, f"[{name}]")
        said.append(text)
    return " ".join(said).replace("] [", "]|[").split("|")


def stretches(samples: Any) -> list[Any]:
    return [samples[max(0, begun - 10) * 160 : at * 160] for begun, at in spans(samples)]


def gaps_ms(samples: Any) -> list[int]:
    """The silence before each stretch but the first."""
    found = spans(samples)
    return [(begun - at) * 20 + PAUSE_MS for (_, at), (begun, _) in pairwise(found)]


def spans(samples: Any) -> list[tuple[int, int]]:
    """Of the stretches: the first frame, and the one in which PAUSE_MS of quiet were over."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.abs(frames.astype(np.int32)).max(axis=1) > 200
    cuts: list[tuple[int, int]] = []
    begun, quiet = None, 0
    for at, is_loud in enumerate([*loud, *[False] * (PAUSE_MS // 20)]):
        quiet = 0 if is_loud else quiet + 1
        if is_loud and begun is None:
            begun = at
        elif begun is not None and quiet * 20 >= PAUSE_MS:
            cuts.append((begun, at + 1))
            begun = None
    return cuts


def recorded(path: Path) -> Any:
    """G.711, which `wave` does not read: rows of the caller's and the agent's bytes."""
    data = path.read_bytes().partition(b"data")[2][4:]
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 2)


def rows(data_dir: Path, table: str) -> list[dict[str, Any]]:
    with sqlite3.connect(data_dir / "trunkline.db") as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"select * from {table}")]


def found(data_dir: Path, *words: str) -> list[str]:
    """Files that contain any of the words."""
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return [path.name for path in files if any(word.encode() in path.read_bytes() for word in words)]


def events(record: Any, kind: str) -> list[Any]:
    return [event["data"] for event in record["events"] if event["kind"] == kind]


async def call(gateway: Any, *actions: Action, out: Path | None = None, **more: Any) -> Any:
    options = CallOptions(
        gateway.origin, [*actions], from_number=CALLER, api_url="auto", out=out, max_duration_s=90, **more
    )
    report = await place_call(options)
    assert report.record is not None
    return report


def test_the_lines_are_heard_first_and_yes_opens_the_doors(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(example("clinic"), **RULES)
    out = tmp_path / "call.wav"
    report = asyncio.run(call(gateway, Listen(), Say("yes"), Listen(), Say(ASKS), Listen(), HangUp(), out=out))
    record = report.record
    assert heard(out)[:4] == ["[business]", "[ai]", "[question]", "[say yes]"]
    (consent,) = events(record, "consent")
    assert (consent["state"], consent["via"]) == ("granted", "speech")
    (disclosed,) = events(record, "disclosed")
    assert [line["line"] for line in disclosed["lines"]] == ["say_business", "say_ai", "ask_consent"]
    assert all(line["whole"] and line["basis"] for line in disclosed["lines"])
    assert disclosed["version"] == load().version
    assert record["turns"][1]["caller_text"] == ASKS
    assert HOURS in record["turns"][1]["agent_text"]
    (grant,) = rows(gateway.data_dir, "consent_events")
    assert record["id"] in str(grant.values())
    (wav,) = (gateway.data_dir / "recordings").glob("*.wav")
    kept = recorded(wav)
    asked_ms = disclosed["lines"][-1]["at_ms"]
    assert set(kept[: asked_ms * 8].ravel()) <= {0xFF, 0x7F}, "what was before the yes is silence"
    assert len(set(kept[:, 0])) > 20, "the caller is in it"
    assert gateway.complaints() == []


@pytest.mark.parametrize("no", [pytest.param(Keys("2"), marks=pytest.mark.show), Say("no")], ids=["key", "speech"])
def test_who_says_no_is_served_without(start_gateway: Any, tmp_path: Path, no: Action) -> None:
    async def run() -> tuple[Any, Any, Any]:
        async with DeepgramServer(ASKS) as ears:
            agent = tmp_path / "clinic.toml"
            local = '[stt]\nprovider = "pocketsphinx"\n'
            agent.write_text(example("clinic").read_text().replace(local, DEEPGRAM.format(url=ears.url)))
            gateway = await asyncio.to_thread(start_gateway, agent, deepgram__api_key="k", **RULES)
            report = await call(gateway, Listen(), no, Listen(), Say(ASKS), Listen(), HangUp(), out=tmp_path / "c.wav")
            return gateway, report, ears.connections

    gateway, report, connections = asyncio.run(run())
    record = report.record
    (consent,) = events(record, "consent")
    assert consent["state"] == "refused"
    assert [len(connection.audio) for connection in connections] in ([], [0])
    lines = heard(tmp_path / "c.wav")
    assert lines[:4] == ["[business]", "[ai]", "[question]", "[say yes]"]
    assert "[friday]" in " ".join(lines), "served by this machine"
    assert {turn["caller_text"] + turn["agent_text"] for turn in record["turns"]} == {""}
    assert list((gateway.data_dir / "recordings").glob("*")) == []
    assert found(gateway.data_dir, ASKS, HOURS) == []
    assert rows(gateway.data_dir, "consent_events") == []


def test_withdrawing_in_the_middle_shuts_the_doors_again(start_gateway: Any, tmp_path: Path) -> None:
    async def run() -> tuple[Any, Any, Any]:
        async with DeepgramServer(ASKS) as ears:
            agent = tmp_path / "clinic.toml"
            local = '[stt]\nprovider = "pocketsphinx"\n'
            agent.write_text(example("clinic").read_text().replace(local, DEEPGRAM.format(url=ears.url)))
            gateway = await asyncio.to_thread(
                start_gateway, agent, deepgram__api_key="k", consent__withdraw_key="*", **RULES
            )
            before: list[Action] = [Listen(), Keys("1"), Listen(), Say(ASKS), Listen(), Keys("*")]
            after: list[Action] = [Listen(), Say("where is the clinic"), Listen(), HangUp()]
            report = await call(gateway, *before, *after)
            return gateway, report, ears.connections

    gateway, report, connections = asyncio.run(run())
    record = report.record
    assert [(each["state"], each["via"]) for each in events(record, "consent")] == [
        ("granted", "keypad"),
        ("withdrawn", "keypad"),
    ]
    (connection,) = connections
    assert len(connection.audio) / 8000 < report.duration_s - 8
    said = [turn["caller_text"] for turn in record["turns"]]
    assert ASKS in said
    assert said[-1] == ""
    assert found(gateway.data_dir, "library") == []
    assert len(rows(gateway.data_dir, "consent_events")) == 2
    (wav,) = (gateway.data_dir / "recordings").glob("*.wav")
    kept = recorded(wav)
    assert len(set(kept[:, 0].ravel())) > 20, "the caller is in it"
    assert set(kept[-8 * 8000 :].ravel()) <= {0xFF, 0x7F}, "what came after is silence"


@pytest.mark.show
def test_silence_is_asked_again_and_then_served_without(start_gateway: Any) -> None:
    gateway = start_gateway(example("clinic"), consent__answer_seconds="2", **RULES)
    record = asyncio.run(call(gateway, Listen(), Pause(22_000), HangUp())).record
    (consent,) = events(record, "consent")
    assert (consent["state"], consent["via"]) == ("refused", "silence")
    (disclosed,) = events(record, "disclosed")
    assert [line["line"] for line in disclosed["lines"]].count("ask_consent") == 2


def test_who_hangs_up_after_a_second_has_heard_a_second(start_gateway: Any) -> None:
    gateway = start_gateway(example("clinic"), **RULES)
    record = asyncio.run(call(gateway, Pause(1400), HangUp())).record
    first, *others = events(record, "disclosed")[0]["lines"]
    assert 0 < first["heard_ms"] < 1500
    assert not any(line["whole"] for line in others)
    assert list((gateway.data_dir / "recordings").glob("*")) == []


def test_where_nobody_is_asked_the_agent_follows_the_lines_within_a_second(start_gateway: Any, tmp_path: Path) -> None:
    gateway = start_gateway(example("clinic"), **RULES | {"compliance__region": "US-NY", "record": "false"})
    out = tmp_path / "call.wav"
    options = CallOptions(
        gateway.origin,
        [Listen(), HangUp()],
        from_number="+12125550147",
        to_number="+12125550111",
        api_url="auto",
        out=out,
    )
    record = asyncio.run(place_call(options)).record
    assert record is not None
    (disclosed,) = events(record, "disclosed")
    assert all(line["whole"] for line in disclosed["lines"])
    lines = len(disclosed["lines"])
    assert heard(out)[0] == "[business]"
    print(disclosed["lines"], gaps_ms(received(out)))
    assert len(gaps_ms(received(out))) >= lines, "the greeting follows"
    assert max(gaps_ms(received(out))[: lines + 1]) <= 1000
    assert gateway.complaints() == []


def test_without_a_business_nothing_is_said_or_asked(start_gateway: Any) -> None:
    gateway = start_gateway(example("clinic"))
    record = asyncio.run(call(gateway, Listen(), HangUp())).record
    assert events(record, "disclosed") == events(record, "consent") == []
    assert record["turns"][0]["agent_text"]


def test_a_call_over_sip_is_asked_too(start_gateway: Any, tmp_path: Path) -> None:
    port = lease()
    gateway = start_gateway(example("clinic"), sip__port=str(port), sip__enabled="true", **RULES)
    out = tmp_path / "sip.wav"
    options = CallOptions(
        f"sip:+15005550001@127.0.0.1:{port}",
        [Listen(), Keys("1"), Listen(), Say(ASKS), Listen(), HangUp()],
        from_number=CALLER,
        api_url=gateway.origin,
        out=out,
        max_duration_s=90,
    )
    record = asyncio.run(place_call(options)).record
    assert record is not None
    assert heard(out)[:3] == ["[business]", "[ai]", "[question]"]
    (disclosed,) = events(record, "disclosed")
    assert all(line["whole"] for line in disclosed["lines"][:2])
    assert [each["state"] for each in events(record, "consent")] == ["granted"]
    assert record["turns"][1]["caller_text"] == ASKS


@pytest.mark.show
def test_a_spanish_agents_caller_is_asked_in_spanish(start_gateway: Any, tmp_path: Path) -> None:
    agent = tmp_path / "clinica.toml"
    agent.write_text(example("clinic").read_text().replace('language = "en-US"', 'language = "es-ES"'))
    gateway = start_gateway(agent, **RULES)
    actions: list[Action] = [
        Listen(),
        Keys("1"),
        Listen(),
        HangUp(),
    ]  # how often a spoken one is heard: bench/assent.py
    record = asyncio.run(call(gateway, *actions, voice="es")).record
    (disclosed,) = events(record, "disclosed")
    assert disclosed["lines"][0]["text"] == "Ha llamado a Elm Street Clinic."
    assert disclosed["lines"][-1]["text"].startswith("¿Podemos grabar esta llamada")
    assert all(line["whole"] for line in disclosed["lines"][:-1])
    (consent,) = events(record, "consent")
    assert (consent["state"], consent["via"]) == ("granted", "keypad")
