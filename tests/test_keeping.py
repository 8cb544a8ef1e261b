"""`trunkline privacy` and `trunkline recordings`, on a folder as a gateway leaves it."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.keeping import desk_seal
from trunkline.media.recorder import Recorder
from trunkline.ports import Allow, CallEnded, CallStarted, TurnEnded, TurnRecord
from trunkline.privacy.sealed import KeyRing
from trunkline.settings import Settings
from trunkline.store.engine import Database, database_url
from trunkline.store.spool import Spool
from trunkline.store.writer import RecordWriter
from trunkline.types import DEFAULT_TENANT, CallId

ANN = "+12125550177"
AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
KEY = bytes(range(32))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "data" / "recordings").mkdir(parents=True)
    file = tmp_path / "trunkline.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\n[privacy]\ncalls_days = 1\n'
        f'[privacy.keys]\nfirst = "{base64.b64encode(KEY).decode()}"\n'
    )
    return file


def run(*arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else result.output


async def a_call(data: Path) -> None:
    database = Database(database_url(None, data))
    spool = Spool(data / "spool" / "0")
    writer = RecordWriter(spool, database, SYSTEM_CLOCK, worker="0")
    await writer.start()
    call = CallId("c1")
    spool.append(CallStarted(call, DEFAULT_TENANT, "inbound", "sip", "clinic", AT, ANN, None, "id"))
    spool.append(TurnEnded(call, AT, TurnRecord(0, f"I am {ANN}", "")))
    spool.append(CallEnded(call, AT, "caller_hung_up"))
    assert await writer.drain(5)
    await writer.close()
    spool.close()
    await database.close()


def test_a_person_is_shown_erased_and_searched_for(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(a_call(data))
    code, told = run("privacy", "export", ANN, "--config", str(config))
    assert (code, [call["id"] for call in told["calls"]]) == (0, ["c1"])
    code, told = run("privacy", "search", ANN, "--config", str(config))
    assert (code, told["left"]["files"]) == (1, ["trunkline.db"])
    code, told = run("privacy", "erase", ANN, "--config", str(config))
    assert (code, told["erased"]["calls"], told["left"]) == (0, 1, {"rows": [], "files": []})


def test_what_is_old_is_purged(config: Path, tmp_path: Path) -> None:
    asyncio.run(a_call(tmp_path / "data"))
    code, told = run("privacy", "purge", "--config", str(config))
    assert (code, told) == (0, {"calls": 1, "transcripts": 0, "recordings": 0})


def test_a_sealed_recording_is_opened_once_and_with_its_key(config: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "c1.wav.sealed"
    recorder = Recorder(sealed, Allow(), keys=KeyRing({"first": KEY}))
    recorder.write("caller", 0, b"\x01" * 160)
    recorder.close()
    assert recorder.wait(5)
    code, told = run("recordings", "decrypt", str(sealed), "--config", str(config))
    assert (code, told["whole"], (tmp_path / "c1.wav").read_bytes()[:4]) == (0, True, b"RIFF")
    code, _ = run("recordings", "decrypt", str(sealed), "--config", str(config))
    assert code != 0  # it is there already


def test_the_desks_key_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    sealed = desk_seal(settings, None).seal("hush", "here")
    assert desk_seal(settings, None).open(sealed, "here") == "hush"
    assert (tmp_path / "desk.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["desk.key"]
    (tmp_path / "desk.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"desk\.key.*a key of 32 bytes"):
        desk_seal(settings, None)
