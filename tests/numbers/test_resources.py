"""What may stand in a resource, and how it is said where it may not."""

from typing import Any

import pytest

from trunkline.numbers.desk import country_of, read
from trunkline.numbers.resources import KINDS
from trunkline.owned import DeskError

BUSY = {"kind": "busy"}


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"),
    [
        (
            "numbers",
            {"number": "4155550100"},
            {"number": "a phone number as +COUNTRY NUMBER without spaces, such as +14155550100"},
        ),
        ("numbers", {}, {"number": "must be given"}),
        ("numbers", {"number": "+14155550100", "colour": 1}, {"colour": "there is no such field"}),
        (
            "numbers",
            {"number": "+14155550100", "max_calls": 2, "reserved_inbound": 2},
            {"reserved_inbound": "less than max_calls (2)"},
        ),
        (
            "routes",
            {"name": "A b", "answer": BUSY},
            {"name": "1 to 40 small letters, digits, - and _, such as front-desk"},
        ),
        (
            "routes",
            {"name": "a", "answer": {"kind": "robot"}},
            {"answer": "a kind: one of 'agents', 'number', 'message', 'busy'"},
        ),
        (
            "routes",
            {"name": "a", "answer": {"kind": "agents", "agents": [{"agent": "x", "weight": 0}]}},
            {"answer": "a weight above 0 somewhere"},
        ),
        (
            "routes",
            {"name": "a", "answer": BUSY, "rules": [{"name": "b", "callers": ["+1*5"], "answer": BUSY}]},
            {"rules.0.callers.0": "a number, a beginning such as +1415*, or a range such as +14155550100-+14155550199"},
        ),
        (
            "routes",
            {"name": "a", "answer": BUSY, "matches": ["+14155550199-+14155550100"]},
            {"matches.0": "a range from the lower to the higher of two numbers of one length"},
        ),
        (
            "hours",
            {"name": "a", "zone": "Mars/Olympus", "weekly": {}},
            {"zone": "a time zone by its IANA name, such as America/New_York"},
        ),
        (
            "hours",
            {"name": "a", "zone": "UTC", "weekly": {"mon": ["17:00-09:00"]}},
            {"weekly.mon.0": "a time from and a later one to, such as 09:00-17:30 (24:00 at most)"},
        ),
        (
            "hours",
            {"name": "a", "zone": "UTC", "weekly": {}, "holidays": [{"date": "2026-12-25"}, {"date": "2026-12-25"}]},
            {"": "each holiday once: 2026-12-25 is there twice"},
        ),
        (
            "budgets",
            {"name": "a", "scope": "tenant", "agent": "b", "per": "day", "usd": "1"},
            {"agent": "needs scope = agent"},
        ),
        (
            "budgets",
            {"name": "a", "scope": "tenant", "per": "day", "usd": "0"},
            {"usd": "USD, more than 0 and at most 1000000"},
        ),
        (
            "trunks",
            {"name": "a", "settings": {"peers": ["0.0.0.0/0"]}},
            {"settings.peers": "lets anybody call, so username and password must be set"},
        ),
        (
            "trunks",
            {"name": "a", "settings": {"peers": ["192.0.2.1"], "password": "x"}},
            {"settings.password": "password beside settings, where it is sealed"},
        ),
    ],
)
def test_each_wrong_field_is_named_with_what_is_wanted(
    kind: str, fields: dict[str, Any], wrong: dict[str, str]
) -> None:
    with pytest.raises(DeskError) as refused:
        read(kind, fields)
    assert refused.value.code == "invalid_fields"
    assert refused.value.fields == wrong


def test_a_route_says_what_it_names() -> None:
    by_agents = {"kind": "agents", "agents": [{"agent": "desk"}, {"agent": "night", "version": 3}]}
    rule = {
        "name": "vip",
        "callers": ["+1415*"],
        "hours": "late",
        "answer": {"kind": "agents", "agents": [{"agent": "vip"}]},
    }
    route = read("routes", {"name": "main", "answer": by_agents, "rules": [rule], "hours": "office", "trunk": "t"})
    assert set(route.uses()) == {
        ("agents", "desk"),
        ("agents", "night"),
        ("agents", "vip"),
        ("hours", "office"),
        ("hours", "late"),
        ("trunks", "t"),
    }


def test_every_kind_comes_after_what_it_names() -> None:
    """So that a file can be applied from its beginning to its end."""
    order = list(KINDS)
    named = {"routes": ("agents", "hours", "trunks"), "numbers": ("routes", "carriers", "trunks", "agents")}
    named |= {"trunks": ("carriers",), "budgets": ("numbers", "agents")}
    assert all(order.index(name) < order.index(kind) for kind, names in named.items() for name in names)


def test_secrets_are_not_in_the_text_of_a_resource() -> None:
    carrier = read("carriers", {"name": "tw", "type": "twilio", "auth_token": "hush-hush"})
    assert "hush-hush" not in repr(carrier)


def test_a_numbers_country() -> None:
    assert country_of("+14155550100") == "US"
    assert country_of("+442079460123") == "GB"
    assert country_of("+80012345678") == "001"
    for wrong in ("+1415", "+999123456789"):
        with pytest.raises(DeskError):
            country_of(wrong)
