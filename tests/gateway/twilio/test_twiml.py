from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.twilio import twiml

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def test_a_stream_carries_its_token_as_a_parameter() -> None:
    text = twiml.connect_stream(
        "wss://v.example.com/twilio/media", "t", {"a": "b"}, action_url="https://v/x?n=0", status_callback="https://v/s"
    )
    assert text == (
        f'{HEAD}<Response><Connect action="https://v/x?n=0" method="POST">'
        '<Stream url="wss://v.example.com/twilio/media" statusCallback="https://v/s" statusCallbackMethod="POST">'
        '<Parameter name="token" value="t" /><Parameter name="a" value="b" /></Stream></Connect></Response>'
    )


def test_a_parameter_too_long_for_twilio_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="token is too long"):
        twiml.connect_stream("wss://v", "t" * 495, {}, action_url="", status_callback="")


def test_the_short_documents() -> None:
    assert twiml.hangup() == f"{HEAD}<Response><Hangup /></Response>"
    assert twiml.reject() == f'{HEAD}<Response><Reject reason="rejected" /></Response>'
    assert twiml.reject(busy=True) == f'{HEAD}<Response><Reject reason="busy" /></Response>'
    assert twiml.redirect("https://v/x") == f'{HEAD}<Response><Redirect method="POST">https://v/x</Redirect></Response>'
    assert twiml.dial("+14155550100", action_url="https://v/d", say="One moment.") == (
        f"{HEAD}<Response><Say>One moment.</Say>"
        '<Dial action="https://v/d" method="POST" timeout="25" timeLimit="14400">'
        "<Number>+14155550100</Number></Dial></Response>"
    )


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")))
def test_any_text_is_said_as_it_is(text: str) -> None:
    document = ElementTree.fromstring(twiml.say_and_hangup(text).encode())
    assert (document.findtext("Say") or "") == text
    assert [element.tag for element in document] == ["Say", "Hangup"]


@pytest.mark.parametrize("char", ["\0", "\x1b", "\ud800", "\uffff"])
def test_characters_that_xml_has_not_are_left_out(char: str) -> None:
    assert "<Say>ab</Say>" in twiml.say_and_hangup(f"a{char}b")
    assert 'url="wss://v"' in twiml.connect_stream(f"wss://{char}v", "t", {}, action_url="", status_callback="")


def test_markup_in_a_text_stays_text() -> None:
    assert "<Say>&lt;Dial&gt; &amp; co</Say>" in twiml.say_and_hangup("<Dial> & co")
