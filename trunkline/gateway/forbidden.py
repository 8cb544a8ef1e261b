"""Numbers of the settings that are never called: a gateway that has one does not start."""

from collections.abc import Mapping

from trunkline.agents.definition import AgentDefinition
from trunkline.compliance.destinations import is_emergency_in, never_called
from trunkline.errors import ConfigError
from trunkline.gateway.transfer_record import named_target
from trunkline.ports import Refuse

_WHY = {
    "emergency": "another target: emergency numbers are never called from here, callers hear what to dial themselves",
    "premium": "another target: premium-rate, shared-cost, personal and satellite numbers are never called",
}


def refuse_forbidden(family: Mapping[str, AgentDefinition], fallback_number: str | None) -> None:
    """`family`: agents by their files. Raises ConfigError. What is refused by the caller's country only, shows at the
    door."""
    if fallback_number is not None and (refused := never_called(fallback_number)) is not None:
        raise ConfigError("twilio.fallback_number", fallback_number, _WHY[refused.code])
    for file, definition in family.items():
        for name in definition.targets:
            target = named_target(definition.targets, name)
            dialled = None if isinstance(target, Refuse) else target.dialled
            if dialled is not None and (code := _never(dialled)) is not None:
                raise ConfigError(f"{file}: targets.{name}", definition.targets[name], _WHY[code])


def _never(dialled: str) -> str | None:
    if is_emergency_in(dialled, ()):
        return "emergency"
    refused = never_called(dialled) if dialled.startswith("+") else None
    return None if refused is None else refused.code
