"""`trunkline export`: what admins own, as a file (ascode.py); `trunkline export training`: transcripts for training, of
who agreed to it. What is left out is counted, with why."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from trunkline import ascode
from trunkline.clock import SYSTEM_CLOCK
from trunkline.compliance import training
from trunkline.errors import ConfigError
from trunkline.keeping import Kept, opened, who
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, CallId

app = typer.Typer()
EXPORTED = "training_export"
Moment = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day in UTC.")]


@app.callback(invoke_without_command=True)
def desk(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", help="A file, in place of stdout.")] = None,
    tenant: ascode.Tenant = DEFAULT_TENANT,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, in place of TOML.")] = False,
    config: ascode.Config = None,
) -> None:
    """Everything a tenant's admins own, without secrets, as `trunkline apply` takes it."""
    ascode.export(context, out, tenant, as_json, config)


@app.command("training")
def export_training(
    out: Annotated[Path, typer.Option("--out", help="JSON Lines, a call a line; must not exist.")],
    since: Moment = None,
    until: Moment = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")] = None,
) -> None:
    """Redacted transcripts of callers whose consent to `training` is in the ledger and in force now. That a call was
    exported is in its record."""
    settings = load(config)
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            try:
                told = asyncio.run(_export(settings, file, out.name, since, until))
            except BaseException:
                out.unlink()
                raise
    except OSError as error:
        raise ConfigError("--out", str(out), f"a new file ({(error.strerror or 'not writable').lower()})") from error
    typer.echo(json.dumps({"out": str(out), **told}, indent=2))


async def _export(
    settings: Settings, file: IO[str], name: str, since: datetime | None, until: datetime | None
) -> dict[str, Any]:
    from trunkline.store.consents import ConsentLedger
    from trunkline.store.records import note_event

    left, exported, now = Counter[str](), 0, SYSTEM_CLOCK.wall()
    async with opened(settings) as kept:
        ledger = ConsentLedger(kept.database)
        async for call in _calls(kept, since, until):
            subject = training.subject_of(call)
            why = training.consent(await ledger.of(DEFAULT_TENANT, subject), now) if subject else "no_number"
            found = why or await _sample(kept, CallId(call["id"]))
            if not isinstance(found, dict):
                left[found] += 1
                continue
            data = {"file": name, "by": who()}  # before it is out
            await note_event(kept.database, DEFAULT_TENANT, CallId(call["id"]), EXPORTED, data, now)
            file.write(json.dumps(found, ensure_ascii=False) + "\n")
            exported += 1
    return {"exported": exported, "left_out": {why: left[why] for why in training.WHYS if left[why]}}


async def _sample(kept: Kept, call_id: CallId) -> "dict[str, Any] | training.Why":
    from trunkline.store.records import CallRecords

    record = await CallRecords(kept.database).get(DEFAULT_TENANT, call_id)
    return "no_words" if record is None else training.sample(record, kept.settings.privacy.names)


async def _calls(kept: Kept, since: datetime | None, until: datetime | None) -> AsyncIterator[dict[str, Any]]:
    from trunkline.store.records import LIMIT_MAX, CallRecords

    records, cursor = CallRecords(kept.database), None
    begin, end = (at.replace(tzinfo=UTC) if at is not None else None for at in (since, until))
    while True:
        page = await records.list(DEFAULT_TENANT, limit=LIMIT_MAX, cursor=cursor, since=begin, until=end)
        for call in page.calls:
            yield call
        cursor = page.next_cursor
        if cursor is None:
            return
