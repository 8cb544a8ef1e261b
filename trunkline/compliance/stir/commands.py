"""What `trunkline stir` does: verify, sign and look at a chain, with files in place of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from trunkline.compliance.stir import anchors, certificate, sign, verify
from trunkline.compliance.stir.canonical import Who, who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.reasons import REASONS, Rejected
from trunkline.compliance.stir.x5u import check_x5u
from trunkline.errors import ConfigError
from trunkline.ports import Attest, CallerVerdict


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for URLs; under the empty URL, for all others."""

    chains: Mapping[str, tuple[x509.Certificate, ...]]
    keys: Mapping[str, ec.EllipticCurvePublicKey]
    """Where the file holds a bare public key, which nobody vouches for."""

    def key(self, url: str) -> ec.EllipticCurvePublicKey | None:
        chain = self.chains.get(url) or self.chains.get("")
        try:
            return certificate.public_key(chain[0]) if chain else self.keys.get(url) or self.keys.get("")
        except Rejected:
            return None

    def credential(self, url: str, trust: Sequence[x509.Certificate], now: datetime) -> Credential | Rejected | None:
        chain = self.chains.get(url) or self.chains.get("")
        if chain is None:
            bare = self.keys.get(url) or self.keys.get("")
            return Rejected("bad_certificate", "a bare key: nobody vouches for it") if bare else None
        try:
            return certificate.credential(chain, trust, now)
        except Rejected as error:
            return error


def read_certificates(given: Sequence[str]) -> Certificates:
    """Each FILE, or URL=FILE. Raises ConfigError for one that cannot be read."""
    chains: dict[str, tuple[x509.Certificate, ...]] = {}
    keys: dict[str, ec.EllipticCurvePublicKey] = {}
    for each in given:
        url, _, file = each.rpartition("=") if each.startswith("https://") else ("", "", each)
        data = read_file("--cert", file)
        if b"-----BEGIN PUBLIC KEY" in data:
            keys[url] = _bare_key(file, data)
            continue
        try:
            chains[url] = certificate.load_chain(data)
        except Rejected as error:
            raise ConfigError("--cert", file, f"a PEM file, leaf first ({error.why})") from None
    return Certificates(chains, keys)


def _bare_key(file: str, data: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(data)
    except certificate.UNREADABLE:
        raise ConfigError("--cert", file, "a PEM file") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("--cert", file, "a key of P-256")
    return key


def read_chain(given: Sequence[str]) -> tuple[x509.Certificate, ...]:
    """Raises ConfigError."""
    chain = read_certificates(given).chains.get("")
    if chain is None:
        raise ConfigError("--cert", ", ".join(given), "a PEM file of certificates, leaf first")
    return chain


def read_trust(files: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    """Raises ConfigError."""
    return tuple(each for file in files for each in anchors.read_anchors("--trust", file))


def verified(
    identities: Sequence[str],
    certificates: Certificates,
    trust: Sequence[x509.Certificate],
    caller: str,
    called: str,
    now: datetime,
) -> dict[str, Any]:
    """The verdict as JSON; `signature` says of each token, in order of the verdict's way, whether it is the key's own:
    what a signature proves while nothing vouches for its key is nothing."""
    reading = verify.read([_value(each) for each in identities], who(caller), who(called))
    found = {url: certificates.credential(url, trust, now) for url in reading.urls}
    verdict = verify.judge(reading, {url: each for url, each in found.items() if each is not None}, now)
    tokens = [token for way in reading.ways for token in way]
    signed = [
        verify.is_signed(token, key) if (key := certificates.key(token.x5u)) is not None else None for token in tokens
    ]
    return as_json(verdict) | {"signatures": signed}


def as_json(verdict: CallerVerdict) -> dict[str, Any]:
    return {
        "verdict": verdict.verdict,
        "attest": verdict.attest,
        "reason": verdict.reason,
        "sip_code": verdict.sip_code,
        "mode": verdict.mode,
        "source": verdict.source,
        "why": verdict.why,
        "origid": verdict.origid,
        "rcd": dict(verdict.rcd),
    }


def signed(
    key_file: Path, x5u: str, attest: str, caller: str, called: str, now: datetime, origid: UUID
) -> dict[str, Any]:
    """Raises ConfigError."""
    if attest not in ("A", "B", "C"):
        raise ConfigError("--attest", attest, "A, B or C")
    try:
        key = sign.load_key(read_file("--key", key_file))
    except ValueError:
        raise ConfigError("--key", str(key_file), "a private key of P-256 in PEM, without a passphrase") from None
    try:
        check_x5u(x5u)
    except Rejected as error:
        raise ConfigError("--x5u", x5u, f"an https URL that others will fetch: {error.why}") from None
    level: Attest = attest  # type: ignore[assignment]
    header = sign.identity(key, x5u, level, _someone("--from", caller), _someone("--to", called), now, origid)
    return {"identity": header, "origid": str(origid), "iat": int(now.timestamp())}


def looked_at(chain: Sequence[x509.Certificate], trust: Sequence[x509.Certificate], now: datetime) -> dict[str, Any]:
    """What a chain entitles to at `now`, and why not."""
    certificates = [
        {
            "subject": each.subject.rfc4514_string(),
            "issuer": each.issuer.rfc4514_string(),
            "not_before": each.not_valid_before_utc.isoformat(),
            "not_after": each.not_valid_after_utc.isoformat(),
        }
        for each in chain
    ]
    try:
        found = certificate.credential(chain, trust, now)
    except Rejected as error:
        return {
            "verdict": "failed",
            "reason": error.reason,
            "sip_code": REASONS[error.reason],
            "why": error.why,
            "certificates": certificates,
        }
    return {
        "verdict": "passed",
        "reason": None,
        "sip_code": None,
        "why": "",
        "certificates": certificates,
        "path": list(found.subjects),
        "providers": list(found.authority.providers),
        "numbers": sum(count for _, count in found.authority.ranges),
        "must_include": [name for each in found.constraints for name in each.must_include],
        "permitted": {name: list(values) for each in found.constraints for name, values in each.permitted},
        "not_after": found.not_after.isoformat(),
    }


def read_file(option: str, file: str | Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(option, str(file), f"a readable file ({error.strerror})") from None


def _someone(option: str, text: str) -> Who:
    found = who(text)
    if found is None:
        raise ConfigError(option, text, "a telephone number as +COUNTRY NUMBER, or a sip: URI")
    return found


def _value(header: str) -> str:
    """With or without the header's name before it."""
    name, colon, value = header.partition(":")
    return (value if colon and name.strip().lower() in ("identity", "y") else header).strip()
