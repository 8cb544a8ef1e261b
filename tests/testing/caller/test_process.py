import os
import socket
from pathlib import Path

from trunkline.testing.caller import process


def test_the_process_behind_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert process.listening_pid(server.getsockname()[1]) == os.getpid()


def test_nobody_listens_on_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert process.listening_pid(port) is None


def test_a_process_has_cpu_time_and_memory() -> None:
    load = process.read(os.getpid())
    assert load is not None
    assert load.cpu_s > 0
    assert load.rss_bytes > 1_000_000


def test_a_process_that_is_gone_has_no_load(tmp_path: Path) -> None:
    assert process.read(1, proc=tmp_path) is None
