"""Where a certificate may be fetched from. The caller chose the URL: the rules of ATIS-1000074 and -1000080, whole."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from trunkline.compliance.stir.reasons import Rejected

PORTS = (443, 8443)


def check_x5u(url: str) -> str:
    """Its host. Raises Rejected. An address in place of a name is judged as any: by what it is, when it is connected
    to."""
    if not url.isascii() or any(char <= " " or char in '\\"<>^`{|}\x7f' for char in url):
        raise Rejected("bad_x5u", "characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Rejected("bad_x5u", "not a URL") from None
    if parts.scheme != "https" or not url.startswith("https://"):
        raise Rejected("bad_x5u", "not https")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise Rejected("bad_x5u", "a user, query or fragment")
    host = parts.hostname
    if not host or len(host) > 253:
        raise Rejected("bad_x5u", "no host")
    if port is None and parts.netloc.endswith(":"):
        raise Rejected("bad_x5u", "an empty port")
    if (port or 443) not in PORTS:
        raise Rejected("bad_x5u", "another port than 443 and 8443")
    if "." not in host and ":" not in host:
        raise Rejected("bad_x5u", "a host without a domain")
    if _looks_numeric(host):
        raise Rejected("bad_x5u", "a host written as a number")
    return host


def _looks_numeric(host: str) -> bool:
    """0x7f.1, 017700000001 and the like: an address to some resolvers, and a name to `ip_address`."""
    try:
        ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        return last.isdecimal() or last.startswith("0x")
    return False
