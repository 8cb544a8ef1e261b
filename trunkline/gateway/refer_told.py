"""What is told to who sent a REFER: NOTIFYs with the new call's progress (RFC 3515 2.4.4 and 2.4.5, RFC 6665). A plain
state machine: one NOTIFY is out at a time, so none overtakes another; of what happens meanwhile the latest is said."""

from dataclasses import dataclass

EXPIRES_S = 180
"""Longer than any ringing of ours."""
PHRASES = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    410: "Gone",
    480: "Temporarily Unavailable",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    607: "Unwanted",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One NOTIFY."""

    said: str
    """The line of its message/sipfrag."""
    state: str
    """Its Subscription-State."""


class Subscription:
    """Of one REFER that was accepted. Each method returns the NOTIFY that is to be sent now."""

    def __init__(self, *, silent: bool = False) -> None:
        """`silent`: nobody subscribed (Refer-Sub: false)."""
        self._over = silent
        self._out = False
        self._next: int | None = None
        self._last = 0

    def says(self, status: int) -> Notice | None:
        """The new call's progress: 100, 180 ..., then one final status, after which nothing more is said."""
        if self._over or self._last >= 200 or status == self._last:
            return None
        self._last = self._next = status
        return self._due()

    def answered(self, code: int) -> Notice | None:
        """The last NOTIFY was, with `code`; 0: by nobody. Who refuses one has unsubscribed (RFC 6665 4.1.2.2)."""
        self._out = False
        if code // 100 != 2:
            self._over = True
        return self._due()

    def _due(self) -> Notice | None:
        status = self._next
        if status is None or self._out or self._over:
            return None
        self._out, self._next, self._over = True, None, status >= 200
        state = "terminated;reason=noresource" if status >= 200 else f"active;expires={EXPIRES_S}"
        return Notice(f"SIP/2.0 {status} {PHRASES.get(status, '')}", state)
