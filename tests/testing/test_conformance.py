"""The conformance suites pass a good provider and fail a bad one, each flaw by a case of its own."""

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from trunkline.errors import ProviderError
from trunkline.ports import (
    CallFacts,
    Expectation,
    LlmEvent,
    LlmUsage,
    Message,
    SttEvent,
    SttFailed,
    SttFinal,
    SttPartial,
    TextDelta,
    TtsAudio,
    Word,
)
from trunkline.testing.conformance import LlmConformance, Situation, Stage, SttConformance, TtsConformance
from trunkline.types import Format

KEY = "key-4711"
LOG = logging.getLogger("tests.model")
ERRORS: dict[Situation, tuple[str, str, bool]] = {
    "silent": ("timeout", "", True),
    "stalls": ("timeout", "", True),
    "breaks": ("protocol", "", True),
    "garbage": ("protocol", "", False),
    "unauthorized": ("auth", "status 401", False),
    "rate_limited": ("rate_limited", "retry after 7 s", True),
    "fails": ("unavailable", "", True),
    "absent": ("unavailable", "", True),
}
BEGUN = ("stalls", "breaks", "garbage")
SITUATIONS: frozenset[Situation] = frozenset((*ERRORS, "answers"))


class Model:
    """A provider of all three kinds, in one of the situations, with one of the flaws."""

    name = "model"
    third_party = True
    word_times = True
    feed_mode: Literal["all", "gated"] = "gated"
    formats: tuple[Format, ...] = ()

    def __init__(self, situation: Situation, flaw: str) -> None:
        self.situation, self.flaw = situation, flaw
        self.left = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None: ...

    async def close(self) -> None:
        if self.flaw != "leaves a task":
            for task in self.tasks:
                task.cancel()

    def error(self) -> Exception:
        code, detail, retryable = ERRORS[self.situation]
        match self.flaw:
            case "own error":
                return RuntimeError("connection refused")
            case "wrong code":
                code = "bad_request"
            case "wrong retry":
                retryable = not retryable
            case "no patience told":
                detail = ""
            case "key in error":
                detail += KEY
        return ProviderError(self.name, code, detail, retryable=retryable)

    async def fault(self) -> None:
        """What becomes of a request after its beginning, if anything."""
        if self.situation == "answers":
            return
        if self.situation in ("silent", "stalls"):
            if self.flaw == "no deadline":
                await asyncio.sleep(60)
            try:
                await asyncio.sleep(0.1)
            except (GeneratorExit, asyncio.CancelledError):
                if self.flaw == "swallows cancel":
                    return
                raise
        raise self.error()

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[None, None]:
        if self.flaw == "key in log":
            LOG.debug("> Authorization: Token %s", KEY)
        if self.flaw == "leaves a task" and not self.tasks:
            self.tasks.add(asyncio.get_running_loop().create_task(asyncio.sleep(60)))
        if self.flaw == "untaken":
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        try:
            if self.situation not in BEGUN:
                await self.fault()
            yield
        finally:
            if self.flaw != "request stays open":
                self.left.set()


class ModelLlm(Model):
    def open(self, call: CallFacts) -> "ModelLlm.Session":
        return ModelLlm.Session(self)

    class Session:
        def __init__(self, model: "ModelLlm") -> None:
            self.model = model

        async def reply(
            self, conversation: Sequence[Message], *, understood: bool = True
        ) -> AsyncGenerator[LlmEvent, None]:
            flaw = self.model.flaw
            async with self.model.request():
                if flaw == "all at once":
                    await self.model.fault()
                yield TextDelta("" if flaw == "empty text" else "We open")
                try:
                    await self.model.fault()
                except ProviderError:
                    if flaw == "errors are ends":
                        return
                    raise
                yield TextDelta(" at nine.")
                for _ in range({"no usage": 0, "usage twice": 2}.get(flaw, 1)):
                    yield LlmUsage(3, 4)

        def close(self) -> None: ...


class ModelTts(Model):
    async def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        words = text.split()
        if not words:
            return
        async with self.request():
            if self.flaw == "all at once":
                await self.fault()
            for at, word in enumerate(words):
                data = bytes(range(0x20, 0xC0)) * 10
                if self.flaw == "audio in log":
                    LOG.debug("< %s", base64.b64encode(data).decode())
                early = 500 if self.flaw == "words before their audio" else 0
                lost = self.flaw == "a word lost" and at == 2
                timed = Word(word, at * 200, (at + 1) * 200 + early)
                yield TtsAudio(data if self.flaw != "too short" else data[:100], () if lost else (timed,))
                if at == 0:
                    try:
                        await self.fault()
                    except ProviderError:
                        if self.flaw == "errors are ends":
                            return
                        raise


