"""Where a call's data may be. Plain: a call's numbers in, its place out.

A place is of the countries it names. The other party's number counts; where it tells no country (a withheld number, a
device) ours does; where that tells none either, the gateway's own region, if a place has its name. What is nobody's
place has no rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from trunkline.compliance.destinations import country_of
from trunkline.ports import Decide, Decision, Facts, Refuse
from trunkline.types import Direction

CODE = "residency"


@dataclass(frozen=True, slots=True)
class Place:
    name: str
    countries: frozenset[str]
    providers: frozenset[str] | None = None
    """Third parties who may get audio and text; None: whoever the agent has."""
    transcripts: bool = True
    """Whether what is said may be written to this gateway's database."""


@dataclass(frozen=True, slots=True)
class Residency:
    places: Sequence[Place] = ()
    home: str = ""
    """The gateway's region."""
    _by_country: Mapping[str, Place] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_country = {country: place for place in self.places for country in place.countries}
        object.__setattr__(self, "_by_country", by_country)

    def place_of(self, direction: Direction, from_number: str | None, to_number: str | None) -> Place | None:
        other, ours = (from_number, to_number) if direction == "inbound" else (to_number, from_number)
        for number in (other, ours):
            country = country_of(number) if number else None
            if country is not None:
                return self._by_country.get(country)
        return next((place for place in self.places if place.name == self.home), None)

    def guarding(self, decide: Decide) -> Decide:
        """What the rules say, and nothing that the call's place does not allow."""
        if not self.places:
            return decide

        def decided(facts: Facts, now: datetime) -> Decision:
            decision = decide(facts, now)
            if facts.door not in ("third_party", "transcript") or isinstance(decision, Refuse):
                return decision
            place = self.place_of(facts.direction, facts.from_number, facts.to_number)
            if place is None:
                return decision
            if facts.door == "transcript":
                return decision if place.transcripts else Refuse(CODE, f"transcripts of {place.name} are not kept here")
            if place.providers is None or facts.target in place.providers:
                return decision
            return Refuse(CODE, f"{facts.target} is none of the providers of {place.name}")

        return decided

    @property
    def limits_providers(self) -> bool:
        return any(place.providers is not None for place in self.places)
