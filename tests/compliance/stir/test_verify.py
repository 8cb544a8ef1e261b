"""Verdicts, in the order of RFC 8224 6.2, over keys of our own."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from trunkline.compliance.stir import certificate, verify
from trunkline.compliance.stir.canonical import who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.token import encode
from trunkline.ports import CallerVerdict
from trunkline.testing import stir
from trunkline.testing.stir import Authority, Holder, authority, claims, constraints, one, span, spc

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
IAT = int(NOW.timestamp())
CALLER, CALLED = "14155550100", "12125550199"
ROOT = Authority(NOW)
SIGNER = ROOT.holder()


def verdict(
    identities: Sequence[str],
    *signers: Holder,
    caller: str = CALLER,
    called: str = CALLED,
    trust: Sequence[x509.Certificate] = (ROOT.certificate,),
    at: datetime = NOW,
    fetched: bool = True,
    **rules: int,
) -> CallerVerdict:
    reading = verify.read(identities, who(caller), who(called))
    found: dict[str, Credential | Rejected] = {}
    for signer in signers or (SIGNER,) if fetched else ():
        try:
            found[signer.x5u] = certificate.credential(signer.chain, trust, at)
        except Rejected as error:
            found[signer.x5u] = error
    return verify.judge(reading, found, at, verify.Rules(**rules))


def outcome(*args: Any, **kwargs: Any) -> tuple[str, str | None, int | None]:
    found = verdict(*args, **kwargs)
    return found.verdict, found.reason, found.sip_code


def good(**more: Any) -> str:
    return SIGNER.identity(claims(CALLER, CALLED, IAT) | more)


def test_a_good_header_passes_with_its_level_and_origid() -> None:
    for level in "ABC":
        found = verdict([good(attest=level)])
        assert (found.verdict, found.attest, found.reason, found.sip_code) == ("passed", level, None, None)
        assert (found.mode, found.source, found.origid) == ("direct", "trunkline", str(stir.ORIGID))


def test_numbers_are_compared_in_their_canonical_form() -> None:
    for caller, called in (
        ("+1 (415) 555-0100", "tel:+1-212-555-0199"),
        ("sip:+14155550100@carrier.example;user=phone", "sip:12125550199@us.example"),
    ):
        assert verdict([good()], caller=caller, called=called).verdict == "passed"


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([], ("none", "no_identity", 428)),
        ([SIGNER.identity(claims(CALLER, CALLED, IAT), "msec")], ("none", "unsupported_ppt", 428)),
        ([good()] * 9, ("failed", "too_many_headers", 438)),
        (["x"], ("failed", "malformed_header", 438)),
        ([good().replace(";info=", ";inf=")], ("failed", "malformed_header", 438)),
        ([good() + ";info=<https://other.example/x.pem>"], ("failed", "malformed_header", 438)),
        ([good().replace("<https://cert", "<https://other")], ("failed", "info_mismatch", 438)),
        ([good().replace("ppt=shaken", "ppt=div")], ("failed", "info_mismatch", 438)),
        ([good().replace(";ppt=shaken", "")], ("failed", "info_mismatch", 438)),
        ([good().replace("alg=ES256", "alg=none")], ("failed", "unsupported_alg", 437)),
        ([SIGNER.identity(claims(CALLER, CALLED, IAT), alg="none")], ("failed", "unsupported_alg", 437)),
        ([SIGNER.identity(claims(CALLER, CALLED, IAT), alg="HS256")], ("failed", "unsupported_alg", 437)),
        ([SIGNER.identity(claims(CALLER, CALLED, IAT), typ="jwt")], ("failed", "malformed_token", 438)),
        ([SIGNER.identity(claims(CALLER, CALLED, IAT), crit=["x"])], ("failed", "malformed_token", 438)),
        ([good(iat=str(IAT))], ("failed", "bad_claims", 438)),
        ([good(iat=True)], ("failed", "bad_claims", 438)),
        ([good(orig={"tn": [CALLER]})], ("failed", "bad_claims", 438)),
        ([good(orig={"tn": CALLER, "uri": "sip:a@b.example"})], ("failed", "bad_claims", 438)),
        ([good(dest={"tn": CALLED})], ("failed", "bad_claims", 438)),
        ([good(dest={})], ("failed", "bad_claims", 438)),
        ([good(dest={"tn": [CALLED] * 17})], ("failed", "bad_claims", 438)),
        ([good(orig={"tn": "04155550100"})], ("failed", "bad_claims", 438)),
        ([good(orig={"tn": "14155550999"})], ("failed", "orig_mismatch", 438)),
        ([good(dest={"tn": ["12125550000"]})], ("failed", "dest_mismatch", 438)),
        ([good(attest="D")], ("failed", "required_claims", 438)),
        ([good(attest=None)], ("failed", "required_claims", 438)),
        ([good(origid="not-a-uuid")], ("failed", "required_claims", 438)),
        ([good(origid="3a47ca23d7ab446b821d33d5deedbed4----")], ("failed", "required_claims", 438)),
        ([good(origid="urn:3a47ca23d7ab446b821d33d5deedbed4")], ("failed", "required_claims", 438)),
    ],
)
def test_what_is_no_good_header(identities: list[str], expected: tuple[str, str, int]) -> None:
    assert outcome(identities) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://cert.example.com/sp.pem",
        "https://cert.example.com:8080/sp.pem",
        "https://user@cert.example.com/sp.pem",
        "https://cert.example.com/sp.pem?x=1",
        "https://cert.example.com/sp.pem#x",
        "https://localhost/sp.pem",
        "https://0x7f.1/sp.pem",
        "https://2130706433.1/sp.pem",
    ],
)
def test_a_url_that_must_not_be_fetched_is_wanted_by_nobody(url: str) -> None:
    header = SIGNER.identity(claims(CALLER, CALLED, IAT), x5u=url)
    reading = verify.read([header], who(CALLER), who(CALLED))
    assert reading.urls == frozenset()
    assert outcome([header]) == ("failed", "bad_x5u", 436)


def test_nothing_is_fetched_for_a_call_that_names_others() -> None:
    assert verify.read([good()], who("+14155550999"), who(CALLED)).urls == frozenset()
    assert verify.read([good()], None, who(CALLED)).rejected[0].reason == "no_caller"
    assert verify.read([good()], who(CALLER), None).rejected[0].reason == "no_called"


def test_a_certificate_that_could_not_be_had() -> None:
    assert outcome([good()], fetched=False) == ("failed", "certificate_unavailable", 436)


# --- certificates ---------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


def signed_by(holder: Holder, **more: Any) -> tuple[str, str | None, int | None]:
    return outcome([holder.identity(claims(CALLER, CALLED, IAT) | more)], holder)


def test_only_a_way_to_a_configured_anchor_is_trusted() -> None:
    stranger = Authority(NOW)  # of the same name
    assert signed_by(stranger.holder()) == ("failed", "untrusted_certificate", 437)
    assert outcome([good()], trust=()) == ("failed", "untrusted_certificate", 437)
    assert outcome([good()], trust=(stranger.certificate, ROOT.certificate))[0] == "passed"


def test_an_intermediate_leads_there_if_it_is_a_ca() -> None:
    middle = ROOT.holder(ca=True, name="Middle", tn_auth_list=None)
    assert signed_by(ROOT.holder(under=middle))[0] == "passed"
    no_ca = ROOT.holder(name="Middle", tn_auth_list=None)
    assert signed_by(ROOT.holder(under=no_ca)) == ("failed", "untrusted_certificate", 437)


def test_an_rsa_authority_may_issue() -> None:
    root = Authority(NOW, rsa.generate_private_key(65537, 2048))
    holder = root.holder()
    header = holder.identity(claims(CALLER, CALLED, IAT))
    assert verdict([header], holder, trust=(root.certificate,)).verdict == "passed"
    weak = Authority(NOW, rsa.generate_private_key(65537, 1024))
    holder = weak.holder()
    header = holder.identity(claims(CALLER, CALLED, IAT))
    assert verdict([header], holder, trust=(weak.certificate,)).reason == "untrusted_certificate"


def test_a_leaf_is_valid_now_of_p256_and_holds_what_we_know() -> None:
    assert signed_by(ROOT.holder(valid=(-2 * DAY, -DAY))) == ("failed", "expired_certificate", 437)
    assert signed_by(ROOT.holder(valid=(DAY, 2 * DAY))) == ("failed", "expired_certificate", 437)
    wide = ROOT.holder(public_key=ec.generate_private_key(ec.SECP384R1()).public_key())
    assert signed_by(wide) == ("failed", "bad_certificate", 437)
    unknown = x509.ObjectIdentifier("1.2.3.4")
    assert signed_by(ROOT.holder(critical=unknown)) == ("failed", "bad_certificate", 437)


def test_a_credential_expires_while_it_is_kept() -> None:
    holder = ROOT.holder(valid=(-DAY, DAY))
    kept = certificate.credential(holder.chain, (ROOT.certificate,), NOW)
    later = NOW + 2 * DAY
    header = holder.identity(claims(CALLER, CALLED, int(later.timestamp())))
    reading = verify.read([header], who(CALLER), who(CALLED))
    assert verify.judge(reading, {holder.x5u: kept}, later).reason == "expired_certificate"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, "no_authority"),
        (authority(spc("1234")), None),
        (authority(one(CALLER)), None),
        (authority(one("14155550101")), "no_authority"),
        (authority(span("14155550000", 200)), None),
        (authority(span("14155550000", 100)), "no_authority"),
        (authority(one("14155550101"), span("14155550100", 2)), None),
        (authority(), "bad_certificate"),
        (b"", "bad_certificate"),
        (b"\x16\x01\x31", "bad_certificate"),  # a bare IA5String
        (authority(spc("1")) + b"\x00", "bad_certificate"),
        (b"\x30\x80\xa0\x03\x16\x01\x31\x00\x00", "bad_certificate"),  # of indefinite length
        (b"\x30\x81\x05\xa0\x03\x16\x01\x31", "bad_certificate"),  # not the shortest length
        (b"\x30\x05\xa3\x03\x16\x01\x31", "bad_certificate"),
    ],
)
def test_what_the_certificate_may_sign_for(listed: bytes | None, expected: str | None) -> None:
    assert signed_by(ROOT.holder(tn_auth_list=listed))[1] == expected


def test_a_delegate_cannot_give_more_than_it_has() -> None:
    middle = ROOT.holder(ca=True, name="Delegate", tn_auth_list=authority(span(CALLER, 10)))
    assert signed_by(ROOT.holder(under=middle, tn_auth_list=authority(one(CALLER))))[0] == "passed"
    for more in (authority(spc("1234")), authority(span(CALLER, 11)), authority(one(CALLER), one("14155550999"))):
        assert signed_by(ROOT.holder(under=middle, tn_auth_list=more))[1] == "no_authority"


def test_claim_constraints_are_enforced() -> None:
    bc = ROOT.holder(claim_constraints=constraints(attest=("B", "C")))
    assert signed_by(bc, attest="B")[0] == "passed"
    assert signed_by(bc, attest="A") == ("failed", "claim_not_permitted", 438)
    rcd = ROOT.holder(claim_constraints=constraints(("rcd",)))
    assert signed_by(rcd)[1] == "claim_not_permitted"
    assert signed_by(rcd, rcd={"nam": "Bank"})[0] == "passed"
    assert signed_by(ROOT.holder(claim_constraints=b"\x30\x01"))[1] == "bad_certificate"


# --- freshness and signature ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [(0, None), (60, None), (61, "stale"), (86_400, "stale"), (-5, None), (-6, "future"), (-86_400, "future")],
)
def test_a_token_is_a_minute_old_at_most(age_s: int, expected: str | None) -> None:
    found = verdict([good(iat=IAT - age_s)])
    assert (found.reason, found.sip_code) == (expected, 403 if expected else None)
    if expected:
        assert (found.verdict, found.attest) == ("failed", "A")  # what was claimed


def test_a_forged_token_is_not_signed() -> None:
    head, _, signature = SIGNER.token(claims(CALLER, CALLED, IAT)).split(".")
    other_claims = SIGNER.token(claims(CALLER, CALLED, IAT, "B")).split(".")[1]
    forged = f"{head}.{other_claims}.{signature};info=<{SIGNER.x5u}>;ppt=shaken"
    assert outcome([forged]) == ("failed", "bad_signature", 438)
    other = Holder(ec.generate_private_key(ec.SECP256R1()), SIGNER.chain)
    assert outcome([other.identity(claims(CALLER, CALLED, IAT))]) == ("failed", "bad_signature", 438)


def test_a_signature_of_nothing_is_none() -> None:
    signed = SIGNER.token(claims(CALLER, CALLED, IAT)).rpartition(".")[0]
    for r, s in ((0, 0), (1, 1), (2**256 - 1, 2**256 - 1)):
        zeros = encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        assert outcome([f"{signed}.{zeros};info=<{SIGNER.x5u}>;ppt=shaken"])[1] == "bad_signature"


# --- several headers ------------------------------------------------------------------------------------------------


def test_one_good_header_suffices_and_order_changes_nothing() -> None:
    headers = [
        good(iat=IAT - 100),
        good(attest="B"),
        "nonsense",
        SIGNER.identity(claims(CALLER, CALLED, IAT), "msec"),
        good(orig={"tn": "14155550999"}),
    ]
    found = {verdict(order) for order in map(list, permutations(headers))}
    assert len(found) == 1
    assert next(iter(found)).verdict == "passed"
    del headers[1]
    found = {verdict(order) for order in map(list, permutations(headers))}
    assert {(each.verdict, each.reason) for each in found} == {("failed", "stale")}  # which came the furthest


# --- diversion ------------------------------------------------------------------------------------------------------

FIRST, SECOND = "12125550111", "12125550122"
FORWARDER = ROOT.holder(x5u="https://forwarder.example.com/div.pem")


def diverted(before: str, to: str, caller: str = CALLER, iat: int = IAT, signer: Holder = FORWARDER) -> str:
    return signer.identity({"dest": {"tn": [to]}, "div": {"tn": before}, "iat": iat, "orig": {"tn": caller}}, "div")


def test_a_diverted_call_is_followed_back_to_its_caller() -> None:
    first = SIGNER.identity(claims(CALLER, FIRST, IAT, "B"))
    headers = [first, diverted(FIRST, SECOND), diverted(SECOND, CALLED)]
    for order in permutations(headers):
        found = verdict(list(order), SIGNER, FORWARDER)
        assert (found.verdict, found.attest, found.mode) == ("passed", "B", "diverted")


def test_a_chain_with_a_hole_a_liar_or_a_forger_proves_nothing() -> None:
    first = SIGNER.identity(claims(CALLER, FIRST, IAT))
    hole = [first, diverted(SECOND, CALLED)]
    assert outcome(hole, SIGNER, FORWARDER) == ("failed", "diversion_broken", 438)
    assert outcome([diverted(FIRST, CALLED)], SIGNER, FORWARDER) == ("failed", "diversion_broken", 438)
    liar = [first, diverted(FIRST, CALLED, caller="14155550999")]
    assert outcome(liar, SIGNER, FORWARDER) == ("failed", "diversion_broken", 438)
    forger = Holder(ec.generate_private_key(ec.SECP256R1()), FORWARDER.chain, FORWARDER.x5u)
    forged = [first, diverted(FIRST, CALLED, signer=forger)]
    assert outcome(forged, SIGNER, FORWARDER) == ("failed", "bad_signature", 438)
    circle = [diverted(CALLED, SECOND), diverted(SECOND, CALLED)]
    assert outcome(circle, SIGNER, FORWARDER) == ("failed", "diversion_broken", 438)


def test_a_good_diversion_counts_beside_whatever_else_came() -> None:
    """A stale token of a forwarder's own, a div that leads nowhere, one by a stranger: who sends them only adds."""
    stranger = Authority(NOW).holder(x5u="https://stranger.example.com/x.pem")
    way = [SIGNER.identity(claims(CALLER, FIRST, IAT, "B")), diverted(FIRST, CALLED)]
    more = [
        good(iat=IAT - 99),
        diverted(SECOND, CALLED),
        diverted(FIRST, CALLED, signer=stranger),
        SIGNER.identity(claims(CALLER, FIRST, IAT - 99)),
        SIGNER.identity(claims("14155550999", FIRST, IAT)),
    ]
    for extra in [[each] for each in more] + [more]:
        found = {verdict(order, SIGNER, FORWARDER, stranger) for order in ([*way, *extra], [*extra, *way][::-1])}
        assert {(each.verdict, each.attest, each.mode) for each in found} == {("passed", "B", "diverted")}
        assert len(found) == 1


