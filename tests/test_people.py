"""`trunkline users` and `trunkline api-keys`, on a folder of their own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.gateway.console.accounts import Accounts as Console
from trunkline.gateway.console.accounts import SignedIn
from trunkline.gateway.console.passwords import Passwords
from trunkline.store.accounts import Accounts
from trunkline.store.engine import Database, database_url

WORDS = "seven green kettles"


def run(folder: Path, *arguments: str, typed: str | None = None) -> tuple[int, str]:
    config = folder / "trunkline.toml"
    config.write_text(f'data_dir = "{folder}"\n')
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)], input=typed)
    if isinstance(result.exception, ConfigError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def shown(folder: Path, *arguments: str) -> Any:
    return json.loads(run(folder, *arguments, "--json")[1])


def test_the_first_admin_is_made_with_a_link(tmp_path: Path) -> None:
    made = shown(tmp_path, "users", "create", "--admin", "Ann@example.com")
    assert (made["name"], made["role"]) == ("ann", "admin")
    token = made["link"].partition("/console/link?token=")[2]

    async def follow() -> None:
        database, passwords = Database(database_url(None, tmp_path)), Passwords()
        await database.upgrade()
        console = Console(Accounts(database, SYSTEM_CLOCK), passwords, SYSTEM_CLOCK)
        assert isinstance(await console.by_link(token, WORDS), SignedIn)
        assert isinstance(await console.sign_in("ann@example.com", WORDS, "192.0.2.1"), SignedIn)
        assert await console.setup_token() is None
        passwords.close()
        await database.close()

    asyncio.run(follow())
    code, said = run(tmp_path, "users", "disable", "ann")
    assert (code, "last admin" in said) == (2, True)
    assert run(tmp_path, "users", "create", "ann@example.com")[0] == 2


def test_a_password_may_be_typed_in(tmp_path: Path) -> None:
    code, said = run(tmp_path, "users", "create", "bob@example.com", "--password", typed=f"{WORDS}\n{WORDS}\n")
    assert (code, "link" in said) == (0, False)
    code, said = run(tmp_path, "users", "create", "eve@example.com", "--password", typed="short\nshort\n")
    assert (code, said) == (2, "password = '(hidden)': at least 12 characters")
    assert [user["name"] for user in shown(tmp_path, "users", "list")] == ["bob"]
    assert run(tmp_path, "users", "delete", "bob")[0] == 0
    assert run(tmp_path, "users", "link", "bob")[0] == 2


def test_a_key_is_shown_once_and_revoked(tmp_path: Path) -> None:
    made = shown(tmp_path, "api-keys", "create", "crm", "--scope", "read", "--scope", "calls", "--days", "30")
    assert made["key"].startswith(f"tlk_{made['id']}_")
    assert made["scopes"] == ["read", "calls"]
    listed = run(tmp_path, "api-keys", "list")[1]
    assert (made["id"] in listed, made["key"] in listed) == (True, False)
    assert run(tmp_path, "api-keys", "revoke", "crm")[0] == 0
    assert shown(tmp_path, "api-keys", "list") == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("users", "create", "ann"),
        ("users", "create", "ann@example.com", "--role", "boss"),
        ("api-keys", "create", "Big Name"),
        ("api-keys", "create", "crm", "--scope", "all"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    code, said = run(tmp_path, *wrong)
    assert code == 2
    assert wrong[-1] in said
