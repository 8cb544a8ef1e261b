"""The master keys together: a key service's where there is one, and those of the settings.

A key service (KMS) is anything with `wrap` and `unwrap`: a command, or a plug-in by its entry point. It is asked at the
start, and once for each of the keys that earlier processes had: under what it wraps, everything else is wrapped here.
So it is in no call's way; while it is away, what was written under other processes' keys cannot be read.
"""

import base64
import binascii
import os
import shlex
import struct
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from threading import Lock, Thread
from typing import Any, TypeVar

from trunkline.errors import ConfigError, StoreError
from trunkline.privacy.sealed import KeyRing, Keys, aes

T = TypeVar("T")

GROUP = "trunkline.keys"
COMMAND = "command:"
SERVICE = "kms:"
"""Before the names of a key service's keys: never a name of privacy.keys."""
_NONCE_BYTES = 12


class CommandService:
    """`COMMAND wrap` gets a key on stdin, as base64, and writes NAME WRAPPED; `COMMAND unwrap NAME` gets WRAPPED, and
    writes the key. Both as base64 without spaces."""

    def __init__(self, argv: list[str], deadline_s: float) -> None:
        self._argv, self._deadline_s = argv, deadline_s

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        name, _, wrapped = self._ask(["wrap"], file_key).partition(" ")
        return name, _bytes(wrapped)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        return _bytes(self._ask(["unwrap", name], wrapped))

    def _ask(self, what: list[str], given: bytes) -> str:
        try:
            done = subprocess.run(
                [*self._argv, *what],
                input=base64.b64encode(given),
                capture_output=True,
                timeout=self._deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StoreError(f"privacy.kms: no answer to {what[0]} within {self._deadline_s:g} s") from None
        except OSError as error:
            raise StoreError(f"privacy.kms: {self._argv[0]}: {error.strerror}") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise StoreError(f"privacy.kms: {what[0]} ended with {done.returncode}: {(said or [''])[-1][:200]}")
        return done.stdout.decode(errors="replace").strip()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise StoreError("privacy.kms: the answer is not base64") from None


class EnvelopedKeys:
    """`Keys` under a key of this process, which the service has wrapped."""

    def __init__(self, service: Keys, deadline_s: float) -> None:
        """Asks the service. Raises StoreError."""
        self._service, self._deadline_s = service, deadline_s
        self._lock = Lock()
        own = os.urandom(32)
        name, wrapped = self._asked(lambda: service.wrap(own))
        if not name or len(name) > 500 or not name.isprintable() or " " in name or not 0 < len(wrapped) <= 4096:
            raise StoreError("privacy.kms: wrap answers a name and at most 4096 bytes")
        if self._asked(lambda: service.unwrap(name, wrapped)) != own:  # or everything written from now on is lost
            raise StoreError(f"privacy.kms: what {name} wraps it does not unwrap again")
        self._name, self._wrapped = name, wrapped
        self._known = {(name, wrapped): aes(own)}

    def __repr__(self) -> str:
        return f"EnvelopedKeys({self._name})"

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(_NONCE_BYTES)
        box = self._known[self._name, self._wrapped].encrypt(nonce, file_key, self._name.encode())
        return SERVICE + self._name, struct.pack(">H", len(self._wrapped)) + self._wrapped + nonce + box

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        bare = name.removeprefix(SERVICE)
        length = struct.unpack(">H", wrapped[:2])[0] if len(wrapped) > 2 else 0
        under, rest = wrapped[2 : 2 + length], wrapped[2 + length :]
        try:
            cipher = self._cipher(bare, under)
            return bytes(cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], bare.encode()))
        except (InvalidTag, ValueError):
            raise StoreError(f"privacy.kms: {bare} is not the key it was") from None

    def _cipher(self, name: str, wrapped: bytes) -> Any:
        with self._lock:
            if (name, wrapped) not in self._known:
                self._known[name, wrapped] = aes(self._asked(lambda: self._service.unwrap(name, wrapped)))
            return self._known[name, wrapped]

    def _asked(self, ask: Callable[[], T]) -> T:
        """A plug-in may hang, and may raise anything."""
        found: list[T] = []
        failed: list[Exception] = []

        def run() -> None:
            try:
                found.append(ask())
            except Exception as error:
                failed.append(error)

        thread = Thread(target=run, name="kms", daemon=True)
        thread.start()
        thread.join(self._deadline_s + 1)
        if found:
            return found[0]
        if failed and isinstance(failed[0], StoreError):
            raise failed[0]
        why = type(failed[0]).__name__ if failed else f"no answer within {self._deadline_s:g} s"
        raise StoreError(f"privacy.kms: {why}") from None


class MasterKeys:
    """`Keys`: new ones under the service where there is one, else under the first of the settings."""

    def __init__(self, service: EnvelopedKeys | None, ring: KeyRing | None) -> None:
        if service is None and ring is None:
            raise ValueError("a key service, or a key")
        self._service, self._ring = service, ring

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        current = self._service or self._ring
        assert current is not None
        return current.wrap(file_key)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        if name.startswith(SERVICE):
            if self._service is None:
                raise StoreError(f"the key {name!r} is needed: privacy.kms is not set")
            return self._service.unwrap(name, wrapped)
        if self._ring is None:
            raise StoreError(f"the key {name!r} is needed: privacy.keys has none")
        return self._ring.unwrap(name, wrapped)


def open_keys(kms: str | None, deadline_s: float, keys: Mapping[str, bytes]) -> MasterKeys | None:
    """None: nothing is sealed. Blocking, as long as `deadline_s` twice. Raises ConfigError."""
    ring = KeyRing(keys) if keys else None
    if kms is None:
        return None if ring is None else MasterKeys(None, ring)
    try:
        return MasterKeys(EnvelopedKeys(_service(kms, deadline_s), deadline_s), ring)
    except StoreError as error:
        raise ConfigError("privacy.kms", kms, f"a key service that answers ({error})") from error


def _service(kms: str, deadline_s: float) -> Keys:
    if kms.startswith(COMMAND):
        return CommandService(shlex.split(kms.removeprefix(COMMAND)), deadline_s)
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kms not in found:
        known = ", ".join(sorted(found)) or "none is installed"
        raise ConfigError("privacy.kms", kms, f"command: PROGRAM, or a plug-in of {GROUP} ({known})")
    try:
        service: Keys = found[kms].load()()
    except Exception as error:
        raise ConfigError("privacy.kms", kms, f"a plug-in that loads ({type(error).__name__}: {error})") from error
    return service
