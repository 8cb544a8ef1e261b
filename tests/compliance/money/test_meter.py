"""The meter, the forecast and the account, by invoices computed by hand."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trunkline.compliance.money.account import Account, CheaperRoute, End, Terms, WrapUp
from trunkline.compliance.money.forecast import Pace
from trunkline.compliance.money.invoice import invoice
from trunkline.compliance.money.leases import Lease
from trunkline.compliance.money.meter import Meter, text
from trunkline.compliance.money.prices import COLUMNS, load
from trunkline.ports import HERE, Cost, Usage
from trunkline.types import CallId

D = Decimal
PRICES = load()


def used(provider: str, kind: Any, product: str, unit: Any, quantity: float) -> Usage:
    return Usage(CallId("c"), provider, kind, unit, quantity, product)


def leg(seconds: float | None = None, product: str = "inbound-US", provider: str = "twilio") -> Usage:
    """That it was answered, or that it is over."""
    unit, quantity = ("calls", 1.0) if seconds is None else ("seconds", seconds)
    return used(provider, "leg", product, unit, quantity)


def hung_up(meter: Meter | Account, seconds: float, now: float, product: str = "inbound-US") -> None:
    """A leg of Twilio's: its stream and its time."""
    meter.take(used("twilio", "leg", product, "stream_seconds", seconds), now)
    meter.take(leg(seconds, product), now)


def answer(meter: Any, now: float, tokens_in: int, cached: int, out: int, model: str = "gpt-4.1") -> None:
    for unit, n in (("tokens_in", tokens_in - cached), ("cached_tokens_in", cached), ("tokens_out", out)):
        meter.take(used("openai", "llm", model, unit, n), now)


# --- the meter ---


def test_an_invoice_computed_by_hand() -> None:
    meter = Meter(PRICES)
    meter.take(leg(), 0.0)
    answer(meter, 10, tokens_in=3000, cached=2000, out=100)
    meter.take(used("deepgram", "stt", "nova-3", "seconds", 61.5), 61)
    meter.take(used("elevenlabs", "tts", "eleven_flash_v2_5", "characters", 250), 61)
    hung_up(meter, 61.5, 61.5)
    by_hand = 2 * (D("0.0085") + D("0.0040"))  # two minutes begun, and their stream
    by_hand += (1000 * D(2) + 2000 * D("0.5") + 100 * D(8)) / 1_000_000
    by_hand += D("61.5") * D("0.00008") + 250 * D("0.00004")
    assert meter.spent == by_hand
    assert not meter.missing
    assert meter.lines["twilio", "leg", "inbound-US", "voice", "seconds"].billed == 120


def test_each_leg_is_rounded_by_itself() -> None:
    meter = Meter(PRICES)
    for _ in range(3):
        hung_up(meter, 10, 0, "transfer-US")
    assert meter.spent == 3 * (D("0.0140") + D("0.0040"))


def test_a_leg_is_reserved_until_it_is_settled() -> None:
    meter = Meter(PRICES)
    meter.take(leg(), 100.0)
    minute = D("0.0125")
    assert meter.spent == 0
    assert [meter.reserved(at) for at in (101.0, 159.9, 160.1)] == [minute, minute, 2 * minute]
    assert meter.so_far(161.0, [used("deepgram", "stt", "nova-3", "seconds", 60)]) == 2 * minute + D("0.0048")
    hung_up(meter, 61, 161.0)
    assert (meter.spent, meter.reserved(500.0)) == (2 * minute, D(0))


def test_what_has_no_price_is_never_zero_and_says_which_row_is_missing() -> None:
    meter = Meter(PRICES)
    costs = meter.take(used("openai", "llm", "gpt-9", "tokens_in", 10), 0)
    assert costs == (Cost("unpriced", "10", None),)
    assert [str(m) for m in meter.missing] == ["no price for openai,llm,gpt-9 per tokens_in"]
    assert [line.usd for line in meter.lines.values()] == [None]


def test_what_runs_here_is_on_no_invoice() -> None:
    meter = Meter(PRICES)
    assert meter.take(used("espeak", "tts", HERE, "characters", 100), 0) == ()
    assert meter.spent == 0
    assert not meter.lines
    assert not meter.missing


def test_a_request_that_was_cut_off_is_taken_to_be_like_the_last() -> None:
    meter = Meter(PRICES)
    answer(meter, 0, tokens_in=4000, cached=0, out=10)
    before = meter.spent
    costs = meter.take(used("openai", "llm", "gpt-4.1", "calls", 1), 1)
    assert meter.spent - before == 4000 * D(2) / 1_000_000
    assert costs[0].estimated


# --- the well-known sums ---


def test_streaming_recognition_costs_half_a_cent_a_minute() -> None:
    assert PRICES.of("deepgram", "stt", "nova-3", "seconds")[0].cost(D(60)) == D("0.0048")


