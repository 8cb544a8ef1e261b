"""What a built thing is named after: everything it was built from."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

PJSIP = "2.17"
NATIVE = Path(__file__).resolve().parent.parent


def digest(*parts: str | bytes) -> str:
    """Hex sha256 of the parts; ("a", "b") and ("ab", "") differ."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(data) + data)
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recipe(native: Path = NATIVE) -> str:
    """One value for PJSIP's version and all that is in `native`, but for its README: what the build is made of."""
    parts = [PJSIP]
    for path in sorted(native.rglob("*")):
        name = path.relative_to(native).as_posix()
        if path.is_file() and "__pycache__" not in name and name != "README.md":
            parts += [name, file_sha256(path)]
    return digest(*parts)


def wheel_version(native: Path = NATIVE) -> str:
    return f"{PJSIP}+trunkline.{recipe(native)[:8]}"


def wheel_key(python_tag: str, machine: str, native: Path = NATIVE) -> str:
    """The name of the cache folder of one wheel."""
    return f"{PJSIP}-{python_tag}-{machine}-{digest(recipe(native), python_tag, machine)[:16]}"


def tree_digest(root: Path, left_out: Iterable[str]) -> str:
    """One value for an unpacked source tree; what a build leaves in it (`left_out`, by suffix) does not count."""
    suffixes = tuple(left_out)
    parts: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.endswith(suffixes))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.endswith(suffixes) and path.is_file():
                parts += [path.relative_to(root).as_posix(), file_sha256(path)]
    return digest(*parts)
