"""Asks the other regions whether they are ready, all at once, in turn after turn."""

import asyncio
import logging

import httpx

from trunkline.gateway.regions import Region, Regions

log = logging.getLogger(__name__)

EVERY_S = 5.0
DEADLINE_S = 2.0


class RegionWatch:
    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Nothing to do where there is one region."""
        if self._regions.others:
            self._task = asyncio.create_task(self._run(), name="regions")

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=DEADLINE_S, follow_redirects=False) as http:
            while True:
                try:
                    await asyncio.gather(*(self._ask(http, region) for region in self._regions.others))
                except Exception:
                    log.exception("asking the regions")
                await asyncio.sleep(EVERY_S)

    async def _ask(self, http: httpx.AsyncClient, region: Region) -> None:
        why = ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                async with http.stream("GET", f"{region.url}/readyz") as answer:  # its body is nothing to us
                    why = "" if answer.status_code == 200 else f"HTTP {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            why = type(error).__name__
        if self._regions.answered(region.name, not why):
            log.warning("region %s is %s", region.name, f"not ready ({why})" if why else "ready")
