"""Schemathesis' hooks (schemathesis.toml): how bodies that are no JSON go over the wire."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag", "application/toml")
def as_text(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
