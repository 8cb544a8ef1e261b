"""What a call costs while it goes on, and what becomes of it at its limits: on a switchboard, by the manual clock."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.gateway.test_routed import OURS, main
from tests.gateway.test_routed import Desk as RoutedDesk
from tests.gateway.test_switchboard import Way
from trunkline.agents.attending import Agent
from trunkline.agents.definition import HandOff
from trunkline.agents.providers import Minds
from trunkline.compliance.money.account import Account, Need, Terms
from trunkline.compliance.money.leases import Lease
from trunkline.compliance.money.meter import Meter
from trunkline.compliance.money.prices import COLUMNS, leg_units, load
from trunkline.compliance.money.treasury import Policy, Treasury
from trunkline.gateway.call import CLOSE_WAIT_S
from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import Plan
from trunkline.gateway.outbound import Route
from trunkline.gateway.payable import Payable
from trunkline.gateway.routed import Elsewhere
from trunkline.gateway.spending import WRAP_UP, Spending, Ways, needs_of
from trunkline.numbers.resources import ByNumber
from trunkline.ports import HERE, Allow, CallEnded, Refuse, TurnRecord, Usage, UsageMetered
from trunkline.testing.board import DEFINITION, Board, FakeAttendant, arrival, play, sid
from trunkline.types import E164, CallSid

D = Decimal
NO_WAYS = Ways()
DIALLED = "+14155550100"


def provider(name: str, product: str, **more: Any) -> Any:
    return SimpleNamespace(name=name, product=product, third_party=True, **more)


EARS, MIND = provider("deepgram", "nova-3"), provider("openai", "gpt-4.1")
VOICE = provider("elevenlabs", "eleven_flash_v2_5")
REALTIME = provider("openai", "gpt-realtime", transcribes=False)


class Metered(Board):
    cheap_at = cheap_after = lasted = 0.0

    def __init__(self, ways: Ways = NO_WAYS, budgets: Any = None, **policy: Any) -> None:
        super().__init__()
        self.switchboard.limits = replace(self.switchboard.limits, max_call_s=7200.0)
        minds = Minds(EARS, MIND, VOICE)
        cheap = SimpleNamespace(
            **{**vars(self.agent), "definition": replace(DEFINITION, name="cheap"), "minds": minds},
        )
        cheap.providers = (EARS, MIND, VOICE)
        self.agent.definition = replace(DEFINITION, agents={"cheap": HandOff("/cheap.toml", "all")})
        self.agent.minds, self.agent.providers = minds, (REALTIME,)
        self.switchboard.agents = {"/cheap.toml": cast(Agent, cheap)}
        self.treasury = Treasury(Policy(**policy), budgets, self.clock)
        self.spending = Spending(self.treasury, ways, self.metrics, self.clock.now)
        self.switchboard.spending = self.spending

    def use(self, kind: Any, who: Any, **quantities: float) -> None:
        for unit, quantity in quantities.items():
            self.call.usage(Usage(self.call.id, who.name, kind, cast(Any, unit), quantity, who.product))

    async def over(self) -> None:
        self.call.hang_up("agent_hung_up")
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)

    def turn(self, tools: tuple[str, ...] = (), interrupted: bool = False) -> None:
        self.call.turn(TurnRecord(0, "words", "more", tools=tools, interrupted=interrupted), 0.0)

    @property
    def agent_name(self) -> str:
        return self.call.agent_name

    def costs(self) -> dict[str, Any]:
        [told] = self.events("cost")
        return cast(dict[str, Any], told)


def run(scenario: Callable[[Metered], Coroutine[Any, Any, None]], ways: Ways = NO_WAYS, **policy: Any) -> Metered:
    async def played(board: Metered) -> None:
        board.spending.start()
        try:
            await scenario(board)
        finally:
            await board.spending.close()

    return play(Metered(ways, **policy), played)


def test_a_call_of_45_minutes_takes_the_cheaper_route_at_5_and_ends_at_its_budget_with_a_goodbye() -> None:
    """A realtime model for five minutes, the whole conversation sent again each turn; then a cascade. The budget is
    spent before the hour; the carrier's and the providers' invoices are then computed by hand."""
    used: dict[str, float] = {"in": 0, "cached": 0, "out": 0, "text": 0, "stt": 0, "llm_in": 0, "llm_out": 0, "tts": 0}

    async def scenario(board: Metered) -> None:
        board.call = board.line_of(board.admit(to_number=DIALLED))
        board.attach(board.call.id)
        spoke = board.clock.now()
        turn = 0
        while not board.agent_now.goodbyes:
            await asyncio.sleep(15)
            turn += 1
            attendant = board.agent_now
            if board.agent_name == "clinic":
                said, fresh = turn * 225, 225 if turn > 1 else 675
                board.use(
                    "realtime",
                    REALTIME,
                    audio_tokens_in=fresh,
                    cached_audio_tokens_in=said - fresh if said > fresh else 0,
                    audio_tokens_out=150,
                    tokens_out=40,
                )
                used["in"] += fresh
                used["cached"] += max(0, said - fresh)
                used["out"] += 150
                used["text"] += 40
            else:
                attendant.used = [_heard(board.clock.now() - board.cheap_at)]
                board.use("llm", MIND, tokens_in=1200 + turn, tokens_out=60)
                board.use("tts", VOICE, characters=180)
                used["llm_in"] += 1200 + turn
                used["llm_out"] += 60
                used["tts"] += 180
            before = board.agent_name
            board.turn()
            await asyncio.sleep(0)
            if board.agent_name != before:
                board.cheap_at = board.clock.now()
                board.cheap_after = board.cheap_at - spoke
        assert board.agent_now.instructed == [WRAP_UP]
        board.use("tts", VOICE, characters=40)  # the goodbye
        used["tts"] += 40
        await asyncio.sleep(4)
        seconds = board.clock.now() - board.cheap_at
        board.use("stt", EARS, seconds=round(seconds, 3))
        used["stt"] = seconds
        board.agent_now.used = []
        board.lasted = board.clock.now() - spoke
        await board.over()

    board: Any = run(
        scenario,
        Ways(cheaper_agent="cheap"),
        terms=Terms(call_usd=D("2.82"), cheaper_after_s=300.0),
    )
    assert 300 <= board.cheap_after < 316
    assert 44 * 60 < board.lasted < 46 * 60
    assert board.ends() == [("budget", "")]
    minutes = (D(str(round(board.lasted, 3))) / 60).to_integral_value(ROUND_CEILING)
    invoice = minutes * D("0.0085") + minutes * D("0.0040")
    invoice += D(used["in"]) * D("32") / 10**6 + D(used["cached"]) * D("0.4") / 10**6
    invoice += D(used["out"]) * D("64") / 10**6 + D(used["text"]) * D("16") / 10**6
    invoice += D(used["llm_in"]) * D("2") / 10**6 + D(used["llm_out"]) * D("8") / 10**6
    invoice += D(used["tts"]) * D("0.00004") + D(str(round(used["stt"], 3))) * D("0.00008")
    total = D(board.costs()["usd"])
    assert abs(total - invoice) < D("0.01")
    assert D("2.76") < total <= D("2.82")
    assert board.costs()["complete"]


def _heard(seconds: float) -> Usage:
    return Usage(cast(Any, ""), "deepgram", "stt", "seconds", round(seconds, 3), "nova-3")


def answered(board: Metered) -> FakeAttendant:
    board.call = board.line_of(board.admit(to_number=DIALLED))
    board.attach(board.call.id)
    return board.agent_now


def test_the_route_changes_at_the_end_of_a_turn_that_was_heard() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        board.use("llm", MIND, tokens_in=10)
        board.turn(tools=("book",))
        await asyncio.sleep(1.5)
        assert board.events("cheaper_route") == [{"agent": "cheap", "why": "resolved"}]
        board.turn(interrupted=True)
        await asyncio.sleep(0)
        assert board.agent_name == "clinic"
        board.turn()
        await asyncio.sleep(0)
        assert (board.agent_name, board.agent_now.greeting, board.agent_now.pending) == ("cheap", "", ())

    run(scenario, Ways(cheaper_agent="cheap"), terms=Terms(cheaper_after_tools=frozenset({"book"})))


def test_a_hand_off_that_was_announced_goes_before_the_cheaper_route_which_follows_at_the_next_turn() -> None:
    async def scenario(board: Metered) -> None:
        billing = SimpleNamespace(**{**vars(board.agent), "definition": replace(DEFINITION, name="billing")})
        agents = {"billing": HandOff("/billing.toml", "invoices"), "cheap": HandOff("/cheap.toml", "all")}
        billing.definition = replace(billing.definition, agents=agents)
        board.agent.definition = replace(DEFINITION, agents=agents)
        board.switchboard.agents = {**board.switchboard.agents, "/billing.toml": cast(Agent, billing)}
        answered(board)
        board.use("llm", MIND, tokens_in=10)
        board.turn(tools=("book",))
        await asyncio.sleep(1.5)
        assert board.call.hand_off("billing") == Allow()
        board.turn()  # "I'm passing you to billing"
        board.call.handed_off()
        await asyncio.sleep(0)
        assert board.agent_name == "billing"
        board.turn()
        await asyncio.sleep(0)
        assert board.agent_name == "cheap"

    run(scenario, Ways(cheaper_agent="cheap"), terms=Terms(cheaper_after_tools=frozenset({"book"})))


def test_an_order_that_money_refuses_is_no_call_out() -> None:
    out: list[str] = []

    async def scenario(board: Metered) -> None:
        board.switchboard.went_out = lambda number, to_target: out.append(number)
        board.switchboard.diallers.append(Way("one"))
        refused = board.switchboard.dial(DialOrder(E164(DIALLED)))
        assert isinstance(refused, Refuse)
        assert refused.code == "unknown_price"
        board.treasury.policy = Policy()
        assert not isinstance(board.switchboard.dial(DialOrder(E164(DIALLED))), Refuse)

    run(scenario, refuse_unknown=True)
    assert out == [DIALLED]


def test_a_backend_whose_time_is_over_and_no_other_ends_with_a_goodbye() -> None:
    async def scenario(board: Metered) -> None:
        attendant = answered(board)
        await asyncio.sleep(58)
        assert attendant.goodbyes == 0
        await asyncio.sleep(4)
        assert attendant.goodbyes == 1
        await asyncio.sleep(9 + CLOSE_WAIT_S)  # it never finishes

    board = run(scenario, terms=Terms(backend_s={"openai": 60.0}))
    assert board.ends() == [("budget", "")]
    assert board.events("budget_spent") == [{"budget": "backend"}]


def test_at_the_limit_a_transfer_where_it_is_wanted_else_a_goodbye() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(60)
        assert board.events("operator")[0]["target"] == "desk"

    run(scenario, Ways(target="desk"), terms=Terms(call_usd=D("0.03")))


def test_an_unknown_price_is_refused_at_the_door_and_its_row_is_in_the_record() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.providers = (provider("openai", "gpt-9", transcribes=False),)
        assert board.refused(to_number=DIALLED) == "unknown_price"
        assert "no price for openai,realtime,gpt-9 per audio_tokens_in" in board.events("refused")[0]["why"]
        assert board.switchboard.live_calls == 0

    run(scenario, refuse_unknown=True)


def test_without_a_policy_an_unknown_price_is_told_and_in_no_sum() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        board.use("llm", provider("openai", "gpt-9"), tokens_in=10)
        await board.over()

    board = run(scenario)
    assert board.costs()["complete"] is False
    assert board.costs()["missing"] == ["no price for openai,llm,gpt-9 per tokens_in"]
    assert b'trunkline_unpriced_total{kind="llm",product="gpt-9",provider="openai"} 1.0' in board.metrics.text()


def test_a_missing_row_is_in_the_log_once_and_in_each_record(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(board: Metered) -> None:
        for number in (1, 2):
            board.call = board.line_of(board.admit(number, to_number=DIALLED))
            board.attach(board.call.id)
            board.use("llm", provider("openai", "gpt-9"), tokens_in=10)
            await board.over()

    board = run(scenario)
    assert len(board.events("unknown_price")) == 2
    (said,) = [record.message for record in caplog.records if "no price" in record.message]
    assert said.startswith("no price for openai,llm,gpt-9 per tokens_in (call ")


def test_costs_are_in_the_record_beside_their_usage_in_the_metrics_and_in_the_api() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(30)
        board.use("llm", MIND, tokens_in=1000, tokens_out=100)
        live = board.switchboard.live(board.call.id)
        assert live is not None
        assert live.cost is not None
        assert (live.cost["usd"], live.cost["reserved_usd"]) == ("0.0153", "0.0125")
        assert D(live.cost["forecast_usd"]) > D("1.4")  # two hours of telephone
        await board.over()

    board = run(scenario)
    found = [event for event in board.records if isinstance(event, UsageMetered)]
    assert [(e.usage.kind, [c.usd for c in e.costs]) for e in found] == [
        ("llm", ["0.002"]),
        ("llm", ["0.0008"]),
        ("leg", ["0.004"]),
        ("leg", ["0.0085"]),
    ]
    assert found[-1].usage.product == "inbound-US"
    assert board.costs()["usd"] == "0.0153"
    assert isinstance(board.records[-1], CallEnded)
    told = board.metrics.text()
    assert b'trunkline_cost_usd_total{kind="llm",product="gpt-4.1",provider="openai"} 0.0028' in told
    assert b'trunkline_cost_usd_total{kind="leg",product="inbound-US",provider="twilio"} 0.0125' in told
    assert board.costs()["by_leg"] == {"twilio inbound-US": "0.0125"}


def test_what_an_agent_is_billed_for() -> None:
    here = SimpleNamespace(name="espeak", third_party=False)
    agent = SimpleNamespace(minds=Minds(EARS, MIND, cast(Any, here)), providers=(EARS, MIND, here))
    assert needs_of(cast(Agent, agent)) == [("deepgram", "stt", "nova-3"), ("openai", "llm", "gpt-4.1")]
    agent.providers = (provider("openai", "gpt-realtime", transcribes=True, transcriber="gpt-4o-transcribe"),)
    assert needs_of(cast(Agent, agent)) == [
        ("openai", "realtime", "gpt-realtime"),
        ("openai", "stt", "gpt-4o-transcribe"),
    ]
    assert HERE not in str(needs_of(cast(Agent, agent)))


def test_a_target_that_the_carrier_dialled_is_on_the_bill_and_so_is_the_caller_meanwhile() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(30)
        board.call.transfer("desk")
        board.call.hang_up("transferred")
        await asyncio.sleep(70)
        board.switchboard.dialled(board.call.started.provider_call_id, "completed", 70)  # type: ignore[arg-type]
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)

    board = run(scenario)
    found = [event for event in board.records if isinstance(event, UsageMetered)]
    assert [(e.usage.product, e.usage.unit, e.usage.quantity, e.costs[0].billed) for e in found] == [
        ("inbound-US", "stream_seconds", 30.0, "60"),
        ("transfer-US", "seconds", 70.0, "120"),
        ("inbound-US", "seconds", 100.0, "120"),
    ]
    assert board.costs()["usd"] == "0.049"  # by hand: 2 * 0.0085, 0.0040, 2 * 0.0140


def test_the_limit_outside_python_is_what_the_budget_pays_for_as_it_is_billed() -> None:
    """A minute of the caller is 0.0125, of a transfer 0.018 more; at most 0.10."""

    async def scenario(board: Metered) -> None:
        call_id = board.admit(1, to_number=E164(DIALLED))
        transfer: Need = ("twilio", "leg", "transfer-US")
        assert board.switchboard.may_last_s(call_id, 8.0) == 480.0
        assert board.switchboard.may_last_s(call_id, 8.0, transfer) == 180.0
        board.attach(call_id)
        await asyncio.sleep(30)
        assert board.switchboard.may_last_s(call_id, 8.0) == 450.0
        board.use("llm", MIND, tokens_out=10_000)  # 0.08
        assert board.switchboard.may_last_s(call_id, 8.0) == 30.0
        board.use("llm", MIND, tokens_out=10_000)
        assert board.switchboard.may_last_s(call_id, 8.0) == 1.0

    run(scenario, terms=Terms(call_usd=D("0.10")))


def test_a_transfer_that_the_budget_does_not_pay_a_minute_of_is_refused_and_the_next_has_what_is_left() -> None:
    """By hand: 0.0125 for the caller's minute, 0.018 for the target's, 0.0048 for the goodbye: 0.0353."""

    async def scenario(board: Metered) -> None:
        board.agent.providers = (EARS, MIND, VOICE)
        answered(board)
        await asyncio.sleep(1)
        decision = board.call.transfer("desk")
        if board.treasury.policy.terms.call_usd == D("0.0352"):
            assert isinstance(decision, Refuse)
            assert (decision.code, board.events("transfer")) == ("budget", [])
            [told] = board.events("refused")
            assert (told["code"], "transfer-US" in told["why"]) == ("budget", True)
            return
        assert isinstance(decision, Allow)
        board.call.hang_up("transferred")
        view = board.switchboard.by_call_sid(sid(1))
        assert view is not None
        assert view.limit_s in (59, 60)

    for usd in ("0.0352", "0.0353"):
        run(scenario, terms=Terms(call_usd=D(usd)))


def test_a_leg_that_is_dialled_beside_is_refused_as_the_transfer_is_and_one_in_its_place_is_not() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(1)
        order = DialOrder(E164("+14155550177"), ring_timeout_s=20.0)
        plan = Plan(order, "twilio", "x", "", None)
        assert isinstance(refused := board.call.may_pay_leg(plan), Refuse)
        assert refused.code == "budget"
        assert isinstance(board.call.may_pay_leg(plan, "outbound"), Allow)

    run(scenario, terms=Terms(call_usd=D("0.04")))


def test_of_time_and_money_the_limit_is_the_lesser() -> None:
    async def scenario(board: Metered) -> None:
        call_id = board.admit(1, to_number=E164(DIALLED))
        assert board.switchboard.may_last_s(call_id, 8.0) == 7208.0

    for terms in (Terms(), Terms(call_usd=D("100"))):
        run(scenario, terms=terms)


def test_a_transfer_at_the_limit_is_not_cut_off_by_it() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(60)
        assert board.events("budget_spent")
        assert board.switchboard.may_last_s(board.call.id, 8.0, ("twilio", "leg", "transfer-US")) == 7208.0

    run(scenario, Ways(target="desk"), terms=Terms(call_usd=D("0.03")))


def test_what_is_left_of_a_day_counts_too() -> None:
    lease = Lease(D("1.00"))
    lease.hold("other", D("0.95"))
    lease.hold("mine", D("0.02"))
    leg: Need = ("twilio", "leg", "inbound-US")
    legs = [(leg, unit) for unit in leg_units("twilio")]
    account = Account(Meter(load()), Terms(call_usd=D("0.50")), D(0), "mine", {"tenant": lease})
    assert account.pays_s(0.0, legs) == 240.0  # 0.05
    assert Account(Meter(load()), Terms(), D(0)).pays_s(0.0, legs) == float("inf")


def test_a_transfer_at_the_limit_that_fails_comes_back_to_a_goodbye_and_to_nothing_else() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(60)
        assert board.call.machine.state.value == "transferring"
        board.switchboard.dialled(board.call.started.provider_call_id, "busy", 0)  # type: ignore[arg-type]
        board.attach(board.call.id)
        assert (board.agent_now.greeting, board.agent_now.goodbyes) == ("", 1)
        await asyncio.sleep(5)
        board.attach(board.call.id)  # another stream: it does not begin anew
        assert board.agent_now.goodbyes == 1
        await asyncio.sleep(3.1 + CLOSE_WAIT_S)  # the goodbye never ends

    board = run(scenario, Ways(target="desk"), terms=Terms(call_usd=D("0.03")))
    assert board.ends() == [("budget", "")]
    assert board.events("budget_spent") == [{"budget": "call"}]


# --- what has no price, once the call is there ---

UNPRICED = provider("openai", "gpt-9-unpriced")
NO_ROW = "no price for openai,llm,gpt-9-unpriced per tokens_in: add the row to prices.csv"


def unpriced_mind(board: Metered) -> Any:
    """The agent that calls may be handed to thinks by a model that no row prices."""
    cheap: Any = board.switchboard.agents["/cheap.toml"]
    cheap.minds, cheap.providers = Minds(EARS, UNPRICED, VOICE), (EARS, UNPRICED, VOICE)
    return cheap


def test_a_hand_off_to_what_has_no_price_is_refused_and_its_row_is_in_the_record() -> None:
    async def scenario(board: Metered) -> None:
        unpriced_mind(board)
        answered(board)
        for _ in range(3):
            decision = board.call.hand_off("cheap")
            assert isinstance(decision, Refuse)
            assert (decision.code, decision.why) == ("unknown_price", NO_ROW)
        assert [e["why"] for e in board.events("refused")] == [NO_ROW]

    run(scenario, refuse_unknown=True, terms=Terms(call_usd=D("2")))


def test_without_a_policy_a_hand_off_to_what_has_no_price_is_allowed() -> None:
    async def scenario(board: Metered) -> None:
        unpriced_mind(board)
        answered(board)
        assert isinstance(board.call.hand_off("cheap"), Allow)

    run(scenario)


def test_a_cheaper_route_that_has_no_price_is_not_taken() -> None:
    async def scenario(board: Metered) -> None:
        unpriced_mind(board)
        answered(board)
        await asyncio.sleep(70)
        board.turn()
        await asyncio.sleep(10)
        assert board.agent_name == "clinic"
        assert board.events("cheaper_route") == []
        assert len(board.events("refused")) == 1

    run(scenario, Ways(cheaper_agent="cheap"), refuse_unknown=True, terms=Terms(call_usd=D("2"), cheaper_after_s=60.0))


def test_a_lost_model_is_not_followed_by_what_has_no_price() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.fallback = unpriced_mind(board)
        answered(board)
        decision = board.call.fall_back()
        assert isinstance(decision, Refuse)
        assert decision.code == "unknown_price"

    run(scenario, refuse_unknown=True, terms=Terms(call_usd=D("2")))


def test_a_transfer_by_the_carrier_to_a_country_without_a_price_is_refused() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.definition = replace(board.agent.definition, targets={"desk": "+4930901820"})
        answered(board)
        decision = board.call.transfer("desk")
        assert isinstance(decision, Refuse)
        assert "no price for twilio,leg,transfer-DE per seconds" in decision.why
        assert not board.events("transfer")

    run(scenario, refuse_unknown=True, terms=Terms(call_usd=D("2")))


class Trunks:
    """Plans a call over whichever trunk is asked for."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def routes(self, order: DialOrder) -> list[Route]:
        return []

    def plan(self, order: DialOrder) -> Plan | Refuse:
        return Plan(order, self.kind, "x", "carrier", None)

    def dial(self, plan: Plan, call: Any) -> Any:
        raise AssertionError


