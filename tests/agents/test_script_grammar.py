"""Phrases to grammars and back: whatever the grammar can hear, it understands."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.examples import example
from trunkline.agents.script import load
from trunkline.agents.script.check import pocketsphinx_words
from trunkline.agents.script.grammar import DIGITS, NO, SLOT, YES, Grammar, Meaning, grammars
from trunkline.agents.script.phrases import expansions


def define(**script: Any) -> AgentDefinition:
    choice = ProviderChoice("standin")
    return AgentDefinition("test", choice, choice, choice, "Hello.", script=script)


def intent(name: str, *phrases: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "phrases": list(phrases), "reply": "Well.", **more}


DAYS = {"values": {"Monday": ["mondays"], "Tuesday": [], "New Year's Eve": ["the [very] last day"]}, "prompt": "When?"}
BOOK = define(
    intents=[
        intent("book", "[please] (book | make) an appointment [for {day}]", "I need an appointment"),
        intent("hours", "when do you open", "opening hours", "are you open (on | at) {day}"),
        intent("person", "speak to a person", anywhere=True),
    ],
    slots={"day": DAYS},
    digits={
        "number": {"prompt": "Which?", "min": 3, "max": 5, "spoken": True},
        "pin": {"prompt": "Key it.", "min": 4, "max": 4},
    },
)


@pytest.fixture(scope="module")
def book() -> dict[str, Grammar]:
    return grammars(BOOK)


@pytest.fixture(scope="module")
def clinic() -> dict[str, Grammar]:
    return grammars(load(example("clinic")))


def test_a_script_has_a_grammar_for_each_thing_that_may_be_asked(book: dict[str, Grammar]) -> None:
    assert set(book) == {"main", "yes_no", "slot_day", "digits_number"}


def test_a_phrase_is_its_intent_with_its_slots(book: dict[str, Grammar]) -> None:
    assert book["main"].parse("Please book an appointment for the very last day!") == Meaning(
        "book", {"day": "New Year's Eve"}
    )
    assert book["main"].parse("book an appointment") == Meaning("book")
    assert book["main"].parse("book an") is None
    assert book["main"].parse("book an appointment for") is None
    assert book["main"].parse("") is None


def test_what_may_be_said_anywhere_is_in_every_grammar(book: dict[str, Grammar]) -> None:
    for grammar in book.values():
        assert grammar.parse("speak to a person") == Meaning("person")
        assert grammar.parse("goodbye") == Meaning("goodbye")
        assert (grammar.parse("opening hours") is not None) == (grammar.name == "main")


def test_yes_and_no_are_understood_where_they_were_asked_for(book: dict[str, Grammar]) -> None:
    assert book["yes_no"].parse("Yes, please.") == Meaning(YES)
    assert book["yes_no"].parse("that's wrong") == Meaning(NO)
    assert book["main"].parse("yes") is None


def test_a_slot_that_was_asked_for_may_be_said_alone(book: dict[str, Grammar]) -> None:
    assert book["slot_day"].parse("mondays please") == Meaning(SLOT, {"day": "Monday"})


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("one two three", "123"),
        ("it's four oh four", "404"),
        ("double five zero", "550"),
        ("12-34", "1234"),
        ("my number is 1 2 3 four", "1234"),
        ("one two", None),
        ("one two three four five six", None),
        ("one two three bananas", None),
    ],
)
def test_spoken_digits_are_taken_in_the_number_asked_for(
    book: dict[str, Grammar], said: str, digits: str | None
) -> None:
    expected = Meaning(DIGITS, {"digits": digits}) if digits else None
    assert book["digits_number"].parse(said) == expected


def test_a_turn_ends_early_only_where_nothing_else_could_still_be_meant() -> None:
    main = grammars(define(intents=[intent("a", "opening hours [please]", "car"), intent("b", "car rental")]))["main"]
    assert main.complete("opening hours")
    assert not main.complete("opening")
    assert not main.complete("car")
    assert main.complete("car rental")


def test_a_number_is_complete_only_at_its_full_length(book: dict[str, Grammar]) -> None:
    assert not book["digits_number"].complete("one two three")
    assert book["digits_number"].complete("one two three four five")


def test_the_recogniser_gets_one_public_rule_with_every_rule_it_uses(book: dict[str, Grammar]) -> None:
    assert book["main"].jsgf.splitlines()[:5] == [
        "#JSGF V1.0;",
        "grammar main;",
        "public <main> = <m0> | <m1> | <m2> | <m3> | <m4>;",
        "<m0> = [please] (book | make) an appointment [for <slot_day>] | i need an appointment;",
        "<m1> = when do you open | opening hours | are you open (on | at) <slot_day>;",
    ]
    assert "<slot_day> = monday | mondays | tuesday | new year's eve | the [very] last day;" in book["main"].jsgf
    assert "<digit> <digit> <digit> [<digit> [<digit>]];" in book["digits_number"].jsgf


def test_pocketsphinx_takes_every_grammar_of_the_clinic(clinic: dict[str, Grammar]) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    decoder = pocketsphinx.Decoder(loglevel="FATAL")
    for grammar in clinic.values():
        decoder.add_jsgf_string(grammar.name, grammar.jsgf)
        decoder.activate_search(grammar.name)
        assert grammar.words <= pocketsphinx_words()


def test_the_clinic_understands_every_phrase_it_can_hear(clinic: dict[str, Grammar]) -> None:
    count = 0
    for grammar in clinic.values():
        for name, nodes in grammar.meanings:
            for node in nodes:
                for said, slots in expansions(node, grammar.vocabularies, 200):
                    count += 1
                    meaning = grammar.parse(" ".join(said))
                    no_not_goodbye = grammar.name == "yes_no" and meaning == Meaning(NO)
                    assert meaning == Meaning(name, slots) or no_not_goodbye
    assert count > 100


WORDS = st.sampled_from(["open", "close", "book", "hour", "table", "seven", "o'clock"])
LEAF = st.one_of(WORDS, st.just("{day}"))
PHRASE = st.recursive(
    st.lists(LEAF, min_size=1, max_size=3).map(" ".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " | ".join(parts) + ")"),
        inner.map(lambda part: f"[{part}] book"),
        st.tuples(inner, inner).map(" ".join),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PHRASE, min_size=1, max_size=3), st.data())
def test_any_way_of_saying_any_phrase_is_understood_as_its_intent(phrases: list[str], data: st.DataObject) -> None:
    """Each intent starts with a word of its own, so that no phrase belongs to two."""
    numbers = ["alpha", "bravo", "charlie"]
    definition = define(
        intents=[intent(f"i{at}", f"{numbers[at]} {phrase}") for at, phrase in enumerate(phrases)],
        slots={"day": {"values": {"Monday": ["the first [day]"], "Tuesday": ["day two"]}}},
    )
    main = grammars(definition)["main"]
    name, nodes = data.draw(st.sampled_from(main.meanings[: len(phrases)]))
    said, _ = data.draw(st.sampled_from(list(expansions(nodes[0], main.vocabularies, 50))))
    understood = main.parse(" ".join(said))
    assert understood is not None
    assert understood.intent == name
    assert main.understand(" ".join(said)) == understood
    ways = [slots for way, slots in expansions(nodes[0], main.vocabularies, 2000) if way == said]
    assert understood.slots in ways


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_a_grammar(text: str) -> None:
    for grammar in grammars(BOOK).values():
        grammar.understand(text)
        grammar.complete(text)


@pytest.mark.parametrize(
    ("said", "intent_name"),
    [
        ("Could you tell me your opening hours, please?", "opening_hours"),
        ("hi, I would like to confirm my appointment for tomorrow", "confirm_appointment"),
        ("I want to talk to a real person now", "person"),
        ("where is the clinic located", "where"),
        ("so are you guys open on Friday", "open_on_day"),
        ("I don't want to speak to a person", None),
        ("when does the train to Boston leave", None),
        ("what is the weather today", None),
        ("can I pay my bill with a credit card", None),
        ("is it", None),
        ("the the the", None),
    ],
)
def test_other_words_for_an_intent_are_understood_and_other_matters_are_not(
    clinic: dict[str, Grammar], said: str, intent_name: str | None
) -> None:
    meaning = clinic["main"].understand(said)
    assert (meaning.intent if meaning else None) == intent_name


def test_a_slot_is_found_in_other_words_too(clinic: dict[str, Grammar]) -> None:
    assert clinic["main"].understand("hello are you open friday") == Meaning("open_on_day", {"day": "Friday"})
