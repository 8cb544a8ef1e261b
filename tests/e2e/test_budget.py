"""Calls that cost real seconds: by a table of the test's own, a second of the telephone is a cent or half of one.

The dear agent thinks by Chat Completions (a server of ours on the wire), the cheaper one is this machine alone.
"""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import spoken_mulaw
from tests.e2e.redis_server import redis_server
from tests.e2e.twilio_office import ANSWER, Case, Office, data, offices
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.compliance.money.prices import COLUMNS
from trunkline.testing.caller.commands import Action, CallOptions, CallReport, Listen, Pause, Say, place_call

pytestmark = pytest.mark.e2e

D = Decimal
CALLER, CLINIC = "+14155550123", "+14155550100"
GOODBYE = "I am sorry, our time is over now. Please call again tomorrow. Goodbye."
TOKENS = (2000, 100)
DEAR = """
name = "Clinic"
greeting = "Elm Street Clinic, hello."
goodbye = "{goodbye}"

[agents.basic]
file = "basic.toml"
when = "it is to be cheaper"

[stt]
provider = "pocketsphinx"

[llm]
provider = "openai"
base_url = "{chat}"
model = "fake"
third_party = true

[tts]
provider = "espeak"

[[intents]]
name = "hours"
phrases = ["when are you open"]
reply = "unused"
"""
BASIC = """
name = "Basic"
greeting = "Hello."
goodbye = "{goodbye}"

[stt]
provider = "pocketsphinx"

[llm]
provider = "script"

[tts]
provider = "espeak"

[[intents]]
name = "hours"
phrases = ["when are you open"]
reply = "We open at eight in the morning."
"""


def price_table(folder: Path, second_usd: str) -> str:
    """Legs by the second, tokens a cent for a thousand in and three for a hundred out."""
    rows = [
        f"twilio,leg,inbound-US,voice,seconds,{second_usd},1,1,2026-11-28,the test",
        "twilio,leg,*,stream,stream_seconds,0,60,,2026-11-28,the test",
        "openai,llm,fake,model,tokens_in,0.00001,1,,2026-11-28,the test",
        "openai,llm,fake,model,tokens_out,0.0003,1,,2026-11-28,the test",
    ]
    (folder / "prices.csv").write_text("\n".join(["# version test", COLUMNS, *rows]))
    return str(folder)


def asks(times: int) -> list[Action]:
    actions: list[Action] = [Listen()]
    for _ in range(times):
        actions += [Say("when are you open"), Listen(), Pause(800)]
    return actions


async def call(gateway: Any, actions: Sequence[Action]) -> CallReport:
    options = CallOptions(
        gateway.origin, actions, from_number=CALLER, to_number=CLINIC, api_url=gateway.origin, max_duration_s=90
    )
    return await place_call(options)


def test_a_real_call_takes_the_cheaper_route_and_ends_at_its_budget_with_a_goodbye(
    start_gateway: Any, tmp_path: Path
) -> None:
    budget = D("0.50")

    async def scenario() -> tuple[CallReport, int]:
        async with OpenAiServer() as chat:
            chat.answers += [Answer("We open at nine, as the model says.", usage=TOKENS) for _ in range(20)]
            (tmp_path / "basic.toml").write_text(BASIC.format(goodbye=GOODBYE))
            (tmp_path / "clinic.toml").write_text(DEAR.format(goodbye=GOODBYE, chat=chat.base_url))
            gateway = await asyncio.to_thread(
                start_gateway,
                tmp_path / "clinic.toml",
                openai__api_key="sk-a-key-of-the-test",
                money__prices=price_table(tmp_path, "0.005"),
                money__call_usd=str(budget),
                money__cheaper_agent="basic",
                money__cheaper_after_minutes="0.25",
            )
            report = await call(gateway, asks(20))
        assert gateway.complaints() == []
        return report, len(chat.requests)

    report, requests = asyncio.run(scenario())
    record: Mapping[str, Any] = report.record or {}
    assert (report.end, record["end_reason"]) == ("server_closed", "budget")

    [route] = data(record, "cheaper_route")  # type: ignore[arg-type]
    assert route == {"agent": "basic", "why": "minutes"}
    [changed] = data(record, "agent_changed")  # type: ignore[arg-type]
    assert (changed["before"], changed["agent"], changed["why"]) == ("Clinic", "Basic", "cheaper")
    answers = [turn["agent_text"] for turn in record["turns"][1:-1] if turn["caller_text"]]
    theirs = answers.count("We open at nine, as the model says.")
    assert 1 <= theirs == requests
    *basics, last = answers[theirs:]
    assert basics == [ANSWER] * len(basics)
    assert ANSWER.startswith(last), "the goodbye may cut it"
    assert len(answers) > theirs

    assert record["turns"][-1]["agent_text"] == GOODBYE
    assert report.answers[-1].heard_ms > 0.95 * len(spoken_mulaw(GOODBYE)) / 8
    assert not report.answers[-1].cleared

    [cost] = data(record, "cost")  # type: ignore[arg-type]
    seconds = D(str(report.duration_s)).to_integral_value(ROUND_CEILING)  # as the caller has it
    by_hand = seconds * D("0.005") + theirs * (TOKENS[0] * D("0.00001") + TOKENS[1] * D("0.0003"))
    assert abs(D(cost["usd"]) - by_hand) <= D("0.01"), (cost, seconds, theirs)
    assert budget - D("0.10") < D(cost["usd"]) <= budget
    assert cost["complete"]


