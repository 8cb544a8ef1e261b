"""The SIP Identity header (RFC 8224 4): `<token>;info=<URI>;alg=ES256;ppt=shaken`. Hostile until read.

The ABNF writes base64 where every sender has base64url, and quotes around `ppt` come and go: both are taken."""

import re
from dataclasses import dataclass

from trunkline.compliance.stir.reasons import Rejected

MAX_HEADER_CHARS = 8192
MAX_PARAMETERS = 16
_OURS = ("info", "alg", "ppt")
_PARAMETER = re.compile(r"[A-Za-z0-9!%*_+`'~.-]{1,64}")
_PIECE = re.compile(r'(?:[^";<>]++|"(?:[^"\\]++|\\.)*+"|<[^<>]*+>)*+')


@dataclass(frozen=True, slots=True, repr=False)
class IdentityHeader:
    token: str
    info: str
    """The URI, without <>."""
    alg: str
    ppt: str
    """Empty: none was named."""


def parse_identity(text: str) -> IdentityHeader:
    """Raises Rejected."""
    if len(text) > MAX_HEADER_CHARS:
        raise Rejected("malformed_header", f"longer than {MAX_HEADER_CHARS} characters")
    if not text.isascii() or any(char < " " and char != "\t" for char in text) or "\x7f" in text:
        raise Rejected("malformed_header", "characters that no header may have")
    token, *pieces = _pieces(text)
    found: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        name = name.strip(" \t").lower()
        if not equals or not _PARAMETER.fullmatch(name):
            raise Rejected("malformed_header", "a parameter without a name or a value")
        if name in found and name in _OURS:
            raise Rejected("malformed_header", f"{name} is given twice")
        found.setdefault(name, value.strip(" \t"))
    info = found.get("info", "")
    if not re.fullmatch(r"<[^<>\"]+>", info):
        raise Rejected("malformed_header", "info=<URI> is missing, or does not end with >")
    return IdentityHeader(token, info[1:-1], _bare(found.get("alg", "ES256")), _bare(found.get("ppt", "")))


def _pieces(text: str) -> list[str]:
    """At semicolons that are neither quoted nor within <>."""
    pieces: list[str] = []
    at = 0
    while True:
        matched = _PIECE.match(text, at)
        assert matched is not None
        pieces.append(matched[0].strip(" \t"))
        at = matched.end()
        if at == len(text):
            return pieces
        if text[at] != ";" or len(pieces) > MAX_PARAMETERS:
            raise Rejected("malformed_header", "a quote or < that is not closed, or too many parameters")
        at += 1


def _bare(value: str) -> str:
    """A token, quoted or not."""
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if inner and not _PARAMETER.fullmatch(inner):
        raise Rejected("malformed_header", "alg and ppt are tokens")
    return inner
