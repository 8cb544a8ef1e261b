"""Slices of shared budgets."""

from decimal import Decimal

from trunkline.compliance.money.leases import Lease, Leases, Purse, nano

D = Decimal
TENANT = Purse("tenant", "default", "2026-11-28")


def test_a_slice_is_asked_for_before_the_last_is_used() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(100))
    [(purse, share)] = leases.wanted()
    assert (purse, share.nano_usd, share.limit_nano_usd) == (TENANT, nano(D(2)), nano(D(100)))
    leases.granted(purse, share, share.nano_usd)
    assert leases.wanted() == []
    assert lease.hold("a", D("0.9"))
    assert leases.wanted() == []
    assert lease.hold("a", D("1.5"))
    assert [share.nano_usd for _, share in leases.wanted()] == [nano(D("1.5"))]


def test_nobody_is_refused_while_the_store_is_away_and_all_are_when_it_has_no_more() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    assert lease.hold("a", D(5))
    [(purse, share)] = leases.wanted()
    leases.granted(purse, share, nano(D("0.4")))
    assert lease.spent_out
    assert not lease.hold("b", D("0.01"))
    assert lease.hold("a", D("4.9"))  # less is always right
    lease.settle("a", D("0.1"))
    assert lease.hold("b", D("0.3"))
    assert not lease.hold("b", D("0.31"))
    assert leases.wanted() == []


def test_what_is_left_is_given_back() -> None:
    leases = Leases()
    lease = leases.of(TENANT, D(1))
    leases.granted(*leases.wanted()[0], nano(D("0.25")))
    lease.hold("a", D("0.2"))
    assert leases.over("2026-11-29") == []
    lease.settle("a", D("0.15"))
    assert leases.over("2026-11-28") == []
    assert leases.over("2026-11-29") == [(TENANT, nano(D("0.1")))]
    assert leases.over("2026-11-29", everything=True) == []


def test_nothing_is_lost_between_usd_and_nano() -> None:
    assert nano(Lease(D("0.3")).limit) == 300_000_000
