"""PASSporT, the token of an Identity header: compact JWS of JSON (RFC 8225). Hostile until read; nothing is coerced."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from trunkline.compliance.stir.canonical import Who, addr_spec, is_canonical
from trunkline.compliance.stir.reasons import Rejected
from trunkline.ports import Attest

MAX_TOKEN_CHARS = 8000
MAX_DEPTH = 8
MAX_KEYS = 64  # of all objects of one part together
MAX_DESTINATIONS = 16
MAX_INTEGER_DIGITS = 15  # JSON's numbers are exact so far
MAX_X5U_CHARS = 1024
SIGNATURE_BYTES = 64  # r and s, 32 each; not DER
UNDERSTOOD = ("", "shaken", "div", "rcd")
"""Values of `ppt`. div-o is for out-of-band use, and is not."""

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)  # texts, and what opens and closes


@dataclass(frozen=True, slots=True)
class Passport:
    ppt: str
    """Empty: the base PASSporT."""
    x5u: str
    orig: Who
    dest: tuple[Who, ...]
    iat: int
    """Unix seconds."""
    attest: Attest | None = None
    origid: str | None = None
    div: Who | None = None
    """Whom the call was for before it was diverted (RFC 8946)."""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All of them, as they came."""
    signing_input: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)


def parse_token(text: str) -> Passport:
    """Raises Rejected: unsupported_ppt before anything that such a token may have differently."""
    if len(text) > MAX_TOKEN_CHARS:
        raise Rejected("malformed_token", f"longer than {MAX_TOKEN_CHARS} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise Rejected("malformed_token", "not three parts")
    if not parts[0] and not parts[1]:
        raise Rejected("compact_form", "a token without header and claims")
    header = parse_json(decode(parts[0]))
    ppt = header.get("ppt", "")
    if not isinstance(ppt, str) or ppt not in UNDERSTOOD or ("ppt" in header and not ppt):
        raise Rejected("unsupported_ppt", "an extension that we do not know")
    if header.get("alg") != "ES256":
        raise Rejected("unsupported_alg", "alg is not ES256")
    if header.get("typ") != "passport" or "crit" in header:
        raise Rejected("malformed_token", "typ is not passport, or crit asks for more")
    x5u = header.get("x5u")
    if not isinstance(x5u, str) or not 0 < len(x5u) <= MAX_X5U_CHARS:
        raise Rejected("malformed_token", "x5u is missing")
    signature = decode(parts[2])
    if len(signature) != SIGNATURE_BYTES:
        raise Rejected("malformed_token", f"a signature of {len(signature)} bytes, not of {SIGNATURE_BYTES}")
    claims = parse_json(decode(parts[1]))
    signed = f"{parts[0]}.{parts[1]}".encode("ascii")
    return _passport(ppt, x5u, claims, signed, signature)


def _passport(ppt: str, x5u: str, claims: Mapping[str, Any], signed: bytes, signature: bytes) -> Passport:
    iat = claims.get("iat")
    if not isinstance(iat, int) or isinstance(iat, bool) or iat <= 0:  # RFC 8225 errata 5985: a number, no string
        raise Rejected("bad_claims", "iat is no whole number of seconds")
    attest, origid = claims.get("attest"), claims.get("origid")
    if ppt == "div" and "opt" in claims:
        raise Rejected("bad_claims", "opt belongs to div-o")
    return Passport(
        ppt=ppt,
        x5u=x5u,
        orig=_one(claims.get("orig"), "orig"),
        dest=_destinations(claims.get("dest")),
        iat=iat,
        attest=cast(Attest, attest) if ppt == "shaken" and attest in ("A", "B", "C") else None,
        origid=origid if ppt == "shaken" and isinstance(origid, str) else None,
        div=_one(claims.get("div"), "div") if ppt == "div" else None,
        claims=claims,
        signing_input=signed,
        signature=signature,
    )


def check_required(token: Passport) -> None:
    """The claims that a `ppt` asks for, which are looked at last (RFC 8224 6.2, step 5). Raises Rejected."""
    if token.ppt == "shaken":
        if token.attest is None:
            raise Rejected("required_claims", "attest is not A, B or C")
        if not _is_uuid(token.origid):
            raise Rejected("required_claims", "origid is no UUID")
    if token.ppt == "rcd" and not isinstance(token.claims.get("rcd"), dict):
        raise Rejected("required_claims", "rcd is no object")


def _one(value: Any, name: str) -> Who:
    """RFC 8225 5.2.1: exactly one identity. div may say why beside it (`hi`, RFC 8946 3)."""
    if isinstance(value, dict):
        named = [key for key in ("tn", "uri") if key in value]
        if len(named) == 1 and (len(value) == 1 or name == "div"):
            return _identity(named[0], value[named[0]], name)
    raise Rejected("bad_claims", f"{name} is no object of one tn or uri")


def _destinations(value: Any) -> tuple[Who, ...]:
    if not isinstance(value, dict) or not value or not value.keys() <= {"tn", "uri"}:
        raise Rejected("bad_claims", "dest is no object of tn and uri")
    found: list[Who] = []
    for kind, values in value.items():
        if not isinstance(values, list) or not values:
            raise Rejected("bad_claims", f"dest.{kind} is no list")
        found += [_identity(kind, each, "dest") for each in values[: MAX_DESTINATIONS + 1]]
    if len(found) > MAX_DESTINATIONS:
        raise Rejected("bad_claims", f"more than {MAX_DESTINATIONS} destinations")
    return tuple(found)


def _identity(kind: str, value: Any, name: str) -> Who:
    if not isinstance(value, str):
        raise Rejected("bad_claims", f"{name}.{kind} is no text")
    if kind == "uri":
        return Who("uri", addr_spec(value))
    if not is_canonical(value):
        raise Rejected("bad_claims", f"{name}.tn is not in canonical form")
    return Who("tn", value)


def _is_uuid(value: str | None) -> bool:
    return value is not None and bool(_UUID.fullmatch(value))


# --- the parts ------------------------------------------------------------------------------------------------------


def decode(text: str) -> bytes:
    """base64url without padding, in its one canonical spelling. Raises Rejected."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise Rejected("malformed_token", "not base64url")
    found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(found) != text:
        raise Rejected("malformed_token", "base64url with bits that say nothing")
    return found


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_json(data: bytes) -> dict[str, Any]:
    """One object, bounded in depth and size, no key twice, no number that another reader may see differently. Raises
    Rejected."""
    try:
        text = data.decode("utf-8")
    except ValueError:
        raise Rejected("malformed_token", "not UTF-8") from None
    _check_depth(text)
    keys = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            raise Rejected("malformed_token", "too many keys")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Rejected("malformed_token", "a key is there twice")
        return found

    try:
        found = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except ValueError:
        raise Rejected("malformed_token", "not JSON") from None
    if not isinstance(found, dict):
        raise Rejected("malformed_token", "not a JSON object")
    return found


def _check_depth(text: str) -> None:
    """Before it is parsed: nesting costs the parser its stack."""
    depth = 0
    for mark in _MARKS.findall(text):
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Rejected("malformed_token", f"nested deeper than {MAX_DEPTH}")
        elif mark in "]}":
            depth -= 1


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise Rejected("malformed_token", "a number too big")
    return int(text)


def _no_number(_: str) -> NoReturn:
    raise Rejected("malformed_token", "a number that is no integer")
