"""Certificates of signers (RFC 8226, ATIS-1000080): a chain from PEM, its way to a trust anchor, what it entitles to.

A verified leaf proves which *provider* signed; it holds the provider's code, not the caller's number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from trunkline.compliance.stir.der import ClaimConstraints, TnAuthList, claim_constraints, tn_auth_list
from trunkline.compliance.stir.reasons import Rejected

MAX_PEM_BYTES = 64 * 1024
MAX_CERTIFICATES = 8
MAX_PATH = 4  # leaf to anchor
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192  # beyond, the sender decides how long we calculate
TN_AUTH_LIST = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.26")
CLAIM_CONSTRAINTS = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.27")
ENHANCED_CONSTRAINTS = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.33")  # RFC 9118
Kind = TypeVar("Kind", bound=x509.ExtensionType)
UNREADABLE = (
    ValueError,
    TypeError,  # a name of an impossible kind
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What `cryptography` has for DER that is no certificate."""
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNDERSTOOD = {
    TN_AUTH_LIST,
    CLAIM_CONSTRAINTS,
    ENHANCED_CONSTRAINTS,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
"""A critical extension that is none of these makes a certificate unusable (RFC 5280 4.2)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A leaf whose chain leads to an anchor. Good while `not_before <= now <= not_after`, which every certificate of
    the chain is."""

    key: ec.EllipticCurvePublicKey = field(repr=False)
    authority: TnAuthList
    constraints: tuple[ClaimConstraints, ...]
    not_before: datetime
    not_after: datetime
    subjects: tuple[str, ...]
    """Leaf first, the anchor last."""


def load_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The leaf and what came with it. Raises Rejected."""
    if len(pem) > MAX_PEM_BYTES:
        raise Rejected("bad_certificate", f"longer than {MAX_PEM_BYTES} bytes")
    if pem.count(b"-----BEGIN") > MAX_CERTIFICATES:
        raise Rejected("bad_certificate", f"more than {MAX_CERTIFICATES} certificates")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise Rejected("bad_certificate", "no PEM certificate") from None
    if any(each.serial_number <= 0 for each in found):  # cryptography still reads those, with a warning
        raise Rejected("bad_certificate", "a serial number that is not positive (RFC 5280 4.1.2.2)")
    return tuple(found)


class Anchors:
    """Trust anchors by name: there are hundreds, and reading a name costs more than looking it up."""

    def __init__(self, certificates: Iterable[x509.Certificate] = ()) -> None:
        """Raises one of UNREADABLE."""
        found: dict[x509.Name, list[x509.Certificate]] = {}
        for each in certificates:
            found.setdefault(each.subject, []).append(each)
        self._by_subject = found

    def __bool__(self) -> bool:
        return bool(self._by_subject)

    def __contains__(self, certificate: x509.Certificate) -> bool:
        return certificate in self.named(certificate.subject)

    def named(self, subject: x509.Name) -> Sequence[x509.Certificate]:
        return self._by_subject.get(subject, ())


def credential(
    chain: Sequence[x509.Certificate], anchors: Anchors | Iterable[x509.Certificate], now: datetime
) -> Credential:
    """The leaf of `chain` as `anchors` allow it at `now`. Raises Rejected."""
    trusted = anchors if isinstance(anchors, Anchors) else Anchors(anchors)
    try:
        return _credential(chain, trusted, now)
    except UNREADABLE as error:  # cryptography reads names, times and extensions late
        raise Rejected("bad_certificate", f"the certificate cannot be read ({type(error).__name__})") from None


def _credential(chain: Sequence[x509.Certificate], anchors: Anchors, now: datetime) -> Credential:
    leaf = chain[0]
    key, authority, constraints = _entitlement(leaf)
    path = _path(leaf, chain[1:], anchors, now)
    for above in path[1:]:
        if (listed := _authority(above)) is not None and not listed.encompasses(authority):
            raise Rejected("no_authority", "TNAuthList holds more than that of a certificate above it")
    return Credential(
        key,
        authority,
        constraints,
        max(each.not_valid_before_utc for each in path),
        min(each.not_valid_after_utc for each in path),
        tuple(each.subject.rfc4514_string() for each in path),
    )


def entitlement(leaf: x509.Certificate) -> tuple[ec.EllipticCurvePublicKey, TnAuthList]:
    """What a leaf says for itself, whoever issued it. Raises Rejected."""
    try:
        key, authority, _ = _entitlement(leaf)
    except UNREADABLE as error:
        raise Rejected("bad_certificate", f"the certificate cannot be read ({type(error).__name__})") from None
    return key, authority


def _entitlement(
    leaf: x509.Certificate,
) -> tuple[ec.EllipticCurvePublicKey, TnAuthList, tuple[ClaimConstraints, ...]]:
    key = public_key(leaf)
    _check_critical(leaf)
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Rejected("bad_certificate", "its key is not for signing")
    authority = _authority(leaf)
    if authority is None:
        raise Rejected("no_authority", "the certificate has no TNAuthList")
    constraints = []
    for oid in (CLAIM_CONSTRAINTS, ENHANCED_CONSTRAINTS):
        if (written := _unrecognized(leaf, oid)) is not None:
            try:
                constraints.append(claim_constraints(written, enhanced=oid == ENHANCED_CONSTRAINTS))
            except ValueError as error:
                raise Rejected("bad_certificate", f"JWTClaimConstraints: {error}") from None
    return key, authority, tuple(constraints)


def _authority(certificate: x509.Certificate) -> TnAuthList | None:
    listed = _unrecognized(certificate, TN_AUTH_LIST)
    try:
        return None if listed is None else tn_auth_list(listed)
    except ValueError as error:
        raise Rejected("bad_certificate", f"TNAuthList: {error}") from None


def public_key(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Raises Rejected for any but P-256 (RFC 8226 4)."""
    try:
        key = leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Rejected("bad_certificate", f"a key that cannot be read ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Rejected("bad_certificate", "the key is not of P-256")
    return key


# --- the way to an anchor -------------------------------------------------------------------------------------------


def _path(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], anchors: Anchors, now: datetime
) -> tuple[x509.Certificate, ...]:
    """The first that is valid now, depth first; bounded, because the sender chooses `others`."""
    if not anchors:
        raise Rejected("untrusted_certificate", "no trust anchor is configured")
    expired = False
    waiting: list[tuple[x509.Certificate, ...]] = [(leaf,)]
    steps = 0
    while waiting:
        path = waiting.pop()
        last = path[-1]
        if not last.not_valid_before_utc <= now <= last.not_valid_after_utc:
            expired = True
            continue
        if last in anchors:
            return path
        if len(path) >= MAX_PATH:
            continue
        name = last.issuer
        for issuer in (*(each for each in others if each.subject == name), *anchors.named(name)):
            if issuer in path:
                continue
            steps += 1
            if steps > 4 * MAX_CERTIFICATES:
                raise Rejected("untrusted_certificate", "too many ways to look for an anchor")
            if _issued(last, issuer, below=len(path) - 1):
                waiting.append((*path, issuer))
    if expired:
        raise Rejected("expired_certificate", "the certificate, or one above it, is not valid at this time")
    raise Rejected("untrusted_certificate", "no way leads to a configured trust anchor")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """`below`: how many CAs there are between issuer and leaf."""
    try:
        _check_critical(issuer)
        basic, usage = _extension(issuer, x509.BasicConstraints), _extension(issuer, x509.KeyUsage)
        if basic is None or not basic.ca or (basic.path_length is not None and basic.path_length < below):
            return False
        if usage is not None and not usage.key_cert_sign:
            return False
        if not _is_strong(issuer.public_key()) or not isinstance(certificate.signature_hash_algorithm, _HASHES):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, Rejected, *UNREADABLE):
        return False
    return True


def _is_strong(key: object) -> bool:
    """RFC 8226 4: ECDSA of P-256 (a CA's may be wider), or RSA."""
    if isinstance(key, rsa.RSAPublicKey):
        return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def _check_critical(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise Rejected("bad_certificate", "a critical extension that we do not know")


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _unrecognized(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
    return found.public_bytes()
