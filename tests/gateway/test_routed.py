"""Who answers a call, at the switchboard: by the number's route, of the number's tenant."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from tests.gateway.test_slots import Shared
from trunkline.agents.attending import Agent as Attends
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.routed import Elsewhere, Routing
from trunkline.gateway.slots import SlotLimits, Slots
from trunkline.numbers.directory import Directory
from trunkline.numbers.resources import ByAgents, ByBusy, ByMessage, ByNumber, Number, Resource, Route, Share, Tenant
from trunkline.ports import Allow, CallStarted, Columns, DeskRows, Refuse, Revocation
from trunkline.testing.board import DEFINITION, Board, arrival, sid
from trunkline.testing.board import run as run_board
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

ACME = TenantId("acme")
OURS, SPARE, OTHER = E164("+14155550111"), E164("+14155550112"), E164("+14155550113")
RECEPTION = ByAgents(kind="agents", agents=(Share(agent="reception"),))


class Rows:
    """A desk of ACME's."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], Resource] = {}
        self.published: dict[str, int | None] = {"reception": 1, "sales": 2}
        self.revision = 0

    def put(self, *resources: Resource) -> None:
        self.there |= {(each.kind, each.key): each for each in resources}
        self.revision += 1

    async def revisions(self) -> Mapping[TenantId, int]:
        return {ACME: self.revision} if self.revision else {}

    async def owner_of(self, number: str) -> tuple[TenantId, Columns] | None:
        found = self.there.get(("numbers", number))
        return None if found is None else (ACME, found.model_dump())

    async def desk(self, tenant: TenantId) -> DeskRows:
        terms = self.there.get(("tenant", "tenant"))
        return DeskRows(None if terms is None or tenant != ACME else terms.model_dump(), (), self.published)

    async def route(self, tenant: TenantId, name: str) -> tuple[Columns, Sequence[Columns]] | None:
        found = self.there.get(("routes", name))
        return None if found is None or tenant != ACME else (found.model_dump(), ())


