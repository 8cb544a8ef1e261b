"""The folders of recordings: what is opened for a call, which files are whose, and what one holds.

`CALL.wav`, for a call that came back also `CALL-2.wav`; with `.sealed` behind it where there are keys.
"""

import logging
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import StoreError
from trunkline.media.recorder import Finished, Recorder, about, format_of
from trunkline.ports import Allow
from trunkline.privacy.sealed import Keys, Sealer, key_name, unseal
from trunkline.types import CallId, Encoding, Format

log = logging.getLogger(__name__)

SEALED = ".sealed"
_CHUNK_BYTES = 1 << 20


class Recordings:
    """Of a process: `open` for each call, `wait` at the end."""

    def __init__(self, folder: Path, keys: Keys | None, noted: Callable[[CallId, Finished], None]) -> None:
        """`noted`: told of each that is finished, by its thread."""
        self._keys, self._noted = keys, noted
        self.folder_of: Callable[[CallId], Path] = lambda call_id: folder
        self._open: list[Recorder] = []

    def open(self, call_id: CallId, permit: Allow) -> Recorder | None:
        """None: it cannot be, which is logged."""
        folder = self.folder_of(call_id)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            name, again = str(call_id), 1
            while any((folder / f"{name}{end}").exists() for end in (".wav", f".wav{SEALED}")):
                again += 1
                name = f"{call_id}-{again}"
            name += ".wav" if self._keys is None else f".wav{SEALED}"
        except OSError as error:
            log.error("call %s is not recorded: %s", call_id, error.strerror)
            return None
        recorder = Recorder(
            folder / name, permit, keys=self._keys, finished=lambda finished: self._noted(call_id, finished)
        )
        self._open = [each for each in self._open if not each.wait(0)]
        self._open.append(recorder)
        return recorder

    def wait(self, timeout_s: float) -> None:
        """Until those that were closed are finished. Blocking."""
        until_s = SYSTEM_CLOCK.now() + timeout_s
        for recorder in self._open:
            recorder.wait(max(0.0, until_s - SYSTEM_CLOCK.now()))


def call_of(path: Path) -> tuple[str, str]:
    """The calls it may be of: as it is named, and without a number behind."""
    name = path.name.partition(".wav")[0]
    return name, name.rpartition("-")[0]


def recordings_in(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.name.endswith((".wav", f".wav{SEALED}")))


def recordings_of(folders: Iterable[Path], call_id: str) -> list[Path]:
    return [path for path in recordings_in(folders) if call_id in call_of(path)]


def bare(name: str) -> str:
    """Whether or not it was sealed later."""
    return name.removesuffix(SEALED)


@dataclass(frozen=True, slots=True)
class Held:
    """What is in a file."""

    audio_bytes: int
    seconds: float
    sha256_of: str
    """Of so many bytes of its audio as were asked for."""
    finished: bool
    """False: its writer died, or its end was cut off. Always true for a plain WAV, which cannot tell."""


def audio_of(path: Path, keys: Keys | None) -> "tuple[Iterator[bytes], int, Callable[[], bool]]":
    """Its chunks, bytes a second, and (once those were read) whether it is finished. Raises StoreError, OSError."""
    file = path.open("rb")
    if path.name.endswith(SEALED):
        if keys is None:
            file.close()
            raise StoreError(f"{path.name} is sealed: privacy.keys has none")
        try:
            opened = unseal(file, keys)
            _named(path, opened.about)
            format = format_of(opened.about)
        except BaseException:
            file.close()
            raise
        return _closing(file, opened.chunks), 2 * len(format.silence) * format.rate_hz, lambda: opened.finished
    start, per_second = _wav(file.read(128))
    file.seek(start)
    return _closing(file, iter(lambda: file.read(_CHUNK_BYTES), b"")), per_second, lambda: True


def _wav(head: bytes) -> tuple[int, int]:
    """Where the audio of one of our files begins, and its bytes a second."""
    at = head.find(b"data")
    if head[:4] != b"RIFF" or at < 0 or len(head) < at + 8:
        raise StoreError("not a recording of ours")
    return at + 8, struct.unpack("<I", head[28:32])[0]


