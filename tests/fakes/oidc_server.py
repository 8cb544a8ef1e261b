"""An OpenID provider on loopback: discovery, keys, codes with PKCE, id tokens signed with real RSA keys."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "trunkline", "between you and me"


@dataclass
class _Code:
    nonce: str
    challenge: str
    redirect_uri: str


class OidcServer:
    """`claims` and `header` are put over those of the next id tokens; `sign_with` signs them in place of the key."""

    def __init__(self, issuer: str) -> None:
        self.issuer, self.says_issuer = issuer, issuer
        self.keys: list[RSAKey] = []
        self.rotate()
        self.claims: dict[str, Any] = {}
        self.without: set[str] = set()
        self.header: dict[str, Any] = {}
        self.sign_with: RSAKey | OctKey | None = None
        self.unsigned = False
        self.asked: list[str] = []
        self._codes: dict[str, _Code] = {}
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._document),
                Route("/keys", self._jwks),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    def rotate(self) -> None:
        """A new key signs; the old one is not published any more."""
        self.keys[:] = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})]

    def authorize(self, url: str) -> dict[str, str]:
        """What the browser brings back from its page."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(f"{self.issuer}/authorize?")
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(8)
        self._codes[code] = _Code(query["nonce"], query["code_challenge"], query["redirect_uri"])
        return {"code": code, "state": query["state"], "iss": self.issuer}

    async def _document(self, request: Request) -> Response:
        self.asked.append("document")
        return JSONResponse(
            {
                "issuer": self.says_issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    async def _jwks(self, request: Request) -> Response:
        self.asked.append("keys")
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _token(self, request: Request) -> Response:
        self.asked.append("token")
        given = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        code = self._codes.pop(form.get("code", ""), None)
        if request.headers.get("authorization") != f"Basic {given}":
            return JSONResponse({"error": "invalid_client"}, 401)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if code is None or challenge != code.challenge or form.get("redirect_uri") != code.redirect_uri:
            return JSONResponse({"error": "invalid_grant"}, 400)
        id_token = self._id_token(code.nonce)
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": id_token})

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims: Mapping[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "user-1",
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "email": "ann@example.com",
            "email_verified": True,
            "name": "Ann",
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if name not in self.without}
        if self.unsigned:
            head = {"alg": "none", "typ": "JWT"}
            parts = [
                base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims)
            ]
            return ".".join([*parts, ""])
        key = self.sign_with or self.keys[0]
        header = {"alg": "RS256", "kid": self.keys[0].kid, **self.header}
        return jwt.encode(header, dict(claims), key, algorithms=[header["alg"]])
