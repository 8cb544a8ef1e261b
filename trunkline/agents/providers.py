"""Where providers come from: the entry points `trunkline.providers`, named `stt.NAME`, `llm.NAME`, `tts.NAME`,
`realtime.NAME`, `turn.NAME`.

An entry point is a callable `(definition, options, services) -> Stt | Llm | Tts | Realtime | TurnDetector`. Options are
the agent file's table less `provider`; a wrong one raises ConfigError. Nothing is imported until an agent names it. One
whose work is done by another process, also of this machine, says so by `elsewhere = True`: it may be away while we are
here.

A voice may offer `in_language(options, tag)`: its options where the agent speaks that language too, None where it
cannot speak it. (`agents/script/tongues.py` asks, when the file is read.)
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, cast

from trunkline.agents.definition import NO_DETECTOR, AgentDefinition, ProviderChoice
from trunkline.agents.discreet import discreet, discreet_realtime
from trunkline.agents.health import Health
from trunkline.agents.languages import primary
from trunkline.agents.local.pool import SpeechPool
from trunkline.clock import Clock
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import Llm, Realtime, Stt, Tts, TtsAudio, TurnDetector
from trunkline.privacy.calls import Policies
from trunkline.types import Format

Kind = Literal["stt", "llm", "tts"]
KINDS: tuple[Kind, ...] = ("stt", "llm", "tts")
LIFEBOAT: Mapping[Kind, str] = {"stt": "pocketsphinx", "llm": "script", "tts": "espeak"}
"""Of this machine: they need no account and no network."""

log = logging.getLogger(__name__)


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
    untold: Policies = field(default_factory=Policies)
    """What models of third parties are not told, by agent."""


class ProviderFactory(Protocol):
    def __call__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> Any: ...


@dataclass(frozen=True, slots=True)
class Minds:
    """The three ports of one agent's cascade, not yet started: the preferred provider of each, and who follows it."""

    stt: Stt
    llm: Llm
    tts: Tts
    spares: Mapping[Kind, tuple[Any, ...]] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    """Of every provider, shared by all calls."""
    keyed: Mapping[Kind, Mapping[str, Any]] = field(default_factory=dict)
    """Those of a kind by their keys, where the keys are not those of their names."""
    languages: Mapping[str, "Minds"] = field(default_factory=dict)
    """For the agent's further languages. A provider that serves several is the same in each, under one key."""
    lines: dict[tuple[str, str, Format], tuple[TtsAudio, ...]] = field(default_factory=dict)
    """The agent's fixed lines as the voices have spoken them, by the voice's key and the text (fixedlines.py)."""
    detector: TurnDetector | None = None
    """None: silence alone tells when a turn has ended."""

    @property
    def detector_key(self) -> str:
        return "" if self.detector is None else f"turn.{self.detector.name}"

    def named(self, kind: Kind) -> dict[str, Any]:
        """By their keys, in the order of preference: `llm.openai`, `llm.openai-2` for another of the same name, and
        `tts.openai.es-ES` for one that is asked in that language only."""
        if kind in self.keyed:
            return dict(self.keyed[kind])
        found: dict[str, Any] = {}
        for provider in (getattr(self, kind), *self.spares.get(kind, ())):
            found[_free_key(kind, provider.name, "", found)] = provider
        return found

    def in_language(self, tag: str) -> "Minds":
        return self.languages.get(tag, self)

    def everything(self, kind: Kind) -> dict[str, Any]:
        """Of all languages."""
        found = self.named(kind)
        for other in self.languages.values():
            found |= other.named(kind)
        return found

    def best(self, kind: Kind, now: float) -> Any:
        """For a use that is not worth switching in the middle."""
        named = self.named(kind)
        return named[self.health.order(list(named), now)[0]]

    def everyone(self) -> Iterator[Any]:
        for kind in KINDS:
            yield from self.everything(kind).values()
        if self.detector is not None:
            yield self.detector

    async def start(self, now: float = 0.0) -> None:
        """One of each kind must start, in each language, else all are closed again and the error of the preferred one
        is raised. Others that cannot start are asked last, and say so again when they are asked. Without its turn
        detector a call goes by silence."""
        started: list[Any] = []
        failed: dict[str, ProviderError] = {}
        try:
            for minds in (self, *self.languages.values()):
                for kind in KINDS:
                    await minds._start(kind, started, failed, now)
            if self.detector is not None:
                started.append(self.detector)
                await self._start_detector(self.detector, now)
        except BaseException:
            await _close(started)
            raise

    async def _start(self, kind: Kind, started: list[Any], failed: dict[str, ProviderError], now: float) -> None:
        first: ProviderError | None = None
        well = False
        for key, provider in self.named(kind).items():
            if any(provider is each for each in started):  # for another language
                first, well = first or failed.get(key), well or key not in failed
                continue
            started.append(provider)  # one that failed may have begun something
            try:
                await provider.start()
            except ProviderError as error:
                self.did_not_start(key, error, now)
                failed[key] = error
                first = first or error
            else:
                well = True
                if key in self.health.breakers:  # it did not at an earlier try
                    self.health.of(key).mended()
        if first is not None and not well:
            raise first

    async def _start_detector(self, detector: TurnDetector, now: float) -> None:
        try:
            await detector.start()
        except ProviderError as error:
            self.did_not_start(self.detector_key, error, now)

    def did_not_start(self, key: str, error: ProviderError, now: float) -> None:
        """For the log and the breaker of that key."""
        log.warning("%s did not start: %s", key, error)
        breaker = self.health.of(key)
        for _ in range(breaker.terms.failures):
            breaker.failed(error, now)

    async def close(self) -> None:
        """Each of them, also when another fails at it; the first error is raised."""
        error = await _close(self.everyone())
        if error is not None:
            raise error


