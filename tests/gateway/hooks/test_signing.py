import base64
import hashlib
import hmac

import pytest

from trunkline.gateway.hooks.signing import headers, new_secret, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def test_it_signs_as_standard_webhooks_does() -> None:
    """The vector that its libraries test with."""
    found = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_during_a_rotation_both_sign() -> None:
    new, old = new_secret(), new_secret()
    sent = headers((new, old), "evt_1", 1_790_000_000, BODY)
    assert sent["webhook-id"] == "evt_1"
    assert sent["webhook-timestamp"] == "1790000000"
    for secret, given in zip((new, old), sent["webhook-signature"].split(" "), strict=True):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, b"evt_1.1790000000." + BODY, hashlib.sha256).digest()
        assert given == "v1," + base64.b64encode(digest).decode()


def test_a_secret_is_32_random_bytes() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 32
    with pytest.raises(ValueError, match="whsec_"):
        signature("no secret", "evt_1", 0, b"")
