"""`build`: the wheel, from the cache or made, into this venv. `cached`: only from the cache. `offer`: what `make run`
takes along without waiting: the wheel from the cache, or the published one, or nothing."""

import argparse
import os
import sysconfig
import time
from pathlib import Path

from builder import source, tree, wheel
from builder.cache import alone, cache_folder, cached, keep_newest, wheel_folder
from builder.install import PUBLISHED, TUNED, install, install_published, installed
from builder.keys import wheel_version
from builder.steps import BuildError, say

NOT_CACHED = 3
KEPT_WHEELS = 12
KEPT_LOGS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["build", "cached", "offer"])
    command = parser.parse_args().command
    cache = cache_folder(os.environ)
    try:
        with alone(cache):
            if command == "offer":
                offer(cache)
                return 0
            return build(
                cache,
                given=Path(os.environ["PJSIP_SOURCE"]) if os.environ.get("PJSIP_SOURCE") else None,
                sha256=os.environ.get("PJSIP_SHA256") or None,
                fresh=bool(os.environ.get("PJSIP_FRESH")),
                may_build=command == "build",
            )
    except BuildError as error:
        say(str(error))
        return 1


def build(cache: Path, given: Path | None, sha256: str | None, fresh: bool, may_build: bool) -> int:
    """`fresh`: linked and bundled again, with this machine's libraries as they are now."""
    found = source.from_path(given, sha256) if given else None
    made = None if fresh else cached(cache, found.identity if found else None)
    if made is None and not may_build:
        return NOT_CACHED
    if made is None:
        began = time.monotonic()
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            raise BuildError(f"the headers of this Python are missing (python{sysconfig.get_python_version()}-dev)")
        found = found or source.find(sha256, cache / "downloads")
        say(f"from {found.path}")
        made = wheel.build(tree.compiled(found, cache), cache, wheel_folder(cache), found.identity)
        keep_newest((cache / "wheels").iterdir(), KEPT_WHEELS)
        keep_newest((cache / "logs").iterdir(), KEPT_LOGS)
        say(f"built in {time.monotonic() - began:.0f} s")
    install(made)
    return 0


def offer(cache: Path) -> None:
    made = cached(cache)
    have = installed(TUNED)
    if made is not None:
        install(made, quiet=True)
    elif have is not None and have != wheel_version():
        say(f"the installed PJSIP ({have}) is of another state of native/pjsua2; `make pjsip` builds this one")
    elif have is None and installed(PUBLISHED) is None:
        install_published()
