"""How soon somebody may try a password again: by account, and by the address they come from.

    an account    5 tries are free, then 1 s, 2, 4 ... 15 min
    an address    20 tries are free, then 1 s, 2, 4 ... 15 min

A try counts as failed as it begins, so that many at once are no way around. An hour without one, and it is forgotten.
It is in memory: a process that starts again has forgotten, and each process counts its own. Loopback addresses are not
counted: behind a proxy everybody has that one, and one of them would keep out all.
"""

import hashlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field

FREE_ACCOUNT = 5
FREE_ADDRESS = 20
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 900.0
FORGOTTEN_S = 3600.0
MOST = 10_000
_DOUBLINGS = 20


@dataclass(slots=True)
class _Tries:
    failed: int = 0
    last: float = 0.0


@dataclass
class _Table:
    free: int
    tries: OrderedDict[str, _Tries] = field(default_factory=OrderedDict)

    def wait_s(self, name: str, now: float) -> float:
        known = self.tries.get(name)
        if known is None or known.failed < self.free or now - known.last >= FORGOTTEN_S:
            return 0.0
        pause = min(FIRST_WAIT_S * 2.0 ** min(known.failed - self.free, _DOUBLINGS), LONGEST_WAIT_S)
        return max(0.0, known.last + pause - now)

    def failed(self, name: str, now: float) -> None:
        known = self.tries.get(name)
        if known is None or now - known.last >= FORGOTTEN_S:
            known = self.tries[name] = _Tries()
        known.failed, known.last = known.failed + 1, now
        self.tries.move_to_end(name)
        while len(self.tries) > MOST:
            self.tries.popitem(last=False)

    def taken_back(self, name: str) -> None:
        if (known := self.tries.get(name)) is not None:
            known.failed = max(0, known.failed - 1)


class Throttle:
    def __init__(self) -> None:
        self._accounts, self._addresses = _Table(FREE_ACCOUNT), _Table(FREE_ADDRESS)

    def begin(self, account: str, address: str, now: float) -> float:
        """Seconds to wait; 0: this is a try, which counts as failed until `passed`. `account`: as it was typed."""
        who, where = _hidden(account), _network(address)
        wait = self._accounts.wait_s(who, now)
        if where is not None:
            wait = max(wait, self._addresses.wait_s(where, now))
        if wait <= 0:
            self._accounts.failed(who, now)
            if where is not None:
                self._addresses.failed(where, now)
        return wait

    def passed(self, account: str, address: str) -> None:
        """The account starts anew; its address gets back this try only, or it would be a way to get back all."""
        self._accounts.tries.pop(_hidden(account), None)
        if (where := _network(address)) is not None:
            self._addresses.taken_back(where)


def _hidden(account: str) -> str:
    """What is typed there may be a password."""
    return hashlib.sha256(account.strip().lower().encode()).hexdigest()


def _network(address: str) -> str | None:
    """Of IPv6 a /64: that many one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address or None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return None
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)
