"""The device's machine: what leaves it, and when."""

from trunkline.device import machine as m
from trunkline.device.machine import FRAME_BYTES, Machine, State, Terms

JOINED = {"type": "joined", "session_id": "S", "agent": "A", "resume_token": "again"}


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * (FRAME_BYTES // 2)


def sent(effects: list[m.Effect]) -> list[bytes]:
    return [effect.pcm16 for effect in effects if isinstance(effect, m.SendAudio)]


def messages(effects: list[m.Effect]) -> list[object]:
    return [effect.message["type"] for effect in effects if isinstance(effect, m.Send)]


def hear(machine: Machine, first: int, last: int, now: float = 0.0) -> list[m.Effect]:
    return [
        effect
        for number in range(first, last + 1)
        for effect in (*machine.microphone(frame(number), now, playing=False),)
    ]


def talking(terms: Terms | None = None) -> Machine:
    machine = Machine("first", terms)
    machine.button(0.0)
    machine.joined(JOINED, 0.0)
    return machine


def test_nothing_leaves_a_device_that_sleeps() -> None:
    assert hear(Machine(), 1, 500) == []


def test_what_was_said_since_the_wake_word_ended_is_sent_whole_and_in_order_behind_armed() -> None:
    machine = Machine("first")
    hear(machine, 1, 100)
    woken = machine.woken(0.0, "hey", ends_at=97 * FRAME_BYTES // 2, score=0.9)
    assert [effect.token for effect in woken if isinstance(effect, m.Connect)] == ["first"]
    assert sent(woken) == []
    assert sent(hear(machine, 101, 110)) == []
    effects = machine.joined(JOINED, 0.3)
    armed = effects.index(m.Send({"type": "armed", "by": "wake_word", "wake_word": "hey", "score": 0.9}))
    assert all(effects.index(effect) > armed for effect in effects if isinstance(effect, m.SendAudio))
    effects += hear(machine, 111, 120)
    assert sent(effects) == [frame(number) for number in range(98, 121)]


def test_a_conversation_that_breaks_off_goes_on_with_the_resume_token_and_loses_no_word() -> None:
    machine = talking()
    lost = machine.unreachable("broke", 1.0)
    assert [effect.token for effect in lost if isinstance(effect, m.Connect)] == ["again"]
    assert sent(hear(machine, 1, 20, 1.0)) == []
    effects = machine.joined(JOINED | {"resumed": True}, 2.0) + hear(machine, 21, 40, 2.0)
    assert sent(effects) == [frame(number) for number in range(1, 41)]
    assert (machine.stats.lost, machine.stats.resumed) == (1, 1)


def test_who_finds_no_gateway_tries_again_and_is_offline_in_time() -> None:
    machine, now, tries = Machine(), 0.0, 1
    machine.button(now)
    effects: list[m.Effect] = []
    while machine.state is State.CONNECTING and now < 60:
        effects = machine.unreachable("refused", now) or machine.tick(now, playing=False, played_ms=0)
        tries += sum(isinstance(effect, m.Connect) for effect in effects)
        now += 0.02
    assert machine.state is State.OFFLINE
    assert now <= m.FIRST_PATIENCE_S + 0.1
    assert m.BeginOffline() in effects
    assert 3 <= tries <= 8


def test_a_token_that_is_of_no_use_is_replaced_where_a_session_can_be_asked_for() -> None:
    machine = Machine("old", Terms(asks=True))
    machine.button(0.0)
    effects = machine.refused("token_expired", "it is", None, 0.1)
    assert m.Connect(None) in effects
    machine.refused("overloaded", "full", 30.0, 0.2)
    assert machine.state is State.OFFLINE


def test_when_both_are_silent_it_disarms_and_sleeps() -> None:
    machine = talking(Terms(quiet_s=6.0))
    assert machine.tick(5.9, playing=False, played_ms=0) == []
    effects = machine.tick(6.0, playing=False, played_ms=0)
    assert messages(effects) == ["disarmed"]
    assert m.Disconnect() in effects
    assert machine.state is State.ASLEEP
    assert hear(machine, 1, 10, 6.0) == []


def test_clear_drops_at_once_and_counting_goes_on_behind_it() -> None:
    machine = talking()
    assert messages(machine.tick(1.0, playing=True, played_ms=100)) == ["played"]
    assert machine.message({"type": "clear", "sent_ms": 900}, 1.0) == [m.DropPlayback(900)]
    assert messages(machine.tick(1.1, playing=True, played_ms=950)) == []
    assert messages(machine.tick(1.2, playing=True, played_ms=1000)) == ["played"]


def test_half_duplex_sends_silence_while_the_loudspeaker_plays_and_its_echo_lasts() -> None:
    machine = talking(Terms(half_duplex=True))
    assert sent(machine.microphone(frame(1), 1.0, playing=True)) == [bytes(FRAME_BYTES)]
    assert sent(machine.microphone(frame(2), 1.2, playing=False)) == [bytes(FRAME_BYTES)]
    assert sent(machine.microphone(frame(3), 1.4, playing=False)) == [frame(3)]


def test_no_token_shows_in_what_is_printed() -> None:
    assert "first" not in repr(Machine("first").button(0.0))
