"""What a stranger may send: too much, too deep, twice, or nonsense."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.compliance.stir import verify
from trunkline.compliance.stir.canonical import canonical, who
from trunkline.compliance.stir.der import claim_constraints, tn_auth_list
from trunkline.compliance.stir.identity import MAX_HEADER_CHARS, parse_identity
from trunkline.compliance.stir.reasons import ORDER, Rejected
from trunkline.compliance.stir.token import decode, encode, parse_json, parse_token
from trunkline.compliance.stir.x5u import check_x5u

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
