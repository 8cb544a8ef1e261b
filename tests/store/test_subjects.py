"""A person is shown, forgotten and searched for again; what is old goes."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trunkline.ports import CallEnded, CallEvent, CallStarted, Grant, TurnEnded, TurnRecord
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.codec import call_of
from trunkline.store.consents import ConsentLedger, Noted, new_id
from trunkline.store.devices import KnownDevices
from trunkline.store.dnc import DncLists
from trunkline.store.spool import Spool
from trunkline.store.spoolfiles import erase_from_spool, spool_with
from trunkline.store.subjects import Subjects, Terms, files_with, rewrite, without
from trunkline.types import DEFAULT_TENANT as US
from trunkline.types import CallId

AT = datetime(2026, 11, 22, 15, tzinfo=UTC)
ANN, BOB = "+12125550177", "+12125550188"
OpenStore = Any  # of conftest.py


async def fill(store: Any, recordings: Path) -> None:
    """Ann's two calls, of which one goes on, and one of Bob's that names her."""
    recordings.mkdir()
    spool = store.spool
    for call_id, number in (("ann_1", ANN), ("ann_live", ANN), ("bob_1", BOB)):
        spool.append(CallStarted(CallId(call_id), US, "inbound", "sip", "clinic", AT, number, "+12125550100", call_id))
        spool.append(TurnEnded(CallId(call_id), AT, TurnRecord(0, f"I am {number}", "and Ann is " + ANN)))
        spool.append(CallEvent(CallId(call_id), AT, "attributes", {"x": [ANN]}))
        if call_id != "ann_live":
            spool.append(CallEnded(CallId(call_id), AT + timedelta(minutes=1), "caller_hung_up"))
        for name in (f"{call_id}.wav", f"{call_id}-2.wav.sealed"):
            (recordings / name).write_bytes(b"RIFF")
    assert await store.writer.flush()
    ledger = ConsentLedger(store.database)
    grant = Grant(US, ANN, "express_oral", AT, "keypad", ("artificial_voice",), "May we?", "v1")
    await ledger.note(US, [Noted(new_id(), grant)])
    await KnownDevices(store.database, store.writer._clock).register(US, "kitchen", ANN)


def test_who_is_erased_is_nowhere_to_be_found(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            recordings = tmp_path / "recordings"
            await fill(store, recordings)
            store.spool.append(CallEnded(CallId("ann_live"), AT + timedelta(minutes=2), "caller_hung_up"))
            assert await store.writer.flush()
            subjects = Subjects(store.database, recordings)
            told = await subjects.export(US, ANN)
            assert [call["id"] for call in told["calls"]] == ["ann_1", "ann_live"]
            assert told["recordings"] == ["ann_1-2.wav.sealed", "ann_1.wav", "ann_live-2.wav.sealed", "ann_live.wav"]
            assert (len(told["consent"]["events"]), len(told["devices"])) == (1, 1)
            await DncLists(store.database).add(US, "company", [ANN], AT, "test")

            done = await subjects.erase(US, ANN, AT)
            assert done == {
                "calls": 2, "live": 0, "recordings": 4, "orders": 0, "attempts": 0, "devices": 1, "unplaced": 0,
                "mentions": 2, "consents": 1,
            }  # fmt: skip
            assert await subjects.rows_with(ANN) == []
            assert await subjects.rows_with(BOB) != []
            assert sorted(path.name for path in recordings.iterdir()) == ["bob_1-2.wav.sealed", "bob_1.wav"]
            assert await store.count("dnc_entries") == 1  # they must not be called
            assert (await ConsentLedger(store.database).verify(US)).broken is None

    asyncio.run(scenario())


def test_a_call_that_goes_on_is_left_alone_and_counted(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, tmp_path / "recordings")
            done = await Subjects(store.database, tmp_path / "recordings").erase(US, ANN, AT)
            assert (done["calls"], done["live"]) == (1, 1)
            assert {row["id"] for row in await store.rows("calls")} == {"ann_live", "bob_1"}

    asyncio.run(scenario())


def test_a_database_file_written_anew_holds_nothing_of_them(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            await fill(store, tmp_path / "recordings")
            store.spool.append(CallEnded(CallId("ann_live"), AT + timedelta(minutes=2), "caller_hung_up"))
            assert await store.writer.flush()
            await Subjects(store.database, tmp_path / "recordings").erase(US, ANN, AT)

    asyncio.run(scenario())
    file = tmp_path / "trunkline.db"
    if file.exists():
        rewrite(file)
        assert files_with(tmp_path, ANN) == []
        assert files_with(tmp_path, BOB) == ["trunkline.db"]


def test_what_is_old_goes_and_what_is_not_stays(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            recordings = tmp_path / "recordings"
            await fill(store, recordings)
            subjects, now = Subjects(store.database, recordings), AT + timedelta(days=10)
            for path in recordings.iterdir():
                os.utime(path, (AT.timestamp(), AT.timestamp()))
            nothing = {"calls": 0, "transcripts": 0, "recordings": 0}
            assert await subjects.purge(Terms(), now) == nothing
            assert await subjects.purge(Terms(11, 11, 11), now) == nothing
            assert await subjects.purge(Terms(recordings=9), now) == {**nothing, "recordings": 6}
            assert await subjects.purge(Terms(transcripts=9), now) == {**nothing, "transcripts": 3}
            assert {(row["caller_text"], row["agent_text"]) for row in await store.rows("turns")} == {("", "")}
            assert await subjects.purge(Terms(calls=9), now) == {**nothing, "calls": 2}
            assert [row["id"] for row in await store.rows("calls")] == ["ann_live"]

    asyncio.run(scenario())


def sealed_with(name: str = "first") -> TextSeal:
    return TextSeal(KeyRing({name: {"first": bytes(32), "second": bytes(range(32))}[name]}))


def test_what_is_sealed_is_searched_and_erased_as_well(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(seal=sealed_with()) as store:
            await fill(store, tmp_path / "recordings")
            store.spool.append(CallEnded(CallId("ann_live"), AT + timedelta(minutes=2), "caller_hung_up"))
            store.spool.append(CallEvent(CallId("unknown"), AT, "attributes", {"x": ANN}))
            store.spool.append(
                TurnEnded(CallId("bob_1"), AT, TurnRecord(1, "Ann's is " + ANN, "and mine is no number"))
            )
            assert await store.writer.flush()
            assert ANN not in str(await store.rows("turns")) + str(await store.rows("call_events"))
            subjects = Subjects(store.database, tmp_path / "recordings")
            assert {"turns.caller_text", "turns.agent_text", "call_events.data", "unplaced_events.body"} < set(
                await subjects.rows_with(ANN)
            )
            done = await subjects.erase(US, ANN, AT)
            assert (done["calls"], done["mentions"], done["unplaced"], "locked" in done) == (2, 3, 1, False)
            assert await subjects.rows_with(ANN) == []
            bob = await store.records.get(US, CallId("bob_1"))
            assert [turn["caller_text"] for turn in bob["turns"]] == [f"I am {BOB}", "Ann's is [erased]"]
            assert bob["events"][0]["data"] == {"x": ["[erased]"]}
            assert BOB not in str(await store.rows("turns"))  # sealed again
            assert await subjects.purge(Terms(transcripts=1), AT + timedelta(days=2)) == {
                "calls": 0, "transcripts": 2, "recordings": 0,
            }  # fmt: skip

    asyncio.run(scenario())


def test_what_cannot_be_opened_is_counted_and_no_proof(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(seal=sealed_with()) as store:
            await fill(store, tmp_path / "recordings")
        async with open_store(seal=sealed_with("second")) as store:
            assert await store.writer.flush()
            subjects = Subjects(store.database, tmp_path / "recordings")
            done = await subjects.erase(US, ANN, AT)
            assert (done["calls"], done["mentions"], done["locked"]) == (2, 0, 2)  # of Bob's call
            why = "the key 'first' is needed: privacy.keys has second"
            assert await subjects.rows_with(ANN) == [
                f"turns.agent_text: {why}", f"turns.caller_text: {why}", f"call_events.data: {why}",
            ]  # fmt: skip

    asyncio.run(scenario())


@pytest.mark.parametrize("seal", [None, sealed_with()], ids=["clear", "sealed"])
def test_files_of_spools_are_searched_and_written_anew(tmp_path: Path, seal: TextSeal | None) -> None:
    spools = tmp_path / "spool"

    def fill_spool(worker: str) -> Spool:
        spool = Spool(spools / worker, sync_period_s=None, seal=seal)
        for call_id, number in (("ann_1", ANN), ("ann_live", ANN), ("bob_1", BOB)):
            call = CallId(call_id)
            spool.append(CallStarted(call, US, "inbound", "sip", "clinic", AT, number, "+12125550100", call_id))
            spool.append(TurnEnded(call, AT, TurnRecord(0, f"I am {number}", "and Ann is " + ANN)))
        return spool

    def holding(text: str) -> set[str]:
        found = spool_with(spools, text, seal) if seal is not None else files_with(spools, text)
        return {Path(name.partition(" (")[0]).parent.name for name in found}

    fill_spool("dead").close()
    fill_spool("aside").close()
    for path in (spools / "aside").glob("*.spool"):
        path.rename(path.with_suffix(".kept"))
    running = fill_spool("running")
    assert holding(ANN) == {"dead", "aside", "running"}
    done = erase_from_spool(spools, ANN, {"ann_1"}, {"ann_live"}, seal, without)
    assert (done.lines, done.in_use) == (2 * 3, ["running"])
    assert running.read(64)
    running.close()
    again = Spool(spools / "dead", sync_period_s=None, seal=seal)
    left = [entry.event for entry in again.read(64)]
    again.close()
    assert [type(event).__name__ for event in left] == ["CallStarted", "TurnEnded"] * 2
    assert {call_of(event) for event in left} == {"ann_live", "bob_1"}
    assert isinstance(left[-1], TurnEnded)
    assert left[-1].turn.agent_text == "and Ann is [erased]"
    assert erase_from_spool(spools, ANN, {"ann_1"}, (), seal, without).in_use == []
    assert holding(ANN) == set()
    assert holding(BOB) == {"dead", "aside", "running"}


@pytest.mark.parametrize("seal", [None, sealed_with()], ids=["clear", "sealed"])
def test_calls_of_a_device_are_its_accounts(open_store: OpenStore, tmp_path: Path, seal: TextSeal | None) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal) as store:
            recordings = tmp_path / "recordings"
            recordings.mkdir()
            for call_id, account in (("d1", "ann-smith"), ("d2", "bob-jones")):
                call = CallId(call_id)
                store.spool.append(CallStarted(call, US, "inbound", "webrtc", "clinic", AT, None, None, call_id))
                facts = {"device_id": f"kitchen of {account}", "device_account": account}
                store.spool.append(CallEvent(call, AT, "attributes", facts))
                store.spool.append(TurnEnded(call, AT, TurnRecord(0, "my words", "")))
                store.spool.append(CallEnded(call, AT, "caller_hung_up"))
                (recordings / f"{call_id}.wav").write_bytes(b"RIFF")
            assert await store.writer.flush()
            subjects = Subjects(store.database, recordings)
            assert [call["id"] for call in (await subjects.export(US, "ann-smith"))["calls"]] == ["d1"]
            assert await subjects.calls(US, "kitchen of bob-jones") == {"d2": False}
            done = await subjects.erase(US, "ann-smith", AT)
            assert (done["calls"], done["recordings"]) == (1, 1)
            assert [row["call_id"] for row in await store.rows("turns")] == ["d2"]

    asyncio.run(scenario())


@pytest.mark.parametrize("seal", [None, sealed_with()], ids=["clear", "sealed"])
def test_a_number_as_people_write_it_is_erased_from_the_calls_of_others(
    open_store: OpenStore, tmp_path: Path, seal: TextSeal | None
) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal) as store:
            call = CallId("bob_1")
            store.spool.append(CallStarted(call, US, "inbound", "sip", "clinic", AT, BOB, None, "bob_1"))
            for place, said in enumerate(("212-555-0177", "(212) 555 0177", "1 212.555.0177", "12125550177")):
                store.spool.append(TurnEnded(call, AT, TurnRecord(place, f"ask at {said}, please", "")))
            store.spool.append(TurnEnded(call, AT, TurnRecord(9, "order 92125550177, and 212-555-01775", "")))
            assert await store.writer.flush()
            done = await Subjects(store.database, tmp_path).erase(US, ANN, AT)
            turns = (await store.records.get(US, call))["turns"]
            assert [turn["caller_text"] for turn in turns] == [
                *["ask at [erased], please"] * 4, "order 92125550177, and 212-555-01775",
            ]  # fmt: skip
            assert done["mentions"] == 4

    asyncio.run(scenario())


@pytest.mark.parametrize("seal", [None, sealed_with()], ids=["clear", "sealed"])
def test_the_words_of_messages_and_what_waits_for_a_call_grow_old_too(
    open_store: OpenStore, tmp_path: Path, seal: TextSeal | None
) -> None:
    async def scenario() -> None:
        async with open_store(seal=seal) as store:
            call = CallId("c1")
            store.spool.append(CallStarted(call, US, "inbound", "sip", "clinic", AT, ANN, None, "c1"))
            store.spool.append(CallEvent(call, AT, "message", {"text": "call me back"}))
            store.spool.append(TurnEnded(CallId("gone"), AT, TurnRecord(0, "too late", "")))
            store.spool.append(TurnEnded(CallId("new"), AT + timedelta(days=9), TurnRecord(0, "early", "")))
            assert await store.writer.flush()
            subjects, now = Subjects(store.database, tmp_path), AT + timedelta(days=10)
            assert (await subjects.purge(Terms(transcripts=11), now))["transcripts"] == 0
            assert (await subjects.purge(Terms(transcripts=9), now))["transcripts"] == 2
            assert (await store.records.get(US, call))["events"][0]["data"] == {}
            assert [row["call_id"] for row in await store.rows("unplaced_events")] == ["new"]
            assert (await subjects.purge(Terms(calls=1), now))["transcripts"] == 0
            assert await store.count("unplaced_events") == 1
            await subjects.purge(Terms(calls=1), now + timedelta(days=2))
            assert await store.count("unplaced_events") == 0

    asyncio.run(scenario())


def test_what_is_deleted_while_files_are_looked_through_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("ann")
    is_file = Path.is_file

    def and_then_goes(path: Path) -> bool:
        found = is_file(path)
        if path.name == "b":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", and_then_goes)
    assert files_with(tmp_path, "ann") == ["a", "c"]


def test_what_was_cut_and_what_tools_were_given_goes_with_the_words(open_store: OpenStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store() as store:
            store.spool.append(CallStarted(CallId("c"), US, "inbound", "sip", "clinic", AT, BOB))
            store.spool.append(TurnEnded(CallId("c"), AT, TurnRecord(0, "", "", cut_text=f"I call {ANN}")))
            tools = [{"name": "call", "arguments": {"to": ANN}, "outcome": "ok"}]
            store.spool.append(CallEvent(CallId("c"), AT, "tools_used", {"turn": 0, "tools": tools}))
            assert await store.writer.flush()
            subjects = Subjects(store.database, tmp_path / "recordings")
            assert set(await subjects.rows_with(ANN)) == {"turns.cut_text", "call_events.data"}
            await subjects.erase(US, ANN, AT)
            assert await subjects.rows_with(ANN) == []
            assert (await store.rows("turns"))[0]["cut_text"] == "I call [erased]"
            await subjects.purge(Terms(transcripts=1), AT + timedelta(days=2))
            assert (await store.rows("turns"))[0]["cut_text"] == ""
            call = await store.records.get(US, CallId("c"))
            assert call["events"][0]["data"] == {}

    asyncio.run(scenario())
