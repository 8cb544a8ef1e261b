"""A draft talked to and typed at: what the pages ask of the agents' room."""

from collections.abc import Awaitable, Callable, Sequence

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.roster import Roster
from trunkline.agents.script.check import Problem
from trunkline.agents.trying import Trial
from trunkline.errors import ConfigError
from trunkline.gateway.api.devices import Desk
from trunkline.gateway.console.agents import Check, Talk
from trunkline.gateway.console.trying import OpenTrial
from trunkline.ports import Refuse
from trunkline.types import DEFAULT_TENANT, TenantId

ACCOUNT = "console"


def talking(roster: Roster, sessions: Desk) -> Talk:
    """Sessions are of the gateway's own tenant."""

    async def talk(tenant: TenantId, agent: str, text: str) -> str | Refuse:
        if tenant != DEFAULT_TENANT:
            return Refuse("tenant", f"browsers call the tenant {DEFAULT_TENANT} only")
        name = await roster.draft(tenant, agent, text)
        if isinstance(name, Refuse):
            return name
        opened = await sessions.open(f"{ACCOUNT}-{agent}", ACCOUNT, name)
        return opened if isinstance(opened, Refuse) else opened.join_token

    return talk


Read = Callable[[str], Awaitable[tuple[AgentDefinition | None, list[Problem]]]]
"""`Roster.read`."""


def checking(read: Read) -> Check:
    async def check(text: str) -> Sequence[Problem]:
        return (await read(text))[1]

    return check


def trials(read: Read, services: Services) -> OpenTrial:
    async def open_trial(tenant: TenantId, agent: str, text: str) -> Trial:
        definition, problems = await read(text)
        first = next((problem for problem in problems if problem.severity == "error"), None)
        if first is not None:
            raise ConfigError(f"line {first.line} {first.key}".rstrip(), "", first.message)
        assert definition is not None, "a script without errors has a definition"
        return Trial(definition, services)

    return open_trial
