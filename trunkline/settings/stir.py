"""[stir]: who vouches for callers' numbers, and how we vouch for ours."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import E164Text, File, Int, Name, Section, contradiction

StirPolicy = Literal["off", "observe", "require"]
FINGERPRINT = "{sha256}"


def _place(path: Path) -> Path:
    if not path.exists():
        raise ValueError("an existing PEM file, or a folder of them")
    return path


def _x5u(url: str) -> str:
    if not url.startswith("https://") or not url.isascii() or any(char in url for char in ' <>"?#@'):
        raise ValueError("an https URL without user, query and fragment")
    if any(char in url.replace(FINGERPRINT, "") for char in "{}"):
        raise ValueError(f"an https URL with no braces but {FINGERPRINT}")
    return url


class StirKey(Section):
    """A key that signs from `not_before` until one with a later date does. Changed files are read again."""

    key: File
    """PEM, P-256, without a passphrase."""
    x5u: Annotated[str, AfterValidator(_x5u)]
    """Where others fetch its certificate chain, and keep it for a day at least: another certificate needs another URL.
    `{sha256}` stands for the certificate's fingerprint, in hex, so that both files may be replaced while it runs."""
    certificate: File | None = None
    """That chain, PEM, leaf first: with it nothing is signed that others would not believe, when it has run out or for
    a number that is not in it; without it nobody looks."""
    not_before: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    """With a time zone. The latest that has come signs."""

    @after(mode="after")
    def _zoned(self) -> "StirKey":
        if self.not_before.tzinfo is None:
            raise contradiction("not_before", self.not_before, "a time with its zone, such as 2027-01-01T00:00:00Z")
        if FINGERPRINT in self.x5u and self.certificate is None:
            raise contradiction("x5u", self.x5u, "needs certificate as well: whose fingerprint it is")
        return self


class Stir(Section):
    policy: StirPolicy = "off"
    """Of trunks that have none of their own: whether Identity headers of their calls are verified, and whether a call
    without a good one is refused (428, 436, 437, 438 or 403)."""
    trust: Annotated[Path, AfterValidator(_place)] | None = None
    """The CAs that may vouch, as your authority gave them to you: a PEM file, or a folder of them. A changed folder is
    read again within a minute; a broken one leaves the last good one in force."""
    fresh_s: Int = Field(default=60, ge=5, le=3600)
    """How old a token may be."""
    diverted_fresh_s: Int = Field(default=60, ge=5, le=10_800)
    """How old the first token of a diverted call may be."""
    server_ca: File | None = None
    """Whose HTTPS servers we fetch certificates from, PEM; without it the web's."""
    allow_private_addresses: bool = False
    """Whether certificates may be fetched from loopback and private networks: for a laboratory only."""
    keys: dict[Name, StirKey] = Field(default_factory=dict)
    """Ours, by name. None: nothing is signed; the carrier signs."""
    numbers: dict[E164Text, Annotated[str, Field(min_length=1, max_length=200)]] = Field(default_factory=dict)
    """Numbers that we may vouch for (A), each with the record of our right to it."""
    unlisted: Literal["none", "B", "C"] = "none"
    """What we claim for a call of ours from another number."""
    passing: Literal["none", "C"] = "none"
    """What we claim for a caller of somebody else's whose call goes on through us with their number."""

    @after(mode="after")
    def _together(self) -> "Stir":
        if self.policy != "off" and self.trust is None:
            raise contradiction("policy", self.policy, "needs stir.trust as well: nobody vouches for anybody yet")
        return self
