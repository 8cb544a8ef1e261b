import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from trunkline import __version__, cli
from trunkline.cli import _steps, main
from trunkline.errors import PeerError
from trunkline.gateway.api import client
from trunkline.gateway.dialling import DialOrder
from trunkline.testing.caller.script import parse_script
from trunkline.testing.ports import lease
from trunkline.types import E164

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TRUNKLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)


def status(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(argv)
    return int(end.value.code or 0)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return str(line)


# --- help ---


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), ("serve", "call", "dial", "agent", "bench", "version")),
        (("--help",), ("serve", "call", "dial", "agent", "bench", "version")),
        (("serve", "--help"), ("--config", "SIGTERM")),
        (
            ("call", "--help"),
            ("--say", "--wav", "--dtmf", "--barge-in-after", "--script", "--out", "--auth-token", "--json"),
        ),
        (
            ("dial", "--help"),
            ("number", "--from", "--trunk", "--gateway", "--api-key", "--no-wait", "--json", "Exit status 0"),
        ),
        (("agent", "--help"), ("check",)),
        (("agent", "check", "--help"), ("file", "--json", "Exit status 1")),
        (("bench", "--help"), ("twilio", "sip")),
        (("bench", "twilio", "--help"), ("--calls", "--seconds", "--pid", "--barge-in", "--heard", "--json")),
        (("bench", "sip", "--help"), ("--calls", "--seconds", "--cps", "--hold-ms", "--silent", "--auth", "--json")),
    ],
)
def test_help_names_what_there_is(
    argv: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*argv) in ((0,) if argv else (0, 2))
    out, err = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out + err)
    for word in words:
        assert word in plain


def test_every_option_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    options: set[str] = set()
    for command in (("serve",), ("call",), ("dial",), ("agent", "check"), ("bench", "twilio"), ("bench", "sip")):
        status(*command, "--help")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        for line in plain.splitlines():
            if match := re.match(r"[│\s*]*(--[a-z-]+)\s+(?:<\S+>|[A-Z]+)\s*(\[default.*|.*?)[│\s]*$", line):
                options.add(match[1])
                assert match[2], f"{' '.join(command)} {match[1]} says nothing"
                assert not match[2].startswith("[default"), f"{' '.join(command)} {match[1]} says nothing"
    assert {"--from", "--seed", "--config"} <= options


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


# --- the caller's steps, in the order they were given ---


@pytest.mark.parametrize(
    ("argv", "script"),
    [
        ("", "listen\nhangup"),
        ("http://x --json", "listen\nhangup"),
        ("--say one --dtmf 1# --say two", "say one\nkeys 1#\nsay two"),
        ("--wav a.wav --say=one", "wav a.wav\nsay one"),
        ("--barge-in-after 800 --say wait", "barge 800 say wait"),
        ("--say one --barge-in-after=500 --say two", "say one\nbarge 500 say two"),
        ("--say one --barge-in-after 500", "barge 500 say one"),
        ("--barge-in-after 500", "listen\nhangup"),
        ("--say", "say "),
    ],
)
def test_steps_keep_their_order(argv: str, script: str) -> None:
    assert _steps(argv.split()) == script


def test_a_step_cannot_smuggle_in_another() -> None:
    steps = _steps(["--say", "one\nhangup", "--dtmf", "1\n2"])
    assert steps == "say one hangup\nkeys 1 2"


def test_steps_are_a_script_the_caller_understands() -> None:
    actions = parse_script(_steps(["--say", "one", "--barge-in-after", "800", "--say", "two", "--dtmf", "12#"]))
    assert len(actions) >= 3


# --- errors: one line, status 2 ---


def test_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRUNKLINE_HTTP__PORT", "eighty")
    assert status("serve") == 2
    assert one_line(capsys) == "trunkline: TRUNKLINE_HTTP__PORT = 'eighty': a whole number from 1 to 65535"


