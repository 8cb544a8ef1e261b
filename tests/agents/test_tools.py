"""Tools as a model sees them, and their performance on a call."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from trunkline.agents.definition import AgentDefinition, HandOff, ProviderChoice
from trunkline.agents.examples import example
from trunkline.agents.script import load
from trunkline.agents.script.model import Tool
from trunkline.agents.tools import HttpToolError, perform, tool_specs
from trunkline.ports import Allow, Decision, EndReason, Refuse, ToolCall, Wish

STANDIN = ProviderChoice("standin")
DEFINITION = AgentDefinition(
    "Test",
    STANDIN,
    STANDIN,
    STANDIN,
    "Hello.",
    targets={"desk": "+12025550123", "nurse": "+12025550124"},
    agents={"billing": HandOff("/b.toml", "questions about invoices"), "lab": HandOff("/l.toml", "Results.")},
    script={
        "variables": {"clinic": "elm"},
        "slots": {"day": {"values": {"Monday": ["mondays"], "Friday": []}}},
        "digits": {"patient": {"prompt": "?", "min": 4, "max": 6, "pattern": "[1-9][0-9]*"}},
        "tools": {
            "look_up": {
                "type": "http",
                "url": "https://x.example/{clinic}/{patient}?day={day}",
                "method": "POST",
                "body": {"who": ["{caller_number}", "{note}"]},
                "description": "Looks it up.",
            },
            "to_desk": {"type": "transfer", "target": "desk"},
            "gate": {"type": "send_dtmf", "digits": "9w#"},
            "to_lab": {"type": "hand_off", "agent": "lab"},
        },
    },
)


class Control:
    def __init__(self, decision: Decision | None = None) -> None:
        self.decision, self.done = decision or Allow(), list[tuple[str, str]]()

    def hang_up(self, reason: EndReason) -> None:
        self.done.append(("hang_up", reason))

    def transfer(self, target: str) -> Decision:
        self.done.append(("transfer", target))
        return self.decision

    def hand_off(self, agent: str) -> Decision:
        self.done.append(("hand_off", agent))
        return self.decision

    def call_back(self) -> Decision:
        self.done.append(("call_back", ""))
        return self.decision

    def wished(self, wish: Wish) -> None:
        self.done.append(("wished", wish.kind))

    def send_dtmf(self, digits: str) -> None:
        self.done.append(("send_dtmf", digits))


class Http:
    def __init__(self, answer: dict[str, str] | str | HttpToolError = "fine") -> None:
        self.answer, self.asked = answer, list[tuple[str, dict[str, str]]]()

    async def run(self, tool: Tool, values: Mapping[str, str]) -> dict[str, str] | str:
        self.asked.append((tool.name, dict(values)))
        if isinstance(self.answer, HttpToolError):
            raise self.answer
        return self.answer


def outcome(name: str, control: Control | None = None, http: Http | None = None, **arguments: Any) -> dict[str, Any]:
    call = ToolCall("1", name, arguments)
    text = asyncio.run(perform(call, DEFINITION, control or Control(), http or Http(), caller_number="+1202555"))
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_model_sees_the_tools_of_the_file_and_what_every_agent_can_do() -> None:
    specs = {spec.name: spec for spec in tool_specs(DEFINITION)}
    assert list(specs) == ["look_up", "to_desk", "gate", "to_lab", "hang_up", "transfer", "hand_off"]
    assert all(spec.effects for spec in specs.values())
    assert specs["transfer"].parameters["properties"]["target"]["enum"] == ["nurse"]
    agent = specs["hand_off"].parameters["properties"]["agent"]
    assert (agent["enum"], agent["description"]) == (["billing"], "billing: questions about invoices.")
    assert specs["hand_off"].parameters["required"] == ["agent"]
    assert specs["look_up"].description == "Looks it up."
    assert specs["look_up"].parameters == {
        "type": "object",
        "properties": {
            "patient": {"type": "string", "description": "4 to 6 digits, as the caller gave them"},
            "day": {"type": "string", "enum": ["Monday", "Friday"]},
            "note": {"type": "string"},
        },
        "required": ["patient", "day", "note"],
        "additionalProperties": False,
    }


def test_an_agent_without_targets_cannot_transfer() -> None:
    assert [spec.name for spec in tool_specs(AgentDefinition("x", STANDIN, STANDIN, STANDIN, "Hi."))] == ["hang_up"]


def test_the_clinic_has_its_tools() -> None:
    assert [spec.name for spec in tool_specs(load(example("clinic")))] == ["hang_up", "transfer"]


@pytest.mark.parametrize(
    ("name", "arguments", "done"),
    [
        ("hang_up", {}, ("hang_up", "agent_hung_up")),
        ("transfer", {"target": "nurse"}, ("transfer", "nurse")),
        ("to_desk", {}, ("transfer", "desk")),
        ("hand_off", {"agent": "billing", "reason": "an invoice"}, ("hand_off", "billing")),
        ("to_lab", {}, ("hand_off", "lab")),
        ("gate", {}, ("send_dtmf", "9w#")),
        ("gate", {"digits": "0900"}, ("send_dtmf", "9w#")),
        ("to_desk", {"target": "nurse"}, ("transfer", "desk")),
    ],
)
def test_a_tool_of_the_call_is_performed_as_the_file_says(
    name: str, arguments: dict[str, Any], done: tuple[str, str]
) -> None:
    control = Control()
    assert outcome(name, control, **arguments)["ok"] is True
    assert control.done == [done]


@pytest.mark.parametrize("target", ["+19005551234", "boss", "", None, 7, ["desk"]])
def test_a_transfer_goes_to_a_named_target_or_nowhere(target: Any) -> None:
    control = Control()
    assert outcome("transfer", control, target=target)["code"] == "bad_arguments"
    assert control.done == []


def test_a_refusal_is_a_result_to_speak_about() -> None:
    control = Control(Refuse("transfer_closed", "transfers are closed"))
    assert outcome("to_desk", control) == {"ok": False, "code": "refused", "why": "transfers are closed"}


def test_a_tool_nobody_wrote_is_unknown() -> None:
    assert outcome("rm")["code"] == "unknown_tool"


def test_an_http_tool_gets_the_arguments_and_what_is_known_anyway() -> None:
    http = Http({"time": "nine"})
    assert outcome("look_up", http=http, patient="4711", day="Friday", note="é", extra="x") == {
        "ok": True,
        "result": {"time": "nine"},
    }
    values = {
        "clinic": "elm",
        "caller_number": "+1202555",
        "caller_verified": "no",
        "patient": "4711",
        "day": "Friday",
        "note": "é",
    }
    assert http.asked == [("look_up", values)]


def test_a_model_cannot_overwrite_what_the_file_fixes() -> None:
    http = Http()
    outcome("look_up", http=http, patient="4711", day="Friday", note="x", clinic="oak", caller_number="0")
    assert http.asked[0][1]["clinic"] == "elm"
    assert http.asked[0][1]["caller_number"] == "+1202555"


@pytest.mark.parametrize(
    "arguments",
    [
        {"patient": "4711", "day": "Friday"},
        {"patient": "0711", "day": "Friday", "note": "x"},
        {"patient": "47", "day": "Friday", "note": "x"},
        {"patient": "٤٧١١", "day": "Friday", "note": "x"},
        {"patient": "4711", "day": "mondays", "note": "x"},
        {"patient": "4711", "day": "Friday", "note": {"a": 1}},
        {"patient": "4711", "day": "Friday", "note": True},
        {"patient": "4711", "day": "Friday", "note": "x" * 501},
    ],
)
def test_arguments_that_the_file_does_not_allow_reach_no_server(arguments: dict[str, Any]) -> None:
    http = Http()
    assert outcome("look_up", http=http, **arguments)["code"] == "bad_arguments"
    assert http.asked == []


def test_a_failing_server_is_a_result_too() -> None:
    http = Http(HttpToolError("timeout", "no answer within 3000 ms"))
    assert outcome("look_up", http=http, patient="4711", day="Friday", note="x") == {
        "ok": False,
        "code": "timeout",
        "why": "no answer within 3000 ms",
    }


def test_a_hand_off_that_is_refused_or_leads_nowhere_is_a_result() -> None:
    refused = outcome("hand_off", Control(Refuse("too_many", "enough")), agent="billing")
    assert refused == {"ok": False, "code": "too_many", "why": "enough"}
    control = Control()
    assert outcome("hand_off", control, agent="nobody")["code"] == "bad_arguments"
    assert outcome("hand_off", control)["code"] == "bad_arguments"
    assert control.done == []


def test_a_model_may_say_that_the_caller_wants_no_more_calls_where_wishes_are_heard() -> None:
    for definition, done in ((DEFINITION.heeding(), ["wished"]), (DEFINITION, [])):
        control = Control()
        call = ToolCall("1", "do_not_call", {"words": "lose this number, pal"})
        asyncio.run(perform(call, definition, control, Http()))
        assert [name for name, _ in control.done] == done
        assert ("do_not_call" in [spec.name for spec in tool_specs(definition)]) == bool(done)
