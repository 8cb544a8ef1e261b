"""Passwords: what may be one, and its hash (Argon2id with argon2-cffi's defaults: RFC 9106's second choice, 64 MiB).

A hash takes 50 ms of a core and 64 MiB, so at most two are made at once, in threads, and few may wait for them.
"""

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_CHARS = 12
MAX_CHARS = 256
AT_ONCE = 2
MAX_WAITING = 32

# Those of the lists of leaked passwords that are long enough to get here, without digits at their ends.
_COMMON = {
    "administrator",
    "changemeplease",
    "contactcenter",
    "correcthorsebatterystaple",
    "iloveyouforever",
    "letmeinletmein",
    "passwordpassword",
    "passwortpasswort",
    "qwertyqwerty",
    "qwertyuiop",
    "qwertyuiopasdf",
    "trunklinetrunkline",
    "welcomewelcome",
    "yourpassword",
    "password",
    "trunkline",
    "adminadmin",
    "adminadminadmin",
}
_ROWS = ("01234567890123456789", "98765432109876543210", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


class Busy(Exception):
    """Too many passwords are being looked at."""


def wrong_password(password: str, email: str) -> str | None:
    """Why it may not be one, for whom it is to be of. None: it may."""
    plain = _normal(password)
    if len(plain) < MIN_CHARS:
        return f"at least {MIN_CHARS} characters"
    if len(plain) > MAX_CHARS:
        return f"at most {MAX_CHARS} characters"
    low, email = plain.lower(), email.strip().lower()
    bare = low.strip("0123456789!?.-_ #$")
    if low == email or bare in (email, email.partition("@")[0]):
        return "something else than the email"
    if bare in _COMMON or len(set(low)) < 5 or any(low in row for row in _ROWS):
        return "something that is not so easily guessed: four words that nobody else would put together"
    return None


def _normal(password: str) -> str:
    """The same however a keyboard puts accents."""
    return unicodedata.normalize("NFKC", password)


class Passwords:
    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher`: of other costs than ours, for tests."""
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._waiting = 0
        self._nobodys = ""

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Raises Busy."""
        return str(await self._away(self._hasher.hash, _normal(password)))

    async def verify(self, kept: str | None, password: str) -> bool:
        """`kept` None: of nobody; it takes the same time, and is False. Raises Busy."""
        if not self._nobodys:  # once, whoever asks first
            self._nobodys = await self.hash("nobody has this one")
        if len(password) > MAX_CHARS:
            password = ""
        matches = await self._away(self._matches, kept or self._nobodys, _normal(password))
        return bool(matches) and kept is not None

    def is_old(self, kept: str) -> bool:
        """It was made with other costs than those of today."""
        return self._hasher.check_needs_rehash(kept)

    def _matches(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _away(self, work: object, *args: str) -> object:
        if self._waiting >= MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)  # type: ignore[arg-type]
        finally:
            self._waiting -= 1
