import pytest

from trunkline.gateway.sip.health import Changed, TrunkHealth


def health(ping_s: float = 30.0, rand: float = 0.5) -> TrunkHealth:
    return TrunkHealth("carrier", ping_s, 100.0, lambda: rand)


def test_a_trunk_is_unknown_and_usable_until_it_answers() -> None:
    trunk = health()
    assert (trunk.state, trunk.usable) == ("unknown", True)
    assert trunk.answered(200, 103.0) == Changed("carrier", "up", "unknown", 200, 3.0)


@pytest.mark.parametrize("code", [200, 401, 403, 404, 405, 481, 486, 500, 603])
def test_any_answer_proves_that_somebody_is_there(code: int) -> None:
    trunk = health()
    trunk.answered(code, 101.0)
    assert trunk.state == "up"


@pytest.mark.parametrize("code", [0, 408, 502, 503, 504])
def test_two_misses_in_a_row_are_down_and_one_answer_is_up(code: int) -> None:
    trunk = health()
    trunk.answered(200, 101.0)
    assert trunk.answered(code, 131.0) is None
    assert trunk.state == "up"
    assert trunk.answered(code, 136.0) == Changed("carrier", "down", "up", code, 35.0)
    assert not trunk.usable
    assert trunk.answered(404, 166.0) == Changed("carrier", "up", "down", 404, 30.0)


def test_misses_that_are_not_in_a_row_change_nothing() -> None:
    trunk = health()
    trunk.answered(200, 101.0)
    assert [trunk.answered(code, 101.0 + n) for n, code in enumerate((0, 200, 0, 200, 0))] == [None] * 5
    assert trunk.state == "up"


def test_only_a_change_is_told() -> None:
    trunk = health()
    told = [trunk.answered(code, float(n)) for n, code in enumerate((200, 200, 0, 0, 0, 0, 200, 200))]
    assert [change.state for change in told if change] == ["up", "down", "up"]


def test_a_trunk_that_never_answered_is_down_as_well() -> None:
    trunk = health()
    trunk.answered(0, 101.0)
    assert trunk.answered(408, 106.0) == Changed("carrier", "down", "unknown", 408, 6.0)


def test_a_provisional_answer_decides_nothing() -> None:
    trunk = health()
    assert trunk.answered(100, 101.0) is None
    assert (trunk.state, trunk.last_code) == ("unknown", None)


@pytest.mark.parametrize(("rand", "first", "then"), [(0.0, 100.0, 127.0), (0.5, 102.5, 130.0), (1.0, 105.0, 133.0)])
def test_pings_are_spread(rand: float, first: float, then: float) -> None:
    trunk = health(rand=rand)
    assert trunk.next_ping(100.0) == pytest.approx(first)
    trunk.answered(200, 100.0)
    assert trunk.next_ping(100.0) == pytest.approx(then)


def test_after_a_first_miss_the_next_ping_comes_soon_and_when_down_at_the_usual_pace() -> None:
    trunk = health()
    trunk.answered(0, 100.0)
    assert trunk.next_ping(100.0) == pytest.approx(105.0)
    trunk.answered(0, 105.0)
    assert trunk.next_ping(105.0) == pytest.approx(135.0)


def test_a_trunk_that_is_not_pinged_never_is() -> None:
    trunk = health(ping_s=0)
    assert trunk.next_ping(100.0) is None
    assert trunk.usable
