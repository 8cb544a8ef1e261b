"""`tts.remote`: a voice on another machine, or in another process, over gRPC (agents/remote)."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote import ports_pb2_grpc as grpc_of
from trunkline.agents.remote import wire
from trunkline.agents.remote.client import Client, token
from trunkline.agents.remote.options import BETWEEN_MS, FIRST_MS, read_options
from trunkline.agents.script.keys import Keys
from trunkline.errors import ProviderError
from trunkline.ports import ON_BEHALF_OF, TtsAudio
from trunkline.types import Format

DEADLINES: Keys = {"first_ms": FIRST_MS, "between_ms": BETWEEN_MS}


class RemoteTts:
    """A call's phrases are all spoken by one server, as long as it lives."""

    name = "remote"
    elsewhere = True

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self.options = read_options(options, DEADLINES)
        self._language = definition.language
        self.third_party = self.options.third_party
        self.word_times = False
        """What the servers say at start; where one has none, none counts."""
        self._first_s = self.options.deadlines_ms["first_ms"] / 1000
        self._between_s = self.options.deadlines_ms["between_ms"] / 1000
        self._client = Client(self.name, self.options, token(services.keys))

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options, DEADLINES)

    async def start(self) -> None:
        """Raises ProviderError when no server is there."""
        said = await self._client.start(
            lambda channel: grpc_of.StreamingTtsStub(channel).Describe, pb.DescribeRequest()
        )
        self.word_times = all(each.word_times for each in said)

    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Closing the generator cancels the request. Raises ProviderError."""
        request = pb.SpeakRequest(text=text, format=wire.write_format(format), language=self._language)
        session = ON_BEHALF_OF.get() or ""
        stream = self._client.stream(session, _speak, request, self._first_s, self._between_s)
        async with aclosing(stream) as events:
            async for event in events:
                try:
                    audio = wire.read_audio(event, format)
                except wire.WireError as error:
                    raise ProviderError(self.name, "protocol", str(error), retryable=False) from None
                yield audio if self.word_times else TtsAudio(audio.data)

    async def close(self) -> None:
        """Idempotent."""
        await self._client.close()


def _speak(channel: Any) -> Any:
    return grpc_of.StreamingTtsStub(channel).Speak