@pytest.mark.parametrize(
    ("minutes", "caching", "low", "high"),
    [(1, 1, "0.06", "0.09"), (10, 1, "0.06", "0.12"), (3, 0, "0.12", "0.24"), (10, 0, "0.30", "0.50")],
)
def test_a_realtime_model_costs_many_times_that(minutes: int, caching: int, low: str, high: str) -> None:
    """gpt-realtime: caller and agent speak by turns, 10 s each; a second of the caller is 10 tokens, one of the agent's
    20 (OpenAI's guide). Each turn is sent all that was said, most of it from the cache, or none of it."""
    meter, context = Meter(PRICES), 600
    for turn in range(minutes * 3):
        audio_in = turn * 300 + 100
        cached = audio_in - 400 if caching and turn > 1 else 0
        for unit, n in (
            ("tokens_in", context - (context if cached else 0)),
            ("cached_tokens_in", context if cached else 0),
            ("audio_tokens_in", audio_in - cached),
            ("cached_audio_tokens_in", cached),
            ("audio_tokens_out", 200),
            ("tokens_out", 40),
        ):
            meter.take(used("openai", "realtime", "gpt-realtime", unit, n), turn * 20.0)
    assert D(low) < meter.spent / minutes < D(high)


# --- the forecast ---


def test_an_even_pace_goes_on() -> None:
    pace = Pace()
    for now in range(0, 300, 15):
        pace.note(float(now), D(now) / 1000)
    assert abs(pace.ahead(300.0, D("0.3"), 600.0) - D("0.3")) < D("0.001")


def test_a_conversation_that_is_sent_again_each_turn_is_seen_coming() -> None:
    """Cost grows as the square of time: from the fifth minute to the tenth it is foreseen within a tenth."""
    pace = Pace()
    for now in range(0, 300, 15):
        pace.note(float(now), D(now * now) / 100_000)
    ahead, truth = pace.ahead(300.0, D(90_000) / 100_000, 600.0), D(600 * 600 - 300 * 300) / 100_000
    assert abs(ahead - truth) < truth / 10


def test_nothing_is_foreseen_from_nothing() -> None:
    assert Pace().ahead(10.0, D(1), 100.0) == 0


# --- the account ---


def account(**terms: Any) -> Account:
    opened = Account(Meter(PRICES), Terms(**terms), goodbye_usd=D("0.0048"), call="c")
    opened.take(leg(), 0.0)
    return opened


def test_it_ends_before_it_is_over_the_budget() -> None:
    """The third minute would begin during the goodbye."""
    opened = account(call_usd=D("0.030"))
    assert [opened.look(now) for now in (61.0, 110.0)] == [WrapUp(), None]
    assert opened.look(112.0) == End("call")
    opened.take(used("elevenlabs", "tts", "eleven_flash_v2_5", "characters", 120), 113.0)
    hung_up(opened, 119.9, 119.9)
    assert opened.close(119.9) == 2 * D("0.0125") + D("0.0048")


def test_the_dearest_answer_may_be_under_way() -> None:
    opened = account(call_usd=D("0.10"))
    for unit, n in (("tokens_in", 20_000), ("tokens_out", 100)):
        opened.take(used("openai", "llm", "gpt-4.1", unit, n), 5.0)  # 4.08 cents, and another like it would do
    assert opened.look(6.0) is None
    for unit, n in (("tokens_in", 20_000), ("tokens_out", 100)):
        opened.take(used("openai", "llm", "gpt-4.1", unit, n), 15.0)
    assert opened.look(16.0) == End("call")


def test_a_cheaper_route_once_by_minutes_dollars_or_the_intent() -> None:
    opened = account(cheaper_after_s=300.0)
    assert [opened.look(now) for now in (299.0, 300.0, 301.0)] == [None, CheaperRoute("minutes"), None]
    opened = account(cheaper_after_usd=D("0.02"))
    assert [opened.look(now) for now in (59.0, 61.0)] == [None, CheaperRoute("usd")]
    opened = account(cheaper_after_tools=frozenset({"book"}))
    opened.used_tools(("look_up",))
    assert opened.look(1.0) is None
    opened.used_tools(("book",))
    assert opened.look(2.0) == CheaperRoute("resolved")


def test_a_backend_has_its_time_and_another_has_its_own() -> None:
    opened = account(backend_s={"openai": 60.0})
    opened.attended(["openai"], 10.0)
    assert [opened.look(now) for now in (69.0, 70.0, 71.0)] == [None, CheaperRoute("backend"), None]
    opened.attended(["script"], 72.0)
    assert opened.look(600.0) is None


def test_what_has_no_price_is_capped_at_an_assumed_rate() -> None:
    opened = account(assumed_usd_minute=D("0.50"), call_usd=D("2"))
    opened.take(used("openai", "llm", "gpt-9", "tokens_in", 10), 1.0)
    opened.take(used("openai", "llm", "gpt-9", "tokens_out", 10), 1.0)
    assert opened.cost(60.0) == D("0.0125") + D("0.50")
    assert opened.told(60.0)["complete"] is False
    assert opened.look(230.0) == End("call")


