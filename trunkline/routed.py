"""`trunkline numbers route`: who would answer a number, and why."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.compliance.destinations import country_of
from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.numbers.directory import Directory
from trunkline.numbers.routing import Caller, View, answer, draw_of, told
from trunkline.settings import load
from trunkline.types import DEFAULT_TENANT, TenantId

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]


def route(
    number: Annotated[str, typer.Argument(help="Of ours, as +COUNTRY NUMBER.")],
    at: Annotated[
        str, typer.Option(help="When: 2026-12-24T10:00, in the tenant's zone. Now, where none is given.")
    ] = "",
    caller: Annotated[str, typer.Option("--from", help="Who calls; none given: a number that is withheld.")] = "",
    verdict: Annotated[
        Literal["verified", "invalid", "unsigned", "unknown"],
        typer.Option(help="Of STIR/SHAKEN on the caller's number."),
    ] = "unknown",
    trunk: Annotated[
        str, typer.Option(help="The SIP trunk it comes over, a tenant's own as TENANT.TRUNK; none given: Twilio.")
    ] = "",
    call: Annotated[str, typer.Option(help="Its CallSid or Call-ID, of which its share is drawn.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Who would answer a number of ours, and why, step by step. Reads the database; whether the agent's version can be
    started now is not asked. Exit status 1: nobody would answer."""
    try:
        asked_at = datetime.fromisoformat(at) if at else SYSTEM_CLOCK.wall()
    except ValueError:
        raise _failed(ConfigError("--at", at, "a time such as 2026-12-24T10:00")) from None
    try:
        view = asyncio.run(_view(number, trunk, config))
    except (ConfigError, StoreError, MissingExtra) as error:
        raise _failed(error) from error
    if asked_at.tzinfo is None:
        asked_at = asked_at.replace(tzinfo=ZoneInfo(view.terms.zone))
    found = told(answer(view, Caller(caller or None, asked_at, draw_of(call), verdict, country_of)))
    if as_json:
        typer.echo(json.dumps({"at": asked_at.isoformat(), **found}))
    else:
        typer.echo(shown(found))
        for step in found["why"]:
            typer.echo(f"  {step}")
    if found["by"] == "nobody":
        raise typer.Exit(1)


async def _view(number: str, trunk: str, config: Path | None) -> View:
    from trunkline.store.directory import DatabaseNumbers
    from trunkline.store.engine import Database, database_url

    settings = load(config)
    database = Database(database_url(settings.database, settings.data_dir))
    try:
        await database.upgrade()
        rows = DatabaseNumbers(database)
        await rows.revisions()  # raises, where the directory would go on without
        whose, _, name = trunk.rpartition(".")  # a tenant's own trunk, as the gateway knows it
        tenant = TenantId(whose) if whose else None
        return await Directory(rows).view(number, name, tenant) or View(tenant or DEFAULT_TENANT)
    finally:
        await database.close()


def shown(found: dict[str, Any]) -> str:
    """In a line."""
    match found["by"]:
        case "agent":
            then = "".join(f", else {each['agent']}@{each['version']}" for each in found["then"])
            return f"agent {found['agent']}@{found['version']}{then} (tenant {found['tenant']})"
        case "own_agent":
            return f"the gateway's own agent (tenant {found['tenant']})"
        case "number":
            return f"put through to {found['number']} (tenant {found['tenant']})"
        case "message":
            return f"a message: {found['text']} (tenant {found['tenant']})"
        case "busy":
            return f"a busy tone (tenant {found['tenant']})"
        case _:
            return f"nobody: {found['code']} (tenant {found['tenant']})"


def _failed(error: Exception) -> typer.Exit:
    typer.echo(f"trunkline: {error}", err=True)
    return typer.Exit(2)