def test_no_leg_is_dialled_over_what_has_no_price() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        board.switchboard.diallers = []
        order = DialOrder(E164("+14155550177"), ring_timeout_s=20.0)
        for kind, known in (("twilio", True), ("sip", False)):
            [dialler] = Payable([Trunks(kind)], board.call.may_pay_leg)
            plan = dialler.plan(order)
            assert isinstance(plan, Plan) is known
        assert isinstance(plan, Refuse)
        assert "no price for sip,leg,carrier/transfer-US per seconds" in plan.why

    run(scenario, refuse_unknown=True, terms=Terms(call_usd=D("2")))


def test_who_sums_up_a_conversation_is_asked_for_too() -> None:
    summing_up = provider("cloud", "small")
    agent = SimpleNamespace(minds=Minds(EARS, MIND, VOICE), providers=(EARS, MIND, VOICE, summing_up))
    assert ("cloud", "llm", "small") in needs_of(cast(Agent, agent))


def test_what_turns_out_to_have_no_price_takes_the_assumed_rate_and_ends_the_call() -> None:
    async def scenario(board: Metered) -> None:
        attendant = answered(board)
        await asyncio.sleep(600)
        assert attendant.goodbyes == 0
        board.use("llm", UNPRICED, tokens_in=100_000, tokens_out=5000)
        await asyncio.sleep(1.5)
        told = board.spending.told(board.call)
        assert told is not None
        assert (told["usd"], told["assumed_usd"], told["complete"]) == ("0.6375", "0.5", False)
        await asyncio.sleep(90)
        assert attendant.goodbyes == 1
        await board.over()

    board = run(scenario, refuse_unknown=True, terms=Terms(call_usd=D("0.95"), assumed_usd_minute=D("0.50")))
    assert len(board.events("unknown_price")) == 2
    assert D("0.85") < D(board.costs()["usd"]) <= D("0.95")


