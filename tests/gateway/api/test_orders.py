import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from trunkline.gateway.api.orders import MAX_ATTRIBUTES, order, refusal
from trunkline.gateway.dialling import DialOrder
from trunkline.ports import Refuse
from trunkline.types import E164

JSON = "application/json"


def asked(**fields: Any) -> DialOrder:
    found = order(JSON, json.dumps(fields).encode())
    assert isinstance(found, DialOrder), bytes(found.body)
    return found


def problem(body: bytes, content_type: str = JSON) -> dict[str, Any]:
    found = order(content_type, body)
    assert isinstance(found, Response)
    shown: dict[str, Any] = json.loads(bytes(found.body))
    assert shown["status"] == found.status_code
    return shown


def wrong(**fields: Any) -> list[str]:
    shown = problem(json.dumps(fields).encode())
    assert (shown["status"], shown["code"]) == (422, "invalid_fields")
    return [error["field"] for error in shown["errors"]]


def test_a_number_is_all_it_needs() -> None:
    assert asked(to="+12025550123") == DialOrder(E164("+12025550123"), None, None, 30.0, {})


def test_everything_can_be_said() -> None:
    attributes = {"crm.case": "7 – é", "X-Note": ""}
    whole = asked(
        to="+12025550123", **{"from": "+14155550100"}, trunk="carrier-1", ring_timeout_s=20, attributes=attributes
    )
    assert whole == DialOrder(E164("+12025550123"), E164("+14155550100"), "carrier-1", 20.0, attributes)
    assert asked(to="+12025550123", **{"from": None}, trunk=None) == asked(to="+12025550123")


def test_what_may_be_dialled_is_the_doors_to_say() -> None:
    assert asked(to="911").to_number == "911"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "to"),
        ({"to": 12025550123}, "to"),
        ({"to": ""}, "to"),
        ({"to": "+" + "1" * 32}, "to"),
        ({"from": "4155550100"}, "from"),
        ({"from": "+0155550100"}, "from"),
        ({"from": "+14155550100\n"}, "from"),
        ({"from": "+1415555010٠"}, "from"),
        ({"trunk": ""}, "trunk"),
        ({"trunk": "a b"}, "trunk"),
        ({"trunk": "x" * 65}, "trunk"),
        ({"ring_timeout_s": 4}, "ring_timeout_s"),
        ({"ring_timeout_s": 121}, "ring_timeout_s"),
        ({"ring_timeout_s": "30"}, "ring_timeout_s"),
        ({"ring_timeout_s": True}, "ring_timeout_s"),
        ({"ring_timeout_s": float("nan")}, "ring_timeout_s"),
        ({"ring_timeout_s": None}, "ring_timeout_s"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {"a": 1}}, "attributes"),
        ({"attributes": {"a b": "x"}}, "attributes"),
        ({"attributes": {"": "x"}}, "attributes"),
        ({"attributes": {"a": "x" * 513}}, "attributes"),
        ({"attributes": {"a": "x\r\nVia: me"}}, "attributes"),
        ({"attributes": {"a": "x\n"}}, "attributes"),
        ({"attributes": {"a": "\x85"}}, "attributes"),
        ({"attributes": {str(n): "" for n in range(MAX_ATTRIBUTES + 1)}}, "attributes"),
        ({"number": "+12025550123"}, "number"),
        ({"from_number": "+12025550123"}, "from_number"),
        ({"<script>": "x"}, "?"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert wrong(**({} if field == "to" else {"to": "+12025550123"}), **fields) == [field]


def test_all_wrong_fields_are_named_once_and_nothing_of_the_body_is_shown() -> None:
    body = json.dumps({"trunk": "se cret", "attributes": {"se cret": 1, "b": 2}}).encode()
    shown = problem(body)
    assert [error["field"] for error in shown["errors"]] == ["to", "trunk", "attributes"]
    assert shown["detail"].startswith("to: a number as +COUNTRY NUMBER")
    assert "cret" not in json.dumps(shown)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"+12025550123"', b"null", b"\xff", b'{"to": "\\ud800"}', b"1" * 99]
)
def test_what_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    assert problem(body)["status"] == 400


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "text/json", "x; " + JSON]
)
def test_another_sites_page_cannot_place_a_call(content_type: str) -> None:
    """What a page may post without asking us first (CORS) is never JSON by its type."""
    assert problem(b'{"to": "+12025550123"}', content_type)["status"] == 415


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON", "application/json; charset=utf-8"])
def test_json_is_taken(content_type: str) -> None:
    assert isinstance(order(content_type, b'{"to": "+12025550123"}'), DialOrder)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_body_is_answered(body: bytes) -> None:
    found = order(JSON, body)
    assert isinstance(found, DialOrder) or found.status_code in (400, 422)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("number_cap", 429),
        ("total_cap", 429),
        ("tenant_full", 429),
        ("number_full", 429),
        ("slots_unknown", 503),
        ("emergency", 403),
        ("premium", 403),
        ("outbound_closed", 403),
        ("country_closed", 403),
        ("whatever_comes", 403),
        ("invalid_number", 422),
        ("unknown_trunk", 422),
        ("overloaded", 503),
        ("draining", 503),
        ("no_trunk", 503),
        ("trunk_down", 503),
        ("full", 503),
    ],
)
def test_a_refusal_is_a_problem_with_its_code(code: str, status: int) -> None:
    response = refusal(Refuse(code, "because"))
    shown = json.loads(bytes(response.body))
    assert (response.status_code, shown["code"]) == (status, code)
    assert shown["detail"].endswith("because")
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert ("errors" in shown) == (status == 422)
