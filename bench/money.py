"""What the meter and a budget's check cost a call: python bench/money.py [--json].

A call as the 45-minute one of the tests: a leg, a recogniser, a model and a voice, three shared budgets; four usages in
ten seconds, a look where one is due.
"""

import json
import statistics
import sys
import time
from decimal import Decimal

from trunkline.compliance.money.account import Account, Terms
from trunkline.compliance.money.leases import Lease
from trunkline.compliance.money.meter import Meter
from trunkline.compliance.money.prices import load
from trunkline.ports import Usage
from trunkline.types import CallId

SECONDS = 20_000
TURN_S = 10
CORE_SHARE_OF_A_CALL = 0.003  # DESIGN: of one core, a Twilio-protocol call
CALL = CallId("bench")


def turn(account: Account, now: float) -> None:
    for kind, provider, product, unit, quantity in (
        ("llm", "openai", "gpt-4.1", "tokens_in", 2000),
        ("llm", "openai", "gpt-4.1", "cached_tokens_in", 1000),
        ("llm", "openai", "gpt-4.1", "tokens_out", 60),
        ("tts", "elevenlabs", "eleven_flash_v2_5", "characters", 180),
    ):
        account.take(Usage(CALL, provider, kind, unit, quantity, product), now)  # type: ignore[arg-type]


def main() -> None:
    leases = {name: Lease(Decimal(1_000_000), granted=Decimal(1_000_000)) for name in ("tenant", "agent", "number")}
    terms = Terms(call_usd=Decimal(100_000), cheaper_after_s=300.0, cheaper_after_usd=Decimal(1), backend_s={"x": 60.0})
    account = Account(Meter(load()), terms, Decimal("0.0048"), "bench", leases)
    account.take(Usage(CALL, "twilio", "leg", "calls", 1, "inbound-US"), 0.0)
    looks_us, turns_us = [], []
    started = time.process_time()
    for second in range(SECONDS):
        now = float(second)
        began = time.perf_counter()
        if account.due(now):
            account.look(now, (Usage(CALL, "deepgram", "stt", "seconds", now, "nova-3"),))
            looks_us.append((time.perf_counter() - began) * 1e6)
        if second % TURN_S == 0:
            began = time.perf_counter()
            turn(account, now)
            turns_us.append((time.perf_counter() - began) * 1e6)
    spent_us = (time.process_time() - started) * 1e6
    held_us = []
    for n in range(SECONDS):
        began = time.perf_counter()
        leases["tenant"].hold("bench", Decimal(n))
        held_us.append((time.perf_counter() - began) * 1e6)
    looks_us.sort()
    figures = {
        "look_us_p50": round(statistics.median(looks_us), 1),
        "look_us_p99": round(looks_us[int(0.99 * len(looks_us))], 1),
        "budget_check_us_p50": round(statistics.median(held_us), 2),
        "turn_us_p50": round(statistics.median(turns_us), 1),
        "percent_of_a_calls_cpu": round(spent_us / SECONDS / (CORE_SHARE_OF_A_CALL * 1e6) * 100, 2),
    }
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        print(", ".join(f"{name} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
