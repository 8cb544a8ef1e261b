from trunkline.gateway.livekit.attendance import GRACE_S, RETURN_S, Attendance


def test_the_call_begins_when_both_hear_each_other() -> None:
    room = Attendance(until=100.0)
    assert room.due(1.0) is None
    room.entered(2.0)
    room.speaks = True
    assert room.due(2.1) is None
    room.hears = True
    assert room.due(2.2) == "begin"
    room.talking = True
    assert room.due(500.0) is None


def test_a_participant_that_only_writes_has_its_call_a_little_later() -> None:
    room = Attendance(until=100.0)
    room.entered(2.0)
    assert room.due(2.0 + GRACE_S - 0.01) is None
    assert room.due(2.0 + GRACE_S) == "begin"


def test_nobody_is_waited_for_beyond_the_deadline() -> None:
    room = Attendance(until=100.0)
    room.prolong(50.0)
    assert room.due(99.9) is None
    assert room.due(100.0) == "leave"


def test_who_has_left_may_come_back_for_a_while() -> None:
    room = Attendance(until=10.0)
    room.entered(5.0)
    room.hears = room.speaks = room.talking = True
    room.departed(200.0)
    assert room.due(200.0 + RETURN_S - 0.1) is None
    assert room.due(200.0 + RETURN_S) == "leave"
    room.entered(230.0)
    assert room.due(230.1) is None, "what it had subscribed to before is gone with it"
