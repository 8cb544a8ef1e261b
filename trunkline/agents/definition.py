"""What an admin writes about an AI agent, as values. `agents/script/` reads it from a TOML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """`[stt]`, `[llm]` or `[tts]` of the agent's file: which provider, and its own options."""

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
    targets: Mapping[str, str] = field(default_factory=dict)
    """Transfer targets by name: an E.164 number each."""
    script: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the file, as the script provider reads it (intents, tools, hours...)."""
