"""What the embedded ears tell of words while they are spoken."""

from typing import Any, cast

from trunkline.agents import script
from trunkline.agents.examples import example
from trunkline.agents.local.pool import SpeechPool
from trunkline.agents.script.grammar import MAIN, grammars
from trunkline.agents.stt.pocketsphinx import Stream, _Utterance
from trunkline.ports import SttEvent, SttPartial
from trunkline.types import MULAW_8K

GRAMMARS = grammars(script.load(example("clinic")))


def told(*heard: tuple[str, bool, bool]) -> list[SttEvent]:
    """What is told of (text, stable, likely)."""
    events: list[SttEvent] = []
    stream = Stream(cast(SpeechPool, None), "agent", GRAMMARS, MULAW_8K, events.append)
    utterance = _Utterance(GRAMMARS[MAIN])
    for text, stable, likely in heard:
        fields: dict[str, Any] = {"text": text, "stable": stable, "likely": likely}
        stream._partial(utterance, fields)
    return events


def test_words_that_are_likely_are_told_and_taken_back() -> None:
    partials = told(("where is", False, True), ("where is the clinic", True, True), ("", True, False))
    assert partials == [SttPartial("where is"), SttPartial("where is the clinic", complete=True), SttPartial("")]


def test_one_word_of_a_longer_phrase_is_no_sign_of_speech() -> None:
    assert told(("when", True, True), ("what", False, True)) == []


def test_a_phrase_of_one_word_counts_when_it_has_settled() -> None:
    assert told(("goodbye", False, True), ("goodbye", True, True)) == [SttPartial("goodbye", complete=True)]