def test_diversions_that_all_name_each_other_end() -> None:
    ring = [diverted(one, other) for one, other in permutations([CALLED, FIRST, SECOND], 2)][:8]
    assert outcome([*ring, ring[0]], SIGNER, FORWARDER)[0] == "failed"
    everybody = {"tn": [CALLED, FIRST, SECOND, "12125550133", "12125550144", "12125550155", "12125550166"]}
    all_to_all = [
        FORWARDER.identity({"dest": everybody, "div": {"tn": each}, "iat": IAT, "orig": {"tn": CALLER}}, "div")
        for each in everybody["tn"]
    ]
    began = time.perf_counter()
    found = outcome([*all_to_all, SIGNER.identity(claims(CALLER, CALLED, IAT, dest=everybody))], SIGNER, FORWARDER)
    assert found[0] == "passed"
    assert time.perf_counter() - began < 0.5


def test_who_diverts_needs_authority_over_the_number_it_came_from() -> None:
    first = SIGNER.identity(claims(CALLER, FIRST, IAT))
    holder = ROOT.holder(tn_auth_list=authority(one(FIRST)), x5u=FORWARDER.x5u)
    assert outcome([first, diverted(FIRST, CALLED, signer=holder)], SIGNER, holder)[0] == "passed"
    of_the_caller = ROOT.holder(tn_auth_list=authority(one(CALLER)), x5u=FORWARDER.x5u)
    headers = [first, diverted(FIRST, CALLED, signer=of_the_caller)]
    assert outcome(headers, SIGNER, of_the_caller) == ("failed", "no_authority", 437)


