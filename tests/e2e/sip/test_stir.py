"""A SIP call with a good, a stale and a forged Identity, and one of ours that is signed: one gateway, a CA of our own,
and an HTTPS server that has the signer's certificate."""

import ipaddress
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from trunkline.compliance.stir import certificate, verify
from trunkline.compliance.stir.canonical import who
from trunkline.testing.ports import lease
from trunkline.testing.stir import Authority, Holder, claims

pytestmark = pytest.mark.e2e

NOW = datetime.now(UTC)
# The only other port that a certificate may be fetched from; each worker of the tests has an address of its own.
HOST, PORT = f"127.0.73.{1 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}", 8443
X5U = f"https://{HOST}:{PORT}/sp.pem"
CALLER, CALLED = "15005550006", "15005550001"
ROOT = Authority(NOW)
SIGNER = ROOT.holder(x5u=X5U)
FORGER = Holder(ec.generate_private_key(ec.SECP256R1()), SIGNER.chain, X5U)
AT_ANOTHER_PORT = Holder(SIGNER.key, SIGNER.chain, f"https://{HOST}:8080/sp.pem")
NOWHERE = Holder(SIGNER.key, SIGNER.chain, f"https://{HOST}:{PORT}/none.pem")
STRANGER = Authority(NOW).holder(x5u=f"https://{HOST}:{PORT}/stranger.pem")
SERVED = {"/sp.pem": SIGNER.pem, "/stranger.pem": STRANGER.pem}
ACCEPTED = """
> INVITE sdp @identity
<? 100
<? 180
< 200
> ACK 2xx
. 300
> BYE
< 200
"""
REFUSED = """
> INVITE sdp @identity
<? 100
< {status}
> ACK
"""


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The HTTPS server's own certificate, and what was asked of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    own = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, SHA256())
    )
    file = tmp_path_factory.mktemp("x5u") / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + own.public_bytes(Encoding.PEM))
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = SERVED.get(self.path, b"")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer((HOST, PORT), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield file, asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def peer_port() -> int:
    return lease()


@pytest.fixture(scope="module")
def gateway(
    shared_sip_gateway: Any, fetched: tuple[Path, list[str]], peer_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("stir")
    (folder / "trust").mkdir()
    (folder / "trust/ca.pem").write_bytes(ROOT.pem)
    (folder / "key.pem").write_bytes(SIGNER.key_pem)
    return shared_sip_gateway(
        outbound__allow="US",
        stir__policy="require",
        stir__trust=str(folder / "trust"),
        stir__server_ca=str(fetched[0]),
        stir__allow_private_addresses="true",
        stir__keys__ours__key=str(folder / "key.pem"),
        stir__keys__ours__x5u="https://cert.example.com/ours.pem",
        stir__numbers=json.dumps({"+14155550100": "contract 12"}),
        sip__trunks__carrier__peers="127.0.0.1/32",
        sip__trunks__carrier__country="US",
        sip__trunks__carrier__host=f"127.0.0.1:{peer_port}",
        sip__trunks__carrier__ping_s="0",
        sip__trunks__carrier__caller_id="+14155550100",
        sip__trunks__carrier__stir_sign="true",
    )


def identity(age_s: int = 0, signer: Holder = SIGNER, **more: Any) -> dict[str, str]:
    return {"identity": "Identity: " + signer.identity(claims(CALLER, CALLED, int(time.time()) - age_s) | more)}


def test_a_call_whose_caller_is_vouched_for_is_answered_and_its_record_says_by_whom(
    gateway: Any, sipp: Any, phone: Any, fetched: tuple[Path, list[str]]
) -> None:
    for _ in range(2):
        sipp.call(gateway, ACCEPTED, phone, texts=identity()).ok()
        verdict = gateway.ended().event("stir")
        assert (verdict["verdict"], verdict["attest"], verdict["source"]) == ("passed", "A", "trunkline")
    assert fetched[1] == ["/sp.pem"]  # once: the second call found it kept


@pytest.mark.parametrize(
    ("texts", "status", "phrase", "reason"),
    [
        (lambda: identity(age_s=120), 403, "Stale Date", "stale"),
        (lambda: identity(signer=FORGER), 438, "", "bad_signature"),
        (lambda: identity(orig={"tn": "14155550199"}), 438, "Invalid Identity Header", "orig_mismatch"),
        (lambda: {"identity": "X-None: 1"}, 428, "Use Identity Header", "no_identity"),
        (lambda: identity(signer=AT_ANOTHER_PORT), 436, "Bad Identity Info", "bad_x5u"),
        (lambda: identity(signer=NOWHERE), 436, "Bad Identity Info", "certificate_unavailable"),
        (lambda: identity(signer=STRANGER), 437, "Unsupported Credential", "untrusted_certificate"),
    ],
    ids=["stale", "forged", "of another", "none", "x5u", "no certificate", "no authority of ours"],
)
def test_the_others_are_refused_before_they_ring(
    gateway: Any, sipp: Any, texts: Callable[[], dict[str, str]], status: int, phrase: str, reason: str
) -> None:
    run = sipp.call(gateway, REFUSED.format(status=status), texts=texts()).ok()  # signed now: it is stale in a minute
    assert phrase in run.got(str(status)).start
    record = gateway.ended()
    assert record.end() == ("refused", f"stir_{status}")
    assert record.event("stir")["reason"] == reason
    gateway.is_well()


def test_our_own_call_is_signed(gateway: Any, sipp: Any, phone: Any, peer_port: int) -> None:
    run = sipp.answer(peer_port, "< INVITE\n> 100\n> 486\n< ACK", phone)
    assert gateway.dial(to="+14155550123").status_code == 201
    run.ok()
    header = run.got("INVITE").header("Identity")
    reading = verify.read([header], who("+14155550100"), who("+14155550123"))
    (way,) = reading.ways
    ours = ROOT.holder(public_key=SIGNER.key.public_key())
    found = certificate.credential(ours.chain, (ROOT.certificate,), datetime.now(UTC))
    verdict = verify.judge(reading, {way[0].x5u: found}, datetime.now(UTC))
    assert (verdict.verdict, verdict.attest) == ("passed", "A")
