"""Every database test runs on SQLite, and on PostgreSQL when TRUNKLINE_TEST_DATABASE_URL names a server to use."""

import asyncio
import atexit
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from trunkline.privacy.texts import TextSeal
from trunkline.store.engine import Database, database_url
from trunkline.store.records import CallRecords, RecordWriter
from trunkline.store.spool import Spool
from trunkline.testing.clock import ManualClock

SERVER = os.environ.get("TRUNKLINE_TEST_DATABASE_URL")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """Of a new database; where the upgrade is what is tested, an empty one."""
    with new_database(request.param, tmp_path, is_empty=request.module.__name__.endswith("test_engine")) as found:
        yield found


@contextmanager
def new_database(kind: str, folder: Path, *, is_empty: bool = True) -> Iterator[URL]:
    if kind == "sqlite":
        yield database_url(None, folder)
        return
    if not SERVER:
        pytest.skip("TRUNKLINE_TEST_DATABASE_URL is not set")
    server, name = database_url(SERVER, folder), f"trunkline_test_{secrets.token_hex(6)}"
    template = "" if is_empty else f" TEMPLATE {_upgraded(server)}"
    asyncio.run(_command(server, f"CREATE DATABASE {name}{template}"))
    yield server.set(database=name)
    asyncio.run(_command(server, f"DROP DATABASE {name} WITH (FORCE)"))


@cache
def _upgraded(server: URL) -> str:
    """A database of this version, to be copied: its migrations take a second each time."""
    name = f"trunkline_template_{secrets.token_hex(6)}"

    async def make() -> None:
        await _command(server, f"CREATE DATABASE {name}")
        database = Database(server.set(database=name))
        await database.upgrade()
        await database.close()

    asyncio.run(make())
    atexit.register(lambda: asyncio.run(_command(server, f"DROP DATABASE {name} WITH (FORCE)")))
    return name


async def _command(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@dataclass
class Store:
    """Spool, writer and reader of one worker, wired as `app` wires them."""

    spool: Spool
    database: Database
    writer: RecordWriter
    records: CallRecords

    async def rows(self, table: str) -> list[dict[str, Any]]:
        async with self.database.read() as connection:
            return [dict(row) for row in (await connection.execute(text(f"SELECT * FROM {table}"))).mappings()]

    async def count(self, table: str) -> int:
        return len(await self.rows(table))


OpenStore = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def open_store(url: URL, tmp_path: Path) -> OpenStore:
    @asynccontextmanager
    async def opened(
        worker: str = "w0", *, start: bool = True, seal: TextSeal | None = None, **options: Any
    ) -> AsyncGenerator[Store]:
        spool = Spool(tmp_path / "spool" / worker, sync_period_s=None, seal=seal)
        database = Database(url, busy_timeout_ms=50, seal=seal)
        writer = RecordWriter(spool, database, ManualClock(), worker=worker, **options)
        try:
            if start:
                await writer.start()
            yield Store(spool, database, writer, CallRecords(database))
        finally:
            await writer.close()
            spool.close()
            await database.close()

    return opened
