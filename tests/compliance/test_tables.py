"""Tables are believed after they were checked: what is wrong is named by row and field."""

from pathlib import Path

import pytest

from trunkline.compliance import tables
from trunkline.compliance.decision import Policy
from trunkline.compliance.office import Office
from trunkline.errors import ConfigError
from trunkline.testing.clock import ManualClock

HEAD = "# version 2026-12-01\nregion,purpose,days,start,end,holidays,source,note\n"
ROW = "US-NV,marketing,mon-fri,09:00,20:00,open,somebody,\n"


def test_ours_can_be_read_and_have_a_source_in_every_row() -> None:
    ours = tables.ours()
    for table in (ours.hours, ours.frequency, ours.calling, ours.lists, ours.recording, ours.disclosure):
        assert table.rows
        assert all(row.source for row in table.rows)
    assert set(ours.versions.values()) == {"2026-11-28"}
    assert ours.area_codes["212"] == ("US-NY", ("America/New_York",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "row 1"),
        ("region\n", "row 1"),
        ("# version 1\n", "row 2"),
        ("# version 1\nregion,purpose\nUS,*\n", "row 2"),
        (HEAD, "no rows"),
        (HEAD + ROW + ROW.replace("US-NV", "Nevada"), "row 4, region = 'Nevada'"),
        (HEAD + ROW.replace("marketing", "sales"), "row 3, purpose = 'sales'"),
        (HEAD + ROW.replace("mon-fri", "fri-mon"), "row 3, days"),
        (HEAD + ROW.replace("mon-fri", ""), "row 3, days"),
        (HEAD + ROW.replace("09:00", "9"), "row 3, start = '9'"),
        (HEAD + ROW.replace("20:00", "08:00"), "row 3, end = '08:00'"),
        (HEAD + ROW.replace("open", "maybe"), "row 3, holidays"),
        (HEAD + ROW.replace("somebody", ""), "row 3, source"),
        (HEAD + ROW.strip() + ",,,\n", "row 3"),
        (HEAD + '"US-NV,marketing\n', "row 3"),
        (HEAD + ROW.replace("US-NV", "U\x1b[31m"), "row 3, region = 'U?[31m'"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        tables.read("hours", text)
    assert "hours.csv" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["frequency", "lists", "holidays", "groups", "area_codes", "calling", "disclosure"])
def test_every_table_refuses_rubbish(name: str) -> None:
    columns = tables._READERS[name][0]
    with pytest.raises(ConfigError, match=rf"{name}.csv row 3"):
        tables.read(name, f"# version 1\n{columns}\n" + ",".join(["x"] * len(columns.split(","))) + "\n")


def test_a_folder_replaces_what_it_holds_and_a_broken_file_leaves_the_last_good_one(tmp_path: Path) -> None:
    policy = Policy(tables=tables.load(tmp_path))
    nobody: object = None
    office = Office(policy, nobody, nobody, nobody, ManualClock(), tables=tmp_path)  # type: ignore[arg-type]
    (tmp_path / "hours.csv").write_text(HEAD + ROW)
    office.reread()
    assert office.policy.tables.versions["hours"] == "2026-12-01"
    assert office.policy.tables.versions["calling"] == "2026-11-28"
    (tmp_path / "hours.csv").write_text(HEAD + ROW + "broken\n")
    office.reread()
    assert office.problem.startswith("hours.csv row 4, ")
    assert office.policy.tables.versions["hours"] == "2026-12-01"
    (tmp_path / "hours.csv").write_text(HEAD.replace("12-01", "12-02") + ROW)
    office.reread()
    assert (office.problem, office.policy.tables.versions["hours"]) == ("", "2026-12-02")


def test_a_broken_table_at_the_start_is_the_admins_to_mend(tmp_path: Path) -> None:
    (tmp_path / "calling.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"calling.csv"):
        tables.load(tmp_path)
