"""One trunk, as PJSIP calls it back."""

import contextlib
import logging
from typing import Any, Protocol

import pjsua2 as pj

from trunkline.gateway.sip.message import retry_after_s
from trunkline.gateway.sip.trunks import Trunk

log = logging.getLogger("trunkline.sip")


class Host(Protocol):
    """Whose trunks they are. From any thread."""

    def incoming(self, account: "PjsipAccount", param: Any) -> None: ...

    def drop(self, call_id: int) -> None:
        """A call we failed to take, by PJSUA's id."""
        ...

    def registered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        """`code` 0: no answer came."""
        ...

    def pinged(self, trunk: str, code: int, reason: str) -> None: ...


class PjsipAccount(pj.Account):
    def __init__(self, stack: Host, trunk: Trunk) -> None:
        super().__init__()
        self.stack, self.trunk = stack, trunk
        self.bound = False
        """The registrar knows us."""
        self.left = False
        """Of a trunk that there is no more, whose calls go on."""

    def onRegState(self, param: Any) -> None:
        try:
            message = str(param.rdata.wholeMsg)
            expires_s = param.expiration if param.code // 100 == 2 else 0
            self.bound = expires_s > 0
            # without a message it is PJSIP's own 408 or 503
            code = param.code if message else 0
            self.stack.registered(self.trunk.name, code, param.reason, expires_s, retry_after_s(message))
        except Exception:
            log.exception("onRegState")

    def onIncomingCall(self, param: Any) -> None:
        try:
            self.stack.incoming(self, param)
        except Exception:
            log.exception("onIncomingCall")
            self.stack.drop(param.callId)

    def onSendRequest(self, param: Any) -> None:
        code, reason = 0, ""
        with contextlib.suppress(Exception):
            transaction = param.e.body.tsxState.tsx
            code, reason = transaction.statusCode, transaction.statusText
        self.stack.pinged(self.trunk.name, code, reason)
