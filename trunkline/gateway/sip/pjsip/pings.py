"""OPTIONS to trunks. All on the loop, but for `answered`."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pjsua2 as pj

from trunkline.gateway.sip.pjsip.owner import Owner, why
from trunkline.gateway.sip.stack import Event, Pinged

PING_S = 4.0  # three retransmissions; PJSIP itself would wait 32 s


class Pings:
    def __init__(self, owner: Owner, account_of: Callable[[str], Any], tell: Callable[[Event], None]) -> None:
        """`account_of`: the pj.Account of a trunk, in the owner's thread."""
        self._owner, self._account_of, self._tell = owner, account_of, tell
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    def send(self, trunk: str, uri: str) -> None:
        def perform() -> None:
            param = pj.SendRequestParam()
            param.method = "OPTIONS"
            param.txOption.targetUri = uri
            try:
                self._account_of(trunk).sendRequest(param)
            except KeyError:  # the trunk is no more
                pass
            except pj.Error as error:
                self.answered(trunk, 0, why(error))

        if trunk in self._deadlines:
            self._deadlines[trunk].cancel()
        self._deadlines[trunk] = asyncio.get_running_loop().call_later(PING_S, self._answered, trunk, 0, "")
        self._owner.put(perform)

    def answered(self, trunk: str, code: int, reason: str) -> None:
        """From any thread. `code` 0: not at all."""
        self._owner.soon(partial(self._answered, trunk, code, reason))

    def cancel(self) -> None:
        for deadline in self._deadlines.values():
            deadline.cancel()

    def _answered(self, trunk: str, code: int, reason: str) -> None:
        """408 is PJSIP giving up on a ping of which we have told long ago."""
        if code == 408:
            return
        deadline = self._deadlines.pop(trunk, None)
        if deadline is not None:
            deadline.cancel()
        elif code == 0:  # refused at once: PJSUA has told it by its callback, too
            return
        self._tell(Pinged(trunk, code, reason))
