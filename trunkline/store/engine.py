"""The database behind a URL: SQLite in the data folder, or PostgreSQL. Opens, upgrades, closes.

SQLite runs in WAL mode with `synchronous=FULL`, because the spool deletes what a commit has taken over, so a commit
must survive a loss of power; and writers say BEGIN IMMEDIATE, because a transaction that reads first and then finds
another writer ahead of it fails at once, whatever the busy timeout.
"""

import asyncio
import fcntl
import importlib.util
import io
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from errno import ENOENT, errorcode
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.privacy.texts import TextSeal

_KEY = "database_url"
_ALLOWED = "a URL like sqlite:////var/lib/trunkline/trunkline.db or postgresql://user:password@host/database"
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_ADMINS_CODES = {"SQLITE_CANTOPEN", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY", "EACCES", "EROFS", "ENOTDIR"}
_MIGRATIONS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x7472756E6B  # "trunk": workers that start together upgrade one after the other
_CONNECT_TIMEOUT_S = 5
_COMMAND_TIMEOUT_S = 15


def database_url(text_url: str | None, data_dir: Path) -> URL:
    """What the admin wrote, with the driver we use. Raises ConfigError (without the password) or MissingExtra."""
    if not text_url:
        return URL.create("sqlite+aiosqlite", database=str(data_dir / "trunkline.db"))
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise ConfigError(_KEY, "(not a URL)", _ALLOWED) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigError(_KEY, url.render_as_string(), _ALLOWED)
    url = url.set(drivername=driver)
    if driver == "sqlite+aiosqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError(_KEY, url.render_as_string(), "a file: records must outlive the process")
        return url
    if importlib.util.find_spec("asyncpg") is None:
        raise MissingExtra("asyncpg", "postgres")
    return _libpq_names(url)


def _libpq_names(url: URL) -> URL:
    """`sslmode`, as in every hosted database's URL, is `ssl` to asyncpg."""
    sslmode = url.query.get("sslmode")
    return url if sslmode is None else url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})


