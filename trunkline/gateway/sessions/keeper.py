"""Keeps the sessions of this process's live calls: what was said goes to the session store, soon and never on a frame's
path.

A look every SAVE_S finds the conversations that have changed, and all of them go in one request; what changes while
that is under way goes with the next. A store that is away costs nothing but that: the latest state waits, bounded, and
calls go on. A session that was joined elsewhere, or removed, is not ours any more: its call here ends.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.joining import Joining, SessionCall
from trunkline.gateway.sessions.session import Session, kept, timed
from trunkline.gateway.sessions.store import Saved, Saving, SessionStore
from trunkline.ports import Message
from trunkline.types import SessionId

log = logging.getLogger(__name__)

SAVE_S = 0.5
LOOK_S = 2.0  # a session whose call says nothing new: is it ours yet?
RETRY_MAX_S = 10.0  # between tries while the store is away
JOINED_S = 60.0  # from a join to its leg
OVER_S = 60.0  # how long the last words of a call that is over may wait for the store
OVER_MAX = 1000
WORTH_WRITING_USD = Decimal("0.01")  # what a call costs is else told with what is said

Trouble = Literal["away", "dropped", "moved"]
"""For the metrics: a request that failed; last words that were given up; a session that went on elsewhere."""


@dataclass(slots=True, eq=False)
class _Kept:
    """A session that a call of ours has, or had last."""

    session: Session
    call: SessionCall
    heard: tuple[Message, ...]
    """The conversation as the session last had it from us, before `kept`."""
    looked_at: float
    over_at: float | None = None
    dirty: bool = True
    saved: Session | None = None


@dataclass(slots=True)
class _Joined:
    session: Session
    at: float


@dataclass(slots=True)
class Book:
    """The plain core: which sessions there are, what is to be written, what the answers mean."""

    live: dict[SessionId, _Kept] = field(default_factory=dict)
    over: list[_Kept] = field(default_factory=list)
    joined: dict[SessionId, _Joined] = field(default_factory=dict)
    """By a device whose leg has not come yet."""

    def join(self, session: Session, now: float) -> None:
        for name in [name for name, joined in self.joined.items() if now - joined.at > JOINED_S]:
            del self.joined[name]
        self.joined[session.id] = _Joined(session, now)
        entry = self.live.get(session.id)
        if entry is not None:  # its leg is about to be replaced: what we write counts as of the new join
            entry.session = replace(entry.session, joins=session.joins, worker=session.worker, region=session.region)
            entry.dirty = True

    def begin(self, session_id: SessionId, call: SessionCall, now: float) -> bool:
        """False: nobody here has joined it."""
        joined = self.joined.pop(session_id, None)
        entry = self.live.get(session_id)
        if entry is not None and entry.call is call:
            entry.dirty = True
            return True
        if joined is None:
            return False
        session = replace(joined.session, call_id=call.id, ended_as=None, so_far=call.so_far)
        self.live[session_id] = _Kept(session, call, session.conversation, now)
        return True

    def end(self, session_id: SessionId, call: SessionCall, now: float, wall: datetime) -> int:
        """The last words stay until they are written. How many others' were given up for them."""
        entry = self.live.get(session_id)
        if entry is None or entry.call is not call:
            return 0
        del self.live[session_id]
        _look(entry, wall)
        entry.session = replace(entry.session, ended_as=call.end_reason, so_far=call.so_far)
        entry.dirty = True
        entry.over_at = now
        self.over.append(entry)
        too_many = max(0, len(self.over) - OVER_MAX)
        del self.over[:too_many]
        return too_many

    def due(self, now: float, wall: datetime) -> list[_Kept]:
        found = []
        for entry in self.live.values():
            _look(entry, wall)
            if entry.dirty or now - entry.looked_at >= LOOK_S:
                found.append(entry)
        return found + self.over

    def of(self, session_id: SessionId) -> list[_Kept]:
        live = self.live.get(session_id)
        return [entry for entry in (live, *self.over) if entry is not None and entry.session.id == session_id]

    def written(self, entry: _Kept, session: Session, answer: Saved, now: float) -> bool:
        """`session`: as it was written. True: it is not ours any more."""
        entry.looked_at = now
        if answer == "gone":  # the store has lost it
            entry.dirty = True
            return False
        if entry.session is session:
            entry.dirty = False
        if entry.over_at is not None and (not entry.dirty or answer != "saved"):
            self.over = [each for each in self.over if each is not entry]
        if answer == "saved" or entry.over_at is not None or entry.session.joins != session.joins:
            return False
        self.live.pop(entry.session.id, None)
        return True

    def give_up(self, now: float) -> int:
        """How many calls' last words were waiting for too long."""
        late = [entry for entry in self.over if entry.over_at is not None and now - entry.over_at > OVER_S]
        self.over = [entry for entry in self.over if entry not in late]
        return len(late)


