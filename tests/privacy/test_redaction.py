"""What is redacted as it streams, and that nothing of it is shown before."""

import random
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trunkline.privacy.names import Known
from trunkline.privacy.redaction import KINDS, NOTHING, Policy, Redactor, quoted, redact, redact_value
from trunkline.privacy.sensitive import Sensitive
from trunkline.privacy.spoken import NUMBERS
from trunkline.privacy.tokens import Token, Tokenizer

ALL = Policy(frozenset(KINDS) - {"number"})
CARDS = Policy(frozenset(("card",)))
DEFAULT = Policy(frozenset(("card", "ssn", "iban")))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("my card is 4111 1111 1111 1111, thanks", "my card is [card], thanks"),
        ("4111-1111-1111-1111", "[card]"),
        ("٤١١١١١١١١١١١١١١١", "[card]"),
        ("4111\u200b111111111111", "[card]"),
        (f"it is four {'one ' * 15}please", "it is [card] please"),
        (
            "five double five five triple five five double five four triple four uh four five five please",
            "[card] please",
        ),
        ("forty one eleven eleven eleven eleven eleven eleven eleven", "[card]"),
        (f"vier {'eins ' * 7}ähm {'eins ' * 8}danke", "[card] danke"),
        ("vier doppel eins eins dreifach eins eins eins eins eins eins eins eins eins eins", "[card]"),
        (f"cuatro {'uno ' * 7}este {'uno ' * 8}gracias", "[card] gracias"),
        ("cuatro doble uno uno triple uno uno uno uno uno uno uno uno uno uno", "[card]"),
        ("4111 1111 1111 1112", "[card]"),  # a digit misheard
        ("4111 1111 1111 1111 12 27 123", "[card]"),  # with what stands behind it on the card
        ("call (415) 555-0100.", "call ([phone]."),
        ("call +49 30 1234567 now", "call [phone] now"),
        ("four one five five five five oh one double oh", "[phone]"),
        ("my social is 123-45-6789", "my social is [ssn]"),
        ("to DE89 3704 0044 0532 0130 00 please", "to [iban] please"),
        ("GB29NWBK60161331926819", "[iban]"),
        ("mail john.smith@example.com.", "mail [email]."),
        ('{"a":"j@example.com","b":1}', '{"a":"[email]","b":1}'),
        ("john at example dot com", "[email]"),
        ("it is john dot smith at example dot co dot uk thanks", "it is [email] thanks"),
        ("ana arroba ejemplo punto es", "[email]"),
        ("hans unterstrich meier at beispiel punkt de", "[email]"),
        ("j o h n at g mail dot com", "[email]"),
        ("my name is Maria Lopez and I call", "my name is [name] [name] and I call"),
        ("my name is uh john smith calling", "my name is uh [name] [name] calling"),
        ("ich heiße Jürgen, ja, Jürgen", "ich heiße [name], ja, [name]"),
        ("me llamo Ana", "me llamo [name]"),
    ],
)
def test_what_is_about_somebody_is_not_shown(said: str, shown: str) -> None:
    assert redact(said, ALL) == shown.replace("([phone]", "[phone]")


@pytest.mark.parametrize(
    "said",
    [
        "at ten thirty on december twelve twenty twenty six",
        "on 2026-11-28 10:00 or 28.11.2026 at 5",
        "1,250,000 dollars and 12.5 percent",
        "took 0.1234567890123456 s",
        "a double room for two, please",
        "look at me at home at seven",
        "room 101",
        "call CA0123456789abcdef0123456789abcdef",
        "DE is IT",
        "once upon a time",
    ],
)
def test_what_is_about_nobody_is(said: str) -> None:
    assert redact(said, ALL) == said


def test_a_card_given_in_pieces_over_turns_shows_its_first_four_digits_at_most() -> None:
    redactor = Redactor(CARDS)
    turns = ["four one one one", "one one one one", "uh one one one one", "one one one one", "is that all"]
    assert [redactor.whole(turn) for turn in turns] == [
        "four one one one",
        "[digits]",
        "uh [digits]",
        "[card]",
        "is that all",
    ]


def test_a_turn_that_ends_in_the_middle_of_a_number_does_not_show_its_beginning() -> None:
    redactor = Redactor(CARDS)
    assert redactor.whole("it is 4111 1111") == "it is [digits]"
    assert redactor.whole("1111 1111") == "[card]"


