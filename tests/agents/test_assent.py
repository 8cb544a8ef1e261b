from functools import cache

import numpy as np
import pytest

from trunkline.agents.assent import answer_of, doubtful, listens
from trunkline.agents.local.ears import Ears
from trunkline.agents.local.voice import synthesize
from trunkline.media import g711


@pytest.mark.parametrize(
    ("text", "language", "answer"),
    [
        ("yes", "en-US", "yes"),
        ("Yes please.", "en-US", "yes"),
        ("no thanks", "en-GB", "no"),
        ("yes and no", "en-US", None),
        ("I don't know", "en-US", None),
        ("", "en-US", None),
        ("Sí, claro.", "es-ES", "yes"),
        ("no quiero", "es-MX", "no"),
        ("Ja, natürlich", "de-DE", "yes"),
        ("nein danke", "de-AT", "no"),
        ("yes", "de-DE", None),
        ("yes", "fr-FR", "yes"),  # they were asked in English
    ],
)
def test_what_these_words_say(text: str, language: str, answer: str | None) -> None:
    assert answer_of(text, language) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [("go ahead", None), ("hello", None), ("oh no", None)],
)
def test_what_is_heard_so_that_it_is_no_answer(text: str, answer: None) -> None:
    assert answer_of(text, "en-US") is answer


def test_a_yes_must_fit_well_and_a_no_need_not() -> None:
    assert doubtful("yes", -14.5, "en")
    assert not doubtful("yes", -12.0, "en")
    assert not doubtful("no", -14.5, "en")


@cache
def ears() -> Ears:
    """As one speech worker has them: words that two languages write alike are in both tables."""
    found = Ears()
    for language in ("en", "es", "de"):
        list(found.preload(listens(language)))
    return found


def heard(text: str, language: str, voice: str) -> str | None:
    utterance = ears().begin(f"{listens(language).fields['agent']}/main")
    pcm = np.frombuffer(bytes(4800) + synthesize(text, voice) + bytes(4800), dtype="<i2") * 0.7
    line = pcm + np.random.default_rng(1).normal(0, 10, len(pcm))
    utterance.feed(g711.decode(g711.encode(line.astype("<i2").tobytes(), "mulaw"), "mulaw"))
    said, understood, _ = utterance.finish()
    return answer_of(said.text, language) if understood and not doubtful(said.text, said.score, language) else None


@pytest.mark.parametrize(
    ("said", "language", "voice", "answer"),
    [
        ("yes", "en", "en-us", "yes"),
        ("no", "en", "en-us", "no"),
        ("sí", "es", "es", "yes"),
        ("no", "es", "es", "no"),
        ("sí, claro", "es", "es", "yes"),
        ("no, gracias", "es", "es", "no"),
        ("ja", "de", "de", "yes"),
        ("nein", "de", "de+f2", "no"),
        ("lieber nicht", "de", "de", "no"),
        ("what are your opening hours", "en", "en-us", None),
        ("quiero hablar con una persona", "es", "es", None),
        ("ich habe eine Frage", "de", "de", None),
    ],
)
def test_a_spoken_answer_is_heard_in_its_own_language(said: str, language: str, voice: str, answer: str | None) -> None:
    assert heard(said, language, voice) == answer
