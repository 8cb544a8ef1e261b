"""`stt.remote`: ears on another machine, or in another process, over gRPC (agents/remote).

One stream a call. When it breaks, each utterance that waits for its final fails, as does the one being fed; the next
begins on a new stream. A final that does not come in time is as good as a broken stream.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.providers import Services
from trunkline.agents.remote import ports_pb2 as pb
from trunkline.agents.remote import ports_pb2_grpc as grpc_of
from trunkline.agents.remote import wire
from trunkline.agents.remote.client import Client, token
from trunkline.agents.remote.options import FIRST_MS, read_options
from trunkline.agents.script.keys import Key, Keys
from trunkline.errors import MisuseError, ProviderError
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, Format

DEADLINES: Keys = {
    "first_ms": FIRST_MS,
    "final_ms": Key("whole", "The longest wait for an utterance's final.", 3000, low=50, high=60000),
}
MAX_QUEUED = 500  # requests, 10 s of frames: a server that does not read is given up
MAX_WAITING = 8  # utterances of one call


class RemoteStt:
    """A call's utterances are all heard by one server, as long as it lives."""

    name = "remote"
    elsewhere = True
    formats: tuple[Format, ...] = (MULAW_8K, ALAW_8K, PCM_8K)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        self.options = read_options(options, DEADLINES)
        self.third_party = self.options.third_party
        self.feed_mode: Literal["all", "gated"] = "gated"
        """What the servers say at start; where one wants its speech gated, all get it so."""
        self.final_s = self.options.deadlines_ms["final_ms"] / 1000
        self.client = Client(self.name, self.options, token(services.keys))
        self._streams: set[RemoteStream] = set()

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options, DEADLINES)

    async def start(self) -> None:
        """Raises ProviderError when no server is there."""
        said = await self.client.start(lambda channel: grpc_of.StreamingAsrStub(channel).Describe, pb.DescribeRequest())
        self.feed_mode = "all" if all(each.feed_mode == "all" for each in said) else "gated"
        formats = [{(each.encoding, each.rate_hz) for each in description.formats} for description in said]
        both = [format for format in self.formats if all((format.encoding, format.rate_hz) in each for each in formats)]
        if not both:
            raise ProviderError(self.name, "bad_request", "the servers take no telephone audio", retryable=False)
        self.formats = tuple(both)

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "RemoteStream":
        if format not in self.formats:
            raise MisuseError(f"the remote recogniser does not take {format}")
        stream = RemoteStream(self, call, format, on_event)
        self._streams.add(stream)
        return stream

    def forget(self, stream: "RemoteStream") -> None:
        self._streams.discard(stream)

    async def close(self) -> None:
        """Idempotent."""
        tasks = [task for stream in list(self._streams) for task in stream.close()]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()


