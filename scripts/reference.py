"""docs/settings.md from the settings themselves. `--check`: fail when the file is not what it should be."""

import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from trunkline.settings import ENV_PREFIX, keys

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """\
# Settings

From `trunkline.toml` in the working folder (or `--config FILE`) and from variables, which win. A section and its key
are joined with two underscores in a variable: `[http] port = 8080` is `TRUNKLINE_HTTP__PORT=8080`. A list is a TOML
list, in a variable its items with commas between. Empty variables count as unset; an unknown name is an error.

Written by `python scripts/reference.py` from `trunkline/settings.py`.

| key | without it | what it is |
|---|---|---|
"""


def page() -> str:
    rows = []
    for key, field in keys().items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple):
            default = ", ".join(map(str, default)) or None
        shown = "" if default in (None, (), {}, PydanticUndefined) or isinstance(default, SecretStr) else f"`{default}`"
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{key}` (`{ENV_PREFIX}{key.upper().replace('.', '__')}`) | {shown} | {text} |\n")
    return HEAD + "".join(rows)


def main() -> None:
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page() and f"{PAGE.name} is out of date: run python scripts/reference.py")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
