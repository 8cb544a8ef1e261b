"""What the far end of a dialog is told of a hold of ours, by one re-INVITE at a time. Plain values.

A hold that is refused is let be: the caller hears our music all the same. A resume that is refused is asked for again,
for a far end that still believes itself on hold sends nothing, and the caller would not be heard.
"""

RESUME_TRIES = 3
RESUME_AGAIN_S = 2.0  # glare is over by then (RFC 3261 14.1: 2.1 to 4 s at most, and the stack has waited for it)


class FarHold:
    """`want` and `next` say what is to be asked: True a hold, False a resume, None nothing."""

    def __init__(self) -> None:
        self.told = False
        """The far end has agreed that it is on hold."""
        self._wanted = False
        self._asked: bool | None = None
        self._tries = 0

    def want(self, held: bool) -> bool | None:
        self._wanted, self._tries = held, 0
        return self.next()

    def answered(self, code: int) -> bool:
        """The re-INVITE is over; what it had asked for. Then `next`, at once or, of a refused resume, after
        RESUME_AGAIN_S."""
        asked, self._asked = bool(self._asked), None
        if code == 200:
            self.told = asked
        elif asked:
            self._wanted = self.told
        else:
            self._tries += 1
        return asked

    @property
    def refused(self) -> bool:
        """The last resume was."""
        return self._tries > 0

    def next(self) -> bool | None:
        if self._asked is not None or self._wanted == self.told or self._tries >= RESUME_TRIES:
            return None
        self._asked = self._wanted
        return self._asked
