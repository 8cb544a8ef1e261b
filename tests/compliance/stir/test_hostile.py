"""What a stranger may send: too much, too deep, twice, or nonsense."""

import json
import time
from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.compliance.stir import certificate, verify
from trunkline.compliance.stir.canonical import canonical, who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.der import claim_constraints, tn_auth_list
from trunkline.compliance.stir.identity import MAX_HEADER_CHARS, parse_identity
from trunkline.compliance.stir.reasons import ORDER, Rejected
from trunkline.compliance.stir.token import decode, encode, parse_json, parse_token
from trunkline.compliance.stir.x5u import check_x5u
from trunkline.testing.stir import Authority, authority, claims, constraints, der, one

NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"1",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":' + b"[" * 9 + b"]" * 9 + b"}",
        b"[" * 100_000,
        b'{"a":9999999999999999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        json.dumps({str(n): n for n in range(65)}).encode(),
    ],
)
def test_json_that_another_reader_may_see_differently_is_no_json(text: bytes) -> None:
    with pytest.raises(Rejected, match="malformed_token"):
        parse_json(text)


def test_brackets_in_texts_do_not_count() -> None:
    assert parse_json(b'{"a":"[[[[[[[[[[[[\\"{{{{{{{{{{"}') == {"a": '[[[[[[[[[[[["{{{{{{{{{{'}


