"""Whoever comes into a call that is kept hears so first, alone."""

import asyncio

from tests.gateway.test_consent import LINES, Consenting, opened
from tests.gateway.test_handover import ANSWER, NO_REFER, VOICE, Floor, run
from tests.gateway.test_party import comes, invitation, speaks
from trunkline.gateway.notice import Notice
from trunkline.ports import Wish
from trunkline.testing.board import play
from trunkline.testing.sipstack import FRAME_BYTES, FakeLine

FRAMES = 5
SAID = b"\x33" * FRAME_BYTES
NOTICE = Notice("We record this call.", "recording/US-CA", SAID * FRAMES)
TOLD = {"text": NOTICE.text, "basis": NOTICE.basis, "length_ms": FRAMES * 20}


def kept(here: Floor) -> None:
    here.line_now.notice = lambda: NOTICE  # type: ignore[method-assign]


async def beats(here: Floor, one: FakeLine, audio: bytes, times: int, other: FakeLine) -> None:
    for _ in range(times):
        speaks(here, one, audio, 1, other)
        await asyncio.sleep(0)


def test_a_supervisor_hears_that_the_call_is_kept_before_they_hear_the_call() -> None:
    async def scenario(here: Floor) -> None:
        kept(here)
        view, _, line = comes(here, invitation("representative"))
        await beats(here, here.caller_line, VOICE, FRAMES, line)
        assert here.events("joined") == []
        await beats(here, here.caller_line, VOICE, 6, line)
        heard = bytes(line.heard)
        assert heard.count(SAID) == FRAMES
        assert heard.rindex(SAID) < heard.index(VOICE)
        assert here.events("notified") == [{"leg": view.id, **TOLD}]
        assert [event["leg"] for event in here.events("joined")] == [view.id]

    run(scenario)


def test_who_says_something_during_the_notice_is_heard_by_nobody() -> None:
    async def scenario(here: Floor) -> None:
        kept(here)
        _, _, line = comes(here, invitation("representative"))
        await beats(here, line, ANSWER, FRAMES - 1, here.caller_line)
        assert ANSWER not in bytes(here.caller_line.heard)
        assert ANSWER not in here.heard_by_agent
        await beats(here, line, ANSWER, 8, here.caller_line)
        assert ANSWER in bytes(here.caller_line.heard)

    run(scenario)


def test_who_leaves_during_the_notice_was_never_there() -> None:
    async def scenario(here: Floor) -> None:
        kept(here)
        view, handle, line = comes(here, invitation())
        await beats(here, here.caller_line, VOICE, 2, line)
        here.stack.over(handle)
        await beats(here, here.caller_line, VOICE, 8, line)
        assert (here.events("notified"), here.events("joined")) == ([], [])
        assert here.line_now.party.room is None
        assert view.id not in [each.id for each in here.line_now.party.views()]

    run(scenario)


def test_a_representative_is_told_before_the_caller_is_put_through_who_hears_it_ring_meanwhile() -> None:
    async def scenario(here: Floor) -> None:
        kept(here)
        here.transfer()
        target = here.answers()
        await beats(here, target, ANSWER, FRAMES, here.caller_line)
        assert ANSWER not in bytes(here.caller_line.heard)
        assert here.events("joined") == []
        await beats(here, target, ANSWER, 8, here.caller_line)
        assert bytes(target.heard).count(SAID) == FRAMES
        assert ANSWER in bytes(here.caller_line.heard)
        (joined,), (told,) = here.events("joined"), here.events("notified")
        assert told == {"leg": joined["leg"], **TOLD}
        here.stack.over(here.caller)

    run(scenario, NO_REFER)


def test_a_representative_who_hangs_up_on_the_notice_leaves_nothing_behind() -> None:
    async def scenario(here: Floor) -> None:
        kept(here)
        here.transfer()
        target = here.answers()
        await beats(here, target, ANSWER, 2, here.caller_line)
        here.stack.over(here.dialled)
        await beats(here, here.caller_line, VOICE, 8, target)
        assert (here.events("notified"), here.events("joined")) == ([], [])

    run(scenario, NO_REFER)


def test_where_something_is_kept_who_comes_is_told_what() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        assert board.call.notice() is None  # nobody has agreed yet
        board.call.key("1")
        await board.hear(2)
        notice = board.call.notice()
        assert notice is not None
        assert notice.text.startswith("We record this call, write it down and let other companies")
        assert notice.basis == "recording/US-CA"
        assert notice.event("rep_1")["length_ms"] == 1000
        board.call.wished(Wish("keep_nothing", "stop recording", "speech"))
        assert board.call.notice() is None

    play(Consenting(), scenario)


def test_where_the_rules_want_no_notice_there_is_none() -> None:
    async def scenario(board: Consenting) -> None:
        await opened(board)
        assert board.call.notice() is None

    play(Consenting(*LINES), scenario)
