"""Whether trunks can be used: pings (`health.py` says what their answers mean) and registrations, as the stack tells
of them. The desk's timer calls `check`."""

import logging
from collections.abc import Iterable, Mapping

from trunkline.clock import Clock
from trunkline.gateway.sip.dialog import shown
from trunkline.gateway.sip.health import State, TrunkHealth
from trunkline.gateway.sip.stack import Pinged, Registered, Stack
from trunkline.gateway.sip.trunks import Trunk

log = logging.getLogger(__name__)

PING_LOST_S = 64.0  # every transaction of SIP is over by then (RFC 3261, 64 * T1)


class TrunkWatch:
    def __init__(self, stack: Stack, configured: Iterable[Trunk], clock: Clock) -> None:
        self._stack, self._clock = stack, clock
        self._trunks = {trunk.name: trunk for trunk in configured}
        now = clock.now()
        self._health = {t.name: TrunkHealth(t.name, t.ping_s if t.host else 0, now) for t in self._trunks.values()}
        self._ping_at = {name: health.next_ping(now) for name, health in self._health.items()}
        self._registered: set[str] = set()

    def start(self) -> None:
        """The stack listens."""
        for trunk in self._trunks.values():
            if trunk.registers:
                self._stack.register(trunk)

    def bring(self, trunks: Iterable[Trunk]) -> None:
        """These in place of those that there were; what is known of one that has not changed stays."""
        wanted, now = {trunk.name: trunk for trunk in trunks}, self._clock.now()
        for name, before in tuple(self._trunks.items()):
            if wanted.get(name) != before:
                if before.registers:
                    self._stack.forget(name)
                self._registered.discard(name)
                del self._health[name], self._ping_at[name]
        fresh = [trunk for name, trunk in wanted.items() if name not in self._health]
        self._trunks = wanted
        for trunk in fresh:
            health = self._health[trunk.name] = TrunkHealth(trunk.name, trunk.ping_s if trunk.host else 0, now)
            self._ping_at[trunk.name] = health.next_ping(now)
            if trunk.registers:
                self._stack.register(trunk)

    def check(self) -> None:
        now = self._clock.now()
        for name, at in self._ping_at.items():
            if at is not None and now >= at:
                self._ping_at[name] = now + PING_LOST_S
                self._stack.ping(self._trunks[name])

    @property
    def states(self) -> Mapping[str, State]:
        return {name: health.state for name, health in self._health.items()}

    def usable(self, trunk: str) -> bool:
        return self._health[trunk].usable

    def registered(self, trunk: str) -> bool | None:
        """None: it is not to."""
        return trunk in self._registered if self._trunks[trunk].registers else None

    def pinged(self, event: Pinged) -> None:
        health = self._health.get(event.trunk)
        if health is None:
            return
        changed = health.answered(event.code, self._clock.now())
        self._ping_at[event.trunk] = health.next_ping(self._clock.now())
        if changed is not None:
            level = logging.WARNING if changed.state == "down" else logging.INFO
            why = f": {shown(event.reason)}" if event.reason else ""
            said = changed.code or "no answer"
            log.log(level, "trunk %s is %s (OPTIONS: %s)%s", changed.trunk, changed.state, said, why)

    def register_changed(self, event: Registered) -> None:
        if event.expires_s:
            self._registered.add(event.trunk)
        else:
            self._registered.discard(event.trunk)
        answer = f"{event.code} {event.reason}".strip() if event.code else "no answer"
        if event.code == 200:
            log.info("trunk %s: %s", event.trunk, "registered" if event.expires_s else "no longer registered")
        else:
            again = f"; again in {event.retry_s} s" if event.retry_s else ""
            log.warning("trunk %s is not registered: %s%s", event.trunk, answer, again)
