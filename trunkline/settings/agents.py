"""[speech], [tools] and the sections of providers: what AI agents have to work with."""

from pydantic import Field, SecretStr
from pydantic import model_validator as after

from trunkline.settings.values import File, Int, Name, Section, contradiction


class Speech(Section):
    workers: Int = Field(default=2, ge=1, le=64)
    """Processes that recognise and synthesise locally."""


class Tools(Section):
    allow_private_addresses: bool = False
    """Whether an agent's `http` tool may call loopback and private networks."""


class Shared(Section):
    """What AI agents of the desk, whose scripts admins of tenants write, may name of this gateway's: nothing but the
    providers and their accounts, unless it is listed here."""

    keys: tuple[Name, ...] = ()
    """Names of [keys] and of provider sections that their `http` tools may send: `{key:NAME}` in a header."""
    servers: tuple[str, ...] = ()
    """What their providers' `base_url`, `url` and `targets` may be, to the letter. The provider's key is sent there."""
    folders: tuple[str, ...] = ()
    """What `model_dir` may be, to the letter."""
    providers: tuple[str, ...] = ()
    """Providers of other packages that they may use, with all their options: `tts.NAME`."""
    private_addresses: bool = False
    """Whether their `http` tools may call loopback and private networks."""


class ProviderKey(Section):
    api_key: SecretStr | None = None
    """This, or a file that holds it; servers of your own need none."""
    api_key_file: File | None = None

    @after(mode="after")
    def _one_of(self) -> "ProviderKey":
        if self.api_key and self.api_key_file:
            raise contradiction("api_key_file", self.api_key_file, "this or api_key, not both")
        return self

    def read(self) -> str | None:
        if self.api_key_file:
            return self.api_key_file.read_text(encoding="utf-8").strip() or None
        return self.api_key.get_secret_value() if self.api_key else None
