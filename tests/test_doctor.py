"""What the doctor finds, and what it advises. Nothing here goes further than this machine."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fakes import openai_realtime_server as realtime
from tests.fakes import tiny_voice
from tests.fakes.deepgram_server import AuraServer, DeepgramServer, Refuse
from tests.fakes.elevenlabs_server import ElevenLabsServer
from tests.fakes.models_server import StandinServer
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply
from tests.fakes.openai_server import Answer, OpenAiServer, Refusal
from trunkline import doctor
from trunkline.doctor import Finding, examine
from trunkline.errors import MissingExtra
from trunkline.settings import Http, Livekit, ProviderKey, Settings, Sip
from trunkline.settings.compliance import Compliance
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


def test_a_livekit_server_is_asked_with_our_token(tmp_path: Path) -> None:
    pytest.importorskip("livekit.rtc")
    from tests.fakes.livekit_server import LivekitServer

    async def main(secret: str, port: int = 0) -> Finding:
        async with LivekitServer() as server:
            url = f"ws://127.0.0.1:{port or server.port}"
            given = settings(tmp_path, livekit=Livekit(url=url, api_key=server.api_key, api_secret=SecretStr(secret)))
            return {finding.check: finding for finding in await examine(given)}["livekit"]

    assert asyncio.run(main("s" * 32)).verdict == "ok"
    assert "refuses our token" in asyncio.run(main("t" * 32)).detail
    assert "cannot be reached" in asyncio.run(main("s" * 32, lease())).detail


def test_every_part_has_its_line_in_the_order_of_a_start(tmp_path: Path) -> None:
    found = findings(settings(tmp_path))
    assert list(found) == [
        "settings",
        "data_dir",
        "disk",
        "database",
        "prices",
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


REALTIME = """
name = "A"
greeting = "Hello."
[realtime]
provider = "openai"
model = "m"
base_url = "{url}"
"""


def conversed(folder: Path, prepare: Callable[[OpenAiRealtimeServer], None]) -> Finding:
    """What it says of a realtime model whose server is like that."""

    async def main() -> Finding:
        async with OpenAiRealtimeServer(key="sk-secret") as server:
            prepare(server)
            given = settings(
                folder, REALTIME.format(url=server.base_url), openai=ProviderKey(api_key=SecretStr("sk-secret"))
            )
            found = {finding.check: finding for finding in await examine(given)}["realtime.openai"]
            assert all(session.closed.is_set() for session in server.sessions)
            return found

    return asyncio.run(main())


CLOUD = """
name = "A"
greeting = "Hello."
[[stt]]
provider = "deepgram"
url = "{nova}"
[[stt]]
provider = "deepgram"
model = "flux-general-en"
url = "{flux}"
[llm]
provider = "openai"
model = "m"
base_url = "{openai}"
[[tts]]
provider = "elevenlabs"
voice = "alice"
base_url = "{elevenlabs}"
[[tts]]
provider = "deepgram"
url = "{aura}"
[[tts]]
provider = "openai"
model = "tts"
voice = "alloy"
base_url = "{openai}"
[failover]
lifeboat = false
"""
KEY = "a-key-nobody-may-see"
ASKED = ["stt.deepgram", "stt.deepgram-2", "llm.openai", "tts.elevenlabs", "tts.deepgram", "tts.openai"]


def asked_cloud(folder: Path, *, well: bool) -> dict[str, Finding]:
    """Each configured provider over its real client; all of their servers well, or each refusing the key."""

    async def main() -> dict[str, Finding]:
        no_ears = None if well else Refuse(401, message=f"INVALID_AUTH {KEY}")
        async with (
            DeepgramServer(always=no_ears) as nova,
            DeepgramServer(always=no_ears) as flux,
            AuraServer(always=no_ears) as aura,
            ElevenLabsServer(KEY if well else "another") as elevenlabs,
            OpenAiServer() as openai,
        ):
            openai.answers.extend([Answer("Hello.")] if well else [Refusal(401, f"bad key {KEY}")] * 2)
            urls = {"nova": nova.url, "flux": flux.url, "aura": aura.url, "elevenlabs": elevenlabs.base_url}
            key = ProviderKey(api_key=SecretStr(KEY))
            given = settings(
                folder, CLOUD.format(openai=openai.base_url, **urls), openai=key, deepgram=key, elevenlabs=key
            )
            found = {finding.check: finding for finding in await examine(given)}
            if well:
                assert (len(nova.connections), len(flux.connections)) == (1, 1)
                assert [phrase.text for phrase in elevenlabs.phrases] == ["Hello."]
                assert len(aura.requests) == 1
                assert len(openai.requests) == 2
            return found

    return asyncio.run(main())


def test_a_realtime_model_is_asked_for_a_word(tmp_path: Path) -> None:
    def speaks(server: OpenAiRealtimeServer) -> None:
        server.line = Reply(audio=b"\x20" * 800)

    found = conversed(tmp_path, speaks)
    assert (found.verdict, found.detail) == ("ok", "opens a session, and speaks")
    assert found.took_ms is not None


def test_a_realtime_model_that_refuses_the_key_is_found_out(tmp_path: Path) -> None:
    found = conversed(tmp_path, lambda server: server.refusals.append(realtime.Refusal(401)))
    assert (found.verdict, found.detail) == ("error", "auth (status 401)")
    assert found.remedy == doctor.REMEDIES["auth"]


def test_a_realtime_model_that_has_nothing_to_say_is_found_out(tmp_path: Path) -> None:
    found = conversed(tmp_path, lambda server: None)
    assert (found.verdict, found.detail) == ("error", "protocol (no audio)")


def test_each_provider_of_the_cloud_is_asked_for_something_small(tmp_path: Path) -> None:
    found = asked_cloud(tmp_path, well=True)
    assert {key: (found[key].verdict, found[key].detail) for key in ASKED} == {
        "stt.deepgram": ("ok", "hears"),
        "stt.deepgram-2": ("ok", "hears"),
        "llm.openai": ("ok", "answers"),
        "tts.elevenlabs": ("ok", "speaks"),
        "tts.deepgram": ("ok", "speaks"),
        "tts.openai": ("ok", "speaks"),
    }


def test_a_key_that_each_of_them_refuses_is_told_of_each(tmp_path: Path) -> None:
    found = asked_cloud(tmp_path, well=False)
    assert {found[key].verdict for key in ASKED} == {"error"}
    assert {found[key].detail.partition(" ")[0] for key in ASKED} == {"auth"}, found
    assert {found[key].remedy for key in ASKED} == {doctor.REMEDIES["auth"]}
    assert KEY not in str(found)


FAMILY = """
name = "A"
greeting = "Hello."
[stt]
provider = "standin"
[llm]
provider = "standin"
[tts]
provider = "standin"
[turn_detector]
provider = "remote"
targets = ["{target}"]
[context.llm]
provider = "openai"
model = "m"
base_url = "{openai}"
[languages.en-GB]
greeting = "Good day."
[languages.en-GB.llm]
provider = "openai"
model = "m"
base_url = "{openai}"
[agents.billing]
file = "billing.toml"
when = "invoices"
"""
BILLING = """
name = "B"
greeting = "Hello."
[stt]
provider = "standin"
[llm]
provider = "remote"
targets = ["{target}"]
[tts]
provider = "standin"
[failover]
lifeboat = false
[agents.front]
file = "agent.toml"
when = "all else"
"""


def test_the_detector_the_summariser_each_language_and_whoever_calls_are_handed_to_are_asked(tmp_path: Path) -> None:
    async def main() -> tuple[list[Finding], list[Finding]]:
        async with StandinServer() as server, OpenAiServer() as openai:
            openai.answers.extend([Answer("Hello.")] * 2)
            (tmp_path / "billing.toml").write_text(BILLING.format(target=server.target))
            key = ProviderKey(api_key=SecretStr(KEY))
            text = FAMILY.format(target=server.target, openai=openai.base_url)
            given = settings(tmp_path, text, openai=key)
            there = await examine(given)
        return there, await examine(given)

    there, gone = asyncio.run(main())
    agents = [f"{finding.check}: {finding.detail}" for finding in there if finding.check.endswith("agent")]
    assert agents == [f"agent: A: {tmp_path / 'agent.toml'}", f"billing/agent: B: {tmp_path / 'billing.toml'}"]
    details = {finding.check: finding.detail for finding in there}
    assert {
        key: details[key] for key in ("turn.remote", "context.openai", "llm.openai.en-GB", "billing/llm.remote")
    } == {
        "turn.remote": "tells the end of a turn",
        "context.openai": "answers",
        "llm.openai.en-GB": "answers",
        "billing/llm.remote": "answers",
    }
    wrong = {finding.check for finding in gone if finding.verdict == "error"}
    assert wrong == {"turn.remote", "context.openai", "llm.openai.en-GB", "billing/llm.remote"}


def test_what_is_wrong_with_one_agent_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "billing.toml").write_text(
        BILLING.replace(
            'provider = "remote"\ntargets = ["{target}"]',
            """
