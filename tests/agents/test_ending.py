"""The turn detector, asked about one call, on a clock that the test winds."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.agents.test_cascade import Timer
from trunkline.agents.ending import ANSWER_S, Ending
from trunkline.agents.health import Health
from trunkline.errors import ProviderError
from trunkline.ports import ON_BEHALF_OF
from trunkline.testing.clock import ManualClock
from trunkline.types import CallId

DOWN = ProviderError("oracle", "unavailable", retryable=True)


class Oracle:
    """Answers when it is told to."""

    name = "oracle"
    third_party = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.behalf: list[CallId | None] = []
        self.answers: asyncio.Queue[float | Exception] = asyncio.Queue()
        self.left = 0

    async def start(self) -> None: ...

    async def probability(self, text: str, language: str) -> float:
        self.asked.append((text, language))
        self.behalf.append(ON_BEHALF_OF.get())
        try:
            answer = await self.answers.get()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None: ...


class Desk:
    def __init__(self) -> None:
        self.clock, self.health, self.oracle = ManualClock(), Health(), Oracle()
        self.told: list[float] = []
        self.timers: list[Timer] = []
        self.ending = Ending(
            self.oracle, "turn.oracle", self.health, CallId("call_1"), self.clock, self.after, self.told.append
        )

    def after(self, seconds: float, then: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.clock.now() + seconds, then))
        return self.timers[-1]

    async def hears(self, words: str) -> None:
        self.ending.heard(words, "en-US")
        await settle()

    async def answers(self, *answers: float | Exception) -> None:
        for answer in answers:
            self.oracle.answers.put_nowait(answer)
        await settle()

    async def waits(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for timer in [timer for timer in self.timers if timer.due <= self.clock.now()]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.then()
        await settle()

    @property
    def words(self) -> list[str]:
        return [text for text, _ in self.oracle.asked]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def at_the_desk(story: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        desk = Desk()
        await story(desk)
        desk.ending.close()
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(timer.cancelled for timer in desk.timers), "a deadline outlives its wait"

    asyncio.run(main())


def test_it_is_asked_about_the_words_and_tells() -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("my number is")
        await desk.answers(0.05)
        assert desk.told == [0.05]
        assert desk.oracle.asked == [("my number is", "en-US")]
        assert desk.oracle.behalf == ["call_1"]
        assert desk.health.of("turn.oracle").successes == 1

    at_the_desk(story)


def test_the_same_words_are_asked_about_once() -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("hours")
        await desk.hears("hours")
        await desk.answers(0.5)
        await desk.hears("hours")
        assert (desk.words, desk.told) == (["hours"], [0.5])
        await desk.hears("")
        assert desk.words == ["hours"]

    at_the_desk(story)


def test_one_question_at_a_time_and_then_about_the_latest_words_only() -> None:
    async def story(desk: Desk) -> None:
        for words in ("my", "my number", "my number is", "my number is five"):
            await desk.hears(words)
        assert desk.words == ["my"]
        await desk.answers(0.1)
        assert desk.told == [], "newer words came"
        assert desk.words == ["my", "my number is five"]
        await desk.answers(0.9)
        assert desk.told == [0.9]

    at_the_desk(story)


def test_an_answer_about_a_turn_that_is_over_is_void() -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("yes")
        desk.ending.forget()
        await desk.answers(0.9)
        assert desk.told == []
        await desk.hears("yes")  # the same words of another turn
        await desk.answers(0.8)
        assert desk.told == [0.8]

    at_the_desk(story)


def test_one_that_is_late_is_left_and_counts() -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("yes")
        await desk.waits(ANSWER_S - 0.01)
        assert desk.oracle.left == 0
        await desk.waits(0.02)
        assert desk.oracle.left == 1
        breaker = desk.health.of("turn.oracle")
        assert (breaker.failures, breaker.last_code, desk.told) == (1, "timeout", [])
        await desk.hears("yes please")
        await desk.answers(0.9)
        assert desk.told == [0.9]

    at_the_desk(story)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(DOWN, "unavailable"), (1.5, "protocol"), (float("nan"), "protocol"), (ValueError("x"), "protocol")],
)
def test_one_that_fails_says_nothing_and_counts(answer: float | Exception, code: str) -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("yes")
        await desk.answers(answer)
        assert desk.told == []
        assert desk.health.of("turn.oracle").last_code == code

    at_the_desk(story)


def test_one_that_keeps_failing_is_left_alone_until_it_is_probed() -> None:
    async def story(desk: Desk) -> None:
        for at in range(5):
            await desk.hears(f"word {at}")
            await desk.answers(DOWN)
        assert len(desk.words) == 3
        await desk.waits(6)
        await desk.hears("and now")
        assert desk.words[-1] == "and now"
        while not desk.oracle.answers.empty():
            desk.oracle.answers.get_nowait()
        await desk.answers(0.7)

    at_the_desk(story)


def test_closing_leaves_the_question() -> None:
    async def story(desk: Desk) -> None:
        await desk.hears("yes")
        desk.ending.close()
        desk.ending.close()
        await settle()
        assert desk.oracle.left == 1
        await desk.answers(0.9)
        assert desk.told == []
        gc.collect()

    at_the_desk(story)
