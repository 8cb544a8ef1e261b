import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trunkline.agents.local.pool import Job, Reply, SpeechPool
from trunkline.agents.local.wire import Message
from trunkline.errors import MisuseError, ProviderError

KINDS = {"parrot": "trunkline.testing.parrot:Parrot"}


def run(story: Callable[[SpeechPool], Coroutine[Any, Any, None]], workers: int = 1, **limits: Any) -> None:
    async def bounded() -> None:
        pool = SpeechPool(workers, kinds=KINDS, **limits)
        async with asyncio.timeout(10):
            await pool.start()
            try:
                await story(pool)
            finally:
                await pool.close()
        assert pool.pids == ()

    asyncio.run(bounded())


def borrow(pool: SpeechPool) -> tuple[Job, "asyncio.Queue[Reply]"]:
    replies: asyncio.Queue[Reply] = asyncio.Queue()
    return pool.borrow("parrot", replies.put_nowait), replies


async def said(replies: "asyncio.Queue[Reply]") -> Message:
    reply = await replies.get()
    assert isinstance(reply, Message)
    return reply


async def failed(replies: "asyncio.Queue[Reply]") -> ProviderError:
    reply = await replies.get()
    assert isinstance(reply, ProviderError)
    return reply


def test_a_job_is_answered_by_its_worker_with_what_it_has_preloaded() -> None:
    async def story(pool: SpeechPool) -> None:
        await pool.preload("parrot", Message("learn", {"word": "Polly"}))
        job, replies = borrow(pool)
        job.send("say", b"\x00\x01", word="hello")
        reply = await said(replies)
        assert (reply.name, reply.data, reply.fields["word"], reply.fields["learnt"]) == (
            "said",
            b"\x00\x01",
            "hello",
            "Polly",
        )
        job.close()
        job.close()
        assert pool.live_jobs == 0

    run(story)


def test_jobs_go_to_the_worker_with_the_fewest_and_the_pool_closes_with_its_last_user() -> None:
    async def story(pool: SpeechPool) -> None:
        await pool.start()
        await pool.close()
        pids = []
        for _ in range(4):
            job, replies = borrow(pool)
            job.send("say")
            pids.append((await said(replies)).fields["pid"])
        assert sorted(pids) == sorted(2 * pool.pids)

    run(story, workers=2)


def test_a_killed_worker_fails_its_jobs_at_once_and_the_next_job_works() -> None:
    async def story(pool: SpeechPool) -> None:
        await pool.preload("parrot", Message("learn", {"word": "again"}))
        job, replies = borrow(pool)
        _other, other_replies = borrow(pool)
        os.kill(pool.pids[0], signal.SIGKILL)
        for error in (await failed(replies), await failed(other_replies)):
            assert (error.code, error.retryable) == ("unavailable", True)
        job.send("say")  # dropped, quietly
        with pytest.raises(ProviderError, match="unavailable"):
            borrow(pool)
        await pool.preload("parrot", Message("learn", {"word": "again"}))  # waits for the new worker
        job, replies = borrow(pool)
        job.send("say")
        assert (await said(replies)).fields["learnt"] == "again"
        assert (pool.stats.restarts, pool.stats.failures, pool.stats.drops, pool.stats.jobs) == (1, 2, 1, 3)

    run(story)


def test_a_hung_worker_is_killed_after_the_deadline() -> None:
    async def story(pool: SpeechPool) -> None:
        job, replies = borrow(pool)
        job.send("hang")
        job.send("say")
        assert "hung" in str(await failed(replies))

    run(story, deadline_s=0.1)


def test_a_worker_that_is_long_at_one_message_is_not_hung_while_it_takes_turns() -> None:
    async def story(pool: SpeechPool) -> None:
        job, replies = borrow(pool)
        job.send("toil", s=2.0)
        job.send("say")  # waits: what a watch for hung workers goes by
        assert [(await said(replies)).name for _ in range(2)] == ["said", "said"]
        assert pool.stats.restarts == 0

    run(story, deadline_s=0.8)


def test_an_exception_ends_that_job_only() -> None:
    async def story(pool: SpeechPool) -> None:
        job, replies = borrow(pool)
        other, other_replies = borrow(pool)
        job.send("raise")
        other.send("say")
        assert "told to" in str(await failed(replies))
        assert (await said(other_replies)).name == "said"
        assert pool.live_jobs == 1

    run(story)


