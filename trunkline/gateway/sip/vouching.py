"""Who vouches for callers' numbers, before a call rings: the desk asks `Vouching` (and for our own calls signing.py).

Most verdicts are there at once (nothing came, it is nonsense, the certificate is kept). For the others a certificate is
fetched, which takes two seconds at most; the call waits, and hears ringing only after.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trunkline.clock import Clock
from trunkline.compliance.stir import anchors, verify
from trunkline.compliance.stir.canonical import Who, who
from trunkline.compliance.stir.certificate import Anchors, Credential
from trunkline.compliance.stir.client import Certificates
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.verstat import carriers_word
from trunkline.gateway.sip.message import Party
from trunkline.gateway.sip.rereading import reread
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.ports import CallerVerdict
from trunkline.settings import Sip, Stir

log = logging.getLogger(__name__)

WAIT_S = 2.0
MAX_WAITING = 256
Then = Callable[[CallerVerdict | None], None]


class Vouching:
    """All methods run on the loop."""

    def __init__(
        self,
        certificates: Certificates,
        clock: Clock,
        rules: verify.Rules = verify.DEFAULT_RULES,
        trust: Path | None = None,
    ) -> None:
        """`trust`: where the certificates' anchors are read from, again when it has changed."""
        self._certificates, self._clock, self._rules, self._trust = certificates, clock, rules, trust
        self._waiting: dict[Handle, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._trust is not None:
            self._watching = asyncio.create_task(self._watch(self._trust), name="stir anchors")

    def _watch(self, trust: Path) -> Coroutine[Any, Any, None]:
        def read() -> tuple[int, Anchors]:
            found = anchors.read_anchors("stir.trust", trust)
            return len(found), Anchors(found)

        def take(found: tuple[int, Anchors]) -> str:
            count, trusted = found
            self._certificates.trust(trusted)
            return f"{count} trust anchors are in force"

        return reread("trust anchors", partial(anchors.changes, trust), read, take, log)

    def ask(self, handle: Handle, trunk: Trunk, screened: Screened, then: Then) -> None:
        """`then` gets the verdict (None: the trunk's policy is not to look), and must not raise: at once where it can
        be, else within WAIT_S, or never, after `forget`."""
        reading = self._reading(trunk, screened)
        if not isinstance(reading, verify.Reading):
            then(reading)
            return
        wanted = [url for url in reading.urls if self._certificates.kept(url) is None]
        if not wanted or len(self._waiting) >= MAX_WAITING:
            then(self._judged(reading))
            return
        self._waiting[handle] = asyncio.create_task(self._fetch(handle, reading, wanted, then), name="stir")

    def forget(self, handle: Handle) -> None:
        """The caller has gone."""
        task = self._waiting.pop(handle, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        for handle in tuple(self._waiting):
            self.forget(handle)
        if self._watching is not None:
            self._watching.cancel()
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


# --- from the settings ----------------------------------------------------------------------------------------------


def open_vouching(stir: Stir, sip: Sip, clock: Clock) -> Vouching | None:
    """None: no trunk's calls are looked at. Raises ConfigError."""
    policies = [stir.policy, *(trunk.stir or stir.policy for trunk in sip.trunks.values())]
    if all(policy == "off" for policy in policies) and all(t.verstat == "ignored" for t in sip.trunks.values()):
        return None
    trusted = anchors.read_anchors("stir.trust", stir.trust) if stir.trust is not None else ()
    servers = ssl.create_default_context(cafile=str(stir.server_ca)) if stir.server_ca is not None else None
    certificates = Certificates(trusted, clock, allow_private=stir.allow_private_addresses, servers=servers)
    rules = verify.Rules(fresh_s=stir.fresh_s, diverted_fresh_s=stir.diverted_fresh_s)
    return Vouching(certificates, clock, rules, stir.trust)
