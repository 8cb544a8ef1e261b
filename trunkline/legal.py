"""`trunkline compliance ...`: the rules explained, consents and do-not-call lists brought in, shown, erased, verified.

The commands work on the database of the settings, beside a gateway that runs: it sees the company's list within seconds
and asks for everything else anew at every call.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, StoreError
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT

if TYPE_CHECKING:
    from trunkline.compliance.decision import Policy
    from trunkline.gateway.api.compliance import ComplianceDesk
    from trunkline.store.consents import ConsentLedger
    from trunkline.store.dnc import DncLists

ListKind = Literal["company", "national", "state", "litigator", "reassigned"]

app = typer.Typer(no_args_is_help=True, help="The rules for calls, the consent ledger, do-not-call lists.")
consent_app = typer.Typer(no_args_is_help=True, help="The consent ledger.")
dnc_app = typer.Typer(no_args_is_help=True, help="Do-not-call lists.")
app.add_typer(consent_app, name="consent")
app.add_typer(dnc_app, name="dnc")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
At = Annotated[str, typer.Option("--at", help="When: a time with its zone, 2026-11-22T15:00:00Z (default: now).")]
File = Annotated[Path, typer.Argument(help="CSV in UTF-8, with a header.")]
Subject = Annotated[str, typer.Argument(help="+COUNTRY NUMBER.")]


@dataclass(frozen=True, slots=True)
class _Room:
    desk: "ComplianceDesk"
    ledger: "ConsentLedger"
    lists: "DncLists"
    settings: Settings


@app.command()
def explain(
    direction: Annotated[Literal["inbound", "outbound"], typer.Option(help="Whose call.")] = "outbound",
    from_number: Annotated[str, typer.Option("--from", help="Who calls.")] = "",
    to_number: Annotated[str, typer.Option("--to", help="Who is called.")] = "",
    purpose: Annotated[str, typer.Option(help="marketing, transactional or informational; without one, any.")] = "",
    region: Annotated[str, typer.Option(help="Where the other party is by address: US-CA, DE.")] = "",
    zone: Annotated[str, typer.Option(help="And the time zone there: America/New_York.")] = "",
    at: At = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What would be decided of a call, every check, and what would be owed. Nothing is noted."""
    from trunkline.compliance.answers import explained
    from trunkline.compliance.imports import BadFile, asked

    when = _when(at)
    given = {"to": to_number or "-", "purpose": purpose, "region": region, "zone": zone}
    try:
        row = asked(1, given)
    except BadFile as bad:
        wrong = bad.mistakes[0]
        raise ConfigError(f"--{wrong.field}", given[wrong.field], wrong.wanted) from bad

    async def decide(room: _Room) -> dict[str, Any]:
        return explained(
            await room.desk.decide(
                direction, from_number or None, to_number or None, row.purpose, row.region, row.zone, when
            )
        )

    found = _run(config, decide)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['decision']}" + (f": {found['code']} ({found['why']})" if found["code"] else ""))
    for check in found["checks"]:
        why = f"  {check['why']}" if check["why"] else ""
        typer.echo(f"  {check['answer']:8}{check['name']:14}{check['input']}  [{check['data'] or '-'}]{why}")
    for owed in found["obligations"]:
        typer.echo(f"  owed    {owed['kind']:14}{' '.join(owed['doors'])}  [{owed['basis']}]")


@app.command()
def preview(file: File, at: At = "", config: Config = None, as_json: AsJson = False) -> None:
    """Who of a batch would be skipped, and why. Columns: to, and perhaps purpose, region, zone. Nothing is noted."""
    from trunkline.compliance import imports

    when = _when(at)
    rows = _parsed(file, imports.batch)

    async def look(room: _Room) -> dict[str, Any]:
        return await room.desk.preview(rows, when)

    found = _run(config, look)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['skipped']} of {found['calls']} skipped")
    for code, count in found["codes"].items():
        typer.echo(f"  {count:6} {code}")
    for row in found["rows"]:
        typer.echo(f"  row {row['row']}: {row['code']} ({row['why']})")


