"""The keys of an agent's file: every key once, with its kind, default, limits and meaning.

The reader, the checker's suggestions and the tables of docs/agent-script.md all come from here.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from trunkline.agents.definition import (
    AgentDefinition,
    ContextTerms,
    Failover,
    ProviderChoice,
    RealtimeTerms,
    TransferTerms,
    TurnTaking,
)
from trunkline.agents.script.lines import Path

Severity = Literal["error", "warning"]
Kind = Literal["text", "texts", "list", "flag", "whole", "number", "table", "tables", "ranked", "any"]
"""`texts`: one text or a list of them, read as a tuple. `list`: a list of texts. `tables`: [[name]]. `ranked`: [name],
or [[name]] several times, the preferred first."""

Report = Callable[[Path, str, Severity], None]

MAX_TEXT = 2000  # a reply of two minutes: nobody listens longer
MAX_RANKED = 5  # nobody waits for a sixth
MAX_ENTRIES = 500  # phrases of an intent, values of a slot: beyond this no one can tell them apart by ear


@dataclass(frozen=True, slots=True)
class Key:
    kind: Kind
    meaning: str
    default: Any = None
    required: bool = False
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()


Keys = Mapping[str, Key]

_DEFAULTS = {f.name: f.default for f in fields(AgentDefinition)}
_TURNS, _TERMS, _FAILOVER = TurnTaking(), TransferTerms(), Failover()
_REALTIME = RealtimeTerms(ProviderChoice(""))
_CONTEXT = ContextTerms()


def _turn(name: str, low: int, high: int, meaning: str) -> Key:
    return Key("whole", meaning, getattr(_TURNS, name), low=low, high=high)


def _failover(name: str, low: int, high: int, meaning: str) -> Key:
    return Key("whole", meaning, getattr(_FAILOVER, name), low=low, high=high)


_LINES = ("greeting", "goodbye", "no_input", "filler", "apology", "failure")
_TRANSLATED = ("variables", "intents", "slots", "digits", "tools", "fallback", "words")

FILE: Keys = {
    "name": Key("text", "What the agent is called in lists and records.", required=True),
    "language": Key("text", "The language the agent speaks and hears: a tag such as `en-US`.", _DEFAULTS["language"]),
    "languages": Key("table", "Further languages: `[languages.es-ES]`, see below."),
    "greeting": Key("text", "The first thing a caller hears.", required=True),
    "greeting_interruptible": Key("flag", "Whether the caller may talk over the greeting.", True),
    "goodbye": Key("text", "Spoken before the agent hangs up.", _DEFAULTS["goodbye"]),
    "no_input": Key("list", "Spoken when the caller stays silent: first, second; then goodbye.", _DEFAULTS["no_input"]),
    "filler": Key("list", "Spoken while an answer takes long: first, second, ...", _DEFAULTS["filler"]),
    "apology": Key("text", "Spoken when something broke and the caller may try again.", _DEFAULTS["apology"]),
    "failure": Key("text", "Spoken when nothing works any more; then the call ends.", _DEFAULTS["failure"]),
    "stt": Key("ranked", "Who hears: `provider`, and its own options. `[[stt]]`: several, see below."),
    "llm": Key("ranked", "Who decides what to say: `provider`, and its own options. `[[llm]]`: several, see below."),
    "tts": Key("ranked", "Who speaks: `provider`, and its own options. `[[tts]]`: several, see below."),
    "failover": Key("table", "When the next of several providers is asked, and what happens when none is left."),
    "background": Key("flag", "A soft sound while a tool or a slow model works.", _DEFAULTS["background"]),
    "realtime": Key(
        "table", "One model that hears, thinks and speaks, in place of the three: see [models](models.md)."
    ),
    "turns": Key("table", "When the caller has finished, and when the line is dead."),
    "turn_detector": Key(
        "table", "Who tells from their words whether the caller has finished: `provider`, and its own options."
    ),
    "targets": Key(
        "table", 'Where calls may be transferred: `reception = "+12025550123"`, or a table: `[targets.reception]`.'
    ),
    "agents": Key("table", "Other agents that calls may be handed to: `[agents.billing]`."),
    "context": Key("table", "How much of a long conversation the model is told as it was said, the rest as a summary."),
    "variables": Key("table", 'Texts of your own for replies: `address = "12 Elm Street"` is spoken by `{address}`.'),
    "hours": Key("table", "Opening hours."),
    "intents": Key("tables", "What callers may want."),
    "slots": Key("table", "Lists of things a caller may name: `[slots.day]`."),
    "digits": Key("table", "Numbers a caller keys or says: `[digits.appointment]`."),
    "tools": Key("table", "What the agent may do beyond talking: `[tools.lookup]`."),
    "fallback": Key("table", "What happens when the agent does not understand."),
    "words": Key("table", "The words for yes, no, repeat and goodbye, in place of ours."),
}

LANGUAGE: Keys = {
    **{name: replace(FILE[name], default=None, required=False) for name in _LINES},
    "failover": Key("table", "`message` in this language, where `last_resort` is that."),
    "stt": Key("ranked", "Other ears: `provider` and its options, or several; or only what is other than in `[stt]`."),
    "llm": Key("ranked", "Another mind, in the same way."),
    "tts": Key("ranked", "Another voice, in the same way: `voice = ...` alone is enough."),
    **{name: FILE[name] for name in _TRANSLATED},
}
LANGUAGE_FAILOVER: Keys = {"message": Key("text", "What callers are asked.")}

REALTIME: Keys = {
    "provider": Key("text", "Name of the provider.", required=True),
    "turns": Key(
        "text",
        "Who decides when the caller has finished, and when the agent is interrupted: we, or the model's server.",
        _REALTIME.turns,
        choices=("ours", "server"),
    ),
    "lines": Key(
        "text",
        "Who speaks the fixed lines of this file: the model, asked to say them, or `[tts]`, word for word.",
        _REALTIME.lines,
        choices=("model", "tts"),
    ),
    "session_minutes": Key(
        "whole",
        "Before a session is this old the call moves to a new one, with what was said.",
        _REALTIME.session_minutes,
        low=1,
        high=1440,
    ),
    "first_audio_ms": Key(
        "whole",
        "The longest wait for an answer to begin: a new session is asked then, and after that the cascade.",
        _REALTIME.first_audio_ms,
        low=50,
        high=60000,
    ),
    "reconnect_ms": Key(
        "whole",
        "The longest time without a session, as a call begins and when one breaks. A caller who waits for an answer"
        " gets it from the cascade after a second.",
        _REALTIME.reconnect_ms,
        low=0,
        high=60000,
    ),
    "fallback": Key(
        "flag",
        "Whether a call whose model is lost goes on with `[stt]`, `[llm]` and `[tts]`. Else: the last resort.",
        _REALTIME.fallback,
    ),
}

PROVIDER: Keys = {"provider": Key("text", "Name of the provider.", required=True)}

TURNS: Keys = {
    "endpointing_min_ms": _turn("endpointing_min_ms", 100, 2000, "Silence after a phrase that is surely complete."),
    "endpointing_ms": _turn("endpointing_ms", 200, 5000, "Silence after words that may go on."),
    "endpointing_max_ms": _turn("endpointing_max_ms", 500, 10000, "The longest silence the agent waits out."),
    "no_input_ms": _turn("no_input_ms", 2000, 60000, "Silence of the caller before `no_input` is spoken."),
    "digit_gap_ms": _turn("digit_gap_ms", 500, 20000, "This long after the last key, the number is complete."),
    "max_duration_s": _turn("max_duration_s", 10, 14400, "The longest call."),
    "reply_deadline_ms": _turn("reply_deadline_ms", 1000, 60000, "The longest wait for an answer before `apology`."),
    "filler_after_ms": _turn("filler_after_ms", 500, 10000, "Silence after the caller's turn before `filler`."),
    "speculate": Key(
        "flag",
        "Ask the model while the end of the turn is awaited, once the words seem whole. What is asked in vain is paid.",
        _TURNS.speculate,
    ),
}

FAILOVER: Keys = {
    "first_word_ms": _failover("first_word_ms", 200, 20000, "Without a word of the model by then, the next is asked."),
    "first_audio_ms": _failover("first_audio_ms", 100, 10000, "Without a sound of the voice by then."),
    "stall_ms": _failover("stall_ms", 200, 10000, "Without more of either, once it has begun."),
    "final_ms": _failover("final_ms", 200, 4000, "Without the words of a caller who has finished."),
    "lifeboat": Key(
        "flag", "Behind providers elsewhere stand the script and the local speech, where installed.", _FAILOVER.lifeboat
    ),
    "last_resort": Key(
        "text",
        "When nothing works any more, after `failure`. Where it is not given and `[fallback]` has a `transfer`: that, "
        "after the first `reply` there.",
        _FAILOVER.last_resort,
        choices=("hang_up", "transfer", "message"),
    ),
    "target": Key("text", "transfer: a name of `[targets]`. Without it that of `[fallback]`."),
    "message": Key("text", "message: what callers are asked.", _FAILOVER.message),
    "message_s": _failover("message_s", 5, 600, "message: how long they may speak, in seconds."),
}

TARGET: Keys = {
    "address": Key("text", "The number: `+12025550123`.", required=True),
    "kind": Key(
        "text",
        "How callers get there where nobody asks for another way: see [transfers](transfer.md).",
        _TERMS.kind,
        choices=("auto", "blind", "attended", "bridged", "warm"),
    ),
    "summary": Key("text", "warm, attended: what the representative hears first.", "what the caller said last"),
    "prompt": Key(
        "text", "warm, attended: how they are asked. 1 and yes take the call, 2 and no decline it.", "asks just that"
    ),
    "ring_seconds": Key("whole", "How long it rings.", _TERMS.ring_s, low=5, high=120),
    "fallback": Key("text", "Who is tried next when nobody is reached: another name of `[targets]`."),
    "after_target": Key(
        "text",
        "When the representative hangs up first: the end, or back with the agent.",
        _TERMS.after_target,
        choices=("end_call", "resume"),
    ),
    "detect_voicemail": Key(
        "flag", "Bring callers back from a machine that answers. Not for queues and menus.", _TERMS.detect_voicemail
    ),
}

AGENT: Keys = {
    "file": Key("text", "The other agent's file, seen from this one. Must be given in a file."),
    "agent": Key("text", "In an AI agent of the desk, instead: the name of another one there, which is published."),
    "when": Key("text", "What it is for: `questions about invoices`. The model decides by it.", required=True),
    "greeting": Key("text", "What it says first then.", "it answers what the caller said last"),
    "summary": Key("text", "What its model is told before the conversation.", ""),
}

CONTEXT: Keys = {
    "max_tokens": Key(
        "whole",
        "Above so many tokens of conversation, estimated, its beginning is summarised.",
        _CONTEXT.max_tokens,
        low=200,
        high=1000000,
    ),
    "keep_messages": Key(
        "whole", "The latest messages, told whole unless far too long.", _CONTEXT.keep_messages, low=2, high=500
    ),
    "deadline_ms": Key("whole", "The longest wait for a summary.", _CONTEXT.deadline_ms, low=500, high=120000),
    "llm": Key("table", "Who summarises: `provider`, and its own options, as in `[llm]`.", "the agent's model"),
}

HOURS: Keys = {
    "time_zone": Key("text", "Where the clock on your wall is, such as America/New_York.", required=True),
    **{
        day: Key("text", f"{day.capitalize()}: `08:00-12:00, 13:00-17:00` or `closed`.", "closed")
        for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    },
    "closed_days": Key("any", "Days without opening: `[2026-12-25, 2027-01-01]`.", ()),
}

_ACTIONS: Keys = {
    "transfer": Key("text", "Then put the caller through to this name of `[targets]`."),
    "tool": Key("text", "Then use this tool: a name of `[tools]`, or `hang_up`."),
    "hand_off": Key("text", "Then hand the call to this name of `[agents]`."),
}

INTENT: Keys = {
    "name": Key("text", "A name of your own: lowercase letters, digits and _.", required=True),
    "description": Key("text", "One line on what this is for (a language model reads it).", ""),
    "phrases": Key("list", "How callers say it, each at its most natural.", ()),
    "key": Key("text", "A key of the keypad that means the same: `0` to `9`."),
    "anywhere": Key("flag", "Also listened for while a question of ours is open.", False),
    "ask": Key("texts", "What must be known first: names of `[slots]` and `[digits]`, asked in this order.", ()),
    "confirm": Key("text", "A yes-or-no question asked before anything is said or done."),
    "declined": Key("text", "Spoken when the answer to `confirm` is no.", "All right."),
    "reply": Key("texts", "What the agent says. A list is spoken in turn, one each time.", ()),
    "reply_closed": Key("texts", "Spoken instead outside the opening hours; nothing else is asked or done then.", ()),
    "language": Key("text", "Go on in this language, one of `[languages]` or the first; `reply` is spoken in it."),
    **_ACTIONS,
}

SLOT: Keys = {
    "values": Key("any", 'The things: a list, or a table of each with other words for it: `"Dr. Lee" = ["lee"]`.'),
    "prompt": Key("text", "How the agent asks for it."),
}

DIGITS: Keys = {
    "prompt": Key("text", "How the agent asks for the number.", required=True),
    "min": Key("whole", "How many digits at least.", 1, low=1, high=32),
    "max": Key("whole", "How many digits at most.", 32, low=1, high=32),
    "pattern": Key("text", "A regular expression the digits must match, such as `[1-9][0-9]{3}`."),
    "spoken": Key("flag", "Whether the number may also be spoken; it is then read back.", False),
    "confirm": Key("text", "How a spoken number is read back.", "I heard {digits}. Is that right?"),
    "invalid": Key(
        "text", "Spoken when the number cannot be right; then `prompt` again.", "That is not a valid number."
    ),
    "reply": Key("texts", "What the agent says then, unless the intent that asked has a reply.", ()),
    **_ACTIONS,
}

TOOL: Keys = {
    "type": Key(
        "text",
        "What it does.",
        required=True,
        choices=("hang_up", "transfer", "hand_off", "send_dtmf", "call_back", "http"),
    ),
    "description": Key("text", "One line on when to use it (a language model reads it).", ""),
    "error": Key("text", "Spoken when it fails or is refused.", "I'm sorry, that did not work."),
    "target": Key("text", "transfer: a name of `[targets]`."),
    "agent": Key("text", "hand_off: a name of `[agents]`."),
    "digits": Key("text", "send_dtmf: the keys to send, `0-9 * # A-D`; `w` waits half a second."),
    "url": Key("text", "http: the address; `{names}` in its path or query are filled in and encoded."),
    "method": Key("text", "http: the method.", "GET", choices=("GET", "POST", "PUT", "PATCH", "DELETE")),
    "headers": Key("table", "http: headers; `{key:NAME}` is a key from the gateway's settings.", {}),
    "body": Key("table", "http: sent as JSON; `{names}` in its texts are filled in.", {}),
    "timeout_ms": Key("whole", "http: how long it may take.", 3000, low=100, high=30000),
    "max_bytes": Key("whole", "http: how long the answer may be.", 65536, low=1, high=1048576),
    "result": Key("table", 'http: variables out of the JSON answer: `time = "appointment.time"`.', {}),
    "wait": Key("text", "http: spoken while waiting.", ""),
    "secure": Key(
        "table",
        'http: digits that are keyed for this tool alone, with how many: `card_number = "13-19"`. Neither the model, '
        "the record nor a recording gets them; `{names}` in the body stand for them.",
        {},
    ),
    "prompt": Key(
        "text",
        "http: spoken before they are keyed, where the agent is no realtime model.",
        "Please key it in now, and then the pound key.",
    ),
}

TOOL_KEYS_BY_TYPE: Mapping[str, frozenset[str]] = {
    "hang_up": frozenset(),
    "transfer": frozenset({"target"}),
    "hand_off": frozenset({"agent"}),
    "send_dtmf": frozenset({"digits"}),
    "call_back": frozenset(),
    "http": frozenset(
        {"url", "method", "headers", "body", "timeout_ms", "max_bytes", "result", "wait", "secure", "prompt"}
    ),
}

FALLBACK: Keys = {
    "not_understood": Key(
        "list",
        "Spoken the first, second, third time in a row that the agent does not understand.",
        ("I'm sorry, I did not understand. Please say that again.", "I'm sorry, I still did not understand."),
    ),
    "reply": Key("texts", "Spoken after that.", ("I'm sorry, I could not understand you.",)),
    "transfer": Key("text", "And then put through to this name of `[targets]`. Without it: `goodbye`, and the end."),
    "no_transfer": Key(
        "text", "Spoken when a transfer or a hand-off is refused.", "I'm sorry, I can't put you through right now."
    ),
}

WORDS: Keys = {
    "yes": Key(
        "list", "Yes.", ("yes", "yeah", "yep", "yes please", "that's right", "that is right", "correct", "right")
    ),
    "no": Key("list", "No.", ("no", "nope", "no thanks", "no thank you", "that's wrong", "that is wrong", "wrong")),
    "repeat": Key(
        "list",
        "Say the last answer again.",
        (
            "[please] repeat that [please]",
            "(can | could) you repeat that [please]",
            "(can | could) you say that again [please]",
            "[please] say that again [please]",
            "what did you say",
            "pardon",
        ),
    ),
    "goodbye": Key(
        "list",
        "End the call.",
        (
            "goodbye",
            "bye [bye]",
            "(thank you | thanks) (goodbye | bye)",
            "no (thank you | thanks) [goodbye | bye]",
            "that's all [thank you | thanks]",
            "hang up",
        ),
    ),
}


def read(table: Mapping[str, Any], keys: Keys, path: Path, report: Report, extra: bool = False) -> dict[str, Any]:
    """The values of `table` that are right, the defaults of the rest. With `extra`, unknown keys are kept as they are.

    Everything wrong is reported once, and its default taken, so that one mistake does not hide the next.
    """
    held = {name: key.default for name, key in keys.items()}
    for name, value in table.items():
        key = keys.get(name)
        if key is not None:
            wrong = fault(key, value)
            if wrong:
                report((*path, name, *wrong[0]), wrong[1], "error")
            else:
                held[name] = (value,) if key.kind == "texts" and isinstance(value, str) else _freeze(key, value)
        elif extra:
            held[name] = value
        else:
            report((*path, name), f"unknown key{nearest(name, keys)}", "error")
    for name, key in keys.items():
        if key.required and name not in table:
            report(path, f"{name} is missing: {key.meaning}", "error")
    return held


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """`; did you mean greeting?`, else the list of what there is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is {', '.join(known)}" if known else ""


