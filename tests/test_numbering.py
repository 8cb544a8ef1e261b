"""`trunkline numbers ...`, against a server that speaks Twilio's wire, and one that answers as a gateway does."""

import asyncio
import io
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.fakes.twilio_numbers import Trouble
from tests.fakes.twilio_server import TwilioServer
from trunkline.cli import main
from trunkline.numbers import csvimport
from trunkline.numbers.carriers import owning
from trunkline.testing.ports import lease

ACCOUNT, KEY, SECRET = "AC" + "1" * 32, "SK" + "2" * 32, "a-secret-of-twilio"
ONE = "+14155550100"
URL = "https://voice.example.invalid"


class Elsewhere:
    """The servers, on a loop of their own."""

    def __init__(self, port: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.twilio = TwilioServer(ACCOUNT, {KEY: SECRET}, "token")
        self.do(self.twilio.__aenter__())
        self.port = port
        self.reasons: list[str] = []
        self.trunks = [{"name": "office", "state": "up", "takes_calls": True, "calls": 0}]
        self.asked: list[str] = []

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def gateway(self) -> None:
        import uvicorn

        async def ready(request: Any) -> JSONResponse:
            return JSONResponse({"ready": not self.reasons, "reasons": self.reasons}, 503 if self.reasons else 200)

        async def trunks(request: Any) -> JSONResponse:
            self.asked.append(request.headers.get("authorization", ""))
            return JSONResponse({"trunks": self.trunks})

        routes = [Route("/readyz", ready), Route("/v1/trunks", trunks)]
        config = uvicorn.Config(Starlette(routes=routes), port=self.port, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.serving = asyncio.run_coroutine_threadsafe(self.server.serve(), self.loop)
        while not self.server.started:
            self.do(asyncio.sleep(0.01))

    def close(self) -> None:
        if hasattr(self, "server"):
            self.server.should_exit = True
            self.serving.result(10)
        self.do(self.twilio.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Elsewhere]:
    for name in list(os.environ):
        if name.startswith("TRUNKLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(owning, "LOOKS_AFTER_S", (0.0, 0.0))
    there = Elsewhere(lease())
    try:
        settings(there)
        yield there
    finally:
        there.close()


def settings(there: Elsewhere, more: str = "", url: str = URL) -> None:
    Path("trunkline.toml").write_text(f"""
[http]
port = {there.port}
public_url = "{url}"
api_key = "0123456789abcdef"
[twilio]
auth_token = "token"
account_sid = "{ACCOUNT}"
api_key_sid = "{KEY}"
api_key_secret = "{SECRET}"
api_url = "{there.twilio.origin}"
{more}
""")


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("numbers", *argv))
    return int(end.value.code or 0)


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = run(*argv)
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    return code, out, err


def test_a_number_is_found_bought_seen_and_released(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    there.twilio.shelf.stock(ONE, "+14155550101")
    code, out, _ = told(capsys, "search", "us", "--area-code", "415")
    assert code == 0
    assert out.splitlines()[0].split()[0] == ONE
    assert "1.15 USD a month each" in out
    code, out, _ = told(capsys, "buy", ONE, "--yes", "--label", "Main")
    assert (code, out) == (0, f"{ONE}: bought\n")
    resource = there.twilio.shelf.number(ONE)
    assert resource is not None
    assert (resource["friendly_name"], resource["voice_url"]) == ("Main", f"{URL}/twilio/voice")
    code, out, _ = told(capsys, "buy", ONE, "--yes")
    assert (code, out) == (0, f"{ONE}: yours already; nothing was ordered\n")
    code, out, _ = told(capsys, "owned")
    assert out.split() == [ONE, "Main", "comes", "here"]
    code, out, _ = told(capsys, "owned", ONE, "--json")
    (shown,) = json.loads(out)["numbers"]
    assert (shown["number"], shown["capabilities"], shown["wrong"]) == (ONE, ["mms", "sms", "voice"], [])
    assert told(capsys, "release", ONE, "--yes")[:2] == (0, f"{ONE}: released\n")
    assert told(capsys, "owned", ONE)[:2] == (1, f"{ONE} is no number of the account\n")
    assert there.twilio.shelf.bought == [ONE]


def test_nothing_is_bought_or_released_without_a_yes(
    there: Elsewhere, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.twilio.shelf.stock(ONE)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert told(capsys, "buy", ONE)[0] == 1
    assert told(capsys, "release", ONE)[0] == 1
    assert there.twilio.requests == []


def test_an_order_without_an_answer_says_how_to_look(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    there.twilio.shelf.stock(ONE)
    there.twilio.shelf.trouble.append(Trouble("lost", done=False))
    code, out, err = told(capsys, "buy", ONE, "--yes")
    assert (code, out) == (1, "")
    assert f"look with: trunkline numbers owned {ONE}" in err
    assert len(err.splitlines()) == 1
    there.twilio.shelf.trouble.append(Trouble("500"))
    code, out, _ = told(capsys, "buy", ONE, "--yes", "--json")
    assert json.loads(out)["bought"] is True


def test_a_number_of_a_trunk_is_pointed_only_with_detach(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    there.twilio.shelf.own(ONE, trunk_sid="TK" + "3" * 32)
    code, _, err = told(capsys, "point", ONE)
    assert code == 1
    assert "--detach" in err
    code, out, _ = told(capsys, "point", ONE, "--detach")
    assert (code, out) == (0, f"{ONE}: asks {URL}/twilio/voice\n")


def test_without_an_account_or_a_public_url_it_is_said_what_to_set(
    there: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("trunkline.toml").write_text("")
    code, _, err = told(capsys, "owned")
    assert (code, err.partition(" = ")[0]) == (2, "trunkline: twilio.account_sid")
    code, _, err = told(capsys, "buy", ONE, "--yes")
    assert (code, err.partition(" = ")[0]) == (2, "trunkline: http.public_url")
    code, _, err = told(capsys, "search", "US", "--contains", "5")
    assert code == 2
    code, _, err = told(capsys, "point", "12")
    assert (code, "+COUNTRY NUMBER" in err) == (2, True)


def test_a_refusal_is_one_line_and_json_when_asked(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, "search", "DE")
    assert code == 1
    assert "Twilio's 20404" in err
    code, out, _ = told(capsys, "buy", ONE, "--yes", "--json")
    said = json.loads(out)
    assert (code, said["outcome"], said["answer"]["code"]) == (1, "failed", 21422)


# --- a number that can be called ------------------------------------------------------------------------------------


def checks(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, list[str]]]:
    code, out, _ = told(capsys, "check", *argv, "--json")
    found: dict[str, list[str]] = {}
    for each in json.loads(out)["checks"]:
        found.setdefault(each["what"], []).append(f"{each['verdict']} {each['detail']}")
    return code, found


def test_what_stands_between_a_caller_and_the_agent_is_told(
    there: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    there.gateway()
    there.twilio.shelf.own(ONE)
    code, found = checks(capsys, ONE, "+14155550101")
    assert code == 1
    assert found["gateway"] == ["ok answers, and takes calls"]
    assert found["public URL"][0].startswith(f"fail {URL} does not answer from here")
    assert found["webhooks"] == ["ok are signed with the account's token"]
    assert "voice URL is https://demo.twilio.com/welcome/voice/" in found[ONE][0]
    assert found[ONE][1].startswith("ok ")
    assert found["+14155550101"][0] == "fail is no number of the Twilio account"
    run("point", ONE)
    capsys.readouterr()
    assert checks(capsys, ONE)[1][ONE][0] == "ok is pointed at us"
    there.reasons.append("draining")
    assert checks(capsys, ONE)[1]["gateway"] == ["fail takes no calls: draining"]


def test_a_number_of_an_elastic_trunk_that_is_set_up_here_comes_over_it(
    there: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    code, toml, _ = told(capsys, "trunk-template", "twilio", "--name", "office", "--host", "acme.pstn.twilio.com")
    assert code == 0
    toml = toml[toml.index("[sip]") : toml.index("# the far side")]
    settings(there, toml + f'numbers = ["{ONE}"]\n')
    there.gateway()
    there.twilio.shelf.own(ONE, trunk_sid="TK" + "3" * 32)
    there.twilio.shelf.own("+14155550101", trunk_sid="TK" + "3" * 32)
    _, found = checks(capsys, ONE, "+14155550101")
    assert found[ONE][0] == "ok comes over the trunk office"
    assert found["+14155550101"][0].startswith("fail is none of the numbers of the trunk office")
    assert found["trunk office"][0] == "ok answers"
    assert there.asked == ["Bearer 0123456789abcdef"]
    there.trunks[0]["state"] = "down"
    assert checks(capsys)[1]["trunk office"][0] == "fail does not answer OPTIONS"


def test_a_gateway_that_is_not_there_is_told_first(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "check")
    assert code == 1
    assert out.splitlines()[0].startswith("fail gateway: does not answer")
    assert "trunkline serve" in out.splitlines()[0]


# --- without anybody ------------------------------------------------------------------------------------------------


def test_numbers_are_read_as_the_plan_has_them(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "read", "(415) 555-0100", "+1415555*", "--country", "us")
    assert (code, out.splitlines()) == (
        0,
        ["(415) 555-0100: +14155550100  US  geographic_or_mobile", "+1415555*: +1415555*"],
    )
    assert told(capsys, "read", "+1415555")[:2] == (1, "+1415555: too short for a number of its country\n")


def test_a_file_of_numbers_is_looked_at_then_taken_whole(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    Path("numbers.csv").write_text(f"number,label,route\n{ONE},Main,\n12,,\n+14155550101,,office\n")
    mistakes = [
        "  line 3, number '12': write it as +COUNTRY NUMBER, or say which country's it is",
        "  line 4, route 'office': is not known: there are none yet",
    ]
    code, out, _ = told(capsys, "import", "numbers.csv")
    assert code == 1
    assert out.splitlines() == [
        "it would be: 1 new, 0 changed, 0 unchanged, 2 with mistakes",
        *mistakes,
        "nothing was written: mend the lines, or take the others with --skip-mistakes",
    ]
    code, out, _ = told(capsys, "import", "numbers.csv", "--skip-mistakes")
    assert (code, out.splitlines()) == (1, ["done: 1 new, 0 changed, 0 unchanged, 2 with mistakes", *mistakes])
    Path("numbers.csv").write_text(f"number,label\n{ONE},Front\n+14155550101-+14155550103,\n")
    code, out, _ = told(capsys, "import", "numbers.csv", "--dry-run", "--json")
    said = json.loads(out)
    assert (code, said["written"], len(said["create"])) == (0, False, 3)
    assert said["change"][0]["after"]["label"] == "Front"
    assert told(capsys, "import", "numbers.csv")[1] == "done: 3 new, 1 changed, 0 unchanged, 0 with mistakes\n"
    assert told(capsys, "import", "numbers.csv")[1] == "done: 0 new, 0 changed, 4 unchanged, 0 with mistakes\n"
    assert told(capsys, "import", "nothing.csv")[0] == 2


def test_a_template_is_printed_with_what_to_enter_there(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("trunk-template", "telnyx", "--name", "main", "--address", "203.0.113.10", "--region", "europe")
    code, out, _ = told(capsys, *argv)
    assert code == 0
    assert "[sip.trunks.main]" in out
    assert "Add IP 203.0.113.10, port 5060" in out
    _, out, _ = told(capsys, *argv, "--json")
    assert json.loads(out)["settings"]["host"] == "sip.telnyx.eu"
    assert told(capsys, "trunk-template", "acme", "--name", "x")[0] == 2


def test_the_templates_and_the_file_of_the_docs_are_taken(there: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "numbers.md").read_text(encoding="utf-8")
    commands = re.findall(r"^trunkline numbers (trunk-template .*)$", page, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        code, out, err = told(capsys, *command.split())
        assert (code, err) == (0, ""), command
        assert "[sip.trunks." in out
    (text,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    found = csvimport.preview(text)
    assert (len(found.create), found.mistakes, found.unknown_columns) == (11, [], [])
    listed = set(re.findall(r"`([a-z_]+)`", page.partition("| column")[2].partition("\n\n")[0]))
    assert set(csvimport.COLUMNS) <= listed
