"""The OpenAI-compatible mind against a server with the real wire protocol."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpcore2
import pytest
from openai import AsyncOpenAI

from tests.fakes.openai_server import Answer, Call, Drop, OpenAiServer, Raw, Refusal, Wait
from trunkline.agents import openai_http
from trunkline.agents.definition import AgentDefinition, ContextTerms, ProviderChoice
from trunkline.agents.examples import example
from trunkline.agents.llm import told
from trunkline.agents.llm.openai import OpenAiLlm, OpenAiSession, read_options
from trunkline.agents.providers import Services
from trunkline.agents.script import load
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import (
    CallFacts,
    Expect,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    TextDelta,
    ToolCall,
)
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId

CLOCK = ManualClock()
CALL = CallFacts(CallId("c1"), DEFAULT_TENANT, "inbound", "+12025550199", "+12025550100", CLOCK.wall())
CLINIC = load(example("clinic"))
STANDIN = ProviderChoice("standin")
BARE = AgentDefinition("Bare", STANDIN, STANDIN, STANDIN, "Hello.")
KEY = "sk-secret-4711"
ASKED = [Message("agent", "Hello."), Message("caller", "When do you open?")]
EXPECT = Expect(Expectation())


def with_server(
    test: Callable[[OpenAiServer, OpenAiSession], Awaitable[None]],
    *,
    definition: AgentDefinition = BARE,
    key: str | None = KEY,
    **options: Any,
) -> None:
    async def run() -> None:
        async with OpenAiServer() as server:
            services = Services(CLOCK, keys={} if key is None else {"openai": key})
            llm = OpenAiLlm(definition, {"model": "m", "base_url": server.base_url, **options}, services)
            await llm.start()
            try:
                await test(server, llm.open(CALL))
            finally:
                await llm.close()

    asyncio.run(run())


async def collect(
    session: OpenAiSession, conversation: Sequence[Message] = ASKED, understood: bool = True
) -> list[LlmEvent]:
    return [event async for event in session.reply(conversation, understood=understood)]


def failure_of(*answers: Answer | Refusal, **options: Any) -> ProviderError:
    found: list[ProviderError] = []

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.extend(answers)
        with pytest.raises(ProviderError) as caught:
            await collect(session)
        found.append(caught.value)

    with_server(test, **options)
    assert KEY not in str(found[0])
    assert KEY not in repr(found[0])
    return found[0]


def test_the_sdk_reads_what_the_fake_writes() -> None:
    async def test(server: OpenAiServer, _: OpenAiSession) -> None:
        server.answers.append(Answer("Hel", "lo.", Call("hang_up", '{"a": 1}'), finish="tool_calls"))
        async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
            stream = client.chat.completions.stream(
                model="m", messages=[{"role": "user", "content": "hi"}], stream_options={"include_usage": True}
            )
            async with stream as events:
                whole = await events.get_final_completion()
        message = whole.choices[0].message
        assert message.content == "Hello."
        assert message.tool_calls is not None
        assert message.tool_calls[0].function.arguments == '{"a": 1}'
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (12, 5)

    with_server(test)


def test_the_first_request_loads_nothing_that_every_call_would_wait_for() -> None:
    story = """
import asyncio, sys
from tests.agents.test_llm_openai import ASKED, collect, with_server
from tests.fakes.openai_server import Answer

async def test(server, session):
    before = set(sys.modules)
    server.answers.append(Answer("At eight."))
    await collect(session)
    print(sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in ("anyio", "httpcore2")))

with_server(test)
"""
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_connection_waits_for_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 s go by between two requests, for who counts how long a connection is idle."""
    at = 1000.0
    monkeypatch.setattr(httpcore2._async.http11, "time", SimpleNamespace(monotonic=lambda: at))

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        nonlocal at
        for _ in range(2):
            server.answers.append(Answer("At eight."))
            await collect(session)
            at += 40.0
        assert server.accepted == 1

    with_server(test)


def test_text_comes_as_it_is_written_then_the_usage() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("We open", " at eight."))
        assert await collect(session) == [TextDelta("We open"), TextDelta(" at eight."), LlmUsage(12, 5), EXPECT]

    with_server(test)


