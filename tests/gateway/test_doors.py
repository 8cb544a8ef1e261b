"""What becomes of a call when a door shuts in the middle of it: who serves it, what is kept, what is nowhere."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline.agents.attending import Agent
from trunkline.agents.definition import HandOff
from trunkline.media.recorder import Recorder
from trunkline.ports import Allow, Message, RecordEvent, Refuse, ToolUse, TurnEnded, TurnEvidence, TurnRecord
from trunkline.store.spool import Spool
from trunkline.telemetry import traced
from trunkline.testing.board import DEFINITION, Board, play, run
from trunkline.types import CallId

NO = Refuse("no_consent", "not agreed to")
SHUT = {"record": NO, "transcript": NO, "third_party": NO}
SAID = [Message("agent", "Hello."), Message("caller", "my invoice")]


def with_alone(board: Board, **changes: Any) -> Any:
    """The board's agent gets a model of others, and what serves without it."""
    alone = SimpleNamespace(**{**vars(board.agent), **changes})
    alone.alone = lambda: alone
    board.agent.providers = (board.mind, SimpleNamespace(name="cloud", third_party=True))
    board.agent.alone = lambda: alone
    return alone


def test_who_refuses_is_served_without_third_parties_from_the_first_word() -> None:
    async def scenario(board: Board) -> None:
        alone = with_alone(board)
        board.refusing = dict(SHUT)
        board.answered()
        assert board.line().attended.agent is alone
        assert board.agent_now.greeting is None  # its own
        assert not board.ends()

    run(scenario)


def test_a_call_without_third_parties_is_handed_to_agents_without_them() -> None:
    async def scenario(board: Board) -> None:
        with_alone(board)
        billing_alone = SimpleNamespace(**vars(board.agent))
        billing_alone.providers, billing_alone.alone = (board.mind,), lambda: billing_alone
        billing = SimpleNamespace(**vars(board.agent))
        billing.alone = lambda: billing_alone
        terms = {"billing": HandOff("/billing.toml", "invoices")}
        board.agent.definition = SimpleNamespace(**{f: getattr(DEFINITION, f) for f in DEFINITION.__slots__})
        board.agent.definition.agents, board.agent.definition.tags = terms, DEFINITION.tags
        board.agent.definition.known_as = DEFINITION.known_as
        board.agent.alone().definition = board.agent.definition
        board.switchboard.agents = {"/billing.toml": cast(Agent, billing)}
        board.refusing = dict(SHUT)
        board.answered()
        line = board.line()
        assert line.hand_off("billing") == Allow()
        line.handed_off()
        await asyncio.sleep(0)
        assert line.attended.agent is billing_alone
        board.refusing = {}
        line.attended.leave()
        assert line.attended.may_serve() == Allow()
        assert line.attended.agent is billing

    run(scenario)


def test_what_is_said_while_the_door_is_shut_is_in_no_turn_no_session_and_no_message() -> None:
    async def scenario(board: Board) -> None:
        with_alone(board)
        call_id, leg = board.answered()
        line = board.line()
        used = TurnEvidence(tools=(ToolUse("book", {"day": "monday"}, "ok"),))
        line.turn(TurnRecord(0, "before", "yes", cut_text="and no", evidence=used), 0.0)
        board.agent_now.conversation += SAID
        assert line.conversation == tuple(SAID)
        board.refusing = dict(SHUT)
        line.opened()
        line.turn(TurnRecord(1, "after", "yes", cut_text="and no", evidence=used), 0.0)
        line.event("message", text="after")
        assert line.conversation == ()
        texts = [e.turn.caller_text for e in board.records if isinstance(e, TurnEnded)]
        assert texts == ["before", ""]
        assert [e.turn.cut_text for e in board.records if isinstance(e, TurnEnded)] == ["and no", ""]
        given = [(e["turn"], e["tools"][0]["arguments"]) for e in board.events("tools_used")]
        assert given == [(0, {"day": "monday"}), (1, {})]
        assert board.events("message") == [{"text": ""}]
        line.lost(leg, "3 s without media")
        await asyncio.sleep(60)
        assert line.former().conversation == ()
        assert board.ends(call_id)

    run(scenario)


def test_the_caller_who_wants_a_call_back_is_noted_where_their_number_is_known() -> None:
    async def scenario(board: Board) -> None:
        board.answered()
        assert board.line().call_back() == Allow()
        assert board.events("call_back_wanted") == [{}]
        board.admit(2, from_number=None)
        assert isinstance(board.line(2).call_back(), Refuse)

    run(scenario)


SECRET = "zanzibar"
FRAME_MS = 20


class Files(Board):
    """With a spool, a recorder and a tracer that write."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.spans = InMemorySpanExporter()
        self.switchboard.telemetry = traced(SimpleSpanProcessor(self.spans))
        self.recorders: list[Recorder] = []

    def append(self, event: RecordEvent) -> None:
        super().append(event)
        self.spool.append(event)

    def _recorder(self, call_id: CallId, permit: Allow) -> Any:
        self.recorders.append(Recorder(self.folder / f"{call_id}.wav", permit))
        return self.recorders[-1]

    def everywhere(self, caplog: pytest.LogCaptureFixture) -> bytes:
        found = b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())
        spans = "".join(span.to_json() for span in self.spans.get_finished_spans())
        return found + spans.encode() + caplog.text.encode()


async def speaks(board: Board, number: int) -> None:
    """A call in which the caller says the word, in sound and in writing, and is then cut off."""
    line = board.line(number)
    bus = line._bus
    assert bus is not None
    for at in range(100):
        bus.receive(b"\x2a" * 160, at * FRAME_MS)
    board.agent_now.conversation.append(Message("caller", f"my word is {SECRET}"))
    line.turn(TurnRecord(0, f"my word is {SECRET}", f"{SECRET}, I see"), 0.0)
    line.event("message", text=SECRET)


@pytest.mark.parametrize("consent", ["given", "refused", "withdrawn"])
def test_a_search_through_every_file_finds_nothing_of_a_call_that_was_refused(
    consent: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(board: Files) -> None:
        with_alone(board)
        if consent == "refused":
            board.refusing = dict(SHUT)
        call_id, leg = board.answered()
        if consent == "withdrawn":
            board.refusing = dict(SHUT)
            board.line().opened()
        await speaks(board, 1)
        board.line().stopped(cast(Any, leg))
        await asyncio.sleep(10)
        assert board.ends(call_id)

    board = play(Files(tmp_path), scenario)
    board.spool.close()
    for recorder in board.recorders:
        assert recorder.wait(5)
    found = board.everywhere(caplog)
    kept = consent == "given"
    assert (SECRET.encode() in found) is kept
    assert (b"\x2a\xff" * 160 in found) is kept  # as the recording has it
    assert len(list(tmp_path.glob("*.wav"))) == (consent != "refused")
    assert b'"call"' in found or b"call" in found  # the record itself is there
    assert len(board.spans.get_finished_spans()) >= 2
