"""What is said to whom has asked not to be called again: `confirmations.toml`, by language."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

Confirmation = Literal["opted_out", "unwritten", "no_number"]
"""unwritten: it holds in this process, and no disk has it. no_number: theirs is not known."""
FIRST = "en"
"""In place of a language that has none."""


def confirmation(kind: Confirmation, language: str) -> str:
    """`language`: a tag of RFC 5646."""
    lines = _read()
    text = lines.get(language.partition("-")[0].lower(), lines[FIRST])[kind]
    return str(text)


@cache
def _read() -> dict[str, dict[str, str]]:
    text = (files("trunkline.compliance") / "confirmations.toml").read_text(encoding="utf-8")
    return {name: lines for name, lines in tomllib.loads(text).items() if isinstance(lines, dict)}
