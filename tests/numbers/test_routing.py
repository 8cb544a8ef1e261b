from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.numbers.patterns import Match
from trunkline.numbers.resources import (
    ByAgents,
    ByBusy,
    ByMessage,
    ByNumber,
    Hours,
    Number,
    Queue,
    Route,
    Rule,
    Share,
    Tenant,
)
from trunkline.numbers.routing import (
    AgentVersion,
    Answered,
    ByOwnAgent,
    ByVersions,
    Caller,
    Declined,
    View,
    answer,
    draw_of,
    verdict_of,
    without_agents,
)
from trunkline.ports import CallerVerdict
from trunkline.types import TenantId

TENANT = TenantId("acme")
OURS, CALLER, SPARE = "+14155550100", "+14155550142", "+14155550199"
RECEPTION = ByAgents(agents=(Share(agent="reception"),))
MORNING = datetime(2026, 12, 1, 10, tzinfo=UTC)
NIGHT = datetime(2026, 12, 1, 22, tzinfo=UTC)
OFFICE = Hours(name="office", zone="UTC", weekly={"tue": ("09:00-17:00",)})


def view(route: Route | None = None, **changes: Any) -> View:
    changes.setdefault("number", Number(number=OURS, route=route.name if route else None))
    changes.setdefault("published", {"reception": 3, "sales": 1})
    return View(TENANT, route=route, hours={"office": OFFICE}, **changes)


def route(answer: Any = RECEPTION, **changes: Any) -> Route:
    return Route(name="main", answer=answer, **changes)


def ask(seen: View, number: str | None = CALLER, at: datetime = MORNING, **changes: Any) -> Answered:
    return answer(seen, Caller(number, at, **changes))


def test_the_routes_agent_answers_with_its_published_version() -> None:
    found = ask(view(route()))
    assert found.by == ByVersions((AgentVersion("reception", 3),))
    assert (found.tenant, found.route) == (TENANT, "main")
    assert found.why == (f"{OURS} is a number of tenant acme, with route main", "agent reception@3 answers")


def test_a_number_without_a_route_is_the_gateways_own_agents() -> None:
    assert ask(view()).by == ByOwnAgent()
    assert ask(View(TENANT)).by == ByOwnAgent()
    assert "in no inventory" in ask(View(TENANT)).why[0]


def test_a_number_without_a_route_may_have_agents() -> None:
    number = Number(number=OURS, agents=(Share(agent="sales"),))
    assert ask(view(number=number)).by == ByVersions((AgentVersion("sales", 1),))


def test_a_pattern_says_which_it_was() -> None:
    found = ask(replace(view(route(), number=None), match=Match("main", "+1415*")))
    assert found.by == ByVersions((AgentVersion("reception", 3),))
    assert found.why[0].endswith("route main matches it by +1415*")


def test_the_outage_switch_is_before_all_else() -> None:
    seen = view(route(), number=Number(number=OURS, enabled=False))
    found = ask(replace(seen, terms=Tenant(outage=True, outage_text="Sorry.")))
    assert found.by == ByMessage(text="Sorry.")
    found = ask(replace(seen, terms=Tenant(outage=True, outage_number=SPARE)))
    assert found.by == ByNumber(number=SPARE)


def test_a_number_that_is_switched_off_is_nobodys() -> None:
    found = ask(view(route(), number=Number(number=OURS, enabled=False)))
    assert isinstance(found.by, Declined)
    assert found.by.code == "unknown_number"


def test_callers_of_other_countries_do_not_reach_a_tenant_that_names_its_own() -> None:
    countries = {"+1": "US", "+4": "DE"}
    seen = view(route(), terms=Tenant(countries=("US",)))

    def from_(number: str | None) -> Answered:
        return ask(seen, number, country_of=lambda number: countries.get(number[:2]))

    assert isinstance(from_(CALLER).by, ByVersions)
    assert isinstance(from_(None).by, ByVersions)  # withheld: of no country
    for number in ("+4930901820", "+88299999"):
        refused = from_(number).by
        assert isinstance(refused, Declined)
        assert refused.code == "country"


