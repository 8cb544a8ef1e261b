"""[sessions], [livekit] and [regions.NAME]: devices, and where they find us."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic import model_validator as after

from trunkline.settings.addresses import HttpUrl
from trunkline.settings.values import Float, Int, Section, contradiction

MIN_KEY_CHARS = 32


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < MIN_KEY_CHARS:
        raise ValueError(f"at least {MIN_KEY_CHARS} characters, for example from: openssl rand -hex 32")
    return key


def _websocket_url(url: str) -> str:
    if not url.startswith(("ws://", "wss://")):
        raise ValueError("a ws:// or wss:// URL, such as wss://livekit.example.com")
    return url.rstrip("/")


class Sessions(Section):
    key: Annotated[SecretStr, AfterValidator(_long_enough)] | None = None
    """What join tokens are signed with; without it, one that is made once and kept: in Redis where there is one, else
    in data_dir."""
    idle_seconds: Int = Field(default=600, ge=5, le=86_400)
    """How long a session is kept after its call, for the device to come back to."""
    join_token_seconds: Int = Field(default=120, ge=5, le=3600)
    """How long a device may take from its session's opening to joining it."""
    max: Int = Field(default=10_000, ge=1, le=1_000_000)
    """In this process's memory, where there is no Redis."""


class Livekit(Section):
    """A server whose rooms sessions may be joined in as well."""

    url: Annotated[str, AfterValidator(_websocket_url)] | None = None
    """As clients connect to it."""
    api_key: str | None = Field(default=None, min_length=1, max_length=256)
    api_secret: SecretStr | None = None
    max_rooms: Int = Field(default=100, ge=1, le=10_000)
    """In which the agent is at once, with a device or waiting for one."""

    @after(mode="after")
    def _all_or_none(self) -> "Livekit":
        given = [name for name in ("url", "api_key", "api_secret") if getattr(self, name) is not None]
        missing = [f"livekit.{name}" for name in ("url", "api_key", "api_secret") if name not in given]
        if given and missing:
            shown = "(hidden)" if given[0] == "api_secret" else getattr(self, given[0])
            raise contradiction(given[0], shown, f"needs {' and '.join(missing)} as well")
        return self


class RegionPlace(Section):
    url: HttpUrl
    """Its origin, as devices and other regions reach it."""
    lat: Float = Field(ge=-90, le=90)
    """Degrees north."""
    lon: Float = Field(ge=-180, le=180)
    """Degrees east."""
