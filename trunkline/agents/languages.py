"""Which language a call is held in. Plain: what was said and what the recogniser took it for go in, the language now
comes out.

A caller is answered in the language they speak, as soon as that is sure: an utterance of SURE_WORDS words, or two short
ones, one after the other. A lone "no" or "ok" is said in every language and tells nothing.

The conversation keeps the language with its messages (`Message.language`), so a mind, another attendant or another
agent that goes on with it knows it too.
"""

# ruff: noqa: SIM905 - word lists read best as words
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trunkline.ports import Message

SPEAK_LANGUAGE = "speak_language"
"""The tool by which a model or a script changes the language."""

SURE_WORDS = 3
ANYONES = frozenset(
    "no ok okay oké si sí ja da hm hmm mm mhm uh um ah oh eh ey hey hi hello hallo hola halo bye ciao adios mama papa "
    "taxi hotel bus internet email mail wifi online stop super bravo".split()
)
"""Words of no language in particular, and greetings that people try out."""

_LISTENING: Mapping[str, str] = {
    "es": "sí si ya vale claro bueno ajá aja eso",
    "de": "ja genau klar gut aha stimmt",
    "fr": "oui ouais d'accord bien euh voilà",
    "it": "sì si certo bene già ecco ah",
    "pt": "sim pois tá certo aham claro",
    "nl": "ja goed klopt precies",
}
"""Said to show that one listens, by the language alone."""

CODES = frozenset(
    (
        "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz "
        "ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik "
        "io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml "
        "mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd "
        "se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi "
        "vo wa wo xh yi yo za zh zu"
    ).split()
)
"""ISO 639-1."""

_TAG = re.compile(r"([A-Za-z]{2,3})(-[A-Za-z]{4})?(-([A-Za-z]{2}|\d{3}))?(-[A-Za-z0-9]{4,8})*")


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a call is held in."""

    language: str
    """A tag of the agent."""
    doubt: str | None = None
    """The caller's last utterance was of another, but too short to be sure."""


def is_tag(text: str) -> bool:
    """Whether it is a language of RFC 5646, as it is written here: `es`, `es-ES`, `zh-Hant-TW`, `fil`."""
    found = _TAG.fullmatch(text)
    return found is not None and (len(found[1]) == 3 or found[1].lower() in CODES)


def primary(tag: str) -> str:
    """`es-ES` -> `es`."""
    return tag.partition("-")[0].lower()


def lookup(wanted: str, tags: Iterable[str]) -> str | None:
    """The tag that fits: `wanted` itself, else it with ever less behind (RFC 4647, section 3.4); then the first that
    says the same more precisely (section 3.3.1), since recognisers name the language alone."""
    known = list(tags)
    parts = wanted.lower().replace("_", "-").split("-")
    ranges: list[str] = []
    while parts:
        ranges.append("-".join(parts))
        parts.pop()
        while parts and len(parts[-1]) == 1:  # a singleton says nothing without what was behind it
            parts.pop()
    for each in ranges:
        for tag in known:
            if tag.lower() == each:
                return tag
    for each in ranges:
        for tag in known:
            if tag.lower().startswith(f"{each}-"):
                return tag
    return None


def telling_words(text: str) -> int:
    """How many words of it speak for a language. Where words are not set apart, two characters count as one."""
    count = 0
    for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower()):
        if _unspaced(word[0]):
            count += max(1, len(word) // 2)
        elif word not in ANYONES:
            count += 1
    return count


def _unspaced(letter: str) -> bool:
    """Thai, Lao, Burmese, Khmer; Chinese and Japanese."""
    return (
        "\u0e00" <= letter <= "\u0eff"
        or "\u1000" <= letter <= "\u109f"
        or "\u1780" <= letter <= "\u17ff"
        or ("\u3040" <= letter <= "\u9fff")
    )


def backchannels(tag: str) -> frozenset[str]:
    """Words of the language that take the floor from nobody; the international ones are the turn machine's."""
    return frozenset(_LISTENING.get(primary(tag), "").split())


def follow(spoken: Spoken, tags: Sequence[str], text: str, detected: str | None) -> Spoken:
    """After an utterance of the caller, which the recogniser took for `detected`."""
    tag = None if detected is None else lookup(detected, tags)
    words = telling_words(text)
    if tag is None or not words:
        return spoken
    if primary(tag) == primary(spoken.language):  # an accent is no other language
        return Spoken(spoken.language)
    if words >= SURE_WORDS or spoken.doubt == tag:
        return Spoken(tag)
    return Spoken(spoken.language, doubt=tag)


def of_conversation(conversation: Sequence[Message], tags: Sequence[str]) -> str:
    """What a conversation is held in at its end; the first of the tags where it does not say."""
    for message in reversed(conversation):
        if message.language is not None and (tag := lookup(message.language, tags)) is not None:
            return tag
    return tags[0]
