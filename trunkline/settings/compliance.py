"""[compliance]: who we are, where, and which of the law's tables hold."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import E164Text, Int, Section, contradiction


def _region(value: str) -> str:
    country, dash, part = value.upper().partition("-")
    if len(country) != 2 or not country.isascii() or not country.isalpha() or (dash and not part.isalnum()):
        raise ValueError("a country or its part, such as DE, US-CA")
    return value.upper()


class Compliance(Section):
    business: str = Field(default="", max_length=120)
    """The legal name that callers hear first. With it the rules for calls are in force: opening lines, consent, lists,
    hours; without it only closed countries, emergency and premium numbers, caps and the company's own do-not-call list
    are."""
    callback_number: E164Text | None = None
    """What people may call back. Without it no call goes out that must name one (`callback_unset`)."""
    region: Annotated[str, AfterValidator(_region)] | None = None
    """Where this end of the calls is, such as US-CA or DE. Without it the strictest rules hold."""
    place_by: Literal["number", "address"] = "number"
    """Where somebody is whose address is not known: where their number belongs, or (`address`) anywhere in its
    country."""
    purpose: Literal["marketing", "transactional", "informational"] | None = None
    """Of calls whose order names none. Without it the strictest of all."""
    tables: Path | None = None
    """A folder whose files (`hours.csv`, ...) take the place of those that come with Trunkline. Read again when they
    change; one that is wrong leaves the last good one in force."""
    max_calls_per_number_hour: Int = Field(default=10, ge=1, le=1000)
    """Calls out to one number within an hour. Holds without `business` too, but for named transfer targets."""
    max_calls_per_country_hour: Int = Field(default=600, ge=1, le=1_000_000)
    """To one country, transfers included."""
    max_calls_per_hour: Int = Field(default=1200, ge=1, le=1_000_000)
    """In all, transfers included."""

    @after(mode="after")
    def _callback(self) -> "Compliance":
        if self.callback_number is not None and not self.business:
            raise contradiction("callback_number", self.callback_number, "needs compliance.business as well")
        return self