def test_the_first_rule_that_holds_answers() -> None:
    vip = Rule(name="vip", callers=("+1415555014*",), answer=ByNumber(number=SPARE))
    night = Rule(name="late", hours="office", answer=ByBusy())
    seen = view(route(rules=(vip, night)))
    assert ask(seen).by == ByNumber(number=SPARE)
    found = ask(seen, "+14155550170")
    assert found.by == ByBusy()
    assert found.why[1:3] == (
        "rule vip does not hold: the caller's number is none of its callers",
        "rule late holds",
    )
    assert ask(seen, "+14155550170", NIGHT).by == ByVersions((AgentVersion("reception", 3),))


def test_a_rule_needs_all_that_it_says() -> None:
    rule = Rule(name="forged", callers=("+1*",), verdicts=("invalid", "unsigned"), hours="office", answer=ByBusy())
    seen = view(route(rules=(rule,)))
    assert ask(seen, verdict="invalid").by == ByBusy()
    for miss in (ask(seen), ask(seen, "+4930901820", verdict="invalid"), ask(seen, at=NIGHT, verdict="invalid")):
        assert miss.by == ByVersions((AgentVersion("reception", 3),))
    assert "the caller's number is unknown, not invalid or unsigned" in ask(seen).why[1]


def test_who_withholds_their_number_can_be_a_rules_caller() -> None:
    seen = view(route(rules=(Rule(name="hidden", callers=("anonymous",), answer=ByBusy()),)))
    assert ask(seen, None).by == ByBusy()
    assert ask(seen).by != ByBusy()
    assert ask(view(route(rules=(Rule(name="us", callers=("+1*",), answer=ByBusy()),))), None).by != ByBusy()


def test_outside_of_hours_the_route_is_closed() -> None:
    closed = route(hours="office", closed=ByMessage(text="We are closed."))
    assert isinstance(ask(view(closed)).by, ByVersions)
    assert ask(view(closed), at=NIGHT).by == ByMessage(text="We are closed.")
    assert isinstance(ask(view(route(hours="office")), at=NIGHT).by, ByVersions)  # None: as when open


def test_a_number_has_agents_of_its_own_in_place_of_its_routes() -> None:
    number = Number(number=OURS, route="main", agents=(Share(agent="sales", version=7),))
    assert ask(view(route(), number=number)).by == ByVersions((AgentVersion("sales", 7),))
    assert ask(view(route(ByBusy()), number=number)).by == ByBusy()  # the route has no agents
    closed = route(hours="office", closed=ByAgents(agents=(Share(agent="reception"),)))
    assert ask(view(closed, number=number), at=NIGHT).by == ByVersions((AgentVersion("reception", 3),))


def test_an_agent_without_a_published_version_has_no_share() -> None:
    shares = ByAgents(agents=(Share(agent="new", weight=900), Share(agent="sales", weight=100)))
    found = ask(view(route(shares), published={"new": None, "sales": 1}), draw=0.0)
    assert found.by == ByVersions((AgentVersion("sales", 1),))
    assert "agent new has no published version" in found.why


def test_where_no_agent_may_answer_callers_go_to_the_fallback_number() -> None:
    nobody = view(route(fallback_number=SPARE), published={})
    assert ask(nobody).by == ByNumber(number=SPARE)
    refused = ask(view(route(), published={})).by
    assert isinstance(refused, Declined)
    assert refused.code == "no_agent"
    late = without_agents(ask(view(route(fallback_number=SPARE))), "reception@3 cannot start")
    assert late.by == ByNumber(number=SPARE)
    assert late.why[-2:] == ("reception@3 cannot start", "to the fallback number")


