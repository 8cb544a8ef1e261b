"""Diversion (RFC 8946): a call that was sent on brings the first token, and a `div` for each time.

shaken  dest = the number first dialled      div  div = that, dest = the next      ...      dest = us"""

from collections.abc import Sequence

from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.token import Passport

MAX_STEPS = 64  # of tokens that name each other there are more ways than anybody wants to walk


def chains(tokens: Sequence[Passport], called: Who) -> list[tuple[Passport, ...]]:
    """The tokens that lead from whom the caller dialled to `called`, the caller's own first; each such way. Raises
    Rejected where they do not link, or do not agree about who called."""
    different = {token.signing_input: token for token in tokens}.values()
    last = [token for token in different if token.ppt == "div" and called in token.dest]
    if not last:
        raise Rejected("dest_mismatch", "no token is for the called number")
    found: list[tuple[Passport, ...]] = []
    disagree = False
    waiting: list[tuple[Passport, ...]] = [(token,) for token in sorted(last, key=_order, reverse=True)]
    for _ in range(MAX_STEPS):
        if not waiting:
            break
        way = waiting.pop()
        first = way[0]
        if first.ppt == "div":
            before = [each for each in different if first.div in each.dest and each not in way]
            waiting += [(each, *way) for each in sorted(before, key=_order, reverse=True)]
        elif all(each.orig == first.orig for each in way):
            found.append(way)
        else:
            disagree = True
    if not found and disagree:
        raise Rejected("diversion_broken", "the tokens of a diversion name different callers")
    if not found:
        raise Rejected("diversion_broken", "no token is for the number that a diversion came from")
    return found


def _order(token: Passport) -> tuple[bool, str, bytes]:
    """Not as they came: who forwards may turn headers around."""
    return token.ppt == "div", token.attest or "Z", token.signing_input
