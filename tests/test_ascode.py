"""`trunkline export` and `trunkline apply`, as an admin runs them."""

import json
from pathlib import Path

import pytest

from trunkline.cli import main
from trunkline.numbers.ascode import read_document, written

FILE = """
[[routes]]
name = "main"
answer = { kind = "busy" }

[[numbers]]
number = "+14155550100"
route = "main"
"""


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_DATA_DIR", str(tmp_path / "data"))


def test_a_file_is_shown_then_applied_then_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("desk.toml").write_text(FILE)
    assert run("apply", "desk.toml", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == ["+ routes main", "+ numbers +14155550100", "it would be: 2 made"]
    assert run("apply", "desk.toml") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "done: 2 made"
    Path("desk.toml").write_text(FILE.replace('"busy"', '"message", text = "Closed."'))
    run("apply", "desk.toml")
    assert capsys.readouterr().out.splitlines() == [
        "@@ ~ routes main @@",
        '-answer = {"kind": "busy"}',
        '+answer = {"kind": "message", "text": "Closed."}',
        "done: 1 changed",
    ]
    assert run("export", "--out", "out.toml") == 0
    assert Path("out.toml").stat().st_mode & 0o777 == 0o600
    run("apply", "out.toml", "--prune", "--json")
    assert json.loads(capsys.readouterr().out) == {"applied": True, "steps": []}
    run("export", "--tenant", "another", "--json")
    assert json.loads(capsys.readouterr().out) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[", "the file cannot be read"),
        ('[[numbers]]\nnumber = "123"', "numbers.0: number: a phone number as +COUNTRY NUMBER"),
        (
            '[[numbers]]\nnumber = "+14155550100"\nroute = "x"',
            "number +14155550100 names the route x, which is not there",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_changed(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("desk.toml").write_text(text)
    assert run("apply", "desk.toml") == 2
    err = capsys.readouterr().err
    assert err.startswith("trunkline: apply = 'desk.toml': ")
    assert told in err
    assert err.count("\n") == 1
    run("export")
    assert capsys.readouterr().out == ""


def test_a_file_that_cannot_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", "nowhere.toml") == 2
    assert "a file we may read" in capsys.readouterr().err
    Path("bad.toml").write_bytes(b"\xff")
    assert run("apply", "bad.toml") == 2
    assert "UTF-8 text: byte 0 is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["one\ntwo\n", 'a "quoted"\nline\\n', "it's\n'''\n", "ends in '\n'", "\r\n", "\n", "tab\t\nx", "\x01\n"]
)
def test_texts_come_back_as_they_were(text: str) -> None:
    document = {"agents": [{"name": "a", "script": text}], "tenant": {"outage_text": text}}
    assert read_document(written(document)) == document