def test_the_request_is_a_streamed_one_with_the_key_and_the_conversation() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Yes."))
        await collect(session)
        request = server.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body["stream"] is True
        assert request.body["max_tokens"] == 120
        assert request.body["temperature"] == 0.5
        system, *rest = request.body["messages"]
        assert system["role"] == "system"
        assert system["content"].startswith("Be kind.")
        assert rest == [
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "When do you open?"},
        ]

    with_server(test, instructions="Be kind.", max_tokens=120, temperature=0.5)


def test_openais_own_server_is_told_to_store_nothing_and_others_are_not_asked() -> None:
    services = Services(CLOCK, keys={"openai": KEY})
    own = OpenAiLlm(BARE, {"model": "m"}, services).request(ASKED, True)
    assert (own["store"], own["max_completion_tokens"]) == (False, 300)
    other = OpenAiLlm(BARE, {"model": "m", "base_url": "http://127.0.0.1:1/v1"}, services).request(ASKED, True)
    assert "store" not in other
    assert other["max_tokens"] == 300


def test_a_local_server_needs_no_key_and_gets_none() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Yes."))
        await collect(session)
        assert "authorization" not in server.requests[0].headers

    with_server(test, key=None)


def test_a_tool_call_in_pieces_becomes_one_tool_call() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        call, other = Call("transfer", '{"target": "reception"}'), Call("hang_up", "", "call_2", 1)
        server.answers.append(Answer("One moment.", call, other, finish="tool_calls"))
        assert await collect(session) == [
            TextDelta("One moment."),
            ToolCall("call_abc", "transfer", {"target": "reception"}),
            ToolCall("call_2", "hang_up", {}),
            LlmUsage(12, 5),
            EXPECT,
        ]
        names = [tool["function"]["name"] for tool in server.requests[0].body["tools"]]
        assert names == ["hang_up", "transfer", "expect_digits"]

    with_server(test, definition=CLINIC)


def test_a_tool_call_with_broken_arguments_is_one_without() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer(Call("transfer", '{"target": "rec'), finish="tool_calls"))
        assert ToolCall("call_abc", "transfer", {}) in await collect(session)

    with_server(test, definition=CLINIC)


def test_a_model_that_expects_digits_opens_the_keypad() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        wanted = Call("expect_digits", '{"name": "appointment"}')
        server.answers += [Answer("Please key it in.", wanted), Answer(wanted), Answer(Call("expect_digits", "{}"))]
        keypad = Expect(Expectation(digits_min=4, digits_max=4))
        assert await collect(session) == [TextDelta("Please key it in."), LlmUsage(12, 5), keypad]
        silent = await collect(session)
        assert silent[0] == TextDelta(
            "Please key in the four digits of your appointment number, or say them one by one."
        )
        assert silent[-1] == keypad
        assert (await collect(session))[-1] == EXPECT

    with_server(test, definition=CLINIC)


def test_tools_that_were_called_and_answered_are_in_the_request_and_orphans_are_not() -> None:
    called = Message("agent", "One moment.", tool_calls=(ToolCall("1", "transfer", {"target": "x"}),))
    orphan = Message("agent", "", tool_calls=(ToolCall("2", "hang_up", {}),))

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Sorry."))
        lost = Message("tool", "{}", tool_call_id="9")
        await collect(session, [lost, Message("caller", "x"), called, orphan, Message("tool", "no", tool_call_id="1")])
        assert server.requests[0].body["messages"][1:] == [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": "One moment.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "transfer", "arguments": '{"target": "x"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "no"},
        ]

    with_server(test)


def test_the_model_learns_what_was_keyed_cut_off_or_not_understood() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Sorry."))
        conversation = [
            Message("caller", "1234", keyed=True),
            Message("agent", "The clinic is", cut=True),
            Message("caller", ""),
        ]
        await collect(session, conversation, understood=False)
        assert [message["content"] for message in server.requests[0].body["messages"][1:]] == [
            "(keyed on the telephone's keypad) 1234",
            "The clinic is...",
            "(the caller spoke, but the words were not recognised)",
        ]

    with_server(test)


