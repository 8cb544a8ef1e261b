"""One call as its caller lives it: the carrier, the script and the measurements together. A plain core.

An edge writes `open()`, then calls `tick(now)` every 20 ms and `receive(data, now)` for every message or packet, and
writes what they return. When `ended` is set the edge sends what was returned and closes (`vanish`: without a close).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.testing.caller.answers import Answer
from trunkline.testing.caller.script import (
    KEY_GAP_MS,
    Action,
    FallSilent,
    HangUp,
    Keys,
    Listen,
    ListenInto,
    Pause,
    Speak,
    Vanish,
)
from trunkline.testing.caller.speech import Mouth, Speech
from trunkline.testing.caller.turns import Turns
from trunkline.testing.caller.wire import Cleared, Invalid, Marked, Media, Wire

QUIET_AFTER_END_MS = 100  # an answer shorter than asked for has ended: barge in now rather than never

End = Literal["hung_up", "vanished", "no_answer", "server_closed", "server_lost", "max_duration"]
Kind = Literal["agent", "agent_done", "caller", "keys", "clear", "gap", "invalid", "ended"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the live view."""

    at: float
    kind: Kind
    text: str
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """From `at_ms` of the call the network holds what the caller sends for `hold_ms`, then delivers it in a burst."""

    at_ms: int
    hold_ms: int


def _ignore(event: Event) -> None:
    pass


