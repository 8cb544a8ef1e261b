import copy
import json
import logging
import pickle
import traceback
from dataclasses import asdict, dataclass

import pytest

from trunkline.privacy.sensitive import Sensitive

CARD = "4111111111111111"


@dataclass
class Order:
    card: Sensitive


def test_it_cannot_be_shown_by_accident(caplog: pytest.LogCaptureFixture) -> None:
    card = Sensitive(CARD, "card")
    logging.getLogger("x").warning("card %s %r", card, {"card": card}, extra={"card": card})
    try:
        raise ValueError(card)
    except ValueError:
        raised = traceback.format_exc()
    shown = [
        repr(card),
        str(card),
        f"{card}",
        f"{card:>40}",
        f"{card}",
        repr([card]),
        repr(Order(card)),
        repr(asdict(Order(card))),
        json.dumps({"card": card}, default=str),
        caplog.text,
        raised,
        repr(hash(card)),
    ]
    assert not [text for text in shown if "1111" in text]
    assert repr(card) == "[card]"


def test_what_would_show_it_raises() -> None:
    card = Sensitive(CARD, "card")
    with pytest.raises(TypeError):
        json.dumps({"card": card})
    with pytest.raises(TypeError):
        pickle.dumps(card)
    with pytest.raises(TypeError):
        "".join([card])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        vars(card)


def test_it_is_revealed_on_demand_and_compared_by_its_value() -> None:
    card = Sensitive(CARD, "card")
    assert card.reveal() == CARD
    assert copy.deepcopy(card).reveal() == CARD
    assert card == Sensitive(CARD)
    assert card != Sensitive("4")
    assert not Sensitive("")
