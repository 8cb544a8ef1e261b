"""A tenant's desk: agents are published and gone back to, and a file says what it would change, then changes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.engine import URL

from trunkline.numbers.ascode import apply, export, read_document, written
from trunkline.numbers.desk import Desk, shown
from trunkline.owned import DeskError
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.desk import Desk as Store
from trunkline.store.engine import Database
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

OURS, THEIRS, ANN = DEFAULT_TENANT, TenantId("theirs"), "user:ann"


def checked(script: str) -> list[str]:
    return ["line 1: no name"] if "name" not in script else []


def on(url: URL, test: Callable[[Desk, list[TenantId]], Awaitable[None]]) -> None:
    async def run() -> None:
        database, told = Database(url), list[TenantId]()
        await database.upgrade()
        await test(
            Desk(Store(database, ManualClock(), TextSeal(KeyRing({"one": bytes(32)}))), checked, told.append), told
        )
        await database.close()

    asyncio.run(run())


def route(*shares: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "main", "answer": {"kind": "agents", "agents": list(shares)}, **fields}


def test_a_draft_is_published_and_gone_back_from(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        made = await desk.make(OURS, ANN, "agents", {"name": "desk", "draft": "name = 'one'"})
        assert made.body["published"] is None
        assert (await desk.publish(OURS, ANN, "desk", "first", if_version=made.version)).number == 1
        kept = await desk.get(OURS, "agents", "desk")
        await desk.replace(OURS, ANN, "agents", "desk", {**kept.body, "draft": "name = 'two'"})
        assert (await desk.publish(OURS, ANN, "desk")).number == 2
        assert (await desk.roll_back(OURS, ANN, "desk", 1)).body["published"] == 1
        with pytest.raises(DeskError, match="agent desk has no version 7"):
            await desk.roll_back(OURS, ANN, "desk", 7)
        actions = [line.action for line in (await desk.store.changes(OURS))[0]]
        assert actions == ["roll_back", "publish", "add_version", "replace", "publish", "add_version", "create"]
        assert told == [OURS] * 5

    on(url, test)


def test_a_draft_with_mistakes_is_not_published(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "agents", {"name": "desk"})
        for draft, why in (("", "it is empty"), ("nothing", "line 1: no name")):
            await desk.replace(OURS, ANN, "agents", "desk", {"draft": draft})
            with pytest.raises(DeskError, match=why):
                await desk.publish(OURS, ANN, "desk")
        assert await desk.store.versions(OURS, "desk") == []

    on(url, test)


def test_published_is_not_written_by_hand(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "agents", {"name": "desk", "draft": "name"})
        with pytest.raises(DeskError, match="publish and roll back have their own ways"):
            await desk.replace(OURS, ANN, "agents", "desk", {"draft": "name", "published": 1})

    on(url, test)


def test_a_share_is_pinned_to_a_version_that_is_there(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "agents", {"name": "desk", "draft": "name"})
        with pytest.raises(DeskError) as refused:
            await desk.make(OURS, ANN, "routes", route({"agent": "desk", "version": 1}))
        assert refused.value.fields == {"answer.agents.0.version": "a version of agent desk: it has no 1"}
        await desk.publish(OURS, ANN, "desk")
        await desk.make(OURS, ANN, "routes", route({"agent": "desk", "version": 1}))

    on(url, test)


def test_numbers_are_of_the_tenants_countries(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.replace(OURS, ANN, "tenant", "tenant", {"countries": ["US"]})
        await desk.make(OURS, ANN, "numbers", {"number": "+14155550100"})
        with pytest.raises(DeskError, match=r"number: a number of US .the tenant's countries.: .442079460123 is of GB"):
            await desk.make(OURS, ANN, "numbers", {"number": "+442079460123"})
        await desk.make(THEIRS, "operator", "numbers", {"number": "+442079460123"})

    on(url, test)


def test_a_tenant_takes_no_number_of_the_gateways_lines(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        number = {"number": "+14155550100"}
        for actor in (ANN, "key:crm"):
            with pytest.raises(DeskError, match="trunk: a trunk of the tenant's own"):
                await desk.make(THEIRS, actor, "numbers", number)
        await desk.make(THEIRS, ANN, "trunks", {"name": "t", "settings": {"peers": ["192.0.2.1"]}})
        await desk.make(THEIRS, ANN, "numbers", {**number, "trunk": "t"})
        with pytest.raises(DeskError, match="trunk: a trunk of the tenant's own"):
            await desk.replace(THEIRS, ANN, "numbers", number["number"], {})
        await desk.make(THEIRS, "operator", "numbers", {"number": "+14155550101"})
        await desk.replace(THEIRS, ANN, "numbers", "+14155550101", {"label": "given"})
        await desk.make(DEFAULT_TENANT, ANN, "numbers", {"number": "+14155550102"})

    on(url, test)


def test_a_version_of_a_deleted_agent_is_not_made_again(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        for draft, number in (("name = 'one'", 1), ("name = 'two'", 2)):
            await desk.make(OURS, ANN, "agents", {"name": "desk", "draft": draft})
            assert (await desk.publish(OURS, ANN, "desk")).number == number
            await desk.delete(OURS, ANN, "agents", "desk")

    on(url, test)


def test_a_key_is_for_good(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await desk.make(OURS, ANN, "numbers", {"number": "+14155550100"})
        with pytest.raises(DeskError, match="cannot be renamed"):
            await desk.replace(OURS, ANN, "numbers", "+14155550100", {"number": "+14155550101"})

    on(url, test)


def test_secrets_are_shown_as_there_or_not(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        made = await desk.make(OURS, ANN, "carriers", {"name": "tw", "type": "twilio", "auth_token": "hush"})
        told_of = shown(made)
        assert (told_of["has_auth_token"], told_of["has_api_secret"]) == (True, False)
        assert "auth_token" not in told_of
        assert "hush" not in repr(told_of)

    on(url, test)


FILE = """
[tenant]
zone = "America/New_York"

