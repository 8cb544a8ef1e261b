import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.endings import (
    TWILIO_ERRORS,
    TWILIO_STATUS,
    Ended,
    ended,
    from_sip,
    from_sip_dialog,
    from_twilio,
    from_twilio_api,
    sip_code,
)
from trunkline.gateway.sip.message import Reason
from trunkline.gateway.twilio.webhooks import FINAL
from trunkline.ports import ENDED_BY, EndedBy, EndReason

DOCS = Path(__file__).parents[2] / "docs" / "endings.md"


def test_every_reason_has_somebody_and_nobody_is_invented() -> None:
    assert set(ENDED_BY) == set(get_args(EndReason))
    assert set(ENDED_BY.values()) | {"operator"} == set(get_args(EndedBy))


def test_an_end_of_ours_is_of_whom_the_list_says_or_of_whom_we_know() -> None:
    assert ended("drained") == Ended("drained", "gateway")
    assert ended("agent_hung_up", by="operator") == Ended("agent_hung_up", "operator")


@pytest.mark.parametrize(
    ("status", "q850", "reason", "by", "code"),
    [
        (486, None, "busy", "network", "sip:486"),
        (486, 17, "busy", "network", "sip:486;q850:17"),
        (603, None, "rejected", "caller", "sip:603"),
        (607, None, "rejected", "caller", "sip:607"),
        (608, None, "rejected", "network", "sip:608"),
        (403, None, "rejected", "network", "sip:403"),
        (480, 19, "no_answer", "network", "sip:480;q850:19"),
        (404, 1, "failed", "network", "sip:404;q850:1"),
        (503, 34, "failed", "network", "sip:503;q850:34"),
        (0, None, "failed", "network", ""),
    ],
)
def test_what_sip_says_of_a_call_that_was_not_answered(
    status: int, q850: int | None, reason: str, by: str, code: str
) -> None:
    reasons = () if q850 is None else (Reason("SIP", status), Reason("Q.850", q850))
    found = from_sip(status, reasons)
    assert (found.reason, found.by, found.provider_code) == (reason, by, code)
    assert found.detail


def test_whom_we_let_ring_long_enough_was_given_up_by_us() -> None:
    assert from_sip(487, we_gave_up=True) == Ended("no_answer", "gateway", "nobody answered (SIP 487)", "sip:487")


@pytest.mark.parametrize(
    ("status", "by_us", "reason", "by"),
    [
        (200, False, "caller_hung_up", "caller"),
        (0, False, "caller_hung_up", "caller"),
        (408, False, "media_lost", "network"),
        (481, False, "media_lost", "network"),
        (503, True, "failed", "gateway"),
    ],
)
def test_what_sip_says_of_a_call_that_had_been_answered(status: int, by_us: bool, reason: str, by: str) -> None:
    found = from_sip_dialog(status, by_us=by_us)
    assert (found.reason, found.by) == (reason, by)


def test_a_bye_with_a_cause_keeps_it() -> None:
    assert from_sip_dialog(200, (Reason("Q.850", 16),), by_us=False).provider_code == "q850:16"


@given(st.integers(0, 699), st.none() | st.integers(0, 127), st.booleans(), st.booleans())
def test_whatever_sip_says_is_one_of_the_list(status: int, q850: int | None, rang: bool, gave_up: bool) -> None:
    reasons = () if q850 is None else (Reason("Q.850", q850),)
    for found in (
        from_sip(status, reasons, rang=rang, we_gave_up=gave_up),
        from_sip_dialog(status, reasons, by_us=rang),
    ):
        assert found.reason in get_args(EndReason)
        assert found.by in get_args(EndedBy)
        assert re.fullmatch(r"(sip:[0-9]+)?;?(q850:[0-9]+)?", found.provider_code)


def test_a_code_is_what_was_said() -> None:
    assert (sip_code(0), sip_code(486), sip_code(0, (Reason("SIP", 486),))) == ("", "sip:486", "")


def test_every_final_status_of_twilios_is_known() -> None:
    assert set(TWILIO_STATUS) == FINAL


@pytest.mark.parametrize(
    ("said", "reason", "by", "code"),
    [
        ({"status": "completed"}, "caller_hung_up", "caller", "twilio:completed"),
        ({"status": "completed", "answered": False}, "no_answer", "network", "twilio:completed"),
        ({"status": "busy"}, "busy", "network", "twilio:busy"),
        ({"status": "busy", "sip_status": 603}, "rejected", "caller", "twilio:busy;sip:603"),
        ({"status": "no-answer", "sip_status": 487}, "no_answer", "network", "twilio:no-answer;sip:487"),
        ({"status": "failed"}, "failed", "network", "twilio:failed"),
        ({"status": "failed", "sip_status": 404}, "failed", "network", "twilio:failed;sip:404"),
        (
            {"status": "failed", "sip_status": 404, "error": 13224},
            "failed",
            "network",
            "twilio:failed;sip:404;error:13224",
        ),
        ({"status": "failed", "error": 99999}, "failed", "network", "twilio:failed;error:99999"),
        ({"status": "failed", "sip_status": 200}, "failed", "network", "twilio:failed;sip:200"),
        ({"status": "canceled"}, "caller_hung_up", "caller", "twilio:canceled"),
        ({"status": "canceled", "outbound": True}, "no_answer", "gateway", "twilio:canceled"),
        ({"status": "new-in-2031"}, "failed", "network", "twilio:new-in-2031"),
    ],
)
def test_what_twilio_says(said: dict[str, object], reason: str, by: str, code: str) -> None:
    found = from_twilio(**said)  # type: ignore[arg-type]
    assert (found.reason, found.by, found.provider_code) == (reason, by, code)


def test_an_order_that_twilio_did_not_take_says_why() -> None:
    assert from_twilio_api(400, 21211) == Ended("failed", "network", "no such number", "twilio:http_400;error:21211")
    assert from_twilio_api(503).detail == "Twilio refused the order (HTTP 503)"
    assert from_twilio_api(0) == Ended("failed", "network", "Twilio did not answer", "twilio:no_answer")


def test_the_page_names_every_reason_everybody_and_every_error() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for name in (*get_args(EndReason), *get_args(EndedBy), *TWILIO_STATUS, *map(str, TWILIO_ERRORS)):
        assert f"`{name}`" in page, name
