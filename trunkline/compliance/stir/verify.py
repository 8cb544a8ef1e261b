"""Is the caller's number theirs? (RFC 8224 6.2, with 8588 and 8946.) Two steps, since a certificate may have to be
fetched between them: `read` says what can be said without any, and which are wanted; `judge` says the rest.

    428 a usable header? ─► 438 do caller and called agree? ─► 436 the certificate? ─► 437 trusted, and entitled?
                                                                                          └─► 403 fresh? ─► 438 signed?

Cheap things come before a fetch, so that nobody makes us fetch for nothing. Of several headers one good one suffices;
the order in which they come changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from trunkline.compliance.stir import diverted
from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.identity import parse_identity
from trunkline.compliance.stir.rcd import rich_data
from trunkline.compliance.stir.reasons import ORDER, Rejected, failed
from trunkline.compliance.stir.token import Passport, check_required, parse_token
from trunkline.compliance.stir.x5u import check_x5u
from trunkline.ports import CallerVerdict, Mode

MAX_HEADERS = 8
_ES256 = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class Rules:
    fresh_s: int = 60
    """How old a token may be (RFC 8224 10.1)."""
    future_s: int = 5
    """How far the signer's clock may be ahead of ours."""
    diverted_fresh_s: int = 60
    """How old the first token of a diverted call may be; the last is held to `fresh_s`."""


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a call's Identity headers say, before any certificate."""

    ways: tuple[tuple[Passport, ...], ...] = ()
    """Each may prove the caller: a token for the called number, or a diverted call's tokens, the caller's own first."""
    rejected: tuple[Rejected, ...] = field(default=(), repr=False)

    @property
    def urls(self) -> frozenset[str]:
        """Certificates that are wanted. Empty: `judge` needs none."""
        return frozenset(token.x5u for way in self.ways for token in way)


def read(identities: Sequence[str], caller: Who | None, called: Who | None) -> Reading:
    """`caller` and `called` as *signalling* has them (From or P-Asserted-Identity; the Request-URI): what the tokens
    say is only compared with them. None: signalling names nobody."""
    if not identities:
        return Reading(rejected=(Rejected("no_identity", "no Identity header came"),))
    if len(identities) > MAX_HEADERS:
        return Reading(rejected=(Rejected("too_many_headers", f"more than {MAX_HEADERS} Identity headers"),))
    tokens: list[Passport] = []
    rejected: list[Rejected] = []
    for text in identities:
        try:
            tokens.append(_token(text))
        except Rejected as error:
            rejected.append(error)
    ways: list[tuple[Passport, ...]] = []
    try:
        found = _ways(tokens, caller, called) if tokens else []
    except Rejected as error:
        found, rejected = [], [*rejected, error]
    for way in found:
        try:
            _compare(way, caller)
        except Rejected as error:
            rejected.append(error)
        else:
            ways.append(way)
    return Reading(tuple(ways), tuple(rejected))


def judge(
    reading: Reading, credentials: Mapping[str, Credential | Rejected], now: datetime, rules: Rules = DEFAULT_RULES
) -> CallerVerdict:
    """`credentials` by URL; a URL that is not there could not be fetched."""
    passed: list[CallerVerdict] = []
    rejected = list(reading.rejected)
    checked: dict[tuple[bytes, bytes, int], Rejected | None] = {}  # a token may be on several ways, and is dear

    def check(way: Sequence[Passport]) -> Rejected | None:
        for at, token in enumerate(way):
            fresh_s = rules.fresh_s if at == len(way) - 1 else rules.diverted_fresh_s
            key = token.signing_input, token.signature, fresh_s
            if key not in checked:
                checked[key] = _check(token, credentials.get(token.x5u), now, fresh_s, rules.future_s)
            if (wrong := checked[key]) is not None:
                return wrong
        return None

    for way in reading.ways:
        if (wrong := check(way)) is not None:
            rejected.append(wrong)
        else:
            first = way[0]
            mode: Mode = "direct" if len(way) == 1 else "diverted"
            passed.append(
                CallerVerdict("passed", first.attest, mode=mode, origid=first.origid, rcd=rich_data(first.claims))
            )
    if passed:
        passed.sort(
            key=lambda verdict: (verdict.attest or "Z", verdict.mode != "direct", verdict.origid or "", verdict.rcd)
        )
        told = next((verdict.rcd for verdict in passed if verdict.rcd), ())  # perhaps in a token of its own
        return replace(passed[0], rcd=told)
    furthest = failed(max(rejected, key=lambda error: (ORDER[error.reason], error.why)))
    return furthest if furthest.verdict == "none" else _with_claim(furthest, reading)


