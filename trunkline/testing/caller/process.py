"""CPU and memory of the gateway under test, from /proc (Linux) or from its own /metrics."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import httpx

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SERVING = {"net/tcp": "0A", "net/tcp6": "0A", "net/udp": "07", "net/udp6": "07"}  # LISTEN; unconnected


@dataclass(frozen=True, slots=True)
class Load:
    cpu_s: float
    rss_bytes: int
    children_cpu_s: float = 0.0
    """Of its worker processes (local speech)."""
    children_rss_bytes: int = 0


def listening_pid(port: int, proc: Path = Path("/proc")) -> int | None:
    """The process that listens on a local TCP or UDP port; None when there is none that we may see."""
    inodes: set[str] = set()
    for table, state in _SERVING.items():
        try:
            rows = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (row.split() for row in rows):
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for fds in proc.glob("[0-9]*/fd"):
        try:
            if any(os.readlink(fd) in inodes for fd in fds.iterdir()):
                return int(fds.parent.name)
        except OSError:
            continue
    return None


def read(pid: int, proc: Path = Path("/proc")) -> Load | None:
    """None when the process is gone."""
    own = _one(pid, proc)
    if own is None:
        return None
    children = [load for child in _children(pid, proc) if (load := _one(child, proc)) is not None]
    return Load(*own, sum(c for c, _ in children), sum(r for _, r in children))


def _one(pid: int, proc: Path) -> tuple[float, int] | None:
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _children(pid: int, proc: Path) -> list[int]:
    found: list[int] = []
    for path in (proc / str(pid) / "task").glob("*/children"):
        try:
            direct = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *_children(child, proc)]
    return found


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def load_of(pid: int | None, local_port: int | None, http: httpx.AsyncClient, origin: str) -> Load | None:
    """Of the process named, else of whoever serves that port here, else what the gateway at `origin` says itself."""
    pid = pid or (listening_pid(local_port) if local_port is not None else None)
    return read(pid) if pid is not None else await read_metrics(http, origin)


async def read_metrics(http: httpx.AsyncClient, origin: str) -> Load | None:
    """From `process_cpu_seconds_total` and `process_resident_memory_bytes`; None where they cannot be had."""
    try:
        response = await http.get(origin + "/metrics", timeout=5.0)
        lines = dict(r.rsplit(" ", 1) for r in response.text.splitlines() if r.startswith("process_"))
        return Load(float(lines["process_cpu_seconds_total"]), int(float(lines["process_resident_memory_bytes"])))
    except (httpx.HTTPError, KeyError, ValueError):
        return None