def test_an_unpriced_recogniser_counts_while_it_hears_and_an_unpriced_leg_while_it_is_open() -> None:
    async def scenario(board: Metered) -> None:
        attendant = answered(board)
        await asyncio.sleep(90)
        attendant.used = [Usage(board.call.id, "cloud", "stt", "seconds", 90.0, "ears")]
        board.call.usage(Usage(board.call.id, "sip", "leg", "calls", 1, "carrier/transfer-US"))
        await asyncio.sleep(5)
        told = board.spending.told(board.call)
        assert told is not None
        assert told["assumed_usd"][:4] in ("1.28", "1.29")  # 1.58 minutes, and the first of the leg
        assert [e["missing"] for e in board.events("unknown_price")] == [
            "no price for sip,leg,carrier/transfer-US per seconds",
            "no price for cloud,stt,ears per seconds",
        ]

    run(scenario, terms=Terms(call_usd=D("9"), assumed_usd_minute=D("0.50")))


def test_a_leg_over_sip_is_billed_by_its_trunk(tmp_path: Path) -> None:
    rows = [
        "sip,leg,*,voice,seconds,0.02,60,60,2026-11-28,contract",
        "sip,leg,acme/inbound*,voice,seconds,0.01,60,1,2026-11-28,contract",
    ]
    (tmp_path / "prices.csv").write_text("\n".join(["# version 1", COLUMNS, *rows]))

    async def scenario(board: Metered) -> None:
        board.agent.providers = ()
        for number, trunk in ((1, "acme"), (2, "other")):
            board.call = board.line_of(board.admit(number, leg="sip", to_number=DIALLED, trunk=trunk))
            board.attach(board.call.id)
            await asyncio.sleep(30)
            await board.over()

    board = run(scenario, prices=tmp_path)
    told = board.events("cost")
    assert [cost["by_leg"] for cost in told] == [{"sip acme/inbound-US": "0.005"}, {"sip other/inbound-US": "0.02"}]


