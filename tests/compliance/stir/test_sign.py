"""What we say of our own callers, and when we may."""

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from trunkline.compliance.stir import certificate, sign, verify
from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.sign import Rights, SigningKey, attestation, current, load_key
from trunkline.testing.stir import X5U, Authority

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OURS, OTHER = "+14155550100", "+14155550111"
CALLER, CALLED = Who("tn", "14155550100"), Who("tn", "12125550199")


def test_what_we_sign_is_what_we_verify() -> None:
    root = Authority(NOW)
    holder = root.holder()
    header = sign.identity(holder.key, X5U, "B", CALLER, CALLED, NOW, origid := uuid4())
    reading = verify.read([header], CALLER, CALLED)
    credential = certificate.credential(holder.chain, (root.certificate,), NOW)
    found = verify.judge(reading, {X5U: credential}, NOW)
    assert (found.verdict, found.attest, found.origid) == ("passed", "B", str(origid))
    assert reading.ways[0][0].iat == NOW.timestamp()


def test_one_serialization() -> None:
    written = {"b": {"z": 1, "a": "é"}, "a": [True, None]}
    assert sign.canonical_json(written) == '{"a":[true,null],"b":{"a":"é","z":1}}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        sign.canonical_json({"a": float("nan")})


def test_only_a_listed_number_of_a_known_customer_is_a() -> None:
    rights = Rights({OURS: "contract 12"}, unlisted="B", passing="C")
    assert attestation(rights, OURS, known_customer=True) == "A"
    assert attestation(rights, OTHER, known_customer=True) == "B"
    assert attestation(rights, OURS, known_customer=False) is None
    assert attestation(rights, OURS, known_customer=True, passing=True) == "C"
    assert attestation(Rights({OURS: " "}), OURS, known_customer=True) is None  # a record that says nothing is none


def test_nothing_but_a_record_and_a_customer_gives_an_a() -> None:
    for known, passing, unlisted, through in product((True, False), (True, False), "ABC ", "ABC "):
        rights = Rights({}, unlisted.strip() or None, through.strip() or None)  # type: ignore[arg-type]
        found = attestation(rights, OTHER, known_customer=known, passing=passing)
        assert found != "A"
        assert not (passing and found == "B")


def test_off_by_default() -> None:
    assert attestation(Rights(), OURS, known_customer=True) is None
    assert current((), NOW) is None


def test_the_latest_key_whose_time_has_come_signs() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    old, new = (SigningKey(key, X5U, NOW + timedelta(days=d), name) for d, name in ((-30, "old"), (1, "new")))
    for order in ((old, new), (new, old)):
        assert current(order, NOW) is old
        assert current(order, NOW + timedelta(days=1)) is new
    assert current((new,), NOW) is None


def test_only_p256_in_the_clear_is_a_signing_key() -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(ValueError, match="P-256"):
            load_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    locked = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="passphrase"):
        load_key(locked.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert "object" not in repr(SigningKey(locked, X5U, NOW))
