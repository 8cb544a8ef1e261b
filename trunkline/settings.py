"""What an admin may set: `trunkline.toml` (or --config FILE) and TRUNKLINE_* variables, the environment over the file.

The only reader of the environment. A section and its key are joined with two underscores: `[http] port` is
TRUNKLINE_HTTP__PORT. A list is a TOML list, or in the environment its items with commas between. Empty variables count
as unset. Defaults live here and nowhere else; secrets are SecretStr and never shown, not even in an error.
"""

import ipaddress
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as after
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from trunkline.errors import ConfigError

CONFIG_FILE = "trunkline.toml"
ENV_PREFIX = "TRUNKLINE_"
MAX_SHOWN_CHARS = 80
MIN_API_KEY_CHARS = 16


class WrongSettings(ConfigError):
    """Everything wrong at once; `str()` is one line per problem."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(errors[0].key, errors[0].value, errors[0].allowed)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class _Shown:
    """A value as an error line shows it: itself, shortened, or hidden when it is or may be a secret."""

    def __init__(self, text: str) -> None:
        self._text = text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."

    def __repr__(self) -> str:
        return self._text


HIDDEN = _Shown("(hidden)")


# --- kinds of values ------------------------------------------------------------------------------------------------


def _listed(value: Any) -> Any:
    """One item or several: a TOML list or string, or items with commas between."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, SecretStr):
        return (value,)
    return value


def _not_blank(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(not secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("must not be blank")
    return secrets


def _long_enough(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(secret.get_secret_value()) < MIN_API_KEY_CHARS for secret in secrets):
        raise ValueError(f"at least {MIN_API_KEY_CHARS} characters, for example from: openssl rand -hex 24")
    return secrets


def _existing(path: Path) -> Path:
    try:
        exists = path.is_file()
    except OSError:  # a name too long
        exists = False
    if not exists:
        raise ValueError("an existing file")
    return path


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which pydantic takes for 0 or 1
        raise PydanticCustomError("bool", "a number")
    return value


def _public_origin(url: str) -> str:
    allowed = "an https origin without a path, such as https://voice.example.com (http only for loopback)"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(allowed) from error
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or ""))
    if not host or not bare or not secure or any(c.isspace() for c in url):
        raise ValueError(allowed)
    return _origin(parts.scheme, host, port)


def _origin(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port else "")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")) or not urlsplit(value).hostname:
        raise ValueError("an http:// or https:// URL")
    return value.rstrip("/")


def _e164(value: str) -> str:
    if not (value.startswith("+") and value[1:].isascii() and value[1:].isdigit() and 7 <= len(value) - 1 <= 15):
        raise ValueError("a phone number as +COUNTRY NUMBER without spaces, such as +14155550100")
    return value


def _frames(message_ms: int) -> int:
    if message_ms % 20:
        raise ValueError("a multiple of 20 from 20 to 200")
    return message_ms


def _countries(codes: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(code) != 2 or not code.isascii() or not code.isalpha() for code in codes):
        raise ValueError("two-letter country codes, such as US, GB")
    return tuple(code.upper() for code in codes)


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_not_blank)]
ApiKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_long_enough)]
File = Annotated[Path, AfterValidator(_existing)]
Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number)]
Port = Annotated[Int, Field(ge=1, le=65535)]


# --- the sections ---------------------------------------------------------------------------------------------------


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Http(Section):
    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    """Where we listen. Anything but loopback needs twilio.auth_token and api_key as well."""
    port: Port = 8080
    """HTTP and media share it."""
    public_url: Annotated[str, AfterValidator(_public_origin)] | None = None
    """The origin carriers reach us at; every URL we hand out and every signature we check is built from it."""
    tls_cert: File | None = None
    """PEM files, where no proxy does TLS."""
    tls_key: File | None = None
    api_key: ApiKeys = ()
    """For /v1/... Several during a rotation."""

    @after(mode="after")
    def _tls_pair(self) -> "Http":
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise _contradiction(given, getattr(self, given), f"needs http.{missing} as well")
        return self

    @property
    def origin(self) -> str:
        """The public origin, else where we listen (a wildcard address is reached over loopback)."""
        if self.public_url:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return _origin("https" if self.tls_cert else "http", host, self.port)


class Sip(Section):
    port: Port = 5060
    """Not used yet."""


class Twilio(Section):
    auth_token: Secrets = ()
    """Signs the webhooks. Several during a rotation."""
    start_timeout_s: Float = Field(default=5.0, ge=1, le=60)
    """A media socket without a valid `start` by then is closed."""
    media_timeout_s: Float = Field(default=3.0, ge=1, le=60)
    """Without media for so long the leg is lost: no FIN may come."""
    max_unauthenticated: Int = Field(default=64, ge=1, le=10_000)
    """Sockets that have not yet shown a valid token."""
    fallback_number: Annotated[str, AfterValidator(_e164)] | None = None
    """Where callers go while we are full or stopping; without it they hear fallback_text."""
    fallback_text: str = Field(
        default="All our lines are busy. Please call again in a few minutes.", min_length=1, max_length=500
    )
    """Spoken where there is no fallback_number."""