# --- as Twilio counts ---


def sums(board: Metered) -> Decimal:
    """Of all costs that the record has, also those that came behind its end."""
    return sum((D(c.usd or 0) for e in board.records if isinstance(e, UsageMetered) for c in e.costs), D(0))


def told_by_twilio(board: Metered, seconds: int) -> None:
    board.switchboard.status(CallSid(board.call.arrival.provider_call_id), "completed", seconds)


def dialled(board: Metered, status: Any, seconds: int = 0) -> None:
    board.switchboard.dialled(CallSid(board.call.arrival.provider_call_id), status, seconds)


def test_the_telephone_time_is_twilios_and_the_streams_is_ours() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.providers = ()
        board.call = board.line_of(board.admit(to_number=DIALLED))
        await asyncio.sleep(1.2)
        board.attach(board.call.id)
        await asyncio.sleep(58.5)
        told_by_twilio(board, 61)
        await asyncio.sleep(CLOSE_WAIT_S + 0.1)

    board = run(scenario)
    assert D(board.costs()["usd"]) == sums(board) == 2 * D("0.0085") + D("0.0040")


def test_what_twilio_counts_once_the_call_is_over_is_added_to_its_record() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.providers = ()
        board.call = board.line_of(board.admit(to_number=DIALLED))
        leg = board.attach(board.call.id)
        await asyncio.sleep(59.5)
        [(_, account)] = board.spending._calls.values()
        board.call.stopped(leg)
        held = account.leases["tenant"].used
        assert sums(board) == held == D("0.0125")
        for _ in range(2):  # callbacks come twice
            told_by_twilio(board, 61)
        assert account.leases["tenant"].used - held == D("0.0085")

    async def nothing(*args: Any) -> int:
        return 0

    board = run(scenario, budgets=SimpleNamespace(take=nothing, give_back=nothing), tenant_day_usd=D(5))
    assert sums(board) == D("0.021")
    last = [e for e in board.records if isinstance(e, UsageMetered)][-1]
    assert (last.usage.unit, last.usage.quantity, last.costs[0].billed) == ("seconds", 1.5, "60")


