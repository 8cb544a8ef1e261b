"""What changes of calls, as it is recorded, for whoever listens in this process: the console, GET /v1/events.

A RecordSink before the one that writes. Nothing here is per frame; with nobody listening an event costs a look. A
listener that does not read loses the oldest, and is told how many.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.ports import CallEnded, CallEvent, CallStarted, RecordEvent, RecordSink, TurnEnded, UsageMetered
from trunkline.types import CallId, TenantId

log = logging.getLogger(__name__)

QUEUE = 256
LISTENERS = 100
OF_A_TENANT = 40
"""Of them."""
CALLS = 10_000
"""Whose tenant is remembered; of a call that was never ended, and is beyond, nothing more is told."""


@dataclass(frozen=True, slots=True)
class Change:
    type: str
    """call.started, call.event, call.turn, call.ended."""
    data: dict[str, Any]
    """For JSON."""


class Listener:
    """`next` on the loop it was made on; `close` once nobody asks any more."""

    def __init__(self, feed: "CallFeed", tenant: TenantId) -> None:
        self.tenant = tenant
        self.dropped = 0
        """Since they were told last."""
        self._feed = feed
        self._waiting: deque[Change] = deque()
        self._there = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self, change: Change) -> None:
        """From any thread."""
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(change)
        self._loop.call_soon_threadsafe(self._there.set)

    async def next(self, wait_s: float) -> Change | None:
        """None: nothing has happened. Cancel-safe."""
        if not self._waiting:
            self._there.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._there.wait()
            except TimeoutError:
                return None
        if self.dropped:
            lost, self.dropped = self.dropped, 0
            return Change("dropped", {"count": lost})
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        self._feed.leave(self)


class CallFeed:
    """`RecordSink`."""

    def __init__(self, records: RecordSink, state_of: Callable[[CallId], str | None] = lambda call_id: None) -> None:
        """`state_of`: as the call's state machine names it; None: it is over."""
        self._records = records
        self.state_of = state_of
        self._tenants: dict[CallId, TenantId] = {}
        self._listeners: tuple[Listener, ...] = ()

    def append(self, event: RecordEvent) -> None:
        self._records.append(event)
        if isinstance(event, UsageMetered):
            return
        if isinstance(event, CallStarted):
            if len(self._tenants) >= CALLS:
                del self._tenants[next(iter(self._tenants))]
            self._tenants[event.call_id] = event.tenant
        tenant = self._tenants.get(event.call_id)
        if isinstance(event, CallEnded):
            self._tenants.pop(event.call_id, None)
        if not self._listeners or tenant is None:
            return
        try:
            change = self._change(event)
            for listener in self._listeners:
                if listener.tenant == tenant:
                    listener.tell(change)
        except Exception:  # a listener is no reason for a call to end
            log.exception("call %s: a change was not told", event.call_id)

    def listen(self, tenant: TenantId) -> Listener | None:
        """None: too many do, or too many of the tenant's."""
        ours = sum(listener.tenant == tenant for listener in self._listeners)
        if len(self._listeners) >= LISTENERS or ours >= OF_A_TENANT:
            return None
        listener = Listener(self, tenant)
        self._listeners += (listener,)
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners = tuple(each for each in self._listeners if each is not listener)

    def _change(self, event: CallStarted | CallEvent | TurnEnded | CallEnded) -> Change:
        about = {"call_id": event.call_id, "at": event.at.isoformat()}
        match event:
            case CallStarted():
                known = ("direction", "leg", "agent", "from_number", "to_number")
                return Change("call.started", about | {name: getattr(event, name) for name in known})
            case CallEvent():
                return Change("call.event", about | {"kind": event.kind, "state": self.state_of(event.call_id)})
            case TurnEnded():
                turn = asdict(event.turn)
                del turn["evidence"]
                return Change("call.turn", about | turn | {"tools": list(event.turn.tools)})
            case CallEnded():
                return Change("call.ended", about | {"reason": event.reason, "by": event.by})
