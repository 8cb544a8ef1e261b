"""Calls of ours under the rules: whoever answers hears the lines first, and is asked where they must agree."""

import asyncio
import json
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.backends import spoken
from tests.e2e.test_consent import ASKS, events, gaps_ms
from tests.e2e.test_fraud import command, hours
from tests.e2e.test_twilio_hands import hear_each_other
from tests.e2e.twilio_office import CALLERS, DESKS, FROM, TO, TRANSFER, Case, Office, data, offices, what
from tests.fakes.twilio_server import Fate
from trunkline.agents.examples import example
from trunkline.compliance import tables as package
from trunkline.media import g711
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import Action, HangUp, Keys, Listen, Pause, Say, Wav

pytestmark = pytest.mark.e2e

CALLBACK = "+12125550111"
OPT_OUT = "+18005550199"
GREETING = "Elm Street Clinic, this is the automated front desk."
QUESTION = (
    "May we record this call, write it down and let other companies process what you say? "
    "Say yes, or press 1. Say no, or press 2."
)
ALIKE = 0.6  # the same words again: 0.8 and more; others: 0.4 and less
MESSAGE = "yes hello you have reached bob miller yes please leave a message after the tone yes"


def rules(folder: Path, region: str = "US-CA") -> dict[str, str]:
    """Hours are open, whatever the time is where this runs."""
    tables = folder / "tables"
    shutil.copytree(Path(package.__file__).with_suffix(""), tables, ignore=shutil.ignore_patterns("*.py"))
    hours(tables, "00:00", "24:00")
    return {
        "compliance__business": "Elm Street Clinic",
        "compliance__callback_number": CALLBACK,
        "compliance__region": region,
        "compliance__tables": str(tables),
        "data_dir": str(folder / "kept"),
        "record": "true",
    }


def agreed_to_calls(folder: Path, settings: Any, number: str) -> None:
    consents = folder / "consents.csv"
    columns = "subject,form,purposes,technologies,wording,wording_version,at"
    row = f"{number},express_written,informational,artificial_voice,You may call me,1,2026-01-05T12:00:00Z"
    consents.write_text(f"{columns}\n{row}\n")
    command(settings, "consent", "import", str(consents))


def judge(record: Any, heard: Any, which: int = 0) -> None:
    """The way out within two seconds of who we are, by the record and by what was received."""
    disclosed = events(record, "disclosed")[which]
    lines = {line["line"]: line for line in disclosed["lines"]}
    owed = {kind: line for kind, line in lines.items() if kind != "ask_consent"}
    assert list(owed)[:2] == ["say_business", "say_opt_out"]
    assert " ".join(CALLBACK[1:]) in owed["say_callback"]["text"]
    assert all(line["whole"] for line in owed.values())
    found = {kind: where(heard, line["text"]) for kind, line in owed.items()}
    print(found)
    starts = [span[0] for span in found.values() if span is not None]
    assert len(starts) == len(owed), found
    assert starts == sorted(starts)
    for begun, length in (
        (starts, [span[1] - span[0] for span in found.values() if span is not None]),
        ([line["at_ms"] for line in owed.values()], [line["length_ms"] for line in owed.values()]),
    ):
        assert 0 <= begun[1] - (begun[0] + length[0]) <= 2000


def where(heard: Any, text: str) -> tuple[int, int] | None:
    """In ms: the stretch of what was heard that is our voice saying this, by its spectrum: espeak says nothing twice in
    the same way."""
    voice = np.frombuffer(spoken(text), dtype=np.int16)
    if len(heard) < len(voice):
        return None
    said, sound = bands(voice), bands(heard)
    found = sum(np.correlate(sound[:, band], said[:, band], "valid") for band in range(said.shape[1]))
    power = np.convolve((sound**2).sum(axis=1), np.ones(len(said)), "valid")
    alike = found / np.sqrt((said**2).sum() * np.maximum(power, 1.0))
    at = int(alike.argmax())
    return (at * 20, (at + len(said)) * 20) if alike[at] > ALIKE else None


