"""What one call owes its caller before the agent may have it, and whether anything of it may be kept: the edge of
`compliance/opening.py` (the lines) and `compliance/consent_state.py` (the doors).

    answered ─► announcer: the lines, the question ─► yes / no / silence ─► the agent, or the agent with nobody but
    this machine (`Agent.alone`)

`shut` is asked at every door before the decision is. Whatever opens or shuts one is in the record, and in the ledger
before the door moves.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from trunkline.agents import languages
from trunkline.agents.assent import Answer, Ears
from trunkline.agents.definition import AgentDefinition
from trunkline.agents.houselines import HouseVoice, own_voice, voices
from trunkline.agents.providers import Minds, Services
from trunkline.clock import Clock
from trunkline.compliance import consent_state as s
from trunkline.compliance.opening import Line, Opening, Wording
from trunkline.gateway.announcer import Announcer, Span
from trunkline.gateway.notice import Notice
from trunkline.media.bus import Bus
from trunkline.media.voicemail import After
from trunkline.ports import (
    Allow,
    CapturedBy,
    Consents,
    Decision,
    Door,
    EndReason,
    Evidence,
    Grant,
    Message,
    Obligation,
    Refuse,
    Revocation,
    Technology,
    Wish,
)
from trunkline.types import MULAW_8K, CallId, Direction, TenantId

NOT_AGREED = Refuse("no_consent", "the caller has not agreed to it")
TECHNOLOGIES: Mapping[Door, Technology] = {
    "record": "recording",
    "transcript": "transcript",
    "third_party": "ai_processing",
}
GREETING_S = 45.0
"""For a machine's greeting, where nothing is heard of its end: media/voicemail.py listens for 40 s."""
AGAIN_S = 0.25  # until the question's time is looked at again, while the caller speaks


@dataclass(frozen=True, slots=True)
class House:
    """What the process has for all calls' openings. None of it where the rules are not in force."""

    wording: Wording
    voices: dict[str, HouseVoice]
    """By primary language."""
    ears: Ears
    consents: Consents
    answer_s: float = 7.0
    kept: tuple[Door, ...] = ()
    """What of a call may be."""
    services: Services | None = None
    """For voices in further languages."""
    closes: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def welcome(self, definition: AgentDefinition) -> None:
        """An agent that comes later is introduced in its languages, too: in those that there are lines in. Raises
        ProviderError, MissingExtra."""
        for tag in definition.tags:
            language = languages.primary(tag)
            if language in self.voices or language not in self.wording.lines.texts or self.services is None:
                continue
            voice = own_voice(definition, tag, self.services)
            await self.ears.learn(language)
            self.closes.push_async_callback(voice.close)
            await voice.start(self.wording.everything(self.kept, language))
            self.voices[language] = voice

    def language_of(self, tag: str) -> str:
        """What of our languages a caller is spoken to in."""
        language = languages.primary(tag)
        return language if language in self.voices else "en" if "en" in self.voices else next(iter(self.voices))


