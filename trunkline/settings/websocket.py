"""[websocket]: devices and pages whose network lets no UDP through, at /ws/audio."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import Float, Int, Section, contradiction, frames


class WebSocket(Section):
    start_timeout_s: Float = Field(default=5.0, ge=1, le=60)
    """A socket that has not said `start` by then is closed."""
    media_timeout_s: Float = Field(default=10.0, ge=6, le=600)
    """With nothing received for so long, no answer to a ping either, the leg is lost."""
    max_unauthenticated: Int = Field(default=64, ge=1, le=10_000)
    """Sockets that have not been let in yet."""
    lead_ms_min: Annotated[Int, Field(ge=60, le=2000), AfterValidator(frames)] = 200
    """Audio kept ahead at the device: at least, where the network is steady."""
    lead_ms_max: Annotated[Int, Field(ge=60, le=2000), AfterValidator(frames)] = 600
    """At most, after it was not."""

    @after(mode="after")
    def _bounds(self) -> "WebSocket":
        if self.lead_ms_max < self.lead_ms_min:
            raise contradiction("lead_ms_max", self.lead_ms_max, f"at least websocket.lead_ms_min ({self.lead_ms_min})")
        return self
