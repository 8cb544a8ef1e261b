"""`trunkline export` and `trunkline apply`: what a tenant's admins own, as a file. They work on the database of the
settings, beside a gateway that runs, which takes the changes up within a second."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from difflib import unified_diff
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.syntax import Syntax

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.keeping import Kept, desk_seal, opened, shared_of, who
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, TenantId

if TYPE_CHECKING:
    from trunkline.numbers.ascode import Step
    from trunkline.numbers.desk import Desk

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose.")]
MARKS = {"create": "+", "replace": "~", "publish": "^", "delete": "-"}
PAST = {"create": "made", "replace": "changed", "publish": "published", "delete": "deleted"}
T = TypeVar("T")


def export(context: typer.Context, out: Path | None, tenant: str, as_json: bool, config: Path | None) -> None:
    """Everything the tenant owns, without secrets, as `trunkline apply` takes it."""
    if context.invoked_subcommand is not None:
        return
    from trunkline.numbers import ascode

    async def work(desk: "Desk") -> dict[str, Any]:
        return await ascode.export(desk, TenantId(tenant))

    document = _with_desk(load(config), work)
    text = json.dumps(document, indent=2) + "\n" if as_json else ascode.written(document)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError("--out", str(out), f"a file we may write ({(error.strerror or '').lower()})") from error


def apply(
    file: Annotated[Path, typer.Argument(help="TOML, or JSON where its name ends so; - is stdin, as TOML.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what the file has not, of the kinds that it has.")
    ] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Annotated[bool, typer.Option("--json", help="The steps as JSON on stdout.")] = False,
    config: Config = None,
) -> None:
    """Bring what a tenant owns to what the file says: the difference is shown, then it is one transaction. A mistake
    names its place in the file, and nothing is changed."""
    from trunkline.numbers import ascode
    from trunkline.owned import DeskError

    text = _text(file)

    async def work(desk: "Desk") -> Sequence["Step"]:
        document = ascode.read_document(text, is_json=file.suffix == ".json")
        return await ascode.apply(desk, TenantId(tenant), f"cli:{who()}", document, prune=prune, keep=not dry_run)

    try:
        steps = _with_desk(load(config), work)
    except DeskError as error:
        raise ConfigError("apply", file.name, error.why) from None
    if as_json:
        rows = [{"action": s.action, "kind": s.kind, "key": s.key, "fields": list(s.fields)} for s in steps]
        typer.echo(json.dumps({"applied": not dry_run, "steps": rows}, indent=2))
        return
    for line in told(steps):
        Console(highlight=False).print(Syntax(line, "diff", background_color="default"), end="", soft_wrap=True)
    counts = Counter(step.action for step in steps)
    some = ", ".join(f"{counts[name]} {past}" for name, past in PAST.items() if counts[name]) or "nothing"
    typer.echo(f"{'it would be' if dry_run else 'done'}: {some}")


def told(steps: Sequence["Step"]) -> list[str]:
    """A difference, as diffs are read."""
    return [_told(step) for step in steps]


def _told(step: "Step") -> str:
    head = f"{MARKS[step.action]} {step.kind} {step.key}"
    if step.action in ("create", "delete"):
        return head
    old, now = step.before or {}, step.after or {}
    lines = [f"@@ {head} @@"]
    for name in step.fields:
        lines += _differs(name, old.get(name), now.get(name))
    return "\n".join(lines)


def _differs(name: str, old: Any, now: Any) -> list[str]:
    """Texts of several lines, such as scripts, line by line."""
    if isinstance(now, str) and "\n" in now:
        before = old.splitlines() if isinstance(old, str) else []
        return [f" {name}", *list(unified_diff(before, now.splitlines(), lineterm="", n=1))[2:]]
    return [f"-{name} = {json.dumps(old, ensure_ascii=False)}", f"+{name} = {json.dumps(now, ensure_ascii=False)}"]


def _text(file: Path) -> str:
    from trunkline.numbers.ascode import MAX_BYTES

    try:
        raw = sys.stdin.buffer.read(MAX_BYTES + 1) if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise ConfigError("apply", str(file), f"a file we may read ({(error.strerror or '').lower()})") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError("apply", str(file), f"at most {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("apply", str(file), f"UTF-8 text: byte {error.start} is none") from None


def _with_desk(settings: Settings, work: "Callable[[Desk], Awaitable[T]]") -> T:
    async def run() -> T:
        async with opened(settings) as kept:
            return await work(await desk_of(kept))

    return asyncio.run(run())


async def desk_of(kept: Kept) -> "Desk":
    from trunkline.agents import script
    from trunkline.numbers.desk import Desk
    from trunkline.store.desk import Desk as DeskStore

    seal = await asyncio.to_thread(desk_seal, kept.settings, kept.keys)
    check = partial(script.mistakes, foreign=shared_of(kept.settings))
    return Desk(DeskStore(kept.database, SYSTEM_CLOCK, seal), check)
