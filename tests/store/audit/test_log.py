"""From the record to the folder: off the loop, in batches, bounded."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trunkline.errors import StoreError
from trunkline.ports import CallStarted, RecordEvent, ToolUse, TurnEnded, TurnEvidence, TurnRecord
from trunkline.privacy.calls import Policies, RedactedRecords
from trunkline.privacy.redaction import Policy
from trunkline.store.audit import log as log_module
from trunkline.store.audit.files import AuditFiles
from trunkline.store.audit.log import AuditedRecords, AuditLog
from trunkline.store.audit.rows import Row, Sampling
from trunkline.store.codec import encode
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, CallId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)


def row(index: int) -> Row:
    return Row(f"c:{index}", "turn", "sample", AT, "c")


class Disk(AuditFiles):
    """Full while `full`; tells the thread that wrote."""

    full = False
    thread = 0

    def write(self, rows: Sequence[Row], now: datetime) -> None:
        if self.full:
            raise StoreError("audit log x: no space left on device")
        self.thread = threading.get_ident()
        super().write(rows, now)


class Records:
    def __init__(self) -> None:
        self.events: list[RecordEvent] = []

    def append(self, event: RecordEvent) -> None:
        self.events.append(event)


def test_what_waits_is_written_off_the_loop_when_the_log_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk, dropped = Disk(tmp_path, "0"), list[int]()
        audit = AuditLog(disk, ManualClock(), dropped.append, batch_s=3600)
        await audit.start()
        for index in range(5):
            audit.append(row(index))
        await audit.close()
        found, _ = disk.verify()
        assert (found.files, found.rows, dropped) == (1, 5, [])
        assert disk.thread not in (0, threading.get_ident())

    asyncio.run(scenario())


def test_a_full_batch_does_not_wait_for_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "BATCH_ROWS", 3)

    async def scenario() -> None:
        disk = Disk(tmp_path, "0")
        audit = AuditLog(disk, ManualClock(), lambda count: None, batch_s=3600)
        await audit.start()
        for index in range(3):
            audit.append(row(index))
        async with asyncio.timeout(10):
            while audit.waiting:
                await asyncio.sleep(0)
        assert disk.verify()[0].rows == 3
        await audit.close()

    asyncio.run(scenario())


def test_while_the_disk_is_full_rows_wait_and_beyond_the_bound_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 4)

    async def scenario() -> None:
        disk, dropped = Disk(tmp_path, "0"), list[int]()
        audit = AuditLog(disk, ManualClock(), dropped.append, batch_s=3600)
        await audit.start()
        disk.full = True
        for index in range(6):
            audit.append(row(index))  # never raises: the call talks on
        assert not await audit.write()
        assert not await audit.write()
        assert (audit.waiting, dropped) == (4, [1, 1])
        disk.full = False
        assert await audit.write()
        assert [each["turn_id"] for each in disk.rows()] == ["c:0", "c:1", "c:2", "c:3"]
        disk.full = True
        audit.append(row(9))
        await audit.close()
        assert dropped == [1, 1, 1]

    with caplog.at_level(logging.WARNING, "trunkline.store.audit.log"):
        asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        "audit log x: no space left on device; 4 rows wait",
        "the audit log is written again",
        "audit log x: no space left on device; 1 rows wait",
        "audit log: 1 rows are lost",
    ]


def test_rows_hold_what_the_record_holds_redacted(tmp_path: Path) -> None:
    records, rows = Records(), list[Row]()
    sink = RedactedRecords(
        AuditedRecords(records, Sampling(100, {}), rows.append), Policies(Policy(frozenset({"card"})))
    )
    call = CallId("c")
    sink.append(CallStarted(call, DEFAULT_TENANT, "inbound", "sip", "clinic", AT))
    evidence = TurnEvidence((), (ToolUse("pay", {"with": ["4111 1111 1111 1111"]}, "ok"),))
    said = TurnRecord(0, "my card is 4111 1111 1111 1111", "thank you", evidence=evidence)
    sink.append(TurnEnded(call, AT, said))
    assert len(records.events) == 2
    assert [each.caller_text for each in rows] == ["my card is [card]"]
    assert rows[0].tool_calls == ('{"name": "pay", "arguments": {"with": ["[card]"]}, "outcome": "ok"}',)
    assert "4111" not in repr(records.events) + repr(rows)


def test_the_record_has_nothing_of_what_tools_were_given_and_the_log_nothing_of_whoever_did_not_agree() -> None:
    turn = TurnRecord(0, "hello", "good day", evidence=TurnEvidence(("aa",), (ToolUse("pay", {"to": "Ann"}, "ok"),)))
    line = encode(TurnEnded(CallId("c"), AT, turn), 1)
    assert b"Ann" not in line
    assert b"evidence" not in line
    bare = turn.without_words()
    assert (bare.caller_text, bare.agent_text) == ("", "")
    assert bare.evidence is not None
    assert [(use.name, use.arguments, use.outcome) for use in bare.evidence.tools] == [("pay", {}, "ok")]


def test_a_fault_of_the_audit_is_none_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Sampling):
        def take(self, event: RecordEvent) -> Row | None:
            raise RuntimeError

    records = Records()
    started = CallStarted(CallId("c"), DEFAULT_TENANT, "inbound", "sip", "clinic", AT)
    AuditedRecords(records, Faulty(1, {}), lambda row: None).append(started)
    assert records.events == [started]
    assert "audit log: CallStarted" in caplog.text
