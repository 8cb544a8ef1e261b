"""A draft typed at on a page, with the agent's own script for a mind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.console.house import HOSTILE, Audit, Fields, House
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.script.check import Problem, read_text
from trunkline.agents.script.foreign import Shared
from trunkline.gateway.console.drafts import trials
from trunkline.gateway.console.trying import IDLE_S, MAX_TRIALS
from trunkline.ports import Refuse
from trunkline.testing.clock import ManualClock
from trunkline.types import TenantId

SCRIPT = (Path(__file__).parents[3] / "trunkline" / "agents" / "examples" / "clinic.toml").read_text(encoding="utf-8")
HERE = "agents/desk/_try"


async def read(text: str) -> tuple[AgentDefinition | None, list[Problem]]:
    return read_text(text, foreign=Shared())


async def talk(tenant: TenantId, agent: str, text: str) -> str | Refuse:
    return "a-token" if text else Refuse("agent_broken", "the script is empty")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path, open_trial=trials(read, Services(ManualClock())), talk=talk)
    with found.client:
        found.make("agents", name="desk", draft=SCRIPT)
        yield found


def begun(house: House) -> dict[str, str]:
    return Fields(house.send(HERE, {"do": "begin"}, 200).text, f"/console/{HERE}").sent


def test_one_says_something_and_sees_what_the_agent_would_do(house: House) -> None:
    assert Audit(house.see(HERE)).wrong == []
    page = house.send(HERE, {"do": "begin"}, 200).text
    assert "this is the automated front desk" in page
    sent = Fields(page, f"/console/{HERE}").sent
    page = house.send(HERE, {**sent, "text": "where is the clinic", "do": "say"}, 200).text
    assert "The clinic is at 12 Elm Street" in page
    page = house.send(HERE, {**sent, "text": HOSTILE, "do": "say"}, 200).text
    assert "<script>alert" not in page
    assert Audit(page).wrong == []
    page = house.send(HERE, {**sent, "text": "put me through to reception", "do": "say"}, 200).text
    assert "put the caller through to reception" in page or "Reception is closed" in page


def test_a_conversation_is_whose_it_is(house: House) -> None:
    sent = begun(house)
    house.tenant = TenantId("theirs")
    house.make("agents", name="desk", draft=SCRIPT)
    page = house.send(HERE, {**sent, "text": "where is the clinic", "do": "say"}, 200).text
    assert Fields(page, f"/console/{HERE}").sent["talk"] != sent["talk"]
    assert "The clinic is at" not in page


def test_conversations_are_bounded_and_end_when_idle(house: House) -> None:
    first = begun(house)
    for _ in range(MAX_TRIALS):
        begun(house)
    page = house.send(HERE, {**first, "text": "where is the clinic", "do": "say"}, 200).text
    assert "The clinic is at" not in page
    last = Fields(page, f"/console/{HERE}").sent
    house.clock.advance(IDLE_S + 1)
    begun(house)
    page = house.send(HERE, {**last, "text": "where is the clinic", "do": "say"}, 200).text
    assert "The clinic is at" not in page


def test_a_script_with_mistakes_says_so(house: House) -> None:
    house.make("agents", name="bad", draft="name = 1")
    page = house.send("agents/bad/_try", {"do": "begin"}, 409).text
    assert "It cannot be tried: line" in page


def test_by_voice_the_call_page_is_in_a_frame_of_ours(house: House) -> None:
    answer = house.send("agents/desk/_talk", {}, 200)
    assert 'src="/#token=a-token"' in answer.text
    assert "frame-src 'self'" in answer.headers["content-security-policy"]
    assert Audit(answer.text).wrong == []
    house.make("agents", name="empty")
    assert "the script is empty" in house.send("agents/empty/_talk", {}, 409).text


def test_a_text_is_checked_as_one_types(house: House) -> None:
    page = house.send("agents/desk/_check", {"draft": SCRIPT.replace("{address}", "{adress}")}, 200).text
    assert "did you mean address" in page
    assert 'data-line="' in page
    assert "No mistakes found" in house.send("agents/desk/_check", {"draft": SCRIPT}, 200).text


def test_a_draft_is_published_and_rolled_back(house: House) -> None:
    house.send("agents/desk/_publish", {"note": "first", "at_version": "1"})
    sent = Fields(house.see("agents/desk"), "/console/agents/desk").sent
    assert sent["draft"] == SCRIPT
    house.send("agents/desk", {**sent, "draft": SCRIPT.replace("Elm Street", "Oak Street")})
    page = house.see("agents/desk")
    assert "the draft differs" in page
    assert 'class="plus"' in page
    house.send("agents/desk/_publish", {"note": "second", "at_version": "1"}, 412)
    house.send("agents/desk/_publish", {"note": "second", "at_version": str(house.kept("agents", "desk").version)})
    assert "Against version 1" in house.see("agents/desk/_version/2")
    house.send("agents/desk/_roll_back", {"number": "1", "at_version": str(house.kept("agents", "desk").version)})
    assert house.kept("agents", "desk").body["published"] == 1
    house.see("agents/desk/_version/9", 404)
    for number, status in (("9", 404), ("x", 422), ("", 422)):
        house.send("agents/desk/_roll_back", {"number": number}, status)


def test_a_draft_that_somebody_changed_is_412_and_stays_typed(house: House) -> None:
    sent = Fields(house.see("agents/desk"), "/console/agents/desk").sent
    house.send("agents/desk", {**sent, "draft": "theirs"})
    page = house.send("agents/desk", {**sent, "draft": "mine"}, 412).text
    assert Fields(page, "/console/agents/desk").sent["draft"] == "mine"
    assert "theirs" in page
    bad = house.send("agents/desk/_publish", {"at_version": str(house.kept("agents", "desk").version)}, 422).text
    assert "Not published." in bad


def test_the_wizard_goes_from_nothing_to_a_call(house: House) -> None:
    house.tenant, house.actor = TenantId("new"), "operator"  # who may give it a number of the gateway's lines
    assert 'href="/console/start?step=3"' in house.see("start")
    assert 'aria-invalid="true"' in house.send("start/number", {"number": "12"}, 422).text
    house.send("start/number", {"number": "+14155550100", "label": "Front desk"})
    assert 'aria-current="step"' in house.see("start")
    house.send("start/agent", {"name": "reception", "example": "nothing"}, 422)
    house.send("start/agent", {"name": "reception", "example": "clinic"})
    assert house.kept("agents", "reception").body["published"] == 1
    assert house.kept("numbers", "+14155550100").body["agents"][0]["agent"] == "reception"
    page = house.send("start/call", {}, 200)
    assert 'src="/#token=a-token"' in page.text
    assert Audit(page.text).wrong == []
    assert "is there already" in house.send("start/agent", {"name": "reception", "example": "clinic"}, 409).text
