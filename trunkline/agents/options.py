"""The options of a cloud provider: read by its `Keys`, the server's address among them."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from trunkline.agents.script.keys import Keys, fault, nearest
from trunkline.errors import ConfigError


def read(keys: Keys, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every key, given or not. Raises ConfigError naming the key."""
    held = {name: key.default for name, key in keys.items()}
    for name, value in options.items():
        key = keys.get(name)
        if key is None:
            raise ConfigError(name, value, f"unknown key{nearest(name, keys)}")
        if wrong := fault(key, value):
            raise ConfigError(name, value, wrong[1])
        held[name] = value
    for name, key in keys.items():
        if key.required and held[name] is None:
            raise ConfigError(name, None, f"is missing: {key.meaning}")
    return held


def check_url(name: str, url: str, schemes: tuple[str, str]) -> None:
    """Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.username is not None:
        secure, plain = schemes
        raise ConfigError(name, url, f"must start with {secure}:// or {plain}:// and a host, without password")


def on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if re.fullmatch(r"(.+\.)?localhost", host):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
