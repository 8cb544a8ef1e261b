"""A hand-off as an attendant does it: after what was said was heard, void when that is cut, nothing asked twice."""

import asyncio
import json

from tests.agents.test_cascade import AGENT, Call, on_a_call
from tests.agents.test_realtime_attendant import RealtimeCall
from tests.agents.test_realtime_attendant import on_a_call as on_a_realtime_call
from trunkline.agents import turns as t
from trunkline.agents.exchange import NOT_HANDED_OFF
from trunkline.ports import CallControl, Message, Refuse, ReplyTool, ToolCall

TO_BILLING = ToolCall("t1", "hand_off", {"agent": "billing"})
SAID = (
    Message("agent", "Hello."),
    Message("caller", "my invoice"),
    Message("agent", "Billing will help.", tool_calls=(TO_BILLING,)),
    Message("tool", '{"ok": true}', tool_call_id="t1"),
)


async def hands_off(tool: ToolCall, control: CallControl) -> str:
    decision = control.hand_off(str(tool.arguments["agent"]))
    return json.dumps({"ok": not isinstance(decision, Refuse)})


def test_a_hand_off_waits_until_it_was_announced() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        await call.says("my invoice")
        call.pen.write("Billing will help you.", TO_BILLING).end()
        await call.run(600)
        assert call.handed == ["billing"]
        assert call.given_over == 0
        await call.run(800)
        assert call.given_over == 1
        assert call.talk[-2:] == [("agent", "Billing will help you."), ("tool", '{"ok": true}')]
        assert len(call.llm.pens) == 1  # the model is not asked to go on
        assert call.hang_ups == []

    on_a_call(conversation)


def test_a_hand_off_without_a_word_is_done_at_once() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        await call.says("my invoice")
        call.pen.write(TO_BILLING).end()
        await call.run(60)
        assert call.given_over == 1

    on_a_call(conversation)


def test_a_hand_off_is_void_when_the_caller_talks_over_it_and_the_model_knows() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        await call.says("my invoice")
        call.pen.write("Billing will help you with that in a moment, please wait.", TO_BILLING).end()
        await call.run(600)
        await call.interrupts()
        await call.run(2000)
        await call.says("no stay")
        assert call.given_over == 0
        assert call.pen.asked[-2:] == [Message("tool", NOT_HANDED_OFF, tool_call_id="t1"), Message("caller", "no stay")]
        call.pen.write("I stay.").end()
        await call.run(1000)
        assert call.given_over == 0
        assert call.state is t.State.LISTENING

    on_a_call(conversation)


def test_words_found_in_an_interruption_after_the_last_word_void_it_too() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        await call.says("my invoice")
        call.pen.write("Billing helps.", TO_BILLING).end()
        await call.run(380)
        call.starts()  # in the last of it, which is heard meanwhile
        await call.run(100)
        assert call.given_over == 0
        call.bus.speech_sustained()
        await call.settle()
        assert call.given_over == 0
        assert Message("tool", NOT_HANDED_OFF, tool_call_id="t1") in call.attendant.conversation

    on_a_call(conversation)


def test_a_hand_off_that_is_refused_is_told_to_the_model_and_the_call_goes_on() -> None:
    async def conversation(call: Call) -> None:
        call.tool, call.decision = hands_off, Refuse("no_consent", "not asked")
        await call.says("my invoice")
        call.pen.write("One moment.", TO_BILLING).end()
        await call.settle()
        assert call.pen.asked[-1] == Message("tool", '{"ok": false}', tool_call_id="t1")
        call.pen.write("I can help you myself.").end()
        await call.run(2000)
        assert call.given_over == 0
        assert call.talk[-1] == ("agent", "I can help you myself.")

    on_a_call(conversation)


def test_a_hand_off_whose_announcement_cannot_be_spoken_is_done_all_the_same() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        call.tts.hold.add("Billing")
        await call.says("my invoice")
        call.pen.write("Billing helps.", TO_BILLING).end()
        await call.run(AGENT.turns.reply_deadline_ms + 100)
        assert call.given_over == 1
        assert call.talk[-1] == ("tool", '{"ok": true}')

    on_a_call(conversation)


def test_goodbye_goes_before_a_hand_off() -> None:
    async def conversation(call: Call) -> None:
        call.tool = hands_off
        await call.says("my invoice")
        call.pen.write("Billing will help you with that.", TO_BILLING).end()
        await call.run(400)
        call.attendant.say_goodbye()
        await call.run(1500)
        assert call.given_over == 0
        assert call.hang_ups == ["max_duration"]
        assert call.tts.spoken[-1] == "Bye."

    on_a_call(conversation)


def test_whoever_goes_on_answers_what_the_caller_said_last_and_the_model_reads_it_once() -> None:
    async def main() -> None:
        call = Call()
        call.attendant.begin(None, SAID, ("my invoice",))
        await call.settle()
        assert call.pen.asked == list(SAID)
        call.starts()
        await call.run(500)
        call.bus.speech_sustained()
        await call.says("of May")  # before a word was heard
        assert call.pen.asked == [*SAID, Message("caller", "of May")]
        call.pen.write("It is paid.").end()
        await call.run(1500)
        await call.says("my invoice")  # and once it was answered, it is said anew
        assert call.pen.asked[-1] == Message("caller", "my invoice")
        call.attendant.close()
        call.bus.close()
        await call.settle()
        assert not call.crashes

    asyncio.run(main())


# --- a realtime model -----------------------------------------------------------------------------------------------


def test_a_realtime_model_hands_off_when_its_words_were_heard() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.tool = hands_off
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "The front desk helps you.", 1000)
        call.session.on_event(ReplyTool(reply, TO_BILLING))
        call.session.ends(reply)
        await call.run(700)
        assert (call.handed, call.given_over) == (["billing"], 0)
        await call.run(600)
        assert call.given_over == 1
        assert len(call.session.of("respond")) == 2  # the greeting and this: it is not asked to go on

    on_a_realtime_call(conversation)


def test_a_realtime_model_is_told_that_the_caller_has_taken_it_back() -> None:
    async def conversation(call: RealtimeCall) -> None:
        call.tool = hands_off
        await call.spoken()
        reply = call.session.begins()
        call.session.speaks(reply, "The front desk helps you with all of that.", 3000)
        call.session.on_event(ReplyTool(reply, TO_BILLING))
        call.session.ends(reply)
        await call.run(700)
        await call.interrupts()
        results = [message.text for message, _ in call.session.told if message.role == "tool"]
        assert results == [NOT_HANDED_OFF]
        assert call.given_over == 0

    on_a_realtime_call(conversation)


def test_a_realtime_model_that_goes_on_answers_from_what_it_was_opened_with() -> None:
    async def main() -> None:
        call = RealtimeCall()
        call.attendant.begin(None, SAID, ("my invoice",))
        await call.settle()
        assert call.session.conversation == list(SAID)
        assert call.session.told == []
        assert [say for _, say in call.session.of("respond")] == [None]
        call.session.says("It is paid.")
        await call.run(1000)
        assert call.talk[-1] == ("agent", "It is paid.")
        assert [text for role, text in call.talk if role == "caller"] == ["my invoice"]
        call.attendant.close()
        call.bus.close()
        await call.settle()
        assert not call.crashes

    asyncio.run(main())
