"""Signing in and out of the console, and passwords. An edge: it asks the store, hashes in threads, notes in the audit.

    sign_in ──► throttle ──► by_email ──► verify (of nobody as well) ──► session, with a token of its own
    a link  ──► a password ──► session        (the first admin's, a new user's, a forgotten one)

An unknown user, one that is disabled and a wrong password get the same answer in the same time.
"""

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Protocol

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.api.remembered import Remembered
from trunkline.gateway.console.cookies import hashed, new_token
from trunkline.gateway.console.passwords import Busy, Passwords, wrong_password
from trunkline.gateway.console.throttle import Throttle
from trunkline.identity import AccountError, NewUser, Session, Sessions, User, Users
from trunkline.types import DEFAULT_TENANT

log = logging.getLogger(__name__)

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
SEEN_EVERY = timedelta(minutes=1)
LINK_HOLDS = timedelta(hours=24)
SETUP_HOLDS = timedelta(hours=1)
MAX_EMAIL_CHARS = 254
MAX_AGENT_CHARS = 200
EMAIL_PATTERN = r"^\s*[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\s*$"
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class Store(Users, Sessions, Protocol):
    pass


@dataclass(frozen=True, slots=True)
class SignedIn:
    user: User
    token: str = field(repr=False)
    """The cookie's."""
    max_age_s: int = int(LONGEST.total_seconds())


Code = Literal["wrong", "wait", "busy", "link", "password", "email", "exists", "away"]


@dataclass(frozen=True, slots=True)
class Refused:
    code: Code
    why: str
    """For the page."""
    wait_s: int = 0


_WRONG = Refused("wrong", "Email or password are not right.")
_BUSY = Refused("busy", "Too many people sign in just now. Please try again.", 1)
_NO_LINK = Refused("link", "This link is not good any more: it was used, or its time is over.")


def is_email(text: str) -> bool:
    return len(text) <= MAX_EMAIL_CHARS and _EMAIL.fullmatch(text.strip()) is not None


