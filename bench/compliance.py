"""How long an Identity verification takes with its certificate kept: python bench/compliance.py [--json]."""

import json
import statistics
import sys
import time
from datetime import UTC, datetime

from trunkline.compliance.stir import certificate, verify
from trunkline.compliance.stir.canonical import who
from trunkline.testing.stir import X5U, Authority, claims

ROUNDS = 2000


def main() -> None:
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
    figures = {"stir_verify_us_p50": statistics.median(took_us), "stir_verify_us_p99": took_us[int(0.99 * ROUNDS)]}
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        print(", ".join(f"{name} {value:.0f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
