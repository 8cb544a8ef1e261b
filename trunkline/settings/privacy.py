"""[privacy]: what is redacted before it is written, and what is kept, how and how long."""

from typing import Annotated

from pydantic import AfterValidator, Field

from trunkline.privacy.redaction import KINDS
from trunkline.settings.values import Section, Texts


def _kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if any(kind not in KINDS for kind in kinds):
        raise ValueError(f"of {', '.join(KINDS)}")
    return kinds


Kinds = Annotated[Texts, AfterValidator(_kinds)]


class AgentPrivacy(Section):
    redact: Kinds | None = None
    """In place of privacy.redact."""
    redact_for_models: Kinds | None = None
    """In place of privacy.redact_for_models."""


class Privacy(Section):
    redact: Kinds = ("card", "ssn", "iban", "email", "phone")
    """What of the words spoken becomes `[card]`, `[phone]` ... before it is written, shown or sent: in transcripts,
    events, logs, kept sessions and what a device is told while it talks. Also: `number` (five digits and more),
    `name`."""
    redact_for_models: Kinds = ()
    """What of it no language model of a third party is told. Its own tools cannot use it then either."""
    names: Texts = ()
    """Names that are redacted wherever `name` is; besides those that callers give as theirs."""
    agents: dict[str, AgentPrivacy] = Field(default_factory=dict)
    """[privacy.agents.NAME]: what is different for an agent, by its name."""
