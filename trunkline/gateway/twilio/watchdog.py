"""A process beside the gateway that ends calls when the gateway cannot: `python -m trunkline.gateway.twilio.watchdog`.

The gateway tells it once a second which calls it has and how long each may yet last. While nothing has been told for
STUCK_S (the process is stopped, or its loop is stuck), calls whose time is over are hung up at Twilio by REST. Calls of
other legs end with the process that carries them: it is killed, once the time of the last of them is over. When the
gateway is gone the pipe is, and so are we.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.clock import SYSTEM_CLOCK
from trunkline.gateway.twilio.account import Taken
from trunkline.types import CallSid

log = logging.getLogger("trunkline.watchdog")

STUCK_S = 5.0
SLACK_S = 2.0
"""That the gateway itself has, before a call's time counts as over."""
LOOK_S = 0.5
MAX_LINE_BYTES = 1 << 20


@dataclass(slots=True)
class Watch:
    """Plain. Times in seconds of one clock."""

    told_at: float
    ends_at: dict[str, float] = field(default_factory=dict)
    """By CallSid."""
    others_end_at: float | None = None
    """The last of those that are not Twilio's; None: there are none."""

    def told(self, calls: Mapping[str, float], others_s: float | None, now: float) -> None:
        self.told_at = now
        self.ends_at = {sid: now + left_s for sid, left_s in calls.items()}
        self.others_end_at = None if others_s is None else now + others_s

    def over(self, now: float) -> list[str]:
        """To be hung up."""
        if now - self.told_at < STUCK_S:
            return []
        return [sid for sid, at in self.ends_at.items() if now >= at + SLACK_S]

    def kills(self, now: float) -> bool:
        """The process is to be ended: it carries nothing else any more."""
        if now - self.told_at < STUCK_S or self.ends_at or self.others_end_at is None:
            return False
        return now >= self.others_end_at + SLACK_S


async def main() -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    hello = json.loads(await reader.readline())
    parent, account = os.getppid(), _account(hello) if hello["account_sid"] else None
    watch = Watch(SYSTEM_CLOCK.now())
    looking = asyncio.create_task(_look(watch, account, parent))
    while line := await reader.readline():
        told = json.loads(line)
        watch.told(told["calls"], told["others_s"], SYSTEM_CLOCK.now())
    looking.cancel()


def _account(hello: Mapping[str, Any]) -> Any:
    from trunkline.gateway.twilio.rest import TwilioRest

    return TwilioRest(
        hello["account_sid"],
        (hello["user"], hello["password"]),
        SYSTEM_CLOCK,
        region=hello["region"],
        edge=hello["edge"],
        api_url=hello["api_url"],
    )


async def _look(watch: Watch, account: Any, parent: int) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        now = SYSTEM_CLOCK.now()
        for sid in watch.over(now):
            ended = await account.end(CallSid(sid)) if account is not None else None
            log.error("the gateway is stuck: call %s was hung up at its limit: %s", sid, type(ended).__name__)
            if account is None or isinstance(ended, Taken):
                watch.ends_at.pop(sid, None)
        if watch.kills(now) and os.getppid() == parent:
            log.error("the gateway is stuck and its calls are over their limit: it is killed")
            os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
