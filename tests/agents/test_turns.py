"""The turn machine, told as conversations: what happens at the left, what it leads to at the right."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.agents import turns as t
from trunkline.agents.definition import AgentDefinition, Failover, ProviderChoice, TurnTaking
from trunkline.agents.turns import State, Turns
from trunkline.ports import Expectation

NOBODY = ProviderChoice("standin")
AGENT = AgentDefinition(
    "clinic",
    NOBODY,
    NOBODY,
    NOBODY,
    greeting="Hello.",
    goodbye="Bye.",
    apology="Sorry.",
    failure="Broken.",
    no_input=("Are you there?", "I can't hear you."),
    filler=("One moment.", "Still looking."),
)
SHUT = replace(AGENT, greeting_interruptible=False)
BOUNDARY = t.VERDICT_AFTER_MS


class Conversation:
    """A machine, the timers it has set, and what it has done since it was last asked."""

    def __init__(self, agent: AgentDefinition = AGENT) -> None:
        self.turns = Turns(agent)
        self.timers: dict[str, int] = {}
        self.armed: list[str] = []
        self.done: list[t.Effect] = []
        self.at = 100.0

    def tell(self, *events: t.Event) -> "Conversation":
        for event in events:
            if isinstance(event, t.TimerFired):
                assert event.name in self.timers, f"no {event.name} timer runs"
                del self.timers[event.name]
            for effect in self.turns.handle(event):
                if isinstance(effect, t.SetTimer):
                    self.timers[effect.name] = effect.after_ms
                    self.armed.append(effect.name)
                elif isinstance(effect, t.CancelTimer):
                    del self.timers[effect.name]
                else:
                    self.done.append(effect)
        return self

    def did(self) -> list[t.Effect]:
        done, self.done = self.done, []
        return done

    @property
    def state(self) -> State:
        return self.turns.state

    # --- what people do ---

    def speech_starts(self) -> "Conversation":
        return self.tell(t.SpeechStarted(self.at))

    def speech_ends(self, after_ms: int = 1000) -> "Conversation":
        self.at += after_ms / 1000
        return self.tell(t.SpeechEnded(self.at))

    def utters(self, length_ms: int = 1000) -> "Conversation":
        return self.speech_starts().speech_ends(length_ms)

    def final(self, text: str) -> "Conversation":
        return self.tell(t.Final(text, understood=True))

    def unclear(self, guess: str = "") -> "Conversation":
        return self.tell(t.Final(guess, understood=False))

    def says(self, text: str) -> "Conversation":
        return self.utters().final(text)

    def keys(self, digits: str) -> "Conversation":
        return self.tell(*map(t.Key, digits))

    def time_passes(self, name: t.Timer) -> "Conversation":
        return self.tell(t.TimerFired(name))

    def agent_speaks(self) -> "Conversation":
        return self.tell(t.ReplyBegan())

    def is_heard(self) -> "Conversation":
        return self.tell(t.ReplyHeard())

    def fails(self) -> "Conversation":
        return self.tell(t.ReplyFailed())


def begun(agent: AgentDefinition = AGENT) -> Conversation:
    return Conversation(agent).tell(t.Begin(agent.greeting))


def greeted(agent: AgentDefinition = AGENT) -> Conversation:
    talk = begun(agent).agent_speaks().is_heard()
    talk.did()
    return talk


def thinking(text: str = "what are your hours") -> Conversation:
    talk = greeted().says(text)
    talk.did()
    return talk


def speaking(text: str = "what are your hours") -> Conversation:
    talk = thinking(text).agent_speaks()
    talk.did()
    return talk


def expecting(low: int, high: int, grammar: str = "main", agent: AgentDefinition = AGENT) -> Conversation:
    talk = greeted(agent)
    talk.turns.expect(Expectation(grammar, low, high))
    return talk


MOMENTS: dict[str, Callable[[], Conversation]] = {
    "idle": Conversation,
    "listening": greeted,
    "hearing": lambda: greeted().speech_starts(),
    "thinking": thinking,
    "waiting": lambda: greeted().utters(),
    "speaking": speaking,
    "interrupted": lambda: speaking().speech_starts(),
}


def only(kind: type, effects: Sequence[t.Effect]) -> list[t.Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


# --- the greeting ---------------------------------------------------------------------------------------------------


def test_the_agent_greets_and_then_listens() -> None:
    talk = begun()
    assert talk.did() == [t.Say("Hello.")]
    assert (talk.state, talk.timers) == (State.THINKING, {"reply": 10_000, "max_duration": 1_800_000})
    talk.agent_speaks()
    assert (talk.state, talk.timers) == (State.SPEAKING, {"max_duration": 1_800_000})
    talk.is_heard()
    assert (talk.state, talk.did()) == (State.LISTENING, [])
    assert talk.timers["no_input"] == 7000


def test_a_fixed_line_needs_no_filler() -> None:
    assert "filler" not in begun().timers


def test_nothing_happens_before_the_line_is_open() -> None:
    talk = Conversation()
    talk.tell(t.Final("hello", True), t.Key("1"), t.ReplyBegan(), t.ReplyHeard(), t.ReplyFailed(), t.Leave())
    assert (talk.state, talk.did(), talk.timers) == (State.IDLE, [], {})


# --- the end of a turn ----------------------------------------------------------------------------------------------


def test_a_turn_is_heard_understood_and_answered() -> None:
    talk = greeted().speech_starts()
    assert talk.did() == [t.Feed(), t.Endpoint(600)]
    assert "no_input" not in talk.timers
    assert talk.timers["utterance"] == t.UTTERANCE_MAX_MS
    talk.speech_ends()
    assert (talk.state, talk.did()) == (State.THINKING, [t.FinalizeStt()])
    assert {"final", "filler"} <= talk.timers.keys()
    assert "utterance" not in talk.timers
    talk.final("what are your hours")
    assert talk.did() == [t.Answer(("what are your hours",))]
    assert talk.timers.keys() == {"reply", "filler", "max_duration"}
    talk.agent_speaks().is_heard()
    assert talk.state is State.LISTENING


def test_a_phrase_that_is_complete_ends_the_turn_early_and_one_that_goes_on_does_not() -> None:
    talk = greeted().speech_starts()
    talk.did()
    assert talk.tell(t.Partial("what are your hours", complete=True)).did() == [t.Endpoint(200)]
    assert talk.tell(t.Partial("what are your hours on", complete=False)).did() == [t.Endpoint(600)]


@pytest.mark.parametrize(
    ("complete", "probability", "silence_ms"),
    [
        (False, None, 600),
        (True, None, 200),
        (False, 0.0, 3000),  # "my number is"
        (False, 0.25, 1800),
        (False, 0.5, 600),
        (False, 0.7, 400),
        (False, 0.9, 200),
        (False, 1.0, 200),
        (True, 0.5, 200),
        (True, 0.25, 1800),  # the recogniser heard no more; the words cannot be all
        (True, 1.0, 200),
    ],
)
def test_the_words_tell_how_long_silence_must_last(complete: bool, probability: float | None, silence_ms: int) -> None:
    talk = greeted().speech_starts().tell(t.Partial("my number", complete=complete))
    if probability is not None:
        talk.tell(t.Completeness(probability))
    assert talk.did()[-1] == t.Endpoint(silence_ms)


def test_what_was_thought_of_earlier_words_is_void() -> None:
    talk = greeted().speech_starts().tell(t.Partial("my number is", complete=False), t.Completeness(0.0))
    assert talk.did()[-1] == t.Endpoint(3000)
    assert talk.tell(t.Partial("my number is", complete=True)).did() == [t.Endpoint(3000)]
    assert talk.tell(t.Partial("my number is five", complete=False)).did() == [t.Endpoint(600)]
    talk.tell(t.Completeness(1.0)).speech_ends().final("my number is five").agent_speaks().is_heard()
    talk.did()
    assert talk.speech_starts().did()[-1] == t.Endpoint(600)


def test_completeness_between_utterances_is_nobodys() -> None:
    for moment in ("idle", "listening", "waiting", "thinking", "speaking"):
        talk = MOMENTS[moment]()
        talk.did()
        assert talk.tell(t.Completeness(1.0)).did() == [], moment


def test_the_callers_pace_and_the_admins_limit_hold_for_what_the_detector_says() -> None:
    talk = thinking("i would like").speech_starts().tell(t.SpeechSustained(), t.Partial("an", complete=False))
    assert talk.tell(t.Completeness(0.9)).did()[-1] == t.Endpoint(400)
    assert talk.tell(t.Completeness(0.0)).did()[-1] == t.Endpoint(3000)


def test_spoken_digits_are_waited_for_whatever_the_detector_says() -> None:
    talk = expecting(3, 8, "digits_appointment").speech_starts().tell(t.Partial("one two three", complete=False))
    assert talk.tell(t.Completeness(1.0)).did()[-1] == t.Endpoint(t.SPOKEN_DIGITS_MS)


def test_what_is_said_over_the_agent_is_known_once_it_has_the_floor() -> None:
    talk = speaking().speech_starts().tell(t.Partial("okay", complete=False), t.Completeness(1.0))
    assert talk.did()[2:] == [t.Endpoint(BOUNDARY)]
    assert talk.tell(t.SpeechSustained()).did()[-1] == t.Endpoint(200)


# --- asking early ---

EAGER = replace(AGENT, turns=TurnTaking(speculate=True))


def early(talk: Conversation) -> list[t.Effect]:
    return only(t.Speculate, talk.did())


def test_words_that_seem_whole_are_asked_about_and_no_longer_when_they_go_on() -> None:
    talk = greeted(EAGER).speech_starts().tell(t.Partial("what are your", complete=False))
    assert early(talk) == []
    talk.tell(t.Partial("what are your hours", complete=False), t.Completeness(0.8))
    assert early(talk) == [t.Speculate(("what are your hours",))]
    talk.tell(t.Partial("What are your hours?", complete=True), t.Completeness(0.95))
    assert early(talk) == [], "the same words"
    talk.tell(t.Partial("what are your hours on", complete=False))
    assert early(talk) == [t.Speculate(())]
    talk.tell(t.Partial("what are your hours on Monday", complete=True))
    assert early(talk) == [t.Speculate(("what are your hours on Monday",))]


def test_by_default_nothing_is_asked_early() -> None:
    talk = greeted().speech_starts().tell(t.Partial("what are your hours", complete=True), t.Completeness(1.0))
    assert early(talk.speech_ends()) == []


def test_words_that_cannot_be_all_are_not_asked_about_whatever_the_recogniser_says() -> None:
    talk = greeted(EAGER).speech_starts().tell(t.Partial("my number is", complete=False), t.Completeness(0.1))
    talk.tell(t.Partial("my number is", complete=True))
    assert early(talk) == []


def test_what_the_turn_ended_with_is_asked_about_while_its_final_is_awaited() -> None:
    talk = greeted(EAGER).speech_starts().tell(t.Partial("the clinic", complete=False), t.Completeness(0.5))
    talk.did()
    assert talk.speech_ends().did() == [t.FinalizeStt(), t.Speculate(("the clinic",))]
    talk = greeted(EAGER).utters(300)
    assert early(talk) == [], "nothing was heard"


def test_a_turn_that_the_recogniser_ends_keeps_what_was_asked_of_it() -> None:
    talk = greeted(EAGER).speech_starts().tell(t.Partial("what are your hours", complete=True))
    talk.did()
    assert talk.final("What are your hours?").did() == [t.CancelStt(), t.Answer(("What are your hours?",))]


def test_a_key_makes_an_end_of_what_was_asked_early() -> None:
    talk = expecting(0, 0, agent=EAGER).speech_starts().tell(t.Partial("what are your hours", complete=True))
    talk.did()
    assert talk.tell(t.Key("*")).did() == [t.Speculate(()), t.CancelStt()]


def test_what_waits_for_its_answer_is_asked_about_too() -> None:
    talk = greeted(EAGER).says("what are your hours").speech_starts().tell(t.SpeechSustained())
    talk.did()
    talk.tell(t.Partial("on Monday", complete=True))
    assert early(talk) == [t.Speculate(("what are your hours", "on Monday"))]


def test_where_digits_are_awaited_nothing_is_asked_early() -> None:
    for grammar, low, high in (("digits_appointment", 4, 4), ("main", 4, 4)):
        talk = expecting(low, high, grammar, EAGER).speech_starts()
        assert early(talk.tell(t.Partial("one two three four", complete=True)).speech_ends()) == []


def test_going_on_after_the_turn_was_taken_teaches_patience() -> None:
    talk = thinking("i would like").speech_starts().tell(t.SpeechSustained())
    assert talk.did()[-1] == t.Endpoint(800)
    talk.speech_ends().final("an appointment").agent_speaks().is_heard().speech_starts()
    assert only(t.Endpoint, talk.did())[-1] == t.Endpoint(780)


def test_patience_never_exceeds_the_admins_maximum() -> None:
    talk = greeted(replace(AGENT, turns=TurnTaking(endpointing_max_ms=1000)))
    for _ in range(10):
        talk.says("well").speech_starts().tell(t.SpeechSustained()).speech_ends().final("so")
        talk.agent_speaks().is_heard()
    talk.speech_starts()
    assert talk.did()[-1] == t.Endpoint(1000)


def test_interrupting_an_answer_teaches_no_patience() -> None:
    talk = speaking().speech_starts().tell(t.SpeechSustained())
    assert talk.did()[-1] == t.Endpoint(600)


def test_spoken_digits_are_waited_for() -> None:
    talk = expecting(3, 8, "digits_appointment").speech_starts()
    assert talk.did()[-1] == t.Endpoint(t.SPOKEN_DIGITS_MS)
    assert talk.tell(t.Partial("one two three", complete=True)).did() == [t.Endpoint(t.SPOKEN_DIGITS_MS)]


def test_spoken_digits_of_known_length_are_complete_when_all_are_there() -> None:
    talk = expecting(4, 4, "digits_appointment").speech_starts()
    assert talk.tell(t.Partial("one two", complete=False)).did()[-1] == t.Endpoint(t.SPOKEN_DIGITS_MS)
    assert talk.tell(t.Partial("one two three four", complete=True)).did() == [t.Endpoint(200)]


def test_a_noise_while_listening_gets_no_answer() -> None:
    talk = greeted().utters(100).unclear()
    assert talk.did()[2:] == [t.FinalizeStt()]
    assert talk.state is State.LISTENING
    assert talk.timers["no_input"] == 7000


def test_speech_that_was_not_understood_is_answered_as_such() -> None:
    talk = greeted().utters(800).unclear("flour")
    assert talk.did()[-1] == t.Answer(("flour",), understood=False)


def test_a_recogniser_that_ends_the_turn_itself_is_believed() -> None:
    talk = greeted().speech_starts().final("what are your hours")
    assert talk.did()[2:] == [t.CancelStt(), t.Answer(("what are your hours",))]
    assert talk.state is State.THINKING
    talk.speech_ends()
    assert (talk.did(), talk.state) == ([], State.THINKING)


def test_a_final_nobody_waits_for_is_nothing() -> None:
    talk = greeted().final("boo")
    assert (talk.did(), talk.state) == ([], State.LISTENING)


# --- waits that end -------------------------------------------------------------------------------------------------


def test_silence_is_asked_about_twice_then_it_is_goodbye() -> None:
    talk = greeted()
    said: list[t.Effect] = []
    for _ in range(3):
        said += talk.time_passes("no_input").did()
        talk.agent_speaks().is_heard()
    assert said == [t.Say("Are you there?"), t.Say("I can't hear you."), t.Say("Bye.")]
    assert talk.did() == [t.CancelStt(), t.HangUp("no_input")]
    assert (talk.state, talk.timers) == (State.IDLE, {})


def test_a_word_from_the_caller_begins_the_count_of_silences_anew() -> None:
    talk = greeted().time_passes("no_input").agent_speaks().is_heard()
    talk.says("yes").agent_speaks().is_heard()
    talk.did()
    assert talk.time_passes("no_input").did() == [t.Say("Are you there?")]


def test_a_recogniser_that_never_answers_is_an_apology() -> None:
    talk = greeted().utters()
    talk.did()
    talk.time_passes("final")
    assert talk.did() == [t.CancelStt(), t.Say("Sorry.")]


def test_what_was_understood_before_the_recogniser_fell_silent_is_answered() -> None:
    talk = thinking("first").speech_starts().tell(t.SpeechSustained()).speech_ends()
    talk.did()
    assert talk.time_passes("final").did() == [t.CancelStt(), t.Answer(("first",))]


def test_an_answer_that_does_not_come_is_an_apology() -> None:
    talk = thinking().time_passes("reply")
    assert talk.did() == [t.CancelReply(), t.Say("Sorry.")]
    assert talk.timers["reply"] == 10_000


def test_failing_twice_in_a_row_ends_the_call_politely() -> None:
    talk = thinking().fails()
    assert talk.did() == [t.Say("Sorry.")]
    talk.agent_speaks().is_heard().says("hours").fails()
    assert talk.did()[-1] == t.Say("Broken.")
    talk.agent_speaks().speech_starts()
    assert talk.state is State.SPEAKING  # the last line is not interrupted
    talk.is_heard()
    assert talk.did()[-1] == t.HangUp("error")


def test_a_third_failure_ends_the_call_without_a_word() -> None:
    talk = thinking().fails().fails()
    assert talk.did() == [t.Say("Sorry."), t.Say("Broken.")]
    assert talk.fails().did() == [t.CancelStt(), t.HangUp("error")]
    assert talk.timers == {}


def test_an_answer_in_between_forgives_a_failure() -> None:
    talk = thinking().fails().agent_speaks().is_heard().says("hours").agent_speaks().is_heard().says("hours").fails()
    assert talk.did()[-1] == t.Say("Sorry.")


def test_a_goodbye_that_cannot_be_spoken_ends_the_call_for_its_own_reason() -> None:
    talk = thinking("goodbye")
    talk.turns.end_after_answer("agent_hung_up")
    assert talk.fails().did()[-1] == t.HangUp("agent_hung_up")


def test_hold_music_is_a_turn_after_its_limit_and_then_silence() -> None:
    talk = greeted().speech_starts()
    talk.did()
    talk.time_passes("utterance")
    assert (talk.state, talk.did()) == (State.THINKING, [t.FinalizeStt()])
    talk.unclear().agent_speaks().is_heard()
    assert "no_input" in talk.timers
    talk.did()
    assert talk.speech_ends().did() == []  # it was given to the recogniser already


def test_a_caller_who_never_stops_takes_the_floor_from_the_agent() -> None:
    talk = speaking().speech_starts().time_passes("utterance")
    assert talk.did()[-2:] == [t.CancelReply(), t.FinalizeStt()]
    assert talk.state is State.THINKING


def test_a_long_think_is_filled_after_the_end_of_the_turn_not_of_the_final() -> None:
    talk = greeted().utters()
    assert talk.timers["filler"] == 1500
    talk.did()
    assert talk.time_passes("filler").did() == [t.Fill("One moment.")]
    assert talk.timers["filler"] == t.FILLER_AGAIN_MS
    talk.final("hours")
    assert talk.timers["filler"] == t.FILLER_AGAIN_MS
    talk.did()
    assert talk.time_passes("filler").time_passes("filler").did() == [t.Fill("Still looking.")] * 2
    talk.agent_speaks()
    assert "filler" not in talk.timers
    talk.is_heard().says("more")
    assert talk.timers["filler"] == 1500


def test_an_agent_without_filler_is_silent() -> None:
    assert "filler" not in greeted(replace(AGENT, filler=())).utters().timers


# --- the caller speaks over the agent -------------------------------------------------------------------------------


def test_speech_over_an_answer_pauses_it_at_once() -> None:
    talk = speaking().speech_starts()
    assert talk.did() == [t.PauseOutput(), t.Feed(), t.Endpoint(BOUNDARY)]
    assert talk.state is State.INTERRUPTED


def test_half_a_second_of_it_takes_the_floor() -> None:
    talk = speaking().speech_starts()
    talk.did()
    talk.tell(t.SpeechSustained())
    assert (talk.state, talk.did()) == (State.LISTENING, [t.CancelReply(), t.Endpoint(600)])
    talk.speech_ends().final("stop it")
    assert talk.did() == [t.FinalizeStt(), t.Answer(("stop it",))]


def test_real_words_take_the_floor_while_they_are_spoken() -> None:
    talk = speaking().speech_starts()
    talk.did()
    assert talk.tell(t.Partial("stop", complete=True)).did() == [t.CancelReply(), t.Endpoint(200)]
    assert talk.state is State.LISTENING


def test_a_short_word_takes_the_floor_when_the_final_says_so() -> None:
    talk = speaking().utters(300)
    talk.did()
    talk.final("stop")
    assert talk.did() == [t.CancelReply(), t.Answer(("stop",))]


@pytest.mark.parametrize("sound", ["mm-hm", "Yeah,", "uh huh", "Okay. Right."])
def test_a_backchannel_leaves_the_agent_speaking(sound: str) -> None:
    talk = speaking().speech_starts().tell(t.Partial(sound, complete=True)).speech_ends(300).final(sound)
    assert talk.did()[-1] == t.ResumeOutput()
    assert talk.state is State.SPEAKING
    assert talk.timers.keys() == {"max_duration"}


def test_yeah_is_an_answer_where_the_agent_asked() -> None:
    talk = speaking()
    talk.turns.expect(Expectation("yes_no"))
    talk.utters(300).final("yeah")
    assert talk.did()[-1] == t.Answer(("yeah",))


def test_a_cough_leaves_the_agent_speaking() -> None:
    talk = speaking().utters(200)
    assert talk.timers["verdict"] == t.VERDICT_WAIT_MS
    talk.unclear()
    assert talk.did()[-2:] == [t.FinalizeStt(), t.ResumeOutput()]
    assert talk.state is State.SPEAKING


def test_a_verdict_that_takes_too_long_resumes_the_answer_and_still_counts() -> None:
    talk = speaking().utters(300).time_passes("verdict")
    assert (talk.state, talk.did()[-1]) == (State.SPEAKING, t.ResumeOutput())
    talk.final("stop")
    assert talk.did() == [t.CancelReply(), t.Answer(("stop",))]


def test_a_late_verdict_of_nothing_changes_nothing() -> None:
    talk = speaking().utters(300).time_passes("verdict")
    talk.did()
    assert talk.unclear().did() == []
    assert talk.state is State.SPEAKING


def test_a_second_sound_keeps_the_answer_paused_until_it_too_is_judged() -> None:
    talk = speaking().utters(200).speech_starts()
    talk.did()
    talk.unclear()  # of the first
    assert (talk.state, talk.did()) == (State.INTERRUPTED, [])
    talk.tell(t.SpeechSustained())
    assert (talk.state, talk.did()[0]) == (State.LISTENING, t.CancelReply())
    talk.speech_ends().final("please stop")
    assert talk.did()[-1] == t.Answer(("please stop",))


def test_words_cut_short_by_more_words_are_answered_together() -> None:
    talk = speaking().utters(300).speech_starts().final("stop")
    assert talk.state is State.LISTENING
    talk.speech_ends().final("i meant tuesday")
    assert talk.did()[-1] == t.Answer(("stop", "i meant tuesday"))


def test_the_timers_of_a_cough_do_not_outlive_it() -> None:
    talk = speaking().utters(200).unclear().is_heard()
    assert talk.timers.keys() == {"no_input", "max_duration"}


def test_an_answer_that_ends_while_paused_is_over_after_the_verdict() -> None:
    talk = speaking().speech_starts().is_heard()
    assert talk.timers.keys() == {"utterance", "max_duration"}
    talk.speech_ends(200).unclear()
    assert talk.state is State.LISTENING
    assert "no_input" in talk.timers


def test_a_goodbye_that_ends_while_paused_hangs_up_after_the_verdict() -> None:
    talk = speaking("goodbye")
    talk.turns.end_after_answer("agent_hung_up")
    talk.speech_starts().is_heard().speech_ends(200).unclear()
    assert talk.did()[-1] == t.HangUp("agent_hung_up")


def test_a_goodbye_that_is_interrupted_is_no_longer_one() -> None:
    talk = speaking("goodbye")
    talk.turns.end_after_answer("agent_hung_up")
    talk.speech_starts().tell(t.SpeechSustained()).speech_ends().final("one more thing").agent_speaks().is_heard()
    assert not only(t.HangUp, talk.did())


def test_an_answer_that_fails_while_paused_is_apologised_for_after_the_verdict() -> None:
    talk = speaking().speech_starts().fails()
    assert talk.state is State.INTERRUPTED
    talk.speech_ends(200).unclear()
    assert talk.did()[-1] == t.Say("Sorry.")


def test_an_answer_that_fails_while_paused_is_no_matter_where_the_caller_meant_it() -> None:
    talk = speaking().speech_starts().fails().tell(t.SpeechSustained()).speech_ends().final("next question")
    assert talk.did()[-1] == t.Answer(("next question",))


# --- while the agent thinks -----------------------------------------------------------------------------------------


def test_a_noise_while_thinking_loses_nothing() -> None:
    talk = thinking().utters(200).unclear()
    assert talk.did()[-1] == t.ResumeOutput()
    assert talk.state is State.THINKING
    assert "reply" in talk.timers


def test_going_on_while_the_agent_thinks_is_answered_together_with_what_was_said() -> None:
    talk = thinking("i would like").speech_starts().tell(t.SpeechSustained()).speech_ends().final("an appointment")
    done = talk.did()
    assert t.CancelReply() in done
    assert done[-1] == t.Answer(("i would like", "an appointment"))


def test_what_was_understood_is_answered_alone_if_going_on_was_nothing() -> None:
    talk = thinking("hours").speech_starts().tell(t.SpeechSustained()).speech_ends().unclear()
    assert talk.did()[-1] == t.Answer(("hours",))


def test_three_pieces_are_still_one_turn() -> None:
    talk = thinking("a")
    for piece in ("b", "c"):
        talk.speech_starts().tell(t.SpeechSustained()).speech_ends().final(piece)
    assert talk.did()[-1] == t.Answer(("a", "b", "c"))


def test_once_the_answer_is_heard_what_it_answers_is_settled() -> None:
    talk = speaking("hours").speech_starts().tell(t.SpeechSustained()).speech_ends().final("and on sunday")
    assert talk.did()[-1] == t.Answer(("and on sunday",))


def test_a_final_that_comes_during_a_later_noise_is_answered_after_it() -> None:
    talk = greeted().utters().speech_starts()
    assert talk.state is State.INTERRUPTED
    talk.final("hours")  # of the turn
    assert talk.state is State.INTERRUPTED
    talk.speech_ends(150).unclear()  # of the noise
    assert talk.did()[-2:] == [t.ResumeOutput(), t.Answer(("hours",))]


def test_the_final_of_a_turn_may_come_after_the_noise_was_given_up() -> None:
    talk = greeted().utters().utters(150).time_passes("verdict")
    assert talk.state is State.THINKING
    talk.final("hours").unclear()
    assert talk.did()[-1] == t.Answer(("hours",))


def test_two_finals_outstanding_are_told_apart_by_their_order() -> None:
    talk = greeted().utters().speech_starts().tell(t.SpeechSustained()).speech_ends()
    talk.did()
    assert talk.final("first").did() == []
    assert talk.final("second").did() == [t.Answer(("first", "second"))]


def test_a_turn_not_understood_is_answered_as_such_after_a_noise() -> None:
    talk = greeted().utters(900).speech_starts().unclear("flour").speech_ends(100).unclear()
    assert talk.did()[-1] == t.Answer(("flour",), understood=False)


def test_an_answer_with_nothing_to_say_may_end_while_paused() -> None:
    talk = thinking().speech_starts().is_heard().speech_ends(150).unclear()
    assert talk.state is State.LISTENING


def test_a_partial_of_the_turn_before_does_not_make_a_noise_an_interruption() -> None:
    talk = greeted().utters().speech_starts().tell(t.Partial("hours please", complete=True))
    assert talk.state is State.INTERRUPTED


def test_each_wait_has_its_whole_time() -> None:
    talk = greeted().utters().speech_starts().tell(t.SpeechSustained()).speech_ends()
    assert talk.armed.count("final") == 2
    talk = thinking()
    talk.armed.clear()
    assert talk.fails().armed == ["reply"]


def test_the_reply_deadline_waits_while_the_caller_speaks() -> None:
    talk = thinking().speech_starts()
    assert "reply" not in talk.timers
    talk.speech_ends(150).unclear()
    assert talk.timers["reply"] == 10_000


# --- lines that may not be interrupted ------------------------------------------------------------------------------


def test_speech_under_an_uninterruptible_line_is_answered_when_it_is_over() -> None:
    talk = begun(SHUT).agent_speaks()
    talk.did()
    talk.utters().final("hours")
    assert talk.did() == [t.Feed(), t.Endpoint(600), t.FinalizeStt()]
    assert talk.state is State.SPEAKING
    assert talk.is_heard().did() == [t.Answer(("hours",))]


def test_its_final_may_come_after_the_line() -> None:
    talk = begun(SHUT).agent_speaks().utters().is_heard()
    assert talk.state is State.THINKING
    talk.final("hours")
    assert talk.did()[-1] == t.Answer(("hours",))


def test_a_caller_still_speaking_when_the_line_ends_is_not_talked_over() -> None:
    talk = begun(SHUT).agent_speaks().utters().final("hours").speech_starts().is_heard()
    assert talk.state is State.LISTENING
    talk.did()
    talk.speech_ends().final("on sunday")
    assert talk.did() == [t.FinalizeStt(), t.Answer(("hours", "on sunday"))]


def test_a_backchannel_under_the_line_is_no_turn() -> None:
    talk = begun(SHUT).agent_speaks().utters(300).final("okay").is_heard()
    assert talk.state is State.LISTENING


def test_a_recogniser_that_loses_what_was_said_under_the_line_ends_nothing() -> None:
    talk = begun(SHUT).agent_speaks().utters().time_passes("final").is_heard()
    assert talk.state is State.LISTENING
    assert not only(t.Say, talk.did())[1:]


def test_keys_under_the_line_are_taken_when_it_is_over() -> None:
    talk = begun(SHUT).agent_speaks().keys("2")
    talk.did()
    assert talk.is_heard().did() == [t.Answer(("2",), keyed=True)]


# --- the keypad -----------------------------------------------------------------------------------------------------


def test_one_key_is_an_answer_where_no_number_is_expected() -> None:
    assert greeted().keys("1").did() == [t.CancelStt(), t.Answer(("1",), keyed=True)]


def test_an_entry_is_taken_when_it_is_full() -> None:
    talk = expecting(4, 4).keys("123")
    assert not only(t.Answer, talk.did())
    assert talk.keys("4").did()[-1] == t.Answer(("1234",), keyed=True)
    assert "digits" not in talk.timers


def test_hash_ends_an_entry_and_star_begins_it_anew() -> None:
    talk = expecting(1, 8).keys("99*12")
    talk.did()
    assert talk.keys("#").did()[-1] == t.Answer(("12",), keyed=True)


def test_a_gap_ends_an_entry_that_is_long_enough() -> None:
    talk = expecting(2, 8).keys("12")
    assert talk.timers["digits"] == 3000
    talk.did()
    assert talk.time_passes("digits").did()[-1] == t.Answer(("12",), keyed=True)


def test_an_entry_that_is_too_short_is_waited_for_longer() -> None:
    talk = expecting(4, 4).keys("12")
    assert talk.timers["digits"] == 7000
    talk.did()
    assert talk.time_passes("digits").did()[-1] == t.Answer(("12",), keyed=True)


def test_a_late_hash_is_dropped() -> None:
    talk = expecting(4, 4).keys("1234")
    talk.did()
    assert talk.keys("#").agent_speaks().keys("#").did() == []
    assert talk.is_heard().state is State.LISTENING
    assert talk.keys("#").did() == [t.CancelStt()]
    assert "no_input" in talk.timers


def test_keys_pressed_ahead_answer_the_next_questions_in_order() -> None:
    talk = thinking().keys("2")
    assert talk.keys("1234").did() == []
    talk.turns.expect(Expectation("yes_no", 1, 1))
    assert talk.is_heard().did() == [t.Answer(("2",), keyed=True)]
    talk.turns.expect(Expectation("main", 4, 4))
    assert talk.agent_speaks().is_heard().did() == [t.Answer(("1234",), keyed=True)]


def test_keys_pressed_ahead_may_hold_a_hash_and_a_star() -> None:
    talk = thinking().keys("9*12#3")
    talk.turns.expect(Expectation("main", 1, 8))
    assert talk.is_heard().did()[-1] == t.Answer(("12",), keyed=True)
    assert talk.is_heard().state is State.LISTENING
    assert "digits" in talk.timers


def test_keys_pressed_ahead_are_bounded() -> None:
    talk = thinking().keys("1" * 1000)
    talk.turns.expect(Expectation("main", 1, 999))
    talk.is_heard()
    talk.did()
    assert talk.time_passes("digits").did()[-1] == t.Answer(("1" * t.KEYS_MAX,), keyed=True)


def test_a_key_takes_the_floor_from_an_answer_at_once() -> None:
    talk = speaking().keys("1")
    assert talk.did() == [t.CancelReply(), t.CancelStt(), t.Answer(("1",), keyed=True)]


def test_a_key_after_speech_over_the_agent_takes_the_floor_too() -> None:
    talk = speaking().speech_starts().keys("1")
    assert talk.did()[-3:] == [t.CancelReply(), t.CancelStt(), t.Answer(("1",), keyed=True)]


def test_a_key_and_a_noise_while_thinking_lose_neither_the_turn_nor_the_key() -> None:
    talk = thinking("hours").speech_starts().keys("1").speech_ends(100).unclear()
    assert talk.state is State.THINKING
    talk.agent_speaks().is_heard()
    assert talk.did()[-1] == t.Answer(("1",), keyed=True)


def test_a_key_while_the_caller_speaks_silences_the_recogniser_not_the_call() -> None:
    talk = expecting(4, 4).speech_starts().keys("*")
    assert talk.state is State.LISTENING
    assert "no_input" in talk.timers
    assert "utterance" not in talk.timers


def test_a_noise_between_keys_keeps_the_entry() -> None:
    talk = expecting(4, 4).keys("12").utters(100).unclear()
    assert talk.state is State.LISTENING
    assert talk.keys("34").did()[-1] == t.Answer(("1234",), keyed=True)


def test_speech_nobody_understood_between_keys_keeps_the_entry() -> None:
    talk = expecting(4, 4).keys("12").utters(900).keys("3").unclear("flour")
    assert talk.state is State.LISTENING
    assert talk.keys("4").did()[-1] == t.Answer(("1234",), keyed=True)


def test_words_in_place_of_the_rest_of_an_entry_are_answered_and_the_entry_is_forgotten() -> None:
    talk = expecting(4, 4).keys("12").says("goodbye").agent_speaks().is_heard()
    assert talk.did()[-1] == t.Answer(("goodbye",))
    assert "digits" not in talk.timers


def test_the_final_of_speech_that_a_key_made_void_is_not_taken_for_the_next() -> None:
    talk = speaking().utters(300).keys("1").agent_speaks().is_heard().utters()
    talk.did()
    assert talk.final("stop").did() == []  # of what was said before the key
    assert talk.final("hours").did() == [t.Answer(("hours",))]


def test_a_void_final_that_never_comes_is_given_up() -> None:
    talk = speaking().utters(300).keys("1").agent_speaks().is_heard().speech_starts()
    talk.did()
    assert talk.time_passes("final").did() == []
    assert talk.speech_ends().final("hours").did()[-1] == t.Answer(("hours",))


def test_a_recogniser_that_fails_is_an_apology() -> None:
    talk = greeted().utters()
    talk.did()
    assert talk.tell(t.Final("", understood=False, failed=True)).did() == [t.Say("Sorry.")]


def test_a_recogniser_that_fails_on_a_noise_is_no_matter() -> None:
    talk = speaking().utters(300).tell(t.Final("", understood=False, failed=True))
    assert talk.state is State.SPEAKING


# --- the end --------------------------------------------------------------------------------------------------------


def test_the_agent_hangs_up_when_its_goodbye_was_heard() -> None:
    talk = thinking("goodbye")
    talk.turns.end_after_answer("agent_hung_up")
    talk.agent_speaks()
    assert talk.did() == []
    assert talk.is_heard().did()[-1] == t.HangUp("agent_hung_up")


def test_an_answer_without_words_may_end_the_call() -> None:
    talk = thinking("goodbye")
    talk.turns.end_after_answer("transferred")
    assert talk.is_heard().did()[-1] == t.HangUp("transferred")


def test_after_hanging_up_nothing_more_happens() -> None:
    talk = thinking()
    talk.turns.end_after_answer("agent_hung_up")
    talk.is_heard()
    talk.did()
    talk.speech_starts().speech_ends().final("wait").keys("1").agent_speaks().is_heard().fails()
    talk.tell(t.Begin("again"), t.Leave())
    assert (talk.did(), talk.state, talk.timers) == ([], State.IDLE, {})


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "idle"])
def test_when_the_time_is_up_the_agent_says_goodbye_and_is_not_interrupted(moment: str) -> None:
    talk = MOMENTS[moment]()
    talk.did()
    talk.time_passes("max_duration")
    assert talk.did() == [t.CancelStt(), t.CancelReply(), t.Say("Bye.")]
    talk.agent_speaks().speech_starts().tell(t.SpeechSustained())
    assert talk.state is State.SPEAKING
    assert talk.is_heard().did()[-1] == t.HangUp("max_duration")


def test_a_goodbye_that_is_never_heard_ends_the_call_all_the_same() -> None:
    talk = speaking().time_passes("max_duration").agent_speaks()
    assert talk.timers["max_duration"] == t.GOODBYE_MAX_MS
    assert talk.time_passes("max_duration").did()[-1] == t.HangUp("max_duration")


def test_time_that_is_up_during_a_goodbye_lets_it_be_said() -> None:
    talk = speaking("goodbye")
    talk.turns.end_after_answer("agent_hung_up")
    assert talk.time_passes("max_duration").did() == []
    assert talk.is_heard().did()[-1] == t.HangUp("agent_hung_up")


def test_the_gateway_asks_to_leave_once() -> None:
    talk = speaking().tell(t.Leave())
    assert talk.did()[-1] == t.Say("Bye.")
    assert talk.timers["max_duration"] == t.GOODBYE_MAX_MS
    assert talk.tell(t.Leave()).did() == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_closing_stops_everything_in_every_state(moment: str) -> None:
    talk = MOMENTS[moment]()
    talk.did()
    assert talk.tell(t.Close()).did() == [t.CancelStt(), t.CancelReply()]
    assert (talk.state, talk.timers) == (State.IDLE, {})
    assert talk.tell(t.Close(), t.Begin("again")).state is State.IDLE


# --- on hold ---


@pytest.mark.parametrize("moment", sorted(set(MOMENTS) - {"idle"}))
def test_on_hold_nothing_is_said_heard_or_waited_for(moment: str) -> None:
    talk = MOMENTS[moment]()
    talk.did()
    assert t.PauseOutput() in talk.tell(t.Held()).did()
    assert talk.timers.keys() == {"max_duration"}
    assert talk.utters().tell(t.Partial("stop", complete=True), t.Key("1"), t.Held()).did() == []
    assert t.ResumeOutput() in talk.tell(t.Unheld()).did()
    assert talk.timers.keys() > {"max_duration"} or talk.state is State.SPEAKING
    assert talk.tell(t.Unheld()).did() == []


def test_an_answer_that_was_cut_by_a_hold_goes_on_after_it() -> None:
    talk = speaking().tell(t.Held())
    talk.did()
    assert talk.tell(t.Unheld()).did() == [t.CancelStt(), t.ResumeOutput()]
    assert talk.state is State.SPEAKING
    assert talk.timers.keys() == {"max_duration"}
    assert "no_input" in talk.is_heard().timers


def test_what_is_said_on_hold_waits_for_its_end() -> None:
    talk = speaking().tell(t.Held())
    talk.did()
    assert talk.tell(t.ReplyFailed()).did() == [t.Say("Sorry."), t.PauseOutput()]
    assert t.ResumeOutput() in talk.tell(t.Unheld()).did()


def test_a_call_whose_time_is_up_on_hold_ends_without_a_goodbye() -> None:
    assert speaking().tell(t.Held(), t.Leave()).did()[-1] == t.HangUp("max_duration")


# --- any events, in any order ---------------------------------------------------------------------------------------

# --- another mind ---------------------------------------------------------------------------------------------------


def test_a_mind_that_is_lost_is_told_of_and_ends_the_call() -> None:
    talk = greeted().says("hours")
    talk.agent_speaks().did()
    talk.tell(t.Broken())
    assert talk.did() == [t.CancelStt(), t.CancelReply(), t.Say("Broken.")]
    assert not talk.turns.interruptible
    talk.agent_speaks().is_heard()
    assert talk.did()[-1] == t.HangUp("error")


def test_a_mind_that_is_lost_has_the_same_way_out_as_one_that_fails_twice() -> None:
    terms = Failover(last_resort="transfer", target="desk", words="I'll put you through.")
    lost = Conversation(replace(AGENT, failover=terms)).tell(t.Begin("Hello."))
    lost.agent_speaks().is_heard()
    lost.did()
    assert lost.tell(t.Broken()).did()[-2:] == [t.Say("I'll put you through."), t.PutThrough("desk")]
    lost.agent_speaks().is_heard()
    assert lost.did()[-1] == t.HangUp("transferred")
    asked = Conversation(replace(AGENT, failover=Failover(last_resort="message"))).tell(t.Begin("Hello."))
    asked.agent_speaks().is_heard()
    asked.did()
    assert asked.tell(t.Broken()).did()[-1] == t.Say(Failover().message)
    asked.agent_speaks().is_heard()
    assert asked.state is State.LISTENING
    asked.did()
    assert asked.tell(t.Broken()).did() == [], "a message is being taken"


def test_a_mind_that_is_lost_while_nobody_hears_us_ends_the_call_at_once() -> None:
    talk = greeted().tell(t.Held())
    talk.did()
    talk.tell(t.Broken())
    assert talk.did()[-1] == t.HangUp("error")


def test_a_goodbye_that_is_being_said_is_not_begun_anew_by_a_lost_mind() -> None:
    talk = greeted().tell(t.Leave())
    talk.did()
    assert talk.tell(t.Broken()).did() == []


def test_whoever_goes_on_without_a_word_has_no_turn_and_the_caller_the_floor() -> None:
    talk = Conversation().tell(t.Begin(""))
    assert talk.state is State.LISTENING
    assert not [effect for effect in talk.did() if isinstance(effect, t.Say)]
    assert "no_input" in talk.timers
    assert talk.utters().final("are you open").did()[-1] == t.Answer(("are you open",))


def test_who_takes_over_answers_what_nobody_has_answered_in_place_of_a_greeting() -> None:
    talk = Conversation().tell(t.Begin("Hello.", ("my name is Ada",)))
    assert talk.did() == [t.Answer(("my name is Ada",))]
    assert talk.state is State.THINKING


# --- written words, and the button that stops the agent -------------------------------------------------------------


def test_written_words_are_answered_as_if_they_were_said() -> None:
    talk = greeted().tell(t.Typed("what are your hours"))
    assert talk.did() == [t.Answer(("what are your hours",))]
    assert talk.state is State.THINKING


def test_written_words_interrupt_the_agent_and_what_is_being_said_beside_them_is_nothing() -> None:
    talk = speaking().speech_starts()
    talk.did()
    talk.tell(t.Typed("no, tomorrow"))
    assert talk.did() == [t.CancelReply(), t.CancelStt(), t.Answer(("no, tomorrow",))]


def test_written_words_join_a_question_whose_answer_has_not_begun() -> None:
    talk = thinking().tell(t.Typed("on Mondays"))
    assert t.Answer(("what are your hours", "on Mondays")) in talk.did()


def test_written_words_wait_for_what_was_said_just_before_them() -> None:
    talk = greeted().utters()
    talk.did()
    talk.tell(t.Typed("on Mondays"))
    assert only(t.Answer, talk.did()) == []
    talk.final("what are your hours")
    assert talk.did() == [t.Answer(("what are your hours", "on Mondays"))]


def test_written_words_that_wait_for_a_final_are_answered_when_it_does_not_come() -> None:
    talk = greeted().utters().tell(t.Typed("on Mondays"))
    talk.did()
    talk.tell(t.TimerFired("final"))
    assert only(t.Answer, talk.did()) == [t.Answer(("on Mondays",))]


def test_written_words_wait_for_a_line_that_must_be_heard() -> None:
    talk = begun(SHUT).agent_speaks()
    talk.did()
    talk.tell(t.Typed("what are your hours"))
    assert (talk.state, talk.did()) == (State.SPEAKING, [])
    assert talk.is_heard().did() == [t.Answer(("what are your hours",))]


def test_who_writes_a_book_is_not_heard_until_it_is_answered() -> None:
    talk = greeted()
    for _ in range(20):
        talk.tell(t.Typed("x" * 1000))
    asked = [effect for effect in talk.did() if isinstance(effect, t.Answer)]
    assert max(len("".join(each.texts)) for each in asked) == 5000


def test_flush_ends_the_answer_and_nobody_repeats_it() -> None:
    for talk in (speaking(), thinking()):
        talk.tell(t.Flush())
        assert talk.did() == [t.CancelReply()]
        assert talk.state is State.LISTENING
        assert talk.says("and on Sundays").did()[-1] == t.Answer(("and on Sundays",))


def test_flush_drops_what_was_keyed_ahead_as_well() -> None:
    talk = thinking().keys("123")
    talk.did()
    talk.tell(t.Flush())
    assert only(t.Answer, talk.did()) == []


def test_who_flushes_has_finished_speaking_and_is_given_no_more_time() -> None:
    def endpoint(talk: Conversation) -> int:
        talk.did()
        talk.speech_starts()
        (endpoint,) = only(t.Endpoint, talk.did())
        assert isinstance(endpoint, t.Endpoint)
        return endpoint.silence_ms

    assert endpoint(thinking().tell(t.Flush())) == endpoint(greeted())


def test_only_words_that_count_are_told() -> None:
    talk = greeted().speech_starts()
    assert talk.tell(t.Partial("what are", complete=False)).turns.words == t.Told("what are", final=False)
    talk.tell(t.Typed("my hours"))
    assert talk.turns.words == t.Told("my hours", final=True)
    stale = greeted().tell(t.Partial("of before", complete=False))
    assert stale.turns.words is None
    mumbled = greeted().utters().tell(t.Final("blah", understood=False))
    assert mumbled.turns.words == t.Told("blah", final=True, understood=False)
    agreed = speaking().utters().tell(t.Final("mm-hm", understood=True))
    assert agreed.turns.words == t.Told("", final=True)
    late = greeted().utters().tell(t.Typed("no")).tell(t.TimerFired("final")).tell(t.Final("too late", understood=True))
    assert late.turns.words is None


def test_what_the_machine_refuses_is_not_told() -> None:
    talk = greeted()
    for _ in range(20):
        talk.tell(t.Typed("x" * 1000))
    assert talk.turns.words is None


def test_flush_leaves_a_line_that_must_be_heard_and_a_silent_agent_alone() -> None:
    shut, silent = begun(SHUT).agent_speaks(), greeted()
    for talk, state in ((shut, State.SPEAKING), (silent, State.LISTENING)):
        talk.did()
        talk.tell(t.Flush())
        assert (talk.state, talk.did()) == (state, [])


WORDS = ["", "mm-hm", "stop", "what are your hours"]
EVENTS: list[st.SearchStrategy[Any]] = [
    st.just("start"),
    st.just("sustain"),
    st.just("end"),
    st.sampled_from(WORDS).flatmap(lambda w: st.booleans().map(lambda c: t.Partial(w, c))),
    st.sampled_from(WORDS).flatmap(lambda w: st.booleans().map(lambda u: t.Final(w, u, failed=not w and u))),
    st.sampled_from("019#*").map(t.Key),
    st.sampled_from([t.Typed("in writing"), t.Flush()]),
    st.just(t.ReplyBegan()),
    st.just(t.ReplyHeard()),
    st.just(t.ReplyFailed()),
    st.sampled_from([Expectation(), Expectation("main", 4, 4), Expectation("digits_n", 1, 8), Expectation("yes_no")]),
    st.just("ending"),
    st.just("timer"),
    st.sampled_from([t.Held(), t.Unheld()]),
    st.sampled_from([t.Leave(), t.Broken(), t.Close()]),
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40).map(lambda i: i if i < len(EVENTS) else i % 13), st.data()), max_size=60),
    st.booleans(),
)
def test_whatever_happens_there_is_a_way_on(steps: list[tuple[int, st.DataObject]], shut: bool) -> None:
    talk = Conversation(SHUT if shut else AGENT)
    watch = Watch(talk)
    watch.tell(t.Begin("Hello."))
    for kind, data in steps:
        event: Any = data.draw(EVENTS[kind])
        if isinstance(event, Expectation):
            talk.turns.expect(event)
        elif event == "ending":
            talk.turns.end_after_answer("agent_hung_up")
        elif event == "timer":
            if talk.timers:
                watch.tell(t.TimerFired(data.draw(st.sampled_from(sorted(talk.timers)))))
        elif isinstance(event, str):
            talk.at += 0.1
            said: dict[str, t.Event] = {"start": t.SpeechStarted(talk.at), "end": t.SpeechEnded(talk.at)}
            watch.tell(said.get(event, t.SpeechSustained()))
        else:
            watch.tell(event)


class Watch:
    """What must be true of the machine whatever happens."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.replying = self.paused = self.held = False
        self.hang_ups = 0

    def tell(self, event: t.Event) -> None:
        talk = self.talk
        if isinstance(event, t.ReplyHeard | t.ReplyFailed) and not self.replying:
            return  # the cascade reports of replies there are
        if isinstance(event, t.ReplyBegan) and self.paused:
            return  # a paused playout sends nothing
        talk.tell(event)
        if isinstance(event, t.Held | t.Unheld):
            self.held = isinstance(event, t.Held)
        if isinstance(event, t.ReplyHeard | t.ReplyFailed):
            self.replying = False
        for effect in talk.did():
            self.look(effect)
        self.look_for_a_way_on()

    def look(self, effect: t.Effect) -> None:
        if isinstance(effect, t.Answer | t.Say):
            assert not self.replying, "two answers at once"
            assert not isinstance(effect, t.Answer) or effect.texts
            self.replying, self.paused = True, False
        elif isinstance(effect, t.CancelReply):
            self.replying = self.paused = False
        elif isinstance(effect, t.PauseOutput):
            assert not self.paused
            self.paused = True
        elif isinstance(effect, t.ResumeOutput):
            assert self.paused
            self.paused = False
        elif isinstance(effect, t.HangUp):
            self.hang_ups += 1
            assert self.hang_ups == 1

    def look_for_a_way_on(self) -> None:
        state, timers = self.talk.state, self.talk.timers.keys()
        if self.held:
            assert self.paused or state is State.IDLE, "speaks to nobody"
            assert timers == ({"max_duration"} if state is not State.IDLE else set())
            return
        if state is State.IDLE:
            assert not timers
            return
        assert self.paused == (state is State.INTERRUPTED), "paused, and nobody to resume"
        match state:
            case State.LISTENING:
                assert timers & {"no_input", "digits", "utterance"}
                assert not self.replying
            case State.THINKING:
                assert timers & {"reply", "final"}
                assert self.replying == ("reply" in timers)
            case State.SPEAKING:
                assert self.replying
            case State.INTERRUPTED:
                assert timers & {"verdict", "utterance"}
        assert "max_duration" in timers


