"""The cache folder, outside the repository: finished wheels, compiled PJSIP, object files, downloads, logs."""

import fcntl
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from builder.keys import wheel_key
from builder.steps import BuildError, say

OTHER_BUILD_S = 1800.0


def cache_folder(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "trunkline" / "pjsua2"


def wheel_folder(cache: Path) -> Path:
    """Of the wheel for the Python that runs this, and this folder's sources."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return cache / "wheels" / wheel_key(tag, platform.machine())


def cached(cache: Path, identity: str | None = None) -> Path | None:
    """That wheel; if a source is named, only when it was made of it."""
    folder = wheel_folder(cache)
    made = sorted(folder.glob("*.whl"))
    if not made or (identity is not None and (folder / "source").read_text() != identity):
        return None
    return made[0]


def modified_s(path: Path) -> float:
    return path.stat().st_mtime


def keep_newest(paths: Iterable[Path], count: int, used_s: Callable[[Path], float] = modified_s) -> None:
    """Removes all but the `count` last used."""
    for path in sorted(paths, key=used_s, reverse=True)[count:]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """One build or installation at a time. Raises BuildError when another does not end."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        ends = time.monotonic() + OTHER_BUILD_S
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say("another build runs; waiting for it")
                    told = True
                if time.monotonic() > ends:
                    raise BuildError("another build does not end") from None
                time.sleep(0.5)
        yield
