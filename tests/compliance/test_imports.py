"""Files of others are hostile until read: every mistake has its row and field, and nothing of the file is quoted."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.compliance.imports import BadFile, asked, batch, consents, decoded, numbers
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
HEAD = "subject,form,purposes,technologies,wording,wording_version,at,valid_until,evidence_sha256\n"
ROW = '+12125550100,express_written,marketing informational,artificial_voice,"Yes, call me",v1,2026-11-01T10:00:00Z,,\n'


def mistakes(text: str, read: Any = lambda text: consents(text, DEFAULT_TENANT, NOW)) -> list[str]:
    with pytest.raises(BadFile) as bad:
        read(text)
    return [f"{m.row} {m.field}" for m in bad.value.mistakes]


def test_grants() -> None:
    (given,) = consents("\ufeff" + HEAD + "\n" + ROW, DEFAULT_TENANT, NOW)
    assert (given.subject, given.form, given.wording) == ("+12125550100", "express_written", "Yes, call me")
    assert given.purposes == ("marketing", "informational")
    assert given.via == "import"
    assert given.evidence == ()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("+12125550100", "2125550100"), "2 subject"),
        (("+12125550100", "+19"), "2 subject"),
        (("express_written", "yes"), "2 form"),
        (("marketing informational", "marketing sales"), "2 purposes"),
        (("artificial_voice", ""), "2 technologies"),
        (('"Yes, call me"', ""), "2 wording"),
        (("v1", ""), "2 wording_version"),
        (("v1", "v\x1b1"), "2 wording_version"),
        (("v1", "v" * 3000), "2 wording_version"),
        (("2026-11-01T10:00:00Z", "2026-11-01T10:00:00"), "2 at"),
        (("2026-11-01T10:00:00Z", "2027-11-01T10:00:00Z"), "2 at"),
        (("2026-11-01T10:00:00Z", "0001-01-01T00:00:00+23:59"), "2 at"),
        ((",,\n", ",2026-10-01T10:00:00Z,\n"), "2 valid_until"),
        ((",,\n", ",,abc\n"), "2 evidence_sha256"),
        ((",,\n", ",,,,,,,\n"), "2 row"),
        (('"Yes, call me"', '"Yes'), "2 row"),
    ],
)
def test_a_mistake_has_row_and_field(change: tuple[str, str], place: str) -> None:
    assert mistakes(HEAD + ROW.replace(*change)) == [place]


def test_all_mistakes_are_told_at_once_and_no_row_is_taken() -> None:
    bad = ROW.replace("express_written", "yes")
    assert mistakes(HEAD + ROW + bad + ROW + bad) == ["3 form", "5 form"]
    assert len(mistakes(HEAD + bad * 100)) == 20


@pytest.mark.parametrize(
    ("text", "place"),
    [("", "1 header"), ("subject,form\n", "1 header"), (HEAD.replace("at", "when"), "1 header"), (HEAD, "1 file")],
)
def test_a_file_that_is_none(text: str, place: str) -> None:
    assert mistakes(text) == [place]


def test_lists() -> None:
    assert numbers("number\n+12125550100\n+12125550100\n+12125550101\n") == ["+12125550100", "+12125550101"]
    assert numbers("number\n2125550100\n", "US") == ["+12125550100"]
    for wrong in ("2125550100", "+1 212 555 0100", "+1٢125550100", "=cmd()", "+"):
        assert mistakes(f"number\n{wrong}\n", numbers) == ["2 number"]
    assert mistakes("phone\n1\n", numbers) == ["1 header"]


def test_a_batch_may_hold_what_cannot_be_called() -> None:
    rows = batch("to,purpose,region,zone\n911,,,\n+12125550100,marketing,US-NY,America/New_York\n")
    assert [(r.row, r.to, r.purpose) for r in rows] == [(2, "911", None), (3, "+12125550100", "marketing")]
    for change, place in (
        ("sales,,", "purpose"),
        (",us,", "region"),
        (",,Mars/Base", "zone"),
        (",,../../etc/passwd", "zone"),
    ):
        assert mistakes(f"to,purpose,region,zone\n911,{change}\n", batch) == [f"2 {place}"]
    with pytest.raises(BadFile, match="row 7"):
        asked(7, {"to": 5})


def test_bytes_that_are_no_text_have_a_row() -> None:
    with pytest.raises(BadFile, match="row 3"):
        decoded(b"number\n+12125550100\n\xff\n")


@given(st.text(max_size=200))
def test_whatever_is_in_a_file_it_is_read_or_refused(text: str) -> None:
    for read in (numbers, batch, lambda text: consents(text, DEFAULT_TENANT, NOW)):
        for head in ("", "number\n", "to,purpose,region,zone\n", HEAD):
            try:
                read(head + text)
            except BadFile:
                continue