def test_every_pair_of_state_and_event_leads_only_where_its_row_says() -> None:
    events = {"Begin", "SpeechStarted", "SpeechSustained", "SpeechEnded", "Partial", "Completeness", "Final", "Key"}
    events |= {"Typed", "Flush"}
    events |= {
        "ReplyBegan",
        "ReplyHeard",
        "ReplyFailed",
        "Filled",
        "Leave",
        "Broken",
        "Held",
        "Unheld",
        "TimerFired",
        "Close",
    }
    in_table = {event.__name__ for row in t.TABLE.values() for event in row} | {event.__name__ for event in t.ALWAYS}
    assert in_table == events
    assert t.TABLE.keys() == set(State)
    assert t.WAITS.keys() == t.ON_TIMER.keys()


# --- another agent goes on ------------------------------------------------------------------------------------------


def handing_off() -> Conversation:
    call = Conversation().tell(t.Begin("Hello."), t.ReplyBegan(), t.ReplyHeard())
    call.utters().final("my invoice").tell(t.ReplyBegan())
    call.turns.end_after_answer("handed_off")
    call.did()
    return call


def test_the_line_is_given_over_when_the_answer_was_heard() -> None:
    call = handing_off().tell(t.ReplyHeard())
    assert call.did() == [t.CancelStt(), t.GiveOver()]
    assert call.timers == {}
    assert call.speech_starts().did() == []  # it is the other's now


