"""What every provider of a port must do, as tests that its own test module inherits.

    class TestAcme(SttConformance):
        situations = frozenset({"answers", "silent", "unauthorized"})
        secrets = ("the key",)

        @asynccontextmanager
        async def stage(self, situation):
            async with AcmeServer(situation) as server:
                yield Stage(AcmeStt(definition, {"url": server.url}, services), closed=server.disconnected.wait)

pytest collects them by the class's name; any runner that calls methods named `test_` will do. A case that needs a
situation the stage does not offer is not there. Every case also fails on a secret or the call's audio in a log or an
error, on an exception that nobody took, and on a task that outlives the provider.
"""

from trunkline.testing.conformance.llm import LlmConformance
from trunkline.testing.conformance.realtime import RealtimeConformance
from trunkline.testing.conformance.stage import Situation, Stage
from trunkline.testing.conformance.stt import SttConformance
from trunkline.testing.conformance.tts import TtsConformance

__all__ = ["LlmConformance", "RealtimeConformance", "Situation", "Stage", "SttConformance", "TtsConformance"]
