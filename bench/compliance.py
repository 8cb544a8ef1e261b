"""How long a decision takes, and an Identity verification with its certificate kept: bench/compliance.py [--json].

All kinds of decision take turns, so that other work on the machine falls on each alike.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from trunkline.compliance.decision import Policy, Terms
from trunkline.compliance.stir import certificate, verify
from trunkline.compliance.stir.canonical import who
from trunkline.ports import Allow, Facts, Lists, Standing, Traffic
from trunkline.testing.stir import X5U, Authority, claims
from trunkline.types import DEFAULT_TENANT

ROUNDS = 2000
MONDAY_NOON = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)  # in New York
CLEAN = Lists(False, False, False, False, False, False, {"national": MONDAY_NOON, "state": MONDAY_NOON})
GOOD = Standing(lists=CLEAN, consent="express_written", attempts=())
WARM = "+12125550100"


def main() -> None:
    figures = decisions() | verifications()
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:34}{value:8.2f}" if name.endswith("_ratio") else f"{name:34}{value:8.0f}")


def decisions() -> dict[str, float]:
    policy = Policy(record=True, outbound_allow=("US", "JP"), terms=Terms("Acme Clinic", "US-NY", callback=True))
    policy.read_ahead()
    codes = sorted(code for code, (region, _) in policy.tables.area_codes.items() if region.startswith("US"))
    company = replace(GOOD, lists=replace(CLEAN, company=True))
    kinds: dict[str, Callable[[int], Facts]] = {
        "warm": lambda i: call(WARM),
        "new": lambda i: call(f"+1{codes[i % len(codes)]}{2_010_000 + i * 7}"),
        "toll_free": lambda i: call("+18005550100"),
        "toll_free_new": lambda i: call(f"+1800555{i:04d}"),
        "unlisted": lambda i: call("+81312345678"),
        "unlisted_new": lambda i: call(f"+8131234{i:04d}"),
        "refuse": lambda i: call(WARM, company),
    }
    took_us: dict[str, list[float]] = {name: [] for name in kinds}
    for i in range(ROUNDS):
        for name, facts_of in kinds.items():
            facts = facts_of(i)
            now = MONDAY_NOON + timedelta(seconds=i)
            began = time.perf_counter()
            decision = policy.decide(facts, now)
            took_us[name].append((time.perf_counter() - began) * 1e6)
            assert name != "warm" or isinstance(decision, Allow)
            assert name != "refuse" or not isinstance(decision, Allow)
    return dict(_figures("decision", took_us))


def _figures(what: str, took_us: Mapping[str, list[float]]) -> Iterator[tuple[str, float]]:
    warm = statistics.median(took_us["warm"])
    for name, each in took_us.items():
        each.sort()
        yield f"{what}_{name}_us_p50", statistics.median(each)
        yield f"{what}_{name}_us_p99", each[int(0.99 * len(each))]
        yield f"{what}_{name}_ratio", statistics.median(each) / warm


def call(to: str, standing: Standing = GOOD) -> Facts:
    return Facts(
        "dial",
        DEFAULT_TENANT,
        "outbound",
        "+12125550111",
        to,
        purpose="marketing",
        standing=standing,
        traffic=Traffic(0, 0, 0),
    )


def verifications() -> dict[str, float]:
    now = datetime.now(UTC)
    root = Authority(now)
    signer = root.holder()
    header = signer.identity(claims("14155550100", "12125550199", int(now.timestamp())))
    kept = {X5U: certificate.credential(signer.chain, (root.certificate,), now)}
    took_us = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        reading = verify.read([header], who("+14155550100"), who("+12125550199"))
        found = verify.judge(reading, kept, now)
        took_us.append((time.perf_counter() - began) * 1e6)
        assert found.verdict == "passed"
    took_us.sort()
    return {"stir_verify_us_p50": statistics.median(took_us), "stir_verify_us_p99": took_us[int(0.99 * ROUNDS)]}


if __name__ == "__main__":
    main()
