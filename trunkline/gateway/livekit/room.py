"""A LiveKit room as its visitor and the leg see it: one device's participant, audio of 8 kHz, messages. `rtc.py` is the
real one, and alone knows the SDK."""

from typing import Protocol

EVENTS_TOPIC = "events"
AGENT_IDENTITY = "agent/trunkline"  # a device's id has no slash: none can take our place


class RoomError(Exception):
    """The room was not entered. Its text holds no token."""


class RoomSink(Protocol):
    """Told by a room. Methods return at once and do not raise."""

    def entered(self) -> None:
        """The device's participant is there."""
        ...

    def departed(self, why: str, *, in_order: bool) -> None:
        """It is not any more. `in_order`: it has left, or was taken out; else it was lost."""
        ...

    def hears(self) -> None:
        """It has subscribed to our track."""
        ...

    def microphone(self, on: bool) -> None:
        """Its microphone's audio comes from now on, or no more."""
        ...

    def audio(self, pcm16: bytes) -> None:
        """20 ms of it, 8 kHz, mono."""
        ...

    def message(self, data: bytes) -> None:
        """Of the topic "events"."""
        ...

    def gone(self, why: str) -> None:
        """The room is, for us: deleted, or not reached any more after all that the SDK tries. Once, unless we closed
        it."""
        ...


class RoomWire(Protocol):
    async def enter(self, url: str, token: str, device_id: str, sink: RoomSink) -> None:
        """Our track is published while the device is there. Raises RoomError. Whoever gives up waiting closes it."""
        ...

    def play(self, pcm16: bytes) -> bool:
        """8 kHz, mono, behind what is queued already. False: what is queued is not taken."""
        ...

    def clear(self) -> None:
        """What is queued is not played."""
        ...

    def tell(self, message: str) -> bool:
        """To the device, on the topic "events". False: too many wait, and this is dropped."""
        ...

    def close(self, linger_s: float = 0.0) -> None:
        """Idempotent; returns at once. `gone` does not follow. `linger_s`: what was sent may be heard so long."""
        ...

    async def closed(self) -> None:
        """Wait until nothing is left of it, some seconds at most."""
        ...
