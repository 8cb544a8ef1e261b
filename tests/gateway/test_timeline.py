from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trunkline.gateway.timeline import KINDS, recording_of, timeline

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)


def at(seconds: float) -> str:
    return (AT + timedelta(seconds=seconds)).isoformat()


def event(seconds: float, kind: str, **data: Any) -> dict[str, Any]:
    return {"at": at(seconds), "kind": kind, "data": data}


def turn(seconds: float, index: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"at": at(seconds), "index": index, "caller_text": "yes", "agent_text": "We open at"}
    row |= {"cut_text": "", "understood": True, "keyed": False, "interrupted": False, "heard_exact": True, "tools": []}
    row |= {f"{part}_ms": None for part in ("endpointing", "stt", "llm", "tts", "total", "barge_in")}
    return row | more


def record(*events: Any, turns: Any = (), **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": "c",
        "direction": "inbound",
        "leg": "sip",
        "agent": "clinic",
        "started_at": at(0),
        "costs": [],
    }
    row |= {"from_number": "+14155550101", "to_number": "+14155550199", "ended_at": None}
    return row | {"events": list(events), "turns": list(turns)} | more


def lines(found: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(entry["after_ms"], entry["kind"], entry["text"]) for entry in found["entries"]]


def test_a_call_is_told_in_order_and_in_words() -> None:
    steps = [
        {"at_ms": 0, "inbound": True, "what": "INVITE", "cseq": "1", "peer": "udp 192.0.2.1:5060", "repeated": 2},
        {"at_ms": 9000, "inbound": True, "what": "BYE", "cseq": "2", "peer": "udp 192.0.2.1:5060", "repeated": 0},
    ]
    found = timeline(
        record(
            event(0.1, "stir", verdict="passed", attest="A", reason=None),
            event(0.2, "decision", door="answer", decision="allow", code="", why=""),
            event(0.3, "answered"),
            event(1, "consent", state="granted", doors=["record", "transcript"], via="keypad"),
            event(2, "refused", door="transfer", target="desk", code="hours", why="closed"),
            event(5, "tools_used", turn=1, tools=[{"name": "book", "arguments": {"day": "mon"}, "outcome": "ok"}]),
            event(8, "sip_media", mos=4.1, in_loss_percent=0.5, in_jitter_ms=3.0, rtt_ms=None),
            event(9, "sip_ladder", steps=steps),
            event(9, "something_new", much=1),
            turns=[
                turn(4, 0, interrupted=True, cut_text="eight.", total_ms=512.4, stt_ms=20.0),
                turn(5, 1, tools=["book"]),
            ],
            ended_at=at(9),
            end_reason="caller_hung_up",
            ended_by="caller",
        )
    )
    assert lines(found) == [
        (0, "state", "inbound call over sip, +14155550101 to +14155550199, for clinic"),
        (0, "sip", "from udp 192.0.2.1:5060: INVITE (2 more)"),
        (100, "stir", "stir: passed, attested A"),
        (200, "decision", "decision: answer allowed"),
        (300, "state", "answered"),
        (1000, "consent", "consent: granted for record, transcript by keypad"),
        (2000, "decision", "refused: transfer to desk: hours (closed)"),
        (4000, "turn", "turn 0, 512 ms, interrupted"),
        (5000, "turn", "turn 1"),
        (8000, "media", "sip media: MOS 4.1, loss 0.5 %, jitter 3.0 ms"),
        (9000, "sip", "from udp 192.0.2.1:5060: BYE"),
        (9000, "other", "something new: much 1"),
        (9000, "state", "ended: caller_hung_up by the caller"),
    ]
    first, second = (entry["data"] for entry in found["entries"] if entry["kind"] == "turn")
    assert (first["agent_text"], first["cut_text"]) == ("We open at", "eight.")
    assert (first["latency_ms"]["stt"], first["latency_ms"]["total"], first["latency_ms"]["llm"]) == (20.0, 512.4, None)
    assert second["tools"] == [{"name": "book", "arguments": {"day": "mon"}, "outcome": "ok"}]
    assert {entry["kind"] for entry in found["entries"]} <= set(KINDS)
    assert found["media"] == [{"mos": 4.1, "in_loss_percent": 0.5, "in_jitter_ms": 3.0, "rtt_ms": None}]


def test_costs_are_an_invoice_and_a_live_call_has_no_end() -> None:
    cost = {"provider": "twilio", "kind": "leg", "product": "inbound", "unit": "seconds", "item": "leg"}
    found = timeline(record(costs=[cost | {"usd": "0.0125"}, cost | {"usd": None}]))
    assert (found["cost"]["usd"], found["cost"]["complete"]) == ("0.0125", False)
    assert len(found["entries"]) == 1


def test_what_cannot_be_opened_is_still_told() -> None:
    locked = {"sealed": "the key '2025' is needed"}
    kinds = ("decision", "refused", "consent", "disclosed", "stir", "sip_media", "sip_ladder", "tools_used", "recorded")
    found = timeline(record(*({"at": at(1), "kind": kind, "data": locked} for kind in kinds)))
    assert len(found["entries"]) == 1 + len(kinds) - 2
    assert not found["recording"]["may_be_played"]


RECORDED = event(9, "recorded", file="c.wav", audio_bytes=10, sha256="0")


def consent(state: str, *doors: str) -> dict[str, Any]:
    return event(1, "consent", state=state, doors=list(doors))


@pytest.mark.parametrize(
    ("events", "made", "played", "why"),
    [
        ([], False, False, "nothing was recorded"),
        ([RECORDED], True, True, ""),
        ([consent("granted", "record"), RECORDED], True, True, ""),
        ([consent("refused", "transcript"), RECORDED], True, True, ""),
        (
            [consent("granted", "record"), RECORDED, consent("withdrawn", "record")],
            True,
            False,
            "consent was withdrawn",
        ),
        ([consent("refused", "record"), RECORDED], True, False, "consent was refused"),
    ],
)
def test_a_recording_may_be_played_by_what_was_agreed_last(events: Any, made: bool, played: bool, why: str) -> None:
    found = recording_of(record(*events))
    assert (found["made"], found["may_be_played"]) == (made, played)
    assert why in found["why"]
