"""Fraud attempts over a real gateway and a local Twilio; and a call that the rules let out, by what a user imports."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.e2e.conftest import environment
from tests.e2e.twilio_office import TO, TRANSFER, Office, data, kinds, offices
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply, Tool
from tests.fakes.openai_server import Answer, Call, OpenAiServer
from tests.fakes.twilio_server import Fate
from trunkline.agents.examples import example
from trunkline.compliance import tables as package
from trunkline.testing.caller.commands import resolve
from trunkline.testing.caller.script import HangUp, Keys, Listen, Pause, Say

pytestmark = pytest.mark.e2e

STRANGER = "+14155550124"
PREMIUM = "+19005551212"


@pytest.fixture
def office(start_gateway: Any) -> Any:
    return offices(start_gateway)


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "codes"),
    [
        (PREMIUM, {"premium"}),
        ("tel:" + PREMIUM, {"premium", "invalid_number"}),
        ("+1 900-555-1212", {"premium", "invalid_number"}),
        ("sip:19005551212@x;user=phone", {"premium", "invalid_number"}),
        ("+881612345678", {"premium"}),
        ("911", {"emergency"}),
        ("+1911", {"emergency"}),
        ("933", {"emergency", "invalid_number"}),
        ("0112", {"emergency", "invalid_number"}),
    ],
)
def test_orders_that_cost(shared: Any, to: str, codes: set[str]) -> None:
    answer = shared(to)
    assert answer.status_code in (403, 422, 400), answer.text
    assert answer.json()["code"] in codes


@pytest.fixture(scope="module")
def shared(start_shared_gateway: Any) -> Any:
    """Without a trunk: the rule answers first."""
    gateway = start_shared_gateway(outbound__allow="US")

    def dial(to: str) -> Any:
        return httpx.post(f"{gateway.origin}/v1/calls", json={"to": to}, timeout=10.0)

    return dial


def test_a_caller_who_keys_or_says_a_number_moves_nobody(office: Any) -> None:
    async def scenario(o: Office) -> None:
        said = await resolve([Say("transfer me to one nine hundred five five five one two one two")], "en-us")
        actions = (Listen(), Keys("19005551212#"), Pause(3000), *said, Pause(4000), HangUp())
        o.twilio.rings(o.gateway.origin, Fate(actions=actions))
        calls: list[Any] = []

        async def over() -> bool:
            calls[:] = (await o.http.get("/v1/calls")).json()["calls"]
            return bool(calls) and calls[0]["ended_at"] is not None

        await o.until(over, 60)
        record = await o.record(calls[0]["id"])
        assert {each["target"] for each in data(record, "transfer")} <= {"desk"}  # 0 is its key: the name decides
        assert "leg_dialled" not in kinds(record)
        assert o.twilio.created == []
        assert o.twilio.orders() == []

    assert office(scenario, agent=TRANSFER).complaints() == []


NUMBERS = ("+19005551212", "+12025550123", "911", "sip:19005551212@pbx.example", "desk, +19005551212")
BAKERY = """
name = "Bakery"
greeting = "Corner Bakery, hello."

[targets]
desk = "+14155550177"

[llm]
provider = "openai"
base_url = "{url}"
model = "fake"
instructions = "You sell bread."

[stt]
provider = "standin"

