"""Where sessions are opened, joined and ended: for the API, and for the legs as their Verifier."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.joining import Joining
from trunkline.gateway.sessions import tokens
from trunkline.gateway.sessions.keeper import SessionKeeper
from trunkline.gateway.sessions.session import Session, new_session_id
from trunkline.gateway.sessions.store import SessionStore, Spent
from trunkline.ports import Conflict, Devices, Refuse
from trunkline.types import DEFAULT_TENANT, SessionId

log = logging.getLogger(__name__)

JOIN_DEADLINE_S = 3.0

Came = Literal["joined", "resumed", "refused", "away"]
"""For the metrics: what came of a token."""


@dataclass(frozen=True, slots=True)
class Terms:
    region: str
    worker: str
    token_s: float
    """How long a device may take from its session's opening to its first join."""
    rejoin_s: float
    """How long a resume token is good; the session may be forgotten before."""


@dataclass(frozen=True, slots=True)
class Opened:
    session: Session
    join_token: str = field(repr=False)
    expires: datetime


class SessionDesk:
    """`joining.Verifier`, and the API's. What asks the store raises StoreError when it is away, but for `join`."""

    def __init__(
        self,
        store: SessionStore,
        keeper: SessionKeeper,
        key: Callable[[], Awaitable[bytes]],
        devices: Devices,
        terms: Terms,
        no_line: Callable[[], Refuse | None],
        has_agent: Callable[[str], bool],
        clock: Clock,
        told: Callable[[Came], None] = lambda came: None,
    ) -> None:
        """`key`: what tokens are signed with; it raises StoreError. `no_line`: why no call can be taken now."""
        self._store, self._keeper, self._key, self._devices, self._terms = store, keeper, key, devices, terms
        self._no_line, self._has_agent, self._clock, self._told = no_line, has_agent, clock, told
        self._away = False

    async def open(self, device_id: str, device_account: str, agent: str = "") -> Opened | Refuse:
        """A new session of a device, which is known from then on. Codes: `unknown_agent`, `device_taken`,
        `sessions_full`, and those of `no_line`."""
        if (no_line := self._no_line()) is not None:
            return no_line
        if agent and not self._has_agent(agent):
            return Refuse("unknown_agent", "there is no such agent")
        key = await self._key()
        device = await self._devices.register(DEFAULT_TENANT, device_id, device_account)
        if isinstance(device, Conflict):
            return Refuse("device_taken", "this device is another account's")
        session = Session(
            id=new_session_id(),
            tenant=DEFAULT_TENANT,
            device_id=device_id,
            device_account=device_account,
            created=self._clock.wall(),
            agent=agent,
            needs_arming=device.needs_arming,
            region=self._terms.region,
            worker=self._terms.worker,
        )
        if not await self._store.add(session):
            return Refuse("sessions_full", "there are too many sessions")
        return self._opened(key, session)

    async def find(self, session_id: SessionId) -> Session | None:
        return await self._store.get(session_id)

    async def reopen(self, session_id: SessionId, device_account: str) -> Opened | Refuse:
        """Another token for the next join; one that was issued for it before is good until one of them is used. Codes:
        `unknown_session`, `not_owner`, and those of `no_line`."""
        if (no_line := self._no_line()) is not None:
            return no_line
        session = await self._owned(session_id, device_account)
        return session if isinstance(session, Refuse) else self._opened(await self._key(), session)

    async def end(self, session_id: SessionId, device_account: str) -> Refuse | None:
        """With its call, wherever that is. Codes: `unknown_session`, `not_owner`."""
        session = await self._owned(session_id, device_account)
        if isinstance(session, Refuse):
            return session
        if not await self._store.remove(session_id):
            return _UNKNOWN
        call = self._keeper.call_of(session_id)  # elsewhere it is noticed with the next saving
        if call is not None:
            call.hang_up("caller_hung_up")
        return None

    async def _owned(self, session_id: SessionId, device_account: str) -> Session | Refuse:
        session = await self._store.get(session_id)
        if session is None:
            return _UNKNOWN
        if session.device_account != device_account:
            return Refuse("not_owner", "this session is another account's")
        return session

    def _opened(self, key: bytes, session: Session) -> Opened:
        expires = self._clock.wall() + timedelta(seconds=self._terms.token_s)
        return Opened(session, self._token(key, session, expires), expires)

    def _token(self, key: bytes, session: Session, expires: datetime) -> str:
        named = tokens.Named(session.id, session.joins + 1, self._terms.region, self._terms.worker)
        return tokens.issue(key, named, expires)

    # --- Verifier ---

    async def join(self, token: str) -> Joining | Refuse:
        return await self._bounded(self._join(token))

    async def enter(self, session_id: SessionId) -> Joining | Refuse:
        """The gateway's own join, for a device that somebody else has let in (a LiveKit server, by its token). As
        `join`, but for the codes of a token."""
        return await self._bounded(self._enter(session_id))

    async def _bounded(self, joins: Awaitable[Joining | Refuse]) -> Joining | Refuse:
        try:
            async with asyncio.timeout(JOIN_DEADLINE_S):
                came = await joins
        except (StoreError, TimeoutError) as error:
            if not self._away:  # once: whoever likes may send us tokens
                log.error("devices cannot join: %s", str(error) or "the session store is slow")
            self._away = True
            self._told("away")
            return _AWAY
        except Exception:
            log.exception("a device cannot join")
            return Refuse("error", "the gateway failed")
        self._away = False
        self._told("refused" if isinstance(came, Refuse) else "resumed" if came.resumed else "joined")
        return came

    async def check(self, token: str) -> Refuse | None:
        try:
            async with asyncio.timeout(JOIN_DEADLINE_S):
                named = tokens.read(await self._key(), token, self._clock.wall())
                if isinstance(named, Refuse):
                    return named
                session = await self._store.get(named.session_id)
        except (StoreError, TimeoutError):
            return _AWAY
        except Exception:
            log.exception("a device's token cannot be checked")
            return Refuse("error", "the gateway failed")
        if session is None:
            return _OVER
        return _USED if session.joins >= named.number else None

    async def _join(self, token: str) -> Joining | Refuse:
        key = await self._key()
        named = tokens.read(key, token, self._clock.wall())
        if isinstance(named, Refuse):
            return named
        return await self._take(key, named.session_id, named.number)

    async def _enter(self, session_id: SessionId) -> Joining | Refuse:
        key = await self._key()
        session = await self._store.get(session_id)
        return _OVER if session is None else await self._take(key, session_id, session.joins + 1)

    async def _take(self, key: bytes, session_id: SessionId, number: int) -> Joining | Refuse:
        if self._keeper.call_of(session_id) is None and (no_line := self._no_line()) is not None:
            return no_line
        await self._keeper.flush(session_id)
        session = await self._store.join(session_id, number, self._terms.worker, self._terms.region)
        if isinstance(session, Spent):
            return _USED
        if session is None:
            return _OVER
        self._keeper.joined(session)
        return Joining(
            session_id=session.id,
            tenant=session.tenant,
            device_id=session.device_id,
            device_account=session.device_account,
            agent=session.agent,
            conversation=session.conversation,
            resumed=bool(session.said),
            needs_arming=session.needs_arming,
            number=session.joins,
            cut_off=session.cut_off,
            shut=session.shut,
            so_far=session.so_far,
            resume_token=self._token(key, session, self._clock.wall() + timedelta(seconds=self._terms.rejoin_s)),
        )


_AWAY = Refuse("sessions_away", "the session store is away")
_USED = Refuse("token_used", "this join token was used before")
_OVER = Refuse("session_over", "this session is over")
_UNKNOWN = Refuse("unknown_session", "there is no such session")
