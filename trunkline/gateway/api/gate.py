"""Who is at the door of /v1, and is it theirs to open.

    a key of the settings       the operator, of the default tenant or the one in Trunkline-Tenant
    tlk_<id>_<secret>           an API key of a tenant's, out of the database
    the console's cookie        a user; what changes something needs X-CSRF-Token as well
    nothing, on loopback        the operator, as long as no key is in the settings and nobody in the database

The last is for trying out. It ends with the first user or API key that is made: an admin who gives people passwords
does not expect that others on the machine need none.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.api.principal import scope_for
from trunkline.gateway.api.problems import problem
from trunkline.gateway.api.remembered import Remembered
from trunkline.gateway.console.accounts import Accounts
from trunkline.gateway.console.cookies import CSRF_HEADER, Cookies, csrf_holds, csrf_token, of_our_pages
from trunkline.identity import Key, Keys, Principal, Users, operator
from trunkline.settings import is_loopback
from trunkline.types import DEFAULT_TENANT, TenantId

log = logging.getLogger(__name__)

TENANT_HEADER = "trunkline-tenant"
USED_EVERY = timedelta(minutes=1)
MAX_NOTING = 16  # database writes at once of when keys were used
NOTED_WITHIN_S = 5.0
_KEY = re.compile(r"tlk_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="trunkline"'}


def new_key() -> tuple[str, str, str]:
    """The key as it is shown once; its id; its SHA-256 as it is kept."""
    key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
    key = f"tlk_{key_id}_{secrets.token_urlsafe(32)}"
    return key, key_id, _sha256(key)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Identities:
    """What the database knows; the console's part of it."""

    users: Users
    keys: Keys
    accounts: Accounts
    cookies: Cookies


class Gate:
    def __init__(self, api_keys: Sequence[str], clock: Clock, known: Identities | None = None) -> None:
        """`api_keys`: of the settings. `known` None: there is nobody else."""
        self._api_keys = [key.encode() for key in api_keys]
        self._clock, self._known = clock, known
        self._used: set[asyncio.Task[None]] = set()
        if known is not None:
            self._keys: Remembered[Key] = Remembered(known.keys.by_id, clock.now)
            self._locked: Remembered[bool] = Remembered(lambda _: known.users.locked(), clock.now, float("inf"))

    def forget_key(self, key_id: str) -> None:
        """It was changed or deleted."""
        self._keys.forget(key_id)

    def forget_locked(self) -> None:
        """Somebody is there now."""
        self._locked.forget()

    async def admit(self, method: str, path: str, headers: Headers) -> Principal | ASGIApp:
        """Whoever it is, if this route is theirs; else the answer."""
        try:
            found = await self._who(method, headers)
        except StoreError as error:
            log.error("%s %s: who asks is not known: %s", method, path, error)
            return problem(503, "the database is away", {"Retry-After": "5"})
        if not isinstance(found, Principal):
            return found
        principal = self._of_tenant(found, headers.get(TENANT_HEADER))
        if isinstance(principal, Principal) and not principal.is_operator:
            needed = "read" if path == "/metrics" else scope_for(method, path) or "admin"
            if path == "/metrics" and principal.tenant != DEFAULT_TENANT:  # of all tenants together
                return problem(403, "of the operator and the default tenant", code="tenant")
            if not principal.may(needed):
                return problem(403, f"this needs the scope {needed}", code="scope")
        return principal

    async def of_console(self, method: str, headers: Headers) -> tuple[Principal, str] | None:
        """Whoever is signed in there, and the token of their forms. Other sites may lead to our pages (a provider that
        has signed somebody in does), and send no form of theirs. Raises StoreError."""
        cookie = None if self._known is None else self._known.cookies.read(headers.get("cookie", ""))
        if self._known is None or cookie is None or (method not in _SAFE and not of_our_pages(headers)):
            return None
        session = await self._known.accounts.session(cookie)
        return None if session is None else (session.user.principal, csrf_token(cookie))

    def _of_tenant(self, principal: Principal, asked: str | None) -> Principal | ASGIApp:
        if asked is None or asked == principal.tenant:
            return principal
        if not principal.is_operator:
            return problem(403, "Trunkline-Tenant: of another tenant, which is the operator's to name", code="tenant")
        if not _TENANT.fullmatch(asked):
            return problem(400, "Trunkline-Tenant: 1 to 64 letters, digits, _ . -", code="tenant")
        return replace(principal, tenant=TenantId(asked))

    async def _who(self, method: str, headers: Headers) -> Principal | ASGIApp:
        given = _given(headers)
        if self._is_ours(given):
            return operator()
        if self._known is not None:
            if parts := _KEY.fullmatch(given.decode("latin-1")):
                return await self._of_key(parts[0], parts[1])
            cookie = None if given else self._known.cookies.read(headers.get("cookie", ""))
            if cookie is not None and (user := await self._of_session(cookie, method, headers)) is not None:
                return user
        if self._api_keys or await self._is_locked():
            return problem(401, "an API key is needed", _CHALLENGE)
        # Open means loopback (settings see to it), so another name in Host is a tunnel or DNS rebinding.
        if is_loopback(_hostname(headers.get("host", ""))):
            return operator()
        return problem(403, "without http.api_key this answers on loopback only")

    def _is_ours(self, given: bytes) -> bool:
        allowed = False
        for key in self._api_keys:
            allowed |= hmac.compare_digest(given, key)  # no early way out: the time tells nothing
        return allowed

    async def _is_locked(self) -> bool:
        return self._known is not None and await self._locked.get("") is not False

    async def _of_key(self, given: str, key_id: str) -> Principal | ASGIApp:
        key = await self._keys.get(key_id)
        now = self._clock.wall()
        same = hmac.compare_digest(_sha256(given), "0" * 64 if key is None else key.sha256)
        if key is None or not same or not key.holds(now):
            return problem(401, "this API key is not known, or not any more", _CHALLENGE)
        if key.used_at is None or now - key.used_at >= USED_EVERY:
            self._note_used(key)
        return key.principal

    def _note_used(self, key: Key) -> None:
        """Behind the request's back: it need not wait for that."""
        if len(self._used) < MAX_NOTING:
            task = asyncio.create_task(self._noted(key.id), name="api key used")
            self._used.add(task)
            task.add_done_callback(self._used.discard)

    async def _noted(self, key_id: str) -> None:
        assert self._known is not None
        try:
            async with asyncio.timeout(NOTED_WITHIN_S):
                await self._known.keys.used(key_id)
        except (StoreError, TimeoutError) as error:
            log.debug("when an API key was used is not written: %s", error)

    async def _of_session(self, cookie: str, method: str, headers: Headers) -> Principal | ASGIApp | None:
        assert self._known is not None
        session = await self._known.accounts.session(cookie)
        if session is None:
            return None
        if not of_our_pages(headers):
            return problem(403, "a page of another site may not ask this", code="csrf")
        if method not in _SAFE and not csrf_holds(cookie, headers.get(CSRF_HEADER)):
            return problem(403, "X-CSRF-Token: the one of this session is needed", code="csrf")
        return session.user.principal

    async def close(self) -> None:
        for task in self._used:
            task.cancel()
        await asyncio.gather(*self._used, return_exceptions=True)


def _given(headers: Headers) -> bytes:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
