"""What an attendant tells of its call while it goes on. Nothing is made where nobody follows it."""

import re

from trunkline.agents import turns as t
from trunkline.agents.exchange import Exchange, spoken
from trunkline.live import Follower, Heard, Saying, TurnState
from trunkline.media.bus import Bus
from trunkline.ports import Message

EVERY_S = 0.2
"""How often it is told how far an answer has been heard."""


class Following:
    """Of one attendant."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._state: t.State | None = None
        self._partial = False  # words are shown that may change
        self._said = Saying("", 0)

    def words(self, words: t.Told | None, tell: Follower) -> None:
        """Of the caller, as the turn machine takes them. What was shown of words that come to nothing goes away."""
        if words is None or not (words.text or (words.final and self._partial)):
            return
        self._partial = not words.final
        tell(Heard(words.text, words.final, words.understood))

    def state(self, state: t.State, tell: Follower) -> None:
        """Of the turn machine, where it has changed."""
        if state is not self._state:
            self._state = state
            tell(TurnState(state.value))

    def progress(self, turn: Exchange, tell: Follower) -> None:
        """Of the answer, where there is any since it was told last."""
        text = spoken(turn.messages())
        said = Saying(text, _end_of(text, len(self._bus.heard_text(self._bus.playout.answer_ms).split())))
        if text and said != self._said:
            self._said = said
            tell(said)

    def over(self, messages: list[Message], interrupted: bool, tell: Follower) -> None:
        """`messages`: what the conversation keeps of the answer."""
        text = spoken(messages)
        if text or self._said.text:
            tell(Saying(text, len(text), over=True, cut=interrupted))
        self._said = Saying("", 0)


def _end_of(text: str, words: int) -> int:
    """Where that many of its words end."""
    for count, word in enumerate(re.finditer(r"\S+", text), 1):
        if count == words:
            return word.end()
    return len(text) if words else 0
