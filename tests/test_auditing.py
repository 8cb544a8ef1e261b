"""`trunkline audit`, and `trunkline privacy` where there is an audit log."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.keeping import audit_days
from trunkline.ports import CallEnded, CallEvent, CallStarted, TurnEnded, TurnRecord
from trunkline.settings import Settings
from trunkline.store.audit.files import AuditFiles
from trunkline.store.audit.log import AuditedRecords, AuditLog
from trunkline.store.audit.rows import Sampling
from trunkline.store.engine import Database, database_url
from trunkline.store.spool import Spool
from trunkline.store.writer import RecordWriter
from trunkline.types import DEFAULT_TENANT, CallId

ANN, BOB = "+12125550177", "+12125550188"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "trunkline.toml"
    file.write_text(f'data_dir = "{tmp_path / "data"}"\n[audit]\nfolder = "{tmp_path / "audit"}"\n')
    return file


def run(config: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)])
    return result.exit_code, result.output


def told(config: Path, *arguments: str) -> tuple[int, Any]:
    code, out = run(config, *arguments)
    return code, json.loads(out)


async def two_calls(folder: Path, at: datetime) -> None:
    """Ann's, and Bob's in which he names her number; recorded and audited."""
    data = folder / "data"
    database = Database(database_url(None, data))
    spool = Spool(data / "spool" / "0")
    writer = RecordWriter(spool, database, SYSTEM_CLOCK, worker="0")
    await writer.start()
    audit = AuditLog(AuditFiles(folder / "audit", "0"), SYSTEM_CLOCK, lambda count: None)
    await audit.start()
    records = AuditedRecords(spool, Sampling(100, {"clinic": "c0ffee"}), audit.append)
    for name, number in (("ann", ANN), ("bob", BOB)):
        call = CallId(name)
        records.append(CallStarted(call, DEFAULT_TENANT, "inbound", "sip", "clinic", at, number, None, name))
        records.append(TurnEnded(call, at, TurnRecord(0, f"I am {name}", "good day", total_ms=300.0)))
        if name == "bob":
            records.append(TurnEnded(call, at, TurnRecord(1, f"call {ANN}", "I may not")))
        refused = {"door": "transfer", "target": "sales", "code": "closed", "why": "not now"}
        records.append(CallEvent(call, at, "refused", refused))
        records.append(CallEnded(call, at, "caller_hung_up"))
    await audit.close()
    assert await writer.drain(5)
    await writer.close()
    spool.close()
    await database.close()


@pytest.fixture
def written(config: Path, tmp_path: Path) -> Path:
    asyncio.run(two_calls(tmp_path, datetime.now(UTC)))
    return config


def test_the_log_is_verified_and_shown(written: Path) -> None:
    code, out = run(written, "audit", "verify")
    assert code == 0
    assert "as written: 1 files, 5 rows (0 of them erased)" in out
    code, out = run(written, "audit", "show", "--call", "ann", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["turn_id"], row["agent_sha256"]) for row in rows] == [
        ("ann:0", "c0ffee"),
        ("ann:refused:1", "c0ffee"),
    ]
    code, out = run(written, "audit", "show", "--refusals")
    assert out.count("refused transfer closed sales") == 2
    code, out = run(written, "audit", "show", "--day", "2001-01-01")
    assert (code, out) == (0, "")


def test_what_was_changed_is_named_and_the_exit_status_is_1(written: Path, tmp_path: Path) -> None:
    [path] = tmp_path.glob("audit/0/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    code, out = run(written, "audit", "verify")
    assert code == 1
    assert f"worker 0: BROKEN at {path.parent.name}/{path.name}: it cannot be read" in out
    code, found = told(written, "audit", "verify", "--json")
    assert (code, found["workers"][0]["broken"]["file"]) == (1, f"{path.parent.name}/{path.name}")


def test_a_head_that_is_not_there_any_more_is_told(written: Path) -> None:
    _, found = told(written, "audit", "verify", "--json")
    head = found["workers"][0]["head"]
    assert run(written, "audit", "verify", "--head", head)[0] == 0
    code, out = run(written, "audit", "verify", "--head", "f" * 64)
    assert code == 1
    assert f"no chain has the head {'f' * 64}" in out


def test_without_a_folder_the_key_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "other.toml"
    empty.write_text("")
    code, out = run(empty, "audit", "verify")
    assert (code, out) == (2, "audit.folder = None: the folder of the audit log\n")


def test_a_person_is_exported_and_erased_from_the_audit_log_too(written: Path, tmp_path: Path) -> None:
    code, found = told(written, "privacy", "export", ANN)
    assert [row["turn_id"] for row in found["audit"]] == ["ann:0", "ann:refused:1"]
    code, found = told(written, "privacy", "search", ANN)
    assert (code, found["left"]["audit"]) == (1, ["bob:1"])
    code, found = told(written, "privacy", "erase", ANN)
    assert (code, found["erased"]["calls"], found["erased"]["audit"]) == (0, 1, 3)
    assert found["left"] == {"rows": [], "files": [], "audit": []}
    _, out = run(written, "audit", "show", "--json")
    assert [json.loads(line)["turn_id"] for line in out.splitlines()] == ["bob:0", "bob:refused:1"]
    code, out = run(written, "audit", "verify")
    assert code == 0
    assert "5 rows (3 of them erased)" in out


def test_what_is_old_is_purged(config: Path, tmp_path: Path) -> None:
    asyncio.run(two_calls(tmp_path, datetime.now(UTC) - timedelta(days=9)))
    config.write_text(config.read_text() + "days = 7\n")
    code, found = told(config, "privacy", "purge")
    assert (code, found["audit"]) == (0, 1)
    assert list(tmp_path.glob("audit/0/*/*.parquet")) == []
    code, out = run(config, "audit", "verify")
    assert code == 0
    assert "1 files deleted for their age" in out


@pytest.mark.parametrize(
    ("audit", "privacy", "days"),
    [
        ({}, {}, None),
        ({"days": 100}, {}, 100),
        ({"days": 100}, {"calls_days": 30}, 30),
        ({}, {"calls_days": 30, "transcripts_days": 10}, 10),
        ({"transcripts": False}, {"calls_days": 30, "transcripts_days": 10}, 30),
    ],
)
def test_rows_outlive_neither_their_calls_nor_words_that_are_to_be_gone(
    audit: dict[str, Any], privacy: dict[str, Any], days: int | None
) -> None:
    settings = Settings.model_validate({"audit": {"folder": "audit", **audit}, "privacy": privacy})
    assert audit_days(settings) == days
