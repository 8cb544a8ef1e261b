"""PJSIP under the SIP desk: the only file that knows pjsua2, and the only place that knows threads.

    loop thread      commands ──► queue ──► owner thread ──► PJSUA            (makeCall, answer, hangup: they may block)
    PJSIP's threads  callbacks ──► call_soon_threadsafe ──► on_event          (they only post)
    C++ clock thread ──► rings ──► eventfd ──► one read of all lines a tick   (bridge.hpp; never takes the GIL)

Every pj.Call lives in `_calls` until DISCONNECTED and a little longer, and dies in the owner thread: dropped earlier,
it crashed the process.

Two builds are known. Ours (native/pjsua2, `make pjsip`) has the Bridge and the Front. The published wheel has neither:
audio then crosses in Python callbacks, four calls at most, and peers are judged after PJSIP has answered 100.
"""

import asyncio
import contextlib
import ctypes
import itertools
import logging
import os
import queue
import random
import re
import struct
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pjsua2 as pj

from trunkline.clock import Clock
from trunkline.errors import ConfigError
from trunkline.gateway.sip import trunks as t
from trunkline.gateway.sip.message import parse_head, retry_after_s
from trunkline.gateway.sip.quality import MediaReport
from trunkline.gateway.sip.registration import Registration
from trunkline.gateway.sip.stack import (
    REFER_WAIT_S,
    Confirmed,
    Dialled,
    Disconnected,
    DtmfMethod,
    Event,
    FirstMedia,
    FrontCounters,
    Handle,
    Headers,
    Incoming,
    Keyed,
    LimitReached,
    LineCounters,
    LineSink,
    MediaDown,
    MediaUp,
    Pinged,
    Progress,
    ReferAsked,
    Referred,
    ReferTold,
    Registered,
    Renegotiated,
    Step,
    Transport,
)
from trunkline.gateway.sip.trunks import Trunk
from trunkline.gateway.transfer_refer import Replaces, replaced
from trunkline.media import g711
from trunkline.settings import Sip
from trunkline.types import FRAME_MS, MULAW_8K, PCM_8K

log = logging.getLogger("trunkline.sip")

TUNED = hasattr(pj, "Bridge")
_CURRENT = not TUNED or (hasattr(pj, "Refers") and hasattr(pj.Bridge, "codecs"))
PUBLISHED_CALLS = 4  # what the published wheel was compiled for
PJSUA_CALLS = 1024  # what ours was compiled for
SPARE_LINES = 16  # calls that are ending while others begin
KEEP_S = 2.0  # a Call outlives its DISCONNECTED by so much
CLOSE_S = 3.0  # for the last BYEs to be answered
LAST_WORD_S = 0.2  # PJSUA calls a dialog over before it sends our BYE: so long do we wait for that and its answer
NOTES_S = 1.0
PING_S = 4.0  # three retransmissions; PJSIP itself would wait 32 s
TLS_HANDSHAKE_MS = 5000
RECORD = struct.Struct("=HHIII")
RECORD_BYTES = RECORD.size + MULAW_8K.frame_bytes
FRAME_THERE, RTP_CAME, LIMIT_HIT = 1, 2, 4
# The jitter buffer: adaptive from one frame. A steady peer is heard 20 ms late; one that jitters pays for its jitter.
JITTER_START_MS, JITTER_MIN_MS, JITTER_MAX_START_MS, JITTER_MAX_MS = 20, 20, 200, 400
RESAMPLER_QUALITY = 4  # for G.722 and Opus, whose audio the 8 kHz conference cannot hold anyway
NO_CALL = -1
UNREGISTER_MS = 500  # libDestroy's own wait, after ours
BUSY = 171001  # PJSIP_EBUSY: a REGISTER is under way
GLARE_TRIES = 3
MAX_REFER_TO_CHARS = 512
SESSION_TIMER = {
    "off": pj.PJSUA_SIP_TIMER_INACTIVE,
    "optional": pj.PJSUA_SIP_TIMER_OPTIONAL,
    "required": pj.PJSUA_SIP_TIMER_REQUIRED,
}
PRACK = {
    "off": pj.PJSUA_100REL_NOT_USED,
    "optional": pj.PJSUA_100REL_OPTIONAL,
    "required": pj.PJSUA_100REL_MANDATORY,
}


def available() -> str:
    """Which build this is, for a person."""
    return "pjsua2 (ours)" if TUNED else f"pjsua2 (published wheel: {PUBLISHED_CALLS} calls at most)"


