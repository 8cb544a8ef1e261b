"""May we, and what must we say? Asked at every door. A pure function of facts, tables and `now`.

The order of what is looked at for a call out:

    destination ─► country ─► stopped ─► the company's list ─► litigators ─► national list ─► state list ─► reassigned
    ─► consent ─► hours ─► frequency ─► callback ─► caps

All of it is looked at, whatever came before; the first refusal in that order is the answer, so the order of looking
changes nothing. What is not known is answered like the worst that it could be.

A call that comes is answered, with one exception: one that is known to have been for an emergency service.

Without `Terms.business` the rules of the tables are not in force, and calls owe nothing; destinations, closed
countries, the company's list and the caps hold in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Any, TypeVar, get_args

from trunkline.compliance.caps import Caps
from trunkline.compliance.destinations import (
    EMERGENCY,
    countries,
    country_of,
    example_of,
    is_emergency_in,
    is_extension,
    never_called,
    readings,
)
from trunkline.compliance.duties import asked_for, duties
from trunkline.compliance.hours import closed
from trunkline.compliance.places import Where, country_zones, where
from trunkline.compliance.tables import FORMS, Calling, Frequency, Listed, Table, Tables, ours
from trunkline.errors import ConfigError
from trunkline.plans import NO_COUNTRY, read_plans
from trunkline.ports import Allow, Check, Decision, Door, Facts, Obligation, Purpose, Refuse
from trunkline.types import DEFAULT_TENANT

T = TypeVar("T")
NOWHERE = Refuse("country_closed", "numbers that belong to no country are not called")
CALLBACK_UNSET = Refuse("callback_unset", "compliance.callback_number is not set, and the call must name one")
FORWARDED = Refuse("emergency", "an emergency call was sent on to us: nobody here can help")
NOT_PLAIN = Refuse("ambiguous_number", "a target's digits can be a number abroad: write it as +COUNTRY NUMBER")
SKEW = timedelta(minutes=5)  # between our clock and that of whoever drew a list
_KEPT: tuple[Door, ...] = ("record", "transcript", "third_party")
_CODES = {"litigator": "litigator", "national": "national_dnc", "state": "state_dnc", "reassigned": "reassigned"}


@dataclass(frozen=True, slots=True)
class Terms:
    """Who we are to the law."""

    business: str = ""
    """The legal name. With it the tables' rules are in force."""
    region: str | None = None
    """Where this end is."""
    by_address: bool = False
    """A number alone tells the country, not the place."""
    purpose: Purpose | None = None
    """Of calls out that name none."""
    callback: bool = False
    """Whether there is a number that people may call back. Without one no call goes out that must name it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Raises ConfigError for a country that has no numbers (the United Kingdom is GB)."""

    record: bool = False
    """Whether calls may be recorded at all."""
    outbound_allow: tuple[str, ...] = ()
    """Countries that may be dialled, as ISO 3166 letters. None: dialling is closed."""
    terms: Terms = field(default_factory=Terms)
    caps: Caps = field(default_factory=Caps)
    tables: Tables = field(default_factory=ours, repr=False)

    def __post_init__(self) -> None:
        for country in self.outbound_allow:
            if country not in countries():
                raise ConfigError("outbound.allow", country, "two-letter country codes, such as US, GB")
        read_plans()
        country_zones()

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """`ports.Decide`. `now` is UTC."""
        match facts.door:
            case "answer":
                if self._was_emergency(facts):
                    return FORWARDED
                return self._answered(facts) if self.in_force else Allow()
            case "transcript" | "third_party":
                return self._kept(facts)
            case "record":
                return self._kept(facts) if self.record else Refuse("recording_off", "recording is off in the settings")
            case "transfer":
                return self._transfer(facts)
            case "dial":
                return self._dial(facts, now)

    def read_ahead(self) -> None:
        """What the first call to a place, or from our own country, would wait for: its rules, and its numbering plan. A
        tenth of a second for the United States."""
        home = example_of((self.terms.region or "").partition("-")[0])
        self.decide(Facts("answer", DEFAULT_TENANT, "inbound", home), datetime(2026, 11, 23, 17, tzinfo=UTC))
        by_region = {region: f"+1{code}5550100" for code, (region, _) in self.tables.area_codes.items()}
        parts = [number for region, number in by_region.items() if region.partition("-")[0] in self.outbound_allow]
        for number in (*filter(None, map(example_of, self.outbound_allow)), *parts):
            for purpose in (None, *get_args(Purpose)):
                facts = Facts("dial", DEFAULT_TENANT, "outbound", None, number, purpose=purpose)
                self.decide(facts, datetime(2026, 11, 23, 17, tzinfo=UTC))

    def _was_emergency(self, facts: Facts) -> bool:
        """Someone dialled for help, and their line was turned to ours: answered here, nobody would come. Whoever
        sent it on can do better."""
        called = (facts.forwarded_by, facts.to_number) if facts.direction == "inbound" else ()
        near = self._near(facts)
        return any(
            is_emergency_in(each, near) if not each.startswith("+") else never_called(each) is EMERGENCY
            for each in called
            if each
        )

    def _near(self, facts: Facts) -> list[str]:
        """Where digits without + may be dialled."""
        ours = facts.to_number if facts.direction == "inbound" else facts.from_number
        region = (self.terms.region or "").partition("-")[0]
        found = {country_of(ours) if ours else None, region, *self.outbound_allow}
        return sorted(country for country in found if country and country != NO_COUNTRY)

    @property
    def in_force(self) -> bool:
        return bool(self.terms.business)

    # --- what is owed ---

    def _duties(self, facts: Facts, at: Where) -> tuple[Obligation, ...]:
        kept = _KEPT if self.record else _KEPT[1:]
        purpose = self._purpose(facts) if facts.direction == "outbound" else facts.purpose
        return duties(at.places, self.terms.region, facts.direction, purpose, kept, self.tables)

    def _answered(self, facts: Facts) -> Allow:
        """Who comes in is answered: what is looked at is what is owed them."""
        at = self._where(facts)
        owed = self._duties(facts, at)
        return Allow(owed, self._looked(facts, at, owed))

    def _looked(self, facts: Facts, at: Where, owed: tuple[Obligation, ...]) -> tuple[Check, ...]:
        number = facts.from_number if facts.direction == "inbound" else facts.to_number
        places = " ".join(at.regions) or "unknown"
        asked = next((o.basis for o in owed if o.kind == "ask_consent"), "one party")
        return (
            Check("caller", "pass" if number else "unknown", masked(number)),
            Check("place", "pass" if at.regions else "unknown", f"{places}, ours {self.terms.region or 'unknown'}"),
            Check("disclosure", "pass", " ".join(o.kind for o in owed), self.tables.disclosure.data),
            Check("recording", "pass", asked, self.tables.recording.data),
        )

    def _kept(self, facts: Facts) -> Decision:
        if not self.in_force:
            return Allow()
        basis = asked_for((*self._where(facts).places, self.terms.region), self.tables)
        return Allow() if basis is None else Allow((Obligation("ask_consent", (facts.door,), basis),))

    def _where(self, facts: Facts) -> Where:
        """Of the other party."""
        number = facts.from_number if facts.direction == "inbound" else facts.to_number
        standing = facts.standing
        return where(number, standing.region, standing.zone, self.tables, self.terms.by_address)

    def _purpose(self, facts: Facts) -> Purpose | None:
        return facts.purpose or self.terms.purpose

    # --- calls out ---

    def _transfer(self, facts: Facts) -> Decision:
        """A target is the admin's own choice, who expects the call: no list and no hours, but destinations and caps."""
        if not facts.target:
            return Refuse("no_target", "a transfer goes to a named target")
        number = facts.target_number
        if number is None:
            return Allow()
        refused = self._never_put_through(number, facts)
        place = Check(
            "destination", "refuse" if refused else "pass", masked(number), "", refused.why if refused else ""
        )
        if is_extension(number):
            return _answer([(refused, place)])  # nobody is paid for it
        return _answer([(refused, place), *self._capped(facts)[1:]])  # a desk is called as often as callers want it

    def _never_put_through(self, number: str, facts: Facts) -> Refuse | None:
        if number.startswith("+"):
            return never_called(number) or self._within_reach(number, facts)
        near = self._near(facts)
        if is_emergency_in(number, near, outside_line=True):
            return EMERGENCY
        if is_extension(number):
            return None
        meant = readings(number, near)
        refused = next((refuse for each in sorted(meant) if (refuse := never_called(each)) is not None), None)
        if refused is None and (not meant or any(self._within_reach(each, facts) for each in meant)):
            return NOT_PLAIN
        return refused

    def _within_reach(self, number: str, facts: Facts) -> Refuse | None:
        """Toll fraud goes abroad: a target is in the country of our own number, or in one that is open."""
        country = country_of(number)
        if country is None:
            return Refuse("invalid_number", "the target's number is not a valid one as +COUNTRY NUMBER")
        ours = facts.to_number if facts.direction == "inbound" else facts.from_number
        home = country_of(ours) if ours is not None else None
        if country == NO_COUNTRY:
            return NOWHERE
        if country == home or country in self.outbound_allow:
            return None
        return Refuse(
            "country_closed", f"outbound.allow = {self.outbound_allow!r}: add {country} to put callers through"
        )

    def _dial(self, facts: Facts, now: datetime) -> Decision:
        if facts.direction != "outbound":  # whom an inbound call has dialled too: the one called is judged
            facts = replace(facts, direction="outbound")
        destination = never_called(facts.to_number) if facts.to_number is not None else None
        shown = masked(facts.to_number)
        asked = [_asked("destination", destination, shown), _asked("country", self._closed(facts.to_number), shown)]
        asked += self._own_lists(facts)
        owed: tuple[Obligation, ...] = ()
        if self.in_force:
            at = self._where(facts)
            rules = _Rules(facts, self._purpose(facts), at, self.tables, now)
            owed = self._duties(facts, at)
            asked += [*rules.lists(), rules.consent(), rules.window(), rules.frequency(), self._callback(owed)]
        asked += self._capped(facts)
        return _answer(asked, owed)

    def _callback(self, owed: tuple[Obligation, ...]) -> "_Asked":
        """What must be said and cannot be is no call."""
        needed = any(each.kind == "say_callback" for each in owed)
        refused = CALLBACK_UNSET if needed and not self.terms.callback else None
        return _asked_again("callback", refused, "set" if self.terms.callback else "not set")

    def _closed(self, number: str | None) -> Refuse | None:
        country = country_of(number) if number is not None else None
        if not self.outbound_allow:
            return Refuse("outbound_closed", f"outbound.allow = (): add the country, such as {_suggested(country)}")
        if country is None:
            return Refuse("invalid_number", "a valid number as +COUNTRY NUMBER without spaces, such as +14155550100")
        if country == NO_COUNTRY:
            return NOWHERE
        if country not in self.outbound_allow:
            return Refuse("country_closed", f"outbound.allow = {self.outbound_allow!r}: add {country} to call there")
        return None

    def _own_lists(self, facts: Facts) -> "list[_Asked]":
        lists = facts.standing.lists
        return [
            _yes_no("stopped", "stopped", lists.stopped, "calls out are stopped", _said(lists.stopped)),
            _yes_no("company_dnc", "company_dnc", lists.company, "they asked not to be called", _said(lists.company)),
        ]

    def _capped(self, facts: Facts) -> "list[_Asked]":
        caps, traffic = self.caps, facts.traffic
        rows = (
            ("number_cap", caps.number, None if traffic is None else traffic.number),
            ("country_cap", caps.country, None if traffic is None else traffic.country),
            ("total_cap", caps.total, None if traffic is None else traffic.total),
        )
        return [_capped(name, most, count) for name, most, count in rows]


