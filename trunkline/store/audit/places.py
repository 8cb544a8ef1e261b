"""Where a worker's files are read: a folder, a bucket, or first the one and then the other. Names as in the manifests:
DAY.jsonl, DAY/SEQ.parquet.

All of it blocks. What is away raises StoreError or OSError.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

ASIDE = ".aside"


class Place(Protocol):
    def names(self) -> list[str]:
        """Of all manifests and files of rows, sorted."""
        ...

    def candidates(self, name: str) -> Iterator[bytes]:
        """What may be the file, the likeliest first. None: it is not there."""
        ...


class Objects(Place, Protocol):
    """That can be written, each whole or not at all."""

    def manifests(self) -> list[str]: ...

    def write(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None:
        """Or it was not there."""
        ...


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        found = [*self.path.glob("*.jsonl"), *self.path.glob("*/*.parquet")]
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def candidates(self, name: str) -> Iterator[bytes]:
        for each in (name, name + ASIDE):
            with suppress(FileNotFoundError):
                yield (self.path / each).read_bytes()


class Both:
    """What is here, and what was moved."""

    def __init__(self, near: Folder, far: Place) -> None:
        self._near, self._far = near, far

    def __str__(self) -> str:
        return str(self._far)

    def names(self) -> list[str]:
        return sorted({*self._near.names(), *self._far.names()})

    def candidates(self, name: str) -> Iterator[bytes]:
        yield from self._near.candidates(name)
        yield from self._far.candidates(name)


def is_manifest(name: str) -> bool:
    return name.endswith(".jsonl") and "/" not in name
