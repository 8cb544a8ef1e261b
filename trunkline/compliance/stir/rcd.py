"""Rich call data (RFC 9795): what a signed token says of the caller, as text. Its URLs (icn, jcl) are neither fetched
nor handed on: whoever shows them would fetch them."""

from collections.abc import Mapping
from typing import Any

MAX_CHARS = 128


def rich_data(claims: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """`name`, `caller_number` (apn) and `reason` (crn), where there are any. Untrusted words: control characters and
    what turns text around are gone."""
    rcd = claims.get("rcd")
    given = rcd if isinstance(rcd, Mapping) else {}
    found = {
        "name": _text(given.get("nam")),
        "caller_number": _text(given.get("apn")),
        "reason": _text(claims.get("crn")),
    }
    return tuple((name, text) for name, text in found.items() if text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value[:MAX_CHARS] if char.isprintable()).strip()