class Database:
    """Connections for reading and writing. `upgrade` comes first: until then the database counts as away."""

    def __init__(self, url: URL, *, busy_timeout_ms: int = 5000, seal: TextSeal | None = None) -> None:
        """Opens nothing yet. `url` from `database_url`. `seal`: what people said is sealed with it (store.sealing)."""
        self.seal = seal
        self.url = url
        self.dialect = url.get_backend_name()
        self.name = f"database {url.render_as_string(hide_password=True)}"
        self._busy_timeout_ms = busy_timeout_ms
        self._file = Path(url.database or "") if self.dialect == "sqlite" else None
        self._file_id: tuple[int, int] | None = None
        self._in_use = 0
        self._idle = asyncio.Condition()
        self._reopening = False
        self._engine = create_async_engine(
            url,
            hide_parameters=True,  # phone numbers and transcripts stay out of error texts
            pool_timeout=_CONNECT_TIMEOUT_S,
            **self._options(),
        )
        if self._file is not None:
            event.listen(self._engine.sync_engine, "connect", self._on_sqlite_connect)
            event.listen(self._engine.sync_engine, "begin", _on_sqlite_begin)

    def _options(self) -> dict[str, Any]:
        if self._file is not None:
            return {}
        timeouts = {"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _COMMAND_TIMEOUT_S}
        return {
            "pool_pre_ping": True,
            "connect_args": {**timeouts, "server_settings": {"application_name": "trunkline"}},
        }

    def _on_sqlite_connect(self, connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {self._busy_timeout_ms}",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def _stat(self) -> tuple[int, int] | None:
        assert self._file is not None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction: committed at the end, rolled back by an exception. Raises what the driver raises."""
        async with self._connection() as connection:
            await connection.execution_options(trunkline_write=True)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """As `write`. Raises StoreError when the database is away."""
        try:
            async with self.write() as connection:
                yield connection
        except Exception as error:
            if not is_database(error):
                raise
            raise StoreError(f"the database is away ({what_failed(error)})") from error

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction for reading. Raises StoreError when the database is away."""
        try:
            async with self._connection() as connection:
                yield connection
        except Exception as error:
            if not is_database(error):
                raise
            raise StoreError(f"the database is away ({what_failed(error)})") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        async with self._idle:
            if self._reopening:
                async with asyncio.timeout(_COMMAND_TIMEOUT_S):  # asyncio.wait_for may lose a cancellation (3.11)
                    await self._idle.wait_for(lambda: not self._reopening)
            self._in_use += 1
        try:
            if self._file is not None and (self._file_id is None or self.moved):
                # SQLite would make an empty one. (And aiosqlite leaves a thread behind when it cannot connect.)
                raise FileNotFoundError(ENOENT, "not the file that was upgraded")
            async with self._engine.connect() as connection:
                yield connection
        finally:
            self._in_use -= 1
            if self._reopening:
                async with self._idle:
                    self._idle.notify_all()

    async def upgrade(self) -> None:
        """Bring the tables to this version; workers starting together do it one after the other. Raises StoreError
        when a newer Trunkline has written the database, and what the driver raises when it is away."""
        if self._file is not None:
            await _prepare(self._file)
            self._file_id = self._stat()
        if self.dialect == "postgresql":
            await self._upgrade_postgresql()
            return
        async with self.write() as connection:
            await connection.run_sync(_upgrade)

    async def _upgrade_postgresql(self) -> None:
        """Over a connection of its own, on which a statement may take as long as it takes: what sums up a million calls
        needs more than a minute."""
        connect = {**self._options()["connect_args"], "command_timeout": None}
        engine = create_async_engine(self.url, hide_parameters=True, poolclass=NullPool, connect_args=connect)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
                await connection.run_sync(_upgrade)
        finally:
            await engine.dispose()

    @property
    def moved(self) -> bool:
        """The SQLite file was deleted or replaced: SQLite would go on writing into the deleted one."""
        return self._file is not None and self._file_id is not None and self._stat() != self._file_id

    async def let_go(self) -> None:
        """Close all connections to a file that was moved, before any is opened to the new one: the last one to close
        removes the WAL *by name*. `upgrade` comes next."""
        self._reopening = True
        try:
            async with self._idle:
                async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                    await self._idle.wait_for(lambda: self._in_use == 0)
            await self._engine.dispose()
            self._file_id = None
        finally:
            self._reopening = False
            async with self._idle:
                self._idle.notify_all()

    async def close(self) -> None:
        """Idempotent."""
        await self._engine.dispose()


async def _prepare(file: Path) -> None:
    """Make the file, private, and set WAL mode, which stays with it. Two processes that change the mode at once fail
    at once, whatever the busy timeout: they take turns by a lock on the folder."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(_COMMAND_TIMEOUT_S):
            while not _locked(folder):  # noqa: ASYNC110  (a lock of another process)
                await asyncio.sleep(0.02)
        await asyncio.to_thread(_make_wal, file)
    finally:
        os.close(folder)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_wal(file: Path) -> None:
    if not file.exists():
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))  # -wal and -shm follow its mode
    with closing(sqlite3.connect(file, timeout=_CONNECT_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _on_sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("trunkline_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection) -> None:
    if _is_current(connection):
        return  # before Alembic is imported: half of a second of a restart
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"the database is of another version of Trunkline: {error}") from None


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    latest = max(path.name for path in (_MIGRATIONS / "versions").glob("v*.py"))[1:5]
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [latest]


def is_database(error: BaseException) -> bool:
    """Whether the database or the way to it failed. (asyncpg's own errors are not wrapped while connecting.)"""
    return isinstance(error, SQLAlchemyError | sqlite3.Error | OSError | TimeoutError) or hasattr(error, "sqlstate")


def code_of(error: BaseException | None) -> str:
    """PostgreSQL's SQLSTATE, SQLite's error name, errno's name, or nothing."""
    origin = getattr(error, "orig", None) or error
    code = getattr(origin, "sqlstate", None) or getattr(origin, "sqlite_errorname", None)
    if code is None and isinstance(origin, OSError) and origin.errno:
        return errorcode.get(origin.errno, "")
    return str(code or "")


def what_failed(error: BaseException) -> str:
    """An error as it may be logged: class and code. Its text may quote rows."""
    return f"{type(error).__name__} {code_of(error)}".rstrip()


def for_the_admin(error: BaseException) -> bool:
    """Waiting will not help: no such database, a wrong password, a file that is none or may not be written."""
    code = code_of(error)
    return code[:2] in ("28", "3D") or code in _ADMINS_CODES
