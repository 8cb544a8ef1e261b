"""WebSocket frames, server side (RFC 6455 section 5), for the media path. The opening handshake is the websockets
library's; this is the part that runs fifty times a second and call, so it is ours: bytes in, messages out, no task.

No extension is negotiated, so any RSV bit is an error. `PeerError.close_code` is the code of section 7.4.1.
"""

import struct
from typing import NamedTuple

from trunkline.errors import PeerError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

PROTOCOL_ERROR, UNSUPPORTED, INVALID_DATA, POLICY, TOO_BIG, INTERNAL = 1002, 1003, 1007, 1008, 1009, 1011
NORMAL, GOING_AWAY, TRY_AGAIN = 1000, 1001, 1013

MAX_MESSAGE_BYTES = 64 * 1024  # a Twilio media message is well under 1 KiB
MAX_REASON_BYTES = 123
MAX_FRAGMENTS = 64  # of one message: a peer that sends bytes one by one is not a carrier


class Message(NamedTuple):
    opcode: int
    """TEXT, BINARY, CLOSE, PING or PONG; fragments are joined."""
    data: bytes


class FrameParser:
    """Feed bytes, get whole messages, however the bytes are cut. A broken frame makes it FAILED: `error` says why, and
    like after a close frame (5.5.1) nothing more is read."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.error: PeerError | None = None
        self._max = max_message_bytes
        self._over = False
        self._buffer = b""
        self._fragments: list[bytes] = []
        self._fragmented = 0  # opcode of the message being assembled, 0 when none is
        self._fragmented_bytes = 0

    def feed(self, data: bytes) -> list[Message]:
        """What is whole now, up to a bad frame: look at `error` after handling it."""
        messages: list[Message] = []
        if not self._over:
            try:
                self._buffer = self._parse(self._buffer + data if self._buffer else data, messages)
            except PeerError as error:
                self.error = error
                self._finish()
        return messages

    def _finish(self) -> None:
        self._over = True
        self._buffer = b""
        self._fragments.clear()

    def _parse(self, buffer: bytes, messages: list[Message]) -> bytes:
        """Appends to `messages`; the rest that is not a whole frame. Raises PeerError."""
        at, available = 0, len(buffer)
        while available - at >= 2:
            first, second = buffer[at], buffer[at + 1]
            size = second & 0x7F
            body = at + 6
            if size == 126:
                body = at + 8
                if available < body:
                    self._check_head(first, second)
                    break
                size = buffer[at + 2] << 8 | buffer[at + 3]
            elif size == 127:
                body = at + 14
                if available < body:
                    self._check_head(first, second)
                    break
                (size,) = struct.unpack_from("!Q", buffer, at + 2)
            self._check_head(first, second)
            opcode = first & 0x0F
            if opcode < 8:
                # Told from the head alone: a peer must not make us wait for what is wrong already.
                if (opcode == CONTINUATION) != bool(self._fragmented):
                    raise PeerError("fragments out of order", PROTOCOL_ERROR)
                if size + self._fragmented_bytes > self._max:
                    raise PeerError(f"message over {self._max} bytes", TOO_BIG)
            end = body + size
            if available < end:
                break
            payload = _unmask(buffer[body:end], buffer[body - 4 : body])
            at = end
            if opcode == CLOSE:
                messages.append(Message(opcode, payload))
                self._finish()
                return b""
            if opcode >= 8 or (first & 0x80 and opcode):  # nearly always
                messages.append(Message(opcode, payload))
            else:
                joined = self._fragment(opcode, bool(first & 0x80), payload)
                if joined is not None:
                    messages.append(joined)
        return buffer[at:] if at else buffer

    def _check_head(self, first: int, second: int) -> None:
        """What can be told from two bytes, before waiting for more."""
        if not second & 0x80:
            raise PeerError("frame not masked", PROTOCOL_ERROR)  # 5.1: the server MUST close
        if first & 0x70:
            raise PeerError("reserved bits set", PROTOCOL_ERROR)
        opcode = first & 0x0F
        if opcode >= 8:
            # 5.5: control frames have 125 bytes at most and are not fragmented
            if opcode > PONG or second & 0x7F > 125 or not first & 0x80:
                raise PeerError("bad control frame", PROTOCOL_ERROR)
        elif opcode > BINARY:
            raise PeerError("unknown opcode", PROTOCOL_ERROR)

    def _fragment(self, opcode: int, final: bool, payload: bytes) -> Message | None:
        if opcode:
            self._fragmented = opcode
        self._fragments.append(payload)
        self._fragmented_bytes += len(payload)
        if len(self._fragments) > MAX_FRAGMENTS:
            raise PeerError(f"over {MAX_FRAGMENTS} fragments", POLICY)
        if not final:
            return None
        message = Message(self._fragmented, b"".join(self._fragments))
        self._fragments.clear()
        self._fragmented = self._fragmented_bytes = 0
        return message


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    if size == 0:
        return b""
    key = int.from_bytes(mask * (size // 4 + 1), "little") & ((1 << 8 * size) - 1)
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame (5.1: a server MUST NOT mask)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """`reason` is cut to what a control frame holds (5.5), at a whole character."""
    text = reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
    return frame(CLOSE, struct.pack("!H", code) + text.encode())


def close_code(payload: bytes) -> int:
    """The code of a received close frame, 1005 when it has none. Raises PeerError (7.4: reserved codes, bad UTF-8)."""
    if not payload:
        return 1005
    if len(payload) == 1:
        raise PeerError("close frame of one byte", PROTOCOL_ERROR)
    (code,) = struct.unpack_from("!H", payload)
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        raise PeerError("reserved close code", PROTOCOL_ERROR)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise PeerError("close reason is not UTF-8", INVALID_DATA) from None
    return int(code)
