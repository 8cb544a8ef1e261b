"""Slices of shared budgets."""

from decimal import Decimal

from trunkline.compliance.money.leases import Lease, Leases, Purse, nano

D = Decimal
TENANT = Purse("tenant", "default", "2026-11-28")


def test_a_slice_is_asked_for_before_the_last_is_used() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(100))
    [(purse, share)] = leases.wanted(0.0)
    assert (purse, share.nano_usd, share.limit_nano_usd) == (TENANT, nano(D(2)), nano(D(100)))
    leases.granted(purse, share, share.nano_usd, 0.0)
    assert leases.wanted(0.0) == []
    assert lease.hold("a", D("0.9"))
    assert leases.wanted(0.0) == []
    assert lease.hold("a", D("1.5"))
    assert [share.nano_usd for _, share in leases.wanted(0.0)] == [nano(D("1.5"))]


def test_nobody_is_refused_while_the_store_is_away_and_all_are_when_it_has_no_more() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    assert lease.hold("a", D(5))
    [(purse, share)] = leases.wanted(0.0)
    leases.granted(purse, share, nano(D("0.4")), 0.0)
    assert lease.spent_out
    assert not lease.hold("b", D("0.01"))
    assert lease.hold("a", D("4.9"))  # less is always right
    lease.settle("a", D("0.1"))
    assert lease.hold("b", D("0.3"))
    assert not lease.hold("b", D("0.31"))
    assert leases.wanted(0.0) == []


def test_new_calls_come_in_on_one_slice_that_was_not_granted() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    calls = 0
    while lease.admits(D("0.02")) and lease.hold(f"c{calls}", D("0.02")):
        calls += 1
    assert calls == 12  # 0.25: a quarter of it
    assert lease.hold("c0", D("0.5"))  # who is there goes on
    [(purse, share)] = leases.wanted(0.0)
    leases.granted(purse, share, share.nano_usd, 0.0)
    assert lease.admits(D("0.02"))


def test_the_first_call_of_a_small_budget_need_not_wait_for_the_store() -> None:
    assert Leases().of(TENANT, D("0.0173")).admits(D("0.0173"))


def test_a_store_that_had_no_more_is_asked_again_as_others_give_back() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    lease.hold("a", D("0.3"))
    [(purse, share)] = leases.wanted(0.0)
    leases.granted(purse, share, nano(D("0.3")), 0.0)
    assert not lease.admits(D("0.1"))
    assert leases.wanted(29.0) == []
    [(purse, share)] = leases.wanted(30.0)
    leases.granted(purse, share, share.nano_usd, 30.0)
    assert lease.admits(D("0.1"))


def test_what_is_left_is_given_back() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    leases.granted(*leases.wanted(0.0)[0], nano(D("0.25")), 0.0)
    lease.hold("a", D("0.2"))
    assert leases.over("2026-11-29") == []
    lease.settle("a", D("0.15"))
    assert leases.over("2026-11-28") == []
    assert leases.over("2026-11-29") == [(TENANT, nano(D("0.1")))]
    assert leases.over("2026-11-29", everything=True) == []


def test_nothing_is_lost_between_usd_and_nano() -> None:
    assert nano(Lease(D("0.3")).limit) == 300_000_000
