"""The console's cookies and tokens: who a browser is signed in as, and that a change is its own page's.

Over https the cookie is `__Host-trunkline`: a browser takes it only with Secure, for this very host and all of its
paths, so no other host of the domain can set it. Over plain http on loopback it is `trunkline`.

A change needs the token of its session: HMAC-SHA256 with the cookie's value as the key, so no other page can know it
and nothing needs to be kept for it. Beside that, a browser says where a request comes from (Sec-Fetch-Site, Origin),
and from another site none is taken, of the pages before anybody is signed in neither.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

TOKEN_BYTES = 32
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"
_MAX_CHARS = 128


def new_token() -> str:
    """256 bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hashed(token: str) -> str:
    """As it is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(session_token: str) -> str:
    return hmac.new(session_token.encode(), b"trunkline csrf", hashlib.sha256).hexdigest()


def csrf_holds(session_token: str, given: str | None) -> bool:
    return given is not None and hmac.compare_digest(csrf_token(session_token).encode(), given.encode())


def of_our_pages(headers: Mapping[str, str]) -> bool:
    """False: a browser says that another site's page sent this. What is no browser says nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or _netloc(origin) == headers.get("host", "").lower()


def _netloc(origin: str) -> str:
    """Without the scheme: behind a proxy ours is another."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


class Cookies:
    def __init__(self, *, https: bool) -> None:
        self._https = https

    def _name(self, name: str) -> str:
        return f"__Host-{name}" if self._https else name

    def read(self, header: str, name: str = "trunkline") -> str | None:
        """`header`: the request's Cookie."""
        try:
            morsel = SimpleCookie(header).get(self._name(name))
        except CookieError:
            return None
        return morsel.value if morsel is not None and 0 < len(morsel.value) <= _MAX_CHARS * 4 else None

    def set(self, value: str, max_age_s: int, name: str = "trunkline") -> str:
        """A Set-Cookie header."""
        secure = "; Secure" if self._https else ""
        return f"{self._name(name)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"

    def clear(self, name: str = "trunkline") -> str:
        return self.set("", 0, name)
