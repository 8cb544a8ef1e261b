import copy
import inspect
import json
import logging
import marshal
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

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


def test_no_tool_that_looks_at_objects_sees_it() -> None:
    card = Sensitive(CARD, "card")
    try:
        raise ValueError("in a frame whose locals hold it")
    except ValueError as error:
        with_locals = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "[card]" in with_locals
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with provider.get_tracer("x").start_as_current_span("turn", attributes={"card": card}) as span:  # type: ignore[dict-item]
        span.set_attribute("card", card)  # type: ignore[arg-type]
        span.add_event("paid", {"card": card})  # type: ignore[dict-item]
        span.record_exception(ValueError(card))
    shown = [
        with_locals,
        spans.get_finished_spans()[0].to_json(),
        repr(inspect.getmembers(card)),
        pprint.pformat({"card": card, "of": [card, Order(card)]}),
        "%s %r %a" % (card, card, card),  # noqa: UP031
        "{} {!r} {:>9}".format(card, card, card),  # noqa: UP032
        repr([getattr(card, name) for name in dir(card) if not callable(getattr(card, name))]),
    ]
    assert not [text for text in shown if "1111" in text]


@pytest.mark.parametrize(
    "shows",
    [
        list,
        len,
        int,
        bytes,
        str.encode,
        marshal.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        lambda card: card.__getstate__(),
        lambda card: "" + card,
        lambda card: card + "",
        lambda card: card[0],
        lambda card: pickle.dumps({"card": card}),
    ],
)
def test_nothing_takes_it_for_a_text(shows: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        shows(Sensitive(CARD, "card"))
    assert "1111" not in str(raised.value)


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
