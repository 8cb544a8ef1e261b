"""One INVITE dialog, as PJSIP calls it back and as its owner leads it."""

import contextlib
import logging
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import pjsua2 as pj

from trunkline.errors import PeerError
from trunkline.gateway.sip.established import of_ours, of_theirs
from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.sip.pjsip.account import PjsipAccount
from trunkline.gateway.sip.pjsip.lines import Line
from trunkline.gateway.sip.pjsip.owner import why
from trunkline.gateway.sip.pjsip.published import PublishedPort
from trunkline.gateway.sip.quality import MediaReport
from trunkline.gateway.sip.stack import (
    Confirmed,
    Dialled,
    Disconnected,
    DtmfMethod,
    Event,
    Handle,
    Headers,
    Keyed,
    MediaDown,
    Progress,
    ReferAsked,
    Referred,
    Renegotiated,
)

log = logging.getLogger("trunkline.sip")

NO_CALL = -1
GLARE_TRIES = 3
MAX_REFER_TO_CHARS = 512


class Host(Protocol):
    """Whose calls they are. From any thread."""

    def post(self, event: Event) -> None:
        """To be told on the loop."""
        ...

    def over(self, call: "PjsipCall", event: Disconnected) -> None:
        """The last of a call."""
        ...

    def in_owner(self, call: "PjsipCall", perform: Callable[[], None], after_s: float = 0.0) -> None:
        """Nothing when the call is over by then."""
        ...

    def media_up(self, call: "PjsipCall") -> None: ...


def operation(code: int, reason: str = "", headers: Headers = ()) -> Any:
    param = pj.CallOpParam(True)
    param.statusCode = code
    param.reason = reason
    param.opt.videoCount = 0
    with contextlib.suppress(AttributeError):
        param.opt.textCount = 0  # else T.140: two more sockets a call, and 200 ms when it ends
    for name, value in headers:
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        param.txOption.headers.append(header)
    return param


