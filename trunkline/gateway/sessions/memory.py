"""Sessions in this process's memory: enough for one worker, gone with it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trunkline.clock import Clock
from trunkline.gateway.sessions.session import Session
from trunkline.gateway.sessions.store import Saved, Saving, Spent
from trunkline.types import SessionId


@dataclass(slots=True)
class _Entry:
    session: Session
    until: float
    removed: bool = False


class MemorySessions:
    """`store.SessionStore`."""

    def __init__(self, clock: Clock, *, idle_s: float, at_most: int) -> None:
        self._clock, self._idle_s, self._at_most = clock, idle_s, at_most
        self._entries: OrderedDict[SessionId, _Entry] = OrderedDict()  # whose time ends first is first

    async def add(self, session: Session) -> bool:
        return self._put(session)

    async def get(self, session_id: SessionId) -> Session | None:
        entry = self._entry(session_id)
        return None if entry is None or entry.removed else entry.session

    async def join(self, session_id: SessionId, number: int, worker: str, region: str) -> Session | Spent | None:
        entry = self._entry(session_id)
        if entry is None or entry.removed:
            return None
        if entry.session.joins + 1 != number:
            return Spent()
        entry.session = replace(entry.session, joins=number, worker=worker, region=region)
        self._prolong(session_id, entry)
        return entry.session

    async def save(self, savings: Sequence[Saving]) -> list[Saved]:
        return [self._save(saving) for saving in savings]

    def _save(self, saving: Saving) -> Saved:
        session, entry = saving.session, self._entry(saving.session.id)
        if entry is None:
            return "saved" if saving.whole and self._put(session) else "gone"
        if entry.removed:
            return "removed"
        if entry.session.joins != session.joins:
            return "elsewhere"
        if saving.whole:
            entry.session = session
        self._prolong(session.id, entry)
        return "saved"

    async def remove(self, session_id: SessionId) -> bool:
        entry = self._entry(session_id)
        if entry is None or entry.removed:
            return False
        entry.removed, entry.session = True, replace(entry.session, said=())
        self._prolong(session_id, entry)
        return True

    async def close(self) -> None:
        self._entries.clear()

    def _put(self, session: Session) -> bool:
        self._forget()
        if len(self._entries) >= self._at_most:
            return False
        self._entries[session.id] = _Entry(session, self._clock.now() + self._idle_s)
        return True

    def _entry(self, session_id: SessionId) -> _Entry | None:
        self._forget()
        return self._entries.get(session_id)

    def _prolong(self, session_id: SessionId, entry: _Entry) -> None:
        entry.until = self._clock.now() + self._idle_s
        self._entries.move_to_end(session_id)

    def _forget(self) -> None:
        now = self._clock.now()
        while self._entries and next(iter(self._entries.values())).until <= now:
            self._entries.popitem(last=False)
