"""UDP sockets that know when the kernel received each datagram (SO_TIMESTAMPNS): our own lateness is not in it."""

import random
import socket
import struct
from collections.abc import Callable

from trunkline.clock import Clock
from trunkline.errors import PeerError

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
RTP_PORTS = range(20_000, 32_768, 2)  # above the gateway's own, below the kernel's; even (RFC 3550 11)
TRIES = 200
DATAGRAM_BYTES = 65_535
RTP_BYTES = 2048
ANCILLARY_BYTES = 64
PACE_S = 0.018  # of 20 ms: an empty look costs as much as a packet
SAMPLE_S = 0.005
PROMPT_S = 0.000_1  # a longer look at both clocks was interrupted and says nothing

_TIMESPEC = struct.Struct("@qq")


class Stamps:
    """Kernel timestamps (the wall clock) to the caller's monotonic `now`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = clock.wall().timestamp() - clock.now()
        self._sampled_at = clock.now()

    def now(self) -> float:
        now = self._clock.now()
        if now - self._sampled_at > SAMPLE_S:
            wall, after = self._clock.wall().timestamp(), self._clock.now()
            if after - now < PROMPT_S:  # the wall clock is slewed, so it is looked at again and again
                self._offset_s, self._sampled_at = wall - (now + after) / 2, now
        return now

    def arrival(self, stamp: bytes) -> float:
        seconds, nanoseconds = _TIMESPEC.unpack(stamp)
        return float(seconds - self._offset_s + nanoseconds * 1e-9)


class StampedSocket:
    """One UDP socket: `drain` what has come."""

    def __init__(self, sock: socket.socket, stamps: Stamps, size: int = RTP_BYTES, pace_s: float = 0.0) -> None:
        """`pace_s`: after a datagram younger than that no other is looked for; the next `drain` would have it."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock, self._stamps, self._size, self._pace_s = sock, stamps, size, pace_s
        self.unsent = 0
        """The socket's buffer was full, or there was no way."""
        self._recvmsg, self._sendto = sock.recvmsg, sock.sendto

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.sock.getsockname()[:2]
        return str(host), int(port)

    def drain(self, take: Callable[[bytes, tuple[str, int], float], None]) -> None:
        now, size, recvmsg = self._stamps.now(), self._size, self._recvmsg
        try:
            while True:
                data, ancillary, _, source = recvmsg(size, ANCILLARY_BYTES)
                at = self._stamps.arrival(ancillary[0][2]) if ancillary else now
                take(data, source[:2], at)
                if now - at < self._pace_s:
                    return
        except BlockingIOError:
            return
        except OSError:
            return  # an ICMP error of an earlier packet: the far end is gone, which its silence tells as well

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        try:
            self._sendto(data, to)
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        self.sock.close()


def bind_rtp(host: str, stamps: Stamps) -> StampedSocket:
    """On a free even port; the odd one after it stays free, where the far end may send RTCP. Raises PeerError."""
    for port in random.sample(RTP_PORTS, TRIES):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            continue
        return StampedSocket(sock, stamps, pace_s=PACE_S)
    raise PeerError(f"no free RTP port on {host}")


def local_host(to: tuple[str, int]) -> str:
    """Our address on the way there. Raises PeerError."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(to)
        except OSError as error:
            raise PeerError(f"no way to {to[0]}: {error}") from error
        return str(probe.getsockname()[0])
