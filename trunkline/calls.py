"""`trunkline calls export`: the record of calls as a file, from the database, beside a gateway that runs or without."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, cast, get_args

import typer

from trunkline.errors import ConfigError, MissingExtra, StoreError
from trunkline.ports import CallQuery, Having
from trunkline.settings import load
from trunkline.types import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="The record of calls.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
Direction = Literal["inbound", "outbound"]


@app.callback()
def _group() -> None:
    """One command is a group, too."""


@app.command()
def export(
    format: Annotated[Literal["csv", "parquet"], typer.Option(help="Parquet needs trunkline[audit].")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", help="The file (default: stdout).")] = None,
    number: Annotated[str | None, typer.Option(help="Of either party; its beginning and * for many.")] = None,
    our_number: Annotated[str | None, typer.Option(help="That was called, or that we called from.")] = None,
    agent: Annotated[str | None, typer.Option(help="Who attended it.")] = None,
    direction: Annotated[Direction | None, typer.Option()] = None,
    leg: Annotated[str | None, typer.Option(help="twilio, sip, webrtc, websocket, livekit.")] = None,
    end_reason: Annotated[str | None, typer.Option(help="Such as caller_hung_up.")] = None,
    ended_by: Annotated[str | None, typer.Option(help="caller, agent, operator, network, gateway, policy.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO 8601 with a zone, inclusive.")] = None,
    until: Annotated[str | None, typer.Option(help="... exclusive.")] = None,
    min_duration_s: Annotated[float | None, typer.Option(min=0, help="From its answer to its end.")] = None,
    min_cost_usd: Annotated[str | None, typer.Option(help="A decimal.")] = None,
    text: Annotated[str | None, typer.Option(help="Somewhere in what was said, where that is not sealed.")] = None,
    having: Annotated[list[str] | None, typer.Option(help="errors, refusals or transfers. Repeatable.")] = None,
    config: Config = None,
) -> None:
    """Calls as CSV or Parquet, newest first: what GET /v1/calls/export answers. The file must not exist."""
    query = CallQuery(
        number=number,
        our_number=our_number,
        agent=agent,
        direction=direction,
        leg=leg,
        end_reason=cast(Any, end_reason),
        ended_by=cast(Any, ended_by),
        since=_moment("--since", since),
        until=_moment("--until", until),
        min_duration_s=min_duration_s,
        min_cost_usd=_usd(min_cost_usd),
        text=text,
        having=_having(having or []),
    )
    if format == "parquet" and out is None and sys.stdout.isatty():
        raise ConfigError("--out", "(none)", "a file: Parquet is no text for a terminal")
    asyncio.run(_export(config, query, format, out))


async def _export(config: Path | None, query: CallQuery, format: Literal["csv", "parquet"], out: Path | None) -> None:
    from trunkline.keeping import opened
    from trunkline.store.records import CallRecords

    async with opened(load(config)) as kept:
        try:
            async with aclosing(CallRecords(kept.database).export(DEFAULT_TENANT, query, format)) as parts:
                await _write(parts, out)
        except ValueError as error:
            raise ConfigError("calls export", "(its options)", str(error)) from None
        except MissingExtra as error:
            raise StoreError(str(error)) from error


async def _write(parts: AsyncGenerator[bytes, None], out: Path | None) -> None:
    first = await anext(parts)  # what cannot be asked makes no file
    try:
        file = sys.stdout.buffer if out is None else out.open("xb")
    except OSError as error:
        raise ConfigError("--out", str(out), f"a new file we may write to ({error.strerror})") from error
    try:
        await _put(file, first)
        async for part in parts:
            await _put(file, part)
    finally:
        if out is not None:
            file.close()


async def _put(file: BinaryIO, part: bytes) -> None:
    def written() -> None:
        file.write(part)
        file.flush()

    try:
        await asyncio.to_thread(written)
    except OSError as error:
        raise StoreError(f"not all was written: {error.strerror}") from error


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigError(option, text, "a time with its zone, such as 2026-11-28T09:00:00Z")
    return at


def _having(given: list[str]) -> frozenset[Having]:
    for name in given:
        if name not in get_args(Having):
            raise ConfigError("--having", name, " | ".join(get_args(Having)))
    return frozenset(cast(list[Having], given))


def _usd(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        usd = Decimal(text)
    except InvalidOperation:
        usd = Decimal(-1)
    if not usd.is_finite() or usd < 0:
        raise ConfigError("--min-cost-usd", text, "a decimal, such as 0.25")
    return usd
