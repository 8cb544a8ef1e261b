"""`trunkline calls export`, on a database as a gateway leaves it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.ports import CallEnded, CallStarted
from trunkline.store.engine import Database, database_url
from trunkline.store.records import RecordWriter
from trunkline.store.spool import Spool
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId

AT = datetime(2026, 11, 28, 9, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    async def fill() -> None:
        spool, database = Spool(tmp_path / "spool", sync_period_s=None), Database(database_url(None, tmp_path))
        writer = RecordWriter(spool, database, ManualClock(), worker="w0")
        await writer.start()
        for number in range(3):
            name, at = CallId(f"c{number}"), AT + timedelta(hours=number)
            spool.append(CallStarted(name, DEFAULT_TENANT, "inbound", "sip", f"agent-{number}", at, "+14155550101"))
            spool.append(CallEnded(name, at, "error", "=1+1"))
        assert await writer.flush()
        await writer.close()
        spool.close()
        await database.close()

    asyncio.run(fill())
    file = tmp_path / "trunkline.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n')
    return file


def run(config: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["calls", "export", "--config", str(config), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, str(result.exception)
    return result.exit_code, result.stdout


def test_calls_are_exported_as_csv_to_stdout(config: Path) -> None:
    status, text = run(config, "--since", "2026-11-28T10:00:00Z", "--having", "errors")
    assert status == 0
    head, *rows = text.splitlines()
    assert head.startswith("id,direction")
    assert [row.split(",")[0] for row in rows] == ["c2", "c1"]
    assert all("'=1+1" in row and ",+14155550101," in row for row in rows)


def test_calls_are_exported_as_parquet_to_a_new_file(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "calls.parquet"
    assert run(config, "--format", "parquet", "--out", str(out), "--agent", "agent-1") == (0, "")
    assert pq.read_table(out).column("id").to_pylist() == ["c1"]
    status, says = run(config, "--format", "parquet", "--out", str(out))
    assert (status, "a new file we may write to" in says) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "2026-11-28"), "--since = '2026-11-28'"),
        (("--min-cost-usd", "much"), "--min-cost-usd = 'much'"),
        (("--having", "luck"), "--having = 'luck'"),
        (("--text", "a"), "text: 2 to 200 characters"),
        (("--number", "*"), "number: a number"),
    ],
)
def test_what_cannot_be_asked_is_one_line(config: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    out = tmp_path / "calls.csv"
    status, said = run(config, "--out", str(out), *arguments)
    assert status == 2
    assert says in said
    assert not out.exists()
