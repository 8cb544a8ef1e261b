"""All settings together."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic import model_validator as after
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from trunkline.settings.addresses import is_loopback
from trunkline.settings.agents import ProviderKey, Shared, Speech, Tools
from trunkline.settings.audit import Audit
from trunkline.settings.calls import Limits, Media, Outbound
from trunkline.settings.compliance import Compliance
from trunkline.settings.consent import Consent
from trunkline.settings.console import ConsoleSettings
from trunkline.settings.devices import Devices
from trunkline.settings.environment import ENV_PREFIX
from trunkline.settings.http import Http
from trunkline.settings.logs import Log, Otel
from trunkline.settings.money import Money
from trunkline.settings.privacy import Privacy
from trunkline.settings.sessions import Livekit, RegionPlace, Sessions
from trunkline.settings.sip import Sip
from trunkline.settings.stir import Stir
from trunkline.settings.twilio import Twilio
from trunkline.settings.values import File, Name, contradiction
from trunkline.settings.webhooks import Webhooks
from trunkline.settings.webrtc import WebRtc
from trunkline.settings.websocket import WebSocket


def _database_url(value: SecretStr) -> SecretStr:
    """Only its kind; `store.engine.database_url` reads it and names the driver."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme.partition("+")[0] not in ("sqlite", "postgres", "postgresql") or not rest:
        raise ValueError("sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("redis://HOST:PORT/DB, rediss://... or unix://PATH")
    return value


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    agent: File | None = None
    """An agent script; without it the built-in clinic example answers."""
    data_dir: Path = Path("data")
    """The spool, the SQLite database, recordings."""
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    """sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; without it, trunkline.db in data_dir."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    """redis://HOST:PORT/DB, rediss://... or unix://PATH: where sessions are kept for several workers and regions;
    without it, in this process's memory."""
    worker: Name = "0"
    """Our name: of several gateways that share a database each has its own, and keeps it. Records of calls that died
    under it are closed at the next start."""
    record: bool = False
    """Whether calls may be recorded at all: for `privacy.recordings_days`."""
    http: Http = Http()
    console: ConsoleSettings = ConsoleSettings()
    sip: Sip = Sip()
    stir: Stir = Stir()
    twilio: Twilio = Twilio()
    webrtc: WebRtc = WebRtc()
    websocket: WebSocket = WebSocket()
    devices: Devices = Devices()
    limits: Limits = Limits()
    media: Media = Media()
    speech: Speech = Speech()
    log: Log = Log()
    otel: Otel = Otel()
    openai: ProviderKey = ProviderKey()
    deepgram: ProviderKey = ProviderKey()
    elevenlabs: ProviderKey = ProviderKey()
    remote: ProviderKey = ProviderKey()
    tools: Tools = Tools()
    shared: Shared = Shared()
    keys: dict[Name, SecretStr] = {}
    """More secrets by name, for an agent's `http` tools: `{key:NAME}` in a header."""
    outbound: Outbound = Outbound()
    compliance: Compliance = Compliance()
    consent: Consent = Consent()
    privacy: Privacy = Privacy()
    audit: Audit = Audit()
    money: Money = Money()
    webhooks: Webhooks = Webhooks()
    sessions: Sessions = Sessions()
    livekit: Livekit = Livekit()
    region: Name = "local"
    """Where this gateway is: one of [regions.NAME], where there are any."""
    regions: dict[Name, RegionPlace] = {}
    """All of them, ours among them: where devices may be led to."""

    @after(mode="after")
    def _safe_by_default(self) -> "Settings":
        """Reachable from outside means: signed webhooks and a locked API. A tunnel is outside."""
        if self.is_open:
            return self
        if self.http.public_url:
            key, value = "http.public_url", self.http.public_url
        else:
            key, value = "http.host", self.http.host
        if not self.twilio.auth_token or not self.http.api_key:
            raise contradiction(
                key, value, "reachable from outside, so both twilio.auth_token and http.api_key must be set"
            )
        return self

    @after(mode="after")
    def _somebody_vouches(self) -> "Settings":
        for name, trunk in self.sip.trunks.items():
            if trunk.stir not in (None, "off") and self.stir.trust is None:
                raise contradiction(f"sip.trunks.{name}.stir", trunk.stir, "needs stir.trust as well")
            if trunk.stir_sign and not self.stir.keys:
                raise contradiction(f"sip.trunks.{name}.stir_sign", True, "needs stir.keys as well")
        return self

    @after(mode="after")
    def _audio_is_kept_for_a_time(self) -> "Settings":
        if self.record and self.privacy.recordings_days is None:
            raise contradiction("record", True, "needs privacy.recordings_days as well: how long audio is kept")
        return self

    @after(mode="after")
    def _ours_is_a_region(self) -> "Settings":
        if self.regions and self.region not in self.regions:
            raise contradiction("region", self.region, f"one of [regions.NAME]: {', '.join(self.regions)}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def is_open(self) -> bool:
        """For trying out, on this machine alone: nobody needs a key."""
        return not self.http.public_url and is_loopback(self.http.host)

    @property
    def database(self) -> str | None:
        """As the admin wrote it, perhaps with a password; None for trunkline.db in data_dir."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def redis(self) -> str | None:
        """As the admin wrote it, perhaps with a password."""
        return self.redis_url.get_secret_value() if self.redis_url else None

    @property
    def twilio_tokens(self) -> tuple[str, ...]:
        return tuple(token.get_secret_value() for token in self.twilio.auth_token)

    @property
    def api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.http.api_key)

    def secrets(self) -> tuple[str, ...]:
        """Everything that no log line may show. Reads the key files."""
        passwords = [urlsplit(url.get_secret_value()).password for url in (self.database_url, self.redis_url) if url]
        trunks = [p for trunk in self.sip.trunks.values() for p in (trunk.password, trunk.auth_password)]
        others = (
            self.twilio.api_key_secret,
            self.sessions.key,
            self.livekit.api_secret,
            self.webrtc.turn_secret,
            self.audit.secret_access_key,
            self.console.oidc.client_secret,
        )
        return (
            *self.twilio_tokens,
            *(secret.get_secret_value() for secret in others if secret),
            *self.api_keys,
            *(key.get_secret_value() for key in (*self.privacy.keys.values(), *self.audit.keys.values())),
            *self.provider_keys().values(),
            *(password.get_secret_value() for password in trunks if password),
            *(p for p in passwords if p),
        )

    def provider_keys(self) -> dict[str, str]:
        """API keys by provider name, as `Services.keys` wants them. Reads the key files."""
        own = {name: section.read() for name, section in self if isinstance(section, ProviderKey)}
        found = {**own, **{name: key.get_secret_value() for name, key in self.keys.items()}}
        return {name: key for name, key in found.items() if key}
