"""All `WS /ws/audio` sockets of the process: who is let in, what drives them, and the end of them."""

import asyncio
import secrets
from dataclasses import dataclass

from trunkline.clock import Clock
from trunkline.gateway.entering import Entrance, Origins
from trunkline.gateway.mediasocket import CLOSE_WAIT_S, SocketDesk
from trunkline.gateway.websocket.leg import WebSocketLeg
from trunkline.media.heartbeat import BEAT_S, Beats
from trunkline.media.playout import LeadPolicy
from trunkline.metrics import Metrics
from trunkline.ports import Refuse

WS_AUDIO_PATH = "/ws/audio"
_DRAINING = Refuse("draining", "the gateway is being stopped")


@dataclass(frozen=True, slots=True)
class AudioTerms:
    """Of all legs."""

    lead: LeadPolicy
    max_unauthenticated: int
    start_timeout_s: float
    media_timeout_s: float


class AudioSockets(SocketDesk[WebSocketLeg]):
    """The AudioDoor of this process."""

    def __init__(self, entrance: Entrance, origins: Origins, terms: AudioTerms, metrics: Metrics, clock: Clock) -> None:
        super().__init__(terms.max_unauthenticated, metrics, clock)
        self.origins = origins
        self._entrance, self._terms = entrance, terms
        self._entering: set[asyncio.Task[None]] = set()
        self._timer = Beats(clock, self._beat)

    def new_leg(self) -> WebSocketLeg:
        terms = self._terms
        return self._took(
            WebSocketLeg(
                self,
                self._clock,
                terms.lead,
                start_timeout_s=terms.start_timeout_s,
                media_timeout_s=terms.media_timeout_s,
            )
        )

    # --- AudioDoor ---

    def enter(self, leg: WebSocketLeg, token: str) -> None:
        task = asyncio.create_task(self._enter(leg, token), name="websocket entering")
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, leg: WebSocketLeg, token: str) -> None:
        if self._closed:
            leg.refuse(_DRAINING)
            return
        entered = await self._entrance.enter(token, "websocket", f"websocket-{secrets.token_hex(12)}")
        if isinstance(entered, Refuse):
            leg.refuse(entered)
            return
        leg.entered(entered)
        self._timer.start()

    # --- one timer ---

    def _beat(self, now: float) -> float | None:
        for leg in tuple(self._legs):
            leg.beat(now)
        return BEAT_S if self._legs else None

    # --- the end ---

    async def close(self) -> None:
        self.say_goodbye()
        if self._entering:
            await asyncio.wait(tuple(self._entering), timeout=CLOSE_WAIT_S)
        await super().close()
        self._timer.stop()