class Versions:
    """`routed.Agents`, each an attendant of the board under another name."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.why_not: dict[str, str] = {}
        self._started: dict[str, Attends] = {}

    async def ready(self, key: str) -> Attends | Refuse:
        if key in self.why_not:
            return Refuse("broken", self.why_not[key])
        name = key.partition("/")[2].partition("@")[0]
        definition = SimpleNamespace(**{**_fields(DEFINITION), "name": name, "known_as": name})
        own = cast(Any, self._board.agent)
        self._started[key] = cast(Attends, SimpleNamespace(**{**vars(own), "definition": definition}))
        return self._started[key]

    def agent(self, key: str) -> Attends | None:
        return self._started.get(key)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in dir(value) if not name.startswith("__")}


class Desk:
    """What a scenario plays with."""

    def __init__(self, board: Board) -> None:
        self.board, self.rows, self.versions = board, Rows(), Versions(board)
        self.directory = Directory(self.rows)
        board.switchboard.routing = Routing(self.directory, self.versions, board.clock, lambda number: None)

    async def put(self, *resources: Resource) -> None:
        self.rows.put(*resources)
        await self.directory.look()

    async def comes(self, number: int = 1, to: E164 | None = OURS, **changes: Any) -> CallId | Refuse:
        here = arrival(number, to_number=to, **changes)
        await self.board.switchboard.expect(here)
        return self.board.switchboard.admit(here)

    def started(self) -> CallStarted:
        return next(event for event in reversed(self.board.records) if isinstance(event, CallStarted))


def run(scenario: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def whole(board: Board) -> None:
        desk = Desk(board)
        await desk.directory.look()
        await scenario(desk)

    run_board(whole)


def main(answer: Any = RECEPTION, **changes: Any) -> tuple[Resource, ...]:
    return Route(name="main", answer=answer, **changes), Number(number=OURS, route="main")


def test_without_an_inventory_all_is_as_ever() -> None:
    async def scenario(desk: Desk) -> None:
        assert not desk.board.switchboard.waits
        assert isinstance(await desk.comes(), str)
        assert (desk.started().tenant, desk.started().agent) == (DEFAULT_TENANT, DEFINITION.name)
        assert "routed" not in desk.board.kinds()

    run(scenario)


def test_the_call_is_the_numbers_tenants_and_its_agents() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main())
        call_id = await desk.comes()
        assert isinstance(call_id, str)
        assert (desk.started().tenant, desk.started().agent) == (ACME, "reception")
        assert desk.board.events("routed") == [
            {
                "by": "agent",
                "route": "main",
                "agent": "reception",
                "version": 1,
                "why": [f"{OURS} is a number of tenant acme, with route main", "agent reception@1 answers"],
            }
        ]
        assert {facts.tenant for facts in desk.board.asked} == {ACME}
        desk.board.attach(CallId(call_id))
        assert desk.board.agent_now.call.tenant == ACME
        assert desk.board.switchboard.may_fall_back(SPARE, OURS) == Allow()
        assert desk.board.asked[-1].tenant == ACME

    run(scenario)


def test_a_number_of_nobodys_is_the_gateways_own_agents() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main())
        assert isinstance(await desk.comes(to=OTHER), str)
        assert (desk.started().tenant, desk.started().agent) == (DEFAULT_TENANT, DEFINITION.name)
        assert desk.board.events("routed")[0]["by"] == "own_agent"

    run(scenario)


def test_a_version_that_is_not_ready_leaves_the_call_to_the_next() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main(ByAgents(kind="agents", agents=(Share(agent="reception"), Share(agent="sales")))))
        desk.versions.why_not["acme/reception@1"] = "its script is wrong"
        for number in range(1, 6):
            await desk.comes(number)
        assert {event["agent"] for event in desk.board.events("routed")} == {"sales"}
        told = [event["why"] for event in desk.board.events("routed")]
        assert any("agent reception@1 is not ready: its script is wrong" in why for why in told)

    run(scenario)


def test_where_no_version_is_ready_callers_go_to_the_fallback_number_or_are_told() -> None:
    async def scenario(desk: Desk) -> None:
        desk.versions.why_not["acme/reception@1"] = "its script is wrong"
        await desk.put(*main())
        refused = await desk.comes(1)
        assert isinstance(refused, Refuse)
        assert refused.code == "no_agent"
        await desk.put(*main(fallback_number=SPARE))
        sent = await desk.comes(2)
        assert isinstance(sent, Elsewhere)
        assert sent.number == SPARE
        assert desk.board.ends() == [("refused", "no_agent"), ("transferred", "to the fallback number")]

    run(scenario)


def test_a_number_that_answers_is_asked_for_at_the_transfer_door() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main(ByNumber(kind="number", number=SPARE)))
        sent = await desk.comes(1)
        assert isinstance(sent, Elsewhere)
        assert sent.number == SPARE
        facts = desk.board.asked[-1]
        assert (facts.door, facts.tenant, facts.target_number) == ("transfer", ACME, SPARE)
        assert desk.started().agent == ""
        assert desk.board.switchboard.live_calls == 0
        desk.board.refusing["transfer"] = Refuse("premium", "not there")
        refused = await desk.comes(2)
        assert isinstance(refused, Refuse)
        assert refused.code == "premium"

    run(scenario)


def test_a_message_and_a_busy_tone_take_no_line() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main(ByMessage(kind="message", text="We are closed.")))
        said = await desk.comes(1)
        assert isinstance(said, Elsewhere)
        assert (said.text, said.number) == ("We are closed.", None)
        await desk.put(*main(ByBusy(kind="busy")))
        busy = await desk.comes(2)
        assert isinstance(busy, Refuse)
        assert busy.code == "busy"
        assert desk.board.ends() == [("refused", "message"), ("refused", "busy")]

    run(scenario)


def test_over_sip_our_own_voice_says_the_message() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main(ByMessage(kind="message", text="We are closed.")))
        call_id = await desk.comes(1, leg="sip")
        assert isinstance(call_id, str)
        desk.board.attach(CallId(call_id))
        assert desk.board.agent_now.greeting == ""
        assert (desk.board.agent_now.goodbyes, desk.board.agent_now.last_line) == (1, "We are closed.")
        await asyncio.sleep(30)
        assert desk.board.ends() == [("agent_hung_up", "")]

    run(scenario)


def test_the_outage_switch_holds_for_the_next_call_and_not_for_one_that_is_there() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main())
        assert isinstance(await desk.comes(1), str)
        await desk.put(Tenant(outage=True, outage_text="Sorry."))
        said = await desk.comes(2)
        assert isinstance(said, Elsewhere)
        assert said.text == "Sorry."
        assert desk.board.switchboard.live_calls == 1
        await desk.put(Tenant())
        assert isinstance(await desk.comes(3), str)

    run(scenario)


def test_a_call_that_comes_back_has_the_agent_it_had() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main())
        call_id = await desk.comes(1)
        desk.board.attach(CallId(str(call_id)))
        desk.board.call.lost(desk.board.call._leg, "socket lost")  # type: ignore[arg-type]
        await asyncio.sleep(20)
        assert desk.board.ends() == [("media_lost", "socket lost")]
        desk.rows.published["reception"] = 9
        await desk.put(*main(ByBusy(kind="busy")))  # meanwhile
        assert isinstance(await desk.comes(1, reconnects=1, why="leg_lost"), str)
        assert (desk.started().tenant, desk.started().agent) == (ACME, "reception")
        assert desk.board.events("routed")[-1]["version"] == 1

    run(scenario)


def test_a_number_that_is_full_sends_callers_to_its_overflow_number() -> None:
    async def scenario(desk: Desk) -> None:
        shared = Shared()
        slots = desk.board.switchboard.slots = Slots(SlotLimits(), shared, desk.board.clock, "me")
        slots.start()
        await desk.put(*main(max_calls=1, overflow_number=SPARE, fallback_number=OTHER))
        assert isinstance(await desk.comes(1), str)
        sent = await desk.comes(2)
        assert isinstance(sent, Elsewhere)
        assert (sent.code, sent.number) == ("number_full", SPARE)
        assert desk.board.ends() == [("overloaded", "number_full")]
        assert list(shared.held) == [f"me:{sid(1)}"]
        await desk.put(*main(max_calls=3), Tenant(max_calls=1))
        assert isinstance(await desk.comes(3), str)  # the first that counts in the tenant's
        full = await desk.comes(4)
        assert isinstance(full, Refuse)
        assert full.code == "tenant_full"
        await slots.close()

    run(scenario)


def test_tenants_do_not_share_a_limit() -> None:
    async def scenario(desk: Desk) -> None:
        asked: list[tuple[str, ...]] = []

        class Noted(Shared):
            async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
                asked.append((tenant, *scopes))
                return await super().take(tenant, name, scopes, lease_s)

        slots = desk.board.switchboard.slots = Slots(SlotLimits(per_tenant=5), Noted(), desk.board.clock, "me")
        slots.start()
        await desk.put(*main(max_calls=1))
        await desk.comes(1)
        await desk.comes(2, OTHER)
        assert asked == [(ACME, "tenant", f"number:{OURS}"), (DEFAULT_TENANT, "tenant")]
        await slots.close()

    run(scenario)


def test_while_the_gateway_is_being_stopped_callers_go_to_the_fallback_number() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main(overflow_number=OTHER, fallback_number=SPARE))
        desk.board.switchboard.draining = True
        sent = await desk.comes(1)
        assert isinstance(sent, Elsewhere)
        assert (sent.code, sent.number) == ("draining", SPARE)

    run(scenario)


def test_a_call_out_is_its_orders_tenants() -> None:
    async def scenario(desk: Desk) -> None:
        desk.board.refusing["dial"] = Refuse("closed", "no")
        desk.board.switchboard.dial(DialOrder(OTHER, tenant=ACME))
        assert desk.board.asked[-1].tenant == ACME

    run(scenario)


def test_what_somebody_takes_back_with_one_tenant_is_no_other_tenants() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(*main())
        mine = CallId(str(await desk.comes(1, from_number=OTHER)))
        theirs = CallId(str(await desk.comes(2, SPARE, from_number=OTHER)))
        heard: list[CallId] = []
        for call_id in (mine, theirs):
            call = desk.board.line_of(call_id)
            call.consent_revoked = lambda via, call_id=call_id: heard.append(call_id)  # type: ignore[method-assign, misc]
        desk.board.switchboard.revoked(Revocation(ACME, OTHER, desk.board.clock.wall(), "api"))
        assert heard == [mine]

    run(scenario)
