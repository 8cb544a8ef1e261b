"""Texts sealed one by one: readable with their key and in their place only."""

import pytest

from trunkline.errors import StoreError
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal, is_sealed, key_of
from trunkline.testing.clock import ManualClock

OLD, NEW = KeyRing({"old": bytes(32)}), KeyRing({"new": bytes(range(32))})
BOTH = KeyRing({"new": bytes(range(32)), "old": bytes(32)})


def test_a_text_opens_with_its_key_and_in_its_place_only() -> None:
    seal = TextSeal(OLD)
    sealed = seal.seal("I am Ann, größer als 💙", "turns/1")
    assert is_sealed(sealed)
    assert key_of(sealed) == "old"
    assert "Ann" not in sealed
    assert seal.open(sealed, "turns/1") == "I am Ann, größer als 💙"
    assert TextSeal(BOTH).open(sealed, "turns/1") == "I am Ann, größer als 💙"  # another process, after a rotation
    with pytest.raises(StoreError, match="not as it was sealed"):
        seal.open(sealed, "turns/2")
    with pytest.raises(StoreError, match=r"the key 'old' is needed: privacy\.keys has new"):
        TextSeal(NEW).open(sealed, "turns/1")


def test_any_changed_character_is_found() -> None:
    seal = TextSeal(OLD)
    sealed = seal.seal("seven", "p")  # so many bytes that base64 has no spare bits
    for at in range(len("sealed:1:"), len(sealed)):
        changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
        with pytest.raises(StoreError):
            seal.open(changed, "p")


def test_the_same_text_twice_is_two_boxes_and_nothing_stays_nothing() -> None:
    seal = TextSeal(OLD)
    assert seal.seal("one", "p") != seal.seal("one", "p")
    assert seal.seal("", "p") == ""
    assert seal.open("in clear, from before there were keys", "p") == "in clear, from before there were keys"


def test_a_key_that_is_away_is_asked_for_once_in_a_while() -> None:
    class Away:
        asked, back = 0, False

        def wrap(self, file_key: bytes) -> tuple[str, bytes]:
            return BOTH.wrap(file_key)

        def unwrap(self, name: str, wrapped: bytes) -> bytes:
            self.asked += 1
            if not self.back:
                raise StoreError("away")
            return BOTH.unwrap(name, wrapped)

    keys, clock = Away(), ManualClock()
    sealed, seal = TextSeal(OLD).seal("one", "p"), TextSeal(keys, clock)
    for _ in range(3):
        with pytest.raises(StoreError, match="away"):
            seal.open(sealed, "p")
    assert keys.asked == 1
    keys.back = True
    clock.advance(31)
    assert seal.open(sealed, "p") == "one"
    assert seal.open(seal.seal("two", "p"), "p") == "two"
