"""One call: what happened in it, what was said and heard, what it cost and how it sounded, from its whole record.

Who may not listen sees that there were turns and how long they took, and nothing that was said, keyed or dialled: of
what others wrote into the record only its kind and its time.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from trunkline.gateway.api.calls import CallRecords, LiveCalls
from trunkline.gateway.console.ladder import Ladder, ladder
from trunkline.gateway.console.pages import ROOT, Pages
from trunkline.gateway.console.seeing import NoSuch, page
from trunkline.gateway.console.words import PARTS, WENT_WRONG, hidden_text, mos, parties, reason
from trunkline.gateway.timeline import LADDER, timeline
from trunkline.identity import Principal
from trunkline.types import CallId

SPOKEN_PARTS = tuple(part for part in PARTS if part != "total")
TELLING = frozenset({"state", "stir", "media", "cost", "decision", "consent", "recording"})
"""Kinds of entries whose line is in our words, numbers apart."""
RAW_MAX = 2000
BAR = 200
"""Wide: units of a turn's bar of latencies."""

Play = Callable[[Request], Awaitable[Response]]


def one_call_routes(pages: Pages, records: CallRecords, live: LiveCalls, play: Play | None) -> list[Route]:
    """`play`: answers with the recording, notes who played it, and refuses what was not agreed to."""

    async def show(request: Request, who: Principal) -> Response:
        call_id = CallId(request.path_params["call_id"])
        record = await records.get(who.tenant, call_id)
        now = live.live(call_id)
        is_live = now is not None and now.started.tenant == who.tenant
        if record is None:
            if is_live:
                return RedirectResponse(f"{ROOT}/live/{call_id}", 303)
            raise NoSuch("There is no such call. It may have been deleted when its time was over.")
        return pages.answer(request, "call.html", seen(record, who) | {"is_live": is_live})

    routes = [page(pages, "calls/{call_id}", "read", show)]
    if play is not None:

        async def recording(request: Request, who: Principal) -> Response:
            return await play(request)

        routes.append(page(pages, "calls/{call_id}/recording", "listen", recording))
    return routes


def seen(record: Mapping[str, Any], who: Principal) -> dict[str, Any]:
    """What the page shows."""
    told, hears = timeline(record), who.may("listen")
    turns = [entry["data"] for entry in told["entries"] if entry["kind"] == "turn"]
    longest = max((turn["latency_ms"]["total"] or 0 for turn in turns), default=0)
    entries = [_entry(entry, hears=hears, longest=longest) for entry in told["entries"] if entry["kind"] != "sip"]
    steps = [
        step
        for event in record.get("events", ())
        if event["kind"] == LADDER and event["data"]
        for step in event["data"].get("steps", ())
    ]
    came = "a call came in" if record.get("direction") == "inbound" else "we called"
    entries[0]["text"] = f"{came} over {record.get('leg')}"
    if record.get("ended_at") is not None:
        end = next(entry for entry in reversed(entries) if entry["kind"] == "state" and not entry.get("event"))
        end["text"] = f"over: {reason(record.get('end_reason'))}"
    return {
        "call": {**record, **parties(record, in_full=hears), "went_wrong": record.get("end_reason") in WENT_WRONG},
        "entries": entries,
        "decisions": [entry for entry in entries if entry["kind"] in ("decision", "consent", "stir")],
        "cost": told["cost"],
        "media": [_sounded(each) for each in told["media"]],
        "recording": told["recording"],
        "ladder": _ladder(steps, hears=hears),
        "raw": _raw(record) if hears else None,
        "hears": hears,
        "parts": {part: PARTS[part] for part in SPOKEN_PARTS},
        "has_turns": bool(turns),
    }


def _entry(entry: Mapping[str, Any], *, hears: bool, longest: float) -> dict[str, Any]:
    shown = dict(entry)
    if entry["kind"] == "turn":
        turn = dict(entry["data"])
        shown["bar"] = bar(turn["latency_ms"], longest)
        if not hears:
            turn |= {"caller_text": "", "agent_text": "", "cut_text": "", "tools": []}
        shown["turn"] = turn
    else:
        shown["text"] = entry["text"].removeprefix(f"{entry['kind']}: ").removeprefix("sip media: ")
    if entry["kind"] != "turn" and not hears:
        text = shown["text"] if entry["kind"] in TELLING else str(entry.get("event", "")).replace("_", " ")
        shown["text"] = hidden_text(text)
    shown["data"] = {}
    return shown


def bar(latency_ms: Mapping[str, float | None], longest_ms: float) -> list[dict[str, Any]]:
    """The parts of a turn one behind the other: where each begins and how wide it is, of BAR. Parts overlap where the
    model begins before the turn is over: then the bar is longer than the total says, and cut at BAR."""
    scale = BAR / longest_ms if longest_ms > 0 else 0.0
    found, at = [], 0.0
    for part in SPOKEN_PARTS:
        ms = latency_ms.get(part)
        if ms is None or ms <= 0 or at >= BAR:
            continue
        wide = min(ms * scale, BAR - at)
        found.append({"part": part, "x": round(at, 1), "width": round(wide, 1), "ms": ms})
        at += wide
    return found


def _sounded(media: Mapping[str, Any]) -> dict[str, Any]:
    word, look = mos(media.get("mos"))
    return {
        "leg": media.get("leg") or media.get("peer") or "the line",
        "codec": media.get("codec", ""),
        "mos": media.get("mos"),
        "word": word,
        "look": look,
        "jitter_ms": media.get("in_jitter_ms", media.get("jitter_ms")),
        "loss_percent": media.get("in_loss_percent"),
        "out_loss_percent": media.get("out_loss_percent"),
        "rtt_ms": media.get("rtt_ms"),
    }


def _ladder(steps: Sequence[Mapping[str, Any]], *, hears: bool) -> Ladder | None:
    if hears:
        return ladder(steps)
    return ladder([{**step, "peer": "the other side"} for step in steps])


def _raw(record: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"at": event["at"], "kind": event["kind"], "data": json.dumps(event["data"], ensure_ascii=False, indent=2)}
        for event in record.get("events", ())[:RAW_MAX]
    ]
