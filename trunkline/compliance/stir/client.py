"""Certificates of signers, fetched and kept: the one place where a caller's header makes us talk to somebody.

The caller chose the URL, so: https on 443 or 8443, the name resolved once and the connection made to the very address
that was judged, public addresses only, no redirect, two seconds, a small body, a few fetches of a host at a time. What
was had is kept by its Cache-Control, a day at least (ATIS-1000080) and never beyond its own end; what could not be had,
or proves nothing, is not asked for again for a minute. Everything is bounded; who comes when all is taken gets
`certificate_unavailable`.
"""

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import httpx
from cryptography import x509

from trunkline.clock import Clock
from trunkline.compliance.stir import certificate
from trunkline.compliance.stir.certificate import MAX_PEM_BYTES, Anchors, Credential
from trunkline.compliance.stir.reasons import Rejected
from trunkline.compliance.stir.x5u import check_x5u
from trunkline.fetching import FetchError, Resolve, client, fetch, resolver

FETCH_S = 2.0
MAX_KEPT = 1024
MAX_FETCHES = 16  # at once
MAX_FETCHES_A_HOST = 10  # in HOST_WINDOW_S: a provider has one certificate, or a few
HOST_WINDOW_S = 60.0
MAX_HOSTS = 1024
MIN_KEPT_S, MAX_KEPT_S = 86_400.0, 30 * 86_400.0
NOT_AGAIN_S = 60.0


@dataclass(slots=True)
class _Kept:
    chain: tuple[x509.Certificate, ...] | None
    """None: it could not be had."""
    credential: Credential | Rejected
    until: float
    judged_with: Anchors


class Certificates:
    """By URL, for all calls. All methods run on the loop."""

    def __init__(
        self,
        anchors: Sequence[x509.Certificate],
        clock: Clock,
        *,
        allow_private: bool = False,
        servers: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """`servers`: whose certificates the HTTPS servers may show; without it, the web's. `resolve`: names; without it
        the system does, in threads of our own, because a caller's name server may keep them waiting for long."""
        self._anchors, self._clock, self._allow_private = Anchors(anchors), clock, allow_private
        self._resolve = resolve or resolver(MAX_FETCHES, "x5u")
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._hosts: OrderedDict[str, list[float]] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[Credential | Rejected]] = {}
        self._client = client(MAX_FETCHES, verify=servers or True)

    def trust(self, anchors: Anchors) -> None:
        """From now on, also for what is kept: that is judged again when it is asked for, not all in one go."""
        self._anchors = anchors

    def kept(self, url: str) -> Credential | Rejected | None:
        """None: it has to be fetched."""
        found = self._kept.get(url)
        if found is None or found.until <= self._clock.now():
            return None
        self._kept.move_to_end(url)
        if found.judged_with is not self._anchors and found.chain is not None:
            found.credential, found.judged_with = self._judged(found.chain), self._anchors
        return found.credential

    async def fetch(self, url: str) -> Credential | Rejected:
        """Cancel-safe: others may wait for the same one."""
        known = self.kept(url)
        if known is not None:
            return known
        task = self._fetching.get(url)
        if task is None:
            try:
                self._admit(check_x5u(url))
            except Rejected as error:
                return error  # not kept: it says nothing of the URL
            task = asyncio.create_task(self._fetched(url), name="x5u")
            self._fetching[url] = task
            task.add_done_callback(lambda _: self._fetching.pop(url, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in tuple(self._fetching.values()):
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)
        await self._client.aclose()

    def _admit(self, host: str) -> None:
        if len(self._fetching) >= MAX_FETCHES:
            raise Rejected("certificate_unavailable", "too many certificates are being fetched")
        now = self._clock.now()
        times = [at for at in self._hosts.pop(host, []) if at > now - HOST_WINDOW_S]
        self._hosts[host] = times
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        if len(times) >= MAX_FETCHES_A_HOST:
            raise Rejected("certificate_unavailable", "too many certificates of one host")
        times.append(now)

    async def _fetched(self, url: str) -> Credential | Rejected:
        """Never raises Rejected, OSError or what httpx has: they are the answer, kept for a while."""
        chain, kept_s = None, NOT_AGAIN_S
        found: Credential | Rejected
        try:
            async with asyncio.timeout(FETCH_S):
                pem, kept_s = await self._download(httpx.URL(url))
            chain = certificate.load_chain(pem)
            found = self._judged(chain)
        except TimeoutError:
            found = Rejected("certificate_unavailable", f"no certificate within {FETCH_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            found = Rejected("certificate_unavailable", f"the host did not give it ({type(error).__name__})")
        except Rejected as error:
            found = error
        good_s = NOT_AGAIN_S
        if isinstance(found, Credential):  # one that has run out may have been renewed where it was
            good_s = min(kept_s, max((found.not_after - self._now()).total_seconds(), NOT_AGAIN_S))
        self._keep(url, _Kept(chain, found, self._clock.now() + good_s, self._anchors))
        return found

    def _judged(self, chain: Sequence[x509.Certificate]) -> Credential | Rejected:
        try:
            return certificate.credential(chain, self._anchors, self._now())
        except Rejected as error:
            return error

    def _now(self) -> datetime:
        return self._clock.wall()

    def _keep(self, url: str, kept: _Kept) -> None:
        self._kept[url] = kept
        self._kept.move_to_end(url)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _download(self, url: httpx.URL) -> tuple[bytes, float]:
        try:
            found = await fetch(
                self._client,
                url,
                self._resolve,
                allow_private=self._allow_private,
                max_bytes=MAX_PEM_BYTES,
                fits=lambda status: status == 200,
            )
        except FetchError as error:
            raise Rejected(
                "bad_x5u" if error.code == "forbidden_address" else "certificate_unavailable", error.why
            ) from None
        return found.body, kept_s(found.headers.get("cache-control", ""))


def kept_s(cache_control: str) -> float:
    """How long an answer is kept (RFC 7234 5.2): its max-age, from a day to thirty, whatever else it says."""
    found = re.search(r"(?:^|[ ,])(?:s-maxage|max-age)=\"?([0-9]{1,9})", cache_control.lower())
    return min(max(float(cast(str, found[1])) if found else 0.0, MIN_KEPT_S), MAX_KEPT_S)
