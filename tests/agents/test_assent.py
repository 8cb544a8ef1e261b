import pytest

from trunkline.agents.assent import answer_of


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