def bands(samples: Any) -> Any:
    """Levels of each 20 ms in 16 bands, around what is usual for the band."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(160), axis=1))[:, :80].reshape(-1, 16, 5).sum(axis=2)
    levels = np.log10(spectrum + 300.0)
    return levels - levels.mean(axis=0)


def asked(record: Any) -> str:
    return str(next(line["text"] for line in events(record, "disclosed")[0]["lines"] if line["line"] == "ask_consent"))


def understood(call: Any) -> Any:
    audio = g711.decode(b"".join(call.heard), "mulaw")
    return np.frombuffer(audio, dtype=np.int16)


async def placed(o: Office, folder: Path, *actions: Action, **fate: Any) -> tuple[Any, Any]:
    await asyncio.to_thread(agreed_to_calls, folder, o.settings, TO)
    o.twilio.fates.append(Fate(actions=await resolve(actions, "en-us"), **fate))
    record = await o.ended(await o.placed(purpose="informational"), 90)
    return record, understood(await o.call())


@pytest.fixture
def office(start_gateway: Any) -> Any:
    return offices(start_gateway)


def test_who_answers_hears_the_lines_is_asked_and_says_yes(office: Any, tmp_path: Path) -> None:
    async def scenario(o: Office) -> None:
        record, heard = await placed(o, tmp_path, Listen(), Say("yes"), Listen(), Say(ASKS), Listen(), HangUp())
        judge(record, heard)
        question = where(heard, asked(record))
        way_out = where(heard, events(record, "disclosed")[0]["lines"][1]["text"])
        assert question is not None
        assert way_out is not None
        assert question > way_out
        (consent,) = events(record, "consent")
        assert (consent["state"], consent["via"]) == ("granted", "speech")
        assert record["turns"][1]["caller_text"] == ASKS

    assert office(scenario, agent=example("clinic"), **rules(tmp_path)).complaints() == []


def test_a_machine_hears_the_lines_after_its_greeting_and_its_words_are_no_yes(office: Any, tmp_path: Path) -> None:
    """The carrier tells of it at once, and nobody of the end of its greeting: that falls silent. The question is left
    out, nothing is kept."""

    async def scenario(o: Office) -> None:
        said: list[Action] = [Pause(200), Say(MESSAGE), Pause(18_000), Say("yes"), Pause(2500), HangUp()]
        record, heard = await placed(o, tmp_path, *said, answered_by="machine_start")
        assert events(record, "voicemail") == [{"after": "silence"}]
        judge(record, heard, -1)
        lines = [line for told in events(record, "disclosed") for line in told["lines"]]
        assert not any(line["heard_ms"] for line in lines if line["line"] == "ask_consent")
        assert [(e["state"], e["via"]) for e in events(record, "consent")] == [("refused", "machine")]
        assert {turn["caller_text"] + turn["agent_text"] for turn in record["turns"]} <= {""}
        assert list((tmp_path / "kept" / "recordings").glob("*")) == []
        assert "bob" not in json.dumps(record)

    more = {"twilio__machine_detection": "enable"}
    assert office(scenario, agent=example("clinic"), **rules(tmp_path), **more).complaints() == []


def test_a_voicemail_has_the_lines_after_its_beep_and_its_owner_a_number_to_call(office: Any, tmp_path: Path) -> None:
    """Nobody looks for machines: the lines begin at once, and after the beep anew."""
    beep = tmp_path / "beep.wav"
    tone = 8000 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    with wave.open(str(beep), "wb") as wav:
        wav.setparams((1, 2, 8000, len(tone), "NONE", ""))
        wav.writeframes(tone.astype("<i2").tobytes())

    async def scenario(o: Office) -> None:
        said: list[Action] = [Pause(200), Say(MESSAGE), Pause(800), Wav(beep), Pause(28_000), HangUp()]
        record, heard = await placed(o, tmp_path, *said)
        assert events(record, "voicemail") == [{"after": "beep"}]
        business, way_out = events(record, "disclosed")[-1]["lines"][:2]
        assert way_out["text"] == f"To get no more calls from us, call {' '.join(OPT_OUT[1:])}."
        told = where(heard, way_out["text"])
        assert told is not None
        after = heard[told[0] * 8 - business["length_ms"] * 8 - 8000 :]
        judge(record, after, -1)
        greeted = where(after, GREETING)
        assert greeted is not None
        assert greeted[0] > where(after, way_out["text"])[1]  # type: ignore[index]

    more = {"consent__opt_out_number": OPT_OUT}
    assert office(scenario, agent=example("clinic"), **rules(tmp_path), **more).complaints() == []


def test_where_one_party_is_enough_the_lines_come_and_no_question(office: Any, tmp_path: Path) -> None:
    numbers = {"to": "+12125550147", "from": CALLBACK}

    async def scenario(o: Office) -> None:
        o.twilio.numbers = [FROM, CALLBACK]
        await asyncio.to_thread(agreed_to_calls, tmp_path, o.settings, numbers["to"])
        o.twilio.fates.append(Fate(actions=(Listen(), Keys("9"), Listen(), HangUp())))
        record = await o.ended(await o.placed(purpose="informational", **numbers), 90)
        heard = understood(await o.call())
        judge(record, heard)
        said = [each["line"] for each in events(record, "disclosed")[0]["lines"]]
        assert "ask_consent" not in said
        assert "say_recording" in said
        assert events(record, "consent") == []
        gaps = gaps_ms(heard)
        assert max(gaps[: len(said) + 1]) <= 1000, gaps  # the greeting, too

    assert office(scenario, agent=example("clinic"), **rules(tmp_path, "US-NY")).complaints() == []


def test_a_representative_hears_that_the_call_is_kept_before_the_caller_hears_them(office: Any, tmp_path: Path) -> None:
    async def scenario(o: Office) -> None:
        caller = o.twilio.rings(o.gateway.origin, Fate(actions=[Listen(), Keys("1")], live=True))
        found: list[str] = []

        async def greeted() -> bool:
            calls = (await o.http.get("/v1/calls")).json()["calls"]
            found[:] = [call["id"] for call in calls if call["provider_call_id"] == caller.sid]
            return bool(found) and any("Hello." in turn["agent_text"] for turn in (await o.record(found[0]))["turns"])

        await o.until(greeted, 40)
        case = Case(o, caller, found[0])
        caller.says = CALLERS
        o.twilio.fates.append(Fate(live=True, actions=(), ring_s=1.0))
        desk = await case.sends("bridged")
        await o.until(lambda: desk.connected)
        desk.says = DESKS
        began = len(caller.heard)
        await o.until(lambda: what(desk.heard)["other"] > 100)
        assert what(caller.heard[began:])["desk"] == 0
        await case.has("joined")
        await hear_each_other(caller, desk)
        record = await case.leaves()
        (told,) = data(record, "notified")
        assert told["text"].startswith("We record this call")
        assert told["leg"] == data(record, "joined")[0]["leg"]
        notice = where(understood(desk), told["text"])
        assert notice is not None
        assert CALLERS not in desk.heard[: notice[1] // 20 - 5]

    assert office(scenario, agent=TRANSFER, **rules(tmp_path)).complaints() == []
