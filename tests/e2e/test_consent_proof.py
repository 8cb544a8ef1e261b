"""By the clock: a third party hears nothing before the yes, and nothing from 200 ms after it is taken back.

The fakes note when each piece of audio came; the record, when it was agreed and withdrawn. All clocks are the same
one.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.e2e.test_consent import ASKS, DEEPGRAM, RULES, call, events
from tests.fakes.deepgram_server import DeepgramServer
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.agents.examples import example
from trunkline.testing.caller.commands import Action, HangUp, Keys, Listen, ListenInto, Say

pytestmark = pytest.mark.e2e

LATE_S = 0.2
KEY = "sk-the-bakery-s-own-key"
LATER = "and where is the clinic please"
# They talk over the lines, agree, ask, take it back in the middle of the answer, and talk on.
ACTIONS: tuple[Action, ...] = (
    ListenInto(600),
    Say("hello hello is anybody there"),
    Listen(),
    Keys("1"),
    Listen(),
    Say(ASKS),
    ListenInto(700),
    Keys("*"),
    Say(LATER),
    Listen(),
    HangUp(),
)


def moments(record: Any) -> tuple[float, float]:
    told = [each for each in record["events"] if each["kind"] == "consent"]
    assert [each["data"]["state"] for each in told] == ["granted", "withdrawn"], told
    granted, withdrawn = (datetime.fromisoformat(each["at"]).timestamp() for each in told)
    return granted, withdrawn


def judge(record: Any, heard_at: Sequence[float]) -> None:
    granted, withdrawn = moments(record)
    assert heard_at, "nobody of another company heard anything at all"
    print(
        f"yes to first audio {1000 * (min(heard_at) - granted):.0f} ms, withdrawal to last audio "
        f"{1000 * (max(heard_at) - withdrawn):.0f} ms, {len(heard_at)} pieces"
    )
    assert min(heard_at) >= granted
    assert max(heard_at) <= withdrawn + LATE_S
    assert any(granted < at < withdrawn for at in heard_at)


def test_a_recogniser_and_a_model_of_somebody_elses(start_gateway: Any, tmp_path: Path) -> None:
    async def run() -> tuple[Any, Any, Any]:
        async with DeepgramServer(ASKS) as ears, OpenAiServer() as model:
            model.answers.extend([Answer("We are open from eight to five on every day of the week but Sunday.")] * 4)
            agent = tmp_path / "clinic.toml"
            text = example("clinic").read_text()
            text = text.replace('[stt]\nprovider = "pocketsphinx"\n', DEEPGRAM.format(url=ears.url))
            mind = f'[llm]\nprovider = "openai"\nbase_url = "{model.base_url}"\nmodel = "fake"\nthird_party = true\n'
            assert '[llm]\nprovider = "script"\n' in text
            agent.write_text(text.replace('[llm]\nprovider = "script"\n', mind))
            keys = {"deepgram__api_key": "k", "openai__api_key": KEY, "consent__withdraw_key": "*"}
            gateway = await asyncio.to_thread(start_gateway, agent, **keys, **RULES)
            report = await call(gateway, *ACTIONS)
            return report.record, ears.connections, model.requests

    record, connections, requests = asyncio.run(run())
    judge(record, [at for connection in connections for at in connection.heard_at])
    assert [request.body["messages"][-1]["content"] for request in requests] == [ASKS]
    assert events(record, "agent_changed")


def test_a_realtime_model(start_gateway: Any, tmp_path: Path) -> None:
    story = "We have rolls and bread and cake and more rolls and a little coffee too, until noon."

    async def run() -> tuple[Any, Any]:
        async with OpenAiRealtimeServer(key=KEY) as model:
            model.transcripts += [ASKS] * 9
            model.line = Reply(audio=spoken("Corner Bakery, hello."))
            model.replies += [Reply(story, spoken(story), first_s=0.2)] * 9
            agent = tmp_path / "bakery.toml"
            agent.write_text(
                f"""name = "Bakery"
greeting = "Corner Bakery, hello."
[realtime]
provider = "openai"
base_url = "{model.base_url}"
model = "fake"
instructions = "You sell bread."
turns = "server"
fallback = false
third_party = true
"""
            )
            keys = {"openai__api_key": KEY, "consent__withdraw_key": "*"}
            gateway = await asyncio.to_thread(start_gateway, agent, **keys, **RULES)
            report = await call(gateway, *ACTIONS)
            return report.record, model.sessions

    record, sessions = asyncio.run(run())
    judge(record, [at for session in sessions for at in session.heard_at])
