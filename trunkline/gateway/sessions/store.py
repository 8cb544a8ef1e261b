"""Where sessions are kept: in this process (`memory`), or for several workers and regions in Redis (`redis`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.gateway.sessions.session import Session
from trunkline.types import SessionId

Saved = Literal["saved", "elsewhere", "removed", "gone"]
"""`elsewhere`: joined again since, and so not ours any more. `gone`: the store does not know it."""


@dataclass(frozen=True, slots=True)
class Saving:
    session: Session
    whole: bool = True
    """False: nothing of it is new; its time is prolonged and its owner looked at."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Somebody has joined with this number before."""


class SessionStore(Protocol):
    """A session is forgotten `idle_s` after it was last joined or saved. All methods raise SessionsAway, within 2 s,
    when the store is away, and StoreError for what nobody of us has written there."""

    async def add(self, session: Session) -> bool:
        """False: it is full."""
        ...

    async def get(self, session_id: SessionId) -> Session | None:
        """None: never there, removed or forgotten."""
        ...

    async def join(self, session_id: SessionId, number: int, worker: str, region: str) -> Session | Spent | None:
        """As its owner: the session as it is then, with joins == number. Of those who come with the same number, one
        gets it."""
        ...

    async def save(self, savings: Sequence[Saving]) -> list[Saved]:
        """Each, by its owner: whose `joins` is not the latest changes nothing. A whole one that is gone is there
        again."""
        ...

    async def remove(self, session_id: SessionId) -> bool:
        """For good: who owns it learns of it with the next saving. False: it was not there."""
        ...

    async def close(self) -> None: ...
