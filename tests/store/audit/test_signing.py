"""Who wrote the chain: somebody who writes all of it anew is found out."""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import StoreError
from trunkline.privacy.sealed import KeyRing
from trunkline.store.audit.chain import canonical, follow
from trunkline.store.audit.files import AuditFiles, Custody
from trunkline.store.audit.parquet import unpacked
from trunkline.store.audit.rows import Row
from trunkline.store.audit.signing import Signer, Trusted, key_id, public_key

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OURS, THEIRS = b"o" * 32, b"t" * 32


def row(call: str, index: int, text: str = "hello") -> Row:
    return Row(f"{call}:{index}", "turn", "sample", AT, call, caller_text=text)


def signing(*seeds: bytes) -> Custody:
    return Custody(Signer(seeds[0]), Trusted(map(public_key, seeds)))


def written(folder: Path, custody: Custody, worker: str = "0", text: str = "hello") -> AuditFiles:
    files = AuditFiles(folder, worker, custody)
    files.open()
    files.write([row("ann", 0, text), row("bob", 0)], AT)
    files.write([row("ann", 1)], AT + DAY)
    return files


def wrong(folder: Path, *publics: bytes, worker: str = "0") -> tuple[str, int | None, str]:
    broken = AuditFiles(folder, worker, Custody(trusted=Trusted(publics))).verify()[0].broken
    assert broken is not None
    return broken.file, broken.row, broken.why


def test_whoever_has_the_public_key_verifies(tmp_path: Path) -> None:
    written(tmp_path, signing(OURS))
    found, _ = AuditFiles(tmp_path, "0", Custody(trusted=Trusted([public_key(OURS)]))).verify()
    assert (found.files, found.rows, found.broken, found.last[:10]) == (2, 3, None, "2026-11-29")


def test_a_log_that_was_written_anew_as_a_whole_is_found_out(tmp_path: Path) -> None:
    """Every hash fits; only the signature tells."""
    written(tmp_path / "unsigned", Custody(), text="I never agreed")
    assert AuditFiles(tmp_path / "unsigned", "0").verify()[0].broken is None
    assert wrong(tmp_path / "unsigned", public_key(OURS)) == ("2026-11-28.jsonl", 1, "the line is not signed")
    written(tmp_path / "other", signing(THEIRS), text="I never agreed")
    file, line, why = wrong(tmp_path / "other", public_key(OURS))
    assert (file, line) == ("2026-11-28.jsonl", 1)
    assert why == f"the line is signed by the key {key_id(public_key(THEIRS))}, which is none of " + key_id(
        public_key(OURS)
    )


def test_a_signature_that_was_taken_from_elsewhere_is_none(tmp_path: Path) -> None:
    """Of another line, or of another worker's chain."""
    written(tmp_path, signing(OURS))
    path = tmp_path / "0" / "2026-11-28.jsonl"
    [line] = [json.loads(each) for each in path.read_text().splitlines()]
    anew: dict[str, Any] = dict(follow(None, "file", AT, {n: line[n] for n in ("file", "sha256", "rows")}))
    bare = {**{k: v for k, v in anew.items() if k != "hash"}, "key": line["key"], "rows": []}
    forged = {**bare, "hash": hashlib.sha256(canonical(bare)).hexdigest(), "sig": line["sig"]}
    path.write_bytes(canonical(forged) + b"\n")
    assert wrong(tmp_path, public_key(OURS)) == ("2026-11-28.jsonl", 1, "the signature is not that of the key")
    written(tmp_path, signing(OURS), worker="1")
    shutil.rmtree(tmp_path / "0")
    (tmp_path / "1").rename(tmp_path / "0")
    assert wrong(tmp_path, public_key(OURS)) == ("2026-11-28.jsonl", 1, "the signature is not that of the key")


