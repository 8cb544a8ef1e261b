"""Where PJSIP's source comes from. Nothing is unpacked before its sha256 is the pinned one, but for what a person
names by hand (PJSIP_SOURCE), and then its sum is printed.

In order: PJSIP_SOURCE (a tarball, a folder of tarballs, an unpacked tree); an earlier download; the release of the
PJSIP project; Debian's `asterisk` source package, which carries PJSIP without the parts Debian does not want (SRTP
among them, which comes from Debian's `libsrtp2`).
"""

import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.keys import NATIVE, PJSIP, digest, file_sha256, tree_digest
from builder.steps import BuildError, say

FETCH_S = 180.0
DEBIAN = "http://deb.debian.org/debian"
APT_HELPER = Path("/usr/lib/apt/apt-helper")
# What an earlier build left in a tree is not its source.
LEFT_OVER = (".git", ".o", ".a", ".so", ".depend", ".log", "__pycache__")


@dataclass(frozen=True)
class Pin:
    where: str  # a URL, or a path on every Debian mirror
    sha256: str

    @property
    def name(self) -> str:
        return self.where.rsplit("/", 1)[-1]

    @property
    def in_debian(self) -> bool:
        return self.where.startswith("pool/")


@dataclass(frozen=True)
class Pins:
    release: Pin
    debian: Pin
    srtp: Pin

    def all(self) -> tuple[Pin, ...]:
        return (self.release, self.debian, self.srtp)


def read_pins(text: str) -> Pins:
    pins = [Pin(where, sha) for sha, where in (line.split() for line in text.splitlines() if line[:1] not in ("", "#"))]
    return Pins(*pins)


PINS = read_pins((NATIVE / "sources.sha256").read_text())


@dataclass(frozen=True)
class Source:
    """PJSIP's source: a tarball or an unpacked tree, and a name for what is in it."""

    path: Path
    identity: str
    near: Path | None = None  # where a tarball of libsrtp may lie

    @property
    def is_tree(self) -> bool:
        return self.path.is_dir()


Fetch = Callable[[Pin, Path], None]


def find(sha256: str | None, downloads: Path, fetch: Fetch | None = None) -> Source:
    """Without PJSIP_SOURCE. Raises BuildError, which says what was tried; `sha256` is another sum for the release."""
    release = Pin(PINS.release.where, sha256 or PINS.release.sha256)
    for pin in (release, PINS.debian):
        if is_pinned(downloads / pin.name, pin):
            return Source(downloads / pin.name, pin.sha256)
    tried = []
    for pin in (release, PINS.debian):
        try:
            return Source(download(pin, downloads, fetch), pin.sha256)
        except BuildError as error:
            tried.append(str(error))
            say(str(error))
    raise BuildError(
        "PJSIP's source could not be had:\n  "
        + "\n  ".join(tried)
        + f"\nDownload {release.where} where you can, and name the file: "
        f"make pjsip PJSIP_SOURCE=/path/to/{release.name}"
    )


def from_path(given: Path, sha256: str | None = None) -> Source:
    """PJSIP_SOURCE. Raises BuildError."""
    given = given.expanduser().resolve()
    if given.is_file():
        return Source(given, accepted(given, sha256), given.parent)
    if (given / "version.mak").is_file():
        return Source(given, digest("tree", tree_digest(given, LEFT_OVER)), given.parent)
    if not given.is_dir():
        raise BuildError(f"PJSIP_SOURCE: there is no {given}")
    tarballs = {file_sha256(path): path for path in sorted(given.glob("*.tar.*"))}
    for wanted in (sha256,) if sha256 else (PINS.release.sha256, PINS.debian.sha256):
        if wanted in tarballs:
            return Source(tarballs[wanted], wanted, given)
    for path in tarballs.values():
        accepted(path, None, quiet=True)  # refuses one that only goes by a known name
    raise BuildError(
        f"PJSIP_SOURCE: no file in {given} has the sha256 of a PJSIP {PJSIP} that we know "
        "(native/pjsua2/sources.sha256); name the tarball itself to use it anyway"
    )


def accepted(tarball: Path, sha256: str | None, quiet: bool = False) -> str:
    """The sum of a file named by hand. One that goes by a pinned name, or was given a sum, must have that sum."""
    actual = file_sha256(tarball)
    if actual == sha256 or (sha256 is None and actual in {pin.sha256 for pin in PINS.all()}):
        return actual
    by_name = {pin.name: pin.sha256 for pin in PINS.all()}
    expected = sha256 or by_name.get(tarball.name)
    if expected:
        raise BuildError(refusal(tarball.name, actual, expected))
    if not quiet:
        say(f"{tarball.name} is not one we know; taken because you named it. sha256 {actual}")
    return actual


def refusal(name: str, actual: str, expected: str) -> str:
    return f"{name} is refused: its sha256 is {actual}, not {expected}"


def is_pinned(path: Path, pin: Pin) -> bool:
    return path.is_file() and file_sha256(path) == pin.sha256


def find_srtp(near: Path | None, downloads: Path, fetch: Fetch | None = None) -> Path:
    """libsrtp for a PJSIP tree that comes without it."""
    for path in sorted(near.glob("*.tar.*")) if near else []:
        if is_pinned(path, PINS.srtp):
            return path
    return download(PINS.srtp, downloads, fetch)


def download(pin: Pin, downloads: Path, fetch: Fetch | None = None) -> Path:
    """The pinned file in `downloads`; raises BuildError when it cannot be had or is another."""
    kept = downloads / pin.name
    if is_pinned(kept, pin):
        return kept
    downloads.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(kept.name + ".part")
    partial.unlink(missing_ok=True)
    say(f"fetching {pin.where if not pin.in_debian else 'from Debian: ' + pin.name}")
    try:
        (fetch or (fetch_debian if pin.in_debian else fetch_url))(pin, partial)
        actual = file_sha256(partial)
        if actual != pin.sha256:
            raise BuildError(refusal(pin.name, actual, pin.sha256))
        partial.replace(kept)
    except OSError as error:
        raise BuildError(f"{pin.name} could not be downloaded: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return kept


def fetch_url(pin: Pin, to: Path) -> None:
    url = pin.where if not pin.in_debian else f"{DEBIAN}/{pin.where}"
    with urllib.request.urlopen(url, timeout=20) as response, to.open("wb") as file:
        shutil.copyfileobj(response, file)


def fetch_debian(pin: Pin, to: Path) -> None:
    """By apt's own downloader, so that this machine's mirror, proxy and certificates are used; its lists of sources
    are not touched, and need not hold source packages: the pool has them under the same mirror."""
    if not APT_HELPER.is_file():
        fetch_url(pin, to)
        return
    options = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]
    for mirror in mirrors(apt_sites()):
        try:
            command = [str(APT_HELPER), *options, "download-file", f"{mirror}/{pin.where}", str(to)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_S)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0 and to.is_file():
            return
    raise BuildError(
        f"Debian's mirror does not have {pin.name} (its newest release moves on, and this file goes with it), "
        "or it cannot be reached"
    )


def apt_sites() -> str:
    try:
        command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def mirrors(sites: str) -> list[str]:
    """Debian's own archives among what apt uses, and the public one."""
    used = dict.fromkeys(site.rstrip("/") for site in sites.split())
    return [*dict.fromkeys([site for site in used if site.endswith("/debian")] + [DEBIAN])]
