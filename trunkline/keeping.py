"""`trunkline privacy ...` and `trunkline keys ...`: what is kept of a person shown, forgotten and searched for; what is
old deleted; what is sealed, under which key.

The commands work on the database, the folders and the Redis of the settings, beside a gateway that runs. Of its calls
that go on nothing is erased, and its spool keeps what was just written for a minute: `search` says what is left, and
where.
"""

import asyncio
import json
import os
import pwd
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.compliance.residency import Place, Residency
from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.privacy.keys import MasterKeys, open_keys
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT

IN_CLEAR = "(in clear)"

if TYPE_CHECKING:
    from trunkline.agents.script.foreign import Shared
    from trunkline.gateway.sessions.redis import RedisSessions
    from trunkline.store.audit.files import Custody
    from trunkline.store.audit.folder import AuditFolder
    from trunkline.store.engine import Database
    from trunkline.store.subjects import Subjects

privacy_app = typer.Typer(no_args_is_help=True, help="What is kept of a person, and what is old.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys that what is kept is sealed with.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
Subject = Annotated[str, typer.Argument(help="+COUNTRY NUMBER, or a device's account.")]


@privacy_app.command()
def export(subject: Subject, config: Config = None) -> None:
    """Everything that is kept of them, as JSON. Recordings by name."""
    _tell(_run(config, lambda kept: kept.subjects.export(DEFAULT_TENANT, subject)))


@privacy_app.command()
def erase(subject: Subject, config: Config = None) -> None:
    """Forget them, and search again. Exit status 1 where something is left. Do-not-call entries stay."""

    async def forget(kept: Kept) -> dict[str, Any]:
        from trunkline.store.spoolfiles import erase_from_spool
        from trunkline.store.subjects import rewrite, without

        settings, subjects = kept.settings, kept.subjects
        calls = await subjects.calls(DEFAULT_TENANT, subject)
        live = [call_id for call_id, goes_on in calls.items() if goes_on]
        over = calls.keys() - live
        done: dict[str, Any] = await subjects.erase(DEFAULT_TENANT, subject, SYSTEM_CLOCK.wall())
        spools = await asyncio.to_thread(
            erase_from_spool, settings.data_dir / "spool", subject, over, live, kept.database.seal, without
        )
        done["spool"] = spools.lines
        if kept.sessions is not None:
            done["sessions"] = await kept.sessions.erase(DEFAULT_TENANT, subject, live, without)
        file = settings.data_dir / "trunkline.db"
        if settings.database is None and file.exists():
            await asyncio.to_thread(rewrite, file)
        in_use = {"spool_in_use": spools.in_use} if spools.in_use else {}
        return {"erased": done, **in_use, "left": await _left(kept, subject)}

    _search_told(_run(config, forget))


@privacy_app.command()
def search(text: Annotated[str, typer.Argument(help="A number, a name, any text.")], config: Config = None) -> None:
    """Every row, every file of data_dir and every session in Redis that holds it: as it stands, or opened where it is
    sealed. Exit status 1 where there is one, or something cannot be opened."""

    async def look(kept: Kept) -> dict[str, Any]:
        return {"left": await _left(kept, text)}

    _search_told(_run(config, look))


@privacy_app.command()
def purge(config: Config = None) -> None:
    """Delete now what is older than privacy.*_days allow; a gateway does so every hour."""

    async def clean(kept: Kept) -> dict[str, Any]:
        return await kept.subjects.purge(terms_of(kept.settings), SYSTEM_CLOCK.wall())

    _tell(_run(config, clean))


@keys_app.command()
def show(config: Config = None) -> None:
    """How many rows and recordings are sealed under which key. Files of the audit log are not counted."""

    async def count(kept: Kept) -> dict[str, Any]:
        from trunkline.store.rotation import rows_by_key

        rows = await rows_by_key(kept.database)
        files = await asyncio.to_thread(_by_key, recording_folders(kept.settings))
        return {"current": _seal(kept).key, "rows": dict(rows), "recordings": dict(files)}

    _tell(_run(config, count))


@keys_app.command()
def rotate(config: Config = None) -> None:
    """Seal everything anew that is not under the current key, also what is in clear; beside gateways that run. Exit
    status 1 where something could not be opened."""

    async def seal_all(kept: Kept) -> dict[str, Any]:
        from trunkline.store.rotation import Rotated, live_calls, rotate_rows

        seal, done = _seal(kept), Rotated()
        await rotate_rows(kept.database, seal, done)
        live = await live_calls(kept.database)
        files, left = await asyncio.to_thread(_rotate_files, kept, seal.key, live)
        return {
            "current": seal.key,
            "rows": done.rows,
            "recordings": files,
            "left": dict(done.left + left),
        }

    done = _run(config, seal_all)
    _tell(done)
    raise typer.Exit(1 if done["left"] else 0)


def _seal(kept: "Kept") -> TextSeal:
    if kept.database.seal is None:
        raise ConfigError("privacy.keys", "none", "the key to seal with")
    return kept.database.seal


def _by_key(folders: list[Path]) -> "Counter[str]":
    from trunkline.media.recordings import recordings_in, sealed_under

    found: Counter[str] = Counter()
    for path in recordings_in(folders):
        with suppress(FileNotFoundError):  # deleted meanwhile
            try:
                found[sealed_under(path) or IN_CLEAR] += 1
            except StoreError as error:
                found[f"({error})"] += 1
    return found


def _rotate_files(kept: "Kept", current: str, live: "frozenset[str]") -> "tuple[int, Counter[str]]":
    from trunkline.media.recordings import call_of, recordings_in, seal_anew, sealed_under

    assert kept.keys is not None
    done, left = 0, Counter[str]()
    for path in recordings_in(recording_folders(kept.settings)):
        if not live.isdisjoint(call_of(path)):
            left["its call goes on"] += 1
            continue
        try:
            if sealed_under(path) != current:
                seal_anew(path, kept.keys)
                done += 1
        except FileNotFoundError:  # deleted meanwhile
            continue
        except StoreError as error:
            left[str(error)] += 1
        except OSError as error:
            raise StoreError(f"{path.name}: {error.strerror}; nothing of it has changed") from error
    return done, left


def master_keys(settings: Settings) -> MasterKeys | None:
    """Blocking: a key service is asked. Raises ConfigError."""
    own = settings.privacy
    return open_keys(own.kms, own.kms_seconds, own.ring())


def desk_seal(settings: Settings, keys: MasterKeys | None) -> TextSeal:
    """Of what admins write and nobody reads again: under the keys that texts are sealed with, else one of this
    installation, made here. Processes of other machines, which share a database, want privacy.keys. Raises
    ConfigError."""
    if keys is not None:
        return TextSeal(keys)
    file = settings.data_dir / "desk.key"
    try:
        if not file.exists():
            _make_key(file)
        return TextSeal(MasterKeys(None, KeyRing({"desk": file.read_bytes()})))
    except (OSError, ValueError) as error:
        raise ConfigError("data_dir", str(file), f"a key of 32 bytes, in a folder we may write to ({error})") from error


def shared_of(settings: Settings) -> "Shared":
    """What scripts of tenants may name of this gateway's."""
    from trunkline.agents.script.foreign import Shared

    given = settings.shared
    return Shared(
        frozenset(given.keys),
        frozenset(given.servers),
        frozenset(given.folders),
        frozenset(given.providers),
        given.private_addresses,
    )


def _make_key(file: Path) -> None:
    """Of several processes that start at once, one makes it."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".desk.key.") as made:  # which only we may read
        made.write(os.urandom(32))
        made.flush()
        os.fsync(made.fileno())
        with suppress(FileExistsError):
            os.link(made.name, file)


def who() -> str:
    """The user of this machine that runs the command, for the record."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def recording_folders(settings: Settings) -> list[Path]:
    """The one of all calls first."""
    places = (place.recordings for place in settings.privacy.residency.values())
    return list(dict.fromkeys([settings.data_dir / "recordings", *(path for path in places if path is not None)]))


def residency_of(settings: Settings) -> Residency:
    places = [
        Place(
            name,
            frozenset(given.countries),
            None if given.providers is None else frozenset(given.providers),
            given.transcripts,
        )
        for name, given in settings.privacy.residency.items()
    ]
    return Residency(places, settings.region)


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


def audit_custody(settings: Settings, keys: MasterKeys | None, publics: Sequence[bytes] = ()) -> "Custody":
    """`publics`: of whom alone lines are good; else of all keys of the settings. Raises ConfigError without the
    extra."""
    given = settings.audit
    try:
        from trunkline.store.audit.bucket import Access, Bucket
        from trunkline.store.audit.files import Custody
    except MissingExtra as error:
        key = "audit.folder" if given.bucket is None else "audit.bucket"
        raise ConfigError(key, str(given.folder or given.bucket), f"needs pyarrow: {error}") from error
    from trunkline.store.audit.signing import Signer, Trusted, public_key

    seeds = given.seeds()
    secret = given.secret_access_key
    access = Access(
        given.access_key_id, secret.get_secret_value() if secret else None, given.endpoint, given.region, given.ca_file
    )
    good = [*publics] or [*map(public_key, seeds), *given.publics()]
    return Custody(
        Signer(seeds[0]) if seeds else None,
        Trusted(good) if good else None,
        keys,
        None if given.bucket is None else Bucket(given.bucket, access),
    )


def audit_folder(settings: Settings, keys: MasterKeys | None, publics: Sequence[bytes] = ()) -> "AuditFolder | None":
    """None: there is no audit log. Raises ConfigError without the extra."""
    if not settings.audit.is_on:
        return None
    custody = audit_custody(settings, keys, publics)
    from trunkline.store.audit.folder import AuditFolder

    return AuditFolder(audit_place(settings), custody)


async def audit_subjects(settings: Settings, subject: str, at: datetime) -> int:
    """Rows of theirs in chains that are written here become tombstones: how many."""
    async with opened(settings) as kept:
        return await kept.subjects.erase_audited(DEFAULT_TENANT, subject, at)


async def _left(kept: "Kept", text: str) -> dict[str, list[str]]:
    from trunkline.store.spoolfiles import spool_with
    from trunkline.store.subjects import files_with

    folder = kept.settings.data_dir
    sealed = await asyncio.to_thread(spool_with, folder / "spool", text, kept.database.seal)
    return {
        "rows": await kept.subjects.rows_with(text),
        "files": [*await asyncio.to_thread(files_with, folder, text), *(f"spool/{name}" for name in sealed)],
        **({} if not kept.settings.audit.is_on else {"audit": await kept.subjects.audited_with(text)}),
        **({} if kept.sessions is None else {"redis": await kept.sessions.with_text(text)}),
    }


def _search_told(found: dict[str, Any]) -> None:
    _tell(found)
    if any(found["left"].values()):
        raise typer.Exit(1)


def _tell(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def _run(config: Path | None, do: Callable[["Kept"], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    settings = load(config)

    async def run() -> dict[str, Any]:
        async with opened(settings) as kept:
            return await do(kept)

    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a gateway of these settings keeps, opened."""

    settings: Settings
    keys: MasterKeys | None
    database: "Database"
    subjects: "Subjects"
    sessions: "RedisSessions | None"


def _sessions(settings: Settings, seal: TextSeal | None) -> "RedisSessions | None":
    if settings.redis is None:
        return None
    from trunkline.gateway.sessions.redis import RedisSessions

    return RedisSessions(settings.redis, idle_s=float(settings.sessions.idle_seconds), seal=seal)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Kept]:
    """Raises ConfigError, MissingExtra, StoreError."""
    from trunkline.store.engine import Database, database_url, is_database, what_failed
    from trunkline.store.subjects import Subjects

    keys = await asyncio.to_thread(master_keys, settings)
    seal = None if keys is None else await asyncio.to_thread(TextSeal, keys)
    database = Database(database_url(settings.database, settings.data_dir), seal=seal)
    sessions = _sessions(settings, seal)
    try:
        await database.upgrade()
        subjects = Subjects(database, *recording_folders(settings), audit=audit_folder(settings, keys))
        yield Kept(settings, keys, database, subjects, sessions)
    except Exception as error:
        if not is_database(error):
            raise
        raise StoreError(f"the database is away ({what_failed(error)})") from error
    finally:
        if sessions is not None:
            await sessions.close()
        await database.close()
