import base64
import hashlib
import hmac

import pytest

from trunkline.gateway.webrtc.ice import IceServer, credentials, links, read


def test_urls_of_rfc_7064_and_7065() -> None:
    assert read("stun:192.0.2.1") == IceServer("stun", "192.0.2.1", 3478, "udp", "stun:192.0.2.1")
    assert read("turns:relay.example.com") == IceServer(
        "turns", "relay.example.com", 5349, "tcp", "turns:relay.example.com"
    )
    server = read("turn:[2001:db8::1]:443?transport=tcp")
    assert (server.host, server.port, server.transport, server.tls) == ("2001:db8::1", 443, "tcp", False)


@pytest.mark.parametrize("url", ["", "http://x", "stun:", "turn:a b", "turn:x:99999", "stun:x?transport=tcp"])
def test_others_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="turn:HOST"):
        read(url)


def test_credentials_end_and_are_what_coturn_computes() -> None:
    given = credentials("s3cret", "device", 1_800_000_000)
    assert given.username == "1800000000:device"
    expected = base64.b64encode(hmac.new(b"s3cret", given.username.encode(), hashlib.sha1).digest()).decode()
    assert given.password == expected
    assert "s3cret" not in repr(given)
    assert given.password not in repr(given)


def test_only_relays_get_them() -> None:
    stun, turn = links([read("stun:a.example"), read("turn:b.example")], credentials("s", "d", 1))
    assert stun == '<stun:a.example>; rel="ice-server"'
    assert turn.startswith('<turn:b.example>; rel="ice-server"; username="1:d"; credential="')
