"""Leased ports: nobody gets one twice, nor one that is taken."""

import socket
import subprocess
import sys

import pytest

from trunkline.testing import ports
from trunkline.testing.ports import lease

LEASES = "from trunkline.testing.ports import lease; print(*[lease(3) for _ in range(20)], flush=True); input()"


def test_no_two_processes_get_the_same() -> None:
    others = [
        subprocess.Popen([sys.executable, "-c", LEASES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    got = [lease(3) for _ in range(20)]
    for other in others:
        with other:
            assert other.stdout is not None
            got += [int(port) for port in other.stdout.readline().split()]
            other.communicate("\n")
    assert len(got) == 60
    assert len({port + i for port in got for i in range(3)}) == 180
    assert all(ports.FIRST <= port <= ports.LAST - 2 for port in got)


def test_one_that_is_taken_for_tcp_or_udp_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = lease(3)  # nobody else's, and from here on not known to be ours
    monkeypatch.setattr(ports, "_NAME", "\0trunkline-test-port-{}")
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 2)
    with socket.create_server(("127.0.0.1", first)), socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", first + 1))
        assert lease() == first + 2
        with pytest.raises(OSError, match="no 1 free ports"):
            lease()
