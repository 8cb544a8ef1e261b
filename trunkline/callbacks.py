"""Callers of a full number who asked to be called back: what is kept of each, and who keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from trunkline.ports import Purpose
from trunkline.types import E164, CallId, TenantId

KEPT_FOR = timedelta(hours=24)
PURPOSE: Purpose = "informational"
"""They asked for it, and nothing is sold."""

State = Literal["waiting", "placing", "placed", "expired", "failed"]
"""placing: what a process that dies then leaves is `failed`, so nobody is called twice."""
OVER: tuple[State, ...] = ("placed", "expired", "failed")


@dataclass(frozen=True, slots=True)
class CallBack:
    tenant: TenantId
    call_id: CallId
    """Of the call in which they asked."""
    number: E164 = field(repr=False)
    our_number: E164
    """That they called, and are called from."""
    asked_at: datetime
    until: datetime
    """Afterwards nobody is called any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """`due`: to be placed now, leased. `over`: that came to nothing since somebody last looked, and why."""

    due: Sequence[CallBack]
    over: Sequence[tuple[CallBack, State, str]]


class CallBacks(Protocol):
    """Every method raises StoreError."""

    async def claim(self, most: int) -> Found:
        """Of each number of ours the one who asked first, of those that are due."""
        ...

    async def begin(self, wanted: CallBack) -> bool:
        """It is being placed now. False: another process does, or they asked again."""
        ...

    async def later(self, wanted: CallBack, at: datetime, code: str, *, begun: bool) -> None:
        """It could not be placed now. `begun`, here and below: by us."""
        ...

    async def settle(
        self, wanted: CallBack, state: State, placed: CallId | None, code: str = "", *, begun: bool
    ) -> None:
        """It is over."""
        ...
