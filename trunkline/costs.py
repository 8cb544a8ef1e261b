"""`trunkline costs ...`: the price table checked, and what calls have cost by the record."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.settings import load
from trunkline.types import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="What calls cost: the price table, and the record's sums.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
DAYS_MAX = 366


@app.command()
def prices(config: Config = None, as_json: AsJson = False) -> None:
    """Check the price table in force. Exit status 2 when it is wrong, naming row and field; 1 when rows are too old."""
    from trunkline.compliance.money.prices import load as read

    try:
        money = load(config).money
        table = read(money.prices)
    except ConfigError as error:
        raise _failed(error) from error
    old = table.old(SYSTEM_CLOCK.wall().date(), money.price_max_age_days)
    if as_json:
        rows = [{"row": row.row, "provider": row.provider, "product": row.product} for row in old]
        typer.echo(json.dumps({"version": table.version, "rows": len(table.rows), "old": rows}))
    else:
        typer.echo(f"version {table.version}, {len(table.rows)} rows")
        for row in old:
            looked_up = f"looked up {row.date}, more than {money.price_max_age_days} days ago"
            typer.echo(f"  row {row.row}: {row.provider} {row.product} {row.unit}: {looked_up}")
    if old:
        raise typer.Exit(1)


@app.command("sum")
def summed(
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Of so many days, up to now.")] = 1,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What was used costs, by product, provider, kind and leg. What has no price is named, and in no sum."""
    from trunkline.compliance.money.invoice import invoice
    from trunkline.store.budgets import costs_since
    from trunkline.store.engine import Database, database_url

    async def look() -> dict[str, Any]:
        settings = load(config)
        database = Database(database_url(settings.database, settings.data_dir))
        try:
            await database.upgrade()
            since = SYSTEM_CLOCK.wall() - timedelta(days=days)
            return invoice(await costs_since(database, DEFAULT_TENANT, since))
        finally:
            await database.close()

    try:
        found = asyncio.run(look())
    except (ConfigError, StoreError, MissingExtra) as error:
        raise _failed(error) from error
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['usd']} USD" + ("" if found["complete"] else ", and what has no price:"))
    for missing in found["missing"]:
        typer.echo(f"  {missing}")
    for what in ("product", "provider", "kind", "leg"):
        typer.echo(f"by {what}")
        for name, usd in sorted(found[f"by_{what}"].items()):
            typer.echo(f"  {usd:>14}  {name}")


def _failed(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(2)
