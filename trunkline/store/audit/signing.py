"""Who wrote a line of a manifest: Ed25519 over its hash. Whoever may write to the folder but has not the key can make
no line; whoever has the public key can tell.

A private key is 32 random bytes. The worker's name is signed as well, so one worker's chain is not another's.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def public_key(seed: bytes) -> bytes:
    """32 bytes, of the private key's 32."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


class Signer:
    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.id = key_id(public_key(seed))

    def sign(self, worker: str, line_hash: str) -> str:
        return base64.b64encode(self._key.sign(_message(worker, line_hash))).decode()


class Trusted:
    """Public keys, those of before too: a line is good that one of them has signed."""

    def __init__(self, publics: Iterable[bytes]) -> None:
        """Raises ValueError."""
        self._keys = {key_id(public): Ed25519PublicKey.from_public_bytes(public) for public in publics}

    def wrong(self, worker: str, line: Mapping[str, Any]) -> str:
        """Why the line is not good; empty: it is. Of one whose hash was checked."""
        if "sig" not in line or "key" not in line:
            return "the line is not signed"
        key = self._keys.get(str(line["key"]))
        if key is None:
            return f"the line is signed by the key {line['key']}, which is none of {', '.join(self._keys)}"
        try:
            key.verify(base64.b64decode(line["sig"]), _message(worker, line["hash"]))
        except (InvalidSignature, ValueError, TypeError):
            return "the signature is not that of the key"
        return ""


def _message(worker: str, line_hash: str) -> bytes:
    return f"trunkline audit 1\n{worker}\n{line_hash}".encode()
