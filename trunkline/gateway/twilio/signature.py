"""Did Twilio send this? https://www.twilio.com/docs/usage/webhooks/webhooks-security

The signed URL is the configured public origin and the request's own path and query: never Host or a forwarded header,
which the sender chooses.
"""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from twilio.request_validator import (  # type: ignore[import-untyped]
    HMAC_SHA1,
    RequestValidator,
    get_signature_algorithm,
)

SIGNATURE_HEADER = "X-Twilio-Signature"
ALGORITHM_HEADER = "X-Twilio-Webhooks-Signature-Settings"
ALGORITHMS = (HMAC_SHA1, "HMAC_SHA256")


class Signatures:
    def __init__(self, tokens: Sequence[str], origin: str) -> None:
        """`tokens`: every one accepted, for a rotation. None: nothing is checked (loopback only, see settings)."""
        self._validators = [RequestValidator(token) for token in tokens]
        self._origin = origin

    @property
    def required(self) -> bool:
        return bool(self._validators)

    def valid(self, target: str, form: Mapping[str, Any], signature: str, algorithm_header: str = "") -> bool:
        """`target`: the raw path and query as received. `form`: the POST fields, a multi-dict where keys repeat."""
        return self._valid(self._origin + target, form, signature, algorithm_header)

    def valid_socket(self, target: str, signature: str, algorithm_header: str = "") -> bool:
        """The same for a WebSocket handshake, which Twilio signs under wss and at times with a slash at the end."""
        url = socket_origin(self._origin) + target
        with_slash = self._valid(url.rstrip("/") + "/", {}, signature, algorithm_header)
        return self._valid(url.rstrip("/"), {}, signature, algorithm_header) | with_slash

    def _valid(self, url: str, form: Mapping[str, Any], signature: str, algorithm_header: str) -> bool:
        if not self._validators:
            return True
        algorithm = get_signature_algorithm(algorithm_header).upper()
        if algorithm not in ALGORITHMS:
            return False
        given, valid = signature.encode(), False
        for validator in self._validators:
            for variant in _with_and_without_port(url):
                expected = validator.compute_signature(variant, form, algorithm).encode()
                valid |= hmac.compare_digest(expected, given)  # no early way out: the time tells nothing
        return valid


def socket_origin(origin: str) -> str:
    """https://host -> wss://host; http (loopback) -> ws."""
    return "ws" + origin.removeprefix("http")


def _with_and_without_port(url: str) -> tuple[str, ...]:
    """Twilio signs the URL as its console holds it, with the scheme's own port or without."""
    parts = urlsplit(url)
    default = {"https": 443, "wss": 443, "http": 80, "ws": 80}[parts.scheme]
    if parts.port is None:
        return url, url.replace(f"//{parts.netloc}", f"//{parts.netloc}:{default}", 1)
    if parts.port == default:
        return url, url.replace(f"//{parts.netloc}", f"//{parts.netloc.rpartition(':')[0]}", 1)
    return (url,)
