"""Who somebody is and what they may: the values and the ports that `gateway` and `store` share.

A principal is whoever a request is from: the operator (whose key is in the settings, and whose machine it is), a user
of the console by session, or a program by an API key of a tenant. What is random (keys, sessions, links) is kept as its
SHA-256: it has 256 bits, so nobody finds it by trying, and nobody who reads the database can use it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from trunkline.errors import TrunklineError
from trunkline.types import DEFAULT_TENANT, TenantId

Scope = Literal["read", "listen", "calls", "write", "admin"]
"""read; listen: recordings and transcripts; calls: dial, control, hang up; write: numbers, routes, agents...; admin:
users, keys, the tenant."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
Role = Literal["viewer", "supervisor", "admin"]
ROLES: Mapping[Role, frozenset[Scope]] = {
    "viewer": frozenset({"read"}),
    "supervisor": frozenset({"read", "listen", "calls"}),
    "admin": frozenset(SCOPES),
}


@dataclass(frozen=True, slots=True)
class Principal:
    tenant: TenantId
    actor: str
    """As the change audit names it: `user:ann`, `key:crm`, `operator`."""
    scopes: frozenset[Scope]
    role: Role | None = None
    """Of a user."""

    @property
    def is_operator(self) -> bool:
        return self.actor == "operator"

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


def operator(tenant: TenantId = DEFAULT_TENANT) -> Principal:
    return Principal(tenant, "operator", frozenset(SCOPES))


@dataclass(frozen=True, slots=True)
class User:
    tenant: TenantId
    name: str
    email: str
    """In lowercase. No two users of an installation have the same."""
    role: Role
    version: int
    created_at: datetime
    updated_at: datetime
    label: str = ""
    enabled: bool = True
    password_hash: str | None = field(default=None, repr=False)
    """Argon2id. None: cannot sign in by password."""
    oidc_subject: str | None = None
    """`issuer subject`, from the first sign-in there on."""

    @property
    def principal(self) -> Principal:
        return Principal(self.tenant, f"user:{self.name}", ROLES[self.role], self.role)


@dataclass(frozen=True, slots=True)
class NewUser:
    email: str
    role: Role
    name: str = ""
    """Empty: made from the email."""
    label: str = ""
    password_hash: str | None = field(default=None, repr=False)
    oidc_subject: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key of a tenant, without what is secret of it."""

    tenant: TenantId
    name: str
    id: str
    """12 characters that stand in the key itself."""
    sha256: str = field(repr=False)
    scopes: frozenset[Scope]
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str
    label: str = ""
    enabled: bool = True
    expires_at: datetime | None = None
    used_at: datetime | None = None
    """To the minute."""

    @property
    def principal(self) -> Principal:
        return Principal(self.tenant, f"key:{self.name}", self.scopes)

    def holds(self, now: datetime) -> bool:
        return self.enabled and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str
    id: str
    sha256: str = field(repr=False)
    scopes: frozenset[Scope]
    label: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """Of the console."""

    sha256: str = field(repr=False)
    user: User
    created_at: datetime
    seen_at: datetime
    """To the minute."""
    expires_at: datetime
    agent: str = ""
    """The browser, as it says."""


Fault = Literal["not_found", "taken", "stale", "last_admin"]


class AccountError(TrunklineError):
    """What was asked cannot be done; nothing of it was."""

    def __init__(self, code: Fault, why: str, wanted: Mapping[str, str] | None = None) -> None:
        """`wanted`: by field, what should be there."""
        super().__init__(code, why)
        self.code, self.why, self.wanted = code, why, dict(wanted or {})

    def __str__(self) -> str:
        return self.why


Body = Mapping[str, Any]


class Audit(Protocol):
    async def note(
        self,
        tenant: TenantId,
        actor: str,
        action: str,
        kind: str,
        key: str,
        before: Body | None = None,
        after: Body | None = None,
    ) -> None:
        """A line of the change audit. Raises StoreError."""
        ...


class Users(Audit, Protocol):
    """All raise StoreError when the database is away. What changes something notes it, in the same transaction."""

    async def locked(self) -> bool:
        """Whether anybody, user or key, is there: then nobody gets in without being one of them."""
        ...

    async def has_admin(self) -> bool:
        """One that may sign in, of any tenant."""
        ...

    async def users(self, tenant: TenantId, *, limit: int, after: str = "") -> Sequence[User]:
        """By name."""
        ...

    async def user(self, tenant: TenantId, name: str) -> User | None: ...

    async def by_email(self, email: str) -> User | None:
        """Of whichever tenant: who signs in names none."""
        ...

    async def by_subject(self, subject: str) -> User | None: ...

    async def create_user(self, tenant: TenantId, actor: str, new: NewUser) -> User:
        """Raises AccountError: taken."""
        ...

    async def create_first(self, new: NewUser) -> User | None:
        """The first admin, of the default tenant. None: there is one. Raises AccountError: taken."""
        ...

    async def change_user(
        self, tenant: TenantId, actor: str, name: str, changes: Body, if_version: int | None = None
    ) -> User:
        """`changes`: fields of User. Who is disabled, or has another password or role, loses their sessions and links.
        Raises AccountError: not_found, stale, taken, last_admin."""
        ...

    async def rehash(self, user: User, password_hash: str) -> User:
        """The same password, with other costs: no change of the user's."""
        ...

    async def delete_user(self, tenant: TenantId, actor: str, name: str, if_version: int | None = None) -> None:
        """Raises AccountError: not_found, stale, last_admin."""
        ...


class Sessions(Protocol):
    """Raise StoreError when the database is away."""

    async def open_session(
        self, user: User, sha256: str, expires_at: datetime, agent: str, instead_of: str | None = None
    ) -> None: ...

    async def session(self, sha256: str) -> Session | None:
        """Of a user who is enabled; expired ones, too."""
        ...

    async def seen(self, sha256: str) -> None: ...

    async def close_session(self, sha256: str) -> None: ...

    async def close_sessions(self, tenant: TenantId, name: str, but: str | None = None) -> int: ...

    async def sessions_of(self, tenant: TenantId, name: str) -> Sequence[Session]: ...

    async def open_link(self, sha256: str, user: User | None, expires_at: datetime) -> None:
        """One that sets a user's password, once; of no user: that makes the first admin."""
        ...

    async def link(self, sha256: str) -> tuple[User | None] | None:
        """Whose it is. None: there is none, or its time is over."""
        ...

    async def close_link(self, sha256: str) -> bool:
        """False: somebody else was first."""
        ...


class Keys(Protocol):
    """Raise StoreError when the database is away."""

    async def keys(self, tenant: TenantId, *, limit: int, after: str = "") -> Sequence[Key]: ...

    async def key(self, tenant: TenantId, name: str) -> Key | None: ...

    async def by_id(self, key_id: str) -> Key | None: ...

    async def create_key(self, tenant: TenantId, actor: str, new: NewKey) -> Key:
        """Raises AccountError: taken."""
        ...

    async def change_key(
        self, tenant: TenantId, actor: str, name: str, changes: Body, if_version: int | None = None
    ) -> Key:
        """Raises AccountError: not_found, stale."""
        ...

    async def delete_key(self, tenant: TenantId, actor: str, name: str, if_version: int | None = None) -> Key:
        """Raises AccountError: not_found, stale."""
        ...

    async def used(self, key_id: str) -> None:
        """Now."""
        ...
