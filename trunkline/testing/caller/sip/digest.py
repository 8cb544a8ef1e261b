"""Digest credentials for a 401 or 407 (RFC 8760, RFC 7616): the best algorithm both sides have."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_PAIR = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    realm: str
    nonce: str
    algorithm: str = "MD5"
    """As sent: MD5, SHA-256, or one of them with -sess."""
    opaque: str | None = None
    qop: tuple[str, ...] = ()
    stale: bool = False


def parse_challenge(value: str) -> Challenge | None:
    """None for what is not a Digest challenge that can be answered."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    found = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PAIR.finditer(rest)}
    algorithm = found.get("algorithm", "MD5")
    qop = tuple(q.strip().lower() for q in found.get("qop", "").split(",") if q.strip())
    usable = algorithm.upper().removesuffix("-SESS") in _HASHES and (not qop or "auth" in qop)
    if "nonce" not in found or "realm" not in found or not usable:
        return None
    stale = found.get("stale", "").lower() == "true"
    return Challenge(found["realm"], found["nonce"], algorithm, found.get("opaque"), qop, stale)


def choose(values: Sequence[str]) -> Challenge | None:
    """The strongest of several challenges."""
    challenges = [c for c in map(parse_challenge, values) if c is not None]
    order = list(_HASHES)
    return min(challenges, key=lambda c: order.index(c.algorithm.upper().removesuffix("-SESS")), default=None)


def authorization(c: Challenge, who: Credentials, method: str, uri: str, cnonce: str, count: int = 1) -> str:
    """The value of Authorization or Proxy-Authorization. `count`: how often this nonce has been used, from 1."""
    make = _HASHES[c.algorithm.upper().removesuffix("-SESS")]

    def h(text: str) -> str:
        return make(text.encode()).hexdigest()

    a1, nc = f"{who.username}:{c.realm}:{who.password}", f"{count:08x}"
    if c.algorithm.upper().endswith("-SESS"):
        a1 = f"{h(a1)}:{c.nonce}:{cnonce}"
    middle = f"{c.nonce}:{nc}:{cnonce}:auth" if c.qop else c.nonce  # without qop: RFC 2069's form
    response = h(f"{h(a1)}:{middle}:{h(f'{method}:{uri}')}")
    parts = [f'username="{who.username}"', f'realm="{c.realm}"', f'nonce="{c.nonce}"', f'uri="{uri}"']
    parts += [f'response="{response}"', f"algorithm={c.algorithm}"]
    if c.opaque is not None:
        parts.append(f'opaque="{c.opaque}"')
    if c.qop:
        parts += ["qop=auth", f"nc={nc}", f'cnonce="{cnonce}"']
    elif c.algorithm.upper().endswith("-SESS"):
        parts.append(f'cnonce="{cnonce}"')
    return "Digest " + ", ".join(parts)
