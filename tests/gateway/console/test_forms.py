"""Forms as values: paths, rows, what is empty, and what differs."""

import pytest

from trunkline.gateway.console.forms import Form, at, changed, differences, given, line_diff, nested, words
from trunkline.gateway.console.kinds import budget_fields, hours_fields, route_fields, route_form, spans


def test_names_are_paths_and_numbers_are_rows() -> None:
    found = nested([("a", "1"), ("rules.1.name", "b"), ("rules.0.name", "a"), ("q.on", "false"), ("q.on", "true")])
    assert found == {"a": "1", "rules": [{"name": "a"}, {"name": "b"}], "q": {"on": "true"}}
    assert at(found, "rules.1.name") == "b"
    assert at(found, "rules.7.name") is None


@pytest.mark.parametrize("pairs", [[("a", "1"), ("a.b", "2")], [("a.b", "2"), ("a", "1")], [(".".join("x" * 9), "")]])
def test_what_no_form_of_ours_sends_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="a part and a whole|too deep"):
        nested(pairs)


def test_rows_come_go_and_move() -> None:
    values = nested([("rules.0.name", "a"), ("rules.1.name", "b")])
    assert changed(values, "up:rules.1") == "rules.0"
    assert [rule["name"] for rule in values["rules"]] == ["b", "a"]
    assert changed(values, "remove:rules.0") == "rules.0"
    assert changed(values, "add:rules") == "rules.1"
    assert values["rules"] == [{"name": "a"}, {}]
    assert changed(values, "add:rules.0.answer.agents") == "rules.0.answer.agents.0"
    for nothing in ("save", "remove:rules.9", "remove:nowhere", "up:x.y.z", "remove:rules.x"):
        assert changed(values, nothing) == ""


def test_what_is_empty_is_not_said() -> None:
    assert given({"a": " x ", "b": "", "c": {"d": ""}, "e": ["", "f"], "g": None}) == {"a": "x", "e": ["f"]}
    assert words("a, b\nc") == ["a", "b", "c"]


def test_a_field_shows_its_own_mistake_or_that_of_a_part() -> None:
    form = Form({"tags": ["a", "b"], "on": True}, {"tags.1": "small letters", "rules.0.name": "must be given"})
    assert (form.value("tags", " "), form.value("on"), form.value("missing")) == ("a b", "true", "")
    assert (form.error("tags"), form.error("rules.0.name"), form.error("label")) == (
        "small letters",
        "must be given",
        "",
    )
    assert form.is_first("tags")
    assert not form.is_first("rules.0.name")


def test_differences_are_by_path() -> None:
    before = {"label": "a", "tags": ["x"], "rules": [{"name": "vip"}], "on": True, "same": 1}
    after = {"label": "b", "tags": ["x", "y"], "rules": [], "on": False, "same": 1}
    found = {each.path: (each.before, each.after) for each in differences(before, after)}
    assert found == {"label": ("a", "b"), "tags": ("x", "x, y"), "rules.1.name": ("vip", None), "on": ("yes", "no")}
    assert [each.after for each in differences(None, {"a": "1"})] == ["1"]


def test_a_difference_of_texts_says_where() -> None:
    assert line_diff("a\nb\nc", "a\nB\nc") == [("@", "line 1"), (" ", "a"), ("-", "b"), ("+", "B"), (" ", "c")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9-17", ["09:00-17:00"]),
        ("9:00 - 12:30, 13:30-17", ["09:00-12:30", "13:30-17:00"]),
        ("08:00\u201312:00", ["08:00-12:00"]),
        ("", []),
        ("mornings", ["mornings"]),
    ],
)
def test_times_are_written_as_people_do(text: str, found: list[str]) -> None:
    assert spans(text) == found


def test_of_an_answer_only_what_its_kind_has_is_sent() -> None:
    typed = {
        "name": "main",
        "answer": {"kind": "message", "text": "Hello", "number": "+14155550100", "agents": [{"agent": "x"}]},
        "closed": {"kind": "", "text": "no"},
        "patterns": "+1415* +1416*",
        "queue": {"wanted": "false", "max_waiting": "3"},
        "rules": [{"name": "vip", "callers": "anonymous", "verdicts": {"verified": "true", "invalid": "false"}}],
    }
    fields = route_fields(typed)
    assert fields == {
        "name": "main",
        "answer": {"kind": "message", "text": "Hello"},
        "matches": ["+1415*", "+1416*"],
        "rules": [{"name": "vip", "callers": ["anonymous"], "verdicts": ["verified"], "answer": {}}],
    }
    shown = route_form({**fields, "queue": {"max_waiting": 3}, "closed": None})
    assert (shown["patterns"], shown["queue"]["wanted"]) == (["+1415*", "+1416*"], True)
    assert shown["rules"][0]["verdicts"] == {"verified": "true"}


def test_a_week_and_a_budget() -> None:
    typed = {
        "name": "office",
        "weekly": {"mon": "9-17", "sun": ""},
        "holidays": [{"date": "2026-12-25", "open": ""}, {"date": "", "name": ""}],
    }
    assert hours_fields(typed) == {
        "name": "office",
        "weekly": {"mon": ["09:00-17:00"]},
        "holidays": [{"date": "2026-12-25", "open": []}],
    }
    assert budget_fields({"scope": "agent", "agent": "a", "number": "+1", "usd": "5"}) == {
        "scope": "agent",
        "agent": "a",
        "usd": "5",
    }