def test_only_the_last_of_a_long_conversation_is_sent() -> None:
    long = [Message("caller", f"{at} " + "x" * 90) for at in range(50)]

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers += [Answer("Yes."), Answer("Yes.")]
        await collect(session, long)
        sent = [message["content"][:2] for message in server.requests[0].body["messages"][1:]]
        assert sent == ["45", "46", "47", "48", "49"]
        await collect(session, [Message("caller", "y" * 5000)])
        assert len(server.requests[1].body["messages"]) == 2

    with_server(test, max_characters=500)


def test_the_model_knows_whether_it_is_open() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Yes."))
        await collect(session)
        system = server.requests[0].body["messages"][0]["content"]
        assert "It is Sunday, 22 November 2026, 10:00. We are closed until tomorrow at eight A M." in system

    with_server(test, definition=CLINIC)


# --- what goes wrong ---


def test_a_model_that_says_nothing_in_time_is_a_timeout() -> None:
    error = failure_of(Answer(Wait()), first_token_ms=50)
    assert (error.code, error.retryable) == ("timeout", True)


def test_a_server_that_does_not_even_answer_is_a_timeout() -> None:
    error = failure_of(Answer("late", delay_s=float("inf")), first_token_ms=50)
    assert (error.code, error.retryable) == ("timeout", True)


def test_a_model_that_stalls_in_mid_answer_is_a_timeout_after_what_it_said() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("We open", Wait()))
        events = session.reply(ASKED)
        assert await anext(events) == TextDelta("We open")
        with pytest.raises(ProviderError) as caught:
            await anext(events)
        assert caught.value.code == "timeout"
        async with asyncio.timeout(2):
            await server.disconnected.wait()

    with_server(test, between_tokens_ms=50)


@pytest.mark.parametrize(
    ("refusal", "code", "retryable"),
    [
        (Refusal(401, f"Incorrect API key provided: {KEY}"), "auth", False),
        (Refusal(403), "auth", False),
        (Refusal(429, headers={"retry-after": "7"}), "rate_limited", True),
        (Refusal(429, code="insufficient_quota"), "rate_limited", False),
        (Refusal(500), "unavailable", True),
        (Refusal(503), "unavailable", True),
        (Refusal(400, f"model {KEY} not found"), "bad_request", False),
        (Refusal(404), "bad_request", False),
    ],
)
def test_a_refusal_says_whether_another_try_may_help(refusal: Refusal, code: str, retryable: bool) -> None:
    error = failure_of(refusal)
    assert (error.code, error.retryable) == (code, retryable)


def test_a_rate_limit_says_for_how_long() -> None:
    assert failure_of(Refusal(429, headers={"retry-after": "7"})).detail == "retry after 7 s"


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (Answer("We", Drop()), True),
        (Answer(Drop()), True),
        (Answer("We", finish=None), True),
        (Answer("We", Raw(b"data: {garbage\n\n")), False),
        (Answer("We", Raw(b"data: \xff\xfe\n\n")), False),
        (Answer("We", Raw(b'data: {"error": {"message": "the GPU is on fire", "type": "HTTP"}}\n\n')), True),
    ],
)
def test_an_answer_that_breaks_off_is_a_protocol_error(answer: Answer, retryable: bool) -> None:
    error = failure_of(answer)
    assert (error.code, error.retryable) == ("protocol", retryable)


@pytest.mark.parametrize(
    ("told", "code", "retryable"),
    [
        (b'{"message": "no", "type": "server_error"}', "unavailable", True),
        (b'{"message": "no", "code": "insufficient_quota", "type": "x"}', "rate_limited", False),
        (b'{"message": "no", "code": "invalid_prompt"}', "bad_request", False),
        (b'"no"', "protocol", True),
    ],
)
def test_an_error_told_in_mid_answer_is_typed(told: bytes, code: str, retryable: bool) -> None:
    error = failure_of(Answer("We", Raw(b'data: {"error": ' + told + b"}\n\n")))
    assert (error.code, error.retryable) == (code, retryable)


def test_an_answer_is_whole_though_its_connection_stays_open() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        server.answers.append(Answer("We open.", Raw(end), Wait()))
        assert await collect(session) == [TextDelta("We open."), EXPECT]

    with_server(test, between_tokens_ms=50)


