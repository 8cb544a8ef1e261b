"""Tells the watchdog of this process's calls, once a second, and at once of a SIP dialog that is new or has moved. Its
loss is a warning, and it is started again."""

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from trunkline.gateway.sip.farewell import Farewell
from trunkline.gateway.switchboard import Switchboard
from trunkline.types import CallId

log = logging.getLogger(__name__)

TELL_S = 1.0
LOOK_S = 0.2
"""For dialogs that are new."""
AGAIN_S = 5.0

Farewells = Callable[[], Mapping[str, tuple[CallId, Farewell]]]
"""By the name of the dialog: whose it is, and what its BYE takes."""


class Watched:
    def __init__(
        self,
        switchboard: Switchboard,
        hello: Mapping[str, Any],
        farewells: Farewells | None = None,
        sip_address: tuple[str, int] | None = None,
    ) -> None:
        """`hello`: Twilio's account, as watchdog.main reads it; by the pipe, so that no list of processes shows it.
        `sip_address`: of the UDP socket that the watchdog shares."""
        self._board, self._hello = switchboard, hello
        self._farewells, self._sip_address = farewells or dict, sip_address
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="watched")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._let_go()

    async def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.write(b'{"over": true}\n')
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
            except Exception as error:  # whatever it is: to be silent is to be stuck
                log.warning("the watchdog is not told (%s), and is started again", type(error).__name__)
                await self._let_go()
            await asyncio.sleep(AGAIN_S)

    async def _tell(self) -> None:
        fd = None if self._sip_address is None else await asyncio.to_thread(udp_socket, *self._sip_address)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trunkline.gateway.watchdog",
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is the gateway's
            pass_fds=() if fd is None else (fd,),
        )
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(json.dumps({**self._hello, "sip_fd": fd}).encode() + b"\n")
        known: Mapping[str, tuple[CallId, Farewell]] = {}
        while True:
            now = self._farewells()
            pipe.write(json.dumps(self._told(now, known)).encode() + b"\n")
            known = now
            await pipe.drain()
            for _ in range(round(TELL_S / LOOK_S)):
                await asyncio.sleep(LOOK_S)
                if self._farewells() != known:
                    break

    def _told(
        self, now: Mapping[str, tuple[CallId, Farewell]], known: Mapping[str, tuple[CallId, Farewell]]
    ) -> dict[str, Any]:
        """As watchdog.Watch is told."""
        calls = self._board.lasting()
        for name, (call_id, _) in now.items():
            if call_id in calls:
                calls[call_id].setdefault("dialogs", []).append(name)
        fresh = {name: each.told() for name, (_, each) in now.items() if known.get(name, (None, None))[1] is not each}
        return {"calls": calls, "farewells": fresh}


def udp_socket(host: str, port: int) -> int | None:
    """Of this process, by the address it is bound to: PJSIP does not tell."""
    for name in os.listdir("/dev/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:
            continue
        try:
            found = socket.socket(fileno=copy)
        except OSError:  # no socket
            os.close(copy)
            continue
        with found, suppress(OSError):
            if found.type == socket.SOCK_DGRAM and found.getsockname()[:2] == (host, port):
                return int(name)
    return None