class ModelStt(Model):
    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "ModelStt.Stream":
        return ModelStt.Stream(self, on_event)

    class Stream:
        def __init__(self, model: "ModelStt", on_event: Callable[[SttEvent], None]) -> None:
            self.model, self.on_event, self.closed = model, on_event, False
            self.fed = 0

        def feed(self, audio: bytes) -> None:
            self.fed += len(audio)
            if not self.closed and self.model.situation == "answers":
                self.on_event(SttPartial("caller"))

        def began(self, ago_ms: int) -> None: ...

        def expect(self, expectation: Expectation) -> None: ...

        def finalize(self) -> None:
            if self.closed and self.model.flaw != "speaks after close":
                return
            fed, self.fed = self.fed, 0
            task = asyncio.get_running_loop().create_task(self.hear(fed))
            self.model.tasks.add(task)
            task.add_done_callback(self.model.tasks.discard)

        async def hear(self, fed: int) -> None:
            flaw = self.model.flaw
            event: SttEvent = SttFinal("caller phrase" if fed else "")
            try:
                async with self.model.request():
                    await self.model.fault()
            except Exception as error:
                event = SttFailed(error)
            if flaw == "fails once" and isinstance(event, SttFailed):
                self.model.flaw = "no answer"
            if flaw == "no answer" or (self.closed and flaw != "speaks after close"):
                return
            if flaw == "wrong words" and isinstance(event, SttFinal):
                event = SttFinal("caller")
            for _ in range(2 if flaw == "final twice" else 1):
                self.on_event(event)
            if flaw == "late partial":
                self.on_event(SttPartial("caller phrase"))

        def cancel(self) -> None:
            if self.model.flaw == "cancel finalizes":
                self.finalize()
            if self.model.flaw != "cancel keeps":
                self.fed = 0

        def close(self) -> None:
            self.closed = True
            if self.model.flaw != "request stays open":
                self.model.left.set()


def suite(kind: str, flaw: str) -> Any:
    common: dict[str, Any] = {"situations": SITUATIONS, "secrets": (KEY,), "deadline_s": 0.4}

    def staged(model: type[Model]) -> Any:
        @asynccontextmanager
        async def stage(_: Any, situation: Situation) -> AsyncGenerator[Stage[Any], None]:
            provider = model(situation, flaw)
            yield Stage(provider, provider.left.wait)

        return stage

    match kind:
        case "llm":
            return type("Suite", (LlmConformance,), {**common, "stage": staged(ModelLlm)})()
        case "tts":
            return type("Suite", (TtsConformance,), {**common, "stage": staged(ModelTts)})()
        case _:
            return type("Suite", (SttConformance,), {**common, "quiet_s": 0.02, "stage": staged(ModelStt)})()


def cases(of: Any) -> list[str]:
    return [name for name in dir(of) if name.startswith("test_") and getattr(of, name) is not None]


def failing(kind: str, flaw: str) -> str:
    """The first case that fails."""
    tried = suite(kind, flaw)
    for name in cases(tried):
        try:
            getattr(tried, name)()
        except Exception:
            return name
    return ""


@pytest.mark.parametrize("kind", ["llm", "stt", "tts"])
def test_a_good_provider_passes(kind: str) -> None:
    assert len(cases(suite(kind, ""))) >= 12
    assert failing(kind, "") == ""


EVERYWHERE = ("own error", "wrong code", "wrong retry", "no patience told", "key in error", "key in log")
FLAWS = [
    *((kind, flaw) for kind in ("llm", "stt", "tts") for flaw in EVERYWHERE),
    *((kind, flaw) for kind in ("llm", "stt", "tts") for flaw in ("no deadline", "request stays open", "untaken")),
    *((kind, flaw) for kind in ("llm", "tts") for flaw in ("leaves a task", "all at once", "errors are ends")),
    *((kind, "swallows cancel") for kind in ("llm", "tts")),
    ("llm", "empty text"),
    ("llm", "no usage"),
    ("llm", "usage twice"),
    ("tts", "audio in log"),
    ("tts", "words before their audio"),
    ("tts", "a word lost"),
    ("tts", "too short"),
    ("stt", "final twice"),
    ("stt", "no answer"),
    ("stt", "fails once"),
    ("stt", "wrong words"),
    ("stt", "late partial"),
    ("stt", "cancel finalizes"),
    ("stt", "speaks after close"),
]


@pytest.mark.parametrize(("kind", "flaw"), FLAWS)
def test_a_flaw_is_found(kind: str, flaw: str) -> None:
    assert failing(kind, flaw)


def test_a_situation_that_is_not_offered_has_no_case() -> None:
    class Few(LlmConformance):
        situations = frozenset({"answers", "fails"})

    assert "test_a_server_error_may_be_tried_again" in cases(Few)
    assert "test_a_wrong_key_is_not_tried_again" not in cases(Few)
