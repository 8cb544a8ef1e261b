from trunkline.testing.caller.sip.call import rtp_figures
from trunkline.testing.caller.sip.rtp import Packet, Receiver


def receiver(*at_ms: float, first: int = 0) -> Receiver:
    made = Receiver()
    for i, at in enumerate(at_ms):
        made.seen(Packet(0, False, first + i, i * 160, 1, b""), at / 1000)
    return made


def test_the_figures_of_several_streams_are_one_spread() -> None:
    figures = rtp_figures([receiver(0, 20, 40), receiver(0, 30)])
    assert (figures["packets"], figures["lost"]) == (5, 0)
    assert figures["interval_ms"]["n"] == 3
    assert round(figures["interval_ms"]["p50"]) == 20
    assert round(figures["interval_ms"]["max"]) == 30


def test_a_window_leaves_out_the_intervals_before_it() -> None:
    figures = rtp_figures([receiver(0, 90, 110), receiver(0, 90)], [1, 1])
    assert (figures["interval_ms"]["n"], round(figures["interval_ms"]["max"])) == (1, 20)


def test_without_packets_there_is_no_spread() -> None:
    assert rtp_figures([])["interval_ms"] is None
    assert rtp_figures([receiver(5)])["interval_ms"] is None


def test_a_stream_may_go_on_after_its_figures_were_taken() -> None:
    stream = receiver(0, 20)
    rtp_figures([stream])
    stream.seen(Packet(0, False, 2, 320, 1, b""), 0.04)
    assert len(stream.intervals_ms) == 2
