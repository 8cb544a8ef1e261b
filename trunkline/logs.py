"""One line per event, as JSON or text, in which no phone number is whole and no secret appears.

Masking works on the finished line, so it also covers tracebacks, other libraries and fields nobody thought of.
"""

import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from trunkline.privacy.judging import CARD_DIGITS
from trunkline.privacy.redaction import CARDS, Policy, redact
from trunkline.privacy.spoken import NUMBERS

MIN_SECRET_CHARS = 6  # a shorter one would blank ordinary words; settings ask for longer ones where it matters

_DOTS = "•••••"
_E164 = re.compile(r"(?:\+|%2[Bb])[1-9](?:[ ().-]{0,2}[0-9]){6,14}(?![0-9])")
_NAMED = re.compile(
    r"(?i)\b((?:from|to|caller|called|forwarded_?from|from_number|to_number|number)[\"']?\s*[=:]\s*[\"']?|(?:sip|sips|tel):)"
    r"([0-9](?:[ ().-]{0,2}[0-9]){6,14})(?![0-9])"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+|x-api-key[\"']?\s*[=:]\s*[\"']?)[^\s\"',]+")
_STREAM_TOKEN = re.compile(r"\b[A-Za-z0-9_-]{24,}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_SPOKEN = frozenset(("unit", "tens", "number"))
_DIGIT_WORD = rf"(?:{'|'.join(sorted(word for word, said in NUMBERS.items() if said.role in _SPOKEN))})"
_SUSPECT = re.compile(rf"(?i)@|(?:\d\W{{0,3}}){{9}}|\b{_DIGIT_WORD}\W.{{0,40}}?\b{_DIGIT_WORD}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*")
_DIGIT = re.compile(r"\d")
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)} | {
    10: "\\n",
    13: "\\r",
    9: "\\t",
}
_STANDARD = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"))


def mask_number(number: str) -> str:
    """+14155551234 -> +1•••••1234; of a short number only the last two digits stay."""
    digits = "".join(c for c in number if "0" <= c <= "9")
    digits = digits[1:] if number[:3].upper() == "%2B" else digits
    kept = 4 if len(digits) >= 10 else 2
    head = f"+{digits[:1]}" if number.startswith(("+", "%2")) else ""
    return f"{head}{_DOTS}{digits[-kept:]}"


def mask(text: str) -> str:
    """Every phone number and bearer token in it."""
    text = _E164.sub(lambda m: mask_number(m[0]), text)
    text = _NAMED.sub(lambda m: m[1] + mask_number(m[2]), text)
    text = _BEARER.sub(lambda m: f"{m[1]}(hidden)", text)
    return _STREAM_TOKEN.sub("(hidden)", text)


def guard(line: str, policy: Policy) -> str:
    """Cards, addresses: most lines have nothing that could be one, and cost a look."""
    if not policy.kinds:
        return line
    suspect = _SUSPECT.search(line) or len(_DIGIT.findall(_TIME.sub("", line))) >= CARD_DIGITS[0]
    return redact(line, policy) if suspect else line


class Line(logging.Formatter):
    """Text: time, level, logger, message, then the `extra` fields as key=value. `policy`: what of a person is redacted
    as the last guard, should it come this far; phone numbers are masked in any case."""

    def __init__(self, secrets: Iterable[str] = (), policy: Policy = CARDS) -> None:
        super().__init__()
        self._policy = policy
        known = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        escaped = {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in known}
        self._secrets = sorted(known | escaped, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        for secret in self._secrets:
            line = line.replace(secret, "(hidden)")
        return guard(mask(line), self._policy).translate(_CONTROLS)

    def line(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        trouble = f" | {_trouble(self, record)}" if _trouble(self, record) else ""
        return f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}{trouble}"


class JsonLine(Line):
    """JSON: time, level, logger, message, error, then the `extra` fields."""

    def line(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trouble := _trouble(self, record):
            event["error"] = trouble
        return json.dumps(
            event | {k: v for k, v in _extra(record).items() if k not in event}, default=str, ensure_ascii=False
        )


class _Lines(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """logging's own would print the arguments as they are."""
        kind, error, _ = sys.exc_info()
        if isinstance(error, OSError | ValueError) and self.stream.closed:
            return
        where = f"{record.name} ({record.filename}:{record.lineno})"
        with contextlib.suppress(Exception):
            self.stream.write(f"a log line of {where} could not be written: {kind.__name__ if kind else '?'}\n")


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["json", "text"] = "text",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    policy: Policy = CARDS,
) -> None:
    """Everything of this process goes to `stream` (stderr). Start uvicorn with `log_config=None` after this.

    Other libraries speak from `warning` on; requests are logged at `debug` only.
    """
    handler = _Lines(stream or sys.stderr)
    handler.setFormatter((JsonLine if format == "json" else Line)(secrets, policy))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    chosen = level.upper()
    levels: Mapping[str, str] = {
        "trunkline": chosen,
        "uvicorn": chosen if level != "debug" else "INFO",
        "uvicorn.error": chosen if level != "debug" else "INFO",
        "uvicorn.access": "INFO" if level == "debug" else "WARNING",
    }
    for name, its_level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(its_level)


def catch_strays() -> None:
    """Python's own last words, of a thread or of this process, are lines like all others."""

    def thread(hook: Any) -> None:
        log.critical("an error in thread %s", getattr(hook.thread, "name", "?"), exc_info=_info(hook))

    def unraisable(hook: Any) -> None:
        log.error("an error that nobody could be told", exc_info=_info(hook))

    def process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("the process ends", exc_info=(kind, error, trace))

    log = logging.getLogger("trunkline")
    threading.excepthook, sys.unraisablehook, sys.excepthook = thread, unraisable, process


def _info(hook: Any) -> Any:
    return hook.exc_type, hook.exc_value, hook.exc_traceback


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0]:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""
