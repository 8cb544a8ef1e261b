"""`trunkline audit ...`: whether the audit log is as it was written, and what it says."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.errors import ConfigError, StoreError
from trunkline.keeping import audit_folder
from trunkline.settings import load

if TYPE_CHECKING:
    from trunkline.store.audit.files import AuditFolder, Verified

app = typer.Typer(no_args_is_help=True, help="The audit log of turns.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]


@app.command()
def verify(
    head: Annotated[list[str] | None, typer.Option("--head", help="One that was told before: must be there.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check every chain, file and row. Exit status 1, and the first of each worker's that is not as it was written."""
    heads = head or []
    try:
        checked = [each.verify(heads) for each in _folder(config).workers]
    except (ConfigError, StoreError) as error:
        raise _failed(error) from error
    found = [verified for verified, _ in checked]
    lost = sorted(set(heads).difference(*(known for _, known in checked)))
    if as_json:
        typer.echo(json.dumps({"workers": [_told(each) for each in found], "lost_heads": lost}, indent=2))
    else:
        for each in found:
            typer.echo(_line(each))
        for hash_ in lost:
            typer.echo(f"no chain has the head {hash_}: lines were cut off, or written anew")
        if not found:
            typer.echo("nothing was written yet")
    if lost or any(each.broken for each in found):
        raise typer.Exit(1)


@app.command()
def show(
    call: Annotated[str, typer.Option("--call", help="Of this call only.")] = "",
    day: Annotated[str, typer.Option("--day", help="Of this day (UTC) only: 2026-11-28.")] = "",
    refusals: Annotated[bool, typer.Option("--refusals", help="Only what was refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many rows at most.")] = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """The rows, in the order each worker wrote them; with --json a line each. It does not check them: `verify` does."""

    def wanted(row: Mapping[str, Any]) -> bool:
        mine = not call or row["call_id"] == call
        return mine and row["at"].isoformat().startswith(day) and (not refusals or row["kind"] == "refusal")

    try:
        folder = _folder(config)
        from trunkline.store.audit.files import for_json

        for row in islice(folder.rows(wanted), limit):
            typer.echo(json.dumps(for_json(row), ensure_ascii=False) if as_json else _summary(row))
    except (ConfigError, StoreError) as error:
        raise _failed(error) from error


def _folder(config: Path | None) -> "AuditFolder":
    found = audit_folder(load(config))
    if found is None:
        raise ConfigError("audit.folder", None, "the folder of the audit log")
    return found


def _told(found: "Verified") -> dict[str, Any]:
    broken = found.broken
    return {
        "worker": found.worker,
        "files": found.files,
        "rows": found.rows,
        "erased": found.erased,
        "expired_files": found.expired,
        "head": found.head,
        "broken": None if broken is None else {"file": broken.file, "row": broken.row, "why": broken.why},
    }


def _line(found: "Verified") -> str:
    if found.broken is not None:
        return f"worker {found.worker}: BROKEN at {found.broken}"
    return (
        f"worker {found.worker}: as written: {found.files} files, {found.rows} rows ({found.erased} of them erased), "
        f"{found.expired} files deleted for their age; head {found.head}"
    )


def _summary(row: Mapping[str, Any]) -> str:
    if row["kind"] == "refusal":
        what = f"refused {row['door']} {row['code']} {row['target']}".rstrip()
    else:
        ms = "-" if row["total_ms"] is None else f"{row['total_ms']:.0f}"
        cost = f"{row['cost_usd'].normalize():f} USD" + ("" if row["cost_complete"] else " and unpriced")
        what = f"{ms} ms, {cost}, {','.join(row['tools']) or 'no tools'} | {row['caller_text']} | {row['agent_text']}"
    return f"{row['at']:%Y-%m-%d %H:%M:%S} {row['turn_id']} {row['agent']} consent {row['consent']}: {what}"


def _failed(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(2)