def test_a_call_that_twilio_counts_as_we_do_is_not_told_again() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.providers = ()
        board.call = board.line_of(board.admit(to_number=DIALLED))
        leg = board.attach(board.call.id)
        await asyncio.sleep(59.5)
        board.call.stopped(leg)
        told_by_twilio(board, 60)

    assert sums(run(scenario)) == D("0.0125")


def test_a_call_whose_stream_never_came_has_cost_its_minute() -> None:
    async def scenario(board: Metered) -> None:
        board.agent.providers = ()
        board.call = board.line_of(board.admit(to_number=DIALLED))
        await asyncio.sleep(20)

    board = run(scenario)
    assert board.ends() == [("never_started", "")]
    assert sums(board) == D("0.0085")


def test_a_transfer_that_fails_has_one_telephone_minute_and_two_streams() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(10)
        board.call.transfer("desk")
        board.call.hang_up("transferred")
        await asyncio.sleep(10)
        live = board.switchboard.live(board.call.id)
        assert live is not None
        assert live.cost is not None
        assert live.cost["usd"] == "0.0125", "the telephone goes on, the stream does not"
        dialled(board, "busy")
        board.attach(board.call.id)
        await asyncio.sleep(10)
        await board.over()

    assert sums(run(scenario)) == D("0.0085") + 2 * D("0.0040")


