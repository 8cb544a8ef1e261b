"""`stack.Stack` over PJSIP: commands to its owner, events from its callbacks, audio once a tick."""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pjsua2 as pj

from trunkline.clock import Clock
from trunkline.errors import ConfigError
from trunkline.gateway.sip import trunks as t
from trunkline.gateway.sip.established import transport_of
from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.sip.message import parse_head
from trunkline.gateway.sip.pjsip import build, config
from trunkline.gateway.sip.pjsip.account import PjsipAccount
from trunkline.gateway.sip.pjsip.build import TUNED
from trunkline.gateway.sip.pjsip.call import NO_CALL, PjsipCall, operation
from trunkline.gateway.sip.pjsip.lines import Line, Lines
from trunkline.gateway.sip.pjsip.owner import Owner, why
from trunkline.gateway.sip.pjsip.pings import Pings
from trunkline.gateway.sip.pjsip.published import PublishedPort
from trunkline.gateway.sip.pjsip.refers import Refers
from trunkline.gateway.sip.pjsip.registrations import Registrations
from trunkline.gateway.sip.stack import (
    Disconnected,
    DtmfMethod,
    Event,
    FrontCounters,
    Handle,
    Headers,
    Incoming,
    LimitReached,
    MediaUp,
    Referred,
    Step,
)
from trunkline.gateway.sip.trunks import Trunk
from trunkline.settings import Sip
from trunkline.types import FRAME_MS

log = logging.getLogger("trunkline.sip")

CLOSE_S = 3.0  # for the last BYEs to be answered
LAST_WORD_S = 0.2  # PJSUA calls a dialog over before it sends our BYE: so long do we wait for that and its answer
NOTES_S = 1.0
BRING_S = 5.0


