"""Texts that are encrypted one by one, each bound to its place: what is moved to another row does not open there.

    sealed:1:KEY:WRAPPED:BOX     the master key's name; the data key it wraps; nonce and AES-256-GCM of the text

A process has a data key of its own, which a master key wraps once; so nothing has to be asked while calls go on, and
each text says itself which key opens it. 2^32 texts under one data key are far from what a process writes.
"""

import base64
import binascii
import os
from collections import OrderedDict
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import StoreError
from trunkline.privacy.sealed import Keys, aes

PREFIX = "sealed:1:"
NO_KEYS = "privacy.keys has none"
_NONCE_BYTES = 12
_KNOWN = 4096  # data keys: of as many processes' lives
_AGAIN_S = 30.0
"""A key that was not to be had is asked for again after so long: whoever reads must not wait for each row."""


def is_sealed(text: str) -> bool:
    return text.startswith(PREFIX)


def key_of(text: str) -> str:
    """The name of the master key that a sealed text needs."""
    return unquote(text.removeprefix(PREFIX).partition(":")[0])


def sealed_under(name: str) -> str:
    """What texts sealed under a master key begin with."""
    return f"{PREFIX}{quote(name, safe='')}:"


class TextSeal:
    """`seal` is for the event loop; `open` may ask a key service: for a thread, unless the key is known (`learn`)."""

    def __init__(self, keys: Keys, clock: Clock = SYSTEM_CLOCK) -> None:
        """Blocking. Raises StoreError."""
        self._keys, self._clock = keys, clock
        data_key = os.urandom(32)
        self.key, wrapped = keys.wrap(data_key)
        self._head = sealed_under(self.key) + base64.b64encode(wrapped).decode() + ":"
        self._cipher = aes(data_key)
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._lost: dict[str, tuple[StoreError, float]] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"TextSeal({self.key})"

    def seal(self, text: str, place: str) -> str:
        """What is empty stays so."""
        if not text:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        box = self._cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), place.encode())
        return self._head + base64.b64encode(nonce + box).decode()

    def open(self, text: str, place: str) -> str:
        """A text that is not sealed is given back. Raises StoreError, naming the key."""
        from cryptography.exceptions import InvalidTag

        if not is_sealed(text):
            return text
        head, colon, box = text.rpartition(":")
        try:
            cipher = self._of(head + colon)
            data = base64.b64decode(box, validate=True)
            return bytes(cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place.encode())).decode(
                "utf-8", "surrogatepass"
            )
        except (InvalidTag, binascii.Error, ValueError):
            raise StoreError(f"not as it was sealed with the key {key_of(text)!r}, or not here") from None

    def learn(self, text: str) -> None:
        """Have the key of a sealed text at hand, if it is to be had."""
        try:
            self._of(text.rpartition(":")[0] + ":")
        except StoreError:
            pass

    def _of(self, head: str) -> Any:
        cipher = self._cipher if head == self._head else self._known.get(head)
        if cipher is not None:  # without the lock: somebody may be asking a key service under it
            return cipher
        with self._lock:
            if head in self._known:
                return self._known[head]
            error, until = self._lost.get(head, (None, 0.0))
            if error is not None and self._clock.now() < until:
                raise error
            name, _, wrapped = head.removeprefix(PREFIX).partition(":")
            try:
                data_key = self._keys.unwrap(unquote(name), base64.b64decode(wrapped.rstrip(":"), validate=True))
                cipher = aes(data_key)
            except StoreError as lost:
                if len(self._lost) >= _KNOWN:
                    self._lost.clear()
                self._lost[head] = lost, self._clock.now() + _AGAIN_S
                raise
            self._known[head] = cipher
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            return cipher
