"""What the gateway's own record says of a call: GET /v1/calls, read leniently."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import httpx

from trunkline.testing.caller.report import CallReport

TRIES, WAIT_S, TIMEOUT_S = 10, 0.2, 5.0  # the record closes shortly after the stream
PAGE, MORE_PAGES = 50, 20  # other calls may lie between ours


async def fetch(http: httpx.AsyncClient, api: str, key: str, call_sid: str) -> Mapping[str, Any] | None:
    """The ended call's record, or the best there is after two seconds; None where it cannot be had."""
    found: Mapping[str, Any] | None = None
    for _ in range(TRIES):
        found = await _once(http, api, key, call_sid) or found
        if found is not None and not found.get("live") and found.get("ended_at", "some time"):
            break
        await asyncio.sleep(WAIT_S)
    return found


async def _once(http: httpx.AsyncClient, api: str, key: str, call_sid: str) -> Mapping[str, Any] | None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = api.rstrip("/") + "/v1/calls"
    page = await _get(http, base, headers)
    calls = page.get("calls") if page else None
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, dict) and call_sid in (call.get("provider_call_id"), call.get("id")):
            return await _get(http, f"{base}/{call.get('id')}", headers)
    return None


async def fetch_all(
    http: httpx.AsyncClient, api: str, key: str, call_sids: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """The records of many ended calls, by call sid; those that cannot be had are absent."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = api.rstrip("/") + "/v1/calls"
    ids: dict[str, str] = {}
    cursor = ""
    for _ in range(len(call_sids) // PAGE + MORE_PAGES):
        query = httpx.QueryParams({"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {}))
        page = await _get(http, f"{base}?{query}", headers) or {}
        for call in page.get("calls") or []:
            for name in (call.get("provider_call_id"), call.get("id")):
                if name in call_sids:
                    ids[str(name)] = str(call.get("id"))
        cursor = page.get("next_cursor") or ""
        if not cursor or len(ids) == len(call_sids):
            break
    found = {sid: await _get(http, f"{base}/{call_id}", headers) for sid, call_id in ids.items()}
    return {sid: record for sid, record in found.items() if record is not None}


async def _get(http: httpx.AsyncClient, url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        response = await http.get(url, headers=headers, timeout=TIMEOUT_S)
        body = response.json() if response.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
    return body if isinstance(body, dict) else None


async def annotate(report: CallReport, http: httpx.AsyncClient, api: str, key: str) -> None:
    """Put what the agent understood and said beside what the caller did. Tolerates any absence."""
    report.record = await fetch(http, api, key, report.call_sid)
    if report.record is not None:
        merge(report, report.record)


def turns_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    turns = record.get("turns") or []
    return [t for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []


def merge(report: CallReport, record: Mapping[str, Any]) -> None:
    """Turn by turn: a record's turn without caller words is the greeting or a prompt and has no turn of ours."""
    turns = turns_of(record)
    spoken = [t for t in turns if t.get("caller_text") or t.get("understood") is False or t.get("keyed")]
    if turns and turns[0] not in spoken[:1]:
        report.greeting = str(turns[0].get("agent_text") or "") or None
    for i, (ours, theirs) in enumerate(zip(report.turns, spoken, strict=False)):
        words = str(theirs.get("caller_text") or "")
        understood = words if theirs.get("understood", True) else f"({words or 'not understood'})"
        report.turns[i] = replace(ours, understood=understood, answered=str(theirs.get("agent_text") or ""))
