"""Where providers come from: the entry points `trunkline.providers`, named `stt.NAME`, `llm.NAME`, `tts.NAME`,
`realtime.NAME`.

An entry point is a callable `(definition, options, services) -> Stt | Llm | Tts | Realtime`. Options are the agent
file's table less `provider`; a wrong one raises ConfigError. Nothing is imported until an agent names it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, cast

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.local.pool import SpeechPool
from trunkline.clock import Clock
from trunkline.errors import ConfigError
from trunkline.ports import Llm, Realtime, Stt, Tts

Kind = Literal["stt", "llm", "tts", "realtime"]


@dataclass(frozen=True, slots=True)
class Services:
    """What the process lends its providers."""

    clock: Clock
    keys: Mapping[str, str] = field(default_factory=dict)
    """API keys by provider name, from the settings; never logged."""
    speech_workers: int = 2
    """Size of the pool of local speech processes."""
    speech_pool: SpeechPool | None = None
    """The pool those providers share. None: a provider that needs one makes its own."""
    allow_private_addresses: bool = False
    """Whether an agent's `http` tool may call loopback and private networks."""


class ProviderFactory(Protocol):
    def __call__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> Any: ...


@dataclass(frozen=True, slots=True)
class Minds:
    """The three ports of one agent's cascade, not yet started."""

    stt: Stt
    llm: Llm
    tts: Tts

    async def start(self) -> None:
        """All or none: when one fails, those before it are closed again and its error is raised."""
        started: list[Stt | Llm | Tts] = []
        try:
            for provider in (self.stt, self.llm, self.tts):
                started.append(provider)  # one that failed may have begun something
                await provider.start()
        except BaseException:
            await _close(started)
            raise

    async def close(self) -> None:
        """Each of them, also when another fails at it; the first error is raised."""
        error = await _close((self.stt, self.llm, self.tts))
        if error is not None:
            raise error


async def _close(providers: Iterable[Stt | Llm | Tts]) -> Exception | None:
    first: Exception | None = None
    for provider in providers:
        try:
            await provider.close()
        except Exception as error:
            first = first or error
    return first


def load(kind: Kind, choice: ProviderChoice) -> ProviderFactory:
    """Raises ConfigError naming the providers there are, MissingExtra from the provider's own file."""
    found = {e.name: e for e in entry_points(group="trunkline.providers") if e.name.startswith(f"{kind}.")}
    entry = found.get(f"{kind}.{choice.provider}")
    if entry is None:
        known = ", ".join(sorted(name.partition(".")[2] for name in found))
        raise ConfigError(f"{kind}.provider", choice.provider, f"one of {known or 'none: no provider is installed'}")
    return cast(ProviderFactory, entry.load())


def build(definition: AgentDefinition, services: Services) -> Minds:
    return Minds(
        stt=load("stt", definition.stt)(definition, definition.stt.options, services),
        llm=load("llm", definition.llm)(definition, definition.llm.options, services),
        tts=load("tts", definition.tts)(definition, definition.tts.options, services),
    )


def build_realtime(definition: AgentDefinition, services: Services) -> Realtime | None:
    """Not yet started; None where the agent has none."""
    if definition.realtime is None:
        return None
    choice = definition.realtime.model
    return cast(Realtime, load("realtime", choice)(definition, choice.options, services))
