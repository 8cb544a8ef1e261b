"""A call's place, and what it does not allow."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.app import _folder_of
from trunkline.compliance.residency import Place, Residency
from trunkline.errors import ConfigError
from trunkline.keeping import recording_folders, residency_of
from trunkline.ports import Allow, Decision, Door, Facts, Refuse
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, CallId, Direction

NOW = datetime(2026, 11, 28, tzinfo=UTC)
GERMAN, AMERICAN, FRENCH, SWISS = "+4930901820", "+12125550177", "+33140205050", "+41446681800"
EU = Place("eu", frozenset({"DE", "FR"}), frozenset({"deepgram"}), transcripts=False)
US = Place("us", frozenset({"US"}))
YES = Allow()
BOTH = Residency((EU, US), home="us")


@pytest.mark.parametrize(
    ("direction", "from_number", "to_number", "place"),
    [
        ("inbound", GERMAN, AMERICAN, EU),  # whose data it is
        ("inbound", AMERICAN, GERMAN, US),
        ("outbound", GERMAN, AMERICAN, US),
        ("inbound", None, FRENCH, EU),  # withheld
        ("inbound", "anonymous", FRENCH, EU),
        ("inbound", SWISS, FRENCH, None),  # nobody's place, and not ours either
        ("inbound", None, None, US),  # a device
    ],
)
def test_the_other_partys_number_tells_the_place(
    direction: Direction, from_number: str | None, to_number: str | None, place: Place | None
) -> None:
    assert BOTH.place_of(direction, from_number, to_number) is place


def asked(door: Door, target: str | None, caller: str, rules: Decision = YES) -> Decision:
    facts = Facts(door, DEFAULT_TENANT, "inbound", caller, AMERICAN, target)
    return BOTH.guarding(lambda facts, now: rules)(facts, NOW)


def test_no_third_party_that_is_not_named_hears_a_call_of_the_place() -> None:
    assert asked("third_party", "deepgram", GERMAN) == Allow()
    assert asked("third_party", "openai", GERMAN) == Refuse("residency", "openai is none of the providers of eu")
    assert asked("third_party", "openai", AMERICAN) == Allow()
    assert asked("third_party", "deepgram", GERMAN, Refuse("no_consent", "not asked")).code == "no_consent"  # type: ignore[union-attr]


def test_transcripts_of_a_place_that_does_not_have_them_here_are_not_kept() -> None:
    assert asked("transcript", None, GERMAN) == Refuse("residency", "transcripts of eu are not kept here")
    assert asked("transcript", None, AMERICAN) == Allow()
    assert asked("record", None, GERMAN) == Allow()


def settings(folder: Path, text: str) -> Settings:
    file = folder / "trunkline.toml"
    file.write_text(f'data_dir = "{folder / "data"}"\n{text}')
    return load(file)


PLACES = """
[privacy.residency.eu]
countries = ["de", "FR"]
recordings = "{eu}"
providers = []
[privacy.residency.us]
countries = ["US"]
"""


def test_recordings_go_to_the_folder_of_the_calls_place(tmp_path: Path) -> None:
    given = settings(tmp_path, PLACES.format(eu=tmp_path / "eu"))
    assert recording_folders(given) == [tmp_path / "data" / "recordings", tmp_path / "eu"]
    residency = residency_of(given)
    assert residency.limits_providers
    calls = {
        CallId(name): SimpleNamespace(
            started=SimpleNamespace(direction="inbound", from_number=number, to_number=AMERICAN)
        )
        for name, number in (("german", GERMAN), ("american", AMERICAN), ("swiss", SWISS))
    }
    switchboard = cast(Any, SimpleNamespace(call=calls.get))
    folders = [_folder_of(given, residency, switchboard, CallId(name)) for name in ("german", "american", "swiss", "x")]
    assert folders == [tmp_path / "eu", *[tmp_path / "data" / "recordings"] * 3]


def test_a_country_is_of_one_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.residency\.us\.countries = 'DE': is of eu already"):
        settings(tmp_path, PLACES.format(eu=tmp_path).replace('"US"', '"US", "DE"'))
    with pytest.raises(ConfigError, match="two-letter country codes"):
        settings(tmp_path, PLACES.format(eu=tmp_path).replace('"US"', '"USA"'))
