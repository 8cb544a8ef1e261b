"""Which runs of digits may be pieces of one card that is given bit by bit, over several runs of a turn or over turns.

Digits said one by one or in fours always may be. Of others the talk decides: what it is about (a card, an order),
whether the turn holds nothing else, how many digits went before. A piece is hidden where it makes more than
SHOWN_DIGITS of them: no first piece, then, of up to four.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from trunkline.privacy.judging import YEAR, like_card
from trunkline.privacy.spoken import NUMBERS
from trunkline.privacy.tokens import folded

SHOWN_DIGITS = 4
LONG_DIGITS = 8  # from here on nobody doubts that it is one
WHOLE_DIGITS = 15
ANY_DIGITS = 6  # and more: seldom a price, a postal code, a number of a house

SECRET_TURNS, OTHER_TURNS = 12, 2  # of either speaker: what a question was about holds for its answer

_CARD = """
    card cards visa mastercard amex american express discover credit debit
    tarjeta tarjetas credito debito karte kreditkarte kartennummer karten
"""
_SSN = "ssn social sozialversicherung sozialversicherungsnummer"
_OTHER = """
    order confirmation reference booking reservation invoice ticket tracking account customer member policy code
    zip postal phone telephone cell mobile reach call street avenue road
    bestellung bestellnummer buchung rechnung rechnungsnummer kundennummer telefon telefonnummer handynummer
    postleitzahl strasse pedido reserva factura cuenta codigo telefono movil calle
"""
TOPICS = {word: "other" for word in _OTHER.split()}
TOPICS |= {word: "card" for word in _CARD.split()} | {word: "ssn" for word in _SSN.split()}

_FRAMES = "it s is are the that first last es ist sind die son el"
FRAMES = frozenset(_FRAMES.split())
"""Of a turn that is nothing but a number: "it's 411"."""
ASKS_ON = frozenset(("got", "far"))
"""After a piece: "got that?", "so far"."""


@lru_cache(4096)
def topic_of(word: str) -> str | None:
    """Empty: it is about nothing; None: it may stand in a turn that is nothing but a number."""
    word = folded(word)
    return None if word in NUMBERS or word in FRAMES else TOPICS.get(word, "")


MONEY = frozenset("$€£¥")
_UNITS = "dollars dollar bucks euros euro pounds cents percent people miles kilometers units square pesos prozent"
UNITS = frozenset(_UNITS.split())
_TELEPHONE = re.compile(r"\+.*|\(?\d{3}\)?[-. ]+(?:\d{3}[-. ]+)?\d{4}\W*")


@dataclass(slots=True)
class Talk:
    """What both speakers of a call talk of: turns that each topic is still in the air."""

    card: int = 0
    ssn: int = 0
    other: int = 0

    def hear(self, topics: Iterable[str]) -> None:
        for topic in topics:
            if topic == "card":
                self.card = SECRET_TURNS
            elif topic == "ssn":
                self.ssn = SECRET_TURNS
            else:
                self.other = OTHER_TURNS

    def end_turn(self) -> None:
        self.card, self.ssn, self.other = max(0, self.card - 1), max(0, self.ssn - 1), max(0, self.other - 1)

    @property
    def topics(self) -> tuple[int, int, int]:
        return self.card, self.ssn, self.other

    @property
    def secret(self) -> bool:
        return self.card > 0 or self.ssn > 0


class Run(NamedTuple):
    """`words`: with tens and teens, as times and years are said; `bare`: the turn holds nothing else; `closed`: a word
    follows, which does not ask for more; `counts`: it tells how much of something, "$45000"."""

    text: str
    groups: list[str]
    words: bool
    bare: bool
    closed: bool
    counts: bool

    @property
    def digits(self) -> str:
        return "".join(self.groups)

    @property
    def like_telephone(self) -> bool:
        return _TELEPHONE.fullmatch(self.text.strip()) is not None


def may_be_piece(run: Run, before: str, talk: Talk) -> bool:
    """`before`: the digits of the pieces before it."""
    digits, other = run.digits, talk.other and not talk.secret
    count = len(digits)
    if like_card(run.groups):
        return True
    if run.counts:
        return False
    if count < 3:
        return run.bare and not other and (bool(before) or _begins_card(digits, talk))
    if len(before) >= LONG_DIGITS:
        return True
    if run.like_telephone and not talk.secret:
        return False
    if other or (YEAR.fullmatch(digits) and not (before and run.bare)):
        return False
    if run.words:
        return count >= 4 and (run.bare or talk.secret) and (bool(before) or _begins_card(digits, talk))
    if before:
        return run.bare or talk.secret or count >= 4
    if not _begins_card(digits, talk):
        return False
    return run.bare or talk.secret or count >= ANY_DIGITS or (count >= 4 and max(map(len, run.groups)) >= 3)


def is_hidden(run: Run, before: str, talk: Talk) -> bool:
    """Of one that may be a piece."""
    digits = run.digits
    if len(before) + len(digits) <= SHOWN_DIGITS:
        return False
    if before:
        return len(digits) >= 3 or talk.secret or len(before) >= LONG_DIGITS
    if not run.closed and like_card(run.groups):
        return True
    if (talk.other and not talk.secret) or not _begins_card(digits, talk):
        return False
    return talk.secret or not run.closed or len(digits) >= ANY_DIGITS


def _begins_card(digits: str, talk: Talk) -> bool:
    return talk.ssn > 0 or digits[0] in "23456"
