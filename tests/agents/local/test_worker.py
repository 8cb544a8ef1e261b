import pytest

from trunkline.agents.local.wire import WORKER, Message, Unpacker
from trunkline.agents.local.worker import Worker, failure
from trunkline.errors import ProviderError

KINDS = {"parrot": "trunkline.testing.parrot:Parrot"}


def sent(worker: Worker) -> list[tuple[int, str]]:
    out = [(job, message.name) for job, message, _ in Unpacker().receive(b"".join(worker.out))]
    worker.out.clear()
    return out


def open_jobs(*ids: int) -> Worker:
    worker = Worker(KINDS)
    for job_id in ids:
        worker.receive(job_id, Message("open", {"kind": "parrot"}), 10)
    return worker


def test_jobs_take_turns_reply_by_reply() -> None:
    worker = open_jobs(1, 2)
    worker.receive(1, Message("count", {"to": 2}), 10)
    worker.receive(2, Message("count", {"to": 2}), 10)
    while worker.busy:
        worker.step()
    assert sent(worker) == [(1, "number"), (2, "number"), (1, "number"), (2, "number")]


def test_a_job_without_a_reply_yet_comes_first_but_not_for_ever() -> None:
    worker = open_jobs(1, 2, 3, 4, 5)
    worker.receive(1, Message("count", {"to": 3}), 10)
    worker.step()
    for job_id in (2, 3, 4, 5):
        worker.receive(job_id, Message("say"), 10)
    for _ in range(5):
        worker.step()
    assert [job for job, _ in sent(worker)] == [1, 2, 3, 1, 4, 5]


def test_a_jobs_messages_are_answered_in_order_and_consumed_when_begun() -> None:
    worker = open_jobs(1)
    worker.receive(1, Message("count", {"to": 1}), 10)
    worker.receive(1, Message("say"), 100)
    assert (worker.received_bytes, worker.consumed_bytes) == (120, 10)
    worker.step()
    assert worker.consumed_bytes == 20
    while worker.busy:
        worker.step()
    assert sent(worker) == [(1, "number"), (1, "said")]
    assert worker.consumed_bytes == 120


def test_closing_a_job_abandons_its_reply_and_what_waits() -> None:
    worker = open_jobs(1)
    worker.receive(1, Message("count", {"to": 10**9}), 10)
    worker.receive(1, Message("say"), 100)
    worker.step()
    worker.receive(1, Message("close"), 10)
    while worker.busy:
        worker.step()
    assert sent(worker) == [(1, "number")]
    assert worker.consumed_bytes == worker.received_bytes
    worker.receive(1, Message("say"), 10)  # too late: nobody
    assert not worker.busy


@pytest.mark.parametrize(("job_id", "kind"), [(1, "parrot"), (2, "nonsense")])
def test_an_error_is_told_to_that_job(job_id: int, kind: str) -> None:
    worker = Worker(KINDS)
    worker.receive(job_id, Message("open", {"kind": kind}), 10)
    worker.receive(job_id, Message("raise"), 10)
    worker.receive(job_id, Message("say"), 10)
    while worker.busy:
        worker.step()
    assert sent(worker) == [(job_id, "failed")]
    assert worker.consumed_bytes == worker.received_bytes


def test_a_preload_reports_its_progress_and_its_end() -> None:
    worker = Worker(KINDS)
    worker.receive(WORKER, Message("learn", {"kind": "parrot", "key": "k", "fields": {}}), 10)
    worker.receive(WORKER, Message("refuse", {"kind": "parrot", "key": "k", "fields": {}}), 10)
    while worker.busy:
        worker.step()
    assert sent(worker) == [(WORKER, "loading"), (WORKER, "loaded"), (WORKER, "preload_failed")]


def test_a_providers_own_error_keeps_its_code() -> None:
    error = ProviderError("espeak", "bad_request", "no voice", retryable=False)
    assert failure(error).fields == {"code": "bad_request", "detail": "no voice", "retryable": False}


def learn(word: str, steps: int = 0) -> Message:
    return Message("learn", {"kind": "parrot", "key": word, "fields": {"word": word, "steps": steps}})


def test_what_is_loaded_while_jobs_run_has_one_turn_in_four() -> None:
    worker = open_jobs(1)
    worker.receive(1, Message("count", {"to": 6}), 10)
    worker.receive(WORKER, learn("hello", steps=3), 10)
    for _ in range(8):
        worker.step()
    assert [name for _, name in sent(worker)] == ["number"] * 3 + ["loading"] + ["number"] * 3 + ["loading"]
    while worker.busy:
        worker.step()
    assert sent(worker)[-1] == (WORKER, "loaded")


def test_a_job_that_is_opened_behind_a_preload_waits_for_it_and_has_it() -> None:
    worker = open_jobs(1)
    worker.receive(WORKER, learn("hello", steps=2), 10)
    worker.receive(2, Message("open", {"kind": "parrot"}), 10)
    worker.receive(2, Message("say"), 100)
    worker.receive(1, Message("say"), 10)
    assert worker.received_bytes - worker.consumed_bytes == 120, "what waits is not consumed"
    while worker.busy:
        worker.step()
    said = [(job, m.fields["learnt"]) for job, m, _ in Unpacker().receive(b"".join(worker.out)) if m.name == "said"]
    assert said == [(1, ""), (2, "hello")]
    assert worker.received_bytes == worker.consumed_bytes


def test_what_is_unloaded_is_gone_for_jobs_that_are_opened_behind_it() -> None:
    worker = Worker(KINDS)
    worker.receive(WORKER, learn("hello"), 10)
    worker.receive(WORKER, Message("unload", {"kind": "parrot", "name": "learn", "fields": {"word": "hello"}}), 10)
    worker.receive(1, Message("open", {"kind": "parrot"}), 10)
    worker.receive(1, Message("say"), 10)
    while worker.busy:
        worker.step()
    assert [m.fields["learnt"] for _, m, _ in Unpacker().receive(b"".join(worker.out)) if m.name == "said"] == [""]
