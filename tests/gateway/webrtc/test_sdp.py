import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.webrtc import sdp
from trunkline.gateway.webrtc.sdp import Fingerprint, Ours, SdpError, read_offer, read_trickled, write_answer

PRINT = ":".join(["AB"] * 32)
CHROME = f"""v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 1f4712db-ea17-4bcf-a596-105139dfd8bf.local 54596 typ host generation 0
a=candidate:2 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active
a=candidate:3 1 udp 1677729535 198.51.100.7 61234 typ srflx raddr 0.0.0.0 rport 0
a=ice-ufrag:EsAw
a=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y
a=ice-options:trickle
a=fingerprint:sha-256 {PRINT}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:stream track
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:3735928559 cname:someone
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:EsAw
a=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y
a=fingerprint:sha-256 {PRINT}
a=setup:actpass
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
VIDEO = """m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:2
a=sendrecv
a=rtpmap:96 VP8/90000
"""
OURS = Ours("ufrg", "p" * 22, Fingerprint("sha-256", PRINT), ("1 1 udp 1 192.0.2.1 20000 typ host",), 42, 7)


def offer(text: str = CHROME, **replaced: str) -> sdp.Offer:
    return read_offer(text.encode())


def test_a_browsers_offer_is_read() -> None:
    read = offer()
    assert (read.opus, read.telephone_event, read.audio, read.events) == (111, 110, 0, 1)
    assert (read.ice_username, read.ice_password) == ("EsAw", "bP+XJMM09aR8AiX1jdukzR6Y")
    assert (read.sends, read.receives, read.setup, read.sctp_port) == (True, True, "active", 5000)
    assert read.fingerprints == (Fingerprint("sha-256", PRINT),)
    assert [c.split()[0] for c in read.candidates] == ["1", "3"]  # UDP alone
    assert not read.candidates_end


def test_crlf_and_session_level_attributes_count_as_well() -> None:
    lines = CHROME.replace("\n", "\r\n")
    assert offer(lines) == offer()
    top = CHROME.replace("a=ice-ufrag:EsAw\n", "").replace("a=group", "a=ice-ufrag:EsAw\na=group")
    assert offer(top).ice_username == "EsAw"


def test_the_answer_takes_opus_and_the_data_channel_over_one_transport() -> None:
    answer = write_answer(offer(), OURS)
    assert answer.startswith("v=0\r\n")
    assert answer.endswith("\r\n")
    assert "a=group:BUNDLE 0 1\r\n" in answer
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 111 110\r\n" in answer
    assert "a=rtpmap:111 opus/48000/2\r\n" in answer  # RFC 7587 7: always 2, whatever is sent
    assert "stereo=0" in answer
    assert answer.count("a=setup:active") == 2
    assert answer.count("a=candidate:1 1 udp 1 192.0.2.1 20000 typ host\r\n") == 2
    assert "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n" in answer
    assert "PCMU" not in answer


def test_other_sections_come_back_refused_in_their_place() -> None:
    answer = write_answer(offer(CHROME + VIDEO), OURS)
    assert [line.split()[:2] for line in answer.split("\r\n") if line.startswith("m=")] == [
        ["m=audio", "9"],
        ["m=application", "9"],
        ["m=video", "0"],
    ]
    assert "a=group:BUNDLE 0 1\r\n" in answer


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_a_direction_is_answered_by_its_opposite(theirs: str, ours: str) -> None:
    assert f"\r\na={ours}\r\n" in write_answer(offer(CHROME.replace("a=sendrecv", f"a={theirs}")), OURS)


def test_who_offers_to_be_the_client_finds_a_server() -> None:
    assert offer(CHROME.replace("setup:actpass", "setup:active")).setup == "passive"
    assert offer(CHROME.replace("setup:actpass", "setup:passive")).setup == "active"


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("", "malformed", "v=0"),
        ("hello", "malformed", "v=0"),
        ("v=0\nnonsense\n", "malformed", "line 2"),
        (CHROME[: CHROME.index("m=audio")], "no_audio", "m=audio"),
        (CHROME.replace("m=audio 9 UDP", "m=audio 0 UDP"), "no_audio", "m=audio"),
        (CHROME.replace("opus/48000/2", "speex/16000"), "no_codec", "Opus"),
        (CHROME.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "not_supported", "encrypted"),
        (CHROME.replace("a=rtcp-mux\n", ""), "not_supported", "rtcp-mux"),
        (CHROME.replace("EsAw", "x"), "malformed", "ice-ufrag"),
        (CHROME.replace("bP+XJMM09aR8AiX1jdukzR6Y", "short"), "malformed", "ice-pwd"),
        (CHROME.replace(PRINT, "AB:CD"), "malformed", "fingerprint"),
        (CHROME.replace("sha-256", "md5"), "malformed", "fingerprint"),
        (CHROME.replace("setup:actpass", "setup:holdconn"), "malformed", "setup"),
        (CHROME.replace("a=mid:1", "a=mid:0"), "malformed", "one mid"),
        (CHROME.replace("54596 typ host", "99999 typ host"), "malformed", "candidate"),
        (CHROME.replace("sctp-port:5000", "sctp-port:x"), "malformed", "sctp-port"),
        (CHROME.replace("m=audio 9", "m=audio nine"), "malformed", "m="),
        (CHROME + VIDEO * 8, "too_large", "sections"),
        (CHROME + "a=x:y\n" * 1001, "too_large", "lines"),
        (CHROME + "a=" + "x" * sdp.MAX_BYTES, "too_large", "bytes"),
    ],
)
def test_what_cannot_be_is_said(text: str, code: str, why: str) -> None:
    with pytest.raises(SdpError, match=why) as caught:
        offer(text)
    assert caught.value.code == code


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for read in (read_offer, read_trickled):
        try:
            read(body)
        except SdpError:
            pass


@given(st.integers(0, len(CHROME.splitlines()) - 1), st.text(max_size=40))
def test_nor_does_an_offer_with_one_line_changed(at: int, line: str) -> None:
    lines = CHROME.splitlines()
    lines[at] = line
    try:
        answer = write_answer(read_offer("\n".join(lines).encode("utf-8", "surrogatepass")), OURS)
    except SdpError:
        return
    assert all(len(part) > 2 and part[1] == "=" for part in answer.split("\r\n")[:-1])


def test_a_fragment_tells_candidates_and_whose_they_are() -> None:
    body = (
        b"a=ice-ufrag:EsAw\r\na=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        b"a=candidate:1 1 udp 2 192.0.2.9 5000 typ host\r\na=end-of-candidates\r\n"
    )
    read = read_trickled(body)
    assert (read.ice_username, read.candidates, read.end) == ("EsAw", ("1 1 udp 2 192.0.2.9 5000 typ host",), True)
