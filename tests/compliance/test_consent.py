from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.compliance.consent import Wanted, held
from trunkline.compliance.tables import FORMS

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    event: str
    at: datetime
    body: dict[str, Any] = field(default_factory=dict)


def granted(days_ago: int = 10, form: str = "express_written", **changes: Any) -> Row:
    at = NOW - timedelta(days=days_ago)
    body = {
        "form": form,
        "seller": "",
        "channels": ["voice"],
        "technologies": ["artificial_voice"],
        "purposes": ["marketing"],
        "valid_from": at.isoformat(),
        "valid_until": None,
    }
    return Row("grant", at, body | changes)


def revoked(days_ago: int = 5, **changes: Any) -> Row:
    return Row("revoke", NOW - timedelta(days=days_ago), {"technologies": [], "purposes": []} | changes)


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([], "none"),
        ([granted()], "express_written"),
        ([granted(form="implied"), granted(8, form="express_oral")], "express_oral"),
        ([granted(), granted(5, form="implied")], "express_written"),
        ([granted(), revoked()], "revoked"),
        ([revoked(), granted()], "revoked"),  # whatever the order they were noted in
        ([granted(), revoked(), granted(1, form="implied")], "implied"),  # agreed again
        ([granted(5), revoked(5)], "revoked"),
        ([granted(), revoked(-3)], "revoked"),
        ([revoked()], "revoked"),
        ([granted(), revoked(purposes=["informational"])], "express_written"),
        ([granted(), revoked(technologies=["recording"])], "express_written"),
        ([granted(), revoked(technologies=["artificial_voice"])], "revoked"),
        ([granted(purposes=["informational"])], "none"),
        ([granted(purposes=[])], "none"),
        ([granted(technologies=["recording"])], "none"),
        ([granted(channels=["sms"])], "none"),
        ([granted(seller="Another")], "none"),
        ([granted(seller="Acme")], "express_written"),
        ([granted(valid_until=(NOW - timedelta(days=1)).isoformat())], "none"),
        ([granted(valid_from=(NOW + timedelta(days=1)).isoformat())], "none"),
    ],
)
def test_what_is_held(rows: list[Row], answer: str) -> None:
    assert held(rows, Wanted("marketing", "Acme"), NOW) == answer


def test_for_an_unknown_purpose_all_of_them_are_needed() -> None:
    every = ["marketing", "transactional", "informational"]
    assert held([granted(purposes=every)], Wanted(None, "Acme"), NOW) == "express_written"
    assert held([granted()], Wanted(None, "Acme"), NOW) == "none"
    assert held([granted(purposes=every), revoked(purposes=["marketing"])], Wanted(None, "Acme"), NOW) == "revoked"


rows = st.one_of(
    st.builds(granted, st.integers(1, 20), st.sampled_from(FORMS[1:])), st.builds(revoked, st.integers(1, 20))
)


@given(st.lists(rows, max_size=6), st.randoms())
def test_the_order_of_the_rows_changes_nothing_and_a_revocation_now_ends_it(some: list[Row], random: Any) -> None:
    wanted = Wanted("marketing", "Acme")
    before = held(some, wanted, NOW)
    random.shuffle(some)
    assert held(some, wanted, NOW) == before
    assert held([*some, revoked(0)], wanted, NOW) == "revoked"
