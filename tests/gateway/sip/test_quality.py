import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.sip import quality as q
from trunkline.gateway.sip.quality import MediaReport

FINE = MediaReport("PCMU/8000", in_packets=1000, out_packets=1000, out_lost=0, out_jitter_ms=1.0, rtt_ms=20.0)


def score(**changes: object) -> float:
    found = q.mos(MediaReport(**{"codec": "PCMU/8000", "in_packets": 1000, **changes}))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_call_without_loss_and_delay_is_as_good_as_a_telephone_gets() -> None:
    assert score() == pytest.approx(4.41, abs=0.005)


@pytest.mark.parametrize(("r", "mos"), [(-5, 1.0), (0, 1.0), (6, 1.0), (50, 2.58), (70, 3.60), (90, 4.34), (120, 4.5)])
def test_the_score_follows_annex_b(r: float, mos: float) -> None:
    assert q.mos_of(r) == pytest.approx(mos, abs=0.005)


@pytest.mark.parametrize(("delay_ms", "impairment"), [(0, 0), (100, 0), (150, 0.6), (200, 3.0), (400, 24.0)])
def test_delay_costs_little_up_to_150_ms_and_much_beyond(delay_ms: float, impairment: float) -> None:
    assert q.delay_impairment(delay_ms) == pytest.approx(impairment, abs=0.7)


def test_one_percent_of_loss_with_concealment_costs_about_3_6_of_r() -> None:
    assert q.loss_impairment(q.Robustness(0, 25.1), 1) == pytest.approx(95 / 26.1)
    assert q.loss_impairment(q.Robustness(13, 4.9), 0) == 13


def test_what_came_too_late_was_lost_as_well() -> None:
    lost = MediaReport("PCMU", in_packets=900, in_lost=100)
    late = MediaReport("PCMU", in_packets=1000, in_discarded=100)
    assert q.loss_in(lost) == q.loss_in(late) == 0.1
    assert q.mos(lost) == q.mos(late)


def test_duplicates_do_not_make_a_call_better_than_whole() -> None:
    assert q.loss_in(MediaReport("PCMU", in_packets=1000, in_lost=-5)) == 0
    assert score(in_lost=-5) == score()
    assert q.loss_in(MediaReport("PCMU", in_packets=10, in_discarded=50)) == 1


def test_nothing_received_has_no_score() -> None:
    silent = MediaReport("PCMU", out_packets=50)
    assert q.mos(silent) is q.mos_out(silent) is None


def test_the_far_ends_ears_are_known_by_rtcp_only() -> None:
    assert q.mos_out(FINE) == pytest.approx(4.41, abs=0.005)
    worse = q.mos_out(MediaReport("PCMU", in_packets=1000, out_packets=1000, out_lost=100))
    assert worse is not None
    assert worse == pytest.approx(3.41, abs=0.01)


def test_the_record_is_json_and_what_is_unknown_is_null() -> None:
    record = q.as_record(MediaReport("opus/48000/2", srtp=True, in_packets=99, in_lost=1, in_jitter_ms=float("nan")))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["in_loss_percent"], record["in_jitter_ms"], record["rtt_ms"], record["mos_out"]) == (
        1.0,
        None,
        None,
        None,
    )
    assert record["mos"] == pytest.approx(4.31, abs=0.05)


counts = st.integers(-(2**31), 2**31)
times = st.floats(allow_nan=True, allow_infinity=True)


@given(st.text(), counts, counts, counts, counts, counts, times, times, times)
def test_any_report_has_a_score_from_1_to_4_5_or_none(
    codec: str, packets: int, lost: int, late: int, out: int, out_lost: int, jitter: float, rtt: float, buffer: float
) -> None:
    report = MediaReport(codec, False, packets, lost, late, jitter, out, out_lost, jitter, rtt, buffer)
    for found in (q.mos(report), q.mos_out(report)):
        assert found is None or 1.0 <= found <= 4.5
    json.dumps(q.as_record(report), allow_nan=False)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 2000), st.floats(0, 2000))
def test_more_loss_and_more_delay_never_sound_better(loss: float, more: float, delay: float, later: float) -> None:
    codec = q.Robustness(0, 25.1)
    assert q.loss_impairment(codec, loss + more) >= q.loss_impairment(codec, loss)
    assert q.delay_impairment(delay + later) >= q.delay_impairment(delay) - 1e-9
