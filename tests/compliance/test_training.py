"""Only who agreed to training, and has taken nothing back since; only redacted; what is left out is counted."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.compliance.training import consent
from trunkline.ports import (
    CallEnded,
    CallStarted,
    CapturedBy,
    ConsentForm,
    Grant,
    Revocation,
    Technology,
    TurnEnded,
    TurnRecord,
)
from trunkline.store.consents import ConsentLedger, Noted, body_of, new_id
from trunkline.store.engine import Database, database_url
from trunkline.store.spool import Spool
from trunkline.store.writer import RecordWriter
from trunkline.types import DEFAULT_TENANT as US
from trunkline.types import CallId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
NOW = AT + timedelta(days=5)
VIA: CapturedBy = "web_form"


@dataclass
class Row:
    event: str
    at: datetime
    body: dict[str, Any] = field(default_factory=dict)


def grant(day: int = 0, *, form: ConsentForm = "express_written", until: datetime | None = None) -> Row:
    at = AT + timedelta(days=day)
    said = Grant(US, "+1", form, at, VIA, ("training",), "May we learn from your calls?", "v1", valid_until=until)
    return Row("grant", at, body_of(said))


def revoke(day: int, *technologies: Technology) -> Row:
    at = AT + timedelta(days=day)
    return Row("revoke", at, body_of(Revocation(US, "+1", at, VIA, technologies=technologies)))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no_consent"),
        ([grant()], None),
        ([grant(form="implied")], "no_consent"),
        ([grant(until=AT + timedelta(days=1))], "no_consent"),
        ([grant(9)], "no_consent"),
        ([grant(), revoke(1)], "withdrawn"),
        ([grant(), revoke(1, "training")], "withdrawn"),
        ([grant(), revoke(1, "transcript")], "withdrawn"),
        ([grant(), revoke(0)], "withdrawn"),
        ([grant(), revoke(1, "artificial_voice")], None),
        ([grant(), revoke(1), grant(2)], None),
        ([revoke(1), Row("grant", AT, {"technologies": ["recording"], "form": "express_written"})], "no_consent"),
    ],
)
def test_consent_to_training_is_its_own_and_in_force(rows: list[Row], why: str | None) -> None:
    assert consent(rows, NOW) == why


def number(of: int) -> str:
    return f"+1212555010{of}"


async def fill(data: Path) -> None:
    """0 agreed, 1 never did, 2 took it back, 3 agreed and said nothing, 4 agreed and still talks; one withheld."""
    database = Database(database_url(None, data))
    spool = Spool(data / "spool" / "0")
    writer = RecordWriter(spool, database, SYSTEM_CLOCK, worker="0")
    await writer.start()
    for of in range(6):
        call, caller = CallId(f"c{of}"), number(of) if of != 5 else None
        spool.append(CallStarted(call, US, "inbound", "sip", "clinic", AT, caller, "+12125550199", f"p{of}"))
        words = "" if of == 3 else f"My card is 4111 1111 1111 1111, call {number(0)}, my name is Ada"
        spool.append(TurnEnded(call, AT, TurnRecord(0, words, "Thank you, Ada.")))
        if of != 4:
            spool.append(CallEnded(call, AT, "caller_hung_up"))
    assert await writer.drain(5)
    ledger = ConsentLedger(database)
    for of in (0, 2, 3, 4):
        given = Grant(US, number(of), "express_written", AT, VIA, ("training",), "May we?", "v1")
        await ledger.note(US, [Noted(new_id(), given)])
    await ledger.note(US, [Noted(new_id(), Revocation(US, number(2), AT + timedelta(days=1), VIA))])
    await writer.close()
    spool.close()
    await database.close()


def export(folder: Path, name: str, *more: str) -> tuple[int, Any]:
    command = ["export", "training", "--out", str(folder / name), "--config", str(folder / "trunkline.toml"), *more]
    result = CliRunner().invoke(app, command)
    return result.exit_code, json.loads(result.stdout) if result.stdout else result.exception


def test_an_export_holds_what_was_agreed_to_redacted_and_says_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n[privacy]\nredact = []\n')
    asyncio.run(fill(tmp_path / "data"))
    code, told = export(tmp_path, "set.jsonl")
    left = {"no_number": 1, "no_consent": 1, "withdrawn": 1, "goes_on": 1, "no_words": 1}
    assert (code, told) == (0, {"out": str(tmp_path / "set.jsonl"), "exported": 1, "left_out": left})
    (line,) = (tmp_path / "set.jsonl").read_text().splitlines()
    sample = json.loads(line)
    assert (sample["call_id"], sample["agent"]) == ("c0", "clinic")
    assert sample["messages"] == [
        {"role": "caller", "text": "My card is [card], call [phone], my name is [name]"},
        {"role": "agent", "text": "Thank you, [name]."},
    ]
    assert export(tmp_path, "set.jsonl")[0] != 0  # it is there
    assert export(tmp_path, "none.jsonl", "--until", "2026-11-22")[1] == {
        "out": str(tmp_path / "none.jsonl"), "exported": 0, "left_out": {},
    }  # fmt: skip
    told = CliRunner().invoke(app, ["privacy", "export", number(0), "--config", str(tmp_path / "trunkline.toml")])
    (call,) = json.loads(told.stdout)["calls"]
    assert [event["data"]["file"] for event in call["events"] if event["kind"] == "training_export"] == ["set.jsonl"]