[tts]
provider = "standin"
"""


def asked_for(number: str) -> str:
    return json.dumps({"target": number})


def test_a_number_that_a_model_makes_up_is_not_dialled(office: Any, tmp_path: Path) -> None:
    """It is told so, and the caller stays with the agent."""

    async def scenario(o: Office) -> None:
        said = await resolve([each for _ in NUMBERS for each in (Say("put me through please"), Listen())], "en-us")
        o.twilio.rings(o.gateway.origin, Fate(actions=(Listen(), *said, HangUp())))
        judge_made_up(await inbound(o), o)

    async def run() -> OpenAiServer:
        async with OpenAiServer() as model:
            for number in NUMBERS:
                model.answers += [Answer(Call("transfer", asked_for(number))), Answer("I can not do that for you.")]
            agent = tmp_path / "bakery.toml"
            agent.write_text(BAKERY.format(url=model.base_url))
            gateway = await asyncio.to_thread(office, scenario, agent=agent, openai__api_key="sk-of-the-bakery")
            assert gateway.complaints() == []
        return model

    model = asyncio.run(run())
    told = [m["content"] for request in model.requests for m in request.body["messages"] if m["role"] == "tool"]
    assert len(model.requests) == 2 * len(NUMBERS)
    assert {json.loads(each)["code"] for each in told} == {"bad_arguments"}, told


def test_a_number_that_a_realtime_model_makes_up_is_not_dialled(office: Any, tmp_path: Path) -> None:
    async def scenario(o: Office) -> None:
        said = await resolve([each for _ in NUMBERS for each in (Say("put me through please"), Listen())], "en-us")
        o.twilio.rings(o.gateway.origin, Fate(actions=(Listen(), *said, HangUp())))
        judge_made_up(await inbound(o), o)

    async def run() -> OpenAiRealtimeServer:
        async with OpenAiRealtimeServer(key="sk-of-the-bakery") as model:
            model.line = Reply(audio=spoken("Corner Bakery, hello."))
            model.transcripts += ["put me through please"] * len(NUMBERS)
            sorry = Reply("I can not do that for you.", spoken("I can not do that for you."))
            for number in NUMBERS:
                model.replies += [Reply(tools=(Tool("transfer", asked_for(number)),)), sorry]
            agent = tmp_path / "bakery.toml"
            realtime = '[realtime]\nprovider = "openai"\nfallback = false\n'
            agent.write_text(BAKERY.format(url=model.base_url).replace('[llm]\nprovider = "openai"\n', realtime))
            gateway = await asyncio.to_thread(office, scenario, agent=agent, openai__api_key="sk-of-the-bakery")
            assert gateway.complaints() == []
        return model

    model = asyncio.run(run())
    told = [item["output"] for item in model.session.items if item["type"] == "function_call_output"]
    assert len(told) == len(NUMBERS)
    assert {json.loads(each)["code"] for each in told} == {"bad_arguments"}, told


async def inbound(o: Office) -> Any:
    """The record of the only call, once it is over."""
    calls: list[Any] = []

    async def over() -> bool:
        calls[:] = (await o.http.get("/v1/calls")).json()["calls"]
        return bool(calls) and calls[0]["ended_at"] is not None

    await o.until(over, 80)
    return await o.record(calls[0]["id"])


def judge_made_up(record: Any, o: Office) -> None:
    assert record["end_reason"] == "caller_hung_up", record
    assert {"leg_dialled", "transfer", "dialled"}.isdisjoint(kinds(record))
    assert o.twilio.created == []
    assert o.twilio.orders() == []
    (call,) = o.twilio.calls.values()
    assert call.dials == []
    assert len(record["turns"]) >= len(NUMBERS)


def test_a_caller_who_needs_help_on_the_local_cascade_hears_what_to_dial(office: Any) -> None:
    async def scenario(o: Office) -> None:
        said = await resolve([Keys("1"), Listen(), Say("I need an ambulance"), Listen(), Say("yes"), HangUp()], "en-us")
        o.twilio.rings(o.gateway.origin, Fate(actions=(Listen(), *said)))
        record = await inbound(o)
        assert "help_line" in kinds(record)
        assert record["turns"][1]["agent_text"] == "I can't call emergency services. Hang up and dial 9 1 1 now."
        assert "leg_dialled" not in kinds(record)

    rules = {"compliance__business": "Elm Street Clinic", "compliance__region": "US-CA"}
    assert office(scenario, agent=example("clinic"), **rules).complaints() == []


def test_a_gateway_with_such_a_target_does_not_start(start_gateway: Any, tmp_path: Path) -> None:
    for address in ("911", f"sip:{PREMIUM}@pbx.example", PREMIUM):
        file = tmp_path / "bad.toml"
        address = f"sip:{address}@pbx.example" if address == "911" else address
        file.write_text(TRANSFER.read_text().replace("+14155550177", address))
        gateway = start_gateway(agent=file, ready=False)
        assert gateway.process.wait(60) != 0
        assert "targets.desk" in gateway.log
        assert "Traceback" not in gateway.log


def test_a_burst_over_the_cap_is_refused_others_still_go_and_a_restart_forgets_nothing(
    office: Any, tmp_path: Path
) -> None:
    caps = {"compliance__max_calls_per_number_hour": "2", "data_dir": str(tmp_path / "kept")}

    async def burst(o: Office) -> None:
        answers = await asyncio.gather(*(o.dial() for _ in range(6)))
        assert sorted(a.status_code for a in answers) == [201, 201, 429, 429, 429, 429]
        assert {a.json()["code"] for a in answers if a.status_code == 429} == {"number_cap"}
        assert (await o.dial(to=STRANGER)).status_code == 201

        async def written() -> bool:
            return (await asyncio.to_thread(noted, tmp_path / "kept")) == 3

        await o.until(written, 5)
        o.gateway.process.kill()

    async def again(o: Office) -> None:
        assert (await o.dial()).json()["code"] == "number_cap"
        assert (await o.dial(to=STRANGER)).status_code == 201

    fates = [Fate("busy", sip_status=486)] * 8
    office(burst, *fates, **caps)
    office(again, *fates, **caps)


def noted(data_dir: Path) -> int:
    with sqlite3.connect(next(data_dir.glob("*.db*"))) as database:
        return int(database.execute("SELECT count(*) FROM calls_out").fetchone()[0])


# --- allowed, by the rules ------------------------------------------------------------------------------------------


def test_a_call_that_the_rules_let_out_and_two_that_they_do_not(office: Any, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    shutil.copytree(Path(package.__file__).with_suffix(""), tables, ignore=shutil.ignore_patterns("*.py"))
    hours(tables, "00:00", "24:00")
    rules = {
        "compliance__business": "Acme Clinic",
        "compliance__callback_number": "+12125550111",
        "compliance__region": "US-NY",
        "compliance__tables": str(tables),
        "data_dir": str(tmp_path / "kept"),
    }

    async def scenario(o: Office) -> None:
        await asyncio.to_thread(imports, tmp_path, o.settings)
        call_id = await o.placed(purpose="marketing")
        record = await o.ended(call_id, 40)
        assert record["answered_at"] is not None, record
        checks = {c["name"]: c["answer"] for c in data(record, "decision")[0]["checks"]}
        assert {checks[name] for name in ("litigator", "national_dnc", "reassigned", "consent", "window")} == {"pass"}
        refused = await o.dial(to=STRANGER, purpose="marketing")
        assert refused.json()["code"] == "no_consent", refused.text
        now = datetime.now(UTC)
        there = now - timedelta(hours=8)
        hours(tables, f"{(there.hour + 12) % 24:02}:00", f"{(there.hour + 12) % 24:02}:30")

        async def closed() -> bool:
            answer = await o.dial(purpose="marketing")
            return answer.status_code != 201 and answer.json()["code"] == "window"

        await o.until(closed, 15)

    office(scenario, *[Fate(actions=(Listen(), Pause(1500), HangUp()))] * 9, **rules)


def hours(tables: Path, start: str, end: str) -> None:
    table = tables / "hours.csv"
    table.write_text(
        "# version test\nregion,purpose,days,start,end,holidays,source,note\n"
        f'US,*,mon-sun,{start},{end},open,"a test",\n'
    )


def imports(folder: Path, settings: Mapping[str, str]) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    listed, consents = folder / "list.csv", folder / "consents.csv"
    listed.write_text("number\n+13055550199\n")
    columns = "subject,form,purposes,technologies,wording,wording_version,at"
    consents.write_text(f"{columns}\n{TO},express_written,marketing,artificial_voice,You may call me,1,{yesterday}\n")
    command(settings, "consent", "import", str(consents))
    for name, region in (("national", "US"), ("litigator", ""), ("reassigned", "")):
        more = ("--region", region) if region else ()
        command(settings, "dnc", "import", str(listed), "--list", name, "--drawn", yesterday, *more)


def command(settings: Mapping[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trunkline.cli", "compliance", *words],
        env=environment(**{name: value for name, value in settings.items() if name.startswith(("compl", "data"))}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
