"""/v1/calls/{id}/recording: a WAV to play, also where it is sealed, and in parts (RFC 9110 ranges), for a player.

Only what the caller has agreed to, where they were asked. That somebody plays it is in the call's record before the
first byte leaves; where that cannot be written nothing is played. Nothing that is opened is written to the disk.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.api.callquery import parameters
from trunkline.gateway.api.calls import call_id_of
from trunkline.gateway.api.principal import actor_of, tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.timeline import recording_of
from trunkline.media.recorder import wav_header
from trunkline.media.recordings import audio_of, format_in, held, recordings_of
from trunkline.privacy.sealed import Keys
from trunkline.types import CallId, TenantId

PLAYED = "recording_played"
NUMBER_MAX = 99
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class Noted(Protocol):
    """The store's side of it (`store.records`). Both raise StoreError."""

    async def get(self, tenant: TenantId, call_id: CallId) -> Mapping[str, Any] | None: ...

    async def note(self, tenant: TenantId, call_id: CallId, kind: str, data: Mapping[str, Any], at: datetime) -> bool:
        """Into the record, durable when it returns. False: there is no such call."""
        ...


def recording_routes(
    records: Noted, folders: Callable[[], Sequence[Path]], keys: Keys | None, clock: Clock
) -> list[Route]:
    async def play(request: Request) -> Response:
        tenant, call_id = tenant_of(request), call_id_of(request)
        number = _number(parameters(request, "number").get("number", "1"))
        record = await records.get(tenant, call_id)
        if record is None:
            raise HTTPException(404, "no such call")
        if (told := recording_of(record))["made"] and not told["may_be_played"]:
            return problem(403, told["why"], code="no_consent")
        paths = await asyncio.to_thread(recordings_of, folders(), call_id)
        if record.get("ended_at") is None or not paths:
            raise HTTPException(404, "the call has no recording, or not yet, or its time is over")
        if len(paths) < number:
            raise HTTPException(404, f"the call has {len(paths)} recordings")
        path = paths[number - 1]
        try:
            size, header = await asyncio.to_thread(_measured, path, keys)
        except FileNotFoundError:
            raise HTTPException(404, "the recording was deleted") from None
        except (StoreError, OSError) as error:
            what = str(error) if isinstance(error, StoreError) else error.strerror
            return problem(409, f"the recording cannot be opened: {what}", code="unreadable")
        wanted = span(request.headers.get("range"), size)
        if wanted is None:
            return problem(416, "", {"Content-Range": f"bytes */{size}"})
        first, last = wanted
        partial = (first, last) != (0, size - 1)
        data = {"file": path.name, "by": actor_of(request), "bytes": [first, last]}
        if not await records.note(tenant, call_id, PLAYED, data, clock.wall()):
            raise HTTPException(404, "no such call")
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
            "Content-Disposition": f'inline; filename="{path.name.partition(".wav")[0]}.wav"',
        }
        if partial:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return StreamingResponse(
            _part(header, path, keys, first, last), 206 if partial else 200, headers, media_type="audio/wav"
        )

    return [Route("/v1/calls/{call_id}/recording", play, methods=["GET"])]


def _number(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) < 3 and 1 <= int(value) <= NUMBER_MAX:
        return int(value)
    raise HTTPException(400, f"number: 1 to {NUMBER_MAX} expected")


def _measured(path: Path, keys: Keys | None) -> tuple[int, bytes]:
    """Bytes of the WAV, and its header. Raises StoreError, OSError."""
    audio_bytes = held(path, keys, 0).audio_bytes
    header = wav_header(format_in(path, keys), audio_bytes)
    return len(header) + audio_bytes, header


def span(asked: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte; all of it where nothing is asked, or something that is not understood (RFC 9110 14.2). None:
    there are no such bytes."""
    found = _RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or not any(found.groups()):
        return 0, size - 1
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size - 1) if int(last) else None
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < int(first):
        return 0, size - 1  # not a range
    return (int(first), end) if int(first) < size else None


def _part(header: bytes, path: Path, keys: Keys | None, first: int, last: int) -> Iterator[bytes]:
    """In a thread of the server's. A chunk is 1 MiB at most."""
    if first < len(header):
        yield header[first : last + 1]
    at = len(header)
    if last < at:
        return
    chunks, _, _ = audio_of(path, keys)  # begun at once: else its file would stay open
    try:
        for chunk in chunks:
            wanted = chunk[max(0, first - at) : last + 1 - at]
            at += len(chunk)
            if wanted:
                yield wanted
            if at > last:
                return
    finally:
        chunks.close()  # type: ignore[attr-defined]