def _named(path: Path, said: Mapping[str, Any]) -> None:
    """Raises StoreError for a sealed recording under another's name. (Older ones do not say theirs.)"""
    name = said.get("file", bare(path.name))
    if name != bare(path.name):
        raise StoreError(f"{path.name} was sealed as {name}")


def format_in(path: Path, keys: Keys | None) -> Format:
    """Raises StoreError, OSError."""
    with path.open("rb") as file:
        if path.name.endswith(SEALED):
            if keys is None:
                raise StoreError(f"{path.name} is sealed: privacy.keys has none")
            said = unseal(file, keys).about
            _named(path, said)
            return format_of(said)
        head = file.read(128)
    _wav(head)
    encodings: dict[int, Encoding] = {1: "pcm16", 6: "alaw", 7: "mulaw"}
    tag, _, rate_hz = struct.unpack("<HHI", head[20:28])
    return Format(encodings[tag], rate_hz)


def _closing(file: "object", chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    finally:
        file.close()  # type: ignore[attr-defined]


def held(path: Path, keys: Keys | None, first_bytes: int | None = None) -> Held:
    """Reads it all. Raises StoreError for what is not as it was written, OSError."""
    chunks, per_second, finished = audio_of(path, keys)
    total, sum_ = 0, sha256()
    for chunk in chunks:
        wanted = chunk if first_bytes is None else chunk[: max(0, first_bytes - total)]
        sum_.update(wanted)
        total += len(chunk)
    return Held(total, total / per_second if per_second else 0.0, sum_.hexdigest(), finished())


def verdict(path: Path, keys: Keys | None, noted: Sequence[Finished]) -> tuple[bool, str]:
    """Whether it is as its record says, and a line for people. Raises OSError."""
    said = next((each for each in reversed(noted) if bare(each.file) == bare(path.name)), None)
    try:
        found = held(path, keys, None if said is None else said.audio_bytes)
    except StoreError as error:
        return False, str(error)
    about = f"{found.seconds:.1f} s"
    if said is None:
        return False, f"{about}; the record does not tell of its end: its writer died, or is still at it"
    if found.audio_bytes < said.audio_bytes:
        return False, f"{about}; CUT: {said.audio_bytes - found.audio_bytes} bytes of audio are missing"
    if found.sha256_of != said.sha256:
        return False, f"{about}; CHANGED: not the audio that was written"
    if said.failed:
        return True, f"{about}; as it was written, until the disk failed ({said.failed})"
    if found.audio_bytes > said.audio_bytes or not found.finished:
        return False, f"{about}; CHANGED: not the end that was written"
    return True, f"{about}; as it was written"


# --- another key ---


def sealed_under(path: Path) -> str | None:
    """The name of its master key; None: it is in clear. Raises StoreError, OSError."""
    if not path.name.endswith(SEALED):
        return None
    with path.open("rb") as file:
        return key_name(file)


def seal_anew(path: Path, keys: Keys) -> Path:
    """Under the current key, also what was in clear; as old as it was, and unfinished where it was. Written beside and
    put in place whole. Raises StoreError for what cannot be opened and OSError for the disk: nothing has changed then.
    Blocking."""
    was_sealed = path.name.endswith(SEALED)
    target = path if was_sealed else path.with_name(path.name + SEALED)
    aside = target.with_name(f".{target.name}.new")
    try:
        before, format = path.stat(), format_in(path, keys)
        chunks, _, finished = audio_of(path, keys)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", 0) as file:
            sealer = Sealer(file, keys, about(target.name, format))
            for chunk in chunks:
                sealer.add(chunk)
            if finished():
                sealer.finish()
            os.fsync(file.fileno())
        os.utime(aside, ns=(before.st_atime_ns, before.st_mtime_ns))
        aside.rename(target)
        if not was_sealed:
            path.unlink()
    finally:
        aside.unlink(missing_ok=True)
    return target
