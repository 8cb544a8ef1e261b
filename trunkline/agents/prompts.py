"""What the audit log keeps of what a model was asked: SHA-256, so that whoever has the request can show it is the one.

A session that has `prompt_sha256` tells it of its latest request. Of a request in JSON it is that of its canonical
form: sorted keys, no spaces, ASCII. Of a realtime session it is that of all that was written to it up to then, each
message's length (4 bytes, big-endian) and canonical form, the sound that is streamed left out. `llm.remote` has that of
its message (Protocol Buffers, deterministic).
"""

import hashlib
import json
from typing import Any


def sha256_of(request: Any) -> str:
    return hashlib.sha256(canonical(request)).hexdigest()


def canonical(request: Any) -> bytes:
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def prompt_of(session: Any) -> str:
    """Empty: it tells none."""
    return str(getattr(session, "prompt_sha256", ""))


class Told:
    """Of one session, message by message."""

    def __init__(self) -> None:
        self._all = hashlib.sha256()

    def add(self, message: bytes) -> None:
        self._all.update(len(message).to_bytes(4, "big") + message)

    @property
    def sha256(self) -> str:
        return self._all.copy().hexdigest()