class PjsipCall(pj.Call):
    def __init__(self, stack: Host, account: PjsipAccount, call_id: int, handle: Handle) -> None:
        super().__init__(account, call_id)
        self.stack, self.handle, self.quirks = stack, handle, account.trunk.quirks
        self.account = account
        self.outbound = self._opening = call_id == NO_CALL
        self.by_us = self.is_over = self._dialled = False
        self.limit_frames = 0
        self.line: Line | None = None
        self.port: PublishedPort | None = None
        self.codec = ""
        self.srtp = False
        self.invite = ""
        """Of a call that came, until it is answered."""
        self.farewell: Farewell | None = None
        """Once it is answered."""
        self._refers = False
        """A REFER of ours is under way, or its NOTIFYs."""
        self.was_asked = False
        """By a REFER of the far end."""
        # of re-INVITEs, only the owner's: what is asked for, and what then; True is hold
        self._asked: bool | None = None
        self._then: bool | None = None
        self._glares = 0

    def say_dialled(self) -> None:
        """Before anything else of this call: its first answer may come while makeCall still runs."""
        if self.outbound and not self._dialled:
            self._dialled = True
            self.stack.post(Dialled(self.handle, self.getInfo().callIdString))

    def onCallState(self, param: Any) -> None:
        try:
            self._state(param)
        except Exception:
            log.exception("onCallState")

    def _state(self, param: Any) -> None:
        info = self.getInfo()
        if info.state >= pj.PJSIP_INV_STATE_EARLY:
            self.say_dialled()
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            response = ""
            with contextlib.suppress(Exception):
                response = param.e.body.tsxState.src.rdata.wholeMsg
            code, reason = _redirection(response) or (info.lastStatusCode, info.lastReason)
            self.stack.over(self, Disconnected(self.handle, code, reason, self.by_us, response))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            if param.e.type == pj.PJSIP_EVENT_RX_MSG and self.invite:  # the ACK
                self._established(partial(of_theirs, self.invite, str(param.e.body.rxMsg.rdata.wholeMsg)))
                self.invite = ""
            self.stack.post(Confirmed(self.handle))
        elif self.outbound and info.state == pj.PJSIP_INV_STATE_EARLY:
            self.stack.post(Progress(self.handle, info.lastStatusCode, info.lastReason))

    def _established(self, read: Callable[[], Farewell]) -> None:
        try:
            self.farewell = read()
        except PeerError as error:
            log.debug("no BYE from outside: %s", error)

    def _refresh(self) -> None:
        """RFC 3261 12.2: a re-INVITE, whichever end's it was, may have told of another Contact."""
        if self.farewell is None:
            return
        with contextlib.suppress(pj.Error):
            target = self.getInfo().remoteContact.strip("<>")  # as PJSIP prints it in a Contact
            if target and target != self.farewell.target:
                self.farewell = self.farewell.moved(target)

    # --- REFER ---

    def send_refer(self, send: Callable[[], None]) -> None:
        self._refers = True
        try:
            send()
        except pj.Error as error:
            self._referred(0, why(error), notify=False, final=True)

    def _referred(self, code: int, reason: str, *, notify: bool, final: bool) -> None:
        if self._refers and not self.is_over:
            self._refers = not final
            self.stack.post(Referred(self.handle, code, reason, notify, final))

    def onCallTsxState(self, param: Any) -> None:
        try:
            self._transaction(param.e.body.tsxState)
        except Exception:
            log.exception("onCallTsxState")

    def _transaction(self, state: Any) -> None:
        transaction = state.tsx
        message = str(state.src.rdata.wholeMsg) if state.type == pj.PJSIP_EVENT_RX_MSG else ""
        if transaction.role == pj.PJSIP_ROLE_UAS:
            if transaction.method == "NOTIFY" and transaction.state == pj.PJSIP_TSX_STATE_TRYING:
                self._notified(message)
        elif transaction.state < pj.PJSIP_TSX_STATE_COMPLETED or state.prevState >= pj.PJSIP_TSX_STATE_COMPLETED:
            pass
        elif transaction.method == "REFER":
            code = transaction.statusCode if message else 0  # else PJSIP's own 408 or 503
            silent = bool(re.search(r"^refer-sub\s*:\s*false", message, re.M | re.I))  # RFC 4488
            self._referred(code, transaction.statusText, notify=False, final=code // 100 != 2 or silent)
        elif transaction.method == "INVITE":
            code = transaction.statusCode
            if code // 100 == 2 and self._opening:
                self._established(partial(of_ours, message))
            if self._opening:
                self._opening = code // 100 != 2
            else:
                self.stack.in_owner(self, lambda: self._renegotiated(code))

    def _notified(self, message: str) -> None:
        """RFC 3515 2.4.5. Who ends the subscription or tells of a final answer has told all."""
        head, _, body = message.partition("\r\n\r\n")
        if re.search(r"^(?:event|o)\s*:\s*refer\b", head, re.M | re.I) is None:
            return
        over = re.search(r"^subscription-state\s*:\s*terminated", head, re.M | re.I) is not None
        said = re.match(r"\s*SIP/2\.0 ([1-6][0-9][0-9])(?: ([^\r\n]*))?", body)
        if said is not None:
            code = int(said[1])
            self._referred(code, said[2] or "", notify=True, final=over or code >= 200)
        elif over:
            self._referred(0, "the far end says no more", notify=True, final=True)

    def onCallTransferRequest(self, param: Any) -> None:
        """Only without Refers, which would have taken it."""
        param.statusCode = 603
        if not self.is_over:
            self.stack.post(ReferAsked(self.handle, 0, str(param.dstUri)[:MAX_REFER_TO_CHARS]))

    # --- hold and resume (owner) ---

    def renegotiate(self, hold: bool) -> None:
        """One re-INVITE at a time; of what is asked meanwhile, the latest is next."""
        if self.quirks.reinvite == "no":
            self.stack.post(Renegotiated(self.handle, 405))
        elif self._asked is not None:
            self._then = hold
        else:
            self._glares = 0
            self._ask(hold)

    def _ask(self, hold: bool) -> None:
        self._asked = hold
        how = operation(0)
        try:
            if hold:
                self.setHold(how)
            else:
                how.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.reinvite(how)
        except pj.Error as error:  # another re-INVITE is under way, theirs or a session timer's
            log.debug("re-INVITE: %s", why(error))
            self._renegotiated(491)

    def _renegotiated(self, code: int) -> None:
        if self._asked is None:
            return
        if code == 491 and self._glares < GLARE_TRIES:
            self._glares += 1
            # RFC 3261 14.1: whose Call-ID it is waits longer, in steps of 10 ms
            wait_s = random.randint(210, 400) / 100 if self.outbound else random.randint(1, 200) / 100
            self.stack.in_owner(self, self._ask_again, wait_s)
            return
        self._asked, then, self._then = None, self._then, None
        self.stack.post(Renegotiated(self.handle, code))
        if then is not None:
            self.renegotiate(then)

    def _ask_again(self) -> None:
        hold = self._asked if self._then is None else self._then
        self._then = None
        if hold is not None:
            self._ask(hold)

    # --- audio ---

    def onCallMediaState(self, param: Any) -> None:
        self._refresh()
        try:
            self.stack.media_up(self)
        except pj.Error as error:
            log.debug("onCallMediaState: %s", why(error))
        except Exception:
            log.exception("onCallMediaState")

    def onDtmfDigit(self, param: Any) -> None:
        method: DtmfMethod = "info" if param.method == pj.PJSUA_DTMF_METHOD_SIP_INFO else "rfc4733"
        for digit in str(param.digit):
            self.stack.post(Keyed(self.handle, digit, method))

    def onStreamDestroyed(self, param: Any) -> None:
        try:
            self.stack.post(MediaDown(self.handle, _report(self.getStreamStat(param.streamIdx), self.codec, self.srtp)))
        except pj.Error as error:
            log.debug("no statistics: %s", why(error))
        except Exception:
            log.exception("onStreamDestroyed")


def _redirection(response: str) -> tuple[int, str] | None:
    """What was answered; PJSIP itself makes a 487 of every redirection that is not followed."""
    found = re.match(r"SIP/2\.0 (3[0-9][0-9])(?: ([^\r\n]*))?", response)
    return (int(found[1]), found[2] or "") if found else None


def _report(stat: Any, codec: str, srtp: bool) -> MediaReport:
    came, went, rtcp = stat.rtcp.rxStat, stat.rtcp.txStat, stat.rtcp
    told = went.updateCount > 0
    return MediaReport(
        codec=codec,
        srtp=srtp,
        in_packets=came.pkt,
        in_lost=came.loss,
        in_discarded=came.discard + stat.jbuf.discard,
        in_jitter_ms=round(came.jitterUsec.mean / 1000, 1),
        out_packets=went.pkt,
        out_lost=went.loss if told else None,
        out_jitter_ms=round(went.jitterUsec.mean / 1000, 1) if told else None,
        rtt_ms=round(rtcp.rttUsec.mean / 1000, 1) if rtcp.rttUsec.n else None,
        buffer_ms=float(stat.jbuf.avgDelayMsec),
    )
