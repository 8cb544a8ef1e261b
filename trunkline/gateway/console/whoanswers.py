"""What the pages ask other rooms: who would answer a number, and whether a trunk is ready."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

from trunkline.compliance.destinations import country_of
from trunkline.errors import StoreError
from trunkline.gateway.api.trunks import TrunkView
from trunkline.gateway.console.numbers import Answered, TrunkChecks, WhoAnswers
from trunkline.gateway.readiness import known_facts, trunk_facts
from trunkline.numbers.directory import Directory
from trunkline.numbers.readiness import Check, trunk_checks
from trunkline.numbers.routing import Caller, View, answer
from trunkline.owned import Kept
from trunkline.settings import Settings, SipTrunk
from trunkline.types import TenantId


def who_answers(directory: Directory) -> WhoAnswers:
    async def who(tenant: TenantId, number: str, caller: str | None, at: datetime) -> Answered | None:
        view = await directory.view(number, "", tenant)
        if view is None and not directory.is_empty:
            raise StoreError("numbers cannot be read")
        view = view or View(tenant)
        return answer(view, Caller(caller, at, country_of=country_of)) if view.tenant == tenant else None

    return who


def checks_of(settings: Settings, trunks: Callable[[], Sequence[TrunkView]]) -> TrunkChecks:
    """By what is known here: nobody is asked."""

    async def checks(kept: Kept) -> Sequence[Check]:
        secrets = {name: "x" for name in ("password", "auth_password") if name in kept.secrets}
        written = SipTrunk.model_validate({**kept.body["settings"], **secrets})
        view = next((asdict(trunk) for trunk in trunks() if trunk.name == kept.key), None)
        return trunk_checks(trunk_facts(settings, kept.key, written, view), known_facts(settings))

    return checks
