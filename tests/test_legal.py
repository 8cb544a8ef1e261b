"""`trunkline compliance ...`, run as a user would: on the database of the settings, with files that may be wrong."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trunkline.cli import main

ANN, BOB = "+12125550100", "+13055550100"
CONSENT = "subject,form,purposes,technologies,wording,wording_version,at\n"
GRANT = f"{ANN},express_written,marketing,artificial_voice,May we call?,v1,2026-11-01T10:00:00Z\n"
SETTINGS = """
[outbound]
allow = ["US"]
[compliance]
business = "Acme Clinic"
callback_number = "+12125550111"
region = "US-NY"
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TRUNKLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trunkline.toml").write_text(SETTINGS)
    monkeypatch.setenv("TRUNKLINE_DATA_DIR", str(tmp_path / "data"))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(("compliance", *argv))
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def answer(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    code, out, err = run(capsys, *argv)
    assert (code, err) == (status, ""), err
    found: dict[str, Any] = json.loads(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, ""), (code, out)
    assert "Traceback" not in err
    return err.splitlines()


# --- explain, tables ---


def test_a_call_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked: tuple[str, ...] = (
        "explain",
        "--direction",
        "outbound",
        "--from",
        "+12125550111",
        "--to",
        ANN,
        "--purpose",
        "marketing",
    )
    asked += ("--at", "2026-11-23T17:00:00Z")
    found = answer(capsys, *asked, "--json")
    assert (found["decision"], found["code"]) == ("refuse", "litigator_unknown")
    assert set(found) == {"decision", "code", "why", "checks", "obligations"}
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert out.startswith("refuse: litigator_unknown (")
    assert "  unknown litigator     unknown  [lists " in out
    assert ANN not in out
    assert not (tmp_path / "data" / "trunkline.db").exists(), "a question makes no database"
    inbound = answer(capsys, "explain", "--direction", "inbound", "--from", ANN, "--json")
    assert inbound["decision"] == "allow"
    assert "owed    say_ai" in run(capsys, "explain", "--direction", "inbound")[1]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--purpose", "sales"), "--purpose = 'sales'"),
        (("--region", "usa"), "--region = 'usa'"),
        (("--zone", "Mars/Base"), "--zone = 'Mars/Base'"),
        (("--at", "noon"), "--at"),
        (("--at", "2026-11-23T17:00:00"), "--at"),
        (("--to", "1" * 33), "--to"),
        (("--direction", "up"), "direction"),
    ],
)
def test_an_option_that_is_wrong_is_named(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], named: str
) -> None:
    assert named in " ".join(refused(capsys, "explain", *argv))


def test_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(capsys, "tables", "--json")
    assert found["in_force"]
    assert run(capsys, "tables")[1].startswith("in force\n")
    (tmp_path / "laws").mkdir()
    (tmp_path / "laws" / "hours.csv").write_text("# version 1\nregion\n")
    monkeypatch.setenv("TRUNKLINE_COMPLIANCE__TABLES", str(tmp_path / "laws"))
    (line,) = refused(capsys, "tables")
    assert "hours.csv row 2" in line


# --- the ledger ---


def test_consents_are_imported_once_exported_erased_and_verified(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "consents.csv").write_text(CONSENT + GRANT + GRANT.replace(ANN, BOB))
    taking = ("consent", "import", "consents.csv", "--json")
    assert answer(capsys, *taking) == {"rows": 2, "taken": 2}
    assert answer(capsys, *taking) == {"rows": 2, "taken": 0}
    (event,) = answer(capsys, "consent", "export", ANN)["events"]
    assert event["form"] == "express_written"
    assert answer(capsys, "consent", "erase", ANN, "--json") == {"erased": 1}
    assert answer(capsys, "consent", "export", ANN)["events"] == []
    checked = answer(capsys, "consent", "verify", "--json")
    assert (checked["rows"], checked["broken"]) == (3, None)

    with closing(sqlite3.connect(tmp_path / "data" / "trunkline.db")) as database, database:
        database.execute("UPDATE consent_events SET subject = '+12125550199' WHERE seq = 2")
    assert answer(capsys, "consent", "verify", "--json", status=1)["broken"] == 2
    code, out, _ = run(capsys, "consent", "verify")
    assert (code, "broken: 2" in out) == (1, True)


def test_bad_rows_are_named_by_line_and_nothing_is_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = GRANT.replace("express_written", "yes").replace(ANN, "2125550100")
    (tmp_path / "consents.csv").write_text(CONSENT + GRANT + bad + GRANT.replace("marketing", "sales"))
    lines = refused(capsys, "consent", "import", "consents.csv")
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == ["row 3, subject", "row 4, purposes"]
    assert "2125550100" not in " ".join(lines)
    assert answer(capsys, "consent", "verify", "--json")["rows"] == 0


