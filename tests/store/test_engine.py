import asyncio
import importlib.util
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import StatementError

from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.store import engine as engine_module
from trunkline.store.engine import Database, database_url
from trunkline.store.models import Base, SpoolPosition, Tenant

AT = datetime(2026, 11, 22, 15, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
    ],
)
def test_plain_urls_get_our_drivers(written: str, used: str, tmp_path: Path) -> None:
    assert database_url(written, tmp_path).render_as_string(hide_password=False) == used


def test_without_a_url_it_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    for nothing in (None, ""):
        assert database_url(nothing, tmp_path).database == str(tmp_path / "trunkline.db")


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "secret", "postgresql+psycopg://u:secret@h/d"]
)
def test_any_other_url_is_one_line_without_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        database_url(url, tmp_path)
    assert str(error.value).startswith("database_url = ")
    assert "secret" not in str(error.value)


def test_postgresql_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"trunkline\[postgres\]"):
        database_url("postgresql://h/d", tmp_path)


def test_the_migrations_make_exactly_the_tables_of_the_models(url: URL) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        async with database.read() as connection:
            assert await connection.run_sync(differences) == []
        await database.close()

    asyncio.run(scenario())


def test_upgrading_says_nothing_and_needs_no_working_folder(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")

    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        await database.upgrade()
        await database.close()
        await database.close()

    asyncio.run(scenario())
    assert capfd.readouterr() == ("", "")


def test_a_database_of_this_version_is_left_alone_without_alembic(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async def upgrade() -> None:
        database = Database(url)
        await database.upgrade()
        await database.close()

    asyncio.run(upgrade())
    monkeypatch.setattr(command, "upgrade", lambda config, revision: pytest.fail("it was upgraded again"))
    asyncio.run(upgrade())


def test_workers_that_start_together_upgrade_one_after_the_other(url: URL) -> None:
    async def scenario() -> None:
        databases = [Database(url) for _ in range(3)]
        await asyncio.gather(*(database.upgrade() for database in databases))
        async with databases[0].read() as connection:
            versions = (await connection.execute(text("SELECT version_num FROM alembic_version"))).all()
        assert len(versions) == 1
        for database in databases:
            await database.close()

    asyncio.run(scenario())


def test_the_database_of_a_newer_trunkline_is_refused_with_a_reason(url: URL) -> None:
    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        async with database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(StoreError, match="another version of Trunkline"):
            await database.upgrade()
        await database.close()

    asyncio.run(scenario())


def test_times_are_stored_in_utc_and_come_back_with_their_zone(url: URL) -> None:
    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        there = AT.astimezone(timezone(timedelta(hours=9)))
        async with database.write() as connection:
            await connection.execute(insert(Tenant).values(id="t", name="t", created_at=there))
        async with database.read() as connection:
            at = await connection.scalar(select(Tenant.created_at))
        assert at == AT
        assert at is not None
        assert at.utcoffset() == timedelta(0)
        with pytest.raises(StatementError, match="without a zone"):
            async with database.write() as connection:
                await connection.execute(insert(Tenant).values(id="u", name="u", created_at=AT.replace(tzinfo=None)))
        await database.close()

    asyncio.run(scenario())


def test_an_error_undoes_the_transaction(url: URL) -> None:
    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        with suppress(ZeroDivisionError):
            async with database.write() as connection:
                await connection.execute(insert(SpoolPosition).values(run="r", worker="w", seq=1, updated_at=AT))
                raise ZeroDivisionError
        async with database.read() as connection:
            assert (await connection.execute(select(SpoolPosition))).all() == []
        await database.close()

    asyncio.run(scenario())


def test_no_row_of_a_call_may_name_another_tenant(url: URL) -> None:
    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            async with database.write() as connection:
                await connection.execute(
                    text(
                        "INSERT INTO usage (run, seq, tenant_id, call_id, at, provider, kind, unit, quantity)"
                        " VALUES ('r', 1, 't', 'c', '2026-01-01 00:00:00', 'p', 'tts', 'characters', 1)"
                    )
                )
        await database.close()

    asyncio.run(scenario())


def test_sqlite_is_private_durable_and_lets_readers_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(database_url(None, tmp_path / "data"))
        await database.upgrade()
        async with database.read() as connection:
            for pragma, value in (
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("busy_timeout", 5000),
            ):
                assert await connection.scalar(text(f"PRAGMA {pragma}")) == value
        async with database.write() as writing, database.read() as reading:
            await writing.execute(insert(SpoolPosition).values(run="r", worker="w", seq=1, updated_at=AT))
            assert (await reading.execute(select(SpoolPosition))).all() == []
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "data").iterdir())
        await database.close()

    asyncio.run(scenario())


def test_a_reader_never_makes_an_empty_database_where_ours_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(database_url(None, tmp_path))
        for _ in range(2):
            with pytest.raises(StoreError, match="FileNotFoundError ENOENT"):
                async with database.read():
                    pass
            assert not (tmp_path / "trunkline.db").exists()
            await database.upgrade()
            (tmp_path / "trunkline.db").unlink()
            assert database.moved
        await database.let_go()
        await database.upgrade()
        async with database.read() as connection:
            assert (await connection.execute(select(Tenant))).all() == []
        await database.close()

    asyncio.run(scenario())


def test_errors_say_what_failed_and_never_whose_number_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(database_url(None, tmp_path), busy_timeout_ms=0)
        await database.upgrade()
        other = sqlite3.connect(tmp_path / "trunkline.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception) as locked:
            async with database.write():
                pass
        other.close()
        assert engine_module.what_failed(locked.value) == "OperationalError SQLITE_BUSY"
        with pytest.raises(StoreError) as error:
            async with database.read() as connection:
                await connection.execute(text("SELECT * FROM nowhere WHERE n = :n"), {"n": "+15550100"})
        assert "5550100" not in f"{error.value} {error.value.__cause__}"
        await database.close()

    asyncio.run(scenario())
