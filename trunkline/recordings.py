"""`trunkline recordings ...`: opened, listened to, and looked at whether they are as they were written.

Whoever may read the settings' keys and the files may open a recording. That somebody did is in the call's record before
anything is opened: without its database none is.
"""

import asyncio
import json
import os
import shlex
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, StoreError
from trunkline.keeping import Kept, master_keys, opened, recording_folders, who
from trunkline.ports import RECORDED
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, CallId

app = typer.Typer(no_args_is_help=True, help="Recordings.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
Call = Annotated[str, typer.Argument(help="The call's id.")]
Number = Annotated[int, typer.Option(min=1, help="Which, of a call that has several.")]
OPENED = "recording_opened"


@app.command()
def export(
    call: Call,
    out: Annotated[Path | None, typer.Option("--out", help="The WAV (default: its name, here).")] = None,
    number: Number = 1,
    config: Config = None,
) -> None:
    """A recording as a WAV, readable by its owner only."""
    from trunkline.media.recordings import format_in

    settings = load(config)
    path, keys = asyncio.run(_may_open(settings, call, number, "export")), master_keys(settings)
    format_in(path, keys)  # or it is another's
    target = out or Path(path.name.removesuffix(".sealed"))
    whole = _written(path, target, keys)
    typer.echo(json.dumps({"wav": str(target), "whole": whole}, indent=2))


@app.command()
def play(
    call: Call,
    number: Number = 1,
    player: Annotated[str, typer.Option(help="Gets the WAV on its stdin.")] = "aplay -q -",
    config: Config = None,
) -> None:
    """Listen to a recording. Nothing of it is written to the disk."""
    from trunkline.media.recorder import wav_header
    from trunkline.media.recordings import audio_of, format_in, held

    settings = load(config)
    path, keys = asyncio.run(_may_open(settings, call, number, "play")), master_keys(settings)
    try:
        size = held(path, keys).audio_bytes
        chunks, _, _ = audio_of(path, keys)
        with subprocess.Popen(shlex.split(player), stdin=subprocess.PIPE) as playing:
            sink = cast(IO[bytes], playing.stdin)
            try:
                sink.write(wav_header(format_in(path, keys), size))
                for chunk in chunks:
                    sink.write(chunk)
                sink.close()
            except BrokenPipeError:  # it was stopped
                pass
    except OSError as error:
        raise ConfigError("--player", player, f"a program that plays a WAV ({error.strerror})") from error
    raise typer.Exit(playing.returncode)


@app.command()
def verify(
    call: Annotated[str, typer.Argument(help="The call's id (default: all).")] = "",
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")] = False,
) -> None:
    """Whether each is as the record says it was written. Exit status 1 where one is not, or is gone before its time."""
    found = asyncio.run(_verified(load(config), call))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for row in found:
            typer.echo(f"{'ok ' if row['ok'] else 'BAD'} {row['file']}: {row['found']}")
    raise typer.Exit(0 if all(row["ok"] for row in found) else 1)


async def _verified(settings: Settings, call: str) -> list[dict[str, Any]]:
    from trunkline.media.recorder import Finished
    from trunkline.media.recordings import bare, recordings_in, recordings_of, verdict
    from trunkline.store.records import events_of

    folders = recording_folders(settings)
    async with opened(settings) as kept:
        paths = recordings_of(folders, call) if call else list(recordings_in(folders))
        noted = await events_of(kept.database, DEFAULT_TENANT, RECORDED, CallId(call) if call else None)
    known = [(at, Finished(**row)) for at, row in noted if row.keys() == Finished.__dataclass_fields__.keys()]
    said = [each for _, each in known]
    there = {bare(path.name) for path in paths}
    rows = []
    for path in paths:
        ok, what = await asyncio.to_thread(verdict, path, kept.keys, said)
        rows.append({"file": path.name, "ok": ok, "found": what})
    days = settings.privacy.recordings_days
    old = None if days is None else SYSTEM_CLOCK.wall() - timedelta(days=days)
    gone = {each.file: old is not None and at <= old for at, each in known if bare(each.file) not in there}
    return rows + [
        {"file": name, "ok": ok, "found": f"deleted after {days} days" if ok else "not there"}
        for name, ok in sorted(gone.items())
    ]


async def _may_open(settings: Settings, call: str, number: int, how: str) -> Path:
    """Which file; once it is in the record that somebody opens it. Raises StoreError."""
    from trunkline.media.recordings import recordings_of
    from trunkline.store.records import note_event

    paths = recordings_of(recording_folders(settings), call)
    if len(paths) < number:
        raise StoreError(f"call {call} has {len(paths)} recordings" if paths else f"call {call} has no recording")
    path = paths[number - 1]
    async with opened(settings) as kept:
        await _note(kept, call, {"file": path.name, "how": how, "by": who()}, note_event)
    return path


async def _note(kept: Kept, call: str, data: dict[str, Any], note: Any) -> None:
    if not await note(kept.database, DEFAULT_TENANT, CallId(call), OPENED, data, SYSTEM_CLOCK.wall()):
        raise StoreError(f"call {call} is not in the database, where it would be noted that its recording is opened")


def _written(path: Path, target: Path, keys: Any) -> bool:
    """The WAV, into a file that must not exist. Raises ConfigError, StoreError."""
    from trunkline.media.recorder import opened_wav

    try:
        with path.open("rb") as file:
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb", buffering=0) as wav:
                try:
                    if not path.name.endswith(".sealed"):
                        _copied(file, wav)
                        return True
                    if keys is None:
                        raise ConfigError("privacy.keys", "none", "the key that the recording was sealed with")
                    return opened_wav(file, wav, keys)
                except BaseException:
                    target.unlink()
                    raise
    except OSError as error:
        raise ConfigError("file", str(error.filename or path), (error.strerror or "unreadable").lower()) from error


def _copied(file: IO[bytes], wav: IO[bytes]) -> None:
    while chunk := file.read(1 << 20):
        view = memoryview(chunk)
        while view:
            view = view[wav.write(view) :]


@app.command()
def decrypt(
    file: Annotated[Path, typer.Argument(help="A sealed recording, CALL.wav.sealed.")],
    out: Annotated[Path | None, typer.Option("--out", help="The WAV (default: the file without .sealed).")] = None,
    config: Config = None,
) -> None:
    """Open a sealed file that lies anywhere, without a database: a WAV, readable by its owner only."""
    keys = master_keys(load(config))
    if keys is None:
        raise ConfigError("privacy.keys", "none", "the key that the recording was sealed with")
    if file.suffix != ".sealed":
        raise ConfigError("file", str(file), "a sealed recording, CALL.wav.sealed")
    target = out or file.with_suffix("")
    typer.echo(json.dumps({"wav": str(target), "whole": _written(file, target, keys)}, indent=2))