@app.command()
def tables(config: Config = None, as_json: AsJson = False) -> None:
    """Check the tables in force, and show their versions. Exit status 2 when one is wrong, naming row and field."""

    async def show(room: _Room) -> dict[str, Any]:
        policy = room.desk.office.policy
        return {
            "in_force": policy.in_force,
            "tables": policy.tables.versions,
            "lists": await room.lists.summary(TENANT),
        }

    found = _run(config, show)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo("in force" if found["in_force"] else "not in force: compliance.business is not set")
    for name, version in found["tables"].items():
        typer.echo(f"  {name:12}{version}")
    for each in found["lists"]:
        typer.echo(f"  {each['list']:12}{each['region']:6} {each['numbers']} numbers, drawn {each['drawn_at']}")


# --- the ledger ---


@consent_app.command("import")
def consent_import(file: File, config: Config = None, as_json: AsJson = False) -> None:
    """Take grants from a file, all or none; a mistake is named by row and field. The same file twice is taken once."""
    from hashlib import sha256

    from trunkline.compliance import imports
    from trunkline.store.consents import Noted

    now = SYSTEM_CLOCK.wall()
    grants = _parsed(file, lambda text: imports.consents(text, TENANT, now))
    noted = [Noted(sha256(repr((g, g.subject, g.wording)).encode()).hexdigest(), g) for g in grants]

    async def take(room: _Room) -> dict[str, Any]:
        taken = 0
        for start in range(0, len(noted), _PORTION):
            taken += await room.ledger.note(TENANT, noted[start : start + _PORTION])
        return {"rows": len(noted), "taken": taken}

    _tell(_run(config, take, writes=True), as_json)


@consent_app.command("export")
def consent_export(subject: Subject, config: Config = None) -> None:
    """Everything the ledger holds about somebody, as JSON."""

    _number(subject)

    async def export(room: _Room) -> dict[str, Any]:
        return await room.ledger.export(TENANT, subject)

    _tell(_run(config, export), True)


@consent_app.command("erase")
def consent_erase(subject: Subject, config: Config = None, as_json: AsJson = False) -> None:
    """Forget what somebody said. The chain stays checkable, and do-not-call entries stay."""

    _number(subject)

    async def erase(room: _Room) -> dict[str, Any]:
        return {"erased": await room.ledger.erase(TENANT, subject, SYSTEM_CLOCK.wall())}

    _tell(_run(config, erase, writes=True), as_json)


@consent_app.command("verify")
def consent_verify(config: Config = None, as_json: AsJson = False) -> None:
    """Check the chain. Exit status 1, and the first row that is not as it was written, when it is broken."""

    async def verify(room: _Room) -> dict[str, Any]:
        return asdict(await room.ledger.verify(TENANT))

    found = _run(config, verify)
    _tell(found, as_json)
    raise typer.Exit(0 if found["broken"] is None else 1)


# --- lists ---


