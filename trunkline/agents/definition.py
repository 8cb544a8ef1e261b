"""What an admin writes about an AI agent, as values. `agents/script/` reads it from a TOML file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

NO_DETECTOR = "none"
"""As a turn detector's provider: silence alone tells."""


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """`[stt]`, `[llm]` or `[tts]` of the agent's file, or one of several `[[llm]]`: which provider, and its options."""

    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnTaking:
    """When the caller has finished, and when the line is dead. `[turns]` of the agent's file."""

    endpointing_min_ms: int = 200
    """Silence after a phrase the detector is sure of."""
    endpointing_ms: int = 600
    """Silence after words that may go on."""
    endpointing_max_ms: int = 3000
    no_input_ms: int = 7000
    """Silence after the agent has finished: a prompt, twice, then goodbye."""
    digit_gap_ms: int = 3000
    """After this long without a further key, what was keyed is the entry."""
    max_duration_s: int = 1800
    reply_deadline_ms: int = 10000
    """Without a first audio by then the agent apologises and asks again."""
    filler_after_ms: int = 1500
    """Silence after the caller's turn until a `filler` is spoken."""
    speculate: bool = False
    """The model is asked while the end of the turn is still awaited, once the words seem whole."""


@dataclass(frozen=True, slots=True)
class Failover:
    """When the next provider of a list is asked, and what becomes of a call when none is left. `[failover]`."""

    first_word_ms: int = 2000
    """Without a first word of the model by then."""
    first_audio_ms: int = 700
    """Without a first sound of the voice."""
    stall_ms: int = 1000
    """Without more of either, once it has begun."""
    final_ms: int = 1500
    """Without the recogniser's final."""
    lifeboat: bool = True
    """Providers of other processes are followed by those of this one, where they are installed and the file has
    intents."""
    last_resort: Literal["hang_up", "transfer", "message"] = "hang_up"
    """The one way out, when nothing works any more: after `failure`, or the words it has for that."""
    target: str | None = None
    """Of `transfer`: a name of `targets`."""
    words: str = ""
    """Of `transfer`: spoken in place of `failure`."""
    message: str = "Please leave a message now, and hang up when you are done."
    """Of `message`: what callers are asked."""
    message_s: int = 60
    """And how long they may speak."""


@dataclass(frozen=True, slots=True)
class TransferTerms:
    """How callers are put through to a target. `[targets.NAME]` of the agent's file; docs/transfer.md says what each
    means."""

    kind: Literal["auto", "blind", "attended", "bridged", "warm"] = "auto"
    summary: str = ""
    """What a representative hears first. Empty: what the caller said last."""
    prompt: str = ""
    """How they are asked to take the call. Empty: ours."""
    ring_s: int = 30
    fallback: str | None = None
    """The target that is tried when nobody is reached here."""
    after_target: Literal["end_call", "resume"] = "end_call"
    """When the representative hangs up first: the call ends, or the caller is with the agent again."""
    detect_voicemail: bool = True
    """Whom we dial ourselves is listened to: a machine does not keep the caller."""


@dataclass(frozen=True, slots=True)
class RealtimeTerms:
    """`[realtime]` of the agent's file: one model that hears, thinks and speaks, in place of the cascade."""

    model: ProviderChoice
    turns: Literal["ours", "server"] = "ours"
    """Who decides when the caller has finished, and when the agent is interrupted."""
    lines: Literal["model", "tts"] = "model"
    """Who speaks the fixed lines of the file."""
    session_minutes: int = 55
    """A session is replaced by a new one before the provider ends it."""
    first_audio_ms: int = 3000
    """The longest wait for an answer to begin; another session is asked then, and after it the cascade."""
    reconnect_ms: int = 6000
    """The longest time without a session, from the call's beginning or from its loss."""
    fallback: bool = True
    """When the model is lost, the call goes on with the cascade of the same file."""


@dataclass(frozen=True, slots=True)
class HandOff:
    """`[agents.NAME]` of the agent's file: another agent that goes on with the call when this one hands it over."""

    file: str
    """Of that agent; absolute where the definition was loaded from a file."""
    when: str
    """What it is for: read by the model that decides."""
    greeting: str = ""
    """Its first line then. Empty: it answers what the caller said last."""
    summary: str = ""
    """What it is told before the conversation."""


