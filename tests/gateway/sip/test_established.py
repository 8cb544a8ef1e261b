"""What a call takes of PJSIP's events for its farewell: on events of the shape that pjsua2 gives."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.gateway.sip.test_farewell import ACK, ANSWER, INVITE
from trunkline.gateway.sip.established import of_ours, of_theirs
from trunkline.gateway.sip.farewell import Farewell

pj = pytest.importorskip("pjsua2")


def call(**has: Any) -> Any:
    from trunkline.gateway.sip.pjsip.call import PjsipCall

    posted: list[Any] = []
    made = SimpleNamespace(
        handle=1, invite="", outbound=False, farewell=None, stack=SimpleNamespace(post=posted.append), posted=posted
    )
    info = SimpleNamespace(state=pj.PJSIP_INV_STATE_CONFIRMED, remoteContact="<sip:ann@198.51.100.9>")
    made.getInfo = lambda: info
    made.say_dialled = lambda: None
    for name in ("_state", "_transaction", "_established", "_refresh"):
        setattr(made, name, getattr(PjsipCall, name).__get__(made))
    vars(made).update(has)
    return made


def received(text: str) -> Any:
    return SimpleNamespace(rdata=SimpleNamespace(wholeMsg=text))


def test_a_call_that_came_has_its_farewell_with_the_ack_and_follows_its_far_end() -> None:
    came = call(invite=INVITE)
    event = SimpleNamespace(type=pj.PJSIP_EVENT_RX_MSG, body=SimpleNamespace(rxMsg=received(ACK)))
    came._state(SimpleNamespace(e=event))
    assert came.farewell == of_theirs(INVITE, ACK)
    assert len(came.posted) == 1
    came._refresh()
    assert cast(Farewell, came.farewell).target == "sip:ann@198.51.100.9"


def test_a_call_of_ours_has_it_with_the_answer() -> None:
    goes = call(outbound=True, _opening=True)
    transaction = SimpleNamespace(
        role=pj.PJSIP_ROLE_UAC, state=pj.PJSIP_TSX_STATE_TERMINATED, method="INVITE", statusCode=200, statusText="OK"
    )
    goes._transaction(
        SimpleNamespace(
            tsx=transaction,
            type=pj.PJSIP_EVENT_RX_MSG,
            prevState=pj.PJSIP_TSX_STATE_PROCEEDING,
            src=received(ANSWER),
        )
    )
    assert goes.farewell == of_ours(ANSWER)
    assert goes._opening is False


def test_what_cannot_be_read_is_no_farewell_and_the_call_goes_on() -> None:
    came = call(invite=INVITE)
    event = SimpleNamespace(type=pj.PJSIP_EVENT_RX_MSG, body=SimpleNamespace(rxMsg=received("rubbish")))
    came._state(SimpleNamespace(e=event))
    assert (came.farewell, len(came.posted)) == (None, 1)
