"""What is known of a number is gathered before the question; what cannot be read is Unknown."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from trunkline.compliance.decision import Policy, Terms
from trunkline.compliance.office import STALE_S, LookUps, Office
from trunkline.errors import ProviderError, StoreError
from trunkline.ports import Allow, Facts, Grant, Lists, Refuse, Revocation, Standing
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT

NUMBER = "+12125550100"
NONE, NOTHING = LookUps(), Standing()


@dataclass
class Row:
    event: str
    at: datetime
    body: dict[str, Any]


@dataclass
class House:
    """Ledger, lists and consents."""

    clock: ManualClock = field(default_factory=ManualClock)
    away: bool = False
    slow: bool = False
    on: frozenset[tuple[str, str]] = frozenset()
    drawn: dict[tuple[str, str], datetime] = field(default_factory=dict)
    company: list[str] = field(default_factory=list)
    stopped: bool = False
    tried: dict[str, datetime] = field(default_factory=dict)
    said: list[Grant | Revocation] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    async def _answer(self) -> None:
        if self.slow:
            await asyncio.sleep(3600)
        if self.away:
            raise StoreError("away")

    async def of(self, tenant: str, subject: str) -> Sequence[Row]:
        await self._answer()
        return self.rows

    async def look(self, tenant: str, number: str) -> "House":
        await self._answer()
        return self

    async def since(self, tenant: str, at: datetime | None) -> tuple[list[str], bool, datetime | None]:
        await self._answer()
        return self.company, self.stopped, self.clock.wall()

    async def attempts(self, tenant: str, number: str, since: datetime) -> tuple[datetime, ...]:
        await self._answer()
        return tuple(self.tried.values())

    async def attempt(
        self, tenant: str, number: str, at: datetime, since: datetime
    ) -> tuple[str, tuple[datetime, ...]]:
        before = await self.attempts(tenant, number, since)
        name = str(len(self.tried))
        self.tried[name] = at
        return name, before

    async def not_tried(self, tenant: str, attempt_id: str) -> None:
        del self.tried[attempt_id]

    def grant(self, given: Grant) -> None:
        self.said.append(given)

    def revoke(self, said: Revocation) -> None:
        self.said.append(said)

    async def on_disk(self) -> bool:
        return True


def office(house: House, look_ups: LookUps = NONE) -> Office:
    policy = Policy(outbound_allow=("US",), terms=Terms("Acme", "US-NY", callback=True))
    return Office(policy, house, house, house, house.clock, look_ups)


def asked(office: Office, standing: Standing = NOTHING) -> str:
    facts = Facts("dial", DEFAULT_TENANT, "outbound", to_number=NUMBER, purpose="informational", standing=standing)
    decision = office.decide(facts, datetime(2026, 11, 23, 17, 0, tzinfo=UTC))
    return "allowed" if isinstance(decision, Allow) else decision.code


def granted(at: datetime) -> Row:
    body = {"form": "implied", "seller": "", "channels": ["voice"], "technologies": ["artificial_voice"]}
    return Row("grant", at, body | {"purposes": ["informational"], "valid_from": at.isoformat(), "valid_until": None})


def run(scenario: Callable[[House, Office], Awaitable[None]], look_ups: LookUps = NONE) -> None:
    async def go() -> None:
        house = House()
        desk = office(house, look_ups)
        house.rows = [granted(house.clock.wall() - timedelta(days=1))]
        await desk.refresh()
        await scenario(house, desk)

    asyncio.run(go())


def test_a_number_that_may_be_called() -> None:
    async def scenario(house: House, desk: Office) -> None:
        known = await desk.know(NUMBER, "informational", tries=True)
        assert known.standing.consent == "implied"
        assert known.standing.attempts == ()
        assert len(house.tried) == 1
        assert asked(desk, known.standing) == "allowed"
        await desk.forget_attempt(known)
        assert house.tried == {}

    run(scenario)


def test_a_database_that_is_away_or_slow_is_unknown() -> None:
    async def scenario(house: House, desk: Office) -> None:
        house.away = True
        known = await desk.know(NUMBER, "informational", tries=True)
        assert known.standing == Standing(lists=Lists())
        assert asked(desk, known.standing) == "consent_unknown", "the company's list is known from before"
        house.clock.advance(STALE_S + 1)
        await desk.refresh()
        assert asked(desk, known.standing) == "stopped_unknown"

    run(scenario)


def test_nobody_is_called_before_the_companys_list_was_read() -> None:
    assert asked(office(House())) == "stopped_unknown"


def test_stop_calling_me_counts_from_the_moment_it_is_said() -> None:
    async def scenario(house: House, desk: Office) -> None:
        known = await desk.know(NUMBER, "informational")
        desk.revoke(Revocation(DEFAULT_TENANT, NUMBER, house.clock.wall(), "speech", do_not_call=True))
        assert len(house.said) == 1
        assert asked(desk, known.standing) == "company_dnc"
        assert (await desk.know(NUMBER, "informational")).standing.consent == "revoked", "and the ledger has it not yet"

    run(scenario)


def test_a_yes_to_a_recording_is_none_to_calls() -> None:
    async def scenario(house: House, desk: Office) -> None:
        at = house.clock.wall()
        desk.revoke(Revocation(DEFAULT_TENANT, NUMBER, at, "speech"))
        desk.grant(Grant(DEFAULT_TENANT, NUMBER, "express_oral", at, "speech", ("recording",), "May we?", "v1"))
        assert (await desk.know(NUMBER, "informational")).standing.consent == "revoked"
        desk.grant(Grant(DEFAULT_TENANT, NUMBER, "express_oral", at, "speech", ("artificial_voice",), "May we?", "v1"))
        assert (await desk.know(NUMBER, "informational")).standing.consent != "revoked"

    run(scenario)


def test_who_withdraws_a_recording_may_still_be_called() -> None:
    async def scenario(house: House, desk: Office) -> None:
        desk.revoke(Revocation(DEFAULT_TENANT, NUMBER, house.clock.wall(), "speech", technologies=("recording",)))
        known = await desk.know(NUMBER, "informational")
        assert asked(desk, known.standing) == "allowed"

    run(scenario)


def test_other_workers_lists_and_the_switch_are_seen() -> None:
    async def scenario(house: House, desk: Office) -> None:
        known = await desk.know(NUMBER, "informational")
        house.company = [NUMBER]
        await desk.refresh()
        assert asked(desk, known.standing) == "company_dnc"
        house.stopped = True
        await desk.refresh()
        assert asked(desk, known.standing) == "stopped"

    run(scenario)


def test_a_list_is_known_where_a_copy_of_that_region_is_here() -> None:
    async def scenario(house: House, desk: Office) -> None:
        drawn = house.clock.wall()
        house.drawn = {("national", "DE"): drawn, ("state", "US-TX"): drawn}
        lists = (await desk.know(NUMBER, None)).standing.lists
        assert (lists.national, lists.state, lists.litigator, lists.reassigned) == (None, None, None, None)
        house.drawn |= {("national", "US"): drawn, ("litigator", ""): drawn}
        lists = (await desk.know(NUMBER, None)).standing.lists
        assert (lists.national, lists.litigator, lists.as_of["national"]) == (False, False, drawn)
        house.on = frozenset({("national", "US"), ("reassigned", "")})
        known = (await desk.know(NUMBER, "informational")).standing
        assert (known.lists.national, known.lists.reassigned, known.consent) == (True, True, "none")

    run(scenario)


def test_look_ups_null_and_failure_are_unknown() -> None:
    answers: list[Any] = [False, True, None, ProviderError("rnd", "timeout", retryable=True)]

    async def service(number: str, since: datetime | None) -> bool | None:
        answer = answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    async def scenario(house: House, desk: Office) -> None:
        for expected in (False, True, None, None):
            lists = (await desk.know(NUMBER, None)).standing.lists
            assert (lists.litigator, lists.reassigned) == (expected, expected)
            answers.pop(0)

    run(scenario, LookUps(service, service))


def test_a_further_leg_is_answered_by_what_was_gathered_lately() -> None:
    async def scenario(house: House, desk: Office) -> None:
        assert asked(desk) == "consent_unknown"
        await desk.know(NUMBER, "informational")
        assert asked(desk) == "allowed"
        house.clock.advance(31)
        assert asked(desk) == "consent_unknown"

    run(scenario)


def test_calls_out_are_counted_for_an_hour() -> None:
    async def scenario(house: House, desk: Office) -> None:
        known = await desk.know(NUMBER, "informational")
        for _ in range(10):
            assert asked(desk, known.standing) == "allowed"
            desk.went_out(NUMBER, to_target=True)
            desk.went_out(NUMBER)
        assert asked(desk, known.standing) == "number_cap"
        house.clock.advance(3599)
        await desk.refresh()
        assert asked(desk, known.standing) == "number_cap"
        house.clock.advance(1)
        assert asked(desk, known.standing) == "allowed"

    run(scenario)


def test_a_refusal_is_no_call_out() -> None:
    facts = Facts("transfer", DEFAULT_TENANT, "inbound", None, NUMBER, "desk", target_number="+19005551234")
    assert isinstance(office(House()).decide(facts, datetime.now(UTC)), Refuse)
