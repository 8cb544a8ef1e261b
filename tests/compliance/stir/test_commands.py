"""`trunkline stir`: what it prints, and its exit status: 0 passed, 1 not, 2 nonsense."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trunkline.cli import main
from trunkline.testing.stir import X5U, Authority

NOW = datetime(2026, 11, 28, tzinfo=UTC)
AT = str(int(NOW.timestamp()))
FROM_TO = ["--from", "+14155550100", "--to", "+12125550199"]
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working directory: key, sp, ca and others."""
    root = Authority(NOW)
    holder = root.holder()
    for name, content in {
        "key.pem": holder.key_pem,
        "sp.pem": holder.pem,
        "pub.pem": holder.public_pem,
        "ca.pem": root.pem,
        "other.pem": Authority(NOW).pem,
        "ed.pem": ED25519.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "junk.pem": bytes(range(256)),
    }.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)


def stir(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit status, and what was printed as JSON, or the error's line."""
    with pytest.raises(SystemExit) as ended:
        main(["stir", *arguments])
    told = capsys.readouterr()
    status = int(ended.value.code or 0)
    return status, json.loads(told.out) if told.out else told.err


def signed(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    found = stir(capsys, "sign", "--key", "key.pem", "--x5u", X5U, "--attest", "A", *FROM_TO, "--at", AT, *more)[1]
    return str(found["identity"])


@pytest.mark.usefixtures("files")
def test_what_is_signed_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    header = signed(capsys)
    for value in (header, f"Identity: {header}"):
        given = ["verify", "--identity", value, "--cert", "sp.pem", *FROM_TO]
        status, found = stir(capsys, *given, "--trust", "ca.pem", "--at", AT)
        assert (status, found["verdict"], found["attest"], found["signatures"]) == (0, "passed", "A", [True])
        for more, reason, code in (
            (["--trust", "ca.pem", "--at", str(int(AT) + 61)], "stale", 403),
            (["--trust", "other.pem", "--at", AT], "untrusted_certificate", 437),
            (["--at", AT], "untrusted_certificate", 437),
        ):
            status, found = stir(capsys, *given, *more)
            assert (status, found["verdict"], found["reason"], found["sip_code"]) == (1, "failed", reason, code)


@pytest.mark.usefixtures("files")
def test_without_a_certificate_or_with_a_bare_key_nobody_is_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["verify", "--identity", signed(capsys), *FROM_TO, "--trust", "ca.pem", "--at", AT]
    assert stir(capsys, *given)[1]["reason"] == "certificate_unavailable"
    status, found = stir(capsys, *given, "--cert", "pub.pem")
    assert (status, found["reason"], found["signatures"]) == (1, "bad_certificate", [True])


@pytest.mark.usefixtures("files")
def test_a_chain_and_what_it_entitles_to(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = stir(capsys, "chain", "--cert", "sp.pem", "--trust", "ca.pem", "--at", AT)
    assert (status, found["verdict"], found["providers"]) == (0, "passed", ["1234"])
    status, found = stir(capsys, "chain", "--cert", "sp.pem", "--trust", "other.pem", "--at", AT)
    assert (status, found["reason"], found["sip_code"]) == (1, "untrusted_certificate", 437)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sign", "--key", "key.pem", "--x5u", "http://a.example/x", "--attest", "A", *FROM_TO], "--x5u"),
        (["sign", "--key", "key.pem", "--x5u", X5U, "--attest", "D", *FROM_TO], "--attest"),
        (["sign", "--key", "sp.pem", "--x5u", X5U, "--attest", "A", *FROM_TO], "--key"),
        (["sign", "--key", "none.pem", "--x5u", X5U, "--attest", "A", *FROM_TO], "--key"),
        (
            ["sign", "--key", "key.pem", "--x5u", X5U, "--attest", "A", "--from", "Ann", "--to", "+12125550199"],
            "--from",
        ),
        (["verify", "--identity", "x", "--cert", "junk.pem", *FROM_TO], "--cert"),
        (["verify", "--identity", "x", "--cert", "ed.pem", *FROM_TO], "--cert"),
        (["verify", "--identity", "x", "--cert", "none.pem", *FROM_TO], "--cert"),
        (["verify", "--identity", "x", "--trust", "junk.pem", *FROM_TO], "--trust"),
        (["verify", "--identity", "x", *FROM_TO, "--at", "9" * 18], "--at"),
        (["chain", "--cert", "pub.pem"], "--cert"),
    ],
)
def test_nonsense_is_one_line_that_names_the_option(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    status, told = stir(capsys, *arguments)
    assert status == 2
    assert told.startswith(f"trunkline: {named} = ")
    assert told.count("\n") == 1
