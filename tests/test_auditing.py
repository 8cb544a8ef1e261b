"""`trunkline audit`, and `trunkline privacy` where there is an audit log."""

import asyncio
import base64
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fakes.s3_server import KEY_ID, SECRET, S3Server
from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.keeping import audit_custody, audit_days, master_keys
from trunkline.ports import CallEnded, CallEvent, CallStarted, TurnEnded, TurnRecord
from trunkline.settings import Settings, load
from trunkline.store.audit.files import PLAIN, AuditFiles, Custody
from trunkline.store.audit.log import AuditedRecords, AuditLog
from trunkline.store.audit.rows import Sampling
from trunkline.store.audit.signing import public_key
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


async def two_calls(folder: Path, at: datetime, custody: Custody = PLAIN) -> None:
    """Ann's, and Bob's in which he names her number; recorded and audited."""
    data = folder / "data"
    database = Database(database_url(None, data))
    spool = Spool(data / "spool" / "0")
    writer = RecordWriter(spool, database, SYSTEM_CLOCK, worker="0")
    await writer.start()
    audit = AuditLog(AuditFiles(folder / "audit", "0", custody), SYSTEM_CLOCK, lambda count: None)
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


def test_a_workers_folder_that_was_taken_away_is_missed_by_its_name(written: Path, tmp_path: Path) -> None:
    assert run(written, "audit", "verify", "--worker", "0")[0] == 0
    code, out = run(written, "audit", "verify", "--worker", "0", "--worker", "1")
    assert (code, "worker 1: no line of a chain" in out) == (1, True)
    shutil.rmtree(tmp_path / "audit" / "0")
    code, found = told(written, "audit", "verify", "--worker", "0", "--json")
    assert (code, found["lost_workers"], found["workers"]) == (1, ["0"], [])
    code, out = run(written, "audit", "verify")
    assert (code, "nothing was written yet, or all was taken away" in out) == (0, True)


def test_what_was_erased_since_a_head_is_told(written: Path) -> None:
    head = told(written, "audit", "verify", "--json")[1]["workers"][0]["head"]
    assert run(written, "audit", "erase", BOB)[0] == 0
    code, found = told(written, "audit", "verify", "--head", head, "--json")
    assert code == 0
    assert found["workers"][0]["since_head"]["erased"] > 0
    assert "rows erased and 0 files deleted" in run(written, "audit", "verify", "--head", head)[1]


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


KEY = base64.b64encode(b"o" * 32).decode()


def test_keys_are_told_and_whoever_rewrote_the_log_is_found_out(config: Path, tmp_path: Path) -> None:
    signed = config.with_name("signed.toml")
    signed.write_text(config.read_text() + f'keys = {{ "2026" = "{KEY}" }}\n')
    code, out = run(signed, "audit", "key")
    name, key_id, public = out.split()
    assert (code, name, len(key_id)) == (0, "2026", 16)
    custody = audit_custody(load(signed), master_keys(load(signed)))
    asyncio.run(two_calls(tmp_path, datetime.now(UTC), custody))
    for by in (("--key", public), ()):
        code, out = run(signed, "audit", "verify", *by)
        assert (code, "5 rows" in out, "signatures were not checked" in out) == (0, True, False)
    code, out = run(config, "audit", "verify")
    assert (code, "signatures were not checked: no key was given" in out) == (0, True)
    other = base64.b64encode(public_key(b"t" * 32)).decode()
    code, out = run(config, "audit", "verify", "--key", other)
    assert code == 1
    assert f"the line is signed by the key {key_id}, which is none of" in out
    shutil.rmtree(tmp_path / "audit")
    asyncio.run(two_calls(tmp_path, datetime.now(UTC)))
    code, out = run(config, "audit", "verify", "--key", public)
    assert code == 1
    assert "BROKEN at" in out
    assert "row 1: the line is not signed" in out


def test_a_key_that_is_none_is_named(written: Path) -> None:
    code, out = run(written, "audit", "verify", "--key", "abc")
    assert (code, out) == (2, "--key = 'abc': a public key as `trunkline audit key` tells it\n")
    code, out = run(written, "audit", "key")
    assert (code, out) == (2, "audit.keys = 'none': [audit.keys] NAME = 32 random bytes as base64\n")


