"""[console]: the admins' pages, and who may sign in there by another account of theirs."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic import model_validator as after
from pydantic_settings import NoDecode

from trunkline.settings.addresses import is_loopback
from trunkline.settings.values import Section, Texts, contradiction, pair

RoleName = Literal["viewer", "supervisor", "admin"]


def _issuer(value: str) -> str:
    scheme, _, rest = value.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if not rest or "?" in rest or "#" in rest or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
        raise ValueError("a URL like https://login.example.com (http on loopback only)")
    return value


def _domains(values: tuple[str, ...]) -> tuple[str, ...]:
    if any("@" in value or "." not in value for value in values):
        raise ValueError("domains of email addresses, such as example.com")
    return tuple(value.lower() for value in values)


def _by_comma(value: Any) -> Any:
    """In a variable: `trunkline-admins=admin, staff=viewer`."""
    if isinstance(value, str):
        return dict(item.strip().partition("=")[::2] for item in value.split(",") if item.strip())
    return value


class Oidc(Section):
    issuer: Annotated[str, AfterValidator(_issuer)] | None = None
    """Of the OpenID provider, as its discovery document says it. Its client's redirect URI is
    http.public_url/console/oidc/callback."""
    client_id: str | None = Field(default=None, min_length=1)
    client_secret: SecretStr | None = None
    """Without it: a public client, by PKCE alone."""
    allowed_domains: Annotated[Texts, AfterValidator(_domains)] = ()
    """Of the verified emails that may sign in. Empty: any that a user of ours has."""
    role_claim: str | None = Field(default=None, min_length=1)
    """The claim of the id token that role_map is about, such as groups."""
    role_map: Annotated[dict[str, RoleName], NoDecode, BeforeValidator(_by_comma)] = Field(default_factory=dict)
    """Roles by what is in the claim. It is looked at when somebody signs in, and the highest holds."""
    auto_create: bool = False
    """Make a user of whoever may sign in, with the role of the map, or viewer where there is no map."""

    @after(mode="after")
    def _whole(self) -> "Oidc":
        pair(self, "issuer", "client_id", "console.oidc.")
        if self.auto_create and not (self.allowed_domains or self.role_map):
            raise contradiction(
                "auto_create", True, "needs console.oidc.allowed_domains or role_map: or anybody gets in"
            )
        if self.role_map and self.role_claim is None:
            raise contradiction("role_map", self.role_map, "needs console.oidc.role_claim as well")
        return self


class ConsoleSettings(Section):
    oidc: Oidc = Oidc()
