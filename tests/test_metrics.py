from typing import get_args

from prometheus_client.parser import text_string_to_metric_families

from trunkline.metrics import Drop, Metrics, Stage
from trunkline.ports import EndReason, TurnRecord


def samples(metrics: Metrics) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_every_label_is_there_from_the_start() -> None:
    found = samples(Metrics())
    assert all(found[f"trunkline_calls_total {reason}"] == 0 for reason in get_args(EndReason))
    assert all(found[f"trunkline_drops_total {cause}"] == 0 for cause in get_args(Drop))
    assert all(found[f"trunkline_stage_latency_seconds_count {stage}"] == 0 for stage in get_args(Stage))
    assert found["process_resident_memory_bytes"] > 0


def test_calls_drops_sockets_and_jobs_are_counted() -> None:
    metrics = Metrics()
    metrics.live_calls(3)
    metrics.call_ended("media_lost")
    metrics.drop("late", 5)
    metrics.socket_opened()
    metrics.socket_opened()
    metrics.speech_job("overloaded")
    metrics.overheard("heard", 3)
    metrics.speech_queue(4)
    metrics.tasks(6)
    metrics.slots_free(316)
    metrics.spool_backlog(9)
    metrics.store_error()
    metrics.beat(0.0015, 0.003)
    found = samples(metrics)
    assert found["trunkline_calls_live"] == 3
    assert found["trunkline_calls_total media_lost"] == 1
    assert found["trunkline_drops_total late"] == 5
    assert (found["trunkline_ws_open"], found["trunkline_speech_queue"]) == (2, 4)
    assert (found["trunkline_tasks"], found["trunkline_ears_slots_free"]) == (6, 316)
    assert found["trunkline_speech_jobs_total overloaded"] == 1
    assert (found["trunkline_overheard_total heard"], found["trunkline_overheard_total missed"]) == (3, 0)
    assert (found["trunkline_spool_backlog"], found["trunkline_store_errors_total"]) == (9, 1)
    assert (found["trunkline_tick_lateness_seconds_sum"], found["trunkline_beat_duration_seconds_sum"]) == (
        0.0015,
        0.003,
    )


def test_a_turn_fills_the_stages_it_had() -> None:
    metrics = Metrics()
    metrics.turn(TurnRecord(0, "a", "b", endpointing_ms=200, total_ms=620))
    metrics.stage("barge_in", 60)
    found = samples(metrics)
    counts = {stage: found[f"trunkline_stage_latency_seconds_count {stage}"] for stage in get_args(Stage)}
    assert counts == {"endpointing": 1, "stt": 0, "llm": 0, "tts": 0, "total": 1, "barge_in": 1}
    assert found["trunkline_stage_latency_seconds_sum total"] == 0.62


def test_a_peer_cannot_invent_labels() -> None:
    metrics = Metrics()
    for code in (1000, 4711, 4712):
        metrics.ws_closed(code)
    found = samples(metrics)
    assert (found["trunkline_ws_closes_total 1000"], found["trunkline_ws_closes_total other"]) == (1, 2)
    assert not any("471" in name for name in found)


def test_a_refusal_that_has_no_name_of_its_own_is_another_one() -> None:
    metrics = Metrics()
    for code in ("no_codec", "a rule of the house"):
        metrics.webrtc_offer(code)
    found = samples(metrics)
    assert found["trunkline_webrtc_offers_total no_codec"] == found["trunkline_webrtc_offers_total other"] == 1


def test_two_gateways_in_a_process_do_not_meet() -> None:
    one, two = Metrics(), Metrics()
    one.call_ended("busy")
    assert samples(two)["trunkline_calls_total busy"] == 0
