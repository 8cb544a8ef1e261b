"""Has the caller finished? A guess from the words alone, for English: the rule-based `ports.TurnDetector`.

What a sentence cannot end with ("and", "my number is") says no; a whole question, courtesy or sentence says yes; the
rest is open. Silence is the turn machine's business.
"""

import re

UNFINISHED, OPEN, FINISHED, SURE = 0.05, 0.5, 0.8, 0.95

# A word after which English goes on.
_JOINS = re.compile(
    r"a|an|the|and|or|but|because|so|if|when|while|that|which|who|to|of|for|from|with|at|by|in|on|about|into|my|your|"
    r"his|her|our|their|its|this|these|those|is|are|was|were|am|be|i|i'm|i'd|i'll|we|we're|you|it's|there's|um|uh|er|"
    r"erm|hmm|like|well|actually|just|very|really|between|than|as|not|have|has|can|could|would|should|will|want|need"
)
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
    if _JOINS.fullmatch(words[-1].replace("’", "'")) and not stripped.endswith(("?", "!", ".")):
        return UNFINISHED
    if stripped.endswith(("?", "!", ".")):
        return SURE
    if words[-1] in ("please", "thanks") or len(words) >= 4:
        return FINISHED
    return OPEN


class RuleTurnDetector:
    name = "rules"
    third_party = False

    async def start(self) -> None: ...

    async def probability(self, text: str, language: str) -> float:
        """Of other languages than English it knows nothing: OPEN."""
        if not language.lower().startswith("en"):
            return OPEN if text.strip() else 0.0
        return end_of_turn(text)

    async def close(self) -> None: ...
