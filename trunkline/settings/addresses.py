"""Addresses as an admin writes them: IPs and networks, hosts with ports, origins."""

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from trunkline.settings.values import Int, Texts, listed


def is_loopback(host: str) -> bool:
    address = _ip(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _own_address(value: str) -> str:
    address = _ip("127.0.0.1" if value == "localhost" else value.strip("[]"))
    if address is None:
        raise ValueError("an IP address of this machine; 0.0.0.0 is all of them")
    return str(address)


def _public_address(value: str) -> str:
    address = _ip(value.strip("[]"))
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError("the IP address that peers reach us at")
    return str(address)


def _networks(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    items = listed(value)
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("IP addresses or networks, such as 192.0.2.10, 198.51.100.0/24")
    return tuple(_network(item.strip()) for item in items)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        if re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*", text):
            raise ValueError(
                f"IP addresses or networks; a name may come to mean another machine, so look it up (dig +short {text}) "
                "and write its addresses"
            ) from error
        raise ValueError("IP addresses or networks, such as 192.0.2.10, 198.51.100.0/24") from error
    if network.network_address != ipaddress.ip_interface(text).ip:
        raise ValueError(f"a network begins at its first address: {network} instead of {text}")
    return network


def _split_port(text: str) -> tuple[str, str | None]:
    """[::1]:53, 192.0.2.1:53; an IPv6 address without brackets has no port."""
    if text.startswith("[") or text.count(":") == 1:
        host, colon, port = text.rpartition(":")
        if colon and not text.endswith("]"):
            return host, port
    return text, None


def _is_port(text: str | None) -> bool:
    """One from 1 to 65535, or none at all."""
    return text is None or (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535)


def _name_servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        host, port = _split_port(server)
        if _ip(host.strip("[]")) is None or not _is_port(port):
            raise ValueError("IP or IP:PORT of DNS servers, such as 192.0.2.53, [2001:db8::53]:5353")
    return servers


def _host_port(value: str) -> str:
    host, port = _split_port(value)
    name = re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?", host)
    if not name and not (host.startswith("[") and host.endswith("]") and _ip(host[1:-1])):
        raise ValueError("HOST or HOST:PORT, such as sip.example.com:5060 (IPv6 in brackets)")
    if not _is_port(port):
        raise ValueError("HOST or HOST:PORT with a port from 1 to 65535")
    return value


def public_origin(url: str) -> str:
    allowed = "an https origin without a path, such as https://voice.example.com (http only for loopback)"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(allowed) from error
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or ""))
    if not host or not bare or not secure or any(c.isspace() for c in url):
        raise ValueError(allowed)
    return origin(parts.scheme, host, port)


def origin(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port else "")


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")) or not urlsplit(value).hostname:
        raise ValueError("an http:// or https:// URL")
    return value.rstrip("/")


Port = Annotated[Int, Field(ge=1, le=65535)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
HostPort = Annotated[str, AfterValidator(_host_port)]
OwnAddress = Annotated[str, AfterValidator(_own_address)]
PublicAddress = Annotated[str, AfterValidator(_public_address)]
NameServers = Annotated[Texts, AfterValidator(_name_servers)]
Origin = Annotated[str, AfterValidator(public_origin)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
