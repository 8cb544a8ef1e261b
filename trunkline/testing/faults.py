"""Faults before an agent's providers: `trunkline drill` wraps each port and has one fail as it wishes, real or fake.

The wrappers also keep what the voices have spoken: so what a caller has heard can be told from the sound.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trunkline.agents.providers import Kind
from trunkline.errors import ProviderError
from trunkline.ports import (
    CallFacts,
    LlmEvent,
    Message,
    ModelLost,
    RealtimeEvent,
    ReplyAudio,
    ReplyItemEnded,
    ReplyText,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    TtsAudio,
    Word,
)
from trunkline.types import Format

Fault = Literal["refused", "stalled_first", "broken_middle", "stalled_middle", "garbage"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

MIDDLE_WORDS = 13  # of a model: behind its first sentence, in the middle of the next
MIDDLE_MS = 700  # of a voice's audio
MIDDLE_FED_MS = 600  # of what a recogniser hears
HEARD_OUT_S = 5.0


@dataclass(slots=True)
class Utterance:
    """What a voice was asked to say, and the sound it gave."""

    voice: str
    text: str
    format: Format
    word_times: bool
    audio: bytearray = field(default_factory=bytearray)
    words: list[Word] = field(default_factory=list)
    whole: bool = False


@dataclass(slots=True)
class Faults:
    """Shared by the wrappers of a gateway. `armed`: who fails, by key, and how."""

    armed: dict[str, Fault] = field(default_factory=dict)
    spoken: list[Utterance] = field(default_factory=list)

    def wrap(self, kind: Kind | Literal["realtime"], key: str, provider: Any) -> Any:
        made: dict[str, Callable[[Faults, str, Any], Any]] = {
            "stt": FaultyStt,
            "llm": FaultyLlm,
            "tts": FaultyTts,
            "realtime": FaultyRealtime,
        }
        return made[kind](self, key, provider)


class _Wrapped:
    def __init__(self, faults: Faults, key: str, inner: Any) -> None:
        self.faults, self.key, self.inner = faults, key, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def fault(self) -> Fault | None:
        return self.faults.armed.get(self.key)

    def error(self, code: str = "unavailable", *, retryable: bool = True) -> ProviderError:
        return ProviderError(self.inner.name, code, "a drill", retryable=retryable)

    async def before(self) -> None:
        """Raises, or never returns, where the fault comes before the first of anything."""
        match self.fault:
            case "refused":
                raise self.error()
            case "garbage":
                raise self.error("protocol", retryable=False)
            case "stalled_first":
                await asyncio.Event().wait()

    async def middle(self) -> None:
        match self.fault:
            case "broken_middle":
                raise self.error("protocol")
            case "stalled_middle":
                await asyncio.Event().wait()


class FaultyLlm(_Wrapped):
    def open(self, call: CallFacts) -> "FaultyLlmSession":
        return FaultyLlmSession(self, self.inner.open(call))


class FaultyLlmSession:
    def __init__(self, llm: FaultyLlm, inner: Any) -> None:
        self._llm, self._inner = llm, inner

    async def reply(
        self, conversation: Sequence[Message], *, understood: bool = True
    ) -> AsyncGenerator[LlmEvent, None]:
        """Broken in the middle: behind so many words, or before the end of an answer that is shorter."""
        await self._llm.before()
        words = 0
        async with aclosing(self._inner.reply(conversation, understood=understood)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    words += len(event.text.split())
                    if words > MIDDLE_WORDS:
                        await self._llm.middle()
                elif self._llm.fault is not None:
                    continue  # an answer that breaks off has no tools and no usage
                yield event
        await self._llm.middle()

    def close(self) -> None:
        self._inner.close()


class FaultyTts(_Wrapped):
    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        await self.before()
        spoken = Utterance(self.inner.name, text, format, bool(self.inner.word_times))
        self.faults.spoken.append(spoken)
        async with aclosing(self.inner.speak(text, format)) as chunks:
            async for chunk in chunks:
                if len(spoken.audio) >= MIDDLE_MS * format.bytes_per_ms:
                    await self.middle()
                spoken.audio += chunk.data
                spoken.words += chunk.words
                yield chunk
        await self.middle()
        spoken.whole = True


class FaultyStt(_Wrapped):
    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "FaultySttStream":
        return FaultySttStream(self, call, format, on_event)


class FaultySttStream:
    def __init__(self, stt: FaultyStt, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> None:
        self._stt, self._on_event = stt, on_event
        self._enough_bytes = MIDDLE_FED_MS * format.bytes_per_ms
        self._fed_bytes = 0
        self._failed = False
        self._inner = stt.inner.open(call, format, self._event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def feed(self, audio: bytes) -> None:
        self._fed_bytes += len(audio)
        fault = self._stt.fault
        if fault == "refused" or (fault == "broken_middle" and self._fed_bytes >= self._enough_bytes):
            self._fail(self._stt.error())
        elif fault != "stalled_first":
            self._inner.feed(audio)

    def finalize(self) -> None:
        self._fed_bytes = 0
        if self._stt.fault in ("refused", "broken_middle"):
            self._fail(self._stt.error())
        elif self._stt.fault not in ("stalled_first", "stalled_middle"):
            self._inner.finalize()

    def _event(self, event: SttEvent) -> None:
        fault = self._stt.fault
        if fault == "garbage" and isinstance(event, SttPartial | SttFinal):
            self._fail(self._stt.error("protocol", retryable=False))
        elif fault is None or (fault in ("stalled_middle", "broken_middle") and isinstance(event, SttPartial)):
            self._on_event(event)

    def _fail(self, error: ProviderError) -> None:
        if not self._failed:
            self._failed = True
            self._on_event(SttFailed(error))


class FaultyRealtime(_Wrapped):
    """What comes before an answer fails in every session; in the middle of an answer one session breaks or stalls, and
    the next is whole, as when a connection is lost."""

    struck = False

    def open(
        self,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> "FaultyRealtimeSession":
        if self.fault is None:
            self.struck = False
        elif self.fault == "refused":
            raise self.error()
        return FaultyRealtimeSession(self, call, format, conversation, on_event)


class FaultyRealtimeSession:
    def __init__(
        self,
        model: FaultyRealtime,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> None:
        self._model, self._format, self._on_event = model, format, on_event
        self._lost = self._mute = False
        self._items: dict[str, Utterance] = {}
        self._inner = model.inner.open(call, format, conversation, self._event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, utterance: str) -> None:
        if self._model.fault == "refused":
            self._lose(self._model.error())
        else:
            self._inner.commit(utterance)

    def respond(self, tag: str, say: str | None = None) -> None:
        if self._model.fault == "refused":
            self._lose(self._model.error())
        else:
            self._inner.respond(tag, say)

    def close(self) -> None:
        """One that was broken into is heard out first: what it would have said is what was lost."""
        self._lost = True
        if self._mute:
            asyncio.get_running_loop().call_later(HEARD_OUT_S, self._inner.close)
        else:
            self._inner.close()

    def _event(self, event: RealtimeEvent) -> None:
        self._note(event)
        fault, of_a_reply = self._model.fault, hasattr(event, "reply")
        if self._lost or (self._mute and of_a_reply):
            return
        if of_a_reply and fault == "stalled_first":
            return
        if of_a_reply and fault == "garbage":
            self._lose(self._model.error("protocol"))
        elif fault in ("broken_middle", "stalled_middle") and not self._model.struck and self._in_the_middle(event):
            self._model.struck = self._mute = True
            if fault == "broken_middle":
                self._lose(self._model.error("protocol"))
        else:
            self._on_event(event)

    def _in_the_middle(self, event: RealtimeEvent) -> bool:
        enough = MIDDLE_MS * self._format.bytes_per_ms
        return isinstance(event, ReplyAudio) and len(self._items[event.item].audio) > enough

    def _note(self, event: RealtimeEvent) -> None:
        if not isinstance(event, ReplyAudio | ReplyText | ReplyItemEnded) or self._unheard:
            return
        spoken = self._items.get(event.item)
        if spoken is None:
            spoken = self._items[event.item] = Utterance(self._model.inner.name, "", self._format, word_times=False)
            self._model.faults.spoken.append(spoken)
        if isinstance(event, ReplyAudio):
            spoken.audio += event.data
        elif isinstance(event, ReplyText):
            spoken.text = event.text if event.whole else spoken.text + event.text
            spoken.whole = spoken.whole or event.whole
        else:
            spoken.whole = True

    @property
    def _unheard(self) -> bool:
        """Its words do not even reach the call."""
        return self._model.fault in ("refused", "stalled_first", "garbage")

    def _lose(self, error: ProviderError) -> None:
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self._on_event, ModelLost(error))
