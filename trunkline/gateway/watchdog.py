"""A process beside the gateway that ends calls when the gateway cannot: `python -m trunkline.gateway.watchdog`.

The gateway tells it once a second which calls it has, how long each may yet last, and by what its far ends can be told
that it is over: Twilio's CallSid, or what a BYE takes. While nothing has been told for STUCK_S (the process is stopped,
or its loop is stuck), calls whose time is over are hung up: at Twilio by REST, over SIP by a BYE from the gateway's own
socket. Other legs end with the process that carries them: it is killed once the time of the last call is over.

When the pipe ends without the last word (`{"over": true}`) the gateway has died: the far ends of its SIP calls hear so
at once. Twilio notices by itself. Then, and when all is well, the watchdog ends too.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import PeerError
from trunkline.gateway.sip import farewell as f
from trunkline.types import CallSid

log = logging.getLogger("trunkline.watchdog")

STUCK_S = 5.0
SLACK_S = 2.0
"""That the gateway itself has, before a call's time counts as over."""
LOOK_S = 0.5
MAX_LINE_BYTES = 1 << 22
BYE_AT_S = (0.0, 0.5, 1.0)
"""Pauses before each BYE over UDP (RFC 3261 17.1.2.2, cut short): nobody reads the answers, which are the gateway's."""
TCP_S = 2.0
RESOLVE_S = 2.0


@dataclass(slots=True)
class WatchedCall:
    """One call."""

    ends_at: float
    sid: str = ""
    """Twilio's; empty: it is none of Twilio's."""
    dialogs: tuple[str, ...] = ()
    """Of SIP, by name."""
    byes_sent: bool = False


@dataclass(slots=True)
class Watch:
    """Plain. Times in seconds of one clock."""

    told_at: float
    calls: dict[str, WatchedCall] = field(default_factory=dict)
    farewells: dict[str, f.Farewell] = field(default_factory=dict)
    """By the name of their dialog."""

    def told(self, calls: Mapping[str, Mapping[str, Any]], farewells: Mapping[str, Any], now: float) -> None:
        """`calls`: left_s, sid and dialogs by id; `farewells`: those that are new or have changed."""
        self.told_at = now
        self.calls = {
            call_id: WatchedCall(now + told["left_s"], told.get("sid", ""), tuple(told.get("dialogs", ())))
            for call_id, told in calls.items()
        }
        known = {name for call in self.calls.values() for name in call.dialogs}
        fresh = {name: f.from_told(told) for name, told in farewells.items()}
        self.farewells = {name: each for name, each in (self.farewells | fresh).items() if name in known}

    def over(self, now: float) -> list[str]:
        """Calls whose time is over and that nobody else ends."""
        if now - self.told_at < STUCK_S:
            return []
        return [call_id for call_id, call in self.calls.items() if now >= call.ends_at + SLACK_S]

    def byes(self, call_id: str) -> list[f.Farewell]:
        """Of a call that is over, once."""
        call = self.calls[call_id]
        if call.byes_sent:
            return []
        call.byes_sent = True
        return [self.farewells[name] for name in call.dialogs if name in self.farewells]

    def all_byes(self) -> list[f.Farewell]:
        """The gateway is gone."""
        return [each for call_id in self.calls for each in self.byes(call_id)]

    def ended(self, call_id: str) -> None:
        """Twilio has hung it up."""
        self.calls.pop(call_id, None)

    def left_to_us(self, call_id: str) -> None:
        """Nobody can ask Twilio to hang it up: it ends with the process that carries it."""
        if (call := self.calls.get(call_id)) is not None:
            call.sid = ""

    def kills(self, now: float) -> bool:
        """The process is to be ended: what it carries is over, and Twilio's calls are hung up."""
        stuck = now - self.told_at >= STUCK_S and bool(self.calls)
        return stuck and all(not call.sid and now >= call.ends_at + SLACK_S for call in self.calls.values())


async def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # they are the gateway's; we go when it has gone
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    hello = json.loads(await reader.readline())
    parent, account = os.getppid(), _account(hello) if hello["account_sid"] else None
    watch, goodbyes = Watch(SYSTEM_CLOCK.now()), Goodbyes(hello.get("sip_fd"))
    looking = asyncio.create_task(_look(watch, account, goodbyes, parent))
    over = False
    while line := await reader.readline():
        told = json.loads(line)
        if over := "over" in told:
            break
        watch.told(told["calls"], told["farewells"], SYSTEM_CLOCK.now())
    looking.cancel()
    if not over and (left := watch.all_byes()):
        log.error("the gateway is gone: BYE for %d SIP dialogs it had", len(left))
        await goodbyes.say(left, last=True)


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


