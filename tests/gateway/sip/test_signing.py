"""Our own calls signed: whose keys, whose numbers, and files that are replaced while the gateway runs."""

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trunkline.compliance.stir.sign import Rights, SigningKey
from trunkline.compliance.stir.token import Passport, parse_token
from trunkline.compliance.stir.verify import is_signed
from trunkline.errors import ConfigError
from trunkline.gateway.sip import rereading, signing
from trunkline.gateway.sip.signing import Signer, open_signer
from trunkline.gateway.sip.trunks import Trunk
from trunkline.settings import Stir
from trunkline.testing.clock import ManualClock
from trunkline.testing.stir import X5U, Authority, Holder, authority, one
from trunkline.types import E164

OUT = Trunk("carrier", (ip_network("198.51.100.0/24"),), country="US", ping_s=0, stir_sign=True, host="sip.example.com")
OURS, CALLEE = E164("+14155550100"), E164("+12125550199")


def signers(clock: ManualClock, folder: Path, *holders: tuple[str, Holder, int], **more: Any) -> Signer:
    """`holders`: name, key, and in how many days it begins to sign."""
    keys = {}
    for name, holder, days in holders:
        (folder / f"{name}.key").write_bytes(holder.key_pem)
        (folder / f"{name}.pem").write_bytes(holder.pem)
        keys[name] = {
            "key": folder / f"{name}.key",
            "certificate": folder / f"{name}.pem",
            "x5u": f"https://cert.example.com/{name}.pem",
            "not_before": clock.wall() + timedelta(days=days),
        }
    found = open_signer(Stir.model_validate({"keys": keys, "numbers": {OURS: "contract 12"}, **more}), clock)
    assert found is not None
    return found


def signed(signer: Signer, caller: E164 = OURS, *, forwarded: bool = False) -> Passport | None:
    headers = signer.headers(OUT, caller, CALLEE, forwarded=forwarded)
    return parse_token(headers[0][1].partition(";")[0]) if headers else None


def test_the_next_key_signs_when_its_day_has_come_while_the_gateway_runs(tmp_path: Path) -> None:
    clock = ManualClock()
    authority = Authority(clock.wall())
    signer = signers(clock, tmp_path, ("old", authority.holder(), -30), ("new", authority.holder(), 1))
    first, second = signed(signer), signed(signer)
    assert first is not None
    assert second is not None
    assert (first.attest, first.x5u) == ("A", "https://cert.example.com/old.pem")
    assert first.origid != second.origid
    clock.advance(86_401)
    found = signed(signer)
    assert found is not None
    assert found.x5u == "https://cert.example.com/new.pem"


def test_a_certificate_that_has_run_out_signs_nothing_and_says_so_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    holder = Authority(clock.wall()).holder(valid=(timedelta(days=-1), timedelta(days=1)))
    signer = signers(clock, tmp_path, ("spring", holder, -1))
    assert signed(signer) is not None
    assert not caplog.records
    clock.advance(2 * 86_400)
    assert [signed(signer) for _ in range(3)] == [None] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "calls go out unsigned: stir.keys.spring: its certificate is not valid" in caplog.text
    clock.advance(61)
    assert signed(signer) is None
    assert len(caplog.records) == 2


def test_nothing_is_signed_for_a_number_that_is_not_in_the_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    holder = Authority(clock.wall()).holder(tn_auth_list=authority(one("14155550101")))
    assert signed(signers(clock, tmp_path, ("k", holder, -1))) is None
    assert "does not hold the number" in caplog.text
    assert "14155550100" not in caplog.text


def test_a_certificate_of_another_key_is_told_at_the_start(tmp_path: Path) -> None:
    clock = ManualClock()
    holder = Authority(clock.wall()).holder()
    other = Holder(ec.generate_private_key(ec.SECP256R1()), holder.chain)
    with pytest.raises(ConfigError, match=r"stir.keys.k.certificate.*another key"):
        signers(clock, tmp_path, ("k", other, -1))


