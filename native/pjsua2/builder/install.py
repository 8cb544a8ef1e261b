"""What of pjsua2 is in the venv that runs this, and putting it there."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from builder.keys import NATIVE, file_sha256
from builder.steps import BuildError, say

PUBLISHED = "pjsua2-python"
TUNED = "pjsua2"
LOCK = NATIVE / "../../requirements-sip.lock"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")


def installed(name: str) -> str | None:
    """Its version."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def is_installed(wheel: Path) -> bool:
    """Whether this very file is; pip notes its sum."""
    if installed(TUNED) is None or installed(PUBLISHED) is not None:
        return False
    origin = json.loads(distribution(TUNED).read_text("direct_url.json") or "{}")
    return bool(origin.get("archive_info", {}).get("hashes", {}).get("sha256") == file_sha256(wheel))


def install(wheel: Path, quiet: bool = False) -> None:
    """Raises BuildError. Quiet, if asked, when there is nothing to do.

    The published package goes first: its folder `pjsua2` would hide our module."""
    if is_installed(wheel):
        if not quiet:
            say(f"{wheel.name} is installed")
        return
    if installed(PUBLISHED) is not None:
        pip("uninstall", "-y", PUBLISHED)
    pip("install", "--no-index", "--no-deps", "--force-reinstall", str(wheel))
    check = "import pjsua2, _pjsua2; assert pjsua2.__file__.endswith('pjsua2.py'), pjsua2.__file__"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"the installed wheel does not import:\n{done.stderr[-2000:]}")
    say(f"installed {wheel.name}")


def install_published() -> None:
    """PJSIP's published wheel, where one fits this Python and system and can be had; else nothing. Tries once."""
    asked = Path(sys.prefix) / ".asked-for-published-pjsua2"
    want = file_sha256(LOCK)
    if asked.is_file() and asked.read_text() == want:
        return
    asked.write_text(want)
    try:
        pip("install", "--retries", "0", "--timeout", "10", "--no-deps", "--require-hashes", "--only-binary", ":all:",
            "-r", str(LOCK))  # fmt: skip
    except BuildError:
        return
    if installed(PUBLISHED):
        say(f"installed {PUBLISHED}, good for a first try (4 calls); `make pjsip` builds what a gateway needs")


def pip(*words: str) -> None:
    done = subprocess.run([*PIP, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"pip {words[0]} failed:\n{done.stderr[-2000:]}")
