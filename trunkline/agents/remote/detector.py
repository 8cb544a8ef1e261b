"""A turn detector on another machine, or in another process: `ports.TurnDetector` over gRPC."""

from collections.abc import Mapping
from typing import Any

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote import ports_pb2_grpc as grpc_of
from trunkline.agents.remote.client import Client, token
from trunkline.agents.remote.options import read_options
from trunkline.agents.script.keys import Key, Keys
from trunkline.errors import ProviderError
from trunkline.ports import ON_BEHALF_OF

DEADLINES: Keys = {
    "first_ms": Key("whole", "The longest wait for an answer; no call waits longer than 200.", 200, low=10, high=5000)
}


class RemoteTurnDetector:
    name = "remote"

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError; MissingExtra without `grpcio`."""
        self.options = read_options(options, DEADLINES)
        self.third_party = self.options.third_party
        self._deadline_s = self.options.deadlines_ms["first_ms"] / 1000
        self._client = Client(self.name, self.options, token(services.keys))

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options, DEADLINES)

    async def start(self) -> None:
        """Raises ProviderError when no server is there."""
        await self._client.start(_detect, pb.DetectRequest())

    async def probability(self, text: str, language: str) -> float:
        """That the caller has finished, 0 to 1. Raises ProviderError."""
        request = pb.DetectRequest(text=text, language=language)
        answer = await self._client.ask(ON_BEHALF_OF.get() or "", _detect, request, self._deadline_s)
        if not 0 <= answer.probability <= 1:
            raise ProviderError(self.name, "protocol", "no probability", retryable=False)
        return float(answer.probability)

    async def close(self) -> None:
        """Idempotent."""
        await self._client.close()


def _detect(channel: Any) -> Any:
    return grpc_of.TurnDetectorStub(channel).Detect
