"""Which server of a fleet a call's work goes to: always the same, so that a voice never flips in mid-call.

Rendezvous hashing: each session has its own order of the targets, and a target that comes or goes moves only the
sessions that were, or will be, on it. A session stays where it was first answered, also when that server dies: its
requests fail then, and the cascade decides what follows. Until then a target that is known to be down is passed over.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

MAX_SESSIONS = 10_000  # the oldest is forgotten: it goes by the hash alone, which is the same unless targets were down


def ranked(session: str, targets: Sequence[str]) -> list[str]:
    """This session's order of the targets, whatever order they are given in."""
    return sorted(targets, key=lambda target: hashlib.sha256(f"{target}\0{session}".encode()).digest(), reverse=True)


class Fleet:
    def __init__(self, targets: Sequence[str], max_sessions: int = MAX_SESSIONS) -> None:
        self.targets = tuple(targets)
        self._max_sessions = max_sessions
        self._kept: OrderedDict[str, str] = OrderedDict()

    def choices(self, session: str, is_down: Callable[[str], bool]) -> list[str]:
        """Whom to ask, in order: the one that answered before and no other, else all, those that are down last."""
        if (kept := self._kept.get(session)) is not None:
            return [kept]
        return sorted(ranked(session, self.targets), key=is_down)  # a stable sort

    def keep(self, session: str, target: str) -> None:
        """It has answered this session: from now on it alone does. Without a session nothing is kept."""
        if session and session not in self._kept:
            self._kept[session] = target
            if len(self._kept) > self._max_sessions:
                self._kept.popitem(last=False)
