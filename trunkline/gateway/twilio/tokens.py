"""One-time tokens that let one media stream in: signed, bound to the CallSid and to whom the stream is for (our call's
id, or the order of a second leg), good for a minute.

They travel as a <Parameter>, because Twilio drops the query string of a <Stream> URL. The worker's name inside tells
whose memory of used tokens counts: only that worker may redeem it.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections import OrderedDict

from trunkline.errors import PeerError
from trunkline.types import CallSid

TTL_S = 60.0
MAX_TOKEN_CHARS = 400  # Twilio: a parameter's name and value together stay under 500 characters
MAX_USED = 65_536  # a thousand new calls a second for TTL_S; only tokens of our own signing get in
POLICY_VIOLATION = 1008
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}")


class Tokens:
    """`now` is seconds on whatever base issuer and redeemer share; monotonic within one process."""

    def __init__(self, key: bytes | None = None, worker: str = "0", ttl_s: float = TTL_S) -> None:
        """`key`: at least 32 secret bytes shared by the workers; None makes one for this process."""
        if key is not None and len(key) < 32:
            raise ValueError("a token key is at least 32 bytes")
        self._key = key or secrets.token_bytes(32)
        self._worker, self._ttl_s = worker, ttl_s
        self._used: OrderedDict[str, float] = OrderedDict()

    def issue(self, call_sid: CallSid, whose: str, now: float) -> str:
        """A fresh token each time; each opens one stream."""
        body = [self._worker, whose, round((now + self._ttl_s) * 1000), secrets.token_urlsafe(9)]
        payload = _encode(json.dumps(body, separators=(",", ":")).encode())
        return f"{payload}.{self._sign(payload, call_sid)}"

    def redeem(self, token: str, call_sid: CallSid, now: float) -> str:
        """Whose stream it is. Once. Raises PeerError with close code 1008 and the reason: token_malformed,
        token_forged, token_expired, token_foreign (another worker's), token_used or token_memory_full."""
        if len(token) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
            raise _refused("malformed")
        payload, _, mac = token.partition(".")
        if not hmac.compare_digest(mac, self._sign(payload, call_sid)):
            raise _refused("forged")
        worker, whose, expires_ms, nonce = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if now * 1000 >= expires_ms:
            raise _refused("expired")
        if worker != self._worker:
            raise _refused("foreign")
        self._remember(nonce, expires_ms / 1000, now)
        return str(whose)

    def _remember(self, nonce: str, expires: float, now: float) -> None:
        while self._used and next(iter(self._used.values())) <= now:
            self._used.popitem(last=False)
        if nonce in self._used:
            raise _refused("used")
        if len(self._used) >= MAX_USED:  # forgetting one would let it in twice
            raise _refused("memory_full")
        self._used[nonce] = expires

    def _sign(self, payload: str, call_sid: str) -> str:
        return _encode(hmac.digest(self._key, f"{payload}\0{call_sid}".encode(errors="surrogatepass"), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refused(why: str) -> PeerError:
    return PeerError(f"token_{why}", POLICY_VIOLATION)
