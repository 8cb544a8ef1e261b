"""[money]: what calls cost, and what they may cost."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import Float, Int, Name, Section, Texts, contradiction


def _usd(value: Decimal) -> Decimal:
    if not value.is_finite() or not 0 < value <= 1_000_000:
        raise ValueError("USD, more than 0 and at most 1000000")
    return value


def _as_written(value: object) -> object:
    """A number in TOML is a float, whose digits are meant."""
    if isinstance(value, bool):
        raise ValueError("USD, more than 0 and at most 1000000")
    return repr(value) if isinstance(value, float) else value


Usd = Annotated[Decimal, BeforeValidator(_as_written), AfterValidator(_usd)]


class Money(Section):
    prices: Path | None = None
    """A folder whose `prices.csv`, which must be there, takes the place of the one that comes with Trunkline. Read
    again when it changes; one that is wrong leaves the last good one in force, and calls go on by the one they began
    with."""
    price_max_age_days: Int = Field(default=90, ge=1, le=3650)
    """Prices that were looked up longer ago are warned of."""
    unknown_price: Literal["refuse", "cap"] = "refuse"
    """Where any budget is set: a call that would use what has no price is refused, or (`cap`) each such thing is taken
    to cost assumed_usd_per_minute. Without a budget it is told as missing."""
    assumed_usd_per_minute: Usd = Decimal("0.50")
    """Of each thing without a price, where any budget is set: for `cap`, and for what `refuse` finds out too late."""
    call_usd: Usd | None = None
    """What one call may cost, with its goodbye."""
    number_day_usd: Usd | None = None
    """What calls of one of our numbers may cost in a day (UTC), in all processes together."""
    agent_day_usd: Usd | None = None
    """What calls that one AI agent has first may cost in a day."""
    tenant_day_usd: Usd | None = None
    """What all calls may cost in a day."""
    wrap_up_percent: Int = Field(default=80, ge=1, le=100)
    """Of call_usd: from there on the model is told to come to an end."""
    cheaper_agent: str = Field(default="", max_length=40)
    """A name of [agents.NAME] in the agent's file: who goes on with a call, without a word, once it is to be cheaper.
    Agents whose file has no such name keep their calls."""
    cheaper_after_minutes: Float | None = Field(default=None, gt=0, le=1440)
    """At the end of the turn after so many minutes."""
    cheaper_after_usd: Usd | None = None
    """Or once the call has cost so much."""
    cheaper_after_tools: Texts = ()
    """Or once one of these tools was used: what the caller wanted is done."""
    backend_max_minutes: dict[Name, Annotated[Float, Field(gt=0, le=1440)]] = Field(default_factory=dict)
    """How long a provider may attend one call, such as `openai = 10`. Then cheaper_agent goes on, or the call ends."""
    at_limit: Literal["goodbye", "transfer"] = "goodbye"
    """What becomes of a call whose budget is spent."""
    at_limit_target: str = Field(default="", max_length=40)
    """Of `transfer`: a name of [targets] in the agent's file; where that is not possible the agent says goodbye."""

    @property
    def limited(self) -> bool:
        return any((self.call_usd, self.number_day_usd, self.agent_day_usd, self.tenant_day_usd))

    @after(mode="after")
    def _whole(self) -> "Money":
        wanted = (self.cheaper_after_minutes, self.cheaper_after_usd, self.cheaper_after_tools)
        if any(wanted) and not self.cheaper_agent:
            raise contradiction("cheaper_agent", self.cheaper_agent, "the agent that goes on: cheaper_after_... is set")
        if self.at_limit == "transfer" and not self.at_limit_target:
            raise contradiction("at_limit_target", self.at_limit_target, "a target: at_limit is transfer")
        if self.at_limit != "transfer" and self.at_limit_target:
            raise contradiction("at_limit", self.at_limit, "transfer: at_limit_target is set")
        return self
