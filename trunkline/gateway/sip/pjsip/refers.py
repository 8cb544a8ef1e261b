"""REFERs of far ends: taken from our build's Refers (refers.cpp), which holds each until it is answered here or its
time is out. All on the loop, but for what is said to be the owner's."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from trunkline.gateway.sip.pjsip.owner import Owner
from trunkline.gateway.sip.stack import REFER_WAIT_S, Event, Handle, Headers, ReferAsked, ReferTold
from trunkline.gateway.transfer_refer import Replaces, replaced


class Asking(Protocol):
    """The call whose far end asks."""

    handle: Handle
    was_asked: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """A REFER, until it is refused or its call over."""

    handle: Handle
    cseq: int
    named: bool
    """It is not the call's first."""


class Refers:
    def __init__(self, owner: Owner, live: Callable[[int], Asking | None], tell: Callable[[Event], None]) -> None:
        """`live`: a call that is not over, by PJSUA's id."""
        self._owner, self._live, self._tell = owner, live, tell
        self._native: Any = None
        self._asked: dict[int, _Asked] = {}
        self._named: dict[tuple[str, str, str], Handle] = {}

    def start(self, native: Any, event_fd: int) -> None:
        """In the owner's thread, as is `stop`."""
        self._native = native
        native.start(event_fd, int(REFER_WAIT_S * 1000))

    def stop(self) -> None:
        if self._native is not None:
            self._native.stop()

    def answer(self, refer: int, code: int, reason: str = "", headers: Headers = ()) -> bool:
        if self._native is None or not self._native.take(refer):
            return False
        if code // 100 != 2:
            self._asked.pop(refer, None)
        lines = "\n".join(f"{name}: {value}" for name, value in headers)
        self._owner.put(lambda: self._native.answer(refer, code, reason, lines))
        return True

    def notice(self, refer: int, said: str, state: str) -> Callable[[int], None] | None:
        """A NOTIFY, to be sent by the owner with PJSUA's id of the call. None: the REFER was refused, or its call is
        over."""
        asked = self._asked.get(refer)
        if asked is None:
            return None

        def send(pj_id: int) -> None:
            if self._native.notify(refer, pj_id, asked.cseq, asked.named, state, said):
                self._owner.soon(partial(self._tell, ReferTold(asked.handle, refer, 0)))

        return send

    def dialog(self, call_id: str, one_tag: str, other_tag: str) -> Handle | None:
        """Of what the REFER named that is being asked about: looked up before, as PJSIP's locks may be waited for."""
        return self._named.get((call_id, one_tag, other_tag))

    def news(self, event_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(event_fd)
        for line in self._native.news().splitlines():
            kind, refer, number, *rest = line.split("\t", 5)
            if kind == "told":
                asked = self._asked.get(int(refer))
                if asked is not None:
                    self._tell(ReferTold(asked.handle, int(refer), int(number)))
                continue
            call, (cseq, silent, refer_to) = self._live(int(number)), rest
            if call is None:
                self.answer(int(refer), 487)  # RFC 3261 15.1.2
                continue
            self._asked[int(refer)] = _Asked(call.handle, int(cseq), call.was_asked)
            call.was_asked = True
            event = ReferAsked(call.handle, int(refer), refer_to, silent == "1")
            named = replaced(refer_to)
            if named is None:
                self._tell(event)
            else:
                self._owner.put(partial(self._look_up, named, event))

    def forget(self, handle: Handle) -> None:
        """Its call is over."""
        for refer in [refer for refer, asked in self._asked.items() if asked.handle == handle]:
            del self._asked[refer]

    def counted(self) -> int:
        """Those that were refused without us."""
        return 0 if self._native is None else sum(map(int, self._native.counters().split()))

    def _look_up(self, named: Replaces, event: ReferAsked) -> None:
        """In the owner's thread."""
        key = named.call_id, named.from_tag, named.to_tag
        pj_id = self._native.call_of(*key)
        self._owner.soon(lambda: self._ask(key, pj_id, event))

    def _ask(self, key: tuple[str, str, str], pj_id: int, event: ReferAsked) -> None:
        other = self._live(pj_id)
        self._named = {} if other is None else {key: other.handle}
        self._tell(event)
        self._named = {}
