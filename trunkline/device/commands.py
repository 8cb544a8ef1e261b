"""`trunkline device` as plain async functions; the command line wires their options."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trunkline.agents.examples import example
from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.device.access import Gateway
from trunkline.device.listening import Listening
from trunkline.device.machine import DeviceStats, Machine, Tell, Terms
from trunkline.device.offline import OfflineAgent
from trunkline.device.playback import Playback
from trunkline.device.running import Device
from trunkline.device.sound import STDIN, Card, Ear, FileEar, Mouth, RawEar
from trunkline.device.suppression import NoiseSuppression
from trunkline.device.wakeword import DEFAULT_PHRASE, DEFAULT_THRESHOLD
from trunkline.errors import MissingExtra, ProviderError


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    gateway: Gateway
    token: str | None = field(default=None, repr=False)
    wake_word: str = DEFAULT_PHRASE
    threshold: float = DEFAULT_THRESHOLD
    detector: str = "pocketsphinx"
    ear: Path | None = None
    """A WAV file, or `-`: raw PCM on stdin. None: the microphone."""
    mouth: Path | None = None
    """The same for what is played. None: the loudspeaker."""
    card: str | None = None
    offline_agent: Path | None = None
    """None: the one that ships."""
    noise_suppression: bool = False
    terms: Terms = field(default_factory=Terms)


async def run_device(
    options: DeviceOptions, tell: Callable[[float, Tell], None], clock: Clock = SYSTEM_CLOCK
) -> DeviceStats:
    """Until the microphone ends, which a card's never does. Raises ConfigError, MissingExtra, ProviderError."""
    playback = Playback()
    async with contextlib.AsyncExitStack() as stack:
        suppression = NoiseSuppression() if options.noise_suppression else None
        if suppression is not None:
            stack.callback(suppression.close)
        mouth = Mouth(options.mouth) if options.mouth is not None else None
        if mouth is not None:
            stack.callback(mouth.close)
        machine = Machine(options.token, options.terms)
        device = Device(machine, options.gateway, playback, clock, tell, suppression=suppression, mouth=mouth)
        device.listening = Listening(options.detector, options.wake_word, options.threshold, device.woken)
        stack.push_async_callback(device.listening.close)
        await device.listening.start()
        await stack.enter_async_context(_offline(options, device, playback, clock))
        ear: Ear
        card = None
        if options.ear is None or options.mouth is None:
            card = Card(playback if mouth is None else None, microphone=options.ear is None, device=options.card)
            stack.callback(card.close)
        if options.ear is None:
            assert card is not None
            ear = card
        elif options.ear == STDIN:
            ear = RawEar(sys.stdin.buffer, clock, lambda: device.resting)
        else:
            ear = FileEar(options.ear, clock, lambda: device.resting)
        if options.ear != STDIN and sys.stdin is not None and sys.stdin.isatty():
            loop = asyncio.get_running_loop()

            def entered() -> None:
                sys.stdin.readline()
                device.press()

            loop.add_reader(sys.stdin, entered)
            stack.callback(loop.remove_reader, sys.stdin)
        await device.run(ear)
    return machine.stats


@contextlib.asynccontextmanager
async def _offline(
    options: DeviceOptions, device: Device, playback: Playback, clock: Clock
) -> AsyncGenerator[None, None]:
    """Without local speech the device is a device all the same, which has no answer where there is no gateway."""
    try:
        agent = OfflineAgent(
            options.offline_agent or example("offline"),
            playback,
            clock,
            device.offline_said,
            device.offline_over,
            device.offline_crashed,
        )
        await agent.start()
    except (MissingExtra, ProviderError) as error:
        device.say(Tell("mistake", f"nobody answers offline: {error}"))
        yield
        return
    device.offline = agent
    try:
        yield
    finally:
        await agent.close()


def as_line(at_s: float, line: Tell) -> str:
    marks = {"heard": "you:  ", "said": "agent:", "refused": "refused", "lost": "lost"}
    return f"{at_s:7.2f}  {marks.get(line.kind, line.kind)} {line.text}"


def as_json(at_s: float, line: Tell) -> str:
    return json.dumps({"at_s": round(at_s, 3), **asdict(line)}, ensure_ascii=False)


def stats_json(stats: DeviceStats) -> str:
    return json.dumps({"kind": "stats", **asdict(stats)})


__all__ = ["DEFAULT_THRESHOLD", "DeviceOptions", "Gateway", "Terms", "as_json", "as_line", "run_device", "stats_json"]