@pytest.mark.parametrize(
    "argv",
    [("consent", "import"), ("dnc", "import"), ("preview",)],
)
def test_files_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: tuple[str, ...]) -> None:
    (line,) = refused(capsys, *argv, "missing.csv")
    assert "missing.csv" in line
    (line,) = refused(capsys, *argv, ".")
    assert "directory" in line
    (tmp_path / "binary.csv").write_bytes(b"number\n\xff\xfe\n")
    assert "row 2" in refused(capsys, *argv, "binary.csv")[0]
    (tmp_path / "empty.csv").write_text("")
    assert "header" in refused(capsys, *argv, "empty.csv")[0]


@pytest.mark.parametrize("argv", [("consent", "export"), ("consent", "erase"), ("dnc", "add")])
def test_a_subject_that_is_no_number(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    (line,) = refused(capsys, *argv, "212-555")
    assert "+COUNTRY NUMBER" in line


# --- lists ---


def code_of(capsys: pytest.CaptureFixture[str], to: str = ANN) -> Any:
    at = "2026-11-23T17:00:00Z"
    return answer(capsys, "explain", "--to", to, "--purpose", "marketing", "--at", at, "--json")["code"]


def test_a_number_is_listed_and_calls_are_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "dnc", "add", ANN, "--json") == {"list": "company", "numbers": 1}
    assert code_of(capsys) == "company_dnc"
    assert code_of(capsys, BOB) == "litigator_unknown"
    assert answer(capsys, "dnc", "stop", "--json") == {"stopped": True}
    assert code_of(capsys, BOB) == "stopped"
    assert answer(capsys, "dnc", "start", "--json") == {"stopped": False}
    assert code_of(capsys, BOB) == "litigator_unknown"


def test_lists_are_taken_as_a_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("number\n3055550100\n+12145550100\n")
    drawn = ("--drawn", "2026-11-20T00:00:00Z")
    found = answer(capsys, "dnc", "import", "list.csv", "--list", "litigator", *drawn, "--json")
    assert found == {"list": "litigator", "region": "", "numbers": 2}
    assert code_of(capsys, BOB) == "litigator"
    assert code_of(capsys, ANN) == "national_dnc_unknown"
    answer(capsys, "dnc", "import", "list.csv", "--list", "national", "--region", "US", *drawn, "--json")
    answer(capsys, "dnc", "import", "list.csv", "--list", "reassigned", *drawn, "--json")
    assert code_of(capsys, ANN) == "no_consent"
    lists = answer(capsys, "tables", "--json")["lists"]
    assert [(each["list"], each["numbers"]) for each in lists] == [("litigator", 2), ("national", 2), ("reassigned", 2)]
    (tmp_path / "list.csv").write_text("number\n+12145550100\n12\n")
    assert refused(capsys, "dnc", "import", "list.csv", "--list", "litigator") == [
        "trunkline: row 3, number: a valid number as +COUNTRY NUMBER without spaces"
    ]
    assert code_of(capsys, BOB) == "litigator", "the older copy stays"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--list", "national"), "--region"),
        (("--list", "state", "--region", "US"), "--region"),
        (("--list", "company", "--region", "US"), "--region"),
        (("--list", "national", "--region", "usa"), "--region"),
        (("--list", "litigator", "--drawn", "2999-01-01T00:00:00Z"), "--drawn"),
        (("--list", "litigator", "--drawn", "today"), "--drawn"),
        (("--list", "enemies"), "--list"),
    ],
)
def test_a_list_that_cannot_be_placed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: tuple[str, ...], named: str
) -> None:
    (tmp_path / "list.csv").write_text("number\n+12145550100\n")
    assert named in " ".join(refused(capsys, "dnc", "import", "list.csv", *argv))


def test_a_database_that_is_away(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data" / "trunkline.db").mkdir(parents=True)
    code, out, err = run(capsys, "dnc", "stop")
    assert (code, out) == (2, "")
    assert "the database is away" in err


# --- a batch ---

BATCH = "to,purpose,region,zone\n"


def test_a_batch_is_previewed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_text(BATCH + f"{ANN},informational,,\n911,,,\n{ANN},,US-CA,\n")
    found = answer(capsys, "preview", "batch.csv", "--at", "2026-11-23T17:00:00Z", "--json")
    assert (found["calls"], found["skipped"], found["codes"]) == (
        3,
        3,
        {"emergency": 1, "litigator_unknown": 1, "no_consent": 1},
    )
    (tmp_path / "batch.csv").write_text(BATCH + f"{ANN},sales,,\n")
    assert refused(capsys, "preview", "batch.csv")[0].startswith("trunkline: row 2, purpose")


def test_the_batch_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/compliance.md shows this very output."""
    docs = Path(__file__).parents[1] / "docs"
    example = docs / "compliance-example"
    answer(capsys, "consent", "import", str(example / "consents.csv"), "--json")
    shown = run(capsys, "preview", str(example / "batch.csv"), "--at", "2026-11-23T14:30:00Z")[1]
    assert shown.startswith("12 of 50 skipped\n")
    assert shown in (docs / "compliance.md").read_text()