@pytest.mark.parametrize("text", ["", "a", "YQ==", "YR", "Y Q", "Y+/Q", "Ã©", "YQ\n"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(Rejected):
        decode(text)
    assert decode(encode(b"a")) == b"a"


@pytest.mark.parametrize(
    "text",
    [
        "x" * (MAX_HEADER_CHARS + 1),
        "a.b.c;info=<https://a.example/x>\r\nX: y",
        "a.b.c;info=<https://a.example/é>",
        'a.b.c;info=<https://a.example/x>;x="',
        "a.b.c;info=<https://a.example/x",
        "a.b.c;info=https://a.example/x",
        "a.b.c;info=<>",
        "a.b.c;info=<a>;" + ";".join(f"p{n}=1" for n in range(20)),
        'a.b.c;info=<a>;ppt="sha ken"',
        "a.b.c;info=<a>;ppt=shaken;PPT=div",
        "a.b.c",
    ],
)
def test_headers_that_are_none(text: str) -> None:
    with pytest.raises(Rejected, match="malformed_header"):
        parse_identity(text)


def test_a_long_header_of_quotes_takes_no_time() -> None:
    for text in ('"' * 8000, '"\\' * 4000, "<" * 8000, ";" * 8000):
        with pytest.raises(Rejected):
            parse_identity(text)


def test_quoted_or_bare_and_in_any_case() -> None:
    bare, quoted = "a.b.c;info=<u>;alg=ES256;ppt=shaken", 'a.b.c ; INFO = <u> ; Alg="ES256";PPT="shaken";x=1'
    for text in (bare, quoted):
        header = parse_identity(text)
        assert (header.token, header.info, header.alg, header.ppt) == ("a.b.c", "u", "ES256", "shaken")


@pytest.mark.parametrize(
    "url", ["https://", "https://a..b:99999/", "https://[::1", "https://a.example:/x", "https://a b"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Rejected, match="bad_x5u"):
        check_x5u(url)


KEYS = st.sampled_from(["tn", "uri", "orig", "dest", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
)
PIECES = st.sampled_from(
    [
        "eyJhbGciOiJFUzI1NiJ9",
        ".",
        "..",
        ";",
        "info=",
        "<https://a.example/x>",
        "alg=ES256",
        "ppt=shaken",
        '"',
        "<",
        "é",
        "\0",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(PIECES | st.text(max_size=20), max_size=12).map("".join), max_size=4))
def test_any_headers_end_in_a_verdict_that_is_not_passed(headers: list[str]) -> None:
    reading = verify.read(headers, who("+14155550100"), who("+12125550199"))
    found = verify.judge(reading, {}, NOW)
    assert found.verdict != "passed"
    assert found.reason in ORDER
    assert verify.judge(verify.read(headers[::-1], who("+14155550100"), who("+12125550199")), {}, NOW) == found


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_claims_are_read_or_rejected(value: object) -> None:
    header = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": "https://a.example/x"}
    claims = {"orig": value, "dest": value, "iat": value, "attest": value, "origid": value}
    parts = [encode(json.dumps(part).encode()) for part in (header, claims)]
    with pytest.raises(Rejected):
        parse_token(f"{parts[0]}.{parts[1]}.{encode(bytes(64))}")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_list_or_a_value_error(data: bytes) -> None:
    for read in (tn_auth_list, claim_constraints):
        try:
            read(data)
        except ValueError:
            continue


# --- good ones, with something changed ------------------------------------------------------------------------------

ROOT = Authority(NOW)
MIDDLE = ROOT.holder(ca=True, name="Middle", tn_auth_list=None)
SIGNER = ROOT.holder(under=MIDDLE, claim_constraints=constraints(("attest",), attest=("A",)))
CHAIN = tuple(each.public_bytes(Encoding.DER) for each in SIGNER.chain)
GOOD = SIGNER.identity(claims("14155550100", "12125550199", int(NOW.timestamp())))
CHANGES = st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=3)


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n"


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for at, byte in changes:
        found[at % len(found)] = byte
    return bytes(found)


def credential_of(*ders: bytes) -> Credential | Rejected:
    try:
        return certificate.credential(certificate.load_chain(b"".join(map(pem, ders))), (ROOT.certificate,), NOW)
    except Rejected as error:
        return error


@settings(max_examples=300, deadline=timedelta(milliseconds=500))
@given(st.booleans(), CHANGES)
def test_a_certificate_with_other_bytes_is_rejected(of_the_leaf: bool, changes: list[tuple[int, int]]) -> None:
    leaf, middle = CHAIN
    ders = (changed(leaf, changes), middle) if of_the_leaf else (leaf, changed(middle, changes))
    if ders != CHAIN:
        assert isinstance(credential_of(*ders), Rejected)


def test_a_certificate_whose_serial_number_is_not_positive_is_rejected() -> None:
    ders = (changed(CHAIN[0], [(CHAIN[0].index(b"\xa0\x03\x02\x01\x02") + 7, 0x80)]), CHAIN[1])
    found = credential_of(*ders)
    assert isinstance(found, Rejected)
    assert "serial number" in str(found)


@pytest.mark.parametrize("at", range(0, len(CHAIN[0]), 29))
def test_a_certificate_that_is_cut_off_is_rejected(at: int) -> None:
    assert isinstance(credential_of(CHAIN[0][:at], CHAIN[1]), Rejected)


def with_version(byte: int) -> bytes:
    at = CHAIN[0].index(b"\xa0\x03\x02\x01\x02") + 4
    return CHAIN[0][:at] + bytes([byte]) + CHAIN[0][at + 1 :]


def with_name(tag: int) -> bytes:
    """Of its subject, as a text of a kind that names are not."""
    at = CHAIN[1].rindex(b"Middle") - 2
    return CHAIN[1][:at] + bytes([tag]) + CHAIN[1][at + 1 :]


def test_what_cryptography_will_not_read_is_a_bad_certificate() -> None:
    for ders in ((with_version(48), CHAIN[1]), (CHAIN[0], with_name(0x02)), (CHAIN[0], with_name(0x03))):
        found = credential_of(*ders)
        assert isinstance(found, Rejected)
        assert found.reason == "bad_certificate"


@settings(max_examples=300, deadline=timedelta(milliseconds=500))
@given(CHANGES)
def test_a_header_with_other_bytes_does_not_pass(changes: list[tuple[int, int]]) -> None:
    text = changed(GOOD.encode(), changes).decode("latin-1")
    reading = verify.read([text], who("+14155550100"), who("+12125550199"))
    good = certificate.credential(SIGNER.chain, (ROOT.certificate,), NOW)
    found = verify.judge(reading, {SIGNER.x5u: good}, NOW)
    if text.partition(";")[0] != GOOD.partition(";")[0]:
        assert found.verdict != "passed"


def deep(levels: int) -> bytes:
    found = b""
    for _ in range(levels):
        found = der(0x30, found)[:0xFFFF]
    return found


@pytest.mark.parametrize(
    "listed",
    [
        authority(*[one(f"1415{n:07}") for n in range(2000)]),
        authority(*[b"\xa0\x03\x16\x01\x31"] * 6000),
        deep(5000),
        der(0x30, b"\xa1" + deep(200)),
    ],
    ids=["numbers", "codes", "nested", "nested in a range"],
)
def test_big_lists_take_no_time(listed: bytes) -> None:
    holder = ROOT.holder(tn_auth_list=listed)
    began = time.perf_counter()
    credential_of(*(each.public_bytes(Encoding.DER) for each in holder.chain))
    assert time.perf_counter() - began < 0.25


def test_ten_thousand_entries_and_no_more() -> None:
    entry = b"\xa0\x03\x16\x01\x31"
    assert len(tn_auth_list(authority(entry * 10_000)).providers) == 10_000
    with pytest.raises(ValueError, match="more than 10000"):
        tn_auth_list(authority(entry * 10_001))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa", "p384", "k256", "ed25519"],
)
def test_a_leaf_has_a_key_of_p256(key: Any) -> None:
    with pytest.raises(Rejected, match="not of P-256"):
        certificate.credential(ROOT.holder(key=key).chain, (ROOT.certificate,), NOW)


IN_THE_CLAIMS = {
    "iat": ['"1795824000"', "1795824000.0", "true", "null", "-1", "0", "1e9", "NaN", "9" * 400, "[1]", "{}"],
    "attest": ['"a"', "null", "true", '["A"]', '"A\\u0000"', "1"],
    "orig": [
        "null",
        "[]",
        '{"tn":null}',
        '{"tn":14155550100}',
        '{"tn":"14155550100","tn":"14155550100"}',
        '{"TN":"x"}',
    ],
    "dest": ["null", "[]", '{"tn":[]}', '{"tn":[null]}', '{"tn":"12125550199"}', '{"tn":["12125550199",1]}'],
    "origid": ["null", "1", '""', '"\\ud800"', "[]"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in IN_THE_CLAIMS.items() for text in texts])
def test_a_signed_claim_of_another_kind_is_none(name: str, text: str) -> None:
    """Signed well, so nothing but the claim is wrong."""
    good = {key: json.dumps(value) for key, value in claims("14155550100", "12125550199", 1795824000).items()}
    body = "{" + ",".join(f'"{key}":{text if key == name else value}' for key, value in good.items()) + "}"
    signed = f"{GOOD.partition('.')[0]}.{encode(body.encode())}"
    r, s = decode_dss_signature(SIGNER.key.sign(signed.encode(), ec.ECDSA(SHA256())))
    token = f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    reading = verify.read(
        [f"{token};info=<{SIGNER.x5u}>;alg=ES256;ppt=shaken"], who("+14155550100"), who("+12125550199")
    )
    trusted = certificate.credential(SIGNER.chain, (ROOT.certificate,), NOW)
    found = verify.judge(reading, {SIGNER.x5u: trusted}, NOW)
    assert found.verdict == "failed"
    assert found.reason in ("bad_claims", "malformed_token", "required_claims", "claim_not_permitted")


def test_a_header_of_100_kb_takes_no_time() -> None:
    began = time.perf_counter()
    for text in (
        "A" * 100_000,
        "A." * 50_000,
        GOOD + ";x=" + '"' * 100_000,
        ".".join(encode(b"[" * 25_000) for _ in range(3)) + ";info=<x>",
        encode(b'{"a":' * 20_000) + ".e30.e30;info=<x>",
    ):
        verify.judge(verify.read([text] * 8, who("+14155550100"), who("+12125550199")), {}, NOW)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("text", "country", "expected"),
    [
        ("+1 (415) 555-0100", None, "14155550100"),
        ("14155550100", None, "14155550100"),
        ("415-555-2671", "US", "14155552671"),
        ("020 7946 0958", "GB", "442079460958"),
        ("*67", None, "*67"),
        ("0207", None, None),
        ("Alice", None, None),
        ("+", None, None),
        ("1" * 25, None, None),
        ("١٢٣٤٥٦٧", None, None),
    ],
)
def test_canonical_numbers(text: str, country: str | None, expected: str | None) -> None:
    assert canonical(text, country) == expected