provider = "openai"
model = "m"
""",
        )
    )
    text = AGENT.format(url="http://127.0.0.1:9/v1") + '[agents.billing]\nfile = "billing.toml"\nwhen = "invoices"\n'
    found = findings(settings(tmp_path, text))
    assert "openai.api_key" in found["billing/providers"].detail
    assert found["stt.standin"].verdict == "ok"


REMOTE = """
name = "A"
greeting = "Hello."
[stt]
provider = "remote"
targets = ["{target}"]
[llm]
provider = "remote"
targets = ["{target}"]
[tts]
provider = "remote"
targets = ["{target}"]
[failover]
lifeboat = false
"""


def test_remote_models_are_asked_and_one_that_is_gone_is_told_of(tmp_path: Path) -> None:
    async def main() -> tuple[dict[str, Finding], dict[str, Finding]]:
        async with StandinServer() as server:
            given = settings(tmp_path, REMOTE.format(target=server.target))
            there = {finding.check: finding for finding in await examine(given)}
        return there, {finding.check: finding for finding in await examine(given)}

    there, gone = asyncio.run(main())
    keys = ["stt.remote", "llm.remote", "tts.remote"]
    assert [there[key].detail for key in keys] == ["hears", "answers", "speaks"]
    assert [gone[key].detail.partition(" ")[0] for key in keys] == ["unavailable"] * 3
    assert {gone[key].remedy for key in keys} == {doctor.REMEDIES["unavailable"]}


def test_a_voice_from_a_folder_is_asked_and_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    model = tiny_voice.write(tmp_path / "vits-piper-en_US-hum")
    text = AGENT.replace('[tts]\nprovider = "standin"', '[tts]\nprovider = "sherpa"\nmodel_dir = "{model}"')
    url = "http://127.0.0.1:9/v1"
    found = findings(settings(tmp_path, text.format(url=url, model=model)))["tts.sherpa"]
    assert (found.verdict, found.detail) == ("ok", "speaks")
    missing = findings(settings(tmp_path, text.format(url=url, model=tmp_path / "none")))
    assert missing["providers" if "providers" in missing else "agent"].verdict == "error"
    assert "Traceback" not in str(missing)


def test_who_serves_callers_that_agree_to_no_third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: dict[str, Any] = {"compliance": Compliance(business="Acme")}
    cloud = AGENT.format(url="http://127.0.0.1:9/v1").replace("[tts]", "third_party = true\n[tts]")
    intents = '\n[[intents]]\nname = "hours"\nphrases = ["when are you open"]\nreply = "From nine."\n'
    assert "alone" not in findings(settings(tmp_path, cloud))
    assert findings(settings(tmp_path, **rules))["alone"].detail == "no third party hears callers"
    bare = findings(settings(tmp_path, cloud, **rules))["alone"]
    assert (bare.verdict, "a call back, no more (en-US)" in bare.detail) == ("warning", True)
    assert findings(settings(tmp_path, cloud + intents, **rules))["alone"].verdict == "ok"

    def lacks(*_: Any) -> None:
        raise MissingExtra("pocketsphinx", "local")

    monkeypatch.setattr(doctor, "build_alone", lacks)
    found = findings(settings(tmp_path, cloud, **rules))["alone"]
    assert found.verdict == "error"
    assert "pocketsphinx" in found.detail
    assert "[stt]" in found.remedy
