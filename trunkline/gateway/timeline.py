"""What happened in a call, in order, for people: from its whole record (GET /v1/calls/ID). Plain values.

An entry has `at`, `after_ms` (since the call's start), a `kind` to show it by, a `text` of one line, and `data` as the
record has it. The steps of a SIP ladder, which is recorded at the end, stand where they happened.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from trunkline.compliance.money.invoice import invoice
from trunkline.ports import RECORDED
from trunkline.privacy.calls import TOOLS_USED

Entry = dict[str, Any]
Kind = Literal[
    "state",
    "turn",
    "transfer",
    "consent",
    "decision",
    "stir",
    "sip",
    "media",
    "cost",
    "recording",
    "agent",
    "operator",
    "error",
    "other",
]
KINDS: Sequence[str] = Kind.__args__  # type: ignore[attr-defined]
LADDER = "sip_ladder"
_OF_KIND: Mapping[str, str] = {
    "state": "answered resumed dialling dialled ringing progress early_media waiting held answered_by carrier_status"
    " arrived armed voicemail stream_status carrier_found leg_named carrier_busy",
    "transfer": "transfer transfer_attempt refer refer_asked refer_followed refers_more leg_dialled leg_ended joined"
    " left notified leg_changed call_back_wanted",
    "consent": "consent disclosed opted_out",
    "decision": "decision refused turned_away hand_off_refused",
    "stir": "stir",
    "media": "media sip_media",
    "cost": "cost wrap_up budget_spent cheaper_route unknown_price",
    "recording": f"{RECORDED} recording_opened recording_played",
    "agent": "agent_changed language message dtmf_sent secure_entry help_line speculation context_summarised"
    " context_left_out",
    "operator": "operator",
    "error": "crashed stt_failed reply_failed filler_failed line_unspoken model_lost model_refused hand_off_failed"
    " context_not_summarised opt_out_unwritten carrier_refused carrier_unclear carrier_twice",
}
_KIND = {event: kind for kind, events in _OF_KIND.items() for event in events.split()}
_LATENCIES = ("endpointing", "stt", "llm", "tts", "total", "barge_in")


def timeline(record: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON: `entries` in order, `cost` as an invoice, `media` of each leg that told, and `recording`. `record`: as
    store.records gives it, whole."""
    begin = _time(record["started_at"])
    events: Sequence[Mapping[str, Any]] = record.get("events", ())
    tools = {event["data"].get("turn"): event["data"].get("tools", []) for event in events if _is(event, TOOLS_USED)}
    found = [_entry(begin, begin, "state", _begun(record), {})]
    for event in events:
        if event["kind"] == LADDER:
            found += _ladder(begin, event)
        elif event["kind"] != TOOLS_USED:
            found.append(_of_event(begin, event))
    found += [_of_turn(begin, turn, tools.get(turn["index"], [])) for turn in record.get("turns", ())]
    if record.get("ended_at") is not None:
        ended = {name: record.get(name) for name in ("end_reason", "ended_by", "end_detail", "provider_code")}
        by = f" by the {ended['ended_by']}" if ended["ended_by"] else ""
        found.append(_entry(begin, _time(record["ended_at"]), "state", f"ended: {ended['end_reason']}{by}", ended))
    found.sort(key=lambda entry: entry["at"])  # stable: what the record tells first stays first
    return {
        "id": record["id"],
        "entries": found,
        "cost": invoice(record.get("costs", ())),
        "media": [dict(event["data"]) for event in events if event["kind"] in ("sip_media", "media")],
        "recording": recording_of(record),
    }


def _entry(begin: datetime, at: datetime, kind: str, text: str, data: Mapping[str, Any], event: str = "") -> Entry:
    entry = {"at": at.isoformat(), "after_ms": round((at - begin).total_seconds() * 1000), "kind": kind, "text": text}
    return entry | ({"event": event} if event else {}) | {"data": dict(data)}


def _begun(record: Mapping[str, Any]) -> str:
    parties = f"{record.get('from_number') or 'withheld'} to {record.get('to_number') or 'no number'}"
    return f"{record.get('direction')} call over {record.get('leg')}, {parties}, for {record.get('agent')}"


