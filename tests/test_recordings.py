"""`trunkline recordings` and `trunkline keys`, on a folder as a gateway leaves it; and what a dying writer leaves."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.media.recorder import Finished, Recorder
from trunkline.media.recordings import held
from trunkline.ports import RECORDED, Allow, CallEnded, CallEvent, CallStarted, TurnEnded, TurnRecord
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.engine import Database, database_url
from trunkline.store.spool import Spool
from trunkline.store.writer import RecordWriter
from trunkline.types import DEFAULT_TENANT, CallId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))
ONE = {"first": FIRST}
AUDIO = b"".join(bytes([frame]) * 160 for frame in range(100))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "recordings").mkdir(parents=True)
    return tmp_path


def run(folder: Path, keys: dict[str, bytes], *arguments: str) -> tuple[int, Any]:
    config = folder / "trunkline.toml"
    lines = "".join(f'{name} = "{base64.b64encode(key).decode()}"\n' for name, key in keys.items())
    config.write_text(f'data_dir = "{folder / "data"}"\n[privacy.keys]\n{lines}')
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, str(result.exception)
    return result.exit_code, json.loads(result.stdout) if result.stdout[:1] in ("{", "[") else result.output


def record(path: Path, keys: dict[str, bytes]) -> Finished:
    told: list[Finished] = []
    recorder = Recorder(path, Allow(), keys=KeyRing(keys) if keys else None, finished=told.append)
    for frame in range(100):
        recorder.write("caller", frame * 160, AUDIO[frame * 160 : (frame + 1) * 160])
    recorder.close()
    assert recorder.wait(5)
    return told[0]


def a_call(folder: Path, keys: dict[str, bytes], call_id: str = "c1", words: str = "I am Ann") -> Path:
    """With its recording, as its gateway writes it."""
    path = folder / "data" / "recordings" / (f"{call_id}.wav.sealed" if keys else f"{call_id}.wav")
    finished = record(path, keys)

    async def write() -> None:
        seal = TextSeal(KeyRing(keys)) if keys else None
        database = Database(database_url(None, folder / "data"), seal=seal)
        spool = Spool(folder / "data" / "spool" / "0", seal=seal)
        writer = RecordWriter(spool, database, SYSTEM_CLOCK, worker="0")
        await writer.start()
        call = CallId(call_id)
        spool.append(CallStarted(call, DEFAULT_TENANT, "inbound", "sip", "clinic", AT, "+12125550177", None, call_id))
        spool.append(TurnEnded(call, AT, TurnRecord(0, words, "Thank you.")))
        spool.append(CallEvent(call, AT, RECORDED, asdict(finished)))
        spool.append(CallEnded(call, AT, "caller_hung_up"))
        assert await writer.drain(5)
        await writer.close()
        spool.close()
        await database.close()

    asyncio.run(write())
    return path


def events(folder: Path, keys: dict[str, bytes], kind: str) -> list[Any]:
    _, told = run(folder, keys, "privacy", "export", "+12125550177")
    return [event["data"] for call in told["calls"] for event in call["events"] if event["kind"] == kind]


def test_a_recording_is_exported_and_played_and_the_record_says_by_whom(folder: Path) -> None:
    a_call(folder, ONE)
    out, heard = folder / "c1.wav", folder / "heard.wav"
    assert run(folder, ONE, "recordings", "export", "c1", "--out", str(out)) == (0, {"wav": str(out), "whole": True})
    assert os.stat(out).st_mode & 0o777 == 0o600
    code, _ = run(folder, ONE, "recordings", "play", "c1", "--player", f"{sys.executable} -c {save_to(heard)}")
    assert code == 0
    assert heard.read_bytes() == out.read_bytes()
    assert out.read_bytes()[-32000:][::2] == AUDIO
    opened = events(folder, ONE, "recording_opened")
    assert [(each["file"], each["how"]) for each in opened] == [("c1.wav.sealed", "export"), ("c1.wav.sealed", "play")]
    assert all(each["by"] for each in opened)


def save_to(path: Path) -> str:
    return f'"import sys; open({str(path)!r}, {"wb"!r}).write(sys.stdin.buffer.read())"'


def test_what_is_not_noted_is_not_opened(folder: Path) -> None:
    record(folder / "data" / "recordings" / "c9.wav.sealed", ONE)
    code, said = run(folder, ONE, "recordings", "export", "c9", "--out", str(folder / "c9.wav"))
    assert (code, "c9 is not in the database" in said, (folder / "c9.wav").exists()) == (2, True, False)
    assert "call c8 has no recording" in run(folder, ONE, "recordings", "export", "c8")[1]


@pytest.mark.parametrize("keys", [{}, ONE])
def test_a_recording_that_was_cut_or_changed_is_found(folder: Path, keys: dict[str, bytes]) -> None:
    path = a_call(folder, keys)
    code, (row,) = run(folder, keys, "recordings", "verify", "--json")
    assert (code, row["found"]) == (0, "2.0 s; as it was written")
    whole = path.read_bytes()
    # Sealed, its last chunk says only that it is the last: cut before it, and at the chunk before that.
    path.write_bytes(whole[: whole.rindex(b"\x80\x00\x00\x10")] if keys else whole[:-1])
    code, (row,) = run(folder, keys, "recordings", "verify", "--json")
    assert (code, row["ok"]) == (1, False)
    path.write_bytes(whole[:-100] + bytes(100))
    code, (row,) = run(folder, keys, "recordings", "verify", "--json")
    assert (code, row["ok"]) == (1, False)
    path.unlink()
    assert run(folder, keys, "recordings", "verify", "--json")[0] == 1


def test_a_recording_that_is_gone_before_its_time_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_call(folder, ONE).unlink()
    for days, code in (("1", 0), ("36500", 1)):
        monkeypatch.setenv("TRUNKLINE_PRIVACY__RECORDINGS_DAYS", days)
        found, (row,) = run(folder, ONE, "recordings", "verify", "--json")
        assert (found, row["file"], row["ok"]) == (code, "c1.wav.sealed", not code)


def test_a_sealed_recording_cut_between_two_chunks_lacks_what_the_record_says(folder: Path) -> None:
    path = a_call(folder, ONE)
    head = path.read_bytes().index(b"\n", path.read_bytes().index(b"\n") + 1) + 1
    path.write_bytes(path.read_bytes()[:head])
    code, (row,) = run(folder, ONE, "recordings", "verify", "--json")
    assert (code, row["found"]) == (1, "0.0 s; CUT: 32000 bytes of audio are missing")


def test_keys_are_rotated_over_rows_and_recordings(folder: Path) -> None:
    clear = a_call(folder, {}, "c0", "in clear, from before there were keys")
    old = a_call(folder, ONE)
    age = old.stat().st_mtime_ns
    both = {"second": SECOND, "first": FIRST}
    code, told = run(folder, both, "keys", "show")
    assert (code, told["current"], told["recordings"]) == (0, "second", {"first": 1, "(in clear)": 1})
    assert told["rows"] == {"(in clear)": 2, "first": 2}
    code, told = run(folder, both, "keys", "rotate")
    assert (code, told) == (0, {"current": "second", "rows": 4, "recordings": 2, "left": {}})
    new = {"second": SECOND}  # the old one may go
    code, told = run(folder, new, "keys", "show")
    assert (told["rows"], told["recordings"]) == ({"second": 4}, {"second": 2})
    assert not clear.exists()
    assert old.stat().st_mtime_ns == age
    assert b"from before there were" not in (folder / "data" / "trunkline.db").read_bytes()
    code, rows = run(folder, new, "recordings", "verify", "--json")
    assert (code, [row["found"] for row in rows]) == (0, ["2.0 s; as it was written"] * 2)
    _, told = run(folder, new, "privacy", "export", "+12125550177")
    assert {call["turns"][0]["caller_text"] for call in told["calls"]} == {
        "I am Ann",
        "in clear, from before there were keys",
    }
    assert run(folder, new, "keys", "rotate") == (
        0,
        {"current": "second", "rows": 0, "recordings": 0, "left": {}},
    )


def test_what_needs_a_lost_key_is_left_and_named(folder: Path) -> None:
    path = a_call(folder, ONE)
    before = path.read_bytes()
    code, told = run(folder, {"second": SECOND}, "keys", "rotate")
    why = "the key 'first' is needed: privacy.keys has second"
    assert (code, told["rows"], told["recordings"], told["left"]) == (1, 0, 0, {why: 3})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    code, told = run(folder, {"second": SECOND}, "privacy", "search", "Ann")
    assert code == 1
    assert f"turns.caller_text: {why}" in told["left"]["rows"]
    code, told = run(folder, {"second": SECOND}, "privacy", "erase", "+12125550177")
    assert (code, told["erased"]["calls"], told["left"]) == (0, 1, {"rows": [], "files": []})


WRITER = """
import resource, signal, sys, time
from pathlib import Path
from trunkline.media.recorder import Recorder
from trunkline.ports import Allow
from trunkline.privacy.sealed import KeyRing
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # a part is written, then EFBIG
recorder = Recorder(Path(sys.argv[1]), Allow(), keys=KeyRing({"first": bytes(range(32))}), finished=print)
for second in range(100):
    for frame in range(50):
        recorder.write("caller", (second * 50 + frame) * 160, bytes([second]) * 160)
    print(second, flush=True)
    time.sleep(0.05)
    if recorder.stats.failed:
        break
