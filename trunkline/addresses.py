"""Which addresses may be connected to where somebody else named the host: an agent's `http` tool, a caller's x5u.
Names are resolved first; only the result is judged."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_SITE_LOCAL = IPv6Network("fec0::/10")  # RFC 3879: deprecated, which makes it no more public
_IPV4_COMPATIBLE = IPv6Network("::/96")  # RFC 4291 2.5.5.1, deprecated, still routed by some stacks


def forbidden(address: str, *, allow_private: bool = False) -> str | None:
    """Why `address` must not be connected to, or None. `allow_private` opens loopback and private networks, but never
    link-local (where clouds keep their credentials), multicast or reserved ranges."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return "not an address"
    inner = _embedded(found)
    if inner is not None:
        return forbidden(str(inner), allow_private=allow_private)
    if found.is_unspecified:
        return "the unspecified address"
    if found.is_multicast:
        return "a multicast address"
    if found.is_link_local:
        return "a link-local address"
    if found.is_loopback:
        return None if allow_private else "a loopback address"
    if found in _NAT64_LOCAL or found in _SITE_LOCAL:
        return None if allow_private else "a private address"
    if found.is_reserved or found == IPv4Address("255.255.255.255"):
        return "a reserved address"
    if not found.is_global:  # private use, carrier NAT, benchmarks, documentation, site-local
        return None if allow_private else "a private address"
    return None


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address only wraps."""
    if isinstance(address, IPv4Address):
        return None
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return last
    if address in _IPV4_COMPATIBLE and int(address) > 1:
        return last
    return None
