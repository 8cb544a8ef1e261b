"""Diversion (RFC 8946): a call that was sent on brings the first token, and a `div` for each time.

shaken  dest = the number first dialled      div  div = that, dest = the next      ...      dest = us"""

from collections.abc import Sequence

from trunkline.compliance.stir.canonical import Who
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.token import Passport


def chain(tokens: Sequence[Passport], called: Who) -> tuple[Passport, ...]:
    """The tokens that lead from whom the caller dialled to `called`, the caller's own first. Raises Rejected where they
    do not link, or do not agree about who called."""
    last = [token for token in tokens if token.ppt == "div" and called in token.dest]
    if not last:
        raise Rejected("dest_mismatch", "no token is for the called number")
    seen: set[bytes] = set()
    for token in sorted(last, key=_order):
        found = _back(token, tokens, (token,), seen)
        if found is not None:
            if any(each.orig != found[0].orig for each in found):
                raise Rejected("diversion_broken", "the tokens of a diversion name different callers")
            return found
    raise Rejected("diversion_broken", "no token is for the number that a diversion came from")


def _back(
    token: Passport, tokens: Sequence[Passport], links: tuple[Passport, ...], seen: set[bytes]
) -> tuple[Passport, ...] | None:
    """`seen`: those from which no way leads back to a caller, or which are on this one."""
    seen.add(token.signing_input)
    before = [each for each in tokens if token.div in each.dest and each.signing_input not in seen]
    for each in sorted(before, key=_order):
        if each.ppt != "div":
            return (each, *links)
        if each.signing_input not in seen and (found := _back(each, tokens, (each, *links), seen)) is not None:
            return found
    return None


def _order(token: Passport) -> tuple[bool, str, bytes]:
    """Not as they came: who forwards may turn headers around."""
    return token.ppt == "div", token.attest or "Z", token.signing_input