def _freeze(key: Key, value: Any) -> Any:
    return tuple(value) if key.kind in ("texts", "list") else value


def fault(key: Key, value: Any) -> tuple[Path, str] | None:
    """Where below the key, and what is wrong with its value."""
    match key.kind:
        case "text":
            return _text_fault(key, value, ())
        case "texts" | "list":
            if isinstance(value, str) and key.kind == "texts":
                return _text_fault(key, value, ())
            if not isinstance(value, list | tuple):
                return (), f"must be a list of texts{' or one text' if key.kind == 'texts' else ''}"
            if len(value) > MAX_ENTRIES:
                return (), f"has {len(value)} entries; at most {MAX_ENTRIES} are allowed"
            return next((f for at, each in enumerate(value) if (f := _text_fault(key, each, (at,)))), None)
        case "flag":
            return None if isinstance(value, bool) else ((), "must be true or false")
        case "whole":
            whole = isinstance(value, int) and not isinstance(value, bool)
            allowed = f"must be a whole number from {key.low} to {key.high}"
            return None if whole and key.low <= value <= key.high else ((), f"is {value!r}; it {allowed}")
        case "number":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            allowed = f"must be a number from {key.low} to {key.high}"
            return None if number and key.low <= value <= key.high else ((), f"is {value!r}; it {allowed}")
        case "table":
            return None if isinstance(value, Mapping) else ((), "must be a table: write it as [name] and keys below")
        case "tables":
            good = isinstance(value, list | tuple) and all(isinstance(each, Mapping) for each in value)
            return None if good else ((), "must be written as [[name]], once for each")
        case "ranked":
            return _ranked_fault(value)
        case "any":
            return None


def _ranked_fault(value: Any) -> tuple[Path, str] | None:
    if isinstance(value, Mapping):
        return None
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, Mapping) for each in value):
        return (), "must be a table, [name], or several, [[name]]"
    return None if len(value) <= MAX_RANKED else ((), f"lists {len(value)}; at most {MAX_RANKED} are allowed")


def _text_fault(key: Key, value: Any, path: Path) -> tuple[Path, str] | None:
    if not isinstance(value, str):
        return path, f"is {value!r}; it must be a text in quotes"
    if not value.strip():
        return path, "is empty"
    if len(value) > MAX_TEXT:
        return path, f"has {len(value)} characters; at most {MAX_TEXT} are allowed"
    if key.choices and value not in key.choices:
        return path, f"is {value!r}{nearest(value, key.choices)}"
    return None
