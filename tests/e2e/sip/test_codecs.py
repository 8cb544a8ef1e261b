"""The codecs of a trunk, as its far end sees them in our SDP. sipp is on both sides."""

import re
from typing import Any

import pytest

from trunkline.testing.ports import lease

pytestmark = pytest.mark.e2e

SEEN = "< INVITE\n> 100\n> 486\n< ACK"
CALLS = "> INVITE sdp={}\n<? 100\n<? 180\n"
TALKS = "< 200\n> ACK 2xx\n. 1000\n> BYE\n< 200\n"


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: lease() for name in ("all", "strict", "own")}


@pytest.fixture(scope="module")
def gateway(shared_sip_gateway: Any, ports: dict[str, int]) -> Any:
    return shared_sip_gateway(
        outbound__allow="US",
        sip__trunks__all__host=f"127.0.0.1:{ports['all']}",
        sip__trunks__all__peers="127.0.0.2/32",
        sip__trunks__all__media_peers="127.0.0.1/32",
        sip__trunks__all__ping_s="0",
        sip__trunks__strict__host=f"127.0.0.1:{ports['strict']}",
        sip__trunks__strict__profile="strict",
        sip__trunks__strict__ping_s="0",
        sip__trunks__own__host=f"127.0.0.1:{ports['own']}",
        sip__trunks__own__codecs="g722,pcma",
        sip__trunks__own__peers="127.0.0.1/32",
        sip__trunks__own__ping_s="0",
    )


def offered(text: str) -> list[str]:
    """The names on the m= line, in its order."""
    names = dict(re.findall(r"^a=rtpmap:(\d+) ([\w-]+/\d+)", text, re.M))
    listed = re.findall(r"^m=audio \d+ RTP/AVP (.*?)\s*$", text, re.M)
    assert len(listed) == 1, text
    formats = listed[0].split()
    assert set(names) == set(formats), "maps of formats that are not offered"
    assert set(re.findall(r"^a=fmtp:(\d+)", text, re.M)) <= set(formats)
    return [names[one] for one in formats]


@pytest.mark.parametrize(
    ("trunk", "codecs"),
    [
        ("all", ["PCMU/8000", "PCMA/8000", "G722/8000", "opus/48000", "telephone-event/8000", "telephone-event/48000"]),
        ("strict", ["PCMU/8000", "PCMA/8000", "telephone-event/8000"]),
        ("own", ["G722/8000", "PCMA/8000", "telephone-event/8000"]),
    ],
)
def test_a_trunk_is_offered_its_codecs_in_its_order(
    gateway: Any, sipp: Any, ports: dict[str, int], trunk: str, codecs: list[str]
) -> None:
    far = sipp.answer(ports[trunk], SEEN)
    assert gateway.dial(trunk=trunk).status_code == 201
    far.ok()
    seen = offered(far.got("INVITE").text)
    assert sorted(seen) == sorted(codecs)
    voices = [one for one in seen if "event" not in one]
    assert voices == [one for one in codecs if "event" not in one]


def test_a_caller_is_answered_with_a_codec_of_their_trunk(gateway: Any, sipp: Any, phone: Any) -> None:
    phone.payload_type = 8
    run = sipp.call(gateway, CALLS.format("pcma") + TALKS, phone).ok()
    assert offered(run.got("SIP/2.0 200").text)[0] == "PCMA/8000"
    record = gateway.ended(run.messages()[0].header("Call-ID"))
    assert record.event("sip_audio")["codec"] == "PCMA/8000"


def test_a_caller_without_a_codec_of_their_trunk_is_refused(gateway: Any, sipp: Any, phone: Any) -> None:
    """It is one of the gateway's."""
    sipp.call(gateway, CALLS.format("pcmu") + "< 488\n> ACK", phone).ok()
    sipp.call(gateway, CALLS.format("pcmu") + TALKS, phone, host="127.0.0.2").ok()
    gateway.is_well()
