"""`llm.remote`: the mind of a call on another machine, or in another process, over gRPC (agents/remote).

Tools are performed here: the server only asks for them.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
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
from trunkline.ports import CallFacts, LlmEvent, Message

DEADLINES: Keys = {"first_ms": FIRST_MS, "between_ms": BETWEEN_MS}
CLOSE_S = 2.0


class RemoteLlm:
    """A call's replies all come from one server, as long as it lives: it may keep a session's state."""

    name = "remote"
    elsewhere = True
    speculates = False
    """What is behind it may move on by being asked."""

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self.options = read_options(options, DEADLINES)
        self.third_party = self.options.third_party
        self.first_s = self.options.deadlines_ms["first_ms"] / 1000
        self.between_s = self.options.deadlines_ms["between_ms"] / 1000
        self.client = Client(self.name, self.options, token(services.keys))
        self._closing: set[asyncio.Task[None]] = set()

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options, DEADLINES)

    async def start(self) -> None:
        """Raises ProviderError when no server is there."""
        await self.client.start(lambda channel: grpc_of.LlmOrchestratorStub(channel).Describe, pb.DescribeRequest())

    def open(self, call: CallFacts) -> "RemoteSession":
        return RemoteSession(self, call)

    async def close(self) -> None:
        """Idempotent."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.client.close()

    def tell_closed(self, session: str) -> None:
        """The server may forget the session now; it does so by itself, too, only later."""
        task = asyncio.get_running_loop().create_task(self._tell_closed(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _tell_closed(self, session: str) -> None:
        try:
            await self.client.ask(session, _close, pb.CloseRequest(), CLOSE_S)
        except ProviderError:
            pass


class RemoteSession:
    def __init__(self, llm: RemoteLlm, call: CallFacts) -> None:
        self._llm, self._call = llm, call
        self._asked = False
        self.prompt_sha256 = ""

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        """Closing the generator cancels the request. Raises ProviderError."""
        self._asked = True
        llm = self._llm
        messages = [wire.write_message(message) for message in conversation]
        request = pb.ReplyRequest(call=wire.write_call(self._call), conversation=messages, understood=understood)
        self.prompt_sha256 = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        stream = llm.client.stream(self._call.call_id, _reply, request, llm.first_s, llm.between_s)
        async with aclosing(stream) as events:
            async for each in events:
                try:
                    event = wire.read_llm_event(each)
                except wire.WireError as error:
                    raise ProviderError(llm.name, "protocol", str(error), retryable=False) from None
                if event is not None:
                    yield event

    def close(self) -> None:
        """Idempotent."""
        if self._asked:
            self._asked = False
            self._llm.tell_closed(self._call.call_id)


def _reply(channel: Any) -> Any:
    return grpc_of.LlmOrchestratorStub(channel).Reply


def _close(channel: Any) -> Any:
    return grpc_of.LlmOrchestratorStub(channel).Close
