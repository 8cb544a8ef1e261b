"""One call's recogniser, listened to for wishes. Plain: its texts and `now` go in, a Wish comes out.

A final decides. What a partial said counts where no final comes of it: the caller has hung up meanwhile, or the
recogniser has failed. Who pauses in the middle ("take me off ... your list") is heard over two finals.
"""

from trunkline.agents.wishes.phrases import wish_of
from trunkline.ports import Wish

JOIN_S = 4.0
"""The longest pause in the middle of a wish."""


class Heeding:
    def __init__(self) -> None:
        self._partial: tuple[str, str] | None = None
        self._last, self._last_at = "", 0.0

    def partial(self, text: str, language: str) -> None:
        self._partial = (text, language) if text else None

    def final(self, text: str, language: str, now: float) -> Wish | None:
        """`text`: as it was understood."""
        before = self._last if now - self._last_at <= JOIN_S else ""
        self._partial, self._last, self._last_at = None, text, now
        wish = wish_of(text, language)
        if wish is None and before and text:
            wish = wish_of(f"{before.rstrip('.?! ,')} {text}", language)
            self._last = "" if wish is not None else text
        return wish

    def lost(self) -> Wish | None:
        """No final comes of what is being said."""
        partial, self._partial = self._partial, None
        return wish_of(*partial) if partial is not None else None
