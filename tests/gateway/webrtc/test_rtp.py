import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.webrtc import rtp
from trunkline.gateway.webrtc.rtp import Bye, Fared, Keys, Packet, Reception, SenderTime, after, read, read_rtcp


def test_a_packet_is_written_and_read() -> None:
    data = rtp.write(111, 65535, 1 << 31, 7, b"opus", marker=True)
    assert read(data) == Packet(111, True, 65535, 1 << 31, 7, b"opus")


def test_extensions_sources_and_padding_are_no_audio() -> None:
    head = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 111, 1, 2, 3) + b"csrc" + b"\xbe\xde\x00\x01" + b"ext."
    packet = read(head + b"opus" + b"\0\0\x03")
    assert packet is not None
    assert packet.payload == b"opus"


@given(st.binary(max_size=60))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    read(data)
    read_rtcp(data)


def test_sequence_numbers_wrap() -> None:
    assert after(0, 65535) == 1
    assert after(65535, 0) == -1
    assert after(5, 5) == 0


def test_a_digit_of_many_packets_counts_once() -> None:
    keys = Keys()
    packets = [Packet(110, False, n, 4800, 1, bytes((11, 0x80 if n == 3 else 0, 0, 160))) for n in range(4)]
    assert [keys.read(p) for p in packets] == ["#", None, None, None]
    assert keys.read(Packet(110, False, 9, 9600, 1, bytes((1, 0, 0, 160)))) == "1"
    assert keys.read(Packet(110, False, 9, 14400, 1, bytes((16, 0, 0, 160)))) is None  # a flash


def test_our_report_is_read_by_its_own_rules() -> None:
    reception = Reception(7, 100, 100)
    for sequence in (101, 103, 104):  # 102 is missing
        reception.heard(sequence, sequence * 960, sequence * 0.02)
    report = rtp.report(42, (1000.5, 960, 10, 400), reception.block(0x11112222, 0.5))
    time, fared = read_rtcp(report)
    assert time == SenderTime(42, ((1000 + 2_208_988_800) & 0xFFFF) << 16 | 0x8000)
    assert isinstance(fared, Fared)
    assert fared.lost == 1
    assert fared.lost_share == pytest.approx(0.2, abs=0.01)
    assert len(report) % 4 == 0


def test_jitter_is_that_of_rfc_3550() -> None:
    reception = Reception(7, 0, 0)
    for n in range(1, 400):
        reception.heard(n, n * 960, n * 0.02 + (0.01 if n % 2 else 0.0))
    assert reception.jitter / 48 == pytest.approx(10.0, abs=0.5)


def test_who_has_sent_nothing_only_reports() -> None:
    kinds = read_rtcp(rtp.report(42, None, Reception(7, 1, 1).block(0, 0)))
    assert [type(kind) for kind in kinds] == [Fared]
    assert Bye() in read_rtcp(rtp.goodbye(42))


def test_the_round_trip_is_that_of_rfc_3550() -> None:
    wall = 1_764_000_000.25
    ours = int((wall + 2_208_988_800) * 65536) & 0xFFFFFFFF
    assert Fared(0.0, 0, 0.0, ours, 65536).round_trip_ms(wall + 1.08) == pytest.approx(80, abs=0.1)
    assert Fared(0.0, 0, 0.0, 0, 0).round_trip_ms(wall) is None  # they have none of ours
    assert Fared(0.0, 0, 0.0, ours, 65536).round_trip_ms(wall + 0.5) is None  # held longer than it took
    [fared] = read_rtcp(rtp.report(42, None, Reception(7, 1, 1).block(ours, 1.0)))
    assert isinstance(fared, Fared)
    assert (fared.last_sr, fared.held) == (ours, 65536)