@pytest.mark.parametrize(
    "turns",
    [
        ["3782", "822463", "10005"],
        ["It's 3782", "then 822463", "and 10005."],
        ["It's an amex, 3782", "822463", "10005"],
        ["378", "282", "246", "310", "005"],
        ["37828", "22463", "10005"],
        ["411111", "111111", "1111"],
        ["My card number is 411111.", "111111.", "1111."],
        ["4111 11", "11 1111", "1111"],
        ["it's 4111 11", "okay, 11 1111", "and 111 111"],
        ["four one one one one one", "one one one one one one", "one one one one"],
        ["four one one one one one one one, got that?", "one one one one one one one one"],
        ["4111 1111, got that?", "1111 1111"],
        ["41111111 got that", "11111111 okay"],
        ["The first four are 4111, the next four are 1111, then 1111, and finally 1111."],
        ["The first 4 are 4111, the next 4 are 1111, then 1111, and the last 4 are 1111."],
        ["The first four digits are 4111.", "Next four 1111.", "1111.", "And the last four 1111."],
        ["The first 4 digits are 4111.", "Next 4, 1111.", "Then 1111.", "The last 4 are 1111."],
        ["4111.", "Yes. Next is 1111.", "Then 1111.", "Last four are 1111."],
        ["my card is 4111 1111, um, let me see, I think it says 1111 and then the last bit is 1111"],
        ["my card is", "41", "11", "11", "11", "11", "11", "11", "11"],
        ["my card is", "forty one eleven", "eleven eleven", "eleven eleven", "eleven eleven"],
        ["my visa starts with 2221", "2011", "1111", "1111"],
        ["my card is", "4", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1"],
        ["meine Karte ist 4111 11", "11 1111", "und 1111 11"],
    ],
)
def test_however_a_card_is_given_in_pieces_no_more_than_four_digits_of_it_show(turns: list[str]) -> None:
    redactor, slow = Redactor(DEFAULT), Redactor(DEFAULT)
    shown = [redactor.whole(turn) for turn in turns]
    assert [slow.feed(turn) + slow.end() for turn in turns] == shown
    ordinals = r"\b(first|next|last)( bit| four| 4)?"
    said = re.sub(ordinals, "", " ".join(shown).lower())
    digits = [NUMBERS.get(word) for word in re.findall(r"[a-z]+", said)]
    said_digits = sum(len(each.digits) - (each.role == "tens") for each in digits if each is not None)
    assert said_digits + len(re.findall(r"\d", said)) <= 4, shown


@pytest.mark.parametrize("number", ["6011000990139424", "4539578763621486", "378282246310005", "2221000000000009"])
def test_nobody_has_to_say_that_pieces_of_three_digits_and_more_are_of_a_card(number: str) -> None:
    for seed in range(200):
        cuts, turns, rest = random.Random(seed), list[str](), number
        while rest:
            size = cuts.randint(3, 8)
            before, after = cuts.choice(["", "uh ", "it's ", "and the next is "]), cuts.choice(["", ".", ", got that?"])
            turns.append(before + rest[:size] + after)
            rest = rest[size:]
        redactor = Redactor(DEFAULT)
        shown = [redactor.whole(turn) for turn in turns]
        assert len(re.sub(r"[^0-9]", "", "".join(shown))) <= 4, (turns, shown)


@pytest.mark.parametrize("number", ["4111111111111111", "5500000000000004", "378282246310005", "4222222222222"])
def test_a_card_cut_anywhere_after_it_was_asked_for_shows_four_digits_at_most(number: str) -> None:
    for seed in range(200):
        cuts, turns, rest = random.Random(seed), list[str](), number
        while rest:
            size = cuts.randint(1, 6)
            turns.append(cuts.choice(["", "uh ", "then "]) + rest[:size] + cuts.choice(["", ".", " okay"]))
            rest = rest[size:]
        caller = Redactor(DEFAULT)
        agent = Redactor(DEFAULT, repeats=caller)
        agent.whole("May I have your card number, please?")
        shown = [f"{caller.whole(turn)} {agent.whole('Go on.')}" for turn in turns]
        assert len(re.sub(r"[^0-9]", "", "".join(shown))) <= 4, (turns, shown)


@pytest.mark.parametrize(
    ("turns", "shown"),
    [
        (["my social is 123456789."], ["my social is [ssn]."]),
        (
            ["my social is one two three four five six seven eight nine thanks"],
            ["my social is [ssn] thanks"],
        ),
        (["my social is 123-45.", "6789."], ["my social is [digits].", "[digits]."]),
        (["social security", "123", "45", "6789"], ["social security", "123", "[digits]", "[digits]"]),
    ],
)
def test_a_social_security_number_is_one_by_what_it_is_called(turns: list[str], shown: list[str]) -> None:
    redactor = Redactor(DEFAULT)
    assert [redactor.whole(turn) for turn in turns] == shown


@pytest.mark.parametrize(
    "turns",
    [
        ["at ten thirty on december twelve twenty twenty six", "or at two fifteen", "for four people"],
        ["My appointment is 11/28/2026 10:30", "at 9:15", "it costs 1,250.00 dollars", "or 45000 dollars or $350000"],
        ["my order number is 55512.", "it was 415999 dollars", "the order was 384731, I think"],
        ["confirmation 84731", "room 411", "there are 4 of us", "at 10 30", "on the 12th"],
        ["twelve thousand five hundred thirty five", "two million three hundred thousand"],
        [
            "from nine to five thirty",
            "we are open twenty four seven three sixty five",
            "seven to nine or ten to eleven thirty",
        ],
        ["I live at 4711 Elm Street in 60614 Chicago", "since 2019", "with 3 kids"],
        ["my number is 415 555 0100.", "or 415-555-0111", "or +49 30 1234567"],
        ["4", "7 30", "on the 12th", "in 2026"],
        ["table for four", "four", "seven thirty", "twenty"],
    ],
)
def test_ordinary_numbers_are_no_pieces_of_a_card(turns: list[str]) -> None:
    redactor = Redactor(DEFAULT)
    assert [redactor.whole(turn) for turn in turns] == turns


def test_the_answer_to_a_question_about_an_order_is_no_card() -> None:
    caller = Redactor(DEFAULT)
    agent = Redactor(DEFAULT, repeats=caller)
    assert agent.whole("What is your order number?") == "What is your order number?"
    assert caller.whole("555123849") == "555123849"


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_what_a_service_quotes_is_cut_after_it_was_redacted(at: int) -> None:
    quotes = quoted(f"{'x ' * at}cannot read\n4111 1111 1111 1111 or forty one{' eleven' * 7}", 80)
    assert "11" not in quotes
    assert "eleven" not in quotes
    assert len(quotes) <= 80
    assert "\n" not in quotes


def test_a_name_is_known_after_it_was_given() -> None:
    redactor = Redactor(Policy(frozenset(("name",)), names=("Ada Lovelace",)))
    assert redactor.whole("my name is Maria") == "my name is [name]"
    assert redactor.whole("Maria here, for Lovelace") == "[name] here, for [name]"


def test_only_what_the_policy_names_is_redacted() -> None:
    said = "4111 1111 1111 1111 is mine, call 415 555 0100 x"
    assert redact(said, Policy(frozenset(("phone",)))) == "4111 1111 1111 1111 is mine, call [phone] x"
    assert redact(said, CARDS) == "[card] is mine, call 415 555 0100 x"
    assert redact(said, NOTHING) == said


def test_a_preview_never_shows_what_is_taken_back() -> None:
    redactor = Redactor(ALL)
    said = "my card is four one one one one one one one one one one one one one one one thanks"
    whole = redact(said, ALL)
    for end in range(len(said)):
        assert whole.startswith(redactor.preview(said[:end]))
    assert redactor.whole(said) == whole


_WORDS = (
    "4111 1111 4 1 one four double triple oh - . , + ( ) uh and at dot com @ example john my name is Maria DE89 3704 "
    "cuatro uno doble arroba punto vier eins ähm einundzwanzig 2026-11-28 19 thirty y zero thousand"
)
_PIECES = st.sampled_from([*_WORDS.split(), "\n", " ", "  ", "x" * 70, "1" * 70, " " * 70, "one " * 30])
_TEXTS = st.lists(_PIECES, max_size=40).flatmap(
    lambda pieces: st.sampled_from([" ".join(pieces), "".join(pieces)])
) | st.text(max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    _TEXTS,
    st.lists(st.integers(1, 9), min_size=1, max_size=10),
    st.sampled_from([ALL, CARDS, Policy(frozenset(KINDS))]),
)
def test_however_it_is_cut_the_same_comes_out(text: str, cuts: list[int], policy: Policy) -> None:
    redactor, shown, at, turn = Redactor(policy), "", 0, 0
    whole = Redactor(policy).whole(text)
    while at < len(text):
        size = cuts[turn % len(cuts)]
        shown += redactor.feed(text[at : at + size])
        assert whole.startswith(shown)
        at, turn = at + size, turn + 1
    assert shown + redactor.end() == whole


@settings(max_examples=200, deadline=None)
@example(["4", "4111 4111 at"], CARDS)
@given(st.lists(_TEXTS, max_size=4), st.sampled_from([ALL, CARDS, ALL.without("name"), ALL.without("name", "email")]))
def test_a_cheap_look_comes_to_the_same(turns: list[str], policy: Policy) -> None:
    looked, slow = Redactor(policy), Redactor(policy)
    for turn in turns:
        shown = looked.preview(turn)
        whole = slow.feed(turn) + slow.end()
        assert whole.startswith(shown)
        assert looked.whole(turn) == whole


_POLICIES = st.sampled_from([ALL, CARDS, Policy(frozenset(("card", "ssn", "iban"))), ALL.without("name", "email")])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), _TEXTS, st.integers(0, 60)), max_size=5), _POLICIES)
def test_so_it_does_of_two_who_read_back_to_each_other(turns: list[tuple[bool, str, int]], policy: Policy) -> None:
    def both() -> dict[bool, Redactor]:
        known = Known()
        caller = Redactor(policy, known)
        return {True: caller, False: Redactor(policy, known, caller)}

    looked, slow = both(), both()
    for who, text, heard in turns:
        shown = [looked[who].preview(text[:heard]), looked[who].preview(text), looked[who].preview(text[: heard + 5])]
        whole = slow[who].feed(text) + slow[who].end()
        assert all(whole.startswith(each) for each in shown)
        assert looked[who].whole(text) == whole


