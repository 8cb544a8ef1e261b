"""Digits that come as tones in the audio, on a trunk that says so."""

from typing import Any

import pytest

from trunkline.media.dtmf import tones
from trunkline.types import MULAW_8K

pytestmark = pytest.mark.e2e

CALL = """
> INVITE sdp
<? 100
<? 180
< 200
> ACK 2xx
< BYE
> 200 plain
"""


def test_tones_over_rtp_choose_from_the_menu_and_events_beside_them_do_not(
    sip_gateway: Any, sipp: Any, phone: Any
) -> None:
    gateway = sip_gateway(
        agent=None,
        sip__trunks__old__peers="127.0.0.1/32",
        sip__trunks__old__dtmf_in="inband",
        sip__trunks__old__ping_s="0",
    )
    run = sipp.call(gateway, CALL, phone)
    phone.until(lambda: phone.loud() > 40)

    def turns() -> list[Any]:
        return list(gateway.get(f"/v1/calls/{gateway.calls()[0]['id']}")["turns"])

    phone.key("3")  # RFC 4733
    phone.say(tones("2", MULAW_8K))
    gateway.until(lambda: len(turns()) > 1 and "one by one" in turns()[-1]["agent_text"], 15)
    phone.say(tones("4711", MULAW_8K))
    gateway.until(lambda: any(turn["caller_text"] == "4711" for turn in turns()), 15)
    run.kill()
    assert [turn["caller_text"] for turn in turns() if turn["keyed"]] == ["2", "4711"]
    gateway.is_well()
