"""What an agent may do beyond talking: the tools as a model sees them, and their performance on a call.

A tool never raises into the conversation: its outcome is JSON text, `{"ok": true, ...}` or
`{"ok": false, "code": ..., "why": ...}`, that the script or the model goes on from.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.languages import SPEAK_LANGUAGE
from trunkline.agents.script import template
from trunkline.agents.script.model import HAND_OFF, HANG_UP, TRANSFER, Script, Tool
from trunkline.agents.script.review import OF_THE_CALL, texts_of
from trunkline.agents.tools.http import HttpToolError, HttpTools
from trunkline.ports import CallControl, Refuse, ToolCall, ToolSpec, Wish
from trunkline.privacy.redaction import CARDS, redact
from trunkline.privacy.sensitive import Sensitive

__all__ = ["HttpRunner", "HttpToolError", "HttpTools", "perform", "tool_specs"]

DO_NOT_CALL = "do_not_call"
"""The built-in tool by which a model says that the caller wants no more calls. It can only add to what is heard."""
_MAX_ARGUMENT_CHARACTERS = 500


@runtime_checkable
class Collects(Protocol):
    """An agent's hands that have a keypad to listen to."""

    async def collect(self, name: str, least: int, most: int) -> Sensitive | None: ...


class HttpRunner(Protocol):
    async def run(self, tool: Tool, values: Mapping[str, str]) -> dict[str, str] | str: ...


def tool_specs(definition: AgentDefinition) -> tuple[ToolSpec, ...]:
    """The tools of the file, `hang_up` and `transfer` where the file has none for that, and `speak_language` for an
    agent of several. All have effects."""
    script = Script.of(definition)
    specs = [
        ToolSpec(tool.name, tool.description or _purpose(tool), _schema(script, tool)) for tool in script.tools.values()
    ]
    kinds = {tool.type for tool in script.tools.values()}
    if HANG_UP not in kinds:
        specs.append(ToolSpec(HANG_UP, "End the call, after saying goodbye.", _object({})))
    reached = {tool.target for tool in script.tools.values() if tool.type == TRANSFER}
    targets = [name for name in definition.targets if name not in reached]
    if targets:
        target = {"type": "string", "enum": targets, "description": "Whom to put the caller through to."}
        specs.append(ToolSpec(TRANSFER, "Put the caller through to a person.", _object({"target": target})))
    if definition.languages:  # performed by the attendant: what changes is its own
        language = {"type": "string", "enum": list(definition.tags), "description": "The language from now on."}
        specs.append(
            ToolSpec(
                SPEAK_LANGUAGE,
                "Go on in another language, before you say a word in it.",
                _object({"language": language}),
            )
        )
    if definition.heeds:
        words = {"type": "string", "description": "What the caller said, word for word."}
        purpose = (
            "The caller, in whatever words, does not want to be called again or wants to be off the list. The call is "
            "ended for you, with a confirmation."
        )
        specs.append(ToolSpec(DO_NOT_CALL, purpose, _object({"words": words})))
    handed = {tool.agent for tool in script.tools.values() if tool.type == HAND_OFF}
    agents = [name for name in definition.agents if name not in handed]
    if agents:
        specs.append(_hand_off(definition, agents))
    return tuple(specs)


def _hand_off(definition: AgentDefinition, agents: Sequence[str]) -> ToolSpec:
    whom = " ".join(f"{name}: {definition.agents[name].when.rstrip('.')}." for name in agents)
    properties = {
        "agent": {"type": "string", "enum": list(agents), "description": whom},
        "reason": {"type": "string", "description": "What the caller wants, in a sentence, for that agent."},
    }
    purpose = "Hand the call to another agent, who knows what was said. Say in a few words that you do."
    return ToolSpec(HAND_OFF, purpose, {**_object(properties), "required": ["agent"]})


def needed_values(script: Script, tool: Tool) -> tuple[str, ...]:
    """The names a tool's url and body need from the conversation, in order; `[variables]` are known anyway."""
    texts = [tool.url, *(text for _, text in texts_of(tool.body))]
    names = [name for text in texts for name in template.variables(text)]
    given = {*script.variables, *OF_THE_CALL, *tool.secure}
    return tuple(dict.fromkeys(name for name in names if name not in given))


def secure_prompt(definition: AgentDefinition, name: str) -> str:
    """What is said before digits are keyed for the tool of this name; empty: none are."""
    tool = Script.of(definition).tools.get(name)
    return tool.prompt if tool is not None and tool.secure else ""


