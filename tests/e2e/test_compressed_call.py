"""A call of 45 minutes in 45 seconds: real audio, a real gateway, and a minute of the invoice in each second.

    python -m pytest tests/e2e/test_compressed_call.py -s

A realtime model attends; after "five minutes" a cascade goes on without a word; at seven tenths of the budget it is
told to come to an end, and at the budget the caller hears a goodbye. The price table is the one that comes with
Trunkline, sixty times as dear and with seconds in place of minutes. Then an invoice is written by hand, from what each
server and the caller's own clock have counted, and from list prices that are written down here once more.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.backends import spoken_mulaw
from tests.e2e.twilio_office import data
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.compliance.money.prices import COLUMNS, load
from trunkline.gateway.spending import WRAP_UP
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, Listen, Pause, Say, place_call

pytestmark = pytest.mark.e2e

D = Decimal
FASTER = 60
BUDGET = D("2.40")
KEY = "sk-the-clinic-s-own-key"
CALLER, CLINIC = "+14155550123", "+14155550100"
GREETING = "Elm Street Clinic, hello."
GOODBYE = "I am sorry, our time is over now. Please call again tomorrow. Goodbye."
STORY = (
    "We open at eight in the morning from Monday to Friday, and on Saturday at nine, but never on a Sunday, when you "
    "may call the hospital instead."
)
SAID, ANSWERED = "when are you open", "We open at eight."
REALTIME_TOKENS = (100, 10, 60, 40)
"""Of each reply: text in, text out, audio in, audio out."""
CHAT_TOKENS = (4000, 60)
DEAR = """
name = "Clinic"
greeting = "{greeting}"
goodbye = "{goodbye}"

[agents.basic]
file = "basic.toml"
when = "it is to be cheaper"

[realtime]
provider = "openai"
base_url = "{realtime}"
model = "gpt-realtime"
third_party = true

[stt]
provider = "pocketsphinx"

[llm]
provider = "script"

[tts]
provider = "espeak"

[[intents]]
name = "hours"
phrases = ["when are you open"]
reply = "unused"
"""
BASIC = """
name = "Basic"
greeting = "unused"
goodbye = "{goodbye}"

[stt]
provider = "pocketsphinx"

[llm]
provider = "openai"
base_url = "{chat}"
model = "gpt-4.1-mini"
third_party = true

[tts]
provider = "espeak"