class Limits(Section):
    max_calls: Int = Field(default=300, ge=1, le=10_000)
    """At once; more hear the fallback."""
    max_call_seconds: Int = Field(default=3600, ge=10, le=86_400)
    """A call that lasts longer hears goodbye and is ended."""
    drain_seconds: Int = Field(default=60, ge=0, le=3600)
    """How long live calls may go on after SIGTERM."""


class Media(Section):
    lead_ms_min: Int = Field(default=400, ge=40, le=5000)
    """Audio kept ahead at the carrier, adaptive up to lead_ms_max."""
    lead_ms_max: Int = Field(default=1000, ge=40, le=5000)
    """Where a path that stalls may take it."""
    message_ms: Annotated[Int, Field(ge=20, le=200), AfterValidator(_frames)] = 100
    """Audio in one message to the carrier."""

    @after(mode="after")
    def _lead_range(self) -> "Media":
        if self.lead_ms_min > self.lead_ms_max:
            raise _contradiction("lead_ms_min", self.lead_ms_min, f"at most media.lead_ms_max ({self.lead_ms_max})")
        return self


class Speech(Section):
    workers: Int = Field(default=2, ge=1, le=64)
    """Processes that recognise and synthesise locally."""


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug` has a line a request."""
    format: Literal["json", "text"] = "text"
    """`json` for machines: one object a line."""


class Otel(Section):
    endpoint: Annotated[str, AfterValidator(_http_url)] | None = None
    """An OTLP/HTTP collector, such as http://127.0.0.1:4318."""


class ProviderKey(Section):
    api_key: SecretStr | None = None
    """This, or a file that holds it; servers of your own need none."""
    api_key_file: File | None = None

    @after(mode="after")
    def _one_of(self) -> "ProviderKey":
        if self.api_key and self.api_key_file:
            raise _contradiction("api_key_file", self.api_key_file, "this or api_key, not both")
        return self

    def read(self) -> str | None:
        if self.api_key_file:
            return self.api_key_file.read_text(encoding="utf-8").strip() or None
        return self.api_key.get_secret_value() if self.api_key else None


class Tools(Section):
    allow_private_addresses: bool = False
    """Whether an agent's `http` tool may call loopback and private networks."""


class Outbound(Section):
    allow: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_countries)] = ()
    """Countries that may be dialled. None: outbound calling is closed."""


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
    """Not used yet: one process needs none."""
    record: bool = False
    """Whether calls may be recorded at all."""
    http: Http = Http()
    sip: Sip = Sip()
    twilio: Twilio = Twilio()
    limits: Limits = Limits()
    media: Media = Media()
    speech: Speech = Speech()
    log: Log = Log()
    otel: Otel = Otel()
    openai: ProviderKey = ProviderKey()
    tools: Tools = Tools()
    keys: dict[Annotated[str, Field(pattern="^[a-z0-9_-]{1,40}$")], SecretStr] = {}
    """More secrets by name, for an agent's `http` tools: `{key:NAME}` in a header."""
    outbound: Outbound = Outbound()

    @after(mode="after")
    def _safe_by_default(self) -> "Settings":
        """Reachable from outside means: signed webhooks and a locked API. A tunnel is outside."""
        if self.http.public_url:
            key, value = "http.public_url", self.http.public_url
        elif not is_loopback(self.http.host):
            key, value = "http.host", self.http.host
        else:
            return self
        if not self.twilio.auth_token or not self.http.api_key:
            raise _contradiction(
                key, value, "reachable from outside, so both twilio.auth_token and http.api_key must be set"
            )
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
    def database(self) -> str | None:
        """As the admin wrote it, perhaps with a password; None for trunkline.db in data_dir."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def twilio_tokens(self) -> tuple[str, ...]:
        return tuple(token.get_secret_value() for token in self.twilio.auth_token)

    @property
    def api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.http.api_key)

    def secrets(self) -> tuple[str, ...]:
        """Everything that no log line may show. Reads the key files."""
        passwords = [urlsplit(url.get_secret_value()).password for url in (self.database_url, self.redis_url) if url]
        return (*self.twilio_tokens, *self.api_keys, *self.provider_keys().values(), *(p for p in passwords if p))

    def provider_keys(self) -> dict[str, str]:
        """API keys by provider name, as `Services.keys` wants them. Reads the key files."""
        found = {"openai": self.openai.read(), **{name: key.get_secret_value() for name, key in self.keys.items()}}
        return {name: key for name, key in found.items() if key}


def keep_mathematics_single_threaded() -> None:
    """Before numpy is imported: OpenBLAS would start a thread a core for a matrix of twelve rows, and let them spin."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# --- loading --------------------------------------------------------------------------------------------------------


def load(config_path: Path | None = None) -> Settings:
    """Raises WrongSettings (a ConfigError): one line per wrong setting. A missing trunkline.toml is no error, a missing
    `config_path` is."""
    written = _read_file(config_path)
    errors = [_unknown(name, _variables()) for name in _set_variables() if not _known(name)]
    try:
        settings = Settings(**written)
    except ValidationError as invalid:
        errors += [_explain(p) for p in invalid.errors() if not _named_already(p)]
    except Exception as error:  # pydantic-settings reads a section's own name as JSON; `_unknown` has named it
        if not errors:
            raise ConfigError("settings", HIDDEN, str(error)) from error
    if errors:
        raise WrongSettings(errors)
    return settings


def _read_file(config_path: Path | None) -> dict[str, Any]:
    path = config_path or Path(CONFIG_FILE)
    if config_path is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        allowed = f"a readable TOML file ({(error.strerror or 'unreadable').lower()})"
        raise WrongSettings([ConfigError("config file", str(path), allowed)]) from error
    except ValueError as error:  # TOML and UTF-8 both; their messages may quote a line, so only the place is shown
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "not UTF-8"
        raise WrongSettings([ConfigError("config file", str(path), f"valid TOML; look {place}")]) from error


def _set_variables() -> list[str]:
    return sorted(name for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX) and value)


@cache
def keys() -> Mapping[str, Any]:
    """Every key with its field, dotted: `http.port`."""
    return dict(_walk(Settings, ""))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


@cache
def _variables() -> Mapping[str, str]:
    return {_variable(key): key for key in keys()}


def _known(variable: str) -> bool:
    """[keys] is open: its names are the admin's."""
    return variable in _variables() or variable.upper().startswith(f"{_variable('keys')}__")


def _variable(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", "__")


def _unknown(name: str, known: Collection[str]) -> ConfigError:
    """The value is hidden: it may be a secret under a misspelt name."""
    prefix = ENV_PREFIX if name.upper().startswith(ENV_PREFIX) else ""
    wanted = name[len(prefix) :].upper() if prefix else name
    names = [key.removeprefix(prefix) for key in known]
    near = [key for key in names if key.startswith(f"{wanted}__")] or get_close_matches(wanted, names, n=1)
    return ConfigError(name, HIDDEN, "no such setting" + (f"; did you mean {prefix}{near[0]}?" if near else ""))


def _contradiction(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """Two settings that do not go together. `key` is relative to the section that raises it."""
    return PydanticCustomError("contradiction", "{allowed}", {"key": key, "value": str(value), "allowed": allowed})


def _explain(problem: ErrorDetails) -> ConfigError:
    """One problem as one line, under the name the admin used: the variable if it is set, else the key in the file."""
    parts = [str(part) for part in problem["loc"]]
    if problem["type"] == "contradiction":
        context = problem["ctx"]
        return ConfigError(_as_written(".".join([*parts, context["key"]])), context["value"], context["allowed"])
    key = next((k for n in range(len(parts), 0, -1) if (k := ".".join(parts[:n])) in keys()), "")
    if not key:
        dotted = ".".join(parts)
        if problem["type"] == "extra_forbidden":
            return _unknown(dotted, [*keys(), *Settings.model_fields])
        return ConfigError(dotted, HIDDEN, f"a section, written [{dotted}]")
    field = keys()[key]
    shown = HIDDEN if _is_secret(field) else _Shown(repr(problem["input"]))
    return ConfigError(_as_written(key), shown, _allowed(field, problem))


def _named_already(problem: ErrorDetails) -> bool:
    """An unknown variable that pydantic-settings took for a section (TRUNKLINE_HTTP) or put into one."""
    variable = _variable(".".join(str(part) for part in problem["loc"]))
    return variable in _set_variables() and variable not in _variables()


def _as_written(key: str) -> str:
    variable = _variable(key)
    return variable if variable in _set_variables() else key


def _is_secret(field: Any) -> bool:
    return "SecretStr" in repr(field.annotation)


def _allowed(field: Any, problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    metadata = {type(m).__name__.lower(): m for m in (*field.metadata, *_inner_metadata(field.annotation))}
    parts = (field.annotation, *get_args(field.annotation))
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}
    if choices := [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]:
        return "one of " + ", ".join(choices)
    if bool in kinds:
        return "true or false"
    if int in kinds or float in kinds:
        whole = "a whole number" if int in kinds else "a number"
        return f"{whole} from {metadata['ge'].ge:g} to {metadata['le'].le:g}" if "ge" in metadata else whole
    if tuple in {get_origin(kind) or kind for kind in kinds}:
        return "a text or a list of texts"
    if str in kinds and "maxlen" in metadata:
        return f"a text of 1 to {metadata['maxlen'].max_length} characters"
    return "a path" if Path in kinds else "a text"


def _inner_metadata(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield from getattr(part, "__metadata__", ())
