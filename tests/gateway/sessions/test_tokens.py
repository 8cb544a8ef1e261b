import base64
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.gateway.sessions.tokens import KEY_FILE, MAX_TOKEN_CHARS, Named, issue, key_in, new_key, read
from trunkline.ports import Refuse
from trunkline.types import SessionId

KEY, OTHER = b"k" * 32, b"o" * 32
AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
SOON = AT + timedelta(seconds=60)
NAMED = Named(SessionId("ses_" + "0" * 32), 2, "eu-west", "0")


def refused(token: str, key: bytes = KEY, now: datetime = AT) -> str:
    found = read(key, token, now)
    assert isinstance(found, Refuse), found
    return found.code


def test_a_token_names_its_session_join_region_and_worker() -> None:
    token = issue(KEY, NAMED, SOON)
    assert read(KEY, token, AT) == NAMED
    assert len(token) < MAX_TOKEN_CHARS


def test_a_token_is_good_until_its_time() -> None:
    token = issue(KEY, NAMED, SOON)
    assert read(KEY, token, SOON - timedelta(milliseconds=1)) == NAMED
    assert refused(token, now=SOON) == "token_expired"


def test_what_was_not_signed_with_this_key_is_forged() -> None:
    token = issue(KEY, NAMED, SOON)
    payload, _, mac = token.partition(".")
    body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    body[3] = "ses_of_another"
    changed = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=").decode()
    assert refused(token, OTHER) == "token_forged"
    assert refused(f"{changed}.{mac}") == "token_forged"
    assert refused(f"{payload}.{'A' * 43}") == "token_forged"


@pytest.mark.parametrize("token", ["", ".", "a.b", "x" * 9999, "é.a", issue(KEY, NAMED, SOON) + "\n", "a" * 500 + ".b"])
def test_what_is_no_token_is_malformed(token: str) -> None:
    assert refused(token) == "token_malformed"


def test_a_folder_keeps_its_key_and_nobody_else_reads_it(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    assert key_in(tmp_path) == key
    assert len(key) >= 32
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_key_file_that_is_too_short_is_said_so(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ConfigError, match="at least 32 bytes"):
        key_in(tmp_path)
    with pytest.raises(ConfigError, match="data_dir"):
        key_in(tmp_path / "nowhere")


def test_keys_differ() -> None:
    assert new_key() != new_key()