NUMBERS = st.integers(min_value=2_000_000_000, max_value=9_999_999_999).map(lambda n: E164(f"+1{n}"))


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.booleans(), st.sampled_from(["none", "B", "C"]), st.sampled_from(["none", "C"]))
def test_a_number_that_is_not_ours_is_never_signed_with_an_a(
    number: E164, forwarded: bool, unlisted: str, passing: str
) -> None:
    """Nor is a number that begins or ends as ours does."""
    clock = ManualClock()
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()), X5U, clock.wall())
    rights = Rights({OURS: "contract 12"}, *(None if it == "none" else it for it in (unlisted, passing)))  # type: ignore[arg-type]
    signer = Signer([key], rights, clock)
    for caller in (number, E164(f"{OURS}1"), E164(OURS[:-1])):
        found = signed(signer, caller, forwarded=forwarded)
        expected = passing if forwarded else unlisted
        if caller == OURS:
            expected = "A"
        assert (found.attest if found else "none") == expected
    found = signed(signer, OURS, forwarded=forwarded)
    assert found is not None
    assert found.attest == "A"


# --- files that are replaced while it runs --------------------------------------------------------------------------


class Files:
    """A key and its certificate, watched by a signer that looks again all the time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(rereading, "READ_AGAIN_S", 0.01)
        caplog.set_level(logging.INFO, signing.__name__)
        self.clock, self._caplog, self._written = ManualClock(), caplog, iter(range(1, 100))
        self.authority = Authority(self.clock.wall())
        self.key, self.certificate = folder / "k.key", folder / "k.pem"
        self.write(first := self.authority.holder())
        self.first = first
        files = {"key": self.key, "certificate": self.certificate, "x5u": "https://cert.example.com/{sha256}.pem"}
        found = open_signer(Stir.model_validate({"keys": {"k": files}, "numbers": {OURS: "contract 12"}}), self.clock)
        assert found is not None
        self.signer = found

    def write(self, holder: Holder) -> None:
        self.put(self.key, holder.key_pem)
        self.put(self.certificate, holder.pem)

    def put(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        os.utime(file, ns=(0, next(self._written)))

    async def logged(self, words: str) -> None:
        async with asyncio.timeout(10):
            while words not in self._caplog.text:
                await asyncio.sleep(0.01)
        self._caplog.clear()

    def signs_by(self, holder: Holder) -> bool:
        """And says where that certificate is."""
        token = signed(self.signer)
        assert token is not None
        url = f"https://cert.example.com/{holder.chain[0].fingerprint(SHA256()).hex()}.pem"
        return is_signed(token, holder.key.public_key()) and token.x5u == url


def test_a_key_and_its_certificate_are_replaced_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path, monkeypatch, caplog)

    async def scenario() -> None:
        second = files.authority.holder()
        files.signer.start()
        await asyncio.sleep(0.1)
        assert files.signs_by(files.first)
        files.put(files.key, second.key_pem)
        await files.logged("the signing keys read last stay in force: stir.keys.k.certificate")
        assert files.signs_by(files.first)  # until its certificate comes, too
        files.put(files.certificate, second.pem)
        await files.logged("1 signing keys are in force")
        assert files.signs_by(second)
        files.signer.close()

    asyncio.run(scenario())


def test_broken_files_leave_the_last_good_ones_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path, monkeypatch, caplog)
    first, second = files.first, files.authority.holder()

    def another_that_is_none() -> None:
        files.write(first)
        files.put(files.certificate, b"\0" * 99)

    broken: list[tuple[str, Callable[[], object]]] = [
        ("key", lambda: files.put(files.key, b"")),
        ("key", lambda: files.put(files.key, first.key_pem[:-30])),
        ("key", files.key.unlink),
        ("certificate", another_that_is_none),
        ("certificate", lambda: files.put(files.certificate, second.pem)),
        ("certificate", files.certificate.unlink),
    ]

    async def scenario() -> None:
        files.signer.start()
        await asyncio.sleep(0.1)
        for named, break_it in broken:
            break_it()
            await files.logged(f"the signing keys read last stay in force: stir.keys.k.{named}")
            assert files.signs_by(first)
        files.write(second)
        await files.logged("1 signing keys are in force")
        assert files.signs_by(second)
        files.signer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("x5u", "named"),
    [("https://cert.example.com/{sha256}.pem", "needs certificate"), ("https://cert.example.com/{name}", "no braces")],
)
def test_a_url_with_a_place_for_a_fingerprint_needs_one(tmp_path: Path, x5u: str, named: str) -> None:
    (tmp_path / "k.key").write_bytes(Authority(ManualClock().wall()).holder().key_pem)
    with pytest.raises(ValidationError, match=named):
        Stir.model_validate({"keys": {"k": {"key": tmp_path / "k.key", "x5u": x5u}}})
