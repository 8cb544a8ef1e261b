"""`trunkline drill`, as an admin runs it: the dead air and the words are measured from the sound of real calls."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import environment
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.agents.seam import GO_ON

pytestmark = pytest.mark.e2e

LIMIT_S = 300
STANDIN = """
name = "drilled"
greeting = "word0 word1 word2."

[[stt]]
provider = "standin"
[[stt]]
provider = "standin"

[[llm]]
provider = "standin"
[[llm]]
provider = "standin"

[[tts]]
provider = "standin"
[[tts]]
provider = "standin"
"""
OPENAI = """
name = "drilled"
greeting = "word0 word1 word2."

[stt]
provider = "standin"

[[llm]]
provider = "openai"
base_url = "{url}"
model = "large"
[[llm]]
provider = "openai"
base_url = "{url}"
model = "small"

[tts]
provider = "standin"
"""


class Narrator(OpenAiServer):
    """Always has an answer: the numbered words, or what follows those that were said."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = self  # type: ignore[assignment]

    def popleft(self) -> Answer:
        messages = self.requests[-1].body["messages"]
        begun = len(messages[-2]["content"].split()) if messages[-1]["content"] == GO_ON else 0
        words = [f"word{i}" + (". " if i % 10 == 9 else " ") for i in range(begun, 20)]
        return Answer(*words, delay_s=0.35, between_s=0.02)


def drill(agent: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "trunkline.cli", "drill", "--json", "--agent", str(agent), *arguments]
    done = subprocess.run(
        command, env=environment(speech__workers="1"), cwd=agent.parent, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["drills"]


def all_heard(drills: Sequence[dict[str, Any]]) -> None:
    for each in drills:
        assert (each["lost_words"], each["repeated_words"]) == (0, 0), each
        assert each["heard"].replace(".", "").split() == [f"word{i}" for i in range(20)], each
        assert each["dead_air_ms"] <= 2000, each
        assert each["ended"] == "caller_hung_up", each
        assert len(each["switches"]) == 1, each


ALL = ("refused", "stalled_first", "broken_middle", "stalled_middle", "garbage")


def some_or_all(*some: str, of: Sequence[str] = ALL) -> pytest.MarkDecorator:
    """All of the faults by `make show` only: each is a call or two."""
    return pytest.mark.parametrize("faults", [some, pytest.param(of, marks=pytest.mark.show)], ids=["some", "all"])


def only(faults: Sequence[str]) -> list[str]:
    return [word for fault in faults for word in ("--fault", fault)]


@some_or_all("broken_middle", of=("stalled_first", "broken_middle", "stalled_middle"))
def test_ears_and_voices_that_fail_are_followed_and_every_word_is_heard_once(
    faults: Sequence[str], tmp_path: Path
) -> None:
    agent = tmp_path / "agent.toml"
    agent.write_text(STANDIN)
    status, drills = drill(agent, "--only", "stt.standin", "--only", "tts.standin", *only(faults))
    assert [(each["provider"], each["fault"]) for each in drills] == [
        (provider, fault) for provider in ("stt.standin", "tts.standin") for fault in faults
    ]
    all_heard(drills)
    assert status == 0


@some_or_all("stalled_middle", "garbage")
@pytest.mark.show
def test_a_model_over_the_real_sdk_that_fails_is_followed_and_every_word_is_heard_once(
    faults: Sequence[str], tmp_path: Path
) -> None:
    async def run() -> tuple[int, list[dict[str, Any]], list[str]]:
        async with Narrator() as server:
            agent = tmp_path / "agent.toml"
            agent.write_text(OPENAI.format(url=server.base_url))
            status, drills = await asyncio.to_thread(drill, agent, "--only", "llm.openai", *only(faults))
            return status, drills, [request.body["model"] for request in server.requests]

    status, drills, models = asyncio.run(run())
    assert [each["fault"] for each in drills] == list(faults)
    all_heard(drills)
    assert models.count("small") == len(faults)
    assert status == 0


LETTER = bytes(400)  # of a word's sound


def sound(text: str) -> bytes:
    """Each word its own noise, as long as it is written."""
    return b"".join(random.Random(word).randbytes(len(LETTER) * (len(word) + 1)) for word in text.split())


class Storyteller(OpenAiRealtimeServer):
    """Always has an answer: the numbered words, or what follows those that were said."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Reply(audio=sound("Hello."))
        self.replies = self  # type: ignore[assignment]
        self.transcripts += ["tell me"] * 100
        self.transcript_s = 0.1

    def popleft(self) -> Reply:
        said = [item["content"][0]["text"] for item in self.session.items if item["type"] == "message"][-2:]
        begun = len(said[0].removesuffix("...").split()) if said[-1:] == [GO_ON] else 0
        words = " ".join(f"word{i}" + ("." if i % 10 == 9 else "") for i in range(begun, 20))
        return Reply(words, sound(words), first_s=0.3, between_s=0.05)


REALTIME = """
name = "drilled"
greeting = "Hello."

[realtime]
provider = "openai"
base_url = "{url}"
model = "fake"

[stt]
provider = "standin"
[llm]
provider = "standin"
[tts]
provider = "standin"
"""


FOLLOWING = {
    "refused": "cascade",
    "stalled_first": "cascade",
    "broken_middle": "realtime.openai",
    "stalled_middle": "realtime.openai",
    "garbage": "cascade",
}


@some_or_all("refused", "broken_middle")
def test_a_realtime_model_that_fails_is_followed_by_a_session_or_by_the_cascade(
    faults: Sequence[str], tmp_path: Path
) -> None:
    async def run() -> list[dict[str, Any]]:
        async with Storyteller() as server:
            agent = tmp_path / "agent.toml"
            agent.write_text(REALTIME.format(url=server.base_url))
            return (await asyncio.to_thread(drill, agent, *only(faults)))[1]

    drills = asyncio.run(run())
    assert [(each["provider"], each["fault"], each["following"]) for each in drills] == [
        ("realtime.openai", fault, FOLLOWING[fault]) for fault in faults
    ]
    for each in drills:
        assert each["lost_words"] == 0, each
        assert each["dead_air_ms"] <= 2000, each
        assert each["ended"] == "caller_hung_up", each
        if each["following"] == "cascade":  # also where nobody had written down what the caller said
            assert each["repeated_words"] == 0, each
            assert each["heard"].replace(".", "").split() == [f"word{i}" for i in range(20)], each
        else:  # it gives no word times: where it broke off is an estimate, and a cautious one
            assert each["repeated_words"] <= 3, each


def test_with_nobody_left_the_caller_is_apologised_to_and_the_report_says_so(tmp_path: Path) -> None:
    agent = tmp_path / "agent.toml"
    agent.write_text(STANDIN)
    _, drills = drill(agent, "--only", "llm.standin-2", "--fault", "refused")
    assert [each["following"] for each in drills] == [None]
    assert drills[0]["heard"].startswith("I'm sorry")
    assert drills[0]["dead_air_ms"] <= 2000