def test_a_chain_that_ends_too_early_is_told(written: Path) -> None:
    today = datetime.now(UTC).date()
    assert run(written, "audit", "verify", "--until", str(today - timedelta(days=1)))[0] == 0
    code, out = run(written, "audit", "verify", "--until", str(today + timedelta(days=2)))
    assert code == 1
    assert "its end was cut off, or nobody was there to write" in out
    code, found = told(written, "audit", "verify", "--json", "--until", str(today + timedelta(days=2)))
    assert (code, found["not_until"], found["signatures_checked"]) == (1, ["0"], False)


def test_a_persons_rows_alone_are_erased_from_what_is_written_here(written: Path) -> None:
    assert told(written, "audit", "erase", ANN) == (0, {"erased": 3})
    assert run(written, "audit", "verify")[0] == 0
    code, found = told(written, "privacy", "erase", ANN)
    assert (code, found["erased"]["calls"], found["erased"]["audit"]) == (0, 1, 0)


def test_a_bucket_is_verified_shown_and_erased_from(config: Path, tmp_path: Path) -> None:
    with S3Server("kept") as store:
        config.write_text(
            config.read_text()
            + f'bucket = "s3://kept/audit"\nendpoint = "{store.url}"\n'
            + f'access_key_id = "{KEY_ID}"\nsecret_access_key = "{SECRET}"\n'
            + f'[privacy.keys]\n"2026" = "{KEY}"\n'
        )
        asyncio.run(two_calls(tmp_path, datetime.now(UTC), audit_custody(load(config), master_keys(load(config)))))
        assert len([name for name in store.objects if name.endswith(".parquet")]) == 1
        assert not any(b"I am ann" in data for data in store.objects.values())
        code, out = run(config, "audit", "verify")
        assert (code, "1 files, 5 rows" in out) == (0, True)
        code, found = told(config, "privacy", "erase", ANN)
        assert (code, found["erased"]["audit"], found["left"]["audit"]) == (0, 3, [])
        code, out = run(config, "audit", "verify")
        assert (code, "5 rows (3 of them erased)" in out) == (0, True)
        store.away = True
        code, out = run(config, "audit", "verify")
        assert code == 2
        assert out.startswith("audit log s3://kept/audit: network_connection: ")
        assert SECRET not in out


def test_its_secrets_are_known_to_whoever_keeps_them_from_the_logs() -> None:
    settings = Settings.model_validate(
        {"audit": {"bucket": "s3://abc", "access_key_id": "a", "secret_access_key": "hush", "keys": {"a": KEY}}}
    )
    assert {"hush", KEY} <= set(settings.secrets())
    assert "hush" not in repr(settings) + repr(audit_custody(settings, None).bucket.__dict__)
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ({"bucket": "http://x"}, "audit.bucket = 'http://x': s3://BUCKET or s3://BUCKET/PREFIX"),
        ({"bucket": "s3://abc", "endpoint": "minio:9000"}, "audit.endpoint = 'minio:9000': http://HOST:PORT or"),
        ({"bucket": "s3://abc", "access_key_id": "a"}, "audit.access_key_id = 'a': needs audit.secret_access_key"),
        ({"folder": "x", "region": "eu"}, "audit.region = 'eu': needs audit.bucket as well"),
        ({"folder": "x", "keys": {"a": "short"}}, "32 random bytes as base64"),
        ({"folder": "x", "public_keys": "short"}, "public keys as `trunkline audit key` tells them"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path: Path, audit: dict[str, Any], said: str) -> None:
    file = tmp_path / "wrong.toml"
    lines = (
        f"{key} = {{ {', '.join(f'{name} = {json.dumps(each)}' for name, each in value.items())} }}"
        if isinstance(value, dict)
        else f"{key} = {json.dumps(value)}"
        for key, value in audit.items()
    )
    file.write_text("[audit]\n" + "\n".join(lines) + "\n")
    code, out = run(file, "audit", "verify")
    assert code == 2
    assert said in out


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