@dnc_app.command("import")
def dnc_import(
    file: File,
    name: Annotated[ListKind, typer.Option("--list", help="Which list it is.")] = "company",
    region: Annotated[str, typer.Option(help="Whose: US of a national list, US-TX of a state's.")] = "",
    drawn: Annotated[str, typer.Option(help="When it was given out: a time with its zone (default: now).")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take a list as a whole, in place of its older copy; of the company's own, what is there stays."""
    from trunkline.compliance import imports

    country, _, part = region.partition("-")
    regional = name in ("national", "state")
    if regional != bool(region) or (name == "state") != bool(part) or (region and not imports.REGION.fullmatch(region)):
        raise ConfigError("--region", region, "US with --list national, US-TX with --list state, else none")
    numbers = _parsed(file, lambda text: imports.numbers(text, country or "US" * (name != "company")))
    drawn_at = _when(drawn, "--drawn")
    now = SYSTEM_CLOCK.wall()
    if drawn_at > now:
        raise ConfigError("--drawn", drawn, "a time that is past")

    def tell(taken: int) -> None:
        if taken % _TOLD == 0:
            typer.echo(f"{taken:,} of {len(numbers):,}", err=True)

    async def take(room: _Room) -> dict[str, Any]:
        await room.lists.take(TENANT, name, region, numbers, drawn_at, now, tell)
        return {"list": name, "region": region, "numbers": len(numbers)}

    _tell(_run(config, take, writes=True), as_json)


@dnc_app.command("add")
def dnc_add(number: Subject, config: Config = None, as_json: AsJson = False) -> None:
    """Put a number on the company's own list."""
    numbers = _number(number)

    async def add(room: _Room) -> dict[str, Any]:
        await room.lists.add(TENANT, "company", numbers, SYSTEM_CLOCK.wall(), "operator")
        return {"list": "company", "numbers": 1}

    _tell(_run(config, add, writes=True), as_json)


@dnc_app.command("stop")
def dnc_stop(config: Config = None, as_json: AsJson = False) -> None:
    """No call goes out any more, within seconds, until `start`."""

    async def stop(room: _Room) -> dict[str, Any]:
        await room.lists.add(TENANT, "stop", ["*"], SYSTEM_CLOCK.wall(), "operator")
        return {"stopped": True}

    _tell(_run(config, stop, writes=True), as_json)


@dnc_app.command("start")
def dnc_start(config: Config = None, as_json: AsJson = False) -> None:
    """Calls may go out again."""

    async def go_on(room: _Room) -> dict[str, Any]:
        await room.lists.start_again(TENANT)
        return {"stopped": False}

    _tell(_run(config, go_on, writes=True), as_json)


# --- the room they work in ---

TENANT = DEFAULT_TENANT
T = TypeVar("T")
_PORTION = 1000
_TOLD = 100_000


def _run(config: Path | None, do: Callable[[_Room], Awaitable[dict[str, Any]]], *, writes: bool = False) -> Any:
    settings = load(config)

    async def run() -> dict[str, Any]:
        async with _room(settings, writes) as room:
            return await do(room)

    return asyncio.run(run())


def policy_of(settings: Settings) -> "Policy":
    """Raises ConfigError for a table that is wrong, naming row and field."""
    from trunkline.compliance.caps import Caps
    from trunkline.compliance.decision import Policy, Terms
    from trunkline.compliance.tables import load, ours

    own = settings.compliance
    return Policy(
        record=settings.record,
        outbound_allow=settings.outbound.allow,
        terms=Terms(own.business, own.region, own.place_by == "address", own.purpose, own.callback_number is not None),
        caps=Caps(own.max_calls_per_number_hour, own.max_calls_per_country_hour, own.max_calls_per_hour),
        tables=load(own.tables) if own.tables is not None else ours(),
    )


def _is_new(settings: Settings) -> bool:
    return settings.database is None and not (settings.data_dir / "trunkline.db").exists()


@asynccontextmanager
async def _room(settings: Settings, writes: bool) -> AsyncGenerator[_Room]:
    """Where no database is yet and nothing is written, an empty one for the while of it."""
    from trunkline.compliance.office import Office
    from trunkline.gateway.api.compliance import ComplianceDesk
    from trunkline.store.consentjournal import ConsentJournal
    from trunkline.store.consents import ConsentLedger
    from trunkline.store.dnc import DncLists
    from trunkline.store.engine import Database, database_url, is_database, what_failed

    policy = policy_of(settings)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        database = Database(
            database_url(settings.database, scratch if not writes and _is_new(settings) else settings.data_dir)
        )
        try:
            await database.upgrade()
            ledger, lists = ConsentLedger(database), DncLists(database)
            journal = ConsentJournal(scratch / "journal", ledger.note)
            office = Office(policy, ledger, lists, journal, SYSTEM_CLOCK, tables=settings.compliance.tables)
            await office.refresh()
            yield _Room(ComplianceDesk(office, ledger, lists, SYSTEM_CLOCK, journal.drain), ledger, lists, settings)
            await journal.close()
        except Exception as error:
            if not is_database(error):
                raise
            raise StoreError(f"the database is away ({what_failed(error)})") from error
        finally:
            await database.close()


def _parsed(file: Path, read: Callable[[str], T]) -> T:
    from trunkline.compliance.imports import BadFile, decoded

    try:
        return read(decoded(file.read_bytes()))
    except OSError as error:
        raise ConfigError(
            "file", str(file), f"a file we may read ({(error.strerror or 'unreadable').lower()})"
        ) from error
    except BadFile as bad:
        raise _bad(bad) from bad


def _number(text: str) -> list[str]:
    from trunkline.compliance import imports

    try:
        return imports.numbers(f"number\n{text}\n")
    except imports.BadFile as bad:
        raise ConfigError("number", text, bad.mistakes[0].wanted) from bad


def _bad(bad: Any) -> typer.Exit:
    for mistake in bad.mistakes:
        typer.echo(f"trunkline: {mistake}", err=True)
    return typer.Exit(2)


def _when(text: str, option: str = "--at") -> datetime:
    if not text:
        return SYSTEM_CLOCK.wall()
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(option, text, "a time with its zone, such as 2026-11-22T15:00:00Z") from None


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("  ".join(f"{name}: {'-' if value is None else value}" for name, value in found.items()))