@pytest.mark.parametrize("change", [lambda line: line.pop("sig"), lambda line: line.update(sig="AAAA")])
def test_a_signature_that_is_gone_or_spoiled_is_named(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    written(tmp_path, signing(OURS))
    path = tmp_path / "0" / "2026-11-29.jsonl"
    line = json.loads(path.read_text())
    change(line)
    path.write_bytes(canonical(line) + b"\n")
    assert wrong(tmp_path, public_key(OURS))[:2] == ("2026-11-29.jsonl", 1)


def test_nobody_signs_what_others_have_written(tmp_path: Path) -> None:
    """Else our signature would cover it."""
    written(tmp_path, Custody())
    files = AuditFiles(tmp_path, "0", signing(OURS))
    files.open()
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    for act in (
        lambda: files.write([row("x", 0)], AT + DAY),
        lambda: files.mark(AT + 2 * DAY),
        lambda: files.erase(["ann"], "+12125550177", AT + DAY),
    ):
        with pytest.raises(StoreError, match=r"2026-11-29.jsonl: the line is not signed: nothing is written after it"):
            act()
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_new_key_goes_on_where_the_old_one_ended(tmp_path: Path) -> None:
    written(tmp_path, signing(OURS))
    files = AuditFiles(tmp_path, "0", signing(THEIRS, OURS))
    files.write([row("ann", 2)], AT + 2 * DAY)
    assert files.erase(["bob"], "+12125550177", AT + 2 * DAY) == 1
    assert files.verify()[0].broken is None
    assert wrong(tmp_path, public_key(OURS))[:2] == ("2026-11-30.jsonl", 1)


def test_a_day_without_turns_is_marked_and_one_without_anybody_told(tmp_path: Path) -> None:
    files = written(tmp_path, signing(OURS))
    assert [files.mark(AT + n * DAY) for n in (1, 1, 4, 4)] == [False, False, True, False]
    found = files.verify()[0]
    assert (found.broken, found.last[:10], found.silent) == (None, "2026-12-02", ("2026-11-30", "2026-12-01"))
    (tmp_path / "0" / "2026-11-29.jsonl").unlink()
    assert wrong(tmp_path, public_key(OURS))[0] == "2026-12-02.jsonl"


# --- encrypted ---


def test_with_keys_nobody_else_can_read_the_words(tmp_path: Path) -> None:
    ring = KeyRing({"2026": b"k" * 32})
    files = written(tmp_path, Custody(keys=ring), text="my name is Ann")
    [path, _] = sorted(tmp_path.glob("0/*/*.parquet"))
    assert b"Ann" not in path.read_bytes()
    assert path.read_bytes()[:4] == b"PARE"
    assert [each["caller_text"] for each in files.rows()] == ["my name is Ann", "hello", "hello"]
    assert files.verify()[0].broken is None
    for keys, said in (
        (None, "privacy.keys is needed"),
        (KeyRing({"2027": b"n" * 32}), "the key '2026' is needed: privacy.keys has 2027"),
        (KeyRing({"2026": b"x" * 32}), "'2026' is not the key it was"),
    ):
        with pytest.raises(StoreError, match=said):
            unpacked(path.read_bytes(), keys)
    later = KeyRing({"2027": b"n" * 32, "2026": b"k" * 32})
    AuditFiles(tmp_path, "0", Custody(keys=later)).write([row("cid", 0)], AT + DAY)
    assert len([*AuditFiles(tmp_path, "0", Custody(keys=later)).rows()]) == 4


def test_erased_rows_of_encrypted_files_are_looked_at_by_whoever_has_the_key(tmp_path: Path) -> None:
    files = written(tmp_path, Custody(keys=KeyRing({"2026": b"k" * 32})))
    assert files.erase(["ann"], "+12125550177", AT + DAY) == 2
    assert (files.verify()[0].erased, files.verify()[0].unread, files.verify()[0].broken) == (2, 0, None)
    without = AuditFiles(tmp_path, "0")
    assert (without.verify()[0].unread, without.verify()[0].broken) == (2, None)
    path = sorted(tmp_path.glob("0/*/*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    broken = without.verify()[0].broken
    assert broken is not None
    assert broken.why == "it cannot be read: cut off, or no file of ours"


def test_any_flipped_byte_of_an_encrypted_file_is_named(tmp_path: Path) -> None:
    files = written(tmp_path, Custody(keys=KeyRing({"2026": b"k" * 32})))
    path = sorted(tmp_path.glob("0/*/*.parquet"))[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 197):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        broken = files.verify()[0].broken
        assert broken is not None, place
        assert broken.file == "2026-11-28/00000001.parquet"
