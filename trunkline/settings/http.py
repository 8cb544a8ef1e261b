"""[http]: where we listen and how we are reached."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic import model_validator as after
from pydantic_settings import NoDecode

from trunkline.settings.addresses import Origin, Port, origin
from trunkline.settings.values import File, Int, Section, listed, pair

MIN_API_KEY_CHARS = 16


def _long_enough(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(secret.get_secret_value()) < MIN_API_KEY_CHARS for secret in secrets):
        raise ValueError(f"at least {MIN_API_KEY_CHARS} characters, for example from: openssl rand -hex 24")
    return secrets


ApiKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(listed), AfterValidator(_long_enough)]


class Http(Section):
    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    """Where we listen. Anything but loopback needs twilio.auth_token and api_key as well."""
    port: Port = 8080
    """HTTP and media share it."""
    public_url: Origin | None = None
    """The origin carriers reach us at; every URL we hand out and every signature we check is built from it."""
    tls_cert: File | None = None
    """PEM files, where no proxy does TLS."""
    tls_key: File | None = None
    api_key: ApiKeys = ()
    """For /v1/... Several during a rotation."""

    requests_per_minute: Int = Field(default=1200, ge=10, le=1_000_000)
    """Of /v1 that one key or user may make of this process, as many of them at once; then 429."""

    @after(mode="after")
    def _tls_pair(self) -> "Http":
        pair(self, "tls_cert", "tls_key", "http.")
        return self

    @property
    def origin(self) -> str:
        """The public origin, else where we listen (a wildcard address is reached over loopback)."""
        if self.public_url:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return origin("https" if self.tls_cert else "http", host, self.port)
