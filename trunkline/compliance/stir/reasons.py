"""Why a verdict is not `passed`, and what SIP answers for it (RFC 8224 6.2.2): a table in the order of the checks."""

from collections.abc import Mapping
from typing import Literal

from trunkline.ports import CallerVerdict

USE_IDENTITY, BAD_INFO, BAD_CREDENTIAL, BAD_HEADER, STALE = 428, 436, 437, 438, 403

REASONS: Mapping[str, int] = {
    "no_identity": USE_IDENTITY,  # no Identity header came
    "unsupported_ppt": USE_IDENTITY,  # only such as we must ignore (RFC 8224 6.2, step 1)
    "too_many_headers": BAD_HEADER,
    "malformed_header": BAD_HEADER,
    "malformed_token": BAD_HEADER,
    "compact_form": BAD_HEADER,  # RFC 8588 3: shaken has none
    "unsupported_alg": BAD_CREDENTIAL,
    "bad_claims": BAD_HEADER,
    "info_mismatch": BAD_HEADER,  # info is not x5u, or ppt and alg are not the token's
    "no_caller": BAD_HEADER,  # signalling names no caller to compare with
    "no_called": BAD_HEADER,
    "orig_mismatch": BAD_HEADER,
    "dest_mismatch": BAD_HEADER,
    "diversion_broken": BAD_HEADER,
    "bad_x5u": BAD_INFO,
    "certificate_unavailable": BAD_INFO,
    "bad_certificate": BAD_CREDENTIAL,
    "untrusted_certificate": BAD_CREDENTIAL,
    "expired_certificate": BAD_CREDENTIAL,
    "no_authority": BAD_CREDENTIAL,  # TNAuthList holds neither a provider code nor the number
    "stale": STALE,
    "future": STALE,
    "bad_signature": BAD_HEADER,
    "required_claims": BAD_HEADER,  # of the ppt: attest, origid, rcd
    "claim_not_permitted": BAD_HEADER,  # by the certificate's JWTClaimConstraints
}
ORDER: Mapping[str, int] = {reason: at for at, reason in enumerate(REASONS)}

PHRASES: Mapping[int, str] = {
    STALE: "Stale Date",
    USE_IDENTITY: "Use Identity Header",
    BAD_INFO: "Bad Identity Info",
    BAD_CREDENTIAL: "Unsupported Credential",
    BAD_HEADER: "Invalid Identity Header",
}


class Rejected(Exception):
    """A header, token or certificate that proves nothing. `reason`: of REASONS; `why`: for people, without numbers."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason, why)
        self.reason, self.why = reason, why

    def __str__(self) -> str:
        return f"{self.reason}: {self.why}"


def failed(rejected: Rejected) -> CallerVerdict:
    judged: Literal["none", "failed"] = "none" if REASONS[rejected.reason] == USE_IDENTITY else "failed"
    return CallerVerdict(judged, reason=rejected.reason, sip_code=REASONS[rejected.reason], why=rejected.why)