class PjsipStack:
    """`stack.Stack` over PJSIP. One in a process, once: PJSIP's state is global."""

    def __init__(self, settings: Sip, trunks: Sequence[Trunk], max_calls: int, clock: Clock) -> None:
        self._settings, self._trunks, self._clock = settings, tuple(trunks), clock
        self._max_calls = min(max_calls, _lines_of(settings)) if TUNED else min(max_calls, PUBLISHED_CALLS)
        self._handles = itertools.count(1)
        self._calls: dict[Handle, _Call] = {}
        self._dead: deque[tuple[float, Any]] = deque()
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._owner: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_event: Callable[[Event], None] = lambda event: None
        self._on_frames: Callable[[], None] = lambda: None
        self._endpoint: Any = None
        self._front: Any = None
        self._refers: Any = None
        self._asked: dict[int, _Asked] = {}
        self._named: dict[tuple[str, str, str], Handle] = {}
        self._accounts: dict[str, _Account] = {}
        self._accepting, self._retry_after_s = True, 30
        self.bridge: Any = None
        self.lines: list[_Line | None] = [None] * (self._max_calls + SPARE_LINES)
        self._buffer = bytearray(RECORD_BYTES * 2 * len(self.lines))
        self._view = memoryview(self._buffer)
        self._event_fd = self._refers_fd = -1
        self._notes: asyncio.TimerHandle | None = None
        self._pings: dict[str, asyncio.TimerHandle] = {}
        self._registrations: dict[str, _Registering] = {}
        self._log: Any = None

    @property
    def tuned(self) -> bool:
        return TUNED

    # --- the life of the stack (loop) ---

    async def start(self, on_event: Callable[[Event], None], on_frames: Callable[[], None]) -> None:
        self._check_build()
        self._loop, self._on_event, self._on_frames = asyncio.get_running_loop(), on_event, on_frames
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._refers_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        started: asyncio.Future[None] = self._loop.create_future()
        self._owner = threading.Thread(target=self._own, args=(started,), name="sip-owner", daemon=True)
        self._owner.start()
        try:
            await started
        except ConfigError:  # nothing runs any more: another start may be tried
            self._owner = None
            os.close(self._event_fd)
            os.close(self._refers_fd)
            raise
        self._loop.add_reader(self._event_fd, self._tick)
        self._loop.add_reader(self._refers_fd, self._refer_news)
        self._notes = self._loop.call_later(NOTES_S, self._log_notes)

    async def close(self) -> None:
        owner, self._owner = self._owner, None
        if owner is None or self._loop is None:
            return
        if self._notes is not None:
            self._notes.cancel()
        for ping in self._pings.values():
            ping.cancel()
        for registering in self._registrations.values():
            registering.cancel()
        self._commands.put(None)
        await asyncio.to_thread(owner.join, 2 * CLOSE_S)
        self._loop.remove_reader(self._event_fd)
        self._loop.remove_reader(self._refers_fd)
        if owner.is_alive():
            log.error("PJSIP does not stop; left behind")  # with its clock, which still writes to the eventfd
        else:
            os.close(self._event_fd)
            os.close(self._refers_fd)

    def _post(self, event: Event) -> None:
        """From any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._on_event, event)

    # --- commands (loop; performed by the owner) ---

    def ring(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.answer(_operation(180)))

    def answer(self, handle: Handle, limit_s: float, headers: Headers = ()) -> None:
        def perform(call: "_Call") -> None:
            call.limit_frames = _frames(limit_s)
            call.answer(_operation(200, headers=headers))

        self._with_call(handle, perform)

    def refuse(self, handle: Handle, code: int, reason: str = "", headers: Headers = ()) -> None:
        def perform(call: "_Call") -> None:
            call.by_us = True
            call.hangup(_operation(code, reason, headers))

        self._with_call(handle, perform)

    def hang_up(self, handle: Handle) -> None:
        def perform(call: "_Call") -> None:
            call.by_us = True
            call.hangup(_operation(0))

        self._with_call(handle, perform)

    def send_digits(self, handle: Handle, digits: str, method: DtmfMethod) -> None:
        def perform(call: "_Call") -> None:
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
            call = _Call(self, self._accounts[trunk.name], NO_CALL, handle)
            call.limit_frames = _frames(limit_s)
            self._calls[handle] = call
            self._admit()
            operation = _operation(0, headers=headers)
            operation.txOption.localUri = from_uri
            operation.opt.customCallId = call_id
            if self._front is not None and call_id:
                self._front.dialled(call_id, trunk.name)
            try:
                call.makeCall(to_uri, operation)
            except pj.Error as error:
                self.over(call, Disconnected(handle, 0, _why(error), by_us=False))
                return
            call.say_dialled()

        self._commands.put(perform)
        return handle

    def refer(self, handle: Handle, to_uri: str, headers: Headers = ()) -> None:
        target = to_uri if to_uri.startswith("<") else f"<{to_uri}>"
        self._with_call(handle, lambda call: call.send_refer(lambda: call.xfer(target, _operation(0, headers=headers))))

    def refer_to_call(self, handle: Handle, other: Handle) -> None:
        def perform(call: "_Call") -> None:
            target = self._calls.get(other)
            if target is None or target.is_over:
                self._post(Referred(handle, 0, "the other call is over", notify=False, final=True))
                return
            call.send_refer(lambda: call.xferReplaces(target, _operation(0)))

        self._with_call(handle, perform)

    def answer_refer(self, handle: Handle, refer: int, code: int, reason: str = "", headers: Headers = ()) -> bool:
        if self._refers is None or not self._refers.take(refer):
            return False
        if code // 100 != 2:
            self._asked.pop(refer, None)
        lines = "\n".join(f"{name}: {value}" for name, value in headers)
        self._commands.put(lambda: self._refers.answer(refer, code, reason, lines))
        return True

    def tell_refer(self, handle: Handle, refer: int, said: str, state: str) -> None:
        asked = self._asked.get(refer)
        if asked is None:
            return

        def perform(call: "_Call") -> None:
            if self._refers.notify(refer, call.getId(), asked.cseq, asked.named, state, said):
                self._post(ReferTold(handle, refer, 0))

        self._with_call(handle, perform)

    def dialog(self, call_id: str, one_tag: str, other_tag: str) -> Handle | None:
        """Of what the REFER named that is being asked about: looked up before, as PJSIP's locks may be waited for."""
        return self._named.get((call_id, one_tag, other_tag))

    def _name(self, named: Replaces, event: ReferAsked) -> None:
        """In the owner's thread."""
        key = named.call_id, named.from_tag, named.to_tag
        pj_id = self._refers.call_of(*key)
        self.call_soon_safe(lambda: self._ask_of(key, pj_id, event))

    def _ask_of(self, key: tuple[str, str, str], pj_id: int, event: ReferAsked) -> None:
        """On the loop."""
        other = self._live(pj_id)
        self._named = {} if other is None else {key: other.handle}
        self._on_event(event)
        self._named = {}

    def _live(self, pj_id: int) -> "_Call | None":
        return next((call for call in tuple(self._calls.values()) if not call.is_over and call.getId() == pj_id), None)

    def _refer_news(self) -> None:
        """On the loop."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._refers_fd)
        for line in self._refers.news().splitlines():
            kind, refer, number, *rest = line.split("\t", 5)
            if kind == "told":
                asked = self._asked.get(int(refer))
                if asked is not None:
                    self._on_event(ReferTold(asked.handle, int(refer), int(number)))
                continue
            call, (cseq, silent, refer_to) = self._live(int(number)), rest
            if call is None:
                self.answer_refer(Handle(0), int(refer), 487)  # RFC 3261 15.1.2
                continue
            self._asked[int(refer)] = _Asked(call.handle, int(cseq), call.was_asked)
            call.was_asked = True
            event = ReferAsked(call.handle, int(refer), refer_to, silent == "1")
            named = replaced(refer_to)
            if named is None:
                self._on_event(event)
            else:
                self._commands.put(partial(self._name, named, event))

    def hold(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.renegotiate(hold=True))

    def resume(self, handle: Handle) -> None:
        self._with_call(handle, lambda call: call.renegotiate(hold=False))

    def register(self, trunk: Trunk, wanted: bool = True) -> None:
        if t.registrar_uri(trunk) is None:
            return
        one = self._registrations.setdefault(trunk.name, _Registering())
        one.wanted, one.unsaid = wanted, True
        self._send_register(trunk.name)

    def _send_register(self, trunk: str) -> None:
        one = self._registrations[trunk]
        one.cancel()
        wanted = one.wanted

        def perform() -> None:
            try:
                self._accounts[trunk].setRegistration(wanted)
            except pj.Error as error:
                if error.status != BUSY:  # else the answer to the one before is still to come
                    self.registered(trunk, 0 if wanted else 200, _why(error), 0, 0)

        self._commands.put(perform)

    def registered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        """From any thread."""
        self.call_soon_safe(partial(self._registered, trunk, code, reason, expires_s, retry_after_s))

    def _registered(self, trunk: str, code: int, reason: str, expires_s: int, retry_after_s: int) -> None:
        """On the loop. PJSIP would renew 5 s before the end: we do at half time, as it is too late to learn of a
        failure then; and only we draw back from a registrar that refuses."""
        one, now = self._registrations.get(trunk), self._clock.now()
        if one is None or self._owner is None or self._loop is None:
            return
        if not one.wanted:
            if expires_s:  # it was on its way
                self._send_register(trunk)
            else:
                one.state = Registration()
                self._on_event(Registered(trunk, code, reason, 0))
            return
        was = one.state.left_s(now) > 0 and not one.state.failures
        next_s = one.state.answered(code, expires_s, now, retry_after_s)
        one.cancel()
        one.timer = self._loop.call_later(next_s, self._send_register, trunk)
        if one.unsaid or not was or one.state.failures:
            one.unsaid = False
            retry_s = round(next_s) if one.state.failures else 0
            self._on_event(Registered(trunk, code, reason, one.state.left_s(now), retry_s))

    def ping(self, trunk: Trunk) -> None:
        uri = t.ping_uri(trunk)
        if uri is None:
            return

        def perform() -> None:
            param = pj.SendRequestParam()
            param.method = "OPTIONS"
            param.txOption.targetUri = uri
            try:
                self._accounts[trunk.name].sendRequest(param)
            except pj.Error as error:
                self.call_soon_safe(partial(self._ponged, trunk.name, 0, _why(error)))

        assert self._loop is not None
        if trunk.name in self._pings:
            self._pings[trunk.name].cancel()
        self._pings[trunk.name] = self._loop.call_later(PING_S, self._ponged, trunk.name, 0, "")
        self._commands.put(perform)

    def _ponged(self, trunk: str, code: int, reason: str) -> None:
        """On the loop. 408 is PJSIP giving up on a ping of which we have told long ago."""
        if code == 408:
            return
        deadline = self._pings.pop(trunk, None)
        if deadline is not None:
            deadline.cancel()
        elif code == 0:  # refused at once: PJSUA has told it by its callback, too
            return
        self._on_event(Pinged(trunk, code, reason))

    def accept_calls(self, accept: bool, retry_after_s: int = 30) -> None:
        self._accepting, self._retry_after_s = accept, retry_after_s
        self._admit()

    def _admit(self) -> None:
        """From any thread, whenever a call comes or goes: the loop may be late, an INVITE of a flood is not. With no
        port left, PJSUA would look for one in the whole range, and all of SIP would wait."""
        if self._front is not None:
            self._front.accept(self._accepting and len(self._calls) < self._max_calls, self._retry_after_s)

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
        refers = sum(map(int, self._refers.counters().split()))
        return FrontCounters(strangers, over_rate, bad_digest + muted, full, malformed, refers)

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

    def _with_call(self, handle: Handle, perform: "Callable[[_Call], None]") -> None:
        def command() -> None:
            call = self._calls.get(handle)
            if call is not None and not call.is_over:
                perform(call)

        self._commands.put(command)

    def in_owner(self, call: "_Call", perform: Callable[[], None], after_s: float = 0.0) -> None:
        """From any thread; nothing when the call is over by then."""

        def later() -> None:
            self._with_call(call.handle, lambda _: perform())

        if after_s:
            self.call_later_safe(after_s, later)
        else:
            later()

    # --- the tick (loop) ---

    def _tick(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        full = len(self._buffer) // RECORD_BYTES
        read = count = self._read_lines()
        while count == full:  # we were away: the rings hold more, and no more than they hold
            count = self._read_lines()
        if read:
            self._on_frames()

    def _read_lines(self) -> int:
        lines, view, unpack, size = self.lines, self._view, RECORD.unpack_from, RECORD.size
        count: int = self.bridge.read(self._buffer)
        for at in range(0, count * RECORD_BYTES, RECORD_BYTES):
            index, flags, position_ms, taken_ms, _ = unpack(self._buffer, at)
            line = lines[index]
            if line is None or line.sink is None:
                continue
            try:
                if flags & FRAME_THERE:
                    line.sink.frame(bytes(view[at + size : at + RECORD_BYTES]), position_ms)
                if taken_ms != line.taken_ms:
                    line.taken_ms = taken_ms
                    if line.sink is not None:  # it may have closed the line
                        line.sink.played(taken_ms)
            except Exception:
                log.exception("a line's sink")
                line.sink = None
            if flags & line.unsaid_flags:
                self._say(line, flags)
        return count

    def _say(self, line: "_Line", flags: int) -> None:
        news, line.unsaid_flags = flags & line.unsaid_flags, line.unsaid_flags & ~flags
        if news & RTP_CAME:
            self._on_event(FirstMedia(line.handle))
        if news & LIMIT_HIT:
            self._on_event(LimitReached(line.handle))

    def _log_notes(self) -> None:
        assert self._loop is not None
        self._notes = self._loop.call_later(NOTES_S, self._log_notes)
        if self._front is None:
            return
        for note in self._front.notes().splitlines():
            log.log(logging.DEBUG if note.startswith("pjsip ") else logging.WARNING, "%s", note)

    # --- the owner thread ---

    def _own(self, started: "asyncio.Future[None]") -> None:
        error: Exception | None = None
        try:
            self._open()
        except Exception as failure:
            error = failure
            self._shut()
            for one in (failure, failure.__cause__):  # whose frames hold the endpoint, and there may be one at a time
                traceback.clear_frames(one.__traceback__ if one is not None else None)

        def tell() -> None:
            if started.done():
                return
            if error is None:
                started.set_result(None)
            else:
                started.set_exception(error)

        self.call_soon_safe(tell)
        if error is not None:
            return
        try:
            while self._perform_next():
                pass
        except BaseException:
            log.critical("the thread that owns PJSIP fails; no call can be made or taken any more", exc_info=True)
            raise
        finally:
            self._shut()

    def _perform_next(self) -> bool:
        try:
            command = self._commands.get(timeout=KEEP_S)
            if command is None:
                return False
            command()
        except queue.Empty:
            pass
        except pj.Error as error:  # the call went away meanwhile
            log.debug("sip command: %s", _why(error))
        except Exception:
            log.exception("sip command")
        self._bury()
        return True

    def _bury(self) -> None:
        now = self._clock.now()
        while self._dead and now - self._dead[0][0] > KEEP_S:
            self._dead.popleft()

    def over(self, call: "_Call", event: Disconnected) -> None:
        """The last of a call. From any thread; the object itself is dropped by the owner."""
        if call.is_over:
            return
        call.is_over = True
        self._commands.put(lambda: self._forget(call))
        line = call.line
        if event.by_us and self._owner is not None:
            self.call_later_safe(LAST_WORD_S, lambda: self._ended(event, line))
        else:
            self.call_soon_safe(lambda: self._ended(event, line))

    def _ended(self, event: Disconnected, line: "_Line | None") -> None:
        """On the loop."""
        for refer in [refer for refer, asked in self._asked.items() if asked.handle == event.handle]:
            del self._asked[refer]
        try:
            self._on_event(event)
        finally:
            if line is not None:
                line.close()

    def _forget(self, call: "_Call") -> None:
        self._calls.pop(call.handle, None)
        self._admit()
        self._dead.append((self._clock.now(), call))

    def _check_build(self) -> None:
        """Raises ConfigError for a PJSIP that cannot do what is asked of it."""
        if not _CURRENT:
            raise ConfigError("sip", "enabled", "PJSIP was built for an older Trunkline: run `make pjsip`")
        for trunk in self._trunks if not TUNED else ():
            if trunk.username:
                key = f"sip.trunks.{trunk.name}.username"
                raise ConfigError(
                    key, trunk.username, "PJSIP as published asks nobody for a password: run `make pjsip`"
                )
            if trunk.refer:
                raise ConfigError(f"sip.trunks.{trunk.name}.refer", True, "PJSIP as published cannot: run `make pjsip`")

    def _open(self) -> None:
        settings = self._settings
        if TUNED:
            pj.Front.quiet()
        self._endpoint = pj.Endpoint()
        self._endpoint.libCreate()
        self._endpoint.libInit(self._endpoint_config())
        if TUNED:
            self._front = pj.Front()
            self._front.start()
            self._front.rates(settings.invites_per_second, settings.invites_per_second_per_source)
            self._front.strangers(0 if settings.strangers == "silent" else int(settings.strangers))
            self.bridge = pj.Bridge(len(self.lines))
            self._refers = pj.Refers()
            self._refers.start(self._refers_fd, int(REFER_WAIT_S * 1000))
        self._listen()
        self._endpoint.libStart()
        for codec in self._endpoint.codecEnum2():
            name = codec.codecId.partition("/")[0].lower()
            wanted = [c.lower() for c in settings.codecs]
            priority = 255 - wanted.index(name) if name in wanted else 0
            self._endpoint.codecSetPriority(codec.codecId, priority)
            if name == "opus" and priority:
                self._take_mono(codec.codecId)
        for trunk in self._trunks:
            account = _Account(self, trunk)
            try:
                account.create(self._account_config(trunk), make_default=trunk is self._trunks[0])
            except pj.Error as error:
                raise ConfigError("sip.trunks", trunk.name, f"a trunk that PJSIP takes ({_why(error)})") from error
            self._accounts[trunk.name] = account
            if self.bridge is not None:
                self.bridge.networks(account.getId(), " ".join(map(str, (*trunk.peers, *trunk.media_peers))))
                self.bridge.codecs(account.getId(), " ".join(trunk.codecs))
        if TUNED:
            self._front.trunks(self._table())
            self.bridge.start(self._event_fd)
        else:
            self._endpoint.audDevManager().setNullDev()

    def _endpoint_config(self) -> Any:
        settings = self._settings
        config = pj.EpConfig()
        config.logConfig.level = 2
        config.logConfig.consoleLevel = 0
        config.logConfig.msgLogging = 0
        user_agent, media = config.uaConfig, config.medConfig
        # A dialog whose BYE nobody answers stays for 32 s: when a trunk dies, all do, and as many may come by another
        user_agent.maxCalls = min(PJSUA_CALLS, 2 * self._max_calls + SPARE_LINES) if TUNED else self._max_calls
        user_agent.threadCnt = 1
        user_agent.userAgent = settings.user_agent
        user_agent.natTypeInSdp = 0  # a=X-nat is nobody's business
        for server in settings.name_servers or _system_name_servers():
            user_agent.nameserver.append(server)
        media.clockRate = media.sndClockRate = PCM_8K.rate_hz
        media.channelCount = 1
        media.ptime = media.audioFramePtime = FRAME_MS
        media.noVad = True
        media.ecTailLen = 0
        media.threadCnt = 1
        media.hasIoqueue = True
        media.quality = RESAMPLER_QUALITY
        media.maxMediaPorts = 2 * user_agent.maxCalls + 10
        media.jbInit, media.jbMinPre = JITTER_START_MS, JITTER_MIN_MS
        media.jbMaxPre, media.jbMax = JITTER_MAX_START_MS, JITTER_MAX_MS
        return config

    def _listen(self) -> None:
        settings = self._settings
        six = "6" if ":" in settings.host else ""
        udp, tcp, tls = (getattr(pj, f"PJSIP_TRANSPORT_{name}{six}") for name in ("UDP", "TCP", "TLS"))
        kinds = [
            ("sip.port", settings.port, udp),
            ("sip.port", settings.port, tcp),
        ]
        if settings.tls_cert is not None:
            kinds.append(
                ("sip.tls_port", settings.tls_port, pj.PJSIP_TRANSPORT_TLS6 if six else pj.PJSIP_TRANSPORT_TLS)
            )
        elif any(trunk.transport == "tls" for trunk in self._trunks):  # for calls of ours only, from any port
            kinds.append(("sip.tls_port", 0, tls))
        for key, port, kind in kinds:
            config = pj.TransportConfig()
            config.port = port
            config.boundAddress = settings.host
            if key == "sip.tls_port":
                self._secure(config.tlsConfig)
            try:
                self._endpoint.transportCreate(kind, config)
            except pj.Error as error:
                why = _why(error)
                if "already in use" in why:
                    raise ConfigError(key, port, "another port: this one is taken") from error
                raise ConfigError(
                    "sip.host", settings.host, f"an address of this machine, and usable files ({why})"
                ) from error

    def _secure(self, tls: Any) -> None:
        settings = self._settings
        if settings.tls_cert is not None:
            tls.certFile, tls.privKeyFile = str(settings.tls_cert), str(settings.tls_key)
        tls.CaListFile = str(settings.tls_ca or _system_certificates())
        tls.msecTimeout = TLS_HANDSHAKE_MS  # else who connects and stays silent keeps a socket
        tls.verifyServer = True
        tls.verifyClient = tls.requireClientCert = settings.tls_verify_client

    def _take_mono(self, codec_id: str) -> None:
        """RFC 7587 6.1: neither received nor sent in stereo. PJMEDIA would add up the two channels: twice as loud, and
        clipped."""
        param = self._endpoint.codecGetParam(codec_id)
        for name in ("stereo", "sprop-stereo"):
            one = pj.CodecFmtp()
            one.name, one.val = name, "0"
            param.setting.decFmtp.append(one)
        self._endpoint.codecSetParam(codec_id, param)

    def _account_config(self, trunk: Trunk) -> Any:
        settings = self._settings
        config = pj.AccountConfig()
        secure = trunk.transport == "tls"
        own = settings.advertised_address if self._is_outside(trunk) else None
        host = own or settings.host
        user = trunk.contact_user or trunk.auth_username or "trunkline"
        config.idUri = t.address_of_record(trunk) or f"sip:trunkline@{_bracketed(host)}"
        if trunk.auth_username is not None:
            credentials = pj.AuthCredInfo("digest", "*", trunk.auth_username, 0, trunk.auth_password or "")
            config.sipConfig.authCreds.append(credentials)
        proxy = t.proxy_uri(trunk)
        if proxy is not None:
            config.sipConfig.proxies.append(proxy)
        if own is not None:
            port = settings.tls_port if secure else settings.port
            suffix = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
            contact = user if trunk.registers else "trunkline"
            config.sipConfig.contactForced = f"<sip:{contact}@{_bracketed(own)}:{port}{suffix}>"
        registration = config.regConfig
        registration.registerOnAdd = False
        registration.registrarUri = t.registrar_uri(trunk) or ""
        registration.timeoutSec = trunk.register_expires_s
        registration.retryIntervalSec = registration.firstRetryIntervalSec = 0  # registration.py's
        registration.unregWaitMsec = UNREGISTER_MS
        nat, media, calls = config.natConfig, config.mediaConfig, config.callConfig
        nat.contactRewriteUse = nat.viaRewriteUse = nat.sdpNatRewriteUse = nat.sipOutboundUse = 0
        quirks = trunk.quirks
        calls.timerUse, calls.prackUse = SESSION_TIMER[quirks.session_timer], PRACK[quirks.prack]
        calls.timerMinSESec, calls.timerSessExpiresSec = quirks.min_se_s, quirks.session_expires_s
        media.lockCodecEnabled = False  # a re-INVITE after each answer that names two codecs
        media.streamKaEnabled = False
        media.srtpUse = {
            "off": pj.PJMEDIA_SRTP_DISABLED,
            "optional": pj.PJMEDIA_SRTP_OPTIONAL,
            "required": pj.PJMEDIA_SRTP_MANDATORY,
        }[trunk.srtp]
        media.srtpSecureSignaling = 1 if trunk.srtp == "required" else 0
        rtp = media.transportConfig
        rtp.port, rtp.portRange = settings.rtp_port_min, settings.rtp_port_max - settings.rtp_port_min
        rtp.randomizePort = True  # each trunk goes round the range from somewhere else; a port rests for a whole round
        if settings.host not in ("0.0.0.0", "::"):
            rtp.boundAddress = settings.host
        if own is not None:
            rtp.publicAddress = own
        if ":" in settings.host:
            media.ipv6Use = pj.PJSUA_IPV6_ENABLED
        return config

    def _is_outside(self, trunk: Trunk) -> bool:
        """Whether this trunk's peers see us by the advertised address."""
        inside = self._settings.local_networks
        return not trunk.peers or not all(
            any(peer.version == net.version and peer.subnet_of(net) for net in inside)  # type: ignore[arg-type]
            for peer in trunk.peers
        )

    def _table(self) -> str:
        """As Front.trunks reads it."""
        rows: list[str] = []
        for trunk in self._trunks:
            account, user, password = self._accounts[trunk.name].getId(), trunk.username or "", trunk.password or ""
            shown = f"{trunk.name}\t{account}\t{user}\t{password}\t{','.join(trunk.digest_algorithms)}"
            rows += (f"{peer}\t{shown}" for peer in trunk.peers)
        return "\n".join(rows)

    def _shut(self) -> None:
        """Every call hung up, every registration taken back, every thread stopped."""
        if self._refers is not None:
            self._refers.stop()
        with contextlib.suppress(Exception):
            self._endpoint.hangupAllCalls()
        for account in self._accounts.values():
            if account.bound:
                with contextlib.suppress(pj.Error):
                    account.setRegistration(False)
        deadline = self._clock.now() + CLOSE_S
        while self._is_busy() and self._clock.now() < deadline:
            with contextlib.suppress(queue.Empty):
                command = self._commands.get(timeout=0.05)
                if command is not None:
                    command()
        if self.bridge is not None:
            self.bridge.stop()
        with contextlib.suppress(queue.Empty):  # what came too late, which holds calls as well
            while True:
                self._commands.get_nowait()
        self._calls.clear()  # before the endpoint goes, which they would ask
        self._dead.clear()
        self._accounts.clear()
        with contextlib.suppress(Exception):
            self._endpoint.libDestroy()
        self._endpoint = None

    def _is_busy(self) -> bool:
        return any(not call.is_over for call in self._calls.values()) or any(
            account.bound for account in self._accounts.values()
        )

    # --- from callbacks (PJSIP's threads) ---

    def incoming(self, account: "_Account", param: Any) -> None:
        call = _Call(self, account, param.callId, Handle(next(self._handles)))
        self._calls[call.handle] = call
        self._admit()
        call_id = call.getInfo().callIdString
        source = str(param.rdata.srcAddress)
        trunk = self._trunk_of(call_id, source)
        if trunk is None or not self._accepting:  # only without the Front, which would not have let it through
            call.by_us = True
            call.hangup(_operation(403 if trunk is None else 503))
            return
        transport = _transport_of(param.rdata.wholeMsg)
        self._post(Incoming(call.handle, trunk, call_id, source, transport, param.rdata.wholeMsg))

    def drop(self, call_id: int) -> None:
        """A call we failed to take."""
        for call in tuple(self._calls.values()):
            if call.getId() == call_id:
                call.by_us = True
                self._with_call(call.handle, lambda call: call.hangup(_operation(500)))
                return

    def _trunk_of(self, call_id: str, source: str) -> str | None:
        if self._front is not None:
            return self._front.trunk_of(call_id) or None
        found = t.find_trunk(self._trunks, source.rpartition(":")[0])
        return None if found is None else found.name

    def pinged(self, account: "_Account", code: int, reason: str) -> None:
        for name, other in self._accounts.items():
            if other is account:
                self.call_soon_safe(partial(self._ponged, name, code, reason))
                return

    def media_up(self, call: "_Call") -> None:
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
            call.line = _Line(self, call.handle, index)
        call.line.codec, call.codec, call.srtp = codec, codec, srtp == "1"
        event = MediaUp(call.handle, call.line, codec, call.srtp, events == "1", direction)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._claimed, call.line, event)

    def _claimed(self, line: "_Line", event: MediaUp) -> None:
        if not line.closed:
            self.lines[line.index] = line
            self._on_event(event)

    def _published_media_up(self, call: "_Call") -> None:
        info = call.getInfo()  # held: its media lie in it
        for index, media in enumerate(info.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status != pj.PJSUA_CALL_MEDIA_ACTIVE:
                continue
            stream = call.getStreamInfo(index)
            codec = f"{stream.codecName}/{stream.codecClockRate}"
            if call.port is None:
                call.port = _PublishedPort(self, call.handle, call.limit_frames)
            audio = call.getAudioMedia(index)
            audio.startTransmit(call.port)
            call.port.startTransmit(audio)
            call.port.line.codec = call.codec = codec
            self._post(MediaUp(call.handle, call.port.line, codec, False, True))
            return

    def call_later_safe(self, after_s: float, perform: Callable[[], None]) -> None:
        """On the loop, from any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, after_s, perform)

    def call_soon_safe(self, perform: Callable[[], None]) -> None:
        """On the loop, from any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(perform)

    def say(self, event: Event) -> None:
        self._on_event(event)

    def post(self, event: Event) -> None:
        self._post(event)

    def limit_reached(self, handle: Handle) -> None:
        """Without the bridge, the limit is ours to keep."""
        self.hang_up(handle)
        self._on_event(LimitReached(handle))


# --- calls and accounts ---------------------------------------------------------------------------------------------


class _Call(pj.Call):
    def __init__(self, stack: PjsipStack, account: "_Account", call_id: int, handle: Handle) -> None:
        super().__init__(account, call_id)
        self.stack, self.handle, self.quirks = stack, handle, account.trunk.quirks
        self.outbound = self._opening = call_id == NO_CALL
        self.by_us = self.is_over = self._dialled = False
        self.limit_frames = 0
        self.line: _Line | None = None
        self.port: _PublishedPort | None = None
        self.codec = ""
        self.srtp = False
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
            self.stack.post(Confirmed(self.handle))
        elif self.outbound and info.state == pj.PJSIP_INV_STATE_EARLY:
            self.stack.post(Progress(self.handle, info.lastStatusCode, info.lastReason))

    # --- REFER ---

    def send_refer(self, send: Callable[[], None]) -> None:
        self._refers = True
        try:
            send()
        except pj.Error as error:
            self._referred(0, _why(error), notify=False, final=True)

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
        operation = _operation(0)
        try:
            if hold:
                self.setHold(operation)
            else:
                operation.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.reinvite(operation)
        except pj.Error as error:  # another re-INVITE is under way, theirs or a session timer's
            log.debug("re-INVITE: %s", _why(error))
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
        try:
            self.stack.media_up(self)
        except pj.Error as error:
            log.debug("onCallMediaState: %s", _why(error))
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
            log.debug("no statistics: %s", _why(error))
        except Exception:
            log.exception("onStreamDestroyed")


class _Account(pj.Account):
    def __init__(self, stack: PjsipStack, trunk: Trunk) -> None:
        super().__init__()
        self.stack, self.trunk = stack, trunk
        self.bound = False
        """The registrar knows us."""

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
        self.stack.pinged(self, code, reason)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A REFER of the far end, until it is refused or its call over."""

    handle: Handle
    cseq: int
    named: bool
    """It is not the call's first."""


class _Registering:
    """A trunk's registration, as the loop sees it."""

    def __init__(self) -> None:
        self.wanted = self.unsaid = True
        self.state = Registration()
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Line:
    """`stack.Line` over the bridge."""

    def __init__(self, stack: PjsipStack, handle: Handle, index: int) -> None:
        self.sink: LineSink | None = None
        self.codec = ""
        self.handle, self.index = handle, index
        self.taken_ms = 0
        self.unsaid_flags = RTP_CAME | LIMIT_HIT
        self.closed = False
        self._stack, self._bridge = stack, stack.bridge

    def write(self, audio: bytes, continues: bool) -> int:
        return 0 if self.closed else max(0, int(self._bridge.write(self.index, audio, continues)))

    def clear(self) -> int:
        return 0 if self.closed else int(self._bridge.clear(self.index))

    def counters(self) -> LineCounters:
        if self.closed:
            return LineCounters()
        taken, replaced, cleared, overrun, missing, strange, quiet_ms = map(
            int, self._bridge.counters(self.index).split()
        )
        return LineCounters(taken, replaced, cleared, overrun, missing, strange, quiet_ms / 1000)

    def close(self) -> None:
        """Here and nowhere else is the bridge's line given back: its next user must not hear what we still say."""
        if not self.closed:
            self.closed, self.sink = True, None
            if self._stack.lines[self.index] is self:
                self._stack.lines[self.index] = None
            self._bridge.close(self.index)


# --- the published wheel --------------------------------------------------------------------------------------------


class _PublishedPort(pj.AudioMediaPort):
    """A call's audio in Python callbacks, on PJSIP's clock thread. Good for four calls and a first try."""

    def __init__(self, stack: PjsipStack, handle: Handle, limit_frames: int) -> None:
        super().__init__()
        format = pj.MediaFormatAudio()
        format.init(pj.PJMEDIA_FORMAT_PCM, PCM_8K.rate_hz, 1, FRAME_MS * 1000, 16)
        self.createPort("line", format)
        self.line = _PublishedLine()
        self._stack, self._handle, self._limit_frames = stack, handle, limit_frames
        self._pinned = False

    def onFrameReceived(self, frame: Any) -> None:
        if not self._pinned:  # one thread state for good, instead of one made and destroyed at every callback
            ctypes.pythonapi.PyGILState_Ensure()
            self._pinned = True
        line = self.line
        audio = b""
        if frame.size == PCM_8K.frame_bytes:
            data = ctypes.c_void_p.from_address(int(frame.buf.this)).value  # std::vector's first member: its data
            audio = g711.encode(ctypes.string_at(data, frame.size), "mulaw") if data else b""
        position_ms, line.position_ms = line.position_ms, line.position_ms + FRAME_MS
        taken_ms = line.taken_ms
        self._stack.call_soon_safe(lambda: self._deliver(audio, position_ms, taken_ms))

    def onFrameRequested(self, frame: Any) -> None:
        line = self.line
        frame.type = pj.PJMEDIA_FRAME_TYPE_NONE
        with contextlib.suppress(IndexError):
            pcm = g711.decode(line.said.popleft(), "mulaw")
            line.taken_ms += FRAME_MS
            frame.buf.resize(len(pcm))
            ctypes.memmove(ctypes.c_void_p.from_address(int(frame.buf.this)).value or 0, pcm, len(pcm))
            frame.size = len(pcm)
            frame.type = pj.PJMEDIA_FRAME_TYPE_AUDIO

    def _deliver(self, audio: bytes, position_ms: int, taken_ms: int) -> None:
        line = self.line
        if position_ms == 0:
            self._stack.say(FirstMedia(self._handle))
        if self._limit_frames and position_ms == self._limit_frames * FRAME_MS:
            self._stack.limit_reached(self._handle)
        if line.sink is None:
            return
        if audio:
            line.sink.frame(audio, position_ms)
        if taken_ms != line.told_ms:
            line.told_ms = taken_ms
            line.sink.played(taken_ms)


class _PublishedLine:
    """`stack.Line` of a _PublishedPort."""

    def __init__(self) -> None:
        self.sink: LineSink | None = None
        self.codec = ""
        self.position_ms = self.taken_ms = self.told_ms = self.cleared_frames = 0
        self.said: deque[bytes] = deque(maxlen=64)

    def write(self, audio: bytes, continues: bool) -> int:
        size = MULAW_8K.frame_bytes
        self.said.extend(audio[at : at + size] for at in range(0, len(audio) - size + 1, size))
        return len(self.said) * FRAME_MS

    def clear(self) -> int:
        dropped = 0
        with contextlib.suppress(IndexError):
            while True:
                self.said.popleft()
                dropped += 1
        self.cleared_frames += dropped
        return dropped * FRAME_MS

    def counters(self) -> LineCounters:
        return LineCounters(taken_frames=self.taken_ms // FRAME_MS, cleared_frames=self.cleared_frames)

    def close(self) -> None:
        self.sink = None


# --- small things ---------------------------------------------------------------------------------------------------


def _operation(code: int, reason: str = "", headers: Headers = ()) -> Any:
    operation = pj.CallOpParam(True)
    operation.statusCode = code
    operation.reason = reason
    operation.opt.videoCount = 0
    with contextlib.suppress(AttributeError):
        operation.opt.textCount = 0  # else T.140: two more sockets a call, and 200 ms when it ends
    for name, value in headers:
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        operation.txOption.headers.append(header)
    return operation


def _lines_of(settings: Sip) -> int:
    """How many calls the RTP ports carry, two each, with some to rest."""
    return max(1, (settings.rtp_port_max - settings.rtp_port_min + 1) // 2 - SPARE_LINES)


def _frames(limit_s: float) -> int:
    return int(limit_s * 1000) // FRAME_MS


def _redirection(response: str) -> tuple[int, str] | None:
    """What was answered; PJSIP itself makes a 487 of every redirection that is not followed."""
    found = re.match(r"SIP/2\.0 (3[0-9][0-9])(?: ([^\r\n]*))?", response)
    return (int(found[1]), found[2] or "") if found else None


def _why(error: Any) -> str:
    return str(getattr(error, "reason", error))


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


def _transport_of(message: str) -> Transport:
    """By the topmost Via, which the sender wrote."""
    via = (parse_head(message).items("via") or ("",))[0].upper()
    return "tls" if "/TLS" in via else "tcp" if "/TCP" in via else "udp"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _system_name_servers() -> list[str]:
    """Without any, PJSIP would ask the C library, which blocks."""
    try:
        with open("/etc/resolv.conf", encoding="ascii", errors="replace") as file:
            return re.findall(r"^\s*nameserver\s+([0-9.]+)\s*$", file.read(), re.MULTILINE)
    except OSError:
        return []


def _system_certificates() -> str:
    import ssl

    return ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