class PjsipStack:
    """One in a process, once: PJSIP's state is global."""

    def __init__(self, settings: Sip, trunks: Sequence[Trunk], max_calls: int, clock: Clock) -> None:
        self._settings, self._trunks = settings, tuple(trunks)
        self._max_calls = config.calls_at_most(settings, max_calls)
        self._handles = itertools.count(1)
        self._calls: dict[Handle, PjsipCall] = {}
        """Until DISCONNECTED, and then a little longer with the owner."""
        self._accounts: dict[str, PjsipAccount] = {}
        self._owner = Owner(clock)
        self._on_event: Callable[[Event], None] = lambda event: None
        self._on_frames: Callable[[], None] = lambda: None
        self._endpoint: Any = None
        self._front: Any = None
        self._accepting, self._retry_after_s = True, 30
        self.bridge: Any = None
        self.lines = Lines(self._max_calls + config.SPARE_LINES)
        self._refers = Refers(self._owner, self._live, self._tell)
        self._registrations = Registrations(self._owner, clock, self._accounts.__getitem__, self._tell)
        self._pings = Pings(self._owner, self._accounts.__getitem__, self._tell)
        self._event_fd = self._refers_fd = -1
        self._notes: asyncio.TimerHandle | None = None

    @property
    def tuned(self) -> bool:
        return TUNED

    # --- the life of the stack (loop) ---

    async def start(self, on_event: Callable[[Event], None], on_frames: Callable[[], None]) -> None:
        build.check(self._trunks)
        loop, self._on_event, self._on_frames = asyncio.get_running_loop(), on_event, on_frames
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._refers_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            await self._owner.start(self._open, self._shut)
        except Exception:  # nothing runs any more: another start may be tried
            os.close(self._event_fd)
            os.close(self._refers_fd)
            raise
        loop.add_reader(self._event_fd, self._tick)
        loop.add_reader(self._refers_fd, self._refer_news)
        self._notes = loop.call_later(NOTES_S, self._log_notes)

    async def close(self) -> None:
        if not self._owner.running:
            return
        if self._notes is not None:
            self._notes.cancel()
        self._pings.cancel()
        self._registrations.cancel()
        stopped = await self._owner.stop(2 * CLOSE_S)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._event_fd)
        loop.remove_reader(self._refers_fd)
        if stopped:
            os.close(self._event_fd)
            os.close(self._refers_fd)
        else:
            log.error("PJSIP does not stop; left behind")  # with its clock, which still writes to the eventfd

    def _tell(self, event: Event) -> None:
        """On the loop."""
        self._on_event(event)

    def post(self, event: Event) -> None:
        """From any thread."""
        self._owner.soon(partial(self._on_event, event))

    # --- commands (loop; performed by the owner) ---

    async def bring(self, trunks: Sequence[Trunk]) -> Mapping[str, str]:
        return await self._owner.perform(partial(self._bring, tuple(trunks)), BRING_S)

    def forget(self, trunk: str) -> None:
        self._registrations.forget(trunk)

    def ring(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.answer(operation(180)))

    def answer(self, handle: Handle, limit_s: float, headers: Headers = ()) -> None:
        def perform(call: PjsipCall) -> None:
            call.limit_frames = _frames(limit_s)
            call.answer(operation(200, headers=headers))

        self._with_call(handle, perform)

    def refuse(self, handle: Handle, code: int, reason: str = "", headers: Headers = ()) -> None:
        def perform(call: PjsipCall) -> None:
            call.by_us = True
            call.hangup(operation(code, reason, headers))

        self._with_call(handle, perform)

    def hang_up(self, handle: Handle) -> None:
        def perform(call: PjsipCall) -> None:
            call.by_us = True
            call.hangup(operation(0))

        self._with_call(handle, perform)

    def send_digits(self, handle: Handle, digits: str, method: DtmfMethod) -> None:
        def perform(call: PjsipCall) -> None:
            param = pj.CallSendDtmfParam()
            param.digits = digits
            param.method = pj.PJSUA_DTMF_METHOD_RFC2833 if method == "rfc4733" else pj.PJSUA_DTMF_METHOD_SIP_INFO
            call.sendDtmf(param)

        self._with_call(handle, perform)

    def dial(
        self, trunk: Trunk, to_uri: str, from_uri: str, limit_s: float, headers: Headers = (), call_id: str = ""
    ) -> Handle:
        handle = Handle(next(self._handles))

        def perform() -> None:
            call = PjsipCall(self, self._accounts[trunk.name], NO_CALL, handle)
            call.limit_frames = _frames(limit_s)
            self._calls[handle] = call
            self._admit()
            how = operation(0, headers=headers)
            how.txOption.localUri = from_uri
            how.opt.customCallId = call_id
            if self._front is not None and call_id:
                self._front.dialled(call_id, trunk.name)
            try:
                call.makeCall(to_uri, how)
            except pj.Error as error:
                self.over(call, Disconnected(handle, 0, why(error), by_us=False))
                return
            call.say_dialled()

        self._owner.put(perform)
        return handle

    def refer(self, handle: Handle, to_uri: str, headers: Headers = ()) -> None:
        target = to_uri if to_uri.startswith("<") else f"<{to_uri}>"
        self._with_call(handle, lambda call: call.send_refer(lambda: call.xfer(target, operation(0, headers=headers))))

    def refer_to_call(self, handle: Handle, other: Handle) -> None:
        def perform(call: PjsipCall) -> None:
            target = self._calls.get(other)
            if target is None or target.is_over:
                self.post(Referred(handle, 0, "the other call is over", notify=False, final=True))
                return
            call.send_refer(lambda: call.xferReplaces(target, operation(0)))

        self._with_call(handle, perform)

    def answer_refer(self, handle: Handle, refer: int, code: int, reason: str = "", headers: Headers = ()) -> bool:
        return self._refers.answer(refer, code, reason, headers)

    def tell_refer(self, handle: Handle, refer: int, said: str, state: str) -> None:
        notice = self._refers.notice(refer, said, state)
        if notice is not None:
            self._with_call(handle, lambda call: notice(call.getId()))

    def dialog(self, call_id: str, one_tag: str, other_tag: str) -> Handle | None:
        return self._refers.dialog(call_id, one_tag, other_tag)

    def _live(self, pj_id: int) -> PjsipCall | None:
        return next((call for call in tuple(self._calls.values()) if not call.is_over and call.getId() == pj_id), None)

    def hold(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.renegotiate(hold=True))

    def resume(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.renegotiate(hold=False))

    def register(self, trunk: Trunk, wanted: bool = True) -> None:
        if t.registrar_uri(trunk) is not None:
            self._registrations.want(trunk.name, wanted)

    def ping(self, trunk: Trunk) -> None:
        uri = t.ping_uri(trunk)
        if uri is not None:
            self._pings.send(trunk.name, uri)

    def accept_calls(self, accept: bool, retry_after_s: int = 30) -> None:
        self._accepting, self._retry_after_s = accept, retry_after_s
        self._admit()

    def _admit(self) -> None:
        """From any thread, whenever a call comes or goes: the loop may be late, an INVITE of a flood is not. With no
        port left, PJSUA would look for one in the whole range, and all of SIP would wait."""
        if self._front is not None:
            self._front.accept(self._accepting and len(self._calls) < self._max_calls, self._retry_after_s)

    def farewell(self, handle: Handle) -> Farewell | None:
        call = self._calls.get(handle)
        return None if call is None or call.is_over else call.farewell

    def ladder(self, call_id: str) -> Sequence[Step]:
        if self._front is None:
            return ()
        steps: list[Step] = []
        for line in self._front.ladder(call_id).splitlines():
            at_ms, direction, what, cseq, peer, repeated = line.split("\t")
            steps.append(Step(int(at_ms), direction == "in", what, cseq, peer, int(repeated)))
        return steps

    def front(self) -> FrontCounters:
        if self._front is None:
            return FrontCounters()
        strangers, over_rate, bad_digest, full, malformed, muted = map(int, self._front.counters().split())
        return FrontCounters(strangers, over_rate, bad_digest + muted, full, malformed, self._refers.counted())

    def clock(self) -> Mapping[str, float]:
        if self.bridge is None:
            return {}
        ticks, p50, p99, most, resyncs, busy = map(int, self.bridge.clock().split())
        return {
            "ticks": ticks,
            "late_ms_p50": p50 / 1000,
            "late_ms_p99": p99 / 1000,
            "late_ms_max": most / 1000,
            "resyncs": resyncs,
            "busy_ms": busy / 1000,
        }

    def _with_call(self, handle: Handle, perform: Callable[[PjsipCall], None]) -> None:
        def command() -> None:
            call = self._calls.get(handle)
            if call is not None and not call.is_over:
                perform(call)

        self._owner.put(command)

    # --- the tick (loop) ---

    def _tick(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        if self.lines.read(self._on_event):
            self._on_frames()

    def _refer_news(self) -> None:
        self._refers.news(self._refers_fd)

    def _log_notes(self) -> None:
        self._notes = asyncio.get_running_loop().call_later(NOTES_S, self._log_notes)
        if self._front is None:
            return
        for note in self._front.notes().splitlines():
            log.log(logging.DEBUG if note.startswith("pjsip ") else logging.WARNING, "%s", note)

    # --- the owner thread ---

    def _open(self) -> None:
        settings = self._settings
        if TUNED:
            pj.Front.quiet()
        self._endpoint = pj.Endpoint()
        self._endpoint.libCreate()
        self._endpoint.libInit(config.endpoint_config(settings, self._max_calls))
        if TUNED:
            self._front = pj.Front()
            self._front.start()
            self._front.rates(settings.invites_per_second, settings.invites_per_second_per_source)
            self._front.strangers(0 if settings.strangers == "silent" else int(settings.strangers))
            self.bridge = self.lines.bridge = pj.Bridge(len(self.lines))
            self._refers.start(pj.Refers(), self._refers_fd)
        config.listen(self._endpoint, settings, self._trunks)
        self._endpoint.libStart()
        config.set_codecs(self._endpoint, settings.codecs)
        for trunk in self._trunks:
            self._open_account(trunk)
        if TUNED:
            ids = {name: account.getId() for name, account in self._accounts.items()}
            self._front.trunks(config.front_table(self._trunks, ids))
            self.bridge.start(self._event_fd)
        else:
            self._endpoint.audDevManager().setNullDev()

    def _open_account(self, trunk: Trunk) -> None:
        account = PjsipAccount(self, trunk)
        try:
            account.create(config.account_config(self._settings, trunk), make_default=not self._accounts)
        except pj.Error as error:
            raise ConfigError("sip.trunks", trunk.name, f"a trunk that PJSIP takes ({why(error)})") from error
        self._accounts[trunk.name] = account
        self._tell_bridge(account)

    def _tell_bridge(self, account: PjsipAccount) -> None:
        trunk = account.trunk
        if self.bridge is not None:
            self.bridge.networks(account.getId(), " ".join(map(str, (*trunk.peers, *trunk.media_peers))))
            self.bridge.codecs(account.getId(), " ".join(trunk.codecs))

    def _bring(self, trunks: tuple[Trunk, ...]) -> dict[str, str]:
        """In the owner's thread. The account of a trunk that is gone stays until its calls are over."""
        refused: dict[str, str] = {}
        if config.needs_tls(trunks) and not (config.needs_tls(self._trunks) or self._settings.tls_cert is not None):
            try:
                config.call_over_tls(self._endpoint, self._settings)
            except ConfigError as error:
                refused = {trunk.name: str(error) for trunk in trunks if trunk.transport == "tls"}
        taken = []
        for trunk in trunks:
            if trunk.name in refused:
                continue
            try:
                build.check([trunk])
                self._bring_one(trunk)
                taken.append(trunk)
            except (pj.Error, ConfigError) as error:
                refused[trunk.name] = error.allowed if isinstance(error, ConfigError) else why(error)
        names = {trunk.name for trunk in taken}
        for name, account in tuple(self._accounts.items()):
            account.left = name not in names
            if account.left and not account.bound and not any(c.account is account for c in self._calls.values()):
                del self._accounts[name]
                account.shutdown()
                self._owner.bury(account)
        self._trunks = tuple(taken)
        if self._front is not None:
            ids = {name: account.getId() for name, account in self._accounts.items()}
            self._front.trunks(config.front_table(taken, ids))
        return refused

    def _bring_one(self, trunk: Trunk) -> None:
        account = self._accounts.get(trunk.name)
        if account is None:
            self._open_account(trunk)
        elif account.trunk != trunk:
            account.modify(config.account_config(self._settings, trunk))
            account.trunk = trunk
            self._tell_bridge(account)

    def _shut(self) -> None:
        """Every call hung up, every registration taken back, every thread stopped."""
        self._refers.stop()
        with contextlib.suppress(Exception):
            self._endpoint.hangupAllCalls()
        for account in self._accounts.values():
            if account.bound:
                with contextlib.suppress(pj.Error):
                    account.setRegistration(False)
        self._owner.perform_while(self._is_busy, CLOSE_S)
        if self.bridge is not None:
            self.bridge.stop()
        self._owner.forget()
        self._calls.clear()  # before the endpoint goes, which they would ask
        self._accounts.clear()
        with contextlib.suppress(Exception):
            self._endpoint.libDestroy()
        self._endpoint = None

    def _is_busy(self) -> bool:
        return any(not call.is_over for call in self._calls.values()) or any(
            account.bound for account in self._accounts.values()
        )

    # --- from callbacks (PJSIP's threads) ---

    def incoming(self, account: PjsipAccount, param: Any) -> None:
        call = PjsipCall(self, account, param.callId, Handle(next(self._handles)))
        self._calls[call.handle] = call
        self._admit()
        call_id = call.getInfo().callIdString
        source = str(param.rdata.srcAddress)
        trunk = self._trunk_of(call_id, source)
        if trunk is None or not self._accepting:  # only without the Front, which would not have let it through
            call.by_us = True
            call.hangup(operation(403 if trunk is None else 503))
            return
        call.invite = str(param.rdata.wholeMsg)
        transport = transport_of(parse_head(call.invite))
        self.post(Incoming(call.handle, trunk, call_id, source, transport, param.rdata.wholeMsg))

    def drop(self, call_id: int) -> None:
        """A call we failed to take."""
        for call in tuple(self._calls.values()):
            if call.getId() == call_id:
                call.by_us = True
                self._with_call(call.handle, lambda call: call.hangup(operation(500)))
                return

    def _trunk_of(self, call_id: str, source: str) -> str | None:
        if self._front is not None:
            return self._front.trunk_of(call_id) or None
        found = t.find_trunk(self._trunks, source.rpartition(":")[0])
        return None if found is None else found.name

    def registered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        self._registrations.answered(trunk, code, reason, expires_s, retry_after_s)

    def pinged(self, trunk: str, code: int, reason: str) -> None:
        self._pings.answered(trunk, code, reason)

    def over(self, call: PjsipCall, event: Disconnected) -> None:
        """The last of a call. From any thread; the object itself is dropped by the owner."""
        if call.is_over:
            return
        call.is_over = True
        self._owner.put(lambda: self._forget(call))
        line = call.line
        if event.by_us and self._owner.running:
            self._owner.later(LAST_WORD_S, lambda: self._ended(event, line))
        else:
            self._owner.soon(lambda: self._ended(event, line))

    def _ended(self, event: Disconnected, line: Line | None) -> None:
        """On the loop."""
        self._refers.forget(event.handle)
        try:
            self._on_event(event)
        finally:
            if line is not None:
                line.close()

    def _forget(self, call: PjsipCall) -> None:
        self._calls.pop(call.handle, None)
        self._admit()
        self._owner.bury(call)

    def in_owner(self, call: PjsipCall, perform: Callable[[], None], after_s: float = 0.0) -> None:
        """From any thread; nothing when the call is over by then."""

        def later() -> None:
            self._with_call(call.handle, lambda _: perform())

        if after_s:
            self._owner.later(after_s, later)
        else:
            later()

    def media_up(self, call: PjsipCall) -> None:
        if self.bridge is None:
            self._published_media_up(call)
            return
        pj_id = call.getId()
        negotiated = self.bridge.media(pj_id).split()
        index = self.bridge.claim(pj_id, call.limit_frames) if negotiated else -1
        if index < 0:
            return
        name, rate_hz, srtp, events, direction = negotiated
        codec = f"{name}/{rate_hz}"
        if call.line is None:
            call.line = Line(self.lines, call.handle, index)
        call.line.codec, call.codec, call.srtp = codec, codec, srtp == "1"
        event = MediaUp(call.handle, call.line, codec, call.srtp, events == "1", direction)
        self._owner.soon(partial(self._claimed, call.line, event))

    def _claimed(self, line: Line, event: MediaUp) -> None:
        if not line.closed:
            self.lines.open(line)
            self._on_event(event)

    def _published_media_up(self, call: PjsipCall) -> None:
        info = call.getInfo()  # held: its media lie in it
        for index, media in enumerate(info.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status != pj.PJSUA_CALL_MEDIA_ACTIVE:
                continue
            stream = call.getStreamInfo(index)
            codec = f"{stream.codecName}/{stream.codecClockRate}"
            if call.port is None:
                call.port = PublishedPort(
                    call.handle, call.limit_frames, self._owner.soon, self._tell, self._limit_reached
                )
            audio = call.getAudioMedia(index)
            audio.startTransmit(call.port)
            call.port.startTransmit(audio)
            call.port.line.codec = call.codec = codec
            self.post(MediaUp(call.handle, call.port.line, codec, False, True))
            return

    def _limit_reached(self, handle: Handle) -> None:
        """Without the bridge, the limit is ours to keep. On the loop."""
        self.hang_up(handle)
        self._on_event(LimitReached(handle))


def _frames(limit_s: float) -> int:
    return int(limit_s * 1000) // FRAME_MS