@pytest.mark.parametrize(
    "data",
    [
        b"data: 5\n\n",
        b'data: {"choices": 7}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": 3, "content": 9}}], "usage": {"prompt_tokens": "x"}}\n\n',
        b": a comment\n\n",
    ],
)
def test_odd_chunks_harm_nothing(data: bytes) -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("We", Raw(data), " open."))
        events = await collect(session)
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["We", " open."]

    with_server(test)


def test_no_server_is_unavailable() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        assert server._server is not None
        server._server.close()
        with pytest.raises(ProviderError) as caught:
            await collect(session)
        assert (caught.value.code, caught.value.retryable) == ("unavailable", True)

    with_server(test)


def test_closing_the_answer_closes_the_request() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("We open", Wait()))
        events = session.reply(ASKED)
        assert await anext(events) == TextDelta("We open")
        await events.aclose()
        async with asyncio.timeout(2):
            await server.disconnected.wait()

    with_server(test)


def test_cancelling_the_answer_closes_the_request_even_before_the_first_token() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer(Wait()))
        task = asyncio.get_running_loop().create_task(collect(session))
        while not server.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2):
            await server.disconnected.wait()

    with_server(test)


# --- options ---


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "model"),
        ({"modle": "x"}, "modle"),
        ({"model": 5}, "model"),
        ({"model": "x", "max_tokens": 0}, "max_tokens"),
        ({"model": "x", "temperature": "hot"}, "temperature"),
        ({"model": "x", "base_url": "ftp://x"}, "base_url"),
        ({"model": "x", "base_url": "https://user:pw@x/v1"}, "base_url"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(options)
    assert caught.value.key == key


def test_openais_own_server_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="API key"):
        OpenAiLlm(BARE, {"model": "m"}, Services(CLOCK))


@pytest.mark.parametrize(
    ("url", "away"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:11434/v1", False),
        ("http://[::1]:1/v1", False),
        ("http://192.168.1.5/v1", True),
        ("https://api.openai.com/v1", True),
        ("https://localhost.example.com/v1", True),
    ],
)
def test_text_leaves_this_machine_unless_the_server_is_on_it(url: str, away: bool) -> None:
    llm = OpenAiLlm(BARE, {"model": "m", "base_url": url}, Services(CLOCK, keys={"openai": KEY}))
    assert llm.third_party is away


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"trunkline\[openai\]"):
        openai_http.sdk()


# --- a conversation whose beginning was summed up -------------------------------------------------------------------

SUMMED_UP = [Message("summary", "They have paid."), Message("agent", "Hello."), Message("caller", "And now?")]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_summary_is_told_beforehand_and_is_nobodys_message(api: str) -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("Nothing."))
        _ = [event async for event in session.reply(SUMMED_UP)]
        body = server.requests[0].body
        messages = body["input"] if api == "responses" else body["messages"][1:]
        system = body["instructions"] if api == "responses" else body["messages"][0]["content"]
        assert [(m["role"], m["content"]) for m in messages] == [("assistant", "Hello."), ("user", "And now?")]
        assert system.endswith("go on from there:\n\nThey have paid.")

    with_server(test, api=api)


def test_the_last_messages_that_fit_are_kept_and_the_summary_always() -> None:
    talk = [Message("summary", "s" * 50), *(Message("caller", f"{at}" * 10) for at in range(9))]
    assert told.recent(talk, 2, 1000) == [talk[0], *talk[-2:]]
    assert told.recent(talk, 100, 75) == [talk[0], *talk[-2:]]
    assert told.recent(talk, 100, 10) == [talk[0], talk[-1]]
    assert told.recent(talk[1:], 2, 1000) == talk[-2:]


def test_with_summaries_no_message_is_left_out_by_number() -> None:
    long = [*ASKED * 30, Message("caller", "Well?")]

    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        server.answers.append(Answer("At eight."))
        _ = [event async for event in session.reply(long)]
        assert len(server.requests[0].body["messages"]) == 1 + len(long)

    with_server(test, definition=replace(BARE, context=ContextTerms()))
