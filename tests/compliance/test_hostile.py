"""Rule tables and consent imports with anything in any field: read, or refused by row and field; nothing else."""

import asyncio
import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compliance.test_office import House
from trunkline.compliance import tables
from trunkline.compliance.decision import Policy, Terms
from trunkline.compliance.imports import CONSENT_COLUMNS, BadFile, consents
from trunkline.compliance.office import Office
from trunkline.errors import ConfigError
from trunkline.ports import Facts
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
NAMES = sorted(tables._READERS)
LIKELY = [
    "", "*", "US", "US-CA", "us", "US-", "-CA", "EU", "mon-fri", "sat sun", "fri-mon", "09:00", "24:00", "25:00",
    "T0900",
    "2026-12-25", "20261225", "2026-W01-1", "0", "1", "99999999", "-1", "1e3", "٣", "²", "NaN", "open", "closed", "all",
    "marketing", "none", "express_written", "national", "America/New_York", "../x", "a,b", '"', "'=cmd()",
    "\0", "\x1b[31m",
    "\u2028", "\x85", "\x0b", "\x1c", "x" * 500, "\ud7ff", "\ufeff", "212", "business", "outbound",
]  # fmt: skip
values = st.one_of(st.sampled_from(LIKELY), st.text(max_size=20))


def good(name: str) -> list[str]:
    """The fields of our own table's first row."""
    text = tables._text(name, None)
    columns, row = [line for line in text.splitlines() if line and not line.startswith("#")][:2]
    fields = [field.replace(",", ";").replace('"', "") for field in next(csv.reader([row]))]
    return fields + [""] * (len(columns.split(",")) - len(fields))


GOOD = {name: good(name) for name in NAMES}


def read(name: str, text: str) -> tables.Table | str:
    """What is wrong, or the table."""
    try:
        return tables.read(name, text)
    except ConfigError as error:
        return str(error)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_any_field_of_a_table_is_read_or_named(name: str, data: st.DataObject) -> None:
    columns, fields = tables._READERS[name][0], list(GOOD[name])
    which = data.draw(st.integers(0, len(fields) - 1))
    fields[which] = data.draw(values)
    text = f"# version 1\n{columns}\n" + ",".join(GOOD[name]) + "\n" + ",".join(fields) + "\n"
    table = read(name, text)
    if isinstance(table, str):
        assert re.search(rf"{name}\.csv row \d+", table), table
        assert not {"\x1b", "\0"} & set(table)
        return
    assert 1 <= len(table.rows) <= 2
    texts = {other: tables._text(other, None) for other in NAMES}
    ours = tables._tables(texts | {name: text})
    for number in ("+12125550100", "+493012345678", None):  # what was read can be decided by
        facts = Facts("dial", DEFAULT_TENANT, "outbound", None, number, purpose="marketing")
        Policy(outbound_allow=("US",), terms=Terms("Acme"), tables=ours).decide(facts, NOW)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_any_text_is_a_table_or_refused(name: str, text: str | bytes) -> None:
    as_text = text if isinstance(text, str) else text.decode("latin-1")
    for head in ("", "# version 1\n", f"# version 1\n{tables._READERS[name][0]}\n"):
        found = read(name, head + as_text)
        assert f"{name}.csv" in found if isinstance(found, str) else found.rows


CONSENT = dict(
    zip(
        CONSENT_COLUMNS,
        (
            "+12125550100", "express_written", "marketing", "artificial_voice", "Yes", "v1", "2026-11-01T10:00:00Z",
            "voice", "recording", "s3://x", "a" * 64, "US-NY", "2026-11-01T10:00:00Z", "2027-11-01T10:00:00Z", "Acme",
            "import",
        ),
        strict=True,
    )
)  # fmt: skip
times = st.sampled_from(
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-11-01T10:00:00+24:00", "2026-11-01"]
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(CONSENT_COLUMNS), st.one_of(values, times))
def test_any_field_of_a_consent_is_read_or_named(column: str, value: str) -> None:
    fields = CONSENT | {column: '"' + value.replace('"', '""') + '"'}
    bad: BadFile | None = None
    try:
        found = consents(",".join(CONSENT_COLUMNS) + "\n" + ",".join(fields.values()) + "\n", DEFAULT_TENANT, NOW)
    except BadFile as error:
        bad = error
    if bad is not None:
        assert all(mistake.row >= 1 and mistake.field for mistake in bad.mistakes)
        assert len(value) < 8 or value not in str(bad), "nothing of the file is quoted"
        return
    assert len(found) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_table_leaves_a_live_office_with_the_last_good_ones(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        house = House()
        policy = Policy(
            outbound_allow=("US",), terms=Terms("Acme", "US-NY", callback=True), tables=tables.load(tmp_path)
        )
        office = Office(policy, house, house, house, house.clock, tables=tmp_path)
        await office.start()
        try:
            columns = tables._READERS[name][0]
            facts = Facts("dial", DEFAULT_TENANT, "outbound", None, "+12125550100", purpose="marketing")
            before, in_force = office.decide(facts, NOW), office.policy.tables
            rubbish = ",".join(["\x1b"] * len(columns.split(",")))
            for broken in (b"", b"\xff\xfe", f"# version 9\n{columns}\n{rubbish}\n".encode()):
                (tmp_path / f"{name}.csv").write_bytes(broken)
                office.reread()
                assert office.problem.startswith(f"{name}.csv")
                assert office.policy.tables is in_force
                assert office.decide(facts, NOW) == before
            (tmp_path / f"{name}.csv").write_text(f"# version 9\n{columns}\n{','.join(GOOD[name])}\n")
            office.reread()
            assert office.problem == ""
            assert office.policy.tables is not in_force
        finally:
            await office.close()

    asyncio.run(run())


def test_a_table_that_is_away_for_a_while_is_a_problem_that_is_told(tmp_path: Path) -> None:
    office = Office(Policy(), House(), House(), House(), ManualClock(), tables=tmp_path)
    (tmp_path / "hours.csv").mkdir()
    office.reread()
    assert office.problem.startswith("hours.csv")