@dataclass(frozen=True, slots=True)
class ContextTerms:
    """`[context]` of the agent's file: of a long conversation the beginning is told to the model as a summary."""

    max_tokens: int = 3000
    """Of the conversation, without instructions and tools."""
    keep_messages: int = 16
    """The latest, told whole where they are not far too long."""
    deadline_ms: int = 15_000
    """For a summary; without one by then another is asked for after the next turn."""
    llm: ProviderChoice | None = None
    """Who summarises; None: the agent's own model."""


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    name: str
    stt: ProviderChoice
    llm: ProviderChoice
    tts: ProviderChoice
    greeting: str
    goodbye: str = "Thank you for calling. Goodbye."
    no_input: tuple[str, ...] = ("Are you still there?", "I can't hear you.")
    filler: tuple[str, ...] = ("One moment.", "Just a moment longer, please.")
    """Spoken while an answer takes long: the first, then the others; the last again and again. None: silence."""
    apology: str = "I'm sorry, something went wrong. Please say that again."
    failure: str = "I'm sorry, I can't help you right now. Please call again later. Goodbye."
    """Spoken when every way out is closed; then the call ends."""
    language: str = "en-US"
    greeting_interruptible: bool = True
    turns: TurnTaking = TurnTaking()
    spares: Mapping[str, tuple[ProviderChoice, ...]] = field(default_factory=dict)
    """By `stt`, `llm` and `tts`: who is asked when the one above fails, in order."""
    failover: Failover = Failover()
    background: bool = False
    """A soft sound while a tool or a slow model works."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """Transfer targets by name: an E.164 number each."""
    terms: Mapping[str, TransferTerms] = field(default_factory=dict)
    """Of the targets that have any."""
    script: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the file, as the script provider reads it (intents, tools, hours...)."""
    realtime: RealtimeTerms | None = None
    turn_detector: ProviderChoice | None = None
    """Who says whether the caller's words are a whole turn. `none`: silence does. None: the rules, where the language
    is English and the recogniser writes down whatever is said."""
    agents: Mapping[str, HandOff] = field(default_factory=dict)
    """To whom this agent may hand a call over, by name."""
    context: ContextTerms | None = None
    """None: the oldest of a long conversation are left out, as each provider has it."""
    languages: Mapping[str, "AgentDefinition"] = field(default_factory=dict)
    """Further ones by their tags: the agent as it is in each, without others."""
    heeds: bool = False
    """Callers' wishes are heard (agents/wishes): set by the gateway where the rules for calls are in force."""
    version: str = ""
    """Of the desk: `default/reception@3` (types.AgentVersion). Empty: the agent of a file."""

    @property
    def known_as(self) -> str:
        """By calls, records and rules. `name` is what its admin calls it: two may have the same."""
        return self.version or self.name

    def heeding(self) -> "AgentDefinition":
        """This agent where callers' wishes are heard."""
        others = {tag: other.heeding() for tag, other in self.languages.items()}
        return replace(self, heeds=True, languages=others)

    @property
    def sha256(self) -> str:
        """Of all that its file says to models and callers: instructions, tools, lines, providers."""
        told = asdict(self)
        for spoken in (told, *told["languages"].values()):
            del spoken["version"]  # a name, which nobody is told
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def tags(self) -> tuple[str, ...]:
        """Of its languages, the first first."""
        return (self.language, *self.languages)

    @property
    def heard(self) -> tuple[str, ...]:
        """The languages that `stt` is to hear: of those that bring no recognisers of their own."""
        return (self.language, *(tag for tag, other in self.languages.items() if other.stt == self.stt))

    def in_language(self, tag: str) -> "AgentDefinition":
        return self.languages.get(tag, self)

    def choices(self, kind: Literal["stt", "llm", "tts"]) -> tuple[ProviderChoice, ...]:
        """The preferred first."""
        return (getattr(self, kind), *self.spares.get(kind, ()))

    def terms_of(self, target: str) -> TransferTerms:
        return self.terms.get(target, TransferTerms())

    def chain(self, target: str) -> tuple[str, ...]:
        """The target and its fallbacks, in the order they are tried."""
        names = [target]
        while (following := self.terms_of(names[-1]).fallback) is not None and following not in names:
            names.append(following)
        return tuple(names)
