"""Files that are encrypted as they are written, and whole up to their last chunk whenever the writer dies.

    TRUNKLINE SEALED 1\\n  {"key": "2026", "wrapped": "...", "about": {...}}\\n  chunk chunk ... chunk
    chunk:  length (4 bytes, big-endian; the top bit: it is the last)  AES-256-GCM(data)

Every file has a key of its own, which the master key wraps: a rotation is a new master key for new files, and the old
one is kept for as long as files need it. The nonce of a chunk is its number; the head of the file and the mark of the
last chunk are authenticated with each, so chunks cannot be changed, moved, left out or taken from another file.
"""

import base64
import binascii
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from trunkline.errors import StoreError

MAGIC = b"TRUNKLINE SEALED 1\n"
CHUNK_BYTES = 1024 * 1024  # at most, of one chunk
HEAD_BYTES = 16 * 1024
_LAST = 1 << 31
_TAG_BYTES = 16


class Keys(Protocol):
    """Who holds the master keys: the settings, or a key service. Blocking: call it in a thread."""

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        """Under the current key: its name, and the wrapped key. Raises StoreError."""
        ...

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """Raises StoreError for a key that is not there any more, or is another one."""
        ...


class KeyRing:
    """Keys of 32 bytes by name; the first is the current one."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys.values()):
            raise ValueError("at least one key, each of 32 bytes")
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        name, key = next(iter(self._keys.items()))
        nonce = os.urandom(12)
        return name, nonce + aes(key).encrypt(nonce, file_key, name.encode())

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(name)
        if key is None:
            raise StoreError(f"the key {name!r} is needed: privacy.keys has {', '.join(self._keys)}")
        try:
            return bytes(aes(key).decrypt(wrapped[:12], wrapped[12:], name.encode()))
        except (InvalidTag, ValueError):
            raise StoreError(f"privacy.keys: {name!r} is not the key it was") from None


def aes(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(number: int) -> bytes:
    return struct.pack(">IQ", 0, number)


class Sealer:
    """add... -> finish, on a file that is empty. Blocking."""

    def __init__(self, file: BinaryIO, keys: Keys, about: Mapping[str, Any]) -> None:
        """`about`: readable by anybody. Raises StoreError, OSError."""
        key = os.urandom(32)
        name, wrapped = keys.wrap(key)
        head = {"key": name, "wrapped": base64.b64encode(wrapped).decode(), "about": dict(about)}
        self._head = MAGIC + json.dumps(head).encode() + b"\n"
        self._file, self._cipher, self._number = file, aes(key), 0
        _write(file, self._head)

    def add(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            self._chunk(data[start : start + CHUNK_BYTES], 0)

    def finish(self) -> None:
        self._chunk(b"", _LAST)

    def _chunk(self, data: bytes, last: int) -> None:
        mark = struct.pack(">I", (len(data) + _TAG_BYTES) | last)
        _write(self._file, mark + self._cipher.encrypt(_nonce(self._number), data, mark + self._head))
        self._number += 1


@dataclass(slots=True)
class Opened:
    about: Mapping[str, Any]
    chunks: Iterator[bytes]
    """Raises StoreError at the first that is not as it was written."""
    finished: bool = False
    """Known once all chunks were read: False where the writer died before its end."""


def key_name(file: BinaryIO) -> str:
    """Of the master key that it needs. Raises StoreError."""
    if file.readline(HEAD_BYTES) != MAGIC:
        raise StoreError("not a sealed file")
    try:
        return str(json.loads(file.readline(HEAD_BYTES))["key"])
    except (ValueError, KeyError, TypeError):
        raise StoreError("the head of the sealed file is damaged") from None


def unseal(file: BinaryIO, keys: Keys) -> Opened:
    """Raises StoreError: not such a file, damaged, or its key is lost."""
    head = file.readline(HEAD_BYTES)
    if head != MAGIC:
        raise StoreError("not a sealed file")
    line = file.readline(HEAD_BYTES)
    try:
        said = json.loads(line)
        key = keys.unwrap(str(said["key"]), base64.b64decode(said["wrapped"]))
        about = dict(said["about"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise StoreError("the head of the sealed file is damaged") from None
    opened = Opened(about, iter(()))
    opened.chunks = _chunks(file, aes(key), head + line, opened)
    return opened


def _chunks(file: BinaryIO, cipher: Any, head: bytes, opened: Opened) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag

    number = 0
    while len(mark := file.read(4)) == 4:
        (length,) = struct.unpack(">I", mark)
        size = length & ~_LAST
        if not _TAG_BYTES <= size <= CHUNK_BYTES + _TAG_BYTES:
            raise StoreError(f"chunk {number} of the sealed file is damaged")
        data = file.read(size)
        if len(data) < size:
            return  # the writer died here
        try:
            yield bytes(cipher.decrypt(_nonce(number), data, mark + head))
        except InvalidTag:
            raise StoreError(f"chunk {number} of the sealed file is damaged") from None
        if length & _LAST:
            if file.read(1):
                raise StoreError("something was added to the sealed file")
            opened.finished = True
            return
        number += 1


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
