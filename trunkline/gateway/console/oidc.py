"""Signing in by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9207).

    start ──► the provider's page ──► callback?code&state ──► token endpoint ──► id token ──► whose it is

State, nonce and the PKCE verifier are in a cookie of the browser that began: whoever comes back with another one did
not begin here, and nothing is kept of those who never come back. The id token is believed for its signature, by a key
that the provider publishes now; keys are fetched anew when it names one that we do not know.

The only file that imports authlib and joserfc.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from trunkline.clock import Clock
from trunkline.errors import MissingExtra
from trunkline.gateway.console.cookies import new_token

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from joserfc.jwk import KeySet

log = logging.getLogger(__name__)

COOKIE = "trunkline-oidc"
BEGUN_HOLDS_S = 600
EXCHANGE_S = 10.0  # all requests to the provider for one sign-in
KNOWN_FOR_S = 3600.0  # of the provider's document and keys
NEW_KEYS_EVERY_S = 10.0  # at most, however many unknown ones are named
MAX_BYTES = 256 * 1024
LEEWAY_S = 60
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Never `none`, and no HMAC: its key would be one that we know as well."""
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Terms:
    """Of the settings."""

    issuer: str
    client_id: str
    redirect_uri: str
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    url: str
    """Where the browser goes."""
    cookie: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the provider says of whoever signed in there."""

    subject: str
    """`issuer subject`: whose it is, for good."""
    email: str | None
    """Verified there. None: none is."""
    label: str
    claims: Mapping[str, Any] = field(repr=False)


class OidcError(Exception):
    """Nobody is signed in by this. Its text is for the log, and holds nothing secret."""


class Provider:
    """One OpenID provider. Raises MissingExtra where its packages are not there."""

    def __init__(self, terms: Terms, clock: Clock) -> None:
        for package in ("authlib", "joserfc", "httpx2"):
            if find_spec(package) is None:
                raise MissingExtra(package, "oidc")
        self._terms, self._clock = terms, clock
        self._document: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def start(self) -> Begun:
        """Raises OidcError."""
        state, nonce, verifier = new_token(), new_token(), new_token()
        async with self._asking() as client:
            document = await self._discovered(client)
        url, _ = client.create_authorization_url(
            document["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
        )
        return Begun(url, f"{state}.{nonce}.{verifier}")

    async def finish(self, query: Mapping[str, str], cookie: str | None) -> Vouched:
        """`query`: of the callback. Raises OidcError."""
        begun = (cookie or "").split(".")
        if len(begun) != 3 or not hmac.compare_digest(begun[0].encode(), query.get("state", "").encode()):
            raise OidcError("it was not begun in this browser, or too long ago")
        _, nonce, verifier = begun
        if query.get("iss", self._terms.issuer) != self._terms.issuer:
            raise OidcError("another issuer answers")
        if "error" in query or not query.get("code"):
            raise OidcError(f"the provider refuses: {query.get('error', 'no code')[:64]!r}")
        async with self._asking() as client:
            id_token = await self._exchanged(client, query["code"], verifier)
            claims = await self._verified(client, id_token, nonce)
        email = claims.get("email")
        verified = isinstance(email, str) and claims.get("email_verified") is True
        return Vouched(
            subject=f"{self._terms.issuer} {claims['sub']}",
            email=email.strip().lower() if verified and isinstance(email, str) else None,
            label=str(claims.get("name") or "")[:120],
            claims=claims,
        )

    def _asking(self) -> "_Asking":
        return _Asking(self._terms)

    async def _discovered(self, client: "AsyncOAuth2Client") -> Mapping[str, Any]:
        now = self._clock.now()
        if self._document is not None and now - self._document[0] < KNOWN_FOR_S:
            return self._document[1]
        document = await _json(client, self._terms.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._terms.issuer:
            raise OidcError(f"its document names another issuer than {self._terms.issuer}")
        secure = self._terms.issuer.startswith("https:")
        for name in _ENDPOINTS:
            url = document.get(name)
            if not isinstance(url, str) or not url.startswith("https://" if secure else "http"):
                raise OidcError(f"its document has no usable {name}")
        self._document = now, document
        return document

    async def _exchanged(self, client: "AsyncOAuth2Client", code: str, verifier: str) -> str:
        document = await self._discovered(client)
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self._terms.client_secret is not None and "client_secret_basic" not in methods:
            client.token_endpoint_auth_method = "client_secret_post"
        token = await client.fetch_token(document["token_endpoint"], code=code, code_verifier=verifier)
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise OidcError("no id token came")
        return id_token

    async def _verified(self, client: "AsyncOAuth2Client", id_token: str, nonce: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        keys = await self._published(client, KNOWN_FOR_S)
        try:
            token = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):  # perhaps by a key that is new
            token = jwt.decode(id_token, await self._published(client, NEW_KEYS_EVERY_S), algorithms=ALGORITHMS)
        claims = dict(token.claims)
        jwt.JWTClaimsRegistry(
            now=int(self._clock.wall().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._terms.issuer},
            aud={"essential": True, "value": self._terms.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(claims)
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
            raise OidcError("of several audiences none is the authorized party")
        if claims.get("azp", self._terms.client_id) != self._terms.client_id:
            raise OidcError("it is for another client")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise OidcError("no usable subject")
        return claims

    async def _published(self, client: "AsyncOAuth2Client", for_s: float) -> "KeySet":
        """Not older than that."""
        from joserfc.jwk import KeySet

        now = self._clock.now()
        if self._keys is None or now - self._keys[0] >= for_s:
            document = await self._discovered(client)
            found = await _json(client, document["jwks_uri"])
            usable = [key for key in found.get("keys", []) if isinstance(key, dict) and key.get("use", "sig") == "sig"]
            self._keys = now, KeySet.import_key_set({"keys": [key for key in usable if key.get("kty") != "oct"]})
        return self._keys[1]


class _Asking:
    """A client for one exchange: it ends with it. Whatever fails is an OidcError."""

    def __init__(self, terms: Terms) -> None:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        self._client = AsyncOAuth2Client(
            client_id=terms.client_id,
            client_secret=terms.client_secret,
            token_endpoint_auth_method="none" if terms.client_secret is None else "client_secret_basic",
            scope="openid email profile",
            redirect_uri=terms.redirect_uri,
            code_challenge_method="S256",
            timeout=EXCHANGE_S,
            trust_env=False,
        )
        self._deadline = asyncio.timeout(EXCHANGE_S)

    async def __aenter__(self) -> "AsyncOAuth2Client":
        await self._deadline.__aenter__()
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        import httpx2
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        try:
            await self._client.aclose()
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError:
            raise OidcError("the provider takes too long") from error
        if isinstance(error, AuthlibBaseError | JoseError):
            raise OidcError(f"the provider's answer does not hold: {type(error).__name__} {error.error}") from error
        if isinstance(error, httpx2.HTTPError | ValueError | KeyError):
            raise OidcError(f"the provider does not answer as it should: {type(error).__name__}") from error


async def _json(client: "AsyncOAuth2Client", url: str) -> Mapping[str, Any]:
    async with client.stream("GET", url, withhold_token=True) as answer:
        if answer.status_code != 200:
            raise OidcError(f"the provider answers {answer.status_code}")
        body = b""
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise OidcError("the provider's answer is too large")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise OidcError("the provider's answer is no JSON object")
    return found