class RemoteStream:
    """One call's ears: an SttStream. Utterances are counted: what comes of one that is over is not another's."""

    def __init__(self, stt: RemoteStt, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> None:
        self._stt, self._call, self._format = stt, call, format
        self._on_event: Callable[[SttEvent], None] | None = on_event
        self._utterance = 1
        self._fed = False
        self._failed: ProviderError | None = None
        """Of the utterance being fed."""
        self._expectation: Expectation | None = None
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        """Utterances that were finalized, in order, and when each is given up."""
        self._requests: asyncio.Queue[pb.AsrRequest] | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped_bytes = 0
        """Audio of utterances that had already failed."""

    def feed(self, audio: bytes) -> None:
        if self._on_event is None or not audio:
            return
        self._fed = True
        if self._failed is not None:
            self.dropped_bytes += len(audio)
            return
        self._send(pb.AsrRequest(utterance=self._utterance, audio=audio))

    def began(self, ago_ms: int) -> None:
        if self._on_event is not None and self._fed and self._failed is None:
            self._send(pb.AsrRequest(utterance=self._utterance, began=pb.Began(ago_ms=ago_ms)))

    def expect(self, expectation: Expectation) -> None:
        if self._on_event is None:
            return
        self._expectation = expectation
        if self._requests is not None:  # else with the stream's beginning
            self._send(pb.AsrRequest(utterance=self._utterance, expect=wire.write_expectation(expectation)))

    def finalize(self) -> None:
        if self._on_event is None:
            return
        utterance, self._utterance = self._utterance, self._utterance + 1
        fed, failed, self._fed, self._failed = self._fed, self._failed, False, None
        loop = asyncio.get_running_loop()
        if failed is None and fed and len(self._waiting) < MAX_WAITING:
            self._waiting[utterance] = loop.call_later(self._stt.final_s, self._late)
            self._send(pb.AsrRequest(utterance=utterance, finalize=pb.Finalize()))
            return
        if not fed:
            self._report_soon(SttFinal("", understood=False))
        else:
            self._report_soon(SttFailed(failed or self._error("overloaded", "earlier speech is still being heard")))

    def cancel(self) -> None:
        if self._on_event is None:
            return
        if self._fed and self._failed is None and self._requests is not None:
            self._send(pb.AsrRequest(utterance=self._utterance, cancel=pb.Cancel()))
        self._fed, self._failed = False, None
        self._utterance += 1

    def close(self) -> list["asyncio.Task[None]"]:
        """The tasks that end now."""
        self._on_event = None
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._stt.forget(self)
        task, self._task, self._requests = self._task, None, None
        if task is None:
            return []
        task.cancel()
        return [task]

    # --- the stream ---

    def _send(self, request: pb.AsrRequest) -> None:
        if self._requests is None:
            self._begin()
        assert self._requests is not None
        try:
            self._requests.put_nowait(request)
        except asyncio.QueueFull:
            self._break(self._error("overloaded", "the server does not listen"))

    def _begin(self) -> None:
        self._requests = asyncio.Queue(MAX_QUEUED)
        start = pb.AsrStart(call=wire.write_call(self._call), format=wire.write_format(self._format))
        self._requests.put_nowait(pb.AsrRequest(utterance=self._utterance, start=start))
        if self._expectation is not None:
            expect = wire.write_expectation(self._expectation)
            self._requests.put_nowait(pb.AsrRequest(utterance=self._utterance, expect=expect))
        self._task = asyncio.get_running_loop().create_task(self._run(self._requests))

    async def _run(self, requests: "asyncio.Queue[pb.AsrRequest]") -> None:
        client, session = self._stt.client, self._call.call_id
        targets = client.choices(session)
        if not targets:
            self._broke(requests, self._error("unavailable", "not started"))
            return
        call = client.begin(session, targets[0], _recognize)
        ready = asyncio.Event()
        writer = asyncio.get_running_loop().create_task(_write(call, requests, ready))
        try:
            while isinstance(message := await call.read(), pb.AsrEvent):
                client.fleet.keep(session, targets[0])
                if message.WhichOneof("event") == "ready":
                    ready.set()
                else:
                    self._take(requests, wire.read_stt_event(message, self._stt.name), message.utterance)
            ended = self._error("unavailable", "the server ended the stream")
            error = client.garbage() if message is None else ended
        except wire.WireError as wrong:
            error = self._error("protocol", str(wrong))
        except Exception as failed:
            error = client.failed(failed)
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        self._broke(requests, error)

    def _take(self, requests: "asyncio.Queue[pb.AsrRequest]", event: SttEvent, utterance: int) -> None:
        if requests is not self._requests or self._on_event is None:
            return
        if isinstance(event, SttPartial):
            if utterance == self._utterance and self._fed and self._failed is None:
                self._on_event(event)
            return
        if utterance == next(iter(self._waiting), None):
            self._waiting.pop(utterance).cancel()
            self._on_event(event)
        elif utterance == 0:  # the recogniser ended it by itself
            self._on_event(event)
        elif utterance in self._waiting:
            self._break(self._error("protocol", "finals out of order"))

    def _broke(self, requests: "asyncio.Queue[pb.AsrRequest]", error: ProviderError) -> None:
        if requests is self._requests:
            self._break(error)

    def _late(self) -> None:
        self._break(self._error("timeout", "no final in time"))

    def _break(self, error: ProviderError) -> None:
        """All that was on this stream has failed; the next utterance begins another."""
        task, self._task, self._requests = self._task, None, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if self._fed:
            self._failed = error
        for timer in self._waiting.values():
            timer.cancel()
            self._report_soon(SttFailed(error))
        self._waiting.clear()

    def _report_soon(self, event: SttFinal | SttFailed) -> None:
        """Not from within a method that the turn machine has called."""
        asyncio.get_running_loop().call_soon(self._report, event)

    def _report(self, event: SttFinal | SttFailed) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _error(self, code: str, detail: str) -> ProviderError:
        return ProviderError(self._stt.name, code, detail, retryable=True)


async def _write(call: Any, requests: "asyncio.Queue[pb.AsrRequest]", ready: asyncio.Event) -> None:
    """Until it fails: the reader says why. Nothing is written to a stream that is refused: grpc would put the failed
    write in the place of the refusal."""
    try:
        await call.write(await requests.get())
        await ready.wait()
        while True:
            await call.write(await requests.get())
    except Exception:
        return


def _recognize(channel: Any) -> Any:
    return grpc_of.StreamingAsrStub(channel).Recognize