def test_a_shared_budget_ends_the_call_by_what_it_holds_already() -> None:
    lease = Lease(D("0.05"), granted=D("0.04"), spent_out=True)
    opened = account()
    opened.leases = {"tenant": lease}
    assert opened.look(1.0) is None
    held = lease.used
    assert opened.look(170.0) == End("tenant")  # the fourth minute would begin
    assert lease.used == held
    hung_up(opened, 179, 179.0)
    assert opened.close(179.0) <= lease.granted
    assert lease.holds == {}


def test_it_tells_its_sums_by_product_provider_kind_and_leg() -> None:
    opened = account(call_usd=D("1"))
    answer(opened, 5.0, tokens_in=1000, cached=0, out=100)
    hung_up(opened, 30, 30.0)
    told = opened.told(30.0, end=600.0)
    assert told["usd"] == "0.0153"
    assert told["by_provider"] == {"openai": "0.0028", "twilio": "0.0125"}
    assert told["by_kind"] == {"llm": "0.0028", "leg": "0.0125"}
    assert told["by_product"] == {"gpt-4.1": "0.0028", "inbound-US": "0.0125"}
    assert told["by_leg"] == {"twilio inbound-US": "0.0125"}
    assert (told["complete"], told["budget_usd"]) == (True, "1")


@pytest.mark.parametrize(
    ("amount", "written"), [("0E-12", "0"), ("1.50", "1.5"), ("100", "100"), ("4E-7", "0.0000004")]
)
def test_amounts_are_written_plainly(amount: str, written: str) -> None:
    assert text(D(amount)) == written


def test_a_leg_costs_what_its_carrier_rounds_to_whenever_it_is_asked(tmp_path: Path) -> None:
    """In any order: what is kept of one step is not told of another."""
    rows = ["voice,seconds,0.01,60,60", "stream,seconds,0.004,60,6", "fax,seconds,0.002,60,"]
    for kept in (rows[:1], rows[:2], rows):
        lines = [f"t,leg,inbound-US,{row},2026-11-28,contract" for row in kept]
        (tmp_path / "prices.csv").write_text("\n".join(["# version 1", COLUMNS, *lines]))
        prices = load(tmp_path)
        meter = Meter(prices)
        meter.take(leg(provider="t"), 100.0)
        ats = [99.0, 100.0, 100.0004, 101.0, 160.0, 160.0004, 160.0006, 106.0, 112.5, 159.9, 220.0, 220.5, 160.0, 100.0]
        for at in ats:
            seconds = D(repr(round(max(0.0, at - 100.0), 3)))
            by_hand = sum(row.cost(seconds) for row in prices.of("t", "leg", "inbound-US", "seconds"))
            assert meter.reserved(at) == by_hand, at


def test_a_records_costs_sum_up_to_what_the_account_told() -> None:
    opened = account()
    rows: list[dict[str, Any]] = []
    for usage in (
        used("openai", "llm", "gpt-4.1", "tokens_out", 100),
        used("openai", "llm", "gpt-9", "tokens_out", 100),
        leg(30),
        used("twilio", "leg", "inbound-US", "stream_seconds", 30),
        leg(70, "transfer-US"),
        used("webrtc", "leg", HERE, "seconds", 30),
        used("disk", "recording", HERE, "seconds", 30),
        used("espeak", "tts", HERE, "characters", 30),
    ):
        fields = {"provider": usage.provider, "kind": usage.kind, "product": usage.product, "unit": usage.unit}
        rows += [fields | {"item": cost.item, "usd": cost.usd} for cost in opened.take(usage, 100.0)]
    told = opened.told(100.0)
    assert invoice(rows) == {name: told[name] for name in invoice(rows)}
    assert told["by_leg"] == {"twilio inbound-US": "0.0125", "twilio transfer-US": "0.028", "webrtc": "0"}
    assert told["by_kind"] == {"llm": "0.0008", "leg": "0.0405", "recording": "0"}


def test_what_runs_here_costs_what_a_row_says(tmp_path: Path) -> None:
    rows = ["webrtc,leg,*,egress,seconds,0.001,60,60", "disk,recording,*,backup,seconds,0.0005,60,60"]
    lines = [f"{row},2026-11-28,contract" for row in rows]
    (tmp_path / "prices.csv").write_text("\n".join(["# version 1", COLUMNS, *lines]))
    meter = Meter(load(tmp_path))
    meter.take(leg(product=HERE, provider="webrtc"), 0.0)
    assert meter.reserved(61.0) == D("0.002")
    meter.take(leg(61, HERE, "webrtc"), 61.0)
    meter.take(used("disk", "recording", HERE, "seconds", 61), 61.0)
    assert meter.spent == D("0.003")


def test_who_takes_over_is_expected_to_be_as_dear_as_they_are_and_not_as_who_had_the_line() -> None:
    opened = account(call_usd=D("0.10"))
    opened.attended(["openai"], 1.0)
    answer(opened, 5.0, tokens_in=20_000, cached=0, out=100)  # 4.08 cents
    opened.attended(["script"], 7.0, D(0))
    assert opened.committed(8.0) == D("0.0408") + D("0.0125")
    opened.attended(["openai"], 9.0, D("0.0048"))  # back again
    assert opened.committed(10.0) == 2 * D("0.0408") + D("0.0125") + D("0.0048")
