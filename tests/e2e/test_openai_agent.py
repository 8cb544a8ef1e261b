"""An agent whose mind is a server that speaks OpenAI's protocol: real processes, real time, the real SDK.

Ears and voice are the stand-ins: any speech is "caller phrase", and every word of an answer takes 200 ms.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http_server import Request
from tests.fakes.openai_server import Answer, Call, OpenAiServer, Refusal, Wait
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, HangUp, Listen, Say, place_call

pytestmark = pytest.mark.e2e

WORD_MS = 200
APOLOGY = "I'm sorry, something went wrong. Please say that again."
FAILURE = "Nothing works today. Please call again tomorrow."
AGENT = """
name = "Bakery"
greeting = "Corner Bakery, hello."
apology = "{apology}"
failure = "{failure}"

[stt]
provider = "standin"

[llm]
provider = "openai"
base_url = "{url}"
model = "fake"
instructions = "You sell bread."
first_token_ms = 1000

[tts]
provider = "standin"
"""
PHRASE = "when do you open on Saturday"


def conversation(
    start_gateway: Any, folder: Path, answers: Sequence[Answer | Refusal], turns: int, agent_file: str = AGENT
) -> tuple[CallReport, Mapping[str, Any], list[Request], Any]:
    """A caller who says PHRASE so many times, hears each answer out and hangs up."""
    actions: list[Action] = []
    for _ in range(turns):
        actions += [Listen(), Say(PHRASE)]

    async def run() -> tuple[CallReport, list[Request], Any]:
        async with OpenAiServer() as server:
            server.answers.extend(answers)
            agent = folder / "bakery.toml"
            agent.write_text(agent_file.format(url=server.base_url, apology=APOLOGY, failure=FAILURE))
            gateway = await asyncio.to_thread(
                start_gateway, agent, openai__api_key="sk-the-bakery-s-own-key", record="true"
            )
            options = CallOptions(gateway.origin, [*actions, Listen(), HangUp()], api_url="auto")
            return await place_call(options), server.requests, gateway

    report, requests, gateway = asyncio.run(run())
    assert report.record is not None
    assert gateway.complaints() == []
    assert "sk-the-bakery-s-own-key" not in gateway.log
    return report, report.record, requests, gateway


def said(record: Mapping[str, Any]) -> list[str]:
    return [turn["agent_text"] for turn in record["turns"]]


def heard_words(report: CallReport) -> list[float]:
    return [answer.heard_ms / WORD_MS for answer in report.answers]


def test_a_caller_is_answered_in_the_models_words(start_gateway: Any, tmp_path: Path) -> None:
    answers = [
        Answer("We ", "open ", "at seven. ", "On Sundays ", "we sleep.", between_s=0.05),
        Answer("At seven, as I said."),
    ]
    report, record, requests, _ = conversation(start_gateway, tmp_path, answers, 2)
    assert report.ok
    assert heard_words(report) == [3, 8, 5]
    assert said(record) == [
        "Corner Bakery, hello.",
        "We open at seven. On Sundays we sleep.",
        "At seven, as I said.",
    ]
    assert record["end_reason"] == "caller_hung_up"
    assert requests[0].headers["authorization"] == "Bearer sk-the-bakery-s-own-key"
    assert "You sell bread." in requests[0].body["messages"][0]["content"]
    assert [(m["role"], m["content"]) for m in requests[1].body["messages"][1:]] == [
        ("assistant", "Corner Bakery, hello."),
        ("user", "caller phrase"),
        ("assistant", "We open at seven. On Sundays we sleep."),
        ("user", "caller phrase"),
    ]
    tokens = {(u["unit"], u["quantity"]) for u in record["usage"] if u["provider"] == "openai"}
    assert tokens == {("tokens_in", 12.0), ("tokens_out", 5.0)}
    assert all(turn["llm_ms"] is not None for turn in record["turns"][1:])


def test_a_tool_call_that_hangs_up_ends_the_call_after_the_goodbye_was_heard(
    start_gateway: Any, tmp_path: Path
) -> None:
    goodbye = "It was a pleasure to talk to you, goodbye."
    answers = [Answer(goodbye, Call("hang_up", "{}"), finish="tool_calls")]
    report, record, requests, _ = conversation(start_gateway, tmp_path, answers, 1)
    assert (report.end, report.close_code) == ("server_closed", 1000)
    assert heard_words(report) == [3, 9]
    assert said(record)[-1] == goodbye
    assert record["turns"][-1]["tools"] == ["hang_up"]
    assert record["end_reason"] == "agent_hung_up"
    assert len(requests) == 1
    assert "hang_up" in [tool["function"]["name"] for tool in requests[0].body["tools"]]


def test_a_model_that_stalls_is_apologised_for_and_the_call_goes_on(start_gateway: Any, tmp_path: Path) -> None:
    answers = [Answer(Wait()), Answer("We open at seven.")]
    report, record, requests, _ = conversation(start_gateway, tmp_path, answers, 2)
    assert report.ok
    assert report.turns[0].latency_ms is not None
    assert report.turns[0].latency_ms < 3500  # 600 of silence, 1,000 for the first token, 100 for the voice
    assert [text for text in said(record) if text] == ["Corner Bakery, hello.", APOLOGY, "We open at seven."]
    assert heard_words(report) == [3, 9, 4]
    assert record["end_reason"] == "caller_hung_up"
    assert [event["data"]["code"] for event in record["events"] if event["kind"] == "reply_failed"] == ["timeout"]
    assert len(requests) == 2


def test_a_server_that_fails_twice_leads_to_the_failure_line_and_the_end(start_gateway: Any, tmp_path: Path) -> None:
    answers = [Refusal(500, "the oven is cold") for _ in range(6)]
    report, record, _, gateway = conversation(start_gateway, tmp_path, answers, 3)
    assert report.end == "server_closed"
    assert [text for text in said(record) if text] == ["Corner Bakery, hello.", APOLOGY, FAILURE]
    assert heard_words(report) == [3, 9, 7]
    assert record["end_reason"] == "error"
    assert {event["data"]["code"] for event in record["events"] if event["kind"] == "reply_failed"} == {"unavailable"}
    assert "the oven is cold" not in gateway.log


def test_when_nothing_works_the_caller_is_put_through_in_the_words_of_the_fallback(
    start_gateway: Any, tmp_path: Path
) -> None:
    """One way out: that of callers who are not understood is also that of callers whom nobody can answer."""
    words = "I'm sorry. You will speak to the baker now."
    out = f'[targets]\nbaker = "+12025550123"\n\n[fallback]\nreply = "{words}"\ntransfer = "baker"\n'
    answers = [Refusal(500) for _ in range(6)]
    report, record, _, _ = conversation(start_gateway, tmp_path, answers, 2, AGENT + out)
    assert report.end == "dialed"
    assert report.verbs == ["Stream", "Dial"]
    assert [text for text in said(record) if text] == ["Corner Bakery, hello.", APOLOGY, words]
    assert record["end_reason"] == "transferred"


def test_when_nothing_works_the_caller_leaves_a_message_and_the_record_has_it(
    start_gateway: Any, tmp_path: Path
) -> None:
    ask = "Please leave a message."
    out = f'[failover]\nlast_resort = "message"\nmessage = "{ask}"\n'
    answers = [Refusal(500) for _ in range(6)]
    report, record, requests, gateway = conversation(start_gateway, tmp_path, answers, 4, AGENT + out)
    assert [text for text in said(record) if text][:3] == ["Corner Bakery, hello.", APOLOGY, ask]
    messages = [event["data"]["text"] for event in record["events"] if event["kind"] == "message"]
    assert messages
    assert set(messages) == {"caller phrase"}
    assert len(requests) <= 6
    assert report.end in ("hung_up", "server_closed")
    assert len(list((gateway.data_dir / "recordings").glob("*.wav"))) == 1, "in the caller's own voice, too"


def test_over_the_responses_api_and_in_openais_voice(start_gateway: Any, tmp_path: Path) -> None:
    """The voice gives no word times: what was heard is marked as an estimate."""
    agent = AGENT.replace('model = "fake"', 'model = "fake"\napi = "responses"')
    voice = '[tts]\nprovider = "openai"\nbase_url = "{url}"\nmodel = "tts"\nvoice = "alloy"'
    agent = agent.replace('[tts]\nprovider = "standin"', voice)
    goodbye = "At seven, as I said. Goodbye."
    answers = [
        Answer("We ", "open ", "at seven. ", "On Sundays ", "we sleep.", between_s=0.05),
        Answer(goodbye, Call("hang_up", "{}")),
    ]
    report, record, requests, _ = conversation(start_gateway, tmp_path, answers, 2, agent)
    assert report.end == "server_closed"
    assert said(record) == ["Corner Bakery, hello.", "We open at seven. On Sundays we sleep.", goodbye]
    assert record["end_reason"] == "agent_hung_up"
    assert {turn["heard_exact"] for turn in record["turns"]} == {False}
    asked = [request for request in requests if request.path == "/v1/responses"]
    assert [(item["role"], item["content"]) for item in asked[1].body["input"]] == [
        ("assistant", "Corner Bakery, hello."),
        ("user", "caller phrase"),
        ("assistant", "We open at seven. On Sundays we sleep."),
        ("user", "caller phrase"),
    ]
    spoken = [request.body["input"] for request in requests if request.path == "/v1/audio/speech"]
    assert "Corner Bakery, hello." in spoken
    used = {(u["provider"], u["unit"]) for u in record["usage"]}
    assert {("openai", "characters"), ("openai", "tokens_in"), ("openai", "tokens_out")} <= used
