"""Calls of ours under the rules: whoever answers hears the lines first, and is asked where they must agree."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.test_consent import ASKS, LINES, events, gaps_ms, sentences
from tests.e2e.test_fraud import command, hours
from tests.e2e.twilio_office import FROM, TO, Office, offices
from tests.fakes.twilio_server import Fate
from trunkline.agents.examples import example
from trunkline.compliance import tables as package
from trunkline.media import g711
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import Action, HangUp, Keys, Listen, Pause, Say

pytestmark = pytest.mark.e2e

CALLBACK = "+12125550111"
OPENING = ["[business, calling]", "[opt out]", "[ai]", "[call back]", "[question]", "[say yes]", "[say no]"]
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


def judge(record: Any) -> None:
    """The way out within two seconds of who we are; all of it by the book."""
    disclosed = events(record, "disclosed")[0]
    business, way_out = disclosed["lines"][:2]
    assert (business["line"], way_out["line"]) == ("say_business", "say_opt_out")
    assert 0 <= way_out["at_ms"] - (business["at_ms"] + business["length_ms"]) <= 2000
    lines = {line["line"]: line for line in disclosed["lines"]}
    assert " ".join(CALLBACK[1:]) in lines["say_callback"]["text"]
    assert all(line["whole"] for line in disclosed["lines"] if line["line"] != "ask_consent")


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
        judge(record)
        print(sentences(heard), gaps_ms(heard))
        assert sentences(heard)[:6] == OPENING[:6]
        assert max(gaps_ms(heard)[:5]) <= 1000
        (consent,) = events(record, "consent")
        assert (consent["state"], consent["via"]) == ("granted", "speech")
        assert record["turns"][1]["caller_text"] == ASKS

    assert office(scenario, agent=example("clinic"), **rules(tmp_path)).complaints() == []


def test_a_machine_hears_the_lines_and_its_words_are_no_yes(office: Any, tmp_path: Path) -> None:
    """It goes on speaking while it is asked; the question is left out, nothing is kept."""

    async def scenario(o: Office) -> None:
        said = [Pause(200), Say(MESSAGE), Pause(14_000), Say("yes"), Pause(2500), HangUp()]
        record, heard = await placed(o, tmp_path, *said, answered_by="machine_start")
        judge(record)
        print(sentences(heard))
        assert sentences(heard)[:4] == OPENING[:4]
        assert not {"[question]", "[say yes]", "[say no]"} & set(sentences(heard))
        assert [(e["state"], e["via"]) for e in events(record, "consent")] == [("refused", "machine")]
        assert {turn["caller_text"] + turn["agent_text"] for turn in record["turns"]} <= {""}
        assert list((tmp_path / "kept" / "recordings").glob("*")) == []
        assert "bob" not in json.dumps(record)

    more = {"twilio__machine_detection": "enable"}
    assert office(scenario, agent=example("clinic"), **rules(tmp_path), **more).complaints() == []


def test_where_one_party_is_enough_the_lines_come_and_no_question(office: Any, tmp_path: Path) -> None:
    numbers = {"to": "+12125550147", "from": CALLBACK}

    async def scenario(o: Office) -> None:
        o.twilio.numbers = [FROM, CALLBACK]
        await asyncio.to_thread(agreed_to_calls, tmp_path, o.settings, numbers["to"])
        o.twilio.fates.append(Fate(actions=(Listen(), Keys("9"), Listen(), HangUp())))
        record = await o.ended(await o.placed(purpose="informational", **numbers), 90)
        judge(record)
        heard = understood(await o.call())
        said = [each["line"] for each in events(record, "disclosed")[0]["lines"]]
        assert "ask_consent" not in said
        assert "say_recording" in said
        assert events(record, "consent") == []
        gaps = gaps_ms(heard)[: len(LINES)]
        print(sentences(heard), gaps)
        assert max(gaps[: len(said) + 1]) <= 1000  # the greeting, too

    assert office(scenario, agent=example("clinic"), **rules(tmp_path, "US-NY")).complaints() == []