[[hours]]
name = "office"
zone = "America/New_York"
weekly = { mon = ["09:00-17:00"], tue = ["09:00-12:00", "13:00-17:00"] }
holidays = [{ date = "2026-12-25", name = "Christmas" }]

[[agents]]
name = "desk"
script = '''
name = "desk"
greeting = "Hello."
'''

[[routes]]
name = "main"
hours = "office"
answer = { kind = "agents", agents = [{ agent = "desk", version = 1 }] }
closed = { kind = "message", text = "We are closed." }

[[numbers]]
number = "+14155550100"
route = "main"

[[numbers]]
number = "+14155550101"
route = "main"
max_calls = 3
"""


def steps(found: Any) -> list[tuple[str, str]]:
    return [(step.action, step.key) for step in found]


def test_a_file_is_shown_applied_and_comes_back_as_it_was(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        document = read_document(FILE)
        wanted = [
            ("create", "tenant"),
            ("create", "office"),
            ("create", "desk"),
            ("publish", "desk"),
            ("create", "main"),
            ("create", "+14155550100"),
            ("create", "+14155550101"),
        ]
        assert steps(await apply(desk, OURS, ANN, document, keep=False)) == wanted
        assert await desk.store.count(OURS, "numbers") == 0
        assert steps(await apply(desk, OURS, ANN, document)) == wanted
        assert await apply(desk, OURS, ANN, document) == []
        assert told == [OURS]
        out = read_document(written(await export(desk, OURS)))
        assert await apply(desk, OURS, ANN, out, prune=True) == []
        assert steps(await apply(desk, THEIRS, ANN, {**out, "numbers": []})) == wanted[:5]
        theirs = await export(desk, THEIRS)
        assert theirs == {name: value for name, value in out.items() if name != "numbers"}

    on(url, test)


def test_a_file_changes_only_what_differs_and_prunes_only_when_told_to(url: URL) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        await apply(desk, OURS, ANN, read_document(FILE))
        changed = read_document(FILE.replace("max_calls = 3", "max_calls = 4").replace("Hello.", "Good day."))
        found = await apply(desk, OURS, ANN, changed)
        assert steps(found) == [("replace", "desk"), ("publish", "desk"), ("replace", "+14155550101")]
        assert found[-1].fields == ("max_calls",)
        assert (await desk.get(OURS, "agents", "desk")).body["published"] == 2
        changed["numbers"] = changed["numbers"][:1]
        assert await apply(desk, OURS, ANN, changed) == []
        assert steps(await apply(desk, OURS, ANN, changed, prune=True)) == [("delete", "+14155550101")]
        with pytest.raises(DeskError) as in_use:
            await apply(desk, OURS, ANN, {"routes": []}, prune=True)
        assert in_use.value.code == "in_use"

    on(url, test)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (('route = "main"\nmax_calls = 3', 'route = "nowhere"'), None),
        (("max_calls = 3", "max_calls = 0"), "numbers.1.max_calls"),
        (("[[hours]]", "[[clocks]]"), "clocks"),
        (("version = 1", "version = 2"), "routes.0.answer.agents.0.version"),
        (('number = "+14155550101"', 'number = "+14155550100"'), "numbers"),
        (('name = "desk"\ngreeting', "greeting"), "agents.0.draft.0"),
        (("[tenant]", "[[tenant]]"), "tenant"),
    ],
)
def test_of_a_file_with_a_mistake_nothing_is_applied_and_its_place_is_named(
    url: URL, change: tuple[str, str], field: str | None
) -> None:
    async def test(desk: Desk, told: list[TenantId]) -> None:
        assert change[0] in FILE
        with pytest.raises(DeskError) as refused:
            await apply(desk, OURS, ANN, read_document(FILE.replace(*change)))
        if field is not None:
            assert list(refused.value.fields) == [field]
        assert await desk.store.revision(OURS) == 0
        assert told == []

    on(url, test)


def test_a_file_that_is_none_is_said_to_be() -> None:
    for text in ("[[", "\x00"):
        with pytest.raises(DeskError, match="cannot be read"):
            read_document(text)
    with pytest.raises(DeskError, match="a table of kinds"):
        read_document("[]", is_json=True)
