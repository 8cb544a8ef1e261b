"""What every realtime model must do (ports.Realtime)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from trunkline.ports import (
    Message,
    ModelLost,
    ModelOpened,
    ModelRefused,
    ModelTook,
    ModelTranscribed,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
    ReplyAudio,
    ReplyEnded,
    ReplyStarted,
    ReplyText,
    ToolCall,
)
from trunkline.testing.conformance.stage import CALL, Conformance, Situation, Stage, needs
from trunkline.types import MULAW_8K, Format

E = TypeVar("E")
CHUNK_MS = 20
SAID: Sequence[Message] = (
    Message("agent", "Hello."),
    Message("caller", "When do you open?"),
    Message("agent", "Let me look.", tool_calls=(ToolCall("call_1", "lookup", {"day": "Monday"}),)),
    Message("tool", '{"ok": true}', tool_call_id="call_1"),
    Message("agent", "We open at", cut=True),
    Message("caller", "42", keyed=True),
)
"""A conversation with all there is in one."""


class Line:
    """One session, and all it told."""

    def __init__(self, model: Realtime, format: Format, speech: bytes, conversation: Sequence[Message] = ()) -> None:
        self.format, self.speech = format, speech
        self.events: list[RealtimeEvent] = []
        self._arrived = asyncio.Event()
        self.session: RealtimeSession = model.open(CALL, format, conversation, self._take)

    def _take(self, event: RealtimeEvent) -> None:
        self.events.append(event)
        self._arrived.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[E], count: int = 1) -> E:
        """The event of that kind, of so many, that came last."""
        while len(self.of(kind)) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return self.of(kind)[count - 1]

    async def say(self, utterance: str) -> None:
        """As a call does, only faster."""
        size = CHUNK_MS * self.format.bytes_per_ms
        for start in range(0, len(self.speech), size):
            self.session.hear(self.speech[start : start + size])
            await asyncio.sleep(0)
        self.session.commit(utterance)


class RealtimeConformance(Conformance[Realtime]):
    """Where the stage's far end `answers`, it transcribes each utterance as `words`, and answers in words and at least
    half a second of audio, as often as it is asked. Turns are ours."""

    format: Format = MULAW_8K
    words: str = "caller phrase"
    quiet_s: float = 0.2
    """How long nothing must follow where nothing may."""

    def speech(self) -> bytes:
        """One utterance in `format`, found again in a log."""
        tone = bytes(range(0x20, 0x70)) + bytes(range(0xA0, 0xF0))
        return (tone * 10 * self.format.bytes_per_ms)[: 1200 * self.format.bytes_per_ms]

    @needs("answers")
    def test_an_utterance_is_taken_transcribed_and_answered_with_usage_once(self) -> None:
        async def case(line: Line, model: Realtime) -> None:
            for count, name in enumerate(("one", "two"), 1):
                await line.say(name)
                took = await self._comes("answers", line, ModelTook, count)
                assert took.utterance == name
                line.session.respond(f"tag-{name}")
                await self._comes("answers", line, ReplyEnded, count)
                self._check_reply(line, f"tag-{name}")
                if model.transcribes:
                    transcribed = await self._comes("answers", line, ModelTranscribed, count)
                    assert transcribed == ModelTranscribed(took.item, self.words)
            assert len({reply.reply for reply in line.of(ReplyStarted)}) == 2
            assert line.of(ModelOpened) == [line.events[0]], "it opens once, before all else"
            await asyncio.sleep(self.quiet_s)
            assert len(line.of(ReplyEnded)) == 2, "a reply ended twice, or one that nobody asked for"

        self._talk("answers", case)

    @needs("answers")
    def test_a_line_is_spoken_and_a_conversation_is_taken_over(self) -> None:
        async def case(line: Line, model: Realtime) -> None:
            for message in SAID:
                line.session.tell(message)
            line.session.tell(Message("caller", ""), line.speech)
            line.session.respond("1", say='Say "this", please.')
            await self._comes("answers", line, ReplyEnded)
            self._check_reply(line, "1")
            assert line.of(ModelRefused) == []

        self._talk("answers", case, SAID)

    @needs("answers")
    def test_what_is_cleared_or_too_short_to_be_taken_leaves_the_session_open(self) -> None:
        async def case(line: Line, model: Realtime) -> None:
            line.session.hear(line.speech[:160])
            line.session.clear()
            line.session.clear()
            line.session.commit("nothing")
            line.session.cancel("")
            line.session.forget("item-that-is-not-there")
            await line.say("real")
            line.session.respond("1")
            await self._comes("answers", line, ReplyEnded)
            self._check_reply(line, "1")
            assert line.of(ModelTook)[-1].utterance == "real"
            assert {refused.what for refused in line.of(ModelRefused)} <= {"nothing"}

        self._talk("answers", case)

    @needs("answers")
    def test_what_was_not_heard_can_be_taken_back(self) -> None:
        async def case(line: Line, model: Realtime) -> None:
            line.session.respond("1")
            await self._comes("answers", line, ReplyEnded)
            item = line.of(ReplyAudio)[0].item
            line.session.truncate(item, 200)
            line.session.truncate(item, 0)
            line.session.respond("2")
            await self._comes("answers", line, ReplyEnded, 2)
            assert line.of(ReplyEnded)[1].error is None

        self._talk("answers", case)

    @needs("stalls")
    def test_audio_comes_before_the_reply_is_complete_and_cancelling_ends_it(self) -> None:
        async def case(line: Line, model: Realtime) -> None:
            line.session.respond("1")
            audio = await self._comes("stalls", line, ReplyAudio)
            assert line.of(ReplyEnded) == []
            line.session.cancel(audio.reply)
            line.session.truncate(audio.item, 100)
            ended = await self._comes("stalls", line, ReplyEnded)
            assert ended.reply == audio.reply
            count = len(line.of(ReplyAudio))
            await asyncio.sleep(self.quiet_s)
            assert len(line.of(ReplyAudio)) == count, "it speaks on"
            assert len(line.of(ReplyEnded)) == 1

        self._talk("stalls", case)

    @needs("stalls")
    def test_closing_closes_the_connection_and_nothing_follows(self) -> None:
        async def case(model: Realtime, stage: Stage[Realtime]) -> None:
            line = await self._open("stalls", model)
            line.session.respond("1")
            await self._comes("stalls", line, ReplyAudio)
            line.session.close()
            seen = len(line.events)
            await self.sees_closed("stalls", stage)
            line.session.close()
            await line.say("late")
            line.session.clear()
            line.session.tell(Message("caller", "late"))
            line.session.respond("late")
            line.session.cancel("")
            line.session.truncate("item", 1)
            line.session.forget("item")
            await asyncio.sleep(self.quiet_s)
            assert len(line.events) == seen, f"after close: {line.events[seen:]}"

        self.play("stalls", case)

    @needs("silent")
    def test_closing_a_session_that_never_opened_closes_its_connection(self) -> None:
        async def case(model: Realtime, stage: Stage[Realtime]) -> None:
            line = Line(model, self.format, self.speech())
            await asyncio.sleep(self.deadline_s / 20)  # it is on its way
            line.session.close()
            await self.sees_closed("silent", stage)
            assert line.events == []

        self.play("silent", case)

    @needs("answers")
    def test_one_call_does_not_hear_another_and_the_provider_closes_all(self) -> None:
        async def case(model: Realtime, stage: Stage[Realtime]) -> None:
            one, other = await self._open("answers", model), await self._open("answers", model)
            one.session.respond("of-one")
            await self._comes("answers", one, ReplyEnded)
            assert other.events == [ModelOpened()]
            await model.close()
            seen = len(one.events)
            await asyncio.sleep(self.quiet_s)
            assert one.events[seen:] == []

        self.play("answers", case)

    # a reply that stalls is the call's to give up: the session lives
    test_a_far_end_that_stalls_is_given_up_after_what_it_said = None  # type: ignore[assignment]

    def fails(self, situation: Situation) -> None:
        """Whenever it happens, ModelLost is the last that is told."""

        async def case(model: Realtime, stage: Stage[Realtime]) -> None:
            line = Line(model, self.format, self.speech())
            self.audio.append(line.speech[:CHUNK_MS])
            if situation in ("breaks", "garbage"):
                await self._comes(situation, line, ModelOpened)
                await line.say("one")
                line.session.respond("1")
            lost = await self._comes(situation, line, ModelLost)
            self.check_failure(situation, lost.error, model)
            if situation == "breaks":
                assert line.of(ReplyAudio), "what was said before is lost"
            assert all(ended.usage is None for ended in line.of(ReplyEnded)), "usage of what never ended"
            await asyncio.sleep(self.quiet_s)
            assert line.events[-1] is lost, "something follows the end"
            line.session.close()

        self.play(situation, case)

    def _talk(
        self,
        situation: Situation,
        case: Callable[[Line, Realtime], Awaitable[None]],
        conversation: Sequence[Message] = (),
    ) -> None:
        async def talked(model: Realtime, stage: Stage[Realtime]) -> None:
            line = await self._open(situation, model, conversation)
            await case(line, model)
            assert line.of(ModelLost) == []
            line.session.close()

        self.play(situation, talked)

    async def _open(self, situation: Situation, model: Realtime, conversation: Sequence[Message] = ()) -> Line:
        line = Line(model, self.format, self.speech(), conversation)
        self.audio.append(line.speech[:CHUNK_MS])
        await self._comes(situation, line, ModelOpened)
        return line

    async def _comes(self, situation: Situation, line: Line, kind: type[E], count: int = 1) -> E:
        what = f"no {count} {kind.__name__} (but {[type(event).__name__ for event in line.events]})"
        event: E = await self.in_time(situation, line.until(kind, count), what)
        return event

    def _check_reply(self, line: Line, tag: str) -> None:
        """The last one."""
        started = line.of(ReplyStarted)[-1]
        assert started.tag == tag, f"{started}"
        of_it: list[Any] = [event for event in line.events if getattr(event, "reply", None) == started.reply]
        assert of_it[0] is started, "it says something before it starts"
        ended = of_it[-1]
        assert isinstance(ended, ReplyEnded), f"{ended} after its end"
        assert ended.error is None
        audio = [event for event in of_it if isinstance(event, ReplyAudio)]
        self.audio += [event.data for event in audio]
        assert sum(len(event.data) for event in audio) >= 500 * self.format.bytes_per_ms, "hardly any audio"
        assert all(event.data for event in audio), "empty audio"
        assert all(event.item for event in audio), "audio of no item"
        texts = [event for event in of_it if isinstance(event, ReplyText)]
        assert "".join(event.text for event in texts).strip(), "no words"
        assert ended.usage is not None, "usage is not reported"
        quantities = (ended.usage.text_in, ended.usage.text_out, ended.usage.audio_in, ended.usage.audio_out)
        assert any(quantity for quantity in quantities), f"{ended.usage}"
