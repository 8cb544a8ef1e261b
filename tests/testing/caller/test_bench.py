import pytest

from trunkline.testing.caller.bench import BenchReport, Heard, cuts_jsonl, judge
from trunkline.testing.caller.figures import Spread


def cut(turn: int, played_ms: int) -> Heard:
    return Heard("CA1", turn, played_ms, unheard_ms=100, last_mark="1:200", pending_marks=())


RECORD = {
    "turns": [
        {"caller_text": "", "agent_text": "word0 word1 word2"},
        {"caller_text": "a", "agent_text": "word0 word1"},
        {"caller_text": "b", "agent_text": "word0"},
    ]
}


@pytest.mark.parametrize(
    ("turn", "played_ms", "words_more"),
    [(0, 600, 0), (0, 799, 0), (0, 580, 1), (0, 800, -1), (1, 400, 0), (1, 1000, -3)],
)
def test_words_of_the_record_are_counted_against_what_was_played(turn: int, played_ms: int, words_more: int) -> None:
    assert judge(cut(turn, played_ms), RECORD, turns=2).words_more == words_more


def test_a_record_with_other_turns_judges_nothing() -> None:
    assert judge(cut(0, 600), RECORD, turns=5).words_more is None
    assert judge(cut(0, 600), {}, turns=2).words_more is None
    assert judge(cut(2, 600), RECORD, turns=3).words_more is None


def test_percentiles_of_nothing_are_none() -> None:
    assert Spread.of([]) == Spread(0, None, None, None, None)
    assert Spread.of([1.0, 3.0]).p50 == 2.0
    assert Spread.of([1.0, 3.0]).max == 3.0


def test_each_interruption_is_one_line_of_json() -> None:
    report = BenchReport(1)
    report.cuts = [cut(0, 20), cut(1, 40)]
    assert cuts_jsonl(report).count("\n") == 2
