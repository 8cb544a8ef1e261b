from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.testing.caller.script import (
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Say,
    Vanish,
    Wav,
    conversation,
    parse_script,
)


def test_a_conversation_hears_each_answer_out_and_interrupts_the_last_one() -> None:
    items: list[Say | Keys] = [Say("hello"), Keys("4711"), Say("stop")]
    assert conversation(items) == [Listen(), items[0], Listen(), items[1], Listen(), items[2], Listen(), HangUp()]
    barging = conversation(items, barge_in_after_ms=800)
    assert barging[4:] == [ListenInto(800), items[2], Listen(), HangUp()]


def test_a_caller_script_is_read_line_by_line() -> None:
    text = "# a comment\nsay hello there\nbarge 700 say stop\n\npause 300\nwav a.wav\nkeys 12#\nvanish"
    assert parse_script(text) == [
        Listen(),
        Say("hello there"),
        ListenInto(700),
        Say("stop"),
        Pause(300),
        Wav(Path("a.wav")),
        Listen(),
        Keys("12#"),
        Vanish(),
    ]


def test_a_script_without_an_end_hears_the_last_answer_and_hangs_up() -> None:
    assert parse_script("say bye")[-2:] == [Listen(), HangUp()]


@pytest.mark.parametrize("text", ["dance", "say", "keys 12x", "pause soon", "barge say hello"])
def test_a_step_that_is_none_names_itself(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_script(text)
    assert str(error.value)
