"""Twilio's own package against a server that speaks its wire, over loopback: what an admin does with numbers."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.fakes.twilio_numbers import Trouble
from tests.fakes.twilio_server import TwilioServer
from trunkline.gateway.twilio.numbers import TwilioNumbers
from trunkline.gateway.twilio.rest import TwilioRest
from trunkline.numbers.carriers import owning
from trunkline.numbers.carriers.account import (
    Available,
    Listing,
    NotTaken,
    Owned,
    Prices,
    Released,
    Search,
    Terms,
    Unknown,
)
from trunkline.numbers.carriers.owning import Acquired, Failed, Unclear, acquire, mispointed, point, pointing, release
from trunkline.testing.clock import ManualClock
from trunkline.types import E164

ACCOUNT, KEY, SECRET = "AC" + "1" * 32, "SK" + "2" * 32, "a-secret"
ONE, TWO = E164("+14155550100"), E164("+14155550101")
OURS = pointing("https://voice.example.com")
TERMS = Terms("Main line", OURS)
Work = Callable[[TwilioNumbers, TwilioServer], Awaitable[Any]]


def asked(work: Work, *, secret: str = SECRET, answer_s: float = 5.0, stock: tuple[str, ...] = (ONE, TWO)) -> Any:
    async def run() -> Any:
        async with TwilioServer(ACCOUNT, {KEY: SECRET}, "token") as server:
            server.shelf.stock(*stock)
            rest = TwilioRest(ACCOUNT, (KEY, secret), ManualClock(), api_url=server.origin, answer_s=answer_s)
            try:
                return await work(TwilioNumbers(rest), server)
            finally:
                await rest.close()
                assert server.shelf.unknown_fields == set()

    return asyncio.run(run())


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


# --- what there is --------------------------------------------------------------------------------------------------


def test_numbers_are_searched_as_twilio_documents() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.stock("+12125550100", "+14155551234", sms=False)
        server.shelf.stock("+18005550199", kind="TollFree")
        server.shelf.stock("+447400900123", country="GB", kind="Mobile", address_requirements="any")
        found = await numbers.available(Search("US", area_code="415", capabilities=frozenset({"voice", "sms"})))
        (sent,) = server.requests
        assert sent.path == f"/2010-04-01/Accounts/{ACCOUNT}/AvailablePhoneNumbers/US/Local.json"
        assert sent.query == {
            "AreaCode": ["415"],
            "VoiceEnabled": ["true"],
            "SmsEnabled": ["true"],
            "PageSize": ["20"],
        }
        return (
            found,
            await numbers.available(Search("US", contains="5551234", limit=1)),
            await numbers.available(Search("US", "toll_free")),
            await numbers.available(Search("GB", "mobile")),
            await numbers.available(Search("US", "mobile")),
        )

    local, contains, toll_free, mobile, none = asked(work)
    assert [each.number for each in local] == [ONE, TWO]
    assert local[0] == Available(
        ONE, "US", "local", frozenset({"voice", "sms", "mms"}), "San Francisco", "CA", "none", False
    )
    assert [each.number for each in contains] == ["+14155551234"]
    assert [(each.number, each.kind) for each in toll_free] == [("+18005550199", "toll_free")]
    assert mobile[0].address_required == "any"
    assert (none.status, none.code) == (404, 20404)


def test_prices_are_those_of_the_account() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        found = await numbers.prices("US"), await numbers.prices("DE")
        assert server.requests[0].path == "/v1/PhoneNumbers/Countries/US"
        return found

    known, unknown = asked(work)
    assert known == Prices("USD", {"local": Decimal("1.15"), "toll_free": Decimal("2.15")})
    assert isinstance(unknown, NotTaken)


def test_a_long_list_comes_in_pages() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.page_size = 2
        for number in range(5):
            server.shelf.own(f"+1415555010{number}")
        return await numbers.owned(10), await numbers.owned(3), len(server.requests)

    everything, first, requests = asked(work)
    assert isinstance(everything, Listing)
    assert [each.number[-1] for each in everything.numbers] == list("01234")
    assert everything.complete
    assert (len(first.numbers), first.complete) == (3, False)
    assert requests == 3 + 2


def test_a_number_is_found_whole_and_not_by_a_part() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE + "9")
        assert await numbers.find(ONE) is None
        server.shelf.own(ONE, friendly_name="Main", trunk_sid="TK" + "3" * 32)
        return await numbers.find(ONE)

    found = asked(work)
    assert (found.number, found.label, found.trunk_id) == (ONE, "Main", "TK" + "3" * 32)
    assert found.capabilities == {"voice", "sms", "mms"}


# --- buying ---------------------------------------------------------------------------------------------------------


def test_a_number_is_bought_and_pointed_in_one_order() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        outcome = await acquire(numbers, ONE, Terms("Main line", OURS, "AD" + "4" * 32, "BU" + "5" * 32), at_once)
        (order,) = [each for each in server.requests if each.method == "POST"]
        assert order.form == {
            "PhoneNumber": [ONE],
            "FriendlyName": ["Main line"],
            "VoiceUrl": ["https://voice.example.com/twilio/voice"],
            "VoiceMethod": ["POST"],
            "VoiceFallbackUrl": ["https://voice.example.com/twilio/voice"],
            "VoiceFallbackMethod": ["POST"],
            "StatusCallback": ["https://voice.example.com/twilio/status"],
            "StatusCallbackMethod": ["POST"],
            "AddressSid": ["AD" + "4" * 32],
            "BundleSid": ["BU" + "5" * 32],
        }
        again = await acquire(numbers, ONE, TERMS, at_once)
        return outcome, again, server.shelf.bought

    outcome, again, bought = asked(work)
    assert outcome.bought
    assert mispointed(outcome.owned, OURS) == []
    assert again == Acquired(outcome.owned, bought=False)
    assert bought == [ONE]


@pytest.mark.parametrize("kind", ["lost", "500", "stall"])
def test_an_order_whose_answer_is_lost_is_looked_for_and_not_given_again(kind: Any) -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.trouble.append(Trouble(kind))
        outcome = await acquire(numbers, ONE, TERMS, at_once)
        return outcome, server.shelf.bought, [each.method for each in server.requests]

    outcome, bought, methods = asked(work, answer_s=0.5)
    assert isinstance(outcome, Acquired)
    assert outcome.bought
    assert bought == [ONE]
    assert methods == ["GET", "POST", "GET"]


@pytest.mark.parametrize("kind", ["lost", "500", "stall"])
def test_an_order_that_nobody_can_tell_of_is_unclear_and_says_how_to_look(kind: Any) -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.trouble.append(Trouble(kind, done=False))
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        outcome = await acquire(numbers, ONE, TERMS, sleep)
        assert tuple(waits) == owning.LOOKS_AFTER_S
        assert sum(each.method == "POST" for each in server.requests) == 1
        return outcome

    outcome = asked(work, answer_s=0.5)
    assert isinstance(outcome, Unclear)
    assert f"trunkline numbers owned {ONE}" in outcome.remedy


def test_nothing_is_ordered_where_it_is_not_known_whether_it_is_there() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.reads.append(Trouble("500"))
        outcome = await acquire(numbers, ONE, TERMS, at_once)
        assert [each.method for each in server.requests] == ["GET"]
        return outcome

    assert isinstance(asked(work), Failed)


def test_two_who_buy_the_same_number_at_once_pay_once() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        both = await asyncio.gather(*(acquire(numbers, ONE, TERMS, at_once) for _ in range(2)))
        return both, server.shelf.bought

    both, bought = asked(work)
    assert sorted(each.bought for each in both) == [False, True]
    assert bought == [ONE]


@pytest.mark.parametrize(
    ("prepare", "number", "code", "remedy"),
    [
        ({}, "+14155559999", 21422, "search again"),
        ({"address_requirements": "any"}, ONE, 21631, "--address"),
        ({"bundle": True}, ONE, 21649, "--bundle"),
        ({"trial": True}, ONE, 21404, "upgrade"),
    ],
)
def test_what_twilio_refuses_is_told_with_its_remedy(
    prepare: dict[str, Any], number: str, code: int, remedy: str
) -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        if prepare.get("trial"):
            server.shelf.trial = True
            server.shelf.own(TWO)
        else:
            server.shelf.stock(ONE, **prepare)
        return await acquire(numbers, E164(number), TERMS, at_once), server.shelf.bought

    outcome, bought = asked(work)
    assert isinstance(outcome, Failed)
    assert outcome.answer is not None
    assert outcome.answer.code == code
    assert str(code) in outcome.why
    assert remedy in outcome.remedy
    assert bought == []


def test_too_many_requests_say_how_long_to_wait() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        trouble = Trouble("refused", code=20429, message="Too Many Requests", status=429, headers={"Retry-After": "7"})
        server.shelf.trouble.append(trouble)
        return await acquire(numbers, ONE, TERMS, at_once)

    outcome = asked(work)
    assert (outcome.answer.retry_after_s, outcome.remedy) == (7.0, "wait 7 s")


def test_a_wrong_login_and_a_server_that_is_not_there_are_told() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        return await acquire(numbers, ONE, TERMS, at_once)

    outcome = asked(work, secret="wrong")
    assert outcome.answer.unauthorized
    assert "twilio.account_sid" in outcome.remedy

    async def nobody(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        there = TwilioRest(ACCOUNT, (KEY, SECRET), ManualClock(), api_url="http://127.0.0.1:9")
        try:
            return await acquire(TwilioNumbers(there), ONE, TERMS, at_once)
        finally:
            await there.close()

    outcome = asked(nobody)
    assert outcome.answer.unreached
    assert "cannot be reached" in outcome.why


# --- pointing and releasing -----------------------------------------------------------------------------------------


def test_a_number_is_pointed_at_us_once() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE, voice_method="GET", voice_receive_mode="fax")
        before = await numbers.find(ONE)
        after = await point(numbers, ONE, OURS)
        again = await point(numbers, ONE, OURS)
        return before, after, again, sum(each.method == "POST" for each in server.requests)

    before, after, again, orders = asked(work)
    assert len(mispointed(before, OURS)) == 4
    assert mispointed(after, OURS) == []
    assert again == after
    assert orders == 1


def test_a_number_of_a_trunk_or_an_application_is_taken_away_only_when_asked() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE, trunk_sid="TK" + "3" * 32)
        server.shelf.own(TWO, voice_application_sid="AP" + "6" * 32)
        refused = await point(numbers, ONE, OURS), await point(numbers, TWO, OURS)
        assert all(each.method == "GET" for each in server.requests)
        return refused, (await point(numbers, ONE, OURS, detach=True), await point(numbers, TWO, OURS, detach=True))

    (trunk, application), done = asked(work)
    assert "SIP trunk TK333" in trunk.why
    assert "application AP666" in application.why
    assert "--detach" in trunk.remedy
    assert [mispointed(each, OURS) for each in done] == [[], []]


def test_a_pointing_without_an_answer_may_be_repeated() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE)
        server.shelf.trouble.append(Trouble("lost", done=False))
        return await point(numbers, ONE, OURS), await point(numbers, ONE, OURS), await point(numbers, TWO, OURS)

    lost, done, missing = asked(work)
    assert isinstance(lost, Unclear)
    assert isinstance(done, Owned)
    assert isinstance(missing, Failed)


def test_a_number_is_released_once_and_said_twice() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        sid = server.shelf.own(ONE)["sid"]
        first, second = await release(numbers, ONE), await release(numbers, ONE)
        return sid, first, second, await numbers.release(sid), server.shelf.owned

    sid, first, second, by_id, owned = asked(work)
    assert first == Released(sid)
    assert second == Released("")
    assert by_id == Released(sid)
    assert owned == {}


def test_a_release_without_an_answer_says_how_to_look() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE)
        server.shelf.trouble.append(Trouble("lost"))
        return await release(numbers, ONE)

    outcome = asked(work)
    assert isinstance(outcome, Unclear)
    assert f"numbers owned {ONE}" in outcome.remedy


def test_an_answer_that_is_no_number_says_nothing() -> None:
    async def work(numbers: TwilioNumbers, server: TwilioServer) -> Any:
        server.shelf.own(ONE, sid="nonsense")
        return await numbers.find(ONE), await numbers.owned(5)

    assert all(isinstance(each, Unknown) for each in asked(work))
