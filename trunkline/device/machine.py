"""The device: what was heard and what came from the gateway in, what is to be done out. No sockets, no clock.

    ASLEEP ──wake word, button──► CONNECTING ──joined──► TALKING ──both silent, ended──► ASLEEP
                                     │    ▲                 │ the connection breaks
                                     │    └─────────────────┘ (its resume token; what is said meanwhile is kept)
                                     └── no gateway in time, refused ──► OFFLINE ──silent──► ASLEEP

Audio leaves only in TALKING, after `armed`, and begins where the wake word ended: what is said until the gateway has
answered waits in `_unsent`, all of it, and is then sent faster than it was spoken.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from trunkline.types import FRAME_MS, PCM_16K

FRAME_BYTES = PCM_16K.frame_bytes
RECENT_MS = 3000
"""Kept of what was heard before a hit: a detector that tells late has told within this."""
UNSENT_MS = 10_000
"""Kept while there is no gateway: longer than the longest wait for one. The oldest is dropped, and counted."""
CATCH_UP_FRAMES = 4
"""Sent for each that is heard, until nothing waits."""
RETRY_S = (0.0, 0.25, 0.5, 1.0)
"""Before the next try, the last again and again."""
ANSWER_S = 2.0
"""For a gateway to let us in, of each try."""
FIRST_PATIENCE_S = 3.0
PATIENCE_S = 5.0
"""Of a conversation that was broken off."""
QUIET_S = 6.0
"""Nobody says anything for so long: the conversation is over. Less than the agent's own first prompt, 7 s."""
PLAYED_MS = 100
ECHO_TAIL_S = 0.3
"""Half duplex: the room's echo of the last word."""
AGAIN = frozenset({"overloaded", "tenant_full", "draining", "sessions_away", "sessions_full", "no_region", "too_late"})
"""Refusals after which the same token is good."""


class State(Enum):
    ASLEEP = "asleep"
    CONNECTING = "connecting"
    TALKING = "talking"
    OFFLINE = "offline"


