"""We vouch for a caller of ours: an Identity header of our own. Off by default, because the carrier signs, and may be
the only one who may: in the US who has the duty decides on the attestation and signs with their own certificate
(FCC, in force since 2025-09-18). Without a right there is no header (RFC 8224 6.1).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.certificate import entitlement
from trunkline.compliance.stir.der import TnAuthList
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.token import encode
from trunkline.ports import Attest


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One of several: the latest whose time has come signs, so the next certificate can wait beside this one."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    x5u: str
    """Where whoever verifies gets its certificate."""
    not_before: datetime
    name: str = ""
    valid: tuple[datetime, datetime] | None = None
    """While its certificate may be used. None: nobody knows."""
    authority: TnAuthList | None = None
    """Its certificate's."""

    def fault(self, number: str, now: datetime) -> str | None:
        """Why nobody would believe what it signed for `number` (canonical) now."""
        if self.valid is not None and not self.valid[0] <= now <= self.valid[1]:
            return "its certificate is not valid at this time"
        if self.authority is not None and not self.authority.covers(number):
            return "its certificate does not hold the number"
        return None


@dataclass(frozen=True, slots=True)
class Rights:
    """What we may claim of a number of ours."""

    numbers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """E.164 -> the record that we may use it: a contract, a letter of authorisation."""
    unlisted: Attest | None = None
    """For a customer whom we know with a number that is not listed; never A. None: it is not signed."""
    passing: Attest | None = None
    """For a call that only passes through us and came unsigned: C, or None."""


def attestation(rights: Rights, number: str, *, known_customer: bool, passing: bool = False) -> Attest | None:
    """None: we have no right to say anything. `known_customer`: whoever ordered the call has shown who they are.
    `passing`: the caller is not ours; their call goes on with their number."""
    if passing:
        return "C" if rights.passing == "C" else None
    if not known_customer:
        return None
    if rights.numbers.get(number, "").strip():
        return "A"
    return rights.unlisted if rights.unlisted != "A" else "B"


def current(keys: Sequence[SigningKey], now: datetime) -> SigningKey | None:
    """The latest whose not_before has come."""
    due = [key for key in keys if key.not_before <= now]
    return max(due, key=lambda key: key.not_before) if due else None


def certified(key: SigningKey, chain: Sequence[x509.Certificate]) -> SigningKey:
    """With what its certificate says. Raises Rejected where that is another key's, or signs for nothing."""
    public, authority = entitlement(chain[0])
    if public != key.key.public_key():
        raise Rejected("bad_certificate", "it is another key's")
    valid = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    return replace(key, valid=valid, authority=authority)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError for any but a P-256 key without a passphrase."""
    try:
        key = load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm):  # it has a passphrase
        raise ValueError("a private key of P-256 in PEM, without a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a private key of P-256")
    return key


def identity(
    key: ec.EllipticCurvePrivateKey, x5u: str, attest: Attest, caller: Who, called: Who, now: datetime, origid: UUID
) -> str:
    """The value of the Identity header. `origid`: a fresh UUID for each call, so that nobody outside can tell whose
    calls belong together (RFC 8588 10)."""
    claims = {
        "attest": attest,
        "dest": {called.kind: [called.value]},
        "iat": int(now.timestamp()),
        "orig": {caller.kind: caller.value},
        "origid": str(origid),
    }
    header = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": x5u}
    return f"{token(key, header, claims)};info=<{x5u}>;alg=ES256;ppt=shaken"


def token(key: ec.EllipticCurvePrivateKey, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A compact JWS in the one serialization of RFC 8225 9."""
    signed = f"{encode(canonical_json(header))}.{encode(canonical_json(claims))}"
    r, s = decode_dss_signature(key.sign(signed.encode("ascii"), _algorithm()))
    return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """No whitespace, keys by code point at every level, characters as they are (RFC 8225 9)."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _algorithm() -> ec.ECDSA:
    return _DETERMINISTIC or ec.ECDSA(SHA256())


def _deterministic() -> ec.ECDSA | None:
    """RFC 6979, where this OpenSSL has it (RFC 8225 6: SHOULD)."""
    algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    try:
        ec.generate_private_key(ec.SECP256R1()).sign(b"", algorithm)
    except UnsupportedAlgorithm:
        return None
    return algorithm


_DETERMINISTIC = _deterministic()