def is_signed(token: Passport, key: ec.EllipticCurvePublicKey) -> bool:
    """ES256 over what was received, not over what was understood of it."""
    r, s = (int.from_bytes(half, "big") for half in (token.signature[:32], token.signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), token.signing_input, _ES256)
    except InvalidSignature:
        return False
    return True


# --- before a certificate -------------------------------------------------------------------------------------------


def _token(text: str) -> Passport:
    header = parse_identity(text)
    token = parse_token(header.token)
    if header.alg != "ES256":
        raise Rejected("unsupported_alg", "alg is not ES256")
    if header.info != token.x5u:
        raise Rejected("info_mismatch", "info is not the token's x5u")
    if header.ppt != token.ppt:
        raise Rejected("info_mismatch", "ppt is not the token's")
    return token


def _ways(tokens: list[Passport], caller: Who | None, called: Who | None) -> list[tuple[Passport, ...]]:
    if caller is None:
        raise Rejected("no_caller", "the call names no caller that a token could be for")
    if called is None:
        raise Rejected("no_called", "the call names nobody called that a token could be for")
    direct = [(token,) for token in tokens if token.ppt != "div" and called in token.dest]
    try:
        return [*direct, *diverted.chains(tokens, called)]
    except Rejected:
        if direct:
            return [*direct]
        raise


def _compare(way: Sequence[Passport], caller: Who | None) -> None:
    if any(token.orig != caller for token in way):
        raise Rejected("orig_mismatch", "the token is for another caller")
    for token in way:
        check_x5u(token.x5u)


def _with_claim(verdict: CallerVerdict, reading: Reading) -> CallerVerdict:
    """A failed verdict keeps what was claimed, as carriers' do (TN-Validation-Failed-A): for the record."""
    claimed = sorted({way[0].attest for way in reading.ways if way[0].attest})
    if len(claimed) != 1:
        return verdict
    return CallerVerdict("failed", claimed[0], verdict.reason, verdict.sip_code, why=verdict.why)


# --- with one -------------------------------------------------------------------------------------------------------


def _check(
    token: Passport, found: Credential | Rejected | None, now: datetime, fresh_s: int, future_s: int
) -> Rejected | None:
    try:
        _check_all(token, found, now, fresh_s, future_s)
    except Rejected as error:
        return error
    return None


def _check_all(
    token: Passport, found: Credential | Rejected | None, now: datetime, fresh_s: int, future_s: int
) -> None:
    if found is None:
        raise Rejected("certificate_unavailable", "the certificate could not be fetched")
    if isinstance(found, Rejected):
        raise found
    if not found.not_before <= now <= found.not_after:
        raise Rejected("expired_certificate", "the certificate is not valid at this time")
    signer = token.div or token.orig
    if not (found.authority.providers or (signer.kind == "tn" and found.authority.covers(signer.value))):
        raise Rejected("no_authority", "TNAuthList does not hold the number")
    age_s = now.timestamp() - token.iat
    if age_s > fresh_s:
        raise Rejected("stale", f"iat is more than {fresh_s} s ago")
    if age_s < -future_s:
        raise Rejected("future", f"iat is more than {future_s} s ahead")
    if not is_signed(token, found.key):
        raise Rejected("bad_signature", "the signature is not of this token and certificate")
    check_required(token)
    _check_constraints(token, found)


def _check_constraints(token: Passport, found: Credential) -> None:
    for constraints in found.constraints:
        for name in constraints.must_include:
            if name not in token.claims:
                raise Rejected("claim_not_permitted", "the certificate asks for a claim that is not there")
        for name in constraints.must_exclude:
            if name in token.claims:
                raise Rejected("claim_not_permitted", "the certificate excludes a claim that is there")
        for name, values in constraints.permitted:
            if name in token.claims and _as_text(token.claims[name]) not in values:
                raise Rejected("claim_not_permitted", "the certificate does not permit what a claim says")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
