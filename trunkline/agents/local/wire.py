"""Messages between the gateway and a speech worker, over one local stream socket.

On the wire, big-endian: u32 length of what follows | u32 job | u8 length of name | u32 length of fields | name, ASCII |
fields, JSON, empty for none | data, the rest. Job 0 is the worker itself.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.errors import PeerError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # the largest is a set of grammars or a long phrase as 16 kHz PCM: both under 1 MiB
WORKER = 0

_HEAD = struct.Struct("!IIBI")
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Message:
    """`fields` hold what JSON holds; audio travels in `data`."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    data: bytes = b""


def pack(job: int, message: Message) -> bytes:
    name = message.name.encode("ascii")
    fields = json.dumps(dict(message.fields), separators=(",", ":")).encode() if message.fields else b""
    length = _HEAD.size - _LENGTH_BYTES + len(name) + len(fields) + len(message.data)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes; at most {MAX_MESSAGE_BYTES} fit")
    return b"".join((_HEAD.pack(length, job, len(name), len(fields)), name, fields, message.data))


class Unpacker:
    """Bytes in any pieces -> (job, message, size in bytes on the wire), in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[tuple[int, Message, int]]:
        """Take what the iterator gives before the next call. Raises PeerError on bytes that are no message."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _HEAD.size:
                length, job, name_bytes, fields_bytes = _HEAD.unpack_from(buffer, start)
                end = start + _LENGTH_BYTES + length
                body = start + _HEAD.size
                if length > MAX_MESSAGE_BYTES or body + name_bytes + fields_bytes > end:
                    raise PeerError(f"not a message: length {length}, name {name_bytes}, fields {fields_bytes}")
                if len(buffer) < end:
                    break
                message = _read(bytes(buffer[body:end]), name_bytes, fields_bytes)
                size, start = end - start, end
                yield job, message, size
        finally:
            del buffer[:start]


def _read(body: bytes, name_bytes: int, fields_bytes: int) -> Message:
    after_name, after_fields = name_bytes, name_bytes + fields_bytes
    try:
        name = body[:after_name].decode("ascii")
        fields = json.loads(body[after_name:after_fields]) if fields_bytes else {}
    except ValueError as error:
        raise PeerError(f"not a message: {error}") from None
    if not isinstance(fields, dict):
        raise PeerError("not a message: fields are no object")
    return Message(name, fields, body[after_fields:])
