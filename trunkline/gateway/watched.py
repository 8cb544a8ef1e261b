"""Tells the watchdog of this process's calls, once a second. Its loss is a warning, and it is started again."""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from trunkline.gateway.switchboard import Switchboard

log = logging.getLogger(__name__)

TELL_S = 1.0
AGAIN_S = 5.0


class Watched:
    def __init__(self, switchboard: Switchboard, hello: Mapping[str, Any]) -> None:
        """`hello`: Twilio's account, as watchdog.main reads it; by the pipe, so that no list of processes shows it."""
        self._board, self._hello = switchboard, hello
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="watched")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 2.0)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _keep(self) -> None:
        while True:
            try:
                await self._tell()
            except OSError as error:
                log.warning("the watchdog is gone (%s), and is started again", type(error).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _tell(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trunkline.gateway.twilio.watchdog",
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is the gateway's
        )
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(json.dumps(dict(self._hello)).encode() + b"\n")
        while True:
            pipe.write(json.dumps(self._board.lasting()).encode() + b"\n")
            await pipe.drain()
            await asyncio.sleep(TELL_S)
