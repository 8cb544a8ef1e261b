"""What the doctor finds, and what it advises. Nothing here goes further than this machine."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fakes.openai_server import Answer, OpenAiServer, Refusal
from trunkline import doctor
from trunkline.doctor import Finding, examine
from trunkline.settings import Http, ProviderKey, Settings, Sip
from trunkline.testing.ports import lease

AGENT = """
name = "A"
greeting = "Hello."
[stt]
provider = "standin"
[llm]
provider = "openai"
model = "m"
base_url = "{url}"
[tts]
provider = "standin"
"""


def settings(folder: Path, agent: str = "", **more: Any) -> Settings:
    file = folder / "agent.toml"
    file.write_text(agent or AGENT.format(url="http://127.0.0.1:9/v1"))
    given = {"agent": file, "data_dir": folder / "data", "http": Http(port=lease()), "sip": Sip(enabled=False)}
    return Settings(**{**given, **more})


def findings(given: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in asyncio.run(examine(given))}


def asked(folder: Path, *answers: Answer | Refusal) -> Finding:
    """What it says of a model whose server answers so."""

    async def main() -> Finding:
        async with OpenAiServer() as server:
            server.answers.extend(answers)
            given = settings(
                folder, AGENT.format(url=server.base_url), openai=ProviderKey(api_key=SecretStr("sk-secret"))
            )
            return {finding.check: finding for finding in await examine(given)}["llm.openai"]

    return asyncio.run(main())


def test_all_is_well(tmp_path: Path) -> None:
    found = asked(tmp_path, Answer("Hello."))
    assert (found.verdict, found.detail, found.remedy) == ("ok", "answers", "")
    assert found.took_ms is not None


def test_every_part_has_its_line_in_the_order_of_a_start(tmp_path: Path) -> None:
    found = findings(settings(tmp_path))
    assert list(found) == [
        "settings",
        "data_dir",
        "disk",
        "database",
        "http.port",
        "pjsip",
        "agent",
        "stt.standin",
        "llm.openai",
        "tts.standin",
    ]
    wrong = {name for name, finding in found.items() if finding.verdict == "error"}
    assert wrong == {"llm.openai"}, "one that fails stops no other"


@pytest.mark.parametrize(
    ("answer", "code", "remedy"),
    [
        (Refusal(401, "bad key sk-secret"), "auth", "key is refused"),
        (Refusal(429, code="insufficient_quota"), "rate_limited", "quota"),
        (Refusal(503), "unavailable", "cannot be reached"),
        (Refusal(404, "no such model"), "bad_request", "model"),
    ],
)
def test_a_provider_that_refuses_has_its_remedy_and_no_key(
    tmp_path: Path, answer: Refusal, code: str, remedy: str
) -> None:
    found = asked(tmp_path, answer)
    assert found.verdict == "error"
    assert found.detail.startswith(code)
    assert remedy in found.remedy
    assert "sk-secret" not in str(found)


def test_a_provider_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROVIDER_S", 0.2)
    found = asked(tmp_path, Answer("Hello.", delay_s=30))
    assert (found.verdict, found.remedy) == ("error", doctor.REMEDIES["timeout"])


def test_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    port = lease()
    with socket.create_server(("127.0.0.1", port)):
        found = findings(settings(tmp_path, http=Http(port=port)))["http.port"]
    assert found.verdict == "error"
    assert "in use" in found.detail


def test_a_folder_that_is_a_file_and_an_agent_that_is_wrong_say_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    found = findings(settings(tmp_path, 'name = "A"\n'))
    assert found["data_dir"].verdict == "error"
    assert found["database"].verdict == "error"
    assert "agent check" in found["agent"].remedy
    assert "llm.openai" not in found


def test_a_missing_key_is_one_line(tmp_path: Path) -> None:
    found = findings(settings(tmp_path, AGENT.replace('base_url = "{url}"\n', "")))["providers"]
    assert found.verdict == "error"
    assert "openai.api_key" in found.detail


def test_a_redis_that_does_not_answer_is_said_so_and_one_that_is_not_wanted_is_not_asked(tmp_path: Path) -> None:
    assert "redis" not in findings(settings(tmp_path))
    found = findings(settings(tmp_path, redis_url=SecretStr(f"redis://:secret@127.0.0.1:{lease()}/0")))["redis"]
    assert (found.verdict, found.detail) == ("error", "the session store is away (ConnectionError)")
    assert "secret" not in found.remedy
