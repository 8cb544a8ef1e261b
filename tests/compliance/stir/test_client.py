"""What is fetched of whom: never more than the rules allow."""

import asyncio
from datetime import UTC, datetime

import pytest

from trunkline.compliance.stir.client import MAX_FETCHES_A_HOST, NOT_AGAIN_S, Certificates, kept_s
from trunkline.compliance.stir.reasons import Rejected
from trunkline.testing.clock import ManualClock
from trunkline.testing.stir import Authority

ROOT = Authority(datetime(2026, 11, 28, tzinfo=UTC))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "fe80::1"]
)
def test_one_address_that_is_not_public_spoils_the_name(address: str) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34", address]

    async def scenario() -> None:
        clock = ManualClock()
        certificates = Certificates((ROOT.certificate,), clock, resolve=resolve)
        for _ in range(2):
            found = await certificates.fetch("https://cert.example.com/sp.pem")
            assert isinstance(found, Rejected)
            assert found.reason == "bad_x5u"
        assert asked == ["cert.example.com"]  # not again for a while
        clock.advance(NOT_AGAIN_S + 1)
        await certificates.fetch("https://cert.example.com/sp.pem")
        assert len(asked) == 2
        await certificates.close()

    asyncio.run(scenario())


def test_a_host_is_asked_so_often_and_no_more() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return []

    async def scenario() -> None:
        certificates = Certificates((), ManualClock(), resolve=resolve)
        for number in range(MAX_FETCHES_A_HOST + 5):
            assert isinstance(await certificates.fetch(f"https://a.example/{number}.pem"), Rejected)
        assert len(asked) == MAX_FETCHES_A_HOST
        await certificates.close()

    asyncio.run(scenario())


def test_an_answer_is_kept_a_day_at_least() -> None:
    assert kept_s("") == kept_s("no-store") == kept_s("max-age=60") == 86_400
    assert kept_s("public, max-age=172800") == 172_800
    assert kept_s("max-age=999999999") == 30 * 86_400