class Line:
    def __init__(
        self,
        carrier: Wire,
        actions: Iterable[Action],
        mouth: Mouth,
        *,
        stalls: Sequence[Stall] = (),
        max_duration_s: float = 600.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`actions` hold Speak, not Say or Wav; they are taken one by one, each when the one before is done."""
        self.carrier, self.turns = carrier, Turns()
        self.ended: End | None = None
        self.sent: list[bytes] = []
        """The caller's frames as the mouth made them, one a tick, where the carrier keeps audio."""
        self._actions: Iterator[Action] = iter(actions)
        self._mouth, self._stalls = mouth, list(stalls)
        self._max_duration_s, self._emit, self._live = max_duration_s, on_event or _ignore, on_event is not None
        self._action: Action | None = None
        self._since = 0.0  # now when the current action began
        self._heard_at = 0.0  # now when the agent was last heard
        self._acted_answers = 0  # answers there were when the caller last acted
        self._speech: Speech | None = None
        self._at = 0  # frame of _speech, or digit of the keys
        self._next_key_at = 0.0
        self._held: list[bytes] = []
        self._hold_until = 0.0
        self._muted = False
        self._announced: Answer | None = None

    @property
    def waiting(self) -> bool:
        return isinstance(self._action, Listen | ListenInto)

    @property
    def action(self) -> Action | None:
        return self._action

    def hang_up(self) -> None:
        """At the next tick, whatever the caller is doing."""
        self._actions, self._action, self._speech = iter(()), HangUp(), None

    def open(self, now: float) -> list[bytes]:
        self.turns.started_at = now
        self._next(now)
        return self.carrier.opening()

    # --- the agent ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | str, now: float) -> list[bytes]:
        received = self.carrier.receive(data, now)
        if type(received) is Media:
            if received.audible:
                answered = self.turns.awaiting
                self.turns.media(now)
                if self._live:
                    self._announce(now, answered)
        elif type(received) is Marked:
            return received.replies
        elif type(received) is Cleared:
            self._cut(now, now, received.cut)
            return received.replies
        elif type(received) is Invalid and self._live:
            self._emit(Event(now, "invalid", received.why))
        return []

    def _announce(self, now: float, awaited: bool) -> None:
        if self.carrier.current is self._announced:
            return
        self._announced, turn = self.carrier.current, self.turns.current
        if awaited and turn is not None:
            self._emit(Event(now, "agent", "answers", turn.latency_ms))
        elif turn is None and self.turns.started_at is not None:
            self._emit(Event(now, "agent", "greets", (now - self.turns.started_at) * 1000))
        else:
            self._emit(Event(now, "agent", "speaks"))

    # --- the tick -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[bytes]:
        """20 ms: hear a frame, act, send a frame."""
        carrier = self.carrier
        out = carrier.tick(now)
        if carrier.playing:
            self._heard_at = now
        else:
            self._silent(now)
        if self.turns.started_at is not None and now - self.turns.started_at > self._max_duration_s:
            self._end("max_duration", now, out)
        if self._speech is None and self.ended is None:
            self._act(now, out)
        if self.ended is not None:
            return self._held + out if self._held else out
        if not self._muted:
            self._send_frame(now, out)
        return self._hold(now, out) if self._stalls or self._held else out

    def _silent(self, now: float) -> None:
        carrier, turns = self.carrier, self.turns
        if carrier.clears or not turns.interrupted_since(carrier.silent_since):
            turns.dry(carrier.silent_since)
        else:
            self._cut(now, carrier.silent_since, carrier.cut_off(carrier.silent_since))
        if self._live and carrier.just_ended and carrier.current is not None:
            self._emit(Event(now, "agent_done", f"{carrier.current.heard_ms} ms"))

    def _cut(self, now: float, at: float, cut: Answer | None) -> None:
        self.turns.cleared(at, cut)
        if self._live:
            turn = self.turns.current
            heard = f"{cut.heard_ms} ms heard" if cut else "nothing was playing"
            self._emit(Event(now, "clear", heard, turn.barge_in_ms if turn else None))

    def _send_frame(self, now: float, out: list[bytes]) -> None:
        speech, at = self._speech, self._at
        payload = self._mouth.frame(speech, at, self.carrier.heard)
        out.append(self.carrier.media(payload))
        if self.carrier.keep_audio:
            self.sent.append(payload)
        if speech is None:
            return
        if speech.first <= at <= speech.last:
            self.turns.speech_sent(max(now, self._hold_until), self.carrier)
            if at == speech.last:
                self.turns.end()
                self.carrier.caller_spoke()  # now: a quick answer comes before the silence after the words is sent
        self._at += 1
        if self._at == len(speech.frames):
            self._speech = None
            self._next(now)

    def _next(self, now: float) -> None:
        self._action = next(self._actions, None)
        self._since, self._at = now, 0

    def _act(self, now: float, out: list[bytes]) -> None:
        match self._action:
            case Listen() as action:
                self._listen(action, now, out)
            case ListenInto() as action:
                self._listen_into(action, now, out)
            case Pause(ms):
                if (now - self._since) * 1000 >= ms:
                    self._next(now)
            case Speak(speech):
                self._speech, self._at = speech, 0
                self.turns.begin(speech.label)
                self._acted_answers = len(self.carrier.answers)
                self._emit(Event(now, "caller", speech.label))
            case Keys(digits):
                self._key(digits, now, out)
            case FallSilent(ms):
                self._muted = True
                if (now - self._since) * 1000 >= ms:
                    self._next(now)
            case Vanish():
                self._end("vanished", now, out)
            case HangUp() | None:
                self._end("hung_up", now, out)
            case unresolved:
                raise TypeError(f"{unresolved} must become Speak before the call")

    def _listen(self, action: Listen, now: float, out: list[bytes]) -> None:
        carrier = self.carrier
        if self._answered() and not carrier.playing and carrier.dry_ms >= action.quiet_ms:
            self._next(now)
        elif now - max(self._since, self._heard_at) > action.timeout_s:
            self._end("no_answer", now, out)

    def _listen_into(self, action: ListenInto, now: float, out: list[bytes]) -> None:
        current = self.carrier.current
        if not self._answered() or current is None:
            if now - self._since > action.timeout_s:
                self._end("no_answer", now, out)
        elif current.heard_ms >= action.ms or self.carrier.dry_ms >= QUIET_AFTER_END_MS:
            self._next(now)
            self._act(now, out)

    def _answered(self) -> bool:
        """The agent has answered the caller's last act (before the first: it has spoken)."""
        turn = self.turns.current
        if turn is None:
            return self.turns.greeted_at is not None
        return turn.answered_at is not None or (turn.talked_over and len(self.carrier.answers) > self._acted_answers)

    def _key(self, digits: str, now: float, out: list[bytes]) -> None:
        if self._at == 0:
            self.turns.begin(digits, keyed=True)
            self._acted_answers = len(self.carrier.answers)
            self._emit(Event(now, "keys", digits))
        if self._at and now < self._next_key_at:
            return
        out += self.carrier.dtmf(digits[self._at])
        self.turns.speech_sent(max(now, self._hold_until), self.carrier)
        self._next_key_at = now + KEY_GAP_MS / 1000
        self._at += 1
        if self._at == len(digits):
            self.turns.end()
            self.carrier.caller_spoke()
            self._next(now)

    # --- ends and trouble -----------------------------------------------------------------------------------------

    def _hold(self, now: float, out: list[bytes]) -> list[bytes]:
        started = self.turns.started_at or now
        if self._stalls and (now - started) * 1000 >= self._stalls[0].at_ms:
            self._hold_until = now + self._stalls.pop(0).hold_ms / 1000
        if now < self._hold_until:
            self._held += out
            return []
        held, self._held = self._held, []
        return held + out

    def _end(self, reason: End, now: float, out: list[bytes]) -> None:
        if self.ended is None:
            self.ended = reason
            if reason != "vanished":
                out += self.carrier.stop()
            self._emit(Event(now, "ended", reason))

    def closed(self, now: float, *, clean: bool) -> None:
        """The server has closed the stream (or the connection is gone). Idempotent."""
        if self.ended is None:
            self.ended = "server_closed" if clean else "server_lost"
            self._emit(Event(now, "ended", self.ended))
