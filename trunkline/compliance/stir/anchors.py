"""Trust anchors: the CAs that the STI-PA (or another country's authority) approved, as PEM files the operator keeps.
There is no list to ship: it is given to registered providers only."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from trunkline.compliance.stir.certificate import UNREADABLE, Anchors
from trunkline.errors import ConfigError

MAX_ANCHORS = 500
MAX_FILE_BYTES = 1024 * 1024
SUFFIXES = (".pem", ".crt", ".cer")


def read_anchors(key: str, place: Path) -> tuple[x509.Certificate, ...]:
    """Of a PEM file, or of all in a folder. Raises ConfigError naming `key` and the file that is broken: a list with a
    hole is not in force."""
    found: dict[bytes, x509.Certificate] = {}
    for file in _files(key, place):
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise ConfigError(key, str(file), f"at most {MAX_FILE_BYTES} bytes")
            certificates = x509.load_pem_x509_certificates(file.read_bytes())
            Anchors(certificates)  # its names are read late
        except (OSError, *UNREADABLE):
            raise ConfigError(key, str(file), "a readable PEM file of certificates") from None
        for each in certificates:
            found.setdefault(each.fingerprint(SHA256()), each)
    if not found or len(found) > MAX_ANCHORS:
        raise ConfigError(key, str(place), f"1 to {MAX_ANCHORS} certificates in {', '.join(SUFFIXES)}")
    return tuple(found.values())


def _files(key: str, place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    if not place.is_dir():
        raise ConfigError(key, str(place), "a PEM file, or a folder of them")
    try:
        files = sorted(each for each in place.iterdir() if each.suffix in SUFFIXES)
    except OSError as error:
        raise ConfigError(key, str(place), f"a readable folder ({error.strerror})") from None
    yield from files


def changes(place: Path) -> object:
    """What differs when the anchors there have changed. Never raises."""
    try:
        files = [place] if place.is_file() else sorted(each for each in place.iterdir() if each.suffix in SUFFIXES)
        return [(str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
    except OSError as error:
        return str(error)
