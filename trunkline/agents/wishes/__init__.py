"""What callers may wish at any time, whatever the agent is doing: never to be called again, nothing to be kept."""

from trunkline.agents.wishes.heeding import Heeding
from trunkline.agents.wishes.phrases import spoken, wish_of

__all__ = ["Heeding", "spoken", "wish_of"]
