import pytest

from trunkline.errors import PeerError
from trunkline.media.g711 import Law
from trunkline.testing.caller.sip.sdp import LocalMedia, Session, parse

BOTH: tuple[Law, ...] = ("mulaw", "alaw")


def sdp(*media: str, session: str = "c=IN IP4 192.0.2.1") -> bytes:
    return "\r\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", session, "t=0 0", *media, ""]).encode()


def test_what_we_offer_is_what_we_read() -> None:
    offer = LocalMedia("127.0.0.1", 4000).offer()
    assert parse(offer, BOTH) == Session("127.0.0.1", 4000, "mulaw", 0, 101)
    assert parse(offer, ["alaw"]) == Session("127.0.0.1", 4000, "alaw", 8, 101)


def test_the_far_ends_order_of_codecs_and_numbers_count() -> None:
    body = sdp(
        "m=audio 5004/1 RTP/AVP 111 97 0",
        "c=IN IP4 192.0.2.9/127",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:97 PCMA/8000/1",
        "a=rtpmap:120 telephone-event/8000",
        "a=sendonly",
        "m=video 6000 RTP/AVP 0",
        "a=recvonly",
    )
    assert parse(body, ["mulaw", "alaw"]) == Session("192.0.2.9", 5004, "alaw", 97, None, "sendonly")


@pytest.mark.parametrize(
    ("theirs", "ours"), [("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")]
)
def test_a_direction_is_answered_by_its_counterpart(theirs: str, ours: str) -> None:
    offered = parse(sdp("m=audio 5004 RTP/AVP 0 96", "a=rtpmap:96 telephone-event/8000", f"a={theirs}"), ["mulaw"])
    answer = LocalMedia("127.0.0.1", 4000).answer(offered).decode()
    assert f"a={ours}\r\n" in answer
    assert "m=audio 4000 RTP/AVP 0 96\r\n" in answer
    assert parse(answer.encode(), ["mulaw"]).direction == ours


@pytest.mark.parametrize(
    ("session", "wants"),
    [
        (Session("192.0.2.1", 5004, "mulaw", 0), True),
        (Session("192.0.2.1", 5004, "mulaw", 0, direction="sendonly"), False),
        (Session("192.0.2.1", 0, "mulaw", 0), False),
        (Session("0.0.0.0", 5004, "mulaw", 0), False),  # the hold of RFC 2543
    ],
)
def test_a_held_stream_wants_no_audio(session: Session, wants: bool) -> None:
    assert session.wants_ours is wants


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        sdp(),
        sdp("m=video 5004 RTP/AVP 0"),
        sdp("m=audio x RTP/AVP 0"),
        sdp("m=audio 5004"),
        sdp("m=audio 5004 RTP/SAVP 0"),
        sdp("m=audio 5004 RTP/AVP 18"),
        sdp("m=audio 5004 RTP/AVP 0", session="i=no address"),
    ],
)
def test_what_we_cannot_speak_is_refused(body: bytes) -> None:
    with pytest.raises(PeerError):
        parse(body, BOTH)
