"""Identity headers of RFCs and of others' tests, each with the verdict that is due. Those that may not be copied are
read in place, where they are."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from trunkline.compliance.stir import certificate, sign, verify
from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.identity import parse_identity
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.token import parse_token
from trunkline.compliance.stir.x5u import check_x5u
from trunkline.ports import CallerVerdict
from trunkline.testing.stir import Authority, authority, spc

OURS = Path(__file__).parents[2] / "vectors/stir"
SHARED = Path(__file__).parents[4] / "shared" / "vectors"
RFC = {row["id"]: row for row in json.loads((OURS / "rfc_identity_headers.json").read_text())["vectors"]}
ALL = (
    {row["id"]: row for row in json.loads((SHARED / "identity_headers.json").read_text())["vectors"]}
    if SHARED.is_dir()
    else RFC
)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared vectors are not here")
ISSUED = datetime(2018, 1, 1, tzinfo=UTC)
ROOT = Authority(ISSUED)


def key_of(row: dict[str, Any]) -> ec.EllipticCurvePublicKey | None:
    if row["public_key_file"] is None:
        return None
    own = OURS / Path(row["public_key_file"]).name
    key = load_pem_public_key((own if own.exists() else SHARED / row["public_key_file"]).read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def judged(*rows: dict[str, Any], called: str, caller: str, age_s: int = 1) -> CallerVerdict:
    """With a certificate of our own CA's for the vector's key, and signalling that agrees with it."""
    reading = verify.read([row["identity_header_value"] for row in rows], _who(caller), _who(called))
    found: dict[str, Credential | Rejected] = {}
    for url in reading.urls:
        holder = ROOT.holder(public_key=key_of(rows[0]), tn_auth_list=authority(spc("1234")))
        found[url] = certificate.credential(holder.chain, (ROOT.certificate,), ISSUED)
    iat = (rows[0]["payload"] or {}).get("iat", 1443208345)
    return verify.judge(reading, found, datetime.fromtimestamp(int(iat) + age_s, UTC))


def _who(text: str) -> Who:
    return Who("uri" if ":" in text else "tn", text)


EXPECTED: dict[str, tuple[str, str, str, str | None]] = {
    # id: caller, called, verdict, reason
    "rfc8946-inner-base": ("12155551212", "12155551213", "passed", None),
    "rfc8946-div": ("12155551212", "12155551214", "failed", "diversion_broken"),
    "rfc8946-div-o": ("12155551212", "12155551214", "none", "unsupported_ppt"),
    "rfc8225-appendixA": ("12155551212", "sip:alice@example.com", "failed", "bad_signature"),
    "rfc8224-sec4.1.1-full": ("12155551212", "sip:alice@example.com", "failed", "bad_claims"),
    "rfc8224-sec5.1-compact": ("12155551212", "sip:alice@example.com", "failed", "compact_form"),
    "libstirshaken-1": ("01256789999", "01256500600", "failed", "bad_claims"),
    "libstirshaken-2": ("01256789999", "01256500600", "failed", "bad_claims"),
    "libstirshaken-3": ("01256500600", "01256700800", "failed", "bad_claims"),
    "libstirshaken-4": ("01256500600", "01256700800", "failed", "bad_claims"),
    "libstirshaken-5": ("Bob", "Alice", "failed", "bad_claims"),
    "portsip-doc": ("14045266060", "18001234567", "failed", "malformed_header"),
    "freeswitch-loopback-x5u": ("15551231234", "15553214321", "failed", "bad_x5u"),
    "vonage-doc-bad-sig-shape": ("14155551234", "12125551212", "failed", "malformed_token"),
    "twilio-doc-calltoken": ("12222222222", "15555555555", "failed", "bad_signature"),
    "cpex-array-orig": ("16841333538", "16847000540", "failed", "bad_claims"),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_has_the_verdict_that_is_due(name: str) -> None:
    if name not in ALL:
        pytest.skip("the shared vectors are not here")
    caller, called, verdict, reason = EXPECTED[name]
    found = judged(ALL[name], caller=caller, called=called)
    assert (found.verdict, found.reason) == (verdict, reason)


@needs_shared
def test_no_vector_is_left_out() -> None:
    assert set(ALL) == set(EXPECTED)


def test_a_vector_that_is_old_is_stale() -> None:
    found = judged(RFC["rfc8946-inner-base"], caller="12155551212", called="12155551213", age_s=61)
    assert (found.verdict, found.reason, found.sip_code) == ("failed", "stale", 403)


def test_the_chain_that_rfc_8946_prints_does_not_link() -> None:
    """Its div is a number of twelve digits, which no token is for; the signatures are good."""
    rows = RFC["rfc8946-div"], RFC["rfc8946-inner-base"]
    found = judged(*rows, caller="12155551212", called="12155551214")
    assert (found.verdict, found.reason) == ("failed", "diversion_broken")
    key = key_of(rows[0])
    assert key is not None
    assert all(verify.is_signed(parse_token(row["passport"]), key) for row in rows)


@pytest.mark.parametrize("name", sorted(ALL))
def test_signatures_are_what_the_vectors_say(name: str) -> None:
    row = ALL[name]
    key = key_of(row)
    if row["signature_verifies"] is None or key is None:
        return
    if EXPECTED[name][3] in ("bad_claims", "unsupported_ppt"):  # looked at before any signature
        return
    token = parse_token(row["passport"])
    assert verify.is_signed(token, key) is row["signature_verifies"]


def test_our_serialization_is_rfc_8225s() -> None:
    """Appendix A: header and claims, byte for byte."""
    row = RFC["rfc8225-appendixA"]
    written = sign.token(ec.generate_private_key(ec.SECP256R1()), row["header"], row["payload"])
    assert written.rpartition(".")[0] == row["passport"].rpartition(".")[0]


# --- certificates and URLs of others --------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("leaf", "root", "at", "expected"),
    [
        ("asterisk/SPAST1-cert.pem", "asterisk/astdev-ca.crt", 2026, None),
        ("asterisk/SPAST2-cert.pem", "asterisk/astdev-ca.crt", 2026, None),
        ("asterisk/SPAST1-cert.pem", "asterisk/astdev-ca.crt", 2040, "expired_certificate"),
        ("asterisk/SPAST1-cert.pem", "asterisk/astdev-ca-expired.crt", 2026, "untrusted_certificate"),
        ("asterisk/SPAST1-caexp-cert.pem", "asterisk/astdev-ca-expired.crt", 2026, "bad_certificate"),
        ("libstirshaken/sp.cert.pem", "libstirshaken/ca.cert.pem", 2026, "bad_certificate"),
        ("libstirshaken/wrongsp.cert.pem", "libstirshaken/ca.cert.pem", 2026, "bad_certificate"),
    ],
)
def test_certificates_of_others(leaf: str, root: str, at: int, expected: str | None) -> None:
    chain = certificate.load_chain((SHARED / leaf).read_bytes())
    anchors = certificate.load_chain((SHARED / root).read_bytes())
    now = datetime(at, 11, 28, tzinfo=UTC)
    if expected is None:
        assert certificate.credential(chain, anchors, now).authority.providers == (leaf[14],)
    else:
        with pytest.raises(Rejected, match=expected):
            certificate.credential(chain, anchors, now)


@needs_shared
def test_urls_in_the_wild() -> None:
    """The 297 that keep to the rules are taken, the 41 that do not (or are an address) are judged by each rule."""
    for url in (SHARED / "x5u/in_the_wild_sample.txt").read_text().split():
        check_x5u(url)
    rows = [
        line.split("\t") for line in (SHARED / "x5u/in_the_wild_odd.tsv").read_text().splitlines() if line[0] != "#"
    ]
    assert len(rows) > 30
    for url, why in rows:
        if why == "ip-literal":  # ours to judge when it is connected to
            check_x5u(url)
            continue
        with pytest.raises(Rejected, match="bad_x5u"):
            check_x5u(url)


@needs_shared
def test_parsing_never_raises_anything_but_rejected() -> None:
    for row in ALL.values():
        text = row["identity_header_value"]
        for cut in range(0, len(text), 7):
            for broken in (text[:cut], text[:cut] + "\x00" + text[cut:], text[cut:]):
                try:
                    parse_token(parse_identity(broken).token)
                except Rejected:
                    continue
