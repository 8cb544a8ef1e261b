"""[log], [otel]: what we tell of ourselves."""

from typing import Literal

from trunkline.settings.addresses import HttpUrl
from trunkline.settings.values import Section


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug` has a line a request."""
    format: Literal["json", "text"] = "text"
    """`json` for machines: one object a line."""


class Otel(Section):
    endpoint: HttpUrl | None = None
    """An OTLP/HTTP collector, such as http://127.0.0.1:4318."""
