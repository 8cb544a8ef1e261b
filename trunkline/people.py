"""`trunkline users ...` and `trunkline api-keys ...`: who may use the console and the API of a tenant.

They write to the gateway's database, so whoever may read its settings may make an admin. A running gateway knows within
five seconds.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.identity import SCOPES, AccountError, Key, NewKey, NewUser, Role, Scope, User
from trunkline.keeping import opened, who
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, TenantId

if TYPE_CHECKING:
    from trunkline.gateway.console.accounts import Accounts as ConsoleAccounts
    from trunkline.store.accounts import Accounts
    from trunkline.store.apikeys import ApiKeys

users_app = typer.Typer(no_args_is_help=True, help="Who may use the console.")
api_keys_app = typer.Typer(no_args_is_help=True, help="Programs that may use the API.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
Tenant = Annotated[str, typer.Option(help="Whose.")]
Name = Annotated[str, typer.Argument(help="As `list` shows it.")]
LISTED = 10_000


@dataclass
class _Desk:
    users: "Accounts"
    keys: "ApiKeys"
    console: "ConsoleAccounts"
    origin: str

    async def link(self, user: User) -> str:
        return f"{self.origin}/console/link?token={await self.console.invite(user)}"


@asynccontextmanager
async def _desk(settings: Settings) -> AsyncGenerator[_Desk]:
    from trunkline.gateway.console.accounts import Accounts as ConsoleAccounts
    from trunkline.gateway.console.passwords import Passwords
    from trunkline.store.accounts import Accounts
    from trunkline.store.apikeys import ApiKeys

    passwords = Passwords()
    async with opened(settings) as kept:
        users = Accounts(kept.database, SYSTEM_CLOCK)
        try:
            yield _Desk(
                users,
                ApiKeys(kept.database, SYSTEM_CLOCK),
                ConsoleAccounts(users, passwords, SYSTEM_CLOCK),
                settings.http.origin,
            )
        finally:
            passwords.close()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except AccountError as error:
        typer.echo(f"trunkline: {error}", err=True)
        raise typer.Exit(2) from error


def _actor() -> str:
    return f"command:{who()}"


# --- users ---


@users_app.command("create")
def create_user(
    email: Annotated[str, typer.Argument(help="They sign in with it.")],
    admin: Annotated[bool, typer.Option("--admin", help="As --role admin.")] = False,
    role: Annotated[str, typer.Option(help="viewer, supervisor or admin.")] = "viewer",
    name: Annotated[str, typer.Option(help="Within the tenant (default: of the email).")] = "",
    password: Annotated[bool, typer.Option("--password", help="Ask for a password here, in place of a link.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add a user. The link that is printed sets their password, once, within a day."""
    from trunkline.gateway.console.accounts import is_email
    from trunkline.gateway.console.passwords import Passwords, wrong_password

    if not is_email(email):
        raise ConfigError("EMAIL", email, "an email address, such as ann@example.com")
    given = "admin" if admin else role
    if given not in get_args(Role):
        raise ConfigError("--role", given, "viewer, supervisor or admin")
    secret = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True) if password else None
    if secret is not None and (wanted := wrong_password(secret, email)) is not None:
        raise ConfigError("password", "(hidden)", wanted)

    async def work() -> tuple[User, str | None]:
        async with _desk(load(config)) as desk:
            hasher = Passwords()
            try:
                hashed = None if secret is None else await hasher.hash(secret)
            finally:
                hasher.close()
            new = NewUser(email, cast(Role, given), name, password_hash=hashed)
            user = await desk.users.create_user(TenantId(tenant), _actor(), new)
            return user, await desk.link(user) if secret is None else None

    user, link = _run(work())
    if as_json:
        typer.echo(json.dumps({**_user(user), "link": link}))
        return
    typer.echo(f"{user.name} <{user.email}>, {user.role}")
    if link is not None:
        typer.echo(f"Set the password within a day: {link}")


@users_app.command("list")
def list_users(tenant: Tenant = DEFAULT_TENANT, config: Config = None, as_json: AsJson = False) -> None:
    """Everybody, by name."""

    async def work() -> Any:
        async with _desk(load(config)) as desk:
            return await desk.users.users(TenantId(tenant), limit=LISTED)

    found = _run(work())
    if as_json:
        typer.echo(json.dumps([_user(user) for user in found]))
        return
    for user in found:
        typer.echo(f"{user.name:<24} {user.role:<11} {'' if user.enabled else 'disabled '}{user.email}")


