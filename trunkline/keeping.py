"""`trunkline privacy ...` and `trunkline recordings ...`: what is kept of a person shown, forgotten and searched for;
what is old deleted; recordings opened.

The commands work on the database and the folder of the settings, beside a gateway that runs. Of its calls that go on
nothing is erased, and its spool keeps what was just written for a minute: `search` says what is left, and where.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT

if TYPE_CHECKING:
    from trunkline.store.audit.files import Custody
    from trunkline.store.audit.folder import AuditFolder
    from trunkline.store.subjects import Subjects

privacy_app = typer.Typer(no_args_is_help=True, help="What is kept of a person, and what is old.")
recordings_app = typer.Typer(no_args_is_help=True, help="Recordings.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
Subject = Annotated[str, typer.Argument(help="+COUNTRY NUMBER, or a device's account.")]


@privacy_app.command()
def export(subject: Subject, config: Config = None) -> None:
    """Everything that is kept of them, as JSON. Recordings by name."""
    _tell(_run(config, lambda subjects, settings: subjects.export(DEFAULT_TENANT, subject)))


@privacy_app.command()
def erase(subject: Subject, config: Config = None) -> None:
    """Forget them, and search again. Exit status 1 where something is left. Do-not-call entries stay."""

    async def forget(subjects: "Subjects", settings: Settings) -> dict[str, Any]:
        from trunkline.store.subjects import rewrite

        done = await subjects.erase(DEFAULT_TENANT, subject, SYSTEM_CLOCK.wall())
        file = settings.data_dir / "trunkline.db"
        if settings.database is None and file.exists():
            await asyncio.to_thread(rewrite, file)
        return {"erased": done, "left": await _left(subjects, settings, subject)}

    _search_told(_run(config, forget))


@privacy_app.command()
def search(text: Annotated[str, typer.Argument(help="A number, a name, any text.")], config: Config = None) -> None:
    """Every row and every file of data_dir that holds it as it stands. Exit status 1 where there is one."""

    async def look(subjects: "Subjects", settings: Settings) -> dict[str, Any]:
        return {"left": await _left(subjects, settings, text)}

    _search_told(_run(config, look))


@privacy_app.command()
def purge(config: Config = None) -> None:
    """Delete now what is older than [privacy] says; a gateway does so every hour."""

    async def clean(subjects: "Subjects", settings: Settings) -> dict[str, Any]:
        return await subjects.purge(terms_of(settings), SYSTEM_CLOCK.wall())

    _tell(_run(config, clean))


@recordings_app.command()
def decrypt(
    file: Annotated[Path, typer.Argument(help="A sealed recording, CALL.wav.sealed.")],
    out: Annotated[Path | None, typer.Option("--out", help="The WAV (default: the file without .sealed).")] = None,
    config: Config = None,
) -> None:
    """Open a sealed recording: a WAV, readable by its owner only."""
    from trunkline.media.recorder import opened_wav
    from trunkline.privacy.sealed import KeyRing

    keys = load(config).privacy.ring()
    if not keys:
        raise ConfigError("privacy.keys", "none", "the key that the recording was sealed with")
    if out is None and file.suffix != ".sealed":
        raise ConfigError("--out", "none", f"where the WAV of {file.name} is to go")
    target = out or file.with_suffix("")
    try:
        with file.open("rb") as sealed:
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb", buffering=0) as wav:
                try:
                    whole = opened_wav(sealed, wav, KeyRing(keys))
                except BaseException:
                    target.unlink()
                    raise
    except OSError as error:
        raise ConfigError("file", str(error.filename or file), (error.strerror or "unreadable").lower()) from error
    _tell({"wav": str(target), "whole": whole})


def terms_of(settings: Settings) -> Any:
    from trunkline.store.subjects import Terms

    own = settings.privacy
    return Terms(own.recordings_days, own.transcripts_days, own.calls_days, audit_days(settings))


def audit_days(settings: Settings) -> int | None:
    """Rows are found by their calls, so none outlives them; nor do words that are to be gone."""
    own, audit = settings.privacy, settings.audit
    if not audit.is_on:
        return None
    terms = (audit.days, own.calls_days, own.transcripts_days if audit.transcripts else None)
    return min((days for days in terms if days is not None), default=None)


def audit_place(settings: Settings) -> Path:
    """The folder; with a bucket, where files wait for it."""
    return settings.audit.folder or settings.data_dir / "audit"


def audit_custody(settings: Settings, publics: Sequence[bytes] = ()) -> "Custody":
    """`publics`: of whom alone lines are good; else of all keys of the settings. Raises ConfigError without the
    extra."""
    given, privacy = settings.audit, settings.privacy
    try:
        from trunkline.store.audit.bucket import Access, Bucket
        from trunkline.store.audit.files import Custody
    except MissingExtra as error:
        key = "audit.folder" if given.bucket is None else "audit.bucket"
        raise ConfigError(key, str(given.folder or given.bucket), f"needs pyarrow: {error}") from error
    from trunkline.privacy.sealed import KeyRing
    from trunkline.store.audit.signing import Signer, Trusted, public_key

    seeds, ring = given.seeds(), privacy.ring()
    secret = given.secret_access_key
    access = Access(
        given.access_key_id, secret.get_secret_value() if secret else None, given.endpoint, given.region, given.ca_file
    )
    good = [*publics] or [*map(public_key, seeds), *given.publics()]
    return Custody(
        Signer(seeds[0]) if seeds else None,
        Trusted(good) if good else None,
        KeyRing(ring) if ring else None,
        None if given.bucket is None else Bucket(given.bucket, access),
    )


def audit_folder(settings: Settings, publics: Sequence[bytes] = ()) -> "AuditFolder | None":
    """None: there is no audit log. Raises ConfigError without the extra."""
    if not settings.audit.is_on:
        return None
    custody = audit_custody(settings, publics)
    from trunkline.store.audit.folder import AuditFolder

    return AuditFolder(audit_place(settings), custody)


async def audit_subjects(settings: Settings, subject: str, at: datetime) -> int:
    """Rows of theirs in chains that are written here become tombstones: how many."""
    async with _subjects(settings) as subjects:
        return await subjects.erase_audited(DEFAULT_TENANT, subject, at)


async def _left(subjects: "Subjects", settings: Settings, text: str) -> dict[str, list[str]]:
    from trunkline.store.subjects import files_with

    return {
        "rows": await subjects.rows_with(text),
        "files": await asyncio.to_thread(files_with, settings.data_dir, text),
        **({} if not settings.audit.is_on else {"audit": await subjects.audited_with(text)}),
    }


def _search_told(found: dict[str, Any]) -> None:
    _tell(found)
    if any(found["left"].values()):
        raise typer.Exit(1)


def _tell(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def _run(config: Path | None, do: Callable[["Subjects", Settings], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    settings = load(config)

    async def run() -> dict[str, Any]:
        async with _subjects(settings) as subjects:
            return await do(subjects, settings)

    return asyncio.run(run())


@asynccontextmanager
async def _subjects(settings: Settings) -> AsyncGenerator["Subjects"]:
    from trunkline.store.engine import Database, database_url, is_database, what_failed
    from trunkline.store.subjects import Subjects

    database = Database(database_url(settings.database, settings.data_dir))
    try:
        await database.upgrade()
        yield Subjects(database, settings.data_dir / "recordings", audit_folder(settings))
    except Exception as error:
        if not is_database(error):
            raise
        raise StoreError(f"the database is away ({what_failed(error)})") from error
    finally:
        await database.close()
