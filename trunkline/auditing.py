"""`trunkline audit ...`: whether the audit log is as it was written, what it says, and who signs it."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, StoreError
from trunkline.keeping import audit_folder, audit_subjects, master_keys
from trunkline.settings import Settings, load

if TYPE_CHECKING:
    from trunkline.store.audit.folder import AuditFolder
    from trunkline.store.audit.reading import Verified

app = typer.Typer(no_args_is_help=True, help="The audit log of turns.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]


@app.command()
def verify(
    head: Annotated[list[str] | None, typer.Option("--head", help="One that was told before: must be there.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A public key: none but these may have signed.")
    ] = None,
    until: Annotated[str, typer.Option("--until", help="Every chain must reach this day (UTC): 2026-11-28.")] = "",
    worker: Annotated[
        list[str] | None, typer.Option("--worker", help="One whose chain must be there: folders can be deleted.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check every chain, signature, file and row. Exit status 1, and the first of each worker's that is not as it was
    written; 2 where it cannot be told."""
    heads = head or []
    try:
        settings = load(config)
        checked = [each.verify(heads) for each in _folder(settings, key or []).workers]
    except (ConfigError, StoreError) as error:
        raise _failed(error) from error
    signed = bool(key or settings.audit.keys or settings.audit.public_keys)
    found = [verified for verified, _ in checked]
    gone = sorted(set(worker or []).difference(each.worker for each in found if each.last))
    lost = sorted(set(heads).difference(*(known for _, known in checked)))
    short = [each.worker for each in found if each.last[:10] < until]
    if as_json:
        told = {"workers": [_told(each) for each in found], "signatures_checked": signed}
        typer.echo(json.dumps({**told, "lost_heads": lost, "lost_workers": gone, "not_until": short}, indent=2))
    else:
        for each in found:
            typer.echo(_line(each))
        for name in short:
            typer.echo(f"worker {name}: no line of {until} or later: its end was cut off, or nobody was there to write")
        if found and not signed:
            typer.echo("signatures were not checked: no key was given (--key, audit.public_keys)")
        for name in gone:
            typer.echo(f"worker {name}: no line of a chain: it never wrote, or its folder was taken away")
        for hash_ in lost:
            typer.echo(f"no chain has the head {hash_}: lines were cut off, or written anew")
        if not found:
            typer.echo(
                "no chain is there: nothing was written yet, or all was taken away (--worker: who must be there)"
            )
    if lost or gone or short or any(each.broken for each in found) or (until and not found):
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
        folder = _folder(load(config))
        from trunkline.store.audit.folder import for_json

        for row in islice(folder.rows(wanted), limit):
            typer.echo(json.dumps(for_json(row), ensure_ascii=False) if as_json else _summary(row))
    except (ConfigError, StoreError) as error:
        raise _failed(error) from error


@app.command("key")
def keys(config: Config = None) -> None:
    """The public keys of audit.keys, a line each, the one that signs first: NAME, ID as in the lines, the key."""
    try:
        settings = load(config)
        if not settings.audit.keys:
            raise ConfigError("audit.keys", "none", "[audit.keys] NAME = 32 random bytes as base64")
    except ConfigError as error:
        raise _failed(error) from error
    from trunkline.store.audit.signing import key_id, public_key

    for name, seed in zip(settings.audit.keys, settings.audit.seeds(), strict=True):
        public = public_key(seed)
        typer.echo(f"{name} {key_id(public)} {base64.b64encode(public).decode()}")


@app.command()
def erase(
    subject: Annotated[str, typer.Argument(help="+COUNTRY NUMBER, or a device's account.")], config: Config = None
) -> None:
    """Make tombstones of a person's rows in the chains that are written on this machine. Needed where several machines
    share a bucket: on each of them, before `trunkline privacy erase` on one."""
    try:
        settings = load(config)
        _folder(settings)
        erased = asyncio.run(audit_subjects(settings, subject, SYSTEM_CLOCK.wall()))
    except (ConfigError, StoreError) as error:
        raise _failed(error) from error
    typer.echo(json.dumps({"erased": erased}))


def _folder(settings: Settings, publics: Sequence[str] = ()) -> "AuditFolder":
    try:
        given = [base64.b64decode(each, validate=True) for each in publics]
        found = audit_folder(settings, master_keys(settings), given)
    except ValueError:
        raise ConfigError("--key", " ".join(publics), "a public key as `trunkline audit key` tells it") from None
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
        "last_line": found.last,
        "silent_days": list(found.silent),
        "unnamed_files": found.unnamed,
        "unread_erasures": found.unread,
        "since_head": None if found.since is None else {"erased": found.since.rows, "expired_files": found.since.files},
        "head": found.head,
        "broken": None if broken is None else {"file": broken.file, "row": broken.row, "why": broken.why},
    }


def _line(found: "Verified") -> str:
    if found.broken is not None:
        return f"worker {found.worker}: BROKEN at {found.broken}"
    more = [f"{found.unnamed} files whose manifest is on its way"] if found.unnamed else []
    more += [f"erased rows of {found.unread} files not looked at, for want of privacy.keys"] if found.unread else []
    more += [f"nobody wrote on {', '.join(found.silent)}"] if found.silent else []
    if found.since is not None:
        more += [f"since that head {found.since.rows} rows erased and {found.since.files} files deleted for their age"]
    return (
        f"worker {found.worker}: as written: {found.files} files, {found.rows} rows ({found.erased} of them erased), "
        f"{found.expired} files deleted for their age; {''.join(f'{each}; ' for each in more)}last line "
        f"{found.last[:19] or '-'}, head {found.head}"
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