class Accounts:
    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed`: told when somebody is there who was not."""
        self._store, self._passwords, self._clock, self.changed = store, passwords, clock, changed
        self._throttle = Throttle()
        self._sessions: Remembered[Session] = Remembered(store.session, clock.now)

    # --- who is it ---

    async def session(self, token: str | None) -> Session | None:
        """Whose the cookie is. None: nobody's any more. Raises StoreError."""
        if token is None or not _TOKEN.fullmatch(token):
            return None
        found = await self._sessions.get(hashed(token))
        now = self._clock.wall()
        if found is None or now >= found.expires_at or now - found.seen_at >= IDLE:
            return None
        if now - found.seen_at >= SEEN_EVERY:
            await self._seen(found)
        return found

    async def _seen(self, session: Session) -> None:
        """Not while the database is away: what is remembered holds."""
        try:
            await self._store.seen(session.sha256)
            self._sessions.forget(session.sha256)
        except StoreError as error:
            log.debug("a session's time is not written: %s", error)

    def forget(self) -> None:
        """Somebody was disabled, or has another role: what is remembered of sessions is asked anew."""
        self._sessions.forget()

    # --- in and out ---

    async def sign_in(
        self, email: str, password: str, address: str, agent: str = "", before: str | None = None
    ) -> SignedIn | Refused:
        """`before`: the cookie that the browser had, whose session ends. Raises StoreError."""
        wait = self._throttle.begin(email, address, self._clock.now())
        if wait > 0:
            seconds = math.ceil(wait)
            return Refused("wait", f"Too many tries. Please try again in {seconds} s.", seconds)
        user = await self._store.by_email(email) if is_email(email) else None
        usable = user if user is not None and user.enabled else None
        try:
            right = await self._passwords.verify(None if usable is None else usable.password_hash, password)
        except Busy:
            return _BUSY
        if usable is None or not right:
            tenant, name = (DEFAULT_TENANT, "?") if user is None else (user.tenant, user.name)
            await self._store.note(tenant, "nobody", "sign_in_failed", "users", name, None, {"address": address})
            return _WRONG
        self._throttle.passed(email, address)
        usable = await self._rehashed(usable, password)
        return await self.signed_in(usable, "password", agent, before)

    async def _rehashed(self, user: User, password: str) -> User:
        """In the open: nobody's sessions end for it."""
        assert user.password_hash is not None
        if not self._passwords.is_old(user.password_hash):
            return user
        try:
            return await self._store.rehash(user, await self._passwords.hash(password))
        except Busy:
            return user

    async def signed_in(self, user: User, how: str, agent: str = "", before: str | None = None) -> SignedIn:
        """Whoever it is was made sure of. Raises StoreError."""
        token = new_token()
        expires = self._clock.wall() + LONGEST
        old = None if before is None else hashed(before)
        await self._store.open_session(user, hashed(token), expires, agent[:MAX_AGENT_CHARS], old)
        await self._store.note(user.tenant, f"user:{user.name}", "sign_in", "users", user.name, None, {"by": how})
        if old is not None:
            self._sessions.forget(old)
        return SignedIn(user, token)

    async def sign_out(self, token: str) -> None:
        """Idempotent. Raises StoreError."""
        sha256 = hashed(token)
        self._sessions.forget(sha256)
        await self._store.close_session(sha256)
        self._sessions.forget(sha256)

    async def sign_out_everywhere(self, user: User, actor: str, but: str | None = None) -> int:
        """How many there were. `but`: a cookie whose session stays. Raises StoreError."""
        closed = await self._store.close_sessions(user.tenant, user.name, None if but is None else hashed(but))
        self.forget()
        await self._store.note(user.tenant, actor, "sign_out_everywhere", "users", user.name, None, {"closed": closed})
        return closed

    # --- passwords ---

    async def change_password(self, session: Session, old: str, new: str, address: str) -> SignedIn | Refused:
        """All sessions of the user end; this browser gets a new one. Raises StoreError."""
        user = session.user
        wait = self._throttle.begin(user.email, address, self._clock.now())
        if wait > 0:
            return Refused("wait", f"Too many tries. Please try again in {math.ceil(wait)} s.", math.ceil(wait))
        try:
            if not await self._passwords.verify(user.password_hash, old):
                return Refused("wrong", "The password of now is not right.")
            self._throttle.passed(user.email, address)
            return await self._set_password(user, new, session.agent, "password", f"user:{user.name}")
        except Busy:
            return _BUSY

    async def _set_password(self, user: User, new: str, agent: str, how: str, actor: str) -> SignedIn | Refused:
        if (wanted := wrong_password(new, user.email)) is not None:
            return Refused("password", f"Please take {wanted}.")
        changes = {"password_hash": await self._passwords.hash(new)}
        changed = await self._store.change_user(user.tenant, actor, user.name, changes)
        self.forget()
        return await self.signed_in(changed, how, agent)

    async def invite(self, user: User) -> str:
        """The token of a link with which the user sets a password, once, within LINK_HOLDS. Raises StoreError."""
        token = new_token()
        await self._store.open_link(hashed(token), user, self._clock.wall() + LINK_HOLDS)
        return token

    async def invited(self, token: str) -> User | None:
        """Whose link it is: for the page. Raises StoreError."""
        found = await self._store.link(hashed(token)) if _TOKEN.fullmatch(token) else None
        return None if found is None else found[0]

    async def by_link(self, token: str, password: str, agent: str = "") -> SignedIn | Refused:
        """Raises StoreError."""
        user = await self.invited(token)
        if user is None:
            return _NO_LINK
        if (wanted := wrong_password(password, user.email)) is not None:
            return Refused("password", f"Please take {wanted}.")
        try:
            password_hash = await self._passwords.hash(password)
        except Busy:
            return _BUSY  # and the link is still good
        if not await self._store.close_link(hashed(token)):
            return _NO_LINK
        changes = {"password_hash": password_hash}
        changed = await self._store.change_user(user.tenant, f"user:{user.name}", user.name, changes)
        self.forget()
        return await self.signed_in(changed, "link", agent)

    # --- the first admin ---

    async def setup_token(self) -> str | None:
        """With which the first admin is made, within SETUP_HOLDS. None: there is one. Raises StoreError."""
        if await self._store.has_admin():
            return None
        token = new_token()
        await self._store.open_link(hashed(token), None, self._clock.wall() + SETUP_HOLDS)
        return token

    async def may_set_up(self, token: str) -> bool:
        """Raises StoreError."""
        found = await self._store.link(hashed(token)) if _TOKEN.fullmatch(token) else None
        return found == (None,) and not await self._store.has_admin()

    async def setup(self, token: str, email: str, password: str, agent: str = "") -> SignedIn | Refused:
        """The first admin, signed in. Raises StoreError."""
        if not await self.may_set_up(token):
            return _NO_LINK
        if not is_email(email):
            return Refused("email", "Please give an email address, such as ann@example.com.")
        if (wanted := wrong_password(password, email)) is not None:
            return Refused("password", f"Please take {wanted}.")
        try:
            user = await self._store.create_first(
                NewUser(email, "admin", password_hash=await self._passwords.hash(password))
            )
        except AccountError as error:
            return Refused("email", str(error))
        except Busy:
            return _BUSY
        if user is None:
            return Refused("exists", "There is an admin already.")
        await self._store.close_link(hashed(token))
        self.changed()
        return await self.signed_in(user, "setup", agent)