async def _look(watch: Watch, account: Any, goodbyes: "Goodbyes", parent: int) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        over = watch.over(SYSTEM_CLOCK.now())
        left = [each for call_id in over for each in watch.byes(call_id)]
        if left:
            log.error("the gateway is stuck: BYE for %d SIP dialogs whose calls are over their limit", len(left))
        sids = {watch.calls[call_id].sid: call_id for call_id in over if watch.calls[call_id].sid}
        await asyncio.gather(goodbyes.say(left), *(_hang_up(watch, account, sid, sids[sid]) for sid in sids))
        if watch.kills(SYSTEM_CLOCK.now()) and os.getppid() == parent:
            log.error("the gateway is stuck and its calls are over their limit: it is killed")
            os.kill(parent, signal.SIGKILL)


async def _hang_up(watch: Watch, account: Any, sid: str, call_id: str) -> None:
    from trunkline.gateway.twilio.account import Taken

    if account is None:
        watch.left_to_us(call_id)
        return
    ended = await account.end(CallSid(sid))
    log.error("the gateway is stuck: call %s was hung up at its limit: %s", sid, type(ended).__name__)
    if isinstance(ended, Taken):
        watch.ended(call_id)


class Goodbyes:
    """Sends BYEs, whatever becomes of them."""

    def __init__(self, sip_fd: int | None) -> None:
        """`sip_fd`: the gateway's own UDP socket, inherited: its far ends know it."""
        self._socket = socket.socket(fileno=sip_fd) if sip_fd is not None else None

    async def say(self, dialogs: Sequence[f.Farewell], *, last: bool = False) -> None:
        """`last`: let go of the gateway's socket after the first round, for the gateway that is started next."""
        if not dialogs:
            return
        sending = [self._prepared(dialog) for dialog in dialogs]
        ready = [each for each in await asyncio.gather(*sending) if each is not None]
        streams = [self._over_tcp(hop, request) for hop, _, request in ready if hop.transport == "tcp"]
        tcp = asyncio.gather(*streams)
        for pause_s in BYE_AT_S:
            await asyncio.sleep(pause_s)
            for hop, address, request in ready:
                if hop.transport == "udp":
                    self._send(address, request)
            if last and self._socket is not None:
                self._socket.close()
                self._socket = None
        await tcp

    async def _prepared(self, dialog: f.Farewell) -> tuple[f.Hop, Any, bytes] | None:
        try:
            hop = f.next_hop(dialog)
            if hop.transport == "tls":
                raise PeerError("a dialog over TLS ends with its connection")
            kind = socket.SOCK_DGRAM if hop.transport == "udp" else socket.SOCK_STREAM
            async with asyncio.timeout(RESOLVE_S):
                loop = asyncio.get_running_loop()
                family = self._socket.family if self._socket is not None and hop.transport == "udp" else 0
                found = await loop.getaddrinfo(hop.host, hop.port, type=kind, family=family)
            address = found[0][4]
            sent_by = _sent_by(address, found[0][0], self._socket if hop.transport == "udp" else None)
        except (OSError, TimeoutError, PeerError) as error:
            log.error("no BYE for a dialog: %s", str(error) or "its far end's name is not found")
            return None
        return hop, address, f.bye(dialog, hop, sent_by, secrets.token_hex(8))

    def _send(self, address: Any, request: bytes) -> None:
        try:
            if self._socket is not None:
                self._socket.sendto(request, socket.MSG_DONTWAIT, address)
                return
            with socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_DGRAM) as ours:
                ours.sendto(request, address)
        except OSError as error:
            log.error("a BYE was not sent: %s", error.strerror)

    async def _over_tcp(self, hop: f.Hop, request: bytes) -> None:
        try:
            async with asyncio.timeout(TCP_S):
                reader, writer = await asyncio.open_connection(hop.host, hop.port)
                writer.write(request)
                await reader.readline()
                writer.close()
        except (OSError, TimeoutError) as error:
            log.error("a BYE over TCP was not answered (%s)", type(error).__name__)


def _sent_by(address: Any, family: int, ours: socket.socket | None) -> str:
    """Where the far end would see us, without sending anything."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        host, port = probe.getsockname()[:2]
    if ours is not None:
        bound, port = ours.getsockname()[:2]
        host = host if ip_address(bound).is_unspecified else bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