def _look(entry: _Kept, wall: datetime) -> None:
    heard, agent, shut = entry.call.conversation, entry.call.agent_name, entry.call.shut_doors
    so_far = entry.call.so_far
    same = heard == entry.heard and agent == entry.session.agent and shut == entry.session.shut
    if same and abs(so_far.usd - entry.session.so_far.usd) < WORTH_WRITING_USD:
        return
    entry.heard = heard
    said = timed(entry.session.said, kept(heard), wall)
    entry.session = replace(entry.session, agent=agent, said=said, shut=shut, so_far=so_far)
    entry.dirty = True


class SessionKeeper:
    """`joining.Keeper`."""

    def __init__(
        self, store: SessionStore, clock: Clock, told: Callable[[Trouble, int], None] = lambda trouble, count: None
    ) -> None:
        self._store, self._clock, self._told = store, clock, told
        self._book = Book()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._failures = 0

    # --- what calls and the desk tell ---

    def joined(self, session: Session) -> None:
        """At once after the store's `join`: what a call here still writes of it is as of that join."""
        self._book.join(session, self._clock.now())

    def begun(self, joining: Joining, call: SessionCall) -> None:
        if not self._book.begin(joining.session_id, call, self._clock.now()):
            log.warning("call %s: its session was joined too long ago to be kept", call.id)

    def ended(self, session_id: SessionId, call: SessionCall) -> None:
        self._dropped(self._book.end(session_id, call, self._clock.now(), self._clock.wall()))

    def call_of(self, session_id: SessionId) -> SessionCall | None:
        """Its live call, where that is here."""
        entry = self._book.live.get(session_id)
        return None if entry is None else entry.call

    # --- writing ---

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sessions")

    async def flush(self, session_id: SessionId) -> None:
        """What is known here of that session is in the store. Raises StoreError."""
        entries = self._book.of(session_id)
        for entry in entries:
            if entry.over_at is None:
                _look(entry, self._clock.wall())
        await self._write([entry for entry in entries if entry.dirty])

    async def close(self, within_s: float = 2.0) -> None:
        """The last words are written, if the store takes them in time. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(within_s):
                await self._write(self._book.due(self._clock.now(), self._clock.wall()))
        except (StoreError, TimeoutError) as error:
            log.warning("what was last said in %d sessions is lost: %s", len(self._book.over), error)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(SAVE_S * 2**self._failures, RETRY_MAX_S))
            try:
                await self._write(self._book.due(self._clock.now(), self._clock.wall()))
            except StoreError as error:
                if self._failures == 0:
                    log.error("%s; calls go on, and what is said in them waits", error)
                self._failures = min(self._failures + 1, 16)
                self._told("away", 1)
            except Exception:
                log.exception("keeping sessions")
            else:
                if self._failures:
                    log.warning("the session store is back")
                self._failures = 0
            self._dropped(self._book.give_up(self._clock.now()))

    async def _write(self, entries: Sequence[_Kept]) -> None:
        async with self._writing:
            savings = [Saving(entry.session, entry.dirty) for entry in entries]
            if not savings:
                return
            answers = await self._store.save(savings)
            for entry, saving, answer in zip(entries, savings, answers, strict=True):
                if self._book.written(entry, saving.session, answer, self._clock.now()):
                    self._leave(entry.call, answer)

    def _leave(self, call: SessionCall, answer: Saved) -> None:
        if answer == "removed":
            call.hang_up("caller_hung_up")
            return
        self._told("moved", 1)
        call.finished("media_lost", "its session goes on elsewhere")

    def _dropped(self, count: int) -> None:
        if count:
            self._told("dropped", count)