@asynccontextmanager
async def open_house(
    wording: Wording,
    agents: Sequence[tuple[AgentDefinition, Minds]],
    services: Services,
    consents: Consents,
    kept: tuple[Door, ...],
    answer_s: float,
) -> Any:
    """Voices and ears started, every line spoken once. Raises ProviderError, ConfigError, MissingExtra."""
    assert services.speech_pool is not None
    spoken = dict(voices(agents, services, wording.lines.texts))
    async with AsyncExitStack() as stack:
        ears = Ears(services.speech_pool, spoken)
        stack.push_async_callback(ears.close)
        await ears.start()
        for language, voice in spoken.items():
            stack.push_async_callback(voice.close)
            await voice.start(wording.everything(kept, language))
        yield House(wording, spoken, ears, consents, answer_s, kept, services, stack)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a call that comes back had settled."""

    doors: Mapping[Door, s.State] = field(default_factory=dict)
    opened: bool = False
    """Its lines were heard."""


class Host(Protocol):
    """The call."""

    id: CallId

    def event(self, kind: str, **data: Any) -> None: ...

    def crashed(self, error: BaseException) -> None: ...

    def opened(self) -> None:
        """Doors are open from now on."""
        ...

    def shut_now(self) -> None:
        """Nothing goes through any of them any more. Whoever attends must not hear another word."""
        ...

    def machine_listens(self) -> None:
        """Whoever attends leaves: the announcer has the line, from the beginning."""
        ...

    def agent_goes_on(self, greeting: str | None) -> None:
        """The announcer has done: whoever may attend does. `greeting`: None for what they would begin with."""
        ...

    def hang_up(self, reason: EndReason) -> None: ...


@dataclass(frozen=True, slots=True)
class Party:
    """Whose consent it is."""

    tenant: TenantId
    direction: Direction
    number: str | None
    language: str


class CallConsent:
    """One call's."""

    def __init__(self, host: Host, house: House | None, clock: Clock, carried: Carried | None = None) -> None:
        self._host, self._house, self._clock = host, house, clock
        self._state = s.ConsentState(carried.doors if carried is not None else None)
        self._opened = carried is not None and carried.opened
        self._owed: tuple[Obligation, ...] = ()
        self._opening: Opening | None = None
        self._basis = ""
        self._question = ""
        self._who: Callable[[], Party] | None = None
        self._announcer: Announcer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._machine = False  # has answered
        self._greeting_over: After | None = None  # the machine's
        self._keyed = False  # somebody is there
        self._after: Callable[[], None] | None = None  # once what is being said was heard
        self._greeting: str | None = None
        self._over = False

    # --- doors ---

    def owes(self, obligations: Sequence[Obligation]) -> None:
        """What the decision at the front door said."""
        if not self._owed:
            self._owed = tuple(obligations)
        for each in obligations:
            if each.kind == "ask_consent":
                self._state.handle(s.Owed(each.doors))
                self._basis = self._basis or each.basis

    def shut(self, door: Door) -> Refuse | None:
        """Where nobody need agree, nothing is recorded before the caller has heard that it is."""
        untold = door == "record" and self._house is not None and bool(self._owed) and not self._opened
        return NOT_AGREED if untold or not self._state.is_open(door) else None

    @property
    def tells_how_to_opt_out(self) -> bool:
        return self._house is not None and any(each.kind == "say_opt_out" for each in self._owed)

    def checked(self, door: Door, decision: Decision) -> Decision:
        """A decision that asks for an agreement nobody has given is none."""
        if not isinstance(decision, Allow) or door not in s.KEPT:
            return decision
        self.owes([each for each in decision.obligations if each.kind == "ask_consent"])
        asked = any(each.kind == "ask_consent" and door in each.doors for each in decision.obligations)
        return NOT_AGREED if asked and self._state.state(door) != "granted" else decision

    def notice(self, language: str) -> Notice | None:
        """For who comes into the call. None: the rules ask for none, or nothing of it is kept."""
        house = self._house
        owed = next((each for each in self._owed if each.kind in ("say_recording", "ask_consent")), None)
        if house is None or owed is None or all(self.shut(door) is not None for door in house.kept):
            return None
        language = house.language_of(language)
        text = house.wording.notice(house.kept, language)
        spoken = house.voices[language].kept(text, MULAW_8K)
        assert spoken is not None, "it was spoken as the house was opened"
        return Notice(text, owed.basis, b"".join(chunk.data for chunk in spoken))

    @property
    def carried(self) -> Carried:
        return Carried(self._state.settled, self._opened)

    # --- the opening ---

    @property
    def due(self) -> bool:
        """The line is not the agent's yet."""
        if self._house is None:
            return False
        lines = bool(self._owed) and not self._opened
        return lines or bool(self._state.unsettled)

    @property
    def announcing(self) -> bool:
        return self._announcer is not None

    def announcer(
        self,
        bus: Bus,
        agent: AgentDefinition,
        who: Callable[[], Party],
        greeting: str | None,
        conversation: Sequence[Message],
        with_others: Callable[[], bool],
    ) -> Announcer:
        """Who has the line until `agent_goes_on`."""
        house = self._house
        assert house is not None
        self._who, self._greeting = who, greeting
        party = who()
        language = house.language_of(party.language)
        self._announcer = Announcer(
            self,
            bus,
            house.voices[language],
            house.ears,
            language,
            self._clock,
            self._host.crashed,
            agent.in_language(party.language).goodbye,
            conversation,
            with_others=with_others,
        )
        return self._announcer

    def begun(self) -> None:
        if self._after is not None:  # a line of ours, and then the agent
            return
        house, announcer = self._house, self._announcer
        assert house is not None
        assert announcer is not None
        assert self._who is not None
        party = self._who()
        unsettled = self._state.unsettled
        language = house.language_of(party.language)
        if self._machine:
            self._begin_for_machine(house.wording.opening(self._owed, party.direction, language, machine=True))
            return
        opening = house.wording.opening(self._owed, party.direction, language)
        if unsettled and opening.question is None:  # owed since: by the door itself
            asked = (Obligation("ask_consent", unsettled, self._basis),)
            opening = house.wording.opening((*self._owed, *asked), party.direction, language)
        self._opening = opening
        lines = [] if self._opened else list(opening.lines)
        if unsettled and opening.question is not None:
            lines.append(opening.question)
            self._put(opening.question)
        self._say(lines, self._lines_heard)

    def _put(self, question: Line) -> None:
        self._question = question.text
        self._perform(self._state.handle(s.Put()))

    def _lines_heard(self) -> None:
        self._have_opened()
        if self._state.unsettled:
            self._perform(self._state.handle(s.Heard()))
        else:
            self._go_on()

    def _have_opened(self) -> None:
        if not self._opened:
            self._opened = True
            self._host.opened()

    def leave_off(self) -> None:
        """The call is about to end: no answer counts any more, and none is waited for."""
        self._over = True
        self._stop_timer()

    def _say(self, lines: Sequence[Line], after: Callable[[], None]) -> None:
        assert self._announcer is not None
        self._after = after
        self._announcer.say(lines)

    # --- Director, of the announcer ---

    def spoken(self) -> None:
        after, self._after = self._after, None
        if after is not None:
            after()

    def answered(self, answer: Answer | None, via: CapturedBy) -> None:
        if self._over:
            return
        if answer == "yes" and via == "keypad" and not (self._announcer is not None and self._announcer.at_question):
            return  # nobody has asked them yet
        self._keyed = self._keyed or (via == "keypad" and answer is not None)
        events: dict[Answer | None, s.Event] = {"yes": s.Yes(via), "no": s.No(via), None: s.Unclear()}
        self._perform(self._state.handle(events[answer]))

    def said(self, spans: Sequence[Span]) -> None:
        """The announcer has left, or was made to."""
        self._stop_timer()
        self._announcer = self._after = None
        self._perform(self._state.handle(s.Broken()))
        assert self._house is not None
        lines = [
            {
                "line": span.line.kind,
                "text": span.line.text,
                "basis": span.line.basis,
                "length_ms": span.until_ms - span.from_ms,
                "heard_ms": span.heard_ms,
                "whole": span.whole,
                "at_ms": span.from_ms,
            }
            for span in spans
            if span.line.basis
        ]
        if lines:
            self._host.event("disclosed", version=self._house.wording.lines.version, lines=lines)

    def goodbye(self) -> None:
        self._host.hang_up("agent_hung_up")

    # --- effects ---

    def _perform(self, effects: Sequence[s.Effect]) -> None:
        for effect in effects:
            match effect:
                case s.Await():
                    self._await()
                case s.Ask():
                    assert self._opening is not None
                    assert self._opening.question is not None
                    self._stop_timer()
                    self._put(self._opening.question)
                    self._say([self._opening.question], self._lines_heard)
                case s.Open(doors, via):
                    self._grant(doors, via)
                    self._settled("granted", doors, via)
                    self._host.opened()
                    self._then("granted")
                case s.ServeWithout(doors, via):
                    self._settled("refused", doors, via)
                    self._then("refused")
                case s.Shut(doors, _, via):
                    self._settled("withdrawn", doors, via)
                    self._host.shut_now()

    def _then(self, name: str) -> None:
        """A word to it, then the agent. The lines that came before are heard to their end first."""
        self._stop_timer()
        if self._announcer is None:
            return
        if self._machine:
            return  # what it hears is begun anew
        assert self._house is not None
        line = Line(name, self._house.wording.say(name, self._language), "")
        if self._opened or self._announcer.at_question:
            self._thank(line)
        else:
            self._after = lambda: self._thank(line)

    def _thank(self, *lines: Line) -> None:
        self._have_opened()
        self._say(lines, self._go_on)

    def _go_on(self) -> None:
        self._host.agent_goes_on(self._greeting)

    @property
    def _language(self) -> str:
        assert self._house is not None
        assert self._who is not None
        return self._house.language_of(self._who().language)

    def _settled(self, state: s.State, doors: Sequence[Door], via: s.By | None) -> None:
        self._host.event("consent", state=state, doors=list(doors), via=via or "silence", basis=self._basis)

    def _await(self) -> None:
        assert self._house is not None
        self._set_timer(self._house.answer_s, self._timed_out)

    def _set_timer(self, after_s: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        if self._over:
            return
        self._timer = asyncio.get_running_loop().call_later(after_s, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        if self._announcer is not None and self._announcer.waits:
            self._set_timer(AGAIN_S, self._timed_out)
        else:
            self._perform(self._state.handle(s.Silence()))

    # --- the ledger ---

    def _grant(self, doors: Sequence[Door], via: CapturedBy) -> None:
        assert self._house is not None
        assert self._who is not None
        who = self._who()
        self._house.consents.grant(
            Grant(
                who.tenant,
                _subject(who, self._host.id),
                "express_oral",
                self._clock.wall(),
                via,
                tuple(TECHNOLOGIES[door] for door in doors),
                self._question,
                self._house.wording.lines.version,
                seller=self._house.wording.business,
                call_id=self._host.id,
                evidence=(Evidence("call", f"call:{self._host.id}"),),
                jurisdiction=self._basis.rpartition("/")[2],
            )
        )

    # --- at any time later ---

    def withdraw(self, wish: Wish, who: Callable[[], Party], *, written: bool = False) -> bool:
        """Nothing is kept from now on. False: nothing was, or the rules are not in force. Idempotent. `written`: in the
        ledger, already."""
        if self._house is None:
            return False
        self._who = self._who or who
        effects = self._state.handle(s.Withdrawn(wish.via))
        self._perform(effects)  # shut before it is written: a ledger in trouble keeps no door open
        if not written:
            self._revoke(effects, who(), wish.via, wish.verbatim)
        return bool(effects)

    # --- a machine has answered ---

    @property
    def machine(self) -> bool:
        return self._machine

    def answered_by_machine(self, who: Callable[[], Party], after: After | None = None) -> None:
        """It hears the lines once its greeting is over (`after`), is not asked, and has agreed to nothing. Told again
        when more is known; a beep counts also behind a silence."""
        if self._house is None or self._keyed or self._over:
            return
        new = not self._machine
        self._machine = True
        over = after is not None and (self._greeting_over is None or (after == "beep" != self._greeting_over))
        if over:
            self._greeting_over = after
            self._host.event("voicemail", after=after)
        if new:
            effects = self._state.handle(s.Machine())
            self._perform(effects)
            self._revoke(effects, who(), "speech", "a machine has answered")
        if over or new:
            self._host.machine_listens()

    def _begin_for_machine(self, opening: Opening) -> None:
        """What was said into its greeting was said to nobody: it waits for the end of that, and is said whole."""
        self._opening = opening
        if self._greeting_over is None:
            self._set_timer(GREETING_S, self._greeting_without_end)
        else:
            self._stop_timer()
            self._say(opening.lines, self._lines_heard)

    def _greeting_without_end(self) -> None:
        assert self._who is not None
        self.answered_by_machine(self._who, "time")

    def _revoke(self, effects: Sequence[s.Effect], who: Party, via: CapturedBy, verbatim: str) -> None:
        assert self._house is not None
        for effect in effects:
            if isinstance(effect, s.Shut):
                self._house.consents.revoke(
                    Revocation(
                        who.tenant,
                        _subject(who, self._host.id),
                        self._clock.wall(),
                        via,
                        verbatim,
                        tuple(TECHNOLOGIES[door] for door in effect.doors),
                        seller=self._house.wording.business,
                        call_id=self._host.id,
                    )
                )

    def confirm(self, bus: Bus, agent: AgentDefinition, who: Callable[[], Party], said: Sequence[Message]) -> Announcer:
        """Says that nothing is kept any more, and asks what else there is; then `agent_goes_on`, who only listens."""
        announcer = self.announcer(bus, agent, who, "", said, lambda: False)
        assert self._house is not None
        self._say((Line("withdrawn", self._house.wording.say("withdrawn", self._language), ""),), self._go_on)
        return announcer

    def unserved(self, bus: Bus, agent: AgentDefinition, who: Callable[[], Party]) -> Announcer:
        """Nobody of this machine can serve them: says so, and ends the call."""
        announcer = self.announcer(bus, agent, who, None, (), lambda: False)
        assert self._house is not None
        line = Line("unserved", self._house.wording.say("unserved", self._language), "")
        self._say(() if self._machine else (line,), lambda: self._host.hang_up("refused"))
        return announcer


def _subject(who: Party, call_id: CallId) -> str:
    """Somebody without a number is known by their call alone."""
    return who.number or f"call:{call_id}"
