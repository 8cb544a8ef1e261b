from datetime import UTC, datetime

import pytest

from trunkline.compliance.decision import Policy
from trunkline.ports import Allow, Decide, Door, Facts, Refuse
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def decided(door: Door, *, record: bool = False, target: str | None = None) -> str:
    decide: Decide = Policy(record=record).decide
    decision = decide(Facts(door, DEFAULT_TENANT, "inbound", target=target), NOW)
    assert isinstance(decision, Allow | Refuse)
    return decision.code if isinstance(decision, Refuse) else "allowed"


@pytest.mark.parametrize("door", ["answer", "transcript", "third_party"])
def test_open_doors(door: Door) -> None:
    assert decided(door) == "allowed"


def test_recording_is_by_settings() -> None:
    assert decided("record") == "recording_off"
    assert decided("record", record=True) == "allowed"


def test_a_transfer_goes_to_a_named_target() -> None:
    assert decided("transfer") == "no_target"
    assert decided("transfer", target="reception") == "allowed"


def test_dialling_is_closed() -> None:
    assert decided("dial", target="reception") == "outbound_closed"
