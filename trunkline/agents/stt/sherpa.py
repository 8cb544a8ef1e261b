"""`stt.sherpa`: a streaming model from a folder, run by sherpa-onnx in threads. No account, no network.

Each utterance is a stream of the one loaded model, decoded in one thread at a time, in order. Finals come in the order
of their utterances.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.local import sherpa
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys
from trunkline.agents.tts.sherpa import read_options
from trunkline.errors import MisuseError, ProviderError
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

OPTIONS: Keys = {
    "model_dir": Key("text", "The model's folder.", required=True),
    "threads": Key("whole", "Of one decoding.", 1, low=1, high=64),
    "final_ms": Key("whole", "The longest wait for an utterance's final.", 3000, low=50, high=60000),
}
MAX_UTTERANCES = 4  # of one call, under way
MAX_WAITING_MS = 15_000  # audio of one utterance, not yet decoded
TAIL_S = 0.5  # silence behind the last word: the model hears so far ahead


class SherpaStt:
    name = "sherpa"
    feed_mode: Literal["all", "gated"] = "gated"
    third_party = False
    formats: tuple[Format, ...] = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError, MissingExtra."""
        self.options = read_options(options, OPTIONS)
        self.folder = sherpa.ears_folder(self.options["model_dir"] or "")
        sherpa.sdk()
        self.final_s = self.options["final_ms"] / 1000
        self._workers = services.speech_workers
        self.threads: sherpa.Threads | None = None
        self.recognizer: Any = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        sherpa.ears_folder(read_options(options, OPTIONS)["model_dir"] or "")

    async def start(self) -> None:
        """Loads the model."""
        self.threads = sherpa.Threads(self.name, self._workers)
        self.recognizer = await self.threads.run(lambda: sherpa.load_ears(self.folder, self.options["threads"]))

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "SherpaStream":
        if format not in self.formats:
            raise MisuseError(f"sherpa does not take {format}")
        return SherpaStream(self, format, on_event)

    async def close(self) -> None:
        """Idempotent."""
        threads, self.threads, self.recognizer = self.threads, None, None
        if threads is not None:
            threads.close()


@dataclass(slots=True, eq=False)
class _Utterance:
    waiting: bytearray = field(default_factory=bytearray)
    """Audio that no thread has taken yet."""
    stream: Any = None
    running: bool = False
    finished: bool = False
    text: str = ""
    outcome: SttFinal | SttFailed | None = None
    timer: asyncio.TimerHandle | None = None


class SherpaStream:
    """One call's ears: an SttStream."""

    def __init__(self, stt: SherpaStt, format: Format, on_event: Callable[[SttEvent], None]) -> None:
        self._stt, self._format = stt, format
        self._on_event: Callable[[SttEvent], None] | None = on_event
        self._current: _Utterance | None = None
        self._finishing: deque[_Utterance] = deque()
        self.dropped_bytes = 0
        """Audio of utterances that had already failed."""

    def feed(self, audio: bytes) -> None:
        if self._on_event is None or not audio:
            return
        if self._current is None:
            self._current = _Utterance()
            if len(self._finishing) >= MAX_UTTERANCES:
                self._fail(self._current, "overloaded", "earlier speech is still being heard")
        utterance = self._current
        if utterance.outcome is not None:
            self.dropped_bytes += len(audio)
        elif len(utterance.waiting) + len(audio) > MAX_WAITING_MS * self._format.bytes_per_ms:
            self._fail(utterance, "overloaded", "speech comes faster than it is decoded")
        else:
            utterance.waiting += audio
            self._decode(utterance)

    def began(self, ago_ms: int) -> None:
        """It is fed speech only."""

    def expect(self, expectation: Expectation) -> None:
        """The vocabulary is open: nothing changes."""

    def finalize(self) -> None:
        """Without audio since the last: nothing was said, and SttFinal says so."""
        if self._on_event is None:
            return
        loop = asyncio.get_running_loop()
        utterance, self._current = self._current or _Utterance(outcome=SttFinal("", understood=False)), None
        self._finishing.append(utterance)
        utterance.finished = True
        if utterance.outcome is not None:
            loop.call_soon(self._report)
            return
        utterance.timer = loop.call_later(self._stt.final_s, self._fail, utterance, "timeout", "no final in time")
        self._decode(utterance)

    def cancel(self) -> None:
        """Of the utterance being fed, not of those finalised."""
        self._current = None

    def close(self) -> None:
        self._on_event = self._current = None
        for utterance in self._finishing:
            if utterance.timer is not None:
                utterance.timer.cancel()
        self._finishing.clear()

    def _decode(self, utterance: _Utterance) -> None:
        """All that waits, in one thread; what comes meanwhile is the next job's."""
        if utterance.running or utterance.outcome is not None:
            return
        threads, recognizer = self._stt.threads, self._stt.recognizer
        if threads is None:
            self._fail(utterance, "unavailable", "not started")
            return
        audio, last = bytes(utterance.waiting), utterance.finished
        utterance.waiting.clear()
        if utterance.stream is None:
            utterance.stream = recognizer.create_stream()
        stream, format = utterance.stream, self._format
        try:
            job = threads.run(lambda: _heard(recognizer, stream, audio, format, last))
        except ProviderError as error:
            self._fail(utterance, error.code, error.detail)
            return
        utterance.running = True
        job.add_done_callback(lambda done: self._decoded(utterance, done, last))

    def _decoded(self, utterance: _Utterance, job: "asyncio.Future[str]", last: bool) -> None:
        utterance.running = False
        if job.cancelled() or (error := job.exception()) is not None:
            self._fail(utterance, "unavailable", "closed" if job.cancelled() else type(error).__name__)
            return
        if self._on_event is None or utterance.outcome is not None:
            return
        if last:
            utterance.outcome = SttFinal(job.result(), understood=bool(job.result()))
            self._report()
            return
        if utterance is self._current and job.result() != utterance.text:
            utterance.text = job.result()
            self._on_event(SttPartial(utterance.text))
        if utterance.waiting or utterance.finished:
            self._decode(utterance)

    def _fail(self, utterance: _Utterance, code: str, detail: str) -> None:
        """Reported when the utterance is finalised, in its turn; never silence."""
        if utterance.outcome is None and self._on_event is not None:
            utterance.outcome = SttFailed(ProviderError(self._stt.name, code, detail, retryable=True))
            utterance.waiting.clear()
            asyncio.get_running_loop().call_soon(self._report)

    def _report(self) -> None:
        while self._on_event is not None and self._finishing and self._finishing[0].outcome is not None:
            utterance = self._finishing.popleft()
            if utterance.timer is not None:
                utterance.timer.cancel()
            assert utterance.outcome is not None
            self._on_event(utterance.outcome)


def _heard(recognizer: Any, stream: Any, audio: bytes, format: Format, last: bool) -> str:
    """In a thread: the words so far. The library resamples to the model's rate."""
    stream.accept_waveform(format.rate_hz, sherpa.samples(audio, format))
    if last:
        stream.accept_waveform(format.rate_hz, np.zeros(int(TAIL_S * format.rate_hz), np.float32))
        stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    text = " ".join(str(recognizer.get_result(stream)).split())
    return text.lower() if text.isupper() else text  # many models know capitals only