def _free_key(kind: Kind, name: str, language: str, taken: Mapping[str, Any]) -> str:
    behind = f".{language}" if language else ""
    key, count = f"{kind}.{name}{behind}", 1
    while key in taken:
        count += 1
        key = f"{kind}.{name}-{count}{behind}"
    return key


async def _close(providers: Iterable[Any]) -> Exception | None:
    first: Exception | None = None
    for provider in providers:
        try:
            await provider.close()
        except Exception as error:
            first = first or error
    return first


def load(kind: Kind | Literal["realtime", "turn"], choice: ProviderChoice) -> ProviderFactory:
    """Raises ConfigError naming the providers there are, MissingExtra from the provider's own file."""
    found = {e.name: e for e in entry_points(group="trunkline.providers") if e.name.startswith(f"{kind}.")}
    entry = found.get(f"{kind}.{choice.provider}")
    if entry is None:
        known = ", ".join(sorted(name.partition(".")[2] for name in found))
        raise ConfigError(f"{kind}.provider", choice.provider, f"one of {known or 'none: no provider is installed'}")
    return cast(ProviderFactory, entry.load())


Wrap = Callable[[Kind | Literal["realtime"], str, Any], Any]
"""(kind, key, provider) -> the provider as it is used: `trunkline drill` stands before them."""


def build(definition: AgentDefinition, services: Services, wrap: Wrap | None = None) -> Minds:
    """Raises ConfigError, MissingExtra: also for a provider that only follows another."""
    made: dict[Kind, list[Any]] = {}
    for kind in KINDS:
        made[kind] = [_made(kind, choice, definition, services) for choice in definition.choices(kind)]
        lifeboat = _lifeboat(kind, definition, made[kind], services)
        if lifeboat is not None:
            made[kind].append(lifeboat)
    detector = _detector(definition, made["stt"], services)
    minds = _minds(made, detector)
    if wrap is not None:
        wrapped = {kind: [wrap(kind, key, each) for key, each in minds.named(kind).items()] for kind in KINDS}
        minds = _minds(wrapped, detector)
    languages = {
        tag: _in_language(tag, definition, minds, services, wrap or (lambda kind, key, provider: provider))
        for tag in definition.languages
    }
    return replace(minds, languages=languages) if languages else minds


def _made(kind: Kind, choice: ProviderChoice, definition: AgentDefinition, services: Services) -> Any:
    provider = load(kind, choice)(definition, choice.options, services)
    return discreet(provider, services.untold.of(definition.known_as)) if kind == "llm" else provider


def _minds(made: Mapping[Kind, list[Any]], detector: TurnDetector | None) -> Minds:
    spares: dict[Kind, tuple[Any, ...]] = {kind: tuple(made[kind][1:]) for kind in KINDS}
    return Minds(made["stt"][0], made["llm"][0], made["tts"][0], spares, detector=detector)


def free_text(stt: Any) -> bool:
    """It writes down whatever is said. One that knows a grammar says itself when a phrase of it is complete."""
    return bool(getattr(stt, "free_text", True))


