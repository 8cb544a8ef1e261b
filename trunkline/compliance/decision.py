"""May we, and what must we say? Asked at every door. A pure function of facts, tables and `now`.

The order of what is looked at for a call out:

    destination ─► country ─► stopped ─► the company's list ─► litigators ─► national list ─► state list ─► reassigned
    ─► consent ─► hours ─► frequency ─► caps

All of it is looked at, whatever came before; the first refusal in that order is the answer, so the order of looking
changes nothing. What is not known is answered like the worst that it could be.

A call that comes is answered, with one exception: one that is known to have been for an emergency service.

Without `Terms.business` the rules of the tables are not in force, and calls owe nothing; destinations, closed
countries, the company's list and the caps hold in any case.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from trunkline.compliance.caps import Caps
from trunkline.compliance.destinations import (
    EMERGENCY,
    NO_COUNTRY,
    countries,
    country_of,
    is_emergency_in,
    is_extension,
    never_called,
    read_plans,
    readings,
)
from trunkline.compliance.duties import asked_for, duties
from trunkline.compliance.hours import closed
from trunkline.compliance.places import Where, country_zones, where
from trunkline.compliance.tables import FORMS, Calling, Frequency, Listed, Table, Tables, ours
from trunkline.errors import ConfigError
from trunkline.ports import Allow, Check, Decision, Door, Facts, Obligation, Purpose, Refuse

NOWHERE = Refuse("country_closed", "numbers that belong to no country are not called")
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
                return Allow(owed := self._duties(facts), self._looked(facts, owed)) if self.in_force else Allow()
            case "transcript" | "third_party":
                return self._kept(facts)
            case "record":
                return self._kept(facts) if self.record else Refuse("recording_off", "recording is off in the settings")
            case "transfer":
                return self._transfer(facts)
            case "dial":
                return self._dial(facts, now)

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

    def _duties(self, facts: Facts) -> tuple[Obligation, ...]:
        kept = _KEPT if self.record else _KEPT[1:]
        purpose = self._purpose(facts) if facts.direction == "outbound" else facts.purpose
        places = self._where(facts).places
        return duties(places, self.terms.region, facts.direction, purpose, kept, self.tables)

    def _looked(self, facts: Facts, owed: tuple[Obligation, ...]) -> tuple[Check, ...]:
        """Who comes in is answered: what is looked at is what is owed them."""
        number, at = facts.from_number if facts.direction == "inbound" else facts.to_number, self._where(facts)
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
        destination = never_called(facts.to_number) if facts.to_number is not None else None
        shown = masked(facts.to_number)
        asked = [_asked("destination", destination, shown), _asked("country", self._closed(facts.to_number), shown)]
        asked += self._own_lists(facts)
        if self.in_force:
            at = self._where(facts)
            rules = _Rules(facts, self._purpose(facts), at, self.tables, now)
            asked += [*rules.lists(), rules.consent(), rules.window(), rules.frequency()]
        asked += self._capped(facts)
        return _answer(asked, self._duties(facts) if self.in_force else ())

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
        rows: list[Listed] = self._rows(self.tables.lists)
        return [self._list(name, [row for row in rows if row.list == name]) for name in _CODES]

    def _list(self, name: str, rows: list[Listed]) -> _Asked:
        code, data = _CODES[name], self.tables.lists.data
        on: bool | None = getattr(self.facts.standing.lists, name)
        worst: _Asked = (None, Check(code, "pass", _said(on), data, "" if rows else "no row asks for it"))
        for row in rows:
            found = _yes_no(code, code, self._fresh(on, row), f"on the list ({row.region})", _said(on), data)
            if found[0] is not None and not self._goes_before(row):
                if found[1].answer == "refuse":
                    return found
                worst = found
        return worst

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
        rows: list[Calling] = self._rows(self.tables.calling)
        needed = max((row.form for row in rows), key=_rank, default="express_written")
        held, data = self.facts.standing.consent, self.tables.calling.data
        if held is None:
            why = "the consent ledger cannot be read"
            return Refuse("consent_unknown", why), Check("consent", "unknown", "unknown", data, why)
        refused: Refuse | None = None
        if held == "revoked":
            refused = Refuse("consent_revoked", "they took their consent back")
        elif _rank(held) < _rank(needed):
            refused = Refuse("no_consent", f"{needed} consent is needed for {self.purpose or 'an unknown purpose'}")
        return refused, Check("consent", "refuse" if refused else "pass", held, data, refused.why if refused else "")

    def window(self) -> _Asked:
        why = closed(self.where, self.purpose, self.tables, self.now)
        shown = f"{self.now:%Y-%m-%dT%H:%M}Z in {' '.join(sorted(self.where.zones)[:4]) or 'unknown'}"
        refused = Refuse("window", why) if why is not None else None
        return refused, Check("window", "refuse" if why else "pass", shown, self.tables.hours.data, why or "")

    def frequency(self) -> _Asked:
        rows: list[Frequency] = self._rows(self.tables.frequency)
        attempts, data = self.facts.standing.attempts, self.tables.frequency.data
        if attempts is None:
            why = "how often they were tried cannot be told"
            return Refuse("frequency_unknown", why), Check("frequency", "unknown", "unknown", data, why)
        full = sorted(
            f"{row.region}: {row.max} in {row.hours} h"
            for row in rows
            if sum(self.now - at < timedelta(hours=row.hours) for at in attempts) >= row.max
        )
        refused = Refuse("frequency", full[0]) if full else None
        shown = f"{len(attempts)} attempts in 30 days"
        return refused, Check("frequency", "refuse" if refused else "pass", shown, data, full[0] if full else "")

    def _rows(self, table: Table) -> list[Any]:
        """Of this purpose, wherever they may be."""

        def find() -> list[Any]:
            fitting = (row for place in self.where.places for row in self.tables.rows(table, place))
            return list(dict.fromkeys(r for r in fitting if self.purpose is None or r.purpose in (None, self.purpose)))

        return self.tables.remembered((table.name, self.where.regions, self.purpose), find)


def _answer(asked: list[_Asked], owed: tuple[Obligation, ...] = ()) -> Decision:
    """The first refusal by the order above."""
    checks = tuple(check for _, check in asked)
    refused = next((refuse for refuse, _ in asked if refuse is not None), None)
    return Allow(owed, checks) if refused is None else replace(refused, checks=checks)


def _asked(name: str, refused: Refuse | None, shown: str) -> _Asked:
    return refused, Check(name, "refuse" if refused else "pass", shown, "", refused.why if refused else "")


def _yes_no(name: str, code: str, on: bool | None, why: str, shown: str, data: str = "") -> _Asked:
    if on is None:
        unknown = "the list is not there, too old, or cannot be read"
        return Refuse(f"{code}_unknown", unknown), Check(name, "unknown", shown, data, unknown)
    if on:
        return Refuse(code, why), Check(name, "refuse", shown, data, why)
    return None, Check(name, "pass", shown, data)


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


def _rank(form: str | None) -> int:
    return FORMS.index(form) if form in FORMS else 0


def masked(number: str | None) -> str:
    """As a check may show it: enough to tell two apart, not enough to call."""
    if not number:
        return "unknown"
    return f"{number[:5]}...{number[-2:]}" if len(number) > 7 else number


def _suggested(country: str | None) -> str:
    return country if country is not None and country != NO_COUNTRY else "US"