def test_several_wrong_settings_are_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_HTTP__PORT", "eighty")
    monkeypatch.setenv("TRUNKLINE_LIMITS__MAX_CALLS", "0")
    assert status("serve") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("trunkline: TRUNKLINE_") for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("TRUNKLINE_AGENT", "no-such.toml", "TRUNKLINE_AGENT"),
        ("TRUNKLINE_HTTP__HOST", "203.0.113.9", "reachable from outside"),
        ("TRUNKLINE_HTTP__HOST", "0.0.0.0", "reachable from outside"),
        ("TRUNKLINE_HTTP__PUBLIC_URL", "https://x.example.com", "reachable from outside"),
        ("TRUNKLINE_HTTP__HOST", "127.9.9.9x", ""),
        ("TRUNKLINE_DATABASE_URL", "mysql://u:secret@h/d", ""),
    ],
)
def test_what_serve_refuses(
    name: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert status("serve") == 2
    line = one_line(capsys)
    assert named in line
    assert "secret" not in line


def test_a_token_alone_or_a_key_alone_do_not_open_the_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_HTTP__HOST", "0.0.0.0")
    for name in ("TRUNKLINE_TWILIO__AUTH_TOKEN", "TRUNKLINE_HTTP__API_KEY"):
        with monkeypatch.context() as only:
            only.setenv(name, "a-long-enough-secret-0123456789abcdef")
            assert status("serve") == 2
            assert "0123456789" not in one_line(capsys)


def test_a_config_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("serve", "--config", "missing.toml") == 2
    assert "missing.toml" in one_line(capsys)


def test_an_agent_script_with_a_mistake_names_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text('name = "x"\ngreeting = \n')
    monkeypatch.setenv("TRUNKLINE_AGENT", str(tmp_path / "agent.toml"))
    monkeypatch.setenv("TRUNKLINE_HTTP__PORT", str(lease()))
    assert status("serve") == 2
    assert "agent.toml" in one_line(capsys)


def test_a_taken_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TRUNKLINE_HTTP__PORT", str(port))
        assert status("serve") == 2
    assert one_line(capsys) == f"trunkline: http.port = {port}: another port: this one is taken"


def test_a_foreign_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRUNKLINE_HTTP__HOST", "203.0.113.9")
    monkeypatch.setenv("TRUNKLINE_TWILIO__AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("TRUNKLINE_HTTP__API_KEY", "0123456789abcdef0123456789abcdef")
    assert status("serve") == 2
    assert "an address of this machine" in one_line(capsys)


@pytest.mark.parametrize("content", ["not pem", None])
def test_a_certificate_that_is_none(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    good = (ROOT / "tests" / "vectors" / "tls" / "loopback.pem").read_text()
    cert.write_text(content or good)
    key.write_text("not pem")
    monkeypatch.setenv("TRUNKLINE_HTTP__TLS_CERT", str(cert))
    monkeypatch.setenv("TRUNKLINE_HTTP__TLS_KEY", str(key))
    monkeypatch.setenv("TRUNKLINE_HTTP__PORT", str(lease()))
    assert status("serve") == 2
    assert "http.tls_cert" in one_line(capsys)


@pytest.mark.parametrize(
    "argv",
    [
        ("call", "ftp://x"),
        ("call", "http://127.0.0.1:1", "--dtmf", "12x"),
        ("call", "http://127.0.0.1:1", "--script", "missing.caller"),
        ("call", "http://127.0.0.1:1", "--wav", "missing.wav"),
        ("call", "http://127.0.0.1:1", "--say", ""),
        ("bench", "twilio", "ftp://x"),
        ("bench", "sip", "http://x"),
        ("bench", "sip", "sip:127.0.0.1", "--codec", "opus"),
        ("bench", "sip", "sip:127.0.0.1", "--cps", "-1", "--hold-ms", "100"),
        ("bench", "sip", "sip:1@127.0.0.1:1;transport=tcp", "--silent"),
        ("call", "sip:"),
        ("call", "sip:127.0.0.1", "--auth", "nobody"),
        ("call", "sip:127.0.0.1", "--header", "no colon"),
    ],
)
def test_what_the_caller_cannot_do_is_one_line(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*argv) == 2
    assert one_line(capsys).startswith("trunkline: ")


@pytest.mark.parametrize(
    "argv", [("nonsense",), ("serve", "--nonsense"), ("call",), ("dial",), ("bench", "twilio", "x", "--calls", "many")]
)
def test_wrong_usage_is_status_2(argv: tuple[str, ...]) -> None:
    assert status(*argv) == 2


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(coroutine: Any) -> None:
        coroutine.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert status("call", "http://127.0.0.1:1") == 130


# --- dialling ---


def dialled(monkeypatch: pytest.MonkeyPatch, outcome: Any, *argv: str) -> tuple[int, list[Any]]:
    asked: list[Any] = []

    async def dial(order: DialOrder, origin: str, api_key: str, on_step: Any, *, wait: bool) -> Any:
        asked.append((order, origin, api_key, wait))
        if isinstance(outcome, Exception):
            raise outcome
        on_step(client.Step(1.25, "ringing [bold]"))
        return outcome

    monkeypatch.setattr(client, "dial", dial)
    return status("dial", *argv), asked


def test_dial_asks_the_gateway_and_tells_what_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = {"id": "c", "answered_at": "2026-11-22T15:00:00+00:00"}
    assert dialled(monkeypatch, answered, "+1 (202) 555-0123") == (
        0,
        [(DialOrder(E164("+12025550123")), "http://127.0.0.1:8080", "", True)],
    )
    assert capsys.readouterr().out == "    1.2 s  ringing [bold]\n"
    everything = [
        "--from",
        "+1.415.555.0100",
        "--trunk",
        "t",
        "--ring-timeout-s",
        "9",
        "--gateway",
        "http://x",
        "--api-key",
        "k",
    ]
    order = DialOrder(E164("+12025550123"), E164("+14155550100"), "t", 9.0)
    assert dialled(monkeypatch, answered, "+12025550123", *everything) == (0, [(order, "http://x", "k", True)])


def test_dial_as_json_is_the_record_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        dialled(monkeypatch, {"id": "c", "answered_at": None, "end_reason": "busy"}, "+12025550123", "--json")[0] == 1
    )
    assert json.loads(capsys.readouterr().out)["end_reason"] == "busy"


def test_dial_without_waiting_is_the_calls_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, asked = dialled(monkeypatch, {"id": "c"}, "+12025550123", "--no-wait")
    assert (done, asked[0][3]) == (0, False)
    assert capsys.readouterr().out.endswith("c\n")


def test_a_refused_dial_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = client.Refused("outbound_closed", "outbound.allow = (): add the country, such as US")
    assert dialled(monkeypatch, refused, "+12025550123", "--json")[0] == 2
    assert one_line(capsys) == "trunkline: outbound_closed: outbound.allow = (): add the country, such as US"


def test_a_dial_whose_gateway_is_lost_was_not_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dialled(monkeypatch, PeerError("the gateway is gone"), "+12025550123")[0] == 1
    assert one_line(capsys) == "trunkline: the gateway is gone"


def test_a_dial_without_a_gateway_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    origin = f"http://127.0.0.1:{lease()}"
    assert status("dial", "+12025550123", "--gateway", origin) == 2
    assert one_line(capsys) == f"trunkline: --gateway = '{origin}': the origin of a running gateway (trunkline serve)"


# --- JSON ---


def test_a_call_that_nobody_answers_is_reported_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("call", f"http://127.0.0.1:{lease()}", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["end"] == "failed"
    assert report["detail"]


def test_a_good_agent_script_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("agent", "check", str(ROOT / "bench" / "standin.toml"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"problems": []}


def test_a_mistake_in_the_file_of_another_agent_is_told_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin = (ROOT / "bench" / "standin.toml").read_text(encoding="utf-8")
    file = tmp_path / "one.toml"
    file.write_text(f'{standin}\n[agents.two]\nfile = "two.toml"\nwhen = "x"\n')
    (tmp_path / "two.toml").write_text(standin + "\n[turns]\nno_input_ms = 1\n")
    assert status("agent", "check", str(file)) == 1
    told = capsys.readouterr().out
    assert "two.toml: line" in told
    assert "one.toml" not in told
    assert status("agent", "check", str(file), "--json") == 1
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["file"] == str(tmp_path / "two.toml")


def test_a_bad_agent_script_is_explained_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('name = "x"\ngreeting = 5\n')
    assert status("agent", "check", str(file), "--json") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems
    assert {"severity", "line"} <= set(problems[0])
    assert status("agent", "check", str(file)) == 1
    assert "agent.toml" in capsys.readouterr().out
    assert status("agent", "check", str(tmp_path / "missing.toml")) in (1, 2)
