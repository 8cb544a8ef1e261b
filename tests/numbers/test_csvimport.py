import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.numbers import csvimport
from trunkline.numbers.csvimport import Change, Known, Preview, preview
from trunkline.numbers.resources import Number, Share


def number(number: str, **fields: Any) -> Number:
    return Number(number=number, **fields)


RECEPTION = (Share(agent="reception"),)
ONE = number("+14155550100", label="Main", agents=RECEPTION, tags=("a", "b"), max_calls=10)


def told(found: Preview) -> list[str]:
    return [str(mistake) for mistake in found.mistakes]


def test_a_file_makes_changes_and_leaves() -> None:
    text = (
        "number,label,agent,tags,max_calls\n"
        "+14155550100,Main,reception,b a,10\n"
        "+14155550101,Sales,sales,,\n"
        "+14155550102,,,vip,5\n"
    )
    second = number("+14155550101", label="Old", agents=(Share(agent="sales"),), carrier_id="PN1")
    found = preview(text, {ONE.number: ONE, second.number: second}, Known(agents={"reception", "sales"}))
    assert found.clean
    assert found.unchanged == [ONE.number]
    assert found.create == [number("+14155550102", tags=("vip",), max_calls=5)]
    (change,) = found.change
    assert (change.fields, change.after.label) == (("label",), "Sales")
    assert change.after.carrier_id == "PN1", "the file has no such column"
    assert found.summary() == "1 new, 1 changed, 1 unchanged, 0 with mistakes"


def test_an_empty_cell_takes_away() -> None:
    (change,) = preview("number,agent\n+14155550100,\n", {ONE.number: ONE}).change
    assert change == Change(ONE, ONE.model_copy(update={"agents": ()}))


def test_every_column_is_read_in_any_order() -> None:
    text = (
        "Enabled;Carrier ID;Fallback Number;overflow_number;reserved_inbound;max_calls;tags;country;trunk;carrier;"
        "route;agent;LABEL;NUMBER;colour\r\n"
        "no;PN1;(415) 555-0199;+14155550198;2;10;vip|de;us;acme;telnyx;day;"
        "reception@3:80|sales:20;Main line;(415) 555-0100;red\r\n"
    )
    found = preview(b"\xef\xbb\xbf" + text.encode())
    assert told(found) == []
    assert found.unknown_columns == ["colour"]
    assert "'colour'" in found.summary()
    assert found.create == [
        number(
            "+14155550100",
            label="Main line",
            agents=(Share(agent="reception", version=3, weight=80), Share(agent="sales", weight=20)),
            route="day",
            carrier="telnyx",
            carrier_id="PN1",
            trunk="acme",
            enabled=False,
            tags=("de", "vip"),
            max_calls=10,
            reserved_inbound=2,
            overflow_number="+14155550198",
            fallback_number="+14155550199",
        )
    ]
    own = {csvimport._FIELDS.get(column, column) for column in csvimport.COLUMNS} - {"country"}
    assert own == set(Number.model_fields), "a field of the resource has no column"


def test_a_spreadsheet_s_own_encodings_are_read() -> None:
    text = "number\tlabel\r\n+14155550100\tZürich\r\n"
    for data in (
        text.encode("utf-16"),
        text.encode("utf-8-sig"),
        text.encode(),
        "\ufeff" + text,
        text.replace("\r", ""),
    ):
        (row,) = preview(data).create
        assert row.label == "Zürich"
    assert told(preview(text.encode("latin-1"))) == ["the file: is no text in UTF-8: save it as CSV UTF-8"]


def test_ranges_become_numbers_and_beginnings_are_a_route_s() -> None:
    found = preview("number,label\n+14155550100-+14155550102,a\n+1415556*,b\n+14155550101,c\n")
    assert [(row.number, row.label) for row in found.create] == [(f"+1415555010{n}", "a") for n in range(3)]
    assert told(found) == [
        "line 3, number '+1415556*': numbers, one by one or a range: a beginning belongs into a route's `matches`",
        "line 4, number '+14155550101': stands on line 2 already",
    ]


def test_a_file_that_was_taken_changes_nothing_the_second_time() -> None:
    text = "number,agent,tags,max_calls\n+14155550100-+14155550109,reception@2,vip,\n"
    first = preview(text)
    again = preview(text, {each.number: each for each in first.create})
    assert (len(again.unchanged), again.create, again.change) == (10, [], [])


@pytest.mark.parametrize("cell", ["Reception", "reception@0", "reception@x", "reception:5000", "@3", "a b"])
def test_an_agent_that_cannot_be_is_told(cell: str) -> None:
    (mistake,) = preview(f"number,agent\n+14155550100,{cell}\n").mistakes
    assert (mistake.line, mistake.column) == (2, "agent")


