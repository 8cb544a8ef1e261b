import pytest

from trunkline.numbers.carriers.account import Owned, Search
from trunkline.numbers.carriers.owning import mispointed, pointing, same_url, unfit
from trunkline.types import E164

OURS = pointing("https://voice.example.com")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://voice.example.com/twilio/voice", "https://VOICE.example.com:443/twilio/voice", True),
        ("https://voice.example.com/twilio/voice", "http://voice.example.com/twilio/voice", False),
        ("https://voice.example.com/twilio/voice", "https://voice.example.com/twilio/voice/", False),
        ("https://voice.example.com/twilio/voice", "https://voice.example.com:8443/twilio/voice", False),
        ("https://[nonsense", "https://voice.example.com/twilio/voice", False),
        ("", "", True),
    ],
)
def test_the_same_url_may_be_written_differently(one: str, other: str, same: bool) -> None:
    assert same_url(one, other) is same


def test_every_thing_that_is_wrong_is_named() -> None:
    right = Owned("PN1", E164("+14155550100"), "", frozenset(), OURS.voice_url, "POST", OURS.fallback_url)
    assert mispointed(right, OURS) == [
        "its status callback is not set, and should be https://voice.example.com/twilio/status"
    ]
    wrong = Owned("PN1", E164("+14155550100"), "", frozenset(), OURS.voice_url, "GET", trunk_id="TK1", receives="fax")
    assert mispointed(wrong, OURS)[:3] == [
        "calls go to the SIP trunk TK1, and the voice URL is ignored",
        "it is set to receive faxes",
        "its voice URL is asked by GET, and should be by POST",
    ]


@pytest.mark.parametrize(
    ("search", "why"),
    [
        (Search("US", area_code="415", contains="+1415*555$"), ""),
        (Search("US", contains="ACME"), ""),
        (Search("DE", area_code="030"), "only in the United States and Canada"),
        (Search("US", area_code="41"), "three digits"),
        (Search("US", contains="*5"), "2 to 16"),
        (Search("US", contains="5" * 17), "2 to 16"),
        (Search("US", contains="55 55"), "2 to 16"),
    ],
)
def test_a_search_that_cannot_be_is_told_before_anybody_is_asked(search: Search, why: str) -> None:
    assert why in unfit(search)
    assert bool(unfit(search)) is bool(why)
