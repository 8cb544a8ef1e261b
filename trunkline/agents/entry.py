"""Digits keyed in secret: a card's number goes from the keypad to the tool that needs it, and nowhere else.

While an entry is open the call's bus is deaf on the caller's side: ears, recogniser, model, recorder and every other
tap of it hear silence, so neither tones nor what is read aloud gets there; and keys come here instead of to the turn
machine. It is open for a while longer than the last key, whose tone may still sound.
"""

import asyncio
from collections.abc import Callable

from trunkline.agents.deadline import After
from trunkline.media.bus import Bus
from trunkline.privacy.sensitive import Sensitive

FIRST_KEY_S, NEXT_KEY_S = 30.0, 8.0
GIVEN_TAIL_S, BROKEN_OFF_TAIL_S = 2.0, 5.0
"""Keys that come so soon after it are still of the number: nobody's business."""
KEYS = "0123456789"


class SecureEntry:
    """One. `digits` is set when it is over."""

    def __init__(self, bus: Bus, after: After, least: int, most: int, clears: Callable[[], None]) -> None:
        """`clears`: the caller wants to begin again (`*`)."""
        self._bus, self._after, self._least, self._most, self._clears = bus, after, least, most, clears
        self._keys: list[str] = []
        self._over = asyncio.Event()
        self._timer = after(FIRST_KEY_S, self._over.set)
        bus.deafen()

    def key(self, key: str) -> None:
        if self._over.is_set():
            return
        if key == "*":
            self._keys.clear()
            self._clears()
        elif key in KEYS:
            self._keys.append(key)
        if key == "#" or len(self._keys) == self._most:
            self._over.set()
            return
        self._timer.cancel()
        self._timer = self._after(NEXT_KEY_S, self._over.set)

    async def digits(self) -> Sensitive | None:
        """What was keyed; None: too little. Cancel-safe: `close` is called in any case."""
        await self._over.wait()
        keyed = "".join(self._keys)
        return Sensitive(keyed) if self._least <= len(keyed) <= self._most else None

    def close(self) -> None:
        """The ears are opened again, once the last tone is over."""
        self._timer.cancel()
        self._keys.clear()
        self._over.set()
        self._bus.hear_again()