[[intents]]
name = "hours"
phrases = ["when are you open"]
reply = "unused"
"""


@dataclass
class Heard:
    report: CallReport
    live: list[Mapping[str, Any]]
    """`cost` of the API, while it went on."""
    metrics: str
    realtime_replies: int
    transcriptions: int
    chat_requests: list[Mapping[str, Any]]


def sixty_times_as_dear(folder: Path) -> str:
    used = {"gpt-realtime", "gpt-transcribe", "gpt-4.1-mini", "inbound-US", "*"}
    rows = []
    for row in load().rows:
        if row.product in used:
            step = "" if row.round_to is None else "1"
            price = row.price * (1 if row.round_to else FASTER)
            per = 1 if row.round_to else row.per  # a minute is a second
            fields = (row.provider, row.kind, row.product, row.item, row.unit, price, per, step, row.date, row.source)
            rows.append(",".join(map(str, fields)))
    (folder / "prices.csv").write_text("\n".join(["# version compressed", COLUMNS, *rows]))
    return str(folder)


async def watched(origin: str, found: list[Mapping[str, Any]]) -> None:
    async with httpx.AsyncClient(base_url=origin) as api:
        while True:
            await asyncio.sleep(2)
            calls = (await api.get("/v1/calls")).json()["calls"]
            for call in calls:
                if call["live"] and call.get("cost"):
                    found.append(call["cost"])


async def place(start_gateway: Any, folder: Path) -> Heard:
    async with OpenAiRealtimeServer(key=KEY) as realtime, OpenAiServer() as chat:
        realtime.line = Reply(audio=spoken_mulaw(GREETING), usage=REALTIME_TOKENS)
        realtime.replies.append(Reply(STORY, spoken_mulaw(STORY), first_s=0.3, usage=REALTIME_TOKENS))
        realtime.transcripts.append(SAID)
        chat.answers += [Answer(ANSWERED, usage=CHAT_TOKENS) for _ in range(40)]
        (folder / "basic.toml").write_text(BASIC.format(goodbye=GOODBYE, chat=chat.base_url))
        dear = folder / "clinic.toml"
        dear.write_text(DEAR.format(greeting=GREETING, goodbye=GOODBYE, realtime=realtime.base_url))
        gateway = await asyncio.to_thread(
            start_gateway,
            dear,
            openai__api_key=KEY,
            money__prices=sixty_times_as_dear(folder),
            money__call_usd=str(BUDGET),
            money__wrap_up_percent="70",
            money__cheaper_agent="basic",
            money__cheaper_after_minutes=str(5 / FASTER),
        )
        actions: list[Action] = [Listen()]
        for _ in range(20):
            actions += [Say(SAID), Listen(), Pause(600)]
        options = CallOptions(
            gateway.origin, actions, from_number=CALLER, to_number=CLINIC, api_url=gateway.origin, max_duration_s=120
        )
        live: list[Mapping[str, Any]] = []
        watcher = asyncio.create_task(watched(gateway.origin, live))
        report = await place_call(options)
        watcher.cancel()
        metrics = (await asyncio.to_thread(httpx.get, f"{gateway.origin}/metrics")).text
        assert gateway.complaints() == []
        sessions = realtime.sessions
        asked = [event for session in sessions for event in session.events if event["type"] == "response.create"]
        bodies = [request.body for request in chat.requests]
        return Heard(report, live, metrics, len(asked), sum(len(s.utterances) for s in sessions), bodies)


def by_hand(heard: Heard, seconds: int) -> Decimal:
    """List prices of 2026-11: Twilio's minute and its stream; gpt-realtime, gpt-4.1-mini; gpt-transcribe's minute."""
    text_in, text_out, audio_in, audio_out = REALTIME_TOKENS
    reply = text_in * D("0.000004") + text_out * D("0.000016") + audio_in * D("0.000032") + audio_out * D("0.000064")
    request = CHAT_TOKENS[0] * D("0.0000004") + CHAT_TOKENS[1] * D("0.0000016")
    transcription = D("0.0045") / 60  # each is told to be of one second
    compressed = (
        heard.realtime_replies * reply + heard.transcriptions * transcription + len(heard.chat_requests) * request
    )
    return seconds * (D("0.0085") + D("0.0040")) + FASTER * compressed


def test_45_minutes_in_45_seconds_take_the_cheaper_route_wrap_up_and_end_at_the_budget_with_a_goodbye(
    start_gateway: Any, tmp_path: Path
) -> None:
    heard = asyncio.run(place(start_gateway, tmp_path))
    report = heard.report
    record: Mapping[str, Any] = report.record or {}
    events: Any = record
    [cost] = data(events, "cost")
    usd = D(cost["usd"])
    lasted = D(str(report.duration_s))  # by the caller's clock, which may differ from ours by a tenth of a second
    ends = {int((lasted + tenth).to_integral_value(ROUND_CEILING)) for tenth in (D("-0.1"), D("0.1"))}
    off = min(abs(usd - by_hand(heard, seconds)) for seconds in ends)
    print(f"\n{report.duration_s:.1f} s, {usd} USD of {BUDGET}, {off} off the invoice by hand: {cost['by_product']}")
    assert (report.end, record["end_reason"]) == ("server_closed", "budget")
    assert 30 < report.duration_s < 75

    [changed] = data(events, "agent_changed")
    assert (changed["before"], changed["agent"], changed["why"]) == ("Clinic", "Basic", "cheaper")
    assert data(events, "cheaper_route") == [{"agent": "basic", "why": "minutes"}]
    turns = [(turn["caller_text"], turn["agent_text"]) for turn in record["turns"]]
    assert turns[:2] == [("", GREETING), (SAID, STORY)]
    assert turns[-1] == ("", GOODBYE)
    *answers, last = turns[2:-1]
    assert set(answers) == {(SAID, ANSWERED)}, "and no turn of nobody's"
    assert (last[0], ANSWERED.startswith(last[1])) == (SAID, True), "the goodbye may cut it"
    assert len(heard.chat_requests) == len(turns) - 3
    assert heard.realtime_replies == 2

    assert len(data(events, "wrap_up")) == 1
    told = [WRAP_UP in str(body["messages"]) for body in heard.chat_requests]
    assert told == sorted(told), "from then on"
    assert (told[0], told[-1]) == (False, True)
    assert report.answers[-1].heard_ms > 0.95 * len(spoken_mulaw(GOODBYE)) / 8
    assert not report.answers[-1].cleared

    assert off <= D("0.01"), (cost, ends, [by_hand(heard, seconds) for seconds in ends])
    assert BUDGET - D("0.30") < usd <= BUDGET, "less an answer or two, and eight seconds of the leg, at sixty times"
    assert cost["complete"]

    # by product, provider and leg: in the record, in the API while it went on and after it, and in the metrics
    sums = record["cost"]
    assert sums == {name: cost[name] for name in sums}
    assert list(sums["by_leg"]) == ["twilio inbound-US"]
    assert set(sums["by_product"]) == {"inbound-US", "gpt-realtime", "gpt-transcribe", "gpt-4.1-mini"}
    assert set(sums["by_provider"]) == {"twilio", "openai"}
    assert sum(D(part) for part in sums["by_product"].values()) == usd
    assert len(heard.live) > 5
    assert all(D(before["usd"]) <= D(after["usd"]) for before, after in zip(heard.live, heard.live[1:], strict=False))
    assert all(D(each["usd"]) <= D(each["forecast_usd"]) <= BUDGET for each in heard.live)
    for product, part in sums["by_product"].items():
        [line] = [line for line in heard.metrics.splitlines() if "trunkline_cost_usd_total" in line and product in line]
        assert abs(D(line.rsplit(" ", 1)[1]) - D(part)) < D("0.0001")