async def perform(
    call: ToolCall,
    definition: AgentDefinition,
    control: CallControl,
    http: HttpRunner,
    *,
    caller_number: str | None = None,
    caller_verified: bool = False,
) -> str:
    """Do what `call` asks for and say how it went, as JSON text. Raises nothing of the tool's own."""
    script = Script.of(definition)
    if call.name == DO_NOT_CALL and definition.heeds:
        control.wished(Wish("do_not_call", str(call.arguments.get("words", ""))[:_MAX_ARGUMENT_CHARACTERS], "speech"))
        return _done()
    tool = script.tools.get(call.name)
    if tool is None:
        tool = _built_in(call)
    if tool is None:
        return _failed("unknown_tool", f"there is no tool {call.name}")
    match tool.type:
        case "hang_up":
            control.hang_up("agent_hung_up")
            return _done()
        case "transfer":
            target = tool.target or ""
            if target not in definition.targets:
                return _failed("bad_arguments", f"there is no target {target}")
            decision = control.transfer(target)
            return _failed("refused", decision.why) if isinstance(decision, Refuse) else _done()
        case "hand_off":
            agent = tool.agent or ""
            if agent not in definition.agents:
                return _failed("bad_arguments", f"there is no agent {agent}")
            decision = control.hand_off(agent)
            if isinstance(decision, Refuse):
                return _failed(decision.code, decision.why)
            return _done({"agent": agent, "then": "that agent goes on with what the caller wants"})
        case "send_dtmf":
            control.send_dtmf(tool.digits or "")
            return _done()
        case "call_back":
            decision = control.call_back()
            return _failed(decision.code, decision.why) if isinstance(decision, Refuse) else _done()
        case _:
            known = caller_number or "", "yes" if caller_verified else "no"
            return await _perform_http(call, script, tool, http, dict(zip(OF_THE_CALL, known, strict=True)), control)


async def _perform_http(
    call: ToolCall, script: Script, tool: Tool, http: HttpRunner, known: Mapping[str, str], control: CallControl
) -> str:
    values = {**script.variables, **known}
    for name in needed_values(script, tool):
        value = call.arguments.get(name)
        wrong = _argument_fault(script, name, value)
        if wrong:
            return _failed("bad_arguments", f"{name} {wrong}")
        values[name] = str(value)
    keyed: list[Sensitive] = []
    for name in tool.secure:
        if not isinstance(control, Collects):
            return _failed("not_supported", "nothing can be keyed in secret here")
        digits = await control.collect(name, *tool.digits_of(name))
        if digits is None:
            return _failed("not_keyed", f"the caller did not key the {name}")
        keyed.append(digits)
    return await _ask(tool, http, values, dict(zip(tool.secure, keyed, strict=True)))


async def _ask(tool: Tool, http: HttpRunner, values: Mapping[str, str], keyed: Mapping[str, Sensitive]) -> str:
    """The answer must not say what was keyed: the model would have it."""
    try:
        answer = _done(await http.run(tool, {**values, **{name: digits.reveal() for name, digits in keyed.items()}}))
    except HttpToolError as error:
        return _failed(error.code, error.why)
    for name, digits in keyed.items():
        answer = answer.replace(digits.reveal(), f"[{name}]")
    return redact(answer, CARDS) if keyed else answer


def _built_in(call: ToolCall) -> Tool | None:
    if call.name == HANG_UP:
        return Tool(HANG_UP, HANG_UP)
    if call.name == TRANSFER:
        return Tool(TRANSFER, TRANSFER, target=str(call.arguments.get("target", "")))
    if call.name == HAND_OFF:
        return Tool(HAND_OFF, HAND_OFF, agent=str(call.arguments.get("agent", "")))
    return None


def _argument_fault(script: Script, name: str, value: Any) -> str | None:
    """A model's argument is checked like a caller's words: what the file lists is all there is."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return "is missing"
    text = str(value)
    if len(text) > _MAX_ARGUMENT_CHARACTERS:
        return f"is longer than {_MAX_ARGUMENT_CHARACTERS} characters"
    if name in script.slots and text not in script.slots[name].vocabulary.values:
        return "is none of its values"
    if name in script.digits and not (re.fullmatch(r"[0-9]+", text) and script.digits[name].valid(text)):
        return "is not a valid number"
    return None


def _schema(script: Script, tool: Tool) -> dict[str, Any]:
    return _object({name: _argument(script, name) for name in needed_values(script, tool)})


def _argument(script: Script, name: str) -> dict[str, Any]:
    if name in script.slots:
        return {"type": "string", "enum": list(script.slots[name].vocabulary.values)}
    if name in script.digits:
        entry = script.digits[name]
        length = str(entry.min) if entry.min == entry.max else f"{entry.min} to {entry.max}"
        return {"type": "string", "description": f"{length} digits, as the caller gave them"}
    return {"type": "string"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _purpose(tool: Tool) -> str:
    return {
        "hang_up": "End the call, after saying goodbye.",
        "transfer": f"Put the caller through to {tool.target}.",
        "hand_off": f"Hand the call to the agent {tool.agent}.",
        "send_dtmf": "Send keypad tones on the line.",
        "call_back": "Note that the caller wants to be called back, at the number they call from.",
    }.get(tool.type, tool.name.replace("_", " ").capitalize() + ".")


def _done(result: dict[str, str] | str | None = None) -> str:
    return json.dumps({"ok": True} if result is None else {"ok": True, "result": result}, ensure_ascii=False)


def _failed(code: str, why: str) -> str:
    return json.dumps({"ok": False, "code": code, "why": why}, ensure_ascii=False)