def test_the_first_token_of_a_diverted_call_may_be_given_more_time() -> None:
    headers = [SIGNER.identity(claims(CALLER, FIRST, IAT - 3000)), diverted(FIRST, CALLED)]
    assert outcome(headers, SIGNER, FORWARDER)[1] == "stale"
    assert outcome(headers, SIGNER, FORWARDER, diverted_fresh_s=10_800)[0] == "passed"


# --- rcd ------------------------------------------------------------------------------------------------------------


def test_rich_call_data_may_come_in_a_token_of_its_own() -> None:
    of_the_name = claims(CALLER, CALLED, IAT, rcd={"nam": "Bank"})
    del of_the_name["attest"], of_the_name["origid"]
    name = SIGNER.identity(of_the_name, "rcd")
    for order in ([good(attest="B"), name], [name, good(attest="B")]):
        found = verdict(order)
        assert (found.verdict, found.attest, dict(found.rcd)) == ("passed", "B", {"name": "Bank"})
    assert (verdict([name]).verdict, verdict([name]).attest) == ("passed", None)  # the number, and nobody's word for it
    forger = Holder(ec.generate_private_key(ec.SECP256R1()), SIGNER.chain)
    found = verdict([good(), forger.identity(of_the_name, "rcd")])
    assert (found.verdict, found.rcd) == ("passed", ())


def test_rich_call_data_is_text_and_its_urls_stay_here() -> None:
    data = {"nam": "Bank\u202e\x07" + "x" * 500, "icn": "https://169.254.169.254/x.png", "jcl": "https://a.example/j"}
    found = verdict([good(rcd=data, crn="Your\r\nloan")])
    assert found.verdict == "passed"
    told = dict(found.rcd)
    assert told["name"].startswith("Bankxxx")
    assert len(told["name"]) <= 128
    assert told["reason"] == "Yourloan"
    assert "https" not in str(found.rcd)
    assert not verdict([good(rcd=data, iat=IAT - 99)]).rcd  # not signed in time: nothing is known
