"""Files that may be replaced while the gateway runs: read again when they changed, the last good ones in force else."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from trunkline.errors import ConfigError

READ_AGAIN_S = 30.0
T = TypeVar("T")


async def reread(
    what: str, changes: Callable[[], object], read: Callable[[], T], take: Callable[[T], str], log: logging.Logger
) -> None:
    """Until cancelled. `changes`: what differs when the files have changed, never raises; `read` raises ConfigError and
    runs in a thread, as `changes` does; `take` puts it in force, on the loop, and says what is. What cannot be read is
    told once, until it changes again."""
    seen = await asyncio.to_thread(changes)
    while True:
        await asyncio.sleep(READ_AGAIN_S)
        now = await asyncio.to_thread(changes)
        if now == seen:
            continue
        seen = now
        try:
            found = await asyncio.to_thread(read)
        except ConfigError as error:
            log.error("the %s read last stay in force: %s", what, error)
        else:
            log.info("%s", take(found))
