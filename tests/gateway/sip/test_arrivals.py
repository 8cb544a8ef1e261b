"""Who is let in and who is turned away: the desk above a scripted stack."""

import asyncio
from dataclasses import replace

import pytest

from tests.gateway.sip.test_desk import CARRIER, Desk, run
from trunkline.gateway.sip import stack as s
from trunkline.gateway.sip.desk import CHECK_S
from trunkline.ports import Refuse
from trunkline.types import E164


def test_headers_become_attributes_and_identity_goes_to_compliance_alone() -> None:
    async def scenario(here: Desk) -> None:
        headers = (
            "X-Campaign: spring\r\nKind: vip\r\nIdentity: eyJ.abc.def;info=<x>\r\nDiversion: <sip:+14155550188@x>\r\n"
        )
        handle = here.invited(headers=headers)
        here.confirmed(handle)
        here.stack.happens(s.FirstMedia(handle))
        assert here.events("attributes") == [{"campaign": "spring", "kind": "vip"}]
        assert here.agent_now.call.attributes == {"campaign": "spring", "kind": "vip"}
        (answer,) = [facts for facts in here.asked if facts.door == "answer"]
        assert answer.identity == ("eyJ.abc.def;info=<x>",)
        assert answer.forwarded_by == "+14155550188"
        assert "eyJ" not in repr(answer)
        assert "eyJ" not in repr(here.records)

    run(scenario)


def test_a_withheld_caller_has_no_number() -> None:
    async def scenario(here: Desk) -> None:
        here.invited(caller="<sip:+14155550123@x>;tag=1", headers="Privacy: id\r\n")
        assert here.started.from_number is None
        assert here.events("arrived")[0]["withheld"] is True

    run(scenario)


def test_a_call_on_behalf_of_a_caller_says_who_forwarded_it_where_the_profile_does() -> None:
    def headers(profile: str) -> dict[str, str]:
        async def scenario(here: Desk) -> None:
            here.dialled(forwarded_by=E164("+14155550144"))

        dial = run(scenario, replace(CARRIER, profile=profile)).stack.commands("dial")[0]
        return dict(dial[5])

    assert "+14155550144" in headers("twilio_elastic_sip")["Diversion"]
    assert "Diversion" not in headers("asterisk")


@pytest.mark.parametrize(
    ("how", "code", "why"),
    [
        ({"to": "sip:+14155550999@x"}, 404, "unknown_number"),
        ({"caller": "<sip:+19005550100@x>"}, 603, "declined"),
        ({"to": "http://nonsense"}, 400, "malformed"),
    ],
)
def test_the_trunks_own_rules_turn_calls_away_and_the_record_says_so(how: dict[str, str], code: int, why: str) -> None:
    async def scenario(here: Desk) -> None:
        handle = here.invited(**how)
        assert here.stack.told[0][:3] == ("refuse", handle, code)
        assert here.ends() == [("refused", why)]
        assert here.desk.dialogs == 0

    run(scenario, replace(CARRIER, numbers=("+14155550100",), block=("+1900*",)))


def test_a_trunk_that_is_full_is_busy_and_frees_its_lines() -> None:
    async def scenario(here: Desk) -> None:
        first, _ = here.talking()
        handle = here.invited(call_id="two@test")
        assert here.stack.told[-1][:3] == ("refuse", handle, 486)
        here.stack.over(first)
        here.invited(call_id="three@test")
        assert here.stack.told[-1][0] == "answer"

    run(scenario, replace(CARRIER, max_calls=1))


def test_the_policys_refusal_is_forbidden_and_recorded() -> None:
    async def scenario(here: Desk) -> None:
        here.refusing["answer"] = Refuse("blocked", "on the list")
        handle = here.invited()
        assert here.stack.told == [("refuse", handle, 403, {})]
        assert here.ends() == [("refused", "blocked")]

    run(scenario)


def test_a_full_house_says_when_to_come_back_and_then_leaves_it_to_the_stack() -> None:
    async def scenario(here: Desk) -> None:
        first, _ = here.talking()
        handle = here.invited(call_id="two@test")
        assert here.stack.told[-1] == ("refuse", handle, 503, {"Retry-After": "30"})
        await asyncio.sleep(CHECK_S * 2)
        assert not here.stack.accepting
        here.stack.over(first)
        await asyncio.sleep(CHECK_S * 2)
        assert here.stack.accepting

    run(scenario, max_calls=1)


def test_draining_takes_no_more_calls() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        drain = asyncio.create_task(here.switchboard.drain(60))
        await asyncio.sleep(CHECK_S * 2)
        assert not here.stack.accepting
        here.stack.over(handle)
        await asyncio.wait_for(drain, 1)

    run(scenario)


def test_an_invite_that_was_forked_on_its_way_is_one_call() -> None:
    async def scenario(here: Desk) -> None:
        here.talking()
        twin = here.invited()
        assert here.stack.told[-1] == ("refuse", twin, 482, {})
        assert here.switchboard.live_calls == 1

    run(scenario)


def test_a_call_id_may_come_again_when_its_call_is_over() -> None:
    async def scenario(here: Desk) -> None:
        handle, _ = here.talking()
        here.stack.over(handle)
        again, _ = here.talking()
        assert here.started.provider_call_id == f"one@test;{again}"
        assert here.switchboard.live_calls == 1

    run(scenario)


def test_what_cannot_be_read_is_refused_and_nothing_else_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(here: Desk) -> None:
        here.talking()
        handle = here.stack.new_handle()
        here.stack.happens(s.Incoming(handle, "carrier", "x", "198.51.100.7:5060", "udp", "rubbish"))
        assert here.stack.told[-1][:3] == ("refuse", handle, 400)
        handle = here.stack.new_handle()
        here.stack.happens(s.Incoming(handle, "no such trunk", "y", "198.51.100.7:5060", "udp", ""))
        assert here.stack.told[-1][:3] == ("refuse", handle, 500)
        assert here.ends() == [("refused", "malformed")]

    run(scenario)
    assert "no such trunk" in caplog.text


def test_nothing_is_kept_of_calls_that_were_turned_away() -> None:
    async def scenario(here: Desk) -> None:
        for number in range(3):
            here.stack.over(here.invited(call_id=f"{number}@test"), 404, by_us=True)
        assert here.stack.steps == {}
        assert here.desk._arrivals._turned_away == {}

    run(scenario, replace(CARRIER, numbers=("+1999*",)))
