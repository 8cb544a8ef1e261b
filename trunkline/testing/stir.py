"""A telephone world of one's own: a CA, signers with certificates of its, and the tokens they sign. Test keys only."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from trunkline.compliance.stir import sign
from trunkline.compliance.stir.certificate import CLAIM_CONSTRAINTS, TN_AUTH_LIST

X5U = "https://cert.example.com/sp.pem"
ORIGID = UUID("3a47ca23-d7ab-446b-821d-33d5deedbed4")


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + content


def spc(code: str) -> bytes:
    return der(0xA0, der(0x16, code.encode()))


def one(number: str) -> bytes:
    return der(0xA2, der(0x16, number.encode()))


def span(first: str, count: int) -> bytes:
    size = count.bit_length() // 8 + 1
    return der(0xA1, der(0x30, der(0x16, first.encode()), der(0x02, count.to_bytes(size, "big"))))


def authority(*entries: bytes) -> bytes:
    """A TNAuthList."""
    return der(0x30, *entries)


def constraints(must_include: tuple[str, ...] = (), **permitted: tuple[str, ...]) -> bytes:
    """JWTClaimConstraints."""
    parts = []
    if must_include:
        parts.append(der(0xA0, der(0x30, *(der(0x16, name.encode()) for name in must_include))))
    if permitted:
        values = [
            der(0x30, der(0x16, name.encode()), der(0x30, *(der(0x0C, value.encode()) for value in allowed)))
            for name, allowed in permitted.items()
        ]
        parts.append(der(0xA1, der(0x30, *values)))
    return der(0x30, *parts)


@dataclass
class Holder:
    """Of a key and the certificates for it, its own first."""

    key: Any
    chain: tuple[x509.Certificate, ...]
    x5u: str = X5U

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def pem(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def public_pem(self) -> bytes:
        return bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def token(self, claims: dict[str, Any], ppt: str | None = "shaken", **header: Any) -> str:
        written = {"alg": "ES256", "typ": "passport", "x5u": self.x5u} | ({"ppt": ppt} if ppt else {}) | header
        return sign.token(self.key, written, claims)

    def identity(self, claims: dict[str, Any], ppt: str | None = "shaken", **header: Any) -> str:
        named = f";ppt={ppt}" if ppt else ""
        return f"{self.token(claims, ppt, **header)};info=<{header.get('x5u', self.x5u)}>;alg=ES256{named}"


def claims(caller: str, called: str, iat: int, attest: str = "A", **more: Any) -> dict[str, Any]:
    base = {"attest": attest, "dest": {"tn": [called]}, "iat": iat, "orig": {"tn": caller}, "origid": str(ORIGID)}
    return base | more


@dataclass
class Authority:
    """A root, and what it issues."""

    now: datetime
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: str = "Test STI-CA"
    valid: timedelta = timedelta(days=3650)
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self._issue(self.name, self.key.public_key(), self.name, self.key, ca=True)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def holder(
        self,
        *,
        key: Any = None,
        public_key: Any = None,
        tn_auth_list: bytes | None = authority(spc("1234")),
        claim_constraints: bytes | None = None,
        x5u: str = X5U,
        valid: tuple[timedelta, timedelta] | None = None,
        under: "Holder | None" = None,
        ca: bool = False,
        name: str = "SHAKEN 1234",
        critical: x509.ObjectIdentifier | None = None,
    ) -> Holder:
        """`public_key`: of a key that somebody else has. `under`: an intermediate."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        extensions: list[tuple[x509.ObjectIdentifier, bytes, bool]] = []
        if tn_auth_list is not None:
            extensions.append((TN_AUTH_LIST, tn_auth_list, False))
        if claim_constraints is not None:
            extensions.append((CLAIM_CONSTRAINTS, claim_constraints, False))
        if critical is not None:
            extensions.append((critical, b"\x05\x00", True))
        issuer_name = under.certificate.subject.rfc4514_string().removeprefix("CN=") if under else self.name
        issued = self._issue(
            name,
            public_key or key.public_key(),
            issuer_name,
            under.key if under else self.key,
            ca=ca,
            extensions=extensions,
            valid=valid,
        )
        return Holder(key, (issued, *(under.chain if under else ())), x5u)

    def _issue(
        self,
        subject: str,
        public_key: Any,
        issuer: str,
        issuer_key: Any,
        *,
        ca: bool,
        extensions: list[tuple[x509.ObjectIdentifier, bytes, bool]] | None = None,
        valid: tuple[timedelta, timedelta] | None = None,
    ) -> x509.Certificate:
        begin, end = valid or (-self.valid, self.valid)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + begin)
            .not_valid_after(self.now + end)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        for oid, value, is_critical in extensions or ():
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=is_critical)
        return builder.sign(issuer_key, SHA256())
