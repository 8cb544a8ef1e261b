"""What a carrier says it verified, in our words. Only the carrier may say so: from a signed webhook, or a trunk's peer.

Whole strings only: another spelling is no verdict. The tables say what each means; sources in docs/stir.md."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from trunkline.compliance.stir.reasons import BAD_HEADER, USE_IDENTITY
from trunkline.ports import Attest, CallerVerdict, Mode

Source = Literal["twilio", "telnyx", "bandwidth", "pai"]
MAX_RAW_CHARS = 64
_LEVELS: tuple[Attest, ...] = ("A", "B", "C")
_MODES: Mapping[str, Mode] = {"": "direct", "-Diverted": "diverted", "-Passthrough": "passthrough"}


def _twilio() -> dict[str, CallerVerdict]:
    """The 21. `No-TN-Validation` is what a broken or stale token gets, so it is a failure, not a call without one."""
    found = {
        "TN-Validation-Failed": _failed("twilio"),
        "No-TN-Validation": _failed("twilio"),
        "NULL": _none("twilio"),
    }
    for level in _LEVELS:
        for suffix, mode in _MODES.items():
            found[f"TN-Validation-Passed-{level}{suffix}"] = CallerVerdict("passed", level, mode=mode, source="twilio")
            found[f"TN-Validation-Failed-{level}{suffix}"] = CallerVerdict(
                "failed", level, "carrier_failed", BAD_HEADER, mode, source="twilio"
            )
    return found


def _failed(source: Source) -> CallerVerdict:
    return CallerVerdict("failed", reason="carrier_failed", sip_code=BAD_HEADER, source=source)


def _none(source: Source) -> CallerVerdict:
    return CallerVerdict("none", reason="carrier_none", sip_code=USE_IDENTITY, source=source)


def _passed(source: Source, attest: Attest | None) -> CallerVerdict:
    return CallerVerdict("passed", attest, source=source)


_MEANINGS: Mapping[Source, Mapping[str, CallerVerdict]] = {
    "twilio": _twilio(),
    "telnyx": {
        "TN-Validation-Passed": _passed("telnyx", "A"),
        "TN-Validation-Passed-B": _passed("telnyx", "B"),
        "TN-Validation-Passed-C": _passed("telnyx", "C"),
        "TN-Validation-Failed": _failed("telnyx"),
        "No-TN-Validation": _none("telnyx"),
    },
    "bandwidth": {  # the level comes beside it
        "TN-Validation-Passed": _passed("bandwidth", None),
        "TN-Validation-Failed": _failed("bandwidth"),
        "No-TN-Validation": _none("bandwidth"),
    },
    "pai": {  # 3GPP TS 24.229: no levels
        "TN-Validation-Passed": _passed("pai", None),
        "TN-Validation-Failed": _failed("pai"),
        "No-TN-Validation": _none("pai"),
    },
}


def fold(source: Source, value: str | None, attest: str | None = None) -> CallerVerdict:
    """`value` as the carrier sent it, once. `attest`: Bandwidth's attestationIndicator. What is none of the carrier's
    values is no verdict."""
    known = _MEANINGS[source].get(value) if value is not None else None
    if value is None:
        return CallerVerdict("none", reason="carrier_silent", sip_code=USE_IDENTITY, source=source)
    if known is None:
        shown = "".join(char for char in value[:MAX_RAW_CHARS] if char.isprintable())
        return CallerVerdict("none", reason="carrier_unknown", sip_code=USE_IDENTITY, source=source, raw=shown)
    beside = next((level for level in _LEVELS if level == attest), None) if source == "bandwidth" else None
    level = beside or known.attest
    return replace(known, attest=level, raw=value)


def carriers_word(source: Source, words: Sequence[str]) -> CallerVerdict:
    """`words`: however often it was said. Twice and differently is not at all."""
    said = sorted(set(words))
    return fold(source, said[0] if len(said) == 1 else " / ".join(said) if said else None)


def values(source: Source) -> tuple[str, ...]:
    return tuple(_MEANINGS[source])
