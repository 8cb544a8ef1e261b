"""The first-run wizard: from a gateway that nobody owns to a call that an AI agent of one's own answers.

    1  the admin                    made at /console/setup, whose link `trunkline serve` says
    2  a number                     added, imported, or none: the browser does without
    3  an AI agent                  an example, published, and given to the number
    4  a call from this page        with its transcript as it comes

What is done is seen from what is there, so it goes on where it was left; each step can be left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.console.agents import Example, Talk, examples
from trunkline.gateway.console.edge import Asked, Edge, to
from trunkline.gateway.console.forms import Form, given
from trunkline.numbers.desk import Desk
from trunkline.owned import DeskError, Kept
from trunkline.ports import Refuse
from trunkline.types import TenantId

STEPS = ("The admin", "A number", "An AI agent", "A test call")


@dataclass(frozen=True, slots=True)
class _There:
    numbers: int
    number: Kept | None
    """The first one."""
    agent: Kept | None
    """The first that is published."""

    @property
    def done(self) -> tuple[bool, ...]:
        return True, self.numbers > 0, self.agent is not None, False


class StartPages:
    def __init__(self, edge: Edge, desk: Desk, talk: Talk | None = None) -> None:
        self._edge, self._desk, self._talk = edge, desk, talk
        self.examples: list[Example] = [each for each in examples() if each.script]

    def routes(self) -> list[Route]:
        edge = self._edge
        return [
            edge.get("start", self.look, "write"),
            edge.post("start/number", self.number),
            edge.post("start/agent", self.agent),
            edge.post("start/call", self.call),
        ]

    async def _there(self, tenant: TenantId) -> _There:
        store = self._desk.store
        numbers = await store.page(tenant, "numbers", limit=1)
        agents = await store.page(tenant, "agents", limit=500)
        published = [kept for kept in agents.items if kept.body["published"] is not None]
        first = numbers.items[0] if numbers.items else None
        named = {share["agent"] for share in first.body["agents"]} if first is not None else set()
        chosen = next((kept for kept in published if kept.key in named), published[0] if published else None)
        return _There(await store.count(tenant, "numbers"), first, chosen)

    async def look(self, asked: Asked) -> Response:
        there, step = await self._there(asked.who.tenant), asked.query("step", 1)
        now = int(step) if step in ("1", "2", "3", "4") else there.done.index(False) + 1
        return self._show(asked, there, now)

    def _show(
        self,
        asked: Asked,
        there: _There,
        now: int,
        form: Form | None = None,
        status: int = 200,
        *,
        token: str | None = None,
    ) -> Response:
        context: dict[str, Any] = {
            "steps": STEPS,
            "done": there.done,
            "now": now,
            "there": there,
            "f": form or Form({"name": "reception", "example": self.examples[0].name}),
            "examples": self.examples,
            "token": token,
        }
        return self._edge.show(asked, "start.html", context, status, self._edge.pages.with_call_page())

    async def number(self, asked: Asked) -> Response:
        who, typed = asked.who, asked.fields
        try:
            await self._desk.make(who.tenant, who.actor, "numbers", given(typed))
        except DeskError as error:
            form, there = Form(typed, error.fields, error.why), await self._there(who.tenant)
            return self._show(asked, there, 2, form, 409 if error.code == "taken" else 422)
        return to("start", step="3")

    async def agent(self, asked: Asked) -> Response:
        """A draft of the example, published at once, and given to the number that nobody answers yet."""
        who, typed = asked.who, asked.fields
        example = next((each for each in self.examples if each.name == typed.get("example")), None)
        there = await self._there(who.tenant)
        if example is None:
            wrong = {"example": f"one of {', '.join(each.name for each in self.examples)}"}
            return self._show(asked, there, 3, Form(typed, wrong), 422)
        fields = {"name": str(typed.get("name", "")).strip(), "draft": example.script}
        try:
            kept = await self._desk.make(who.tenant, who.actor, "agents", fields)
            await self._desk.publish(who.tenant, who.actor, kept.key, f"the example {example.name}")
            if there.number is not None and not there.number.body["agents"] and there.number.body["route"] is None:
                await self._give(asked, there.number, kept.key)
        except DeskError as error:
            form = Form(typed, error.fields, error.why)
            return self._show(asked, there, 3, form, 409 if error.code == "taken" else 422)
        return to("start", step="4")

    async def _give(self, asked: Asked, number: Kept, agent: str) -> None:
        body: Mapping[str, Any] = {**number.body, "agents": [{"agent": agent}]}
        await self._desk.replace(asked.who.tenant, asked.who.actor, "numbers", number.key, body, number.version)

    async def call(self, asked: Asked) -> Response:
        there, token = await self._there(asked.who.tenant), ""
        if self._talk is not None and there.agent is not None:
            found = await self._talk(asked.who.tenant, there.agent.key, str(there.agent.body["draft"]))
            if isinstance(found, Refuse):
                return self._show(asked, there, 4, Form({}, why=found.why), 409)
            token = found
        return self._show(asked, there, 4, token=token)