def _detector(definition: AgentDefinition, ears: Iterable[Any], services: Services) -> TurnDetector | None:
    choice = definition.turn_detector
    if choice is None:
        english = definition.language.lower().startswith("en")
        choice = ProviderChoice("rules" if english and any(map(free_text, ears)) else NO_DETECTOR)
    if choice.provider == NO_DETECTOR:
        return None
    return cast(TurnDetector, load("turn", choice)(definition, choice.options, services))


def _in_language(tag: str, definition: AgentDefinition, minds: Minds, services: Services, wrap: Wrap) -> Minds:
    """Ears and minds are those of the first language where the file has no others: they are told, or find, what is
    spoken. A voice is one for each language."""
    spoken = definition.in_language(tag)
    keyed: dict[Kind, dict[str, Any]] = {}
    for kind in KINDS:
        theirs, ours = minds.named(kind), dict[str, Any]()
        known = definition.choices(kind)
        for choice in spoken.choices(kind):
            if kind != "tts" and choice in known:
                key = list(theirs)[known.index(choice)]
                ours[key] = theirs[key]
            else:
                of = definition if kind == "llm" else spoken  # a mind is told of all languages
                provider = _made(kind, choice, of, services)
                key = _free_key(kind, provider.name, tag, ours)
                ours[key] = wrap(kind, key, provider)
        for key in list(theirs)[len(known) :]:  # the lifeboat
            if kind != "tts" and _serves(kind, definition, spoken):
                ours[key] = theirs[key]
        if kind == "tts" and (lifeboat := _lifeboat(kind, spoken, list(ours.values()), services)) is not None:
            key = _free_key(kind, lifeboat.name, tag, ours)
            ours[key] = wrap(kind, key, lifeboat)
        keyed[kind] = ours
    ranked = {kind: list(providers.values()) for kind, providers in keyed.items()}
    return replace(_minds(ranked, minds.detector), health=minds.health, keyed=keyed)


def _serves(kind: Kind, definition: AgentDefinition, spoken: AgentDefinition) -> bool:
    """Whether the lifeboat of the first language is one in this, too."""
    if kind == "llm":
        return definition.script.get("intents") != spoken.script.get("intents") or _english(spoken)
    return _english(spoken)


def _english(definition: AgentDefinition) -> bool:
    return primary(definition.language) == "en"


def _lifeboat(kind: Kind, definition: AgentDefinition, made: list[Any], services: Services) -> Any:
    """Behind providers of other processes, where it would be of use: the script must have something to say, and its
    words must be the caller's. None where it is not installed."""
    choices = [choice.provider for choice in definition.choices(kind)]
    name = LIFEBOAT[kind]
    if not definition.failover.lifeboat or name in choices or not any(map(elsewhere, made)):
        return None
    if kind != "tts" and not definition.script.get("intents"):
        return None
    if kind == "stt" and not _english(definition):
        return None
    try:
        provider = load(kind, ProviderChoice(name))
        in_language = getattr(provider, "in_language", None)
        if in_language is not None and in_language({}, definition.language) is None:
            return None
        return provider(definition, {}, services)
    except (MissingExtra, ImportError, ConfigError) as error:
        log.warning("no lifeboat for %s: %s", kind, error)
        return None


def build_llm(definition: AgentDefinition, choice: ProviderChoice, services: Services) -> Llm:
    """A mind alone, not yet started. Raises ConfigError, MissingExtra."""
    return cast(Llm, _made("llm", choice, definition, services))


def build_summariser(definition: AgentDefinition, services: Services) -> Llm | None:
    """Of `[context.llm]`, not yet started; None where the agent has none of its own."""
    choice = definition.context.llm if definition.context is not None else None
    return None if choice is None else cast(Llm, _made("llm", choice, definition, services))


def elsewhere(provider: Any) -> bool:
    """Its work is done by another process, perhaps of this machine."""
    return bool(getattr(provider, "elsewhere", provider.third_party))


def build_realtime(definition: AgentDefinition, services: Services, wrap: Wrap | None = None) -> Realtime | None:
    """Not yet started; None where the agent has none."""
    if definition.realtime is None:
        return None
    choice = definition.realtime.model
    made = cast(Realtime, load("realtime", choice)(definition, choice.options, services))
    made = discreet_realtime(made, services.untold.of(definition.known_as))
    return made if wrap is None else cast(Realtime, wrap("realtime", f"realtime.{made.name}", made))
