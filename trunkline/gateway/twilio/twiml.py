"""TwiML documents as text. https://www.twilio.com/docs/voice/twiml"""

import re
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

MAX_PARAMETER_CHARS = 500  # <Parameter>: name and value together stay under it
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def connect_stream(
    url: str, token: str, parameters: Mapping[str, str], *, action_url: str, status_callback: str, say: str = ""
) -> str:
    """A bidirectional stream. When it ends, Twilio asks `action_url` what to do with the caller."""
    response = _response()
    if say:
        _add(response, "Say", text=say)
    connect = _add(response, "Connect", action=action_url, method="POST")
    stream = _add(connect, "Stream", url=url, statusCallback=status_callback, statusCallbackMethod="POST")
    for name, value in {"token": token, **parameters}.items():
        if len(name) + len(value) >= MAX_PARAMETER_CHARS:
            raise ValueError(f"stream parameter {name} is too long for Twilio")
        _add(stream, "Parameter", name=name, value=value)
    return _text(response)


def dial(
    number: str,
    *,
    action_url: str,
    timeout_s: int = 25,
    time_limit_s: int = 14_400,
    caller_id: str = "",
    say: str = "",
) -> str:
    """Twilio hangs up by itself after `time_limit_s`, whatever becomes of us; `action_url` hears how it went. Without
    `caller_id` it shows the number of whoever is put through."""
    response = _response()
    if say:
        _add(response, "Say", text=say)
    dialled = _add(
        response, "Dial", action=action_url, method="POST", timeout=str(timeout_s), timeLimit=str(time_limit_s)
    )
    if caller_id:
        dialled.set("callerId", caller_id)
    _add(dialled, "Number", text=number)
    return _text(response)


def hold(say: Sequence[str], music_url: str, pause_s: int, *, next_url: str, keys: bool = False) -> str:
    """Words, then a piece of music or `pause_s` of silence, then `next_url` is asked. `keys`: of the first key pressed
    meanwhile it is told at once, as `Digits`."""
    response = _response()
    parent = response
    if keys:
        parent = _add(response, "Gather", input="dtmf", numDigits="1", timeout="1", action=next_url, method="POST")
    for text in say:
        _add(parent, "Say", text=text)
    if pause_s:
        _add(parent, "Pause", length=str(pause_s))
    else:
        _add(parent, "Play", text=music_url)
    _add(response, "Redirect", text=next_url, method="POST")
    return _text(response)


def say_and_hangup(text: str) -> str:
    response = _response()
    _add(response, "Say", text=text)
    _add(response, "Hangup")
    return _text(response)


def hangup() -> str:
    response = _response()
    _add(response, "Hangup")
    return _text(response)


def reject(*, busy: bool = False) -> str:
    """Not answered, so not charged. Only as the first answer to a call."""
    response = _response()
    _add(response, "Reject", reason="busy" if busy else "rejected")
    return _text(response)


def redirect(url: str) -> str:
    response = _response()
    _add(response, "Redirect", text=url, method="POST")
    return _text(response)


def _response() -> Element:
    return Element("Response")


def _add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, {name: _NOT_XML.sub("", value) for name, value in attributes.items()})
    element.text = _NOT_XML.sub("", text) or None
    return element


def _text(response: Element) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>' + tostring(response, encoding="unicode")
