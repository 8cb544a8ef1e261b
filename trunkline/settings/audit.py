"""[audit]: the log of turns that shows later what agents were asked to do and did."""

import base64
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr
from pydantic import model_validator as after

from trunkline.settings.privacy import Key32
from trunkline.settings.values import File, Float, Int, Name, Section, Texts, contradiction, pair


def _bucket(url: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*/?", url):
        raise ValueError("s3://BUCKET or s3://BUCKET/PREFIX")
    return url


def _endpoint(url: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s]+", url):
        raise ValueError("http://HOST:PORT or https://HOST:PORT, without a path")
    return url


def _public(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        try:
            whole = len(base64.b64decode(key, validate=True)) == 32
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("public keys as `trunkline audit key` tells them: 32 bytes as base64")
    return keys


class Audit(Section):
    folder: Path | None = None
    """Where a sample of the calls' turns, and every refusal, is written to as Parquet (the extra `audit`). Without it
    and `bucket` nothing is. Of several gateways that share it each writes to a folder of its own there, by its
    `worker`. With `bucket`: where files wait for it; without it, `audit` in data_dir."""
    bucket: Annotated[str, AfterValidator(_bucket)] | None = None
    """s3://BUCKET/PREFIX of an S3-compatible store: files are moved there from `folder`. While it is away they wait."""
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    """The store's address, such as https://minio.example:9000; without it, AWS."""
    region: str | None = None
    """Of the bucket; without it, what AWS says, and us-east-1 with `endpoint`."""
    access_key_id: str | None = None
    """With `secret_access_key`. Without both: AWS_ACCESS_KEY_ID and so on, `~/.aws`, or the instance's role."""
    secret_access_key: SecretStr | None = None
    """Of `access_key_id`."""
    ca_file: File | None = None
    """PEM certificates that the store's is checked with, in place of the system's."""
    keys: dict[Name, Key32] = Field(default_factory=dict)
    """With keys, every line of the manifests is signed (Ed25519) by the first of them; lines signed by the others are
    good too. Each is 32 random bytes as base64 (`openssl rand -base64 32`); `trunkline audit key` tells its public
    key."""
    public_keys: Annotated[Texts, AfterValidator(_public)] = ()
    """Of whom lines are good besides: where the log is verified and nobody has the private key."""
    sample_percent: Float = Field(default=1.0, ge=0, le=100)
    """Of calls, with all their turns; which, is told by their ids (of a session, by its id). Of the others, turns
    within which something was refused are there."""
    batch_seconds: Float = Field(default=60.0, ge=1, le=3600)
    """How long rows wait to be written together: what a kill -9 loses."""
    transcripts: bool = True
    """Whether rows hold what was said and what tools were given: redacted, and empty where the caller has not agreed to
    a transcript."""
    days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    """Rows are deleted by then; and no later than privacy.calls_days deletes their calls, and, where they hold what was
    said, privacy.transcripts_days the words."""

    @after(mode="after")
    def _goes_together(self) -> Self:
        pair(self, "access_key_id", "secret_access_key", "audit.")
        for name in ("endpoint", "region", "access_key_id", "ca_file"):
            if self.bucket is None and (value := getattr(self, name)) is not None:
                raise contradiction(name, value, "needs audit.bucket as well")
        return self

    @property
    def is_on(self) -> bool:
        return self.folder is not None or self.bucket is not None

    def seeds(self) -> tuple[bytes, ...]:
        """Private keys, the current one first."""
        return tuple(base64.b64decode(key.get_secret_value()) for key in self.keys.values())

    def publics(self) -> tuple[bytes, ...]:
        return tuple(map(base64.b64decode, self.public_keys))
