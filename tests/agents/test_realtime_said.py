"""Utterances and items of a realtime call, as values."""

import pytest

from trunkline.agents.realtime import said
from trunkline.agents.realtime.said import Item, Utterances
from trunkline.media.ledger import Ledger

WORDS = "We open at eight in the morning"


def item(text: str, audio_ms: int, start_ms: int = 1000) -> Item:
    made = Item("item", 8)
    made.written.text = text
    if audio_ms:
        made.begin(start_ms)
        made.audio_bytes = audio_ms * 8
    return made


def test_an_item_that_is_whole_has_its_words_to_its_end() -> None:
    ledger, one = Ledger(), item(WORDS, 2000)
    one.whole(ledger)
    one.whole(ledger)
    assert ledger.text(1000, 3000) == WORDS
    assert one.written.heard(ledger, 3000) == WORDS
    assert one.written.heard(ledger, 2000) in WORDS
    assert not ledger.exact(1000)


def test_of_an_item_that_breaks_off_the_words_are_kept_whose_audio_is_there() -> None:
    ledger, one = Ledger(), item(WORDS, 1000)
    one.break_off(ledger)
    kept = one.written.text
    assert kept
    assert WORDS.startswith(kept)
    assert len(kept) * said.LETTER_MS <= 1000
    assert one.written.heard(ledger, 2000) == kept
    assert ledger.text(0, 10_000) == kept  # of the others nothing is left to be heard


def test_of_an_item_that_breaks_off_behind_its_end_nothing_is_lost() -> None:
    ledger, one = Ledger(), item(WORDS, 1000)  # spoken fast
    one.ended = True
    one.break_off(ledger)
    assert one.written.text == WORDS
    assert one.written.heard(ledger, 2000) == WORDS


def test_words_without_any_audio_were_not_said() -> None:
    one = item(WORDS, 0)
    one.break_off(Ledger())
    assert one.written.text == ""


@pytest.mark.parametrize(("heard_ms", "unheard_from"), [(500, 0), (1000, 0), (1800, 800), (2999, 1999), (3000, None)])
def test_where_the_caller_stopped_hearing_an_item(heard_ms: int, unheard_from: int | None) -> None:
    assert item(WORDS, 2000).unheard_from(heard_ms) == unheard_from


def test_an_item_that_was_never_played_cannot_be_truncated() -> None:
    assert item(WORDS, 0).unheard_from(0) is None


def test_utterances_are_kept_until_nothing_of_them_is_awaited_and_no_more_than_so_many() -> None:
    utterances = Utterances(8)
    for _ in range(said.UTTERANCES + 3):
        utterances.hear(b"\x10" * 160)
        utterances.over()
    kept = list(utterances)
    assert len(kept) == said.UTTERANCES
    assert kept[-1].name == str(said.UTTERANCES + 3)
    kept[0].item = "item"
    assert utterances.of("item") is kept[0]
    utterances.forget(kept[0])
    utterances.forget(kept[0])
    assert utterances.of("item") is None


def test_an_utterance_is_kept_up_to_a_limit_and_until_it_is_answered() -> None:
    utterances = Utterances(8)
    for _ in range(said.KEPT_AUDIO_MS // 20 + 100):
        utterances.hear(b"\x10" * 160)
    utterance = utterances.over()
    assert len(utterance.audio) == said.KEPT_AUDIO_MS * 8
    utterances.answered()  # something before it
    assert utterance.audio
    utterance.message_at = 1
    assert utterances.unwritten == bytes(utterance.audio)
    utterances.answered()
    assert not utterance.audio