# --- what is to be done ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Open one; `joined`, `refused` or `unreachable` follows. `token` None: ask for a session, where we can."""

    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendAudio:
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Whatever there is of a connection. Nothing of it comes any more."""


@dataclass(frozen=True, slots=True)
class Play:
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class DropPlayback:
    """`sent_ms`: whom to tell how far it was, None: nobody."""

    sent_ms: int | None


@dataclass(frozen=True, slots=True)
class CountAnew:
    """Both sides count what is played from 0."""


@dataclass(frozen=True, slots=True)
class BeginOffline:
    """The agent that lives here answers."""


@dataclass(frozen=True, slots=True)
class HearOffline:
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class EndOffline:
    pass


@dataclass(frozen=True, slots=True)
class Tell:
    """A line for who looks on."""

    kind: Literal["state", "woken", "joined", "heard", "said", "refused", "lost", "mistake", "ended"]
    text: str


Effect = (
    Connect
    | Send
    | SendAudio
    | Disconnect
    | Play
    | DropPlayback
    | CountAnew
    | BeginOffline
    | HearOffline
    | EndOffline
    | Tell
)


@dataclass(slots=True)
class DeviceStats:
    woken: int = 0
    sent_frames: int = 0
    dropped_frames: int = 0
    """Said while there was no gateway, and never sent."""
    joined: int = 0
    resumed: int = 0
    lost: int = 0
    offline: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    quiet_s: float = QUIET_S
    half_duplex: bool = False
    asks: bool = False
    """Who has no token that is good can ask for a session."""


class Machine:
    """One device. Every method says what is to be done, in order."""

    def __init__(self, token: str | None = None, terms: Terms | None = None) -> None:
        """`token`: a join token for the first time; None: a session is asked for, or the gateway is open."""
        self.state = State.ASLEEP
        self.stats = DeviceStats()
        self.muted = False
        self._terms = terms or Terms()
        self._token = token
        self._recent: deque[bytes] = deque(maxlen=RECENT_MS // FRAME_MS)
        self.heard_samples = 0
        self._unsent: deque[bytes] = deque()
        self._armed: Mapping[str, Any] = {}
        self._tries = 0
        self._try_at: float | None = None
        """When the next connection is tried; None: one is under way, or none is wanted."""
        self._answer_by = 0.0
        self._patient_until = 0.0
        self._not_before = 0.0
        """The gateway said so."""
        self._active_at = 0.0
        self._agent_state = "idle"
        self._told_played_ms = 0
        self._played_until = 0.0

    # --- heard here ---

    def microphone(self, frame: bytes, now: float, *, playing: bool) -> list[Effect]:
        """20 ms. `playing`: the loudspeaker has something to play."""
        if playing:
            self._played_until = now + ECHO_TAIL_S
        if self.muted or (self._terms.half_duplex and now < self._played_until):
            frame = bytes(len(frame))
        self.heard_samples += len(frame) // 2
        self._recent.append(frame)
        if self.state is State.OFFLINE:
            return [HearOffline(frame)]
        if self.state is State.ASLEEP:
            return []
        self._keep(frame)
        return self._send_unsent() if self.state is State.TALKING else []

    def woken(self, now: float, phrase: str, ends_at: int, score: float | None = None) -> list[Effect]:
        """The wake word ended `ends_at` samples after the first that was heard."""
        armed: dict[str, Any] = {"type": "armed", "by": "wake_word", "wake_word": phrase}
        if score is not None:
            armed["score"] = score
        return self._wake(armed, max(0, self.heard_samples - ends_at), f"wake word: {phrase}", now)

    def button(self, now: float) -> list[Effect]:
        return self._wake({"type": "armed", "by": "button"}, 0, "button", now)

    def _wake(self, armed: Mapping[str, Any], since_samples: int, why: str, now: float) -> list[Effect]:
        if self.state is not State.ASLEEP:
            return []
        self.stats.woken += 1
        self._armed, self._tries = armed, 0
        self._unsent.clear()
        behind = b"".join(self._recent)
        behind = behind[len(behind) - min(len(behind), 2 * since_samples) :]
        for at in range(0, len(behind), FRAME_BYTES):
            self._keep(behind[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
        self._active_at, self._patient_until = now, now + FIRST_PATIENCE_S
        effects: list[Effect] = [Tell("woken", why)]
        if now < self._not_before:
            return [*effects, Tell("refused", "the gateway asked us to wait"), *self._go_offline(now)]
        return [*effects, *self._connect(now)]

    # --- from the gateway ---

    def joined(self, event: Mapping[str, Any], now: float) -> list[Effect]:
        if self.state is not State.CONNECTING:
            return []
        self.state, self._try_at, self._tries = State.TALKING, None, 0
        self._token = event.get("resume_token") or None
        resumed = bool(event.get("resumed"))
        self.stats.joined += 1
        self.stats.resumed += resumed
        self._active_at, self._agent_state, self._told_played_ms = now, "idle", 0
        told = f"session {event.get('session_id') or 'none'}, agent {event.get('agent', '?')}"
        return [
            CountAnew(),
            Tell("joined", told + ", resumed" * resumed),
            Send(self._armed),
            *self._send_unsent(),
        ]

    def message(self, event: Mapping[str, Any], now: float) -> list[Effect]:
        """Any other message of the gateway's."""
        if self.state is not State.TALKING:
            return []
        match event.get("type"):
            case "state":
                self._agent_state = str(event.get("state"))
                self._active_at = now
            case "heard":
                self._active_at = now
                if event.get("final"):
                    return [Tell("heard", str(event.get("text", "")))]
            case "saying":
                self._active_at = now
                if event.get("over") and event.get("text"):
                    return [Tell("said", str(event.get("text", "")) + " -" * bool(event.get("cut")))]
            case "clear":
                sent_ms = event.get("sent_ms")
                self._told_played_ms = sent_ms if isinstance(sent_ms, int) else self._told_played_ms
                return [DropPlayback(self._told_played_ms)]
            case "mistake":
                return [Tell("mistake", f"{event.get('code')}: {event.get('why')}")]
            case "ended":
                self._token = None if event.get("reason") not in ("media_lost", "drained") else self._token
                return [Tell("ended", str(event.get("reason"))), Disconnect(), *self._sleep()]
        return []

    def audio(self, pcm16: bytes, now: float) -> list[Effect]:
        if self.state is not State.TALKING:
            return []
        self._active_at = now
        return [Play(pcm16)]

    def refused(self, code: str, why: str, retry_after_s: float | None, now: float) -> list[Effect]:
        if self.state not in (State.CONNECTING, State.TALKING):
            return []
        if code in AGAIN:
            self._not_before = now + (retry_after_s or 0.0)
        elif self._token is not None:
            self._token = None
            if self._terms.asks and self.state is State.CONNECTING:
                return [Tell("refused", f"{code}: {why}"), Disconnect(), *self._connect(now)]
        return [Tell("refused", f"{code}: {why}"), Disconnect(), *self._go_offline(now)]

    def unreachable(self, why: str, now: float) -> list[Effect]:
        """A try has failed, or the connection is lost."""
        if self.state is State.TALKING:
            self.stats.lost += 1
            self.state = State.CONNECTING
            self._patient_until, self._tries = now + PATIENCE_S, 0
            self._try_at = now
            return [Tell("lost", why), Disconnect(), DropPlayback(None), *self.tick(now, playing=False, played_ms=0)]
        if self.state is not State.CONNECTING or self._try_at is not None:
            return []
        self._try_at = now + RETRY_S[min(self._tries, len(RETRY_S) - 1)]
        return [Disconnect(), *self.tick(now, playing=False, played_ms=0)]

    # --- time ---

    def tick(self, now: float, *, playing: bool, played_ms: int) -> list[Effect]:
        """Every 20 ms. `played_ms`: of what this connection has sent."""
        match self.state:
            case State.CONNECTING:
                if now >= self._patient_until:
                    return [Tell("lost", "the gateway cannot be reached"), Disconnect(), *self._go_offline(now)]
                if self._try_at is not None and now >= self._try_at:
                    return self._connect(now)
                if self._try_at is None and now >= self._answer_by:
                    return self.unreachable("no answer in time", now)
            case State.TALKING:
                effects: list[Effect] = []
                if played_ms - self._told_played_ms >= PLAYED_MS or (not playing and played_ms > self._told_played_ms):
                    self._told_played_ms = played_ms
                    effects.append(Send({"type": "played", "ms": played_ms}))
                if playing or self._agent_state in ("thinking", "speaking", "interrupted"):
                    self._active_at = now
                elif now - self._active_at >= self._terms.quiet_s:
                    return [*effects, Send({"type": "disarmed"}), Disconnect(), *self._sleep()]
                return effects
            case State.OFFLINE:
                if playing:
                    self._active_at = now
                elif now - self._active_at >= self._terms.quiet_s:
                    return [EndOffline(), *self._sleep()]
        return []

    def offline_active(self, now: float) -> None:
        """The agent that lives here hears or says something."""
        if self.state is State.OFFLINE:
            self._active_at = now

    def offline_over(self) -> list[Effect]:
        """It has hung up."""
        return [EndOffline(), *self._sleep()] if self.state is State.OFFLINE else []

    # --- pieces ---

    def _keep(self, frame: bytes) -> None:
        if len(self._unsent) >= UNSENT_MS // FRAME_MS:
            self._unsent.popleft()
            self.stats.dropped_frames += 1
        self._unsent.append(frame)

    def _send_unsent(self) -> list[Effect]:
        count = min(len(self._unsent), CATCH_UP_FRAMES)
        self.stats.sent_frames += count
        return [SendAudio(self._unsent.popleft()) for _ in range(count)]

    def _connect(self, now: float) -> list[Effect]:
        self.state, self._try_at = State.CONNECTING, None
        self._tries += 1
        self._answer_by = min(now + ANSWER_S, self._patient_until)
        return [Connect(self._token)]

    def _go_offline(self, now: float) -> list[Effect]:
        self.state, self._try_at, self._active_at = State.OFFLINE, None, now
        self.stats.offline += 1
        waiting = [HearOffline(frame) for frame in self._unsent]
        self._unsent.clear()
        return [DropPlayback(None), Tell("state", "offline"), BeginOffline(), *waiting]

    def _sleep(self) -> list[Effect]:
        self.state, self._armed = State.ASLEEP, {}
        self._try_at = None
        self._unsent.clear()
        return [Tell("state", "asleep")]
