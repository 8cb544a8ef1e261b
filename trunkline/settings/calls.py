"""[limits], [media], [outbound]: what holds for calls of every kind."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import Float, Int, Section, Texts, contradiction, countries, frames


class Limits(Section):
    max_calls: Int = Field(default=300, ge=1, le=10_000)
    """At once; more hear the fallback."""
    reserved_inbound: Int = Field(default=0, ge=0, le=9_999)
    """Of max_calls: kept free for calls that come in. Calls out are refused before."""
    max_calls_per_number: Int | None = Field(default=None, ge=1, le=10_000)
    """At once on one of our numbers, calls in and out together, in all processes that share Redis or the database. A
    further caller hears a busy tone, or goes to `twilio.fallback_number`."""
    reserved_inbound_per_number: Int = Field(default=0, ge=0, le=9_999)
    """Of max_calls_per_number: kept free for calls that come in."""
    max_calls_per_tenant: Int | None = Field(default=None, ge=1, le=100_000)
    """At once in all processes that share Redis or the database, calls in and out together."""
    reserved_inbound_per_tenant: Int = Field(default=0, ge=0, le=99_999)
    """Of max_calls_per_tenant: kept free for calls that come in."""
    max_call_seconds: Int = Field(default=3600, ge=10, le=86_400)
    """A call that lasts longer hears goodbye and is ended."""
    watchdog: bool = True
    """A process beside the gateway ends its calls at their limits when the gateway is stuck, and SIP calls of one that
    has died."""
    drain_seconds: Int = Field(default=60, ge=0, le=3600)
    """How long live calls may go on after SIGTERM."""

    @after(mode="after")
    def _some_go_out(self) -> "Limits":
        for kept, most in (
            ("reserved_inbound", "max_calls"),
            ("reserved_inbound_per_number", "max_calls_per_number"),
            ("reserved_inbound_per_tenant", "max_calls_per_tenant"),
        ):
            reserved, limit = getattr(self, kept), getattr(self, most)
            if limit is None and reserved:
                raise contradiction(kept, reserved, f"0: {most} is not set")
            if limit is not None and reserved >= limit:
                raise contradiction(kept, reserved, f"less than {most} ({limit})")
        return self


class Media(Section):
    lead_ms_min: Int = Field(default=400, ge=40, le=5000)
    """Audio kept ahead at the carrier, adaptive up to lead_ms_max."""
    lead_ms_max: Int = Field(default=1000, ge=40, le=5000)
    """Where a path that stalls may take it."""
    message_ms: Annotated[Int, Field(ge=20, le=200), AfterValidator(frames)] = 100
    """Audio in one message to the carrier."""

    @after(mode="after")
    def _lead_range(self) -> "Media":
        if self.lead_ms_min > self.lead_ms_max:
            raise contradiction("lead_ms_min", self.lead_ms_min, f"at most media.lead_ms_max ({self.lead_ms_max})")
        return self


class Outbound(Section):
    allow: Annotated[Texts, AfterValidator(countries)] = ()
    """Countries that may be dialled. None: outbound calling is closed."""
    retry_busy: Int = Field(default=0, ge=0, le=10)
    """How often a number that was busy is called again."""
    retry_busy_after_s: Float = Field(default=120.0, ge=10, le=86_400)
    """From the end of the last attempt; every attempt asks the rules anew."""
    retry_no_answer: Int = Field(default=0, ge=0, le=10)
    """How often a number that did not answer is called again."""
    retry_no_answer_after_s: Float = Field(default=900.0, ge=10, le=86_400)
    """As retry_busy_after_s."""
    retry_failed: Int = Field(default=0, ge=0, le=10)
    """How often again when no trunk could connect the call, but might later."""
    retry_failed_after_s: Float = Field(default=60.0, ge=10, le=86_400)
    """As retry_busy_after_s."""
    max_attempts: Int = Field(default=6, ge=1, le=20)
    """INVITEs for one order, over all trunks and repeats."""
    give_up_after_s: Float = Field(default=3600.0, ge=10, le=86_400)
    """No attempt begins later than this after the order."""
