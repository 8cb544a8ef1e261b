"""Replies with variables: `See you {day}.` A variable is looked up by its name and nothing else: no attributes, no
indexes, no format specifications, and what a variable holds is never read as a template again."""

import re
from collections.abc import Callable, Mapping

_VARIABLE = re.compile(r"\{([^{}]*)\}")
NAME = re.compile(r"[a-z][a-z0-9_]*")


def variables(text: str) -> tuple[str, ...]:
    """The names in `text`, in order, as written between the braces."""
    return tuple(match[1].strip() for match in _VARIABLE.finditer(text))


def faults(text: str) -> list[str]:
    """What is wrong with `text` as a template, in the admin's words."""
    wrong = [
        f"{{{name}}} is not a variable: a name is lowercase letters, digits and _"
        for name in variables(text)
        if not NAME.fullmatch(name)
    ]
    if re.search(r"[{}]", _VARIABLE.sub("", text)):
        wrong.append("a brace stands alone: a variable is written {name}")
    return wrong


def fill(text: str, values: Mapping[str, str], encode: Callable[[str], str] = str) -> str:
    """`text` with its variables; one that is not known becomes nothing."""
    return _VARIABLE.sub(lambda match: encode(values.get(match[1].strip(), "")), text)
