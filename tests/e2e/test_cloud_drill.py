"""What a caller hears when a service of the cloud fails on the wire: real SDKs, local servers, real time."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.e2e.cloud import ANSWER, WIRE_FAULTS, Heard, Kind, WireFault, cloud

pytestmark = pytest.mark.e2e

FOLLOWS = {"stt": "stt.deepgram > stt.deepgram-2", "llm": "llm.openai > llm.openai-2"}
FOLLOWS["tts"] = "tts.elevenlabs > tts.elevenlabs-2"
LIFEBOATS = {"stt": "> stt.pocketsphinx", "llm": "> llm.script", "tts": "> tts.espeak"}


def drilled(kind: Kind, faults: Sequence[WireFault], *, both: bool) -> list[Heard]:
    async def main() -> list[Heard]:
        async with cloud() as servers:
            return [await servers.call(kind, fault, both=both) for fault in faults]

    return asyncio.run(main())


SOME = ("stalled_middle",)
"""Of the wire's faults, what `make e2e` tries; `make show` tries all."""


@pytest.mark.parametrize("faults", [SOME, pytest.param(WIRE_FAULTS, marks=pytest.mark.show)], ids=["some", "all"])
@pytest.mark.parametrize("kind", ["stt", "llm", "tts"])
def test_whatever_breaks_on_the_wire_is_followed_and_every_word_is_heard_once(
    kind: Kind, faults: Sequence[WireFault]
) -> None:
    for heard in drilled(kind, faults, both=False):
        print(heard)
        assert (heard.lost_words, heard.repeated_words) == (0, 0), heard
        assert heard.dead_air_ms <= 2000, heard
        assert heard.answer == ANSWER, heard
        assert heard.ended == "caller_hung_up", heard
        if (kind, heard.fault) != ("stt", "disconnected"):  # it connects again by itself, with what was said so far
            assert any(switch.startswith(FOLLOWS[kind]) for switch in heard.switches), heard


@pytest.mark.parametrize("kind", ["stt", *(pytest.param(kind, marks=pytest.mark.show) for kind in ("llm", "tts"))])
def test_with_both_of_them_gone_the_lifeboat_answers(kind: Kind) -> None:
    for heard in drilled(kind, ("killed", "stalled_first"), both=True):
        print(heard)
        assert heard.dead_air_ms <= 4000 if heard.fault == "stalled_first" else heard.dead_air_ms <= 2000, heard
        assert heard.answer == ("We open at seven." if kind == "llm" else ANSWER), heard
        assert any(LIFEBOATS[kind] in switch for switch in heard.switches), heard
