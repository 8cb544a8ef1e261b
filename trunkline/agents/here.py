"""One agent of this process: its providers are built, started and closed together."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, cast

from trunkline.agents.alone import LACKING, Alone, build_alone
from trunkline.agents.attendant import Tools
from trunkline.agents.attending import Agent
from trunkline.agents.cascade import Cascade
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.fixedlines import FixedLines
from trunkline.agents.providers import Services, Wrap, build, build_realtime, build_summariser
from trunkline.agents.realtime.attendant import RealtimeAgent
from trunkline.agents.tools import perform
from trunkline.agents.tools.http import HttpTools
from trunkline.clock import Clock
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.ports import CallControl, CallFacts, ToolCall, is_vouched

START_AGAIN_S = (5.0, 10.0, 20.0, 40.0, 60.0)

log = logging.getLogger(__name__)


class AgentHere:
    def __init__(
        self,
        definition: AgentDefinition,
        services: Services,
        http: HttpTools,
        ready: Callable[[], bool],
        wrap: Wrap | None = None,
        prefix: str = "",
        *,
        may_be_alone: bool = False,
    ) -> None:
        """Raises ConfigError, MissingExtra. `prefix`: of its providers' keys, for people and machines. `may_be_alone`:
        some callers agree to no third party; what serves them is made too."""
        self.definition = definition
        self.minds = build(definition, services, wrap)
        self._realtime = build_realtime(definition, services, wrap)
        self._summariser = build_summariser(definition, services)
        self.prefix = prefix
        self._recording: asyncio.Task[None] | None = None
        self._there = False
        self._alone: Alone | None = None
        self.alone_lacks = ""
        """Why nobody serves callers who agree to no third party; empty: somebody does, or all providers are ours."""

        self._http = http
        tools = self._tools_of(definition)
        self._cascade = cascade = Cascade(
            definition, self.minds, tools, lambda: self._there and ready(), self._summariser
        )
        self.agent: Agent = cascade
        if self._realtime is not None and definition.realtime is not None:
            self.agent = cast(Agent, RealtimeAgent(cascade, self._realtime, definition.realtime))
        if may_be_alone and any(each.third_party for each in self.agent.providers):
            self._make_alone(definition, services)

    def _tools_of(self, definition: AgentDefinition) -> Tools:
        http = self._http

        async def tools(tool: ToolCall, control: CallControl, call: CallFacts) -> str:
            return await perform(
                tool,
                definition,
                control,
                http,
                caller_number=call.from_number,
                caller_verified=is_vouched(call.stir),
            )

        return tools

    def _make_alone(self, definition: AgentDefinition, services: Services) -> None:
        try:
            self._alone = build_alone(definition, self.minds, services)
        except LACKING as error:
            self.alone_lacks = str(error)

    @contextlib.asynccontextmanager
    async def started(self, clock: Clock, *, needed: bool = True) -> AsyncGenerator[None]:
        """Raises ProviderError where it is `needed`. Where it is not, one that is away is started again and again, and
        not `ready` until then. So is a summariser, which nobody waits for."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.minds.close)
            for more in (self._realtime, self._summariser):
                if more is not None:
                    stack.push_async_callback(more.close)
            try:
                await self._start(clock)
            except ProviderError as error:
                if needed:
                    raise
                log.warning("agent %s cannot be reached: %s; it is tried again", self.definition.known_as, error)
            if self._summariser is not None and not await self._start_summariser(clock):
                summing_up = asyncio.create_task(self._until_there(self._start_summariser, clock), name="summariser")
                stack.push_async_callback(_cancelled, summing_up)
            if self._alone is not None:
                stack.push_async_callback(_close_all, self._alone.own)
                await self._start_alone(self._alone)
            self._recording = asyncio.create_task(self._record(clock), name="fixed lines")
            stack.push_async_callback(_cancelled, self._recording)
            yield

    async def _start(self, clock: Clock) -> bool:
        """Raises ProviderError."""
        await self.minds.start(clock.now())
        if self._realtime is not None:
            await self._realtime.start()
        self._there = True
        return True

    async def _start_alone(self, alone: Alone) -> None:
        """What cannot start now is not tried again: it is all of this machine."""
        try:
            for provider in alone.own:
                await provider.start()
        except ProviderError as error:
            self.alone_lacks = f"{error.provider}: {error.code} {error.detail}".rstrip()
            return
        here = self._summariser if self._summariser is not None and not self._summariser.third_party else None
        self._cascade.by_itself = Cascade(
            alone.definition,
            alone.minds,
            self._tools_of(alone.definition),
            self._cascade.ready,
            here,
            greets_again=bool(alone.menus),
        )

    async def _start_summariser(self, clock: Clock) -> bool:
        assert self._summariser is not None
        key = f"context.{self._summariser.name}"
        try:
            await self._summariser.start()
        except ProviderError as error:
            self.minds.did_not_start(key, error, clock.now())
            return False
        self.minds.health.of(key).mended()
        return True

    async def _until_there(self, start: Callable[[Clock], Awaitable[bool]], clock: Clock) -> bool:
        """False: it will never be."""
        for wait_s in chain(START_AGAIN_S, repeat(START_AGAIN_S[-1])):
            await asyncio.sleep(wait_s)
            try:
                if await start(clock):
                    break
            except ProviderError:
                continue  # its providers have said so
            except (ConfigError, MissingExtra) as error:
                log.error("agent %s cannot be started: %s", self.definition.known_as, error)
                return False
        return True

    async def _record(self, clock: Clock) -> None:
        """In each language by itself: one voice that is away is no reason for another to be silent."""
        if not self._there:
            if not await self._until_there(self._start, clock):
                return
            log.info("agent %s is there", self.definition.known_as)
        async with asyncio.TaskGroup() as languages:
            for tag in self.definition.tags:
                lines = FixedLines(self.definition.in_language(tag), self.minds.in_language(tag))
                languages.create_task(lines.record(clock))

    @property
    def faces(self) -> tuple[Agent, ...]:
        """As whom it may attend a call: itself, what it falls back to, and each of them without third parties."""
        whole = [agent for agent in (self.agent, self.agent.fallback) if agent is not None]
        return (*whole, *(alone for agent in whole if (alone := agent.alone()) is not None))

    @property
    def recording(self) -> asyncio.Task[None]:
        """Of its fixed lines, once it is started. Nobody need wait for it."""
        assert self._recording is not None
        return self._recording

    def health(self, now: float) -> list[Mapping[str, object]]:
        """Of its providers: one row each."""
        rows = self.minds.health.report(now)
        return [{**row, "provider": f"{self.prefix}{row['provider']}"} for row in rows]


async def _close_all(providers: Sequence[Any]) -> None:
    for provider in providers:
        with contextlib.suppress(ProviderError):
            await provider.close()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
