import json
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import ImmutableMultiDict

from trunkline.gateway.twilio.signature import Signatures, socket_origin

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "twilio" / "signatures.json").read_text())
TOKEN = VECTORS["auth_token"]
FIRST = VECTORS["published"][0]


def params(row: dict[str, Any]) -> ImmutableMultiDict[str, str]:
    given = FIRST["params"] if row["params"] == "same" else row["params"]
    return ImmutableMultiDict([(k, v) for k, v in (given if isinstance(given, list) else given.items())])


def split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"


# The row with a body is a JSON webhook; voice webhooks are forms.
@pytest.mark.parametrize("row", [row for row in VECTORS["published"] if "params" in row], ids=lambda row: row["url"])
def test_published_signatures_are_accepted(row: dict[str, Any]) -> None:
    origin, target = split(row["url"])
    assert Signatures([TOKEN], origin).valid(target, params(row), row["signature"])


@pytest.mark.parametrize("row", VECTORS["published"][1:4:2], ids=lambda row: row["url"])
def test_the_schemes_own_port_may_be_written_or_not(row: dict[str, Any]) -> None:
    origin, target = split(row["url"])
    assert Signatures([TOKEN], origin.rpartition(":")[0]).valid(target, params(row), row["signature"])
    assert Signatures([TOKEN], "https://mycompany.com:443").valid(target, params(row), FIRST["signature"])


@pytest.mark.parametrize("row", VECTORS["computed"], ids=lambda row: f"{row['algorithm']} {row['url']}")
def test_sockets_and_sha256(row: dict[str, Any]) -> None:
    origin, target = split(row["url"])
    signatures = Signatures([TOKEN], origin.replace("wss", "https"))
    header = f"key=x,algorithm={row['algorithm']}"
    if origin.startswith("wss"):
        assert signatures.valid_socket(target.rstrip("/"), row["signature"], header)
        assert not signatures.valid_socket("/other", row["signature"], header)
    else:
        assert signatures.valid(target, params(row), row["signature"], header)


def test_another_host_path_field_algorithm_or_token_is_refused() -> None:
    form, signature = params(FIRST), FIRST["signature"]
    origin, target = split(FIRST["url"])
    signatures = Signatures([TOKEN], origin)
    more = ImmutableMultiDict([*form.multi_items(), ("Extra", "1")])
    assert not Signatures([TOKEN], "https://other.com").valid(target, form, signature)
    assert not Signatures(["54321"], origin).valid(target, form, signature)
    assert not signatures.valid(target + "&x=1", form, signature)
    assert not signatures.valid(target, more, signature)
    assert not signatures.valid(target, form, "")
    assert not signatures.valid(target, form, "é" + signature)
    assert not signatures.valid(target, form, signature, "key=x,algorithm=HMAC_SHA256")
    assert not signatures.valid(target, form, signature, "key=x,algorithm=none")


@pytest.mark.parametrize("tokens", [["old", TOKEN], [TOKEN, "new"]])
def test_during_a_rotation_every_token_counts(tokens: list[str]) -> None:
    origin, target = split(FIRST["url"])
    assert Signatures(tokens, origin).valid(target, params(FIRST), FIRST["signature"])


def test_without_a_token_nothing_is_checked() -> None:
    assert not Signatures([], "http://127.0.0.1").required
    assert Signatures([], "http://127.0.0.1").valid("/", {}, "")


def test_socket_origins() -> None:
    assert socket_origin("https://a.com") == "wss://a.com"
    assert socket_origin("http://127.0.0.1:8080") == "ws://127.0.0.1:8080"
