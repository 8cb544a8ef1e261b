"""Ports of 127.0.0.0/8 for servers of tests: two that run at once, in this process or another, never get the same.

A port that was free a moment ago may be somebody else's when the server binds it: another test's server's, or any
outgoing connection's where it lies in the ephemeral range. So these lie below that range and are leased: by the name of
an abstract Unix socket (Linux), which the kernel gives back when this process ends.
"""

import atexit
import contextlib
import itertools
import os
import socket

FIRST, LAST = 20_000, 28_999  # above the gateway's RTP ports, below Linux's ephemeral ones (32,768)

_NAME = "\0trunkline-port-{}"
_held = contextlib.ExitStack()
atexit.register(_held.close)
_next = itertools.count(os.getpid() * 89)


def lease(count: int = 1, host: str = "127.0.0.1") -> int:
    """The first of `count` ports in a row, free for TCP and UDP and ours until this process ends."""
    for _ in range(LAST - FIRST + 1):
        first = FIRST + next(_next) % (LAST - FIRST + 2 - count)
        ports = range(first, first + count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as leases, contextlib.ExitStack() as probes:
            for port in ports:
                _bind(leases, socket.AF_UNIX, _NAME.format(port))
            for port in ports:
                probes.enter_context(socket.create_server((host, port)))
                _bind(probes, socket.AF_INET, (host, port))
            _held.push(leases.pop_all())
            return first
    raise OSError(f"no {count} free ports in a row from {FIRST} to {LAST}")


def _bind(stack: contextlib.ExitStack, family: int, address: object) -> None:
    stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)).bind(address)  # type: ignore[arg-type]
