"""`trunkline numbers route`, and the same over the API."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.store.seeding import put
from trunkline.cli import main
from trunkline.gateway.api.routed import routed_routes
from trunkline.identity import Principal
from trunkline.numbers.directory import Directory
from trunkline.numbers.resources import Agent, ByAgents, ByMessage, Hours, Number, Resource, Route, Share, Tenant
from trunkline.store.directory import DatabaseNumbers
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT, TenantId

OURS, THEIRS = "+14155550111", "+14155550112"
OTHERS = TenantId("others")
DESK: tuple[Resource, ...] = (
    Tenant(zone="America/New_York", countries=("US",)),
    Hours(name="office", zone="America/New_York", weekly={"thu": ("09:00-12:00",)}),
    Agent(name="reception", published=3),
    Route(
        name="main",
        answer=ByAgents(kind="agents", agents=(Share(agent="reception"),)),
        hours="office",
        closed=ByMessage(kind="message", text="We are closed."),
    ),
    Number(number=OURS, route="main"),
)


async def fill(folder: Path) -> None:
    database = Database(database_url(None, folder))
    await database.upgrade()
    await put(database, DEFAULT_TENANT, *DESK)
    await put(database, OTHERS, Number(number=THEIRS))
    await database.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    asyncio.run(fill(tmp_path))
    for name in [name for name in os.environ if name.startswith("TRUNKLINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRUNKLINE_DATA_DIR", str(tmp_path))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = 0
    try:
        main(["numbers", "route", *argv])
    except SystemExit as left:
        status = int(left.code or 0)
    return status, capsys.readouterr().out


def test_it_says_who_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, OURS, "--at", "2026-12-24T10:00", "--from", "+14155550142")
    assert (status, out.splitlines()) == (
        0,
        [
            "agent reception@3 (tenant default)",
            f"  {OURS} is a number of tenant default, with route main",
            "  hours office: open on Thu 2026-12-24 10:00 (America/New_York)",
            "  agent reception@3 answers",
        ],
    )
    status, out = run(capsys, OURS, "--at", "2026-12-24T17:30:00Z", "--json")
    found = json.loads(out)
    assert (found["by"], found["text"], found["route"]) == ("message", "We are closed.", "main")
    status, out = run(capsys, OURS, "--from", "+4930901820")
    assert (status, out.splitlines()[0]) == (1, "nobody: country (tenant default)")
    assert run(capsys, OURS, "--at", "noon")[0] == 2


@contextmanager
def api(folder: Path) -> Iterator[TestClient]:
    database = Database(database_url(None, folder))
    directory = Directory(DatabaseNumbers(database))

    @asynccontextmanager
    async def opened(app: Any) -> AsyncGenerator[None]:
        await database.upgrade()
        yield
        await database.close()

    app = Starlette(routes=routed_routes(directory, ManualClock()), lifespan=opened)

    async def as_tenant(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            tenant = TenantId(dict(scope["headers"])[b"tenant"].decode())
            scope.setdefault("state", {})["principal"] = Principal(tenant, "key:test", frozenset(("read",)))
        await app(scope, receive, send)

    with TestClient(as_tenant) as client:
        yield client


def test_over_the_api_a_tenant_sees_its_own_numbers_only(folder: Path) -> None:
    with api(folder) as client:

        def ask(tenant: str, number: str, **body: Any) -> tuple[int, Any]:
            answered = client.post(f"/v1/numbers/{number}/route", json=body, headers={"tenant": tenant})
            return answered.status_code, answered.json()

        status, found = ask("default", OURS, at="2026-12-24T10:00")
        assert status == 200
        assert (found["by"], found["agent"], found["version"]) == ("agent", "reception", 3)
        assert found["at"] == "2026-12-24T10:00:00-05:00"
        _, found = ask("others", OURS, at="2026-12-24T10:00")
        assert (found["tenant"], found["by"], found["route"]) == ("others", "own_agent", None)
        assert found["why"][0] == "the number is in no inventory (tenant others), without a route"
        status, found = ask("default", "911", at="noon", to="x")
        assert (status, [each["field"] for each in found["errors"]]) == (422, ["to", "number"])
        assert ask("default", OURS, at="noon", verdict="good")[0] == 422
