"""The AI agent's visits to LiveKit rooms: one a session, from its opening on.

invite ──► entering ──► waiting ──participant──► talking ──it has left──► waiting ──► gone
              │ failed, or too slow   │ nobody came         │ our end of the call
              └───────────────────────┴─────────────────────┴──► gone

LiveKit tells nobody of a participant unless by webhooks, so we are there first. A call exists, is recorded and counts
as one when the participant is there (`attendance.py`), not before. Every wait has its deadline; one timer beats for all
rooms.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trunkline.clock import Clock
from trunkline.gateway import live
from trunkline.gateway.entering import attend
from trunkline.gateway.joining import Joining
from trunkline.gateway.livekit.attendance import Attendance
from trunkline.gateway.livekit.leg import LivekitLeg
from trunkline.gateway.livekit.room import AGENT_IDENTITY, RoomError, RoomWire
from trunkline.gateway.sessions.livekit import LivekitServer, access_token
from trunkline.gateway.switchboard import Switchboard
from trunkline.media.heartbeat import BEAT_S, Beats
from trunkline.media.playout import LeadPolicy
from trunkline.ports import Refuse
from trunkline.types import SessionId

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # the API waits so long for us to be in the room
ENTER_S = 10.0
AGENT_TOKEN_S = 60.0
AWAY_S = 5.0  # a server that failed us is not asked again for so long
IDLE_BEAT_S = 0.25  # while nobody talks
CLOSE_S = 4.0
SLACK_S = 5.0  # beyond the device's token: it may be on its way


class Enter(Protocol):
    """`sessions.desk`: the gateway's own join of a session, for it needs no token of ours."""

    async def enter(self, session_id: SessionId) -> Joining | Refuse: ...


@dataclass(frozen=True, slots=True)
class DeskTerms:
    server: LivekitServer
    lead: LeadPolicy
    max_rooms: int
    """At once, with and without a call."""


class Visit:
    """RoomSink of its wire, LegDesk of its leg."""

    def __init__(self, desk: "LivekitDesk", session_id: SessionId, device_id: str, wire: RoomWire, until: float):
        self.session_id, self.device_id, self.wire = session_id, device_id, wire
        self.attendance = Attendance(until)
        self.leg: LivekitLeg | None = None
        self.entering: asyncio.Task[None] | None = None
        self.beginning: asyncio.Task[None] | None = None
        self.inside = self.over = False
        self._desk = desk

    # --- RoomSink ---

    def entered(self) -> None:
        self.attendance.entered(self._desk.now)

    def departed(self, why: str, *, in_order: bool) -> None:
        self.attendance.departed(self._desk.now)
        if self.beginning is not None:
            self.beginning.cancel()
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.departed(why, in_order=in_order)

    def hears(self) -> None:
        self.attendance.hears = True

    def microphone(self, on: bool) -> None:
        self.attendance.speaks = on
        if self.leg is not None:
            self.leg.speaking = on

    def audio(self, pcm16: bytes) -> None:
        if self.leg is not None:
            self.leg.audio(pcm16)

    def message(self, data: bytes) -> None:
        if self.leg is not None:
            self.leg.message(data)

    def gone(self, why: str) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.lose(why)
        self._desk.end(self)

    # --- LegDesk ---

    def left(self, leg: LivekitLeg, linger_s: float) -> None:
        """Our end of the call is over: so is the visit. When the device has left, we wait for it to come back."""
        if self.leg is leg:
            self.leg = None
            self._desk.end(self, linger_s)


