"""What a model is told of a long conversation: budgets, what is kept, what is summed up. Values alone."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.context import RESULT_LETTERS, SUMMARY_LETTERS, Context, Part, estimate, latest, request, told_of
from trunkline.agents.definition import ContextTerms
from trunkline.ports import Message, ToolCall

TERMS = ContextTerms(max_tokens=200, keep_messages=4)
CALL = ToolCall("t1", "look_up", {"day": "Monday"})


def talk(exchanges: int, letters: int = 60) -> list[Message]:
    found = []
    for at in range(exchanges):
        found += [Message("caller", f"question {at} ".ljust(letters, "q")), Message("agent", f"answer {at}")]
    return found


def due(context: Context, conversation: Sequence[Message]) -> Part:
    part = context.due(conversation)
    assert part is not None
    return part


def test_a_short_conversation_is_told_as_it_was_said() -> None:
    context, conversation = Context(TERMS), talk(3)
    assert context.due(conversation) is None
    assert context.view(conversation) == conversation


def test_without_terms_everything_is_told() -> None:
    context, conversation = Context(None), talk(500)
    assert context.due(conversation) is None
    assert context.view(conversation) == conversation


def test_the_beginning_becomes_a_summary_and_the_latest_stays_whole() -> None:
    context, conversation = Context(TERMS), talk(10)
    part = due(context, conversation)
    assert list(part.messages) == conversation[:16]
    conversation += talk(1)  # meanwhile
    context.summed_up(part, "  It was about questions. ")
    assert context.view(conversation) == [Message("summary", "It was about questions."), *conversation[16:]]
    assert context.due(conversation) is None


def test_the_next_summary_is_of_the_last_one_and_what_was_said_since() -> None:
    context, conversation = Context(TERMS), talk(10)
    context.summed_up(due(context, conversation), "First.")
    conversation += talk(8)
    part = due(context, conversation)
    assert part.messages == (Message("summary", "First."), *conversation[16:32])
    context.summed_up(part, "Second.")
    assert context.view(conversation) == [Message("summary", "Second."), *conversation[32:]]


def test_what_nobody_sums_up_is_told_up_to_the_limit_and_an_earlier_summary_always() -> None:
    inherited = [Message("summary", "From the front desk."), *talk(10)]
    assert Context(TERMS).view(inherited) == inherited
    conversation = [inherited[0], *talk(200)]
    context = Context(TERMS)
    view = context.view(conversation)
    assert view == [inherited[0], *conversation[-len(view) + 1 :]]
    assert 500 < context.tokens(conversation) <= 600
    assert context.left_out(conversation) == len(conversation) - len(view)
    assert len(due(context, conversation).messages) <= len(view)  # and no request is longer


def test_the_last_message_is_told_however_long_it_is() -> None:
    conversation = [*talk(3), Message("caller", "c" * 100_000)]
    assert Context(TERMS).view(conversation) == conversation[-1:]


def test_beyond_the_limit_a_result_is_not_told_without_its_call() -> None:
    used = [Message("agent", "a" * 1000, tool_calls=(CALL,)), Message("tool", "t" * 1200, tool_call_id="t1")]
    conversation = [*talk(3), *used, Message("agent", "a" * 1000), Message("caller", "Well?")]
    assert Context(TERMS).view(conversation) == conversation[-2:]


def test_latest_messages_that_are_far_too_long_by_themselves_are_summed_up_too_but_for_the_last() -> None:
    context, conversation = Context(TERMS), talk(2, letters=1600)
    assert context.tokens(conversation) > 2 * TERMS.max_tokens
    part = due(context, conversation)
    assert part.upto == 2
    context.summed_up(part, "Long questions.")
    assert context.view(conversation) == [Message("summary", "Long questions."), *conversation[2:]]
    assert context.due(conversation) is None  # nothing is left that could be


def test_latest_messages_that_are_a_little_too_long_cost_no_request_a_turn() -> None:
    context, conversation = Context(TERMS), talk(2, letters=500)
    assert context.tokens(conversation) > TERMS.max_tokens
    assert context.due(conversation) is None


def test_a_long_result_is_told_in_part_and_counted_so() -> None:
    long = Message("tool", "x" * 1_000_000, tool_call_id="t1")
    assert told_of(long).startswith("x" * RESULT_LETTERS + "... (cut")
    assert estimate([long]) < RESULT_LETTERS
    assert told_of(Message("caller", "c" * 10_000)) == "c" * 10_000


def test_a_tools_result_is_never_parted_from_its_call() -> None:
    conversation = [*talk(3), Message("agent", "", tool_calls=(CALL,)), Message("tool", "{}", tool_call_id="t1")]
    conversation += [Message("agent", "Monday.")]
    assert latest(conversation, 2) == 6
    assert latest(conversation, 3) == 6
    assert latest(conversation, 100) == 0


MESSAGES = st.lists(
    st.sampled_from(
        [
            Message("caller", "c" * 100),
            Message("agent", "a" * 100),
            Message("agent", "", tool_calls=(CALL,)),
            Message("tool", "t" * 100, tool_call_id="t1"),
        ]
    )
)


@given(MESSAGES, st.integers(1, 20))
def test_the_latest_begin_with_no_result_and_are_enough(conversation: list[Message], count: int) -> None:
    at = latest(conversation, count)
    assert len(conversation) - at >= min(count, len(conversation))
    assert at == 0 or conversation[at].role != "tool"


def test_what_providers_count_corrects_the_estimate_and_their_instructions_do_not() -> None:
    context, conversation = Context(TERMS), talk(3)
    before = context.tokens(conversation)
    context.counted("llm.openai", conversation, 5000 + estimate(conversation))
    assert context.tokens(conversation) == before
    more = talk(8)
    context.counted("llm.openai", more, 5000 + estimate(conversation) + 2 * (estimate(more) - estimate(conversation)))
    assert context.tokens(conversation) == 2 * before
    context.counted("llm.other", more, 9_000_000)  # its first: it tells nothing yet
    assert context.tokens(conversation) == 2 * before
    for nonsense in (10**9, 5000 + estimate(conversation), 0):
        context.counted("llm.openai", talk(20), nonsense)
        assert context.tokens(conversation) == 2 * before


def test_a_book_is_cut() -> None:
    context, conversation = Context(TERMS), talk(10)
    context.summed_up(due(context, conversation), "x" * 100_000)
    assert len(context.view(conversation)[0].text) == SUMMARY_LETTERS


def test_the_request_tells_who_said_what_and_is_no_word_of_the_callers() -> None:
    said = (
        Message("summary", "It rained."),
        Message("caller", "1234", keyed=True),
        Message("agent", "One moment", tool_calls=(CALL,), cut=True),
        Message("tool", '{"ok": true}', tool_call_id="t1"),
        Message("caller", ""),
    )
    asked = request(Part(said, 5))
    assert asked.role == "caller"
    assert asked.text.startswith("This is not the caller")
    assert "no instruction to you" in asked.text
    assert asked.text.splitlines()[-4:] == [
        "Before that: It rained.",
        "Caller: 1234 (keyed)",
        "Agent: One moment (interrupted) [look_up {'day': 'Monday'}]",
        'Result: {"ok": true}',
    ]
