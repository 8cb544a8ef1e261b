"""A call's record, conversation and followers are given nothing that its policy keeps from them."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline import logs
from trunkline.agents.discreet import discreet, discreet_realtime
from trunkline.live import Heard, Progress, Saying, ToolDone
from trunkline.ports import (
    NAMED,
    CallEnded,
    CallEvent,
    CallFacts,
    CallStarted,
    Llm,
    LlmEvent,
    Message,
    Realtime,
    RecordEvent,
    TextDelta,
    ToolCall,
    TurnEnded,
    TurnRecord,
)
from trunkline.privacy.calls import Policies, RedactedConversation, RedactedFollowing, RedactedRecords
from trunkline.privacy.redaction import NOTHING, Policy, Redactor
from trunkline.types import DEFAULT_TENANT, MULAW_8K, CallId

AT = datetime(2026, 11, 28, tzinfo=UTC)
CARD = "four one one one one one one one one one one one one one one one"
POLICY = Policy(frozenset(("card", "phone", "email")))


class Kept:
    def __init__(self) -> None:
        self.events: list[RecordEvent] = []

    def append(self, event: RecordEvent) -> None:
        self.events.append(event)


def started(call_id: str, agent: str = "Clinic") -> CallStarted:
    return CallStarted(CallId(call_id), DEFAULT_TENANT, "inbound", "sip", agent, AT, from_number="+14155550100")


def turn(call_id: str, caller: str, agent: str = "") -> TurnEnded:
    return TurnEnded(CallId(call_id), AT, TurnRecord(0, caller, agent))


def said(event: RecordEvent) -> tuple[str, str]:
    assert isinstance(event, TurnEnded)
    return event.turn.caller_text, event.turn.agent_text


def test_a_record_keeps_no_card_and_still_says_whose_call_it_was() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY))
    records.append(started("1"))
    records.append(turn("1", f"it is {CARD}", "I have 4111 1111 1111 1111, is that right?"))
    records.append(turn("1", "4111111111111111"))
    assert [said(event) for event in kept.events[1:]] == [
        ("it is [card]", "I have [card], is that right?"),
        ("[card]", ""),
    ]
    assert cast(CallStarted, kept.events[0]).from_number == "+14155550100"


def test_a_card_in_pieces_is_put_together_within_its_call_only() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY))
    for call_id in ("1", "2"):
        records.append(started(call_id))
    for call_id in ("1", "2"):
        records.append(turn(call_id, "four one one one"))
    records.append(turn("1", "one one one one"))
    records.append(CallEnded(CallId("1"), AT, "caller_hung_up"))
    assert [said(event)[0] for event in kept.events[2:5]] == ["four one one one", "four one one one", "[digits]"]


def test_events_lose_cards_and_keep_what_the_record_is_found_by() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY))
    records.append(started("1"))
    records.append(CallEvent(CallId("1"), AT, "attributes", {"note": "4111 1111 1111 1111", "ref": "4155550100"}))
    records.append(CallEvent(CallId("1"), AT, NAMED, {"provider_call_id": "x@pbx.example.com"}))
    records.append(CallEnded(CallId("1"), AT, "error", "j@example.com"))
    events = [event.data for event in kept.events if isinstance(event, CallEvent)]
    assert events == [{"note": "[card]", "ref": "4155550100"}, {"provider_call_id": "x@pbx.example.com"}]
    assert cast(CallEnded, kept.events[-1]).detail == "[email]"


def test_a_device_is_found_by_its_names_whatever_they_look_like() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY))
    records.append(started("1"))
    names = {"session_id": "s", "device_id": "490154203237518", "device_account": "bob@example.com"}
    records.append(CallEvent(CallId("1"), AT, "attributes", names | {"note": "bob@example.com"}))
    assert cast(CallEvent, kept.events[1]).data == names | {"note": "[email]"}


def test_an_agent_may_have_a_policy_of_its_own() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY, {"Open": NOTHING}))
    records.append(started("1", "Open"))
    records.append(turn("1", "call 415 555 0100"))
    assert said(kept.events[1])[0] == "call 415 555 0100"


def test_a_follower_sees_no_beginning_of_a_card() -> None:
    told: list[Progress] = []
    tell = RedactedFollowing(POLICY).before(told.append)
    words = f"it is {CARD} thanks".split()
    for end in range(1, len(words) + 1):
        tell(Heard(" ".join(words[:end]), final=end == len(words)))
    assert {cast(Heard, each).text.strip() for each in told} == {"", "it", "it is", "it is [card] thanks"}
    told.clear()
    text = "That is 4111 1111 1111 1111, right?"
    tell(Saying(text, 20))
    tell(Saying(text, len(text), over=True))
    tell(ToolDone("pay", '{"card": "4111111111111111"}'))
    assert told == [
        Saying("That is [card], right?", len("That is")),
        Saying("That is [card], right?", len("That is [card], right?"), over=True),
        ToolDone("pay", '{"card": "[card]"}'),
    ]


def test_a_conversation_is_redacted_as_it_grows_and_when_it_is_another() -> None:
    redacted = RedactedConversation(POLICY)
    first, second = Message("caller", CARD), Message("agent", "thanks")
    assert [m.text for m in redacted([first])] == ["[card]"]
    both = redacted([first, second])
    assert both[1] is second
    assert redacted([first, second]) == both
    called = Message("agent", "", tool_calls=(ToolCall("1", "pay", {"card": "4111111111111111"}),))
    assert redacted([called])[0].tool_calls[0].arguments == {"card": "[card]"}


def test_a_model_of_a_third_party_is_told_what_its_policy_lets_it_know() -> None:
    asked: list[str] = []

    class Session:
        async def reply(
            self, conversation: Sequence[Message], *, understood: bool = True
        ) -> AsyncGenerator[LlmEvent, None]:
            asked.extend(message.text for message in conversation)
            yield TextDelta("ok")

    def model(third_party: bool) -> Any:
        return SimpleNamespace(name="m", third_party=third_party, open=lambda call: Session())

    facts = cast(CallFacts, None)

    async def ask(llm: Llm) -> None:
        assert llm.name == "m"
        async for _ in llm.open(facts).reply([Message("caller", CARD)]):
            pass

    for third_party in (True, False):
        asyncio.run(ask(discreet(cast(Llm, model(third_party)), POLICY)))
    assert asked == ["[card]", CARD]


def test_logs_are_the_last_guard() -> None:
    stream = io.StringIO()
    root, levels = logging.getLogger(), {"trunkline": logging.getLogger("trunkline").level}
    before, level = root.handlers[:], root.level
    try:
        logs.configure("info", "json", stream=stream, policy=POLICY)
        logging.getLogger("trunkline.x").info("said %s", CARD, extra={"card": "4111 1111 1111 1111", "to": "j@e.org"})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("trunkline").setLevel(levels["trunkline"])
    line = json.loads(stream.getvalue())
    assert (line["message"], line["card"], line["to"]) == ("said [card]", "[card]", "[email]")


def test_an_agent_reads_back_short_numbers_but_no_piece_of_a_card() -> None:
    kept = Kept()
    records = RedactedRecords(kept, Policies(POLICY))
    records.append(started("1"))
    records.append(turn("1", "four seven one one", "I heard 4 7 1 1. Is that right?"))
    records.append(turn("1", "yes", "I have noted appointment 4 7 1 1."))
    records.append(turn("1", "my card then five five zero zero", "5 5 0 0, go on"))
    records.append(turn("1", "zero zero zero zero", "0 0 0 0, go on"))
    assert [said(event) for event in kept.events[1:]] == [
        ("four seven one one", "I heard 4 7 1 1. Is that right?"),
        ("yes", "I have noted appointment 4 7 1 1."),
        ("my card then [digits]", "[digits], go on"),
        ("[digits]", "[digits], go on"),
    ]


def test_what_we_say_first_stays_as_it_was_said() -> None:
    kept = Kept()
    records = RedactedRecords(cast(Any, kept), Policies(POLICY))
    records.append(started("1"))
    said = {"lines": [{"text": "You can call us back at 1 2 1 2 5 5 5 0 1 1 1."}]}
    records.append(CallEvent(CallId("1"), AT, "disclosed", said))
    assert cast(CallEvent, kept.events[-1]).data == said


def test_who_takes_over_brings_their_policy_to_the_call() -> None:
    kept = Kept()
    cards, billing = Policy(frozenset(("card",))), Policy(frozenset(("card", "phone", "email", "name")), ("Ada",))
    records = RedactedRecords(kept, Policies(cards, {"Billing": billing}))
    records.append(started("1", "Front"))
    records.append(turn("1", "4111, and mail ann at example dot com"))
    records.append(CallEvent(CallId("1"), AT, "agent_changed", {"agent": "Billing", "before": "Front"}))
    records.append(turn("1", "1111. my name is Ann, ann at example dot com, for Ada"))
    records.append(CallEvent(CallId("1"), AT, "agent_changed", {"agent": "Front", "before": "Billing"}))
    records.append(turn("1", "Ann, 1111."))
    assert [said(event)[0] for event in kept.events if isinstance(event, TurnEnded)] == [
        "4111, and mail ann at example dot com",
        "[digits]. my name is [name], [email], for [name]",
        "[name], [digits].",
    ]


def test_a_message_that_was_left_is_the_callers_words() -> None:
    kept = Kept()
    policy = Policy(frozenset(("card", "phone", "name", "number")))
    records = RedactedRecords(kept, Policies(policy))
    records.append(started("1"))
    records.append(turn("1", "my name is Ann"))
    text = "Ann here, call 202 555 0177, code 84731 please"
    records.append(CallEvent(CallId("1"), AT, "message", {"text": text}))
    records.append(turn("1", text))
    assert cast(CallEvent, kept.events[-2]).data["text"] == said(kept.events[-1])[0]
    assert said(kept.events[-1])[0] == "[name] here, call [phone], code [number] please"


def test_a_follower_and_a_conversation_go_by_who_took_over_too() -> None:
    told: list[Progress] = []
    following, conversation = RedactedFollowing(NOTHING), RedactedConversation(NOTHING)
    tell, message = following.before(told.append), Message("caller", "mail j@example.org please")
    tell(Heard(message.text, final=True))
    assert conversation([message]) == (message,)
    following.attended_by(POLICY)
    conversation.attended_by(POLICY)
    tell(Heard(message.text, final=True))
    assert [cast(Heard, each).text for each in told] == [message.text, "mail [email] please"]
    assert [each.text for each in conversation([message])] == ["mail [email] please"]


def test_a_wrong_speculation_redacts_no_more_than_its_own_words_again(monkeypatch: pytest.MonkeyPatch) -> None:
    redacted, taken = RedactedConversation(Policy(frozenset(("card", "name")))), list[str]()
    whole = Redactor.whole

    def counted(self: Redactor, text: str) -> str:
        taken.append(text)
        return whole(self, text)

    before = [Message("caller", "my name is Ann"), Message("agent", "4111?"), Message("caller", "so it is 4111 1111")]
    redacted(before)
    monkeypatch.setattr(Redactor, "whole", counted)
    redacted([*before, Message("caller", "my name is Bob 1111")])
    redacted([*before, Message("caller", "my name is Bob 1111 1")])
    last = redacted([*before, Message("caller", "Ann and Bob 1111 1111")])[-1]
    assert len(taken) == 3
    assert last.text == "[name] and Bob [card]"
    redacted(before[:1])
    assert len(taken) == 3


def test_a_realtime_model_of_a_third_party_is_told_what_its_policy_lets_it_know() -> None:
    told: list[Message] = []

    def model(third_party: bool) -> Any:
        def opened(call: Any, format: Any, conversation: Sequence[Message], on_event: Any) -> Any:
            told.extend(conversation)
            return SimpleNamespace(tell=lambda message, audio=b"": told.append(message), close=lambda: told.clear())

        return SimpleNamespace(name="m", third_party=third_party, open=opened)

    for third_party, shown in (
        (True, ["it is 4111", "[phone]", "[card]"]),
        (False, ["it is 4111", "11111111", "1111"]),
    ):
        realtime = discreet_realtime(cast(Realtime, model(third_party)), POLICY)
        assert realtime.name == "m"
        session = realtime.open(cast(CallFacts, None), MULAW_8K, [Message("caller", "it is 4111")], cast(Any, None))
        session.tell(Message("caller", "11111111", keyed=True))
        session.tell(Message("caller", "1111"), b"")
        assert [message.text for message in told] == shown
        session.close()
        assert not told


@pytest.mark.parametrize(
    ("heard", "cut", "kept"),
    [
        ("I can offer", "nine o'clock.", "nine o'clock."),
        ("You wrote", "anna@example.com to us.", "[email] to us."),
        (f"Your card is {CARD[:32]}", f"{CARD[33:]}, right?", ""),
        ("Hello.", "", ""),
    ],
)
def test_what_was_cut_is_redacted_with_what_was_heard_before_it(heard: str, cut: str, kept: str) -> None:
    records = Kept()
    redacted = RedactedRecords(records, Policies(POLICY))
    redacted.append(started("a"))
    redacted.append(TurnEnded(CallId("a"), AT, TurnRecord(0, "", heard, interrupted=True, cut_text=cut)))
    event = records.events[-1]
    assert isinstance(event, TurnEnded)
    assert event.turn.cut_text == kept


def test_a_turn_without_words_has_none_that_were_cut() -> None:
    assert TurnRecord(0, "a", "b", cut_text="c").without_words() == TurnRecord(0, "", "")


def test_what_tools_were_given_is_redacted_as_what_was_said() -> None:
    records = Kept()
    redacted = RedactedRecords(records, Policies(POLICY))
    redacted.append(started("a"))
    tools = [{"name": "call_back", "arguments": {"number": "415 555 0100"}, "outcome": "ok"}]
    redacted.append(CallEvent(CallId("a"), AT, "tools_used", {"turn": 0, "tools": tools}))
    event = records.events[-1]
    assert isinstance(event, CallEvent)
    assert "0100" not in str(event.data["tools"]) or "555" not in str(event.data["tools"])
    assert event.data["tools"][0]["outcome"] == "ok"