def _of_turn(begin: datetime, turn: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Entry:
    """At its end. `tools`: with arguments, where the record has them."""
    latency = {name: turn.get(f"{name}_ms") for name in _LATENCIES}
    told = ("index", "caller_text", "agent_text", "cut_text", "understood", "keyed", "interrupted", "heard_exact")
    data = {name: turn.get(name) for name in told}
    data |= {"latency_ms": latency, "tools": list(tools) or [{"name": name} for name in turn.get("tools", ())]}
    took = f", {latency['total']:.0f} ms" if latency["total"] is not None else ""
    cut = ", interrupted" if turn.get("interrupted") else ""
    return _entry(begin, _time(turn["at"]), "turn", f"turn {turn['index']}{took}{cut}", data)


def _of_event(begin: datetime, event: Mapping[str, Any]) -> Entry:
    name, data = event["kind"], event["data"] or {}
    text = _TEXTS.get(name, _plain)(data)
    shown = name.replace("_", " ") + (f": {text}" if text else "")
    return _entry(begin, _time(event["at"]), _KIND.get(name, "other"), shown, data, name)


def _ladder(begin: datetime, event: Mapping[str, Any]) -> list[Entry]:
    """It is told with its last step."""
    steps = (event["data"] or {}).get("steps", ())
    if not steps:
        return []
    first = _time(event["at"]) - timedelta(milliseconds=steps[-1]["at_ms"])
    return [
        _entry(
            begin,
            first + timedelta(milliseconds=step["at_ms"]),
            "sip",
            f"{'from' if step['inbound'] else 'to'} {step['peer']}: {step['what']}"
            + (f" ({step['repeated']} more)" if step.get("repeated") else ""),
            step,
            LADDER,
        )
        for step in steps
    ]


def _is(event: Mapping[str, Any], kind: str) -> bool:
    return bool(event["kind"] == kind and event["data"])


def _time(at: str) -> datetime:
    return datetime.fromisoformat(at)


# --- a line of each ---


def _plain(data: Mapping[str, Any]) -> str:
    """What is short, as it is."""
    said = (f"{name} {value}" for name, value in data.items() if isinstance(value, str | int | float) and value != "")
    return ", ".join(said)[:200]


def _decided(data: Mapping[str, Any]) -> str:
    why = f": {data['code']} ({data['why']})" if data.get("code") else ""
    return f"{data.get('door')} {'refused' if data.get('decision') == 'refuse' else 'allowed'}{why}"


def _refused(data: Mapping[str, Any]) -> str:
    to = f" to {data['target']}" if data.get("target") else ""
    return f"{data.get('door', '')}{to}: {data.get('code')} ({data.get('why')})".lstrip(":")


def _consent(data: Mapping[str, Any]) -> str:
    return f"{data.get('state')} for {', '.join(data.get('doors', ()))} by {data.get('via')}"


def _disclosed(data: Mapping[str, Any]) -> str:
    lines = data.get("lines", ())
    return ", ".join(f"{line['line']}{'' if line['whole'] else ' (not whole)'}" for line in lines)


def _stir(data: Mapping[str, Any]) -> str:
    attest = f", attested {data['attest']}" if data.get("attest") else ""
    return f"{data.get('verdict')}{attest}" + (f" ({data['reason']})" if data.get("reason") else "")


def _sounded(data: Mapping[str, Any]) -> str:
    told = (
        ("MOS", data.get("mos"), ""),
        ("loss", data.get("in_loss_percent"), " %"),
        ("jitter", data.get("in_jitter_ms", data.get("jitter_ms")), " ms"),
        ("round trip", data.get("rtt_ms"), " ms"),
    )
    return ", ".join(f"{name} {value}{unit}" for name, value, unit in told if value is not None)


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "decision": _decided,
    "refused": _refused,
    "consent": _consent,
    "disclosed": _disclosed,
    "stir": _stir,
    "media": _sounded,
    "sip_media": _sounded,
    RECORDED: lambda data: f"{data.get('audio_bytes')} bytes" + (f", {data['failed']}" if data.get("failed") else ""),
}

# --- the recording ---


def recording_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """`made`: there was one; `may_be_played`, or `why` not, by what was agreed to last."""
    events: Sequence[Mapping[str, Any]] = record.get("events", ())
    made = any(_is(event, RECORDED) for event in events)
    state = None
    for event in events:
        if not _is(event, "consent"):
            continue
        if "doors" not in event["data"]:
            state = "sealed"  # its key is away: nobody knows
        elif "record" in event["data"]["doors"]:
            state = event["data"].get("state")
    agreed = state in (None, "granted")
    why = "" if agreed else f"recording: consent was {state}"
    return {"made": made, "may_be_played": made and agreed, "why": why or ("" if made else "nothing was recorded")}