def test_a_call_in_the_carriers_hands_is_not_ended_by_its_budget_before_it_is_back() -> None:
    async def scenario(board: Metered) -> None:
        answered(board)
        await asyncio.sleep(10)
        board.call.transfer("desk")
        board.call.hang_up("transferred")
        await asyncio.sleep(300)
        assert board.ends() == []
        dialled(board, "no-answer")
        board.attach(board.call.id)
        await asyncio.sleep(1.5)
        assert board.agent_now.goodbyes == 1
        await board.over()

    board = run(scenario, terms=Terms(call_usd=D("0.06")))
    assert board.ends() == [("budget", "")]


# --- callers who are put through by their number's route ---


async def nothing_taken(*args: Any) -> int:
    return 0


def test_both_legs_of_a_caller_who_is_put_through_are_metered_as_twilio_tells() -> None:
    async def scenario(board: Metered) -> None:
        await RoutedDesk(board).put(*main(ByNumber(kind="number", number=DIALLED)))
        routed = arrival(1, to_number=OURS)
        await board.switchboard.expect(routed)
        sent = board.switchboard.admit(routed)
        assert isinstance(sent, Elsewhere)
        assert sent.limit_s == 180  # a minute of both is 0.0265, with the stream's 0.0305
        call_sid = CallSid(routed.provider_call_id)
        for _ in range(2):  # callbacks come twice
            board.switchboard.sent_on(call_sid, 70)
            board.switchboard.status(call_sid, "completed", 100)

    board = run(scenario, terms=Terms(call_usd=D("0.10")))
    assert board.ends() == [("transferred", f"the caller is put through to {DIALLED}")]
    metered = [(e.usage.product, e.usage.quantity) for e in board.records if isinstance(e, UsageMetered)]
    assert ("transfer-US", 70.0) in metered
    assert sum(quantity for product, quantity in metered if product == "inbound-US") == 100.0
    assert sums(board) == 2 * D("0.0085") + 2 * D("0.0140")


def test_nobody_is_put_through_once_the_days_budget_is_spent() -> None:
    async def scenario(board: Metered) -> None:
        desk = RoutedDesk(board)
        await desk.put(*main(ByNumber(kind="number", number=DIALLED)))
        assert isinstance(await desk.comes(1), Elsewhere)
        [lease] = board.treasury.leases._leases.values()
        lease.spent_out = True  # as the store says
        refused = await desk.comes(2)
        assert isinstance(refused, Refuse)
        assert (refused.code, isinstance(refused, Elsewhere)) == ("budget", False)
        board.switchboard.draining = True
        await desk.put(*main(fallback_number=DIALLED))
        refused = await desk.comes(3)
        assert (isinstance(refused, Refuse), isinstance(refused, Elsewhere)) == (True, False)

    budgets = SimpleNamespace(take=nothing_taken, give_back=nothing_taken)
    board = run(scenario, budgets=budgets, tenant_day_usd=D("0.01"))
    assert [reason for reason, _ in board.ends()] == ["transferred", "refused", "overloaded"]
