"""Sealed files: nothing to be read without the key, whole up to where a writer died, and not to be changed."""

import io
from pathlib import Path

import pytest

from trunkline.errors import StoreError
from trunkline.media.recorder import Recorder, opened_wav
from trunkline.ports import Allow
from trunkline.privacy.sealed import KeyRing, Sealer, unseal

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
KEYS = KeyRing({"old": OLD})


def sealed(*data: bytes, finish: bool = True, keys: KeyRing = KEYS) -> bytes:
    file = io.BytesIO()
    sealer = Sealer(file, keys, {"of": "a test"})
    for each in data:
        sealer.add(each)
    if finish:
        sealer.finish()
    return file.getvalue()


def read(file: bytes, keys: KeyRing = KEYS) -> tuple[bytes, bool]:
    opened = unseal(io.BytesIO(file), keys)
    data = b"".join(opened.chunks)
    return data, opened.finished


def test_what_is_sealed_is_read_with_its_key_only() -> None:
    file = sealed(b"4111111111111111", b"x" * 3_000_000)
    assert b"4111" not in file
    assert read(file) == (b"4111111111111111" + b"x" * 3_000_000, True)
    with pytest.raises(StoreError, match="'old' is needed"):
        read(file, KeyRing({"new": NEW}))
    with pytest.raises(StoreError, match="not the key it was"):
        read(file, KeyRing({"old": NEW}))


def test_after_a_rotation_old_files_are_read_and_new_ones_need_the_new_key() -> None:
    both = KeyRing({"new": NEW, "old": OLD})
    assert read(sealed(b"before"), both) == (b"before", True)
    with pytest.raises(StoreError, match="'new' is needed"):
        read(sealed(b"after", keys=both))


def test_a_writer_that_died_leaves_what_it_had_written() -> None:
    file = sealed(b"one", b"two", finish=False)
    assert read(file) == (b"onetwo", False)
    assert read(file[:-1]) == (b"one", False)


def test_any_changed_byte_is_found() -> None:
    file = sealed(b"one", b"two")
    for at in range(len(file)):
        changed = bytearray(file)
        changed[at] ^= 1
        try:
            data, finished = read(bytes(changed))
        except (StoreError, UnicodeDecodeError):
            continue
        assert not finished, at
        assert data in (b"", b"one", b"onetwo")


def test_chunks_cannot_be_added_or_moved() -> None:
    with pytest.raises(StoreError):
        read(sealed(b"one") + b"more")
    file = sealed(b"aaa", b"bbb", finish=False)
    chunk = 4 + 3 + 16
    with pytest.raises(StoreError, match="chunk 0"):
        read(file[: -2 * chunk] + file[-chunk:] + file[-2 * chunk : -chunk])


def test_a_sealed_recording_opens_as_the_wav_it_would_have_been(tmp_path: Path) -> None:
    recordings = [Recorder(tmp_path / "plain", Allow()), Recorder(tmp_path / "sealed", Allow(), keys=KEYS)]
    for recording in recordings:
        for frame in range(50):
            recording.write("caller", frame * 160, bytes([frame]) * 160)
        recording.close()
        assert recording.wait(5)
    plain, file = (tmp_path / "plain").read_bytes(), (tmp_path / "sealed").read_bytes()
    assert bytes([7]) * 4 not in file
    wav = io.BytesIO()
    assert opened_wav(io.BytesIO(file), wav, KEYS)
    assert wav.getvalue() == plain
