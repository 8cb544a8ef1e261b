import pytest

from trunkline.testing.caller.sip.digest import Challenge, Credentials, authorization, choose, parse_challenge

MUFASA = Credentials("Mufasa", "Circle of Life")
RFC7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%s, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    challenge = parse_challenge(RFC7616 % algorithm)
    assert challenge is not None
    secret = Credentials("Mufasa", "Circle of Life")
    value = authorization(challenge, secret, "GET", "/dir/index.html", CNONCE)
    assert f'response="{response}"' in value
    assert "nc=00000001" in value


def test_the_example_of_rfc_2617_without_quality() -> None:
    challenge = Challenge("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093")
    value = authorization(challenge, Credentials("Mufasa", "CircleOfLife"), "GET", "/dir/index.html", "x")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in value  # RFC 2069's, with its own erratum's password
    assert "qop" not in value


def test_the_strongest_challenge_is_answered() -> None:
    challenge = choose(["Basic realm=x", RFC7616 % "MD5", RFC7616 % "SHA-256", RFC7616 % "SHA-512-256"])
    assert challenge is not None
    assert challenge.algorithm == "SHA-256"


@pytest.mark.parametrize("value", ['Basic realm="x"', 'Digest realm="x"', 'Digest realm="x",nonce="n",qop="auth-int"'])
def test_what_cannot_be_answered_is_not(value: str) -> None:
    assert choose([value]) is None


def test_a_session_algorithm_shows_its_client_nonce() -> None:
    value = authorization(Challenge("r", "n", "MD5-sess"), MUFASA, "INVITE", "sip:x", "c")
    assert 'cnonce="c"' in value
    assert "algorithm=MD5-sess" in value


def test_a_password_is_not_shown() -> None:
    assert "Circle" not in repr(MUFASA)