_Asked = tuple[Refuse | None, Check]


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the tables say of one call out."""

    facts: Facts
    purpose: Purpose | None
    where: Where
    tables: Tables
    now: datetime

    def lists(self) -> list[_Asked]:
        return [self._list(name, rows) for name, rows in self._remembered("lists", self._by_name)]

    def _by_name(self) -> tuple[tuple[str, tuple[Listed, ...]], ...]:
        """Of rows that differ in their region alone one is enough."""
        rows: list[Listed] = sorted(self._rows(self.tables.lists), key=lambda row: row.region)
        distinct = {(row.list, row.unless, row.max_age_days): row for row in reversed(rows)}.values()
        by_region = sorted(distinct, key=lambda row: row.region)
        return tuple((name, tuple(row for row in by_region if row.list == name)) for name in _CODES)

    def _list(self, name: str, rows: tuple[Listed, ...]) -> _Asked:
        code, data = _CODES[name], self.tables.lists.data
        on: bool | None = getattr(self.facts.standing.lists, name)
        unknown = False
        for row in rows:
            fresh = self._fresh(on, row)
            if fresh is False or self._goes_before(row):
                continue
            if fresh:
                return _yes_no(code, code, True, f"on the list ({row.region})", _said(on), data)
            unknown = True
        if unknown:
            return _yes_no(code, code, None, "", _said(on), data)
        return None, _passed(code, _said(on), data, "" if rows else "no row asks for it")

    def _fresh(self, on: bool | None, row: Listed) -> bool | None:
        """An old copy is still believed where it says yes."""
        if on or row.max_age_days is None:
            return on
        drawn = self.facts.standing.lists.as_of.get(row.list)
        fresh = drawn is not None and drawn - SKEW <= self.now <= drawn + timedelta(days=row.max_age_days)
        return on if fresh else None

    def _goes_before(self, row: Listed) -> bool:
        return row.unless is not None and _rank(self.facts.standing.consent) >= _rank(row.unless)

    def consent(self) -> _Asked:
        held, data = self.facts.standing.consent, self.tables.calling.data
        return _consent(self._remembered("form needed", self._needed), held, self.purpose, data)

    def _needed(self) -> str:
        """Where no row speaks of a purpose that it may be, at a place where they may be: the written one."""
        purposes: tuple[Purpose, ...] = get_args(Purpose) if self.purpose is None else (self.purpose,)
        forms: list[str] = []
        for place, purpose in product(self.where.places, purposes):
            rows: tuple[Calling, ...] = self.tables.rows(self.tables.calling, place)
            forms += [row.form for row in rows if row.purpose in (None, purpose)] or ["express_written"]
        return max(forms, key=_rank)

    def window(self) -> _Asked:
        why = closed(self.where, self.purpose, self.tables, self.now)
        shown = f"{self.now.isoformat()[:16]}Z in {_some(self.where.zones)}"
        refused = Refuse("window", why) if why is not None else None
        return refused, Check("window", "refuse" if why else "pass", shown, self.tables.hours.data, why or "")

    def frequency(self) -> _Asked:
        attempts, data = self.facts.standing.attempts, self.tables.frequency.data
        if not attempts:
            return _tried(None if attempts is None else 0, None, data)
        rows: list[Frequency] = self._remembered("frequency rows", lambda: self._rows(self.tables.frequency))
        full = sorted(
            f"{row.region}: {row.max} in {row.hours} h"
            for row in rows
            if sum(self.now - at < timedelta(hours=row.hours) for at in attempts) >= row.max
        )
        return _tried(len(attempts), full[0] if full else None, data)

    def _remembered(self, what: str, make: Callable[[], T]) -> T:
        """By the places and the purpose, on which all rows depend."""
        return self.tables.remembered((what, self.where.regions, self.purpose), make)

    def _rows(self, table: Table) -> list[Any]:
        """Of this purpose, wherever they may be."""
        fitting = (row for place in self.where.places for row in self.tables.rows(table, place))
        return list(dict.fromkeys(r for r in fitting if self.purpose is None or r.purpose in (None, self.purpose)))


def _answer(asked: list[_Asked], owed: tuple[Obligation, ...] = ()) -> Decision:
    """The first refusal by the order above."""
    checks = tuple(check for _, check in asked)
    refused = next((refuse for refuse, _ in asked if refuse is not None), None)
    return Allow(owed, checks) if refused is None else Refuse(refused.code, refused.why, checks)


def _asked(name: str, refused: Refuse | None, shown: str) -> _Asked:
    return refused, Check(name, "refuse" if refused else "pass", shown, "", refused.why if refused else "")


@lru_cache(maxsize=64)
def _asked_again(name: str, refused: Refuse | None, shown: str) -> _Asked:
    return _asked(name, refused, shown)


@lru_cache(maxsize=1024)
def _consent(needed: str, held: str | None, purpose: Purpose | None, data: str) -> _Asked:
    if held is None:
        why = "the consent ledger cannot be read"
        return Refuse("consent_unknown", why), Check("consent", "unknown", "unknown", data, why)
    refused: Refuse | None = None
    if held == "revoked":
        refused = Refuse("consent_revoked", "they took their consent back")
    elif _rank(held) < _rank(needed):
        refused = Refuse("no_consent", f"{needed} consent is needed for {purpose or 'an unknown purpose'}")
    return refused, Check("consent", "refuse" if refused else "pass", held, data, refused.why if refused else "")


@lru_cache(maxsize=1024)
def _tried(times: int | None, full: str | None, data: str) -> _Asked:
    """`full`: which row allows no more."""
    if times is None:
        why = "how often they were tried cannot be told"
        return Refuse("frequency_unknown", why), Check("frequency", "unknown", "unknown", data, why)
    refused = Refuse("frequency", full) if full is not None else None
    return refused, Check(
        "frequency", "refuse" if refused else "pass", f"{times} attempts in 30 days", data, full or ""
    )


@lru_cache(maxsize=1024)
def _some(zones: tuple[str, ...]) -> str:
    return " ".join(sorted(zones)[:4]) or "unknown"


@lru_cache(maxsize=1024)
def _passed(name: str, shown: str, data: str, why: str) -> Check:
    return Check(name, "pass", shown, data, why)


@lru_cache(maxsize=1024)
def _yes_no(name: str, code: str, on: bool | None, why: str, shown: str, data: str = "") -> _Asked:
    if on is None:
        unknown = "the list is not there, too old, or cannot be read"
        return Refuse(f"{code}_unknown", unknown), Check(name, "unknown", shown, data, unknown)
    if on:
        return Refuse(code, why), Check(name, "refuse", shown, data, why)
    return None, Check(name, "pass", shown, data)


@lru_cache(maxsize=4096)
def _capped(name: str, most: int, count: int | None) -> _Asked:
    if count is None:
        why = "calls are not counted"
        return Refuse(f"{name}_unknown", why), Check(name, "unknown", "unknown", f"at most {most}", why)
    if count >= most:
        why = f"{most} calls within an hour"
        return Refuse(name, why), Check(name, "refuse", str(count), f"at most {most}", why)
    return None, Check(name, "pass", str(count), f"at most {most}")


def _said(on: bool | None) -> str:
    return "unknown" if on is None else "listed" if on else "not listed"


_RANKS: dict[str | None, int] = {form: rank for rank, form in enumerate(FORMS)}


def _rank(form: str | None) -> int:
    return _RANKS.get(form, 0)


def masked(number: str | None) -> str:
    """As a check may show it: enough to tell two apart, not enough to call."""
    if not number:
        return "unknown"
    return f"{number[:5]}...{number[-2:]}" if len(number) > 7 else number


def _suggested(country: str | None) -> str:
    return country if country is not None and country != NO_COUNTRY else "US"
