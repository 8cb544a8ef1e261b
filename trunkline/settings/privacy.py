"""[privacy]: what is redacted before it is written, and what is kept, how and how long."""

import base64
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from trunkline.privacy.redaction import KINDS
from trunkline.settings.values import Float, Int, Name, Section, Texts, contradiction
from trunkline.settings.values import countries as country_codes


def _kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if any(kind not in KINDS for kind in kinds):
        raise ValueError(f"of {', '.join(KINDS)}")
    return kinds


Kinds = Annotated[Texts, AfterValidator(_kinds)]


def _key(value: SecretStr) -> SecretStr:
    try:
        whole = len(base64.b64decode(value.get_secret_value(), validate=True)) == 32
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("32 random bytes as base64: openssl rand -base64 32")
    return value


def _service(value: str) -> str:
    kind, colon, rest = value.partition(":")
    if not kind.strip() or (colon and (kind != "command" or not rest.strip())):
        raise ValueError("command: PROGRAM ARGUMENTS, or the name of a plug-in")
    return value


Key32 = Annotated[SecretStr, AfterValidator(_key)]
"""32 random bytes as base64."""


class AgentPrivacy(Section):
    redact: Kinds | None = None
    """In place of privacy.redact."""
    redact_for_models: Kinds | None = None
    """In place of privacy.redact_for_models."""


class PrivacyPlace(Section):
    countries: Annotated[Texts, AfterValidator(country_codes)] = Field(min_length=1)
    """Two-letter codes: whose numbers its calls are from or to."""
    recordings: Path | None = None
    """The folder of their recordings; without it, that of all."""
    providers: Texts | None = None
    """Third parties who may get their audio and text, by provider: `deepgram`. Without it, whoever the agent has; an
    empty list: nobody."""
    transcripts: bool = True
    """False: what is said in them is not written to this gateway's database."""


class Privacy(Section):
    redact: Kinds = ("card", "ssn", "iban")
    """What of the words spoken becomes `[card]`, `[phone]` ... before it is written, shown or sent: in transcripts,
    events, logs, kept sessions and what a device is told while it talks. Also: `phone`, `email`, `number` (five
    digits and more), `name`. Digits said one by one that end a turn become `[digits]` where `card` is: they may be the
    beginning of one."""
    redact_for_models: Kinds = ()
    """What of it no language model of a third party is told. Its own tools cannot use it then either."""
    names: Texts = ()
    """Names that are redacted wherever `name` is; besides those that callers give as theirs."""
    agents: dict[str, AgentPrivacy] = Field(default_factory=dict)
    """[privacy.agents.NAME]: what is different for an agent, by its name."""
    residency: dict[Name, PrivacyPlace] = Field(default_factory=dict)
    """[privacy.residency.NAME]: where data of calls with some countries may be. A place named as `region` is also that
    of calls without a number."""
    keys: dict[Name, Key32] = Field(default_factory=dict)
    """With keys, recordings, audit log files, and what people said in the database, the spool and Redis, are sealed
    (AES-256-GCM) under the first of them; the others open older ones. Each is 32 random bytes as base64
    (`openssl rand -base64 32`). Whoever loses one loses what it seals."""
    kms: Annotated[str, AfterValidator(_service)] | None = None
    """A key service that holds the master key instead: `command: PROGRAM ARGUMENTS`, or a plug-in of `trunkline.keys`
    by its name (docs/privacy.md). `privacy.keys` then open what is older."""
    kms_seconds: Annotated[Float, Field(ge=0.1, le=60)] = 5.0
    """How long it may take to answer. It is asked at the start, which fails without it, and when something is read that
    another process has sealed."""
    recordings_days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    """Recordings older than that are deleted. No audio is kept without it: `record` needs it."""
    transcripts_days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    """The words of turns, and messages that callers left, are emptied when they are older. Without it they stay as long
    as their calls."""
    calls_days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    """Calls that ended before that are deleted, with their turns, events, usage and recordings."""

    @model_validator(mode="after")
    def _one_place_a_country(self) -> "Privacy":
        seen: dict[str, str] = {}
        for name, place in self.residency.items():
            for country in place.countries:
                if seen.setdefault(country, name) != name:
                    raise contradiction(f"residency.{name}.countries", country, f"is of {seen[country]} already")
        return self

    @property
    def keeps_for_a_time(self) -> bool:
        return any(days is not None for days in (self.recordings_days, self.transcripts_days, self.calls_days))

    def ring(self) -> dict[str, bytes]:
        return {name: base64.b64decode(key.get_secret_value()) for name, key in self.keys.items()}
