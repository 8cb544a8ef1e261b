"""May we? Asked at every door. This policy is a simple one: answering is open, recording is by settings, dialling is
closed until countries are opened, callers are put through within our number's country and those that are open;
emergency and premium numbers are refused whatever is open."""

from dataclasses import dataclass
from datetime import datetime

from trunkline.compliance.destinations import NO_COUNTRY, countries, country_of, never_called, read_plans
from trunkline.errors import ConfigError
from trunkline.ports import Allow, Decision, Facts, Refuse

NOWHERE = Refuse("country_closed", "numbers that belong to no country are not called")


@dataclass(frozen=True, slots=True)
class Policy:
    """Raises ConfigError for a country that has no numbers (the United Kingdom is GB)."""

    record: bool = False
    """Whether calls may be recorded at all."""
    outbound_allow: tuple[str, ...] = ()
    """Countries that may be dialled, as ISO 3166 letters. None: dialling is closed."""

    def __post_init__(self) -> None:
        for country in self.outbound_allow:
            if country not in countries():
                raise ConfigError("outbound.allow", country, "two-letter country codes, such as US, GB")
        read_plans()

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """`ports.Decide`. `now` is UTC; windows of the day will need it."""
        match facts.door:
            case "answer" | "transcript" | "third_party":
                return Allow()
            case "transfer":
                return self._transfer(facts)
            case "record":
                return Allow() if self.record else Refuse("recording_off", "recording is off in the settings")
            case "dial":
                return self._dial(facts.to_number)

    def _transfer(self, facts: Facts) -> Decision:
        if not facts.target:
            return Refuse("no_target", "a transfer goes to a named target")
        number = facts.target_number
        return Allow() if number is None else never_called(number) or self._within_reach(number, facts) or Allow()

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

    def _dial(self, number: str | None) -> Decision:
        if number is not None and (refused := never_called(number)):
            return refused
        country = country_of(number) if number is not None else None
        if not self.outbound_allow:
            return Refuse("outbound_closed", f"outbound.allow = (): add the country, such as {_suggested(country)}")
        if country is None:
            return Refuse("invalid_number", "a valid number as +COUNTRY NUMBER without spaces, such as +14155550100")
        if country == NO_COUNTRY:
            return NOWHERE
        if country not in self.outbound_allow:
            return Refuse("country_closed", f"outbound.allow = {self.outbound_allow!r}: add {country} to call there")
        return Allow()


def _suggested(country: str | None) -> str:
    return country if country is not None and country != NO_COUNTRY else "US"
