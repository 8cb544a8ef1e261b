from trunkline.testing.caller.sip import sdp
from trunkline.testing.caller.sip.dialog import Answered, Dialog, Effect, Ended, Via
from trunkline.testing.caller.sip.message import parse_uri
from trunkline.testing.caller.sip.setups import _Setup

ANSWERED = Answered(sdp.Session("192.0.2.2", 4444, "mulaw", 0))


def failure(*effects: Effect) -> str | None:
    dialog = Dialog(parse_uri("sip:a@192.0.2.2"), "b", Via("192.0.2.1", 5070), sdp.LocalMedia("192.0.2.1", 4000))
    setup = _Setup(dialog, 0.0, lambda setup: None, lambda: None)
    for effect in effects:
        setup.on_effect(effect, 1.0)
    return setup.failure


def test_a_set_up_has_failed_by_status_or_by_what_happened_instead() -> None:
    assert failure() == "never ended"
    assert failure(Ended("refused", 503, "Full")) == "503 Full"
    assert failure(Ended("lost", 0, "no answer to INVITE")) == "no answer to INVITE"
    assert failure(ANSWERED, Ended("caller", 0, "no answer to BYE")) == "BYE: 0 no answer to BYE"
    assert failure(ANSWERED, Ended("caller", 200)) is None