class LivekitDesk:
    def __init__(
        self, board: Switchboard, sessions: Enter, new_wire: Callable[[], RoomWire], terms: DeskTerms, clock: Clock
    ) -> None:
        self._board, self._sessions, self._new_wire = board, sessions, new_wire
        self._terms, self._clock = terms, clock
        self._visits: dict[SessionId, Visit] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._away_until = 0.0
        self._timer = Beats(clock, self._beat)
        self._closed = False

    @property
    def now(self) -> float:
        return self._clock.now()

    @property
    def rooms(self) -> int:
        return len(self._visits)

    # --- what the API asks ---

    async def invite(self, session_id: SessionId, device_id: str, until: datetime) -> Mapping[str, object]:
        """What a session's answer says of its room: `livekit_url` and `livekit_token`, good until then, with the agent
        on its way there; or `livekit_refused` and why. Does not raise, and takes ANSWER_S at most."""
        refused = await self._visit(session_id, device_id, until)
        if refused is not None:
            return {"livekit_refused": {"code": refused.code, "why": refused.why}}
        server, wall = self._terms.server, self._clock.wall()
        token = access_token(server, session_id, device_id, wall, (until - wall).total_seconds())
        return {"livekit_url": server.url, "livekit_token": token}

    def forget(self, session_id: SessionId) -> None:
        """The session is over; a call of it has its own end."""
        visit = self._visits.get(session_id)
        if visit is not None and visit.leg is None:
            self.end(visit)

    async def _visit(self, session_id: SessionId, device_id: str, until: datetime) -> Refuse | None:
        now, wait_s = self._clock.now(), (until - self._clock.wall()).total_seconds() + SLACK_S
        visit = self._visits.get(session_id)
        if visit is None:
            if self._closed:
                return Refuse("draining", "the gateway is being stopped")
            if len(self._visits) >= self._terms.max_rooms:
                return Refuse("overloaded", "the agent is in too many rooms already")
            if now < self._away_until:
                return _AWAY
            visit = Visit(self, session_id, device_id, self._new_wire(), now + wait_s)
            self._visits[session_id] = visit
            visit.entering = asyncio.create_task(self._enter(visit), name="livekit entering")
            self._timer.start(IDLE_BEAT_S)
        visit.attendance.prolong(now + wait_s)
        if visit.entering is not None:
            await asyncio.wait([visit.entering], timeout=ANSWER_S)
        return _AWAY if visit.over else None

    async def _enter(self, visit: Visit) -> None:
        server, wall = self._terms.server, self._clock.wall()
        token = access_token(server, visit.session_id, AGENT_IDENTITY, wall, AGENT_TOKEN_S, kind="agent")
        try:
            async with asyncio.timeout(ENTER_S):
                await visit.wire.enter(server.url, token, visit.device_id, visit)
        except (RoomError, TimeoutError) as error:
            if self._clock.now() >= self._away_until:  # once: every session opened meets it
                log.error("the agent cannot join its LiveKit rooms: %s", str(error) or "the server is slow")
            self._away_until = self._clock.now() + AWAY_S
            self.end(visit)
        except Exception:
            log.exception("entering a LiveKit room")
            self.end(visit)
        else:
            visit.inside = True
        finally:
            visit.entering = None

    # --- a call ---

    async def _begin(self, visit: Visit) -> None:
        try:
            came = await self._join(visit)
        except Exception:
            log.exception("a call in a LiveKit room")
            came = Refuse("error", "the gateway failed")
        finally:
            visit.beginning = None
        if isinstance(came, Refuse):
            log.warning("session %s: no call in its LiveKit room: %s", visit.session_id, came.code)
            visit.wire.tell(live.refused(came))
            self.end(visit, linger_s=1.0)

    async def _join(self, visit: Visit) -> Refuse | None:
        joining = await self._sessions.enter(visit.session_id)
        if isinstance(joining, Refuse):
            return joining
        entered = await attend(self._board, joining, "livekit")
        if isinstance(entered, Refuse):
            return entered
        visit.leg = LivekitLeg(visit.wire, visit, entered, self._terms.lead, self._clock)
        visit.leg.speaking = visit.attendance.speaks
        visit.leg.begin()
        return None

    # --- one timer ---

    def _beat(self, now: float) -> float | None:
        talking = False
        for visit in tuple(self._visits.values()):
            if visit.leg is not None:
                visit.leg.beat(now)
                talking = True
            else:
                self._step(visit, now)
        if not self._visits:
            return None
        return BEAT_S if talking else IDLE_BEAT_S

    def _step(self, visit: Visit, now: float) -> None:
        step = visit.attendance.due(now)
        if step == "leave" and visit.inside and visit.beginning is None:
            self.end(visit)
        elif step == "begin" and visit.inside:
            visit.attendance.talking = True
            visit.beginning = asyncio.create_task(self._begin(visit), name="livekit call")

    # --- the end ---

    def end(self, visit: Visit, linger_s: float = 0.0) -> None:
        """The agent leaves the room. Idempotent."""
        if visit.over:
            return
        visit.over = True
        if self._visits.get(visit.session_id) is visit:
            del self._visits[visit.session_id]
        if visit.leg is not None:
            visit.leg.close("drained")
        if visit.beginning is not None:
            visit.beginning.cancel()
        visit.wire.close(linger_s)
        task = asyncio.create_task(visit.wire.closed(), name="livekit leaving")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def say_goodbye(self) -> None:
        """No room is entered any more, and every one is left. Idempotent."""
        self._closed = True
        for visit in tuple(self._visits.values()):
            self.end(visit)

    async def close(self) -> None:
        """No room is visited when this returns. Idempotent."""
        self.say_goodbye()
        if self._leaving:
            await asyncio.wait(tuple(self._leaving), timeout=CLOSE_S)
        self._timer.stop()


_AWAY = Refuse("livekit_away", "the LiveKit server does not let the agent in")
