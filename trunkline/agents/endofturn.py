"""Has the caller finished? A guess from the words alone, for English: the rule-based `ports.TurnDetector`.

What a sentence cannot end with ("and", "my number is") says no; a whole question, courtesy or sentence says yes; the
rest is open, also what often goes on and may well be all ("yes it is", "who is this for"). Silence is the turn
machine's business.
"""

import re
from collections.abc import Mapping
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.errors import ConfigError

UNFINISHED, OPEN, FINISHED, SURE = 0.05, 0.5, 0.8, 0.95

# A word after which English goes on.
_JOINS = re.compile(
    r"a|an|the|and|or|but|because|if|when|while|which|to|of|from|by|into|my|your|his|our|their|its|i|i'm|i'd|i'll|we|"
    r"we're|we'll|you're|it's|he's|she's|there's|um|uh|er|erm|hmm|between|than|as|be|very"
)
# Also one, unless what it stands behind makes an end of it: "who is it for", "yes it is", "I would like that".
_MAY_JOIN = re.compile(
    r"so|that|this|these|those|who|for|with|at|in|on|about|her|is|are|was|were|am|you|like|well|actually|just|really|"
    r"not|have|has|can|could|would|should|will|want|need"
)
# There it is the verb of what it names, and its object is to come.
_NAMES = re.compile(r"(my|our|your|his|their|the|this|that)( [^ ]+){1,3} (is|are|was|were|for|at|on|in|with)")
_WANTS = re.compile(r"(.* )?(i|we|i'd|we'd|i would|we would)( (just|really|also|do))? (want|need|like|have)")
_QUESTION = re.compile(r"(and |so |but )?(what|who|whom|where|when|which|how|why|whose)( .*)?")
# Said alone they are an answer, although some of their words could go on.
_WHOLE = re.compile(
    r"(yes|no|yeah|nope|okay|ok|sure|right|correct|exactly|hello|hi|goodbye|bye|thanks|thank you|never mind|"
    r"that's (all|it|right)|that is (all|right)|nothing else|no thank you|yes please)( (please|thanks|thank you))?"
)


def end_of_turn(text: str) -> float:
    """The probability, 0 to 1, that who said this has finished. No words: 0."""
    stripped = text.strip().lower()
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", stripped)
    if not words:
        return 0.0
    plain = " ".join(words).replace("’", "'")
    if _WHOLE.fullmatch(plain):
        return SURE
    if stripped.endswith(("...", "…", ",", "-", "–")):
        return UNFINISHED
    if stripped.endswith(("?", "!", ".")):
        return SURE
    last = words[-1].replace("’", "'")
    if _JOINS.fullmatch(last):
        return UNFINISHED
    if _MAY_JOIN.fullmatch(last):
        goes_on = _NAMES.search(plain) or _WANTS.fullmatch(plain)
        return UNFINISHED if goes_on and not _QUESTION.fullmatch(plain) else OPEN
    if words[-1] in ("please", "thanks") or len(words) >= 4:
        return FINISHED
    return OPEN


class RuleTurnDetector:
    name = "rules"
    third_party = False

    def __init__(
        self,
        definition: AgentDefinition | None = None,
        options: Mapping[str, Any] | None = None,
        services: Services | None = None,
    ) -> None:
        """Raises ConfigError: it takes no options."""
        self.check_options(options or {})

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            raise ConfigError(key, value, "no such option; the rules take none")

    async def start(self) -> None: ...

    async def probability(self, text: str, language: str) -> float:
        """Of other languages than English it knows nothing: OPEN."""
        if not language.lower().startswith("en"):
            return OPEN if text.strip() else 0.0
        return end_of_turn(text)

    async def close(self) -> None: ...
