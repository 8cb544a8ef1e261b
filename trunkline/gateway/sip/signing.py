"""We vouch for our own callers: keys and certificates from the settings' files, which may be replaced while it runs."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.hashes import SHA256

from trunkline.clock import Clock
from trunkline.compliance.stir import anchors, sign
from trunkline.compliance.stir.canonical import who
from trunkline.compliance.stir.certificate import load_chain
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.sign import Rights, SigningKey
from trunkline.errors import ConfigError
from trunkline.gateway.sip.rereading import reread
from trunkline.gateway.sip.trunks import Trunk
from trunkline.settings import Stir, StirKey
from trunkline.settings.stir import FINGERPRINT
from trunkline.types import E164

log = logging.getLogger(__name__)

COMPLAIN_AGAIN_S = 60.0


@dataclass(slots=True)
class Signer:
    """Our own calls, where the settings have keys. All methods run on the loop."""

    keys: Sequence[SigningKey]
    rights: Rights
    clock: Clock
    written: Mapping[str, StirKey] = field(default_factory=dict)
    """Where the keys were read from, by name, and are again when a file has changed."""
    said: float = -COMPLAIN_AGAIN_S
    """When it was last said that calls go out unsigned."""
    watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.written:
            self.watching = asyncio.create_task(self._watch(), name="stir keys")

    def close(self) -> None:
        if self.watching is not None:
            self.watching.cancel()

    def _watch(self) -> Coroutine[Any, Any, None]:
        return reread("signing keys", self._changes, partial(read_keys, self.written), self._take, log)

    def _changes(self) -> object:
        files = (file for each in self.written.values() for file in (each.key, each.certificate))
        return [anchors.changes(file) for file in files if file is not None]

    def _take(self, keys: Sequence[SigningKey]) -> str:
        self.keys = keys
        return f"{len(keys)} signing keys are in force"

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


def open_signer(stir: Stir, clock: Clock) -> Signer | None:
    """None: there is no key. Raises ConfigError."""
    unlisted, passing = (None if level == "none" else level for level in (stir.unlisted, stir.passing))
    keys = read_keys(stir.keys)
    return Signer(keys, Rights(stir.numbers, unlisted, passing), clock, stir.keys) if keys else None


def read_keys(written: Mapping[str, StirKey]) -> tuple[SigningKey, ...]:
    """All, or none. Raises ConfigError naming the key and the file that is wrong."""
    return tuple(_key(name, each) for name, each in written.items())


def _key(name: str, written: StirKey) -> SigningKey:
    try:
        key = sign.load_key(written.key.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(
            f"stir.keys.{name}.key", str(written.key), "a private key of P-256 in PEM, without a passphrase"
        ) from None
    signing = SigningKey(key, written.x5u, written.not_before, name)
    if written.certificate is None:
        return signing
    where = f"stir.keys.{name}.certificate", str(written.certificate)
    try:
        chain = load_chain(written.certificate.read_bytes())
        signing = sign.certified(signing, chain)
    except OSError as error:
        raise ConfigError(*where, f"a readable file ({error.strerror})") from None
    except Rejected as error:
        raise ConfigError(*where, f"the key's certificate, PEM, leaf first ({error.why})") from None
    return replace(signing, x5u=written.x5u.replace(FINGERPRINT, chain[0].fingerprint(SHA256()).hex()))
