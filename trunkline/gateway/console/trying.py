"""A draft tried by typing at it: a conversation on a page, with what the agent would do. Nothing is done.

A conversation lives in this process, for whoever began it, until it is idle too long or others need its place.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.errors import ConfigError, MissingExtra, ProviderError
from trunkline.gateway.console.edge import Asked, Edge
from trunkline.numbers.desk import Desk
from trunkline.types import TenantId

MAX_TRIALS = 20
IDLE_S = 900.0
MAX_SAID_CHARS = 500
BEGIN_S = 15.0


class Line(Protocol):
    """`agents.trying.Line`."""

    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


class Trial(Protocol):
    """`agents.trying.Trial`."""

    over: bool

    async def begin(self) -> Sequence[Line]: ...
    async def say(self, text: str) -> Sequence[Line]: ...
    async def close(self) -> None: ...


OpenTrial = Callable[[TenantId, str, str], Awaitable[Trial]]
"""(tenant, agent, script), not yet begun. Raises ConfigError, MissingExtra."""


@dataclass(frozen=True, slots=True)
class Said:
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Talk:
    owner: tuple[TenantId, str, str]
    trial: Trial
    lines: list[Line | Said]
    at: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class TryPages:
    def __init__(self, edge: Edge, desk: Desk, clock: Clock, open_trial: OpenTrial) -> None:
        self._edge, self._desk, self._clock, self._open = edge, desk, clock, open_trial
        self._talks: OrderedDict[str, _Talk] = OrderedDict()

    def routes(self) -> list[Route]:
        path = "agents/{key}/_try"
        return [self._edge.get(path, self.look, "write"), self._edge.post(path, self.say)]

    async def close(self) -> None:
        while self._talks:
            _, talk = self._talks.popitem()
            await talk.trial.close()

    async def look(self, asked: Asked) -> Response:
        return self._show(asked, "", None)

    async def say(self, asked: Asked) -> Response:
        name = str(asked.form.get("talk", ""))
        owner = (asked.who.tenant, asked.who.actor, asked.key)
        talk = self._talks.get(name)
        if asked.do == "begin" or talk is None or talk.owner != owner:
            return await self._begin(asked, owner)
        talk.at = self._clock.now()
        self._talks.move_to_end(name)
        text = str(asked.form.get("text", "")).strip()[:MAX_SAID_CHARS]
        async with talk.turn:
            if text and not talk.trial.over:
                talk.lines.append(Said("caller", text))
                talk.lines += await talk.trial.say(text)
        return self._show(asked, name, talk)

    async def _begin(self, asked: Asked, owner: tuple[TenantId, str, str]) -> Response:
        await self._make_room()
        kept = await self._desk.get(asked.who.tenant, "agents", asked.key)
        try:
            trial = await self._open(asked.who.tenant, asked.key, str(kept.body["draft"]))
            try:
                async with asyncio.timeout(BEGIN_S):
                    lines = list[Line | Said](await trial.begin())
            except BaseException:
                await trial.close()
                raise
        except (ConfigError, MissingExtra, ProviderError, TimeoutError) as error:
            return self._show(asked, "", None, str(error) or "its model does not answer", 409)
        name = secrets.token_urlsafe(16)
        self._talks[name] = talk = _Talk(owner, trial, lines, self._clock.now())
        return self._show(asked, name, talk)

    async def _make_room(self) -> None:
        now = self._clock.now()
        for name, talk in list(self._talks.items()):
            if now - talk.at < IDLE_S and len(self._talks) < MAX_TRIALS:
                break
            del self._talks[name]
            await talk.trial.close()

    def _show(self, asked: Asked, name: str, talk: _Talk | None, why: str = "", status: int = 200) -> Response:
        context = {
            "key": asked.key,
            "talk": name,
            "lines": talk.lines if talk is not None else (),
            "over": talk is not None and talk.trial.over,
            "why": why,
        }
        return self._edge.show(asked, "agents_try.html", context, status)
