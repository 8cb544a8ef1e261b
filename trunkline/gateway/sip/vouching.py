"""Who vouches for callers' numbers, before a call rings: the desk asks `Vouching`, and for our own calls `Signer`.

Most verdicts are there at once (nothing came, it is nonsense, the certificate is kept). For the others a certificate is
fetched, which takes two seconds at most; the call waits, and hears ringing only after.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from trunkline.clock import Clock
from trunkline.compliance.stir import anchors, sign, verify
from trunkline.compliance.stir.canonical import Who, who
from trunkline.compliance.stir.certificate import Anchors, Credential, load_chain
from trunkline.compliance.stir.client import Certificates
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.sign import Rights, SigningKey
from trunkline.compliance.stir.verstat import carriers_word
from trunkline.errors import ConfigError
from trunkline.gateway.sip.message import Party
from trunkline.gateway.sip.stack import Handle
from trunkline.gateway.sip.trunks import Screened, Trunk
from trunkline.ports import CallerVerdict
from trunkline.settings import Sip, Stir
from trunkline.types import E164

log = logging.getLogger(__name__)

WAIT_S = 2.0
READ_AGAIN_S = 30.0
MAX_WAITING = 256
COMPLAIN_AGAIN_S = 60.0
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

    async def _watch(self, trust: Path) -> None:
        """A list that cannot be read leaves the last good one in force, and says so once."""
        seen = await asyncio.to_thread(anchors.changes, trust)
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            now = await asyncio.to_thread(anchors.changes, trust)
            if now == seen:
                continue
            seen = now
            try:
                found = await asyncio.to_thread(anchors.read_anchors, "stir.trust", trust)
            except ConfigError as error:
                log.error("the trust anchors read last stay in force: %s", error)
            else:
                self._certificates.trust(await asyncio.to_thread(Anchors, found))
                log.info("%d trust anchors are in force", len(found))

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


@dataclass(slots=True)
class Signer:
    """Our own calls, where the settings have keys."""

    keys: Sequence[SigningKey]
    rights: Rights
    clock: Clock
    said: float = -COMPLAIN_AGAIN_S
    """When it was last said that calls go out unsigned."""

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
        if (fault := key.fault(one.value, self.clock.wall())) is not None:
            self._complain(key, fault)
            return []
        header = sign.identity(key.key, key.x5u, attest, one, other, self.clock.wall(), uuid4())
        return [("Identity", header)]

    def _complain(self, key: SigningKey, fault: str) -> None:
        """Not of each call: there may be many."""
        now = self.clock.now()
        if now - self.said >= COMPLAIN_AGAIN_S:
            self.said = now
            log.error("calls go out unsigned: stir.keys.%s: %s", key.name, fault)


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


def open_signer(stir: Stir, clock: Clock) -> Signer | None:
    """None: there is no key. Raises ConfigError."""
    keys = []
    for name, written in stir.keys.items():
        try:
            key = sign.load_key(written.key.read_bytes())
        except (OSError, ValueError):
            raise ConfigError(
                f"stir.keys.{name}.key", str(written.key), "a private key of P-256 in PEM, without a passphrase"
            ) from None
        signing = SigningKey(key, written.x5u, written.not_before, name)
        if written.certificate is not None:
            where = f"stir.keys.{name}.certificate", str(written.certificate)
            try:
                signing = sign.certified(signing, load_chain(written.certificate.read_bytes()))
            except OSError as error:
                raise ConfigError(*where, f"a readable file ({error.strerror})") from None
            except Rejected as error:
                raise ConfigError(*where, f"the key's certificate, PEM, leaf first ({error.why})") from None
        keys.append(signing)
    unlisted, passing = (None if level == "none" else level for level in (stir.unlisted, stir.passing))
    return Signer(keys, Rights(stir.numbers, unlisted, passing), clock) if keys else None