@users_app.command("link")
def link_user(name: Name, tenant: Tenant = DEFAULT_TENANT, config: Config = None) -> None:
    """A link with which a user sets a new password, once, within a day."""

    async def work() -> str:
        async with _desk(load(config)) as desk:
            user = await desk.users.user(TenantId(tenant), name)
            if user is None:
                raise AccountError("not_found", f"there is no user {name}")
            await desk.users.note(TenantId(tenant), _actor(), "link", "users", name)
            return await desk.link(user)

    typer.echo(_run(work()))


@users_app.command("enable")
def enable_user(name: Name, tenant: Tenant = DEFAULT_TENANT, config: Config = None) -> None:
    """Let a user in again."""
    _change_user(config, tenant, name, True)


@users_app.command("disable")
def disable_user(name: Name, tenant: Tenant = DEFAULT_TENANT, config: Config = None) -> None:
    """Lock a user out, and sign them out."""
    _change_user(config, tenant, name, False)


def _change_user(config: Path | None, tenant: str, name: str, enabled: bool) -> None:
    async def work() -> None:
        async with _desk(load(config)) as desk:
            await desk.users.change_user(TenantId(tenant), _actor(), name, {"enabled": enabled})

    _run(work())


@users_app.command("delete")
def delete_user(name: Name, tenant: Tenant = DEFAULT_TENANT, config: Config = None) -> None:
    """Remove a user. Not the last admin."""

    async def work() -> None:
        async with _desk(load(config)) as desk:
            await desk.users.delete_user(TenantId(tenant), _actor(), name)

    _run(work())


def _user(user: User) -> dict[str, Any]:
    return {"name": user.name, "email": user.email, "role": user.role, "enabled": user.enabled}


# --- API keys ---


@api_keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, such as crm.")],
    scope: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(SCOPES)}; repeatable (default: read).")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="It holds (default: for good).")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown here, and nowhere again."""
    import re

    from trunkline.gateway.api.accounts import NAME_PATTERN
    from trunkline.gateway.api.gate import new_key

    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError("NAME", name, "1 to 40 of a-z 0-9 _ -, a letter or digit first")
    scopes = scope or ["read"]
    if unknown := [each for each in scopes if each not in SCOPES]:
        raise ConfigError("--scope", unknown[0], f"of {', '.join(SCOPES)}")
    expires = None if days is None else SYSTEM_CLOCK.wall() + timedelta(days=days)
    secret, key_id, sha256 = new_key()

    async def work() -> Key:
        async with _desk(load(config)) as desk:
            new = NewKey(name, key_id, sha256, frozenset(cast(list[Scope], scopes)), expires_at=expires)
            return await desk.keys.create_key(TenantId(tenant), _actor(), new)

    key = _run(work())
    typer.echo(json.dumps({**_key(key), "key": secret}) if as_json else secret)


@api_keys_app.command("list")
def list_keys(tenant: Tenant = DEFAULT_TENANT, config: Config = None, as_json: AsJson = False) -> None:
    """All of them, by name, without what is secret."""

    async def work() -> Any:
        async with _desk(load(config)) as desk:
            return await desk.keys.keys(TenantId(tenant), limit=LISTED)

    found = [_key(key) for key in _run(work())]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key in found:
        state = "" if key["enabled"] else "disabled "
        until = f"until {key['expires_at'][:16]}" if key["expires_at"] else ""
        used = f"used {key['used_at'][:16]}" if key["used_at"] else "never used"
        typer.echo(f"{key['name']:<24} tlk_{key['id']}_...  {state}{','.join(key['scopes'])}  {used} {until}".rstrip())


@api_keys_app.command("revoke")
def revoke_key(name: Name, tenant: Tenant = DEFAULT_TENANT, config: Config = None) -> None:
    """Delete an API key: a running gateway takes it five seconds longer at most."""

    async def work() -> None:
        async with _desk(load(config)) as desk:
            await desk.keys.delete_key(TenantId(tenant), _actor(), name)

    _run(work())


def _key(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.id,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "enabled": key.enabled,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "used_at": None if key.used_at is None else key.used_at.isoformat(),
    }
