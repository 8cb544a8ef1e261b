"""The same call on the same server, always."""

from trunkline.agents.remote.fleet import Fleet, ranked

TARGETS = [f"gpu{n}:50051" for n in range(5)]
SESSIONS = [f"call_{n}" for n in range(500)]


def nobody(target: str) -> bool:
    return False


def test_the_order_of_the_list_does_not_matter() -> None:
    assert all(ranked(session, TARGETS) == ranked(session, TARGETS[::-1]) for session in SESSIONS)


def test_calls_are_spread_over_the_servers() -> None:
    shares = [sum(ranked(session, TARGETS)[0] == target for session in SESSIONS) for target in TARGETS]
    assert all(60 <= share <= 140 for share in shares), shares


def test_a_server_that_comes_takes_only_the_calls_that_are_its_own() -> None:
    more = [*TARGETS, "gpu9:50051"]
    moved = [s for s in SESSIONS if ranked(s, more)[0] != ranked(s, TARGETS)[0]]
    assert 50 <= len(moved) <= 120
    assert all(ranked(session, more)[0] == "gpu9:50051" for session in moved)


def test_one_that_is_down_is_asked_last() -> None:
    fleet = Fleet(TARGETS)
    first = fleet.choices("call_1", nobody)[0]
    choices = fleet.choices("call_1", lambda target: target == first)
    assert (choices[-1], choices[:-1]) == (first, fleet.choices("call_1", nobody)[1:])


def test_who_has_answered_keeps_the_call_also_when_it_is_down() -> None:
    fleet = Fleet(TARGETS)
    second = fleet.choices("call_1", nobody)[1]
    fleet.keep("call_1", second)
    fleet.keep("call_1", "gpu0:50051")
    assert fleet.choices("call_1", lambda target: target == second) == [second]
    assert len(fleet.choices("call_2", nobody)) == 5


def test_without_a_session_nothing_is_kept() -> None:
    fleet = Fleet(TARGETS)
    fleet.keep("", TARGETS[0])
    assert len(fleet.choices("", nobody)) == 5


def test_what_is_kept_is_bounded() -> None:
    fleet = Fleet(TARGETS, max_sessions=2)
    for session in ("a", "b", "c"):
        fleet.keep(session, TARGETS[0])
    assert [len(fleet.choices(session, nobody)) for session in ("a", "b", "c")] == [5, 1, 1]