recorder.close()
recorder.wait(5)
"""


def writer(path: Path, how: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), how], stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_writer_had_written_opens(tmp_path: Path) -> None:
    path = tmp_path / "c1.wav.sealed"
    with writer(path, "killed") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 40:  # 2 s: it has written twice and more
                break
        process.send_signal(signal.SIGKILL)
    found = held(path, KeyRing(ONE))
    assert not found.finished
    assert found.audio_bytes >= 2 * 8000 * 10  # of 40 s, all but what waits for the next write and 3 s
    assert found.audio_bytes % 2 == 0


def test_on_a_full_disk_what_was_written_opens_and_the_record_can_say_why(tmp_path: Path) -> None:
    path = tmp_path / "c1.wav.sealed"
    with writer(path, "full") as process:
        assert process.stdout is not None
        said = process.stdout.read().splitlines()[-1]
    assert "failed='File too large'" in said
    assert path.stat().st_size == 60_000  # to the last byte: the chunk at the end is torn
    found = held(path, KeyRing(ONE))
    assert not found.finished
    assert f"audio_bytes={found.audio_bytes}," in said


def test_two_recordings_that_changed_places_are_not_opened_as_each_other(folder: Path) -> None:
    one, two = a_call(folder, ONE), a_call(folder, ONE, "c2")
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    code, said = run(folder, ONE, "recordings", "export", "c1", "--out", str(folder / "c1.wav"))
    assert (code, said) == (2, "c1.wav.sealed was sealed as c2.wav")
    assert not (folder / "c1.wav").exists()
    assert run(folder, ONE, "recordings", "verify", "--json")[0] == 1
    both = {"second": SECOND, "first": FIRST}
    assert run(folder, both, "keys", "rotate")[1]["recordings"] == 0  # nor given the other's name for good
