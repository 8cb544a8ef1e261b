"""What the agent believes was heard, against what the caller's side played: interruptions at random moments."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from trunkline.testing.caller.commands import BenchOptions, BenchReport, bench_twilio, to_json
from trunkline.testing.relay import Impairment, Relay

pytestmark = pytest.mark.e2e

STANDIN = Path(__file__).parents[2] / "bench" / "standin.toml"
LATE_MS, WORD_MS = 600, 200  # a clear behind a retransmission and a stall


def differences(report: BenchReport, cuts: int) -> list[int]:
    """Words recorded minus words played, of every interruption that can be laid beside the record."""
    assert not report.failed_calls, report.failed_calls
    judged = [cut.words_more for cut in report.cuts if cut.words_more is not None]
    assert len(judged) >= cuts, to_json(report)
    assert len(judged) >= 0.8 * len(report.cuts), to_json(report)
    return judged


def test_the_record_holds_the_words_that_were_played_at_most_one_less(start_gateway: Any) -> None:
    gateway = start_gateway(STANDIN)
    options = BenchOptions(gateway.origin, calls=16, duration_s=26, interrupt_share=1.0, heard=True, seed=11)
    found = differences(asyncio.run(bench_twilio(options)), 60)
    assert max(found) <= 0, found
    assert min(found) >= -1, found


@pytest.mark.show
def test_on_a_bad_path_the_record_holds_never_a_word_more_than_was_played(start_gateway: Any) -> None:
    """A word less for each that was played while our clear was late."""
    gateway = start_gateway(STANDIN)
    path = Impairment(loss=0.02, stall_every_s=3.0)

    async def run() -> BenchReport:
        async with Relay(gateway.port, up=path, down=path, seed=12) as relay:
            return await bench_twilio(
                BenchOptions(
                    relay.origin,
                    public_url=gateway.origin,
                    calls=16,
                    duration_s=26,
                    interrupt_share=1.0,
                    heard=True,
                    seed=12,
                )
            )

    found = differences(asyncio.run(run()), 50)
    assert max(found) <= 0, found
    assert min(found) >= -1 - LATE_MS // WORD_MS, found
