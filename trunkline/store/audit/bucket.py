"""A bucket of an S3-compatible store: s3://BUCKET/PREFIX, a folder of each worker in it.

Objects come whole or not at all, and there are no renames and no locks: so nothing is begun here. A request that
stalls is given up and tried again, twice; then StoreError says in one line what the store said.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import StoreError
from trunkline.store.audit.parquet import fs

CONNECT_S = 3.0
STALL_S = 5.0
TRIES = 2
_SAID = re.compile(r"AWS Error (?P<code>\w+)(?: \(HTTP status \d+\))? during \w+ operation: ?(?P<why>[^\n]*)")

_VARIES = re.compile(r"( \(Request ID: |; Details: ).*")
"""Of one failure from the next: it would be said anew."""


@dataclass(frozen=True, slots=True)
class Access:
    """Without a key: what AWS's own environment variables, files and instances say."""

    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    """http://HOST:PORT or https://...; None: AWS itself."""
    region: str | None = None
    ca_file: Path | None = None


class Bucket:
    """Opened when it is first needed: nothing is asked of a store before."""

    def __init__(self, url: str, access: Access) -> None:
        self.url, self._access = url.rstrip("/"), access
        self.path = self.url.removeprefix("s3://")
        self._files: Any = None

    def __str__(self) -> str:
        return self.url

    @property
    def files(self) -> Any:
        if self._files is None:
            self._files = _connected(self._access)
        return self._files

    @property
    def workers(self) -> list[str]:
        with self.named():
            found = self.files.get_file_info(fs.FileSelector(self.path, recursive=False, allow_not_found=True))
        return sorted(each.base_name for each in found if each.type == fs.FileType.Directory)

    def of(self, worker: str) -> "Shelf":
        return Shelf(self, worker)

    @contextmanager
    def named(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise StoreError(f"audit log {self.url}: {_short(error)}") from None


class Shelf:
    """One worker's."""

    files_come_first = True

    def __init__(self, bucket: Bucket, worker: str) -> None:
        self._bucket, self._path = bucket, f"{bucket.path}/{worker}"
        self._name = f"{bucket}/{worker}"

    def __str__(self) -> str:
        return self._name

    def names(self) -> list[str]:
        return self._names(recursive=True)

    def manifests(self) -> list[str]:
        """Without asking for everything that there is."""
        return [name for name in self._names(recursive=False) if name.endswith(".jsonl")]

    def candidates(self, name: str) -> Iterator[bytes]:
        with suppress(FileNotFoundError), self._bucket.named():
            with self._bucket.files.open_input_stream(f"{self._path}/{name}") as stream:
                data: bytes = stream.read()
            yield data

    def write(self, name: str, data: bytes) -> None:
        try:
            with self._bucket.named(), self._bucket.files.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(data)
        except FileNotFoundError:
            raise StoreError(f"audit log {self._bucket}: there is no such bucket") from None

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._bucket.named():
            self._bucket.files.delete_file(f"{self._path}/{name}")

    def _names(self, *, recursive: bool) -> list[str]:
        selector = fs.FileSelector(self._path, recursive=recursive, allow_not_found=True)
        with self._bucket.named():
            found = self._bucket.files.get_file_info(selector)
        names = (each.path.removeprefix(f"{self._path}/") for each in found if each.type == fs.FileType.File)
        return sorted(name for name in names if name.endswith((".jsonl", ".parquet")))


def _connected(access: Access) -> Any:
    scheme, _, host = (access.endpoint or "https://").partition("://")
    return fs.S3FileSystem(
        access_key=access.key_id,
        secret_key=access.secret,
        region=access.region or ("us-east-1" if access.endpoint else None),
        scheme=scheme,
        endpoint_override=host or None,
        connect_timeout=CONNECT_S,
        request_timeout=STALL_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        background_writes=False,
        allow_delayed_open=True,  # an object is one request
        tls_ca_file_path=None if access.ca_file is None else str(access.ca_file),
    )


def _short(error: Exception) -> str:
    text = str(error)
    said = _SAID.search(text)
    line = " ".join((f"{said['code'].lower()}: {said['why']}" if said else text).split())
    return _VARIES.sub("", line)[:200]