def test_a_table_that_is_replaced_by_a_wrong_one_while_a_call_goes_on(start_gateway: Any, tmp_path: Path) -> None:
    """It is said once; that call and the next are billed by the last good one. A gateway does not begin with it."""
    agent = tmp_path / "basic.toml"
    agent.write_text(BASIC.format(goodbye=GOODBYE))
    folder = price_table(tmp_path, "0.01")
    gateway = start_gateway(agent, money__prices=folder, money__call_usd="5")

    async def scenario() -> tuple[CallReport, CallReport]:
        going_on = asyncio.create_task(call(gateway, asks(4)))
        await asyncio.sleep(2)
        rows = (tmp_path / "prices.csv").read_text()
        (tmp_path / "prices.csv").write_text(f"{rows}\n{rows.splitlines()[-1]}")
        await asyncio.to_thread(gateway.until, lambda: "the last good table stays" in gateway.log, 10)
        before = await going_on
        return before, await call(gateway, asks(1))

    before, after = asyncio.run(scenario())
    assert [turn["agent_text"] for turn in (before.record or {})["turns"]].count(ANSWER) == 4
    for report in (before, after):
        [cost] = data(report.record or {}, "cost")  # type: ignore[arg-type]
        assert cost["prices"] == "test"
        assert abs(D(cost["usd"]) - D(str(report.duration_s)) * D("0.01")) <= D("0.01")
    [said] = gateway.complaints()
    assert "prices.csv row 7, product" in said
    assert "it is in row 6 already" in said

    other = start_gateway(agent, ready=False, money__prices=folder)
    assert other.wait(20) == 2
    assert [line for line in other.log.splitlines() if "prices.csv row 7, product" in line]
    assert "Traceback" not in other.log


def test_kill_stop_on_a_real_gateway_and_its_caller_is_hung_up_at_twilio_when_the_budget_is_spent(
    start_gateway: Any, tmp_path: Path
) -> None:
    agent = tmp_path / "basic.toml"
    agent.write_text(BASIC.format(goodbye=GOODBYE))

    async def scenario(o: Office) -> None:
        began = time.monotonic()
        case = await Case.begins(o)
        await asyncio.sleep(2)  # the watchdog is told once a second
        assert o.twilio.endings() == []
        o.gateway.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            await o.until(lambda: bool(o.twilio.endings()), 60)
            took = time.monotonic() - stopped
            assert time.monotonic() - began < 0.40 / 0.01 + 2 + 3, "later than the budget lasts"
            assert took > 5.0, "nobody is hung up before the gateway is known to be stuck"
            [ending] = o.twilio.endings()
            assert ending.path.endswith(f"/Calls/{case.caller.sid}.json")
            assert ending.form["Status"] == ["completed"]
            await asyncio.wait_for(case.caller.hung_up.wait(), 5)
        finally:
            o.gateway.signal(signal.SIGCONT)
        record = await o.ended(case.id)
        assert data(record, "cost")

    office = offices(start_gateway)
    rules = {"money__prices": price_table(tmp_path, "0.01"), "money__call_usd": "0.40", "limits__watchdog": "true"}
    office(scenario, agent=agent, **rules)


def test_budgets_in_a_redis_that_goes_away_keep_calls_and_refuse_new_ones(start_gateway: Any, tmp_path: Path) -> None:
    agent = tmp_path / "basic.toml"
    agent.write_text(BASIC.format(goodbye=GOODBYE))
    with redis_server(tmp_path) as redis:
        gateway = start_gateway(
            agent,
            redis_url=redis.url,
            money__prices=price_table(tmp_path, "0.01"),
            money__tenant_day_usd="2.00",
        )

        async def scenario() -> tuple[CallReport, CallReport, CallReport]:
            first = asyncio.create_task(call(gateway, asks(6)))
            await asyncio.sleep(5)
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(gateway.until, lambda: "budgets: Redis is away" in gateway.log, 20)
            await asyncio.sleep(6)  # what was granted is used up
            refused = await call(gateway, asks(0))
            before = await first
            await asyncio.to_thread(redis.start)
            await asyncio.to_thread(gateway.until, lambda: "budgets can be read again" in gateway.log, 10)
            return before, refused, await call(gateway, asks(1))

        before, refused, after = asyncio.run(scenario())
    assert [turn["agent_text"] for turn in (before.record or {})["turns"]].count(ANSWER) == 6
    assert (refused.record or {}).get("end_reason", refused.end) in ("refused", "rejected")
    assert '"budget_unknown"' in gateway.log or "budget_unknown" in str(refused.record)
    assert [turn["agent_text"] for turn in (after.record or {})["turns"]].count(ANSWER) == 1
    assert gateway.complaints() == []
