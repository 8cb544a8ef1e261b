"""What admins own, as it is kept: the values and the port that `numbers` and `store` share.

A body is the JSON of a resource (trunkline/numbers/resources.py). Its secrets are None wherever it is read.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from trunkline.errors import TrunklineError
from trunkline.types import TenantId

Body = Mapping[str, Any]
Use = tuple[str, str]
"""The kind and key of what a resource names."""


@dataclass(frozen=True, slots=True)
class Kept:
    kind: str
    key: str
    body: Body
    version: int
    created_at: datetime
    updated_at: datetime
    secrets: frozenset[str] = frozenset()
    """The fields among its secrets that have a value."""


@dataclass(frozen=True, slots=True)
class KeptPage:
    items: Sequence[Kept]
    next_cursor: str | None
    """For the page after; None at the end."""


@dataclass(frozen=True, slots=True)
class Version:
    """Of an agent; never changed."""

    agent: str
    number: int
    script: str
    sha256: str
    note: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """One line of the change audit."""

    seq: int
    """The tenant's revision that it made; several of one transaction share it."""
    part: int
    at: datetime
    actor: str
    action: str
    kind: str
    key: str
    before: Body | None
    after: Body | None


@dataclass(frozen=True, slots=True)
class New:
    kind: str
    key: str
    body: Body
    uses: Sequence[Use] = field(default=())


Fault = Literal["not_found", "taken", "stale", "in_use", "unknown_name", "invalid_fields"]


class DeskError(TrunklineError):
    """What was asked cannot be done; nothing of it was."""

    def __init__(self, code: Fault, why: str, fields: Mapping[str, str] | None = None) -> None:
        """`fields`: what is wanted, by the field's path, such as `answer.agents.0.agent`."""
        super().__init__(code, why)
        self.code, self.why, self.fields = code, why, dict(fields or {})

    def __str__(self) -> str:
        return self.why


class Changing(Protocol):
    """A transaction on a tenant's desk: all of it, or nothing. Whoever else changes that desk waits. Each raises
    DeskError."""

    @property
    def tenant(self) -> TenantId: ...

    @property
    def actor(self) -> str: ...

    async def get(self, kind: str, key: str) -> Kept | None: ...

    async def all(self, kind: str) -> dict[str, Kept]:
        """By key."""
        ...

    async def create(self, new: Iterable[New]) -> None:
        """Codes: taken, unknown_name."""
        ...

    async def replace(self, new: New, if_version: int | None = None, action: str = "replace") -> Kept:
        """Secrets that are None stay as they are. `action`: as the audit calls it. Codes: not_found, stale,
        unknown_name."""
        ...

    async def delete(self, kind: str, key: str, if_version: int | None = None) -> None:
        """Codes: not_found, stale, in_use."""
        ...

    async def add_version(self, agent: str, script: str, note: str) -> Version: ...

    async def version(self, agent: str, number: int) -> Version | None: ...

    async def note(self, action: str, kind: str, key: str, before: Body | None, after: Body | None) -> None:
        """A line of the audit for what the desk does not see by itself."""
        ...


class DeskStore(Protocol):
    """Every question names a tenant and sees no other. All raise StoreError when the database is away."""

    def changing(self, tenant: TenantId, actor: str, *, keep: bool = True) -> AbstractAsyncContextManager[Changing]:
        """`keep` False: it is all undone at the end, having shown whether it could be done."""
        ...

    async def get(self, tenant: TenantId, kind: str, key: str) -> Kept | None: ...

    async def page(
        self,
        tenant: TenantId,
        kind: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        search: str = "",
        where: Mapping[str, Any] | None = None,
    ) -> KeptPage:
        """By key. `where`: fields and what they are. Raises ValueError for a cursor that is not ours."""
        ...

    def every(self, tenant: TenantId, kind: str) -> AsyncIterator[Kept]: ...

    async def count(self, tenant: TenantId, kind: str) -> int: ...

    async def used_by(self, tenant: TenantId, kind: str, key: str, limit: int = 20) -> Sequence[Use]: ...

    async def versions(self, tenant: TenantId, agent: str) -> Sequence[Version]:
        """Newest first."""
        ...

    async def version(self, tenant: TenantId, agent: str, number: int) -> Version | None: ...

    async def secret(self, tenant: TenantId, kind: str, key: str, name: str) -> str | None: ...

    async def changes(
        self, tenant: TenantId, *, limit: int = 50, cursor: str | None = None, kind: str = "", key: str = ""
    ) -> tuple[Sequence[Changed], str | None]:
        """Newest first, and the cursor of the page after."""
        ...

    async def revision(self, tenant: TenantId) -> int: ...
