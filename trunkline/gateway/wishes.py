"""What a caller wishes, performed: one for each call.

Never call again: the revocation goes to the ledger (at once in force in this process, then on disk), then it is
confirmed in the call's language, whole, and the call ends. What could not be written is said to be, and is in force as
long as this process lives. Whoever hangs up before the confirmation has said it all the same.
"""

import asyncio
import logging
from typing import Any, Protocol

from trunkline.clock import Clock
from trunkline.compliance.confirmations import Confirmation, confirmation
from trunkline.ports import CapturedBy, Consents, Revocation, Wish, WishKind
from trunkline.types import CallId, TenantId

ON_DISK_S = 1.0
"""A disk that is slower is broken: nobody is kept waiting for it."""
KEYS_S = 3.0
"""From the first key of several to the last."""
TOLD_KEY = "9"
"""Where the settings name none: of callers who were told of it in the opening lines."""

log = logging.getLogger(__name__)


class Host(Protocol):
    """The call."""

    @property
    def id(self) -> CallId: ...

    @property
    def tenant(self) -> TenantId: ...

    @property
    def other_number(self) -> str | None:
        """Theirs, whoever called; None where it is withheld."""
        ...

    @property
    def language(self) -> str: ...

    @property
    def digits_awaited(self) -> bool: ...

    @property
    def told_how_to_opt_out(self) -> bool:
        """The opening lines say so, or will."""
        ...

    def event(self, kind: str, **data: Any) -> None: ...

    def opted_out(self, line: str) -> None:
        """Say it whole, and end the call."""
        ...

    def keep_nothing(self, wish: Wish) -> None: ...

    def crashed(self, error: BaseException) -> None: ...


class CallWishes:
    def __init__(
        self, host: Host, consents: Consents, clock: Clock, opt_out_key: str = "", withdraw_key: str = ""
    ) -> None:
        self._host, self._consents, self._clock = host, consents, clock
        self._keys: dict[str, WishKind] = {}
        if opt_out_key:
            self._keys[opt_out_key] = "do_not_call"
        if withdraw_key:
            self._keys[withdraw_key] = "keep_nothing"
        self._has_opt_out_key = bool(opt_out_key)
        self._keyed = ""
        self._keyed_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.opted_out = False

    def wished(self, wish: Wish) -> None:
        """Idempotent: who says it twice is confirmed once."""
        if wish.kind == "keep_nothing":
            self._host.keep_nothing(wish)
            return
        if self.opted_out:
            return
        self.opted_out = True
        host, number = self._host, self._host.other_number
        if number is not None:
            self._consents.revoke(
                Revocation(
                    host.tenant,
                    number,
                    self._clock.wall(),
                    wish.via,
                    wish.verbatim,
                    do_not_call=True,
                    call_id=host.id,
                )
            )
        host.event("opted_out", via=wish.via, listed=number is not None)
        self._task = asyncio.get_running_loop().create_task(self._confirm(number is not None))

    async def _confirm(self, listed: bool) -> None:
        try:
            kind: Confirmation = "no_number" if not listed else "opted_out" if await self._on_disk() else "unwritten"
            if kind == "unwritten":
                log.critical("call %s: a number that must not be called again is in memory only", self._host.id)
                self._host.event("opt_out_unwritten")
            self._host.opted_out(confirmation(kind, self._host.language))
        except Exception as error:
            self._host.crashed(error)

    async def _on_disk(self) -> bool:
        try:
            async with asyncio.timeout(ON_DISK_S):
                return await self._consents.on_disk()
        except TimeoutError:
            return False

    def key(self, digit: str) -> bool:
        """Whether it was the last of a wish's keys, and nobody else's."""
        now = self._clock.now()
        before = self._keyed if now - self._keyed_at <= KEYS_S else ""
        self._keyed, self._keyed_at = (before + digit)[-3:], now
        for keys, kind in self._keys.items():
            if self._keyed.endswith(keys) and not (keys[0].isdigit() and self._host.digits_awaited):
                return self._by_key(kind, keys)
        told = not self._has_opt_out_key and self._host.told_how_to_opt_out
        if told and digit == TOLD_KEY and not self._host.digits_awaited:
            return self._by_key("do_not_call", digit)
        return False

    def _by_key(self, kind: WishKind, keys: str) -> bool:
        via: CapturedBy = "keypad"
        self._keyed = ""
        self.wished(Wish(kind, keys, via))
        return True
