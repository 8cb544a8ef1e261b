"""One agent of this process: its providers are built, started and closed together."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import cast

from trunkline.agents.attending import Agent
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.fixedlines import FixedLines
from trunkline.agents.providers import Services, Wrap, build, build_realtime, build_summariser
from trunkline.agents.realtime.attendant import RealtimeAgent
from trunkline.agents.tools import perform
from trunkline.agents.tools.http import HttpTools
from trunkline.clock import Clock
from trunkline.ports import CallControl, CallFacts, ToolCall


class AgentHere:
    def __init__(
        self,
        definition: AgentDefinition,
        services: Services,
        http: HttpTools,
        ready: Callable[[], bool],
        wrap: Wrap | None = None,
        prefix: str = "",
    ) -> None:
        """Raises ConfigError, MissingExtra. `prefix`: of its providers' keys, for people and machines."""
        self.definition = definition
        self.minds = build(definition, services, wrap)
        self._realtime = build_realtime(definition, services, wrap)
        self._summariser = build_summariser(definition, services)
        self.prefix = prefix
        self._recording: asyncio.Task[None] | None = None

        async def tools(tool: ToolCall, control: CallControl, call: CallFacts) -> str:
            return await perform(tool, definition, control, http, caller_number=call.from_number)

        cascade = Cascade(definition, self.minds, tools, ready, self._summariser)
        self.agent: Agent = cascade
        if self._realtime is not None and definition.realtime is not None:
            self.agent = cast(Agent, RealtimeAgent(cascade, self._realtime, definition.realtime))

    @contextlib.asynccontextmanager
    async def started(self, clock: Clock) -> AsyncGenerator[None]:
        """Raises ProviderError."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.minds.close)
            for more in (self._realtime, self._summariser):
                if more is not None:
                    stack.push_async_callback(more.close)
            await self.minds.start(clock.now())
            for more in (self._realtime, self._summariser):
                if more is not None:
                    await more.start()
            self._recording = asyncio.create_task(self._record(clock), name="fixed lines")
            stack.push_async_callback(_cancelled, self._recording)
            yield

    async def _record(self, clock: Clock) -> None:
        """In each language by itself: one voice that is away is no reason for another to be silent."""
        async with asyncio.TaskGroup() as languages:
            for tag in self.definition.tags:
                lines = FixedLines(self.definition.in_language(tag), self.minds.in_language(tag))
                languages.create_task(lines.record(clock))

    @property
    def recording(self) -> asyncio.Task[None]:
        """Of its fixed lines, once it is started. Nobody need wait for it."""
        assert self._recording is not None
        return self._recording

    def health(self, now: float) -> list[Mapping[str, object]]:
        """Of its providers: one row each."""
        rows = self.minds.health.report(now)
        return [{**row, "provider": f"{self.prefix}{row['provider']}"} for row in rows]


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
