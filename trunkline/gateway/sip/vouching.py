"""Who vouches for callers' numbers, before a call rings: the desk asks `Vouching`, and for our own calls `Signer`.

Most verdicts are there at once (nothing came, it is nonsense, the certificate is kept). For the others a certificate is
fetched, which takes two seconds at most; the call waits, and hears ringing only after.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from trunkline.clock import Clock
from trunkline.compliance.stir import sign, verify, verstat
from trunkline.compliance.stir.canonical import Who, who
from trunkline.compliance.stir.certificate import Credential
from trunkline.compliance.stir.client import Certificates
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.sign import Rights, SigningKey
from trunkline.gateway.sip.message import Party
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.ports import CallerVerdict
from trunkline.types import E164

log = logging.getLogger(__name__)

WAIT_S = 2.0
MAX_WAITING = 256
Then = Callable[[CallerVerdict | None], None]


class Vouching:
    """All methods run on the loop."""

    def __init__(self, certificates: Certificates, clock: Clock, rules: verify.Rules = verify.DEFAULT_RULES) -> None:
        self._certificates, self._clock, self._rules = certificates, clock, rules
        self._waiting: dict[Handle, asyncio.Task[None]] = {}

    def ask(self, handle: Handle, trunk: Trunk, screened: Screened, then: Then) -> bool:
        """`then` gets the verdict (None: the trunk's policy is not to look), and must not raise. True: already; else
        within WAIT_S, or never, after `forget`."""
        reading = self._reading(trunk, screened)
        if not isinstance(reading, verify.Reading):
            then(reading)
            return True
        wanted = [url for url in reading.urls if self._certificates.kept(url) is None]
        if not wanted or len(self._waiting) >= MAX_WAITING:
            then(self._judged(reading))
            return True
        self._waiting[handle] = asyncio.create_task(self._fetch(handle, reading, wanted, then), name="stir")
        return False

    def forget(self, handle: Handle) -> bool:
        """The caller has gone. True: they were waiting."""
        task = self._waiting.pop(handle, None)
        if task is not None:
            task.cancel()
        return task is not None

    async def close(self) -> None:
        for handle in tuple(self._waiting):
            self.forget(handle)
        await self._certificates.close()

    def _reading(self, trunk: Trunk, screened: Screened) -> verify.Reading | CallerVerdict | None:
        """Our own eyes before the carrier's word, where there is something to see."""
        looks = trunk.stir != "off"
        if trunk.verstat != "ignored" and not (looks and screened.identities):
            return carriers_word(trunk.verstat, screened.verstats)
        if not looks:
            return None
        return verify.read(screened.identities, party(screened.caller), party(screened.called))

    async def _fetch(self, handle: Handle, reading: verify.Reading, urls: Sequence[str], then: Then) -> None:
        fetched: Mapping[str, Credential | Rejected] = {}
        try:
            async with asyncio.timeout(WAIT_S):
                found = await asyncio.gather(*(self._certificates.fetch(url) for url in urls))
            fetched = dict(zip(urls, found, strict=True))
        except TimeoutError:
            pass
        except Exception:
            log.exception("a certificate could not be fetched")
        if self._waiting.pop(handle, None) is not None:
            then(self._judged(reading, fetched))

    def _judged(
        self, reading: verify.Reading, fetched: Mapping[str, Credential | Rejected] | None = None
    ) -> CallerVerdict:
        kept = {url: found for url in reading.urls if (found := self._certificates.kept(url)) is not None}
        return verify.judge(reading, {**kept, **(fetched or {})}, self._clock.wall(), self._rules)


def party(who_it_is: Party) -> Who | None:
    """As the tokens are compared with it."""
    return who(who_it_is.number or who_it_is.user)


def carriers_word(source: Literal["twilio", "telnyx", "bandwidth", "pai"], words: Sequence[str]) -> CallerVerdict:
    """Said twice, differently, it is none."""
    said = set(words)
    return verstat.fold(source, words[0] if len(said) == 1 else None if not said else " / ".join(sorted(said)))


@dataclass(frozen=True, slots=True)
class Signer:
    """Our own calls, where the settings have keys."""

    keys: Sequence[SigningKey]
    rights: Rights
    clock: Clock

    def headers(self, trunk: Trunk, caller: E164 | None, called: E164, *, forwarded: bool) -> list[tuple[str, str]]:
        """Identity, or nothing where we have no right to say anything. `forwarded`: the call sends somebody on. Whoever
        orders a call of ours has a key to the API or sits at this machine: a customer we know."""
        key = sign.current(self.keys, self.clock.wall()) if trunk.stir_sign else None
        number = caller or trunk.caller_id
        if key is None or number is None:
            return []
        passing = forwarded and number not in self.rights.numbers
        attest = sign.attestation(self.rights, number, known_customer=True, passing=passing)
        one, other = who(number), who(called)
        if attest is None or one is None or other is None:
            return []
        header = sign.identity(key.key, key.x5u, attest, one, other, self.clock.wall(), uuid4())
        return [("Identity", header)]