def test_bad_lines_are_told_by_line_and_column_and_the_rest_is_previewed() -> None:
    text = (
        "number,agent,max_calls,reserved_inbound,fallback_number,country,tags\n"
        "+14155550100,reception,10,2,,,\n"
        "4155550101,,,,,,\n"
        "\n"
        "+14155550102,nobody,,,,,\n"
        '+14155550103,"re\nception",,,,,\n'
        "+14155550104,,many,,,,\n"
        "+14155550105,,1,2,,,\n"
        "+14155550106,,,,+14155550106,,\n"
        "+14155550107,,,,,GB,\n"
        "+14155550108,,,,,,a/b\n"
        "+14155550109,,,,,,,,extra\n"
        "+14155550100,,,,,,\n"
        ",x,,,,,\n"
        "+442079460123,,,,,,\n"
        "+14155550110,,,,12,,\n"
    )
    found = preview(text, known=Known(agents={"reception"}, countries={"US"}))
    assert told(found) == [
        "line 3, number '4155550101': write it as +COUNTRY NUMBER, or say which country's it is",
        "line 5, agent 'nobody': is not known: reception",
        "line 6, agent 're\\nception': a name of small letters, digits, - and _, 40 at most",
        "line 8, max_calls 'many': a whole number from 1 to 10,000",
        "line 9, reserved_inbound '2': less than max_calls (1)",
        "line 10, fallback_number '+14155550106': is the number itself: calls would come back",
        "line 11, country 'GB': +14155550107 is of US",
        "line 12, tags 'a/b': a tag has small letters, digits, - and _, 40 at most",
        "line 13 'extra': has 9 cells, and the header 7: quote what holds a comma",
        "line 14, number '+14155550100': stands on line 2 already",
        "line 15, number: is missing: +COUNTRY NUMBER, or a range +14155550100-+14155550199",
        "line 16, number '+442079460123': is of GB, and only US is allowed",
        "line 17, fallback_number '12': write it as +COUNTRY NUMBER, or say which country's it is",
    ]
    assert [row.number for row in found.create] == ["+14155550100"]
    assert (found.clean, found.mistakes_count, found.lines) == (False, 13, 13)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with no header"),
        ("\n\n", "begins with no header"),
        ("phone,name\n", "has no column `number`"),
        ("number,label,Number\n", "'number': stands there twice"),
        ('"number\n', "cannot be read"),
        (b"PK\x03\x04\xff\xff", "no text in UTF-8"),
    ],
)
def test_a_file_that_is_none_is_told(text: str | bytes, why: str) -> None:
    found = preview(text)
    assert found.mistakes_count == 1
    assert why in told(found)[0]


def test_a_quote_that_is_never_closed_ends_the_reading_and_is_told_where_it_begins() -> None:
    found = preview('number,label\n+14155550100,a\n+14155550101,"b\n+14155550102,c\n')
    assert [row.number for row in found.create] == ["+14155550100"]
    assert told(found)[0].startswith("line 3: cannot be read")


@given(st.text(alphabet='number,;label\n\r"\t+14155*-@:|agent \x00', max_size=80), st.booleans())
def test_whatever_a_file_holds_is_told_and_never_raised(text: str, header: bool) -> None:
    found = preview("number,agent,label,tags,country,max_calls,enabled\n" * header + text)
    assert found.mistakes_count >= len(found.mistakes)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvimport, "MAX_NUMBERS", 10)
    found = preview("number\n+14155550100-+14155550109\n+14155550110\n")
    assert not found.create
    assert "more than 10 numbers" in told(found)[-1]
    monkeypatch.setattr(csvimport, "MAX_BYTES", 10)
    assert "larger" in told(preview("number\n+14155550100"))[0]
    monkeypatch.setattr(csvimport, "MAX_MISTAKES", 2)
    monkeypatch.setattr(csvimport, "MAX_BYTES", 1000)
    found = preview("number\n1\n2\n3\n")
    assert (len(found.mistakes), found.mistakes_count) == (2, 3)


def test_a_hundred_thousand_rows_take_seconds() -> None:
    """4.5 s alone on the slowest machine it was measured on, nearly all of it real; the bound is for a busy one."""
    lines = [f"+1{415 + n // 50000 * 95}55{n % 100000:05d},Line {n},reception,+14155550100" for n in range(100_000)]
    began = time.process_time()
    found = preview("\n".join(["number,label,agent,fallback_number", *lines]))
    assert time.process_time() - began < 20
    assert found.lines == 100_000
    assert len(found.create) + found.mistakes_count == 100_000
