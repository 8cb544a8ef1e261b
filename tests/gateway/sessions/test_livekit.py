"""Held against an independent implementation of JWT: PyJWT, which comes with Twilio's package."""

from datetime import UTC, datetime

import jwt
import pytest

from trunkline.gateway.sessions.livekit import LivekitServer, access_token
from trunkline.types import SessionId

SERVER = LivekitServer("wss://livekit.example.com", "APIkey", "s" * 32)
AT = datetime.now(UTC)


def test_a_token_lets_a_device_into_its_sessions_room() -> None:
    token = access_token(SERVER, SessionId("ses_1"), "kitchen", AT, 120)
    claims = jwt.decode(token, SERVER.api_secret, algorithms=["HS256"], issuer="APIkey", options={"verify_exp": False})
    assert claims["sub"] == "kitchen"
    assert claims["video"] == {"room": "ses_1", "roomJoin": True, "canPublish": True, "canSubscribe": True}
    assert claims["exp"] - claims["nbf"] in (119, 120)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_it_is_signed_with_the_servers_secret() -> None:
    token = access_token(SERVER, SessionId("ses_1"), "kitchen", AT, 120)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, "t" * 32, algorithms=["HS256"])
    assert SERVER.api_secret not in repr(SERVER)
