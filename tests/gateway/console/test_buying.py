"""Buying a number on a page: searched, asked twice, bought once, and in the list."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from tests.gateway.console.house import ONE, TWO, Audit, House
from trunkline.numbers.carriers.account import Available, NotTaken, Owned, Prices, Search, Terms
from trunkline.types import DEFAULT_TENANT, E164

PN = "PN" + "0" * 31 + "1"


class Account:
    """A carrier with two numbers, one of which is taken by the time that it is ordered."""

    def __init__(self) -> None:
        self.bought: dict[str, Terms] = {}

    async def available(self, search: Search) -> Sequence[Available] | NotTaken:
        if search.country == "GB":
            return NotTaken(404, 20404, "no such list")
        numbers = (ONE, TWO)
        return [Available(E164(n), search.country, search.kind, frozenset({"voice"}), "San Francisco") for n in numbers]

    async def prices(self, country: str) -> Prices:
        return Prices("USD", {"local": Decimal("1.15")})

    async def find(self, number: E164) -> Owned | None:
        return Owned(PN, number) if number in self.bought else None

    async def buy(self, number: E164, terms: Terms) -> Owned | NotTaken:
        if number == TWO:
            return NotTaken(400, 21422, "not available")
        self.bought[number] = terms
        return Owned(PN, number)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def house(tmp_path: Path, account: Account) -> Iterator[House]:
    found = House(tmp_path, account=account, origin="https://gateway.example.com")
    found.tenant = DEFAULT_TENANT
    with found.client:
        yield found


def test_a_number_is_searched_and_bought_with_a_second_thought(house: House, account: Account) -> None:
    page = house.see("numbers/_buy?country=us&kind=local&area_code=415")
    assert Audit(page).wrong == []
    assert "1.15 USD a month" in page
    assert "tick the box" in house.send("numbers/_buy", {"number": ONE}, 422).text
    assert account.bought == {}
    house.send("numbers/_buy", {"number": ONE, "sure": "true"})
    pointing = account.bought[ONE].pointing
    assert pointing is not None
    assert pointing.voice_url == "https://gateway.example.com/twilio/voice"
    assert house.kept("numbers", ONE).body["carrier_id"] == PN
    house.send("numbers/_buy", {"number": ONE, "sure": "true"})
    assert len(account.bought) == 1


def test_what_cannot_be_had_says_why(house: House, account: Account) -> None:
    assert "three digits" in house.see("numbers/_buy?country=US&area_code=4", 422)
    assert "no such list" in house.see("numbers/_buy?country=GB", 502)
    assert "somebody else has it" in house.send("numbers/_buy", {"number": TWO, "sure": "true"}, 502).text
    house.send("numbers/_buy", {"number": "me", "sure": "true"}, 422)
    assert house.kept("numbers", TWO) is None


def test_only_the_gateways_own_tenant_spends_its_money(house: House, account: Account) -> None:
    house.tenant = type(DEFAULT_TENANT)("theirs")
    house.send("numbers/_buy", {"number": ONE, "sure": "true"}, 403)
    house.see("numbers/_buy?country=US", 403)
    assert account.bought == {}
