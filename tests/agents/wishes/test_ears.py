"""Second ears: whose speech they recognise, and when."""

from types import SimpleNamespace
from typing import Any, cast

from trunkline.agents.local.wire import Message
from trunkline.agents.wishes.ears import KEPT_MS, LATE_S, SecondEars
from trunkline.errors import ProviderError
from trunkline.ports import Wish
from trunkline.types import MULAW_8K

FRAME = MULAW_8K.silence * 160
LINE = {"mean": [0.0], "frames": 1, "usual": -12.8}


class Pool:
    """Takes jobs; `answer` is what the worker says of the last one."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.full = False

    def borrow(self, kind: str, on_reply: Any, setup: Message) -> Any:
        if self.full:
            raise ProviderError("speech", "overloaded", "full", retryable=True)
        job = SimpleNamespace(sent=[], on_reply=on_reply, closed=False)
        job.send = lambda name, data=b"": job.sent.append((name, len(data)))
        job.close = lambda: setattr(job, "closed", True)
        self.jobs.append(job)
        return job

    def answer(self, text: str, score: float = -13.0, *, understood: bool = True) -> None:
        fields = {"text": text, "understood": understood, "score": score, "line": LINE}
        self.jobs[-1].on_reply(Message("final", fields))


class Scene:
    def __init__(self, hears: str) -> None:
        self.attendant: Any = SimpleNamespace(hears_words=hears, transcripts=0)
        self.pool, self.timers = Pool(), list[Any]()
        self.ears = SecondEars(cast(Any, self.pool))
        self.ears.there = True
        self.wishes: list[Wish] = []
        bus = SimpleNamespace(
            playout=SimpleNamespace(format=MULAW_8K), latest=lambda ms: bytes(ms * 8), overhear=lambda it: None
        )
        self.it = self.ears.overhear(cast(Any, bus), lambda: self.attendant, self.wishes.append, self._after)

    def _after(self, after_s: float, then: Any) -> Any:
        assert after_s == LATE_S
        timer = SimpleNamespace(then=then)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def speak(self, length_ms: int = 1000) -> None:
        self.it.speech_started(0.0)
        for _ in range(length_ms // 20):
            self.it.hear(FRAME)
        self.it.speech_ended(0.0)


def test_where_nobody_writes_what_was_said_is_recognised_at_once_with_its_beginning() -> None:
    scene = Scene("never")
    scene.it.hear(FRAME)  # nobody speaks
    scene.speak()
    assert scene.pool.jobs[0].sent == [("audio", 1300 * 8), ("finish", 0)]
    scene.pool.answer("take me off your list")
    assert [wish.kind for wish in scene.wishes] == ["do_not_call"]
    assert scene.pool.jobs[0].closed


def test_where_a_recogniser_writes_it_all_nothing_is_kept() -> None:
    scene = Scene("always")
    scene.speak()
    assert (scene.pool.jobs, scene.timers) == ([], [])


def test_a_transcript_that_comes_saves_the_recogniser_and_a_late_one_does_not() -> None:
    scene = Scene("late")
    scene.speak()
    scene.attendant.transcripts += 1
    scene.timers.pop().then()
    assert scene.pool.jobs == []
    scene.speak()
    scene.timers.pop().then()
    assert len(scene.pool.jobs) == 1


def test_speech_that_began_while_nobody_wrote_is_recognised_though_somebody_does_now() -> None:
    scene = Scene("never")
    scene.it.speech_started(0.0)
    scene.attendant.hears_words = "late"
    scene.it.speech_ended(0.0)
    assert len(scene.pool.jobs) == 1


def test_what_is_not_understood_or_fits_badly_is_no_wish() -> None:
    scene = Scene("never")
    for answer in (("stop calling me", -13.0, False), ("stop calling me", -19.0, True), ("", -13.0, True)):
        scene.speak()
        scene.pool.answer(answer[0], answer[1], understood=answer[2])
    assert scene.wishes == []


def test_speech_without_end_is_bounded_and_a_full_pool_is_counted() -> None:
    scene = Scene("never")
    scene.speak(60_000)
    assert max(size for job in scene.pool.jobs for _, size in job.sent) <= (KEPT_MS + 20) * 8
    assert (scene.ears.heard, len(scene.pool.jobs)) == (1, 1)  # one at a time
    assert scene.ears.missed > 5
    scene.it.close()
    missed, scene.pool.full = scene.ears.missed, True
    scene.speak()
    assert scene.ears.missed == missed + 1


def test_what_is_said_in_two_breaths_is_heard_twice() -> None:
    late = Scene("late")
    late.speak(1000)
    late.speak(400)
    assert len(late.timers) == 2
    late.timers[0].then()
    assert late.pool.jobs[0].sent == [("audio", 1300 * 8), ("finish", 0)]
    never = Scene("never")
    never.speak(400)
    never.speak(1000)  # while the first is with the recogniser
    assert len(never.pool.jobs) == 1
    never.pool.answer("please", understood=False)
    assert never.pool.jobs[1].sent == [("audio", 1300 * 8), ("finish", 0)]
    never.pool.answer("take me off your list")
    assert [wish.kind for wish in never.wishes] == ["do_not_call"]


def test_what_was_heard_and_missed_is_told_once() -> None:
    scene, told = Scene("never"), list[tuple[str, int]]()
    scene.speak()
    scene.pool.answer("hello")
    scene.pool.full = True
    scene.speak()
    scene.ears.count(lambda result, count: told.append((result, count)))
    scene.ears.count(lambda result, count: told.append((result, count)))
    assert told == [("heard", 1), ("missed", 1), ("heard", 0), ("missed", 0)]


def test_fewer_words_must_fit_better() -> None:
    scene = Scene("never")
    for text, score in (("stop calling", -15.0), ("stop calling", -14.0), ("please take me off your list", -16.0)):
        scene.speak()
        scene.pool.answer(text, score)
    assert [wish.verbatim for wish in scene.wishes] == ["stop calling", "please take me off your list"]
    scene.speak()
    scene.pool.answer("please take me off your list", -17.0)
    assert len(scene.wishes) == 2
