import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.logs import JsonLine, Line, catch_strays, configure, mask, mask_number

LOGGERS = ("", "trunkline", "uvicorn", "uvicorn.error", "uvicorn.access")


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    before = [(logging.getLogger(n), logging.getLogger(n).handlers[:], logging.getLogger(n).level) for n in LOGGERS]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def written(format: Literal["json", "text"], level: Literal["debug", "info"] = "info", *secrets: str) -> io.StringIO:
    stream = io.StringIO()
    configure(level, format, secrets, stream)
    return stream


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("from +14155551234 now", "from +1•••••1234 now"),
        ("+442071838750", "+4•••••8750"),
        ("+2562533", "+2•••••33"),
        ("%2B14155551234", "+1•••••1234"),
        ("+1 (415) 555-1234.", "+1•••••1234."),
        ("From=4155551234&To=%2B18005550199", "From=•••••1234&To=+1•••••0199"),
        ('"from_number": "4155551234"', '"from_number": "•••••1234"'),
        ("sip:14155551234@example.com", "sip:•••••1234@example.com"),
        ("sip:+14155551234@example.com", "sip:+1•••••1234@example.com"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer (hidden)"),
        ("x-api-key=abcdef", "x-api-key=(hidden)"),
        ("token " + "a" * 30 + "." + "b" * 43, "token (hidden)"),
    ],
)
def test_what_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "CA" + "0" * 32,
        "at 2026-11-22T15:00:00.123Z",
        "48000 frames, 1234567 bytes",
        "seq=41 20ms",
        "+1",
        "127.0.0.1:8080",
    ],
)
def test_what_is_not(text: str) -> None:
    assert mask(text) == text


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True), st.text(max_size=20), st.text(max_size=20))
def test_no_number_stays_whole(number: str, before: str, after: str) -> None:
    masked = mask(f"{before} {number} {after}")
    assert number not in masked
    assert number[1:] not in mask_number(number)


@pytest.mark.parametrize("format", ["json", "text"])
def test_numbers_and_secrets_vanish_from_message_fields_and_traceback(format: Literal["json", "text"]) -> None:
    stream = written(format, "info", "hunter22", 'quo"ted-secret')
    try:
        raise ValueError("no route to +14155551234 with hunter22")
    except ValueError:
        logging.getLogger("trunkline.x").exception(
            "call from %s", "+14155551235", extra={"to": "+14155551236", "key": 'quo"ted-secret'}
        )
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "ValueError" in line
    for hidden in ("415555", "hunter22", "ted-secret"):
        assert hidden not in line
    for number in ("1234", "1235", "1236"):
        assert f"+1•••••{number}" in line


@pytest.mark.parametrize(
    "said",
    [
        "forty-one eleven eleven eleven eleven eleven eleven eleven",
        "4111 then 1111 uh 1111 and then 1111",
        "einundvierzig elf elf elf elf elf elf elf",
        "4111-1111-1111-1111",
    ],
)
def test_a_card_that_an_error_quotes_is_in_no_line(said: str) -> None:
    stream = written("text", "debug")
    try:
        raise ValueError(f"cannot speak {said!r}")
    except ValueError:
        logging.getLogger("trunkline.x").exception("the voice: %s", said, extra={"text": said})
    line = stream.getvalue()
    assert line.count("[card]") >= 3
    assert said not in line
    assert "1111" not in line


def test_a_line_that_cannot_be_made_does_not_show_what_it_was_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    stream = written("text")
    logging.getLogger("trunkline.x").warning("%d digits", "4111111111111111")
    assert stream.getvalue().startswith("a log line of trunkline.x (test_logs.py:")
    assert "TypeError" in stream.getvalue()
    assert "1111" not in stream.getvalue() + capsys.readouterr().err


def test_what_python_says_last_is_a_line_too() -> None:
    stream = written("text")
    before = threading.excepthook, sys.unraisablehook, sys.excepthook
    catch_strays()
    try:
        error = ValueError("for +14155551234 with 4111 1111 1111 1111")
        threading.excepthook(threading.ExceptHookArgs((ValueError, error, None, threading.current_thread())))
        sys.unraisablehook(SimpleNamespace(exc_type=ValueError, exc_value=error, exc_traceback=None))  # type: ignore[arg-type]
        sys.excepthook(ValueError, error, None)
    finally:
        threading.excepthook, sys.unraisablehook, sys.excepthook = before
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert not [line for line in lines if "1111" in line or "415555" in line or "[card]" not in line]


def test_a_json_line_is_an_object() -> None:
    stream = written("json")
    logging.getLogger("trunkline.x").warning("a\nb", extra={"call": "c1", "level": "not mine"})
    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {"level": "warning", "logger": "trunkline.x", "message": "a\nb", "call": "c1"}


def test_a_text_line_ends_with_the_fields() -> None:
    stream = written("text")
    logging.getLogger("trunkline.x").info("ended", extra={"call": "c1", "turns": 3})
    assert stream.getvalue().endswith(" INFO    trunkline.x: ended call=c1 turns=3\n")


@pytest.mark.parametrize("formatter", [Line(), JsonLine()])
def test_one_event_is_one_line_whatever_a_peer_sends(formatter: Line) -> None:
    record = logging.makeLogRecord({"msg": "a\r\nERROR forged \x1b[31m \x85 \u2028", "levelname": "INFO"})
    assert len(formatter.format(record).splitlines()) == 1
    assert "\x1b" not in formatter.format(record)


@pytest.mark.parametrize(("level", "seen"), [("info", False), ("debug", True)])
def test_the_access_log_is_for_debugging(level: Literal["debug", "info"], seen: bool) -> None:
    logging.getLogger("uvicorn.access").addHandler(logging.StreamHandler(io.StringIO()))
    stream = written("text", level)
    logging.getLogger("uvicorn.access").info("GET /twilio/voice?From=%s", "%2B14155551234")
    assert ("GET /twilio/voice" in stream.getvalue()) == seen
    assert "415555" not in stream.getvalue()


def test_uvicorn_speaks_through_us_and_others_only_to_warn() -> None:
    stream = written("text")
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("trouble")
    logging.getLogger("trunkline").debug("detail")
    assert [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()] == ["Started", "trouble"]