def test_what_was_previewed_is_not_taken_apart_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    feed = Tokenizer.feed

    def counted(self: Tokenizer, text: str) -> list[Token]:
        nonlocal taken
        taken += len(text)
        return feed(self, text)

    monkeypatch.setattr(Tokenizer, "feed", counted)
    redactor, said = Redactor(CARDS), "so then I called and asked for room 12 again " * 20
    for end in range(0, len(said), 5):
        redactor.preview(said[: end // 2])  # what was heard of it
        redactor.preview(said[:end])
    assert taken <= 2 * len(said)


@settings(max_examples=100, deadline=None)
@given(_TEXTS, st.sampled_from(["uh", "-", ", ", " ", "and then", " dash "]), st.booleans())
def test_no_card_comes_through(before: str, between: str, spoken: bool) -> None:
    groups = ["four one one one"] + ["one one one one"] * 3 if spoken else ["4111", "1111", "1111", "1111"]
    text = f"{before}\n! {f' {between} '.join(groups)} ! thanks"
    assert f"{groups[1]} {between} {groups[2]}" not in redact(text, CARDS).split("!")[-2]


@pytest.mark.parametrize(
    "hostile",
    ["1", "1 ", "one ", "a.", "a@", "a dot ", "j at ", "-", "+", "(", " ", "DE89", "double ", "uh ", "4111 x "],
)
def test_time_is_linear_and_what_is_kept_back_is_bounded(hostile: str) -> None:
    def seconds(characters: int) -> float:
        redactor = Redactor(ALL)
        text = hostile * (characters // len(hostile))
        started = time.process_time()
        shown = sum(len(redactor.feed(text[at : at + 1000])) for at in range(0, len(text), 1000))
        kept = len(redactor.end())
        assert kept < 30_000
        assert shown + kept > 0
        return time.process_time() - started

    seconds(2000)
    small, large = max(seconds(10_000), 0.002), seconds(80_000)
    assert large < 8 * small * 4


def test_json_is_redacted_within() -> None:
    def redacted(text: str) -> str:
        return redact(text, ALL)

    given = {"a": ["4111 1111 1111 1111", 4111111111111111, 7, True, None], "b": {"j@example.com": Sensitive("1")}}
    assert redact_value(given, redacted) == {"a": ["[card]", "[card]", 7, True, None], "b": {"[email]": "[digits]"}}
