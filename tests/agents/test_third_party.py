"""Who a call's audio and text may not be given to before the caller has agreed."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.llm.openai import OpenAiLlm
from trunkline.agents.providers import Services, elsewhere
from trunkline.agents.realtime.openai import OpenAiRealtime
from trunkline.agents.stt.deepgram import DeepgramStt
from trunkline.agents.tts.deepgram import DeepgramTts
from trunkline.agents.tts.elevenlabs import ElevenLabs
from trunkline.agents.tts.openai import OpenAiTts
from trunkline.testing.clock import ManualClock

FAKE = ProviderChoice("fake")
AGENT = AgentDefinition("A", FAKE, FAKE, FAKE, greeting="Hello.")
SERVICES = Services(ManualClock(), keys={name: "k" for name in ("openai", "deepgram", "elevenlabs")})
EACH = [
    (OpenAiLlm, "base_url", "http", {"model": "m"}),
    (OpenAiTts, "base_url", "http", {"model": "m", "voice": "v"}),
    (OpenAiRealtime, "base_url", "http", {"model": "m"}),
    (ElevenLabs, "base_url", "ws", {"voice": "v"}),
    (DeepgramStt, "url", "ws", {}),
    (DeepgramTts, "url", "http", {}),
]


@pytest.mark.parametrize(("provider", "key", "scheme", "options"), EACH)
def test_a_server_is_a_third_party_unless_it_is_on_this_machine_or_the_file_says_it_is_ours(
    provider: Callable[..., Any], key: str, scheme: str, options: Mapping[str, Any]
) -> None:
    def third_party(address: str | None, said: bool | None = None) -> bool:
        url = {} if address is None else {key: f"{scheme}://{address}"}
        told = {} if said is None else {"third_party": said}
        made = provider(AGENT, {**options, **url, **told}, SERVICES)
        assert elsewhere(made)  # whoever holds it
        return bool(made.third_party)

    assert third_party(None)
    assert third_party("10.0.0.7:8000")  # of a network that is perhaps not ours alone
    assert third_party("localhost.example.com:8000")
    assert not third_party("10.0.0.7:8000", False)
    assert not third_party("127.0.0.1:8000")
    assert not third_party("[::1]:8000")
    assert third_party("127.0.0.1:8000", True)  # the near end of a tunnel
