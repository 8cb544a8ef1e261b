"""[twilio]: the account, its login, and its Media Streams."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic import model_validator as after

from trunkline.settings.addresses import Origin
from trunkline.settings.values import E164Text, Float, Int, Password, Secrets, Section, contradiction, pair


class Twilio(Section):
    auth_token: Secrets = ()
    """Signs the webhooks. Several during a rotation; without an API key, the first also logs in to the REST API."""
    account_sid: Annotated[str, Field(pattern="^AC[0-9a-f]{32}$")] | None = None
    """AC...: calls of ours may go over Twilio then, as the trunk `twilio`."""
    api_key_sid: Annotated[str, Field(pattern="^SK[0-9a-f]{32}$")] | None = None
    """SK...: with api_key_secret, logs in to the REST API in place of the auth token. One of the region's."""
    api_key_secret: Password | None = None
    from_number: E164Text | None = None
    """Who calls, where an order names no other: a number of the account, or one that it has verified."""
    dial_caller_id: E164Text | None = None
    """Who calls when a caller is put through; without it Twilio shows the caller's own number."""
    region: Annotated[str, Field(pattern="^[a-z]{2}[0-9]$")] | None = None
    """Where the account's calls are processed: us1, ie1, au1. Credentials are those of the region."""
    edge: Annotated[str, Field(pattern="^[a-z]{1,20}(-[a-z]{1,20})?$")] | None = None
    """Where our REST requests enter Twilio's network, such as frankfurt."""
    api_url: Origin | None = None
    """Another origin than https://api.twilio.com for the REST API: a proxy, a test. Over https, or this machine."""
    machine_detection: Literal["off", "enable", "detect_message_end"] = "off"
    """Whether Twilio is to tell who answers our calls: at once, or when an answering machine's greeting is over."""
    on_machine: Literal["go_on", "hang_up"] = "go_on"
    """What becomes of a call of ours that a machine answers."""
    start_timeout_s: Float = Field(default=5.0, ge=1, le=60)
    """A media socket without a valid `start` by then is closed."""
    media_timeout_s: Float = Field(default=3.0, ge=1, le=60)
    """Without media for so long the leg is lost: no FIN may come."""
    max_unauthenticated: Int = Field(default=64, ge=1, le=10_000)
    """Sockets that have not yet shown a valid token."""
    fallback_number: E164Text | None = None
    """Where callers go while we are full or stopping; without it they hear fallback_text."""
    fallback_text: str = Field(
        default="All our lines are busy. Please call again in a few minutes.", min_length=1, max_length=500
    )
    """Spoken where there is no fallback_number."""

    @after(mode="after")
    def _login(self) -> "Twilio":
        pair(self, "api_key_sid", "api_key_secret", "twilio.")
        if self.account_sid and not self.api_key_sid and not self.auth_token:
            raise contradiction(
                "account_sid", self.account_sid, "needs twilio.api_key_sid and api_key_secret, or auth_token, as well"
            )
        if self.on_machine == "hang_up" and self.machine_detection == "off":
            raise contradiction("on_machine", "hang_up", "needs twilio.machine_detection as well")
        return self

    @property
    def login(self) -> tuple[str, str]:
        """Of the REST API; only where there is an account_sid."""
        if self.api_key_sid and self.api_key_secret:
            return self.api_key_sid, self.api_key_secret.get_secret_value()
        return self.account_sid or "", self.auth_token[0].get_secret_value()