def test_the_bound_on_jobs_refuses_the_next_one() -> None:
    async def story(pool: SpeechPool) -> None:
        jobs = [borrow(pool)[0] for _ in range(3)]
        with pytest.raises(ProviderError, match="overloaded"):
            borrow(pool)
        jobs[0].close()
        borrow(pool)
        assert pool.stats.overloads == 1

    run(story, jobs_per_worker=3)


def test_the_bound_on_queued_bytes_drops_the_message_and_keeps_the_job() -> None:
    async def story(pool: SpeechPool) -> None:
        job, replies = borrow(pool)
        job.send("say", bytes(2000))
        with pytest.raises(ProviderError, match="overloaded"):
            job.send("say", bytes(2000))
        with pytest.raises(ProviderError, match="overloaded"):
            borrow(pool)
        await said(replies)
        job.send("say", bytes(2000))
        await said(replies)
        assert pool.stats.drops == 1

    run(story, queue_bytes_per_worker=2000)


def test_a_closed_job_hears_no_more_and_a_long_reply_does_not_hold_up_another_job() -> None:
    async def story(pool: SpeechPool) -> None:
        long, numbers = borrow(pool)
        long.send("count", to=10**9)
        assert (await said(numbers)).name == "number"
        other, replies = borrow(pool)
        other.send("say")
        await said(replies)
        long.close()
        heard = numbers.qsize()
        other.send("say")
        await said(replies)
        assert numbers.qsize() == heard

    run(story)


def test_a_refused_preload_is_the_callers_error_and_harms_nobody() -> None:
    async def story(pool: SpeechPool) -> None:
        with pytest.raises(ProviderError, match="no such word"):
            await pool.preload("parrot", Message("refuse"))
        job, replies = borrow(pool)
        job.send("say")
        await said(replies)
        with pytest.raises(MisuseError):
            await pool.preload("parrot", Message("learn", data=b"x"))

    run(story)


def test_a_callback_that_raises_loses_its_own_job_only() -> None:
    async def story(pool: SpeechPool) -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

        def faulty(_: Reply) -> None:
            raise RuntimeError("a bug")

        job = pool.borrow("parrot", faulty, Message("say"))
        other, replies = borrow(pool)
        other.send("say")
        await said(replies)
        assert not job.open
        assert len(reports) == 1

    run(story)


def test_the_pool_closing_fails_the_jobs_that_are_left() -> None:
    left: list[Reply] = []

    async def story(pool: SpeechPool) -> None:
        pool.borrow("parrot", left.append)

    run(story)
    assert [str(reply) for reply in left] == ["speech: unavailable (the speech pool closed)"]


def test_a_worker_stops_though_its_last_chore_is_done_already() -> None:
    """Its own callback has not run by then; waiting for what is done must not keep it from running."""

    async def story() -> None:
        (worker,) = SpeechPool(1)._workers
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        worker._chore(done)
        done.set_result(None)
        await worker.stop()
        assert not worker._chores

    def too_long(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)  # a loop that spins cannot time itself out
    signal.alarm(5)
    try:
        asyncio.run(story())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_what_is_preloaded_later_is_loaded_in_one_worker_after_another() -> None:
    async def story(pool: SpeechPool) -> None:
        job, _ = borrow(pool)
        ready: list[int] = []

        async def watch() -> None:
            while True:
                ready.append(pool.ready_workers)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        await pool.preload("parrot", Message("learn", {"word": "hello", "steps": 50}))
        watching.cancel()
        assert set(ready) == {1, 2}, "one of two at a time, so that the other takes what comes"
        job.close()

    run(story, workers=2)


def test_what_nobody_wants_any_more_is_unloaded_and_not_loaded_again() -> None:
    word = Message("learn", {"word": "hello"})

    async def story(pool: SpeechPool) -> None:
        await pool.preload("parrot", word)
        await pool.preload("parrot", word)
        pool.forget("parrot", word)
        job, replies = borrow(pool)
        job.send("say")
        assert (await said(replies)).fields["learnt"] == "hello", "there is another who wants it"
        pool.forget("parrot", word)
        pool.forget("parrot", word)
        job, replies = borrow(pool)
        job.send("say")
        assert (await said(replies)).fields["learnt"] == ""
        assert pool.preloads == {}

    run(story)