def test_the_others_stand_behind_the_one_that_was_drawn() -> None:
    shares = ByAgents(agents=(Share(agent="a"), Share(agent="b"), Share(agent="c"), Share(agent="d", weight=0)))
    seen = view(route(shares), published=dict.fromkeys("abcd", 1))
    assert ask(seen, draw=0.5).by == ByVersions(tuple(AgentVersion(name, 1) for name in "bac"))


def test_a_numbers_limits_are_before_its_routes_and_its_tenants() -> None:
    queue = Queue()
    number = Number(number=OURS, max_calls=3, reserved_inbound=1, overflow_number="+14155550101")
    of_route = route(max_calls=9, queue=queue, fallback_number="+14155550102", overflow_number=SPARE)
    terms = Tenant(max_calls=50, reserved_inbound=5, fallback_number=SPARE)
    found = ask(view(of_route, number=number, terms=terms))
    assert (found.max_calls, found.reserved_inbound) == (3, 1)
    assert (found.overflow_number, found.fallback_number) == ("+14155550101", "+14155550102")
    assert (found.tenant_max_calls, found.tenant_reserved_inbound, found.queue) == (50, 5, queue)
    found = ask(view(route(max_calls=9, reserved_inbound=2), terms=terms))
    assert (found.max_calls, found.reserved_inbound) == (9, 2)
    assert (found.overflow_number, found.fallback_number) == (None, SPARE)


def test_what_stir_says_in_the_words_of_routes() -> None:
    assert verdict_of(None) == "unknown"
    assert verdict_of(CallerVerdict("passed")) == "verified"
    assert verdict_of(CallerVerdict("failed")) == "invalid"
    assert verdict_of(CallerVerdict("none")) == "unsigned"


def test_a_call_that_comes_back_has_the_same_draw() -> None:
    assert draw_of("CA1") == draw_of("CA1") != draw_of("CA2")
    draws = [draw_of(f"CA{n}") for n in range(4000)]
    assert all(0 <= draw < 1 for draw in draws)
    tenths = Counter(int(draw * 10) for draw in draws)
    assert all(320 < count < 480 for count in tenths.values())  # 400, and four deviations


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=10).filter(any))
def test_the_split_keeps_its_weights(weights: list[int]) -> None:
    """Draws at even distances: each share has as many as its weight says, give or take one at each of its ends."""
    shares = ByAgents(agents=tuple(Share(agent=f"a{n}", version=1, weight=w) for n, w in enumerate(weights)))
    seen, draws = view(route(shares)), 200
    drawn: Counter[str] = Counter()
    for n in range(draws):
        by = ask(seen, draw=(n + 0.5) / draws).by
        assert isinstance(by, ByVersions)
        drawn[by.versions[0].agent] += 1
        assert {v.agent for v in by.versions} == {f"a{n}" for n, weight in enumerate(weights) if weight}
    for n, weight in enumerate(weights):
        assert abs(drawn[f"a{n}"] - draws * weight / sum(weights)) <= 1


published: st.SearchStrategy[Mapping[str, int | None]] = st.fixed_dictionaries(
    {name: st.none() | st.integers(1, 5) for name in ("a", "b", "c")}
)


@given(
    st.lists(
        st.builds(
            Share, agent=st.sampled_from("abc"), version=st.none() | st.integers(1, 5), weight=st.integers(0, 100)
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda shares: any(share.weight for share in shares)),
    published,
    st.floats(0, 1, exclude_max=True),
)
def test_only_versions_that_are_pinned_or_published_answer(
    shares: list[Share], versions: Mapping[str, int | None], draw: float
) -> None:
    by = ask(view(route(ByAgents(agents=tuple(shares))), published=versions), draw=draw).by
    may = {(s.agent, s.version or versions[s.agent]) for s in shares if s.weight} - {(name, None) for name in "abc"}
    if isinstance(by, ByVersions):
        assert {(v.agent, v.version) for v in by.versions} == may
    else:
        assert isinstance(by, Declined)
        assert not may
