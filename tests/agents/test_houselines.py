"""Who speaks the lines that callers hear first."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.agents import houselines
from trunkline.agents.houselines import HouseVoice
from trunkline.errors import ProviderError
from trunkline.ports import TtsAudio
from trunkline.testing.board import DEFINITION
from trunkline.types import MULAW_8K


class Voice:
    third_party = False

    def __init__(self, audio: bytes) -> None:
        self.audio, self.started = audio, 0

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None: ...

    async def speak(self, text: str, format: Any) -> AsyncGenerator[TtsAudio]:
        if not self.audio:
            raise ProviderError("voice", "unreachable", "away", retryable=True)
        yield TtsAudio(self.audio)


def house(theirs: Voice, own: Voice, monkeypatch: pytest.MonkeyPatch) -> HouseVoice:
    monkeypatch.setattr(houselines, "_espeak", lambda definition, services: own)
    minds = SimpleNamespace(named=lambda kind: {"tts": theirs})
    return HouseVoice(replace(DEFINITION), cast(Any, minds), cast(Any, None))


def test_a_voice_that_is_away_at_the_start_is_followed_by_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Voice(b"\x55" * 160)
    voice = house(Voice(b""), own, monkeypatch)
    asyncio.run(voice.start(["You have reached us."]))
    kept = voice.kept("You have reached us.", MULAW_8K)
    assert kept is not None
    assert [each.data for each in kept] == [own.audio]
    assert own.started == 1


def test_where_nobody_speaks_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError):
        asyncio.run(house(Voice(b""), Voice(b""), monkeypatch).start(["You have reached us."]))
