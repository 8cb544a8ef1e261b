"""Registrations of trunks, renewed and tried again as `registration.py` has it. All on the loop, but for `answered`.

PJSIP would renew 5 s before the end: we do at half time, as it is too late to learn of a failure then; and only we draw
back from a registrar that refuses."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pjsua2 as pj

from trunkline.clock import Clock
from trunkline.gateway.sip.pjsip.owner import Owner, why
from trunkline.gateway.sip.registration import Registration
from trunkline.gateway.sip.stack import Event, Registered

BUSY = 171001  # PJSIP_EBUSY: a REGISTER is under way


class _Registering:
    """One trunk's."""

    def __init__(self) -> None:
        self.wanted = self.unsaid = True
        self.state = Registration()
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Registrations:
    def __init__(
        self, owner: Owner, clock: Clock, account_of: Callable[[str], Any], tell: Callable[[Event], None]
    ) -> None:
        """`account_of`: the pj.Account of a trunk, in the owner's thread."""
        self._owner, self._clock, self._account_of, self._tell = owner, clock, account_of, tell
        self._by_trunk: dict[str, _Registering] = {}

    def want(self, trunk: str, wanted: bool) -> None:
        one = self._by_trunk.setdefault(trunk, _Registering())
        one.wanted, one.unsaid = wanted, True
        self._send(trunk)

    def answered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        """From any thread. `code` 0: not at all."""
        self._owner.soon(partial(self._answered, trunk, code, reason, expires_s, retry_after_s))

    def cancel(self) -> None:
        for one in self._by_trunk.values():
            one.cancel()

    def forget(self, trunk: str) -> None:
        if (one := self._by_trunk.get(trunk)) is not None:
            self.want(trunk, False)
            one.cancel()

    def _send(self, trunk: str) -> None:
        one = self._by_trunk[trunk]
        one.cancel()
        wanted = one.wanted

        def perform() -> None:
            try:
                self._account_of(trunk).setRegistration(wanted)
            except KeyError:  # the trunk is no more
                pass
            except pj.Error as error:
                if error.status != BUSY:  # else the answer to the one before is still to come
                    self.answered(trunk, 0 if wanted else 200, why(error), 0, 0)

        self._owner.put(perform)

    def _answered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        one, now = self._by_trunk.get(trunk), self._clock.now()
        if one is None or not self._owner.running:
            return
        if not one.wanted:
            if expires_s:  # it was on its way
                self._send(trunk)
            else:
                one.state = Registration()
                self._tell(Registered(trunk, code, reason, 0))
            return
        was = one.state.left_s(now) > 0 and not one.state.failures
        next_s = one.state.answered(code, expires_s, now, retry_after_s)
        one.cancel()
        one.timer = asyncio.get_running_loop().call_later(next_s, self._send, trunk)
        if one.unsaid or not was or one.state.failures:
            one.unsaid = False
            retry_s = round(next_s) if one.state.failures else 0
            self._tell(Registered(trunk, code, reason, one.state.left_s(now), retry_s))
