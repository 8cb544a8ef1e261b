"""docs/settings.md from the settings themselves, docs/endings.md from the tables of how calls end.

`--check`: fail when a file is not what it should be.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from trunkline.gateway import endings
from trunkline.gateway.sip import causes
from trunkline.ports import ENDED_BY
from trunkline.settings import keys, variable

DOCS = Path(__file__).parent.parent / "docs"
HEAD = """\
# Settings

From `trunkline.toml` in the working folder (or `--config FILE`) and from variables, which win. A section and its key
are joined with two underscores in a variable: `[http] port = 8080` is `TRUNKLINE_HTTP__PORT=8080`. A list is a TOML
list, in a variable its items with commas between. Empty variables count as unset; an unknown name is an error.

Written by `python scripts/reference.py` from `trunkline/settings/`.

| key | without it | what it is |
|---|---|---|
"""


ENDINGS = """\
# How calls end

Every call's record ends once, with `end_reason`, `ended_by`, a few words in `end_detail`, and in `provider_code` what
the provider itself said. Reasons and names stay as they are from version to version; new ones may be added.

Written by `python scripts/reference.py` from `trunkline/gateway/endings.py` and `trunkline/gateway/sip/causes.py`.
"""
CODES = """
## `provider_code`

`sip:486` is the final SIP status, `q850:17` the telephone network's cause that came with it (RFC 3326, RFC 6432),
`twilio:busy` Twilio's CallStatus, `error:13224` its ErrorCode. Several stand with `;` between:
`sip:480;q850:19`, `twilio:failed;sip:404;error:13224`. It is empty where nobody said anything.
"""


def settings_page() -> str:
    rows = []
    for key, field in keys().items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple):
            default = ", ".join(map(str, default)) or None
        shown = "" if default in (None, (), {}, PydanticUndefined) or isinstance(default, SecretStr) else f"`{default}`"
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{key}` (`{variable(key)}`) | {shown} | {text} |\n")
    return HEAD + "".join(rows)


def endings_page() -> str:
    reasons = [(f"`{name}`", f"`{ENDED_BY[name]}`", text) for name, text in endings.MEANING.items()]
    who = [(f"`{name}`", text) for name, text in endings.WHO.items()]
    statuses = [(f"`{code}`", f"`{reason}`", words) for code, (reason, words) in sorted(causes.BY_STATUS.items())]
    exchange = [(f"`{code}`", f"`{reason}`", words) for code, (reason, words) in sorted(causes.BY_Q850.items())]
    twilio = [(f"`{name}`", f"`{reason}`") for name, reason in endings.TWILIO_STATUS.items()]
    errors = [(f"`{code}`", f"`{reason}`", words) for code, (reason, words) in sorted(endings.TWILIO_ERRORS.items())]
    return "".join(
        (
            ENDINGS,
            _table("end_reason", ("", "`ended_by`, unless it is known better", ""), reasons),
            _table("ended_by", ("", ""), who),
            CODES,
            _table("A call of ours that a SIP trunk did not connect", ("status", "", ""), statuses),
            "\nOther 3xx, 4xx, 5xx and 6xx are `failed`. A Q.850 cause beside the status says more and is believed:\n",
            _table("Q.850 causes", ("cause", "", ""), exchange),
            _table("Twilio's CallStatus", ("status", ""), twilio),
            "\nThe SIP status (SipResponseCode) or the ErrorCode beside it says more and is believed.\n",
            _table("Twilio's ErrorCode", ("code", "", ""), errors),
        )
    )


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return f"\n## {title}\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    for name, page in (("settings.md", settings_page()), ("endings.md", endings_page())):
        if "--check" not in sys.argv:
            (DOCS / name).write_text(page)
        elif not (DOCS / name).is_file() or (DOCS / name).read_text() != page:
            sys.exit(f"{name} is out of date: run python scripts/reference.py")


if __name__ == "__main__":
    main()
