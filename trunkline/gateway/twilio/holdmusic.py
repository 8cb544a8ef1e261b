"""The hold music as files that Twilio plays to callers who wait, in pieces of TURN_S."""

import io
import wave
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from trunkline.media import g711
from trunkline.media.music import RATE_HZ, hold_music
from trunkline.numbers.queueing import TURN_S, TURNS_OF_MUSIC

MUSIC_PATH = "/twilio/hold-{piece:int}.wav"
MAX_AGE_S = 86_400


def music_path(piece: int) -> str:
    return f"/twilio/hold-{piece}.wav"


@cache
def music_wav(piece: int) -> bytes:
    """16 bits, 8 kHz, mono."""
    start = piece * TURN_S * RATE_HZ
    samples = g711.decode(hold_music().audio[start : start + TURN_S * RATE_HZ], "mulaw")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(samples)
    return file.getvalue()


async def hold_music_piece(request: Request) -> Response:
    piece = int(request.path_params["piece"])
    if piece >= TURNS_OF_MUSIC:
        return Response(status_code=404)
    return Response(music_wav(piece), media_type="audio/wav", headers={"Cache-Control": f"public, max-age={MAX_AGE_S}"})