def test_an_answer_that_fails_in_the_middle_gives_the_line_over_all_the_same() -> None:
    assert t.GiveOver() in handing_off().tell(t.ReplyFailed()).did()


def test_a_caller_who_takes_the_floor_keeps_the_agent() -> None:
    call = handing_off().speech_starts().tell(t.SpeechSustained())
    assert call.turns.ending is None
    assert t.CancelReply() in call.did()


@pytest.mark.parametrize("held", [False, True])
def test_nobody_else_begins_when_the_time_is_up(held: bool) -> None:
    call = handing_off().tell(*([t.Held()] if held else []), t.Leave())
    assert t.GiveOver() not in call.did()
    assert call.turns.ending in ("max_duration", None)


@pytest.mark.parametrize("interruptible", [True, False])
def test_a_last_line_of_the_gateways_is_heard_whole_whatever_is_being_said(interruptible: bool) -> None:
    turns = Turns(replace(AGENT, greeting_interruptible=interruptible))
    turns.handle(t.Begin("Hello."))
    turns.handle(t.ReplyBegan())
    effects = turns.handle(t.Leave("You are off our list. Goodbye."))
    assert [effect.text for effect in effects if isinstance(effect, t.Say)] == ["You are off our list. Goodbye."]
    turns.handle(t.ReplyBegan())
    for event in (t.SpeechStarted(2.0), t.Key("5"), t.Leave()):
        assert not any(isinstance(effect, t.Say) for effect in turns.handle(event))
    assert turns.state is State.SPEAKING
