"""A draft talked to and typed at: what the pages ask of the agents' room."""

import asyncio

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.roster import Roster
from trunkline.agents.script.check import read_text
from trunkline.agents.script.foreign import Shared
from trunkline.agents.trying import Trial
from trunkline.errors import ConfigError
from trunkline.gateway.api.devices import Desk
from trunkline.gateway.console.agents import Talk
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


def trials(services: Services, shared: Shared) -> OpenTrial:
    def read(text: str) -> AgentDefinition:
        definition, problems = read_text(text, foreign=shared)
        if definition is None:
            first = next(problem for problem in problems if problem.severity == "error")
            raise ConfigError(f"line {first.line} {first.key}".rstrip(), "", first.message)
        return definition

    async def open_trial(tenant: TenantId, agent: str, text: str) -> Trial:
        return Trial(await asyncio.to_thread(read, text), services)

    return open_trial
