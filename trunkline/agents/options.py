"""The options of a provider that is a server: read by its `Keys`, the server's address among them.

Who holds the server holds what callers say: it is a third party unless it is on this machine, or the file says that it
is ours (`third_party = false`: a server of our own in a network of our own).
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.errors import ConfigError

THIRD_PARTY = Key("flag", "Whether the server is another company's. Without it: all but those on this machine are.")


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


def is_third_party(url: str, said: bool | None) -> bool:
    """`said`: the option, None where the file does not say."""
    return not on_this_machine(url) if said is None else said


def on_this_machine(url: str) -> bool:
    """By its name alone: one that is looked up may lead anywhere."""
    host = urlsplit(url).hostname or ""
    if re.fullmatch(r"(.+\.)?localhost", host):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
