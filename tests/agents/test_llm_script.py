"""The script as a mind: a whole front desk, one message at a time."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.agents.definition import AgentDefinition, HandOff, ProviderChoice
from trunkline.agents.examples import example
from trunkline.agents.llm.script import ScriptLlm, ScriptSession
from trunkline.agents.providers import Services
from trunkline.agents.script import load
from trunkline.agents.script.dialog import sentences
from trunkline.errors import ConfigError
from trunkline.ports import CallFacts, Expect, Expectation, LlmEvent, Message, OpenQuestion, TextDelta, ToolCall
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId

OPEN = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # Tuesday, 10:00 in New York
CLOSED = datetime(2026, 11, 29, 15, 0, tzinfo=UTC)  # Sunday
CALL = CallFacts(CallId("c1"), DEFAULT_TENANT, "inbound", "+12025550199", "+12025550100", OPEN)
CLINIC = load(example("clinic"))

REFUSED = json.dumps({"ok": False, "code": "refused", "why": "closed"})
DONE = json.dumps({"ok": True})


def define(**script: Any) -> AgentDefinition:
    choice = ProviderChoice("standin")
    targets = {"desk": "+12025550123"}
    return AgentDefinition("Test", choice, choice, choice, "Hello.", goodbye="Bye.", targets=targets, script=script)


class Line:
    """A call with the script at its other end: `say` and `key` return what the agent says and does."""

    def __init__(self, definition: AgentDefinition = CLINIC, at: datetime = OPEN) -> None:
        self.clock = ManualClock(wall=at)
        self.session: ScriptSession = ScriptLlm(definition, {}, Services(self.clock)).open(CALL)
        self.conversation = [Message("agent", definition.greeting)]
        self.expects: Expectation | None = None
        self.calls: list[ToolCall] = []

    def say(self, text: str, *, understood: bool = True) -> str:
        return self.tell(Message("caller", text), understood=understood)

    def key(self, digits: str) -> str:
        return self.tell(Message("caller", digits, keyed=True))

    def result(self, text: str) -> str:
        return self.tell(Message("tool", text, tool_call_id=self.calls[-1].id))

    def tell(self, message: Message, *, understood: bool = True) -> str:
        self.conversation.append(message)
        events = self.ask(self.conversation, understood=understood)
        self.calls = [event for event in events if isinstance(event, ToolCall)]
        self.expects = next((event.expectation for event in events if isinstance(event, Expect)), None)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        if text or self.calls:
            self.conversation.append(Message("agent", text, tool_calls=tuple(self.calls)))
        return text

    def left_open(self) -> OpenQuestion | None:
        return self.session.left_open(self.conversation)

    def ask(self, conversation: Sequence[Message], *, understood: bool = True) -> list[LlmEvent]:
        async def collect() -> list[LlmEvent]:
            return [event async for event in self.session.reply(conversation, understood=understood)]

        return asyncio.run(collect())


def test_a_question_is_answered_by_the_opening_hours() -> None:
    assert Line().say("when are you open").startswith("We are open right now.")
    closed = Line(at=CLOSED).say("when are you open")
    assert closed.startswith("We are closed right now. We open again tomorrow at eight A M.")


def test_a_reply_comes_sentence_by_sentence_and_is_whole() -> None:
    assert sentences("One. Two? Three!  Four") == ["One. ", "Two? ", "Three! ", "Four"]
    assert sentences("") == []


def test_a_slot_of_the_phrase_is_a_variable_of_the_reply() -> None:
    assert Line().say("are you open on Friday").startswith("You asked about Friday.")


def test_a_keyed_number_is_taken_as_it_is() -> None:
    line = Line()
    assert line.say("I'd like to confirm my appointment").startswith("Please key in the four digits")
    assert line.expects == Expectation("digits_appointment", 4, 4)
    assert "appointment one two three four." in line.key("1234#")
    assert line.expects == Expectation("main", 1, 1)


def test_a_spoken_number_is_read_back_and_confirmed() -> None:
    line = Line()
    line.say("confirm my appointment")
    assert line.say("four oh four two") == "I heard four zero four two. Is that right?"
    assert line.expects == Expectation("yes_no", 1, 1)
    assert "appointment four zero four two." in line.say("yes, that's it")


def test_a_number_heard_wrongly_is_asked_for_again_and_may_be_keyed() -> None:
    line = Line()
    line.say("confirm my appointment")
    line.say("four oh four two")
    assert line.say("no").startswith("Please key in")
    line.say("one one one one")
    assert "appointment nine eight seven six." in line.key("9876")


def test_a_number_of_the_wrong_length_is_refused_and_asked_for_again() -> None:
    line = Line()
    line.say("confirm my appointment")
    again = "An appointment number has four digits. Please key in"
    assert line.say("one two three").startswith(again)
    assert line.key("12345").startswith(again)
    assert "appointment one two three four." in line.key("1234")


def test_keys_answer_a_yes_or_no_question() -> None:
    line = Line()
    line.say("confirm my appointment")
    line.say("four oh four two")
    assert "appointment four zero four two." in line.key("1")


def test_keys_are_a_menu_where_nothing_was_asked() -> None:
    assert Line().key("3").startswith("The clinic is at 12 Elm Street")
    assert Line().key("7").startswith("I'm sorry, I did not understand.")


def test_a_caller_may_change_the_subject_while_a_number_is_asked_for() -> None:
    line = Line()
    line.say("confirm my appointment")
    assert line.say("speak to a person please").startswith("One moment")
    assert line.calls == [ToolCall("script_1", "transfer", {"target": "reception"})]
    line = Line()
    line.say("confirm my appointment")
    assert line.say("where are you").startswith("The clinic is at")
    assert line.say("one two three four").startswith("I'm sorry, I did not understand.")


def test_zero_reaches_a_person_even_while_a_number_is_asked_for() -> None:
    line = Line()
    line.say("confirm my appointment")
    line.key("0")
    assert line.calls[0].name == "transfer"


def test_repeat_says_the_last_reply_again_and_forgets_nothing() -> None:
    line = Line()
    assert line.say("please repeat that") == CLINIC.greeting
    asked = line.say("confirm my appointment")
    assert line.say("can you repeat that please") == asked
    assert line.say("what did you say") == asked
    assert "appointment one two three four." in line.key("1234")


def test_goodbye_is_said_and_then_the_call_ends() -> None:
    line = Line()
    assert line.say("goodbye") == CLINIC.goodbye
    assert line.calls == [ToolCall("script_1", "hang_up", {})]
    assert line.expects is None


def test_a_transfer_that_is_refused_is_spoken_about() -> None:
    line = Line()
    line.say("reception please")
    assert line.result(REFUSED) == "I'm sorry, I can't put you through right now."
    assert line.expects == Expectation("main", 1, 1)


def test_a_transfer_that_is_done_needs_no_words() -> None:
    line = Line()
    line.say("reception please")
    assert line.result(DONE) == ""
    assert line.calls == []


def test_outside_the_opening_hours_no_one_is_put_through() -> None:
    line = Line(at=CLOSED)
    assert line.say("reception") == "Reception is closed right now. Please call again tomorrow at eight A M."
    assert line.calls == []


def test_the_third_misunderstanding_in_a_row_takes_the_way_out() -> None:
    line = Line()
    assert line.say("xyzzy").startswith("I'm sorry, I did not understand.")
    assert line.say("opening hours", understood=False).startswith("I'm sorry, I still did not understand.")
    assert line.say("").startswith("I'm sorry that I could not help you.")
    assert line.calls[0].arguments == {"target": "reception"}
    assert line.result(REFUSED).endswith(CLINIC.goodbye)
    assert line.calls[0].name == "hang_up"


def test_an_understanding_between_starts_the_ladder_anew() -> None:
    line = Line()
    line.say("xyzzy")
    line.say("opening hours")
    assert line.say("xyzzy").startswith("I'm sorry, I did not understand.")


def test_a_misunderstanding_asks_the_open_question_again() -> None:
    line = Line()
    line.say("confirm my appointment")
    text = line.say("mumble", understood=False)
    assert text.startswith("I'm sorry, I did not understand.")
    assert text.endswith("or say them one by one.")
    assert line.expects == Expectation("digits_appointment", 4, 4)


# --- what is thrown away ---


def test_a_speculation_that_was_thrown_away_leaves_no_trace() -> None:
    line = Line()
    line.say("confirm my appointment")
    guess = [*line.conversation, Message("caller", "goodbye")]
    line.ask(guess)
    line.ask([*line.conversation, Message("caller", "mumble")], understood=False)
    assert "appointment one two three four." in line.key("1234")


def test_the_same_conversation_asked_twice_is_answered_the_same() -> None:
    line = Line(define(intents=[{"name": "a", "phrases": ["again"], "reply": ["One.", "Two."]}]))
    conversation = [*line.conversation, Message("caller", "again")]
    assert line.ask(conversation) == line.ask(conversation)


def test_an_answer_nobody_heard_a_word_of_was_never_given() -> None:
    line = Line()
    line.ask([*line.conversation, Message("caller", "confirm my appointment")])
    line.conversation.append(Message("caller", "confirm my appointment"))
    assert line.key("1").startswith("We are open right now.")  # the menu, not a digit of a number


def elsewhere(line: Line, said: str = "I'm sorry, we were cut off. How can I help?") -> Line:
    """Another process, with the conversation and nothing else."""
    other = Line(at=OPEN)
    other.conversation = [*line.conversation, *([Message("agent", said)] if said else [])]
    return other


def test_a_conversation_that_goes_on_in_another_process_goes_on_where_it_was() -> None:
    line = Line()
    line.say("when are you open")
    line.say("confirm my appointment")
    assert "coming to appointment four seven one one" in elsewhere(line).key("4711")
    line.say("four seven one one")
    assert "coming to appointment four seven one one" in elsewhere(line).say("yes")
    line.conversation[-1] = replace(line.conversation[-1], text="I heard four,", cut=True)  # that much was heard
    assert elsewhere(line).say("when are you open").startswith("We are open right now.")


def test_a_question_that_was_left_open_is_asked_again() -> None:
    line = Line()
    assert line.session.left_open(line.conversation) is None
    line.say("confirm my appointment")
    asked = "Please key in the four digits of your appointment number, or say them one by one."
    digits = OpenQuestion(asked, Expectation("digits_appointment", 4, 4))
    assert elsewhere(line).left_open() == digits
    line.say("mumble", understood=False)
    assert elsewhere(line).left_open() == digits, "and nothing but the question"
    line.conversation.append(Message("caller", "4711", keyed=True))
    assert elsewhere(line, said="").left_open() == digits, "nobody answered that"
    del line.conversation[-1]
    line.say("four seven one one")
    read_back = OpenQuestion("I heard four seven one one. Is that right?", Expectation("yes_no", 1, 1))
    assert elsewhere(line).left_open() == read_back
    line.say("yes")
    assert elsewhere(line).left_open() is None


def test_what_another_agent_has_asked_is_no_open_question_of_the_scripts() -> None:
    line = Line()
    line.say("confirm my appointment")
    line.conversation[-1] = Message("agent", "Which of your two appointments?")
    assert "did not understand" in elsewhere(line).key("4711")


def test_a_sentence_taken_for_two_is_understood_as_one() -> None:
    line = Line()
    line.conversation.append(Message("caller", "are you open on"))
    assert line.say("Friday").startswith("You asked about Friday.")


def test_an_afterthought_that_means_nothing_does_not_hide_the_request() -> None:
    line = Line()
    line.conversation.append(Message("caller", "where are you"))
    assert line.say("uh", understood=False).startswith("The clinic is at")


def test_an_interrupted_answer_just_gives_way_to_the_next() -> None:
    line = Line()
    line.say("where are you")
    line.conversation[-1] = replace(line.conversation[-1], text="The clinic", cut=True)
    assert line.say("when do you close").startswith("We are open right now.")
    assert line.say("repeat that").startswith("We are open right now.")


# --- tools, slots and questions of other agents ---

BOOKING = define(
    intents=[
        {
            "name": "book",
            "phrases": ["book [{day}]"],
            "ask": ["day", "patient"],
            "confirm": "Shall I book {day} for {patient}?",
            "declined": "Then not.",
            "tool": "book",
            "reply": "Booked for {day} at {time}.",
        },
        {"name": "joke", "phrases": ["joke"], "reply": ["Ha.", "Ho."]},
        {"name": "open_gate", "phrases": ["gate"], "reply": "Opening.", "tool": "gate"},
        {"name": "code", "phrases": ["code"], "ask": "code"},
    ],
    slots={"day": {"values": ["Monday", "Friday"], "prompt": "Which day?"}},
    digits={
        "patient": {"prompt": "Your number?", "min": 2, "max": 6, "pattern": "[1-9][0-9]+"},
        "code": {"prompt": "Code?", "reply": "You said {digits} for {code}.", "tool": "hang_up"},
    },
    tools={
        "book": {
            "type": "http",
            "url": "https://clinic.example/{patient}/{day}?from={caller_number}",
            "result": {"time": "time"},
            "wait": "One moment.",
            "error": "That did not work.",
        },
        "gate": {"type": "send_dtmf", "digits": "9"},
    },
    fallback={"not_understood": ["What?"], "reply": "Sorry."},
)


def test_what_an_intent_needs_is_asked_for_in_order_then_confirmed_then_done() -> None:
    line = Line(BOOKING)
    assert line.say("book") == "Which day?"
    assert line.expects == Expectation("slot_day")
    assert line.say("on friday please") == "Your number?"
    assert line.expects == Expectation("main", 2, 6)
    assert line.key("4711") == "Shall I book Friday for four seven one one?"
    assert line.say("yes") == "One moment."
    assert line.calls == [ToolCall("script_1", "book", {"day": "Friday", "patient": "4711"})]
    assert line.result(json.dumps({"ok": True, "result": {"time": "nine"}})) == "Booked for Friday at nine."
    assert line.expects == Expectation("main")


def test_what_was_said_already_is_not_asked_for() -> None:
    assert Line(BOOKING).say("book monday") == "Your number?"


def test_a_no_to_the_confirmation_ends_the_matter() -> None:
    line = Line(BOOKING)
    line.say("book monday")
    line.key("12")
    assert line.say("no") == "Then not."
    assert line.say("yes") == "What?"


def test_a_tool_that_fails_has_its_own_words() -> None:
    line = Line(BOOKING)
    line.say("book monday")
    line.key("12")
    line.say("yes")
    assert line.result(json.dumps({"ok": False, "code": "timeout", "why": ""})) == "That did not work."
    line.say("book monday")
    line.key("12")
    line.say("yes")
    assert line.result("garbage") == "That did not work."


def test_the_result_of_a_tool_nobody_waits_for_is_not_spoken() -> None:
    line = Line(BOOKING)
    line.say("book monday")
    line.key("12")
    line.say("yes")
    calls = line.calls
    line.say("joke")
    line.calls = calls
    assert line.result(json.dumps({"ok": True, "result": {"time": "nine"}})) == ""


def test_a_number_that_may_only_be_keyed_is_not_taken_by_ear() -> None:
    line = Line(BOOKING)
    line.say("book monday")
    assert line.say("four seven one one") == "What? Your number?"
    assert line.key("07") == "Sorry. Bye."


def test_variations_take_turns() -> None:
    line = Line(BOOKING)
    assert [line.say("joke") for _ in range(3)] == ["Ha.", "Ho.", "Ha."]


def test_tones_are_sent_after_the_reply() -> None:
    line = Line(BOOKING)
    assert line.say("gate") == "Opening."
    assert line.calls == [ToolCall("script_1", "gate", {})]
    assert line.result(DONE) == ""


def test_digits_may_have_a_reply_and_a_deed_of_their_own() -> None:
    line = Line(BOOKING)
    line.say("code")
    assert line.key("12") == "You said one two for one two."
    assert line.calls[0].name == "hang_up"


def test_a_value_is_never_read_as_a_template_or_an_attribute() -> None:
    definition = define(
        intents=[{"name": "a", "phrases": ["go"], "reply": "{x} {name.__class__} {0} {trap}."}],
        variables={"x": "{trap}", "trap": "sprung"},
    )
    assert Line(definition).say("go") == "{trap} sprung."


def test_the_script_has_no_options() -> None:
    with pytest.raises(ConfigError, match="modle"):
        ScriptLlm(CLINIC, {"modle": "x"}, Services(ManualClock()))


STEP = st.one_of(
    st.sampled_from(
        [
            Message("caller", "confirm my appointment"),
            Message("caller", "one two three four"),
            Message("caller", "one two"),
            Message("caller", "yes"),
            Message("caller", "no"),
            Message("caller", "repeat that"),
            Message("caller", "reception"),
            Message("caller", "goodbye"),
            Message("tool", REFUSED, tool_call_id="script_1"),
            Message("tool", DONE, tool_call_id="script_2"),
            Message("agent", "Are you still there?"),
        ]
    ),
    st.text("0123456789#*", max_size=5).map(lambda digits: Message("caller", digits, keyed=True)),
    st.text(max_size=20).map(lambda text: Message("caller", text)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(STEP, st.booleans()), max_size=15))
def test_whatever_a_caller_does_there_is_always_an_answer(steps: list[tuple[Message, bool]]) -> None:
    line = Line()
    for message, understood in steps:
        said = line.tell(message, understood=understood)
        if message.role == "caller":
            assert said or line.calls
            assert line.expects is not None or line.calls
            assert "{" not in said


# --- handed from and to other agents --------------------------------------------------------------------------------


def handing() -> AgentDefinition:
    intents = [{"name": "invoice", "phrases": ["my invoice"], "reply": "One moment.", "hand_off": "billing"}]
    return replace(define(intents=intents), agents={"billing": HandOff("/b.toml", "invoices")})


def test_an_intent_hands_the_call_to_another_agent() -> None:
    line = Line(handing())
    assert line.say("my invoice") == "One moment."
    assert [(call.name, dict(call.arguments)) for call in line.calls] == [("hand_off", {"agent": "billing"})]
    assert line.result(REFUSED) == "I'm sorry, I can't put you through right now."


def test_a_script_that_is_handed_a_call_answers_what_the_caller_said_last() -> None:
    line = Line(define(intents=[{"name": "pay", "phrases": ["I want to pay"], "reply": "By card?"}]))
    call = ToolCall("call_1", "hand_off", {"agent": "billing"})
    line.conversation = [
        Message("summary", "They have waited long."),
        Message("agent", "Hello."),
        Message("caller", "I want to pay"),
        Message("agent", "Billing helps.", tool_calls=(call,)),
    ]
    assert line.tell(Message("tool", DONE, tool_call_id="call_1")) == "By card?"


def test_no_two_calls_of_a_conversation_have_one_name() -> None:
    line = Line(handing())
    line.conversation += [Message("tool", DONE, tool_call_id="script_1"), Message("agent", "Back again.")]
    line.say("my invoice")
    assert line.calls[-1].id == "script_2"


def test_a_conversation_whose_beginning_was_summed_up_goes_on_where_it_was() -> None:
    lines = Line(), Line()
    for line in lines:
        line.say("I want to confirm my appointment")
        assert line.expects is not None
        assert line.expects.digits_max == 4
    whole, short = lines
    short.conversation = [Message("summary", "They want to confirm."), *short.conversation[-2:]]
    assert short.key("1234") == whole.key("1234")
    assert "one two three four" in whole.conversation[-1].text


# --- several languages ----------------------------------------------------------------------------------------------

ENGLISH = define(
    intents=[
        {"name": "open", "key": "1", "phrases": ["when do you open"], "reply": "At seven."},
        {"name": "order", "phrases": ["I want to order"], "ask": ["cake", "number"], "reply": "One {cake}, {number}."},
        {"name": "spanish", "key": "9", "phrases": ["spanish please"], "language": "es-ES"},
        {"name": "polite", "phrases": ["polite spanish"], "language": "es-ES", "reply": "Mande usted."},
    ],
    slots={"cake": {"values": ["apple", "plum"], "prompt": "Which cake?"}},
    digits={"number": {"prompt": "How many?", "max": 2}},
)
SPANISH = replace(
    ENGLISH,
    language="es-ES",
    greeting="Hola.",
    goodbye="Adiós.",
    script={
        "intents": [
            {"name": "open", "key": "1", "phrases": ["a qué hora abren"], "reply": "A las siete."},
            {"name": "order", "phrases": ["quiero pedir"], "ask": ["cake", "number"], "reply": "Una {cake}, {number}."},
            {"name": "english", "key": "9", "phrases": ["en inglés"], "language": "en-US", "reply": "In English."},
        ],
        "slots": {"cake": {"values": {"manzana": ["de manzana"], "ciruela": []}, "prompt": "¿Qué tarta?"}},
        "digits": {"number": {"prompt": "¿Cuántas?", "max": 2}},
        "fallback": {"not_understood": ["No le entiendo."], "reply": "Lo siento."},
        "words": {"yes": ["sí"], "no": ["no"], "repeat": ["repita"], "goodbye": ["adiós"]},
    },
)
TWO = replace(ENGLISH, languages={"es-ES": SPANISH})


class TwoLine(Line):
    def says(self, text: str, language: str) -> str:
        return self.tell(Message("caller", text, language=language))

    def changed(self, language: str) -> str:
        return self.tell(Message("tool", DONE, tool_call_id=self.calls[-1].id, language=language))


def test_an_intent_changes_the_language_and_speaks_in_it() -> None:
    line = TwoLine(TWO)
    assert line.key("9") == ""
    assert (line.calls[-1].name, dict(line.calls[-1].arguments)) == ("speak_language", {"language": "es-ES"})
    assert line.changed("es-ES") == "Hola."
    assert line.says("a qué hora abren", "es-ES") == "A las siete."
    assert line.says("repita", "es-ES") == "A las siete."
    assert line.says("when do you open", "es-ES") == "No le entiendo."
    assert line.key("9") == ""
    assert line.changed("en-US") == "In English."
    assert line.say("when do you open") == "At seven."


def test_its_reply_is_spoken_in_place_of_the_greeting() -> None:
    line = TwoLine(TWO)
    line.say("polite spanish")
    assert line.changed("es-ES") == "Mande usted."


def test_a_caller_who_is_heard_in_another_language_is_answered_in_it() -> None:
    line = TwoLine(TWO)
    assert line.say("when do you open") == "At seven."
    assert line.says("a qué hora abren", "es-ES") == "A las siete."
    assert line.says("adiós", "es-ES") == "Adiós."


def test_what_is_open_stays_open_across_the_change() -> None:
    line = TwoLine(TWO)
    assert line.say("I want to order") == "Which cake?"
    assert line.says("de manzana", "es-ES") == "¿Cuántas?"
    assert line.key("12") == "Una manzana, 1, 2.", "the voice says the digits in its own language"


def test_what_only_one_of_the_scripts_knows_is_closed() -> None:
    spanish = replace(SPANISH, script={**SPANISH.script, "slots": {}, "intents": [SPANISH.script["intents"][0]]})
    line = TwoLine(replace(TWO, languages={"es-ES": spanish}))
    assert line.say("I want to order") == "Which cake?"
    assert line.says("manzana", "es-ES") == "No le entiendo."
    assert line.says("a qué hora abren", "es-ES") == "A las siete."
